//! What a slab file holds, word by word, and the order in which it is written.
//!
//! A file is a row of 64-bit words: who it belongs to, one redo slot, a directory of line keys, and the lines. This module works
//! on any `&[AtomicU64]`: the mapped file of a living gateway, or a copy read from the file of a dead one.
//!
//! **What a SIGKILL can cut.** The pages belong to the file, so a store that was executed stays, whatever happens to the
//! process. A kill stops each thread between two machine instructions: of the stores of one thread, those before the cut are in
//! the file and those after it are not. So the order of the machine's stores is all that counts, and every store here is a
//! `Release` store of one whole word ([`put`]): the compiler moves no earlier store behind it, hence none past another. On
//! x86-64 this is a plain `mov`.
//!
//! **A commit** changes up to six counters, so a cut in the middle would tear it. Therefore the new absolute values are first
//! written into the redo slot, then published by one store of its state word, then copied to the line, then the slot is
//! cleared. Cut before the publishing store: the call never ended. Cut after it: recovery copies the values (once more). There is
//! no third case. The slot is the file's, and a file has a single writer, so there is never a second commit in the slot.
//!
//! **An admission** stores `last_used` and `flags` before `opened`. Each is right by itself, so it needs no slot.
//!
//! **A new line**: its directory record is stored before the count of published records, and the index is handed out after
//! that. A published record that does not match its checksum is damage, never a half-written one.
//!
//! **Concurrent readers** (the flush) see a line whole by its version word: odd while it is written, another value afterwards.
//! Every load is `Acquire`, so who has seen any later value also sees the version that was stored before it.

use std::sync::atomic::AtomicU64;

use super::charge::Tally;
use super::header::Identity;
use super::line::{LINE, Line};
use super::packed_key::PackedKey;
use super::record::{Counters, LineKey, Outcome};
use super::words::{checksum, low, put, take};
use crate::time::WallTime;

// Where things stand, in words. What different threads touch stands on cache lines of its own.
const PUBLISHED: usize = 64;
const FLUSHES: usize = 80;
const REDO: usize = 96;
const REDO_WORDS: usize = 8;
const DIRECTORY: usize = 512;
/// Words of a directory record: four of the key, one of the checksum.
const RECORD: usize = 5;
/// Bit 63 of the slot's state word; below it the outcome (bits 32–39) and the line (bits 0–31).
const REDO_PUBLISHED: u64 = 1 << 63;
/// How often a reader looks again at a line that is being written before it leaves it for the next flush.
const LOOKS: u32 = 1000;

/// Why a file cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it is not a slab of this version")]
    NotASlab,
    #[error("its header does not match its checksum")]
    Header,
    #[error("its length does not match its header")]
    Length,
    #[error("its count of lines does not match its checksum")]
    Count,
    #[error("the directory record of line {0} does not match its checksum")]
    Record(u32),
    #[error("its redo slot is not one that was ever written")]
    Redo,
}

/// Words of a file with room for `capacity` lines; lines start at a multiple of 128 bytes.
pub const fn words_of(capacity: u32) -> usize {
    lines_start(capacity) + capacity as usize * LINE
}

const fn lines_start(capacity: u32) -> usize {
    (DIRECTORY + capacity as usize * RECORD).next_multiple_of(LINE)
}

/// The words of one file, with what is needed to find one's way in them.
#[derive(Clone, Copy)]
pub struct View<'a> {
    words: &'a [AtomicU64],
    capacity: u32,
    /// The header's checksum. It goes into every other one, so that no record fits into another file.
    seal: u32,
}

impl<'a> View<'a> {
    /// For the writer, who made the header.
    pub fn trusted(words: &'a [AtomicU64], capacity: u32, seal: u32) -> Self {
        Self { words, capacity, seal }
    }

    /// Writes the header of a new file, whose other words are zero. Returns its checksum.
    pub fn initialise(words: &'a [AtomicU64], identity: &Identity) -> u32 {
        let seal = identity.write(words);
        if let Some(published) = words.get(PUBLISHED) {
            put(published, sealed_count(seal, 0));
        }
        seal
    }

    /// Reads the header of a file that somebody else wrote.
    pub fn read(words: &'a [AtomicU64]) -> Result<(Self, Identity), Damage> {
        let (identity, seal) = Identity::read(words)?;
        if words.len() != words_of(identity.capacity) {
            return Err(Damage::Length);
        }
        let view = Self { words, capacity: identity.capacity, seal };
        view.check_count()?;
        Ok((view, identity))
    }

    /// How many lines have been handed out.
    pub fn published(&self) -> u32 {
        self.words.get(PUBLISHED).map_or(0, |word| low(take(word)).min(self.capacity))
    }

    pub fn has_room(&self) -> bool {
        self.published() < self.capacity
    }

    pub fn is_half_full(&self) -> bool {
        self.published() >= self.capacity / 2
    }

    /// Publishes a new line and returns its index; `None` when the file is full. For the file's writer alone.
    pub fn publish(&self, key: &PackedKey) -> Option<u32> {
        let line = self.published();
        if line >= self.capacity {
            return None;
        }
        for (word, value) in self.record(line)?.iter().zip(self.sealed_record(line, key)) {
            put(word, value);
        }
        put(self.words.get(PUBLISHED)?, sealed_count(self.seal, line + 1));
        Some(line)
    }

    /// What the published line `line` counts.
    pub fn key(&self, line: u32) -> Result<LineKey, Damage> {
        let damaged = Damage::Record(line);
        let record: &[AtomicU64; RECORD] = self.record(line).ok_or(damaged)?;
        let [a, b, c, d, seal] = record.each_ref().map(take);
        let key = PackedKey([a, b, c, d]);
        if self.sealed_record(line, &key) != [a, b, c, d, seal] {
            return Err(damaged);
        }
        key.unpack().ok_or(damaged)
    }

    /// Counts an admission. `None`, and nothing stored, where there is no such line.
    #[inline]
    pub fn open(&self, line: u32, at: WallTime, browser: bool) -> Option<()> {
        let line = self.line(line)?;
        let version = line.begin();
        put(line.last_used, take(line.last_used).max(at.0));
        if browser {
            put(line.flags, take(line.flags) | Counters::SEEN_IN_BROWSER);
        }
        put(line.opened, take(line.opened).saturating_add(1));
        line.end(version);
        Some(())
    }

    /// Notes that a browser sent the key, in a call that is not admitted. `None`, and nothing stored, where there is no such line.
    pub fn mark_browser(&self, line: u32) -> Option<()> {
        let line = self.line(line)?;
        let version = line.begin();
        put(line.flags, take(line.flags) | Counters::SEEN_IN_BROWSER);
        line.end(version);
        Some(())
    }

    /// Counts the end of a call, whole or not at all. `None`, and nothing stored, where there is no such line.
    #[inline]
    pub fn commit(&self, index: u32, outcome: Outcome, tally: &Tally) -> Option<()> {
        let line = self.line(index)?;
        let (state, values) = self.redo()?;
        let counters = line.counted(outcome)?;
        let added = tally.added();
        for ((slot, counter), add) in values.iter().zip(counters).zip(added) {
            put(slot, take(counter).saturating_add(add));
        }
        put(state, REDO_PUBLISHED | (outcome as u64) << 32 | u64::from(index));
        let version = line.begin();
        for (slot, counter) in values.iter().zip(counters) {
            put(counter, take(slot));
        }
        line.end(version);
        put(state, 0);
        Some(())
    }

    /// Applies what a kill left in the redo slot. The greater value stays, since after a power cut the slot may be the older.
    pub fn finish_commit(&self) -> Result<(), Damage> {
        let (state, values) = self.redo().ok_or(Damage::Length)?;
        let state = take(state);
        if state == 0 {
            return Ok(());
        }
        let index = low(state);
        let outcome = u8::try_from((state & !REDO_PUBLISHED) >> 32).ok().and_then(Outcome::from_index);
        let (Some(outcome), true) = (outcome, state & REDO_PUBLISHED != 0 && index < self.published()) else {
            return Err(Damage::Redo);
        };
        let line = self.line(index).ok_or(Damage::Redo)?;
        for (slot, counter) in values.iter().zip(line.counted(outcome).ok_or(Damage::Redo)?) {
            put(counter, take(slot).max(take(counter)));
        }
        Ok(())
    }

    /// The version of a line: unchanged as long as its counters are. 0 before its first call.
    pub fn version(&self, line: u32) -> u64 {
        self.line(line).map_or(0, |line| take(line.version))
    }

    /// A line as it stood at one moment, with its version. `None` while it is being written.
    pub fn snapshot(&self, line: u32) -> Option<(Counters, u64)> {
        let line = self.line(line)?;
        for _ in 0..LOOKS {
            let version = take(line.version);
            let counters = line.counters();
            if version.is_multiple_of(2) && take(line.version) == version {
                return Some((counters, version));
            }
            std::hint::spin_loop();
        }
        None
    }

    /// The counters of a line of a dead incarnation, whose version may have stayed odd.
    pub fn last_counters(&self, line: u32) -> Counters {
        self.line(line).map(|line| line.counters()).unwrap_or_default()
    }

    /// The sequence number of the last flush of this hour; kept in the first file of the shared shard.
    pub fn flushes(&self) -> u64 {
        self.words.get(FLUSHES).map_or(0, take)
    }

    pub fn set_flushes(&self, sequence: u64) {
        if let Some(word) = self.words.get(FLUSHES) {
            put(word, sequence);
        }
    }

    fn check_count(&self) -> Result<(), Damage> {
        let count = self.words.get(PUBLISHED).map(take).ok_or(Damage::Length)?;
        let believable = count == sealed_count(self.seal, low(count)) && low(count) <= self.capacity;
        if believable { Ok(()) } else { Err(Damage::Count) }
    }

    fn sealed_record(&self, line: u32, key: &PackedKey) -> [u64; RECORD] {
        let [a, b, c, d] = key.0;
        [a, b, c, d, u64::from(checksum(self.seal, &[u64::from(line), a, b, c, d]))]
    }

    fn record(&self, line: u32) -> Option<&'a [AtomicU64; RECORD]> {
        let at = DIRECTORY + line as usize * RECORD;
        self.words.get(at..at + RECORD)?.try_into().ok()
    }

    #[inline]
    fn line(&self, line: u32) -> Option<Line<'a>> {
        let at = lines_start(self.capacity) + line as usize * LINE;
        self.words.get(at..at + LINE)?.try_into().ok().map(Line::new)
    }

    #[inline]
    fn redo(&self) -> Option<(&'a AtomicU64, &'a [AtomicU64; 6])> {
        let slot: &[AtomicU64; REDO_WORDS] = self.words.get(REDO..REDO + REDO_WORDS)?.try_into().ok()?;
        let [state, values @ .., _] = slot;
        Some((state, values))
    }
}

/// A count and its checksum in one word, so that one store replaces both.
fn sealed_count(seal: u32, count: u32) -> u64 {
    u64::from(checksum(seal, &[u64::from(count)])) << 32 | u64::from(count)
}
