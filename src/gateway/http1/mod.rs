//! What both sides of HTTP/1.1 (RFC 9112) share: fields as a map, how a body is framed, and what is waiting to be written.

mod chunks;
mod outbox;

use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt};

pub use self::chunks::{Chunks, Next};
pub use self::outbox::{Outbox, write_field};
use crate::gateway::fields::{Fields, Name};

/// Room for one read: the usual message whole, and more where more is known to come.
pub const READ: usize = 8 * 1024;
pub const READ_MOST: usize = 64 * 1024;
/// A piece of a body up to this size is copied, beside what goes before it; a larger one is handed on as it is.
pub const COPIED_MOST: usize = 4096;

/// What cannot be read, or can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// How a body is told from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes are left.
    Length(u64),
    Chunked(Chunks),
    /// It ends with the connection.
    Close,
}

impl Framing {
    /// What the buffer begins with. Content is left there for the caller to take; what it is framed with is taken off.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Next, Malformed> {
        match self {
            Self::Length(0) => Ok(Next::End(HeaderMap::new())),
            Self::Chunked(chunks) => chunks.next(input),
            _ if input.is_empty() => Ok(Next::More),
            Self::Length(left) => {
                let here = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= here as u64;
                Ok(Next::Data(here))
            }
            Self::Close => Ok(Next::Data(input.len())),
        }
    }

    /// Room for the next read.
    pub fn room(&self) -> usize {
        match self {
            Self::Length(left) => usize::try_from(*left).unwrap_or(READ_MOST).clamp(READ, READ_MOST),
            Self::Chunked(_) | Self::Close => READ_MOST,
        }
    }
}

/// Takes content off the front. A small piece is copied, so that the buffer is there for the next one; a large one is not.
pub fn take(input: &mut BytesMut, length: usize) -> Bytes {
    if length > COPIED_MOST {
        return input.split_to(length).freeze();
    }
    let copied = Bytes::copy_from_slice(input.get(..length).unwrap_or_default());
    input.advance(length);
    copied
}

/// Reads more, and says how much; nothing at the end.
pub fn poll_fill(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    room: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    input.reserve(room);
    pin!(stream.read_buf(input)).poll(cx)
}

/// Whether `Connection` has this token.
pub fn connection_says(fields: &Fields, what: &str) -> bool {
    fields.all(Name::Connection).any(|value| has_token(value, what))
}

/// Whether this is one of the tokens of a list.
pub fn has_token(list: &[u8], what: &str) -> bool {
    let mut tokens = list.split(|byte| *byte == b',');
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(what.as_bytes()))
}

/// A number in digits; a sign is none.
pub fn digits(value: &[u8]) -> Option<u64> {
    let (first, rest) = value.split_first()?;
    rest.iter().try_fold(digit(*first)?, |number, byte| number.checked_mul(10)?.checked_add(digit(*byte)?))
}

fn digit(byte: u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte - b'0'))
}

/// Another coding would be lost on the way, since the header belongs to the connection.
pub fn is_chunked(fields: &Fields) -> Result<bool, Malformed> {
    let mut codings = fields.all(Name::TransferEncoding);
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Malformed("its transfer coding")),
    }
}
