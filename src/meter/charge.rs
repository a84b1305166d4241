//! A charge: the evidence that a call was counted at admission, and the duty to count its end exactly once.

use super::packed_key::PackedKey;
use super::record::{LineKey, Outcome, Units};
use super::{Core, shard};
use crate::time::Hour;

/// What a call used, as far as it is known when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Body bytes; for gRPC message bytes with their 5-byte prefix.
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub units: Units,
    /// A document operation ended well and its answer gave no units.
    pub units_missing: bool,
}

impl Tally {
    /// What a commit adds: one call of its outcome, then units missing, bytes in and out, units read and written.
    #[inline]
    pub(super) fn added(&self) -> [u64; 6] {
        let (read, write) = (self.units.read.unwrap_or(0), self.units.write.unwrap_or(0));
        [1, u64::from(self.units_missing), self.request_bytes, self.response_bytes, read, write]
    }
}

/// An admission that was counted, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub hour: Hour,
    pub shard: u16,
    pub at: LineAt,
    pub sequence: u64,
}

/// Where in its shard and hour a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineAt {
    pub extent: u16,
    pub line: u32,
}

/// An admitted call. It is counted as opened; [`Charge::commit`] counts how it ended, in the hour of its admission, on
/// whatever thread. Dropped without a commit it ends as [`Outcome::Aborted`] with the tally it was last told.
#[must_use = "a charge that is dropped counts an aborted call"]
pub struct Charge {
    core: &'static Core,
    key: LineKey,
    opened: Opened,
    ended: bool,
    tally: Tally,
}

impl Charge {
    pub(super) fn new(core: &'static Core, key: LineKey, opened: Opened) -> Self {
        Self { core, key, opened, ended: false, tally: Tally::default() }
    }

    /// The hour the call is billed in: that of its admission, however long it takes.
    pub fn hour(&self) -> Hour {
        self.opened.hour
    }

    /// Unique within the incarnation: the shard in the upper 16 bits, a count of its admissions below.
    pub fn sequence(&self) -> u64 {
        self.opened.sequence
    }

    pub fn line_key(&self) -> &LineKey {
        &self.key
    }

    /// What the call has used so far, in case it is dropped.
    pub fn set_tally(&mut self, tally: Tally) {
        self.tally = tally;
    }

    /// Counts the end of the call. It is in the slab when this returns.
    pub fn commit(mut self, outcome: Outcome, tally: Tally) {
        self.end(outcome, &tally);
    }

    fn end(&mut self, outcome: Outcome, tally: &Tally) {
        self.ended = true;
        let Opened { hour, shard, at, .. } = self.opened;
        let at_home = shard::with_own(self.core, |writer| {
            writer.number() == shard && writer.commit_at(hour, at, outcome, tally).is_some()
        });
        if at_home != Some(true) {
            self.core.commit_elsewhere(hour, &PackedKey::of(&self.key), outcome, tally);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !self.ended {
            let tally = self.tally;
            self.end(Outcome::Aborted, &tally);
        }
    }
}
