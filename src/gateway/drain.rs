//! Calls whose client has left, or whose time is over, are read on without it: a bounded number of each, for a bounded time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::gateway::exchange::Exchange;
use crate::meter::record::Outcome;
use crate::telemetry::metrics::{DrainEnd, Metrics};

pub struct Drains {
    metrics: Arc<Metrics>,
    left: Arc<AtomicUsize>,
    /// Counted apart: a service that hangs, or somebody who gives calls no time, takes no place from clients that leave.
    overdue: Arc<AtomicUsize>,
    /// Of each.
    most: usize,
    patience: Duration,
}

impl Drains {
    pub fn new(most: usize, patience: Duration, metrics: Arc<Metrics>) -> Self {
        Self { metrics, left: Arc::default(), overdue: Arc::default(), most, patience }
    }

    /// The number of calls being read on.
    pub fn live(&self) -> usize {
        self.left.load(Ordering::SeqCst) + self.overdue.load(Ordering::SeqCst)
    }

    /// Ends an exchange without a client with `work`. Above the bound it is committed at once, with what is known of it.
    pub fn adopt<F>(&self, exchange: Box<Exchange>, work: impl FnOnce(Box<Exchange>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let live = if exchange.is_overdue() { &self.overdue } else { &self.left };
        let place = Place::take(live);
        match Handle::try_current() {
            // When time runs out the exchange is dropped, and so counted as aborted where it is not overdue.
            Ok(runtime) if live.load(Ordering::SeqCst) <= self.most => {
                let work = tokio::time::timeout(self.patience, work(exchange));
                let metrics = Arc::clone(&self.metrics);
                runtime.spawn(async move {
                    let end = if work.await.is_ok() { DrainEnd::Finished } else { DrainEnd::Expired };
                    metrics.abandoned_drains.of(&end).inc();
                    drop(place);
                });
            }
            _ => {
                self.metrics.abandoned_drains.of(&DrainEnd::NoRoom).inc();
                exchange.end_as(Outcome::ClientAbort);
            }
        }
    }
}

struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(live))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
