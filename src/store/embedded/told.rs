//! How far readers of the change feed may have been told. A place that changes again needs no new number while nobody was told the
//! one it has: whoever comes to it reads what it is then. Most lines change with every flush and are read once in a while, so most
//! of the writing that the feed would cost is spared.

use parking_lot::{Mutex, MutexGuard};
use redb::Database;

use super::rows::Snapshot;
use super::snapshot_of;
use crate::store::StoreError;
use crate::store::rules::usage;

/// The greatest number that may have been told.
#[derive(Debug)]
pub struct Told(Mutex<u64>);

impl Told {
    /// Readers of the process before this one may have been told everything.
    pub fn at_start(snapshot: &Snapshot) -> Result<Self, StoreError> {
        usage::last_change(snapshot).map(Mutex::new).map(Self)
    }

    /// Held by the writer from before it gives numbers until they are committed: nobody is told anything meanwhile.
    pub fn hold(&self) -> MutexGuard<'_, u64> {
        self.0.lock()
    }

    /// The store as it is now, all of which may be told. It waits for what is being committed.
    pub fn tell(&self, database: &Database) -> Result<Snapshot, StoreError> {
        let mut told = self.0.lock();
        let snapshot = snapshot_of(database)?;
        *told = usage::last_change(&snapshot)?.max(*told);
        Ok(snapshot)
    }
}
