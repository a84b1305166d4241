//! Sessions, step-ups and grants, within a transaction.

use super::Changes;
use super::rows::{Rows, Span};
use super::tables::{ACCOUNTS, SESSIONS, SESSIONS_BY_ID, SESSIONS_BY_USER, STEP_UPS, USERS};
use crate::principal::{AccountId, SessionId, UserId};
use crate::store::StoreError;
use crate::store::accounts::{Answer, Proof, Refusal, StepUp};
use crate::store::audit::{Actor, AuditEvent};
use crate::store::records::{GrantFor, SessionRecord, TokenHash};
use crate::time::WallTime;

/// Sessions one user may have; another one closes the one that was idle for longest.
const SESSIONS_PER_USER: usize = 64;

pub fn open(tx: &mut dyn Changes, session: &SessionRecord, actor: &Actor, now: WallTime) -> Answer<()> {
    USERS.get(tx, &session.user_id)?.ok_or(Refusal::NotFound)?;
    let taken = SESSIONS_BY_ID.get(tx, &session.session_id)?.is_some() || SESSIONS.get(tx, &session.token)?.is_some();
    if taken {
        return Err(Refusal::IdTaken.into());
    }
    make_room(tx, session, now)?;
    put(tx, session)?;
    tx.audit(event("session.open", session, actor, now))?;
    Ok(())
}

fn make_room(tx: &mut dyn Changes, coming: &SessionRecord, now: WallTime) -> Result<(), StoreError> {
    let sessions = of_user(tx, coming.user_id)?;
    let (mut live, expired): (Vec<_>, Vec<_>) = sessions.into_iter().partition(|session| session.expires_at > now);
    live.sort_by_key(|session| session.last_seen);
    let surplus = (live.len() + 1).saturating_sub(SESSIONS_PER_USER);
    expired.iter().chain(live.iter().take(surplus)).try_for_each(|session| remove(tx, session))
}

pub fn find(rows: &dyn Rows, token: TokenHash, now: WallTime) -> Result<Option<SessionRecord>, StoreError> {
    Ok(SESSIONS.get(rows, &token)?.filter(|session| session.expires_at > now))
}

pub fn touch(tx: &mut dyn Changes, token: TokenHash, now: WallTime, expires_at: WallTime) -> Result<(), StoreError> {
    match find(tx, token, now)? {
        Some(session) => tx.put(&SESSIONS, &token, &SessionRecord { last_seen: now, expires_at, ..session }),
        None => Ok(()),
    }
}

pub fn close(tx: &mut dyn Changes, token: TokenHash, actor: &Actor, now: WallTime) -> Answer<()> {
    let Some(session) = SESSIONS.get(tx, &token)? else {
        return Ok(());
    };
    remove(tx, &session)?;
    tx.audit(event("session.close", &session, actor, now))?;
    Ok(())
}

/// All sessions of a user, also expired ones.
pub fn of_user(rows: &dyn Rows, user_id: UserId) -> Result<Vec<SessionRecord>, StoreError> {
    let tokens = SESSIONS_BY_USER.list(rows, Span::prefix(&user_id), usize::MAX)?;
    tokens.iter().map(|token| SESSIONS.get_promised(rows, token)).collect()
}

/// Ends every session of a user but the one to keep.
pub fn close_all(tx: &mut dyn Changes, user_id: UserId, keep: Option<SessionId>) -> Result<(), StoreError> {
    let sessions = of_user(tx, user_id)?;
    sessions.iter().filter(|session| Some(session.session_id) != keep).try_for_each(|session| remove(tx, session))
}

fn put(tx: &mut dyn Changes, session: &SessionRecord) -> Result<(), StoreError> {
    tx.put(&SESSIONS, &session.token, session)?;
    tx.put(&SESSIONS_BY_ID, &session.session_id, &session.token)?;
    tx.put(&SESSIONS_BY_USER, &(session.user_id, session.session_id), &session.token)
}

/// A session that goes takes its grants with it.
fn remove(tx: &mut dyn Changes, session: &SessionRecord) -> Result<(), StoreError> {
    tx.remove(&SESSIONS, &session.token)?;
    tx.remove(&SESSIONS_BY_ID, &session.session_id)?;
    tx.remove(&SESSIONS_BY_USER, &(session.user_id, session.session_id))?;
    let Some(mut step_ups) = STEP_UPS.get(tx, &session.account_id)? else {
        return Ok(());
    };
    step_ups.grants.retain(|grant| grant.session_id != session.session_id);
    tx.put(&STEP_UPS, &session.account_id, &step_ups)
}

/// Uses the code up and keeps the grant. Codes only go forward, whoever of the account used them.
pub fn step_up(tx: &mut dyn Changes, step_up: &StepUp, actor: &Actor, now: WallTime) -> Answer<()> {
    let StepUp { account_id, proof, grant, rotate } = step_up;
    ACCOUNTS.get(tx, account_id)?.ok_or(Refusal::NotFound)?;
    let token = SESSIONS_BY_ID.get(tx, &grant.session_id)?.ok_or(Refusal::NotFound)?;
    let session = find(tx, token, now)?.filter(|session| session.account_id == *account_id).ok_or(Refusal::NotFound)?;
    let mut step_ups = STEP_UPS.get(tx, account_id)?.unwrap_or_default();
    match *proof {
        Proof::Step(step) => {
            if let Some(last) = step_ups.last_step.filter(|last| step <= *last) {
                return Err(Refusal::CodeReplayed { next_step: last + 1 }.into());
            }
            step_ups.last_step = Some(step);
        }
        Proof::Recovery(code) => use_recovery_code(tx, session.user_id, code)?,
    }
    step_ups.grants.retain(|kept| kept.expires_at > now);
    step_ups.grants.push(*grant);
    tx.put(&STEP_UPS, account_id, &step_ups)?;
    if let Some(token) = rotate {
        tx.remove(&SESSIONS, &session.token)?;
        put(tx, &SessionRecord { token: *token, ..session.clone() })?;
    }
    let by_recovery = if matches!(proof, Proof::Recovery(_)) { " by recovery code" } else { "" };
    let detail = match grant.action {
        GrantFor::View(key_id) => format!("view {key_id}"),
        GrantFor::Delete(key_id) => format!("delete {key_id}"),
        GrantFor::Account => "account".to_owned(),
    };
    tx.audit(AuditEvent {
        detail: Some(format!("{detail}{by_recovery}")),
        ..event("session.step_up", &session, actor, now)
    })?;
    Ok(())
}

fn use_recovery_code(tx: &mut dyn Changes, user_id: UserId, code: TokenHash) -> Answer<()> {
    let mut user = USERS.get(tx, &user_id)?.ok_or(Refusal::NotFound)?;
    let before = user.recovery_codes.len();
    user.recovery_codes.retain(|kept| *kept != code);
    if user.recovery_codes.len() == before {
        return Err(Refusal::RecoveryCodeInvalid.into());
    }
    Ok(tx.put(&USERS, &user_id, &user)?)
}

/// What a grant is shown for.
#[derive(Clone, Copy)]
pub struct Shown {
    pub hash: TokenHash,
    pub session_id: SessionId,
    pub action: GrantFor,
}

/// Uses a grant up, within the step of the action it allows.
pub fn consume(tx: &mut dyn Changes, account_id: AccountId, shown: Shown, now: WallTime) -> Answer<()> {
    let mut step_ups = STEP_UPS.get(tx, &account_id)?.unwrap_or_default();
    let before = step_ups.grants.len();
    step_ups.grants.retain(|grant| {
        let allows = grant.hash == shown.hash
            && grant.session_id == shown.session_id
            && grant.action == shown.action
            && grant.expires_at > now;
        !allows
    });
    if step_ups.grants.len() == before {
        return Err(Refusal::GrantInvalid.into());
    }
    Ok(tx.put(&STEP_UPS, &account_id, &step_ups)?)
}

fn event(action: &str, session: &SessionRecord, actor: &Actor, now: WallTime) -> AuditEvent {
    AuditEvent {
        at: now,
        actor: actor.clone(),
        action: action.to_owned(),
        subject: session.session_id.to_string(),
        account_id: Some(session.account_id),
        detail: None,
    }
}
