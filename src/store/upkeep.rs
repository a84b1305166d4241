//! What an operator asks of a store as a whole: how it stands, and a copy of it.

use std::io::Write;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::backup::{BackupError, BackupHeader};
use super::rotation::SecretsMark;
use crate::journal::retention::VerifiedBackup;
use crate::principal::{Epoch, JournalId, Revision, StoreId};
use crate::time::WallTime;

/// How a store stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreStatus {
    pub store_id: StoreId,
    pub epoch: Epoch,
    pub schema: u64,
    pub revision: Revision,
    /// Absent before the first start of a control plane.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secrets: Option<SecretsMark>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub journal: Option<JournalStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JournalStatus {
    pub journal_id: JournalId,
    /// The first change that is still in it.
    pub first: u64,
    pub last: u64,
    /// Every change up to here is done or refused.
    pub settled: u64,
    /// The last backups that were read back and found good, oldest first.
    pub verified_backups: Vec<VerifiedBackup>,
}

#[async_trait]
pub trait Upkeep: Send + Sync {
    async fn status(&self) -> Result<StoreStatus, StoreError>;
    /// Writes everything as it is at one instant.
    async fn back_up(&self, now: WallTime, to: Box<dyn Write + Send>) -> Result<BackupHeader, BackupError>;
}
