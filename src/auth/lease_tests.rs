//! The lease, as the library has it. Apart from it, since `tests/interleavings` compiles it with other atomics.

use std::time::Duration;

use super::lease::Lease;
use crate::time::BootTime;

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
