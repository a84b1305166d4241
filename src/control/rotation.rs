//! Rotating the pepper and the sealing key while everything is served.
//!
//! At a start with another secret than the store was made with, the one before it has to be named too. Then every key is digested
//! and every secret sealed anew, in the background and in small steps; a key is known under both of its digests meanwhile. Once
//! nothing of the old secrets is left the store says so, and they can be taken out of the configuration.

use std::sync::Arc;

use super::seal::{Owner, Sealer};
use crate::clock;
use crate::key::{Digester, KeyText};
use crate::principal::{KeyId, UserId};
use crate::store::StoreError;
use crate::store::audit::Actor;
use crate::store::records::{KeyRecord, Sealed, UserRecord};
use crate::store::rotation::{Renewed, Rotation, SecretsMark, Versions};

/// Rows in one step of the store.
const STEP: usize = 64;

/// The version of a key's sealed text: it never changes.
const SEALED_VERSION: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error(
        "secrets.pepper_file is not the pepper that the store's keys were digested with, so every key would be unknown. Put that \
         file back, or, to rotate the pepper, name it as secrets.previous_pepper_file until `tollgate store status` says that \
         nothing of it is left"
    )]
    OtherPepper,
    #[error(
        "secrets.sealing_key_file is not the key that the store's secrets were sealed with. Put that file back, or, to rotate it, \
         name it as secrets.previous_sealing_key_file until `tollgate store status` says that nothing of it is left"
    )]
    OtherSealingKey,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Sealed(#[from] super::seal::CannotSeal),
    #[error("{0} secrets could not be opened with either sealing key; they stay as they are")]
    Left(usize),
}

/// Checks the configured secrets against those that the store was made with, and tells the store of a change. Where it gives
/// something, a rotation has to run.
pub async fn begin(store: &dyn Rotation, given: &SecretsMark) -> Result<Option<SecretsMark>, RotationError> {
    let Some(known) = store.secrets().await? else {
        // A store from before these marks may hold rows of either secret.
        store.mark_secrets(given.clone(), Actor::system(), clock::wall()).await?;
        return Ok(given.is_rotating().then(|| given.clone()));
    };
    let follow = |known: &Versions, given: &Versions| known.following(given);
    let mark = SecretsMark {
        pepper: follow(&known.pepper, &given.pepper).map_err(|_| RotationError::OtherPepper)?,
        sealing: follow(&known.sealing, &given.sealing).map_err(|_| RotationError::OtherSealingKey)?,
    };
    if mark != known {
        store.mark_secrets(mark.clone(), Actor::system(), clock::wall()).await?;
    }
    Ok(mark.is_rotating().then_some(mark))
}

/// Makes everything anew that was made with the secrets before.
pub struct Renewal {
    pub store: Arc<dyn Rotation>,
    pub digester: Digester,
    pub sealer: Sealer,
}

impl Renewal {
    /// Runs to the end and tells the store. It can be stopped at any point and run again.
    pub async fn run(&self, mark: SecretsMark) -> Result<(), RotationError> {
        let left = self.keys().await? + self.totp_secrets().await?;
        if left > 0 {
            return Err(RotationError::Left(left));
        }
        self.store.mark_secrets(mark.finished(), Actor::system(), clock::wall()).await?;
        tracing::info!("the rotation of the secrets is complete; take the previous files out of the configuration");
        Ok(())
    }

    /// Gives the number of keys that could not be opened.
    async fn keys(&self) -> Result<usize, RotationError> {
        let (mut after, mut left): (Option<KeyId>, usize) = (None, 0);
        loop {
            let page = self.store.sealed_keys(after, STEP).await?;
            let Some((last, _)) = page.last() else {
                return Ok(left);
            };
            after = Some(last.key_id());
            let mut renewed = Vec::with_capacity(page.len());
            for (record, sealed) in &page {
                match self.renewed(record, sealed)? {
                    Ok(key) => renewed.extend(key),
                    Err(NotOpened) => left += 1,
                }
            }
            if !renewed.is_empty() {
                self.store.renew_keys(renewed).await?;
            }
        }
    }

    /// Absent where nothing of this key is old.
    fn renewed(
        &self,
        record: &KeyRecord,
        sealed: &Sealed,
    ) -> Result<Result<Option<Renewed>, NotOpened>, RotationError> {
        let key_id = record.key_id();
        let owner = Owner::Key { account_id: record.credential.account_id, key_id, version: SEALED_VERSION };
        let opened = self.sealer.open_any(owner, sealed).ok();
        let key = opened.and_then(|opened| {
            let text = std::str::from_utf8(&opened.plain).ok()?.to_owned();
            Some((KeyText::import(text).ok()?, opened.current))
        });
        let Some((key, current)) = key else {
            tracing::error!(key = %key_id, "a key opens with neither sealing key, so it cannot be digested anew");
            return Ok(Err(NotOpened));
        };
        let digest = self.digester.digest(key.presented());
        if current && digest == record.digest {
            return Ok(Ok(None));
        }
        let sealed = self.sealer.seal(owner, key.expose().as_bytes())?;
        Ok(Ok(Some(Renewed { key_id, digest, sealed })))
    }

    async fn totp_secrets(&self) -> Result<usize, RotationError> {
        let (mut after, mut left): (Option<UserId>, usize) = (None, 0);
        loop {
            let page = self.store.users_with_totp(after, STEP).await?;
            let Some(last) = page.last() else {
                return Ok(left);
            };
            after = Some(last.user_id);
            for user in &page {
                left += usize::from(self.renew_totp(user).await?.is_err());
            }
        }
    }

    async fn renew_totp(&self, user: &UserRecord) -> Result<Result<(), NotOpened>, RotationError> {
        let Some(old) = &user.totp else {
            return Ok(Ok(()));
        };
        let owner = Owner::Totp { account_id: user.account_id, user_id: user.user_id };
        let Ok(opened) = self.sealer.open_any(owner, old) else {
            tracing::error!(user = %user.user_id, "a TOTP secret opens with neither sealing key");
            return Ok(Err(NotOpened));
        };
        if !opened.current {
            let new = self.sealer.seal(owner, &opened.plain)?;
            self.store.renew_totp(user.user_id, old.clone(), new).await?;
        }
        Ok(Ok(()))
    }
}

/// Sealed with a key that is not at hand.
struct NotOpened;
