//! Failover with journals: a store that loses what it had taken, and two control planes that bring it back.
//!
//! **In it.** One key, created through the first control plane and deleted through either. Each control plane checks,
//! journals the intent, submits, journals the outcome, and may crash between any two steps. The store may restart, or
//! fail over, with any earlier state; no replica is waited for, so that the journals alone must bring back what was lost.
//! After a failover the old master goes on taking changes for any time.
//! It may be flushed. An empty store is set up, or frozen and restored from a backup that knows nothing of the key; an
//! operator may force the set-up of an empty store. What a gateway would answer is read off the store: one that has just
//! started and holds nothing is the worst case.
//!
//! **Bound.** `Bounds`; crashes of control planes are not bounded.
//!
//! **Left out.** Leases and waits, and gateways that the old master answers (`core`, `unknown`); opening an epoch without one of the
//! journals, which gives up what only that journal knew; tombstones that gateways re-assert; forged or torn journals.

mod state;

use stateright::{Model, Property};

use state::*;

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

impl Failover {
    fn hold(&self, rule: Rule) -> bool {
        self.rules.hold(rule)
    }

    fn store_step(&self, state: &mut State, action: Action) -> Option<()> {
        let phase = state.phase;
        match action {
            Action::Persist => state.durable = state.store,
            Action::Restart | Action::FailOver if state.restarts < self.bounds.restarts && phase != Phase::Frozen => {
                state.restarts += 1;
                let goes_on = action == Action::FailOver && phase == Phase::Open;
                state.old = goes_on.then_some(state.store);
                state.planes.iter_mut().for_each(|plane| plane.journal.is_current = false);
                state.store = state.durable;
                let closes = self.hold(Rule::ReplayBeforeOpening);
                self.begin(state, if closes { Phase::Closed } else { Phase::Open });
            }
            Action::OldMasterEnds => state.old = None,
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
        let is_empty =
            Journal { is_current: true, ..journal } == Journal::EMPTY || !self.hold(Rule::EmptyStoreIsFrozen);
        let is_foreign = ![0, state.store.store_id].contains(&journal.store_id) && self.hold(Rule::StoreId);
        match (action, state.phase) {
            (Action::Replay(_), Phase::Closed) if !is_foreign => {
                self.replay(&mut state.store.key, journal);
                let plane = &mut state.planes[c];
                plane.replayed = true;
                plane.journal.is_current = true;
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

    /// What a control plane can change: the newest master once it is open, or an old one that does not know that it is,
    /// as long as the change may name its epoch.
    fn reach<'a>(&self, state: &'a mut State, c: usize, master: Master) -> Option<&'a mut Content> {
        let journal = state.planes[c].journal;
        let may_name_old = !journal.is_current || !self.hold(Rule::ChangesNameTheEpoch);
        let content = match master {
            Master::Newest => Some(&mut state.store).filter(|_| state.phase == Phase::Open),
            Master::Old => state.old.as_mut().filter(|_| may_name_old),
        };
        content.filter(|content| content.store_id == journal.store_id && content.store_id != 0)
    }

    fn create_step(&self, state: &mut State, action: Action) -> Option<()> {
        match (action, state.planes[0].journal.create) {
            (Action::IntendCreate, Intent::None) if state.planes[0].journal.store_id != 0 => {
                state.planes[0].journal.create = Intent::Undecided;
            }
            (Action::SubmitCreate(master), Intent::Undecided) => {
                let content = self.reach(state, 0, master)?;
                if content.key == Key::Absent {
                    content.key = Key::Live;
                }
                state.planes[0].journal.create = Intent::Done;
            }
            (Action::AnswerCreate, Intent::Done) => state.created = true,
            _ => return None,
        }
        Some(())
    }

    fn delete_step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::CheckDelete(c, master) => {
                let is_new = state.planes[c].request == Request::None && state.planes[c].journal.delete == Intent::None;
                (is_new && state.created && self.reach(state, c, master)?.key == Key::Live).then_some(())?;
                state.planes[c].request = Request::Checked;
            }
            Action::SubmitDelete(c, master) => {
                self.may_submit(state, c)?;
                self.reach(state, c, master)?.key = Key::Deleted;
                state.planes[c].request = Request::Taken;
            }
            Action::RefuseDelete(c, master) => {
                self.may_submit(state, c)?;
                // For example because its grant is used up, which may be by this very delete before a crash.
                let is_taken = self.reach(state, c, master)?.key == Key::Deleted;
                (!is_taken || !self.hold(Rule::TakenIsNeverRefused)).then_some(())?;
                state.planes[c].request = Request::Refused;
            }
            _ => return self.note_step(state, action),
        }
        Some(())
    }

    /// After a crash a control plane goes on with what its journal says was not decided.
    fn may_submit(&self, state: &State, c: usize) -> Option<()> {
        let ControlPlane { request, journal, .. } = state.planes[c];
        let goes_on = request == Request::None && journal.delete == Intent::Undecided;
        (request == Request::Intended || goes_on).then_some(())
    }

    /// What is written down and answered about a delete.
    fn note_step(&self, state: &mut State, action: Action) -> Option<()> {
        let (Action::IntendDelete(c) | Action::JournalOutcome(c) | Action::AnswerDelete(c) | Action::AnswerRefusal(c)) =
            action
        else {
            return None;
        };
        let plane = &mut state.planes[c];
        match (action, plane.request) {
            (Action::IntendDelete(_), Request::Checked) => {
                plane.request = Request::Intended;
                let journals_first = self.hold(Rule::JournalBeforeSubmitting);
                plane.journal.delete = if journals_first { Intent::Undecided } else { Intent::None };
                state.delete_wanted[c] = true;
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
            old: None,
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
        actions.extend([Persist, Restart, FailOver, OldMasterEnds, Flush, Open, ForceSetUp, Restore]);
        actions.extend([IntendCreate, AnswerCreate]);
        for c in 0..2 {
            actions.extend([Replay(c), Register(c), SetUp(c), Freeze(c), NoteStore(c), Crash(c)]);
            actions.extend([IntendDelete(c), JournalOutcome(c), AnswerDelete(c), AnswerRefusal(c)]);
        }
        for master in [Master::Newest, Master::Old] {
            actions.push(SubmitCreate(master));
            for c in 0..2 {
                actions.extend([CheckDelete(c, master), SubmitDelete(c, master), RefuseDelete(c, master)]);
            }
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
            Property::sometimes("a key is created on the old master alone", |_, state: &State| {
                state.created && state.old.is_some_and(|old| old.key == Key::Live) && state.store.key == Key::Absent
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
    a_change_is_taken_by_the_old_master: ChangesNameTheEpoch, LIVE;
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
