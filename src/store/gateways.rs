//! The gateways as this process sees them: who renews, what each has applied, who still has to. All in memory and on this
//! process's clock: where the store is shared, it tells of every gateway, and what it told is noted here with the moment.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use crate::clock;
use crate::key::Digest;
use crate::principal::{Epoch, ID_BYTES, Incarnation, Revision};
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

/// Stands for gateways that nobody can name: those that may still hold a lease of an epoch that is over.
pub const UNNAMED: Incarnation = Incarnation([0; ID_BYTES]);

pub struct Gateways {
    state: Mutex<State>,
    pushes: broadcast::Sender<Push>,
    /// Changes with every acknowledgement and release.
    progress: watch::Sender<u64>,
}

struct State {
    epoch: Epoch,
    /// Of the last answer taken in.
    number: u64,
    /// After this long without a renewal a gateway has no lease.
    outwait: Duration,
    /// The revision found when the epoch was first seen, and when that was.
    opened: (Revision, BootTime),
    /// What is below was made in an earlier epoch: whoever is to have applied it has to be here at least.
    floor: Revision,
    /// Until then gateways of an earlier epoch may hold a lease.
    quiet_at: Option<BootTime>,
    gateways: BTreeMap<Incarnation, Gateway>,
    committed: BTreeMap<Revision, BootTime>,
}

/// What a shared store tells of its gateways, at one instant.
#[derive(Clone, Debug)]
pub struct Told {
    pub epoch: Epoch,
    /// Later answers in an epoch have greater numbers.
    pub number: u64,
    pub revision: Revision,
    /// The greatest lease that may be outstanding.
    pub lease: Duration,
    /// How long leases of earlier epochs may go on from now; absent where none does.
    pub unquiet: Option<Duration>,
    pub gateways: Vec<Registered>,
}

/// A gateway that a shared store knows.
#[derive(Clone, Debug)]
pub struct Registered {
    pub incarnation: Incarnation,
    pub applied: Revision,
    /// How often it has renewed.
    pub renewals: u64,
    pub version: String,
}

struct Gateway {
    registered_at: BootTime,
    renewed_at: BootTime,
    applied: Revision,
    renewals: u64,
    version: String,
    /// When `applied` moved, and to where; oldest first.
    steps: VecDeque<(Revision, BootTime)>,
}

impl Gateways {
    /// `revision` is what is found at `now`.
    pub fn new(epoch: Epoch, lease: Duration, revision: Revision, now: BootTime) -> Self {
        let state = State {
            epoch,
            number: 0,
            outwait: outwait(lease),
            opened: (revision, now),
            floor: Revision(0),
            quiet_at: None,
            gateways: BTreeMap::new(),
            committed: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), pushes: broadcast::Sender::new(PUSHES), progress: watch::Sender::new(0) }
    }

    pub fn pushes(&self) -> broadcast::Receiver<Push> {
        self.pushes.subscribe()
    }

    pub fn epoch(&self) -> Epoch {
        self.state.lock().epoch
    }

    /// A message of another process: some change was made.
    pub fn push(&self, push: Push) {
        // Nobody listening is no error: a gateway that comes later reads the log.
        let _ = self.pushes.send(push);
    }

    /// Whether something moved since it was last looked at.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Something moved, somewhere: whoever waits looks again.
    pub fn wake(&self) {
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Takes in what the store told. `now` is not earlier than the answer.
    pub fn told(&self, told: &Told, now: BootTime) {
        let mut state = self.state.lock();
        state.outwait = state.outwait.max(outwait(told.lease));
        // One that was overtaken lacks gateways that are here by now; all it tells a later one has told.
        if state.epoch == told.epoch && told.number <= state.number {
            return;
        }
        state.number = told.number;
        if state.epoch != told.epoch {
            state.begin(told.epoch, told.revision, now);
            state.quiet_at = told.unquiet.map(|left| now.plus(left));
        } else if told.unquiet.is_none() {
            state.quiet_at = None;
        } else if state.quiet_at.is_none() {
            state.quiet_at = told.unquiet.map(|left| now.plus(left));
        }
        let named: HashSet<_> = told.gateways.iter().map(|registered| registered.incarnation).collect();
        state.gateways.retain(|incarnation, _| named.contains(incarnation));
        let mut moved = false;
        for Registered { incarnation, applied, renewals, version } in &told.gateways {
            let gateway = state.gateways.entry(*incarnation).or_insert_with(|| Gateway::new(version, now));
            if gateway.renewals != *renewals {
                gateway.renewals = *renewals;
                gateway.renewed_at = now;
            }
            moved |= gateway.advance(*applied, now);
        }
        // Whatever was committed up to there was committed before now.
        if told.revision > state.opened.0 && state.committed.range(told.revision..).next().is_none() {
            state.remember(told.revision, now);
        }
        drop(state);
        // Others wait for the same gateways.
        if moved {
            self.wake();
        }
    }

    /// From `now` until no lease is left that was given before `revision` was there.
    pub fn bound(&self, revision: Revision, now: BootTime) -> Duration {
        let state = self.state.lock();
        state.committed_at(revision, now).plus(state.outwait).since(now)
    }

    /// True where leases of an earlier epoch were waited for, and are over now.
    pub fn became_quiet(&self, now: BootTime) -> bool {
        self.state.lock().quiet_at.is_some_and(|at| now >= at)
    }

    /// Gateways that were silent for so long that they may be forgotten, with the number of their renewals.
    pub fn stale(&self, now: BootTime) -> Vec<(Incarnation, u64)> {
        let state = self.state.lock();
        let forgotten = state.outwait * FORGOTTEN_AFTER;
        let stale = state.gateways.iter().filter(|(_, gateway)| now.since(gateway.renewed_at) >= forgotten);
        stale.map(|(incarnation, gateway)| (*incarnation, gateway.renewals)).collect()
    }

    /// A renewal came in. Called before the log is read for it: so a change is either in what the gateway is about to read, or
    /// its deleter finds the gateway here.
    pub fn renewed(&self, incarnation: Incarnation, applied: Revision, version: &str) {
        let now = clock::boot();
        let mut state = self.state.lock();
        if !state.gateways.contains_key(&incarnation) {
            let forgotten = state.outwait * FORGOTTEN_AFTER;
            state.gateways.retain(|_, gateway| now.since(gateway.renewed_at) < forgotten);
        }
        let gateway = state.gateways.entry(incarnation).or_insert_with(|| Gateway::new(version, now));
        gateway.renewed_at = now;
        let moved = gateway.advance(applied, now);
        drop(state);
        if moved {
            self.wake();
        }
    }

    pub fn released(&self, incarnation: Incarnation) {
        self.state.lock().gateways.remove(&incarnation);
        self.wake();
    }

    /// Changes are on the disk. Remembers the moment, then tells the gateways.
    pub fn committed(&self, changes: &[(Revision, Option<Digest>)]) {
        let now = clock::boot();
        let mut state = self.state.lock();
        changes.iter().for_each(|(revision, _)| state.remember(*revision, now));
        let epoch = state.epoch;
        drop(state);
        for (revision, deleted) in changes {
            self.push(Push { epoch, revision: *revision, deleted: *deleted });
        }
    }

    pub fn list(&self) -> Vec<GatewayState> {
        let now = clock::boot();
        let state = self.state.lock();
        let mut list: Vec<_> =
            state.gateways.iter().map(|(incarnation, gateway)| state.seen(*incarnation, gateway, now)).collect();
        list.sort_by_key(|gateway| gateway.incarnation);
        list
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

    /// How far `revision` has come by what is known here.
    pub fn confirmation(&self, revision: Revision, now: BootTime) -> Confirmation {
        let state = self.state.lock();
        let committed_at = state.committed_at(revision, now);
        let wanted = revision.max(state.floor);
        let mut confirmation = Confirmation {
            revision,
            acknowledged: Vec::new(),
            lapsed: Vec::new(),
            unconfirmed: Vec::new(),
            at_latest: Duration::ZERO,
        };
        for (incarnation, gateway) in &state.gateways {
            if gateway.applied >= wanted {
                let after = gateway.when(wanted).map(|at| at.since(committed_at));
                confirmation.acknowledged.push(Acknowledged { incarnation: *incarnation, after });
                continue;
            }
            // One that came later has read the log, with the change in it, before its first lease.
            if gateway.registered_at > committed_at {
                continue;
            }
            // A renewal after the change gives no lease before the change is applied.
            let lapses_at = gateway.renewed_at.min(committed_at).plus(state.outwait);
            if now >= lapses_at {
                confirmation.lapsed.push(*incarnation);
            } else {
                confirmation.unconfirmed.push(*incarnation);
                confirmation.at_latest = confirmation.at_latest.max(lapses_at.since(now));
            }
        }
        if let Some(at) = state.quiet_at.filter(|at| now < *at) {
            confirmation.unconfirmed.push(UNNAMED);
            confirmation.at_latest = confirmation.at_latest.max(at.since(now));
        }
        drop(state);
        confirmation.acknowledged.sort_by_key(|acknowledged| acknowledged.incarnation);
        confirmation
    }
}

impl State {
    fn begin(&mut self, epoch: Epoch, revision: Revision, now: BootTime) {
        self.epoch = epoch;
        self.opened = (revision, now);
        self.floor = revision;
        self.gateways.clear();
        self.committed.clear();
    }

    fn remember(&mut self, revision: Revision, now: BootTime) {
        self.committed.entry(revision).or_insert(now);
        while self.committed.len() > COMMITS {
            self.committed.pop_first();
        }
    }

    fn seen(&self, incarnation: Incarnation, gateway: &Gateway, now: BootTime) -> GatewayState {
        let silent_for = now.since(gateway.renewed_at);
        let (applied, version) = (gateway.applied, gateway.version.clone());
        GatewayState { incarnation, applied, silent_for, leased: silent_for < self.outwait, version }
    }

    /// When a change was committed, or later than that, never earlier. What was there when this process opened the store was there
    /// before any gateway that it did not find with it.
    fn committed_at(&self, revision: Revision, now: BootTime) -> BootTime {
        let (revision_found, opened_at) = self.opened;
        if revision <= revision_found {
            return opened_at;
        }
        // Revisions have no gaps, so the next one remembered is the one asked for, or the oldest that memory reaches.
        self.committed.range(revision..).next().map_or(now, |(_, at)| *at)
    }
}

impl Gateway {
    /// An incarnation is one life of one process, so its version stays.
    fn new(version: &str, now: BootTime) -> Self {
        let version = version.to_owned();
        Self { registered_at: now, renewed_at: now, applied: Revision(0), renewals: 0, version, steps: VecDeque::new() }
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

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);
    const EPOCH: Epoch = Epoch([1; ID_BYTES]);
    const ONE: Incarnation = Incarnation([1; ID_BYTES]);
    const TWO: Incarnation = Incarnation([2; ID_BYTES]);

    fn at(seconds: u64) -> BootTime {
        BootTime(0).plus(Duration::from_secs(seconds))
    }

    fn told(number: u64, revision: u64, gateways: &[(Incarnation, u64, u64)]) -> Told {
        let gateways = gateways.iter().map(|gateway| registered(*gateway)).collect();
        Told { epoch: EPOCH, number, revision: Revision(revision), lease: LEASE, unquiet: None, gateways }
    }

    fn registered((incarnation, applied, renewals): (Incarnation, u64, u64)) -> Registered {
        Registered { incarnation, applied: Revision(applied), renewals, version: "1.2.3".to_owned() }
    }

    fn watched() -> Gateways {
        Gateways::new(EPOCH, LEASE, Revision(0), at(0))
    }

    fn unconfirmed(gateways: &Gateways, revision: u64, now: BootTime) -> Vec<Incarnation> {
        gateways.confirmation(Revision(revision), now).unconfirmed
    }

    #[test]
    fn an_answer_that_was_overtaken_takes_no_gateway_away() {
        let gateways = watched();
        gateways.told(&told(2, 10, &[(ONE, 9, 4), (TWO, 9, 1)]), at(1));
        gateways.told(&told(1, 9, &[(ONE, 9, 4)]), at(1));
        gateways.told(&told(3, 10, &[(ONE, 10, 5), (TWO, 9, 1)]), at(2));
        assert_eq!(unconfirmed(&gateways, 10, at(2)), [TWO]);
    }

    #[test]
    fn one_that_came_after_a_change_need_not_be_awaited_and_one_that_may_have_been_there_is() {
        let gateways = watched();
        gateways.told(&told(1, 10, &[(ONE, 9, 1)]), at(1));
        gateways.told(&told(2, 11, &[(ONE, 10, 2), (TWO, 0, 1)]), at(2));
        assert!(unconfirmed(&gateways, 10, at(2)).is_empty());
        // Nobody knows whether it registered before or after this one.
        assert_eq!(unconfirmed(&gateways, 11, at(2)), [ONE, TWO]);
    }

    #[test]
    fn a_silent_gateway_is_over_once_its_lease_must_have_ended() {
        let gateways = watched();
        gateways.told(&told(1, 10, &[(ONE, 9, 1)]), at(1));
        // It goes on renewing, which gives no lease before the change is applied.
        gateways.told(&told(2, 10, &[(ONE, 9, 9)]), at(4));
        assert_eq!(unconfirmed(&gateways, 10, at(6)), [ONE]);
        assert!(unconfirmed(&gateways, 10, at(7)).is_empty());
        assert_eq!(gateways.bound(Revision(10), at(7)), Duration::ZERO);
    }

    #[test]
    fn in_another_epoch_leases_of_the_one_before_are_waited_for_once() {
        let gateways = watched();
        gateways.told(&told(5, 10, &[(ONE, 10, 3)]), at(1));
        let other = Told { epoch: Epoch([2; ID_BYTES]), unquiet: Some(LEASE), ..told(1, 8, &[(TWO, 7, 1)]) };
        gateways.told(&other, at(2));
        // What was made before has to be applied up to where this epoch began.
        assert_eq!(unconfirmed(&gateways, 3, at(3)), [TWO, UNNAMED]);
        gateways.told(&Told { number: 2, gateways: vec![registered((TWO, 8, 2))], ..other }, at(4));
        assert_eq!(unconfirmed(&gateways, 8, at(6)), [UNNAMED], "waiting does not begin again");
        assert!(unconfirmed(&gateways, 8, at(7)).is_empty() && gateways.became_quiet(at(7)));
    }
}
