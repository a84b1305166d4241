//! API keys within a transaction: the limits, the day, the deletion that is final.

use std::collections::HashSet;

use super::Changes;
use super::clusters::owns_any;
use super::rows::{Rows, Span};
use super::sessions::{Shown, consume};
use super::tables::{
    ACCOUNTS, ACTIVE_COUNTS, DAILY_COUNTS, DELETED_KEYS, EXPIRIES, KEYS, KEYS_BY_DIGEST, LIVE_KEYS, SEALED_KEYS,
};
use crate::key::Digest;
use crate::principal::{AccountId, AccountStatus, Credential, KeyId};
use crate::store::accounts::{Answer, Changed, DeleteBy, KeyLimits, KeyPatch, KeySlots, Keys, NewKey, Page, Refusal};
use crate::store::audit::{Actor, AuditEvent};
use crate::store::records::{AccountRecord, Deletion, GrantFor, KeyRecord, Sealed};
use crate::store::{Change, StoreError};
use crate::time::WallTime;

pub fn create(
    tx: &mut dyn Changes,
    new: &NewKey,
    limits: KeyLimits,
    actor: &Actor,
    now: WallTime,
) -> Answer<Changed<KeyRecord>> {
    let account = ACCOUNTS.get(tx, &new.account_id)?.ok_or(Refusal::NotFound)?;
    may_create(tx, &account, limits, now)?;
    create_again(tx, new, limits, actor, now)
}

/// A creation that the rules let through once, on a store that has lost it. It counts on the day it was made.
pub fn create_again(
    tx: &mut dyn Changes,
    new: &NewKey,
    limits: KeyLimits,
    actor: &Actor,
    now: WallTime,
) -> Answer<Changed<KeyRecord>> {
    ACCOUNTS.get(tx, &new.account_id)?.ok_or(Refusal::NotFound)?;
    is_unknown(tx, new, 0)?;
    count_creation(tx, new.account_id, limits.day_offset, now)?;
    let record = put_new(tx, new, false, now)?;
    let revision = tx.log(put_change(&record))?;
    tx.audit(event("key.create", &record, actor, now, None))?;
    Ok(Changed { record, revision: Some(revision) })
}

fn may_create(rows: &dyn Rows, account: &AccountRecord, limits: KeyLimits, now: WallTime) -> Answer<()> {
    let account_id = account.account.account_id;
    if !account.verified {
        return Err(Refusal::IdentityUnverified.into());
    }
    if account.account.status == AccountStatus::Suspended {
        return Err(Refusal::AccountSuspended.into());
    }
    if !owns_any(rows, account_id)? {
        return Err(Refusal::NoCluster.into());
    }
    let slots = slots_of(rows, account, limits, now)?;
    if slots.active >= slots.active_max {
        return Err(Refusal::KeyLimitReached { max: slots.active_max }.into());
    }
    if slots.created_today >= slots.daily_max {
        return Err(Refusal::DailyLimitReached { max: slots.daily_max, resets_at: slots.resets_at }.into());
    }
    Ok(())
}

pub fn slots(rows: &dyn Rows, account_id: AccountId, limits: KeyLimits, now: WallTime) -> Answer<KeySlots> {
    let account = ACCOUNTS.get(rows, &account_id)?.ok_or(Refusal::NotFound)?;
    Ok(slots_of(rows, &account, limits, now)?)
}

fn slots_of(
    rows: &dyn Rows,
    account: &AccountRecord,
    limits: KeyLimits,
    now: WallTime,
) -> Result<KeySlots, StoreError> {
    let account_id = account.account.account_id;
    let (day, resets_at) = day_of(now, limits.day_offset);
    let count = |number: Option<u64>| u32::try_from(number.unwrap_or_default()).unwrap_or(u32::MAX);
    Ok(KeySlots {
        active: count(ACTIVE_COUNTS.get(rows, &account_id)?),
        active_max: account.active_max.unwrap_or(limits.active_max),
        created_today: count(DAILY_COUNTS.get(rows, &(account_id, day))?),
        daily_max: account.daily_max.unwrap_or(limits.daily_max),
        resets_at,
    })
}

const DAY_MS: i64 = 86_400_000;

/// The calendar day at `offset` seconds east of UTC, and when the next one begins.
fn day_of(now: WallTime, offset: i32) -> (u64, WallTime) {
    let offset = i64::from(offset) * 1000;
    let local = i64::try_from(now.0).unwrap_or(i64::MAX).saturating_add(offset);
    let day = local.div_euclid(DAY_MS);
    let next = day.saturating_add(1).saturating_mul(DAY_MS).saturating_sub(offset);
    (u64::try_from(day).unwrap_or_default(), WallTime(u64::try_from(next).unwrap_or_default()))
}

/// Days whose counts are kept: a clock that is set back a little must not give a day's creations back.
const DAYS_KEPT: u64 = 7;

fn count_creation(tx: &mut dyn Changes, account_id: AccountId, offset: i32, now: WallTime) -> Result<(), StoreError> {
    let (day, _) = day_of(now, offset);
    let created = DAILY_COUNTS.get(tx, &(account_id, day))?.unwrap_or_default();
    tx.put(&DAILY_COUNTS, &(account_id, day), &(created + 1))?;
    let old = Span::prefix(&account_id).before(&(account_id, day.saturating_sub(DAYS_KEPT)));
    tx.remove_all(&DAILY_COUNTS, old)
}

/// Neither its id nor its digest was ever seen; also not on a key that is deleted.
fn is_unknown(rows: &dyn Rows, new: &NewKey, index: usize) -> Answer<()> {
    if KEYS_BY_DIGEST.get(rows, &new.digest)?.is_some() {
        return Err(Refusal::DigestTaken { index }.into());
    }
    if KEYS.get(rows, &new.key_id)?.is_some() {
        return Err(Refusal::IdTaken.into());
    }
    Ok(())
}

fn put_new(tx: &mut dyn Changes, new: &NewKey, imported: bool, now: WallTime) -> Result<KeyRecord, StoreError> {
    let NewKey { key_id, account_id, .. } = *new;
    let record = KeyRecord {
        credential: Credential { key_id, account_id, disabled: false, expires_at: None, expired: false, version: 1 },
        digest: new.digest,
        name: new.name.clone(),
        masked: new.masked.clone(),
        created_at: now,
        imported,
        deleted: None,
    };
    tx.put(&KEYS, &key_id, &record)?;
    tx.put(&KEYS_BY_DIGEST, &new.digest, &key_id)?;
    tx.put(&SEALED_KEYS, &key_id, &new.sealed)?;
    tx.put(&LIVE_KEYS, &place(&record), &key_id)?;
    if !imported {
        change_active(tx, account_id, |active| active + 1)?;
    }
    Ok(record)
}

fn change_active(tx: &mut dyn Changes, account_id: AccountId, change: impl Fn(u64) -> u64) -> Result<(), StoreError> {
    let active = ACTIVE_COUNTS.get(tx, &account_id)?.unwrap_or_default();
    tx.put(&ACTIVE_COUNTS, &account_id, &change(active))
}

fn place(record: &KeyRecord) -> (AccountId, u64, KeyId) {
    (record.credential.account_id, record.created_at.0, record.credential.key_id)
}

fn put_change(record: &KeyRecord) -> Change {
    Change::KeyPut { digest: record.digest, credential: record.credential }
}

pub fn import(
    tx: &mut dyn Changes,
    account_id: AccountId,
    new: &[NewKey],
    actor: &Actor,
    now: WallTime,
) -> Answer<Changed<Vec<KeyRecord>>> {
    ACCOUNTS.get(tx, &account_id)?.ok_or(Refusal::NotFound)?;
    let (mut digests, mut ids): (HashSet<Digest>, HashSet<KeyId>) = Default::default();
    for (index, key) in new.iter().enumerate() {
        is_unknown(tx, key, index)?;
        if !digests.insert(key.digest) {
            return Err(Refusal::DigestTaken { index }.into());
        }
        if key.account_id != account_id || !ids.insert(key.key_id) {
            return Err(Refusal::IdTaken.into());
        }
    }
    let (mut record, mut revision) = (Vec::with_capacity(new.len()), None);
    for key in new {
        let imported = put_new(tx, key, true, now)?;
        revision = Some(tx.log(put_change(&imported))?);
        tx.audit(event("key.import", &imported, actor, now, None))?;
        record.push(imported);
    }
    Ok(Changed { record, revision })
}

pub fn patch(
    tx: &mut dyn Changes,
    (account_id, key_id): (AccountId, KeyId),
    patch: &KeyPatch,
    actor: &Actor,
    now: WallTime,
) -> Answer<Changed<KeyRecord>> {
    let mut record = own(tx, account_id, key_id)?;
    if record.deleted.is_some() {
        return Err(Refusal::NotFound.into());
    }
    record.name = patch.name.clone().or(record.name);
    let matters = patch.disabled.is_some() || patch.expiry.is_some();
    let revision = if matters {
        let credential = &mut record.credential;
        credential.disabled = patch.disabled.unwrap_or(credential.disabled);
        if let Some(expiry) = patch.expiry {
            move_expiry(tx, key_id, credential.expires_at, expiry.instant())?;
            (credential.expires_at, credential.expired) = (expiry.instant(), false);
        }
        credential.version += 1;
        Some(tx.log(put_change(&record))?)
    } else {
        None
    };
    tx.put(&KEYS, &key_id, &record)?;
    tx.audit(event("key.patch", &record, actor, now, Some(format!("{patch:?}"))))?;
    Ok(Changed { record, revision })
}

/// The index names a key only while its end is ahead.
fn move_expiry(
    tx: &mut dyn Changes,
    key_id: KeyId,
    from: Option<WallTime>,
    to: Option<WallTime>,
) -> Result<(), StoreError> {
    if let Some(from) = from {
        tx.remove(&EXPIRIES, &(from.0, key_id))?;
    }
    to.map_or(Ok(()), |to| tx.put(&EXPIRIES, &(to.0, key_id), &key_id))
}

/// The ids of keys whose time has come.
pub fn due(rows: &dyn Rows, most: usize, now: WallTime) -> Result<Vec<KeyId>, StoreError> {
    EXPIRIES.list(rows, Span::all().before(&now.0.saturating_add(1)), most)
}

pub fn expire(tx: &mut dyn Changes, most: usize, now: WallTime) -> Result<Vec<KeyId>, StoreError> {
    let due = due(tx, most, now)?;
    for key_id in &due {
        let mut record = KEYS.get_promised(tx, key_id)?;
        move_expiry(tx, *key_id, record.credential.expires_at, None)?;
        record.credential.expired = true;
        record.credential.version += 1;
        tx.log(put_change(&record))?;
        tx.put(&KEYS, key_id, &record)?;
        tx.audit(event("key.expire", &record, &Actor::system(), now, None))?;
    }
    Ok(due)
}

/// On whose word a key is deleted, and whether that word is still to be judged.
#[derive(Clone, Copy)]
pub enum Word<'a> {
    Judged(&'a DeleteBy),
    /// It was good when it was given.
    Good(&'a DeleteBy),
}

pub fn delete(
    tx: &mut dyn Changes,
    (account_id, key_id): (AccountId, KeyId),
    word: Word<'_>,
    actor: &Actor,
    now: WallTime,
) -> Answer<Changed<KeyRecord>> {
    let mut record = own(tx, account_id, key_id)?;
    if let Some(revision) = record.deleted.as_ref().map(|deletion| deletion.revision) {
        return Ok(Changed { record, revision: Some(revision) });
    }
    let (Word::Judged(by) | Word::Good(by)) = word;
    let reason = match by {
        DeleteBy::Grant { .. } if matches!(word, Word::Good(_)) => None,
        DeleteBy::Grant { hash, session_id } => {
            let shown = Shown { hash: *hash, session_id: *session_id, action: GrantFor::Delete(key_id) };
            consume(tx, account_id, shown, now)?;
            None
        }
        DeleteBy::Operator { reason } => Some(reason.clone()),
        DeleteBy::Nothing => return Err(Refusal::StepUpRequired.into()),
    };
    let revision = tx.log(Change::KeyDeleted { key_id, digest: record.digest })?;
    tx.audit(event("key.delete", &record, actor, now, reason.clone()))?;
    record.deleted = Some(Deletion { revision, deleted_at: now, by: actor.clone(), reason });
    record.credential.version += 1;
    tx.put(&KEYS, &key_id, &record)?;
    tx.remove(&SEALED_KEYS, &key_id)?;
    tx.remove(&LIVE_KEYS, &place(&record))?;
    move_expiry(tx, key_id, record.credential.expires_at, None)?;
    tx.put(&DELETED_KEYS, &place(&record), &key_id)?;
    if !record.imported {
        change_active(tx, account_id, |active| active.saturating_sub(1))?;
    }
    Ok(Changed { record, revision: Some(revision) })
}

pub fn view(
    tx: &mut dyn Changes,
    (account_id, key_id): (AccountId, KeyId),
    shown: Shown,
    actor: &Actor,
    now: WallTime,
) -> Answer<Sealed> {
    let record = own(tx, account_id, key_id)?;
    if record.deleted.is_some() {
        return Err(Refusal::NotFound.into());
    }
    let sealed = SEALED_KEYS.get_promised(tx, &key_id)?;
    consume(tx, account_id, shown, now)?;
    tx.audit(event("key.view", &record, actor, now, None))?;
    Ok(sealed)
}

fn own(rows: &dyn Rows, account_id: AccountId, key_id: KeyId) -> Answer<KeyRecord> {
    let record = KEYS.get(rows, &key_id)?.filter(|record| record.credential.account_id == account_id);
    Ok(record.ok_or(Refusal::NotFound)?)
}

pub fn by_digest(rows: &dyn Rows, digest: Digest) -> Result<Option<KeyRecord>, StoreError> {
    match KEYS_BY_DIGEST.get(rows, &digest)? {
        Some(key_id) => KEYS.get_promised(rows, &key_id).map(Some),
        None => Ok(None),
    }
}

pub fn list(
    rows: &dyn Rows,
    account_id: AccountId,
    which: Keys,
    page: Page<KeyId>,
) -> Result<Vec<KeyRecord>, StoreError> {
    let index = match which {
        Keys::Live => &LIVE_KEYS,
        Keys::Deleted => &DELETED_KEYS,
    };
    let mut span = Span::prefix(&account_id);
    if let Some(after) = page.after {
        match KEYS.get(rows, &after)?.filter(|record| record.credential.account_id == account_id) {
            Some(last) => span = span.after(&place(&last)),
            None => return Ok(Vec::new()),
        }
    }
    let ids = index.list(rows, span, page.limit)?;
    ids.iter().map(|key_id| KEYS.get_promised(rows, key_id)).collect()
}

fn event(action: &str, record: &KeyRecord, actor: &Actor, now: WallTime, detail: Option<String>) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: actor.clone(),
        action: action.to_owned(),
        subject: record.credential.key_id.to_string(),
        account_id: Some(record.credential.account_id),
        detail,
    }
}
