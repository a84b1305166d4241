//! Who is registered with a shared store, and how far each has come: asked of the store, and noted with the moment on this
//! process's clock.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::answer::{Answer, unexpected};
use super::lane::Lane;
use super::place::Place;
use super::{pushes, scripts};
use crate::clock;
use crate::mutant::Mutant;
use crate::principal::{Epoch, Incarnation, Revision};
use crate::store::StoreError;
use crate::store::confirm::{Confirmation, GatewayState, outwait};
use crate::store::gateways::{Gateways, Registered, Told, UNNAMED};
use crate::time::BootTime;

/// Messages may get lost: without one it is looked again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How far a replica may be behind its master when it is promoted, and what a new master needs to be one.
const PROMOTION: Duration = Duration::from_secs(2);
/// How often it is looked for gateways that are gone.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// Gateways that may be heard of between two looks; with more of them a look comes a little later.
const HEARD: usize = 4096;

pub struct Watch {
    pub gateways: Gateways,
    pub replicated: Replicated,
    lane: Lane,
    place: Arc<Place>,
    lease_ms: AtomicU64,
    /// Replicas that the store goes on without, as last heard.
    dropped: AtomicUsize,
    /// When the last look began.
    looked: tokio::sync::Mutex<BootTime>,
    /// Who said since then that it has applied something. A hint for when to look, and nothing else.
    heard: Mutex<HashSet<Incarnation>>,
    /// The epoch of the last renewal of this process.
    renewed_in: Mutex<Option<Epoch>>,
}

/// Up to where changes are known to be on enough replicas.
#[derive(Default)]
pub struct Replicated(AtomicU64);

impl Replicated {
    pub fn reaches(&self, revision: Revision) -> bool {
        self.0.load(Ordering::SeqCst) >= revision.0
    }

    pub fn raise(&self, revision: Revision) {
        self.0.fetch_max(revision.0, Ordering::SeqCst);
    }
}

impl Watch {
    pub fn new(gateways: Gateways, lane: Lane, place: Arc<Place>, lease: Duration) -> Self {
        let watch = Self {
            gateways,
            replicated: Replicated::default(),
            lane,
            place,
            lease_ms: AtomicU64::default(),
            dropped: AtomicUsize::default(),
            looked: tokio::sync::Mutex::new(BootTime(0)),
            heard: Mutex::default(),
            renewed_in: Mutex::default(),
        };
        watch.lease_is(lease);
        watch
    }

    pub fn renewed_in(&self, epoch: Epoch) {
        *self.renewed_in.lock() = Some(epoch);
    }

    /// Whether an answer of this epoch is from another server than the one that renews the lease.
    pub fn is_another_epoch(&self, epoch: Epoch) -> bool {
        self.renewed_in.lock().is_some_and(|renewed| renewed != epoch)
    }

    /// The lease in force, as last heard.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms.load(Ordering::Relaxed))
    }

    pub fn lease_is(&self, lease: Duration) {
        self.lease_ms.store(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn goes_on_without(&self, replicas: usize) {
        self.dropped.store(replicas, Ordering::Relaxed);
    }

    /// Of `wanted` replicas those that the operator has not dropped.
    pub fn replicas(&self, wanted: usize) -> usize {
        wanted.saturating_sub(self.dropped.load(Ordering::Relaxed))
    }

    /// What a script says of the store at the end of its answer.
    pub fn told(&self, answer: &mut Answer) -> Result<Told, StoreError> {
        let (epoch, number) = (answer.parsed()?, answer.parsed()?);
        let revision = Revision(answer.parsed()?);
        let lease = Duration::from_millis(answer.parsed()?);
        let quiet = answer.text()?.parse().is_ok_and(|quiet: crate::principal::Epoch| quiet == epoch);
        self.goes_on_without(answer.parsed()?);
        let mut gateways = Vec::new();
        while !answer.is_at_end() {
            let incarnation = answer.parsed()?;
            let said = answer.text()?;
            let mut parts = said.splitn(3, ' ');
            let mut number = || parts.next()?.parse().ok();
            let counts = number().zip(number());
            let (applied, renewals) = counts.ok_or_else(|| unexpected("a gateway without its counts"))?;
            let version = parts.next().unwrap_or_default().to_owned();
            gateways.push(Registered { incarnation, applied: Revision(applied), renewals, version });
        }
        let unquiet = (!quiet).then(|| outwait(lease) + PROMOTION);
        Ok(Told { epoch, number, revision, lease, unquiet, gateways })
    }

    /// A gateway said that it has applied something, or that it is gone.
    pub fn heard_of(&self, incarnation: Incarnation) {
        let mut heard = self.heard.lock();
        if heard.len() < HEARD {
            heard.insert(incarnation);
        }
        drop(heard);
        self.gateways.wake();
    }

    /// Asks the store who is there, unless that was done at `since` or later. Of many that ask at once, one does.
    async fn look(&self, since: BootTime) -> Result<(), StoreError> {
        let mut looked = self.looked.lock().await;
        if *looked >= since {
            return Ok(());
        }
        self.heard.lock().clear();
        let began = clock::boot();
        let mut answer =
            self.place.good(self.lane.call(&scripts::GATEWAYS, &[self.place.name(), &self.place.server()]).await?)?;
        let (told, now) = (self.told(&mut answer)?, clock::boot());
        self.gateways.told(&told, now);
        *looked = began;
        if told.unquiet.is_some() && self.gateways.became_quiet(now) {
            let epoch = told.epoch.to_string();
            self.place.good(
                self.lane.call(&scripts::QUIET, &[self.place.name(), &self.place.server(), epoch.as_bytes()]).await?,
            )?;
        }
        Ok(())
    }

    pub async fn list(&self) -> Result<Vec<GatewayState>, StoreError> {
        self.look(clock::boot()).await?;
        Ok(self.gateways.list())
    }

    /// Waits until `revision` holds on every gateway that was there when it was committed, or until `wait` is over.
    ///
    /// The store is asked once all who are awaited have been heard of, and otherwise now and then: what was heard says only when to
    /// ask. Whatever is answered here, it was asked after the change was on its replicas.
    pub async fn confirm(
        &self,
        revision: Revision,
        wait: Duration,
        replicas: usize,
    ) -> Result<Confirmation, StoreError> {
        let began = clock::boot();
        let give_up = began.plus(wait);
        let mut look_at = give_up.min(began.plus(LOOK_AGAIN));
        loop {
            let mut progress = self.gateways.progress();
            let (now, mut confirmation) = self.known(revision);
            if now >= look_at || self.heard_of_all(&confirmation) {
                let looked = self.look(if confirmation.is_everywhere() { began } else { now }).await;
                let now;
                (now, confirmation) = self.known(revision);
                look_at = now.plus(LOOK_AGAIN);
                if let Err(error) = &looked {
                    // The change was made; only who has it cannot be seen now. Leases of before it end all the same.
                    tracing::debug!(%error, %revision, "a change cannot be confirmed now");
                    confirmation.unconfirmed.push(UNNAMED);
                    confirmation.at_latest = self.gateways.bound(revision, now).max(LOOK_AGAIN);
                } else if replicas > 0 && !self.replicated.reaches(revision) {
                    confirmation.unconfirmed.push(UNNAMED);
                }
                if confirmation.is_everywhere() || now >= give_up {
                    return Ok(confirmation);
                }
            }
            if !confirmation.at_latest.is_zero() {
                look_at = look_at.min(now.plus(confirmation.at_latest));
            }
            look_at = look_at.min(give_up);
            // Whether something moved or the time is over, the next round looks for itself.
            let _ = tokio::time::timeout(look_at.since(clock::boot()), progress.changed()).await;
        }
    }

    /// How far `revision` has come by the last look.
    fn known(&self, revision: Revision) -> (BootTime, Confirmation) {
        let now = clock::boot();
        let mut confirmation = self.gateways.confirmation(revision, now);
        if Mutant::NoWait.is_on() {
            confirmation.unconfirmed.clear();
        }
        (now, confirmation)
    }

    /// Whether a look may find that nobody is awaited any longer.
    fn heard_of_all(&self, confirmation: &Confirmation) -> bool {
        let heard = self.heard.lock();
        confirmation.unconfirmed.iter().all(|incarnation| heard.contains(incarnation))
    }

    /// For as long as a control plane runs: forgets gateways that were silent for long, and notices when leases of an earlier
    /// epoch are over.
    pub async fn tidy(watch: Weak<Self>) {
        while let Some(watch) = watch.upgrade() {
            if let Err(error) = watch.tidy_once().await {
                tracing::debug!(%error, "gateways could not be looked after");
            }
            drop(watch);
            tokio::time::sleep(TIDY_EVERY).await;
        }
    }

    async fn tidy_once(&self) -> Result<(), StoreError> {
        self.look(clock::boot()).await?;
        for (incarnation, renewals) in self.gateways.stale(clock::boot()) {
            tracing::warn!(%incarnation, "a gateway was silent for long and is forgotten");
            let renewals = renewals.to_string();
            pushes::release(&self.lane, &self.place, incarnation, &renewals).await?;
        }
        Ok(())
    }
}
