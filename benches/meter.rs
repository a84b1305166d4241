//! What counting a call costs in CPU time: opening a charge and committing it, on one thread and on several, with few lines and with many.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up can only stop")]

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use criterion::{Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tollgate::meter::record::{Flush, LedgerLine, LineKey, Operation, Outcome, Units};
use tollgate::meter::{Flusher, Meter, MeterOptions, Tally};
use tollgate::principal::{AccountId, ClusterId, Incarnation, KeyId, StoreId};
use tollgate::store::{Ledger, StoreError, UsageTotal};
use tollgate::time::{Hour, WallTime};

const NOW: WallTime = WallTime(1_774_000_000_000);
const MANY: u32 = 100_000;

fn meter() -> (TempDir, Arc<Meter>) {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
    let options = MeterOptions {
        slab_dir: Some(folder.path().to_owned()),
        spool_dir: folder.path().to_owned(),
        store_id: StoreId([1; 10]),
        incarnation: Incarnation([2; 10]),
        now: NOW,
    };
    let meter = Meter::open(options).expect("room for the slabs");
    (folder, meter)
}

/// Ids are random; these look so and can be made again.
fn key(number: u32) -> LineKey {
    let mut id = [0; 10];
    let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    id[..8].copy_from_slice(&mixed.to_le_bytes());
    LineKey { account_id: AccountId(id), key_id: KeyId(id), cluster_id: ClusterId(id), operation: Operation::Query }
}

fn call(meter: &Meter, key: LineKey) {
    let units = Units { read: Some(1), write: None };
    let tally = Tally { request_bytes: 60, response_bytes: 600, units, units_missing: false };
    if let Ok(charge) = meter.open_charge(black_box(key), NOW, false) {
        charge.commit(Outcome::Ok, tally);
    }
}

/// What the calling thread computes, whatever else the machine does meanwhile.
fn cpu_time(work: impl FnOnce()) -> Duration {
    let now = || {
        let at = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(at.tv_sec).unwrap_or_default(), u32::try_from(at.tv_nsec).unwrap_or_default())
    };
    let began = now();
    work();
    now().saturating_sub(began)
}

/// The time that `threads` threads, each with a shard, take for `calls` calls each.
fn together(meter: &Meter, threads: usize, calls: u64) -> Duration {
    let start = Barrier::new(threads);
    let work = || {
        meter.attach_thread();
        (0..8).for_each(|number| call(meter, key(number)));
        start.wait();
        cpu_time(|| (0..calls).for_each(|number| call(meter, key((number % 8) as u32))))
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    })
}

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    for threads in [1, 2] {
        let (_folder, meter) = meter();
        let name = format!("8 lines, {threads} threads");
        group.bench_function(name, |bencher| bencher.iter_custom(|calls| together(&meter, threads, calls)));
    }
    let (_folder, of_nobody) = meter();
    group.bench_function("8 lines, shared shard", |bencher| {
        bencher
            .iter_custom(|calls| cpu_time(|| (0..calls).for_each(|number| call(&of_nobody, key((number % 8) as u32)))));
    });
    let (_folder, large) = meter();
    large.attach_thread();
    (0..MANY).for_each(|number| call(&large, key(number)));
    group.bench_function("100k lines, in no order", |bencher| {
        let mut number: u32 = 0;
        let mut next = || {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            call(&large, key(number % MANY));
        };
        bencher.iter_custom(|calls| cpu_time(|| (0..calls).for_each(|_| next())));
    });
    group.finish();
}

/// Says yes to everything.
struct Yes;

#[async_trait]
impl Ledger for Yes {
    async fn merge(&self, flush: Flush) -> Result<(), StoreError> {
        black_box(flush);
        Ok(())
    }

    async fn lines(&self, _: Hour, _: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        Ok(Vec::new())
    }

    fn totals(&self) -> Vec<UsageTotal> {
        Vec::new()
    }
}

fn flushes(criterion: &mut Criterion) {
    let (_folder, meter) = meter();
    meter.attach_thread();
    (0..MANY).for_each(|number| call(&meter, key(number)));
    let mut flusher = Flusher::new(&meter, Arc::new(Yes));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = criterion.benchmark_group("flush of 100k lines");
    group.sample_size(20);
    group.bench_function("all dirty", |bencher| {
        bencher.iter(|| {
            flusher.flush_everything_again();
            runtime.block_on(flusher.flush_once(NOW))
        });
    });
    group.bench_function("none dirty", |bencher| bencher.iter(|| runtime.block_on(flusher.flush_once(NOW))));
    group.finish();
}

criterion_group!(benches, calls, flushes);
criterion_main!(benches);
