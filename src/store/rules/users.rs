//! Members, passwords and second factors, within a transaction.

use async_trait::async_trait;

use super::accounts::{folded, put_user, users};
use super::rows::Rows;
use super::sessions::{Shown, close_all, consume, of_user};
use super::tables::{ACCOUNTS, STEP_UPS, USERS, USERS_BY_ACCOUNT, USERS_BY_EMAIL};
use super::{Backend, Changes};
use crate::principal::{AccountId, UserId};
use crate::store::StoreError;
use crate::store::accounts::{Answer, NewUser, Refusal};
use crate::store::audit::{Actor, AuditEvent};
use crate::store::intent::Rules;
use crate::store::records::{GrantFor, PasswordHash, PendingTotp, Role, Sealed, SessionRecord, TokenHash, UserRecord};
use crate::store::users::{MEMBERS_MOST, Oneself, Reset, UserStore};
use crate::time::WallTime;

#[async_trait]
impl<S: Backend> UserStore for S {
    async fn create_member(
        &self,
        account_id: AccountId,
        new: NewUser,
        actor: Actor,
        now: WallTime,
    ) -> Answer<UserRecord> {
        self.write(move |tx| create(tx, account_id, &new, &actor, now)).await
    }

    async fn delete_member(&self, account_id: AccountId, user_id: UserId, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| delete(tx, account_id, user_id, &actor, now)).await
    }

    async fn set_password(&self, by: Oneself, password: PasswordHash, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| set_password(tx, by, &password, Rules::Enforced, &actor, now)).await
    }

    async fn begin_totp(
        &self,
        by: Oneself,
        secret: Sealed,
        expires_at: WallTime,
        actor: Actor,
        now: WallTime,
    ) -> Answer<()> {
        self.write(move |tx| {
            let pending = PendingTotp { secret: secret.clone(), session_id: by.session_id, expires_at };
            let user = UserRecord { pending_totp: Some(pending), ..allowed(tx, by, Rules::Enforced, now)? };
            changed(tx, &user, "totp.begin", &actor, now)
        })
        .await
    }

    async fn confirm_totp(&self, by: Oneself, secret: Sealed, step: u64, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| confirm_totp(tx, by, (&secret, step), Rules::Enforced, &actor, now)).await
    }

    async fn set_recovery_codes(&self, by: Oneself, codes: Vec<TokenHash>, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| set_recovery_codes(tx, by, &codes, Rules::Enforced, &actor, now)).await
    }

    async fn reset_root(&self, account_id: AccountId, reset: Reset, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| reset_root(tx, account_id, &reset, &actor, now)).await
    }

    async fn sessions_of(&self, user_id: UserId, now: WallTime) -> Result<Vec<SessionRecord>, StoreError> {
        let mut sessions = self.read(move |rows| of_user(rows, user_id)).await?;
        sessions.retain(|session| session.expires_at > now);
        sessions.sort_by_key(|session| session.created_at);
        Ok(sessions)
    }

    async fn close_other_sessions(&self, by: Oneself, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| {
            let user = USERS.get(tx, &by.user_id)?.ok_or(Refusal::NotFound)?;
            close_all(tx, by.user_id, Some(by.session_id))?;
            Ok(tx.audit(event("session.close_others", &user, &actor, now, None))?)
        })
        .await
    }
}

pub fn create(
    tx: &mut dyn Changes,
    account_id: AccountId,
    new: &NewUser,
    actor: &Actor,
    now: WallTime,
) -> Answer<UserRecord> {
    ACCOUNTS.get(tx, &account_id)?.ok_or(Refusal::NotFound)?;
    if users(tx, account_id)?.len() > MEMBERS_MOST {
        return Err(Refusal::MemberLimitReached { max: MEMBERS_MOST }.into());
    }
    if USERS.get(tx, &new.user_id)?.is_some() {
        return Err(Refusal::IdTaken.into());
    }
    if USERS_BY_EMAIL.get(tx, &folded(&new.email))?.is_some() {
        return Err(Refusal::EmailTaken.into());
    }
    let user = put_user(tx, account_id, new, None, now)?;
    tx.audit(event("member.create", &user, actor, now, None))?;
    Ok(user)
}

pub fn delete(
    tx: &mut dyn Changes,
    account_id: AccountId,
    user_id: UserId,
    actor: &Actor,
    now: WallTime,
) -> Answer<()> {
    let user = USERS.get(tx, &user_id)?.ok_or(Refusal::NotFound)?;
    if user.account_id != account_id || user.role == Role::Root {
        return Err(Refusal::NotFound.into());
    }
    close_all(tx, user_id, None)?;
    tx.remove(&USERS, &user_id)?;
    tx.remove(&USERS_BY_EMAIL, &user.email)?;
    tx.remove(&USERS_BY_ACCOUNT, &(account_id, user_id))?;
    Ok(tx.audit(event("member.delete", &user, actor, now, None))?)
}

/// The user as they are, once the grant that a root user needs is used up. A change that held once used it up then.
fn allowed(tx: &mut dyn Changes, by: Oneself, rules: Rules, now: WallTime) -> Answer<UserRecord> {
    let user = USERS.get(tx, &by.user_id)?.ok_or(Refusal::NotFound)?;
    if rules != Rules::Enforced {
        return Ok(user);
    }
    match (by.grant, user.role) {
        (Some(hash), _) => {
            let shown = Shown { hash, session_id: by.session_id, action: GrantFor::Account };
            consume(tx, user.account_id, shown, now)?;
        }
        (None, Role::Root) => return Err(Refusal::StepUpRequired.into()),
        (None, Role::Member) => {}
    }
    Ok(user)
}

fn changed(tx: &mut dyn Changes, user: &UserRecord, action: &str, actor: &Actor, now: WallTime) -> Answer<()> {
    tx.put(&USERS, &user.user_id, user)?;
    Ok(tx.audit(event(action, user, actor, now, None))?)
}

pub fn set_password(
    tx: &mut dyn Changes,
    by: Oneself,
    password: &PasswordHash,
    rules: Rules,
    actor: &Actor,
    now: WallTime,
) -> Answer<()> {
    let user = UserRecord { password: password.clone(), ..allowed(tx, by, rules, now)? };
    close_all(tx, user.user_id, Some(by.session_id))?;
    changed(tx, &user, "password.change", actor, now)
}

pub fn set_recovery_codes(
    tx: &mut dyn Changes,
    by: Oneself,
    codes: &[TokenHash],
    rules: Rules,
    actor: &Actor,
    now: WallTime,
) -> Answer<()> {
    let user = UserRecord { recovery_codes: codes.to_vec(), ..allowed(tx, by, rules, now)? };
    changed(tx, &user, "recovery_codes.replace", actor, now)
}

pub fn confirm_totp(
    tx: &mut dyn Changes,
    by: Oneself,
    (secret, step): (&Sealed, u64),
    rules: Rules,
    actor: &Actor,
    now: WallTime,
) -> Answer<()> {
    let mut user = USERS.get(tx, &by.user_id)?.ok_or(Refusal::NotFound)?;
    let pending = user.pending_totp.take();
    if rules == Rules::Enforced {
        let pending = pending.ok_or(Refusal::NotFound)?;
        if pending.secret != *secret || pending.session_id != by.session_id || pending.expires_at <= now {
            return Err(Refusal::NotFound.into());
        }
    }
    user.totp = Some(secret.clone());
    close_all(tx, user.user_id, Some(by.session_id))?;
    let mut step_ups = STEP_UPS.get(tx, &user.account_id)?.unwrap_or_default();
    // Steps only go forward, also over a change of the secret: the code just shown is used up.
    step_ups.last_step = step_ups.last_step.max(Some(step));
    step_ups.grants.clear();
    tx.put(&STEP_UPS, &user.account_id, &step_ups)?;
    changed(tx, &user, "totp.replace", actor, now)
}

pub fn reset_root(
    tx: &mut dyn Changes,
    account_id: AccountId,
    reset: &Reset,
    actor: &Actor,
    now: WallTime,
) -> Answer<()> {
    let user = root_of(tx, account_id, reset.user_id)?;
    for user in users(tx, account_id)? {
        close_all(tx, user.user_id, None)?;
    }
    let user = UserRecord {
        password: reset.password.clone(),
        totp: Some(reset.totp.clone()),
        pending_totp: None,
        recovery_codes: Vec::new(),
        ..user
    };
    tx.put(&USERS, &user.user_id, &user)?;
    Ok(tx.audit(event("account.reset", &user, actor, now, Some(reset.reason.clone())))?)
}

fn root_of(rows: &dyn Rows, account_id: AccountId, user_id: UserId) -> Answer<UserRecord> {
    let user = USERS.get(rows, &user_id)?.ok_or(Refusal::NotFound)?;
    let is_root = user.account_id == account_id && user.role == Role::Root;
    if is_root { Ok(user) } else { Err(Refusal::NotFound.into()) }
}

fn event(action: &str, user: &UserRecord, actor: &Actor, now: WallTime, detail: Option<String>) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: actor.clone(),
        action: action.to_owned(),
        subject: user.user_id.to_string(),
        account_id: Some(user.account_id),
        detail,
    }
}
