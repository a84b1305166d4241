//! Beside the lines of the ledger: closings, the change feed, final windows, adjustments.

use std::sync::Arc;

use super::ledger::{HOUR, counters, flush, line};
use super::scene::{NOW, Scene};
use crate::meter::record::{Closing, Counters, Operation};
use crate::principal::{AccountId, AdjustmentId, ID_BYTES, Incarnation};
use crate::store::Store;
use crate::store::accounts::{AccountError, Refusal};
use crate::store::audit::Actor;
use crate::store::usage::{Field, FinalWindow, FlushMark, NewAdjustment, RecordKey, Touched};
use crate::time::{Hour, WallTime};

type AnyStore = Arc<dyn Store>;

fn closing(totals: Counters, lines: u64, leaves: bool) -> Closing {
    Closing { lines, totals, leaves }
}

/// Every order of three things.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

pub async fn marks_and_closings_come_out_the_same_in_any_order(store: AnyStore) {
    for (incarnation, order) in (1..).zip(ORDERS) {
        let mut flushes = [1, 2, 3].map(|sequence| flush(incarnation, HOUR, sequence, Vec::new()));
        flushes[0].closing = Some(closing(counters(3), 1, true));
        flushes[1].closing = Some(closing(Counters { write_units: 7, ..counters(2) }, 2, false));
        for index in order.into_iter().chain(order) {
            store.merge(flushes[index].clone()).await.unwrap();
        }
    }
    store.merge(flush(1, HOUR.next(), 1, Vec::new())).await.unwrap();
    let marks = store.marks(HOUR, HOUR).await.unwrap();
    assert_eq!(marks.len(), 6, "of the hour alone");
    assert!(marks.is_sorted_by_key(|mark| mark.incarnation));
    let merged = closing(Counters { write_units: 7, ..counters(3) }, 2, true);
    let expected = FlushMark { sequence: 3, watermark: WallTime(HOUR.start().0 + 3), closing: Some(merged) };
    for mark in marks {
        assert_eq!(mark.mark, expected, "{:?}", mark.incarnation);
    }
    let open = store.marks(HOUR.next(), Hour(u32::MAX)).await.unwrap();
    assert_eq!((open.len(), open[0].mark.closing), (1, None), "one without a closing has none");
}

/// Everything behind `after`, asked for in small pages.
async fn changes_after(store: &AnyStore, mut after: u64) -> Vec<(u64, Touched)> {
    let mut all = Vec::new();
    loop {
        let page = store.changed(after, 3).await.unwrap();
        assert!(page.touched.is_sorted_by_key(|(number, _)| *number));
        assert!(page.touched.iter().all(|(number, _)| (after + 1..=page.upto).contains(number)));
        all.extend(page.touched);
        after = page.upto;
        if !page.more {
            return all;
        }
    }
}

/// The same, once there is anything: what changes beside the lines may be told a moment later.
async fn next_changes(store: &AnyStore, after: u64) -> Vec<(u64, Touched)> {
    loop {
        let changes = changes_after(store, after).await;
        if !changes.is_empty() {
            return changes;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

fn of(account: u8, hour: Hour, operation: Operation) -> Touched {
    Touched::Record(RecordKey::of(hour, &line(account, 1, operation)))
}

pub async fn the_change_feed_tells_each_record_with_its_last_change(store: AnyStore) {
    let lines = |accounts: &[u8], calls| {
        accounts.iter().map(|account| (line(*account, 1, Operation::Query), counters(calls))).collect::<Vec<_>>()
    };
    assert_eq!(changes_after(&store, 0).await, []);
    store.merge(flush(1, HOUR, 1, lines(&[1, 2, 3, 4, 5], 1))).await.unwrap();
    let first = changes_after(&store, 0).await;
    assert_eq!(first.len(), 5);
    let seen = first.last().unwrap().0;
    store.merge(flush(1, HOUR, 1, lines(&[1, 2, 3, 4, 5], 1))).await.unwrap();
    assert_eq!(changes_after(&store, seen).await, [], "what changes nothing is no change");
    store.merge(flush(1, HOUR, 2, lines(&[2], 2))).await.unwrap();
    let second = changes_after(&store, seen).await;
    assert_eq!(second.iter().map(|(_, touched)| *touched).collect::<Vec<_>>(), [of(2, HOUR, Operation::Query)]);
    assert_eq!(changes_after(&store, 0).await.len(), 5, "it stands in the feed once");
    let window = FinalWindow { hour: HOUR, final_at: NOW };
    store.make_final(window).await.unwrap();
    store.make_final(FinalWindow { final_at: WallTime(NOW.0 + 1), ..window }).await.unwrap();
    assert_eq!(store.final_windows(Hour(0), Hour(u32::MAX)).await.unwrap(), [window], "the first time stays");
    let third = next_changes(&store, second[0].0).await;
    assert_eq!(third.iter().map(|(_, touched)| *touched).collect::<Vec<_>>(), [Touched::Hour(HOUR)]);
    // Late values come after that.
    store.merge(flush(2, HOUR, 1, lines(&[7], 2))).await.unwrap();
    let late = changes_after(&store, third[0].0).await;
    assert_eq!(late.iter().map(|(_, touched)| *touched).collect::<Vec<_>>(), [of(7, HOUR, Operation::Query)]);
}

pub async fn a_gateway_is_given_up_once(store: AnyStore) {
    let incarnation = Incarnation([7; ID_BYTES]);
    assert_eq!(store.abandoned().await.unwrap(), []);
    let made = store.abandon(incarnation, "burnt".to_owned(), Actor::system(), NOW).await.unwrap();
    let again = store.abandon(incarnation, "drowned".to_owned(), Actor::system(), WallTime(NOW.0 + 1)).await.unwrap();
    assert_eq!((&again, store.abandoned().await.unwrap()), (&made, vec![made.clone()]));
}

pub async fn lines_of_accounts_are_those_of_the_account_and_hour(store: AnyStore) {
    for hour in [HOUR, HOUR.next()] {
        let lines = (1..=4).flat_map(|account| [1, 2].map(|key| (line(account, key, Operation::Query), counters(1))));
        store.merge(flush(1, hour, 1, lines.collect())).await.unwrap();
    }
    let account = |number| AccountId([number; ID_BYTES]);
    let asked = [(HOUR, account(2)), (HOUR.next(), account(4)), (HOUR, account(9))];
    let mut found = store.lines_of(asked.into()).await.unwrap();
    found.sort_by_key(|line| (line.hour, line.key));
    let found: Vec<_> = found.iter().map(|line| (line.hour, line.key.account_id, line.key.key_id.0[0])).collect();
    let expected = [(HOUR, 2, 1), (HOUR, 2, 2), (HOUR.next(), 4, 1), (HOUR.next(), 4, 2)];
    assert_eq!(found, expected.map(|(hour, number, key)| (hour, account(number), key)));
}

pub async fn an_adjustment_is_made_once_and_never_changed(store: AnyStore) {
    let account_id = Scene::new(&store, true).await.account_id;
    let record = RecordKey { account_id, ..RecordKey::of(HOUR, &line(1, 1, Operation::Query)) };
    let new = |idempotency_key: &str, delta| NewAdjustment {
        adjustment_id: AdjustmentId::random().unwrap(),
        record,
        field: Field::ReadUnits,
        delta,
        counted: 5,
        reason: "an outage".to_owned(),
        idempotency_key: idempotency_key.to_owned(),
    };
    let made = store.adjust(new("one", -5), Actor::system(), NOW).await.unwrap();
    assert_eq!(store.adjust(new("one", -5), Actor::system(), WallTime(NOW.0 + 1)).await.unwrap(), made);
    let too_much = store.adjust(new("much", -1), Actor::system(), NOW).await;
    assert!(matches!(too_much, Err(AccountError::Refused(Refusal::BelowZero))), "{too_much:?}");
    let other = store.adjust(new("one", -6), Actor::system(), NOW).await;
    assert!(matches!(other, Err(AccountError::Refused(Refusal::IdempotencyKeyTaken))), "{other:?}");
    let before = next_changes(&store, 0).await;
    assert_eq!(before.last().map(|(_, touched)| *touched), Some(Touched::Record(record)));
    let second = store.adjust(new("two", 9), Actor::system(), WallTime(NOW.0 + 2)).await.unwrap();
    assert_eq!(store.adjustments(HOUR, HOUR).await.unwrap(), [made, second]);
    assert_eq!(store.adjustments(HOUR.next(), Hour(u32::MAX)).await.unwrap(), []);
    assert!(next_changes(&store, before.last().unwrap().0).await.len() == 1, "it is told in the feed");
    let nobody =
        NewAdjustment { record: RecordKey { account_id: AccountId([99; ID_BYTES]), ..record }, ..new("three", 1) };
    let refused = store.adjust(nobody, Actor::system(), NOW).await;
    assert!(matches!(refused, Err(AccountError::Refused(Refusal::NotFound))), "{refused:?}");
}
