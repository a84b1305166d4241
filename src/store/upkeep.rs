//! What an operator asks of a store as a whole: how it stands, and a copy of it.

use std::io::Write;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::backup::{BackupError, BackupHeader, SettledJournal};
use super::journaled::Journaled;
use super::rotation::SecretsMark;
use super::rules::{Backend, status};
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

/// A store that can be copied as a whole.
pub trait Kept: Backend {
    /// Writes everything as it is at one instant. It blocks. `journal` was asked before, so that it says no more than is in here.
    fn copy(
        &self,
        journal: SettledJournal,
        now: WallTime,
        to: Box<dyn Write + Send>,
    ) -> Result<BackupHeader, BackupError>;
}

#[async_trait]
pub trait Upkeep: Send + Sync {
    async fn status(&self) -> Result<StoreStatus, StoreError>;
    /// Writes everything as it is at one instant.
    async fn back_up(&self, now: WallTime, to: Box<dyn Write + Send>) -> Result<BackupHeader, BackupError>;
}

#[async_trait]
impl<S: Kept> Upkeep for Journaled<S> {
    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let journal = self.journal();
        let verified_backups = journal.verified_backups().map_err(|error| StoreError::Away(error.to_string()))?;
        let found = JournalStatus {
            journal_id: journal.id(),
            first: journal.first_intent(),
            last: journal.last_intent(),
            settled: journal.settled(),
            verified_backups,
        };
        Ok(StoreStatus { journal: Some(found), ..self.store().read(status).await? })
    }

    async fn back_up(&self, now: WallTime, to: Box<dyn Write + Send>) -> Result<BackupHeader, BackupError> {
        // Asked before the copy is begun: what is settled by then is in it.
        let journal = SettledJournal { journal_id: self.journal().id(), settled: self.journal().settled() };
        let store = self.store_arc();
        let copied = tokio::task::spawn_blocking(move || store.copy(journal, now, to)).await;
        copied.map_err(|error| StoreError::Away(format!("the backup ended early: {error}")))?
    }
}
