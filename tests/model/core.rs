//! The core: one key, one delete, a master with a replica that lags, failover, and gateways that may crash.
//!
//! **In it.** Two store instances. The replica is any earlier state of its master; it may be promoted at any moment, is
//! closed until it is opened in a new epoch, and is opened *without* a journal, which is the worst case. The old master
//! goes on answering whom it reaches for `lag` ticks. Gateways renew, load, fill, forget and restart in any order, at
//! either instance; replies are lost or come after any time, and a push may be lost, doubled or forged (all it can do is
//! to hide a key, which is the step `Forget`). A reply carries at most one log entry, so a gateway behind by two catches
//! up in two rounds. Calls begin after the delete has answered 200; between lease, lookup and clock any time may pass.
//!
//! **Bound.** See `Bounds`. Time is unbounded.
//!
//! **Left out.** Journals (`failover`), accounts, clusters and a log that is trimmed (`trimming`), unknown keys
//! (`unknown`), removal of a dead gateway (`membership`), clocks of different rates (`drift`). Applying a reply is one
//! step here. A renewal whose connection was given up and which the store still executes later: it could only lower an
//! acknowledgement. Requests of a gateway that has died: they could only make a delete wait for the dead.

use stateright::{Model, Property};

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

struct Core<const GATEWAYS: usize> {
    bounds: Bounds,
    rules: Rules,
}

const INSTANCES: [usize; 2] = [0, 1];

type Epoch = u8;
type Revision = u8;
type Ticks = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Entry {
    Delete,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Role {
    Master,
    /// A master that was just promoted: it answers nothing until it is opened.
    Closed,
    Replica,
    /// A master whose replica was promoted. It takes writes until so many ticks have passed.
    Cut(Ticks),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Instance {
    role: Role,
    epoch: Epoch,
    log: [Option<Entry>; 3],
    /// A gateway is registered that has died.
    ghost: bool,
}

impl Instance {
    fn revision(&self) -> Revision {
        self.log.iter().flatten().count() as Revision
    }

    /// The revision of the delete, where this instance has it.
    fn deleted_at(&self) -> Option<Revision> {
        self.log.iter().position(|entry| *entry == Some(Entry::Delete)).map(|at| at as Revision + 1)
    }

    fn append(&mut self, entry: Entry) {
        let end = self.revision() as usize;
        self.log[end] = Some(entry);
    }
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
    /// `left` is what is left, counted from the sending, of the lease that it asks for.
    Sent {
        left: Ticks,
    },
    Answered {
        left: Ticks,
        epoch: Epoch,
        revision: Revision,
        next_is_delete: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Loaded {
    epoch: Epoch,
    revision: Revision,
}

/// A call that began after the delete had answered, with what is left of the lease that it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Call {
    None,
    LeaseRead(Ticks),
    AllowSeen(Ticks),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Gateway {
    /// False once it cannot matter any more.
    watched: bool,
    /// Zero before the first renewal.
    epoch: Epoch,
    applied: Revision,
    held: Held,
    lease: Ticks,
    renewal: Renewal,
    /// A load that found the key. One that did not changes nothing, so it is not kept.
    load: Option<Loaded>,
    call: Call,
    /// What each instance has of it: nothing, or its acknowledged revision.
    registered: [Option<Revision>; 2],
    /// The deleter waits for it.
    awaited: bool,
    /// Only where `AcknowledgeAfterApply` is left out: a delete that is acknowledged and not yet applied.
    unapplied: bool,
}

impl Gateway {
    const NEW: Self = Self {
        watched: true,
        epoch: 0,
        applied: 0,
        held: Held::Nothing,
        lease: 0,
        renewal: Renewal::None,
        load: None,
        call: Call::None,
        registered: [None; 2],
        awaited: false,
        unapplied: false,
    };

    fn tick(&mut self) {
        self.lease = self.lease.saturating_sub(1);
        if let Renewal::Sent { left } | Renewal::Answered { left, .. } = &mut self.renewal {
            *left = left.saturating_sub(1);
        }
        if let Call::LeaseRead(left) | Call::AllowSeen(left) = &mut self.call {
            *left = left.saturating_sub(1);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Deleter {
    /// Nothing was asked for, or its answer was not heard.
    Idle,
    Taken {
        by: u8,
        epoch: Epoch,
        revision: Revision,
        replicated: bool,
        /// Ticks until every lease has ended that was granted before.
        left: Ticks,
        /// A gateway that has died is awaited.
        ghost: bool,
    },
    Answered,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State<const GATEWAYS: usize> {
    instances: [Instance; 2],
    gateways: [Gateway; GATEWAYS],
    deleter: Deleter,
    /// Ticks until the first 200 may be given in the newest epoch.
    quarantine: Ticks,
    epochs: Epoch,
    failovers: u8,
    crashes: u8,
    others: u8,
    /// A call that began after the 200 was let through.
    admitted: bool,
}

type At = usize;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Tick,
    /// The replica catches up with its master.
    Replicate,
    Promote,
    Open,
    /// The old master becomes the replica of the new one.
    Rejoin,
    Change(At),
    Delete(At),
    /// The delete is executed, and its answer is lost.
    DeleteUnheard(At),
    /// The delete answers 200. Gateways meet nowhere but in the deleter, so from here on only one of them is watched.
    Answer {
        watch: usize,
    },
    Renew(usize),
    Serve(usize, At),
    Receive(usize),
    Load(usize, At),
    Fill(usize),
    /// The key is evicted, or hidden by a push.
    Forget(usize),
    Crash(usize),
    Call(usize),
    LookUp(usize),
    ReadClock(usize),
    // Only of mutants.
    TakePush(usize, At),
    ApplyLate(usize),
}

impl<const GATEWAYS: usize> Core<GATEWAYS> {
    fn hold(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    /// Whether this instance executes a script that writes.
    fn writes(&self, instance: &Instance) -> bool {
        match instance.role {
            Role::Master => true,
            Role::Closed | Role::Replica => false,
            Role::Cut(left) => left > 0,
        }
    }

    /// Whether it executes a renewal or a load.
    fn serves(&self, instance: &Instance) -> bool {
        self.writes(instance) || !self.hold(Rule::WriteFirst) && matches!(instance.role, Role::Cut(_))
    }

    fn outwait(&self) -> Ticks {
        self.bounds.lease - u8::from(!self.hold(Rule::OutwaitWholeLease))
    }

    fn quarantine(&self) -> Ticks {
        match () {
            () if !self.hold(Rule::Quarantine) || !self.hold(Rule::Epoch) => 0,
            () if !self.hold(Rule::QuarantineCoversLag) => self.bounds.lease,
            () => self.bounds.lease + self.bounds.lag,
        }
    }

    fn store_actions(&self, state: &State<GATEWAYS>, actions: &mut Vec<Action>) {
        let roles = state.instances.map(|instance| instance.role);
        if roles.contains(&Role::Replica) {
            actions.push(Action::Replicate);
            if state.failovers < self.bounds.failovers && roles.contains(&Role::Master) {
                actions.push(Action::Promote);
            }
        }
        if roles.contains(&Role::Closed) {
            actions.push(Action::Open);
        }
        let may_fail_over_again = state.failovers < self.bounds.failovers;
        if may_fail_over_again && roles.contains(&Role::Master) && roles.iter().any(|role| matches!(role, Role::Cut(_)))
        {
            actions.push(Action::Rejoin);
        }
        for at in INSTANCES {
            if state.others < self.bounds.others && self.writes(&state.instances[at]) {
                actions.push(Action::Change(at));
            }
        }
    }

    fn deleter_actions(&self, state: &State<GATEWAYS>, actions: &mut Vec<Action>) {
        let answered = state.deleter == Deleter::Answered;
        for at in INSTANCES {
            let instance = &state.instances[at];
            // Run again only in another epoch, or where the answer was not heard.
            let again = matches!(state.deleter, Deleter::Taken { epoch, .. } if epoch == instance.epoch);
            if !answered && !again && self.writes(instance) {
                actions.push(Action::Delete(at));
                if instance.deleted_at().is_none() {
                    actions.push(Action::DeleteUnheard(at));
                }
            }
        }
        let Deleter::Taken { replicated, left, ghost, epoch, .. } = state.deleter else {
            return;
        };
        let nobody_awaited = !ghost && state.gateways.iter().all(|gateway| !gateway.awaited);
        let enough = !self.hold(Rule::AwaitAll) && state.gateways.iter().any(|gateway| !gateway.awaited);
        let quarantined = epoch > 1 && state.quarantine > 0;
        if !quarantined && (replicated || !self.hold(Rule::Wait)) && (left == 0 || nobody_awaited || enough) {
            actions.extend((0..GATEWAYS).map(|watch| Action::Answer { watch }));
        }
    }

    fn gateway_actions(&self, state: &State<GATEWAYS>, g: usize, actions: &mut Vec<Action>) {
        let gateway = &state.gateways[g];
        actions.push(Action::Renew(g));
        if let Renewal::Answered { .. } = gateway.renewal {
            actions.push(Action::Receive(g));
        }
        for at in INSTANCES.into_iter().filter(|at| self.serves(&state.instances[*at])) {
            if let Renewal::Sent { .. } = gateway.renewal {
                actions.push(Action::Serve(g, at));
            }
            if gateway.epoch != 0 && gateway.held == Held::Nothing {
                actions.push(Action::Load(g, at));
            }
            if !self.hold(Rule::PushIsAHint) && gateway.epoch == state.instances[at].epoch {
                actions.push(Action::TakePush(g, at));
            }
        }
        if gateway.load.is_some() {
            actions.push(Action::Fill(g));
        }
        if gateway.held == Held::Allow || gateway.held == Held::Tombstone && gateway.load.is_none() {
            actions.push(Action::Forget(g));
        }
        if gateway.unapplied {
            actions.push(Action::ApplyLate(g));
        }
        if state.crashes < self.bounds.crashes {
            actions.push(Action::Crash(g));
        }
        if state.deleter == Deleter::Answered {
            self.call_actions(state, g, actions);
        }
    }

    /// One call at a time: what the calls do to each other is modelled by the free steps of their gateways.
    fn call_actions(&self, state: &State<GATEWAYS>, g: usize, actions: &mut Vec<Action>) {
        match state.gateways[g].call {
            Call::None if state.gateways.iter().all(|gateway| gateway.call == Call::None) => {
                actions.push(Action::Call(g));
            }
            Call::None => {}
            Call::LeaseRead(_) => actions.push(Action::LookUp(g)),
            Call::AllowSeen(_) => actions.push(Action::ReadClock(g)),
        }
    }

    fn delete(&self, state: &mut State<GATEWAYS>, at: At) -> Revision {
        let instance = &mut state.instances[at];
        instance.deleted_at().unwrap_or_else(|| {
            instance.append(Entry::Delete);
            instance.revision()
        })
    }

    fn take(&self, state: &mut State<GATEWAYS>, at: At) {
        let revision = self.delete(state, at);
        for gateway in &mut state.gateways {
            gateway.awaited = gateway.registered[at].is_some_and(|acknowledged| acknowledged < revision);
        }
        let Instance { epoch, ghost, .. } = state.instances[at];
        state.deleter =
            Deleter::Taken { by: at as u8, epoch, revision, replicated: false, left: self.outwait(), ghost };
    }

    /// What the deleter learns from `WAIT` and from acknowledgements, read in the epoch of the delete, as early as it
    /// can: to learn it later could only make it answer later. After a failover no replica is configured until one is
    /// there again.
    fn learn(&self, state: &mut State<GATEWAYS>) {
        let Deleter::Taken { by, epoch, revision, replicated, ghost, left } = &mut state.deleter else {
            return;
        };
        let by = *by as usize;
        let (instance, other) = (&state.instances[by], &state.instances[1 - by]);
        let enough = match instance.role {
            Role::Master => other.role != Role::Replica || other.deleted_at().is_some(),
            Role::Cut(1..) => state.failovers > 0 && !self.hold(Rule::ReplicasOfTheEpoch),
            _ => false,
        };
        *replicated |= enough && (instance.epoch == *epoch || !self.hold(Rule::EpochAfterWait));
        let readable = self.writes(instance) && instance.epoch == *epoch;
        for gateway in &mut state.gateways {
            let acknowledged = readable && gateway.registered[by].is_some_and(|at| at >= *revision);
            gateway.awaited &= !acknowledged && *left > 0;
        }
        *ghost &= *left > 0;
    }

    fn answer(&self, state: &mut State<GATEWAYS>, watch: usize) {
        state.deleter = Deleter::Answered;
        for (g, gateway) in state.gateways.iter_mut().enumerate() {
            *gateway = if g == watch {
                Gateway { awaited: false, ..*gateway }
            } else {
                Gateway { watched: false, ..Gateway::NEW }
            };
        }
    }

    fn promote(&self, state: &mut State<GATEWAYS>) {
        for instance in &mut state.instances {
            instance.role = match instance.role {
                Role::Replica if self.hold(Rule::Epoch) => Role::Closed,
                Role::Replica => Role::Master,
                _ => Role::Cut(self.bounds.lag + 1),
            };
        }
        state.failovers += 1;
        state.quarantine = self.quarantine();
    }

    fn open(&self, state: &mut State<GATEWAYS>) {
        state.epochs += 1;
        for instance in &mut state.instances {
            if instance.role == Role::Closed {
                instance.role = Role::Master;
                instance.epoch = state.epochs;
            }
        }
    }

    /// Copies everything from the master to the other instance, which is or becomes its replica.
    fn replicate(&self, state: &mut State<GATEWAYS>) {
        let from = INSTANCES.into_iter().find(|at| matches!(state.instances[*at].role, Role::Master | Role::Closed));
        if let Some(from) = from {
            state.instances[1 - from] = Instance { role: Role::Replica, ..state.instances[from] };
            for gateway in &mut state.gateways {
                gateway.registered[1 - from] = gateway.registered[from];
            }
        }
    }

    fn serve(&self, state: &mut State<GATEWAYS>, g: usize, at: At) {
        let gateway = &mut state.gateways[g];
        let instance = &state.instances[at];
        if let Renewal::Sent { left } = gateway.renewal {
            let counts = gateway.epoch == instance.epoch || !self.hold(Rule::AcknowledgementsOfThisEpoch);
            // What an instance takes that refuses writes is not stored.
            if self.writes(instance) {
                gateway.registered[at] = Some(if counts { gateway.applied } else { 0 });
            }
            let next_is_delete = instance.deleted_at() == Some(gateway.applied + 1);
            let (epoch, revision) = (instance.epoch, instance.revision());
            gateway.renewal = Renewal::Answered { left, epoch, revision, next_is_delete };
        }
    }

    fn receive(&self, state: &mut State<GATEWAYS>, g: usize) {
        let gateway = &mut state.gateways[g];
        let Renewal::Answered { left, epoch, revision, next_is_delete } = gateway.renewal else {
            return;
        };
        gateway.renewal = Renewal::None;
        if epoch == gateway.epoch {
            if gateway.applied < revision && self.hold(Rule::CatchUp) {
                gateway.applied += 1;
                if next_is_delete && self.hold(Rule::AcknowledgeAfterApply) {
                    gateway.held = Held::Tombstone;
                } else if next_is_delete {
                    gateway.unapplied = true;
                    return;
                }
            }
        } else {
            gateway.epoch = epoch;
            gateway.applied = revision;
            if gateway.held == Held::Allow && self.hold(Rule::NewEpochForgets) {
                gateway.held = Held::Nothing;
            }
        }
        if self.hold(Rule::FillNotBelowFloor) {
            // It would be refused, whenever it came.
            let (epoch, applied) = (gateway.epoch, gateway.applied);
            gateway.load = gateway.load.filter(|load| load.epoch != epoch || load.revision >= applied);
        }
        let caught_up = gateway.applied >= revision;
        if caught_up || !self.hold(Rule::LeaseOnlyWhenCaughtUp) || !self.hold(Rule::CatchUp) {
            let length = if self.hold(Rule::LeaseFromSending) { left } else { self.bounds.lease };
            gateway.lease = gateway.lease.max(length);
        }
    }

    fn fill(&self, state: &mut State<GATEWAYS>, g: usize) {
        let gateway = &mut state.gateways[g];
        let Some(loaded) = gateway.load.take() else {
            return;
        };
        let is_behind = loaded.revision < gateway.applied && self.hold(Rule::FillNotBelowFloor);
        let is_buried = gateway.held == Held::Tombstone && self.hold(Rule::FillSparesTombstones);
        if loaded.epoch == gateway.epoch && !is_behind && !is_buried {
            gateway.held = Held::Allow;
        }
    }

    fn crash(&self, state: &mut State<GATEWAYS>, g: usize) {
        let gateway = &mut state.gateways[g];
        for at in INSTANCES {
            state.instances[at].ghost |= gateway.registered[at].is_some();
        }
        if let Deleter::Taken { ghost, .. } = &mut state.deleter {
            *ghost |= gateway.awaited;
        }
        *gateway = Gateway::NEW;
        state.crashes += 1;
    }

    fn call(&self, gateway: &mut Gateway, action: Action) -> Option<bool> {
        let lease_is_read = self.hold(Rule::Lease);
        match (action, gateway.call) {
            (Action::Call(_), _) => {
                // A lease that has ended already admits nothing, unless it is read again later or not at all.
                let hopeless = gateway.lease == 0 && lease_is_read && self.hold(Rule::SnapshotBeforeLookup);
                gateway.call = Call::LeaseRead(gateway.lease);
                return (!hopeless).then_some(false);
            }
            (Action::LookUp(_), Call::LeaseRead(left)) => {
                gateway.call = if gateway.held == Held::Allow { Call::AllowSeen(left) } else { Call::None };
            }
            (Action::ReadClock(_), Call::AllowSeen(left)) => {
                gateway.call = Call::None;
                let left = if self.hold(Rule::SnapshotBeforeLookup) { left } else { gateway.lease };
                return Some(left > 0 || !lease_is_read);
            }
            _ => return None,
        }
        Some(false)
    }

    /// Makes states the same that differ only in what nobody will read again.
    fn canonicalise(&self, state: &mut State<GATEWAYS>) {
        if state.deleter == Deleter::Answered {
            state.quarantine = 0;
            state.gateways.iter_mut().for_each(|gateway| gateway.registered = [None; 2]);
            state.instances.iter_mut().for_each(|instance| instance.ghost = false);
        }
        for at in INSTANCES {
            let instance = &mut state.instances[at];
            if instance.role == Role::Cut(0) && !self.serves(instance) {
                *instance = Instance { role: Role::Cut(0), epoch: 0, log: [None; 3], ghost: false };
                state.gateways.iter_mut().for_each(|gateway| gateway.registered[at] = None);
            }
        }
        // Gateways are alike: only one of their orders is searched.
        state.gateways.sort_unstable();
    }

    fn tick(&self, state: &mut State<GATEWAYS>) {
        state.gateways.iter_mut().for_each(Gateway::tick);
        state.quarantine = state.quarantine.saturating_sub(1);
        if let Deleter::Taken { left, .. } = &mut state.deleter {
            *left = left.saturating_sub(1);
        }
        for instance in &mut state.instances {
            if let Role::Cut(left) = &mut instance.role {
                *left = left.saturating_sub(1);
            }
        }
    }
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

#[test]
fn safe_with_one_gateway() {
    let bounds = bound(
        Bounds { lease: 2, lag: 1, failovers: 1, crashes: 1, others: 1 },
        Bounds { lease: 2, lag: 1, failovers: 2, crashes: 1, others: 1 },
    );
    exhaust("core, one gateway", Core::<1> { bounds, rules: Rules::default() });
}

#[test]
fn safe_with_two_gateways() {
    let bounds = bound(
        Bounds { lease: 1, lag: 1, failovers: 1, crashes: 0, others: 0 },
        Bounds { lease: 1, lag: 1, failovers: 1, crashes: 1, others: 1 },
    );
    exhaust("core, two gateways", Core::<2> { bounds, rules: Rules::default() });
}

/// Enough for the counterexamples.
const SMALL: Bounds = Bounds { lease: 1, lag: 1, failovers: 1, crashes: 0, others: 1 };

fn refute_without(left_out: &'static [Rule], bounds: Bounds) {
    refute(&format!("core without {left_out:?}"), Core::<1> { bounds, rules: Rules::without(left_out) }, SAFE);
}

#[test]
fn the_floor_alone_stops_a_fill_over_a_tombstone() {
    // So the rule about tombstones is a second lock on the same door. The floor is not: see below.
    let rules = Rules::without(&[Rule::FillSparesTombstones]);
    exhaust("core, one gateway, fills stopped by the floor alone", Core::<1> { bounds: SMALL, rules });
}

#[test]
fn not_all_gateways_are_awaited() {
    let bounds = Bounds { lease: 1, lag: 1, failovers: 0, crashes: 0, others: 0 };
    refute("core without AwaitAll", Core::<2> { bounds, rules: Rules::without(&[Rule::AwaitAll]) }, SAFE);
}

/// One test per rule that is left out, each of which must find a counterexample.
macro_rules! mutants {
    ($($name:ident: $($rule:ident)+;)+) => {$(
        #[test]
        fn $name() {
            refute_without(&[$(Rule::$rule),+], SMALL);
        }
    )+};
}

mutants! {
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

#[test]
fn the_epoch_is_not_read_again_after_wait() {
    // The same instance is master in two epochs, so this takes two failovers.
    refute_without(&[Rule::EpochAfterWait], Bounds { failovers: 2, ..SMALL });
}
