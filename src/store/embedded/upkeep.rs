//! An embedded store with its journal, as an operator sees them.

use std::io::Write;

use super::Embedded;
use crate::principal::JournalId;
use crate::store::StoreError;
use crate::store::audit::AuditEvent;
use crate::store::backup::{BackupError, BackupHeader, SettledJournal};
use crate::store::rules::status;
use crate::store::rules::tables::{JOURNAL, JournalLink, META_JOURNAL};
use crate::store::upkeep::{Kept, StoreStatus};
use crate::time::WallTime;

impl Embedded {
    pub fn status(&self) -> Result<StoreStatus, StoreError> {
        status(&self.snapshot()?)
    }

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

impl Kept for Embedded {
    fn copy(
        &self,
        journal: SettledJournal,
        now: WallTime,
        to: Box<dyn Write + Send>,
    ) -> Result<BackupHeader, BackupError> {
        self.back_up(Some(journal), now, to)
    }
}
