//! The one writer. Changes wait in a bounded queue; a thread of its own runs those that are waiting in one transaction, commits
//! it to the disk, and only then answers each of them. So a crowd of changes shares one fsync, and no async thread waits for a disk.

use std::cell::OnceCell;
use std::sync::Arc;

use redb::{Database, ReadableTable, WriteTransaction};

use super::rows::{Raw, broken, value_of, walk};
use super::told::Told;
use crate::principal::Revision;
use crate::store::StoreError;
use crate::store::gateways::Gateways;
use crate::store::rules::ledger::Totals;
use crate::store::rules::queue::{Job, Queue};
use crate::store::rules::rows::{RowKey, Rows, Span, Step};
use crate::store::rules::tables::{LOG, NAMES};
use crate::store::rules::{Changes, Effects, usage};

/// The queue to the writer's thread.
pub struct Writer(Queue);

/// Where the thread makes known what it has committed, before it answers.
pub struct Outlets {
    pub gateways: Arc<Gateways>,
    pub totals: Arc<Totals>,
    pub told: Arc<Told>,
}

impl Writer {
    /// `log_keep`: entries of the change log that are kept.
    pub fn start(database: Arc<Database>, log_keep: u64, outlets: Outlets) -> Result<Self, StoreError> {
        let settle = move |batch| settle(batch, &database, log_keep, &outlets);
        Queue::start(settle).map(Self)
    }

    /// As [`Backend::write`](crate::store::rules::Backend::write).
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut dyn Changes) -> Result<T, E> + Send + 'static,
    {
        self.0.write(change).await
    }
}

/// A transaction in which changes are made. It sees its own writes.
pub struct Tx<'a> {
    tx: &'a WriteTransaction,
    /// By their place in [`NAMES`]. Each is opened once: opening costs more than a read or a write of a row.
    tables: [OnceCell<Opened<'a>>; NAMES.len()],
    writes: u64,
    /// Up to which number readers of the change feed may have been told.
    told: u64,
    effects: Effects,
}

type Opened<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

impl<'a> Tx<'a> {
    fn new(tx: &'a WriteTransaction, told: u64) -> Self {
        let tables = [const { OnceCell::new() }; NAMES.len()];
        Self { tx, tables, writes: 0, told, effects: Effects::default() }
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

    fn touch(&mut self, place: Vec<u8>) -> Result<(), StoreError> {
        let told = self.told;
        usage::touch(self, place, told)
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

/// Runs a batch until all of it is answered. A change that fails half-way is answered alone and the rest runs again without it,
/// so this ends after at most as many rounds as there are changes.
fn settle(mut batch: Vec<Box<dyn Job>>, database: &Database, log_keep: u64, outlets: &Outlets) {
    while !batch.is_empty() {
        let failed = match run(&mut batch, database, log_keep, &outlets.told) {
            Ok(Round::Committed(effects)) => {
                outlets.gateways.committed(&effects.changes);
                outlets.totals.add(&effects.usage);
                None
            }
            Ok(Round::Soiled(at)) => {
                batch.remove(at).answer();
                continue;
            }
            Err(error) => Some(error),
        };
        for job in batch.drain(..) {
            match &failed {
                None => job.answer(),
                Some(error) => job.fail(error.again()),
            }
        }
    }
}

/// Makes the tables that are not there yet and runs a change, before there is a queue.
pub fn at_once(
    database: &Database,
    change: impl Fn(&mut dyn Changes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let write = begin(database)?;
    // Every number counts as told.
    let mut tx = Tx::new(&write, u64::MAX);
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

fn run(batch: &mut [Box<dyn Job>], database: &Database, log_keep: u64, told: &Told) -> Result<Round, StoreError> {
    let told = told.hold();
    let write = begin(database)?;
    let mut tx = Tx::new(&write, *told);
    for (at, job) in batch.iter_mut().enumerate() {
        let before = tx.writes;
        // One that was refused before it wrote anything leaves the transaction as it was.
        if !job.run(&mut tx) && tx.writes != before {
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
