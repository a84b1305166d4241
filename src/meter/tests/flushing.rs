//! Flushing: absolute values, whatever happens on the way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::meter::FlushReport;
use crate::meter::flush::pause_after;
use crate::meter::hour_flush::HourFlush;
use crate::meter::record::Flush;
use crate::meter::shard::SHARED;
use crate::store::Ledger;

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
