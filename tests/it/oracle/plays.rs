//! What goes wrong with a fleet on one Redis, so many times.

use super::LEASE;
use crate::harness::faulty::Fault;
use crate::harness::fleet::{Fleet, GATEWAYS};
use crate::harness::process::Signal;

pub fn wait(leases: f64) {
    std::thread::sleep(LEASE.mul_f64(leases));
}

pub fn nothing(_: &mut Fleet, times: usize) {
    (0..times).for_each(|_| wait(3.0));
}

pub fn gateways_are_killed(fleet: &mut Fleet, times: usize) {
    for turn in 0..2 * times {
        wait(0.7);
        fleet.kill(turn % GATEWAYS);
        wait(1.5);
        fleet.start_again(turn % GATEWAYS);
    }
    wait(0.5);
}

pub fn gateways_are_stopped(fleet: &mut Fleet, times: usize) {
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
pub fn redis_is_restarted(fleet: &mut Fleet, times: usize) {
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
pub fn redis_is_flushed(fleet: &mut Fleet, _: usize) {
    wait(1.5);
    redis::cmd("FLUSHALL").exec(&mut fleet.redis.client()).unwrap();
    wait(2.5);
}

pub fn messages_are_lost(fleet: &mut Fleet, times: usize) {
    for _ in 0..times {
        fleet.links().for_each(|link| link.set(Fault::MuteSubscriptions));
        wait(3.0);
        fleet.links().for_each(|link| link.set(Fault::None));
        wait(0.5);
    }
}

pub fn a_gateway_is_cut_off(fleet: &mut Fleet, times: usize) {
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

pub fn the_control_plane_is_cut_off(fleet: &mut Fleet, times: usize) {
    for fault in [Fault::StallBoth, Fault::StallAnswers, Fault::StallRequests, Fault::Reset].repeat(times) {
        wait(1.2);
        fleet.control_link().set(fault);
        wait(1.7);
        fleet.control_link().set(Fault::None);
    }
    wait(2.0);
}

pub fn gateways_are_slow(fleet: &mut Fleet, times: usize) {
    for _ in 0..times {
        wait(0.5);
        (0..GATEWAYS).for_each(|gateway| fleet.link(gateway).set(Fault::Delay(LEASE.mul_f64(0.3))));
        wait(5.0);
        (0..GATEWAYS).for_each(|gateway| fleet.link(gateway).set(Fault::None));
    }
    wait(0.5);
}

pub fn a_gateway_hears_late(fleet: &mut Fleet, times: usize) {
    for turn in 0..times {
        wait(1.0);
        fleet.link(turn % GATEWAYS).set(Fault::LateAnswers(LEASE.mul_f64(0.8)));
        wait(6.0);
        fleet.link(turn % GATEWAYS).set(Fault::None);
    }
    wait(0.5);
}

/// As if so much had been changed while a gateway was away that the log no longer reaches back.
pub fn the_log_is_trimmed_past_a_gateway(fleet: &mut Fleet, times: usize) {
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
pub fn wall_clocks_are_moved(fleet: &mut Fleet, times: usize) {
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
pub fn gateways_lose_their_lease(fleet: &mut Fleet, times: usize) {
    for turn in 0..5 * times {
        wait(1.2);
        fleet.link(turn % 2).set(Fault::StallBoth);
        wait(1.9);
        fleet.link(turn % 2).set(Fault::None);
    }
    wait(0.7);
}

/// Anywhere, and at each of these places in the middle of a delete: written down, made and not settled, settled and not answered.
const PLACES: [Option<&str>; 4] = [None, Some("change.intended:12"), Some("change.made:12"), Some("change.settled:12")];

/// Of two; the other one goes on alone meanwhile.
pub fn control_planes_are_killed(fleet: &mut Fleet, times: usize) {
    for turn in 0..4 * times {
        let number = turn % 2;
        wait(0.5);
        fleet.kill_control(number);
        match PLACES[turn % PLACES.len()] {
            None => wait(0.5),
            Some(place) => {
                fleet.start_control(number, &[("TOLLGATE_FAULT", place)]);
                fleet.await_end_of_control(number);
            }
        }
        fleet.start_control(number, &[]);
    }
    wait(0.5);
}

/// Its journal is empty, and so is Redis: together they look like a first start, which is not what the gateways remember.
pub fn a_fresh_control_plane_comes_beside_a_flushed_store(fleet: &mut Fleet, _: usize) {
    wait(1.5);
    fleet.kill_control(0);
    redis::cmd("FLUSHALL").exec(&mut fleet.redis.client()).unwrap();
    let _lost = fleet.lose_folder_of_control(0);
    fleet.start_control_alone(0, &[]);
    fleet.control_process(0).listening("control");
    wait(3.0);
}
