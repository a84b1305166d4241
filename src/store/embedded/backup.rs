//! Copying an embedded store while it is used, and making one from a copy.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use redb::{Database, ReadableDatabase};

use super::rows::{Raw, Snapshot, broken};
use super::{Embedded, open_database};
use crate::clock;
use crate::principal::Epoch;
use crate::store::StoreError;
use crate::store::backup::{BackupError, BackupHeader, BackupReader, BackupWriter, Record, SettledJournal};
use crate::store::rules::tables::{
    COMMITS, IDENTITY, Identity, META_IDENTITY, META_NUMBERS, NAMES, SCHEMA, SCHEMA_VERSION, SIGNED_IN,
};
use crate::store::rules::{feed, usage};
use crate::time::WallTime;

/// Rows of a restore in one transaction.
const BATCH: usize = 10_000;

impl Embedded {
    /// Writes everything as it is now. `journal` was asked before, so that it says no more than is in here. It blocks.
    pub fn back_up(
        &self,
        journal: Option<SettledJournal>,
        now: WallTime,
        to: impl Write,
    ) -> Result<BackupHeader, BackupError> {
        let rows = self.snapshot()?;
        let Identity { store_id, epoch, .. } = META_IDENTITY.get_promised(&rows, IDENTITY)?;
        let schema = META_NUMBERS.get_promised(&rows, SCHEMA)?;
        let revision = feed::revision(&rows)?;
        let header = BackupHeader { store_id, epoch, schema, revision, taken_at: now, journal };
        let mut writer = BackupWriter::begin(to, &header)?;
        for table in NAMES {
            writer.copy(&rows, table)?;
        }
        writer.finish()?;
        Ok(header)
    }

    /// Makes a store from a backup in a file that is not there yet: the same store id, in a new epoch. `commits` is the number of
    /// the last change that any journal knows of, so that what comes next counts on from it. It blocks.
    pub fn make_from<R: Read>(mut backup: BackupReader<R>, path: &Path, commits: u64) -> Result<(), BackupError> {
        if backup.header.schema != SCHEMA_VERSION {
            return Err(BackupError::OtherSchema(backup.header.schema));
        }
        let database = open_database(path)?;
        while fill(&database, &mut backup)?.is_continue() {}
        let epoch = Epoch::random().map_err(|error| StoreError::Away(format!("no random numbers: {error}")))?;
        let rows = Snapshot(database.begin_read().map_err(broken)?);
        let identity = META_IDENTITY.get_promised(&rows, IDENTITY)?;
        let known = META_NUMBERS.get(&rows, COMMITS)?.unwrap_or_default();
        super::at_once(&database, |tx| {
            tx.put(&META_NUMBERS, COMMITS, &known.max(commits))?;
            usage::leap(tx, clock::wall())?;
            tx.put(&META_IDENTITY, IDENTITY, &Identity { epoch, ..identity })
        })?;
        Ok(())
    }
}

/// One transaction of rows; break at the end of the backup.
fn fill<R: Read>(database: &Database, backup: &mut BackupReader<R>) -> Result<ControlFlow<()>, BackupError> {
    let write = super::writer::begin(database)?;
    let mut flow = ControlFlow::Continue(());
    let mut left = BATCH;
    while left > 0 {
        match backup.read_record()? {
            None => {
                flow = ControlFlow::Break(());
                break;
            }
            Some(Record::Table) => {}
            Some(Record::Row { .. }) if SIGNED_IN.contains(&backup.table.as_str()) => {}
            Some(Record::Row { key, value }) => {
                let mut rows = write.open_table(Raw::new(&backup.table)).map_err(broken)?;
                rows.insert(key.as_slice(), value.as_slice()).map_err(broken)?;
                left -= 1;
            }
        }
    }
    write.commit().map_err(broken)?;
    Ok(flow)
}
