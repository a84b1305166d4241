//! One stream of a connection that carries many over HTTP/2 (RFC 9113). The connection itself runs in a task of its own, the stream in that
//! of its call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Broke, NoAnswer, Outbound, Wire};
use crate::gateway::http2::{Bounds, Driver, Error, Held, Reason, Refused, Shared, Side, put_request};
use crate::gateway::message::AnswerHead;

/// Streams on one connection before another is opened.
const STREAMS_MOST: usize = 100;
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of a body that are kept until there is an answer.
const KEPT_MOST: usize = 64 * 1024;
/// What a service may send ahead, and in the head of an answer. All streams together may have all that they may have each: some whose
/// clients do not read must not keep the others, which are of other clients, from coming.
const BOUNDS: Bounds = Bounds {
    stream_window: STREAM_WINDOW,
    connection_window: STREAM_WINDOW * STREAMS_MOST as u32,
    streams: STREAMS_MOST as u32,
    head_bytes: 256 * 1024,
    head_within: Duration::from_secs(60),
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
    /// As long as something of it is to be sent, or it may have to be sent again.
    call: Option<Box<Call>>,
    /// Since when an answer is waited for, where the service had the whole request at once.
    awaited: Option<Instant>,
    pub timer: Option<Pin<Box<Sleep>>>,
}

enum State {
    /// Not begun: whether the connection stands is not known.
    Opening(Line),
    Open(Held),
    Over,
}

struct Call {
    request: Outbound,
    scheme: Scheme,
    upload: Upload,
    /// What of the body was handed on, for the case that it has to be sent again. Gone once it cannot be.
    kept: Option<Vec<u8>>,
}

/// How far the body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Upload {
    Sending,
    /// The last of it was handed on.
    Last,
    Over,
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

    /// `now` is when this attempt begins.
    pub fn begin(self, request: Outbound, scheme: Scheme, now: Instant) -> Box<Roundtrip> {
        let call = Box::new(Call { request, scheme, upload: Upload::Sending, kept: Some(Vec::new()) });
        Box::new(Roundtrip { state: State::Opening(self), call: Some(call), awaited: Some(now), timer: None })
    }
}

impl Call {
    /// Begins the stream; `None` where the connection takes none.
    fn open(&mut self, Line { shared, .. }: &Line) -> Option<Held> {
        let Outbound { method, path, authority, fields, stamp, body } = &self.request;
        let mut link = shared.lock();
        if !link.stands() {
            return None;
        }
        let number = link.open(*method == Method::HEAD);
        let ends = body.is_end_stream();
        let length = body.size_hint().exact().filter(|length| *length > 0);
        link.put_head(number, ends, |into| {
            put_request(method, &self.scheme, (authority.as_ref(), path), fields, (stamp, length), into);
        });
        drop(link);
        if ends {
            self.upload = Upload::Over;
        }
        Some(Held::new(shared, number, true))
    }

    /// As it was before anything of it was sent; `None` where that is not there any more.
    fn again(mut self: Box<Self>) -> Option<Box<Outbound>> {
        self.request.body.begin_again(self.kept.take()?);
        Some(Box::new(self.request))
    }

    fn keep(&mut self, data: &[u8]) {
        match &mut self.kept {
            Some(kept) if kept.len() + data.len() <= KEPT_MOST => kept.extend_from_slice(data),
            kept => *kept = None,
        }
    }

    /// Hands one piece on.
    fn poll_piece(&mut self, held: &Held, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        let body = &mut self.request.body;
        let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)) else {
            held.data(Bytes::new(), true);
            self.upload = Upload::Last;
            return Poll::Ready(Ok(()));
        };
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                let is_last = body.is_end_stream();
                self.keep(&data);
                held.data(data, is_last);
                if is_last {
                    self.upload = Upload::Last;
                }
            }
            Ok(Err(frame)) => {
                held.trailers(frame.trailers_ref());
                (self.upload, self.kept) = (Upload::Last, None);
            }
            Err(_) => return Poll::Ready(Err(Broke::Upload)),
        }
        Poll::Ready(Ok(()))
    }
}

impl Roundtrip {
    /// As [`super::Roundtrip::poll_head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, NoAnswer>> {
        if let State::Opening(line) = &self.state
            && let Some(mut call) = self.call.take()
        {
            match call.open(line) {
                Some(held) => (self.state, self.call) = (State::Open(held), Some(call)),
                None => return Poll::Ready(Err(NoAnswer::Unsent(Box::new(call.request)))),
            }
        }
        let _ = self.poll_send(cx)?;
        if self.is_sending() {
            self.awaited = None;
        }
        let State::Open(held) = &self.state else {
            return Poll::Ready(Err(Broke::Closed.into()));
        };
        match ready!(held.poll_answer(cx)) {
            Ok(head) => {
                self.awaited = None;
                self.cannot_be_sent_again();
                Poll::Ready(Ok(head))
            }
            Err(error) => Poll::Ready(Err(self.no_answer(error))),
        }
    }

    /// What the service has answered is not sent again; what is still to be sent goes on.
    fn cannot_be_sent_again(&mut self) {
        match &mut self.call {
            Some(call) if call.upload != Upload::Over => call.kept = None,
            call => *call = None,
        }
    }

    /// The stream ended before its answer. Where the service has done nothing with the call, it is as good as not sent.
    fn no_answer(&mut self, error: Error) -> NoAnswer {
        (self.state, self.awaited) = (State::Over, None);
        let call = self.call.take().filter(|_| error.says_unprocessed());
        match call.and_then(Call::again) {
            Some(request) => NoAnswer::Refused(request),
            None => Broke::Http2(error).into(),
        }
    }

    /// As [`super::Roundtrip::poll_frame`].
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if self.is_sending() {
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
        self.call.as_ref().is_some_and(|call| call.upload != Upload::Over)
    }

    /// Sends what the client has sent, as far as the service has room. Ready: nothing is left to be sent, be it that the service takes
    /// no more. An error: the client broke off.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        let (State::Open(held), Some(call)) = (&self.state, &mut self.call) else {
            return Poll::Ready(Ok(()));
        };
        while call.upload != Upload::Over {
            match ready!(held.poll_sent(cx)) {
                Ok(()) if call.upload == Upload::Last => call.upload = Upload::Over,
                Ok(()) => match call.poll_piece(held, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(broke)) => {
                        held.reset(Reason::CANCEL);
                        call.upload = Upload::Over;
                        return Poll::Ready(Err(broke));
                    }
                    // Where the service takes no more, the client need not go on.
                    Poll::Pending => {
                        let _ = ready!(held.poll_broken(cx));
                    }
                },
                // Why, is said where the answer is read.
                Err(Refused) => {
                    call.request.body.is_cut_short();
                    call.upload = Upload::Over;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Roundtrip {
    /// Whoever waited for the answer does so no longer.
    pub fn waited_in_vain(&mut self) {
        if let (State::Open(held), Some(since)) = (&self.state, self.awaited.take()) {
            held.waited_in_vain(since);
        }
    }
}

impl Drop for Roundtrip {
    fn drop(&mut self) {
        self.waited_in_vain();
    }
}
