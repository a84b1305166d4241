//! The thread of the meter: makes this gateway known to the ledger, carries usage there, and looks after the dead.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::{AppError, DataPlane};
use crate::clock;
use crate::meter::{Flushed, Flusher, Recovery, RecoveryReport};
use crate::store::{Ledger, StoreError};

/// How long after the ledger did not take this gateway's enrolment it is asked again.
const ENROL_AGAIN: Duration = Duration::from_millis(500);
/// How often the dead are looked for.
const RECOVER_EVERY: Duration = Duration::from_secs(5);

/// The thread that carries usage to the ledger and looks after the slabs of the dead.
pub struct Metering {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<(), StoreError>>,
}

impl Metering {
    pub fn start(plane: &mut DataPlane, ledger: Arc<dyn Ledger>, every: Duration) -> Result<Self, AppError> {
        let (stop, stopped) = watch::channel(false);
        let mut flusher = Flusher::new(&plane.meter, Arc::clone(&ledger));
        let recovery = Recovery::new(&plane.meter);
        let (metrics, enrolled) = (Arc::clone(&plane.gateway.metrics), plane.enrolled.take());
        let (recovered_lines, files_left) = (metrics.meter_recovered_lines.clone(), metrics.meter_files_left.clone());
        let count_recovered = move |report: &RecoveryReport| {
            files_left.set(gauge(report.left.len() as u64));
            recovered_lines.inc_by(report.recovered.iter().map(|hour| hour.lines as u64).sum());
        };
        let meter = Arc::clone(&plane.meter);
        let count_flush = move |flushed: &Flushed| {
            match flushed {
                Ok(report) => {
                    metrics.meter_flushes.inc_by(report.batches as u64);
                    metrics.meter_lines.inc_by(report.lines as u64);
                }
                Err(_) => metrics.meter_flush_failures.inc(),
            }
            metrics.meter_no_room.set(i64::from(!meter.is_writable()));
            metrics.meter_spool_fails.set(i64::from(!meter.is_spool_writable()));
            metrics.meter_uncounted.set(gauge(meter.lost()));
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
        let run = move || {
            runtime.block_on(async move {
                let recovering = tokio::spawn(recovery.run(ledger, RECOVER_EVERY, stopped.clone(), count_recovered));
                if flusher.enrol_until(ENROL_AGAIN, stopped.clone()).await
                    && let Some(enrolled) = enrolled
                {
                    let _ = enrolled.send(());
                }
                let flusher = flusher.run(every, stopped, count_flush).await;
                let _ = recovering.await;
                flusher.retire(clock::wall()).await.map(drop)
            })
        };
        let thread = std::thread::Builder::new().name("meter".into()).spawn(run).map_err(AppError::Thread)?;
        Ok(Self { stop, thread })
    }

    /// Stops and flushes what is left. Nothing is lost where that fails: the slab is recovered at the next start.
    pub fn finish(self) -> Result<(), AppError> {
        self.stop.send_replace(true);
        match self.thread.join() {
            Ok(flushed) => flushed.map_err(AppError::LastFlush),
            Err(_) => Err(AppError::LastFlush(StoreError::Away("the flushing thread panicked".into()))),
        }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
