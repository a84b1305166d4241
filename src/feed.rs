//! Follows the change log into the keyring and keeps the lease: renew, apply, acknowledge (design, section 5).
//!
//! It runs on a thread and runtime of its own, so that load on the data plane cannot starve it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, oneshot, watch};

use crate::auth::keyring::Keyring;
use crate::auth::lease::Lease;
use crate::clock;
use crate::mutant::Mutant;
use crate::principal::{Incarnation, Revision, StoreId};
use crate::store::{FeedStore, LogEntry, LogTail, Push, Renew, Renewal, StoreError};
use crate::telemetry::metrics::{FeedRestart, Metrics};

/// A renewal at least this often, or 20 times per lease where that is more often.
const RENEW_EVERY: Duration = Duration::from_millis(250);
/// A renewal that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rounds of one renewal: a gateway that is far behind catches up in several.
const ROUNDS: usize = 1000;

/// Where calls ask for a renewal, and where readiness is read. Stops the feed when dropped.
pub struct Feed {
    nudge: Arc<Notify>,
    attempts: watch::Receiver<Attempts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Renewals so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    pub ended: u64,
    pub last_succeeded: bool,
}

/// What the feed keeps current.
#[derive(Clone)]
pub struct Followed {
    pub incarnation: Incarnation,
    pub store_id: StoreId,
    pub keyring: Arc<Keyring>,
    pub lease: Arc<Lease>,
    pub metrics: Arc<Metrics>,
}

impl Followed {
    fn is_current(&self, renewal: &Renewal) -> bool {
        self.keyring.epoch() == Some(renewal.epoch) && self.keyring.applied() >= renewal.revision
    }
}

/// Whether there is no gap between what is applied and these entries, or among them.
fn goes_on_from(applied: Revision, entries: &[LogEntry]) -> bool {
    entries.iter().zip(applied.0 + 1..).all(|(entry, wanted)| entry.revision.0 == wanted)
}

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store did not answer a renewal within {PATIENCE:?}")]
    Slow,
    #[error(
        "this is another store ({found}) than the one this gateway started with ({expected}): no lease is taken from it"
    )]
    OtherStore { found: StoreId, expected: StoreId },
    #[error("the log kept growing faster than it could be applied")]
    Behind,
}

impl Feed {
    pub fn start(store: Arc<dyn FeedStore>, followed: Followed) -> io::Result<Self> {
        let (now, begin) = oneshot::channel();
        let _ = now.send(());
        Self::start_after(begin, store, followed)
    }

    /// Takes no lease before it is told to `begin`.
    pub fn start_after(
        begin: oneshot::Receiver<()>,
        store: Arc<dyn FeedStore>,
        followed: Followed,
    ) -> io::Result<Self> {
        let nudge = Arc::new(Notify::new());
        let (report, attempts) = watch::channel(Attempts::default());
        let (stop, stopped) = oneshot::channel();
        let follower = Follower { store, followed, nudge: Arc::clone(&nudge), report, every: RENEW_EVERY };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("feed".into())
            .spawn(move || runtime.block_on(follower.run(begin, stopped)))?;
        Ok(Self { nudge, attempts, stop: Some(stop), thread: Some(thread) })
    }

    /// Asks for a renewal at once and waits until one has ended, well or not.
    pub async fn renew(&self) {
        let mut attempts = self.attempts.clone();
        let before = attempts.borrow_and_update().ended;
        self.nudge.notify_one();
        let _ = tokio::time::timeout(PATIENCE, attempts.wait_for(|now| now.ended > before)).await;
    }

    pub fn attempts(&self) -> Attempts {
        *self.attempts.borrow()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Follower {
    store: Arc<dyn FeedStore>,
    followed: Followed,
    nudge: Arc<Notify>,
    report: watch::Sender<Attempts>,
    every: Duration,
}

impl Follower {
    async fn run(mut self, begin: oneshot::Receiver<()>, mut stopped: oneshot::Receiver<()>) {
        tokio::select! {
            _ = &mut stopped => return,
            Ok(()) = begin => {}
        }
        let mut pushes = self.store.pushes();
        loop {
            self.attempt().await;
            clock::compare();
            tokio::select! {
                _ = &mut stopped => break,
                () = self.nudge.notified() => {}
                push = pushes.recv() => self.take(push),
                () = tokio::time::sleep(self.every) => {}
            }
        }
        if let Err(error) = self.store.release(self.followed.incarnation).await {
            tracing::warn!(%error, "the lease could not be given back; deletes wait until it has ended");
        }
    }

    /// A push flags the key and triggers a renewal; what it says is believed only once the log says it too.
    fn take(&self, push: Result<Push, broadcast::error::RecvError>) {
        let Ok(push) = push else { return };
        self.followed.metrics.revocation.pushes.inc();
        if let Some(digest) = push.deleted {
            self.followed.keyring.flag(&digest);
        }
    }

    async fn attempt(&mut self) {
        let renewed = self.renew().await;
        let before = *self.report.borrow();
        if renewed.is_err() {
            self.followed.metrics.revocation.renewal_failures.inc();
        }
        match &renewed {
            Ok(()) if !before.last_succeeded => {
                tracing::info!(applied = %self.followed.keyring.applied(), "the lease is held")
            }
            Err(error) if before.last_succeeded || before.ended == 0 => {
                tracing::error!(%error, "the lease could not be renewed")
            }
            _ => {}
        }
        self.report.send_replace(Attempts { ended: before.ended + 1, last_succeeded: renewed.is_ok() });
    }

    /// Renews until the log is applied up to the store's revision, and once more to acknowledge what was applied.
    async fn renew(&mut self) -> Result<(), FeedError> {
        for _ in 0..ROUNDS {
            let sent = clock::boot();
            let renewal = tokio::time::timeout(PATIENCE, self.store.renew(self.renew_request()));
            let renewal = renewal.await.map_err(|_| FeedError::Slow)??;
            let sent = if Mutant::LeaseFromReply.is_on() { clock::boot() } else { sent };
            let lag = renewal.revision.0.saturating_sub(self.followed.keyring.applied().0);
            self.followed.metrics.revocation.renewed(sent, lag);
            let applied_more = self.apply(&renewal).await?;
            if !self.followed.is_current(&renewal) {
                continue;
            }
            self.every = RENEW_EVERY.min(renewal.lease / 20);
            self.followed.lease.extend(sent, renewal.lease);
            self.followed.metrics.lease_until(sent.plus(renewal.lease));
            self.followed.metrics.applied_revision.set(i64::try_from(renewal.revision.0).unwrap_or(i64::MAX));
            if !applied_more {
                return Ok(());
            }
        }
        Err(FeedError::Behind)
    }

    fn renew_request(&self) -> Renew {
        let Followed { incarnation, keyring, .. } = &self.followed;
        Renew {
            incarnation: *incarnation,
            epoch: keyring.epoch(),
            applied: keyring.applied(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Returns whether anything was applied, which is then to be acknowledged.
    async fn apply(&self, renewal: &Renewal) -> Result<bool, FeedError> {
        let Followed { store_id, keyring, .. } = &self.followed;
        if renewal.store_id != *store_id {
            return Err(FeedError::OtherStore { found: renewal.store_id, expected: *store_id });
        }
        match &renewal.log {
            LogTail::Entries(entries)
                if keyring.epoch() == Some(renewal.epoch) && goes_on_from(keyring.applied(), entries) =>
            {
                keyring.apply(entries);
                Ok(!entries.is_empty())
            }
            _ if Mutant::GapIgnored.is_on() && keyring.epoch() == Some(renewal.epoch) => {
                keyring.skip_to(renewal.revision);
                Ok(true)
            }
            _ => {
                self.start_again(renewal).await?;
                Ok(true)
            }
        }
    }

    /// Another epoch, or a log that does not reach back: nothing held may be used; clusters are read anew.
    async fn start_again(&self, renewal: &Renewal) -> Result<(), FeedError> {
        let Followed { keyring, metrics, .. } = &self.followed;
        metrics.revocation.restarts.of(&self.why_again(renewal)).inc();
        keyring.forget();
        let read = tokio::time::timeout(PATIENCE, self.store.clusters()).await.map_err(|_| FeedError::Slow)??;
        // Where the store changed meanwhile nothing has begun, so the next round starts again, without a lease.
        if read.epoch == renewal.epoch && read.revision >= renewal.revision {
            keyring.begin(&read, renewal.revision);
        }
        Ok(())
    }

    fn why_again(&self, renewal: &Renewal) -> FeedRestart {
        match (self.followed.keyring.epoch(), &renewal.log) {
            (None, _) => FeedRestart::Begin,
            (Some(epoch), _) if epoch != renewal.epoch => FeedRestart::Epoch,
            (_, LogTail::Trimmed) => FeedRestart::Trimmed,
            (_, LogTail::Entries(_)) => FeedRestart::Gap,
        }
    }
}

#[cfg(test)]
mod tests;
