//! One connection of a client over HTTP/2 (RFC 9113); each stream runs in a task of its own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use super::{ClientBody, Service, date};
use crate::config::LimitsConfig;
use crate::gateway::body::{BodyError, Outgoing};
use crate::gateway::http2::{
    self, Begun, Driver, Error, Held, Reason, Receiving, Refused, Shared, Side, Whole, put_answer,
};
use crate::gateway::message::Answer;

pub struct Serving<S, V> {
    driver: Driver<S>,
    service: V,
    patience: Duration,
}

/// What connections may do; made once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    http2: http2::Bounds,
    /// How long a client may take over an answer from where it first grants it no window. Nobody asks for a body that it does not take, so
    /// nothing else ends it.
    patience: Duration,
}

impl Bounds {
    pub fn new(limits: &LimitsConfig) -> Self {
        let http2 = http2::Bounds {
            stream_window: limits.h2_stream_window,
            connection_window: limits.h2_connection_window,
            streams: limits.h2_streams,
            // Twice our own limit, so that a head a little above it still gets our answer as a request.
            head_bytes: u32::try_from(limits.header_bytes.saturating_mul(2)).unwrap_or(u32::MAX),
            head_within: limits.whole_header,
        };
        Self { http2, patience: limits.total.saturating_add(limits.slow_body_after) }
    }
}

impl<S, V> Serving<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service + Unpin,
    V::Call: Send + 'static,
{
    pub fn new(stream: S, service: V, bounds: &Bounds) -> Self {
        let driver = Driver::new(stream, Shared::new(Side::Server, bounds.http2));
        Self { driver, service, patience: bounds.patience }
    }

    /// Takes no more streams, and says so; those that are open go on.
    pub fn close(self: Pin<&mut Self>) {
        self.driver.shared().lock().part();
    }
}

impl<S, V> Future for Serving<S, V>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service + Unpin,
    V::Call: Send + 'static,
{
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { driver, service, patience } = &mut *self;
        driver.poll(cx, |shared, begun| begin(service, *patience, shared, begun))
    }
}

/// Has a request answered in a task of its own.
fn begin<V: Service>(service: &V, patience: Duration, shared: &Shared, begun: Begun)
where
    V::Call: Send + 'static,
{
    let Begun { stream, head } = begun;
    let stream = Held::new(shared, stream, false);
    let body = match stream.whole() {
        Whole::Broken => return,
        Whole::All(content) => ClientBody::Whole(content),
        Whole::ToCome => ClientBody::Stream(Box::new(Receiving(stream.reader()))),
    };
    let mut answering = Answering { stream, call: None, unsent: None, sending: None, patience, is_head: false };
    match head {
        Ok(head) => {
            answering.is_head = head.method == Method::HEAD;
            answering.call = Some(service.call(head, body));
        }
        Err(denial) => answering.begin(service.refuse(denial)),
    }
    tokio::spawn(answering);
}

/// One stream: its call, then its answer on the way back.
struct Answering<C> {
    stream: Held,
    call: Option<C>,
    /// An answer to HEAD, whose content is not sent.
    unsent: Option<Answer>,
    sending: Option<Sending>,
    patience: Duration,
    is_head: bool,
}

struct Sending {
    body: Outgoing,
    /// The last of it was handed on.
    is_last: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a stream ended early. The client knows, or sees a reset.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Http2(#[from] Error),
    #[error("the client does not take the answer")]
    NotTaken,
    #[error("the answer broke off: {0}")]
    Answer(#[from] BodyError),
}

impl<C: Future<Output = Answer> + Unpin> Future for Answering<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Err(error) = ready!(this.poll_stream(cx)) {
            tracing::debug!(%error, "a stream ended early");
            // Nothing happens where the client has ended it.
            this.stream.reset(Reason::INTERNAL_ERROR);
        }
        Poll::Ready(())
    }
}

impl<C: Future<Output = Answer> + Unpin> Answering<C> {
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if let Some(call) = &mut self.call {
            let Poll::Ready(answer) = Pin::new(call).poll(cx) else {
                let error = ready!(self.stream.poll_broken(cx));
                return Poll::Ready(Err(error.into()));
            };
            self.call = None;
            self.begin(answer);
        }
        if let Some(Answer { head, body }) = &mut self.unsent {
            // To its end, since that is when a call has its outcome.
            loop {
                let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                    let error = ready!(self.stream.poll_broken(cx));
                    return Poll::Ready(Err(error.into()));
                };
                if frame.transpose()?.is_none() {
                    break;
                }
            }
            let now = date();
            self.stream.head(true, |into| put_answer(head, now.as_ref(), None, into));
            return Poll::Ready(Ok(()));
        }
        match &mut self.sending {
            Some(sending) => sending.poll(&self.stream, cx, self.patience),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Sends the head of the answer.
    fn begin(&mut self, answer: Answer) {
        let is_over = answer.body.is_end_stream();
        if self.is_head && !is_over {
            self.unsent = Some(answer);
            return;
        }
        let Answer { head, body } = answer;
        let has_content = !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = body.size_hint().exact().filter(|_| !is_over && has_content);
        let now = date();
        self.stream.head(is_over, |into| put_answer(&head, now.as_ref(), length, into));
        self.sending = (!is_over).then_some(Sending { body, is_last: false, timer: None });
    }
}

impl Sending {
    fn poll(&mut self, stream: &Held, cx: &mut Context<'_>, patience: Duration) -> Poll<Result<(), Ended>> {
        loop {
            let Poll::Ready(sent) = stream.poll_sent(cx) else {
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(timer.as_mut().poll(cx));
                return Poll::Ready(Err(Ended::NotTaken));
            };
            sent.map_err(|Refused| Ended::NotTaken)?;
            if self.is_last {
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                let error = ready!(stream.poll_broken(cx));
                return Poll::Ready(Err(error.into()));
            };
            match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => {
                    self.is_last = self.body.is_end_stream();
                    stream.data(data, self.is_last);
                }
                Some(Err(frame)) => {
                    stream.trailers(frame.trailers_ref());
                    self.is_last = true;
                }
                None => {
                    stream.data(Bytes::new(), true);
                    self.is_last = true;
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
        let bounds = Bounds { patience: Duration::from_millis(300), ..Bounds::new(&LimitsConfig::default()) };
        tokio::spawn(Serving::new(ours, Echo::default(), &bounds));
        let mut builder = h2::client::Builder::new();
        let (mut sender, connection) = builder.initial_window_size(window).handshake(theirs).await?;
        tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(format!("http://a.test{path}")).body(()).unwrap();
        let (answer, mut stream) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body), true)?;
        }
        let (head, mut body) = answer.await?.into_parts();
        let mut content = Vec::new();
        while let Some(data) = body.data().await {
            content.extend_from_slice(&data?);
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
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    }
}
