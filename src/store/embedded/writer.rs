//! The one writer. Changes wait in a bounded queue; a thread of its own runs those that are waiting in one transaction, commits
//! it to the disk, and only then answers each of them. So a crowd of changes shares one fsync, and no async thread waits for a disk.

use std::cell::OnceCell;
use std::sync::Arc;
use std::thread::JoinHandle;

use redb::{Database, ReadableTable, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::gateways::Gateways;
use super::rows::{Raw, broken, value_of, walk};
use crate::principal::Revision;
use crate::store::StoreError;
use crate::store::rules::ledger::Totals;
use crate::store::rules::rows::{RowKey, Rows, Span, Step};
use crate::store::rules::tables::{LOG, NAMES};
use crate::store::rules::{Changes, Effects};

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
        F: Fn(&mut dyn Changes) -> Result<T, E> + Send + 'static,
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
    writes: u64,
    effects: Effects,
}

type Opened<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

impl<'a> Tx<'a> {
    fn new(tx: &'a WriteTransaction) -> Self {
        let tables = [const { OnceCell::new() }; NAMES.len()];
        Self { tx, tables, writes: 0, effects: Effects::default() }
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

    /// Makes the tables that are not there yet.
    fn make_tables(&self) -> Result<(), StoreError> {
        NAMES.iter().try_for_each(|name| self.table(name).map(drop))
    }

    /// The log keeps so many entries.
    fn trim_log(&mut self, log_keep: u64) -> Result<(), StoreError> {
        let Some((Revision(newest), _)) = self.effects.changes.last() else {
            return Ok(());
        };
        let oldest_kept = (newest.saturating_sub(log_keep) + 1).row_key();
        let rows = self.table_mut(LOG.name)?;
        loop {
            let oldest = rows.first().map_err(broken)?.map(|(key, _)| key.value().to_vec());
            match oldest {
                Some(oldest) if oldest < oldest_kept => rows.remove(oldest.as_slice()).map_err(broken)?,
                _ => return Ok(()),
            };
        }
    }
}

impl Changes for Tx<'_> {
    fn put_row(&mut self, table: &'static str, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.table_mut(table)?.insert(key.as_slice(), value.as_slice()).map_err(broken)?;
        Ok(())
    }

    fn remove_row(&mut self, table: &'static str, key: Vec<u8>) -> Result<(), StoreError> {
        self.table_mut(table)?.remove(key.as_slice()).map_err(broken)?;
        Ok(())
    }

    fn effects(&mut self) -> &mut Effects {
        &mut self.effects
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
    F: Fn(&mut dyn Changes) -> Result<T, E> + Send,
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

/// Makes the tables that are not there yet and runs a change, before there is a queue.
pub fn at_once(
    database: &Database,
    change: impl Fn(&mut dyn Changes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let write = begin(database)?;
    let mut tx = Tx::new(&write);
    tx.make_tables()?;
    change(&mut tx)?;
    drop(tx);
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
    let mut tx = Tx::new(&write);
    for (at, job) in batch.iter_mut().enumerate() {
        if let Ran::Soiled = job.run(&mut tx) {
            drop(tx);
            write.abort().map_err(broken)?;
            return Ok(Round::Soiled(at));
        }
    }
    tx.trim_log(log_keep)?;
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
