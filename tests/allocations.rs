//! What the decision over a call allocates: nothing, once its key is in the keyring and its usage line is there. And what an export
//! of usage allocates: its pieces.
//!
//! A test binary of its own, since it counts by being the allocator, each thread for itself.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    unsafe_code,
    reason = "a test; an allocator is unsafe by its trait"
)]

mod decision;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tollgate::control::export::{Exposition, Pieces};
use tollgate::meter::record::{Counters, Operation};
use tollgate::principal::{AccountId, ClusterId};
use tollgate::store::UsageTotal;

use self::decision::Decision;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_decision_over_a_known_key_allocates_nothing() {
    let decision = Decision::among(1);
    // The first call makes the usage line.
    decision.make();
    let before = ALLOCATIONS.with(Cell::get);
    (0..1000).for_each(|_| decision.make());
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "allocations in 1000 calls");
}

#[test]
fn an_export_allocates_its_pieces_and_nothing_for_each_series() {
    let total = |n: u32| {
        let mut id = [0; 10];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let (account_id, cluster_id, operation) = (AccountId(id), ClusterId([3; 10]), Operation::Query);
        UsageTotal { account_id, cluster_id, operation, counters: Counters::default() }
    };
    for exposition in [Exposition::Text, Exposition::OpenMetrics, Exposition::Protobuf] {
        let totals: Vec<_> = (0..10_000).map(total).collect();
        let before = ALLOCATIONS.with(Cell::get);
        let pieces = Pieces::new(totals, exposition).count();
        let allocations = ALLOCATIONS.with(Cell::get) - before;
        println!("{exposition:?}: 120 000 series in {pieces} pieces, {allocations} allocations");
        // A few for the head of each family and for the labels at hand.
        assert!(allocations <= pieces + 7 * 4 + 8, "{exposition:?}: {allocations} for {pieces} pieces");
    }
}
