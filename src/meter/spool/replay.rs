//! The kept hours of the dead: sent again where the ledger does not have them, or is on another server than the one that
//! acknowledged them, and removed once they are old.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::frame::{Foreign, Owner};
use super::{Wrong, kept, off_thread};
use crate::meter::folder;
use crate::meter::record::Flush;
use crate::meter::witness::{Anchors, Turn, Witness};
use crate::principal::{Incarnation, LedgerServer, StoreId};
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
    /// In which turn it was sent, or found to be there.
    turn: Turn,
    /// Who has it.
    server: Option<LedgerServer>,
    wrong: Option<Wrong>,
    proof: Proof,
}

/// Whether an hour can get lost without anybody noticing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// There was no anchor behind it when it was looked for.
    Wanting(Anchors),
    Found,
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
        witness: &Witness,
        now: WallTime,
    ) -> Result<usize, ReplayError> {
        self.hours.retain(|at, _| there.contains(at));
        let (mut sent, mut waits) = (0, None);
        for (incarnation, hour) in there.iter().copied().filter(|(incarnation, _)| *incarnation != places.own) {
            let known = self.hours.get(&(incarnation, hour));
            let known = known.filter(|known| known.turn == witness.turn());
            let is_proven = known.is_some_and(|known| match known.proof {
                Proof::Wanting(anchors) => witness.anchors() == anchors,
                Proof::Found => true,
            });
            match known {
                Some(Known { wrong: None, .. }) if is_proven => {
                    self.remove_old(places, incarnation, hour, now).await?;
                }
                Some(_) if is_proven => {}
                _ => match self.look_after(places, incarnation, hour, ledger, witness).await {
                    // It has left the ledger, and is asked back by this. No other hour waits for it.
                    Err(archived @ ReplayError::Ledger(StoreError::Archived(_))) => waits = Some(archived),
                    answer => sent += usize::from(answer?),
                },
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
    async fn look_after(
        &mut self,
        places: &Places,
        incarnation: Incarnation,
        hour: Hour,
        ledger: &dyn Ledger,
        witness: &Witness,
    ) -> Result<bool, ReplayError> {
        let (turn, anchors) = (witness.turn(), witness.anchors());
        let (at, owner) = (places.clone(), places.owner(incarnation));
        let read = off_thread(move || {
            // The living look after their own.
            if folder::is_alive(&at.slabs, incarnation) { Ok(None) } else { kept::read(&at.spool, owner, hour) }
        });
        let before = self.hours.get(&(incarnation, hour)).copied().filter(|known| known.turn == turn);
        let (wrong, server, sent) = match read.await? {
            None => return Ok(false),
            Some(Err(Foreign(store_id))) => (Some(Wrong::Foreign(store_id)), None, false),
            Some(Ok(hour_kept)) => {
                let wrong = hour_kept.damage.map(Wrong::Damaged);
                let mut server = before.and_then(|known| known.server).or(hour_kept.acknowledged);
                let is_there = match (server, hour_kept.flushes.last()) {
                    (Some(server), Some(last)) => has_all(ledger, witness, server, last).await?,
                    _ => false,
                };
                if !is_there {
                    server = witness.send(ledger, hour_kept.flushes).await?;
                    // A damaged file is left as it is.
                    if let Some(server) = server.filter(|_| wrong.is_none()) {
                        let spool = places.spool.clone();
                        off_thread(move || kept::acknowledge(&spool, owner, hour, server)).await?;
                    }
                }
                (wrong, server, !is_there)
            }
        };
        // What is found again behind an anchor cannot get lost without it.
        let proof = if before.is_some() && !sent { Proof::Found } else { Proof::Wanting(anchors) };
        self.hours.insert((incarnation, hour), Known { turn, server, wrong, proof });
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

/// Whether this server has the hour that ends with this batch.
async fn has_all(
    ledger: &dyn Ledger,
    witness: &Witness,
    server: LedgerServer,
    last: &Flush,
) -> Result<bool, StoreError> {
    let said = witness.ask(ledger, last).await?;
    // By the way it is learnt who is there now. That an hour of the dead is not there says nothing about the others yet.
    witness.judge(said, 0)?;
    Ok(said.server == server && said.known >= last.sequence)
}
