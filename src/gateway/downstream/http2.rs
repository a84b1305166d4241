//! One connection of a client over HTTP/2 (RFC 9113). h2 does the work; each stream runs in a task of its own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use super::{ClientBody, Service, date};
use crate::config::LimitsConfig;
use crate::gateway::body::{BodyError, Outgoing};
use crate::gateway::http2::{Receiving, Refused, poll_room};
use crate::gateway::message::Answer;

/// Bytes of answers that wait in one connection for the client to take them.
const SEND_BUFFER: usize = 400 * 1024;

pub struct Serving<S, V> {
    state: State<S>,
    service: V,
    patience: Duration,
    is_closing: bool,
}

enum State<S> {
    Greeting(Box<Handshake<S, Bytes>>),
    Open(Box<Connection<S, Bytes>>),
}

/// What connections may do; made once.
#[derive(Clone)]
pub struct Bounds {
    builder: h2::server::Builder,
    /// How long a client may grant no window to an answer. Nobody asks for a body that it does not take, so nothing else ends it.
    patience: Duration,
}

impl Bounds {
    pub fn new(limits: &LimitsConfig) -> Self {
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(limits.h2_stream_window)
            .initial_connection_window_size(limits.h2_connection_window)
            .max_concurrent_streams(limits.h2_streams)
            .max_header_list_size(u32::try_from(limits.header_bytes.saturating_mul(2)).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER);
        Self { builder, patience: limits.total.saturating_add(limits.slow_body_after) }
    }
}

impl<S, V> Serving<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service + Unpin,
    V::Call: Send + 'static,
{
    pub fn new(stream: S, service: V, bounds: &Bounds) -> Self {
        let state = State::Greeting(Box::new(bounds.builder.handshake(stream)));
        Self { state, service, patience: bounds.patience, is_closing: false }
    }

    /// Takes no more streams, and says so; those that are open go on.
    pub fn close(mut self: Pin<&mut Self>) {
        self.is_closing = true;
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (head, stream) = request.into_parts();
        let body = match stream.is_end_stream() {
            true => ClientBody::Whole(Bytes::new()),
            false => ClientBody::Stream(Box::new(Receiving::new(stream, &head.headers))),
        };
        let is_head = head.method == Method::HEAD;
        let (call, patience) = (self.service.call(head.into(), body), self.patience);
        tokio::spawn(Answering { call, respond, patience, is_head, unsent: None, sending: None });
    }
}

impl<S, V> Future for Serving<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service + Unpin,
    V::Call: Send + 'static,
{
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.state {
                State::Greeting(handshake) => {
                    let mut connection = ready!(Pin::new(handshake).poll(cx))?;
                    if self.is_closing {
                        connection.graceful_shutdown();
                    }
                    self.state = State::Open(Box::new(connection));
                }
                State::Open(connection) => match ready!(connection.poll_accept(cx)).transpose()? {
                    Some((request, respond)) => self.begin(request, respond),
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
    }
}

/// One stream: its call, then its answer on the way back.
struct Answering<C> {
    call: C,
    respond: SendResponse<Bytes>,
    patience: Duration,
    is_head: bool,
    /// An answer to HEAD, whose content is not sent.
    unsent: Option<(Response<()>, Outgoing)>,
    sending: Option<Sending>,
}

struct Sending {
    body: Outgoing,
    stream: SendStream<Bytes>,
    /// What there is no window for yet, and whether it is the last.
    piece: Option<(Bytes, bool)>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a stream ended early. The client knows, or sees a reset.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the client reset it: {0}")]
    Reset(Reason),
    #[error("the client does not take the answer")]
    NotTaken,
    #[error("the answer broke off: {0}")]
    Answer(#[from] BodyError),
}

impl<C: Future<Output = Answer> + Unpin> Future for Answering<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let ended = ready!(this.poll_stream(cx));
        if let Err(error) = ended {
            tracing::debug!(%error, "a stream ended early");
            match (&mut this.sending, error) {
                (Some(sending), Ended::NotTaken | Ended::Answer(_)) => {
                    sending.stream.send_reset(Reason::INTERNAL_ERROR)
                }
                (None, _) => this.respond.send_reset(Reason::INTERNAL_ERROR),
                (Some(_), _) => {}
            }
        }
        Poll::Ready(())
    }
}

impl<C: Future<Output = Answer> + Unpin> Answering<C> {
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        loop {
            if let Some(sending) = &mut self.sending {
                return sending.poll(cx, self.patience);
            }
            if let Some((_, body)) = &mut self.unsent {
                // To its end, since that is when a call has its outcome.
                while ready!(Pin::new(&mut *body).poll_frame(cx)).transpose()?.is_some() {}
                if let Some((head, _)) = self.unsent.take() {
                    self.respond.send_response(head, true)?;
                }
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready(answer) = Pin::new(&mut self.call).poll(cx) else {
                let reason = ready!(self.respond.poll_reset(cx))?;
                return Poll::Ready(Err(Ended::Reset(reason)));
            };
            let Answer { head, body } = answer;
            let mut head = Response::from(head);
            let is_over = body.is_end_stream();
            complete(head.headers_mut(), &body, is_over);
            if self.is_head && !is_over {
                self.unsent = Some((head, body));
                continue;
            }
            let stream = self.respond.send_response(head, is_over)?;
            if is_over {
                return Poll::Ready(Ok(()));
            }
            self.sending = Some(Sending { body, stream, piece: None, timer: None });
        }
    }
}

fn complete(fields: &mut HeaderMap, body: &Outgoing, is_over: bool) {
    if !fields.contains_key(DATE)
        && let Some(now) = date()
    {
        fields.insert(DATE, now);
    }
    if !is_over
        && let Some(length) = body.size_hint().exact()
        && !fields.contains_key(CONTENT_LENGTH)
    {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

impl Sending {
    fn poll(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<Result<(), Ended>> {
        loop {
            if let Poll::Ready(reason) = self.stream.poll_reset(cx)? {
                return Poll::Ready(Err(Ended::Reset(reason)));
            }
            if let Some((piece, is_last)) = self.piece.take() {
                let Poll::Ready(room) = poll_room(&mut self.stream, piece.len(), cx) else {
                    self.piece = Some((piece, is_last));
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                    ready!(timer.as_mut().poll(cx));
                    return Poll::Ready(Err(Ended::NotTaken));
                };
                room.map_err(|Refused| Ended::NotTaken)?;
                self.timer = None;
                // What is more than there is room for, h2 sends as it gets some.
                self.stream.send_data(piece, is_last)?;
                if is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.piece = Some((data, self.body.is_end_stream())),
                Some(Err(frame)) => {
                    self.stream.send_trailers(frame.into_trailers().unwrap_or_default())?;
                    return Poll::Ready(Ok(()));
                }
                None => {
                    self.stream.send_data(Bytes::new(), true)?;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::super::tests::Echo;
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Asks for this, and gives back the status and the content.
    async fn asked(method: Method, path: &str, body: &'static [u8], window: u32) -> Result<(u16, Bytes), h2::Error> {
        let (theirs, ours) = duplex(1024);
        let bounds = Bounds { builder: h2::server::Builder::new(), patience: Duration::from_millis(300) };
        tokio::spawn(Serving::new(ours, Echo::default(), &bounds));
        let mut builder = h2::client::Builder::new();
        let (mut sender, connection) = builder.initial_window_size(window).handshake(theirs).await?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(format!("http://a.test{path}")).body(()).unwrap();
        let (answer, mut stream) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body), true)?;
        }
        let (head, body) = answer.await?.into_parts();
        let mut body = Receiving::new(body, &head.headers);
        let mut content = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
            content.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        Ok((head.status.as_u16(), content.into()))
    }

    async fn soon(asked: impl Future<Output = Result<(u16, Bytes), h2::Error>>) -> Result<(u16, Bytes), h2::Error> {
        tokio::time::timeout(SOON, asked).await.expect("it ends")
    }

    #[tokio::test]
    async fn a_call_is_answered_and_head_without_content() {
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(soon(asked(Method::PUT, "/x", b"abc", 65_535)).await.unwrap(), (200, text("abc")));
        assert_eq!(soon(asked(Method::GET, "/at-once", b"", 65_535)).await.unwrap(), (200, text("no")));
        assert_eq!(soon(asked(Method::HEAD, "/at-once", b"", 65_535)).await.unwrap(), (200, text("")));
        assert_eq!(soon(asked(Method::GET, "/empty", b"", 65_535)).await.unwrap(), (204, text("")));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_is_reset() {
        let error = soon(asked(Method::GET, "/at-once", b"", 0)).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    }
}
