//! Heads and content as they go (RFC 9113, sections 6.1 and 6.2).

use bytes::{BufMut, Bytes, BytesMut};

use super::super::frame::{self, HEAD, Head, Kind};
use super::super::state::{Expected, Queued};
use super::{Link, OUTPUT_MOST};
use crate::gateway::http1::COPIED_MOST;

/// The other side may take frames of any length; a longer one would keep everything else.
const CONTENT_MOST: usize = 16 * 1024;

impl Link {
    /// Begins a stream from the side of the client, and says its number. To be asked only where there is room.
    pub fn open(&mut self, is_head: bool) -> u32 {
        let number = if self.last == 0 { 1 } else { self.last + 2 };
        self.last = number;
        let stream = self.stream(Expected::Awaited { interim: 0, is_head });
        self.streams.insert(number, stream);
        number
    }

    /// Sends a block of headers. What is given writes its fields.
    pub fn put_head(&mut self, number: u32, ends: bool, write: impl FnOnce(&mut BytesMut)) {
        if let Some(stream) = self.streams.get(number)
            && !stream.is_sent
        {
            stream.is_sent = ends;
            self.put_block(number, ends, write);
            self.wake_driver();
        }
    }

    fn put_block(&mut self, number: u32, ends: bool, write: impl FnOnce(&mut BytesMut)) {
        let most = self.peer.frame_most;
        let out = self.output.last();
        let start = out.len();
        out.put_bytes(0, HEAD);
        self.encoder.begin(out);
        write(out);
        let length = out.len() - start - HEAD;
        let flags = if ends { frame::END_STREAM } else { 0 };
        if length > most {
            let block = out.split_off(start + HEAD);
            out.truncate(start);
            return put_pieces(&block, most, number, flags, out);
        }
        let head = head(Kind::Headers, length, flags | frame::END_HEADERS, number);
        if let Some(place) = out.get_mut(start..start + HEAD) {
            place.copy_from_slice(&head.written());
        }
    }

    /// Sends content, as far as there is room; the rest waits, and nothing else may be sent on the stream meanwhile.
    pub fn put_data(&mut self, number: u32, data: Bytes, ends: bool) {
        let Some(stream) = self.streams.get(number) else { return };
        if !stream.is_sent {
            stream.queued = Some(Queued { data, ends });
            self.send(number);
            self.wake_driver();
        }
    }

    /// Sends of what waits on a stream as much as there is room for.
    pub(super) fn send(&mut self, number: u32) {
        let (frame_most, outgoing) = (self.peer.frame_most.min(CONTENT_MOST), &mut self.outgoing);
        let Some(stream) = self.streams.get(number) else { return };
        while let Some(Queued { data, ends }) = &mut stream.queued {
            let room = stream.outgoing.room().min(outgoing.room()).min(frame_most);
            let length = data.len().min(room);
            let is_full = self.output.len() > OUTPUT_MOST || length > COPIED_MOST && !self.output.takes_a_piece();
            if !data.is_empty() && stream.outgoing.room() == 0 {
                // Whatever gives it a window asks again.
                return;
            }
            if !data.is_empty() && (length == 0 || is_full) {
                if !std::mem::replace(&mut stream.is_blocked, true) {
                    self.blocked.push_back(number);
                }
                return;
            }
            let part = data.split_to(length);
            let is_all = data.is_empty();
            let flags = if is_all && *ends { frame::END_STREAM } else { 0 };
            self.output.last().put_slice(&head(Kind::Data, length, flags, number).written());
            self.output.put(part);
            stream.outgoing.spend(length);
            outgoing.spend(length);
            if is_all {
                stream.is_sent = *ends;
                stream.queued = None;
                stream.wake_writer();
            }
        }
    }

    /// There is room again: those that waited go on, in their order.
    pub fn send_blocked(&mut self) {
        for _ in 0..self.blocked.len() {
            let has_room = self.outgoing.room() > 0 && self.output.takes_a_piece() && self.output.len() <= OUTPUT_MOST;
            let Some(number) = self.blocked.pop_front_if(|_| has_room) else { return };
            if let Some(stream) = self.streams.get(number) {
                stream.is_blocked = false;
                self.send(number);
            }
        }
    }

    /// All windows have grown.
    pub(super) fn send_all(&mut self) {
        let waiting: Vec<u32> =
            self.streams.each().filter(|(_, stream)| stream.queued.is_some()).map(|(number, _)| number).collect();
        waiting.into_iter().for_each(|number| self.send(number));
    }
}

fn head(kind: Kind, length: usize, flags: u8, stream: u32) -> Head {
    // Cut to the length of a frame before.
    Head { length: u32::try_from(length).unwrap_or_default(), kind, flags, stream }
}

/// A block that is longer than a frame.
fn put_pieces(block: &[u8], most: usize, number: u32, flags: u8, out: &mut BytesMut) {
    let count = block.chunks(most).len();
    for (at, piece) in block.chunks(most).enumerate() {
        let (kind, first) = if at == 0 { (Kind::Headers, flags) } else { (Kind::Continuation, 0) };
        let last = if at + 1 == count { frame::END_HEADERS } else { 0 };
        frame::put(kind, first | last, number, piece, out);
    }
}
