//! Windows, adjustments and the change feed of usage.

use std::ops::ControlFlow;

use async_trait::async_trait;

use super::ledger::{LINE, line_at};
use super::rows::{Rows, Span};
use super::tables::{
    ABANDONED, ACCOUNTS, ADJUSTMENTS, ADJUSTMENTS_BY_KEY, FINAL_WINDOWS, META_NUMBERS, Place, USAGE_CHANGE,
    USAGE_CHANGE_OF, USAGE_CHANGES,
};
use super::{Backend, Changes};
use crate::meter::record::Operation;
use crate::principal::{AccountId, ClusterId, ID_BYTES, Incarnation};
use crate::store::StoreError;
use crate::store::accounts::{Answer, Refusal};
use crate::store::audit::{Actor, AuditEvent};
use crate::store::usage::{
    Abandoned, Adjustment, FinalWindow, NewAdjustment, RecordKey, Touched, UsageChanges, UsageStore,
};
use crate::time::{Hour, WallTime};

#[async_trait]
impl<S: Backend> UsageStore for S {
    async fn final_windows(&self, from: Hour, to: Hour) -> Result<Vec<FinalWindow>, StoreError> {
        self.read_long(move |rows| FINAL_WINDOWS.list(rows, hours(from, to), usize::MAX)).await
    }

    async fn make_final(&self, window: FinalWindow) -> Result<(), StoreError> {
        self.write(move |tx| make_final(tx, &window)).await
    }

    async fn adjustments(&self, from: Hour, to: Hour) -> Result<Vec<Adjustment>, StoreError> {
        self.read_long(move |rows| ADJUSTMENTS.list(rows, hours(from, to), usize::MAX)).await
    }

    async fn adjust(&self, new: NewAdjustment, actor: Actor, now: WallTime) -> Answer<Adjustment> {
        self.write(move |tx| adjust(tx, &new, &actor, now)).await
    }

    async fn abandoned(&self) -> Result<Vec<Abandoned>, StoreError> {
        self.read_long(|rows| ABANDONED.list(rows, Span::all(), usize::MAX)).await
    }

    async fn abandon(
        &self,
        incarnation: Incarnation,
        reason: String,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Abandoned> {
        self.write(move |tx| abandon(tx, incarnation, &reason, &actor, now)).await
    }
}

fn make_final(tx: &mut dyn Changes, window: &FinalWindow) -> Result<(), StoreError> {
    let row = window.hour.0.to_be_bytes();
    if FINAL_WINDOWS.get(tx, &row[..])?.is_some() {
        return Ok(());
    }
    tx.put(&FINAL_WINDOWS, &row[..], window)?;
    tx.touch(row.to_vec())
}

pub fn adjust(tx: &mut dyn Changes, new: &NewAdjustment, actor: &Actor, now: WallTime) -> Answer<Adjustment> {
    if let Some(Place(row)) = ADJUSTMENTS_BY_KEY.get(tx, &new.idempotency_key)? {
        let made = ADJUSTMENTS.get_promised(tx, &row[..])?;
        let NewAdjustment { adjustment_id, counted, .. } = made.new;
        let same = NewAdjustment { adjustment_id, counted, ..new.clone() } == made.new;
        return if same { Ok(made) } else { Err(Refusal::IdempotencyKeyTaken.into()) };
    }
    let record = place_of(&new.record);
    if left_of(tx, &record, new)? < 0 {
        return Err(Refusal::BelowZero.into());
    }
    if ACCOUNTS.get(tx, &new.record.account_id)?.is_none() {
        return Err(Refusal::NotFound.into());
    }
    let adjustment = Adjustment { new: new.clone(), actor: actor.clone(), at: now };
    let row = [record.as_slice(), &now.0.to_be_bytes(), &new.adjustment_id.0].concat();
    tx.put(&ADJUSTMENTS, &row[..], &adjustment)?;
    tx.put(&ADJUSTMENTS_BY_KEY, &new.idempotency_key, &Place(row))?;
    tx.touch(record)?;
    tx.audit(AuditEvent {
        at: now,
        actor: actor.clone(),
        action: "usage.adjust".to_owned(),
        subject: new.adjustment_id.to_string(),
        account_id: Some(new.record.account_id),
        detail: Some(format!("{} {:+} in {}: {}", new.field, new.delta, new.record.hour, new.reason)),
    })?;
    Ok(adjustment)
}

/// What a number of a record would come to. What is counted only grows, so it holds from then on.
fn left_of(tx: &dyn Changes, record: &[u8], new: &NewAdjustment) -> Result<i128, StoreError> {
    let mut left = i128::from(new.counted) + i128::from(new.delta);
    ADJUSTMENTS.scan(tx, Span::prefix(record), |_, Adjustment { new: known, .. }| {
        if known.field == new.field {
            left += i128::from(known.delta);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(left)
}

pub fn abandon(
    tx: &mut dyn Changes,
    incarnation: Incarnation,
    reason: &str,
    actor: &Actor,
    now: WallTime,
) -> Answer<Abandoned> {
    if let Some(before) = ABANDONED.get(tx, &incarnation)? {
        return Ok(before);
    }
    let (reason, actor) = (reason.to_owned(), actor.clone());
    tx.audit(AuditEvent {
        at: now,
        actor: actor.clone(),
        action: "usage.abandon".to_owned(),
        subject: incarnation.to_string(),
        account_id: None,
        detail: Some(reason.clone()),
    })?;
    let abandoned = Abandoned { incarnation, reason, actor, at: now };
    tx.put(&ABANDONED, &incarnation, &abandoned)?;
    Ok(abandoned)
}

/// Rows whose keys begin with an hour.
pub fn hours(from: Hour, to: Hour) -> Span {
    let span = Span::all().from(&from.0.to_be_bytes()[..]);
    match to.0.checked_add(1) {
        Some(end) => span.before(&end.to_be_bytes()[..]),
        None => span,
    }
}

/// Gives a place the next number of the change feed, where the feed is kept in rows; unless it has one beyond `told`, up to which
/// readers may have been told.
pub fn touch(tx: &mut dyn Changes, place: Vec<u8>, told: u64) -> Result<(), StoreError> {
    let before = USAGE_CHANGE_OF.get(tx, &place[..])?;
    if before.is_some_and(|before| before > told) {
        return Ok(());
    }
    let number = last_change(tx)? + 1;
    tx.put(&META_NUMBERS, USAGE_CHANGE, &number)?;
    if let Some(before) = before {
        tx.remove(&USAGE_CHANGES, &before)?;
    }
    tx.put(&USAGE_CHANGE_OF, &place[..], &number)?;
    tx.put(&USAGE_CHANGES, &number, &Place(place))
}

/// The greatest number of the change feed there is.
pub fn last_change(rows: &dyn Rows) -> Result<u64, StoreError> {
    Ok(META_NUMBERS.get(rows, USAGE_CHANGE)?.unwrap_or_default())
}

/// Seconds are shifted by so much: no store makes so many changes a second, and 2^53 is far away.
const LEAP: u32 = 21;

/// After a restore: the next number is greater than any that was given before, also of changes that are lost. Whoever reads on
/// behind one of them misses nothing that comes.
pub fn leap(tx: &mut dyn Changes, now: WallTime) -> Result<(), StoreError> {
    let known = last_change(tx)?;
    tx.put(&META_NUMBERS, USAGE_CHANGE, &known.max(now.unix_seconds() << LEAP))
}

/// The feed where it is kept in rows.
pub fn changed(rows: &dyn Rows, after: u64, most: usize) -> Result<UsageChanges, StoreError> {
    let mut changes = UsageChanges { touched: Vec::new(), upto: after, more: false };
    USAGE_CHANGES.scan(rows, Span::all().after(&after), |key, Place(place)| {
        if changes.touched.len() >= most {
            changes.more = true;
            return Ok(ControlFlow::Break(()));
        }
        let number = key.try_into().map(u64::from_be_bytes).map_err(|_| unreadable(key))?;
        changes.touched.push((number, touched(&place)?));
        changes.upto = number;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(changes)
}

/// hour (4 bytes) · account · cluster · operation (1 byte)
pub fn place_of(record: &RecordKey) -> Vec<u8> {
    let RecordKey { hour, account_id, cluster_id, operation } = record;
    [&hour.0.to_be_bytes()[..], &account_id.0, &cluster_id.0, &[*operation as u8]].concat()
}

const HOUR: usize = 4;
const RECORD: usize = HOUR + 2 * ID_BYTES + 1;

/// A place is the key of a line, a record or an hour: their lengths differ.
pub fn touched(place: &[u8]) -> Result<Touched, StoreError> {
    match place.len() {
        LINE => line_at(place).map(|line| Touched::Record(RecordKey::of(line.hour, &line.key))),
        RECORD => record_at(place).map(Touched::Record).ok_or_else(|| unreadable(place)),
        HOUR => Ok(Touched::Hour(Hour(u32::from_be_bytes(place.try_into().map_err(|_| unreadable(place))?)))),
        _ => Err(unreadable(place)),
    }
}

fn record_at(place: &[u8]) -> Option<RecordKey> {
    let (hour, rest) = place.split_first_chunk::<HOUR>()?;
    let (account, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let (cluster, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    Some(RecordKey {
        hour: Hour(u32::from_be_bytes(*hour)),
        account_id: AccountId(*account),
        cluster_id: ClusterId(*cluster),
        operation: Operation::from_index(*rest.first()?)?,
    })
}

fn unreadable(place: &[u8]) -> StoreError {
    let place = data_encoding::HEXLOWER.encode(place);
    StoreError::Corrupt(format!("the change feed of usage names {place}, which is no place in the ledger"))
}
