//! The one writer. Changes wait in a bounded queue; a thread of its own runs those that are waiting in one transaction, commits
//! it to the disk, and only then answers each of them. So a crowd of changes shares one fsync, and no async thread waits for a disk.

use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;

use redb::{Database, ReadableTable, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::gateways::Gateways;
use super::ledger::Totals;
use super::rows::{Raw, RowKey, RowValue, Rows, Span, Step, Table, broken, value_of, walk};
use super::tables::{AUDIT, AUDIT_HEAD, LOG, META_AUDIT, META_NUMBERS, NAMES, REVISION};
use crate::key::Digest;
use crate::meter::record::{Counters, Operation};
use crate::principal::{AccountId, ClusterId, Revision};
use crate::store::audit::{AuditEntry, AuditEvent, GENESIS};
use crate::store::intent::AuditHead;
use crate::store::{Change, LogEntry, StoreError};

/// Changes that may wait; whoever comes then waits for a place in the queue.
const QUEUE: usize = 1024;
/// Changes in one transaction at most.
const BATCH: usize = 256;

/// The queue to the writer's thread. Dropping it lets the thread finish what waits and end.
pub struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

/// Where the thread makes known what it has committed, before it answers.
pub struct Outlets {
    pub gateways: Arc<Gateways>,
    pub totals: Arc<Totals>,
}

impl Writer {
    /// `log_keep`: entries of the change log that are kept.
    pub fn start(database: Arc<Database>, log_keep: u64, outlets: Outlets) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let work = move || serve(jobs, &database, log_keep, &outlets);
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(work);
        let thread = thread.map_err(|error| StoreError::Away(format!("no thread for the writer: {error}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Runs `change` in a transaction and answers once it is on the disk. `change` may run more than once, each time on a fresh
    /// transaction; where it answers an error, nothing it wrote stays.
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let gone = || E::from(StoreError::Away("the writer has stopped".to_owned()));
        let (done, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Box::new(Waiting { change, outcome: None, done })).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

/// A transaction in which changes are made. It sees its own writes.
pub struct Tx<'a> {
    tx: &'a WriteTransaction,
    /// By their place in [`NAMES`]. Each is opened once: opening costs more than a read or a write of a row.
    tables: [OnceCell<Opened<'a>>; NAMES.len()],
    log_keep: u64,
    writes: u64,
    effects: Effects,
}

type Opened<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

/// What becomes visible outside the file once the transaction is on the disk.
#[derive(Default)]
pub struct Effects {
    pub changes: Vec<(Revision, Option<Digest>)>,
    pub usage: Vec<((AccountId, ClusterId, Operation), Counters)>,
}

impl<'a> Tx<'a> {
    fn new(tx: &'a WriteTransaction, log_keep: u64) -> Self {
        let tables = [const { OnceCell::new() }; NAMES.len()];
        Self { tx, tables, log_keep, writes: 0, effects: Effects::default() }
    }

    fn table(&self, name: &str) -> Result<&Opened<'a>, StoreError> {
        let unknown = || StoreError::Corrupt(format!("there is no table {name}"));
        let place = NAMES.iter().position(|known| *known == name).ok_or_else(unknown)?;
        let cell = self.tables.get(place).ok_or_else(unknown)?;
        if let Some(opened) = cell.get() {
            return Ok(opened);
        }
        let opened = self.tx.open_table(Raw::new(name)).map_err(broken)?;
        Ok(cell.get_or_init(|| opened))
    }

    /// The same, and a write is counted: whoever asks for it changes a row.
    fn table_mut(&mut self, name: &str) -> Result<&mut Opened<'a>, StoreError> {
        self.table(name)?;
        self.writes += 1;
        let place = NAMES.iter().position(|known| *known == name);
        let opened = place.and_then(|place| self.tables.get_mut(place)).and_then(OnceCell::get_mut);
        opened.ok_or_else(|| StoreError::Corrupt(format!("there is no table {name}")))
    }

    pub fn put<K: RowKey + ?Sized, V: RowValue>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), StoreError> {
        let encoded = value.encode().map_err(|why| StoreError::Corrupt(format!("table {}: {why}", table.name)))?;
        let rows = self.table_mut(table.name)?;
        rows.insert(key.row_key().as_slice(), encoded.as_slice()).map_err(broken)?;
        Ok(())
    }

    pub fn remove<K: RowKey + ?Sized, V: RowValue>(&mut self, table: &Table<K, V>, key: &K) -> Result<(), StoreError> {
        self.table_mut(table.name)?.remove(key.row_key().as_slice()).map_err(broken)?;
        Ok(())
    }

    /// Removes every row within `span`.
    pub fn remove_all<K: RowKey + ?Sized, V: RowValue>(
        &mut self,
        table: &Table<K, V>,
        span: &Span,
    ) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        walk(self.table(table.name)?, span, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        for key in keys {
            self.table_mut(table.name)?.remove(key.as_slice()).map_err(broken)?;
        }
        Ok(())
    }

    /// Makes the tables that are not there yet.
    pub fn make_tables(&self) -> Result<(), StoreError> {
        NAMES.iter().try_for_each(|name| self.table(name).map(drop))
    }

    /// The revision that the next change of the log will have.
    pub fn next_revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(META_NUMBERS.get_promised(self, REVISION)? + 1))
    }

    /// Appends to the change log and trims it.
    pub fn log(&mut self, change: Change) -> Result<Revision, StoreError> {
        let revision = self.next_revision()?;
        let deleted = match &change {
            Change::KeyDeleted { digest, .. } => Some(*digest),
            _ => None,
        };
        self.put(&META_NUMBERS, REVISION, &revision.0)?;
        self.put(&LOG, &revision.0, &LogEntry { revision, change })?;
        self.trim_log(revision)?;
        self.effects.changes.push((revision, deleted));
        Ok(revision)
    }

    fn trim_log(&mut self, newest: Revision) -> Result<(), StoreError> {
        let oldest_kept = newest.0.saturating_sub(self.log_keep) + 1;
        let rows = self.table_mut(LOG.name)?;
        loop {
            let oldest = rows.first().map_err(broken)?.map(|(key, _)| key.value().to_vec());
            match oldest {
                Some(oldest) if oldest < oldest_kept.row_key() => rows.remove(oldest.as_slice()).map_err(broken)?,
                _ => return Ok(()),
            };
        }
    }

    /// Appends to the audit log.
    pub fn audit(&mut self, event: AuditEvent) -> Result<(), StoreError> {
        let head = META_AUDIT.get(self, AUDIT_HEAD)?;
        let entry = AuditEntry::chain(event, head.map_or((0, GENESIS), |head| (head.seq, head.hash)));
        self.put(&META_AUDIT, AUDIT_HEAD, &AuditHead { seq: entry.seq, hash: entry.hash })?;
        self.put(&AUDIT, &entry.seq, &entry)
    }

    /// Usage that this transaction adds to the totals.
    pub fn used(&mut self, whose: (AccountId, ClusterId, Operation), grown: Counters) {
        self.effects.usage.push((whose, grown));
    }
}

impl Rows for Tx<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        value_of(self.table(table)?, key)
    }

    fn scan(&self, table: &str, span: Span, visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        walk(self.table(table)?, &span, visit)
    }
}

/// A change in the queue, whatever it answers.
trait Job: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Ran;
    /// Says to the caller what came of it; `failed` is why the transaction was not committed, if so.
    fn answer(self: Box<Self>, failed: Option<StoreError>);
}

enum Ran {
    /// The transaction can go on: the change is made, or it was refused before it wrote anything.
    Clean,
    /// The change failed half-way. The transaction must not be committed.
    Soiled,
}

struct Waiting<T, E, F> {
    change: F,
    outcome: Option<Result<T, E>>,
    done: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Job for Waiting<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: Fn(&mut Tx<'_>) -> Result<T, E> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Ran {
        let before = tx.writes;
        let outcome = (self.change)(tx);
        let clean = outcome.is_ok() || tx.writes == before;
        self.outcome = Some(outcome);
        if clean { Ran::Clean } else { Ran::Soiled }
    }

    fn answer(self: Box<Self>, failed: Option<StoreError>) {
        let answer = match (self.outcome, failed) {
            (Some(Ok(value)), None) => Ok(value),
            (Some(Err(error)), _) => Err(error),
            (_, Some(error)) => Err(E::from(error)),
            (None, None) => Err(E::from(StoreError::Away("the change did not run".to_owned()))),
        };
        // A caller that has gone away does not undo its change.
        let _ = self.done.send(answer);
    }
}

fn serve(mut jobs: mpsc::Receiver<Box<dyn Job>>, database: &Database, log_keep: u64, outlets: &Outlets) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            let Ok(job) = jobs.try_recv() else { break };
            batch.push(job);
        }
        settle(batch, database, log_keep, outlets);
    }
}

/// Runs a batch until all of it is answered. A change that fails half-way is answered alone and the rest runs again without it,
/// so this ends after at most as many rounds as there are changes.
fn settle(mut batch: Vec<Box<dyn Job>>, database: &Database, log_keep: u64, outlets: &Outlets) {
    while !batch.is_empty() {
        let failed = match run(&mut batch, database, log_keep) {
            Ok(Round::Committed(effects)) => {
                outlets.gateways.committed(&effects.changes);
                outlets.totals.add(&effects.usage);
                None
            }
            Ok(Round::Soiled(at)) => {
                batch.remove(at).answer(None);
                continue;
            }
            Err(error) => Some(error),
        };
        for job in batch.drain(..) {
            job.answer(failed.as_ref().map(StoreError::again));
        }
    }
}

/// Runs a change before there is a queue: at set-up.
pub fn at_once(database: &Database, change: impl Fn(&mut Tx<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let write = begin(database)?;
    change(&mut Tx::new(&write, u64::MAX))?;
    write.commit().map_err(broken)
}

pub fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut write = database.begin_write().map_err(broken)?;
    // After a crash the file is open again at once, whatever its size.
    write.set_quick_repair(true);
    Ok(write)
}

enum Round {
    Committed(Effects),
    /// The job at this place spoilt the transaction.
    Soiled(usize),
}

fn run(batch: &mut [Box<dyn Job>], database: &Database, log_keep: u64) -> Result<Round, StoreError> {
    let write = begin(database)?;
    let mut tx = Tx::new(&write, log_keep);
    for (at, job) in batch.iter_mut().enumerate() {
        if let Ran::Soiled = job.run(&mut tx) {
            drop(tx);
            write.abort().map_err(broken)?;
            return Ok(Round::Soiled(at));
        }
    }
    let (writes, effects) = (tx.writes, std::mem::take(&mut tx.effects));
    // The tables have to be closed before the transaction ends.
    drop(tx);
    if writes == 0 {
        write.abort().map_err(broken)?;
    } else {
        write.commit().map_err(broken)?;
    }
    Ok(Round::Committed(effects))
}

impl StoreError {
    /// The same error for another caller of the same transaction.
    fn again(&self) -> Self {
        match self {
            Self::Away(why) => Self::Away(why.clone()),
            Self::Frozen(why) => Self::Frozen(why.clone()),
            Self::Corrupt(why) => Self::Corrupt(why.clone()),
        }
    }
}
