//! Recovery: what dead incarnations left is merged into the ledger under their own name, and their files are removed once the
//! ledger has said yes. Done again at any point it changes nothing, since the values are absolute.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Meter;
use super::estate::{self, Estate, HourEstate};
pub use super::estate::{LeftInPlace, Why};
use super::flush::BATCH;
use super::record::{Counters, Flush, LineKey};
use crate::principal::{Incarnation, StoreId};
use crate::store::{Ledger, StoreError};
use crate::time::{Hour, WallTime};

/// One hour of a dead incarnation that the ledger has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredHour {
    pub incarnation: Incarnation,
    pub hour: Hour,
    pub lines: usize,
    /// Calls that were opened and never ended.
    pub interrupted: u64,
    /// False: some file is damaged or gone, so the values may be too small; the files were kept.
    pub complete: bool,
}

/// What one round of recovery found and did.
#[derive(Debug, Default)]
pub struct RecoveryReport {
    pub recovered: Vec<RecoveredHour>,
    /// Every file that is known to stay where it is, of this round and of earlier ones.
    pub left: Vec<LeftInPlace>,
    /// Incarnations whose files wait for the next round, and why.
    pub waiting: Vec<(Incarnation, RecoveryError)>,
}

/// A round could not be finished. Nothing is lost: the files are still there.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("the slab folder: {0}")]
    Folder(#[from] io::Error),
    #[error(transparent)]
    Ledger(#[from] StoreError),
}

/// Looks after the dead of one slab folder.
pub struct Recovery {
    folder: PathBuf,
    store_id: StoreId,
    own: Incarnation,
    /// Incarnations that are merged as far as they can be, with the files that were kept.
    kept: BTreeMap<Incarnation, Vec<LeftInPlace>>,
}

impl Recovery {
    pub fn new(meter: &Meter) -> Self {
        let core = meter.core;
        Self { folder: core.folder.clone(), store_id: core.store_id, own: core.incarnation, kept: BTreeMap::new() }
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
                    let round = self.run_once(&*ledger).await;
                    log(&round, &mut known);
                    if let Ok(report) = &round {
                        told(report);
                    }
                } => {}
            }
        }
    }

    /// One round over all incarnations with files in the folder.
    ///
    /// # Errors
    /// The folder cannot be listed. What concerns one incarnation alone is in the report.
    pub async fn run_once(&mut self, ledger: &dyn Ledger) -> Result<RecoveryReport, RecoveryError> {
        let folder = self.folder.clone();
        let (found, misnamed) = off_thread(move || estate::survey(&folder)).await?;
        let mut report = RecoveryReport { left: misnamed, ..RecoveryReport::default() };
        self.kept.retain(|incarnation, _| found.contains(incarnation));
        for incarnation in found {
            if incarnation == self.own || self.kept.contains_key(&incarnation) {
                continue;
            }
            if let Err(error) = self.recover(incarnation, ledger, &mut report).await {
                report.waiting.push((incarnation, error));
            }
        }
        report.left.extend(self.kept.values().flatten().cloned());
        Ok(report)
    }

    async fn recover(
        &mut self,
        incarnation: Incarnation,
        ledger: &dyn Ledger,
        report: &mut RecoveryReport,
    ) -> Result<(), RecoveryError> {
        let (folder, store_id) = (self.folder.clone(), self.store_id);
        let Some(estate) = off_thread(move || Estate::take_up(&folder, incarnation, store_id)).await? else {
            return Ok(());
        };
        for (hour, of_hour) in &estate.hours {
            report.recovered.extend(merge(incarnation, *hour, of_hour, ledger).await?);
        }
        let left = estate.left.clone();
        off_thread(move || {
            estate.hours.keys().try_for_each(|hour| estate.bury(*hour))?;
            estate.close()
        })
        .await?;
        if !left.is_empty() {
            self.kept.insert(incarnation, left);
        }
        Ok(())
    }
}

/// Merges one hour; `None` where no call was counted in it.
async fn merge(
    incarnation: Incarnation,
    hour: Hour,
    estate: &HourEstate,
    ledger: &dyn Ledger,
) -> Result<Option<RecoveredHour>, StoreError> {
    let lines = used_lines(estate);
    let mut sequence = estate.flushes;
    let mut rest = lines.as_slice();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(rest.len().min(BATCH));
        sequence += 1;
        // The dead add nothing more, so with the last batch the hour is complete.
        let watermark = if later.is_empty() && !estate.incomplete { hour.end() } else { WallTime(0) };
        ledger.merge(Flush { incarnation, hour, sequence, lines: batch.to_vec(), watermark, closing: None }).await?;
        rest = later;
    }
    let interrupted = lines.iter().map(|(_, counters)| counters.interrupted).fold(0, u64::saturating_add);
    let recovered = RecoveredHour { incarnation, hour, lines: lines.len(), interrupted, complete: !estate.incomplete };
    Ok((!lines.is_empty()).then_some(recovered))
}

fn used_lines(estate: &HourEstate) -> Vec<(LineKey, Counters)> {
    let all = estate.lines.iter().map(|(key, sum)| {
        let interrupted = estate.interrupted(&sum.counters);
        (*key, Counters { interrupted, ..sum.counters })
    });
    all.filter(|(_, counters)| *counters != Counters::default()).collect()
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Logs what was done, and what stays where it is once.
fn log(round: &Result<RecoveryReport, RecoveryError>, known: &mut Vec<LeftInPlace>) {
    let report = match round {
        Ok(report) => report,
        Err(error) => return tracing::warn!(%error, "recovery of usage could not look for dead gateways"),
    };
    for hour in &report.recovered {
        let RecoveredHour { incarnation, hour, lines, interrupted, complete } = hour;
        tracing::info!(%incarnation, %hour, lines, interrupted, complete, "recovered the usage of a dead gateway");
    }
    for left in report.left.iter().filter(|left| !known.contains(left)) {
        tracing::error!(file = %left.path.display(), why = %left.why, "a slab file is left in place");
    }
    for (incarnation, error) in &report.waiting {
        tracing::warn!(%incarnation, %error, "the usage of a dead gateway is not recovered yet");
    }
    known.clone_from(&report.left);
}
