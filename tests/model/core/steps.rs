//! The steps of the core: who may do what, and what it changes.

use super::state::*;
use super::{Core, KeptBy};
use crate::Rule;

impl<const GATEWAYS: usize> Core<GATEWAYS> {
    pub(super) fn hold(&self, rule: Rule) -> bool {
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

    pub(super) fn store_actions(&self, state: &State<GATEWAYS>, actions: &mut Vec<Action>) {
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

    pub(super) fn deleter_actions(&self, state: &State<GATEWAYS>, actions: &mut Vec<Action>) {
        let answered = state.deleter == Deleter::Answered;
        for at in INSTANCES {
            let instance = &state.instances[at];
            // Run again only in another epoch, or where the answer was not heard.
            let again = matches!(state.deleter, Deleter::Taken { epoch, .. } if epoch == instance.epoch);
            // With a journal that has been replayed into a newer epoch the old one is not asked any more.
            let is_old = self.kept_by == KeptBy::Journal && instance.epoch < state.epochs;
            let is_asked = !is_old || !self.hold(Rule::ChangesNameTheEpoch);
            if !answered && !again && is_asked && self.writes(instance) {
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

    pub(super) fn gateway_actions(&self, state: &State<GATEWAYS>, g: usize, actions: &mut Vec<Action>) {
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

    pub(super) fn delete(&self, state: &mut State<GATEWAYS>, at: At) -> Revision {
        state.journaled = self.kept_by == KeptBy::Journal;
        state.instances[at].bury()
    }

    pub(super) fn take(&self, state: &mut State<GATEWAYS>, at: At) {
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
    pub(super) fn learn(&self, state: &mut State<GATEWAYS>) {
        let Deleter::Taken { by, epoch, revision, replicated, ghost, left } = &mut state.deleter else {
            return;
        };
        let by = *by as usize;
        let (instance, other) = (&state.instances[by], &state.instances[1 - by]);
        let enough = match instance.role {
            _ if self.kept_by == KeptBy::Journal => true,
            Role::Master => other.role != Role::Replica || other.deleted_at().is_some(),
            Role::Cut(1..) => state.failovers > 0 && !self.hold(Rule::ReplicasOfTheEpoch),
            _ => false,
        };
        let same_epoch = instance.epoch == *epoch || !self.hold(Rule::EpochAfterWait);
        *replicated |= enough && (same_epoch || self.kept_by == KeptBy::Journal);
        let readable = self.writes(instance) && instance.epoch == *epoch;
        for gateway in &mut state.gateways {
            let acknowledged = readable && gateway.registered[by].is_some_and(|at| at >= *revision);
            gateway.awaited &= !acknowledged && *left > 0;
        }
        *ghost &= *left > 0;
    }

    pub(super) fn answer(&self, state: &mut State<GATEWAYS>, watch: usize) {
        state.deleter = Deleter::Answered;
        for (g, gateway) in state.gateways.iter_mut().enumerate() {
            *gateway = if g == watch {
                Gateway { awaited: false, ..*gateway }
            } else {
                Gateway { watched: false, ..Gateway::NEW }
            };
        }
    }

    pub(super) fn promote(&self, state: &mut State<GATEWAYS>) {
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

    pub(super) fn open(&self, state: &mut State<GATEWAYS>) {
        state.epochs += 1;
        for instance in &mut state.instances {
            if instance.role == Role::Closed {
                instance.role = Role::Master;
                instance.epoch = state.epochs;
                if state.journaled && self.hold(Rule::ReplayBeforeOpening) {
                    instance.bury();
                }
            }
        }
    }

    /// Copies everything from the master to the other instance, which is or becomes its replica.
    pub(super) fn replicate(&self, state: &mut State<GATEWAYS>) {
        let from = INSTANCES.into_iter().find(|at| matches!(state.instances[*at].role, Role::Master | Role::Closed));
        if let Some(from) = from {
            state.instances[1 - from] = Instance { role: Role::Replica, ..state.instances[from] };
            for gateway in &mut state.gateways {
                gateway.registered[1 - from] = gateway.registered[from];
            }
        }
    }

    pub(super) fn serve(&self, state: &mut State<GATEWAYS>, g: usize, at: At) {
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

    pub(super) fn receive(&self, state: &mut State<GATEWAYS>, g: usize) {
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

    pub(super) fn fill(&self, state: &mut State<GATEWAYS>, g: usize) {
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

    pub(super) fn crash(&self, state: &mut State<GATEWAYS>, g: usize) {
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

    pub(super) fn call(&self, gateway: &mut Gateway, action: Action) -> Option<bool> {
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
    pub(super) fn canonicalise(&self, state: &mut State<GATEWAYS>) {
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

    pub(super) fn tick(&self, state: &mut State<GATEWAYS>) {
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
