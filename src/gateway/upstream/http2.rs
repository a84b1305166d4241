//! One stream of a connection that carries many over HTTP/2 (RFC 9113). The connection itself runs in a task of its own, the stream in that
//! of its call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Method;
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::{Broke, NoAnswer, Outbound, Wire};
use crate::gateway::body::Uploading;
use crate::gateway::http2::{Bounds, Driver, Held, Reason, Refused, Shared, Side, put_request};
use crate::gateway::message::AnswerHead;

/// Streams on one connection before another is opened.
const STREAMS_MOST: usize = 100;
const STREAM_WINDOW: u32 = 256 * 1024;
/// What a service may send ahead, and in the head of an answer. All streams together may have all that they may have each: some whose
/// clients do not read must not keep the others, which are of other clients, from coming.
const BOUNDS: Bounds = Bounds {
    stream_window: STREAM_WINDOW,
    connection_window: STREAM_WINDOW * STREAMS_MOST as u32,
    streams: STREAMS_MOST as u32,
    head_bytes: 256 * 1024,
};

/// A connection on which streams can be begun.
#[derive(Clone)]
pub struct Line {
    shared: Shared,
    _users: Arc<Users>,
}

/// Once the last of them is gone, the connection ends with its last stream.
struct Users(Shared);

impl Drop for Users {
    fn drop(&mut self) {
        self.0.lock().finish();
    }
}

pub struct Roundtrip {
    state: State,
    upload: Option<Upload>,
    pub timer: Option<Pin<Box<Sleep>>>,
}

enum State {
    /// Not begun: whether the connection stands is not known.
    Opening(Box<Opening>),
    Open(Held),
    Over,
}

struct Opening {
    line: Line,
    request: Outbound,
    scheme: Scheme,
}

struct Upload {
    body: Uploading,
    /// The last of it was handed on.
    is_last: bool,
}

impl Line {
    /// Greets the service, and runs the connection in a task of its own until the last of these lines is gone.
    pub fn open(wire: Wire) -> Self {
        let shared = Shared::new(Side::Client, BOUNDS);
        let mut driver = Driver::new(wire, shared.clone());
        tokio::spawn(async move {
            // Nobody begins a stream on our side of a client.
            if let Err(error) = std::future::poll_fn(|cx| driver.poll(cx, |_, _| {})).await {
                tracing::debug!(%error, "an upstream connection ended early");
            }
        });
        Self { _users: Arc::new(Users(shared.clone())), shared }
    }

    /// Whether another stream would not have to wait for one to end.
    pub fn has_room(&self) -> bool {
        self.shared.lock().has_room(STREAMS_MOST)
    }

    /// Neither side has closed the connection, or is about to.
    pub fn stands(&self) -> bool {
        self.shared.lock().stands()
    }

    /// Nobody uses it.
    pub fn is_quiet(&self) -> bool {
        self.shared.lock().is_quiet()
    }

    pub fn begin(self, request: Outbound, scheme: Scheme) -> Box<Roundtrip> {
        let state = State::Opening(Box::new(Opening { line: self, request, scheme }));
        Box::new(Roundtrip { state, upload: None, timer: None })
    }
}

impl Opening {
    /// Begins the stream; the request comes back where the connection takes none.
    fn open(self) -> Result<(Held, Option<Upload>), Box<Outbound>> {
        let Self { line: Line { shared, .. }, request, scheme } = self;
        let mut link = shared.lock();
        if !link.stands() {
            return Err(Box::new(request));
        }
        let number = link.open(request.method == Method::HEAD);
        let Outbound { method, path, authority, fields, stamp, body } = request;
        let ends = body.is_end_stream();
        let length = body.size_hint().exact().filter(|length| *length > 0);
        link.put_head(number, ends, |into| {
            put_request(&method, &scheme, (authority.as_ref(), &path), &fields, (&stamp, length), into);
        });
        drop(link);
        let upload = (!ends).then_some(Upload { body, is_last: false });
        Ok((Held::new(&shared, number, true), upload))
    }
}

impl Roundtrip {
    /// As [`super::Roundtrip::poll_head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, NoAnswer>> {
        if let State::Opening(_) = self.state
            && let State::Opening(opening) = std::mem::replace(&mut self.state, State::Over)
        {
            match opening.open() {
                Ok((held, upload)) => (self.state, self.upload) = (State::Open(held), upload),
                Err(request) => return Poll::Ready(Err(NoAnswer::Unsent(request))),
            }
        }
        let _ = self.poll_send(cx)?;
        let State::Open(held) = &self.state else {
            return Poll::Ready(Err(Broke::Closed.into()));
        };
        held.poll_answer(cx).map_err(|error| Broke::Http2(error).into())
    }

    /// As [`super::Roundtrip::poll_frame`].
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if self.upload.is_some() {
            // What is still on its way does not keep the answer.
            let _ = self.poll_send(cx)?;
        }
        match &self.state {
            State::Open(held) => held.poll_frame(cx).map_err(Broke::Http2),
            _ => Poll::Ready(None),
        }
    }

    pub fn is_end_stream(&self) -> bool {
        if let State::Open(held) = &self.state { held.is_end_stream() } else { true }
    }

    pub fn size_hint(&self) -> SizeHint {
        if let State::Open(held) = &self.state { held.size_hint() } else { SizeHint::with_exact(0) }
    }

    /// Whether the service is still to get something of the request.
    pub fn is_sending(&self) -> bool {
        self.upload.is_some()
    }

    /// Sends what the client has sent, as far as the service has room. Ready: nothing is left to be sent, be it that the service takes
    /// no more. An error: the client broke off.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        let State::Open(held) = &self.state else {
            return Poll::Ready(Ok(()));
        };
        while let Some(upload) = &mut self.upload {
            match ready!(held.poll_sent(cx)) {
                Ok(()) if upload.is_last => self.upload = None,
                Ok(()) => {
                    if let Err(broke) = ready!(upload.poll_piece(held, cx)) {
                        held.reset(Reason::CANCEL);
                        self.upload = None;
                        return Poll::Ready(Err(broke));
                    }
                }
                // Why, is said where the answer is read.
                Err(Refused) => {
                    upload.body.is_cut_short();
                    self.upload = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Upload {
    /// Hands one piece on.
    fn poll_piece(&mut self, held: &Held, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
            held.data(Bytes::new(), true);
            self.is_last = true;
            return Poll::Ready(Ok(()));
        };
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                self.is_last = self.body.is_end_stream();
                held.data(data, self.is_last);
            }
            Ok(Err(frame)) => {
                held.trailers(frame.trailers_ref());
                self.is_last = true;
            }
            Err(_) => return Poll::Ready(Err(Broke::Upload)),
        }
        Poll::Ready(Ok(()))
    }
}
