//! The store: what is written down and shared. One trait for each of its readers; every store passes the same contract tests.

pub mod accounts;
pub mod audit;
pub mod backup;
pub mod confirm;
#[cfg(test)]
pub(crate) mod contract;
pub mod embedded;
pub mod folds;
pub mod gateways;
pub mod intent;
pub mod journaled;
pub mod records;
pub mod redis;
pub mod rotation;
pub mod rules;
pub mod upkeep;
pub mod usage;
pub mod users;

use std::collections::BTreeSet;
use std::time::Duration;

use self::usage::{HourMark, UsageChanges};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::key::Digest;
use crate::meter::record::{Counters, Flush, LedgerLine, Operation};
use crate::meter::witness::Acknowledged;
use crate::principal::{
    Account, AccountId, Cluster, ClusterId, Credential, Epoch, Incarnation, KeyId, Revision, StoreId,
};
use crate::time::Hour;

/// The store could not do what was asked. It says nothing about the thing asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store is away: {0}")]
    Away(String),
    /// No lease, no load, no acknowledgement until an operator or a control plane opens it.
    #[error("the store is frozen: {0}")]
    Frozen(String),
    #[error("the store holds something this version cannot read: {0}")]
    Corrupt(String),
    /// It will be taken once the hour is back in the ledger, which has been asked for by this.
    #[error("{0} is in the archive; it is asked for, and the usage is kept until then")]
    Archived(Hour),
}

/// One entry of the change log. Applying an entry again, or an older one after a newer, changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    pub revision: Revision,
    pub change: Change,
}

/// What changed, whole: a gateway applies it without asking back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Final: nothing brings a deleted key back.
    KeyDeleted {
        key_id: KeyId,
        digest: Digest,
    },
    /// Created, imported, disabled, enabled, expired.
    KeyPut {
        digest: Digest,
        credential: Credential,
    },
    AccountPut(Account),
    ClusterPut(Cluster),
    ClusterDeleted {
        cluster_id: ClusterId,
    },
}

/// What a gateway says when it renews its lease. `applied` is also its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renew {
    pub incarnation: Incarnation,
    pub epoch: Option<Epoch>,
    pub applied: Revision,
    /// Of the gateway's program.
    pub version: &'static str,
}

/// The store's answer to a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    pub store_id: StoreId,
    pub epoch: Epoch,
    /// The lease in force.
    pub lease: Duration,
    /// The store's revision when it answered.
    pub revision: Revision,
    pub log: LogTail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTail {
    /// The entries after `applied`, oldest first, at most [`LogTail::MOST`] of them.
    Entries(Vec<LogEntry>),
    /// The log does not reach back to `applied`, or the epoch is another: forget and start again.
    Trimmed,
}

impl LogTail {
    pub const MOST: usize = 1000;
}

/// The answer to a load, with the place in the log at which it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub epoch: Epoch,
    pub revision: Revision,
    pub found: Found,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Unknown,
    Deleted,
    Key { credential: Credential, account: Account },
}

/// All clusters, with the place in the log at which they are true.
#[derive(Clone, Debug)]
pub struct ClustersRead {
    pub epoch: Epoch,
    pub revision: Revision,
    pub clusters: Vec<Cluster>,
}

/// A hint that something changed. It triggers a renewal and may deny for a moment; permanent state comes from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    pub epoch: Epoch,
    pub revision: Revision,
    /// The key to deny at once, where the change is a deletion.
    pub deleted: Option<Digest>,
}

/// What a gateway asks of the store.
#[async_trait]
pub trait FeedStore: Send + Sync {
    /// Stores `applied` and returns what came after it. A write, so that a cut-off old master cannot answer it.
    async fn renew(&self, renew: Renew) -> Result<Renewal, StoreError>;
    async fn load(&self, digest: Digest) -> Result<Loaded, StoreError>;
    async fn clusters(&self) -> Result<ClustersRead, StoreError>;
    /// A graceful stop: nobody need wait for this incarnation any longer.
    async fn release(&self, incarnation: Incarnation) -> Result<(), StoreError>;
    fn pushes(&self) -> broadcast::Receiver<Push>;
}

/// What an account used of a cluster by one operation, since the ledger began. Never goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageTotal {
    pub account_id: AccountId,
    pub cluster_id: ClusterId,
    pub operation: Operation,
    pub counters: Counters,
}

/// Where usage is written down. Values are absolute; the greater of each field wins.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Durable when it returns. Where the ledger does not have the batch `after` of the same incarnation and hour any more, the
    /// lines are taken, but the batch does not count as one that it has. `Archived`: the hour has left the ledger, and nothing was taken.
    async fn merge_after(&self, flush: Flush, after: u64) -> Result<Acknowledged, StoreError>;
    /// The same for a batch that stands for itself.
    async fn merge(&self, flush: Flush) -> Result<Acknowledged, StoreError> {
        self.merge_after(flush, 0).await
    }
    /// All lines of the hours `from..=to`, in the order of hour, then line, then incarnation.
    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError>;
    /// Everything ever merged, summed over keys, hours and incarnations; from memory, never a read of the store.
    ///
    /// # Errors
    /// The ledger could not be read since the start, so that they would be too small.
    fn totals(&self) -> Result<Vec<UsageTotal>, StoreError>;
    /// Whether usage can be written, where the ledger is apart from the store.
    async fn check_ledger(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What control planes ask of the ledger beside its lines.
#[async_trait]
pub trait LedgerReader: Send + Sync {
    /// All lines of these accounts in these hours, in no order.
    async fn lines_of(&self, accounts: BTreeSet<(Hour, AccountId)>) -> Result<Vec<LedgerLine>, StoreError>;
    /// How far each incarnation has flushed the hours `from..=to`, in that order.
    async fn marks(&self, from: Hour, to: Hour) -> Result<Vec<HourMark>, StoreError>;
    /// What changed after the change with this number, at most about `most` places, all those of one change together. Numbers
    /// only grow, also where the store has lost some.
    async fn changed(&self, after: u64, most: usize) -> Result<UsageChanges, StoreError>;
}

/// A whole store. Each of its readers is given only the trait it needs.
pub trait Store:
    FeedStore + Ledger + LedgerReader + folds::Folds + usage::UsageStore + accounts::AccountStore + users::UserStore
{
    fn store_id(&self) -> StoreId;
    /// The lease in force.
    fn lease(&self) -> Duration;
}
