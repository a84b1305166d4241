//! What the store keeps for the control plane: accounts, users, keys, clusters, sessions. Values only; secrets are sealed or hashed.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::key::Digest;
use crate::principal::{Account, AccountId, Cluster, Credential, KeyId, Revision, SessionId, UserId};
use crate::store::audit::Actor;
use crate::time::WallTime;

/// Ciphertext of a key or a TOTP secret. Only the control plane can open it; the store never looks inside.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

/// Not secret by itself, but nothing is gained by printing it.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A password as a PHC string (Argon2). Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// SHA-256 of a session token or of a grant: what one is looked up by. The token itself is never stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let bytes = BASE64.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::custom("a token hash has 32 bytes"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// What the data plane knows of it: id, status, version.
    pub account: Account,
    pub name: Option<String>,
    /// The operator has checked who this is.
    pub verified: bool,
    /// Absent: the configured limit.
    pub active_max: Option<u32>,
    /// Absent: the configured limit.
    pub daily_max: Option<u32>,
    pub created_at: WallTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Root,
    Member,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    pub user_id: UserId,
    pub account_id: AccountId,
    pub role: Role,
    /// Lower case, unique over all users of all accounts.
    pub email: String,
    pub password: PasswordHash,
    /// Root users have one.
    pub totp: Option<Sealed>,
    pub created_at: WallTime,
    /// A new TOTP secret that is not confirmed by a code yet.
    #[serde(default)]
    pub pending_totp: Option<PendingTotp>,
    /// Hashes of the recovery codes that are not used yet.
    #[serde(default)]
    pub recovery_codes: Vec<TokenHash>,
}

/// A TOTP secret on its way in: the session that asked for it has to show a code of it in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingTotp {
    pub secret: Sealed,
    pub session_id: SessionId,
    pub expires_at: WallTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// What the data plane knows of it: ids, disabled, expiry, version.
    pub credential: Credential,
    pub digest: Digest,
    pub name: Option<String>,
    pub masked: String,
    pub created_at: WallTime,
    /// Made elsewhere and brought here by the operator; counts toward no limit.
    pub imported: bool,
    pub deleted: Option<Deletion>,
}

impl KeyRecord {
    pub fn key_id(&self) -> KeyId {
        self.credential.key_id
    }
}

/// The facts of a deletion; the same whenever they are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    pub revision: Revision,
    pub deleted_at: WallTime,
    pub by: Actor,
    /// Given by the operator for an emergency revocation.
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    pub cluster: Cluster,
    pub name: Option<String>,
    pub created_at: WallTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub session_id: SessionId,
    pub token: TokenHash,
    pub user_id: UserId,
    pub account_id: AccountId,
    pub role: Role,
    pub created_at: WallTime,
    pub last_seen: WallTime,
    /// The session is gone from this instant on.
    pub expires_at: WallTime,
}

/// What a step-up allows, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantFor {
    View(KeyId),
    Delete(KeyId),
    /// A change of the account's own password, TOTP secret or recovery codes.
    Account,
}

/// The proof of a step-up as it is kept: single use, bound to one session and one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub hash: TokenHash,
    pub session_id: SessionId,
    pub action: GrantFor,
    /// The grant is worth nothing from this instant on.
    pub expires_at: WallTime,
}
