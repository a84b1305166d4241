//! What a state of the failover is, and what can happen in it.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Absent,
    Live,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Never set up, or flushed.
    Empty,
    Open,
    /// Restarted: nothing is answered until all journals are replayed and a new epoch is opened.
    Closed,
    Frozen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Content {
    /// Zero before the set-up.
    pub(super) store_id: u8,
    pub(super) key: Key,
}

pub(super) const NOTHING: Content = Content { store_id: 0, key: Key::Absent };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Intent {
    None,
    Undecided,
    Done,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Journal {
    pub(super) store_id: u8,
    /// It was replayed into the newest epoch, so no change names an older one any more.
    pub(super) is_current: bool,
    pub(super) create: Intent,
    pub(super) delete: Intent,
}

impl Journal {
    pub(super) const EMPTY: Self = Self { store_id: 0, is_current: true, create: Intent::None, delete: Intent::None };
}

/// How far a request for a delete has come. A crash forgets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Request {
    None,
    /// The key was there, and the caller may delete it.
    Checked,
    Intended,
    Taken,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ControlPlane {
    pub(super) journal: Journal,
    pub(super) request: Request,
    /// In this epoch's opening.
    pub(super) replayed: bool,
    /// It told the empty store that its journal is empty too.
    pub(super) registered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) store: Content,
    /// What would be left after a restart.
    pub(super) durable: Content,
    /// The master before the failover, while it still takes changes.
    pub(super) old: Option<Content>,
    /// Set up so far: each has an id of its own.
    pub(super) stores: u8,
    pub(super) planes: [ControlPlane; 2],
    pub(super) created: bool,
    pub(super) deleted: bool,
    /// A delete was begun and its caller was not told that it was refused.
    pub(super) delete_wanted: [bool; 2],
    /// An operator has forced the set-up of a store.
    pub(super) forced: bool,
    pub(super) restarts: u8,
    pub(super) flushes: u8,
}

/// Which one a control plane reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Master {
    Newest,
    Old,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Persist,
    Restart,
    FailOver,
    OldMasterEnds,
    Flush,
    Replay(usize),
    Open,
    Register(usize),
    SetUp(usize),
    ForceSetUp,
    Freeze(usize),
    Restore,
    /// The journal takes down which store it belongs to.
    NoteStore(usize),
    IntendCreate,
    SubmitCreate(Master),
    AnswerCreate,
    CheckDelete(usize, Master),
    IntendDelete(usize),
    SubmitDelete(usize, Master),
    RefuseDelete(usize, Master),
    JournalOutcome(usize),
    AnswerDelete(usize),
    AnswerRefusal(usize),
    Crash(usize),
}
