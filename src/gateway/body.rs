//! Bodies on their way through: bytes counted, usage read, and the charge committed before the last byte is handed on.
//!
//! Whoever writes a body stops asking once it says that it has ended, so the commit cannot wait for the end of the stream: it
//! happens before the head is returned where the body is empty, before the DATA frame that ends it, before the
//! trailers, or else before the end of a chunked body (design, section 6).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::gateway::downstream::ClientBroke;
use crate::gateway::exchange::Exchange;
use crate::gateway::guard::InCall;
use crate::gateway::headers;
use crate::gateway::unread::UnreadBody;
use crate::gateway::upstream::Broke;
use crate::meter::record::Outcome;

/// What goes back to the client.
pub struct Outgoing {
    content: Content,
    _in_call: InCall,
}

enum Content {
    /// An answer of our own.
    Own(Bytes),
    Relayed(Relayed),
}

/// The upstream's answer while it streams by.
struct Relayed {
    /// Holds the answer's body. Gone once the charge is committed, or once the client has left.
    exchange: Option<Box<Exchange>>,
    deadline: Instant,
    /// Made when the upstream first keeps us waiting.
    timer: Option<Pin<Box<Sleep>>>,
    /// Pieces so far, up to [`LOOKS_FROM`].
    pieces: u8,
}

/// From this piece of an answer on the clock is looked at for each: where a client takes them slowly the upstream keeps nobody waiting.
const LOOKS_FROM: u8 = 8;

/// Why a body broke off. The client sees a reset.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the upstream's answer broke off: {0}")]
    Upstream(Broke),
    #[error("the call's deadline passed before the answer was complete")]
    Deadline,
    #[error("the request body broke off: {0}")]
    Client(ClientBroke),
    #[error("the request body is larger than allowed")]
    TooLarge,
    #[error("the request body came too slowly")]
    TooSlow,
}

impl Outgoing {
    pub fn own(content: Bytes, in_call: InCall) -> Self {
        Self { content: Content::Own(content), _in_call: in_call }
    }

    /// The body of an answer that is still to be read; an empty one where the exchange has ended with its head.
    pub fn relayed(exchange: Option<Box<Exchange>>, deadline: Instant, in_call: InCall) -> Self {
        let relayed = Relayed { exchange, deadline, timer: None, pieces: 0 };
        Self { content: Content::Relayed(relayed), _in_call: in_call }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Own(content) if content.is_empty() => Poll::Ready(None),
            Content::Own(content) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(content))))),
            Content::Relayed(relayed) => relayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(content) => content.is_empty(),
            Content::Relayed(relayed) => {
                relayed.exchange.as_ref().is_none_or(|exchange| exchange.answer().is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(content) => SizeHint::with_exact(content.len() as u64),
            Content::Relayed(relayed) => relayed
                .exchange
                .as_ref()
                .map_or_else(|| SizeHint::with_exact(0), |exchange| exchange.answer().size_hint()),
        }
    }
}

impl Relayed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(exchange) = &mut self.exchange else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = exchange.poll_frame(cx) else {
            ready!(self.poll_deadline(cx));
            self.time_out();
            return Poll::Ready(Some(Err(BodyError::Deadline)));
        };
        match frame {
            Some(Ok(frame)) => {
                if frame.is_trailers() || exchange.answer().is_end_stream() {
                    self.end(frame.trailers_ref());
                    return Poll::Ready(Some(Ok(frame)));
                }
                self.pieces = (self.pieces + 1).min(LOOKS_FROM);
                if self.pieces == LOOKS_FROM && Instant::now() >= self.deadline {
                    self.time_out();
                    return Poll::Ready(Some(Err(BodyError::Deadline)));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let outcome = exchange.upload().state().blame();
                self.end_as(outcome);
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            None => {
                self.end(None);
                Poll::Ready(None)
            }
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline))).as_mut().poll(cx)
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(exchange) = self.exchange.take() {
            exchange.end(trailers);
        }
    }

    fn end_as(&mut self, outcome: Outcome) {
        if let Some(exchange) = self.exchange.take() {
            exchange.end_as(outcome);
        }
    }

    fn time_out(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.time_out();
        }
    }
}

impl Drop for Relayed {
    /// The client went away: the rest is read without it, so that its usage is known.
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.abandon();
        }
    }
}

/// What is known of a request body while and after it is sent.
#[derive(Debug, Default)]
pub struct Upload {
    bytes: AtomicU64,
    state: AtomicU8,
}

/// How far a request body got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UploadState {
    Sending = 0,
    Complete = 1,
    /// The client broke off.
    Broken = 2,
    TooLarge = 3,
    TooSlow = 4,
}

impl UploadState {
    /// How a call ends that breaks off while its request got so far.
    pub fn blame(self) -> Outcome {
        match self {
            Self::Broken => Outcome::ClientAbort,
            Self::TooLarge => Outcome::Aborted,
            Self::TooSlow => Outcome::Timeout,
            Self::Sending | Self::Complete => Outcome::UpstreamError,
        }
    }
}

impl Upload {
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn state(&self) -> UploadState {
        match self.state.load(Ordering::Relaxed) {
            1 => UploadState::Complete,
            2 => UploadState::Broken,
            3 => UploadState::TooLarge,
            4 => UploadState::TooSlow,
            _ => UploadState::Sending,
        }
    }

    fn set(&self, state: UploadState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }
}

/// What a request body may be.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    pub bytes: u64,
    /// Bytes per second below which the body is cut, once it was that slow for `slow_after`.
    pub slow_rate: u64,
    pub slow_after: Duration,
}

/// The client's body on its way to the upstream.
pub struct Uploading {
    inner: UnreadBody,
    /// What comes before that once more. It is counted already.
    again: Bytes,
    upload: Arc<Upload>,
    limits: UploadLimits,
    slow: Option<Box<Slow>>,
}

/// How long the client has kept us waiting in all, and how much had come when that began. The time in which the service
/// takes nothing is not the client's.
struct Slow {
    timer: Pin<Box<Sleep>>,
    /// Present while nobody waits: what is left of the timer.
    left: Option<Duration>,
    bytes: u64,
}

impl Uploading {
    /// The body to send, and what is known of it while it is sent.
    pub fn new(inner: UnreadBody, limits: UploadLimits) -> (Self, Arc<Upload>) {
        let upload = Arc::new(Upload::default());
        if inner.is_end_stream() {
            upload.set(UploadState::Complete);
        }
        (Self { inner, again: Bytes::new(), upload: Arc::clone(&upload), limits, slow: None }, upload)
    }

    /// What was handed out of it so far is handed out once more, before the rest.
    pub fn begin_again(&mut self, taken: Vec<u8>) {
        // After another attempt some of it may not have been handed out again.
        self.again = if self.again.is_empty() { taken.into() } else { [&taken[..], &self.again].concat().into() };
        self.upload.set(if self.is_end_stream() { UploadState::Complete } else { UploadState::Sending });
    }

    /// The next frame, counted if it has not come before.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBroke>>> {
        if !self.again.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.again)))));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.upload.bytes.fetch_add(length, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    /// The service takes no more of it: what comes of the call is not waited for on account of the client.
    pub fn is_cut_short(&self) {
        self.upload.set(UploadState::Complete);
    }

    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let UploadLimits { slow_rate, slow_after, .. } = self.limits;
        let bytes = self.upload.bytes();
        let slow = self.slow.get_or_insert_with(|| {
            Box::new(Slow { timer: Box::pin(tokio::time::sleep(slow_after)), left: None, bytes })
        });
        if let Some(left) = slow.left.take() {
            slow.timer.as_mut().reset(Instant::now() + left);
        }
        while slow.timer.as_mut().poll(cx).is_ready() {
            if bytes.saturating_sub(slow.bytes) < slow_rate.saturating_mul(slow_after.as_secs().max(1)) {
                return Poll::Ready(());
            }
            slow.bytes = bytes;
            slow.timer.as_mut().reset(Instant::now() + slow_after);
        }
        Poll::Pending
    }

    /// Something has come: until the next wait the time is not counted.
    fn pause_slow(&mut self) {
        if let Some(slow) = self.slow.as_mut().filter(|slow| slow.left.is_none()) {
            slow.left = Some(slow.timer.deadline().saturating_duration_since(Instant::now()));
        }
    }

    fn fail(&self, state: UploadState, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upload.set(state);
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for Uploading {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = self.poll_inner(cx) else {
            ready!(self.poll_slow(cx));
            return self.fail(UploadState::TooSlow, BodyError::TooSlow);
        };
        self.pause_slow();
        match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_request_trailers(trailers);
                }
                if self.upload.bytes() > self.limits.bytes {
                    return self.fail(UploadState::TooLarge, BodyError::TooLarge);
                }
                if frame.is_trailers() || self.is_end_stream() {
                    self.upload.set(UploadState::Complete);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => self.fail(UploadState::Broken, BodyError::Client(error)),
            None => {
                self.upload.set(UploadState::Complete);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (again, rest) = (self.again.len() as u64, self.inner.size_hint());
        rest.exact().map_or(rest, |rest| SizeHint::with_exact(rest.saturating_add(again)))
    }
}
