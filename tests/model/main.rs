//! The revocation protocol as models that are checked exhaustively: every order of every step, within a stated bound.
//!
//! Each file models one part of the protocol (design, section 5) and says at its head what is in it and what is left
//! out. Each has one test that the rules as written are safe, in which the checker must run out of states, and one test
//! per rule that leaves this rule out and must find a counterexample. docs/revocation.md has the table.
//!
//! Time is counted in ticks, and only what is left of a lease or a wait is part of a state, so no run has an end: the
//! bounds are on how often something happens (a failover, a crash), never on how long it takes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking; the clock is read to say how long a search took"
)]

mod core;
mod drift;
mod failover;
mod membership;
mod trimming;
mod unknown;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

/// What must hold in every state.
const SAFE: &str = "no call admitted after the delete answered 200";
const LIVE: &str = "a live key is never answered 401";

/// The rules that a model can leave out, one per mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    // Of the gateway.
    /// A call is admitted only under a lease.
    Lease,
    /// The lease counts from the sending of the renewal, not from its answer.
    LeaseFromSending,
    /// The lease is read before the lookup and compared with the clock after it, not read after it.
    SnapshotBeforeLookup,
    /// The clock is read for the call: never a time that was read earlier.
    FreshClock,
    /// A renewal brings the entries after `applied`, and they are applied.
    CatchUp,
    /// The lease is extended only when `applied` has reached the revision of the reply.
    LeaseOnlyWhenCaughtUp,
    /// A push changes nothing permanent: `applied` moves by the log alone, without gaps.
    PushIsAHint,
    /// What is acknowledged has been applied.
    AcknowledgeAfterApply,
    /// A fill never overwrites a tombstone.
    FillSparesTombstones,
    /// A fill below the floor is refused.
    FillNotBelowFloor,
    /// In a new epoch everything held is forgotten.
    NewEpochForgets,
    // Of the store.
    /// A promoted master is closed until it is given an epoch of its own.
    Epoch,
    /// An acknowledgement of another epoch does not count.
    AcknowledgementsOfThisEpoch,
    /// Renewals and loads are writes, so that a master without its replicas refuses them.
    WriteFirst,
    // Of the deleter.
    /// A delete is complete only when the replicas have it.
    Wait,
    /// How many replicas must have it is a property of the epoch, not of the deleter.
    ReplicasOfTheEpoch,
    /// The epoch is read again after that wait.
    EpochAfterWait,
    /// Every registered gateway is awaited.
    AwaitAll,
    /// A silent gateway is awaited for a whole lease.
    OutwaitWholeLease,
    /// The first 200 in a new epoch waits until the leases of the old one have ended.
    Quarantine,
    /// That wait includes the time for which the old master may still have answered.
    QuarantineCoversLag,
    // Of clocks.
    /// A wait is longer than a lease by the rate at which two clocks may differ.
    WaitCoversRate,
    /// And by how late they may be read.
    WaitCoversReading,
    // Of trimming, and of what is read under one lease.
    /// A fill is compared with the floor, which is raised before an entry is applied, not with `applied`.
    FillComparesFloor,
    /// The floor is raised before the entries are applied, not after.
    FloorBeforeEntries,
    /// A gateway that starts again raises its floor to the revision of the reply.
    TrimRaisesFloor,
    /// It drops the keys and accounts that it holds.
    TrimForgets,
    /// A gateway that the log does not reach back to is told so.
    TrimIsTold,
    /// It reads the clusters before it has `applied` and a lease.
    ClustersBeforeLease,
    // Of keys that are not known.
    /// That a key is unknown is said only under a lease.
    UnknownNeedsALease,
    /// An import is a log entry, which removes what is cached of the key.
    ImportIsALogEntry,
    /// Its answer waits for the gateways.
    ImportWaits,
    /// In a new epoch it waits until the leases of the old one have ended.
    ImportQuarantined,
    /// In a new epoch a create waits until the old master answers no more.
    CreateQuarantined,
    // Of membership.
    /// The janitor removes only whose counter stood still for a whole lease.
    JanitorWaitsWholeLease,
    /// A renewal of one that was removed registers it again.
    RemovedRegistersAgain,
    /// A gateway that stops first admits nothing more, then releases its lease.
    ReleaseAfterStopping,
    /// Nothing is loaded before the first lease, and nothing held from before it is kept.
    NothingBeforeRegistering,
    /// Dead is whose file lock is free, not who is silent.
    LockMeansAlive,
    // Of the journals.
    /// The intent is on disk before the store hears of it.
    JournalBeforeSubmitting,
    /// A change names the epoch into which the journal was last replayed, and a master of another epoch refuses it.
    ChangesNameTheEpoch,
    /// A store that may have lost writes stays closed until journals are replayed.
    ReplayBeforeOpening,
    /// It stays closed until those of all control planes are.
    ReplayOfAllPeers,
    /// An intent whose outcome is not known is replayed.
    UndecidedIsReplayed,
    /// An intent that the store refused is not.
    RefusedIsNotReplayed,
    /// Once an undecided intent is replayed it is done: a refusal from before the replay is not heeded.
    ReplayDecides,
    /// A delete that is submitted again, and that the store has already taken, is taken and never refused.
    TakenIsNeverRefused,
    /// Nothing brings a deleted key back, whatever is replayed after it.
    DeleteIsTerminal,
    /// A control plane with a journal does not set up an empty store.
    EmptyStoreIsFrozen,
    /// Nor does one without, before all peers said that they have none either.
    SetUpAwaitsPeers,
    /// A store is known by its id; nothing is taken from another.
    StoreId,
}

/// All rules, but those left out.
#[derive(Clone, Copy, Debug, Default)]
struct Rules(&'static [Rule]);

impl Rules {
    const fn without(left_out: &'static [Rule]) -> Self {
        Self(left_out)
    }

    fn hold(self, rule: Rule) -> bool {
        !self.0.contains(&rule)
    }
}

/// Whether the larger bounds are asked for, which take minutes rather than seconds.
fn soak() -> bool {
    std::env::var_os("TOLLGATE_SOAK").is_some()
}

/// One of two bounds: for every day, or for the soak.
fn bound<T>(daily: T, soaking: T) -> T {
    if soak() { soaking } else { daily }
}

/// Searches until no state is left, and fails on a violation, or where what must be possible never happens.
fn exhaust<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    let checker = model.checker().threads(bound(1, 2)).spawn_bfs().join();
    let seconds = began.elapsed().as_secs_f64();
    checker.assert_properties();
    assert!(checker.is_done(), "{name}: states are left");
    println!(
        "{name}: safe in all {} states, {} steps, {} deep, {seconds:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
}

/// Searches until the property is violated, and fails where it is not. One thread, so the counterexample is a short one.
fn refute<M>(name: &str, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let began = Instant::now();
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let Some(path) = checker.discovery(property) else {
        panic!("{name}: no counterexample in {} states", checker.unique_state_count());
    };
    let seconds = began.elapsed().as_secs_f64();
    let holds = checker.model().property(property).condition;
    let steps = path.into_vec();
    let steps = steps.into_iter().take_while(|(state, _)| holds(checker.model(), state)).filter_map(|(_, step)| step);
    let steps: Vec<_> = steps.collect();
    println!("{name}: a counterexample of {} steps, {seconds:.1} s: {steps:?}", steps.len());
}
