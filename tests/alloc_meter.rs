//! Counting a call on a line that exists allocates nothing. A binary of its own, since it counts every allocation of the process.
#![allow(unsafe_code, reason = "an allocator cannot be written without it; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use tollgate::meter::record::{LineKey, Operation, Outcome};
use tollgate::meter::{Meter, MeterOptions, Tally};
use tollgate::principal::{AccountId, ClusterId, Incarnation, KeyId, StoreId};
use tollgate::time::WallTime;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: Everything is handed on to the system's allocator as it came; counting touches no memory that is handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: The caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: The pointer came from `System`, through `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

// One test only: a second one, on another thread, would be counted too.
#[test]
fn counting_a_call_on_a_line_that_exists_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let now = WallTime(1_774_000_000_000);
    let meter = Meter::open(MeterOptions {
        slab_dir: Some(folder.path().to_owned()),
        spool_dir: folder.path().to_owned(),
        store_id: StoreId([1; 10]),
        incarnation: Incarnation([2; 10]),
        now,
    })
    .unwrap();
    let key = LineKey {
        account_id: AccountId([3; 10]),
        key_id: KeyId([4; 10]),
        cluster_id: ClusterId([5; 10]),
        operation: Operation::Query,
    };
    for attached in [false, true] {
        if attached {
            meter.attach_thread();
        }
        let call = || meter.open_charge(key, now, true).unwrap().commit(Outcome::Ok, Tally::default());
        let before_the_line = ALLOCATIONS.load(Ordering::Relaxed);
        call();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        assert!(before > before_the_line, "the counter does not count");
        (0..10_000).for_each(|_| call());
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
    }
}
