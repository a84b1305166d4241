//! What both sides of HTTP/1.1 (RFC 9112) share: fields as a map, how a body is framed, and what is waiting to be written.

mod chunks;
mod outbox;

use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt};

pub use self::chunks::{Chunks, Next};
pub use self::outbox::{Outbox, write_field};

/// Room for one read: the usual message whole, and more where more is known to come.
pub const READ: usize = 8 * 1024;
pub const READ_MOST: usize = 64 * 1024;
/// A piece of a body up to this size is copied, beside what goes before it; a larger one is handed on as it is.
const COPIED_MOST: usize = 4096;

/// What cannot be read, or can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The words after a status, where they are not the usual ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(pub Bytes);

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

/// A message's head, copied once for all that is kept of it; what it was read into is there for the next one.
pub struct Head<'h> {
    read: &'h [u8],
    copied: Bytes,
}

impl<'h> Head<'h> {
    /// The first bytes of `input`.
    pub fn new(input: &'h [u8], length: usize) -> Self {
        let read = input.get(..length).unwrap_or_default();
        Self { read, copied: Bytes::copy_from_slice(read) }
    }

    /// A part of it.
    pub fn share(&self, part: &[u8]) -> Bytes {
        let at = (part.as_ptr() as usize).wrapping_sub(self.read.as_ptr() as usize);
        // Empty values may point anywhere.
        if at.checked_add(part.len()).is_some_and(|end| end <= self.copied.len()) {
            self.copied.slice(at..at + part.len())
        } else {
            Bytes::copy_from_slice(part)
        }
    }
}

/// Parsed fields as a map.
pub fn fields(parsed: &[httparse::Header<'_>], head: &Head<'_>) -> Result<HeaderMap, Malformed> {
    // Room for the one that is added to every answer.
    let mut fields = HeaderMap::with_capacity(parsed.len() + 1);
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed("the name of a field"))?;
        let value = HeaderValue::from_maybe_shared(head.share(field.value));
        fields.append(name, value.map_err(|_| Malformed("the value of a field"))?);
    }
    Ok(fields)
}

/// Whether `Connection` has this token.
pub fn connection_says(fields: &HeaderMap, what: &str) -> bool {
    fields.get_all(CONNECTION).iter().any(|value| has_token(value, what))
}

/// Whether this is one of the tokens of a list.
pub fn has_token(list: &HeaderValue, what: &str) -> bool {
    let mut tokens = list.as_bytes().split(|byte| *byte == b',');
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(what.as_bytes()))
}

/// A number in digits; a sign is none.
pub fn digits(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Another coding would be lost on the way, since the header belongs to the connection.
pub fn is_chunked(fields: &HeaderMap) -> Result<bool, Malformed> {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(Malformed("its transfer coding")),
    }
}
