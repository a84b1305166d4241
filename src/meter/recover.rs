//! Recovery: what dead incarnations left is merged into the ledger under their own name, and their files are removed once the
//! ledger has said yes. Done again at any point it changes nothing, since the values are absolute.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Meter;
use super::estate::{self, Estate};
pub use super::estate::{LeftInPlace, Why};
use super::inherit::{self, Heritage};
use super::spool::replay::{Places, Replay, ReplayError};
use super::spool::{self, Remains, off_thread};
use super::witness::Witness;
use crate::clock;
use crate::principal::Incarnation;
use crate::store::{Ledger, StoreError};
use crate::time::{Hour, WallTime};

/// One hour of a dead incarnation that the ledger has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredHour {
    pub incarnation: Incarnation,
    pub hour: Hour,
    pub lines: usize,
    pub calls: u64,
    /// Calls that were opened and never ended.
    pub interrupted: u64,
    /// False: some file is damaged or gone, so the values may be too small. The hour is not closed, and its files were kept.
    pub complete: bool,
}

/// What one round of recovery found and did.
#[derive(Debug, Default)]
pub struct RecoveryReport {
    pub recovered: Vec<RecoveredHour>,
    /// Hours of the dead that were sent again, since the ledger does not have them, or is another one.
    pub replayed: usize,
    /// Every file that is known to stay where it is, of this round and of earlier ones.
    pub left: Vec<LeftInPlace>,
    /// Incarnations whose files wait for the next round, and why.
    pub waiting: Vec<(Incarnation, RecoveryError)>,
}

/// A round could not be finished. Nothing is lost: the files are still there.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("a folder with usage: {0}")]
    Folder(#[from] io::Error),
    #[error(transparent)]
    Ledger(#[from] StoreError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Looks after the dead of one slab folder and one spool.
pub struct Recovery {
    places: Places,
    witness: &'static Witness,
    /// Incarnations that are merged as far as they can be, with the files that were kept.
    kept: BTreeMap<Incarnation, Vec<LeftInPlace>>,
    replay: Replay,
}

impl Recovery {
    pub fn new(meter: &Meter) -> Self {
        let core = meter.core;
        let places = Places {
            slabs: core.folder.clone(),
            spool: core.spool.clone(),
            store_id: core.store_id,
            boot_id: core.boot_id,
            own: core.incarnation,
        };
        Self { places, witness: &core.witness, kept: BTreeMap::new(), replay: Replay::default() }
    }

    /// As if the machine had booted since.
    #[cfg(test)]
    pub fn after_a_boot(mut self) -> Self {
        self.places.boot_id = [1; 16];
        self
    }

    /// Recovers at once and then every `every`, until `stop` turns true or its sender is gone. `told` hears of every round
    /// that could look for the dead.
    pub async fn run(
        mut self,
        ledger: Arc<dyn Ledger>,
        every: Duration,
        mut stop: watch::Receiver<bool>,
        told: impl Fn(&RecoveryReport),
    ) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = async {
                    ticks.tick().await;
                    let round = self.run_once(&*ledger, clock::wall()).await;
                    log(&round, &mut known);
                    if let Ok(report) = &round {
                        told(report);
                    }
                } => {}
            }
        }
    }

    /// One round over all incarnations with files in either folder.
    ///
    /// # Errors
    /// The folder of the slabs cannot be listed. What concerns one incarnation alone, or the spool alone, is in the report.
    pub async fn run_once(&mut self, ledger: &dyn Ledger, now: WallTime) -> Result<RecoveryReport, RecoveryError> {
        let places = self.places.clone();
        let (mut found, mut misnamed) = off_thread(move || estate::survey(&places.slabs)).await?;
        let places = self.places.clone();
        let mut report = RecoveryReport::default();
        let in_spool = match off_thread(move || spool::survey(&places.spool)).await {
            Ok(in_spool) => in_spool,
            Err(error) => {
                report.waiting.push((self.places.own, ReplayError::Spool(error).into()));
                spool::Survey::default()
            }
        };
        found.extend(in_spool.live);
        misnamed.extend(in_spool.misnamed.into_iter().map(|path| LeftInPlace { path, why: Why::Misnamed }));
        report.left = misnamed;
        self.recover_all(found, ledger, now, &mut report).await;
        match self.replay.round(&self.places, &in_spool.hours, ledger, self.witness, now).await {
            Ok(sent) => report.replayed = sent,
            Err(error) => report.waiting.push((self.places.own, error.into())),
        }
        report.left.extend(self.kept.values().flatten().cloned());
        report.left.extend(self.replay.left(&self.places).into_iter().map(LeftInPlace::from));
        Ok(report)
    }

    async fn recover_all(
        &mut self,
        found: BTreeSet<Incarnation>,
        ledger: &dyn Ledger,
        now: WallTime,
        report: &mut RecoveryReport,
    ) {
        self.kept.retain(|incarnation, _| found.contains(incarnation));
        for incarnation in found {
            if incarnation == self.places.own || self.kept.contains_key(&incarnation) {
                continue;
            }
            if let Err(error) = self.recover(incarnation, ledger, now, report).await {
                report.waiting.push((incarnation, error));
            }
        }
    }

    async fn recover(
        &mut self,
        incarnation: Incarnation,
        ledger: &dyn Ledger,
        now: WallTime,
        report: &mut RecoveryReport,
    ) -> Result<(), RecoveryError> {
        let places = self.places.clone();
        let taken = off_thread(move || take_up(&places, incarnation)).await?;
        let Some(heritage) = taken else { return Ok(()) };
        let heritage = Arc::new(heritage);
        let mut waits = None;
        for hour in heritage.hours() {
            let (places, left) = (self.places.clone(), Arc::clone(&heritage));
            let of_hour = off_thread(move || inherit::HourHeritage::read(&places, &left, hour)).await?;
            let merged = match of_hour.merge(self.witness, ledger).await {
                // It has left the ledger, and is asked back by this. No other hour waits for it.
                Err(archived @ StoreError::Archived(_)) => {
                    waits = Some(archived);
                    continue;
                }
                merged => merged?,
            };
            report.recovered.extend(merged.recovered);
            let (places, left) = (self.places.clone(), Arc::clone(&heritage));
            off_thread(move || left.settle(&places, hour, merged.flushes, merged.server, now)).await?;
        }
        if let Some(archived) = waits {
            return Err(archived.into());
        }
        let left = off_thread(move || heritage.close()).await?;
        if !left.is_empty() {
            self.kept.insert(incarnation, left);
        }
        Ok(())
    }
}

/// All that an incarnation left. `None`: it is alive, or somebody else is at it.
fn take_up(places: &Places, incarnation: Incarnation) -> io::Result<Option<Heritage>> {
    let Some(estate) = Estate::take_up(&places.slabs, incarnation, places.store_id)? else { return Ok(None) };
    match Remains::take_up(&places.spool, places.owner(incarnation))? {
        Some(remains) => Ok(Some(Heritage { incarnation, estate, remains })),
        None => {
            if estate.hours.is_empty() {
                estate.close()?;
            }
            Ok(None)
        }
    }
}

/// Logs what was done, and what stays where it is once.
fn log(round: &Result<RecoveryReport, RecoveryError>, known: &mut Vec<LeftInPlace>) {
    let report = match round {
        Ok(report) => report,
        Err(error) => return tracing::warn!(%error, "recovery of usage could not look for dead gateways"),
    };
    for recovered in &report.recovered {
        let RecoveredHour { incarnation, hour, lines, calls, interrupted, complete } = recovered;
        if *complete {
            tracing::info!(%incarnation, %hour, lines, calls, interrupted, "recovered the usage of a dead gateway");
        } else {
            tracing::error!(
                %incarnation, %hour, lines, calls, interrupted,
                "the usage of a dead gateway is known in part only, and may be more than this; the hour is not closed"
            );
        }
    }
    if report.replayed > 0 {
        tracing::info!(hours = report.replayed, "sent hours of dead gateways again: the ledger may have lost them");
    }
    for left in report.left.iter().filter(|left| !known.contains(left)) {
        tracing::error!(file = %left.path.display(), why = %left.why, "a file with usage is left in place");
    }
    for (incarnation, error) in &report.waiting {
        tracing::warn!(%incarnation, %error, "the usage of a dead gateway is not recovered yet");
    }
    known.clone_from(&report.left);
}
