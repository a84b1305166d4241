//! The tables, and what stands in them.

use serde::{Deserialize, Serialize};

use super::folds::FoldRow;
use super::rows::{Json, RowValue, Table};
use crate::key::Digest;
use crate::meter::record::Counters;
use crate::principal::{
    AccountId, ClusterId, Epoch, ID_BYTES, Incarnation, JournalId, KeyId, SessionId, StoreId, UserId,
};
use crate::store::LogEntry;
use crate::store::audit::AuditEntry;
use crate::store::intent::{AuditHead, Noted};
use crate::store::records::{
    AccountRecord, ClusterRecord, Grant, KeyRecord, Sealed, SessionRecord, TokenHash, UserRecord,
};
use crate::store::rotation::SecretsMark;
use crate::store::usage::{Abandoned, Adjustment, FinalWindow, FlushMark};

/// Raised whenever a file of an older version cannot be read as it is.
pub const SCHEMA_VERSION: u64 = 1;

/// Who this store is. Made once, at set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub store_id: StoreId,
    pub epoch: Epoch,
    pub lease_ms: u64,
}

/// The journal whose changes the store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLink {
    pub journal_id: JournalId,
}

/// What an account has proved by its second factor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepUps {
    pub last_step: Option<u64>,
    /// Not used yet; expired ones leave with the next change.
    pub grants: Vec<Grant>,
}

/// `meta` holds one row per name: its rows are of different kinds.
pub const SCHEMA: &str = "schema";
pub const REVISION: &str = "revision";
pub const WRITABLE: &str = "writable";
pub const IDENTITY: &str = "identity";
pub const AUDIT_HEAD: &str = "audit_head";
pub const JOURNAL: &str = "journal";
/// Changes from journals that were made so far.
pub const COMMITS: &str = "commits";
pub const META_NUMBERS: Table<str, u64> = Table::new("meta");
pub const META_IDENTITY: Table<str, Identity> = Table::new("meta");
pub const META_AUDIT: Table<str, AuditHead> = Table::new("meta");
/// The secrets that rows were made with.
pub const SECRETS: &str = "secrets";
pub const META_SECRETS: Table<str, SecretsMark> = Table::new("meta");
pub const META_JOURNAL: Table<str, JournalLink> = Table::new("meta");

pub const ACCOUNTS: Table<AccountId, AccountRecord> = Table::new("accounts");
pub const USERS: Table<UserId, UserRecord> = Table::new("users");
pub const USERS_BY_EMAIL: Table<str, UserId> = Table::new("users_by_email");
pub const USERS_BY_ACCOUNT: Table<(AccountId, UserId), UserId> = Table::new("users_by_account");

pub const CLUSTERS: Table<ClusterId, ClusterRecord> = Table::new("clusters");
pub const CLUSTERS_BY_HOST: Table<str, ClusterId> = Table::new("clusters_by_host");
pub const CLUSTERS_BY_ACCOUNT: Table<(AccountId, ClusterId), ClusterId> = Table::new("clusters_by_account");

/// Deleted keys stay: their rows are the tombstones. One that is older than the longest anybody may still replay (30 days) could
/// be removed; none is so far.
pub const KEYS: Table<KeyId, KeyRecord> = Table::new("keys");
pub const KEYS_BY_DIGEST: Table<Digest, KeyId> = Table::new("keys_by_digest");
/// A deleted key leaves no sealed text behind.
pub const SEALED_KEYS: Table<KeyId, Sealed> = Table::new("sealed_keys");
/// (account, created at, key), so that a list is in the order of creation.
pub type KeyIndex = Table<(AccountId, u64, KeyId), KeyId>;
pub const LIVE_KEYS: KeyIndex = Table::new("live_keys");
pub const DELETED_KEYS: KeyIndex = Table::new("deleted_keys");
/// (expires at, key): keys that will expire.
pub const EXPIRIES: Table<(u64, KeyId), KeyId> = Table::new("expiries");
/// Keys that hold a slot.
pub const ACTIVE_COUNTS: Table<AccountId, u64> = Table::new("active_counts");
/// (account, day since 1970 in the configured offset).
pub const DAILY_COUNTS: Table<(AccountId, u64), u64> = Table::new("daily_counts");

pub const SESSIONS: Table<TokenHash, SessionRecord> = Table::new("sessions");
pub const SESSIONS_BY_ID: Table<SessionId, TokenHash> = Table::new("sessions_by_id");
pub const SESSIONS_BY_USER: Table<(UserId, SessionId), TokenHash> = Table::new("sessions_by_user");
pub const STEP_UPS: Table<AccountId, StepUps> = Table::new("step_ups");

/// Changes that were made, by journal and number, until the journal has forgotten them.
pub const INTENTS: Table<(JournalId, u64), Noted> = Table::new("intents");
/// Where the number stands in such a key.
pub const ROW_NO: std::ops::Range<usize> = ID_BYTES..ID_BYTES + 8;

pub const LOG: Table<u64, LogEntry> = Table::new("log");
pub const AUDIT: Table<u64, AuditEntry> = Table::new("audit");
/// The key is laid out in [`super::ledger`].
pub const LEDGER: Table<[u8], Counters> = Table::new("ledger");
pub const FLUSHES: Table<[u8], FlushMark> = Table::new("flushes");
/// What hours come to that have left the ledger; the key is laid out in [`super::folds`].
pub const BASE: Table<[u8], Counters> = Table::new("ledger_base");
/// By hour, where it has left the ledger, or is about to.
pub const FOLDS: Table<[u8], FoldRow> = Table::new("folds");
/// The change feed of usage: a place in the ledger by the number of its last change, and the other way round. A place is laid out
/// in [`super::usage`]. A store that keeps these elsewhere leaves both empty.
pub const USAGE_CHANGES: Table<u64, Place> = Table::new("usage_changes");
pub const USAGE_CHANGE_OF: Table<[u8], u64> = Table::new("usage_change_of");
/// Numbers of changes that were given.
pub const USAGE_CHANGE: &str = "usage_change";
/// By hour.
pub const FINAL_WINDOWS: Table<[u8], FinalWindow> = Table::new("final_windows");
/// (record, time, adjustment), laid out in [`super::usage`].
pub const ADJUSTMENTS: Table<[u8], Adjustment> = Table::new("adjustments");
/// Where an adjustment stands, by its idempotency key.
pub const ADJUSTMENTS_BY_KEY: Table<str, Place> = Table::new("adjustments_by_key");

/// Gateways whose usage nobody waits for.
pub const ABANDONED: Table<Incarnation, Abandoned> = Table::new("abandoned");

/// A place in the ledger, or the key of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub Vec<u8>);

impl RowValue for Place {
    fn encode(&self) -> Result<Vec<u8>, String> {
        Ok(self.0.clone())
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Ok(Self(bytes.to_vec()))
    }
}

/// Tables that say who is signed in: a restore leaves them out, since sessions that ended later would be there again.
pub const SIGNED_IN: [&str; 3] = [SESSIONS.name, SESSIONS_BY_ID.name, SESSIONS_BY_USER.name];

/// Every table by its name: all are made at set-up, so that a snapshot never misses one.
pub const NAMES: [&str; 33] = [
    "meta",
    ACCOUNTS.name,
    USERS.name,
    USERS_BY_EMAIL.name,
    USERS_BY_ACCOUNT.name,
    CLUSTERS.name,
    CLUSTERS_BY_HOST.name,
    CLUSTERS_BY_ACCOUNT.name,
    KEYS.name,
    KEYS_BY_DIGEST.name,
    SEALED_KEYS.name,
    LIVE_KEYS.name,
    DELETED_KEYS.name,
    EXPIRIES.name,
    ACTIVE_COUNTS.name,
    DAILY_COUNTS.name,
    SESSIONS.name,
    SESSIONS_BY_ID.name,
    SESSIONS_BY_USER.name,
    STEP_UPS.name,
    INTENTS.name,
    LOG.name,
    AUDIT.name,
    LEDGER.name,
    FLUSHES.name,
    BASE.name,
    FOLDS.name,
    USAGE_CHANGES.name,
    USAGE_CHANGE_OF.name,
    FINAL_WINDOWS.name,
    ADJUSTMENTS.name,
    ADJUSTMENTS_BY_KEY.name,
    ABANDONED.name,
];

macro_rules! json {
    ($($kind:ty),+ $(,)?) => { $(impl Json for $kind {})+ };
}
json!(
    u64,
    Identity,
    AuditHead,
    JournalLink,
    SecretsMark,
    Noted,
    AccountRecord,
    UserRecord,
    UserId,
    ClusterRecord,
    ClusterId,
    KeyRecord,
    KeyId,
    Sealed,
    SessionRecord,
    TokenHash,
    StepUps,
    LogEntry,
    AuditEntry,
    FlushMark,
    FoldRow,
    FinalWindow,
    Adjustment,
    Abandoned,
);
