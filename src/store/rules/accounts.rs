//! Accounts and their users, within a transaction.

use super::Changes;
use super::rows::{Rows, Span};
use super::tables::{ACCOUNTS, ACTIVE_COUNTS, USERS, USERS_BY_ACCOUNT, USERS_BY_EMAIL};
use crate::principal::{Account, AccountId, AccountStatus};
use crate::store::accounts::{AccountPatch, Answer, Changed, NewAccount, NewUser, Page, Refusal};
use crate::store::audit::{Actor, AuditEvent};
use crate::store::records::{AccountRecord, Role, Sealed, UserRecord};
use crate::store::{Change, StoreError};
use crate::time::WallTime;

pub fn create(tx: &mut dyn Changes, new: &NewAccount, actor: &Actor, now: WallTime) -> Answer<AccountRecord> {
    if ACCOUNTS.get(tx, &new.account_id)?.is_some() || USERS.get(tx, &new.root.user_id)?.is_some() {
        return Err(Refusal::IdTaken.into());
    }
    if USERS_BY_EMAIL.get(tx, &folded(&new.root.email))?.is_some() {
        return Err(Refusal::EmailTaken.into());
    }
    let account = Account { account_id: new.account_id, status: AccountStatus::Active, version: 1 };
    let record = AccountRecord {
        account,
        name: new.name.clone(),
        verified: new.verified,
        active_max: None,
        daily_max: None,
        created_at: now,
    };
    tx.put(&ACCOUNTS, &new.account_id, &record)?;
    tx.put(&ACTIVE_COUNTS, &new.account_id, &0)?;
    put_user(tx, new.account_id, &new.root, Some(&new.totp), now)?;
    tx.audit(event("account.create", new.account_id, actor, now, None))?;
    Ok(record)
}

/// The root user is the one with a TOTP secret.
pub fn put_user(
    tx: &mut dyn Changes,
    account_id: AccountId,
    new: &NewUser,
    totp: Option<&Sealed>,
    now: WallTime,
) -> Result<UserRecord, StoreError> {
    let user = UserRecord {
        user_id: new.user_id,
        account_id,
        role: if totp.is_some() { Role::Root } else { Role::Member },
        email: folded(&new.email),
        password: new.password.clone(),
        totp: totp.cloned(),
        created_at: now,
        pending_totp: None,
        recovery_codes: Vec::new(),
    };
    tx.put(&USERS, &user.user_id, &user)?;
    tx.put(&USERS_BY_EMAIL, &user.email, &user.user_id)?;
    tx.put(&USERS_BY_ACCOUNT, &(account_id, user.user_id), &user.user_id)?;
    Ok(user)
}

pub fn patch(
    tx: &mut dyn Changes,
    account_id: AccountId,
    patch: &AccountPatch,
    actor: &Actor,
    now: WallTime,
) -> Answer<Changed<AccountRecord>> {
    let mut record = ACCOUNTS.get(tx, &account_id)?.ok_or(Refusal::NotFound)?;
    record.verified = patch.verified.unwrap_or(record.verified);
    record.active_max = patch.active_max.or(record.active_max);
    record.daily_max = patch.daily_max.or(record.daily_max);
    let revision = match patch.status {
        // Also when it says what is: whoever repeats a change waits for it like the first time.
        Some(status) => {
            record.account.status = status;
            record.account.version += 1;
            Some(tx.log(Change::AccountPut(record.account.clone()))?)
        }
        None => None,
    };
    tx.put(&ACCOUNTS, &account_id, &record)?;
    tx.audit(event("account.patch", account_id, actor, now, Some(format!("{patch:?}"))))?;
    Ok(Changed { record, revision })
}

pub fn list(rows: &dyn Rows, page: Page<AccountId>) -> Result<Vec<AccountRecord>, StoreError> {
    let span = page.after.map_or_else(Span::all, |after| Span::all().after(&after));
    ACCOUNTS.list(rows, span, page.limit)
}

pub fn user_by_email(rows: &dyn Rows, email: &str) -> Result<Option<UserRecord>, StoreError> {
    let Some(user_id) = USERS_BY_EMAIL.get(rows, &folded(email))? else {
        return Ok(None);
    };
    USERS.get_promised(rows, &user_id).map(Some)
}

pub fn users(rows: &dyn Rows, account_id: AccountId) -> Result<Vec<UserRecord>, StoreError> {
    let ids = USERS_BY_ACCOUNT.list(rows, Span::prefix(&account_id), usize::MAX)?;
    ids.iter().map(|user_id| USERS.get_promised(rows, user_id)).collect()
}

pub fn folded(email: &str) -> String {
    email.trim().to_lowercase()
}

fn event(action: &str, account_id: AccountId, actor: &Actor, now: WallTime, detail: Option<String>) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: actor.clone(),
        action: action.to_owned(),
        subject: account_id.to_string(),
        account_id: Some(account_id),
        detail,
    }
}
