//! The hours of this incarnation whose slabs are gone: only the spool has them, should the ledger lose what it acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::frame::Owner;
use super::{kept, off_thread};
use crate::meter::hour_flush::Upto;
use crate::meter::record::Flush;
use crate::meter::witness::Witness;
use crate::principal::LedgerServer;
use crate::store::{Ledger, StoreError};
use crate::time::{Hour, WallTime};

pub struct Folded {
    folder: PathBuf,
    owner: Owner,
    hours: BTreeMap<Hour, FoldedHour>,
}

struct FoldedHour {
    again: Again,
    acknowledged: Upto,
}

/// Whether the ledger must be sent an hour again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Needless,
    Needed,
}

/// What was sent.
#[derive(Default)]
pub struct Resent {
    pub lines: usize,
    pub batches: usize,
    /// Hours that have left the ledger; they are sent once they are back.
    pub waiting: Vec<Hour>,
}

impl Folded {
    pub fn new(folder: PathBuf, owner: Owner) -> Self {
        Self { folder, owner, hours: BTreeMap::new() }
    }

    /// Writes a whole hour down that `server` acknowledged, as far as that is known.
    pub async fn keep(&self, hour: Hour, whole: Vec<Flush>, server: Option<LedgerServer>) -> io::Result<()> {
        let (folder, owner) = (self.folder.clone(), self.owner);
        off_thread(move || kept::write(&folder, owner, hour, whole, server)).await
    }

    /// From now on the slabs of this hour are gone.
    pub fn insert(&mut self, hour: Hour, acknowledged: Upto) {
        self.hours.insert(hour, FoldedHour { again: Again::Needless, acknowledged });
    }

    /// The ledger may have lost them all.
    pub fn all_again(&mut self) {
        self.hours.values_mut().for_each(|hour| hour.again = Again::Needed);
    }

    /// Sends what the ledger may have lost.
    pub async fn send_again(&mut self, witness: &Witness, ledger: &dyn Ledger) -> Result<Resent, StoreError> {
        let mut resent = Resent::default();
        for (hour, state) in self.hours.iter_mut().filter(|(_, state)| state.again == Again::Needed) {
            let (hour, owner) = (*hour, self.owner);
            let flushes = read(self.folder.clone(), owner, hour).await;
            resent.lines += flushes.iter().map(|flush| flush.lines.len()).sum::<usize>();
            resent.batches += flushes.len();
            let last = flushes.last().map_or(0, |flush| flush.sequence);
            let server = match witness.send(ledger, flushes).await {
                Err(StoreError::Archived(hour)) => {
                    resent.waiting.push(hour);
                    continue;
                }
                sent => sent?,
            };
            *state = FoldedHour { again: Again::Needless, acknowledged: Upto { batch: last, found: 0 } };
            if let Some(server) = server {
                let folder = self.folder.clone();
                // Where that fails another start sends it once more.
                let _ = off_thread(move || kept::acknowledge(&folder, owner, hour, server)).await;
            }
        }
        Ok(resent)
    }

    /// Asks whether the ledger still has the hours that were not found there lately.
    pub async fn ask(&mut self, witness: &Witness, ledger: &dyn Ledger) -> Result<(), StoreError> {
        for (hour, state) in &mut self.hours {
            state.acknowledged.ask(self.owner.incarnation, *hour, witness, ledger).await?;
        }
        Ok(())
    }

    /// Removes what no ledger to come may need.
    pub async fn remove_old(&mut self, now: WallTime) {
        let is_old = |(hour, state): (&Hour, &FoldedHour)| kept::is_old(*hour, now) && state.again == Again::Needless;
        let old: Vec<Hour> = self.hours.iter().filter(|entry| is_old(*entry)).map(|(hour, _)| *hour).collect();
        for hour in old {
            self.hours.remove(&hour);
            let (folder, incarnation) = (self.folder.clone(), self.owner.incarnation);
            // Where that fails another start removes it.
            let _ = off_thread(move || kept::remove(&folder, incarnation, hour)).await;
        }
    }
}

/// What can be read of an hour. What is missing is told, and is missing in the ledger too.
async fn read(folder: PathBuf, owner: Owner, hour: Hour) -> Vec<Flush> {
    match off_thread(move || kept::read(&folder, owner, hour)).await {
        Ok(Some(Ok(kept))) => {
            if let Some(damage) = kept.damage {
                tracing::error!(%hour, %damage, "an hour that is sent again is damaged in the spool");
            }
            return kept.flushes;
        }
        Ok(_) => tracing::error!(%hour, "an hour that should be sent again is not in the spool"),
        Err(error) => tracing::error!(%hour, %error, "an hour that should be sent again cannot be read"),
    }
    Vec::new()
}
