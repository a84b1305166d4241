//! How far readers of the change feed may have been told. A place that changes again needs no new number while nobody was told the
//! one it has: whoever comes to it reads what it is then. Most lines change with every flush and are read once in a while, so most
//! of the writing that the feed would cost is spared.

use parking_lot::{Mutex, MutexGuard};
use redb::Database;

use super::rows::Snapshot;
use super::snapshot_of;
use crate::store::StoreError;
use crate::store::rules::usage;

/// The greatest number that may have been told.
#[derive(Debug)]
pub struct Told(Mutex<u64>);

impl Told {
    /// Readers of the process before this one may have been told everything.
    pub fn at_start(snapshot: &Snapshot) -> Result<Self, StoreError> {
        usage::last_change(snapshot).map(Mutex::new).map(Self)
    }

    /// Held by the writer from before it gives numbers until they are committed: nobody is told anything meanwhile.
    pub fn hold(&self) -> MutexGuard<'_, u64> {
        self.0.lock()
    }

    /// The store as it is now, all of which may be told. It waits for what is being committed.
    pub fn tell(&self, database: &Database) -> Result<Snapshot, StoreError> {
        let mut told = self.0.lock();
        let snapshot = snapshot_of(database)?;
        *told = usage::last_change(&snapshot)?.max(*told);
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use crate::meter::record::{Counters, Flush, LineKey, Operation};
    use crate::principal::{AccountId, ClusterId, Incarnation, KeyId};
    use crate::store::contract::LEASE;
    use crate::store::embedded::{Embedded, Settings};
    use crate::store::{Ledger, LedgerReader};
    use crate::time::{Hour, WallTime};

    const HOUR: Hour = Hour(500_000);

    fn open(folder: &TempDir) -> Embedded {
        Embedded::open(&folder.path().join("tollgate.redb"), Settings::new(LEASE)).unwrap()
    }

    /// The line counts so many calls now.
    async fn count(store: &Embedded, opened: u64) {
        let (account_id, key_id, cluster_id) = (AccountId([1; _]), KeyId([2; _]), ClusterId([3; _]));
        let line = LineKey { account_id, key_id, cluster_id, operation: Operation::Query };
        let lines = vec![(line, Counters { opened, ..Counters::default() })];
        let (incarnation, watermark) = (Incarnation([4; _]), WallTime(0));
        let flush = Flush { incarnation, hour: HOUR, sequence: opened, lines, watermark, closing: None };
        store.merge(flush).await.unwrap();
    }

    #[tokio::test]
    async fn a_line_gets_another_number_only_once_somebody_may_have_been_told_the_one_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder);
        for (opened, after) in [(1, 0), (3, 1), (5, 2)] {
            count(&store, opened).await;
            count(&store, opened + 1).await;
            let changes = store.changed(after, 10).await.unwrap();
            assert_eq!((changes.touched.len(), changes.upto), (1, after + 1));
        }
        drop(store);
        store = open(&folder);
        count(&store, 7).await;
        assert_eq!(store.changed(3, 10).await.unwrap().upto, 4, "the process before may have told all there was");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_follows_the_feed_while_usage_comes_ends_with_what_is_there() {
        const COUNTS: u64 = 300;
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(open(&folder));
        let counted = Arc::clone(&store);
        let counting = tokio::spawn(async move {
            for opened in 1..=COUNTS {
                count(&counted, opened).await;
            }
        });
        let (mut after, mut seen, mut is_over) = (0, 0, false);
        while !is_over {
            is_over = counting.is_finished();
            let changes = store.changed(after, 10).await.unwrap();
            if !changes.touched.is_empty() {
                seen = store.lines(HOUR, HOUR).await.unwrap()[0].counters.opened;
            }
            after = changes.upto;
        }
        assert_eq!(seen, COUNTS);
    }
}
