//! The side of the client: its requests are read, their bodies handed to their calls as they come, and the answers written.

mod feed;
mod head;
pub mod http1;
pub mod http2;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};

use self::feed::Fed;
use crate::gateway::http1::Malformed;
use crate::gateway::http2::Receiving;
use crate::gateway::message::{Answer, RequestHead};
use crate::verdict::Denial;

/// Whoever answers what a connection asks.
pub trait Service {
    type Call: Future<Output = Answer> + Unpin;

    fn call(&self, head: RequestHead, body: ClientBody) -> Self::Call;

    /// What could not be read is answered too. Nothing that follows it is read.
    fn refuse(&self, denial: Denial) -> Answer;
}

/// A request body.
pub enum ClientBody {
    /// It came with the head, or there is none.
    Whole(Bytes),
    /// It is still coming, over HTTP/1.1 …
    Fed(Fed),
    /// … or over HTTP/2.
    Stream(Box<Receiving>),
}

/// Why a request body is not complete.
#[derive(Debug, thiserror::Error)]
pub enum ClientBroke {
    #[error("the client closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("it is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Http2(#[from] crate::gateway::http2::Error),
}

thread_local! {
    static NOW: RefCell<(u64, Option<HeaderValue>)> = const { RefCell::new((0, None)) };
}

/// The time to the second for an answer that does not say it. Written anew once in each.
fn date() -> Option<HeaderValue> {
    let second = crate::clock::second();
    NOW.with_borrow_mut(|(of, text)| {
        if *of != second {
            (*of, *text) = (second, written(second));
        }
        text.clone()
    })
}

/// As HTTP writes it (RFC 9110, section 5.6.7).
fn written(second: u64) -> Option<HeaderValue> {
    let at = jiff::Timestamp::from_second(i64::try_from(second).ok()?).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()?.try_into().ok()
}

impl ClientBody {
    /// Whether the client may still have to send some of it.
    pub fn is_to_come(&self) -> bool {
        !matches!(self, Self::Whole(_))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBroke;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBroke>>> {
        match self.get_mut() {
            Self::Whole(content) if content.is_empty() => Poll::Ready(None),
            Self::Whole(content) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(content))))),
            Self::Fed(fed) => fed.poll_frame(cx),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx).map_err(ClientBroke::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(content) => content.is_empty(),
            Self::Fed(fed) => fed.is_end_stream(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(content) => SizeHint::with_exact(content.len() as u64),
            Self::Fed(fed) => fed.size_hint(),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}
