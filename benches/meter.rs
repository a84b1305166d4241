//! What counting a call costs in CPU time: opening a charge and committing it, on one thread and on several, with few lines and with many;
//! and what 100 000 accounts with three operations each cost: the first call of a line, the next, memory, and a flush.
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up can only stop")]
#![allow(clippy::disallowed_methods, reason = "new accounts come at a rate")]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use criterion::{Criterion, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio::sync::watch;
use tollgate::meter::record::{Flush, LedgerLine, LineKey, Operation, Outcome, Units};
use tollgate::meter::witness::Acknowledged;
use tollgate::meter::{Flusher, Meter, MeterOptions, Tally};
use tollgate::principal::{AccountId, ClusterId, Incarnation, KeyId, LedgerServer, StoreId};
use tollgate::store::{Ledger, StoreError, UsageTotal};
use tollgate::time::{Hour, WallTime};

const NOW: WallTime = WallTime(1_774_000_000_000);
const MANY: u32 = 100_000;
/// Of each account.
const OPERATIONS: [Operation; 3] = [Operation::Query, Operation::Upsert, Operation::Fetch];

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

/// The time that threads, each with a shard, take for `calls` calls each, of the accounts from a number on and so many, in turn.
fn together(meter: &Meter, accounts: &[(u32, u32)], calls: u64) -> Duration {
    let start = Barrier::new(accounts.len());
    let work = |(first, count): (u32, u32)| {
        let keys: Vec<LineKey> = (first..first + count).map(key).collect();
        meter.attach_thread();
        keys.iter().for_each(|key| call(meter, *key));
        start.wait();
        cpu_time(|| keys.iter().cycle().zip(0..calls).for_each(|(key, _)| call(meter, *key)))
    };
    let work = &work;
    thread::scope(|scope| {
        let running: Vec<_> = accounts.iter().copied().map(|accounts| scope.spawn(move || work(accounts))).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    })
}

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call");
    for (name, accounts) in [
        ("8 lines, 1 threads", &[(0, 8)][..]),
        ("8 lines, 2 threads", &[(0, 8), (0, 8)]),
        // The two should be the same: threads do not share what they write to, also where the account is one.
        ("1 account, 2 threads", &[(0, 1), (0, 1)]),
        ("1 account each, 2 threads", &[(0, 1), (1, 1)]),
    ] {
        let (_folder, meter) = meter();
        group.bench_function(name, |bencher| bencher.iter_custom(|calls| together(&meter, accounts, calls)));
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
    async fn merge_after(&self, flush: Flush, known: u64) -> Result<Acknowledged, StoreError> {
        black_box(flush);
        Ok(Acknowledged { server: LedgerServer::EMBEDDED, known })
    }

    async fn lines(&self, _: Hour, _: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        Ok(Vec::new())
    }

    fn totals(&self) -> Result<Vec<UsageTotal>, StoreError> {
        Ok(Vec::new())
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

/// Memory of this process that is no file, in bytes.
fn heap() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() << 10
}

/// Bytes in the slabs of a folder.
fn slabs(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let slabs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "slab"));
    slabs.filter_map(|slab| slab.metadata().ok()).map(|of| of.len()).sum()
}

/// All lines of the accounts, in an order in which neighbours are no neighbours in memory.
fn everybody() -> impl Iterator<Item = LineKey> {
    let accounts = (0..MANY).map(|number| (number * 7919) % MANY);
    accounts.flat_map(|number| OPERATIONS.map(|operation| LineKey { operation, ..key(number) }))
}

/// 100 000 accounts, three operations each, in one hour and on one thread: measured once, since it is made once.
fn scale(_: &mut Criterion) {
    let (folder, meter) = meter();
    meter.attach_thread();
    let lines = u64::from(MANY) * OPERATIONS.len() as u64;
    let each = |of: Duration| of.as_nanos() as u64 / lines;
    let before = heap();
    let mut slowest = Duration::ZERO;
    let cold = cpu_time(|| {
        everybody().for_each(|key| slowest = slowest.max(cpu_time(|| call(&meter, key))));
    });
    let (grown, mapped) = (heap().saturating_sub(before), slabs(folder.path()));
    let warm = cpu_time(|| everybody().for_each(|key| call(&meter, key)));
    let mut flusher = Flusher::new(&meter, Arc::new(Yes));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut flush = || cpu_time(|| drop(runtime.block_on(flusher.flush_once(NOW))));
    let (all, none) = (flush(), flush());
    println!(
        "{MANY} accounts, {} operations: first call of a line {} ns (the slowest {slowest:?}), next call {} ns",
        OPERATIONS.len(),
        each(cold),
        each(warm)
    );
    println!(
        "an account-hour on one thread: {} bytes of slabs, {} bytes of heap; on each further thread about half of the slabs again",
        mapped / u64::from(MANY),
        grown / u64::from(MANY)
    );
    println!("a flush of all: {} ns a line; of none: {} ns a line", each(all), each(none));
}

/// New lines in a second, while files are made ahead of them.
const ADDED: u32 = 20_000;

/// Accounts are added while calls go on: what the first call of each takes.
fn growth(_: &mut Criterion) {
    let (_folder, meter) = meter();
    meter.attach_thread();
    let (stop, stopped) = watch::channel(false);
    let flusher = Flusher::new(&meter, Arc::new(Yes));
    let ahead = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { drop(flusher.run(Duration::from_millis(250), stopped, |_| {}).await) });
    });
    let mut took: Vec<Duration> = Vec::with_capacity(MANY as usize);
    for number in 0..MANY {
        if number % (ADDED / 1000) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        took.push(cpu_time(|| call(&meter, key(number))));
    }
    stop.send_replace(true);
    let _ = ahead.join();
    took.sort_unstable();
    let share = |of: f64| took.get((took.len() as f64 * of) as usize).copied().unwrap_or_default();
    let slowest = took.last().copied().unwrap_or_default();
    println!(
        "{MANY} accounts added at up to {ADDED} a second: first call p50 {:?}, p99 {:?}, p99.9 {:?}, slowest {slowest:?}",
        share(0.5),
        share(0.99),
        share(0.999)
    );
}

criterion_group!(benches, calls, flushes, scale, growth);
criterion_main!(benches);
