//! Usage records: lines of the ledger, summed to what is billed (interfaces, section 5). Pure.

use std::collections::BTreeMap;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::meter::record::{Counters, LedgerLine, LineKey, Operation, Outcome};
use crate::principal::{AccountId, ClusterId, ID_BYTES, KeyId};
use crate::store::usage::{Field, RecordKey};
use crate::time::Hour;

/// What one record is about. Records are ordered by it, and a cursor is one of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dimensions {
    pub hour: Hour,
    pub account_id: AccountId,
    pub cluster_id: ClusterId,
    pub operation: Operation,
    /// Absent where the record sums over keys.
    pub key_id: Option<KeyId>,
}

/// What is asked for. Absent fields select everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub account_id: Option<AccountId>,
    pub cluster_id: Option<ClusterId>,
    pub key_id: Option<KeyId>,
    pub operation: Option<Operation>,
    pub by_key: bool,
    /// Only what comes behind it.
    pub after: Option<Dimensions>,
}

/// One line of the answer.
#[derive(Clone, Debug, Serialize)]
pub struct UsageRecord {
    pub record_id: String,
    /// Calls that the record knows of, its adjustments, and one more once it is final. None of them is ever taken back, and nothing
    /// else of a record changes without one of them; so it grows exactly when the record changes.
    pub revision: u64,
    pub r#final: bool,
    pub account_id: AccountId,
    cluster_id: ClusterId,
    operation: Operation,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<KeyId>,
    window_start: String,
    pub window_end: String,
    pub calls: Calls,
    #[serde(serialize_with = "decimal")]
    pub request_bytes: u64,
    #[serde(serialize_with = "decimal")]
    pub response_bytes: u64,
    #[serde(serialize_with = "decimal")]
    pub read_units: u64,
    #[serde(serialize_with = "decimal")]
    pub write_units: u64,
    #[serde(serialize_with = "decimal")]
    pub units_missing: u64,
    #[serde(serialize_with = "decimal")]
    pub interrupted: u64,
}

/// Counts by outcome, every outcome present.
#[derive(Clone, Copy, Debug)]
pub struct Calls(pub [u64; 6]);

impl Serialize for Calls {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(Outcome::ALL.iter().zip(self.0).map(|(outcome, count)| (outcome.name(), count.to_string())))
    }
}

fn decimal<S: Serializer>(count: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(count)
}

/// Sums the selected lines over incarnations, and over keys unless they are asked for, in the order of the dimensions.
pub fn sum(lines: &[LedgerLine], selection: &Selection) -> BTreeMap<Dimensions, Counters> {
    let mut sums: BTreeMap<Dimensions, Counters> = BTreeMap::new();
    // A line may hold nothing but the mark of a browser.
    let counted = lines
        .iter()
        .filter(|line| line.counters.opened > 0 || line.counters.committed() > 0 || line.counters.interrupted > 0);
    for line in counted.filter(|line| selection.takes(&line.key)) {
        let LineKey { account_id, key_id, cluster_id, operation } = line.key;
        let key_id = selection.by_key.then_some(key_id);
        let dimensions = Dimensions { hour: line.hour, account_id, cluster_id, operation, key_id };
        if selection.after.is_none_or(|after| dimensions > after) {
            let sum = sums.entry(dimensions).or_default();
            *sum = sum.plus(&line.counters);
        }
    }
    sums
}

impl Selection {
    /// Whether it is about this record, which sums over keys.
    pub fn takes_record(&self, record: &Dimensions) -> bool {
        let Dimensions { account_id, cluster_id, operation, .. } = *record;
        self.key_id.is_none()
            && self.account_id.is_none_or(|id| id == account_id)
            && self.cluster_id.is_none_or(|id| id == cluster_id)
            && self.operation.is_none_or(|asked| asked == operation)
            && self.after.is_none_or(|after| *record > after)
    }

    fn takes(&self, key: &LineKey) -> bool {
        self.account_id.is_none_or(|id| id == key.account_id)
            && self.cluster_id.is_none_or(|id| id == key.cluster_id)
            && self.key_id.is_none_or(|id| id == key.key_id)
            && self.operation.is_none_or(|operation| operation == key.operation)
    }
}

impl UsageRecord {
    /// Of what was counted, and corrections of it. Nothing goes below zero: that was checked when a correction was made, and what
    /// is counted only grows.
    pub fn new(dimensions: Dimensions, counted: &Counters, r#final: bool, corrections: &[(Field, i64)]) -> Self {
        let calls = counted.opened.saturating_add(counted.committed()).saturating_add(counted.interrupted);
        let adjustments = u64::try_from(corrections.len()).unwrap_or(u64::MAX);
        let mut counters = *counted;
        let mut sums: BTreeMap<Field, i128> = BTreeMap::new();
        for (field, delta) in corrections {
            *sums.entry(*field).or_default() += i128::from(*delta);
        }
        for (field, sum) in sums {
            let number = field.of(&mut counters);
            *number = u64::try_from(i128::from(*number).saturating_add(sum).max(0)).unwrap_or(u64::MAX);
        }
        let Dimensions { hour, account_id, cluster_id, operation, key_id } = dimensions;
        Self {
            record_id: dimensions.record_id(),
            revision: calls.saturating_add(adjustments).saturating_add(u64::from(r#final)),
            r#final,
            account_id,
            cluster_id,
            operation,
            key_id,
            window_start: hour.start().to_string(),
            window_end: hour.end().to_string(),
            calls: Calls(counters.outcomes),
            request_bytes: counters.request_bytes,
            response_bytes: counters.response_bytes,
            read_units: counters.read_units,
            write_units: counters.write_units,
            units_missing: counters.units_missing,
            interrupted: counters.interrupted,
        }
    }
}

impl Dimensions {
    /// Of a record that sums over keys.
    pub fn of(record: &RecordKey) -> Self {
        let RecordKey { hour, account_id, cluster_id, operation } = *record;
        Self { hour, account_id, cluster_id, operation, key_id: None }
    }

    /// The same for the same dimensions, always: what a pipeline may deduplicate by, together with the revision.
    fn record_id(&self) -> String {
        let hash: [u8; 32] = Sha256::digest(self.to_bytes()).into();
        let half = hash.first_chunk::<16>().copied().unwrap_or_default();
        format!("rec_{}", HEXLOWER.encode(&half))
    }

    pub fn to_cursor(self) -> String {
        BASE64URL_NOPAD.encode(&self.to_bytes())
    }

    /// None where the text is not a cursor that was given out.
    pub fn from_cursor(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (hour, rest) = bytes.split_first_chunk::<4>()?;
        let (account, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let (cluster, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let (operation, rest) = rest.split_first()?;
        let key_id = if rest.is_empty() { None } else { Some(KeyId(rest.try_into().ok()?)) };
        Some(Self {
            hour: Hour(u32::from_be_bytes(*hour)),
            account_id: AccountId(*account),
            cluster_id: ClusterId(*cluster),
            operation: Operation::from_index(*operation)?,
            key_id,
        })
    }

    /// Every part has a fixed length, and the one that may be absent stands last.
    fn to_bytes(self) -> Vec<u8> {
        let key: &[u8] = self.key_id.as_ref().map_or(&[], |key| &key.0);
        let (hour, operation) = (self.hour.0.to_be_bytes(), [self.operation as u8]);
        [hour.as_slice(), &self.account_id.0, &self.cluster_id.0, &operation, key].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Incarnation;

    fn line(hour: u32, incarnation: u8, key: u8, ok: u64) -> LedgerLine {
        let key = LineKey {
            account_id: AccountId([1; ID_BYTES]),
            key_id: KeyId([key; ID_BYTES]),
            cluster_id: ClusterId([2; ID_BYTES]),
            operation: Operation::Query,
        };
        let counters =
            Counters { opened: ok, outcomes: [ok, 0, 0, 0, 0, 0], read_units: 1 << 60, ..Counters::default() };
        LedgerLine { hour: Hour(hour), incarnation: Incarnation([incarnation; ID_BYTES]), key, counters }
    }

    #[test]
    fn lines_are_summed_over_incarnations_and_over_keys_unless_asked_for() {
        let lines = [line(7, 1, 1, 3), line(7, 2, 1, 4), line(7, 1, 2, 5), line(8, 1, 1, 6)];
        let totals: Vec<u64> = sum(&lines, &Selection::default()).values().map(Counters::committed).collect();
        assert_eq!(totals, [12, 6]);
        let by_key = Selection { by_key: true, ..Selection::default() };
        let totals: Vec<u64> = sum(&lines, &by_key).values().map(Counters::committed).collect();
        assert_eq!(totals, [7, 5, 6]);
    }

    #[test]
    fn pages_that_follow_the_cursor_give_every_record_once() {
        let lines: Vec<_> = (0..5).flat_map(|hour| (0..4).map(move |key| line(hour, 1, key, 1))).collect();
        let mut selection = Selection { by_key: true, ..Selection::default() };
        let whole: Vec<_> = sum(&lines, &selection).into_keys().collect();
        let mut paged = Vec::new();
        while let Some(next) = sum(&lines, &selection).into_keys().next() {
            paged.push(next);
            selection.after = Dimensions::from_cursor(&next.to_cursor());
            assert_eq!(selection.after, Some(next));
        }
        assert_eq!((paged.len(), &paged), (20, &whole));
    }

    #[test]
    fn a_record_is_flat_and_its_counts_are_decimal_strings() {
        let lines = [line(492_777, 1, 1, 3)];
        let (dimensions, counters) = sum(&lines, &Selection::default()).into_iter().next().unwrap();
        let record = serde_json::to_value(UsageRecord::new(dimensions, &counters, false, &[])).unwrap();
        assert_eq!(record["calls"]["ok"], "3");
        assert_eq!(record["calls"].as_object().unwrap().len(), 6);
        assert_eq!(record["read_units"], (1_u64 << 60).to_string());
        assert_eq!((record["final"].as_bool(), record["revision"].as_u64()), (Some(false), Some(6)));
        assert_eq!(record["window_start"], "2026-03-20T09:00:00Z");
        assert_eq!(record["window_end"], "2026-03-20T10:00:00Z");
        assert!(record.get("key_id").is_none());
        let again = UsageRecord::new(dimensions, &counters.plus(&counters), false, &[]);
        assert_eq!(record["record_id"], again.record_id);
        assert!(again.revision > 6);
    }

    #[test]
    fn what_is_not_a_cursor_is_refused() {
        for bad in ["", "AAAA", "!", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(Dimensions::from_cursor(bad), None, "{bad}");
        }
    }
}
