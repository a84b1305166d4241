//! The lease: until when this gateway may admit calls without asking the store again (design, section 5).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_one_length_after_its_renewal_was_sent() {
        let lease = Lease::default();
        assert!(!lease.snapshot().is_good_at(BootTime(0)));
        lease.extend(BootTime(100), Duration::from_nanos(50));
        assert!(lease.snapshot().is_good_at(BootTime(149)));
        assert!(!lease.snapshot().is_good_at(BootTime(150)));
        lease.extend(BootTime(90), Duration::from_nanos(50));
        assert_eq!(lease.left(BootTime(120)), Duration::from_nanos(30), "a late answer never shortens it");
    }

    #[test]
    fn a_snapshot_is_not_helped_by_a_later_renewal() {
        let lease = Lease::default();
        lease.extend(BootTime(0), Duration::from_nanos(10));
        let before = lease.snapshot();
        lease.extend(BootTime(20), Duration::from_nanos(100));
        assert!(!before.is_good_at(BootTime(30)));
    }
}
