//! The gateways of this process: who renews, what each has applied, who still has to. All in memory, since none outlives the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::clock;
use crate::key::Digest;
use crate::principal::{Epoch, Incarnation, Revision};
use crate::store::Push;
use crate::store::confirm::{Acknowledged, Confirmation, GatewayState, outwait};
use crate::time::BootTime;

/// Pushes that a slow reader may be behind before it loses some; a lost one costs it nothing but time.
const PUSHES: usize = 1024;
/// Changes whose moment is remembered.
const COMMITS: usize = 16_384;
/// Acknowledgements remembered of each gateway.
const STEPS: usize = 4096;
/// A gateway that was silent for this many times its lease is forgotten.
const FORGOTTEN_AFTER: u32 = 10;

pub struct Gateways {
    epoch: Epoch,
    /// After this long without a renewal a gateway has no lease.
    outwait: Duration,
    /// The revision found in the file, and when.
    opened: (Revision, BootTime),
    state: Mutex<State>,
    pushes: broadcast::Sender<Push>,
    /// Changes with every acknowledgement and release.
    progress: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    gateways: HashMap<Incarnation, Gateway>,
    committed: BTreeMap<Revision, BootTime>,
}

struct Gateway {
    registered_at: BootTime,
    renewed_at: BootTime,
    applied: Revision,
    /// When `applied` moved, and to where; oldest first.
    steps: VecDeque<(Revision, BootTime)>,
}

impl Gateways {
    pub fn new(epoch: Epoch, lease: Duration, revision: Revision) -> Self {
        Self {
            epoch,
            outwait: outwait(lease),
            opened: (revision, clock::boot()),
            state: Mutex::default(),
            pushes: broadcast::Sender::new(PUSHES),
            progress: watch::Sender::new(0),
        }
    }

    pub fn pushes(&self) -> broadcast::Receiver<Push> {
        self.pushes.subscribe()
    }

    /// A renewal came in. Called before the log is read for it: so a change is either in what the gateway is about to read, or
    /// its deleter finds the gateway here.
    pub fn renewed(&self, incarnation: Incarnation, applied: Revision) {
        let now = clock::boot();
        let mut state = self.state.lock();
        if !state.gateways.contains_key(&incarnation) {
            let forgotten = self.outwait * FORGOTTEN_AFTER;
            state.gateways.retain(|_, gateway| now.since(gateway.renewed_at) < forgotten);
        }
        let gateway = state.gateways.entry(incarnation).or_insert_with(|| Gateway::new(now));
        gateway.renewed_at = now;
        let moved = gateway.advance(applied, now);
        drop(state);
        if moved {
            self.progress.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    pub fn released(&self, incarnation: Incarnation) {
        self.state.lock().gateways.remove(&incarnation);
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes are on the disk. Remembers the moment, then tells the gateways.
    pub fn committed(&self, changes: &[(Revision, Option<Digest>)]) {
        let now = clock::boot();
        let mut state = self.state.lock();
        state.committed.extend(changes.iter().map(|(revision, _)| (*revision, now)));
        while state.committed.len() > COMMITS {
            state.committed.pop_first();
        }
        drop(state);
        for (revision, deleted) in changes {
            // Nobody listening is no error: a gateway that comes later reads the log.
            let _ = self.pushes.send(Push { epoch: self.epoch, revision: *revision, deleted: *deleted });
        }
    }

    pub fn list(&self) -> Vec<GatewayState> {
        let now = clock::boot();
        let state = self.state.lock();
        let mut list: Vec<_> =
            state.gateways.iter().map(|(incarnation, gateway)| self.seen(*incarnation, gateway, now)).collect();
        list.sort_by_key(|gateway| gateway.incarnation);
        list
    }

    fn seen(&self, incarnation: Incarnation, gateway: &Gateway, now: BootTime) -> GatewayState {
        let silent_for = now.since(gateway.renewed_at);
        GatewayState { incarnation, applied: gateway.applied, silent_for, leased: silent_for < self.outwait }
    }

    /// Waits until `revision` holds on every gateway that was there when it was committed, or until `wait` is over.
    pub async fn confirm(&self, revision: Revision, wait: Duration) -> Confirmation {
        let give_up = clock::boot().plus(wait);
        let mut progress = self.progress.subscribe();
        loop {
            progress.mark_unchanged();
            let now = clock::boot();
            let confirmation = self.confirmation(revision, now);
            if confirmation.is_everywhere() || now >= give_up {
                return confirmation;
            }
            let next = give_up.since(now).min(confirmation.at_latest);
            // Whether something moved or the time is over, the next round looks for itself.
            let _ = tokio::time::timeout(next, progress.changed()).await;
        }
    }

    fn confirmation(&self, revision: Revision, now: BootTime) -> Confirmation {
        let state = self.state.lock();
        let committed_at = self.committed_at(&state, revision, now);
        let mut confirmation = Confirmation {
            revision,
            acknowledged: Vec::new(),
            lapsed: Vec::new(),
            unconfirmed: Vec::new(),
            at_latest: Duration::ZERO,
        };
        for (incarnation, gateway) in &state.gateways {
            if gateway.applied >= revision {
                let after = gateway.when(revision).map(|at| at.since(committed_at));
                confirmation.acknowledged.push(Acknowledged { incarnation: *incarnation, after });
                continue;
            }
            // One that came later has read the log, with the change in it, before its first lease.
            if gateway.registered_at > committed_at {
                continue;
            }
            // A renewal after the change gives no lease before the change is applied.
            let lapses_at = gateway.renewed_at.min(committed_at).plus(self.outwait);
            if now >= lapses_at {
                confirmation.lapsed.push(*incarnation);
            } else {
                confirmation.unconfirmed.push(*incarnation);
                confirmation.at_latest = confirmation.at_latest.max(lapses_at.since(now));
            }
        }
        drop(state);
        confirmation.acknowledged.sort_by_key(|acknowledged| acknowledged.incarnation);
        confirmation
    }

    /// When a change was committed, or later than that, never earlier. What was in the file before this process opened it was
    /// there before any of its gateways.
    fn committed_at(&self, state: &State, revision: Revision, now: BootTime) -> BootTime {
        let (revision_found, opened_at) = self.opened;
        if revision <= revision_found {
            return opened_at;
        }
        // Revisions have no gaps, so the next one remembered is the one asked for, or the oldest that memory reaches.
        state.committed.range(revision..).next().map_or(now, |(_, at)| *at)
    }
}

impl Gateway {
    fn new(now: BootTime) -> Self {
        Self { registered_at: now, renewed_at: now, applied: Revision(0), steps: VecDeque::new() }
    }

    /// True where `applied` is news.
    fn advance(&mut self, applied: Revision, now: BootTime) -> bool {
        if applied <= self.applied {
            return false;
        }
        self.applied = applied;
        if self.steps.len() >= STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back((applied, now));
        true
    }

    /// When this gateway had applied `revision`; absent where that is no longer known.
    fn when(&self, revision: Revision) -> Option<BootTime> {
        let first = self.steps.partition_point(|(applied, _)| *applied < revision);
        let forgotten = first == 0 && self.steps.len() >= STEPS;
        self.steps.get(first).filter(|_| !forgotten).map(|(_, at)| *at)
    }
}
