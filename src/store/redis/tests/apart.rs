//! A ledger on a server of its own: the contract of usage holds there too, and nothing is mixed or lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::LedgerSettings;
use super::super::server::Server;
use super::usage::{HOUR, connection, flush};
use super::{RedisStore, Settings, settings};
use crate::meter::record::Flush;
use crate::store::contract::{NOW, contract_tests};
use crate::store::upkeep::Kept;
use crate::store::usage::{FinalWindow, Touched, UsageStore};
use crate::store::{Ledger, LedgerReader, Store, StoreError};
use crate::time::{Hour, WallTime};

contract_tests!(fresh_apart:
    merging_twice_late_or_out_of_order_changes_nothing,
    marks_and_closings_come_out_the_same_in_any_order,
    a_batch_behind_a_lost_one_does_not_count,
    lines_of_accounts_are_those_of_the_account_and_hour,
    an_adjustment_is_made_once_and_never_changed,
    totals_are_the_sum_of_the_lines,
    lines_come_in_the_order_of_hour_line_and_incarnation,
    the_change_feed_tells_each_record_with_its_last_change,
);

fn fresh_apart() -> (Arc<Server>, Arc<dyn Store>) {
    let server = Server::shared();
    let store = apart(&server.fresh(), &server.fresh()).unwrap();
    (server, Arc::new(store))
}

fn at(url: &str) -> Option<LedgerSettings> {
    Some(LedgerSettings { url: url.to_owned(), sentinels: None })
}

fn apart(url: &str, ledger: &str) -> Result<RedisStore, StoreError> {
    RedisStore::open(Settings { ledger: at(ledger), ..settings(url, "control-1") })
}

fn why<T>(opened: Result<T, StoreError>) -> String {
    opened.err().expect("it is refused").to_string()
}

async fn keys(url: &str, pattern: &str) -> Vec<String> {
    redis::cmd("KEYS").arg(pattern).query_async(&mut connection(url).await).await.unwrap()
}

async fn flush_all(url: &str) {
    let _: () = redis::cmd("FLUSHDB").query_async(&mut connection(url).await).await.unwrap();
}

/// What the feed tells behind `after`, once it tells anything.
async fn told(store: &RedisStore, after: u64) -> Vec<(u64, Touched)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let changes = store.changed(after, 100).await.unwrap();
        if !changes.touched.is_empty() {
            return changes.touched;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the feed tells nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_usage_is_in_the_store_and_nothing_else_in_the_ledger() {
    let server = Server::shared();
    let (url, ledger) = (server.fresh(), server.fresh());
    let store = apart(&url, &ledger).unwrap();
    store.merge(flush(HOUR, 1, 1)).await.unwrap();
    let seen = store.changed(0, 100).await.unwrap().upto;
    store.make_final(FinalWindow { hour: HOUR, final_at: NOW }).await.unwrap();
    assert_eq!(told(&store, seen).await.len(), 1);
    assert_eq!(keys(&url, "{tg}:u:*").await, Vec::<String>::new());
    let mut there = keys(&ledger, "*").await;
    there.retain(|key| !key.starts_with("{tg}:u:"));
    there.sort();
    assert_eq!(there, ["{tg}:beat", "{tg}:ledger"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_another_deployment_or_a_store_is_refused() {
    let server = Server::shared();
    let (one, other, ledger) = (server.fresh(), server.fresh(), server.fresh());
    let store = apart(&one, &ledger).unwrap();
    let refused = why(apart(&other, &ledger));
    assert!(refused.contains("another deployment") && refused.contains(&store.store_id().to_string()), "{refused}");
    let refused = why(apart(&one, &other));
    assert!(refused.contains("holds a store"), "{refused}");
    // Nobody keeps usage of this store in the store meanwhile.
    let refused = why(super::control(&one, "control-2"));
    assert!(refused.contains("on a server of its own"), "{refused}");
    store.merge(flush(HOUR, 1, 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_keeps_usage_itself_goes_on_doing_so() {
    let server = Server::shared();
    let (url, ledger) = (server.fresh(), server.fresh());
    let store = super::control(&url, "control-1").unwrap();
    drop(apart(&url, &ledger).expect("as long as there is no usage it can be moved"));
    drop(store);
    let store = super::control(&url, "control-1");
    assert!(why(store).contains("on a server of its own"), "the last word holds");
    let url = server.fresh();
    let store = super::control(&url, "control-1").unwrap();
    store.merge(flush(HOUR, 1, 1)).await.unwrap();
    let refused = why(apart(&url, &ledger));
    assert!(refused.contains("in the store itself"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_of_changes_do_not_go_back_where_the_ledger_does() {
    let (server, ledger) = (Server::shared(), Server::start());
    let at = ledger.fresh();
    let store = apart(&server.fresh(), &at).unwrap();
    let first = store.merge(flush(HOUR, 1, 1)).await.unwrap();
    let seen = store.changed(0, 100).await.unwrap().upto;
    flush_all(&at).await;
    assert_eq!(store.changed(seen, 100).await.unwrap().upto, seen, "an empty one has nothing to tell");
    let emptied = store.merge_after(flush(HOUR, 2, 2), 1).await.unwrap();
    assert_eq!((emptied.server, emptied.known), (first.server, 0));
    let changes = store.changed(seen, 100).await.unwrap();
    assert_eq!(changes.touched.len(), 1, "it stands behind what was read");
    // Another server, with the same contents.
    let _: () = redis::cmd("DEBUG").arg("CHANGE-REPL-ID").query_async(&mut connection(&at).await).await.unwrap();
    let _: () = redis::cmd("SET").arg(&["{tg}:u:merges", "1"]).query_async(&mut connection(&at).await).await.unwrap();
    let other = store.merge(flush(HOUR, 3, 3)).await.unwrap();
    assert_ne!(other.server, first.server);
    assert_eq!(store.changed(changes.upto, 100).await.unwrap().touched.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_while_the_ledger_is_away_is_told_once_it_is_back() {
    let (server, ledger) = (Server::shared(), Server::start());
    let (url, at) = (server.fresh(), ledger.fresh());
    let store = apart(&url, &at).unwrap();
    store.merge(flush(HOUR, 1, 1)).await.unwrap();
    let seen = store.changed(0, 100).await.unwrap().upto;
    ledger.kill();
    store.make_final(FinalWindow { hour: HOUR, final_at: NOW }).await.unwrap();
    assert!(matches!(store.merge(flush(HOUR, 2, 2)).await, Err(StoreError::Away(_))));
    assert!(store.check_ledger().await.is_err());
    drop(store);
    // Another control plane starts without it, and carries over what the first one left.
    let store = apart(&url, &at).expect("keys can be deleted also while the ledger is away");
    assert!(store.totals().is_err(), "sums of nothing would be too small");
    ledger.start_again();
    let told = told_once_there(&store, seen).await;
    assert_eq!(told.iter().map(|(_, touched)| *touched).collect::<Vec<_>>(), [Touched::Hour(HOUR)]);
    store.check_ledger().await.unwrap();
}

async fn told_once_there(store: &RedisStore, after: u64) -> Vec<(u64, Touched)> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline && store.changed(after, 100).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    told(store, after).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_is_told_within_a_moment() {
    let server = Server::shared();
    let store = apart(&server.fresh(), &server.fresh()).unwrap();
    let seen = store.changed(0, 100).await.unwrap().upto;
    for hour in 0..5 {
        let window = FinalWindow { hour: Hour(HOUR.0 + hour), final_at: WallTime(NOW.0) };
        store.make_final(window).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.changed(seen, 100).await.unwrap().touched.len() < 5 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_carries_the_lines_wherever_they_are() {
    use super::super::{ByHand, Note};
    use crate::store::backup::{BackupReader, SettledJournal};
    let server = Server::shared();
    let store = apart(&server.fresh(), &server.fresh()).unwrap();
    for (hour, opened) in [(0, 3), (1, 4)] {
        store.merge(flush(Hour(HOUR.0 + hour), 2, opened)).await.unwrap();
    }
    let all = store.lines(Hour(0), Hour(u32::MAX)).await.unwrap();
    let marks = store.marks(Hour(0), Hour(u32::MAX)).await.unwrap();
    let backup = tempfile::NamedTempFile::new().unwrap();
    let journal = SettledJournal { journal_id: crate::principal::JournalId([1; 10]), settled: 0 };
    let to = Box::new(backup.reopen().unwrap());
    let store = tokio::task::spawn_blocking(move || {
        store.copy(journal, NOW, to).unwrap();
        store
    });
    drop(store.await.unwrap());
    let note = || Note { at: NOW, action: "store.restore".to_owned(), detail: "a test".to_owned() };
    for (url, ledger) in [(server.fresh(), Some(server.fresh())), (server.fresh(), None)] {
        let settings = Settings { ledger: ledger.as_deref().and_then(at), ..settings(&url, "control-1") };
        let (file, by_settings) = (backup.reopen().unwrap(), settings.clone());
        let restored = tokio::task::spawn_blocking(move || {
            ByHand::reach(&by_settings).unwrap().restore(BackupReader::begin(file).unwrap(), None, &note())
        });
        restored.await.unwrap().unwrap();
        let store = RedisStore::open(settings).unwrap();
        store.look_for_another_server().await.unwrap();
        store.open_epoch().await.unwrap();
        assert_eq!(store.lines(Hour(0), Hour(u32::MAX)).await.unwrap(), all);
        assert_eq!(store.marks(Hour(0), Hour(u32::MAX)).await.unwrap(), marks);
        // A gateway that is still there relies on what the backup had, and on no more.
        let had = store.merge_after(Flush { lines: Vec::new(), ..flush(HOUR, 3, 0) }, 3).await.unwrap();
        assert_eq!(had.known, 2);
    }
}
