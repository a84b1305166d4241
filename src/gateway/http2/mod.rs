//! HTTP/2 (RFC 9113) for both sides of the gateway, in the one form that it needs: heads become lines and lines become heads, without
//! maps in between; a stream is a place in the state of its connection, not a set of queues and tasks.
//!
//! [`link::Link`] is the state of one connection and does no I/O: it takes bytes in, and what it has to say lies in its outbox. Whatever
//! breaks the protocol ends the connection, or the stream where the others are not concerned. [`driver::Driver`] reads and writes for it, and
//! [`stream::Held`] is what a call has of it.
//!
//! What the other side can have of our memory is bounded: by the windows that it was granted, by the number of its streams, by the size of a
//! block of headers, and by not being read while it does not read. What makes work and carries no call is counted ([`budget`]).

mod budget;
mod driver;
mod frame;
mod head;
mod hpack;
mod link;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod window;

use std::fmt;
use std::io;
use std::time::Duration;

pub use self::driver::Driver;
pub use self::head::{put_answer, put_request};
pub use self::link::{Begun, Shared};
pub use self::stream::{Held, Receiving, Refused, Whole};

/// What a client says first (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which side of a connection is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// What the other side may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes it may send ahead, for each stream and for all together.
    pub stream_window: u32,
    pub connection_window: u32,
    /// Streams that it may have open at once.
    pub streams: u32,
    /// Bytes of a list of headers, with 32 more for each (RFC 9113, section 6.5.2).
    pub head_bytes: u32,
    /// How long it may take over its greeting and over a block of headers that it has begun.
    pub head_within: Duration,
}

/// Why a stream or a connection is ended, as both sides say it to each other (RFC 9113, section 7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    pub const NO_ERROR: Self = Self(0);
    pub const PROTOCOL_ERROR: Self = Self(1);
    pub const INTERNAL_ERROR: Self = Self(2);
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    pub const STREAM_CLOSED: Self = Self(5);
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    pub const REFUSED_STREAM: Self = Self(7);
    pub const CANCEL: Self = Self(8);
    pub const COMPRESSION_ERROR: Self = Self(9);
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            number => return write!(f, "error {number}"),
        })
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a stream or a connection ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the other side broke HTTP/2 ({0}): {1}")]
    Broke(Reason, &'static str),
    #[error("the other side reset the stream: {0}")]
    Reset(Reason),
    #[error("the other side ended the connection: {0}")]
    GoneAway(Reason),
    #[error("a greeting or a block of headers did not end in time")]
    Late,
    #[error("the connection was closed")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(io::ErrorKind),
}

impl Error {
    const fn protocol(what: &'static str) -> Self {
        Self::Broke(Reason::PROTOCOL_ERROR, what)
    }

    const fn calm(what: &'static str) -> Self {
        Self::Broke(Reason::ENHANCE_YOUR_CALM, what)
    }

    /// Whether the other side has said that it did nothing with the stream, so that it may be begun again elsewhere (RFC 9113, section 8.7).
    /// One that says that it had too much of us is not asked again.
    pub fn says_unprocessed(&self) -> bool {
        match self {
            Self::Reset(reason) => *reason == Reason::REFUSED_STREAM,
            Self::GoneAway(reason) => *reason != Reason::ENHANCE_YOUR_CALM,
            _ => false,
        }
    }

    /// Whether it was more than anybody needs.
    pub fn is_flood(&self) -> bool {
        matches!(self, Self::Broke(Reason::ENHANCE_YOUR_CALM, _))
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}
