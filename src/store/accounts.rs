//! What the control plane asks of the store. Every change is one atomic step together with its log and audit entries, and durable
//! when the method returns. Ids, hashes and sealed secrets are made by the caller; `now` is the caller's wall clock.

use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::key::Digest;
use crate::principal::{AccountId, AccountStatus, ClusterId, KeyId, Revision, SessionId, UserId};
use crate::store::StoreError;
use crate::store::audit::{Actor, AuditEntry, AuditQuery, AuditVerdict};
use crate::store::confirm::{Confirmation, GatewayState};
use crate::store::records::{
    AccountRecord, ClusterRecord, Grant, GrantFor, KeyRecord, PasswordHash, Sealed, SessionRecord, TokenHash,
    UserRecord,
};
use crate::time::WallTime;

/// The store answered, and the answer is no. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such thing")]
    NotFound,
    #[error("the account's identity is not verified")]
    IdentityUnverified,
    #[error("the account owns no cluster")]
    NoCluster,
    #[error("the account is suspended")]
    AccountSuspended,
    #[error("the account has {max} active keys already")]
    KeyLimitReached { max: u32 },
    #[error("the account has created {max} keys today already; the next day begins at {resets_at}")]
    DailyLimitReached { max: u32, resets_at: WallTime },
    /// No grant was shown where one is needed.
    #[error("a step-up is required")]
    StepUpRequired,
    /// Unknown, used, expired, or of another session, action or key.
    #[error("the grant is not valid")]
    GrantInvalid,
    /// This step, or a later one, was used before. Codes are taken again from `next_step` on.
    #[error("this code was used before")]
    CodeReplayed { next_step: u64 },
    #[error("the email address is in use")]
    EmailTaken,
    #[error("the host {host} belongs to another cluster")]
    HostTaken { host: String },
    #[error("{host:?} is not a host name without a port")]
    HostMalformed { host: String },
    #[error("a cluster needs at least one host")]
    NoHost,
    /// The key at this position (from 0) exists, once existed, or stands in the list twice.
    #[error("key number {index} of the list is known already")]
    DigestTaken { index: usize },
    #[error("the id is in use")]
    IdTaken,
    #[error("the account has {max} members already")]
    MemberLimitReached { max: usize },
    /// Not one of the user's, or used before.
    #[error("the recovery code is not valid")]
    RecoveryCodeInvalid,
    #[error("the record would have less than nothing")]
    BelowZero,
    /// Something else was asked for under the same idempotency key.
    #[error("the idempotency key was used for another adjustment")]
    IdempotencyKeyTaken,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change is in the journal, and the store has not taken it yet. It is submitted until the store answers.
    #[error("the change is written down, and the store has not taken it yet")]
    Pending,
}

pub type Answer<T> = Result<T, AccountError>;

/// A thing as it is after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    pub record: T,
    /// Where the change stands in the log; for [`AccountStore::confirm`]. Absent where no gateway has to know of it.
    pub revision: Option<Revision>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewAccount {
    pub account_id: AccountId,
    pub name: Option<String>,
    pub verified: bool,
    pub root: NewUser,
    pub totp: Sealed,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewUser {
    pub user_id: UserId,
    pub email: String,
    pub password: PasswordHash,
}

/// Absent fields stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPatch {
    pub verified: Option<bool>,
    pub status: Option<AccountStatus>,
    pub active_max: Option<u32>,
    pub daily_max: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewCluster {
    pub cluster_id: ClusterId,
    pub account_id: AccountId,
    /// Stored in lower case without a trailing dot; each belongs to one cluster of all accounts.
    pub hosts: Vec<String>,
    pub upstreams: Vec<String>,
    pub allow_ips: Vec<IpNet>,
    pub name: Option<String>,
}

/// Absent fields stay as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ClusterPatch {
    pub hosts: Option<Vec<String>>,
    pub upstreams: Option<Vec<String>>,
    pub allow_ips: Option<Vec<IpNet>>,
    pub name: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewKey {
    pub key_id: KeyId,
    pub account_id: AccountId,
    pub digest: Digest,
    pub sealed: Sealed,
    pub masked: String,
    pub name: Option<String>,
}

/// Absent fields stay as they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct KeyPatch {
    pub name: Option<String>,
    pub disabled: Option<bool>,
    pub expiry: Option<Expiry>,
}

/// When a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    Never,
    At(WallTime),
}

impl Expiry {
    pub fn instant(self) -> Option<WallTime> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at),
        }
    }
}

/// The configured limits; those of the account record come before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLimits {
    pub active_max: u32,
    pub daily_max: u32,
    /// Seconds east of UTC: where a day begins.
    pub day_offset: i32,
}

/// Where an account stands against its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySlots {
    pub active: u32,
    pub active_max: u32,
    pub created_today: u32,
    pub daily_max: u32,
    pub resets_at: WallTime,
}

/// On whose word a key is deleted. Whatever it says, deleting a deleted key again gives the facts of its deletion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum DeleteBy {
    /// Used up in the same step.
    Grant { hash: TokenHash, session_id: SessionId },
    /// An emergency revocation by the operator.
    Operator { reason: String },
    /// No grant was shown: [`Refusal::StepUpRequired`] unless the key is deleted already.
    Nothing,
}

/// A verified code, exchanged for a grant.
#[derive(Clone, Debug)]
pub struct StepUp {
    pub account_id: AccountId,
    pub proof: Proof,
    pub grant: Grant,
    /// The new token of a cookie session; a Bearer token never changes.
    pub rotate: Option<TokenHash>,
}

/// What was shown for a step-up. Either is used up by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A code of the 30-second step, which must be later than the last one the account used.
    Step(u64),
    /// A recovery code of the session's user.
    Recovery(TokenHash),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    Live,
    Deleted,
}

/// A page of a list: at most `limit` items after the one named.
#[derive(Clone, Copy, Debug)]
pub struct Page<Id> {
    pub after: Option<Id>,
    pub limit: usize,
}

impl<Id> Page<Id> {
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit }
    }
}

/// What the control plane asks of the store.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// The account together with its root user. Refused: `EmailTaken`, `IdTaken`.
    async fn create_account(&self, new: NewAccount, actor: Actor, now: WallTime) -> Answer<AccountRecord>;
    async fn account(&self, account_id: AccountId) -> Result<Option<AccountRecord>, StoreError>;
    /// By id.
    async fn list_accounts(&self, page: Page<AccountId>) -> Result<Vec<AccountRecord>, StoreError>;
    /// A revision where the patch names a status. Refused: `NotFound`.
    async fn patch_account(
        &self,
        account_id: AccountId,
        patch: AccountPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<AccountRecord>>;

    async fn user(&self, user_id: UserId) -> Result<Option<UserRecord>, StoreError>;
    /// Upper and lower case are the same.
    async fn user_by_email(&self, email: &str) -> Result<Option<UserRecord>, StoreError>;
    /// The users of an account: its root and its members.
    async fn list_users(&self, account_id: AccountId) -> Result<Vec<UserRecord>, StoreError>;

    /// Refused: `NotFound` (account), `HostTaken`, `HostMalformed`, `NoHost`, `IdTaken`.
    async fn create_cluster(&self, new: NewCluster, actor: Actor, now: WallTime) -> Answer<Changed<ClusterRecord>>;
    async fn cluster(&self, cluster_id: ClusterId) -> Result<Option<ClusterRecord>, StoreError>;
    /// All clusters, or those of one account.
    async fn list_clusters(&self, account_id: Option<AccountId>) -> Result<Vec<ClusterRecord>, StoreError>;
    /// A revision unless only the name changed. Refused: as `create_cluster`.
    async fn patch_cluster(
        &self,
        cluster_id: ClusterId,
        patch: ClusterPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<ClusterRecord>>;
    /// Gives back what it deleted. Refused: `NotFound`.
    async fn delete_cluster(
        &self,
        cluster_id: ClusterId,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<ClusterRecord>>;

    /// All rules in one step; a refused create costs nothing. Refused: `NotFound` (account), `IdentityUnverified`, `NoCluster`,
    /// `AccountSuspended`, `KeyLimitReached`, `DailyLimitReached`, `DigestTaken`, `IdTaken`.
    async fn create_key(
        &self,
        new: NewKey,
        limits: KeyLimits,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>>;
    /// All or none, all of one account; toward no limit. Refused: `NotFound` (account), `DigestTaken`, `IdTaken`.
    async fn import_keys(
        &self,
        account_id: AccountId,
        new: Vec<NewKey>,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<Vec<KeyRecord>>>;
    /// A revision unless only the name changed. Refused: `NotFound` (also of another account, also deleted).
    async fn patch_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        patch: KeyPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>>;
    /// Final. The record's `deleted` holds the facts; the same again however often it is asked for.
    /// Refused: `NotFound` (also of another account), `StepUpRequired`, `GrantInvalid`.
    async fn delete_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        by: DeleteBy,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>>;
    /// Uses the grant up and gives the sealed key. Refused: `NotFound` (also deleted), `GrantInvalid`.
    async fn view_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        grant: TokenHash,
        session_id: SessionId,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Sealed>;
    /// Also deleted ones.
    async fn key(&self, key_id: KeyId) -> Result<Option<KeyRecord>, StoreError>;
    /// Also deleted ones.
    async fn key_by_digest(&self, digest: Digest) -> Result<Option<KeyRecord>, StoreError>;
    /// Oldest first.
    async fn list_keys(
        &self,
        account_id: AccountId,
        which: Keys,
        page: Page<KeyId>,
    ) -> Result<Vec<KeyRecord>, StoreError>;
    /// Marks at most `most` keys whose time has come as expired, each with its log entry, and gives their ids.
    async fn expire_keys(&self, most: usize, now: WallTime) -> Result<Vec<KeyId>, StoreError>;
    /// Refused: `NotFound` (account).
    async fn key_slots(&self, account_id: AccountId, limits: KeyLimits, now: WallTime) -> Answer<KeySlots>;

    /// Refused: `NotFound` (user), `IdTaken`.
    async fn open_session(&self, session: SessionRecord, actor: Actor, now: WallTime) -> Answer<()>;
    /// Absent also when it has expired.
    async fn session(&self, token: TokenHash, now: WallTime) -> Result<Option<SessionRecord>, StoreError>;
    /// Moves `last_seen` and `expires_at`; not audited, and nothing happens where there is no such session.
    async fn touch_session(&self, token: TokenHash, now: WallTime, expires_at: WallTime) -> Result<(), StoreError>;
    /// Its grants go with it. Closing what is not there changes nothing.
    async fn close_session(&self, token: TokenHash, actor: Actor, now: WallTime) -> Answer<()>;
    /// One step: the code is used up, the grant is there. Refused: `CodeReplayed`, `RecoveryCodeInvalid`, `NotFound` (account or
    /// session).
    async fn step_up(&self, step_up: StepUp, actor: Actor, now: WallTime) -> Answer<()>;
    /// Uses up a grant whose action has no step of its own here. Refused: `GrantInvalid`.
    async fn use_grant(
        &self,
        account_id: AccountId,
        action: GrantFor,
        grant: TokenHash,
        session_id: SessionId,
        actor: Actor,
        now: WallTime,
    ) -> Answer<()>;

    /// Newest first.
    async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>, StoreError>;
    /// Reads the whole chain.
    async fn verify_audit(&self) -> Result<AuditVerdict, StoreError>;

    /// Waits until every gateway that was there at the change has applied it or lost its lease, but not longer than `wait`.
    /// It may be asked again at any time, also by another caller and with a zero `wait`.
    async fn confirm(&self, revision: Revision, wait: Duration) -> Result<Confirmation, StoreError>;
    async fn gateways(&self) -> Result<Vec<GatewayState>, StoreError>;
    /// Fails where a change could not be made durable now.
    async fn check_writable(&self) -> Result<(), StoreError>;
}
