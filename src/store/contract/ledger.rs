//! The ledger: absolute values, merged by the greater one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::meter::record::{Counters, Flush, LedgerLine, LineKey, Operation};
use crate::meter::witness::Acknowledged;
use crate::principal::{AccountId, ClusterId, ID_BYTES, Incarnation, KeyId};
use crate::store::Store;
use crate::time::{Hour, WallTime};

type AnyStore = Arc<dyn Store>;

pub(super) const HOUR: Hour = Hour(492_777);

pub(super) fn line(account: u8, key: u8, operation: Operation) -> LineKey {
    LineKey {
        account_id: AccountId([account; ID_BYTES]),
        key_id: KeyId([key; ID_BYTES]),
        cluster_id: ClusterId([9; ID_BYTES]),
        operation,
    }
}

pub(super) fn counters(calls: u64) -> Counters {
    Counters {
        opened: calls,
        outcomes: [calls, 0, 0, 0, 0, 0],
        read_units: calls * 3,
        last_used: 1_774_000_000_000 + calls,
        flags: calls & 1,
        ..Counters::default()
    }
}

pub(super) fn flush(incarnation: u8, hour: Hour, sequence: u64, lines: Vec<(LineKey, Counters)>) -> Flush {
    let incarnation = Incarnation([incarnation; ID_BYTES]);
    Flush { incarnation, hour, sequence, lines, watermark: WallTime(hour.start().0 + sequence), closing: None }
}

async fn check_totals(store: &AnyStore) {
    let mut sums: HashMap<_, Counters> = HashMap::new();
    for LedgerLine { key, counters, .. } in store.lines(Hour(0), Hour(u32::MAX)).await.unwrap() {
        let sum = sums.entry((key.account_id, key.cluster_id, key.operation)).or_default();
        *sum = sum.plus(&counters);
    }
    let totals = store.totals().unwrap();
    assert_eq!(totals.len(), sums.len());
    for total in totals {
        assert_eq!(sums[&(total.account_id, total.cluster_id, total.operation)], total.counters);
    }
}

pub async fn merging_twice_late_or_out_of_order_changes_nothing(store: AnyStore) {
    let key = line(1, 1, Operation::Query);
    let batches: Vec<_> = (1..=5).map(|n| flush(1, HOUR, n, vec![(key, counters(n * 10))])).collect();
    for batch in batches.iter().chain(batches.iter().rev()).chain(&batches[1..3]) {
        store.merge(batch.clone()).await.unwrap();
        check_totals(&store).await;
    }
    let lines = store.lines(HOUR, HOUR).await.unwrap();
    assert_eq!(lines.len(), 1);
    // Flags only gather: an odd count before set one.
    assert_eq!(lines[0].counters, counters(50).max(&counters(10)));
    let mut mixed = Counters { opened: 60, ..Counters::default() };
    store.merge(flush(1, HOUR, 6, vec![(key, mixed)])).await.unwrap();
    mixed = Counters { opened: 60, ..lines[0].counters };
    assert_eq!(store.lines(HOUR, HOUR).await.unwrap()[0].counters, mixed, "field by field");
    check_totals(&store).await;
}

pub async fn totals_are_the_sum_of_the_lines(store: AnyStore) {
    let merging = super::scene::at_once(24, |number| {
        let store = Arc::clone(&store);
        let number = number as u64;
        let incarnation = (number % 3) as u8;
        let hour = Hour(HOUR.0 + (number % 2) as u32);
        async move {
            let lines = (0..50).map(|n| (line(n % 4, n, Operation::ALL[n as usize % 19]), counters(number + 1)));
            store.merge(flush(incarnation, hour, number, lines.collect())).await
        }
    });
    assert!(merging.await.iter().all(Result::is_ok));
    assert_eq!(store.lines(HOUR, HOUR.next()).await.unwrap().len(), 50 * 6);
    check_totals(&store).await;
}

pub async fn a_batch_behind_a_lost_one_does_not_count(store: AnyStore) {
    let key = line(1, 1, Operation::Query);
    let batch = |sequence| flush(1, HOUR, sequence, vec![(key, counters(sequence))]);
    let sequence = async || store.marks(HOUR, HOUR).await.unwrap().first().map(|mark| mark.mark.sequence);
    let first = store.merge_after(batch(4), 3).await.unwrap();
    assert_eq!((first.known, sequence().await), (0, Some(0)), "the third is not there, and it is known who counts");
    assert_eq!(store.lines(HOUR, HOUR).await.unwrap()[0].counters, counters(4), "what it brings is");
    assert_eq!(store.merge_after(batch(5), 3).await.unwrap().known, 0, "a retry hides nothing");
    let whole = store.merge(batch(6)).await.unwrap();
    assert_eq!((whole.known, sequence().await), (0, Some(6)));
    assert_eq!(store.merge_after(batch(7), 6).await.unwrap(), Acknowledged { known: 6, ..first });
    assert_eq!(store.merge_after(batch(7), 6).await.unwrap().known, 7, "a double");
    assert_eq!(store.merge_after(batch(9), 8).await.unwrap().known, 7);
    assert_eq!(sequence().await, Some(7));
}

pub async fn lines_come_in_the_order_of_hour_line_and_incarnation(store: AnyStore) {
    for (incarnation, hour) in [(2, HOUR.next()), (1, HOUR), (2, HOUR), (1, HOUR.next())] {
        let lines = [(2, Operation::Insert), (1, Operation::Query), (1, Operation::Fetch)];
        let lines = lines.map(|(account, operation)| (line(account, 1, operation), counters(1)));
        store.merge(flush(incarnation, hour, 1, lines.to_vec())).await.unwrap();
    }
    let lines = store.lines(HOUR, HOUR.next()).await.unwrap();
    assert_eq!(lines.len(), 12);
    assert!(lines.is_sorted_by_key(|line| (line.hour, line.key, line.incarnation)));
    assert_eq!(store.lines(HOUR, HOUR).await.unwrap().len(), 6);
    assert!(store.lines(HOUR.next(), HOUR).await.unwrap().is_empty(), "an empty span is no error");
    assert!(store.lines(Hour(0), Hour(HOUR.0 - 1)).await.unwrap().is_empty());
}
