//! The store on Redis: many gateways and several control planes share one. The rules are the same as everywhere; every atomic step
//! is a script, and each script first makes sure that it is still the same store on the same server (design, section 5).

mod answer;
mod backup;
mod by_hand;
mod feed;
mod fold;
mod lane;
mod ledger;
mod ledger_at;
mod opening;
mod outbox;
mod place;
mod pushes;
mod restore_usage;
mod rows;
mod scripts;
mod source;
mod watch;
mod writer;

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use self::by_hand::{ByHand, Note, journal_row};
use self::lane::{Lane, jittered};
use self::ledger::Sums;
use self::ledger_at::LedgerAt;
pub use self::ledger_at::LedgerSettings;
pub use self::opening::{Opened, Role, Settings};
use self::outbox::Outbox;
use self::place::Place;
use self::rows::View;
use self::source::Source;
pub use self::source::{SentinelNode, Sentinels};
use self::watch::Watch;
use super::confirm::{Confirmation, GatewayState};
use super::rules::queue::Queue;
use super::rules::rows::Rows;
use super::rules::{Backend, Changes};
use super::{Store, StoreError};
use crate::principal::{Revision, StoreId};

/// A read that is overtaken by changes begins again, so often.
const READS: u32 = 40;
/// How often the sums of usage are brought up to date.
const CATCH_UP_EVERY: Duration = Duration::from_secs(1);

/// One process's handle on a store that others use as well.
pub struct RedisStore {
    settings: Settings,
    journal_row: String,
    place: Arc<Place>,
    watch: Arc<Watch>,
    sums: Arc<Sums>,
    source: Source,
    /// Lives on the runtime of whoever renews, which is that of the feed: no other thread stands between a renewal and its answer.
    renewals: OnceLock<Lane>,
    /// Each for calls that must not wait behind the others.
    calls: Arc<Lane>,
    usage: Arc<LedgerAt>,
    reads: Arc<Lane>,
    /// Finishes what waits before the threads below end.
    queue: Queue,
    /// Of a control plane whose ledger is on a server of its own.
    _outbox: Option<Arc<Outbox>>,
    _threads: Engine,
}

/// The thread on which connections live. Dropping it ends them.
struct Engine {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    handle: tokio::runtime::Handle,
}

impl Engine {
    fn start() -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| StoreError::Away(format!("no thread for redis: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || drop(runtime.block_on(stopped));
        let thread = std::thread::Builder::new().name("store-redis".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { stop: Some(stop), thread: Some(thread), handle })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // It holds connections only.
            let _ = thread.join();
        }
    }
}

impl RedisStore {
    fn renewals(&self) -> &Lane {
        self.renewals.get_or_init(|| Lane::new(self.source.clone(), Handle::current()))
    }

    fn keeps_sums(&self) -> bool {
        self.settings.role.is_control()
    }
}

/// Keeps the sums of usage current for as long as somebody reads them.
async fn keep_sums(sums: std::sync::Weak<Sums>, usage: Arc<LedgerAt>) {
    while let Some(sums) = sums.upgrade() {
        if let Err(error) = sums.catch_up(&usage).await {
            tracing::debug!(%error, "the sums of usage are not current");
        }
        drop(sums);
        tokio::time::sleep(jittered(CATCH_UP_EVERY)).await;
    }
}

/// Reads at one commit, from the beginning again where another came between.
fn read_at_once<T, E: From<StoreError>>(
    lane: &Lane,
    place: &Place,
    read: impl Fn(&dyn Rows) -> Result<T, E>,
) -> Result<T, E> {
    for attempt in 0..READS {
        let view = View::new(lane, place, None);
        let answer = read(&view);
        if !view.has_moved() {
            return answer;
        }
        lane.pause_and_block(jittered(Duration::from_millis(2)) * attempt);
    }
    Err(E::from(StoreError::Away("the store changes faster than it can be read".to_owned())))
}

impl Store for RedisStore {
    fn store_id(&self) -> StoreId {
        self.place.store_id
    }

    fn lease(&self) -> Duration {
        self.watch.lease()
    }
}

impl Backend for RedisStore {
    async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut dyn Changes) -> Result<T, E> + Send + 'static,
    {
        self.queue.write(change).await
    }

    async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&dyn Rows) -> Result<T, E> + Send + 'static,
    {
        self.read_long(read).await
    }

    async fn read_long<T, E, F>(&self, read: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&dyn Rows) -> Result<T, E> + Send + 'static,
    {
        let (lane, place) = (Arc::clone(&self.reads), Arc::clone(&self.place));
        let ended = tokio::task::spawn_blocking(move || read_at_once(&lane, &place, read)).await;
        ended.map_err(|error| StoreError::Away(format!("a read ended early: {error}")))?
    }

    async fn confirm(&self, revision: Revision, wait: Duration) -> Result<Confirmation, StoreError> {
        let replicas = self.watch.replicas(self.settings.replicas);
        if replicas > 0 && !self.watch.replicated.reaches(revision) {
            // Changes nothing, but waits for the replicas like a change.
            match self.queue.write(|_| Ok::<(), StoreError>(())).await {
                Ok(()) => self.watch.replicated.raise(revision),
                Err(error) => tracing::warn!(%error, %revision, "a change is not on enough replicas yet"),
            }
        }
        self.watch.confirm(revision, wait, replicas).await
    }

    async fn gateways(&self) -> Result<Vec<GatewayState>, StoreError> {
        self.watch.list().await
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        // Not as one that opens another epoch: until it is open nobody else is answered.
        let answer = self.calls.call(&scripts::CHECK, &[self.place.name(), b""]).await?;
        self.place.good(answer).map(drop)
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match self.is_closed() {
            false => Ok(()),
            true => Err(StoreError::Frozen("other control planes have still to make their changes again".to_owned())),
        }
    }

    fn journal_row(&self) -> &str {
        &self.journal_row
    }
}

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;
