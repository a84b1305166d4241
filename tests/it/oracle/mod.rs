//! An oracle watches real gateways on a real Redis while something goes wrong: with a key whose deletion is final no call passes
//! that started afterwards, and no key is denied before its deletion was asked for (docs/revocation.md).

mod judge;
mod messages;
mod scene;

use std::time::Duration;

use crate::harness::faulty::Fault;
use crate::harness::fleet::{Fleet, GATEWAYS, Setting};
use crate::harness::process::Signal;
use scene::{Cast, watched};

const LEASE: Duration = Duration::from_secs(1);

/// How often a play is played again; more in a soak.
fn times() -> usize {
    if std::env::var_os("TOLLGATE_SOAK").is_some() { 60 } else { 1 }
}

fn wait(leases: f64) {
    std::thread::sleep(LEASE.mul_f64(leases));
}

fn nothing(_: &mut Fleet) {
    (0..times()).for_each(|_| wait(3.0));
}

fn gateways_are_killed(fleet: &mut Fleet) {
    for turn in 0..2 * times() {
        wait(0.7);
        fleet.kill(turn % GATEWAYS);
        wait(1.5);
        fleet.start_again(turn % GATEWAYS);
    }
    wait(0.5);
}

fn gateways_are_stopped(fleet: &mut Fleet) {
    for turn in 0..times() {
        for (number, leases) in [0.5, 0.9, 1.1, 3.0].into_iter().enumerate() {
            wait(0.5);
            let process = fleet.process((turn + number) % GATEWAYS);
            process.signal(Signal::STOP);
            wait(leases);
            process.signal(Signal::CONT);
        }
    }
    wait(0.5);
}

fn redis_is_restarted(fleet: &mut Fleet) {
    for away in [0.2, 2.0].repeat(times()) {
        wait(1.0);
        fleet.redis.kill();
        wait(away);
        fleet.redis.start_again();
        // The first answers of another epoch come after what the one before may have granted.
        wait(4.5);
    }
}

fn redis_is_flushed(fleet: &mut Fleet) {
    wait(1.5);
    redis::cmd("FLUSHALL").exec(&mut fleet.redis.client()).unwrap();
    wait(2.5);
}

fn messages_are_lost(fleet: &mut Fleet) {
    for _ in 0..times() {
        (0..GATEWAYS).for_each(|gateway| fleet.link(gateway).set(Fault::MuteSubscriptions));
        wait(3.0);
        (0..GATEWAYS).for_each(|gateway| fleet.link(gateway).set(Fault::None));
        wait(0.5);
    }
}

fn a_gateway_is_cut_off(fleet: &mut Fleet) {
    for turn in 0..times() {
        for fault in [Fault::StallBoth, Fault::StallAnswers, Fault::StallRequests, Fault::Reset] {
            wait(0.7);
            fleet.link(turn % GATEWAYS).set(fault);
            wait(1.7);
            fleet.link(turn % GATEWAYS).set(Fault::None);
        }
    }
    wait(0.7);
}

fn all_is_slow(fleet: &mut Fleet) {
    for _ in 0..times() {
        wait(0.5);
        (0..GATEWAYS).for_each(|gateway| fleet.link(gateway).set(Fault::Delay(LEASE.mul_f64(0.3))));
        wait(5.0);
        (0..GATEWAYS).for_each(|gateway| fleet.link(gateway).set(Fault::None));
    }
    wait(0.5);
}

fn a_gateway_hears_late(fleet: &mut Fleet) {
    for turn in 0..times() {
        wait(1.0);
        fleet.link(turn % GATEWAYS).set(Fault::LateAnswers(LEASE.mul_f64(0.8)));
        wait(6.0);
        fleet.link(turn % GATEWAYS).set(Fault::None);
    }
    wait(0.5);
}

/// As if so much had been changed while a gateway was away that the log no longer reaches back.
fn the_log_is_trimmed_past_a_gateway(fleet: &mut Fleet) {
    let mut client = fleet.redis.client();
    for turn in 0..3 * times() {
        wait(1.0);
        // What it would have been told meanwhile is lost for good.
        fleet.link(turn % GATEWAYS).set(Fault::Reset);
        wait(1.7);
        redis::cmd("DEL").arg("{tg}:t:log").exec(&mut client).unwrap();
        fleet.link(turn % GATEWAYS).set(Fault::None);
    }
    wait(1.0);
}

/// Links that come and go, so that leases end and begin again under calls.
fn gateways_lose_their_lease(fleet: &mut Fleet) {
    for turn in 0..5 * times() {
        wait(1.2);
        fleet.link(turn % 2).set(Fault::StallBoth);
        wait(1.9);
        fleet.link(turn % 2).set(Fault::None);
    }
    wait(0.7);
}

#[test]
fn without_a_fault() {
    watched("nothing", &Cast::default(), nothing).assert_clean();
}

#[test]
fn while_gateways_are_killed() {
    watched("gateways are killed", &Cast::default(), gateways_are_killed).assert_clean();
}

#[test]
fn while_gateways_are_stopped_and_calls_are_queued() {
    watched("gateways are stopped", &Cast::default(), gateways_are_stopped).assert_clean();
}

#[test]
fn while_redis_is_killed_and_restarted() {
    watched("redis is restarted", &Cast::default(), redis_is_restarted).assert_clean();
}

#[test]
fn after_redis_was_flushed() {
    watched("redis is flushed", &Cast::default(), redis_is_flushed).assert_clean();
}

#[test]
fn while_messages_are_lost() {
    watched("messages are lost", &Cast::default(), messages_are_lost).assert_clean();
}

#[test]
fn while_messages_are_doubled_reordered_and_forged() {
    watched("messages are forged", &Cast::default(), messages::are_forged).assert_clean();
}

#[test]
fn while_a_gateway_is_cut_off() {
    watched("a gateway is cut off", &CUT_OFF, a_gateway_is_cut_off).assert_clean();
}

#[test]
fn while_all_is_slow() {
    watched("all is slow", &LONGER_USED, all_is_slow).assert_clean();
}

#[test]
fn while_a_gateway_hears_late() {
    watched("a gateway hears late", &LONGER_USED, a_gateway_hears_late).assert_clean();
}

#[test]
fn while_the_log_is_trimmed_past_a_gateway() {
    watched("the log is trimmed", &CUT_OFF, the_log_is_trimmed_past_a_gateway).assert_clean();
}

#[test]
fn while_loads_are_slow() {
    watched("loads are slow", &slow_loads(&SLOW_LOADS), nothing).assert_clean();
}

#[test]
fn while_leases_end_under_slow_calls() {
    watched("slow lookups", &slow_lookups(&SLOW_LOOKUPS), gateways_lose_their_lease).assert_clean();
}

const LINKED: Setting<'static> = Setting { lease: LEASE, linked: true, environment: &[] };
/// Many keys are in use when a gateway is cut off, and their deletes wait for a lease.
const CUT_OFF: Cast<'static> = Cast { fleet: LINKED, deleters: 16, used_for: (400, 1200), callers: 2, impatient: true };
/// A key is used for long enough to be loaded by a gateway that is answered late.
const LONGER_USED: Cast<'static> =
    Cast { fleet: LINKED, deleters: 12, used_for: (900, 1500), callers: 2, impatient: true };

type Environment = [(&'static str, &'static str)];

const SLOW_LOADS: [(&str, &str); 1] = [("TOLLGATE_PAUSE", "load.answered:100")];
const SLOW_LOOKUPS: [(&str, &str); 1] = [("TOLLGATE_PAUSE", "key.looked_up:50")];

/// Each load is held up between its answer and the keyring, and some keys are deleted right then.
fn slow_loads(environment: &Environment) -> Cast<'_> {
    Cast { fleet: Setting { environment, ..LINKED }, deleters: 1, used_for: (20, 150), callers: 2, impatient: true }
}

/// Each call is held up between its lookup and its second look at the clock.
fn slow_lookups(environment: &Environment) -> Cast<'_> {
    let fleet = Setting { environment, ..LINKED };
    Cast { fleet, deleters: 16, used_for: (800, 1400), callers: 6, impatient: false }
}

/// A rule is left out, and the same play shows it. What takes a narrow race may take some tries.
#[track_caller]
fn must_be_noticed(mutant: &'static str, cast: Cast<'_>, play: fn(&mut Fleet)) {
    let environment = [cast.fleet.environment, &[("TOLLGATE_MUTANT", mutant)]].concat();
    let cast = Cast { fleet: Setting { environment: &environment, ..cast.fleet }, ..cast };
    let noticed = |_| {
        let report = watched(mutant, &cast, play);
        report.violations.first().inspect(|first| println!("{mutant}: {first}")).is_some()
    };
    assert!((0..TRIES).any(noticed), "nobody noticed that a rule is left out: {mutant}");
}

const TRIES: usize = 4;

#[test]
fn it_is_noticed_when_a_delete_waits_for_nobody() {
    must_be_noticed("no_wait", CUT_OFF, a_gateway_is_cut_off);
}

#[test]
fn it_is_noticed_when_the_lease_counts_from_the_reply() {
    must_be_noticed("lease_from_reply", LONGER_USED, a_gateway_hears_late);
}

#[test]
fn it_is_noticed_when_the_lease_is_read_after_the_lookup() {
    must_be_noticed("lease_after_lookup", slow_lookups(&SLOW_LOOKUPS), gateways_lose_their_lease);
}

#[test]
fn it_is_noticed_when_a_fill_overwrites_a_tombstone() {
    must_be_noticed("fill_over_tombstone", slow_loads(&SLOW_LOADS), nothing);
}

#[test]
fn it_is_noticed_when_a_gap_is_ignored() {
    must_be_noticed("gap_ignored", CUT_OFF, the_log_is_trimmed_past_a_gateway);
}
