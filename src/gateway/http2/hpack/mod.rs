//! HPACK (RFC 7541): the form in which HTTP/2 carries header fields.
//!
//! The decoder reads what strangers send, so that every length, index and size in a block is held against a bound
//! before it is used, and what it keeps between two blocks is the dynamic table (of the size that we announced) and
//! one small buffer. The encoder is the simplest that the RFC allows: it uses the static table and plain literals
//! only, so that it keeps no table at all, and nothing that it sends can be guessed at by the size of what follows
//! (RFC 7541, 7.1).
//!
//! What a name or a value may hold is not HPACK's business: RFC 9113 (8.2.1) says that, and whoever receives the
//! fields from [`Decoder::decode`] must see to it.

mod decoder;
mod encoder;
mod huffman;
mod table;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use encoder::{Encoder, put, put_status};

/// A header block breaks a rule of RFC 7541. The two ends no longer agree about the dynamic table after that, so that
/// the whole connection must end with `COMPRESSION_ERROR` (RFC 9113, 4.3), not only the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;
