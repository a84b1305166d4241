//! The core: one key, one delete, a master with a replica that lags, failover, and gateways that may crash.
//!
//! **In it.** Two store instances. The replica is any earlier state of its master; it may be promoted at any moment, and is
//! closed until it is opened in a new epoch. A delete is kept through that either by its replicas alone, with no journal
//! at hand when the epoch is opened, or by its journal alone, with no replica waited for. The old master goes on answering
//! whom it reaches for `lag` ticks. Gateways renew, load, fill, forget and restart in any order, at
//! either instance; replies are lost or come after any time, and a push may be lost, doubled or forged (all it can do is
//! to hide a key, which is the step `Forget`). A reply carries at most one log entry, so a gateway behind by two catches
//! up in two rounds. Calls begin after the delete has answered 200; between lease, lookup and clock any time may pass.
//!
//! **Bound.** See `Bounds`. Time is unbounded.
//!
//! **Left out.** How journals are written (`failover`), accounts, clusters and a log that is trimmed (`trimming`), unknown keys
//! (`unknown`), removal of a dead gateway (`membership`), clocks of different rates (`drift`). Applying a reply is one
//! step here. A renewal whose connection was given up and which the store still executes later: it could only lower an
//! acknowledgement. Requests of a gateway that has died: they could only make a delete wait for the dead.

mod state;
mod steps;

use stateright::{Model, Property};

use state::*;

use crate::{Rule, Rules, SAFE, bound, exhaust, refute};

/// How often things happen, and how long a lease is.
#[derive(Clone, Copy)]
struct Bounds {
    /// Ticks.
    lease: u8,
    /// How many ticks after a promotion the old master may still take a write.
    lag: u8,
    failovers: u8,
    crashes: u8,
    /// Changes of other objects, which only move the revision.
    others: u8,
}

/// What alone keeps a delete through a failover.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeptBy {
    Replicas,
    Journal,
}

struct Core<const GATEWAYS: usize> {
    bounds: Bounds,
    kept_by: KeptBy,
    rules: Rules,
}

impl<const GATEWAYS: usize> Model for Core<GATEWAYS> {
    type State = State<GATEWAYS>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        let instance = |role| Instance { role, epoch: 1, log: [None; 3], ghost: false };
        vec![State {
            instances: [instance(Role::Master), instance(Role::Replica)],
            gateways: [Gateway::NEW; GATEWAYS],
            deleter: Deleter::Idle,
            journaled: false,
            quarantine: 0,
            epochs: 1,
            failovers: 0,
            crashes: 0,
            others: 0,
            admitted: false,
        }]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        self.store_actions(state, actions);
        self.deleter_actions(state, actions);
        for g in (0..GATEWAYS).filter(|g| state.gateways[*g].watched) {
            self.gateway_actions(state, g, actions);
        }
    }

    fn next_state(&self, before: &Self::State, action: Action) -> Option<Self::State> {
        let mut state = before.clone();
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Replicate => self.replicate(&mut state),
            Action::Promote => self.promote(&mut state),
            Action::Open => self.open(&mut state),
            Action::Rejoin => self.replicate(&mut state),
            Action::Change(at) => {
                state.instances[at].append(Entry::Other);
                state.others += 1;
            }
            Action::Delete(at) => self.take(&mut state, at),
            Action::DeleteUnheard(at) => {
                self.delete(&mut state, at);
            }
            Action::Answer { watch } => self.answer(&mut state, watch),
            Action::Renew(g) => {
                // A clock that was read a tick ago makes every lease look a tick longer.
                let left = self.bounds.lease + u8::from(!self.hold(Rule::FreshClock));
                state.gateways[g].renewal = Renewal::Sent { left };
            }
            Action::Serve(g, at) => self.serve(&mut state, g, at),
            Action::Receive(g) => self.receive(&mut state, g),
            Action::Load(g, at) => {
                let instance = &state.instances[at];
                let loaded = Loaded { epoch: instance.epoch, revision: instance.revision() };
                state.gateways[g].load = instance.deleted_at().is_none().then_some(loaded);
            }
            Action::Fill(g) => self.fill(&mut state, g),
            Action::Forget(g) => state.gateways[g].held = Held::Nothing,
            Action::Crash(g) => self.crash(&mut state, g),
            Action::Call(g) | Action::LookUp(g) | Action::ReadClock(g) => {
                state.admitted |= self.call(&mut state.gateways[g], action)?;
            }
            Action::TakePush(g, at) => {
                let instance = &state.instances[at];
                let gateway = &mut state.gateways[g];
                gateway.applied = instance.revision();
                if instance.revision() > 0 && instance.deleted_at() == Some(instance.revision()) {
                    gateway.held = Held::Tombstone;
                }
            }
            Action::ApplyLate(g) => {
                state.gateways[g].held = Held::Tombstone;
                state.gateways[g].unapplied = false;
            }
        }
        self.learn(&mut state);
        self.canonicalise(&mut state);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAFE, |_, state: &Self::State| !state.admitted),
            Property::sometimes("a delete is acknowledged by a gateway", |_, state: &Self::State| {
                matches!(state.deleter, Deleter::Taken { replicated: true, revision, left: 1.., by, .. }
                    if state.gateways.iter().any(|gateway| gateway.registered[by as usize] >= Some(revision)))
            }),
            Property::sometimes("a delete is taken in a new epoch", |_, state: &Self::State| {
                matches!(state.deleter, Deleter::Taken { epoch: 2, .. })
            }),
            Property::sometimes("a lease is regained in a new epoch", |_, state: &Self::State| {
                state.gateways.iter().any(|gateway| gateway.epoch > 1 && gateway.lease > 0)
            }),
            Property::sometimes("after the 200 a gateway still holds the key", |_, state: &Self::State| {
                let answered = state.deleter == Deleter::Answered;
                answered && state.gateways.iter().any(|gateway| gateway.held == Held::Allow)
            }),
        ]
    }
}

fn core<const GATEWAYS: usize>(bounds: Bounds, kept_by: KeptBy) -> Core<GATEWAYS> {
    Core { bounds, kept_by, rules: Rules::default() }
}

#[test]
fn safe_with_one_gateway() {
    let bounds = bound(
        Bounds { lease: 2, lag: 1, failovers: 1, crashes: 1, others: 1 },
        Bounds { lease: 2, lag: 1, failovers: 2, crashes: 1, others: 1 },
    );
    exhaust("core, one gateway", core::<1>(bounds, KeptBy::Replicas));
}

#[test]
fn safe_with_two_gateways() {
    let bounds = bound(
        Bounds { lease: 1, lag: 1, failovers: 1, crashes: 0, others: 0 },
        Bounds { lease: 1, lag: 1, failovers: 1, crashes: 1, others: 0 },
    );
    exhaust("core, two gateways", core::<2>(bounds, KeptBy::Replicas));
}

#[test]
fn safe_with_a_journal_and_no_replica() {
    let bounds = bound(
        Bounds { lease: 2, lag: 1, failovers: 1, crashes: 1, others: 1 },
        Bounds { lease: 2, lag: 1, failovers: 2, crashes: 1, others: 1 },
    );
    exhaust("core, one gateway, kept by the journal alone", core::<1>(bounds, KeptBy::Journal));
}

/// Enough for the counterexamples.
const SMALL: Bounds = Bounds { lease: 1, lag: 1, failovers: 1, crashes: 0, others: 1 };

#[test]
fn the_floor_alone_stops_a_fill_over_a_tombstone() {
    // So the rule about tombstones is a second lock on the same door. The floor is not: see below.
    let rules = Rules::without(&[Rule::FillSparesTombstones]);
    exhaust("core, fills stopped by the floor alone", Core { rules, ..core::<1>(SMALL, KeptBy::Replicas) });
}

fn refute_without(left_out: &'static [Rule], model: Core<1>) {
    refute(&format!("core without {left_out:?}"), Core { rules: Rules::without(left_out), ..model }, SAFE);
}

/// One test per rule that is left out, each of which must find a counterexample.
macro_rules! mutants {
    ($kept_by:ident, $($name:ident: $($rule:ident)+;)+) => {$(
        #[test]
        fn $name() {
            refute_without(&[$(Rule::$rule),+], core(SMALL, KeptBy::$kept_by));
        }
    )+};
}

mutants! {
    Replicas,
    no_lease: Lease;
    lease_from_the_reply: LeaseFromSending;
    lease_read_after_the_lookup: SnapshotBeforeLookup;
    a_cached_clock: FreshClock;
    no_catch_up: CatchUp;
    lease_from_a_partial_catch_up: LeaseOnlyWhenCaughtUp;
    a_gap_is_ignored: PushIsAHint;
    acknowledged_before_applied: AcknowledgeAfterApply;
    a_fill_overwrites_a_tombstone: FillSparesTombstones FillNotBelowFloor;
    a_fill_below_the_floor: FillNotBelowFloor;
    a_new_epoch_forgets_nothing: NewEpochForgets;
    no_epoch: Epoch;
    acknowledgement_of_another_epoch: AcknowledgementsOfThisEpoch;
    renewals_are_reads: WriteFirst;
    no_wait: Wait;
    outwaited_too_shortly: OutwaitWholeLease;
    no_quarantine: Quarantine;
    quarantine_without_the_lag: QuarantineCoversLag;
    fewer_replicas_than_the_epoch_has: ReplicasOfTheEpoch;
}

mutants! {
    Journal,
    opened_without_the_journal: ReplayBeforeOpening;
    taken_by_the_old_master_after_the_replay: ChangesNameTheEpoch;
}

#[test]
fn the_epoch_is_not_read_again_after_wait() {
    // The same instance is master in two epochs, so this takes two failovers.
    refute_without(&[Rule::EpochAfterWait], core(Bounds { failovers: 2, ..SMALL }, KeptBy::Replicas));
}

#[test]
fn one_acknowledgement_is_enough() {
    let bounds = Bounds { lease: 1, lag: 1, failovers: 0, crashes: 0, others: 0 };
    let rules = Rules::without(&[Rule::AwaitAll]);
    refute("core without [AwaitAll]", Core { rules, ..core::<2>(bounds, KeptBy::Replicas) }, SAFE);
}
