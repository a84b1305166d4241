//! An embedded store with its journal, as an operator sees them.

use std::io::Write;

use async_trait::async_trait;

use super::tables::{IDENTITY, Identity, META_IDENTITY, META_NUMBERS, META_SECRETS, SCHEMA, SECRETS};
use super::{Embedded, feed};
use crate::store::StoreError;
use crate::store::backup::{BackupError, BackupHeader, SettledJournal};
use crate::store::journaled::Journaled;
use crate::store::upkeep::{JournalStatus, StoreStatus, Upkeep};
use crate::time::WallTime;

impl Embedded {
    pub fn status(&self) -> Result<StoreStatus, StoreError> {
        let rows = self.snapshot()?;
        let Identity { store_id, epoch, .. } = META_IDENTITY.get_promised(&rows, IDENTITY)?;
        let (schema, revision) = (META_NUMBERS.get_promised(&rows, SCHEMA)?, feed::revision(&rows)?);
        let secrets = META_SECRETS.get(&rows, SECRETS)?;
        Ok(StoreStatus { store_id, epoch, schema, revision, secrets, journal: None })
    }
}

#[async_trait]
impl Upkeep for Journaled<Embedded> {
    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let journal = self.journal();
        let verified_backups = journal.verified_backups().map_err(|error| StoreError::Away(error.to_string()))?;
        let status = JournalStatus {
            journal_id: journal.id(),
            first: journal.first_intent(),
            last: journal.last_intent(),
            settled: journal.settled(),
            verified_backups,
        };
        Ok(StoreStatus { journal: Some(status), ..self.store().status()? })
    }

    async fn back_up(&self, now: WallTime, to: Box<dyn Write + Send>) -> Result<BackupHeader, BackupError> {
        // Asked before the snapshot is taken: what is settled by then is in it.
        let journal = SettledJournal { journal_id: self.journal().id(), settled: self.journal().settled() };
        let store = self.store_arc();
        let copied = tokio::task::spawn_blocking(move || store.back_up(Some(journal), now, to)).await;
        copied.map_err(|error| StoreError::Away(format!("the backup ended early: {error}")))?
    }
}
