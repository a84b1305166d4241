//! The embedded store: one file, one process. Reads take a snapshot and never wait for the writer; changes go through [`writer`].

mod backup;
mod folds;
mod rows;
mod told;
mod upkeep;
mod writer;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, TableHandle};
use tokio::sync::broadcast;

use self::rows::{Raw, Snapshot, broken, is_absent};
use self::told::Told;
use self::writer::{Outlets, Writer, at_once};
use super::confirm::{Confirmation, GatewayState};
use super::gateways::Gateways;
use super::rules::ledger::{self, Merged, Totals};
use super::rules::rows::Rows;
use super::rules::tables::{
    IDENTITY, Identity, JOURNAL, META_IDENTITY, META_NUMBERS, NAMES, REVISION, SCHEMA, SCHEMA_VERSION,
};
use super::rules::{Backend, Changes, feed, usage};
use super::usage::{HourMark, UsageChanges};
use super::{
    ClustersRead, FeedStore, Ledger, LedgerReader, Loaded, Push, Renew, Renewal, Store, StoreError, UsageTotal,
};
use crate::clock;
use crate::key::Digest;
use crate::meter::record::{Flush, LedgerLine};
use crate::meter::witness::Acknowledged;
use crate::principal::{AccountId, Epoch, Incarnation, LedgerServer, Revision, StoreId};
use crate::time::Hour;

/// Memory for pages of the file, in bytes. What is not among them the kernel most likely has.
const CACHE: usize = 16 << 20;
/// Entries of the change log that are kept; a gateway further behind starts again.
const LOG_KEEP: u64 = 100_000;

/// How an embedded store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The file belongs to one process, so no lease of an earlier value can be outstanding and this one is in force at once.
    pub lease: Duration,
    /// Entries of the change log that are kept, at least 1.
    pub log_keep: u64,
}

impl Settings {
    pub fn new(lease: Duration) -> Self {
        Self { lease, log_keep: LOG_KEEP }
    }
}

/// The embedded store. Dropping the last handle finishes what waits and closes the file.
pub struct Embedded {
    identity: Identity,
    writer: Writer,
    database: Arc<Database>,
    gateways: Arc<Gateways>,
    totals: Arc<Totals>,
    told: Arc<Told>,
}

impl Embedded {
    /// Opens the file, or makes it (mode 0600). It blocks: the ledger is read once for its sums.
    ///
    /// Errors: `Away` where the file cannot be used now, also when another process has it; `Corrupt` where it is not a store or
    /// has a schema version that this program does not know.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, StoreError> {
        let database = Arc::new(open_database(path)?);
        let identity = prepare(&database, settings.lease)?;
        let snapshot = snapshot_of(&database)?;
        let totals = Arc::new(Totals::read(&snapshot)?);
        let gateways =
            Arc::new(Gateways::new(identity.epoch, settings.lease, feed::revision(&snapshot)?, clock::boot()));
        let told = Arc::new(Told::at_start(&snapshot)?);
        let outlets = Outlets { gateways: Arc::clone(&gateways), totals: Arc::clone(&totals), told: Arc::clone(&told) };
        let writer = Writer::start(Arc::clone(&database), settings.log_keep.max(1), outlets)?;
        Ok(Self { identity, writer, database, gateways, totals, told })
    }

    pub fn epoch(&self) -> Epoch {
        self.identity.epoch
    }

    /// The store as it is now. A read of single rows is done in microseconds and stays on the thread of its caller.
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        snapshot_of(&self.database)
    }
}

fn snapshot_of(database: &Database) -> Result<Snapshot, StoreError> {
    database.begin_read().map(Snapshot).map_err(broken)
}

fn ended_early(error: tokio::task::JoinError) -> StoreError {
    StoreError::Away(format!("a read ended early: {error}"))
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(file) => sync_folder(path, file).map_err(|error| StoreError::Away(named(&error)))?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::Away(named(&error))),
    }
    Database::builder().set_cache_size(CACHE).create(path).map_err(|error| match broken(error) {
        StoreError::Away(why) => StoreError::Away(named(&why)),
        StoreError::Frozen(why) => StoreError::Frozen(named(&why)),
        StoreError::Corrupt(why) => StoreError::Corrupt(named(&why)),
        error @ StoreError::Archived(_) => error,
    })
}

/// The name of a new file is on the disk before anything in it is relied upon.
fn sync_folder(path: &Path, file: File) -> std::io::Result<()> {
    file.sync_all()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Checks the schema version, or sets a new file up; then puts the lease in force.
fn prepare(database: &Database, lease: Duration) -> Result<Identity, StoreError> {
    match schema_of(database)? {
        Some(SCHEMA_VERSION) => complete(database)?,
        Some(other) => {
            let known = format!("it has schema version {other}, and this program knows version {SCHEMA_VERSION} only");
            return Err(StoreError::Corrupt(known));
        }
        None => set_up(database)?,
    }
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let stored = META_IDENTITY.get_promised(&snapshot_of(database)?, IDENTITY)?;
    let identity = Identity { lease_ms, ..stored };
    if identity != stored {
        at_once(database, |tx| tx.put(&META_IDENTITY, IDENTITY, &identity))?;
    }
    Ok(identity)
}

/// A file of an earlier program lacks the tables that came after it.
fn complete(database: &Database) -> Result<(), StoreError> {
    let there = database.begin_read().map_err(broken)?.list_tables().map_err(broken)?.count();
    if there >= NAMES.len() { Ok(()) } else { at_once(database, |_| Ok(())) }
}

/// Absent in a new file. A file with tables but without a version is not one of ours.
fn schema_of(database: &Database) -> Result<Option<u64>, StoreError> {
    let snapshot = database.begin_read().map_err(broken)?;
    match snapshot.open_table(Raw::new(META_NUMBERS.name)) {
        Ok(_) => META_NUMBERS.get_promised(&Snapshot(snapshot), SCHEMA).map(Some),
        Err(error) if is_absent(&error) => {
            let foreign = snapshot.list_tables().map_err(broken)?.next();
            match foreign {
                None => Ok(None),
                Some(table) => Err(StoreError::Corrupt(format!("it is not a store: it has a table {}", table.name()))),
            }
        }
        Err(error) => Err(broken(error)),
    }
}

fn set_up(database: &Database) -> Result<(), StoreError> {
    let no_ids = |error: getrandom::Error| StoreError::Away(format!("no random numbers: {error}"));
    let identity =
        Identity { store_id: StoreId::random().map_err(no_ids)?, epoch: Epoch::random().map_err(no_ids)?, lease_ms: 0 };
    at_once(database, |tx| {
        tx.put(&META_NUMBERS, SCHEMA, &SCHEMA_VERSION)?;
        tx.put(&META_NUMBERS, REVISION, &0)?;
        tx.put(&META_IDENTITY, IDENTITY, &identity)
    })
}

impl Backend for Embedded {
    async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut dyn Changes) -> Result<T, E> + Send + 'static,
    {
        self.writer.write(change).await
    }

    async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&dyn Rows) -> Result<T, E> + Send + 'static,
    {
        read(&self.snapshot()?)
    }

    /// Leaves the async threads alone.
    async fn read_long<T, E, F>(&self, read: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&dyn Rows) -> Result<T, E> + Send + 'static,
    {
        let snapshot = self.snapshot()?;
        let ended = tokio::task::spawn_blocking(move || read(&snapshot)).await;
        ended.map_err(ended_early)?
    }

    async fn confirm(&self, revision: Revision, wait: Duration) -> Result<Confirmation, StoreError> {
        Ok(self.gateways.confirm(revision, wait).await)
    }

    async fn gateways(&self) -> Result<Vec<GatewayState>, StoreError> {
        Ok(self.gateways.list())
    }

    fn journal_row(&self) -> &str {
        JOURNAL
    }
}

impl Store for Embedded {
    fn store_id(&self) -> StoreId {
        self.identity.store_id
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(self.identity.lease_ms)
    }
}

#[async_trait]
impl FeedStore for Embedded {
    async fn renew(&self, renew: Renew) -> Result<Renewal, StoreError> {
        let epoch = self.epoch();
        // What was applied in another epoch says nothing about this one.
        let applied = if renew.epoch == Some(epoch) { renew.applied } else { Revision(0) };
        self.gateways.renewed(renew.incarnation, applied, renew.version);
        let snapshot = self.snapshot()?;
        let (revision, log) = (feed::revision(&snapshot)?, feed::tail(&snapshot, epoch, &renew)?);
        Ok(Renewal { store_id: self.store_id(), epoch, lease: self.lease(), revision, log })
    }

    async fn load(&self, digest: Digest) -> Result<Loaded, StoreError> {
        let snapshot = self.snapshot()?;
        let (revision, found) = (feed::revision(&snapshot)?, feed::find(&snapshot, digest)?);
        Ok(Loaded { epoch: self.epoch(), revision, found })
    }

    async fn clusters(&self) -> Result<ClustersRead, StoreError> {
        let epoch = self.epoch();
        self.read_long(move |rows| {
            Ok(ClustersRead { epoch, revision: feed::revision(rows)?, clusters: feed::clusters(rows)? })
        })
        .await
    }

    async fn release(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.gateways.released(incarnation);
        Ok(())
    }

    fn pushes(&self) -> broadcast::Receiver<Push> {
        self.gateways.pushes()
    }
}

#[async_trait]
impl Ledger for Embedded {
    async fn merge_after(&self, flush: Flush, after: u64) -> Result<Acknowledged, StoreError> {
        let hour = flush.hour;
        match self.writer.write(move |tx| ledger::merge(tx, &flush, after)).await? {
            Merged::Taken { known } => Ok(Acknowledged { server: LedgerServer::EMBEDDED, known }),
            Merged::Refused => Err(StoreError::Archived(hour)),
        }
    }

    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        self.read_long(move |rows| ledger::lines(rows, from, to)).await
    }

    fn totals(&self) -> Result<Vec<UsageTotal>, StoreError> {
        Ok(self.totals.list())
    }
}

#[async_trait]
impl LedgerReader for Embedded {
    async fn lines_of(&self, accounts: BTreeSet<(Hour, AccountId)>) -> Result<Vec<LedgerLine>, StoreError> {
        self.read_long(move |rows| ledger::lines_of(rows, &accounts)).await
    }

    async fn marks(&self, from: Hour, to: Hour) -> Result<Vec<HourMark>, StoreError> {
        self.read_long(move |rows| ledger::marks(rows, from, to)).await
    }

    async fn changed(&self, after: u64, most: usize) -> Result<UsageChanges, StoreError> {
        let (told, database) = (Arc::clone(&self.told), Arc::clone(&self.database));
        let read = move || usage::changed(&told.tell(&database)?, after, most);
        tokio::task::spawn_blocking(read).await.map_err(ended_early)?
    }
}

#[cfg(test)]
mod tests;
