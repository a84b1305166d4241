//! One request to a service and its answer. It runs in the task of its call: nothing is handed from one task to another, which
//! costs more than the work itself.

mod head;
pub mod http1;
pub mod http2;
mod wire;

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Method;
use http::uri::{Authority, PathAndQuery};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

pub use self::wire::Wire;
use crate::gateway::body::Uploading;
use crate::gateway::fields::Fields;
use crate::gateway::headers::Stamp;
use crate::gateway::http1::Malformed;
use crate::gateway::message::AnswerHead;

/// A request as it is to go on.
pub struct Outbound {
    pub method: Method,
    pub path: PathAndQuery,
    /// As the client wrote it. `Host` comes first, and is the same host.
    pub authority: Option<Authority>,
    /// Those of the client, without its key. What of them goes on is decided where they are written.
    pub fields: Fields,
    pub stamp: Stamp,
    pub body: Uploading,
}

/// A request on its way, then its answer on the way back.
pub enum Roundtrip {
    Http1(Box<http1::Line>),
    Http2(Box<http2::Roundtrip>),
}

/// Why a request or its answer did not come through.
#[derive(Debug, thiserror::Error)]
pub enum Broke {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the connection was closed before the answer was complete")]
    Closed,
    #[error("the answer is malformed: {0}")]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Http2(#[from] crate::gateway::http2::Error),
    /// What is known of the upload says why.
    #[error("the request body broke off")]
    Upload,
}

/// Why there is no head of an answer.
pub enum NoAnswer {
    /// Nothing of the request was sent: it may be sent elsewhere.
    Unsent(Box<Outbound>),
    /// The service has said that it did nothing with the request: it may be sent again.
    Refused(Box<Outbound>),
    Broke(Broke),
}

impl From<Broke> for NoAnswer {
    fn from(broke: Broke) -> Self {
        Self::Broke(broke)
    }
}

impl Roundtrip {
    /// Sends on and waits for the head of the answer. To be called until it is ready, and not after that.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<AnswerHead, NoAnswer>> {
        match self {
            Self::Http1(line) => line.poll_head(cx).map_err(NoAnswer::Broke),
            Self::Http2(roundtrip) => roundtrip.poll_head(cx),
        }
    }

    /// The next frame of the answer's body; what is left of the request is sent meanwhile.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match self {
            Self::Http1(line) => line.poll_frame(cx),
            Self::Http2(roundtrip) => roundtrip.poll_frame(cx),
        }
    }

    /// Whether the service is still to get something of the request, though it may have answered.
    pub fn is_sending(&self) -> bool {
        match self {
            Self::Http1(line) => line.is_sending(),
            Self::Http2(roundtrip) => roundtrip.is_sending(),
        }
    }

    /// Sends what is left of the request. An error: the client broke off.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        match self {
            Self::Http1(line) => line.poll_send(cx),
            Self::Http2(roundtrip) => roundtrip.poll_send(cx),
        }
    }

    /// The client is told that there is no answer. One that still comes may be read without it.
    pub fn waited_in_vain(&mut self) {
        match self {
            Self::Http1(_) => {}
            Self::Http2(roundtrip) => roundtrip.waited_in_vain(),
        }
    }

    /// Ready once this instant has passed. A timer may be there that was armed for an earlier one.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let timer = match self {
            Self::Http1(line) => &mut line.timer,
            Self::Http2(roundtrip) => &mut roundtrip.timer,
        };
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// Whether the answer is complete, as far as is known.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(line) => line.is_end_stream(),
            Self::Http2(roundtrip) => roundtrip.is_end_stream(),
        }
    }

    /// What is still to come of the answer's body.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(line) => line.size_hint(),
            Self::Http2(roundtrip) => roundtrip.size_hint(),
        }
    }
}
