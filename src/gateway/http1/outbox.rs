//! What is waiting to be written: small pieces are gathered, a large one is written from where it lies, all in one call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use tokio::io::AsyncWrite;

use super::COPIED_MOST;

/// A buffer that held no more than this is kept for the next message.
const KEPT_MOST: usize = 1024;
/// So much is gathered before it is written.
const GATHERED_MOST: usize = 16 * 1024;

#[derive(Debug, Default)]
pub struct Outbox {
    /// To be written first …
    first: BytesMut,
    /// … then this, which is not copied …
    piece: Bytes,
    /// … and then what follows it.
    tail: BytesMut,
    /// Under TLS what was written may not have left.
    unflushed: bool,
    wrote: bool,
    /// The most that the first buffer has held.
    held: usize,
}

impl Outbox {
    /// Nothing is left to be written.
    pub fn is_empty(&self) -> bool {
        !self.has_unwritten() && !self.unflushed
    }

    /// Bytes that are to be written.
    pub fn len(&self) -> usize {
        self.first.len() + self.piece.len() + self.tail.len()
    }

    fn has_unwritten(&self) -> bool {
        !self.first.is_empty() || !self.piece.is_empty() || !self.tail.is_empty()
    }

    /// Whether another piece is to be put in before anything is written. Only the tail of a piece is still to be written where there is
    /// no piece.
    pub fn has_room(&self) -> bool {
        self.takes_a_piece() && self.first.len() < GATHERED_MOST
    }

    /// As [`Outbox::has_room`], however much has been gathered.
    pub fn takes_a_piece(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty()
    }

    /// Whether anything was written since [`Outbox::begin`].
    pub fn wrote(&self) -> bool {
        self.wrote
    }

    /// A new message begins.
    pub fn begin(&mut self) {
        self.wrote = false;
    }

    /// Nothing is to be written for a while: gives a large buffer back.
    pub fn release(&mut self) {
        if self.held > KEPT_MOST && self.is_empty() {
            *self = Self { wrote: self.wrote, ..Self::default() };
        }
    }

    pub fn clear(&mut self) {
        self.first.clear();
        self.piece.clear();
        self.tail.clear();
        self.unflushed = false;
    }

    /// What is written last.
    pub fn last(&mut self) -> &mut BytesMut {
        if self.takes_a_piece() { &mut self.first } else { &mut self.tail }
    }

    /// Puts content in, to be asked only where there is room.
    pub fn put(&mut self, data: Bytes) {
        if data.len() > COPIED_MOST && self.takes_a_piece() {
            self.piece = data;
        } else {
            self.last().put_slice(&data);
        }
    }

    /// Puts content in as a chunk. An empty one would be the end, and is left out.
    pub fn put_chunk(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.last().put_slice(format!("{:x}\r\n", data.len()).as_bytes());
        self.put(data);
        self.last().put_slice(b"\r\n");
    }

    /// Ends chunked content.
    pub fn put_end(&mut self, trailers: Option<&HeaderMap>) {
        let last = self.last();
        last.put_slice(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten() {
            write_field(name, value.as_bytes(), last);
        }
        last.put_slice(b"\r\n");
    }

    /// Writes all that was gathered.
    pub fn poll_write(&mut self, stream: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held = self.held.max(self.first.len());
        while self.has_unwritten() {
            let wire = Pin::new(&mut *stream);
            let wrote = if self.takes_a_piece() {
                ready!(wire.poll_write(cx, &self.first))?
            } else {
                let slices = [&self.first[..], &self.piece[..], &self.tail[..]].map(IoSlice::new);
                ready!(wire.poll_write_vectored(cx, &slices))?
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            (self.wrote, self.unflushed) = (true, true);
            self.advance(wrote);
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut wrote: usize) {
        let parts: [&mut dyn Buf; 3] = [&mut self.first, &mut self.piece, &mut self.tail];
        for part in parts {
            let here = wrote.min(part.remaining());
            part.advance(here);
            wrote -= here;
        }
        if self.first.is_empty() && self.piece.is_empty() {
            std::mem::swap(&mut self.first, &mut self.tail);
        }
    }
}

/// A field as HTTP/1.1 writes it.
pub fn write_field(name: &HeaderName, value: &[u8], into: &mut BytesMut) {
    into.put_slice(name.as_str().as_bytes());
    into.put_slice(b": ");
    into.put_slice(value);
    into.put_slice(b"\r\n");
}
