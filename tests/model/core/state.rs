//! What a state of the core is, and what can happen in it.

pub(super) const INSTANCES: [usize; 2] = [0, 1];

pub(super) type Epoch = u8;
pub(super) type Revision = u8;
pub(super) type Ticks = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Entry {
    Delete,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Master,
    /// A master that was just promoted: it answers nothing until it is opened.
    Closed,
    Replica,
    /// A master whose replica was promoted. It takes writes until so many ticks have passed.
    Cut(Ticks),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Instance {
    pub(super) role: Role,
    pub(super) epoch: Epoch,
    pub(super) log: [Option<Entry>; 3],
    /// A gateway is registered that has died.
    pub(super) ghost: bool,
}

impl Instance {
    pub(super) fn revision(&self) -> Revision {
        self.log.iter().flatten().count() as Revision
    }

    /// The revision of the delete, where this instance has it.
    pub(super) fn deleted_at(&self) -> Option<Revision> {
        self.log.iter().position(|entry| *entry == Some(Entry::Delete)).map(|at| at as Revision + 1)
    }

    /// Writes the tombstone, where there is none yet, and says at which revision it is.
    pub(super) fn bury(&mut self) -> Revision {
        self.deleted_at().unwrap_or_else(|| {
            self.append(Entry::Delete);
            self.revision()
        })
    }

    pub(super) fn append(&mut self, entry: Entry) {
        let end = self.revision() as usize;
        self.log[end] = Some(entry);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Held {
    Nothing,
    Allow,
    Tombstone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Renewal {
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
pub(super) struct Loaded {
    pub(super) epoch: Epoch,
    pub(super) revision: Revision,
}

/// A call that began after the delete had answered, with what is left of the lease that it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Call {
    None,
    LeaseRead(Ticks),
    AllowSeen(Ticks),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Gateway {
    /// False once it cannot matter any more.
    pub(super) watched: bool,
    /// Zero before the first renewal.
    pub(super) epoch: Epoch,
    pub(super) applied: Revision,
    pub(super) held: Held,
    pub(super) lease: Ticks,
    pub(super) renewal: Renewal,
    /// A load that found the key. One that did not changes nothing, so it is not kept.
    pub(super) load: Option<Loaded>,
    pub(super) call: Call,
    /// What each instance has of it: nothing, or its acknowledged revision.
    pub(super) registered: [Option<Revision>; 2],
    /// The deleter waits for it.
    pub(super) awaited: bool,
    /// Only where `AcknowledgeAfterApply` is left out: a delete that is acknowledged and not yet applied.
    pub(super) unapplied: bool,
}

impl Gateway {
    pub(super) const NEW: Self = Self {
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

    pub(super) fn tick(&mut self) {
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
pub(super) enum Deleter {
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
pub(super) struct State<const GATEWAYS: usize> {
    pub(super) instances: [Instance; 2],
    pub(super) gateways: [Gateway; GATEWAYS],
    pub(super) deleter: Deleter,
    /// The journal that will be replayed has the delete.
    pub(super) journaled: bool,
    /// Ticks until the first 200 may be given in the newest epoch.
    pub(super) quarantine: Ticks,
    pub(super) epochs: Epoch,
    pub(super) failovers: u8,
    pub(super) crashes: u8,
    pub(super) others: u8,
    /// A call that began after the 200 was let through.
    pub(super) admitted: bool,
}

pub(super) type At = usize;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
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
