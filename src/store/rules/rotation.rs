//! Rotating secrets.

use std::ops::ControlFlow;

use async_trait::async_trait;

use super::rows::{Rows, Span};
use super::tables::{KEYS, KEYS_BY_DIGEST, META_SECRETS, SEALED_KEYS, SECRETS, USERS};
use super::{Backend, Changes};
use crate::principal::{KeyId, UserId};
use crate::store::audit::{Actor, AuditEvent};
use crate::store::records::{KeyRecord, Sealed, UserRecord};
use crate::store::rotation::{Renewed, Rotation, SecretsMark};
use crate::store::{Change, StoreError};
use crate::time::WallTime;

#[async_trait]
impl<S: Backend> Rotation for S {
    async fn secrets(&self) -> Result<Option<SecretsMark>, StoreError> {
        self.read(|rows| META_SECRETS.get(rows, SECRETS)).await
    }

    async fn mark_secrets(&self, mark: SecretsMark, actor: Actor, now: WallTime) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.put(&META_SECRETS, SECRETS, &mark)?;
            let (action, subject) = ("secrets.mark".to_owned(), "secrets".to_owned());
            let detail = Some(if mark.is_rotating() { "rotating" } else { "settled" }.to_owned());
            tx.audit(AuditEvent { at: now, actor: actor.clone(), action, subject, account_id: None, detail })
        })
        .await
    }

    async fn sealed_keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<(KeyRecord, Sealed)>, StoreError> {
        self.read_long(move |rows| sealed_keys(rows, after, limit)).await
    }

    async fn renew_keys(&self, renewed: Vec<Renewed>) -> Result<(), StoreError> {
        self.write(move |tx| renewed.iter().try_for_each(|key| renew_key(tx, key))).await
    }

    async fn users_with_totp(&self, after: Option<UserId>, limit: usize) -> Result<Vec<UserRecord>, StoreError> {
        self.read_long(move |rows| users_with_totp(rows, after, limit)).await
    }

    async fn renew_totp(&self, user_id: UserId, old: Sealed, new: Sealed) -> Result<(), StoreError> {
        self.write(move |tx| match USERS.get(tx, &user_id)? {
            Some(user) if user.totp.as_ref() == Some(&old) => {
                tx.put(&USERS, &user_id, &UserRecord { totp: Some(new.clone()), ..user })
            }
            _ => Ok(()),
        })
        .await
    }
}

fn sealed_keys(rows: &dyn Rows, after: Option<KeyId>, limit: usize) -> Result<Vec<(KeyRecord, Sealed)>, StoreError> {
    let span = after.map_or_else(Span::all, |after| Span::all().after(&after));
    let mut found = Vec::new();
    KEYS.scan(rows, span, |_, record| {
        if let Some(sealed) = SEALED_KEYS.get(rows, &record.key_id())? {
            found.push((record, sealed));
        }
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

fn users_with_totp(rows: &dyn Rows, after: Option<UserId>, limit: usize) -> Result<Vec<UserRecord>, StoreError> {
    let span = after.map_or_else(Span::all, |after| Span::all().after(&after));
    let mut found = Vec::new();
    USERS.scan(rows, span, |_, user| {
        found.extend(Some(user).filter(|user| user.totp.is_some()));
        Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

fn renew_key(tx: &mut dyn Changes, renewed: &Renewed) -> Result<(), StoreError> {
    let record = match KEYS.get(tx, &renewed.key_id)? {
        Some(record) if record.deleted.is_none() => record,
        _ => return Ok(()),
    };
    tx.put(&SEALED_KEYS, &renewed.key_id, &renewed.sealed)?;
    if record.digest == renewed.digest {
        return Ok(());
    }
    // The old digest goes on leading here: a gateway may look for it while it has not heard of the new one.
    let record = KeyRecord { digest: renewed.digest, ..record };
    tx.put(&KEYS_BY_DIGEST, &renewed.digest, &renewed.key_id)?;
    tx.put(&KEYS, &renewed.key_id, &record)?;
    tx.log(Change::KeyPut { digest: record.digest, credential: record.credential }).map(drop)
}
