//! Rotating the pepper and the sealing key: what the store knows of the secrets that its rows were made with.

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::audit::Actor;
use super::records::{KeyRecord, Sealed, UserRecord};
use crate::config::secret::Secret32;
use crate::key::Digest;
use crate::principal::{KeyId, UserId};
use crate::time::WallTime;

/// By which a secret is known again. It says nothing about the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub fn of(secret: &Secret32) -> Self {
        let hash =
            Sha256::new().chain_update(b"tollgate: fingerprint of a secret").chain_update(secret.expose_secret());
        Self(HEXLOWER.encode(hash.finalize().get(..8).unwrap_or_default()))
    }
}

/// One secret and, while rows of it are left, the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub current: Fingerprint,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous: Option<Fingerprint>,
}

/// The secrets that the rows of a store were made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsMark {
    pub pepper: Versions,
    pub sealing: Versions,
}

/// The store was made with a secret that the configuration does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherSecret;

impl Versions {
    pub fn new(current: Fingerprint) -> Self {
        Self { current, previous: None }
    }

    /// What the store has to know from now on, where the configuration names `given`.
    pub fn following(&self, given: &Self) -> Result<Self, OtherSecret> {
        let named = |wanted: &Fingerprint| given.previous.as_ref() == Some(wanted) || given.current == *wanted;
        match &self.previous {
            // One at a time: what is left of the one before must still open.
            Some(left) if self.current != given.current || !named(left) => Err(OtherSecret),
            Some(_) => Ok(self.clone()),
            None if self.current == given.current => Ok(self.clone()),
            None if given.previous.as_ref() == Some(&self.current) => {
                Ok(Self { current: given.current.clone(), previous: Some(self.current.clone()) })
            }
            None => Err(OtherSecret),
        }
    }
}

impl SecretsMark {
    pub fn is_rotating(&self) -> bool {
        self.pepper.previous.is_some() || self.sealing.previous.is_some()
    }

    /// Nothing is left of the secrets before.
    #[must_use]
    pub fn finished(self) -> Self {
        Self { pepper: Versions::new(self.pepper.current), sealing: Versions::new(self.sealing.current) }
    }
}

/// A key as a rotation makes it anew.
#[derive(Clone, Debug)]
pub struct Renewed {
    pub key_id: KeyId,
    pub digest: Digest,
    pub sealed: Sealed,
}

/// What a rotation asks of the store.
#[async_trait]
pub trait Rotation: Send + Sync {
    async fn secrets(&self) -> Result<Option<SecretsMark>, StoreError>;
    async fn mark_secrets(&self, mark: SecretsMark, actor: Actor, now: WallTime) -> Result<(), StoreError>;
    /// Keys that are not deleted, by id, with their sealed text.
    async fn sealed_keys(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<(KeyRecord, Sealed)>, StoreError>;
    /// The old digests lead to the keys as before. A key that is deleted by now stays as it is.
    async fn renew_keys(&self, renewed: Vec<Renewed>) -> Result<(), StoreError>;
    async fn users_with_totp(&self, after: Option<UserId>, limit: usize) -> Result<Vec<UserRecord>, StoreError>;
    /// Only where it is still the `old` one.
    async fn renew_totp(&self, user_id: UserId, old: Sealed, new: Sealed) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(current: &str, previous: Option<&str>) -> Versions {
        let print = |text: &str| Fingerprint(text.to_owned());
        Versions { current: print(current), previous: previous.map(print) }
    }

    #[test]
    fn a_rotation_goes_one_step_at_a_time_and_never_loses_what_is_left() {
        let stored = versions("a", None);
        assert_eq!(stored.following(&versions("a", None)), Ok(versions("a", None)));
        assert_eq!(stored.following(&versions("a", Some("z"))), Ok(versions("a", None)));
        assert_eq!(stored.following(&versions("b", Some("a"))), Ok(versions("b", Some("a"))));
        assert_eq!(stored.following(&versions("b", None)), Err(OtherSecret));
        let rotating = versions("b", Some("a"));
        assert_eq!(rotating.following(&versions("b", Some("a"))), Ok(rotating.clone()));
        for lost in [versions("b", None), versions("c", Some("b")), versions("a", None), versions("b", Some("z"))] {
            assert_eq!(rotating.following(&lost), Err(OtherSecret), "{lost:?}");
        }
    }
}
