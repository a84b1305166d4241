//! Asks the store for a key that the keyring does not know: one load per digest at a time, and a bounded number in all.
//!
//! Callers who showed too many bad keys wait for each other and for nobody else: however many keys they try, the store is asked
//! for a few of them at a time. One of those keys may be good, so none is refused unasked while there is room to wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::auth::keyring::{Fill, Keyring};
use crate::clock;
use crate::fault;
use crate::key::Digest;
use crate::store::{FeedStore, Found};
use crate::telemetry::metrics::{LoadResult, Metrics};

/// Loads under way at once; the rest wait.
const AT_ONCE: usize = 64;
/// Loads under way or waiting; above it a call is told that its key cannot be verified now.
const WAITING_MOST: usize = 4096;
/// Of these, on behalf of callers in [`Lane::Suspect`].
const SUSPECT_AT_ONCE: usize = 2;
/// Loads of theirs under way or waiting.
const SUSPECT_WAITING_MOST: usize = 512;
/// A fill that the log overtook is repeated this often. While many keys are deleted that happens to every other one, so what
/// ends a load is rather its time.
const TRIES: usize = 256;
/// How long a call waits for a load.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Loader {
    shared: Arc<Shared>,
}

struct Shared {
    keyring: Arc<Keyring>,
    store: Arc<dyn FeedStore>,
    metrics: Arc<Metrics>,
    under_way: Mutex<HashMap<Digest, watch::Receiver<Progress>>>,
    slots: Semaphore,
    suspect_slots: Semaphore,
    suspect_places: Arc<Semaphore>,
}

/// With whom a load waits its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Usual,
    /// The caller's address has shown too many bad keys.
    Suspect,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    UnderWay,
    Done,
    Failed,
}

/// The store was not asked, or did not answer. It says nothing about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLoaded {
    CannotLoad,
    /// Too many of the lane are waiting.
    LaneFull,
}

impl Loader {
    pub fn new(keyring: Arc<Keyring>, store: Arc<dyn FeedStore>, metrics: Arc<Metrics>) -> Self {
        let shared = Shared {
            keyring,
            store,
            metrics,
            under_way: Mutex::default(),
            slots: Semaphore::new(AT_ONCE),
            suspect_slots: Semaphore::new(SUSPECT_AT_ONCE),
            suspect_places: Arc::new(Semaphore::new(SUSPECT_WAITING_MOST)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// When it returns `Ok`, the keyring has what the store says of the key.
    pub async fn load(&self, digest: Digest, lane: Lane) -> Result<(), NotLoaded> {
        let mut progress = self.join_or_start(digest, lane)?;
        let ended = tokio::time::timeout(PATIENCE, progress.wait_for(|now| *now != Progress::UnderWay)).await;
        match ended {
            Ok(Ok(progress)) if *progress == Progress::Done => Ok(()),
            _ => Err(NotLoaded::CannotLoad),
        }
    }

    /// The load runs on its own, so a caller that goes away takes nothing from the others that wait for it.
    fn join_or_start(&self, digest: Digest, lane: Lane) -> Result<watch::Receiver<Progress>, NotLoaded> {
        let mut under_way = self.shared.under_way.lock();
        if let Some(progress) = under_way.get(&digest) {
            return Ok(progress.clone());
        }
        if under_way.len() >= WAITING_MOST {
            return Err(NotLoaded::CannotLoad);
        }
        let place = match lane {
            Lane::Usual => None,
            Lane::Suspect => Some(self.place_of_a_suspect()?),
        };
        let (report, progress) = watch::channel(Progress::UnderWay);
        under_way.insert(digest, progress.clone());
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let ended = tokio::time::timeout(PATIENCE, shared.run(digest, lane)).await;
            drop(place);
            shared.under_way.lock().remove(&digest);
            let result = ended.unwrap_or(Err(NotLoaded::CannotLoad));
            shared.metrics.keyring_loads.of(&result.unwrap_or(LoadResult::Failed)).inc();
            report.send_replace(if result.is_ok() { Progress::Done } else { Progress::Failed });
        });
        Ok(progress)
    }

    fn place_of_a_suspect(&self) -> Result<OwnedSemaphorePermit, NotLoaded> {
        Arc::clone(&self.shared.suspect_places).try_acquire_owned().map_err(|_| NotLoaded::LaneFull)
    }
}

impl Shared {
    async fn run(&self, digest: Digest, lane: Lane) -> Result<LoadResult, NotLoaded> {
        let _turn = match lane {
            Lane::Usual => None,
            Lane::Suspect => Some(self.suspect_slots.acquire().await.map_err(|_| NotLoaded::CannotLoad)?),
        };
        let _slot = self.slots.acquire().await.map_err(|_| NotLoaded::CannotLoad)?;
        for _ in 0..TRIES {
            let under_way = self.keyring.begin_load();
            let loaded = self.store.load(digest).await.map_err(|error| {
                tracing::warn!(%error, "a key could not be loaded");
                NotLoaded::CannotLoad
            })?;
            if let Some(pause) = fault::pause("load.answered") {
                tokio::time::sleep(pause).await;
            }
            if self.keyring.fill(&under_way, digest, &loaded, clock::boot()) == Fill::Done {
                let found = matches!(loaded.found, Found::Key { .. });
                return Ok(if found { LoadResult::Hit } else { LoadResult::Unknown });
            }
        }
        Err(NotLoaded::CannotLoad)
    }
}
