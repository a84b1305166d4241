//! The kept hours of the dead: sent again where the store is in another epoch than the one they were acknowledged in, and
//! removed once they are old.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::frame::{Foreign, Owner};
use super::{Wrong, kept, off_thread};
use crate::meter::folder;
use crate::principal::{Epoch, Incarnation, StoreId};
use crate::store::{Ledger, StoreError};
use crate::time::{Hour, WallTime};

/// Where to look, and whose hours are not the dead's.
#[derive(Clone, Debug)]
pub struct Places {
    pub slabs: PathBuf,
    pub spool: PathBuf,
    pub store_id: StoreId,
    /// Of this boot of the machine.
    pub boot_id: [u8; 16],
    pub own: Incarnation,
}

impl Places {
    pub fn owner(&self, incarnation: Incarnation) -> Owner {
        Owner { store_id: self.store_id, incarnation }
    }
}

/// What is known of the hours that the dead left.
#[derive(Debug, Default)]
pub struct Replay {
    hours: BTreeMap<(Incarnation, Hour), Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// In which epoch it was sent, or found to have been.
    acknowledged: Epoch,
    wrong: Option<Wrong>,
}

/// Why the round ended before all hours were looked at.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("the spool folder: {0}")]
    Spool(#[from] io::Error),
    #[error(transparent)]
    Ledger(#[from] StoreError),
}

impl Replay {
    /// Looks after the hours that are there. Returns how many were sent again.
    pub async fn round(
        &mut self,
        places: &Places,
        there: &BTreeSet<(Incarnation, Hour)>,
        ledger: &dyn Ledger,
        epoch: Option<Epoch>,
        now: WallTime,
    ) -> Result<usize, ReplayError> {
        self.hours.retain(|at, _| there.contains(at));
        // Which epoch the ledger is in is known only a while after the start.
        let Some(epoch) = epoch else { return Ok(0) };
        let (mut sent, mut waits) = (0, None);
        for (incarnation, hour) in there.iter().copied().filter(|(incarnation, _)| *incarnation != places.own) {
            let known = self.hours.get(&(incarnation, hour));
            match known.filter(|known| known.acknowledged == epoch) {
                None => match self.send(places, incarnation, hour, ledger, epoch).await {
                    // It has left the ledger, and is asked back by this. No other hour waits for it.
                    Err(archived @ ReplayError::Ledger(StoreError::Archived(_))) => waits = Some(archived),
                    answer => sent += usize::from(answer?),
                },
                Some(Known { wrong: None, .. }) => self.remove_old(places, incarnation, hour, now).await?,
                Some(_) => {}
            }
        }
        waits.map_or(Ok(sent), Err)
    }

    /// The files that are damaged or of others.
    pub fn left(&self, places: &Places) -> Vec<(PathBuf, Wrong)> {
        let wrong = self.hours.iter().filter_map(|(at, known)| Some((at, known.wrong?)));
        wrong.map(|((incarnation, hour), wrong)| (kept::path(&places.spool, *incarnation, *hour), wrong)).collect()
    }

    /// Sends an hour, unless the ledger has it already; false then.
    async fn send(
        &mut self,
        places: &Places,
        incarnation: Incarnation,
        hour: Hour,
        ledger: &dyn Ledger,
        epoch: Epoch,
    ) -> Result<bool, ReplayError> {
        let (at, owner) = (places.clone(), places.owner(incarnation));
        let read = off_thread(move || {
            // The living look after their own.
            if folder::is_alive(&at.slabs, incarnation) { Ok(None) } else { kept::read(&at.spool, owner, hour) }
        });
        let (wrong, sent) = match read.await? {
            None => return Ok(false),
            Some(Err(Foreign(store_id))) => (Some(Wrong::Foreign(store_id)), false),
            Some(Ok(hour_kept)) => {
                let wrong = hour_kept.damage.map(Wrong::Damaged);
                let is_new = hour_kept.acknowledged != Some(epoch);
                if is_new {
                    for flush in hour_kept.flushes {
                        ledger.merge(flush).await?;
                    }
                }
                // A damaged file is left as it is.
                if is_new && wrong.is_none() {
                    let spool = places.spool.clone();
                    off_thread(move || kept::acknowledge(&spool, owner, hour, epoch)).await?;
                }
                (wrong, is_new)
            }
        };
        self.hours.insert((incarnation, hour), Known { acknowledged: epoch, wrong });
        Ok(sent)
    }

    async fn remove_old(
        &mut self,
        places: &Places,
        incarnation: Incarnation,
        hour: Hour,
        now: WallTime,
    ) -> io::Result<()> {
        if kept::is_old(hour, now) {
            let spool = places.spool.clone();
            off_thread(move || kept::remove(&spool, incarnation, hour)).await?;
        }
        Ok(())
    }
}
