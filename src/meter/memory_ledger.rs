//! A ledger for tests: it merges as every ledger must, remembers what it was sent, and fails when told to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::record::{Counters, Flush, LedgerLine, LineKey};
use crate::principal::Incarnation;
use crate::store::{Ledger, StoreError, UsageTotal};
use crate::time::Hour;

type Place = (Hour, LineKey, Incarnation);

#[derive(Default)]
pub struct MemoryLedger {
    lines: Mutex<BTreeMap<Place, Counters>>,
    pub sent: Mutex<Vec<Flush>>,
    /// Refuses every merge.
    pub away: AtomicBool,
    /// Merges, and then says that it did not.
    pub loses_answers: AtomicBool,
}

impl MemoryLedger {
    pub fn all(&self) -> BTreeMap<Place, Counters> {
        self.lines.lock().clone()
    }

    /// Everything of one hour and incarnation, added up.
    pub fn sum(&self, hour: Hour, incarnation: Incarnation) -> Counters {
        let lines = self.lines.lock();
        let of_hour = lines.iter().filter(|((at, _, whose), _)| (*at, *whose) == (hour, incarnation));
        of_hour.fold(Counters::default(), |sum, (_, counters)| sum.plus(counters))
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn merge(&self, flush: Flush) -> Result<(), StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Away("told to".into()));
        }
        assert!(flush.lines.len() <= super::flush::BATCH);
        for (key, counters) in &flush.lines {
            let mut lines = self.lines.lock();
            let line = lines.entry((flush.hour, *key, flush.incarnation)).or_default();
            *line = line.max(counters);
        }
        self.sent.lock().push(flush);
        if self.loses_answers.load(Ordering::Relaxed) {
            return Err(StoreError::Away("the answer was lost".into()));
        }
        Ok(())
    }

    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        let all = self.all().into_iter().filter(|((hour, ..), _)| (from..=to).contains(hour));
        Ok(all.map(|((hour, key, incarnation), counters)| LedgerLine { hour, incarnation, key, counters }).collect())
    }

    fn totals(&self) -> Vec<UsageTotal> {
        Vec::new()
    }
}
