//! Usage in a store on another server: merges that it lost, memory that it lacks, answers of one that is not the master any more.

use std::sync::Arc;

use super::super::server::Server;
use super::control;
use crate::meter::record::{Closing, Counters, Flush, LineKey, Operation};
use crate::principal::{AccountId, ClusterId, Epoch, ID_BYTES, Incarnation, KeyId};
use crate::store::contract::NOW;
use crate::store::{Ledger, LedgerReader, Store, StoreError};
use crate::time::Hour;

pub const HOUR: Hour = Hour(492_777);

pub fn flush(hour: Hour, sequence: u64, opened: u64) -> Flush {
    let key = LineKey {
        account_id: AccountId([1; ID_BYTES]),
        key_id: KeyId([2; ID_BYTES]),
        cluster_id: ClusterId([3; ID_BYTES]),
        operation: Operation::Query,
    };
    let lines = vec![(key, Counters { opened, ..Counters::default() })];
    Flush { incarnation: Incarnation([7; ID_BYTES]), hour, sequence, lines, watermark: NOW, closing: None }
}

pub async fn connection(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_right_after_a_server_has_lost_merges() {
    let server = Server::shared();
    let url = server.fresh();
    let store: Arc<dyn Store> = Arc::new(control(&url, "control-1").unwrap());
    for sequence in 1..=5 {
        store.merge(flush(HOUR, sequence, sequence * 10)).await.unwrap();
    }
    let lost = ["{tg}:u:492777", "{tg}:u:changed", "{tg}:u:merges", "{tg}:u:marks", "{tg}:u:hours"];
    let _: () = redis::cmd("DEL").arg(&lost).query_async(&mut connection(&url).await).await.unwrap();
    for (sequence, opened, sum) in [(4, 40, 50), (6, 60, 60)] {
        store.merge(flush(HOUR, sequence, opened)).await.unwrap();
        assert_eq!(store.totals().unwrap()[0].counters.opened, sum);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_are_listed_to_the_last_one_however_many_there_are() {
    let server = Server::shared();
    let store = control(&server.fresh(), "control-1").unwrap();
    // More than two pages of them.
    let hours = 2100;
    for number in 0..hours {
        store.merge(flush(Hour(HOUR.0 + number), 1, 1)).await.unwrap();
    }
    let lines = store.lines(Hour(0), Hour(u32::MAX)).await.unwrap();
    let expected: Vec<_> = (0..hours).map(|number| Hour(HOUR.0 + number)).collect();
    assert_eq!(lines.iter().map(|line| line.hour).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_of_another_epoch_took_is_not_acknowledged() {
    let server = Server::shared();
    let store = control(&server.fresh(), "control-1").unwrap();
    store.merge(flush(HOUR, 1, 1)).await.unwrap();
    store.watch.renewed_in(Epoch([9; ID_BYTES]));
    let taken = store.merge(flush(HOUR, 2, 2)).await;
    assert!(matches!(taken, Err(StoreError::Away(_))), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_memory_is_short_lines_wait_and_enrolments_and_closings_do_not() {
    let server = Server::start();
    let url = server.fresh();
    let store = control(&url, "control-1").unwrap();
    store.merge(flush(HOUR, 1, 1)).await.unwrap();
    let mut connection = connection(&url).await;
    let memory: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.unwrap();
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let most = used.trim().parse::<u64>().unwrap() * 6 / 5;
    let set = ["SET", "maxmemory", &most.to_string()];
    let _: () = redis::cmd("CONFIG").arg(&set).query_async(&mut connection).await.unwrap();
    let full = store.merge(flush(HOUR, 2, 2)).await;
    assert!(matches!(&full, Err(StoreError::Away(why)) if why.contains("memory")), "{full:?}");
    let totals = Counters { opened: 1, ..Counters::default() };
    let closing = Some(Closing { lines: 1, totals, leaves: true });
    store.merge(Flush { lines: Vec::new(), closing, ..flush(HOUR, 3, 0) }).await.unwrap();
    assert_eq!(store.marks(HOUR, HOUR).await.unwrap()[0].mark.closing, closing);
}
