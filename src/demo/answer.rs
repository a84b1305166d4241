//! The bodies of answers: made here piece by piece, or the request's own body sent back.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::counts::Ticket;
use super::switches::{Reset, Switches};

/// Why there is no answer, or no end of one. hyper takes the reason of a stream's reset from the source.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the answer breaks off, as the request asked for")]
    BreaksOff,
    #[error("the request is turned away, as it asked for")]
    Refused(#[source] h2::Error),
    #[error("the body of the request cannot be read")]
    Request(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Frames are not larger than this, so that a large answer goes out as it would from a real service.
const PIECE: usize = 64 << 10;

/// How long a body that is to break off waits, so that what was said before is on the wire.
const LAST_WORDS: Duration = Duration::from_millis(20);

static FILLER: [u8; PIECE] = [b'x'; PIECE];

/// A part of a body.
#[derive(Debug)]
pub enum Part {
    Bytes(Bytes),
    /// So many bytes of no meaning, which are never in memory as a whole.
    Filler(u64),
}

pub enum Answer {
    Made(Made),
    Echo(Echo),
}

pub struct Made {
    parts: VecDeque<Part>,
    left: u64,
    piece: usize,
    says_length: bool,
    pause: Option<Duration>,
    /// Bytes that may still go out before the connection breaks.
    breaks_after: Option<u64>,
    trailers: Option<HeaderMap>,
    sleeping: Option<Pin<Box<Sleep>>>,
    begun: bool,
    ticket: Option<Ticket>,
}

pub struct Echo {
    body: Incoming,
    ticket: Option<Ticket>,
}

impl Answer {
    pub fn new(parts: impl Into<VecDeque<Part>>, switches: &Switches, ticket: Ticket) -> Self {
        let mut made = Made::new(parts.into(), None, switches, Some(ticket));
        // Nobody polls an empty body.
        if made.left == 0 && made.breaks_after.is_none() {
            made.complete();
        }
        Self::Made(made)
    }

    /// An answer outside of the counts.
    pub fn uncounted(body: Vec<u8>) -> Self {
        Self::Made(Made::new([Part::Bytes(body.into())].into(), None, &Switches::default(), None))
    }

    /// Ends the body with trailers.
    pub fn with_trailers(
        parts: impl Into<VecDeque<Part>>,
        trailers: HeaderMap,
        switches: &Switches,
        ticket: Ticket,
    ) -> Self {
        Self::Made(Made::new(parts.into(), Some(trailers), switches, Some(ticket)))
    }

    /// Sends the request's body and trailers back as they come.
    pub fn echo(body: Incoming, ticket: Ticket) -> Self {
        let mut echo = Echo { body, ticket: Some(ticket) };
        if echo.body.is_end_stream() {
            echo.complete();
        }
        Self::Echo(echo)
    }
}

impl Part {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Filler(bytes) => *bytes,
        }
    }

    /// At most `limit` bytes from the front.
    fn take(&mut self, limit: usize) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.split_to(limit.min(bytes.len())),
            Self::Filler(left) => {
                let bytes = usize::try_from(*left).unwrap_or(PIECE).min(limit).min(PIECE);
                *left -= bytes as u64;
                Bytes::from_static(FILLER.get(..bytes).unwrap_or(&FILLER))
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Made(made) => made.poll(cx),
            Self::Echo(echo) => echo.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Made(made) => made.left == 0 && made.trailers.is_none() && made.breaks_after.is_none(),
            Self::Echo(echo) => echo.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Made(made) if made.says_length => SizeHint::with_exact(made.left),
            Self::Made(_) => SizeHint::default(),
            Self::Echo(echo) => echo.body.size_hint(),
        }
    }
}

impl Made {
    /// Without trailers the length is said ahead, unless the body is to come in pieces.
    fn new(parts: VecDeque<Part>, trailers: Option<HeaderMap>, switches: &Switches, ticket: Option<Ticket>) -> Self {
        let left: u64 = parts.iter().map(Part::len).sum();
        let says_length = switches.chunk.is_none() && trailers.is_none();
        let breaks_after = match switches.reset {
            // With its length said a body is whole at its last byte, so that one is held back.
            Some(Reset::AfterBytes(bytes)) => Some(bytes.min(left.saturating_sub(u64::from(says_length)))),
            _ => None,
        };
        Self {
            parts,
            left,
            piece: switches.chunk.unwrap_or(PIECE).min(PIECE),
            says_length,
            pause: switches.pause,
            breaks_after,
            trailers,
            sleeping: None,
            begun: false,
            ticket,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(sleeping) = &mut self.sleeping {
            ready!(sleeping.as_mut().poll(cx));
            self.sleeping = None;
            if self.breaks_after == Some(0) {
                return Poll::Ready(Some(Err(Broken::BreaksOff)));
            }
        } else if let Some(wait) = self.wait() {
            self.sleeping = Some(Box::pin(sleep(wait)));
            return self.poll(cx);
        }
        if self.left > 0 {
            return Poll::Ready(Some(Ok(Frame::data(self.next_piece()))));
        }
        let trailers = self.trailers.take();
        self.complete();
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// How long to wait before the next piece.
    fn wait(&self) -> Option<Duration> {
        if self.breaks_after == Some(0) { Some(LAST_WORDS) } else { self.pause.filter(|_| self.begun && self.left > 0) }
    }

    fn next_piece(&mut self) -> Bytes {
        self.begun = true;
        let allowed = self.breaks_after.map_or(self.piece, |bytes| usize::try_from(bytes).unwrap_or(PIECE));
        let piece = loop {
            let Some(part) = self.parts.front_mut() else { break Bytes::new() };
            if part.len() > 0 {
                break part.take(self.piece.min(allowed));
            }
            self.parts.pop_front();
        };
        self.left = self.left.saturating_sub(piece.remaining() as u64);
        self.breaks_after = self.breaks_after.map(|bytes| bytes.saturating_sub(piece.remaining() as u64));
        if self.left == 0 && self.trailers.is_none() && self.breaks_after.is_none() {
            self.complete();
        }
        piece
    }

    fn complete(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.complete();
        }
    }
}

impl Echo {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(Ok(frame)), Some(ticket)) = (&frame, &self.ticket) {
            ticket.body_bytes(frame.data_ref().map_or(0, Bytes::len));
        }
        if matches!(frame, None | Some(Ok(_))) && self.body.is_end_stream() {
            self.complete();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Broken::Request(error.into()))))
    }

    fn complete(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.complete();
        }
    }
}
