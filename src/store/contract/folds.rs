//! Hours that leave the ledger and come back: nothing is counted twice, nothing is lost, and the sums never change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::ledger::{HOUR, counters, flush, line};
use super::scene::NOW;
use crate::meter::record::{Closing, Counters, LedgerLine, Operation};
use crate::principal::{ID_BYTES, Incarnation};
use crate::store::folds::{CHUNK, Fold, Step, Way, digest, move_back, move_out, stands};
use crate::store::usage::{FinalWindow, HourMark, Touched};
use crate::store::{Store, StoreError, UsageTotal};
use crate::time::Hour;

type AnyStore = Arc<dyn Store>;

/// More lines than go in two moves, of two incarnations; and an hour behind it that stays.
async fn filled(store: &AnyStore) -> Vec<LedgerLine> {
    let of = |calls: u64| {
        let key = |number: u64| line((number % 7) as u8, (number / 7) as u8, Operation::ALL[number as usize % 19]);
        (0..CHUNK as u64 / 2 + 60).map(move |number| (key(number), counters(number + calls)))
    };
    for hour in [HOUR, HOUR.next()] {
        for (incarnation, calls) in [(1, 1), (2, 1000)] {
            let lines: Vec<_> = of(calls).collect();
            for (at, chunk) in lines.chunks(CHUNK / 2).enumerate() {
                store.merge(flush(incarnation, hour, at as u64 + 1, chunk.to_vec())).await.unwrap();
            }
        }
    }
    let lines = store.lines(HOUR, HOUR).await.unwrap();
    assert!(lines.len() > CHUNK);
    lines
}

async fn leave(store: &AnyStore, hour: Hour) {
    let digest = digest(&store.lines(hour, hour).await.unwrap());
    assert!(store.step(hour, Step::Check).await.unwrap());
    assert!(store.step(hour, Step::Leave { digest }).await.unwrap());
}

async fn fold(store: &AnyStore, hour: Hour) {
    leave(store, hour).await;
    move_out(&**store, hour, &BTreeSet::new()).await.unwrap();
    assert_eq!(stands(&**store, hour).await.unwrap(), Some(Fold::Archived));
}

async fn unfold(store: &AnyStore, hour: Hour, lines: &[LedgerLine], marks: Vec<HourMark>) {
    assert!(store.step(hour, Step::Return).await.unwrap());
    move_back(&**store, hour, lines, marks).await.unwrap();
    assert_eq!(stands(&**store, hour).await.unwrap(), None);
}

fn sorted(store: &AnyStore) -> Vec<UsageTotal> {
    let mut totals = store.totals().unwrap();
    totals.sort_by_key(|one| (one.account_id, one.cluster_id, one.operation));
    totals
}

/// Merges into the hour behind have the sums brought up to date; this one adds nothing.
async fn totals(store: &AnyStore) -> Vec<UsageTotal> {
    store.merge(flush(1, HOUR.next(), 1, Vec::new())).await.unwrap();
    sorted(store)
}

pub async fn an_hour_leaves_with_its_lines_and_marks_and_the_sums_stay(store: AnyStore) {
    let lines = filled(&store).await;
    let (before, stays) = (totals(&store).await, store.lines(HOUR.next(), HOUR.next()).await.unwrap());
    leave(&store, HOUR).await;
    // It is cut short after one move, and gone on with by somebody else.
    assert!(store.move_lines(HOUR, Way::Out, lines[..CHUNK].to_vec()).await.unwrap());
    assert_eq!(totals(&store).await, before);
    assert!(!store.move_lines(HOUR, Way::Out, lines[..1].to_vec()).await.unwrap(), "nothing moves twice");
    assert!(!store.step(HOUR, Step::Archive { gone: Vec::new() }).await.unwrap(), "there are lines left");
    let kept = Incarnation([2; ID_BYTES]);
    move_out(&*store, HOUR, &[kept].into()).await.unwrap();
    assert_eq!(totals(&store).await, before);
    assert_eq!(store.lines(Hour(0), Hour(u32::MAX)).await.unwrap(), stays);
    let marks: Vec<_> = store.marks(HOUR, HOUR).await.unwrap().iter().map(|mark| mark.incarnation).collect();
    assert_eq!(marks, [kept]);
    let folds = store.folds(Hour(0), Hour(u32::MAX)).await.unwrap();
    assert_eq!(folds, store.folds(HOUR, HOUR.next()).await.unwrap());
    assert_eq!(folds[&HOUR].digest, digest(&lines));
    assert!(!store.step(HOUR, Step::Check).await.unwrap() && !store.step(HOUR, Step::Stay).await.unwrap());
}

pub async fn an_hour_comes_back_as_it_was_and_takes_late_usage(store: AnyStore) {
    let lines = filled(&store).await;
    let before = totals(&store).await;
    let closing = Closing { lines: 1, totals: counters(3), leaves: true };
    let closed = crate::meter::record::Flush { closing: Some(closing), ..flush(1, HOUR, 9, Vec::new()) };
    store.merge(closed).await.unwrap();
    let marks = store.marks(HOUR, HOUR).await.unwrap();
    for _ in 0..2 {
        fold(&store, HOUR).await;
        assert_eq!(totals(&store).await, before);
        assert!(store.step(HOUR, Step::Return).await.unwrap());
        assert!(store.move_lines(HOUR, Way::Back, lines[..CHUNK].to_vec()).await.unwrap());
        assert!(!store.move_lines(HOUR, Way::Back, lines[..1].to_vec()).await.unwrap(), "nothing comes back twice");
        assert_eq!(totals(&store).await, before);
        move_back(&*store, HOUR, &lines, marks.clone()).await.unwrap();
        assert_eq!(store.lines(HOUR, HOUR).await.unwrap(), lines);
        assert_eq!(store.marks(HOUR, HOUR).await.unwrap(), marks);
        assert_eq!(totals(&store).await, before);
    }
    let more = lines[0].counters.opened + 5;
    let late = flush(1, HOUR, 10, vec![(lines[0].key, counters(more))]);
    store.merge(late).await.unwrap();
    let grown: u64 = totals(&store).await.iter().map(|one| one.counters.opened).sum();
    let was: u64 = before.iter().map(|one| one.counters.opened).sum();
    assert!(lines[0].incarnation == Incarnation([1; ID_BYTES]) && grown == was + 5, "{was} {grown}");
}

pub async fn a_merge_into_an_hour_that_has_left_is_refused_and_it_is_wanted(store: AnyStore) {
    let lines = filled(&store).await;
    let late = || flush(3, HOUR, 1, vec![(line(1, 1, Operation::Query), counters(7))]);
    assert!(store.wanted().await.unwrap().is_empty());
    let refused = |answer| assert!(matches!(answer, Err(StoreError::Archived(HOUR))), "{answer:?}");
    assert!(store.step(HOUR, Step::Check).await.unwrap());
    refused(store.merge(late()).await);
    assert!(store.step(HOUR, Step::Stay).await.unwrap());
    assert!(store.wanted().await.unwrap().is_empty(), "it is there, and waits for nobody");
    store.merge(late()).await.unwrap();
    assert!(store.lines(HOUR, HOUR).await.unwrap().len() > lines.len());
    let lines = store.lines(HOUR, HOUR).await.unwrap();
    let before = totals(&store).await;
    fold(&store, HOUR).await;
    refused(store.merge(flush(3, HOUR, 2, vec![(line(1, 1, Operation::Query), counters(9))])).await);
    let closing = Some(Closing { lines: 1, totals: Counters::default(), leaves: false });
    refused(store.merge(crate::meter::record::Flush { closing, ..flush(3, HOUR, 2, Vec::new()) }).await);
    assert_eq!((store.wanted().await.unwrap(), totals(&store).await), ([HOUR].into(), before.clone()));
    unfold(&store, HOUR, &lines, Vec::new()).await;
    assert!(store.wanted().await.unwrap().is_empty());
    assert_eq!((store.lines(HOUR, HOUR).await.unwrap(), totals(&store).await), (lines, before));
}

/// Every hour of which something is told behind `after`.
async fn told_after(store: &AnyStore, after: u64) -> (BTreeSet<Hour>, usize) {
    let page = store.changed(after, usize::MAX >> 12).await.unwrap();
    let hour = |touched: &Touched| match touched {
        Touched::Record(record) => record.hour,
        Touched::Hour(hour) => *hour,
    };
    (page.touched.iter().map(|(_, touched)| hour(touched)).collect(), page.touched.len())
}

pub async fn the_change_feed_loses_the_lines_of_an_hour_that_left_and_nobody_misses_it(store: AnyStore) {
    filled(&store).await;
    store.make_final(FinalWindow { hour: HOUR, final_at: NOW }).await.unwrap();
    let upto = store.changed(0, usize::MAX >> 12).await.unwrap().upto;
    let (_, stood) = told_after(&store, 0).await;
    fold(&store, HOUR).await;
    assert_eq!(told_after(&store, 0).await.0, [HOUR, HOUR.next()].into());
    assert!(told_after(&store, 0).await.1 < stood);
    assert_eq!(told_after(&store, upto).await.1, 0, "all of it was told with the hour");
    // Of the next one something is newer than that it is final.
    store.make_final(FinalWindow { hour: HOUR.next(), final_at: NOW }).await.unwrap();
    let behind = store.changed(0, usize::MAX >> 12).await.unwrap().upto;
    store.merge(flush(5, HOUR.next(), 1, vec![(line(1, 1, Operation::Query), counters(7))])).await.unwrap();
    fold(&store, HOUR.next()).await;
    assert_eq!(told_after(&store, behind).await, ([HOUR.next()].into(), 1));
}

pub async fn several_control_planes_let_the_same_hour_leave_and_nothing_is_counted_twice(store: AnyStore) {
    let lines = filled(&store).await;
    let before = totals(&store).await;
    leave(&store, HOUR).await;
    let all = super::scene::at_once(4, |_| {
        let store = Arc::clone(&store);
        async move { move_out(&*store, HOUR, &BTreeSet::new()).await }
    });
    assert!(all.await.iter().all(Result::is_ok));
    assert_eq!(stands(&*store, HOUR).await.unwrap(), Some(Fold::Archived));
    assert!(store.step(HOUR, Step::Return).await.unwrap());
    let all = super::scene::at_once(4, |_| {
        let (store, lines) = (Arc::clone(&store), lines.clone());
        async move { move_back(&*store, HOUR, &lines, Vec::new()).await }
    });
    assert!(all.await.iter().all(Result::is_ok));
    assert_eq!((store.lines(HOUR, HOUR).await.unwrap(), totals(&store).await), (lines.clone(), before.clone()));
    // The base has nothing left of it: what the ledger comes to is what there was.
    let mut sums: HashMap<_, u64> = HashMap::new();
    for line in store.lines(Hour(0), Hour(u32::MAX)).await.unwrap() {
        *sums.entry((line.key.account_id, line.key.cluster_id, line.key.operation)).or_default() +=
            line.counters.opened;
    }
    for total in before {
        assert_eq!(sums[&(total.account_id, total.cluster_id, total.operation)], total.counters.opened);
    }
}
