//! The lease: until when this gateway may admit calls without asking the store again (design, section 5).

use std::time::Duration;

use crate::atomic::{AtomicU64, Ordering};
use crate::time::BootTime;

/// The deadline of the lease, on this gateway's own clock. It only ever moves forward.
#[derive(Debug, Default)]
pub struct Lease {
    deadline: AtomicU64,
}

/// The lease as it stood before a lookup. A lookup is worth something only if the snapshot is still good after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSnapshot(BootTime);

impl Lease {
    /// To be taken before the lookup: a lease that ends and is renewed in between must not cover an older lookup.
    pub fn snapshot(&self) -> LeaseSnapshot {
        LeaseSnapshot(BootTime(self.deadline.load(Ordering::SeqCst)))
    }

    /// Extends the lease to `length` after `sent`, the moment before the renewal was sent, not the moment of its answer.
    pub fn extend(&self, sent: BootTime, length: Duration) {
        self.deadline.fetch_max(sent.plus(length).0, Ordering::SeqCst);
    }

    /// What is left of the lease at `now`.
    pub fn left(&self, now: BootTime) -> Duration {
        BootTime(self.deadline.load(Ordering::SeqCst)).since(now)
    }
}

impl LeaseSnapshot {
    /// `now` is to be read after the lookup.
    pub fn is_good_at(self, now: BootTime) -> bool {
        now < self.0
    }
}
