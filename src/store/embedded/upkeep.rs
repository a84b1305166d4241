//! An embedded store with its journal, as an operator sees them.

use std::io::Write;

use async_trait::async_trait;

use super::tables::{
    IDENTITY, Identity, JOURNAL, JournalLink, META_IDENTITY, META_JOURNAL, META_NUMBERS, META_SECRETS, SCHEMA, SECRETS,
};
use super::{Embedded, feed};
use crate::principal::JournalId;
use crate::store::StoreError;
use crate::store::audit::AuditEvent;
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

impl Embedded {
    /// The journal whose changes the store takes from now on; with none, the next start begins one.
    pub async fn link_journal(&self, journal: Option<JournalId>) -> Result<(), StoreError> {
        self.writer
            .write(move |tx| match journal {
                Some(journal_id) => tx.put(&META_JOURNAL, JOURNAL, &JournalLink { journal_id }),
                None => tx.remove(&META_JOURNAL, JOURNAL),
            })
            .await
    }

    /// Writes down what an operator did to the store itself.
    pub async fn record(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.writer.write(move |tx| tx.audit(event.clone())).await
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
