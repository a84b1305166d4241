//! The counters of one line, word by word.

use std::sync::atomic::AtomicU64;

use super::record::{Counters, Outcome};
use super::words::{put, take};

/// Words of a line: 128 bytes, two cache lines that no other line shares.
pub const LINE: usize = 16;

/// The 16 words of a line, by name.
pub struct Line<'a> {
    pub version: &'a AtomicU64,
    pub opened: &'a AtomicU64,
    pub outcomes: &'a [AtomicU64; 6],
    pub units_missing: &'a AtomicU64,
    pub request_bytes: &'a AtomicU64,
    pub response_bytes: &'a AtomicU64,
    pub read_units: &'a AtomicU64,
    pub write_units: &'a AtomicU64,
    pub last_used: &'a AtomicU64,
    pub flags: &'a AtomicU64,
}

impl<'a> Line<'a> {
    #[inline]
    pub fn new(words: &'a [AtomicU64; LINE]) -> Self {
        let [
            version,
            opened,
            outcomes @ ..,
            units_missing,
            request_bytes,
            response_bytes,
            read_units,
            write_units,
            last_used,
            flags,
            _spare,
        ] = words;
        Self {
            version,
            opened,
            outcomes,
            units_missing,
            request_bytes,
            response_bytes,
            read_units,
            write_units,
            last_used,
            flags,
        }
    }

    #[inline]
    pub fn begin(&self) -> u64 {
        let version = take(self.version);
        put(self.version, version.wrapping_add(1));
        version
    }

    #[inline]
    pub fn end(&self, version: u64) {
        put(self.version, version.wrapping_add(2));
    }

    /// What a commit changes, in the order of [`Tally::added`].
    #[inline]
    pub fn counted(&self, outcome: Outcome) -> Option<[&'a AtomicU64; 6]> {
        let outcome = self.outcomes.get(outcome as usize)?;
        Some([outcome, self.units_missing, self.request_bytes, self.response_bytes, self.read_units, self.write_units])
    }

    pub fn counters(&self) -> Counters {
        Counters {
            opened: take(self.opened),
            outcomes: self.outcomes.each_ref().map(take),
            units_missing: take(self.units_missing),
            request_bytes: take(self.request_bytes),
            response_bytes: take(self.response_bytes),
            read_units: take(self.read_units),
            write_units: take(self.write_units),
            last_used: take(self.last_used),
            flags: take(self.flags),
            interrupted: 0,
        }
    }
}
