//! Calls whose client has left are read on without it: a bounded number, for a bounded time.

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
    live: Arc<AtomicUsize>,
    most: usize,
    patience: Duration,
}

impl Drains {
    pub fn new(most: usize, patience: Duration, metrics: Arc<Metrics>) -> Self {
        Self { metrics, live: Arc::default(), most, patience }
    }

    /// The number of abandoned calls being read on.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// Ends an abandoned exchange with `work`. Above the bound it is committed at once, with what is known of it.
    pub fn adopt<F>(&self, exchange: Box<Exchange>, work: impl FnOnce(Box<Exchange>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = Place::take(&self.live);
        match Handle::try_current() {
            // When time runs out the exchange is dropped, and so counted as aborted.
            Ok(runtime) if self.live() <= self.most => {
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
