//! Membership: gateways that come, go, crash and are removed while a delete runs.
//!
//! **In it.** One key, one delete, one store that loses nothing. Gateways register with their first renewal, before,
//! during or after the delete; they stop in order and release their lease, or crash and stay registered. The deleter
//! waits for those that were registered when the store took the delete: until each has acknowledged, is released or
//! removed, is shown to be dead by its file lock, or a lease has passed. A janitor looks at the renewal counters and
//! removes a gateway whose counter stood still; the gateway may only have been paused, and come back. Calls begin after
//! the delete has answered 200, as in `core`.
//!
//! **Bound.** `Bounds`; time and the number of removals are not bounded. A process that has died stays dead: another
//! gateway of the model is its successor.
//!
//! **Left out.** Failover (`core`); several deletes that share a wait; clocks of different rates (`drift`); locks on file
//! systems that lie.

use stateright::{Model, Property};

use crate::{Rule, Rules, SAFE, bound, exhaust, refute};

#[derive(Clone, Copy)]
struct Bounds {
    lease: Ticks,
}

struct Membership<const GATEWAYS: usize> {
    bounds: Bounds,
    rules: Rules,
}

type Ticks = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Process {
    /// It has not renewed yet.
    Starting,
    Running,
    /// It admits nothing any more, and is about to release its lease.
    Stopping,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Held {
    Nothing,
    Allow,
    Tombstone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Renewal {
    None,
    Sent { left: Ticks },
    Answered { left: Ticks, deleted: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Call {
    None,
    LeaseRead(Ticks),
    AllowSeen(Ticks),
}

/// What the store has of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Registration {
    None,
    Registered {
        acknowledged: bool,
        /// What is left of the janitor's wait, if its counter has not moved since the janitor looked.
        still_for: Option<Ticks>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Gateway {
    process: Process,
    applied: bool,
    held: Held,
    lease: Ticks,
    renewal: Renewal,
    /// A load is under way that found the key.
    loaded: bool,
    call: Call,
    registration: Registration,
    awaited: bool,
}

impl Gateway {
    const NEW: Self = Self {
        process: Process::Starting,
        applied: false,
        held: Held::Nothing,
        lease: 0,
        renewal: Renewal::None,
        loaded: false,
        call: Call::None,
        registration: Registration::None,
        awaited: false,
    };

    fn ended(self, process: Process) -> Self {
        Self { process, registration: self.registration, awaited: self.awaited, ..Self::NEW }
    }

    fn is_alive(&self) -> bool {
        matches!(self.process, Process::Starting | Process::Running)
    }

    fn tick(&mut self) {
        let down = |left: &mut Ticks| *left = left.saturating_sub(1);
        down(&mut self.lease);
        if let Renewal::Sent { left } | Renewal::Answered { left, .. } = &mut self.renewal {
            down(left);
        }
        if let Call::LeaseRead(left) | Call::AllowSeen(left) = &mut self.call {
            down(left);
        }
        if let Registration::Registered { still_for: Some(left), .. } = &mut self.registration {
            down(left);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Deleter {
    Idle,
    Taken { left: Ticks },
    Answered,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State<const GATEWAYS: usize> {
    gateways: [Gateway; GATEWAYS],
    deleter: Deleter,
    admitted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Tick,
    Delete,
    /// The delete answers 200. Gateways meet nowhere but in the deleter, so from here on only one of them is watched.
    Answer {
        watch: usize,
    },
    Renew(usize),
    Serve(usize),
    Receive(usize),
    Load(usize),
    Fill(usize),
    Forget(usize),
    Stop(usize),
    Release(usize),
    Crash(usize),
    /// The deleter finds the file lock of this gateway free.
    Fence(usize),
    /// The janitor reads its renewal counter.
    Look(usize),
    Remove(usize),
    Call(usize),
    LookUp(usize),
    ReadClock(usize),
}

impl<const GATEWAYS: usize> Membership<GATEWAYS> {
    fn hold(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    fn gateway_actions(&self, state: &State<GATEWAYS>, g: usize, actions: &mut Vec<Action>) {
        let gateway = &state.gateways[g];
        if gateway.is_alive() {
            actions.extend([Action::Renew(g), Action::Serve(g), Action::Receive(g), Action::Load(g), Action::Fill(g)]);
            actions.extend([Action::Forget(g), Action::Stop(g), Action::Crash(g)]);
        }
        actions.extend([Action::Release(g), Action::Fence(g), Action::Look(g), Action::Remove(g)]);
        let answered = state.deleter == Deleter::Answered;
        if answered && gateway.is_alive() {
            actions.extend([Action::Call(g), Action::LookUp(g), Action::ReadClock(g)]);
        }
    }

    /// What one gateway, or somebody about it, does. Nothing where it cannot be done.
    fn step(&self, gateway: &mut Gateway, action: Action, deleted: bool) -> Option<bool> {
        let lease = self.bounds.lease;
        let may_load = gateway.process == Process::Running || !self.hold(Rule::NothingBeforeRegistering);
        match action {
            Action::Renew(_) => gateway.renewal = Renewal::Sent { left: lease },
            Action::Serve(_) => self.serve(gateway, deleted)?,
            Action::Receive(_) => self.receive(gateway)?,
            Action::Load(_) if may_load && gateway.held == Held::Nothing => gateway.loaded = !deleted,
            Action::Fill(_) if gateway.loaded => {
                gateway.loaded = false;
                // The load found the key, so it is older than the delete: below the floor once that is applied.
                if !gateway.applied {
                    gateway.held = Held::Allow;
                }
            }
            Action::Forget(_) => gateway.held = Held::Nothing,
            Action::Stop(_) if gateway.process == Process::Running => *gateway = gateway.ended(Process::Stopping),
            Action::Crash(_) => *gateway = gateway.ended(Process::Dead),
            Action::Release(_) => {
                let has_stopped = gateway.process == Process::Stopping;
                let too_early = gateway.process == Process::Running && !self.hold(Rule::ReleaseAfterStopping);
                (has_stopped || too_early).then_some(())?;
                gateway.registration = Registration::None;
            }
            Action::Fence(_) if gateway.process == Process::Dead || !self.hold(Rule::LockMeansAlive) => {
                gateway.awaited = false;
            }
            Action::Look(_) | Action::Remove(_) => self.clean(gateway, action)?,
            Action::Call(_) | Action::LookUp(_) | Action::ReadClock(_) => return call(gateway, action),
            _ => return None,
        }
        Some(false)
    }

    fn serve(&self, gateway: &mut Gateway, deleted: bool) -> Option<()> {
        let Renewal::Sent { left } = gateway.renewal else {
            return None;
        };
        let was_removed = gateway.registration == Registration::None && gateway.process == Process::Running;
        if !was_removed || self.hold(Rule::RemovedRegistersAgain) {
            gateway.registration = Registration::Registered { acknowledged: gateway.applied, still_for: None };
        }
        gateway.renewal = Renewal::Answered { left, deleted };
        Some(())
    }

    fn receive(&self, gateway: &mut Gateway) -> Option<()> {
        let Renewal::Answered { left, deleted } = gateway.renewal else {
            return None;
        };
        gateway.renewal = Renewal::None;
        if gateway.process == Process::Starting {
            // The first reply is that of a new epoch: it says up to where the log need not be read, and forgets the rest.
            gateway.process = Process::Running;
            if self.hold(Rule::NothingBeforeRegistering) {
                gateway.held = Held::Nothing;
            }
        } else if deleted && !gateway.applied {
            gateway.held = Held::Tombstone;
        }
        gateway.applied |= deleted;
        gateway.lease = gateway.lease.max(left);
        Some(())
    }

    fn clean(&self, gateway: &mut Gateway, action: Action) -> Option<()> {
        let Registration::Registered { still_for, .. } = &mut gateway.registration else {
            return None;
        };
        match (action, *still_for) {
            (Action::Look(_), None) => {
                let short = u8::from(!self.hold(Rule::JanitorWaitsWholeLease));
                *still_for = Some(self.bounds.lease - short);
            }
            (Action::Remove(_), Some(0)) => gateway.registration = Registration::None,
            _ => return None,
        }
        Some(())
    }

    fn learn(&self, state: &mut State<GATEWAYS>) {
        let Deleter::Taken { left } = state.deleter else {
            return;
        };
        for gateway in &mut state.gateways {
            let is_waiting = matches!(gateway.registration, Registration::Registered { acknowledged: false, .. });
            gateway.awaited &= is_waiting && left > 0;
        }
    }

    fn answer(&self, state: &mut State<GATEWAYS>, watch: usize) -> Option<()> {
        let is_done = matches!(state.deleter, Deleter::Taken { .. }) && state.gateways.iter().all(|each| !each.awaited);
        is_done.then_some(())?;
        state.deleter = Deleter::Answered;
        for g in (0..GATEWAYS).filter(|g| *g != watch) {
            state.gateways[g] = Gateway::NEW.ended(Process::Dead);
        }
        // Nobody reads the registrations again.
        state.gateways[watch].registration = Registration::None;
        Some(())
    }
}

fn call(gateway: &mut Gateway, action: Action) -> Option<bool> {
    match (action, gateway.call) {
        (Action::Call(_), Call::None) if gateway.lease > 0 => gateway.call = Call::LeaseRead(gateway.lease),
        (Action::LookUp(_), Call::LeaseRead(left)) => {
            gateway.call = if gateway.held == Held::Allow { Call::AllowSeen(left) } else { Call::None };
        }
        (Action::ReadClock(_), Call::AllowSeen(left)) => {
            gateway.call = Call::None;
            return Some(left > 0);
        }
        _ => return None,
    }
    Some(false)
}

impl<const GATEWAYS: usize> Model for Membership<GATEWAYS> {
    type State = State<GATEWAYS>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        vec![State { gateways: [Gateway::NEW; GATEWAYS], deleter: Deleter::Idle, admitted: false }]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Action>) {
        actions.extend([Action::Tick, Action::Delete]);
        actions.extend((0..GATEWAYS).map(|watch| Action::Answer { watch }));
        for g in 0..GATEWAYS {
            self.gateway_actions(state, g, actions);
        }
    }

    fn next_state(&self, before: &Self::State, action: Action) -> Option<Self::State> {
        let mut state = before.clone();
        match action {
            Action::Tick => {
                state.gateways.iter_mut().for_each(Gateway::tick);
                if let Deleter::Taken { left } = &mut state.deleter {
                    *left = left.saturating_sub(1);
                }
            }
            Action::Delete if state.deleter == Deleter::Idle => {
                state.deleter = Deleter::Taken { left: self.bounds.lease };
                state.gateways.iter_mut().for_each(|gateway| gateway.awaited = true);
            }
            Action::Delete => return None,
            Action::Answer { watch } => self.answer(&mut state, watch)?,
            Action::Renew(g)
            | Action::Serve(g)
            | Action::Receive(g)
            | Action::Load(g)
            | Action::Fill(g)
            | Action::Forget(g)
            | Action::Stop(g)
            | Action::Release(g)
            | Action::Crash(g)
            | Action::Fence(g)
            | Action::Look(g)
            | Action::Remove(g)
            | Action::Call(g)
            | Action::LookUp(g)
            | Action::ReadClock(g) => {
                let deleted = state.deleter != Deleter::Idle;
                state.admitted |= self.step(&mut state.gateways[g], action, deleted)?;
            }
        }
        self.learn(&mut state);
        if state.deleter == Deleter::Answered {
            state.gateways.iter_mut().for_each(|gateway| gateway.registration = Registration::None);
        }
        // Gateways are alike: only one of their orders is searched.
        state.gateways.sort_unstable();
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAFE, |_, state: &Self::State| !state.admitted),
            Property::sometimes("a gateway registers while the delete runs", |_, state: &Self::State| {
                matches!(state.deleter, Deleter::Taken { .. })
                    && state.gateways.iter().any(|gateway| gateway.process == Process::Running && !gateway.awaited)
            }),
            Property::sometimes("a living gateway is removed and holds the key", |_, state: &Self::State| {
                let is_removed = |gateway: &Gateway| gateway.registration == Registration::None;
                state.deleter != Deleter::Answered
                    && state.gateways.iter().any(|gateway| is_removed(gateway) && gateway.held == Held::Allow)
            }),
            Property::sometimes("a dead gateway is awaited", |_, state: &Self::State| {
                state.gateways.iter().any(|gateway| gateway.process == Process::Dead && gateway.awaited)
            }),
            Property::sometimes("after the 200 a gateway still holds the key", |_, state: &Self::State| {
                state.deleter == Deleter::Answered && state.gateways.iter().any(|each| each.held == Held::Allow)
            }),
        ]
    }
}

#[test]
fn safe() {
    let bounds = Bounds { lease: bound(2, 3) };
    exhaust("membership, two gateways", Membership::<2> { bounds, rules: Rules::default() });
}

/// One test per rule that is left out, each of which must find a counterexample.
macro_rules! mutants {
    ($($name:ident: $rule:ident;)+) => {$(
        #[test]
        fn $name() {
            let rules = Rules::without(&[Rule::$rule]);
            let model = Membership::<1> { bounds: Bounds { lease: 2 }, rules };
            refute(concat!("membership without ", stringify!($rule)), model, SAFE);
        }
    )+};
}

mutants! {
    removed_too_early: JanitorWaitsWholeLease;
    a_removed_gateway_comes_back_unseen: RemovedRegistersAgain;
    released_before_it_stopped: ReleaseAfterStopping;
    keys_held_from_before_registering: NothingBeforeRegistering;
    thought_dead_when_paused: LockMeansAlive;
}
