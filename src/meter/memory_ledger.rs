//! A ledger for tests: it merges as every ledger must, remembers what it was sent, and fails when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::record::{Closing, Counters, Flush, LedgerLine, LineKey};
use super::witness::Acknowledged;
use crate::principal::{ID_BYTES, Incarnation, LedgerServer};
use crate::store::{Ledger, StoreError, UsageTotal};
use crate::time::{Hour, WallTime};

type Place = (Hour, LineKey, Incarnation);

/// How far an incarnation has come in an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub sequence: u64,
    pub watermark: WallTime,
    /// The closing with the greatest sequence number, and that number.
    pub closing: Option<(u64, Closing)>,
}

type Lines = BTreeMap<Place, Counters>;
type Marks = BTreeMap<(Hour, Incarnation), Mark>;
type Known = (Lines, Marks);

pub struct MemoryLedger {
    lines: Mutex<Lines>,
    marks: Mutex<Marks>,
    pub sent: Mutex<Vec<Flush>>,
    /// What it knew after each merge.
    past: Mutex<Vec<Known>>,
    /// Which server it is.
    pub life: AtomicU8,
    /// Refuses every merge.
    pub away: AtomicBool,
    /// Hours that have left it: merges into them are refused.
    pub archived: Mutex<BTreeSet<Hour>>,
    /// What comes back, with all hours that have left it, as soon as anybody has read lines once.
    pub returning: Mutex<Option<BTreeMap<Place, Counters>>>,
    /// Merges, and then says that it did not.
    pub loses_answers: AtomicBool,
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self {
            lines: Mutex::default(),
            marks: Mutex::default(),
            sent: Mutex::default(),
            past: Mutex::default(),
            // One that may lose what it acknowledged.
            life: AtomicU8::new(1),
            away: AtomicBool::new(false),
            archived: Mutex::default(),
            returning: Mutex::default(),
            loses_answers: AtomicBool::new(false),
        }
    }
}

impl MemoryLedger {
    pub fn all(&self) -> BTreeMap<Place, Counters> {
        self.lines.lock().clone()
    }

    pub fn marks(&self) -> BTreeMap<(Hour, Incarnation), Mark> {
        self.marks.lock().clone()
    }

    /// How an incarnation closed an hour, where it did.
    pub fn closing(&self, hour: Hour, incarnation: Incarnation) -> Option<Closing> {
        Some(self.marks.lock().get(&(hour, incarnation))?.closing?.1)
    }

    fn acknowledged(&self, known: u64) -> Acknowledged {
        Acknowledged { server: LedgerServer([self.life.load(Ordering::Relaxed); ID_BYTES]), known }
    }

    /// Has these lines, and all hours, again.
    pub fn put_back(&self, lines: BTreeMap<Place, Counters>) {
        *self.lines.lock() = lines;
        self.archived.lock().clear();
    }

    /// Loses everything, as a store does that is replaced by an empty one.
    pub fn forget(&self) {
        self.lines.lock().clear();
        self.marks.lock().clear();
        self.past.lock().clear();
    }

    /// Loses the last `count` merges, as a store does that is replaced by a copy of before.
    pub fn go_back(&self, count: usize) {
        let mut past = self.past.lock();
        let left = past.len().saturating_sub(count);
        past.truncate(left);
        let (lines, marks) = past.last().cloned().unwrap_or_default();
        (*self.lines.lock(), *self.marks.lock()) = (lines, marks);
    }

    /// Fails unless every closing says what the lines of its hour say.
    pub fn assert_closings_fit(&self) {
        for ((hour, incarnation), mark) in self.marks() {
            let Some((_, closing)) = mark.closing else { continue };
            let lines = self.all().keys().filter(|(at, _, whose)| (*at, *whose) == (hour, incarnation)).count();
            assert_eq!(
                (closing.lines, closing.totals),
                (lines as u64, self.sum(hour, incarnation)),
                "{hour} {incarnation}"
            );
        }
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
    async fn merge_after(&self, flush: Flush, after: u64) -> Result<Acknowledged, StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Away("told to".into()));
        }
        if self.archived.lock().contains(&flush.hour) {
            let asks = flush.lines.is_empty() && flush.closing.is_none();
            return if asks { Ok(self.acknowledged(after)) } else { Err(StoreError::Archived(flush.hour)) };
        }
        assert!(flush.lines.len() <= super::batch::BATCH);
        for (key, counters) in &flush.lines {
            let mut lines = self.lines.lock();
            let line = lines.entry((flush.hour, *key, flush.incarnation)).or_default();
            *line = line.max(counters);
        }
        let mut marks = self.marks.lock();
        let mark = marks.entry((flush.hour, flush.incarnation)).or_default();
        let known = mark.sequence;
        if known >= after {
            mark.sequence = mark.sequence.max(flush.sequence);
            mark.watermark = mark.watermark.max(flush.watermark);
            let is_last = mark.closing.is_none_or(|(last, _)| last <= flush.sequence);
            if let Some(closing) = flush.closing.filter(|_| is_last) {
                mark.closing = Some((flush.sequence, closing));
            }
        }
        drop(marks);
        self.sent.lock().push(flush);
        self.past.lock().push((self.lines.lock().clone(), self.marks.lock().clone()));
        if self.loses_answers.load(Ordering::Relaxed) {
            return Err(StoreError::Away("the answer was lost".into()));
        }
        Ok(self.acknowledged(known))
    }

    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        let all = self.all();
        if let Some(lines) = self.returning.lock().take() {
            self.put_back(lines);
        }
        let all = all.into_iter().filter(|((hour, ..), _)| (from..=to).contains(hour));
        Ok(all.map(|((hour, key, incarnation), counters)| LedgerLine { hour, incarnation, key, counters }).collect())
    }

    fn totals(&self) -> Result<Vec<UsageTotal>, StoreError> {
        Ok(Vec::new())
    }
}
