//! The state of one connection. It is told what came and says what is to go; nothing in it reads, writes or waits.

mod block;
mod incoming;
mod outgoing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use self::block::Block;
use self::incoming::Reading;
use super::budget::Budget;
use super::frame::{self, Kind};
use super::hpack::{Decoder, Encoder};
use super::state::{Expected, Stream, Streams};
use super::window::{Incoming, Outgoing};
use super::{Bounds, Error, PREFACE, Reason, Side};
use crate::gateway::http1::Outbox;
use crate::gateway::message::RequestHead;
use crate::verdict::Denial;

/// What waits to be written, in bytes, beyond which no content is put in.
const OUTPUT_MOST: usize = 64 * 1024;
/// What waits to be written, in bytes, beyond which nothing is read. Content alone does not come up to it: where both sides wait for the
/// other one to read, neither would ever go on.
const CHOKED: usize = 4 * OUTPUT_MOST;
/// Of a table of headers, as long as nobody says anything else.
const TABLE: usize = 4096;
/// How long nothing may come on a connection while answers are waited for, before no other stream is begun on it.
const SILENT_MOST: Duration = Duration::from_secs(5);
/// What a PING of ours holds that comes before the last GOAWAY.
const FAREWELL: [u8; 8] = *b"farewell";

/// A connection, as its task and its streams share it. They run on one thread, so nobody ever waits for the lock.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Link>>);

pub struct Link {
    side: Side,
    bounds: Bounds,
    reading: Reading,
    /// The beginning of a frame whose rest has not come.
    rest: Vec<u8>,
    /// The other side has said its settings.
    is_greeted: bool,
    /// A block of headers that goes on in the next frame.
    block: Option<Block>,
    /// Blocks of headers that have come to their end.
    blocks: u32,
    decoder: Decoder,
    encoder: Encoder,
    pub(super) output: Outbox,
    peer: Peer,
    incoming: Incoming,
    outgoing: Outgoing,
    pub(super) streams: Streams,
    /// Those whose content waits for the connection.
    blocked: VecDeque<u32>,
    /// The highest stream that was begun, by whichever side begins them.
    last: u32,
    /// Requests that came and were not handed over yet.
    begun: Vec<Begun>,
    farewell: Farewell,
    frames: Budget,
    resets: Budget,
    driver: Option<Waker>,
    /// The driver will look at the output anyway.
    is_awake: bool,
    /// How often something came.
    heard: u32,
    /// For how long answers were waited for in vain.
    silent: Silent,
    /// Nothing has come for so long that no stream is begun any more.
    is_doubted: bool,
    /// Nobody begins streams any more: ours is the side of the client.
    is_done: bool,
    pub(super) ended: Option<Error>,
}

/// What the other side has said of itself.
#[derive(Debug)]
struct Peer {
    stream_window: u32,
    frame_most: usize,
    streams: u32,
}

/// How far a parting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    None,
    /// We said that we will go; what comes meanwhile is still taken.
    Announced,
    /// No stream above this one is taken.
    Last(u32),
    /// The other side goes, and takes no more streams.
    Theirs,
}

/// What the other side has begun, and how long it may take over that. The number tells one from the next.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished {
    pub number: u32,
    pub within: Duration,
}

/// The time in which somebody waited and nothing came. What several wait for at once counts once, and idleness not at all.
#[derive(Clone, Copy, Debug, Default)]
struct Silent {
    /// How often something had come by then.
    heard: u32,
    waited: Duration,
    until: Option<Instant>,
}

impl Silent {
    fn adds(&mut self, heard: u32, since: Instant, now: Instant) -> Duration {
        if self.heard != heard {
            *self = Self { heard, ..Self::default() };
        }
        let from = self.until.map_or(since, |until| until.max(since));
        self.waited += now.saturating_duration_since(from);
        self.until = Some(now);
        self.waited
    }
}

/// A request that has come.
#[derive(Debug)]
pub struct Begun {
    pub stream: u32,
    /// Or why it cannot be one.
    pub head: Result<RequestHead, Denial>,
}

impl Shared {
    pub fn new(side: Side, bounds: Bounds) -> Self {
        Self(Arc::new(Mutex::new(Link::new(side, bounds))))
    }

    pub fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.lock()
    }
}

impl Link {
    /// A connection that has nothing said yet but our settings, which lie in the outbox.
    pub fn new(side: Side, bounds: Bounds) -> Self {
        let first = frame::WINDOW_FIRST;
        let mut link = Self {
            side,
            bounds,
            reading: if side == Side::Server { Reading::Preface } else { Reading::Frames },
            rest: Vec::new(),
            is_greeted: false,
            block: None,
            blocks: 0,
            decoder: Decoder::new(TABLE),
            encoder: Encoder::default(),
            output: Outbox::default(),
            peer: Peer { stream_window: first, frame_most: frame::PAYLOAD_MOST as usize, streams: u32::MAX },
            incoming: Incoming::new(bounds.connection_window.max(first), bounds.connection_window.max(first)),
            outgoing: Outgoing::new(first),
            streams: Streams::default(),
            blocked: VecDeque::new(),
            last: 0,
            begun: Vec::new(),
            farewell: Farewell::None,
            frames: Budget::of_frames(),
            resets: Budget::of_resets(),
            driver: None,
            is_awake: false,
            heard: 0,
            silent: Silent::default(),
            is_doubted: false,
            is_done: false,
            ended: None,
        };
        link.greet();
        link
    }

    fn greet(&mut self) {
        let Bounds { stream_window, connection_window, streams, head_bytes, .. } = self.bounds;
        let out = self.output.last();
        let own = match self.side {
            Side::Server => (frame::MAX_CONCURRENT_STREAMS, streams),
            Side::Client => {
                out.extend_from_slice(PREFACE);
                (frame::ENABLE_PUSH, 0)
            }
        };
        let both = [(frame::INITIAL_WINDOW_SIZE, stream_window), (frame::MAX_HEADER_LIST_SIZE, head_bytes)];
        frame::put_settings(&[own, both[0], both[1]], out);
        if let Some(more) = connection_window.checked_sub(frame::WINDOW_FIRST).filter(|more| *more > 0) {
            frame::put_window(0, more, out);
        }
    }

    /// The state of another stream. One that was begun before the other side knew our settings has the first window.
    fn stream(&self, answer: Expected) -> Box<Stream> {
        let window = self.bounds.stream_window;
        let incoming = Incoming::new(window, window.max(frame::WINDOW_FIRST));
        Box::new(Stream::new(incoming, Outgoing::new(self.peer.stream_window), answer, self.heard))
    }

    /// The answer of a stream was waited for in vain. Where nothing at all comes meanwhile, the other side may be gone without a word,
    /// and TCP finds that out only after a quarter of an hour.
    pub(super) fn waited_in_vain(&mut self, number: u32, since: Instant, now: Instant) {
        let heard = self.heard;
        if self.streams.get(number).is_some_and(|stream| stream.heard == heard) {
            self.is_doubted |= self.silent.adds(heard, since, now) >= SILENT_MOST;
        }
    }

    /// The driver is polled: it looks at everything that is put into the outbox until it falls asleep.
    pub fn wakes(&mut self, driver: &Waker) {
        match &mut self.driver {
            Some(waker) => waker.clone_from(driver),
            none => *none = Some(driver.clone()),
        }
        self.is_awake = true;
    }

    /// All that there was is written.
    pub fn sleeps(&mut self) {
        self.is_awake = false;
    }

    /// There is something to be written.
    pub(super) fn wake_driver(&mut self) {
        if !std::mem::replace(&mut self.is_awake, true)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// So much waits to be written that nothing more is to be read.
    pub fn is_choked(&self) -> bool {
        self.output.len() > CHOKED
    }

    /// More streams have come than may be open: most of them are over, and their calls have not noticed.
    pub fn is_crowded(&self) -> bool {
        self.streams.len() > self.crowd()
    }

    fn crowd(&self) -> usize {
        (self.bounds.streams as usize).saturating_mul(2)
    }

    pub fn take_begun(&mut self) -> Vec<Begun> {
        std::mem::take(&mut self.begun)
    }

    /// Says that we will go, and what the last stream was once the other side has heard it (RFC 9113, section 6.8).
    pub fn part(&mut self) {
        if self.farewell != Farewell::None || self.ended.is_some() {
            return;
        }
        self.farewell = Farewell::Announced;
        let out = self.output.last();
        frame::put_goaway(frame::STREAM_MOST, Reason::NO_ERROR, out);
        frame::put(Kind::Ping, 0, 0, &FAREWELL, out);
        self.wake_driver();
    }

    fn parted(&mut self) {
        self.farewell = Farewell::Last(self.last);
        frame::put_goaway(self.last, Reason::NO_ERROR, self.output.last());
    }

    /// Nothing is left to be done but to write what is in the outbox.
    pub fn is_over(&self) -> bool {
        let is_last = matches!(self.farewell, Farewell::Last(_)) || self.is_done;
        self.ended.is_some() || is_last && self.streams.is_empty()
    }

    /// Whether a stream can be begun: from the side of the client.
    pub fn has_room(&self, most: usize) -> bool {
        self.stands() && !self.is_choked() && self.streams.len() < most.min(self.peer.streams as usize)
    }

    #[cfg(test)]
    pub fn in_line(&self) -> usize {
        self.blocked.len()
    }

    #[cfg(test)]
    pub fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Nobody uses it.
    pub fn is_quiet(&self) -> bool {
        self.streams.is_empty()
    }

    /// Nobody will begin a stream any more: the connection ends with its last one.
    pub fn finish(&mut self) {
        self.is_done = true;
        self.wake_driver();
    }

    /// Neither side has ended the connection, or is about to.
    pub fn stands(&self) -> bool {
        self.ended.is_none()
            && !self.is_done
            && !self.is_doubted
            && self.farewell == Farewell::None
            && self.last < frame::STREAM_MOST - 2
    }

    /// The connection ends: what is broken is said to the other side, and everybody who waits is told.
    pub fn fail(&mut self, error: Error) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(error);
        self.rest = Vec::new();
        if let Error::Broke(reason, _) = error {
            let last = if self.side == Side::Server { self.last } else { 0 };
            frame::put_goaway(last, reason, self.output.last());
        } else {
            // Nobody takes it.
            self.output.clear();
        }
        for (_, stream) in self.streams.each() {
            stream.breaks(error);
        }
        self.wake_driver();
    }

    /// One of those who had the stream is done with it; nobody reads it any more, if it was the reader.
    pub(super) fn let_go(&mut self, number: u32, was_reader: bool) {
        let Some(stream) = self.streams.get(number) else { return };
        stream.holders = stream.holders.saturating_sub(1);
        let mut unread = 0;
        if was_reader || stream.holders == 0 {
            stream.is_read = false;
            unread = std::mem::take(&mut stream.content).len();
        }
        if stream.holders == 0 {
            self.forget(number);
        }
        self.grant(u32::try_from(unread).unwrap_or(u32::MAX));
        if self.streams.is_empty() || self.streams.len() == self.crowd() {
            // It may be what the driver waits for.
            self.wake_driver();
        }
    }

    /// Nobody is there for the stream: if the other side is not done with it, it is told.
    fn forget(&mut self, number: u32) {
        let Some(stream) = self.streams.remove(number) else { return };
        if stream.is_blocked {
            self.blocked.retain(|other| *other != number);
        }
        if !stream.is_open() {
            return;
        }
        // A server that has answered wants no more of the request (RFC 9113, section 8.1).
        let reason = if stream.is_sent && self.side == Side::Server { Reason::NO_ERROR } else { Reason::CANCEL };
        self.put_reset(number, reason);
    }

    fn put_reset(&mut self, number: u32, reason: Reason) {
        if self.ended.is_none() {
            frame::put_reset(number, reason, self.output.last());
            self.wake_driver();
        }
    }

    /// Ends a stream early.
    pub(super) fn reset(&mut self, number: u32, reason: Reason, error: Error) {
        let Some(stream) = self.streams.get(number) else { return };
        if stream.is_open() {
            stream.breaks(error);
            self.put_reset(number, reason);
        }
    }

    /// So much content of a stream was read: there is room for as much again.
    pub(super) fn was_read(&mut self, number: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.grant(bytes);
        if let Some(stream) = self.streams.get(number)
            && !stream.is_received
            && stream.broken.is_none()
            && let Some(more) = stream.incoming.release(bytes)
        {
            frame::put_window(number, more, self.output.last());
            self.wake_driver();
        }
    }

    fn spend_frame(&mut self) -> Result<(), Error> {
        self.frames.spend(Instant::now).then_some(()).ok_or(Error::calm("too many frames that carry no call"))
    }

    fn spend_reset(&mut self) -> Result<(), Error> {
        self.resets.spend(Instant::now).then_some(()).ok_or(Error::calm("too many streams that end early"))
    }

    /// So much content was taken or let go: the connection has room for as much again.
    fn grant(&mut self, bytes: u32) {
        if let Some(more) = self.incoming.release(bytes)
            && self.ended.is_none()
        {
            frame::put_window(0, more, self.output.last());
            self.wake_driver();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_the_time_in_which_somebody_waits_and_ends_with_whatever_comes() {
        let (begun, mut silent) = (Instant::now(), Silent::default());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut adds = |heard, since, now| silent.adds(heard, at(since), at(now)).as_secs();
        assert_eq!(adds(1, 0, 2), 2);
        assert_eq!(adds(1, 0, 2), 2, "what two wait for at once counts once");
        assert_eq!(adds(1, 1, 3), 3);
        assert_eq!(adds(1, 600, 601), 4, "nobody waited in between");
        assert_eq!(adds(2, 602, 603), 1, "something came");
    }
}
