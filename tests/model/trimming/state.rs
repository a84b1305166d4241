//! What a state of the trimming is, and what can happen in it.

pub(super) type Ticks = u8;
pub(super) type Revision = u8;

/// What the one change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Key,
    Account,
    Cluster,
}

/// What the gateway holds of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Held {
    Nothing,
    /// As it was before the change: it admits.
    Old,
    /// As it is after: it denies.
    New,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reply {
    /// The store's revision when it answered.
    pub(super) revision: Revision,
    pub(super) tail: Tail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tail {
    Nothing,
    /// The entry at this revision.
    Entry(Revision),
    Trimmed,
}

/// What the gateway does about its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Renewal {
    None,
    Sent {
        left: Ticks,
    },
    Answered {
        left: Ticks,
        reply: Reply,
    },
    /// The floor is raised.
    Floored {
        left: Ticks,
        revision: Revision,
        entry: Revision,
    },
    /// The entry is in force.
    Changed {
        left: Ticks,
        revision: Revision,
        entry: Revision,
    },
    /// Keys and accounts are dropped; the clusters are to be read.
    Dropped {
        left: Ticks,
        revision: Revision,
    },
    /// The clusters are on their way.
    Read {
        left: Ticks,
        revision: Revision,
        cluster: Held,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Load {
    None,
    /// Executed; key and account are as before the change, or as after it.
    Answered {
        revision: Revision,
        is_new: bool,
    },
    /// The account is filled in, the key is not yet.
    Half {
        revision: Revision,
        is_new: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    None,
    LeaseRead(Ticks),
    KeySeen(Ticks),
    AccountSeen(Ticks),
    ClusterSeen(Ticks),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Writer {
    Idle,
    Taken { left: Ticks },
    Answered,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) subject: Subject,
    // The store.
    pub(super) revision: Revision,
    pub(super) trimmed: Revision,
    /// The revision of the change.
    pub(super) changed_at: Option<Revision>,
    pub(super) acknowledged: Option<Revision>,
    pub(super) writer: Writer,
    // The gateway.
    pub(super) started: bool,
    pub(super) floor: Revision,
    pub(super) applied: Revision,
    pub(super) key: Held,
    pub(super) account: Held,
    pub(super) cluster: Held,
    pub(super) lease: Ticks,
    pub(super) renewal: Renewal,
    pub(super) load: Load,
    pub(super) call: Call,
    pub(super) admitted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Tick,
    Other,
    Trim,
    Change,
    Answer,
    Renew,
    Serve,
    Receive,
    ApplyEntry,
    SetApplied,
    ReadClusters,
    TakeClusters,
    Load,
    FillAccount,
    FillKey,
    Forget,
    Call,
    LookUp,
    ReadClock,
}

impl State {
    pub(super) fn is_changed(&self) -> bool {
        self.changed_at.is_some()
    }

    /// Whether an entry is that of the change, of this subject.
    pub(super) fn is_change_of(&self, entry: Revision, subject: Subject) -> bool {
        self.changed_at == Some(entry) && self.subject == subject
    }
}
