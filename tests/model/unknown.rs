//! Keys that are not known yet: a gateway remembers a key as unknown, and then the key is imported or created.
//!
//! **In it.** One key, which is not there at first. It is either imported, so that calls with it may have been answered
//! before and gateways may hold it as unknown; or created, so that nobody can have asked for it before its 201. A
//! failover: the new master knows what the old one knew, and is opened in a new epoch, while the old one still answers
//! for `lag` ticks. Gateways renew, load, remember and forget, restart, in any order, at either master. Calls with the
//! key begin after its answer, and must not be answered 401; between lease, lookup and clock any time may pass.
//!
//! **Bound.** `Bounds`. Time is unbounded; what is remembered as unknown never expires by itself.
//!
//! **Left out.** What the failover loses (`failover`); `enable` and `resume`, which are imports as far as this model
//! goes; a key that is deleted again (`core`).

mod state;

use stateright::{Model, Property};

use state::*;

use crate::{LIVE, Rule, Rules, bound, exhaust, refute};

#[derive(Clone, Copy)]
struct Bounds {
    lease: Ticks,
    /// How many ticks after a promotion the old master may still answer.
    lag: Ticks,
    crashes: u8,
}

struct Unknown<const GATEWAYS: usize> {
    bounds: Bounds,
    rules: Rules,
}

impl<const GATEWAYS: usize> Unknown<GATEWAYS> {
    fn hold(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    fn step(&self, state: &mut State<GATEWAYS>, g: usize, action: Action) -> Option<()> {
        let answered = state.writer == Writer::Answered;
        let can_be_asked_for = state.imported || answered;
        let gateway = &mut state.gateways[g];
        match action {
            Action::Renew(_) => gateway.renewal = Renewal::Sent { left: self.bounds.lease },
            Action::Serve(_, epoch) => {
                let Renewal::Sent { left } = gateway.renewal else {
                    return None;
                };
                gateway.renewal = Renewal::Answered { left, reply: state.masters[epoch as usize]?.reply(epoch) };
                gateway.registered[epoch as usize] = true;
                if let Writer::Taken { epoch: written, .. } = state.writer
                    && written == epoch
                    && gateway.epoch == Some(epoch)
                    && gateway.applied > 0
                {
                    gateway.awaited = false;
                }
            }
            Action::Receive(_) => self.receive(gateway)?,
            Action::Load(_, epoch) => {
                let may_load = can_be_asked_for && gateway.epoch.is_some() && gateway.held == Held::Nothing;
                may_load.then_some(())?;
                gateway.load = Some(state.masters[epoch as usize]?.reply(epoch));
            }
            Action::Fill(_) => {
                let loaded = gateway.load.take()?;
                let is_behind = loaded.revision < gateway.applied && self.hold(Rule::FillNotBelowFloor);
                if gateway.epoch == Some(loaded.epoch) && !is_behind {
                    gateway.held = if loaded.is_there { Held::Allow } else { Held::Unknown };
                }
            }
            Action::Forget(_) => gateway.held = Held::Nothing,
            Action::Call(_) | Action::LookUp(_) | Action::ReadClock(_) if answered => {
                state.denied |= self.call(gateway, action)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn receive(&self, gateway: &mut Gateway) -> Option<()> {
        let Renewal::Answered { left, reply } = gateway.renewal else {
            return None;
        };
        gateway.renewal = Renewal::None;
        if gateway.epoch == Some(reply.epoch) {
            // The entry of an import: the key is to be loaded anew.
            if gateway.applied < reply.revision && gateway.held == Held::Unknown {
                gateway.held = Held::Nothing;
            }
        } else if self.hold(Rule::NewEpochForgets) {
            gateway.held = Held::Nothing;
        }
        gateway.epoch = Some(reply.epoch);
        gateway.applied = reply.revision;
        gateway.lease = gateway.lease.max(left);
        Some(())
    }

    fn call(&self, gateway: &mut Gateway, action: Action) -> Option<bool> {
        match (action, gateway.call) {
            (Action::Call(_), Call::None) if gateway.lease > 0 || !self.hold(Rule::UnknownNeedsALease) => {
                gateway.call = Call::LeaseRead(gateway.lease);
            }
            (Action::LookUp(_), Call::LeaseRead(left)) => {
                gateway.call = if gateway.held == Held::Unknown { Call::UnknownSeen(left) } else { Call::None };
            }
            (Action::ReadClock(_), Call::UnknownSeen(left)) => {
                gateway.call = Call::None;
                return Some(left > 0 || !self.hold(Rule::UnknownNeedsALease));
            }
            _ => return None,
        }
        Some(false)
    }

    fn promote(&self, state: &mut State<GATEWAYS>) -> Option<()> {
        let [Some(first), None] = &mut state.masters else {
            return None;
        };
        let second = Master { ends: None, ..*first };
        first.ends = Some(self.bounds.lag + 1);
        state.masters[1] = Some(second);
        // The new master has the registrations of the old one.
        state.gateways.iter_mut().for_each(|gateway| gateway.registered[1] = gateway.registered[0]);
        state.ghosts[1] = state.ghosts[0];
        state.quarantine = self.bounds.lease + self.bounds.lag;
        Some(())
    }

    /// On the master of the newest epoch; what the old one takes meanwhile is not answered (`core`).
    fn write(&self, state: &mut State<GATEWAYS>) -> Option<()> {
        let epoch = if state.masters[1].is_some() { Epoch::Second } else { Epoch::First };
        let again = matches!(state.writer, Writer::Taken { epoch: taken, .. } if taken < epoch);
        (state.writer == Writer::Idle || again).then_some(())?;
        let master = state.masters[epoch as usize].as_mut()?;
        master.has_key = true;
        master.revision = u8::from(self.hold(Rule::ImportIsALogEntry));
        let waits = state.imported && self.hold(Rule::ImportWaits);
        for gateway in &mut state.gateways {
            let acknowledged = gateway.epoch == Some(epoch) && gateway.applied > 0;
            gateway.awaited = waits && gateway.registered[epoch as usize] && !acknowledged;
        }
        state.writer = Writer::Taken { epoch, left: self.bounds.lease, ghost: waits && state.ghosts[epoch as usize] };
        Some(())
    }

    fn answer(&self, state: &mut State<GATEWAYS>, watch: usize) -> Option<()> {
        let Writer::Taken { epoch, left, ghost } = state.writer else {
            return None;
        };
        let rule = if state.imported { Rule::ImportQuarantined } else { Rule::CreateQuarantined };
        let quarantined = epoch == Epoch::Second && state.quarantine > 0 && self.hold(rule);
        let awaited = left > 0 && (ghost || state.gateways.iter().any(|gateway| gateway.awaited));
        (!quarantined && !awaited).then_some(())?;
        state.writer = Writer::Answered;
        for g in 0..GATEWAYS {
            let watched = g == watch;
            let gateway = if watched { state.gateways[g] } else { Gateway::NEW };
            state.gateways[g] = Gateway { watched, awaited: false, ..gateway };
        }
        Some(())
    }

    fn tick(&self, state: &mut State<GATEWAYS>) {
        state.gateways.iter_mut().for_each(Gateway::tick);
        state.quarantine = state.quarantine.saturating_sub(1);
        if let Writer::Taken { left, .. } = &mut state.writer {
            *left = left.saturating_sub(1);
        }
        if let Some(Master { ends: Some(left), .. }) = &mut state.masters[0] {
            *left -= 1;
            if *left == 0 {
                state.masters[0] = None;
            }
        }
    }
}

impl Master {
    fn reply(self, epoch: Epoch) -> Reply {
        Reply { epoch, revision: self.revision, is_there: self.has_key }
    }
}

impl<const GATEWAYS: usize> Model for Unknown<GATEWAYS> {
    type State = State<GATEWAYS>;
    type Action = Action;

    fn init_states(&self) -> Vec<Self::State> {
        let state = |imported| State {
            imported,
            masters: [Some(Master { has_key: false, revision: 0, ends: None }), None],
            ghosts: [false; 2],
            gateways: [Gateway::NEW; GATEWAYS],
            writer: Writer::Idle,
            quarantine: 0,
            crashes: 0,
            denied: false,
        };
        vec![state(true), state(false)]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Action>) {
        use Action::*;
        actions.extend([Tick, Promote, Write]);
        for g in (0..GATEWAYS).filter(|g| state.gateways[*g].watched) {
            actions.extend([Answer { watch: g }, Renew(g), Receive(g), Fill(g), Forget(g), Call(g), LookUp(g)]);
            actions.extend([ReadClock(g), Serve(g, Epoch::First), Serve(g, Epoch::Second)]);
            actions.extend([Load(g, Epoch::First), Load(g, Epoch::Second)]);
            if state.crashes < self.bounds.crashes {
                actions.push(Crash(g));
            }
        }
    }

    fn next_state(&self, before: &Self::State, action: Action) -> Option<Self::State> {
        let mut state = before.clone();
        match action {
            Action::Tick => self.tick(&mut state),
            Action::Promote => self.promote(&mut state)?,
            Action::Write => self.write(&mut state)?,
            Action::Answer { watch } => self.answer(&mut state, watch)?,
            Action::Crash(g) => {
                let gateway = &mut state.gateways[g];
                for at in 0..2 {
                    state.ghosts[at] |= gateway.registered[at];
                }
                if let Writer::Taken { ghost, .. } = &mut state.writer {
                    *ghost |= gateway.awaited;
                }
                *gateway = Gateway::NEW;
                state.crashes += 1;
            }
            Action::Renew(g)
            | Action::Serve(g, _)
            | Action::Receive(g)
            | Action::Load(g, _)
            | Action::Fill(g)
            | Action::Forget(g)
            | Action::Call(g)
            | Action::LookUp(g)
            | Action::ReadClock(g) => self.step(&mut state, g, action)?,
        }
        if state.writer == Writer::Answered {
            // Nobody reads these again.
            state.quarantine = 0;
            state.ghosts = [false; 2];
            state.gateways.iter_mut().for_each(|gateway| gateway.registered = [false; 2]);
        }
        // Gateways are alike: only one of their orders is searched.
        state.gateways.sort_unstable();
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LIVE, |_, state: &Self::State| !state.denied),
            Property::sometimes(
                "an import is taken while a gateway holds the key as unknown",
                |_, state: &Self::State| {
                    matches!(state.writer, Writer::Taken { .. })
                        && state.gateways.iter().any(|gateway| gateway.held == Held::Unknown && gateway.lease > 0)
                },
            ),
            Property::sometimes("an imported key is held as unknown without a lease", |_, state: &Self::State| {
                state.writer == Writer::Answered && state.gateways.iter().any(|gateway| gateway.held == Held::Unknown)
            }),
            Property::sometimes("a created key is held after a failover", |_, state: &Self::State| {
                let held = |gateway: &Gateway| gateway.held == Held::Allow && gateway.epoch == Some(Epoch::Second);
                !state.imported && state.gateways.iter().any(held)
            }),
        ]
    }
}

#[test]
fn safe_with_one_gateway() {
    let bounds = bound(Bounds { lease: 2, lag: 1, crashes: 1 }, Bounds { lease: 3, lag: 2, crashes: 2 });
    exhaust("unknown, one gateway", Unknown::<1> { bounds, rules: Rules::default() });
}

#[test]
fn safe_with_two_gateways() {
    let bounds = bound(Bounds { lease: 1, lag: 0, crashes: 0 }, Bounds { lease: 2, lag: 1, crashes: 0 });
    exhaust("unknown, two gateways", Unknown::<2> { bounds, rules: Rules::default() });
}

/// One test per rule that is left out, each of which must find a counterexample.
macro_rules! mutants {
    ($($name:ident: $rule:ident;)+) => {$(
        #[test]
        fn $name() {
            let rules = Rules::without(&[Rule::$rule]);
            let model = Unknown::<1> { bounds: Bounds { lease: 1, lag: 1, crashes: 0 }, rules };
            refute(concat!("unknown without ", stringify!($rule)), model, LIVE);
        }
    )+};
}

mutants! {
    unknown_without_a_lease: UnknownNeedsALease;
    an_import_that_is_no_log_entry: ImportIsALogEntry;
    an_import_that_does_not_wait: ImportWaits;
    an_import_right_after_a_failover: ImportQuarantined;
    a_create_right_after_a_failover: CreateQuarantined;
    unknown_filled_below_the_floor: FillNotBelowFloor;
    unknown_kept_in_a_new_epoch: NewEpochForgets;
}
