//! Counts the HTTP/2 frames that make work and carry no call, from their 9-byte headers (RFC 9113, section 4.1).
//!
//! What h2 bounds on its own, so that it is not counted here: streams that are reset at once, CONTINUATION frames of one
//! header block, and small DATA frames. What it answers as fast as it is asked, for ever: PING and SETTINGS; what it
//! takes and ignores: PRIORITY and frames of unknown kinds.

use tokio::time::Instant;

/// Frames in a row, without any of a call between them.
const BURST: u32 = 10_000;
/// What comes back of it per second: a client that measures its line sends a PING for each round trip.
const PER_SECOND: u32 = 1000;
/// The client's preface stands before its first frame.
const PREFACE: u64 = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Where in the stream of frames a connection is, and how much it may still say beside calls.
#[derive(Debug)]
pub struct Frames {
    head: [u8; HEAD],
    have: usize,
    /// Bytes until the next frame.
    skip: u64,
    left: u32,
    refilled: Option<Instant>,
}

/// More frames beside calls than any client needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood;

impl Frames {
    pub const fn new() -> Self {
        Self { head: [0; HEAD], have: 0, skip: PREFACE, left: BURST, refilled: None }
    }

    /// Takes in what was read next, cut anywhere. `now` is asked only where the budget is used up.
    pub fn feed(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some(byte) = bytes.split_off_first() else {
                return Ok(());
            };
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *byte;
                self.have += 1;
            }
            if self.have == HEAD {
                self.frame(&now)?;
            }
        }
    }

    fn frame(&mut self, now: impl Fn() -> Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        (self.have, self.skip) = (0, u64::from(length));
        match kind {
            HEADERS => self.left = BURST,
            DATA if length > 0 => self.left = BURST,
            DATA | RST_STREAM | WINDOW_UPDATE | CONTINUATION => {}
            _ => return self.spend(now),
        }
        Ok(())
    }

    fn spend(&mut self, now: impl Fn() -> Instant) -> Result<(), Flood> {
        if self.left == 0 {
            let now = now();
            let since = self.refilled.map_or(PER_SECOND, |at| {
                let millis = now.duration_since(at).as_millis().min(1000);
                u32::try_from(millis).unwrap_or_default() * PER_SECOND / 1000
            });
            // The first time there is nothing to measure from, so that one second is given.
            self.left = since;
            self.refilled = Some(now);
        }
        self.left = self.left.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.extend(std::iter::repeat_n(0xff, usize::from(length)));
        frame
    }

    fn begun() -> Frames {
        let mut frames = Frames::new();
        frames.feed(&[0; 24], Instant::now).unwrap();
        frames
    }

    /// How many of these frames are taken at once, at most `most`.
    fn taken(frames: &mut Frames, bytes: &[u8], most: u32, now: Instant) -> u32 {
        (0..most).take_while(|_| frames.feed(bytes, || now).is_ok()).count() as u32
    }

    #[test]
    fn pings_are_a_flood_only_beyond_a_burst_and_a_rate() {
        let (mut frames, now) = (begun(), Instant::now());
        assert_eq!(taken(&mut frames, &frame(PING, 8), BURST * 3, now), BURST + PER_SECOND);
        let later = now + Duration::from_millis(500);
        assert_eq!(taken(&mut frames, &frame(PING, 8), BURST, later), PER_SECOND / 2);
        assert_eq!(frames.feed(&frame(4, 0), || later), Err(Flood));
    }

    #[test]
    fn a_call_between_them_makes_pings_harmless() {
        let (mut frames, now) = (begun(), Instant::now());
        for between in [frame(HEADERS, 20), frame(DATA, 1)] {
            for _ in 0..5 {
                assert_eq!(taken(&mut frames, &frame(PING, 8), BURST, now), BURST);
                frames.feed(&between, || now).unwrap();
            }
        }
        // A frame without content is none.
        taken(&mut frames, &frame(PING, 8), BURST + PER_SECOND, now);
        frames.feed(&frame(DATA, 0), || now).unwrap();
        assert_eq!(frames.feed(&frame(PING, 8), || now), Err(Flood));
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let now = Instant::now();
        let stream: Vec<u8> =
            [vec![0; 24], frame(DATA, 200), frame(PING, 8), frame(HEADERS, 9), frame(PING, 8)].concat();
        for size in [1, 2, 8, 9, 10, 100, stream.len()] {
            let mut frames = Frames::new();
            stream.chunks(size).for_each(|piece| frames.feed(piece, || now).unwrap());
            assert_eq!((frames.left, frames.have, frames.skip), (BURST - 1, 0, 0), "pieces of {size}");
        }
    }
}
