//! One stream of a connection that carries many over HTTP/2 (RFC 9113). h2 does the work; the connection itself runs in a task of
//! its own, the stream in that of its call.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Request, Uri, Version, uri};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::{Broke, NoAnswer, Outbound, Wire};
use crate::gateway::body::Uploading;
use crate::gateway::fields::Name;
use crate::gateway::headers;
use crate::gateway::http2::{Receiving, Refused, poll_room};
use crate::gateway::message::AnswerHead;

/// Streams on one connection before another is opened.
const STREAMS_MOST: usize = 100;
/// Bytes that a service may send ahead.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;
/// Bytes of the head of an answer.
const HEAD_MOST: u32 = 256 * 1024;

/// A connection on which streams can be begun.
#[derive(Clone)]
pub struct Line {
    sender: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
}

/// One stream, counted until its answer was read.
struct Counted(Arc<AtomicUsize>);

pub struct Roundtrip {
    state: State,
    upload: Option<Upload>,
    pub timer: Option<Pin<Box<Sleep>>>,
    _counted: Counted,
}

enum State {
    /// Not begun: whether the connection stands is not known.
    Opening(Box<Opening>),
    Awaited(ResponseFuture),
    Body(Receiving),
    Over,
}

struct Opening {
    sender: SendRequest<Bytes>,
    request: Outbound,
    scheme: Scheme,
}

struct Upload {
    body: Uploading,
    stream: SendStream<Bytes>,
    /// What there is no room for yet, and whether it is the last.
    piece: Option<(Bytes, bool)>,
}

impl Line {
    /// Greets the service, and runs the connection in a task of its own until the last of these lines is gone.
    pub async fn open(wire: Wire) -> Result<Self, h2::Error> {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD_MOST)
            .enable_push(false);
        let (sender, connection) = builder.handshake(wire).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended early");
            }
        });
        Ok(Self { sender, streams: Arc::default() })
    }

    /// Whether another stream would not have to wait for one to end.
    pub fn has_room(&self) -> bool {
        let streams = self.streams.load(Ordering::Relaxed);
        streams < STREAMS_MOST && streams < self.sender.current_max_send_streams().max(1)
    }

    /// Neither side has closed the connection, or is about to.
    pub fn stands(&mut self) -> bool {
        !matches!(self.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Nobody uses it.
    pub fn is_quiet(&self) -> bool {
        self.streams.load(Ordering::Relaxed) == 0
    }

    pub fn begin(self, request: Outbound, scheme: Scheme) -> Box<Roundtrip> {
        let Self { sender, streams } = self;
        streams.fetch_add(1, Ordering::Relaxed);
        let state = State::Opening(Box::new(Opening { sender, request, scheme }));
        Box::new(Roundtrip { state, upload: None, timer: None, _counted: Counted(streams) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Roundtrip {
    /// As [`super::Roundtrip::poll_head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, NoAnswer>> {
        if let State::Opening(opening) = &mut self.state {
            let ready = ready!(opening.sender.poll_ready(cx));
            let State::Opening(opening) = std::mem::replace(&mut self.state, State::Over) else {
                return Poll::Ready(Err(Broke::Closed.into()));
            };
            match ready {
                Ok(()) => self.open(*opening)?,
                Err(error) => {
                    tracing::debug!(%error, "an upstream connection takes no more streams");
                    return Poll::Ready(Err(NoAnswer::Unsent(Box::new(opening.request))));
                }
            }
        }
        let _ = self.poll_send(cx)?;
        let State::Awaited(answer) = &mut self.state else {
            return Poll::Ready(Err(Broke::Closed.into()));
        };
        let answer = ready!(Pin::new(answer).poll(cx)).map_err(Broke::Http2)?;
        let (head, body) = answer.into_parts();
        self.state = State::Body(Receiving::new(body, &head.headers));
        Poll::Ready(Ok(head.into()))
    }

    fn open(&mut self, opening: Opening) -> Result<(), Broke> {
        let Opening { mut sender, request, scheme } = opening;
        let Outbound { method, path, authority, fields, stamp, body } = request;
        let ends = body.is_end_stream();
        // The target names it. It was looked at before the key was, so it is one.
        let host = fields.first(Name::Host).and_then(|host| Authority::try_from(host).ok());
        let mut headers = fields.into_map();
        headers.remove(HOST);
        headers::to_upstream(&mut headers, &stamp);
        if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
            headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
        }
        let mut target = uri::Parts::default();
        target.scheme = Some(scheme);
        target.authority = host.or(authority);
        target.path_and_query = Some(path);
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(target).map_err(|_| Broke::Upload)?;
        *request.headers_mut() = headers;
        let (answer, stream) = sender.send_request(request, ends)?;
        self.upload = (!ends).then_some(Upload { body, stream, piece: None });
        self.state = State::Awaited(answer);
        Ok(())
    }

    /// As [`super::Roundtrip::poll_frame`].
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if self.upload.is_some() {
            // What is still on its way does not keep the answer.
            let _ = self.poll_send(cx)?;
        }
        let State::Body(body) = &mut self.state else {
            return Poll::Ready(None);
        };
        body.poll_frame(cx).map_err(Broke::Http2)
    }

    pub fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Body(body) => body.is_end_stream(),
            _ => true,
        }
    }

    pub fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Body(body) => body.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }

    /// Whether the service is still to get something of the request.
    pub fn is_sending(&self) -> bool {
        self.upload.is_some()
    }

    /// Sends what the client has sent, as far as the service has room. Ready: nothing is left to be sent, be it that the service takes
    /// no more. An error: the client broke off.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        while let Some(upload) = &mut self.upload {
            match ready!(upload.poll_piece(cx)) {
                Ok(Next::More) => {}
                Ok(Next::End) => self.upload = None,
                // Why, is said where the answer is read.
                Ok(Next::Refused) => {
                    upload.body.is_cut_short();
                    self.upload = None;
                }
                Err(broke) => {
                    upload.stream.send_reset(Reason::CANCEL);
                    self.upload = None;
                    return Poll::Ready(Err(broke));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What became of a piece of a body.
enum Next {
    More,
    End,
    /// The service takes no more.
    Refused,
}

impl Upload {
    /// Sends one piece.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broke>> {
        let (data, ends) = match self.piece.take() {
            Some(piece) => piece,
            None => match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => (data, self.body.is_end_stream()),
                    Err(frame) => return Poll::Ready(Ok(self.end(frame.into_trailers().ok()))),
                },
                Some(Err(_)) => return Poll::Ready(Err(Broke::Upload)),
                None => return Poll::Ready(Ok(self.end(None))),
            },
        };
        let Poll::Ready(room) = poll_room(&mut self.stream, data.len(), cx) else {
            self.piece = Some((data, ends));
            return Poll::Pending;
        };
        if let Err(Refused) = room {
            return Poll::Ready(Ok(Next::Refused));
        }
        // What is more than there is room for, h2 sends as it gets some.
        match self.stream.send_data(data, ends) {
            Ok(()) if ends => Poll::Ready(Ok(Next::End)),
            Ok(()) => Poll::Ready(Ok(Next::More)),
            Err(_) => Poll::Ready(Ok(Next::Refused)),
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Next {
        let sent = match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        };
        if sent.is_ok() { Next::End } else { Next::Refused }
    }
}
