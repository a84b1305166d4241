//! Frames as they come (RFC 9113, sections 4 to 6).

use super::super::frame::{self, HEAD, Head, Kind};
use super::super::{Error, PREFACE, Reason, Side};
use super::{FAREWELL, Farewell, Link, Unfinished};

/// Bytes of content in DATA that does not end a stream, below which it counts as a frame that carries no call: nobody sends many of them.
const SMALL: u32 = 64;
/// Where the kind of a frame stands in its head.
const KIND_AT: usize = 3;
/// What is kept of a buffer for the beginnings of frames.
const KEPT_MOST: usize = 1024;

/// What comes next.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    Preface,
    Frames,
    /// The payload of DATA, which is taken in as it comes.
    Data(Data),
}

#[derive(Clone, Copy, Debug)]
pub struct Data {
    stream: u32,
    /// Bytes to come of content, and after it of padding.
    content: u32,
    pad: u32,
    ends: bool,
}

const SIZE: Error = Error::Broke(Reason::FRAME_SIZE_ERROR, "a frame of another size than it may have");
const FLOW: Error = Error::Broke(Reason::FLOW_CONTROL_ERROR, "more than there was room for");
const IDLE: Error = Error::protocol("a frame of a stream that was not begun");

impl Link {
    /// Takes in what was read, cut anywhere. An error ends the connection.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.heard = self.heard.wrapping_add(1);
        if self.rest.is_empty() {
            let rest = self.frames(bytes)?;
            self.rest.extend_from_slice(rest);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.rest);
        held.extend_from_slice(bytes);
        let left = self.frames(&held)?.len();
        if left == 0 && held.capacity() > KEPT_MOST {
            return Ok(());
        }
        held.drain(..held.len() - left);
        self.rest = held;
        Ok(())
    }

    /// What the other side has begun and has to bring to an end: its greeting, or a block of headers.
    pub fn unfinished(&self) -> Option<Unfinished> {
        let kind = || self.rest.get(KIND_AT).copied().map(Kind::of);
        let is_amid_headers = || matches!(kind(), Some(Kind::Headers | Kind::Continuation));
        let is_any = !self.is_greeted || self.block.is_some() || is_amid_headers();
        is_any.then_some(Unfinished { number: self.blocks, within: self.bounds.head_within })
    }

    /// Takes all whole frames, and says what is left.
    fn frames<'b>(&mut self, mut bytes: &'b [u8]) -> Result<&'b [u8], Error> {
        while let Some(rest) = self.step(bytes)? {
            bytes = rest;
        }
        Ok(bytes)
    }

    /// Takes what comes next; `None` where too little of it is there.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Error> {
        match self.reading {
            Reading::Preface => {
                let Some((preface, rest)) = bytes.split_first_chunk() else { return Ok(None) };
                if preface != PREFACE {
                    return Err(Error::protocol("its first bytes"));
                }
                self.reading = Reading::Frames;
                Ok(Some(rest))
            }
            Reading::Frames => {
                let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
                let head = Head::read(*head);
                self.check(head)?;
                if head.kind == Kind::Data {
                    return self.data(head, rest);
                }
                let Some((payload, rest)) = rest.split_at_checked(head.length as usize) else { return Ok(None) };
                self.frame(head, payload)?;
                Ok(Some(rest))
            }
            Reading::Data(data) => self.more_data(data, bytes),
        }
    }

    /// What can be told from the head alone. A head may be looked at more than once.
    fn check(&self, head: Head) -> Result<(), Error> {
        if head.length > frame::PAYLOAD_MOST {
            return Err(SIZE);
        }
        if !self.is_greeted && head.kind != Kind::Settings {
            return Err(Error::protocol("its first frame is not SETTINGS"));
        }
        let goes_on = self.block.as_ref().map(|block| block.stream);
        let continues = (head.kind == Kind::Continuation).then_some(head.stream);
        if goes_on != continues {
            return Err(Error::protocol("a block of headers that was cut"));
        }
        let of_connection = matches!(head.kind, Kind::Settings | Kind::Ping | Kind::GoAway);
        let of_either = matches!(head.kind, Kind::WindowUpdate | Kind::Unknown);
        if !of_either && of_connection != (head.stream == 0) {
            return Err(Error::protocol("a frame in the wrong place"));
        }
        Ok(())
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        match head.kind {
            Kind::Headers => self.headers(head, payload),
            Kind::Continuation => self.continuation(head, payload),
            Kind::WindowUpdate => self.window(head, payload),
            Kind::RstStream => self.was_reset(head, payload),
            Kind::Settings => self.settings(head, payload),
            Kind::Ping => self.ping(head, payload),
            Kind::GoAway => self.goaway(payload),
            Kind::PushPromise => Err(Error::protocol("PUSH_PROMISE, which nobody asked for")),
            Kind::Priority if payload.len() != 5 => Err(SIZE),
            Kind::Priority | Kind::Unknown | Kind::Data => self.spend_frame(),
        }
    }

    /// Whether nobody has begun this stream yet.
    fn is_idle(&self, number: u32) -> bool {
        number > self.last || number.is_multiple_of(2)
    }

    /// The head of DATA. All of its payload counts for the windows.
    fn data<'b>(&mut self, head: Head, rest: &'b [u8]) -> Result<Option<&'b [u8]>, Error> {
        if self.is_idle(head.stream) {
            return Err(IDLE);
        }
        let (pad, rest) = match head.has(frame::PADDED) {
            false => (0, rest),
            true => match rest.split_first() {
                Some((pad, rest)) => (u32::from(*pad) + 1, rest),
                None if head.length > 0 => return Ok(None),
                None => (1, rest),
            },
        };
        let content = head.length.checked_sub(pad).ok_or(Error::protocol("the padding of DATA"))?;
        if !self.incoming.take(head.length) {
            return Err(FLOW);
        }
        self.grant(pad);
        let ends = head.has(frame::END_STREAM);
        if let Some(stream) = self.streams.get(head.stream) {
            if !stream.incoming.take(head.length) {
                return Err(FLOW);
            }
            if let Some(more) = stream.incoming.release(pad).filter(|_| !ends) {
                frame::put_window(head.stream, more, self.output.last());
            }
            self.take_data(head.stream, content)?;
        } else {
            self.spend_frame()?;
        }
        if self.is_little(content) && !ends {
            self.spend_frame()?;
        }
        // The first byte of padding says how much there is.
        self.reading = Reading::Data(Data { stream: head.stream, content, pad: pad.saturating_sub(1), ends });
        Ok(Some(rest))
    }

    /// Content that is less than anybody sends again and again. A service may: it is known, and all its calls are on this connection.
    fn is_little(&self, content: u32) -> bool {
        content == 0 || content < SMALL && self.side == Side::Server
    }

    /// Whether so much content may come of the stream at all.
    fn take_data(&mut self, number: u32, content: u32) -> Result<(), Error> {
        let is_little = self.is_little(content);
        let Some(stream) = self.streams.get(number) else { return Ok(()) };
        if stream.broken.is_some() {
            return self.spend_frame();
        }
        if stream.is_received {
            self.reset(number, Reason::STREAM_CLOSED, Error::Broke(Reason::STREAM_CLOSED, "DATA after the end"));
            return self.spend_reset();
        }
        let left = stream.left.map(|left| left.checked_sub(u64::from(content)));
        match left {
            Some(None) => self.malformed(number),
            _ if stream.answer.is_awaited() => self.malformed(number),
            _ => {
                stream.left = left.flatten();
                if !is_little {
                    self.frames.refill();
                }
                Ok(())
            }
        }
    }

    /// As much as there is of the payload of DATA.
    fn more_data<'b>(&mut self, mut data: Data, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Error> {
        let (content, rest) = cut(bytes, &mut data.content);
        if !content.is_empty() {
            self.put_content(data.stream, content);
        }
        let (_, rest) = if data.content == 0 { cut(rest, &mut data.pad) } else { (rest, rest) };
        if data.content > 0 || data.pad > 0 {
            self.reading = Reading::Data(data);
            return Ok((!bytes.is_empty()).then_some(rest));
        }
        self.reading = Reading::Frames;
        if data.ends && self.streams.get(data.stream).is_some_and(|stream| stream.broken.is_none()) {
            self.received(data.stream)?;
        }
        Ok(Some(rest))
    }

    /// Content that nobody reads is let go at once, so that it does not keep others from coming.
    fn put_content(&mut self, number: u32, content: &[u8]) {
        match self.streams.get(number).filter(|stream| stream.is_read && !stream.is_received && stream.broken.is_none())
        {
            Some(stream) => {
                stream.content.put(content);
                stream.wake_reader();
            }
            None => self.grant(u32::try_from(content.len()).unwrap_or(u32::MAX)),
        }
    }

    fn window(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        let more = frame::number(payload.try_into().map_err(|_| SIZE)?);
        if head.stream == 0 {
            let had_none = self.outgoing.room() == 0;
            if more == 0 {
                return Err(Error::protocol("a window that does not grow"));
            }
            if !self.outgoing.change(i64::from(more)) {
                return Err(FLOW);
            }
            if had_none {
                self.send_blocked();
            }
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(IDLE);
        }
        let Some(stream) = self.streams.get(head.stream) else { return Ok(()) };
        if more == 0 {
            return self.malformed(head.stream);
        }
        if !stream.outgoing.change(i64::from(more)) {
            self.reset(head.stream, Reason::FLOW_CONTROL_ERROR, FLOW);
            return self.spend_reset();
        }
        self.send(head.stream);
        Ok(())
    }

    fn was_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        let reason = Reason(u32::from_be_bytes(payload.try_into().map_err(|_| SIZE)?));
        if self.is_idle(head.stream) {
            return Err(IDLE);
        }
        let is_client = self.side == Side::Client;
        match self.streams.get(head.stream) {
            Some(stream) => stream.breaks(Error::Reset(reason)),
            None => return self.spend_frame(),
        }
        if is_client { Ok(()) } else { self.spend_reset() }
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        self.spend_frame()?;
        let is_ack = head.has(frame::ACK);
        if is_ack && !self.is_greeted {
            return Err(Error::protocol("its first frame is not SETTINGS"));
        }
        if is_ack {
            return if payload.is_empty() { Ok(()) } else { Err(SIZE) };
        }
        let (settings, []) = payload.as_chunks::<6>() else { return Err(SIZE) };
        let before = self.peer.stream_window;
        for [name @ .., first, second, third, fourth] in settings {
            self.setting(u16::from_be_bytes(*name), u32::from_be_bytes([*first, *second, *third, *fourth]))?;
        }
        // Once for all that one frame says, since each stream has to be looked at.
        self.resize_windows(before)?;
        self.is_greeted = true;
        frame::put(Kind::Settings, frame::ACK, 0, &[], self.output.last());
        Ok(())
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Error> {
        match name {
            frame::HEADER_TABLE_SIZE => self.encoder.peer_allows(value),
            frame::ENABLE_PUSH if value > 1 => return Err(Error::protocol("ENABLE_PUSH")),
            frame::MAX_CONCURRENT_STREAMS => self.peer.streams = value,
            frame::INITIAL_WINDOW_SIZE if i64::from(value) > frame::WINDOW_MOST => return Err(FLOW),
            frame::INITIAL_WINDOW_SIZE => self.peer.stream_window = value,
            frame::MAX_FRAME_SIZE if !(frame::PAYLOAD_MOST..1 << 24).contains(&value) => {
                return Err(Error::protocol("MAX_FRAME_SIZE"));
            }
            frame::MAX_FRAME_SIZE => self.peer.frame_most = value as usize,
            _ => {}
        }
        Ok(())
    }

    fn resize_windows(&mut self, before: u32) -> Result<(), Error> {
        let by = i64::from(self.peer.stream_window) - i64::from(before);
        if by != 0 && !self.streams.each().all(|(_, stream)| stream.outgoing.change(by)) {
            return Err(FLOW);
        }
        if by > 0 {
            self.send_all();
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        self.spend_frame()?;
        if payload.len() != FAREWELL.len() {
            return Err(SIZE);
        }
        if !head.has(frame::ACK) {
            frame::put(Kind::Ping, frame::ACK, 0, payload, self.output.last());
        } else if self.farewell == Farewell::Announced && payload == FAREWELL {
            self.parted();
        }
        Ok(())
    }

    /// The other side takes no streams above this one.
    fn goaway(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.spend_frame()?;
        let Some((last, rest)) = payload.split_first_chunk() else { return Err(SIZE) };
        let Some((reason, _)) = rest.split_first_chunk() else { return Err(SIZE) };
        let (last, reason) = (frame::number(*last), Reason(u32::from_be_bytes(*reason)));
        if self.side == Side::Server {
            return Ok(());
        }
        self.farewell = Farewell::Theirs;
        for (_, stream) in self.streams.each().filter(|(number, _)| *number > last) {
            stream.breaks(Error::GoneAway(reason));
        }
        Ok(())
    }
}

/// Takes up to so many bytes off the front.
fn cut<'b>(bytes: &'b [u8], left: &mut u32) -> (&'b [u8], &'b [u8]) {
    let here = bytes.len().min(*left as usize);
    *left = left.saturating_sub(u32::try_from(here).unwrap_or(u32::MAX));
    bytes.split_at_checked(here).unwrap_or((bytes, &[]))
}
