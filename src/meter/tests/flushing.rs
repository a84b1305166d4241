//! Flushing: absolute values, whatever happens on the way.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::meter::flush::pause_after;
use crate::meter::hour_flush::HourFlush;
use crate::meter::record::{Flush, LedgerLine};
use crate::meter::shard::SHARED;
use crate::meter::witness::Acknowledged;
use crate::meter::{FlushReport, Flushed};
use crate::store::{Ledger, StoreError, UsageTotal};

#[test]
fn only_what_changed_is_flushed_and_as_one_value_for_each_key() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let now = HOUR.start();
    call(&meter, key(1), now);
    call(&meter, key(2), now);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            meter.attach_thread();
            call(&meter, key(1), now);
        });
    });
    let report = runtime().block_on(flusher.flush_once(now)).unwrap();
    assert_eq!(report, FlushReport { lines: 2, batches: 1, ..FlushReport::default() });
    assert_eq!(runtime().block_on(flusher.flush_once(now)).unwrap(), FlushReport::default());
    call(&meter, key(2), now);
    assert_eq!(runtime().block_on(flusher.flush_once(now)).unwrap().lines, 1);
    let all = ledger.all();
    assert_eq!(all[&(HOUR, key(1), meter.incarnation())], good_calls(2, now));
    assert_eq!(all[&(HOUR, key(2), meter.incarnation())], good_calls(2, now));
    assert_eq!(ledger.sent.lock().iter().map(|flush| flush.sequence).collect::<Vec<_>>(), [1, 2]);
    flusher.flush_everything_again();
    assert_eq!(runtime().block_on(flusher.flush_once(now)).unwrap().lines, 2);
}

#[test]
fn a_flush_of_many_lines_is_followed_by_a_longer_pause_and_never_by_more_than_the_interval() {
    let every = Duration::from_secs(5);
    let pauses = [0, 999, 1000, 1999, 2000, 4000, 1_000_000].map(|lines| pause_after(lines, every).as_secs());
    assert_eq!(pauses, [1, 1, 2, 2, 3, 5, 5]);
    let long = Duration::from_secs(60);
    assert_eq!(
        [0, 1000, 4000].map(|lines| pause_after(lines, long).as_secs()),
        [1, 24, 60],
        "the spool is not kept waiting"
    );
    let [short, shorter] = [400, 100].map(Duration::from_millis);
    assert_eq!(pause_after(0, short), Duration::from_millis(250), "no pause is made shorter than that");
    assert_eq!([0, 4000].map(|lines| pause_after(lines, shorter)), [shorter; 2]);
}

#[test]
fn the_background_task_waits_for_as_long_as_the_flush_before_was_large() {
    let every = Duration::from_secs(2);
    let few = paces(1, every);
    let many = paces(4000, every);
    // From end to end: that of a flush is a little after its beginning.
    assert!(few < every * 3 / 4, "{few:?}");
    assert!(many > every * 3 / 4, "{many:?}");
}

/// The time from a flush of so many lines to the one after it.
fn paces(lines: u16, every: Duration) -> Duration {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let now = crate::clock::wall();
    (0..lines).for_each(|number| call(&meter, key(number), now));
    let mut flushes = Vec::new();
    let told = |flushed: &Flushed| {
        flushes.push((std::time::Instant::now(), flushed.as_ref().unwrap().lines));
        stop.send_replace(flushes.len() == 2);
    };
    runtime().block_on(Flusher::new(&meter, Arc::new(MemoryLedger::default())).run(every, stopped, told));
    let [(first, sent), (second, 0)] = flushes[..] else { panic!("{flushes:?}") };
    assert_eq!(sent, usize::from(lines));
    second.duration_since(first)
}

/// A ledger during whose first merge calls go on.
struct Interrupted {
    ledger: MemoryLedger,
    during: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[async_trait]
impl Ledger for Interrupted {
    async fn merge_after(&self, flush: Flush, after: u64) -> Result<Acknowledged, StoreError> {
        let during = self.during.lock().take();
        during.into_iter().for_each(|calls| calls());
        self.ledger.merge_after(flush, after).await
    }

    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        self.ledger.lines(from, to).await
    }

    fn totals(&self) -> Result<Vec<UsageTotal>, StoreError> {
        self.ledger.totals()
    }
}

#[test]
fn what_is_counted_during_a_flush_goes_with_the_next_one() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let now = HOUR.start();
    let keys = BTreeSet::from_iter((0..600).map(key));
    keys.iter().for_each(|key| call(&meter, *key, now));
    let (sent, to_come) = (*keys.first().unwrap(), *keys.last().unwrap());
    let calling = Arc::clone(&meter);
    let during = move || [sent, to_come].iter().for_each(|key| call(&calling, *key, now));
    let ledger = Interrupted { ledger: MemoryLedger::default(), during: Mutex::new(Some(Box::new(during))) };
    let ledger = Arc::new(ledger);
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let has = |key| ledger.ledger.all()[&(HOUR, key, meter.incarnation())].opened;
    assert_eq!(runtime().block_on(flusher.flush_once(now)).unwrap().lines, 600);
    assert_eq!((has(sent), has(to_come)), (1, 1));
    assert_eq!(runtime().block_on(flusher.flush_once(now)).unwrap().lines, 2);
    assert_eq!((has(sent), has(to_come)), (2, 2));
    assert_eq!(runtime().block_on(flusher.flush_once(now)).unwrap().lines, 0);
}

#[test]
fn only_the_last_batch_carries_the_new_watermark() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let now = WallTime(HOUR.start().0 + 5);
    (0..1200).for_each(|number| call(&meter, key(number), HOUR.start()));
    let ledger = flush(&meter, now);
    let sent = ledger.sent.lock();
    let shape: Vec<_> = sent.iter().map(|flush| (flush.lines.len(), flush.sequence, flush.watermark)).collect();
    assert_eq!(shape, [(500, 1, WallTime(0)), (500, 2, WallTime(0)), (200, 3, now)]);
}

#[test]
fn a_ledger_that_is_away_or_loses_its_answers_loses_nothing() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let (runtime, now) = (runtime(), HOUR.start());
    for round in 0..50 {
        call(&meter, key(round % 7), now);
        ledger.away.store(round % 3 == 0, Ordering::Relaxed);
        ledger.loses_answers.store(round % 3 == 1, Ordering::Relaxed);
        let flushed = runtime.block_on(flusher.flush_once(now));
        assert_eq!(flushed.is_ok(), round % 3 == 2);
    }
    ledger.loses_answers.store(false, Ordering::Relaxed);
    runtime.block_on(flusher.flush_once(now)).unwrap();
    assert_eq!(ledger.sum(HOUR, meter.incarnation()), good_calls(50, now));
}

#[test]
fn the_background_task_flushes_until_it_is_told_to_stop() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let now = crate::clock::wall();
    runtime().block_on(async {
        let flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
        let task = tokio::spawn(flusher.run(Duration::from_millis(1), stopped, |_| ()));
        call(&meter, key(1), now);
        tokio::time::timeout(Duration::from_secs(20), async {
            while ledger.all().is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        stop.send(true).unwrap();
        let mut flusher = tokio::time::timeout(Duration::from_secs(20), task).await.unwrap().unwrap();
        call(&meter, key(1), now);
        flusher.flush_once(now).await.unwrap();
    });
    assert_eq!(ledger.sum(now.hour(), meter.incarnation()), good_calls(2, now));
}

/// What happens, in order: calls (begun, or begun and ended), with flushes in between.
#[derive(Clone, Copy, Debug)]
enum Step {
    Call(u16),
    Open(u16),
    EndOldest,
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u16..5).prop_map(Step::Call),
        (0_u16..5).prop_map(Step::Open),
        Just(Step::EndOldest),
        Just(Step::Flush)
    ];
    proptest::collection::vec(step, 1..60)
}

fn played(steps: &[Step]) -> Vec<Flush> {
    let folder = folder();
    let meter = small_meter(folder.path(), 1);
    let ledger = Arc::new(MemoryLedger::default());
    let mut flusher = Flusher::new(&meter, Arc::clone(&ledger) as _);
    let (runtime, now) = (runtime(), HOUR.start());
    let mut open = std::collections::VecDeque::new();
    for step in steps {
        match step {
            Step::Call(number) => call(&meter, key(*number), now),
            Step::Open(number) => open.push_back(meter.open_charge(key(*number), now, false).unwrap()),
            Step::EndOldest => drop(open.pop_front()),
            Step::Flush => drop(runtime.block_on(flusher.flush_once(now)).unwrap()),
        }
    }
    runtime.block_on(flusher.flush_once(now)).unwrap();
    ledger.sent.lock().clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn doubled_reordered_and_replayed_batches_give_the_same_ledger(
        steps in steps(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let sent = played(&steps);
        let (in_order, mixed) = (MemoryLedger::default(), MemoryLedger::default());
        let runtime = runtime();
        for flush in &sent {
            runtime.block_on(in_order.merge(flush.clone())).unwrap();
        }
        let doubled = order.iter().filter(|_| !sent.is_empty()).map(|index| index.get(&sent));
        for flush in doubled.chain(sent.iter().rev()) {
            runtime.block_on(mixed.merge(flush.clone())).unwrap();
        }
        prop_assert_eq!(in_order.all(), mixed.all());
    }
}

#[test]
fn the_end_of_a_call_is_not_sent_before_the_file_in_which_it_was_opened_is_known() {
    let folder = folder();
    let meter = meter(folder.path(), 1);
    let opened = || {
        meter.attach_thread();
        meter.open_charge(key(1), HOUR.start(), false).unwrap()
    };
    let charge = std::thread::scope(|scope| scope.spawn(opened).join().unwrap());
    // This thread has no shard of its own.
    charge.commit(Outcome::Ok, tally());
    let (ledger, mut state) = (MemoryLedger::default(), HourFlush::default());
    let (shared, own): (Vec<_>, Vec<_>) =
        meter.core.slabs().into_iter().partition(|slab| slab.identity().shard == SHARED);
    assert!(!shared.is_empty() && !own.is_empty());
    let flush = |state: &mut HourFlush| {
        let mut report = FlushReport::default();
        state.learn_shared();
        runtime().block_on(state.flush(meter.core, &ledger, HOUR, HOUR.start(), &mut report)).unwrap();
        (report.lines, report.busy)
    };
    shared.into_iter().for_each(|slab| state.watch(slab));
    assert_eq!(flush(&mut state), (0, 1));
    own.into_iter().for_each(|slab| state.watch(slab));
    assert_eq!(flush(&mut state), (1, 0));
    assert_eq!(ledger.sum(HOUR, meter.incarnation()), good_calls(1, HOUR.start()));
}
