//! An oracle watches real gateways on a real Redis while something goes wrong: with a key whose deletion is final no call passes
//! that started afterwards, and no key is denied before its deletion was asked for (docs/revocation.md).

mod callers;
mod judge;
mod lost_primary;
mod messages;
mod plays;
mod report;
mod scene;
mod soak;

use std::time::Duration;

use crate::harness::fleet::{Fleet, Setting};
use crate::harness::group::Group;
use callers::Crowd;
use report::{Bounds, Report};
use scene::{Cast, watched};

const LEASE: Duration = Duration::from_secs(1);
/// Until no gateway can have a lease from before: L(1+ρ)+ε.
const OUTWAIT: Duration = Duration::from_millis(1021);
/// The same in a new epoch, where the old one may have gone on for a while.
const QUIET: Duration = Duration::from_millis(3021);
/// For two processors that have more to do than this.
const SLACK: Duration = Duration::from_secs(5);

/// What goes wrong, and what must hold meanwhile.
struct Scenario {
    what: &'static str,
    /// What the slowest 200 may take by the protocol, from when it was first asked for to its end.
    slowest: Duration,
    /// Whether another epoch begins.
    epochs: bool,
    watch: fn(&str, Pace) -> Report,
}

/// How long, and with how many.
#[derive(Clone, Copy)]
struct Pace {
    times: usize,
    crowd: Crowd,
}

impl Scenario {
    #[track_caller]
    fn must_hold(&self) {
        self.run(Pace { times: 1, crowd: Crowd::SMALL }).assert_clean(self.bounds());
    }

    fn run(&self, pace: Pace) -> Report {
        (self.watch)(self.what, pace)
    }

    fn bounds(&self) -> Bounds {
        let promise = if self.epochs { QUIET } else { OUTWAIT };
        // Times are rounded up to whole milliseconds.
        Bounds { took: self.slowest + SLACK, promise: promise + Duration::from_millis(1) }
    }
}

type Play = fn(&mut Fleet, usize);

fn on_redis(what: &str, cast: Cast<'_>, play: Play, pace: Pace) -> Report {
    let cast = Cast { crowd: cast.crowd.map(|_| pace.crowd), ..cast };
    watched(what, &cast, Fleet::start(&cast.fleet), |fleet| play(fleet, pace.times))
}

/// Changes wait for so many replicas.
fn on_group(what: &str, replicas: usize, play: fn(&mut Fleet<Group>, usize), pace: Pace) -> Report {
    let cast = Cast { fleet: UNLINKED, crowd: Some(pace.crowd), ..USUAL };
    watched(what, &cast, Fleet::on(Group::with(replicas), &cast.fleet), |fleet| play(fleet, pace.times))
}

const LINKED: Setting<'static> =
    Setting { lease: LEASE, linked: true, clocks: false, archive: false, controls: 1, environment: &[] };
const UNLINKED: Setting<'static> = Setting { linked: false, ..LINKED };
const TWO_CONTROLS: Cast<'static> = Cast { fleet: Setting { controls: 2, ..UNLINKED }, ..USUAL };
const USUAL: Cast<'static> =
    Cast { fleet: LINKED, deleters: 6, used_for: (10, 60), callers: 2, crowd: Some(Crowd::SMALL) };
const CLOCKS: Cast<'static> = Cast { fleet: Setting { clocks: true, ..LINKED }, ..USUAL };
/// Many keys are in use when a gateway is cut off, and their deletes wait for a lease.
const CUT_OFF: Cast<'static> = Cast { deleters: 16, used_for: (400, 1200), ..USUAL };
/// A key is used for long enough to be loaded by a gateway that is answered late.
const LONGER_USED: Cast<'static> = Cast { deleters: 12, used_for: (900, 1500), ..USUAL };
/// Each load is held up between its answer and the keyring, and some keys are deleted right then.
const SLOW_LOADS: Cast<'static> = Cast {
    fleet: Setting { environment: &[("TOLLGATE_PAUSE", "load.answered:100")], ..LINKED },
    deleters: 1,
    used_for: (20, 150),
    ..USUAL
};
/// Each call is held up between its lookup and its second look at the clock.
const SLOW_LOOKUPS: Cast<'static> = Cast {
    fleet: Setting { environment: &[("TOLLGATE_PAUSE", "key.looked_up:15")], ..LINKED },
    deleters: 16,
    used_for: (800, 1400),
    callers: 6,
    crowd: None,
};

/// Beside each what it adds to the time of a delete.
const SCENARIOS: [Scenario; 20] = [
    scenario("nothing", Duration::ZERO, |what, pace| on_redis(what, USUAL, plays::nothing, pace)),
    scenario("gateways are killed", OUTWAIT, |what, pace| on_redis(what, USUAL, plays::gateways_are_killed, pace)),
    scenario("gateways are stopped", OUTWAIT, |what, pace| on_redis(what, USUAL, plays::gateways_are_stopped, pace)),
    // It is away for two leases.
    opening("redis is restarted", Duration::from_secs(2), |what, pace| {
        on_redis(what, USUAL, plays::redis_is_restarted, pace)
    }),
    scenario("redis is flushed", Duration::ZERO, |what, pace| on_redis(what, USUAL, plays::redis_is_flushed, pace)),
    scenario("a fresh control plane", Duration::ZERO, |what, pace| {
        on_redis(what, USUAL, plays::a_fresh_control_plane_comes_beside_a_flushed_store, pace)
    }),
    scenario("messages are lost", Duration::ZERO, |what, pace| on_redis(what, USUAL, plays::messages_are_lost, pace)),
    scenario("messages are forged", Duration::ZERO, |what, pace| on_redis(what, USUAL, messages::are_forged, pace)),
    scenario("a gateway is cut off", OUTWAIT, |what, pace| on_redis(what, CUT_OFF, plays::a_gateway_is_cut_off, pace)),
    // For 1.7 leases, and then it finds that its connections are of no use.
    scenario("the control plane is cut off", Duration::from_millis(2700), |what, pace| {
        on_redis(what, USUAL, plays::the_control_plane_is_cut_off, pace)
    }),
    scenario("gateways are slow", OUTWAIT, |what, pace| on_redis(what, LONGER_USED, plays::gateways_are_slow, pace)),
    scenario("a gateway hears late", OUTWAIT, |what, pace| {
        on_redis(what, LONGER_USED, plays::a_gateway_hears_late, pace)
    }),
    scenario("the log is trimmed", OUTWAIT, |what, pace| {
        on_redis(what, CUT_OFF, plays::the_log_is_trimmed_past_a_gateway, pace)
    }),
    scenario("wall clocks are moved", OUTWAIT, |what, pace| on_redis(what, CLOCKS, plays::wall_clocks_are_moved, pace)),
    scenario("loads are slow", Duration::ZERO, |what, pace| on_redis(what, SLOW_LOADS, plays::nothing, pace)),
    scenario("leases end under calls", OUTWAIT, |what, pace| {
        on_redis(what, SLOW_LOOKUPS, plays::gateways_lose_their_lease, pace)
    }),
    // It is down for as long as the other one takes to make so many changes.
    scenario("control planes are killed", OUTWAIT, |what, pace| {
        on_redis(what, TWO_CONTROLS, plays::control_planes_are_killed, pace)
    }),
    // The sentinels need a second to notice, and two to agree and to promote.
    opening("the primary is lost", Duration::from_secs(3), |what, pace| {
        on_group(what, 0, lost_primary::primary_is_lost_with_deletes_that_only_it_has, pace)
    }),
    opening("the primary is killed", Duration::from_secs(3), |what, pace| {
        on_group(what, 2, lost_primary::primary_is_killed, pace)
    }),
    // Nothing is written before it follows the new one.
    opening("the primary is stopped", Duration::from_millis(4500), |what, pace| {
        on_group(what, 2, lost_primary::primary_is_stopped, pace)
    }),
];

const fn scenario(what: &'static str, slowest: Duration, watch: fn(&str, Pace) -> Report) -> Scenario {
    Scenario { what, slowest, epochs: false, watch }
}

/// One in which another epoch begins, after this long.
const fn opening(what: &'static str, after: Duration, watch: fn(&str, Pace) -> Report) -> Scenario {
    Scenario { what, slowest: after.saturating_add(QUIET), epochs: true, watch }
}

/// A test for each scenario, named for what goes on while it is watched.
macro_rules! plays {
    ($($name:ident: $what:literal;)+) => {
        $(#[test]
        fn $name() {
            SCENARIOS.iter().find(|scenario| scenario.what == $what).expect("it is in the list").must_hold();
        })+

        #[test]
        fn every_scenario_is_a_test() {
            let mut tests = [$($what),+];
            let mut listed = SCENARIOS.each_ref().map(|scenario| scenario.what);
            tests.sort_unstable();
            listed.sort_unstable();
            assert_eq!(tests, listed);
        }
    };
}

plays! {
    without_a_fault: "nothing";
    while_gateways_are_killed: "gateways are killed";
    while_gateways_are_stopped_and_calls_are_queued: "gateways are stopped";
    while_redis_is_killed_and_restarted: "redis is restarted";
    after_redis_was_flushed: "redis is flushed";
    after_redis_was_flushed_and_a_fresh_control_plane_came: "a fresh control plane";
    while_messages_are_lost: "messages are lost";
    while_messages_are_doubled_reordered_and_forged: "messages are forged";
    while_a_gateway_is_cut_off: "a gateway is cut off";
    while_the_control_plane_is_cut_off: "the control plane is cut off";
    while_gateways_are_slow: "gateways are slow";
    while_a_gateway_hears_late: "a gateway hears late";
    while_the_log_is_trimmed_past_a_gateway: "the log is trimmed";
    while_wall_clocks_are_moved: "wall clocks are moved";
    while_loads_are_slow: "loads are slow";
    while_leases_end_under_slow_calls: "leases end under calls";
    while_control_planes_are_killed_in_the_middle_of_deletes: "control planes are killed";
    while_the_primary_is_lost_with_deletes_that_no_replica_has: "the primary is lost";
    while_the_primary_is_killed: "the primary is killed";
    while_the_primary_is_stopped_and_goes_on_as_an_old_master: "the primary is stopped";
}

/// A rule is left out, and the same play shows it. What takes a narrow race may take some tries.
#[track_caller]
fn must_be_noticed(mutant: &'static str, cast: Cast<'_>, play: Play) {
    let environment = [cast.fleet.environment, &[("TOLLGATE_MUTANT", mutant)]].concat();
    let cast = Cast { fleet: Setting { environment: &environment, ..cast.fleet }, ..cast };
    let noticed = |_| {
        let report = on_redis(mutant, cast, play, Pace { times: 1, crowd: Crowd::SMALL });
        report.violations.first().inspect(|first| println!("{mutant}: {first}")).is_some()
    };
    assert!((0..TRIES).any(noticed), "nobody noticed that a rule is left out: {mutant}");
}

const TRIES: usize = 6;

#[test]
fn it_is_noticed_when_a_delete_waits_for_nobody() {
    must_be_noticed("no_wait", CUT_OFF, plays::a_gateway_is_cut_off);
}

#[test]
fn it_is_noticed_when_the_lease_counts_from_the_reply() {
    must_be_noticed("lease_from_reply", LONGER_USED, plays::a_gateway_hears_late);
}

#[test]
fn it_is_noticed_when_the_lease_is_read_after_the_lookup() {
    must_be_noticed("lease_after_lookup", SLOW_LOOKUPS, plays::gateways_lose_their_lease);
}

#[test]
fn it_is_noticed_when_a_fill_overwrites_a_tombstone() {
    must_be_noticed("fill_over_tombstone", SLOW_LOADS, plays::nothing);
}

#[test]
fn it_is_noticed_when_a_gap_is_ignored() {
    must_be_noticed("gap_ignored", CUT_OFF, plays::the_log_is_trimmed_past_a_gateway);
}
