//! Blocks of headers, which begin a stream, answer one, or end one (RFC 9113, sections 6.2, 6.10 and 8.1).

use http::StatusCode;

use super::super::frame::{self, Head};
use super::super::head::{Answering, Asking, Length, Trailing, Wrong};
use super::super::state::Expected;
use super::super::{Error, Reason, Side};
use super::{Begun, Farewell, Link};
use crate::verdict::Denial;

/// What a block may have beyond the list of headers that it is to become.
const BEYOND: usize = 16 * 1024;
/// Frames of one block.
const FRAMES_MOST: u32 = 128;
/// Interim answers to one request.
const INTERIM_MOST: u8 = 32;

#[derive(Debug)]
pub struct Block {
    pub stream: u32,
    ends: bool,
    bytes: Vec<u8>,
    frames: u32,
}

const UNDECODABLE: Error = Error::Broke(Reason::COMPRESSION_ERROR, "a block of headers");
const MALFORMED: Error = Error::protocol("a malformed message");

impl Link {
    pub(super) fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        let content = frame::content(head, payload).ok_or(Error::protocol("the padding of HEADERS"))?;
        self.frames.refill();
        let ends = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.block(head.stream, ends, content);
        }
        self.block = Some(Block { stream: head.stream, ends, bytes: content.to_vec(), frames: 1 });
        Ok(())
    }

    pub(super) fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        let most = self.bounds.head_bytes as usize + BEYOND;
        let mut block = self.block.take().ok_or(Error::protocol("CONTINUATION of nothing"))?;
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        if block.bytes.len() > most || block.frames > FRAMES_MOST {
            return Err(Error::calm("a block of headers that does not end"));
        }
        if head.has(frame::END_HEADERS) {
            return self.block(block.stream, block.ends, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole block.
    fn block(&mut self, number: u32, ends: bool, block: &[u8]) -> Result<(), Error> {
        self.blocks = self.blocks.wrapping_add(1);
        if number.is_multiple_of(2) {
            return Err(Error::protocol("HEADERS of a stream that no client begins"));
        }
        if let Some(stream) = self.streams.get(number) {
            if stream.broken.is_some() {
                return self.pass_over(block);
            }
            let awaits = matches!(stream.answer, Expected::Awaited { .. });
            return if awaits { self.answer(number, ends, block) } else { self.trail(number, ends, block) };
        }
        match self.side {
            Side::Server if number > self.last => self.request(number, ends, block),
            // It was on its way when the stream ended. The tables have to know it.
            _ if number <= self.last => self.pass_over(block),
            _ => Err(Error::protocol("HEADERS of a stream that was not begun")),
        }
    }

    fn pass_over(&mut self, block: &[u8]) -> Result<(), Error> {
        self.decoder.decode(block, |_, _| {}).map_err(|_| UNDECODABLE)?;
        // A service answers what was cancelled meanwhile: that is no fault of it.
        if self.side == Side::Client { Ok(()) } else { self.spend_reset() }
    }

    fn request(&mut self, number: u32, ends: bool, block: &[u8]) -> Result<(), Error> {
        self.last = number;
        if matches!(self.farewell, Farewell::Last(_)) {
            return self.pass_over(block);
        }
        if self.streams.len() >= self.bounds.streams as usize && self.streams.open() >= self.bounds.streams as usize {
            self.put_reset(number, Reason::REFUSED_STREAM);
            return self.pass_over(block);
        }
        let mut asking = Asking::new(self.bounds.head_bytes as usize);
        self.decoder.decode(block, |name, value| asking.field(name, value)).map_err(|_| UNDECODABLE)?;
        let (head, length) = match asking.finish() {
            Ok((head, length)) => (Ok(head), length),
            Err(Wrong::TooLarge) => (Err(Denial::HeadersTooLarge), Length::Unsaid),
            Err(Wrong::Malformed) => {
                self.put_reset(number, Reason::PROTOCOL_ERROR);
                return self.spend_reset();
            }
        };
        let mut stream = self.stream(Expected::Nothing);
        stream.left = if let Length::Said(length) = length { Some(length) } else { None };
        self.streams.insert(number, stream);
        self.begun.push(Begun { stream: number, head });
        if ends { self.received(number) } else { Ok(()) }
    }

    fn answer(&mut self, number: u32, ends: bool, block: &[u8]) -> Result<(), Error> {
        let mut answering = Answering::new(self.bounds.head_bytes as usize);
        self.decoder.decode(block, |name, value| answering.field(name, value)).map_err(|_| UNDECODABLE)?;
        let Some(stream) = self.streams.get(number) else { return Ok(()) };
        let Expected::Awaited { interim, is_head } = &mut stream.answer else { return Ok(()) };
        let (head, length) = match answering.finish() {
            Ok((head, _)) if head.status.is_informational() => {
                *interim = interim.saturating_add(1);
                if ends || *interim > INTERIM_MOST || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    self.reset(number, Reason::PROTOCOL_ERROR, MALFORMED);
                }
                return Ok(());
            }
            Ok(answer) => answer,
            Err(_) => {
                self.reset(number, Reason::PROTOCOL_ERROR, MALFORMED);
                return Ok(());
            }
        };
        let has_none = *is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        stream.left = match length {
            _ if has_none => Some(0),
            Length::Said(length) => Some(length),
            _ => None,
        };
        stream.answer = Expected::Here(head);
        stream.wake_reader();
        if ends { self.received(number) } else { Ok(()) }
    }

    fn trail(&mut self, number: u32, ends: bool, block: &[u8]) -> Result<(), Error> {
        let mut trailing = Trailing::new(self.bounds.head_bytes as usize);
        self.decoder.decode(block, |name, value| trailing.field(name, value)).map_err(|_| UNDECODABLE)?;
        let Some(stream) = self.streams.get(number) else { return Ok(()) };
        if stream.is_received {
            self.reset(number, Reason::STREAM_CLOSED, Error::Broke(Reason::STREAM_CLOSED, "HEADERS after the end"));
            return self.spend_reset();
        }
        match trailing.finish() {
            Ok(trailers) if ends => {
                stream.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
                self.received(number)
            }
            _ => self.malformed(number),
        }
    }

    /// What came of the stream is no message.
    pub(super) fn malformed(&mut self, number: u32) -> Result<(), Error> {
        self.reset(number, Reason::PROTOCOL_ERROR, MALFORMED);
        self.spend_reset()
    }

    /// All of the stream has come.
    pub(super) fn received(&mut self, number: u32) -> Result<(), Error> {
        let Some(stream) = self.streams.get(number) else { return Ok(()) };
        if stream.left.is_some_and(|left| left > 0) {
            return self.malformed(number);
        }
        stream.is_received = true;
        stream.wake_reader();
        Ok(())
    }
}
