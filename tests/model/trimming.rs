//! Trimming: a log that does not reach back, and what is read under one lease: a key, its account and its cluster.
//!
//! **In it.** One change that must be final when it answers 200: a key is deleted, its account suspended, or the
//! allow-list of its cluster tightened; and other changes before and after it. The log may be trimmed at any moment up
//! to any revision. A gateway behind the trim is told so and starts again: it drops keys and accounts, reads all
//! clusters, and only then has `applied` and a lease. Applying an entry is three steps (floor, entry, `applied`), a fill
//! is two (the account, then the key), a verdict looks the key, the account and the cluster up one after the other, and
//! anything may happen between any two of these. A reply carries at most one entry.
//!
//! **Bound.** `Bounds`; one gateway, one epoch. Time is unbounded. An object is of one version before the change and of
//! another after it.
//!
//! **Left out.** Failover and crashes (`core`, where a new epoch is the same as a trim); the eviction of accounts.

mod state;

use stateright::{Model, Property};

use state::*;

use crate::{Rule, Rules, SAFE, bound, exhaust, refute};

#[derive(Clone, Copy)]
struct Bounds {
    lease: Ticks,
    /// Changes of objects that are not looked at.
    others: u8,
}

struct Trimming {
    bounds: Bounds,
    rules: Rules,
}

impl Trimming {
    fn hold(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    fn store_step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Other if state.revision - u8::from(state.is_changed()) < self.bounds.others => state.revision += 1,
            Action::Trim if state.trimmed < state.revision => state.trimmed += 1,
            Action::Change if !state.is_changed() => {
                state.revision += 1;
                state.changed_at = Some(state.revision);
                state.writer = Writer::Taken { left: self.bounds.lease };
            }
            Action::Answer => {
                let Writer::Taken { left } = state.writer else {
                    return None;
                };
                // A gateway that is not registered need not be awaited.
                let is_awaited = state.acknowledged.is_some() && state.acknowledged < state.changed_at;
                (left == 0 || !is_awaited).then_some(())?;
                state.writer = Writer::Answered;
            }
            Action::Serve => {
                let Renewal::Sent { left } = state.renewal else {
                    return None;
                };
                let applied = if state.started { state.applied } else { 0 };
                state.acknowledged = Some(applied);
                let is_behind = applied < state.trimmed && self.hold(Rule::TrimIsTold);
                let tail = match () {
                    () if !state.started || is_behind => Tail::Trimmed,
                    () if applied < state.revision => Tail::Entry(state.trimmed.max(applied) + 1),
                    () => Tail::Nothing,
                };
                let tail = if tail == Tail::Entry(state.revision + 1) { Tail::Nothing } else { tail };
                state.renewal = Renewal::Answered { left, reply: Reply { revision: state.revision, tail } };
            }
            _ => return None,
        }
        Some(())
    }

    fn feed_step(&self, state: &mut State, action: Action) -> Option<()> {
        match (action, state.renewal) {
            (Action::Renew, Renewal::None | Renewal::Sent { .. } | Renewal::Answered { .. }) => {
                state.renewal = Renewal::Sent { left: self.bounds.lease };
            }
            (Action::Receive, Renewal::Answered { left, reply }) => self.receive(state, left, reply),
            (Action::ApplyEntry, Renewal::Floored { left, revision, entry }) => {
                self.apply(state, entry);
                state.renewal = Renewal::Changed { left, revision, entry };
            }
            (Action::SetApplied, Renewal::Changed { left, revision, entry }) => {
                state.applied = state.applied.max(entry);
                state.floor = state.floor.max(entry);
                self.extend(state, left, revision);
            }
            (Action::ReadClusters, Renewal::Dropped { left, revision }) => {
                let is_tightened = state.is_changed() && state.subject == Subject::Cluster;
                let cluster = if is_tightened { Held::New } else { Held::Old };
                state.renewal = Renewal::Read { left, revision, cluster };
            }
            (Action::TakeClusters, Renewal::Read { left, revision, cluster }) => {
                state.cluster = cluster;
                state.started = true;
                state.applied = revision;
                self.extend(state, left, revision);
            }
            _ => return None,
        }
        Some(())
    }

    fn receive(&self, state: &mut State, left: Ticks, reply: Reply) {
        let Reply { revision, tail } = reply;
        match tail {
            Tail::Nothing => self.extend(state, left, revision),
            Tail::Entry(entry) => {
                if self.hold(Rule::FloorBeforeEntries) {
                    state.floor = state.floor.max(entry);
                }
                state.renewal = Renewal::Floored { left, revision, entry };
            }
            Tail::Trimmed => {
                if self.hold(Rule::TrimRaisesFloor) {
                    state.floor = state.floor.max(revision);
                }
                if self.hold(Rule::TrimForgets) {
                    // A tombstone stays.
                    if state.key != Held::New {
                        state.key = Held::Nothing;
                    }
                    state.account = Held::Nothing;
                }
                state.renewal = Renewal::Dropped { left, revision };
                if !self.hold(Rule::ClustersBeforeLease) && state.started {
                    state.applied = revision;
                    state.lease = state.lease.max(left);
                }
            }
        }
    }

    /// An entry changes what is held; what is not held is loaded at the next call.
    fn apply(&self, state: &mut State, entry: Revision) {
        if state.is_change_of(entry, Subject::Key) {
            state.key = Held::New;
        }
        if state.is_change_of(entry, Subject::Account) && state.account != Held::Nothing {
            state.account = Held::New;
        }
        if state.is_change_of(entry, Subject::Cluster) {
            state.cluster = Held::New;
        }
    }

    fn extend(&self, state: &mut State, left: Ticks, revision: Revision) {
        state.renewal = Renewal::None;
        if state.applied >= revision || !self.hold(Rule::LeaseOnlyWhenCaughtUp) {
            state.lease = state.lease.max(left);
        }
    }

    fn load_step(&self, state: &mut State, action: Action) -> Option<()> {
        match (action, state.load) {
            (Action::Load, Load::None) if state.started && (state.key, state.account) != (Held::Old, Held::Old) => {
                state.load = Load::Answered { revision: state.revision, is_new: state.is_changed() };
            }
            (Action::FillAccount, Load::Answered { revision, is_new }) => {
                state.load = Load::None;
                if !self.is_behind(state, revision) {
                    let is_suspended = is_new && state.subject == Subject::Account;
                    state.account = if is_suspended { Held::New } else { Held::Old };
                    state.load = Load::Half { revision, is_new };
                }
            }
            (Action::FillKey, Load::Half { revision, is_new }) => {
                state.load = Load::None;
                if !self.is_behind(state, revision) && state.key != Held::New {
                    let is_deleted = is_new && state.subject == Subject::Key;
                    state.key = if is_deleted { Held::Nothing } else { Held::Old };
                }
            }
            (Action::Forget, Load::None) if state.key != Held::Nothing => state.key = Held::Nothing,
            (Action::Forget, _) if state.key == Held::Old => state.key = Held::Nothing,
            _ => return None,
        }
        Some(())
    }

    /// Read under the lock of the entry that would be filled.
    fn is_behind(&self, state: &State, revision: Revision) -> bool {
        let floor = if self.hold(Rule::FillComparesFloor) { state.floor } else { state.applied };
        revision < floor
    }

    fn call_step(&self, state: &mut State, action: Action) -> Option<()> {
        match (action, state.call) {
            (Action::Call, Call::None) if state.writer == Writer::Answered && state.lease > 0 => {
                state.call = Call::LeaseRead(state.lease);
            }
            (Action::LookUp, Call::LeaseRead(left)) => state.call = seen(state.key, Call::KeySeen(left)),
            (Action::LookUp, Call::KeySeen(left)) => state.call = seen(state.account, Call::AccountSeen(left)),
            (Action::LookUp, Call::AccountSeen(left)) => state.call = seen(state.cluster, Call::ClusterSeen(left)),
            (Action::ReadClock, Call::ClusterSeen(left)) => {
                state.call = Call::None;
                state.admitted = left > 0;
            }
            _ => return None,
        }
        Some(())
    }

    fn tick(&self, state: &mut State) {
        let down = |left: &mut Ticks| *left = left.saturating_sub(1);
        down(&mut state.lease);
        if let Writer::Taken { left } = &mut state.writer {
            down(left);
        }
        match &mut state.renewal {
            Renewal::None => {}
            Renewal::Sent { left }
            | Renewal::Answered { left, .. }
            | Renewal::Floored { left, .. }
            | Renewal::Changed { left, .. }
            | Renewal::Dropped { left, .. }
            | Renewal::Read { left, .. } => down(left),
        }
        match &mut state.call {
            Call::None => {}
            Call::LeaseRead(left) | Call::KeySeen(left) | Call::AccountSeen(left) | Call::ClusterSeen(left) => {
                down(left)
            }
        }
    }
}

fn seen(held: Held, next: Call) -> Call {
    if held == Held::Old { next } else { Call::None }
}

impl Model for Trimming {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let state = |subject| State {
            subject,
            revision: 0,
            trimmed: 0,
            changed_at: None,
            acknowledged: None,
            writer: Writer::Idle,
            started: false,
            floor: 0,
            applied: 0,
            key: Held::Nothing,
            account: Held::Nothing,
            cluster: Held::Nothing,
            lease: 0,
            renewal: Renewal::None,
            load: Load::None,
            call: Call::None,
            admitted: false,
        };
        vec![state(Subject::Key), state(Subject::Account), state(Subject::Cluster)]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::*;
        actions.extend([Tick, Other, Trim, Change, Answer, Renew, Serve, Receive, ApplyEntry, SetApplied]);
        actions.extend([ReadClusters, TakeClusters, Load, FillAccount, FillKey, Forget, Call, LookUp, ReadClock]);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        if action == Action::Tick {
            self.tick(&mut state);
        } else {
            self.store_step(&mut state, action)
                .or_else(|| self.feed_step(&mut state, action))
                .or_else(|| self.load_step(&mut state, action))
                .or_else(|| self.call_step(&mut state, action))?;
        }
        if state.writer == Writer::Answered {
            // Nobody reads it again.
            state.acknowledged = None;
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAFE, |_, state: &State| !state.admitted),
            Property::sometimes("a gateway behind the trim starts again", |_, state: &State| {
                state.started && matches!(state.renewal, Renewal::Dropped { .. }) && state.trimmed > state.applied
            }),
            Property::sometimes("a change is acknowledged", |_, state: &State| {
                matches!(state.writer, Writer::Taken { left: 1.. }) && state.acknowledged >= state.changed_at
            }),
            Property::sometimes("a fill comes while an entry is being applied", |_, state: &State| {
                matches!(state.renewal, Renewal::Floored { .. }) && matches!(state.load, Load::Answered { .. })
            }),
            Property::sometimes("a call finds a suspended account", |_, state: &State| {
                matches!(state.call, Call::KeySeen(1..)) && state.account == Held::New
            }),
        ]
    }
}

#[test]
fn safe() {
    let bounds = bound(Bounds { lease: 2, others: 1 }, Bounds { lease: 3, others: 2 });
    exhaust("trimming", Trimming { bounds, rules: Rules::default() });
}

/// One test per rule that is left out, each of which must find a counterexample.
macro_rules! mutants {
    ($($name:ident: $rule:ident;)+) => {$(
        #[test]
        fn $name() {
            let rules = Rules::without(&[Rule::$rule]);
            let model = Trimming { bounds: Bounds { lease: 1, others: 1 }, rules };
            refute(concat!("trimming without ", stringify!($rule)), model, SAFE);
        }
    )+};
}

mutants! {
    fills_compared_with_applied: FillComparesFloor;
    floor_raised_after_the_entries: FloorBeforeEntries;
    a_fill_older_than_a_trim: TrimRaisesFloor;
    a_trim_forgets_nothing: TrimForgets;
    a_trim_that_is_not_told: TrimIsTold;
    a_lease_before_the_clusters_are_read: ClustersBeforeLease;
    a_lease_from_a_partial_catch_up: LeaseOnlyWhenCaughtUp;
}
