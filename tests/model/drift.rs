//! Clocks of different rates: whether a wait that was measured on one clock is over after a lease on another.
//!
//! **In it.** Three clocks: of the gateway, of who waits, and of an old master. In each step each of them advances by 4
//! or by 5 units, so that over any time two of them differ by at most ρ = 1/4. A clock is read up to `ERROR` units late.
//! Who waits is a deleter that outwaits a silent gateway, or a janitor that removes one whose counter stood still, which
//! comes to the same; or a control plane in its quarantine after a failover, while the old master still renews leases for
//! `LAG` units of its own clock. The gateway holds the key, renews at any moment, and its replies come after any time.
//!
//! **Bound.** The length of the lease, in units; replies and lookups may take any time.
//!
//! **Left out.** Everything else: the gateway never hears of the delete, which is the worst that can happen to it. Clocks
//! that stop or jump: a machine paused or restored by its hypervisor.

use stateright::{Model, Property};

use crate::{Rule, Rules, SAFE, bound, exhaust, refute};

type Units = u16;

/// What a clock may advance in one step.
const SLOW: Units = 4;
const FAST: Units = 5;
/// How late a clock may be read.
const ERROR: Units = 1;
const LAG: Units = 8;

/// What a time of this length on a slow clock may be longer on a fast one.
fn drift(length: Units) -> Units {
    (length * (FAST - SLOW)).div_ceil(SLOW)
}

struct Drift {
    lease: Units,
    waiter: Waiter,
    rules: Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiter {
    /// A deleter, or a janitor.
    Outwaiting,
    Quarantine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Renewal {
    None,
    /// What is left on the gateway's clock, from its sending, of the lease that it asks for.
    Sent {
        left: Units,
    },
    Answered {
        left: Units,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wait {
    NotBegun,
    /// On the clock of who waits.
    Left(Units),
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    None,
    LeaseRead { left: Units },
}

/// What is left of a lease is counted up to the latest moment at which a late reading still finds it good.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    lease: Units,
    renewal: Renewal,
    wait: Wait,
    /// What is left, on its own clock, of the time for which the old master answers.
    lag: Option<Units>,
    call: Call,
    admitted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    /// By how much each clock advances.
    Step {
        gateway: Units,
        waiter: Units,
        master: Units,
    },
    /// The delete is taken, the janitor looks, the replica is promoted.
    Begin,
    Answer,
    Renew,
    Serve,
    Receive,
    Call,
    ReadClock,
}

impl Drift {
    fn hold(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    /// L(1+ρ)+ε, rounded up. In the quarantine also the lag, with what Redis' way of counting it adds.
    fn wait(&self) -> Units {
        let rate = if self.hold(Rule::WaitCoversRate) { drift(self.lease) } else { 0 };
        let grace = if self.hold(Rule::WaitCoversReading) { 2 * ERROR } else { 0 };
        let lag = if self.waiter == Waiter::Quarantine { LAG + drift(LAG) } else { 0 };
        self.lease + rate + grace + lag
    }

    /// Whether the store still takes a renewal that says nothing of the delete.
    fn serves(&self, state: &State) -> bool {
        match (self.waiter, state.wait) {
            (_, Wait::NotBegun) => true,
            (Waiter::Quarantine, _) => state.lag.is_some(),
            // From here on a renewal brings the delete, or moves the counter that the janitor looks at.
            _ => false,
        }
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Step { gateway, waiter, master } => advance(state, gateway, waiter, master),
            Action::Begin if state.wait == Wait::NotBegun => {
                // The clock may be read late at the beginning and on time at the end, so the wait may be short by that.
                state.wait = Wait::Left(self.wait() - ERROR);
                state.lag = Some(LAG);
            }
            Action::Answer if state.wait == Wait::Left(0) => state.wait = Wait::Answered,
            Action::Renew => state.renewal = Renewal::Sent { left: self.lease + ERROR },
            Action::Serve if self.serves(state) => {
                let Renewal::Sent { left } = state.renewal else {
                    return None;
                };
                state.renewal = Renewal::Answered { left };
            }
            Action::Receive => {
                let Renewal::Answered { left } = state.renewal else {
                    return None;
                };
                state.renewal = Renewal::None;
                state.lease = state.lease.max(left);
            }
            Action::Call if state.wait == Wait::Answered && state.call == Call::None => {
                state.call = Call::LeaseRead { left: state.lease };
            }
            Action::ReadClock => {
                let Call::LeaseRead { left } = state.call else {
                    return None;
                };
                state.call = Call::None;
                state.admitted |= left > 0;
            }
            _ => return None,
        }
        Some(())
    }
}

fn advance(state: &mut State, gateway: Units, waiter: Units, master: Units) {
    state.lease = state.lease.saturating_sub(gateway);
    state.lag = state.lag.and_then(|left| left.checked_sub(master));
    if let Renewal::Sent { left } | Renewal::Answered { left } = &mut state.renewal {
        *left = left.saturating_sub(gateway);
    }
    if let Call::LeaseRead { left } = &mut state.call {
        *left = left.saturating_sub(gateway);
    }
    if let Wait::Left(left) = &mut state.wait {
        *left = left.saturating_sub(waiter);
    }
}

impl Model for Drift {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let (renewal, wait, call) = (Renewal::None, Wait::NotBegun, Call::None);
        vec![State { lease: 0, renewal, wait, lag: None, call, admitted: false }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::*;
        for gateway in [SLOW, FAST] {
            for waiter in [SLOW, FAST] {
                actions.extend([SLOW, FAST].map(|master| Step { gateway, waiter, master }));
            }
        }
        actions.extend([Begin, Answer, Renew, Serve, Receive, Call, ReadClock]);
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        self.step(&mut state, action)?;
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAFE, |_, state: &State| !state.admitted),
            Property::sometimes("a lease holds until just before the wait is over", |_, state: &State| {
                matches!(state.wait, Wait::Left(1..=FAST)) && state.lease > 0
            }),
            Property::sometimes("a delete answers 200", |_, state: &State| state.wait == Wait::Answered),
        ]
    }
}

const WAITERS: [Waiter; 2] = [Waiter::Outwaiting, Waiter::Quarantine];

#[test]
fn safe() {
    for waiter in WAITERS {
        let model = Drift { lease: bound(40, 160), waiter, rules: Rules::default() };
        exhaust(&format!("drift, {waiter:?}"), model);
    }
}

fn refute_without(rule: &'static [Rule]) {
    for waiter in WAITERS {
        let model = Drift { lease: 40, waiter, rules: Rules::without(rule) };
        refute(&format!("drift, {waiter:?}, without {rule:?}"), model, SAFE);
    }
}

#[test]
fn a_wait_that_ignores_the_rates() {
    refute_without(&[Rule::WaitCoversRate]);
}

#[test]
fn a_wait_that_ignores_the_reading() {
    refute_without(&[Rule::WaitCoversReading]);
}
