//! Failover with journals: a store that loses what it had taken, and two control planes that bring it back.
//!
//! **In it.** One key, created through the first control plane and deleted through either. Each control plane checks,
//! journals the intent, submits, journals the outcome, and may crash between any two steps. The store may restart, or
//! fail over, with any earlier state; no replica is waited for, so that the journals alone must bring back what was lost.
//! It may be flushed. An empty store is set up, or frozen and restored from a backup that knows nothing of the key; an
//! operator may force the set-up of an empty store. What a gateway would answer is read off the store: one that has just
//! started and holds nothing is the worst case.
//!
//! **Bound.** `Bounds`; crashes of control planes are not bounded.
//!
//! **Left out.** Leases, waits and an old master that still answers (`core`); opening an epoch without one of the
//! journals, which gives up what only that journal knew; tombstones that gateways re-assert; forged or torn journals.

use stateright::{Model, Property};

use crate::{LIVE, Rule, Rules, SAFE, bound, exhaust, refute};

#[derive(Clone, Copy)]
struct Bounds {
    restarts: u8,
    flushes: u8,
}

struct Failover {
    bounds: Bounds,
    rules: Rules,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Absent,
    Live,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Never set up, or flushed.
    Empty,
    Open,
    /// Restarted: nothing is answered until all journals are replayed and a new epoch is opened.
    Closed,
    Frozen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Content {
    /// Zero before the set-up.
    store_id: u8,
    key: Key,
}

const NOTHING: Content = Content { store_id: 0, key: Key::Absent };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Intent {
    None,
    Undecided,
    Done,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Journal {
    store_id: u8,
    create: Intent,
    delete: Intent,
}

impl Journal {
    const EMPTY: Self = Self { store_id: 0, create: Intent::None, delete: Intent::None };
}

/// How far a request for a delete has come. A crash forgets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    None,
    /// The key was there, and the caller may delete it.
    Checked,
    Intended,
    Taken,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ControlPlane {
    journal: Journal,
    request: Request,
    /// In this epoch's opening.
    replayed: bool,
    /// It told the empty store that its journal is empty too.
    registered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    phase: Phase,
    store: Content,
    /// What would be left after a restart.
    durable: Content,
    /// Set up so far: each has an id of its own.
    stores: u8,
    planes: [ControlPlane; 2],
    created: bool,
    deleted: bool,
    /// A delete was begun and its caller was not told that it was refused.
    delete_wanted: [bool; 2],
    /// An operator has forced the set-up of a store.
    forced: bool,
    restarts: u8,
    flushes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Persist,
    Restart,
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
    SubmitCreate,
    AnswerCreate,
    CheckDelete(usize),
    IntendDelete(usize),
    SubmitDelete(usize),
    RefuseDelete(usize),
    JournalOutcome(usize),
    AnswerDelete(usize),
    AnswerRefusal(usize),
    Crash(usize),
}

impl Failover {
    fn hold(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    fn store_step(&self, state: &mut State, action: Action) -> Option<()> {
        let phase = state.phase;
        match action {
            Action::Persist => state.durable = state.store,
            Action::Restart if state.restarts < self.bounds.restarts && phase != Phase::Frozen => {
                state.restarts += 1;
                state.store = state.durable;
                let closes = self.hold(Rule::ReplayBeforeOpening);
                self.begin(state, if closes { Phase::Closed } else { Phase::Open });
            }
            Action::Flush if state.flushes < self.bounds.flushes && phase == Phase::Open => {
                state.flushes += 1;
                (state.store, state.durable) = (NOTHING, NOTHING);
                self.begin(state, Phase::Empty);
            }
            Action::Open if phase == Phase::Closed => {
                let replayed = state.planes.map(|plane| plane.replayed);
                let enough = if self.hold(Rule::ReplayOfAllPeers) { [true; 2] } else { [true, replayed[1]] };
                (replayed == enough).then_some(())?;
                self.begin(state, Phase::Open);
            }
            Action::ForceSetUp if phase == Phase::Empty && state.created => {
                state.forced = true;
                self.set_up(state);
            }
            Action::Restore if phase == Phase::Frozen => {
                let store_id = state.planes[0].journal.store_id;
                state.store = Content { store_id, key: Key::Absent };
                self.begin(state, Phase::Closed);
            }
            _ => return None,
        }
        Some(())
    }

    fn begin(&self, state: &mut State, phase: Phase) {
        state.phase = if state.store.store_id == 0 { Phase::Empty } else { phase };
        for plane in &mut state.planes {
            (plane.replayed, plane.registered) = (false, false);
        }
    }

    fn set_up(&self, state: &mut State) {
        state.stores += 1;
        state.store = Content { store_id: state.stores, key: Key::Absent };
        self.begin(state, Phase::Open);
    }

    /// What one control plane does for the store as a whole.
    fn care(&self, state: &mut State, action: Action) -> Option<()> {
        let (Action::Replay(c) | Action::Register(c) | Action::SetUp(c) | Action::Freeze(c) | Action::NoteStore(c)) =
            action
        else {
            return None;
        };
        let journal = state.planes[c].journal;
        let is_empty = journal == Journal::EMPTY || !self.hold(Rule::EmptyStoreIsFrozen);
        let is_foreign = ![0, state.store.store_id].contains(&journal.store_id) && self.hold(Rule::StoreId);
        match (action, state.phase) {
            (Action::Replay(_), Phase::Closed) if !is_foreign => {
                self.replay(&mut state.store.key, journal);
                let plane = &mut state.planes[c];
                plane.replayed = true;
                let replayed = journal.delete == Intent::Undecided && self.hold(Rule::UndecidedIsReplayed);
                if replayed && self.hold(Rule::ReplayDecides) {
                    plane.journal.delete = Intent::Done;
                    plane.request = Request::Taken;
                }
            }
            (Action::Register(_), Phase::Empty) if is_empty => state.planes[c].registered = true,
            (Action::SetUp(_), Phase::Empty) if is_empty => {
                let all = state.planes.iter().all(|plane| plane.registered);
                (all || !self.hold(Rule::SetUpAwaitsPeers)).then_some(())?;
                self.set_up(state);
            }
            (Action::Freeze(_), Phase::Empty) if !is_empty => state.phase = Phase::Frozen,
            (Action::Freeze(_), Phase::Open | Phase::Closed) if is_foreign => state.phase = Phase::Frozen,
            (Action::NoteStore(_), Phase::Open) if journal.store_id == 0 => {
                state.planes[c].journal.store_id = state.store.store_id;
            }
            _ => return None,
        }
        Some(())
    }

    fn replay(&self, key: &mut Key, journal: Journal) {
        let is_replayed = |intent: Intent| match intent {
            Intent::None => false,
            Intent::Undecided => self.hold(Rule::UndecidedIsReplayed),
            Intent::Done => true,
            Intent::Refused => !self.hold(Rule::RefusedIsNotReplayed),
        };
        if is_replayed(journal.create) && (*key == Key::Absent || !self.hold(Rule::DeleteIsTerminal)) {
            *key = Key::Live;
        }
        // Also of a key that this store has never seen: the journal that created it may be replayed later.
        if is_replayed(journal.delete) {
            *key = Key::Deleted;
        }
    }

    fn create_step(&self, state: &mut State, action: Action) -> Option<()> {
        let journal = &mut state.planes[0].journal;
        let is_ours = journal.store_id == state.store.store_id;
        match (action, journal.create) {
            (Action::IntendCreate, Intent::None) if state.phase == Phase::Open && is_ours => {
                journal.create = Intent::Undecided;
            }
            (Action::SubmitCreate, Intent::Undecided) if state.phase == Phase::Open && is_ours => {
                if state.store.key == Key::Absent {
                    state.store.key = Key::Live;
                }
                journal.create = Intent::Done;
            }
            (Action::AnswerCreate, Intent::Done) => state.created = true,
            _ => return None,
        }
        Some(())
    }

    fn delete_step(&self, state: &mut State, action: Action) -> Option<()> {
        let (Action::CheckDelete(c)
        | Action::IntendDelete(c)
        | Action::SubmitDelete(c)
        | Action::RefuseDelete(c)
        | Action::JournalOutcome(c)
        | Action::AnswerDelete(c)
        | Action::AnswerRefusal(c)) = action
        else {
            return None;
        };
        let plane = &mut state.planes[c];
        let is_open = state.phase == Phase::Open && plane.journal.store_id == state.store.store_id;
        let journals_first = self.hold(Rule::JournalBeforeSubmitting);
        // After a crash it goes on with what the journal says was not decided.
        let goes_on = plane.request == Request::None && plane.journal.delete == Intent::Undecided;
        match (action, plane.request) {
            (Action::CheckDelete(_), Request::None) if plane.journal.delete == Intent::None && state.created => {
                (is_open && state.store.key == Key::Live).then_some(())?;
                plane.request = Request::Checked;
            }
            (Action::IntendDelete(_), Request::Checked) => {
                plane.request = Request::Intended;
                plane.journal.delete = if journals_first { Intent::Undecided } else { Intent::None };
                state.delete_wanted[c] = true;
            }
            (Action::SubmitDelete(_), request) if is_open && (request == Request::Intended || goes_on) => {
                plane.request = Request::Taken;
                state.store.key = Key::Deleted;
            }
            (Action::RefuseDelete(_), request) if is_open && (request == Request::Intended || goes_on) => {
                // For example because its grant is used up, which may be by this very delete before a crash.
                let is_taken = state.store.key == Key::Deleted && self.hold(Rule::TakenIsNeverRefused);
                (!is_taken).then_some(())?;
                plane.request = Request::Refused;
            }
            (Action::JournalOutcome(_), Request::Taken) => plane.journal.delete = Intent::Done,
            (Action::JournalOutcome(_), Request::Refused) => plane.journal.delete = Intent::Refused,
            (Action::AnswerDelete(_), Request::Taken) => state.deleted = true,
            (Action::AnswerRefusal(_), Request::Refused) if plane.journal.delete == Intent::Refused => {
                state.delete_wanted[c] = false;
            }
            _ => return None,
        }
        Some(())
    }

    /// What a gateway with nothing in memory would answer, or nothing where it would get no lease.
    fn asked(&self, state: &State) -> Option<Key> {
        // One that knows the first store takes no lease from another. One that does not is only protected until an
        // operator says that an empty store is right.
        let is_known =
            state.store.store_id == state.planes[0].journal.store_id || !state.forced || !self.hold(Rule::StoreId);
        (state.phase == Phase::Open && is_known).then_some(state.store.key)
    }
}

impl Model for Failover {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let plane =
            ControlPlane { journal: Journal::EMPTY, request: Request::None, replayed: false, registered: false };
        vec![State {
            phase: Phase::Empty,
            store: NOTHING,
            durable: NOTHING,
            stores: 0,
            planes: [plane; 2],
            created: false,
            deleted: false,
            delete_wanted: [false; 2],
            forced: false,
            restarts: 0,
            flushes: 0,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        use Action::*;
        actions.extend([Persist, Restart, Flush, Open, ForceSetUp, Restore, IntendCreate, SubmitCreate, AnswerCreate]);
        for c in 0..2 {
            actions.extend([
                Replay(c),
                Register(c),
                SetUp(c),
                Freeze(c),
                NoteStore(c),
                CheckDelete(c),
                IntendDelete(c),
            ]);
            actions.extend([SubmitDelete(c), RefuseDelete(c), JournalOutcome(c), AnswerDelete(c), AnswerRefusal(c)]);
            actions.push(Crash(c));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        if let Action::Crash(c) = action {
            state.planes[c].request = Request::None;
        } else {
            self.store_step(&mut state, action)
                .or_else(|| self.care(&mut state, action))
                .or_else(|| self.create_step(&mut state, action))
                .or_else(|| self.delete_step(&mut state, action))?;
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAFE, |model: &Self, state: &State| {
                !(state.deleted && model.asked(state) == Some(Key::Live))
            }),
            Property::always(LIVE, |model: &Self, state: &State| {
                let is_live = state.created && state.delete_wanted == [false; 2];
                !is_live || matches!(model.asked(state), None | Some(Key::Live))
            }),
            Property::sometimes("an answered delete is lost", |_, state: &State| {
                state.deleted && state.phase == Phase::Closed && state.store.key != Key::Deleted
            }),
            Property::sometimes("a store opens again after its loss", |_, state: &State| {
                state.deleted && state.phase == Phase::Open && state.restarts > 0
            }),
            Property::sometimes("a flushed store is frozen", |_, state: &State| {
                state.created && state.phase == Phase::Frozen
            }),
            Property::sometimes("a flushed store is restored", |_, state: &State| {
                state.created && state.flushes > 0 && state.phase == Phase::Open && !state.forced
            }),
        ]
    }
}

#[test]
fn safe() {
    let bounds = bound(Bounds { restarts: 3, flushes: 1 }, Bounds { restarts: 5, flushes: 2 });
    exhaust("failover", Failover { bounds, rules: Rules::default() });
}

/// One test per rule that is left out, with what it breaks.
macro_rules! mutants {
    ($($name:ident: $rule:ident, $broken:expr;)+) => {$(
        #[test]
        fn $name() {
            let rules = Rules::without(&[Rule::$rule]);
            let model = Failover { bounds: Bounds { restarts: 1, flushes: 1 }, rules };
            refute(concat!("failover without ", stringify!($rule)), model, $broken);
        }
    )+};
}

mutants! {
    submitted_before_it_is_journaled: JournalBeforeSubmitting, SAFE;
    opened_before_a_replay: ReplayBeforeOpening, SAFE;
    opened_before_all_have_replayed: ReplayOfAllPeers, SAFE;
    only_what_was_done_is_replayed: UndecidedIsReplayed, SAFE;
    a_taken_delete_is_refused_when_submitted_again: TakenIsNeverRefused, SAFE;
    a_refusal_is_heeded_after_the_replay: ReplayDecides, LIVE;
    a_refused_delete_is_replayed: RefusedIsNotReplayed, LIVE;
    a_replayed_create_brings_a_key_back: DeleteIsTerminal, SAFE;
    an_empty_store_is_set_up_beside_a_journal: EmptyStoreIsFrozen, LIVE;
    set_up_without_the_peers: SetUpAwaitsPeers, LIVE;
    another_store_is_trusted: StoreId, LIVE;
}
