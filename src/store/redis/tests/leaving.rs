//! Hours that leave the ledger, as other control planes see it, and in a backup.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;

use super::super::server::Server;
use super::super::{ByHand, Note, Opened, RedisStore};
use super::{control, settings};
use crate::meter::record::{Counters, Flush, LedgerLine, LineKey, Operation};
use crate::principal::{AccountId, ClusterId, ID_BYTES, Incarnation, JournalId, KeyId};
use crate::store::backup::{BackupReader, SettledJournal};
use crate::store::contract::NOW;
use crate::store::folds::{CHUNK, Fold, Folds, Step, Way, digest, move_back, move_out, stands};
use crate::store::upkeep::Kept;
use crate::store::{Ledger, LedgerReader, StoreError};
use crate::time::Hour;

const HOUR: Hour = Hour(492_777);
const LINES: u64 = CHUNK as u64 + 200;
/// What all of them come to: 1 and 2 and so on.
const SUM: u64 = LINES * (LINES + 1) / 2;

fn flush(hour: Hour, lines: impl Iterator<Item = (u64, u64)>) -> Flush {
    let line = |(number, opened): (u64, u64)| {
        let mut key_id = [0; ID_BYTES];
        key_id[..8].copy_from_slice(&number.to_be_bytes());
        let key = LineKey {
            account_id: AccountId([1; ID_BYTES]),
            key_id: KeyId(key_id),
            cluster_id: ClusterId([3; ID_BYTES]),
            operation: Operation::Query,
        };
        (key, Counters { opened, ..Counters::default() })
    };
    let lines = lines.map(line).collect();
    Flush { incarnation: Incarnation([7; ID_BYTES]), hour, sequence: 1, lines, watermark: NOW, closing: None }
}

/// One hour with more lines than are moved at once, of one sum.
async fn filled(url: &str) -> (Arc<RedisStore>, Vec<LedgerLine>) {
    let store = Arc::new(control(url, "control-1").unwrap());
    store.merge(flush(HOUR, (0..LINES).map(|number| (number, number + 1)))).await.unwrap();
    let lines = store.lines(HOUR, HOUR).await.unwrap();
    (store, lines)
}

async fn leave(store: &RedisStore, lines: &[LedgerLine]) {
    assert!(store.step(HOUR, Step::Check).await.unwrap());
    assert!(store.step(HOUR, Step::Leave { digest: digest(lines) }).await.unwrap());
}

/// The sum, once the store has taken in all that happened.
async fn sum(store: &RedisStore) -> u64 {
    store.sums.catch_up(&store.usage).await.unwrap();
    store.totals().unwrap().iter().map(|one| one.counters.opened).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sums_of_every_control_plane_stay_while_an_hour_leaves_and_comes_back_whenever_it_started() {
    let server = Server::shared();
    let url = server.fresh();
    let (store, lines) = filled(&url).await;
    let other = control(&url, "control-2").unwrap();
    leave(&store, &lines).await;
    assert!(store.move_lines(HOUR, Way::Out, lines[..CHUNK].to_vec()).await.unwrap());
    let midway = control(&url, "control-3").unwrap();
    assert_eq!((sum(&store).await, sum(&other).await, sum(&midway).await), (SUM, SUM, SUM));
    move_out(&*store, HOUR, &BTreeSet::new()).await.unwrap();
    let after = control(&url, "control-4").unwrap();
    for one in [&*store, &other, &midway, &after] {
        assert_eq!(sum(one).await, SUM);
        assert!(
            one.lines_of([(HOUR, AccountId([1; ID_BYTES]))].into()).await.unwrap().is_empty(),
            "memory lets go of it"
        );
    }
    assert!(store.step(HOUR, Step::Return).await.unwrap());
    assert!(store.move_lines(HOUR, Way::Back, lines[..CHUNK].to_vec()).await.unwrap());
    let back = control(&url, "control-5").unwrap();
    for one in [&*store, &other, &back] {
        assert_eq!(sum(one).await, SUM, "half of it is back");
    }
    move_back(&*store, HOUR, &lines, Vec::new()).await.unwrap();
    store.merge(flush(HOUR, [(0, 11)].into_iter())).await.unwrap();
    for one in [&*store, &other, &midway, &after, &back] {
        assert_eq!(sum(one).await, SUM + 10);
    }
    // One that has looked at nothing meanwhile.
    for _ in 0..2 {
        let lines = store.lines(HOUR, HOUR).await.unwrap();
        leave(&store, &lines).await;
        move_out(&*store, HOUR, &BTreeSet::new()).await.unwrap();
        assert!(store.step(HOUR, Step::Return).await.unwrap());
        move_back(&*store, HOUR, &lines, Vec::new()).await.unwrap();
    }
    assert_eq!((sum(&other).await, sum(&store).await), (SUM + 10, SUM + 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_has_hours_that_left_and_a_restore_puts_them_back_where_they_stood() {
    let server = Server::shared();
    let (store, lines) = filled(&server.fresh()).await;
    store.merge(flush(HOUR.next(), [(0, 5)].into_iter())).await.unwrap();
    leave(&store, &lines).await;
    assert!(store.move_lines(HOUR, Way::Out, lines[..CHUNK].to_vec()).await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    let (to, copied) = (Box::new(File::create(&path).unwrap()), Arc::clone(&store));
    let journal = SettledJournal { journal_id: JournalId::random().unwrap(), settled: 0 };
    tokio::task::spawn_blocking(move || copied.copy(journal, NOW, to).unwrap()).await.unwrap();
    let url = server.fresh();
    let (read, at) = (BackupReader::begin(File::open(&path).unwrap()).unwrap(), url.clone());
    let note = Note { at: NOW, action: "store.restore".to_owned(), detail: "a test".to_owned() };
    let restored = move || ByHand::reach(&settings(&at, "control-1")).unwrap().restore(read, None, &note);
    tokio::task::spawn_blocking(restored).await.unwrap().unwrap();
    let there = control(&url, "control-1").unwrap();
    there.look_for_another_server().await.unwrap();
    assert_eq!(there.open_epoch().await.unwrap(), Opened::Open);
    assert_eq!(sum(&there).await, SUM + 5);
    assert_eq!(stands(&there, HOUR).await.unwrap(), Some(Fold::Leaving));
    assert_eq!(there.folds(HOUR, HOUR).await.unwrap(), store.folds(HOUR, HOUR).await.unwrap());
    let refused = there.merge(flush(HOUR, [(0, 11)].into_iter())).await;
    assert!(matches!(refused, Err(StoreError::Archived(HOUR))), "{refused:?}");
    move_out(&there, HOUR, &BTreeSet::new()).await.unwrap();
    assert_eq!(sum(&there).await, SUM + 5);
}
