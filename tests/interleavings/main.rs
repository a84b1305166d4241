//! Every interleaving of a call and a deletion, also those that only weaker memory orders allow: the lease is the gateway's own, compiled
//! here with loom's atomics; a map under a lock stands for the keyring.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

/// In place of the library's.
mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}
mod time {
    pub use tollgate::time::BootTime;
}
#[allow(dead_code, reason = "its own tests run with the library")]
#[path = "../../src/auth/lease.rs"]
mod lease;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use self::lease::Lease;
use self::time::BootTime;

/// When the lease of before has ended, and the one after holds.
const NOW: BootTime = BootTime(150);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Allow,
    Tombstone,
}

struct Gateway {
    key: Mutex<Held>,
    lease: Lease,
    /// What the deleter has read of this gateway.
    acknowledged: AtomicBool,
}

impl Gateway {
    /// With a lease until 100.
    fn new() -> Arc<Self> {
        let lease = Lease::default();
        lease.extend(BootTime(0), Duration::from_nanos(100));
        Arc::new(Self { key: Mutex::new(Held::Allow), lease, acknowledged: AtomicBool::new(false) })
    }

    /// What a renewal does whose answer brings the deletion: apply, extend, acknowledge with the next one.
    fn hear_of_the_deletion(&self) {
        *self.key.lock().unwrap() = Held::Tombstone;
        self.lease.extend(BootTime(120), Duration::from_nanos(100));
        self.acknowledged.store(true, Ordering::Release);
    }

    /// As `auth` admits: the lease as it was before the lookup must be good after it.
    fn admits_at(&self, now: BootTime) -> bool {
        let before = self.lease.snapshot();
        let held = *self.key.lock().unwrap();
        held == Held::Allow && before.is_good_at(now)
    }

    /// The same the wrong way round.
    fn admits_by_a_late_look_at(&self, now: BootTime) -> bool {
        let held = *self.key.lock().unwrap();
        held == Held::Allow && self.lease.snapshot().is_good_at(now)
    }
}

/// Runs a call at [`NOW`] beside the deletion; no lease under which the key may pass holds then.
fn beside_a_deletion(admits: impl Fn(&Gateway) -> bool + Send + Sync + Copy + 'static) {
    loom::model(move || {
        let gateway = Gateway::new();
        let feed = thread::spawn({
            let gateway = Arc::clone(&gateway);
            move || gateway.hear_of_the_deletion()
        });
        assert!(!admits(&gateway), "the lease that covers this call came with the deletion");
        feed.join().unwrap();
    });
}

#[test]
fn a_lease_that_came_with_a_deletion_covers_no_lookup_from_before_it() {
    beside_a_deletion(|gateway| gateway.admits_at(NOW));
}

#[test]
fn a_lease_that_is_read_after_the_lookup_is_noticed() {
    let found = catch_unwind(AssertUnwindSafe(|| beside_a_deletion(|gateway| gateway.admits_by_a_late_look_at(NOW))));
    assert!(found.is_err(), "loom tries the order in which this goes wrong");
}

/// A deleter that has read the acknowledgement answers 200; a call that starts then is denied, whatever lease there is.
fn after_the_answer(hear: impl Fn(&Gateway) + Send + Sync + Copy + 'static) {
    loom::model(move || {
        let gateway = Gateway::new();
        let feed = thread::spawn({
            let gateway = Arc::clone(&gateway);
            move || hear(&gateway)
        });
        if gateway.acknowledged.load(Ordering::Acquire) {
            assert!(!gateway.admits_at(BootTime(50)), "the delete was answered");
        }
        feed.join().unwrap();
    });
}

#[test]
fn no_call_passes_that_starts_after_the_deletion_was_acknowledged() {
    after_the_answer(Gateway::hear_of_the_deletion);
}

#[test]
fn an_acknowledgement_before_the_tombstone_is_noticed() {
    let too_early = |gateway: &Gateway| {
        gateway.acknowledged.store(true, Ordering::Release);
        *gateway.key.lock().unwrap() = Held::Tombstone;
    };
    assert!(catch_unwind(AssertUnwindSafe(|| after_the_answer(too_early))).is_err());
}
