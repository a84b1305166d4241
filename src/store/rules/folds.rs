//! Hours that leave the ledger, and come back, where the ledger is kept in rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::Changes;
use super::ledger::{Whose, grown, mark_key, row_key, whose};
use super::rows::{Rows, Span};
use super::tables::{BASE, FLUSHES, FOLDS, LEDGER, USAGE_CHANGE_OF, USAGE_CHANGES};
use super::usage::{hours, place_of};
use crate::meter::record::{Counters, LedgerLine};
use crate::principal::{AccountId, ClusterId, ID_BYTES};
use crate::store::StoreError;
use crate::store::folds::{Fold, Step, Way};
use crate::store::usage::RecordKey;
use crate::time::Hour;

/// Of an hour that is not simply in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldRow {
    pub fold: Fold,
    pub digest: String,
    /// A merge into it was refused.
    pub wanted: bool,
}

/// Whether merges into the hour are refused now.
pub fn has_left(tx: &dyn Changes, hour: Hour) -> Result<bool, StoreError> {
    Ok(FOLDS.get(tx, &hour.0.to_be_bytes()[..])?.is_some())
}

/// Notes that a merge into the hour was refused.
pub fn want(tx: &mut dyn Changes, hour: Hour) -> Result<(), StoreError> {
    let row = hour.0.to_be_bytes();
    match FOLDS.get(tx, &row[..])? {
        Some(known) if !known.wanted => tx.put(&FOLDS, &row[..], &FoldRow { wanted: true, ..known }),
        _ => Ok(()),
    }
}

pub fn folds(rows: &dyn Rows, from: Hour, to: Hour) -> Result<BTreeMap<Hour, FoldRow>, StoreError> {
    let mut found = BTreeMap::new();
    FOLDS.scan(rows, hours(from, to), |key, row| {
        found.insert(hour_at(key)?, row);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub fn hour_at(key: &[u8]) -> Result<Hour, StoreError> {
    let hour = key.try_into().map(u32::from_be_bytes).map(Hour);
    hour.map_err(|_| StoreError::Corrupt(format!("table {}: a key is not an hour", FOLDS.name)))
}

pub fn step(tx: &mut dyn Changes, hour: Hour, step: &Step) -> Result<bool, StoreError> {
    let row = hour.0.to_be_bytes();
    let known = FOLDS.get(tx, &row[..])?;
    let (from, to) = step.ends();
    let has_lines = matches!(step, Step::Archive { .. }) && has_lines(tx, hour)?;
    if known.as_ref().map(|known| known.fold) != from || has_lines {
        return Ok(false);
    }
    match step {
        Step::Archive { gone } => {
            gone.iter().try_for_each(|incarnation| tx.remove(&FLUSHES, &mark_key(hour, *incarnation)[..]))?;
        }
        Step::Settle { marks } => {
            for mark in marks {
                let key = mark_key(hour, mark.incarnation);
                if FLUSHES.get(tx, &key[..])?.is_none() {
                    tx.put(&FLUSHES, &key[..], &mark.mark)?;
                }
            }
        }
        Step::Check | Step::Stay | Step::Leave { .. } | Step::Return => {}
    }
    let (known_digest, wanted) = known.map(|known| (known.digest, known.wanted)).unwrap_or_default();
    let digest = if let Step::Leave { digest } = step { digest.clone() } else { known_digest };
    match to {
        None => tx.remove(&FOLDS, &row[..])?,
        Some(fold) => tx.put(&FOLDS, &row[..], &FoldRow { fold, digest, wanted })?,
    }
    Ok(true)
}

fn has_lines(rows: &dyn Rows, hour: Hour) -> Result<bool, StoreError> {
    let mut has = false;
    LEDGER.scan(rows, hours(hour, hour), |_, _| {
        has = true;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(has)
}

pub fn move_lines(tx: &mut dyn Changes, hour: Hour, way: Way, lines: &[LedgerLine]) -> Result<bool, StoreError> {
    let fold = FOLDS.get(tx, &hour.0.to_be_bytes()[..])?.map(|row| row.fold);
    if fold != Some(way.fold()) {
        return Ok(false);
    }
    let rows: Vec<_> = lines.iter().map(|line| row_key(hour, &line.key, line.incarnation)).collect();
    for (row, line) in rows.iter().zip(lines) {
        let expected = (way == Way::Out).then_some(line.counters);
        if LEDGER.get(tx, &row[..])? != expected {
            return Ok(false);
        }
    }
    for (whose, moved) in sums_of(lines) {
        let row = base_key(&whose);
        let known = BASE.get(tx, &row[..])?.unwrap_or_default();
        tx.put(&BASE, &row[..], &moved_base(way, &known, &moved))?;
    }
    for (row, line) in rows.iter().zip(lines) {
        match way {
            Way::Out => tx.remove(&LEDGER, &row[..])?,
            Way::Back => tx.put(&LEDGER, &row[..], &line.counters)?,
        }
    }
    let places: BTreeSet<_> = lines.iter().map(|line| place_of(&RecordKey::of(hour, &line.key))).collect();
    match way {
        Way::Out => forget(tx, hour, &places)?,
        Way::Back => places.into_iter().try_for_each(|place| tx.touch(place))?,
    }
    Ok(true)
}

/// What lines come to, by where it stands in the base.
pub fn sums_of(lines: &[LedgerLine]) -> BTreeMap<Whose, Counters> {
    let mut sums: BTreeMap<Whose, Counters> = BTreeMap::new();
    for line in lines {
        let sum = sums.entry(whose(&line.key)).or_default();
        *sum = sum.plus(&line.counters);
    }
    sums
}

/// A row of the base with these lines, or without them.
pub fn moved_base(way: Way, known: &Counters, moved: &Counters) -> Counters {
    match way {
        Way::Out => known.plus(moved),
        Way::Back => grown(moved, known),
    }
}

/// Takes places out of the change feed. Whoever reads on behind the hour's own place has still to hear of them.
fn forget(tx: &mut dyn Changes, hour: Hour, places: &BTreeSet<Vec<u8>>) -> Result<(), StoreError> {
    let mut newest = 0;
    for place in places {
        if let Some(number) = USAGE_CHANGE_OF.get(tx, &place[..])? {
            newest = newest.max(number);
            tx.remove(&USAGE_CHANGE_OF, &place[..])?;
            tx.remove(&USAGE_CHANGES, &number)?;
        }
    }
    let own = hour.0.to_be_bytes().to_vec();
    let told = USAGE_CHANGE_OF.get(tx, &own[..])?.unwrap_or_default();
    if newest > told { tx.touch(own) } else { Ok(()) }
}

/// account · cluster · operation (1 byte)
pub fn base_key((account_id, cluster_id, operation): &Whose) -> Vec<u8> {
    [&account_id.0[..], &cluster_id.0, &[*operation as u8]].concat()
}

pub fn base_at(key: &[u8]) -> Result<Whose, StoreError> {
    let parsed = || {
        let (account, rest) = key.split_first_chunk::<ID_BYTES>()?;
        let (cluster, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let [operation] = rest else { return None };
        let operation = crate::meter::record::Operation::from_index(*operation)?;
        Some((AccountId(*account), ClusterId(*cluster), operation))
    };
    parsed().ok_or_else(|| StoreError::Corrupt(format!("table {}: a key is not one of the base", BASE.name)))
}

/// Everything in the base.
pub fn base(rows: &dyn Rows, mut visit: impl FnMut(Whose, Counters)) -> Result<(), StoreError> {
    BASE.scan(rows, Span::all(), |key, counters| {
        visit(base_at(key)?, counters);
        Ok(ControlFlow::Continue(()))
    })
}
