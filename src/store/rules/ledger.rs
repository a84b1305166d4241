//! The ledger: one row per hour, line and incarnation with absolute values, and their sums in memory.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use parking_lot::RwLock;

use super::rows::{RowValue, Rows, Span};
use super::tables::{FLUSHES, LEDGER};
use super::usage::{hours, place_of};
use super::{Changes, folds};
use crate::meter::record::{Counters, Flush, LedgerLine, LineKey, Operation};
use crate::principal::{AccountId, ClusterId, ID_BYTES, Incarnation, KeyId};
use crate::store::usage::{FlushMark, HourMark, RecordKey};
use crate::store::{StoreError, UsageTotal};
use crate::time::Hour;

pub type Whose = (AccountId, ClusterId, Operation);

/// Everything ever merged, by account, cluster and operation. Never goes down.
#[derive(Default)]
pub struct Totals(RwLock<HashMap<Whose, Counters>>);

impl Totals {
    /// Reads the whole ledger with its base, once, when the file is opened.
    pub fn read(rows: &dyn Rows) -> Result<Self, StoreError> {
        let mut sums: HashMap<Whose, Counters> = HashMap::new();
        LEDGER.scan(rows, Span::all(), |key, counters| {
            let line = line_at(key)?;
            let sum = sums.entry(whose(&line.key)).or_default();
            *sum = sum.plus(&counters);
            Ok(ControlFlow::Continue(()))
        })?;
        folds::base(rows, |whose, counters| {
            let sum = sums.entry(whose).or_default();
            *sum = sum.plus(&counters);
        })?;
        Ok(Self(RwLock::new(sums)))
    }

    pub fn add(&self, usage: &[(Whose, Counters)]) {
        if usage.is_empty() {
            return;
        }
        let mut sums = self.0.write();
        for (whose, grown) in usage {
            let sum = sums.entry(*whose).or_default();
            *sum = sum.plus(grown);
        }
    }

    /// What was summed up anew takes the place of what was, where it is not less.
    pub fn raise(&self, anew: HashMap<Whose, Counters>) {
        let mut sums = self.0.write();
        for (whose, counters) in anew {
            let sum = sums.entry(whose).or_default();
            *sum = sum.max(&counters);
        }
    }

    pub fn list(&self) -> Vec<UsageTotal> {
        let sums = self.0.read();
        let total = |(whose, counters): (&Whose, &Counters)| UsageTotal {
            account_id: whose.0,
            cluster_id: whose.1,
            operation: whose.2,
            counters: *counters,
        };
        sums.iter().map(total).collect()
    }
}

pub fn whose(key: &LineKey) -> Whose {
    (key.account_id, key.cluster_id, key.operation)
}

/// What became of a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// With the last batch that was known before.
    Taken { known: u64 },
    /// The hour has left the ledger. That it is wanted back is noted.
    Refused,
}

/// The greater of each field wins, so a batch that comes twice, late or out of order changes nothing. Where the last batch that was
/// known before is one before `after`, this one does not count as known.
pub fn merge(tx: &mut dyn Changes, flush: &Flush, after: u64) -> Result<Merged, StoreError> {
    if folds::has_left(tx, flush.hour)? {
        // It only asks whether anything is lost. What has left is in the archive.
        if flush.lines.is_empty() && flush.closing.is_none() {
            return Ok(Merged::Taken { known: after });
        }
        folds::want(tx, flush.hour)?;
        return Ok(Merged::Refused);
    }
    let mut touched = BTreeSet::new();
    for (key, counters) in &flush.lines {
        let row = row_key(flush.hour, key, flush.incarnation);
        let known = LEDGER.get(tx, &row)?.unwrap_or_default();
        let merged = known.max(counters);
        if merged != known {
            tx.put(&LEDGER, &row, &merged)?;
            tx.used(whose(key), grown(&known, &merged));
            touched.insert(RecordKey::of(flush.hour, key));
        }
    }
    touched.iter().try_for_each(|record| tx.touch(place_of(record)))?;
    mark(tx, flush, after).map(|known| Merged::Taken { known })
}

fn mark(tx: &mut dyn Changes, flush: &Flush, after: u64) -> Result<u64, StoreError> {
    let row = mark_key(flush.hour, flush.incarnation);
    let known = FLUSHES.get(tx, &row)?;
    let before = known.unwrap_or_default();
    if before.sequence < after {
        if known.is_none() {
            tx.put(&FLUSHES, &row, &before)?;
        }
        return Ok(before.sequence);
    }
    let closing = match (before.closing, flush.closing) {
        (Some(known), Some(new)) => Some(known.max(&new)),
        (known, new) => known.or(new),
    };
    let sequence = before.sequence.max(flush.sequence);
    let mark = FlushMark { sequence, watermark: before.watermark.max(flush.watermark), closing };
    if known != Some(mark) {
        tx.put(&FLUSHES, &row, &mark)?;
    }
    Ok(before.sequence)
}

/// The marks of the hours `from..=to`.
pub fn marks(rows: &dyn Rows, from: Hour, to: Hour) -> Result<Vec<HourMark>, StoreError> {
    let mut marks = Vec::new();
    FLUSHES.scan(rows, hours(from, to), |key, mark| {
        marks.push(mark_at(key, mark)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(marks)
}

/// What `now` has more than `before`, so that it can be added to a sum that has `before` in it.
pub fn grown(before: &Counters, now: &Counters) -> Counters {
    let mut outcomes = now.outcomes;
    for (mine, theirs) in outcomes.iter_mut().zip(before.outcomes) {
        *mine = mine.saturating_sub(theirs);
    }
    Counters {
        opened: now.opened.saturating_sub(before.opened),
        outcomes,
        units_missing: now.units_missing.saturating_sub(before.units_missing),
        request_bytes: now.request_bytes.saturating_sub(before.request_bytes),
        response_bytes: now.response_bytes.saturating_sub(before.response_bytes),
        read_units: now.read_units.saturating_sub(before.read_units),
        write_units: now.write_units.saturating_sub(before.write_units),
        // These two are not sums.
        last_used: now.last_used,
        flags: now.flags,
        interrupted: now.interrupted.saturating_sub(before.interrupted),
    }
}

/// All lines of the hours `from..=to`.
pub fn lines(rows: &dyn Rows, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
    let mut lines = Vec::new();
    LEDGER.scan(rows, hours(from, to), |key, counters| {
        lines.push(LedgerLine { counters, ..line_at(key)? });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(lines)
}

/// All lines of these accounts in these hours.
pub fn lines_of(rows: &dyn Rows, accounts: &BTreeSet<(Hour, AccountId)>) -> Result<Vec<LedgerLine>, StoreError> {
    let mut lines = Vec::new();
    for (hour, account_id) in accounts {
        LEDGER.scan(rows, Span::prefix(&account_prefix(*hour, *account_id)[..]), |key, counters| {
            lines.push(LedgerLine { counters, ..line_at(key)? });
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(lines)
}

/// How the keys of an account's lines in an hour begin.
pub fn account_prefix(hour: Hour, account_id: AccountId) -> Vec<u8> {
    [&hour.0.to_be_bytes()[..], &account_id.0].concat()
}

/// hour (4 bytes) · account · key · cluster · operation (1 byte) · incarnation: the order in which lines are listed.
pub fn row_key(hour: Hour, key: &LineKey, incarnation: Incarnation) -> Vec<u8> {
    let LineKey { account_id, key_id, cluster_id, operation } = key;
    [&hour.0.to_be_bytes()[..], &account_id.0, &key_id.0, &cluster_id.0, &[*operation as u8], &incarnation.0].concat()
}

pub fn mark_key(hour: Hour, incarnation: Incarnation) -> Vec<u8> {
    [&hour.0.to_be_bytes()[..], &incarnation.0].concat()
}

pub fn mark_at(key: &[u8], mark: FlushMark) -> Result<HourMark, StoreError> {
    let parsed = key.split_first_chunk::<4>().and_then(|(hour, rest)| {
        Some(HourMark { hour: Hour(u32::from_be_bytes(*hour)), incarnation: Incarnation(rest.try_into().ok()?), mark })
    });
    parsed.ok_or_else(|| StoreError::Corrupt(format!("table {}: a key is not one of a mark", FLUSHES.name)))
}

/// Bytes in the key of a line.
pub const LINE: usize = 4 + 4 * ID_BYTES + 1;

/// A line without its counters.
pub fn line_at(key: &[u8]) -> Result<LedgerLine, StoreError> {
    let unreadable = || {
        let key = data_encoding::HEXLOWER.encode(key);
        StoreError::Corrupt(format!("table {}: the key {key} is not one of a line", LEDGER.name))
    };
    parse_line(key).ok_or_else(unreadable)
}

fn parse_line(key: &[u8]) -> Option<LedgerLine> {
    let (hour, rest) = key.split_first_chunk::<4>()?;
    let (account, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let (key_id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let (cluster, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let ([operation], rest) = rest.split_first_chunk::<1>()?;
    let key = LineKey {
        account_id: AccountId(*account),
        key_id: KeyId(*key_id),
        cluster_id: ClusterId(*cluster),
        operation: Operation::from_index(*operation)?,
    };
    let incarnation = Incarnation(rest.try_into().ok()?);
    Some(LedgerLine { hour: Hour(u32::from_be_bytes(*hour)), incarnation, key, counters: Counters::default() })
}

/// 15 numbers of 8 bytes, little-endian, in the order of the fields.
const COUNTERS: usize = 15;

impl RowValue for Counters {
    fn encode(&self) -> Result<Vec<u8>, String> {
        let head = [self.opened].into_iter().chain(self.outcomes);
        let tail = [
            self.units_missing,
            self.request_bytes,
            self.response_bytes,
            self.read_units,
            self.write_units,
            self.last_used,
            self.flags,
            self.interrupted,
        ];
        Ok(head.chain(tail).flat_map(u64::to_le_bytes).collect())
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let numbers: [[u8; 8]; COUNTERS] =
            numbers.try_into().ok().filter(|_| rest.is_empty()).ok_or("not the length of a line")?;
        let [
            opened,
            o0,
            o1,
            o2,
            o3,
            o4,
            o5,
            units_missing,
            request_bytes,
            response_bytes,
            read,
            write,
            used,
            flags,
            cut,
        ] = numbers.map(u64::from_le_bytes);
        Ok(Self {
            opened,
            outcomes: [o0, o1, o2, o3, o4, o5],
            units_missing,
            request_bytes,
            response_bytes,
            read_units: read,
            write_units: write,
            last_used: used,
            flags,
            interrupted: cut,
        })
    }
}
