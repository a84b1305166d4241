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

/// What goes wrong with a fleet, so many times.
type Play = fn(&mut Fleet, usize);

/// Plays once, or many times in a soak, and nothing is to be seen.
#[track_caller]
fn must_hold(what: &str, cast: &Cast<'_>, play: Play) {
    let times = if std::env::var_os("TOLLGATE_SOAK").is_some() { 30 } else { 1 };
    watched(what, cast, |fleet| play(fleet, times)).assert_clean();
}

fn wait(leases: f64) {
    std::thread::sleep(LEASE.mul_f64(leases));
}

fn nothing(_: &mut Fleet, times: usize) {
    (0..times).for_each(|_| wait(3.0));
}

fn gateways_are_killed(fleet: &mut Fleet, times: usize) {
    for turn in 0..2 * times {
        wait(0.7);
        fleet.kill(turn % GATEWAYS);
        wait(1.5);
        fleet.start_again(turn % GATEWAYS);
    }
    wait(0.5);
}

fn gateways_are_stopped(fleet: &mut Fleet, times: usize) {
    for turn in 0..times {
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

/// Meanwhile a gateway is cut off, and may have a lease that the new epoch knows nothing of.
fn redis_is_restarted(fleet: &mut Fleet, times: usize) {
    for (turn, away) in [0.0, 2.0].repeat(times).into_iter().enumerate() {
        wait(1.0);
        fleet.link(turn % GATEWAYS).set(Fault::StallBoth);
        fleet.redis.kill();
        wait(away);
        fleet.redis.start_again();
        wait(1.5);
        fleet.link(turn % GATEWAYS).set(Fault::None);
        // The first answers of another epoch come after what the one before may have granted.
        wait(3.0);
    }
}

/// It does not come back by itself, so once is all.
fn redis_is_flushed(fleet: &mut Fleet, _: usize) {
    wait(1.5);
    redis::cmd("FLUSHALL").exec(&mut fleet.redis.client()).unwrap();
    wait(2.5);
}

fn messages_are_lost(fleet: &mut Fleet, times: usize) {
    for _ in 0..times {
        fleet.links().for_each(|link| link.set(Fault::MuteSubscriptions));
        wait(3.0);
        fleet.links().for_each(|link| link.set(Fault::None));
        wait(0.5);
    }
}

fn a_gateway_is_cut_off(fleet: &mut Fleet, times: usize) {
    for turn in 0..times {
        for fault in [Fault::StallBoth, Fault::StallAnswers, Fault::StallRequests, Fault::Reset] {
            wait(0.7);
            fleet.link(turn % GATEWAYS).set(fault);
            wait(1.7);
            fleet.link(turn % GATEWAYS).set(Fault::None);
        }
    }
    wait(0.7);
}

fn the_control_plane_is_cut_off(fleet: &mut Fleet, times: usize) {
    for fault in [Fault::StallBoth, Fault::StallAnswers, Fault::StallRequests, Fault::Reset].repeat(times) {
        wait(1.2);
        fleet.control_link().set(fault);
        wait(1.7);
        fleet.control_link().set(Fault::None);
    }
    wait(2.0);
}

fn gateways_are_slow(fleet: &mut Fleet, times: usize) {
    for _ in 0..times {
        wait(0.5);
        (0..GATEWAYS).for_each(|gateway| fleet.link(gateway).set(Fault::Delay(LEASE.mul_f64(0.3))));
        wait(5.0);
        (0..GATEWAYS).for_each(|gateway| fleet.link(gateway).set(Fault::None));
    }
    wait(0.5);
}

fn a_gateway_hears_late(fleet: &mut Fleet, times: usize) {
    for turn in 0..times {
        wait(1.0);
        fleet.link(turn % GATEWAYS).set(Fault::LateAnswers(LEASE.mul_f64(0.8)));
        wait(6.0);
        fleet.link(turn % GATEWAYS).set(Fault::None);
    }
    wait(0.5);
}

/// As if so much had been changed while a gateway was away that the log no longer reaches back.
fn the_log_is_trimmed_past_a_gateway(fleet: &mut Fleet, times: usize) {
    let mut client = fleet.redis.client();
    for turn in 0..3 * times {
        wait(1.0);
        // What it would have been told meanwhile is lost for good.
        fleet.link(turn % GATEWAYS).set(Fault::Reset);
        wait(1.7);
        redis::cmd("DEL").arg("{tg}:t:log").exec(&mut client).unwrap();
        fleet.link(turn % GATEWAYS).set(Fault::None);
    }
    wait(1.0);
}

/// Each by itself, by hours, forth and back. That of the control plane by less, or the session that makes keys would end.
fn wall_clocks_are_moved(fleet: &mut Fleet, times: usize) {
    for by in ["+7h", "-30h", "+0"].repeat(times) {
        for gateway in 0..GATEWAYS {
            wait(0.7);
            fleet.move_clock(Some(gateway), by);
        }
        fleet.move_clock(None, if by == "+0" { "+0" } else { "-25m" });
        wait(1.2);
    }
    fleet.move_clock(Some(0), "+7h");
    fleet.kill(0);
    fleet.start_again(0);
    let line: serde_json::Value = serde_json::from_str(&fleet.process(0).log_line("listening")).unwrap();
    let told: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
    let hours = told.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((6..=7).contains(&hours), "the clock was not moved: {told}");
}

/// Links that come and go, so that leases end and begin again under calls.
fn gateways_lose_their_lease(fleet: &mut Fleet, times: usize) {
    for turn in 0..5 * times {
        wait(1.2);
        fleet.link(turn % 2).set(Fault::StallBoth);
        wait(1.9);
        fleet.link(turn % 2).set(Fault::None);
    }
    wait(0.7);
}

#[test]
fn without_a_fault() {
    must_hold("nothing", &Cast::default(), nothing);
}

#[test]
fn while_gateways_are_killed() {
    must_hold("gateways are killed", &Cast::default(), gateways_are_killed);
}

#[test]
fn while_gateways_are_stopped_and_calls_are_queued() {
    must_hold("gateways are stopped", &Cast::default(), gateways_are_stopped);
}

#[test]
fn while_redis_is_killed_and_restarted() {
    must_hold("redis is restarted", &Cast::default(), redis_is_restarted);
}

#[test]
fn after_redis_was_flushed() {
    must_hold("redis is flushed", &Cast::default(), redis_is_flushed);
}

#[test]
fn while_messages_are_lost() {
    must_hold("messages are lost", &Cast::default(), messages_are_lost);
}

#[test]
fn while_messages_are_doubled_reordered_and_forged() {
    must_hold("messages are forged", &Cast::default(), messages::are_forged);
}

#[test]
fn while_a_gateway_is_cut_off() {
    must_hold("a gateway is cut off", &CUT_OFF, a_gateway_is_cut_off);
}

#[test]
fn while_the_control_plane_is_cut_off() {
    must_hold("the control plane is cut off", &Cast::default(), the_control_plane_is_cut_off);
}

#[test]
fn while_gateways_are_slow() {
    must_hold("gateways are slow", &LONGER_USED, gateways_are_slow);
}

#[test]
fn while_a_gateway_hears_late() {
    must_hold("a gateway hears late", &LONGER_USED, a_gateway_hears_late);
}

#[test]
fn while_the_log_is_trimmed_past_a_gateway() {
    must_hold("the log is trimmed", &CUT_OFF, the_log_is_trimmed_past_a_gateway);
}

#[test]
fn while_wall_clocks_are_moved() {
    let cast = Cast { fleet: Setting { clocks: true, ..LINKED }, ..Cast::default() };
    must_hold("wall clocks are moved", &cast, wall_clocks_are_moved);
}

#[test]
fn while_loads_are_slow() {
    must_hold("loads are slow", &slow_loads(&SLOW_LOADS), nothing);
}

#[test]
fn while_leases_end_under_slow_calls() {
    must_hold("slow lookups", &slow_lookups(&SLOW_LOOKUPS), gateways_lose_their_lease);
}

const LINKED: Setting<'static> = Setting { lease: LEASE, linked: true, clocks: false, environment: &[] };
/// Many keys are in use when a gateway is cut off, and their deletes wait for a lease.
const CUT_OFF: Cast<'static> = Cast { fleet: LINKED, deleters: 16, used_for: (400, 1200), callers: 2, impatient: true };
/// A key is used for long enough to be loaded by a gateway that is answered late.
const LONGER_USED: Cast<'static> =
    Cast { fleet: LINKED, deleters: 12, used_for: (900, 1500), callers: 2, impatient: true };

type Environment = [(&'static str, &'static str)];

const SLOW_LOADS: [(&str, &str); 1] = [("TOLLGATE_PAUSE", "load.answered:100")];
const SLOW_LOOKUPS: [(&str, &str); 1] = [("TOLLGATE_PAUSE", "key.looked_up:15")];

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
fn must_be_noticed(mutant: &'static str, cast: Cast<'_>, play: Play) {
    let environment = [cast.fleet.environment, &[("TOLLGATE_MUTANT", mutant)]].concat();
    let cast = Cast { fleet: Setting { environment: &environment, ..cast.fleet }, ..cast };
    let noticed = |_| {
        let report = watched(mutant, &cast, |fleet| play(fleet, 1));
        report.violations.first().inspect(|first| println!("{mutant}: {first}")).is_some()
    };
    assert!((0..TRIES).any(noticed), "nobody noticed that a rule is left out: {mutant}");
}

const TRIES: usize = 6;

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
