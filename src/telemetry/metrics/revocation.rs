//! How changes reach the gateways: what the feed of a gateway follows, and what a control plane waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::Registrar;
use super::families::{Awaited, Counted, FeedRestart};
use crate::time::BootTime;

/// In seconds: a change is in force in milliseconds when all is well, and within a lease when a gateway is silent.
const TIMES: [f64; 15] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

pub struct Revocation {
    /// Renewals that failed.
    pub renewal_failures: IntCounter,
    /// Revisions that the store was ahead at the last renewal.
    pub lag: IntGauge,
    /// How often the gateway had to forget what it held, by reason.
    pub restarts: Counted<FeedRestart>,
    /// Messages heard between renewals.
    pub pushes: IntCounter,
    /// Changes that were answered, by whether every gateway had them by then.
    pub awaited: Counted<Awaited>,
    /// From a change to its last acknowledgement.
    pub took: Histogram,
    age: Gauge,
    /// Nanoseconds of [`BootTime`] at which the last good renewal was sent; 0: none yet.
    renewed: AtomicU64,
}

impl Revocation {
    pub(super) fn new(r: &Registrar<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            renewal_failures: r.counter("feed_renewal_failures_total", "Renewals of the lease that failed.")?,
            lag: r.int_gauge("feed_lag_revisions", "Revisions the store was ahead at the last renewal.")?,
            restarts: r.counted(
                "feed_restarts_total",
                "How often everything held was forgotten, by reason: begin, another epoch, a log with a gap or trimmed.",
            )?,
            pushes: r.counter("feed_pushes_total", "Messages heard from control planes between renewals.")?,
            awaited: r.counted(
                "changes_awaited_total",
                "Changes answered by whether every gateway had them: everywhere (200), or pending (202).",
            )?,
            took: r.histogram("revocation_seconds", "From a change to its last acknowledgement.", &TIMES)?,
            age: r.gauge("tollgate_feed_age_seconds", "Since the last good renewal; -1 before the first.")?,
            renewed: AtomicU64::new(0),
        })
    }

    /// The store answered a renewal that was sent at `sent`, and was `lag` revisions ahead.
    pub fn renewed(&self, sent: BootTime, lag: u64) {
        self.renewed.store(sent.0, Ordering::Relaxed);
        self.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    /// A change was answered: `took` is known where every gateway has acknowledged it.
    pub fn answered(&self, as_what: Awaited, took: Option<Duration>) {
        self.awaited.of(&as_what).inc();
        if let Some(took) = took {
            self.took.observe(took.as_secs_f64());
        }
    }

    pub(super) fn age_at(&self, now: BootTime) {
        match self.renewed.load(Ordering::Relaxed) {
            0 => self.age.set(-1.0),
            renewed => self.age.set(now.since(BootTime(renewed)).as_secs_f64()),
        }
    }
}
