//! Limits: calls at once of an account and in all, and calls per second.

use std::thread;

use tollgate::verdict::Denial;

use super::ask::{Ask, LIMITED, Wire};
use crate::world::{DEFAULT_HOST, World};

#[test]
fn calls_above_the_rate_are_told_when_to_try_again_and_are_not_billed() {
    for wire in Wire::ALL {
        let world = World::start("", "[gateway.limits]\naccount_rate = 1\naccount_burst = 2\n");
        let (_, key) = world.owner(DEFAULT_HOST);
        let (_, other) = world.owner("other.test");
        for _ in 0..2 {
            Ask::with_key(&key.text).over(wire, world.gateway).is_good();
        }
        let said = Ask::with_key(&key.text).over(wire, world.gateway);
        said.is(LIMITED);
        assert_eq!(said.header("retry-after"), Some("1"), "{said:?}");
        // Somebody else's calls are not limited by it, nor is a refusal that comes first.
        Ask::with_key(&other.text).to("other.test").over(wire, world.gateway).is_good();
        Ask::with_key(&key.text).to("nobody.test").over(wire, world.gateway).is(Denial::UnknownCluster);
        assert_eq!(world.ledger(3).values().sum::<u64>(), 3);
        assert_eq!(world.sample.calls(), 3);
        // After the time it was told, the account may call again.
        let began = std::time::Instant::now();
        world.wait_until("the account may call again", || {
            let said = Ask::with_key(&key.text).over(wire, world.gateway);
            said.status == 200 && said.header("grpc-status").is_none_or(|status| status == "0")
        });
        assert!(began.elapsed().as_secs() < 5);
    }
}

#[test]
fn calls_beyond_those_allowed_at_once_are_refused_and_not_billed() {
    let world = World::start("", "[gateway.limits]\naccount_concurrency = 1\n");
    let (_, key) = world.owner(DEFAULT_HOST);
    let (_, other) = world.owner("other.test");
    let gateway = world.gateway;
    thread::scope(|scope| {
        let slow = Ask::with_key(&key.text).and("x-sample-delay-ms", "1500");
        let slow = scope.spawn(move || slow.over(Wire::Http1, gateway).is_good());
        world.wait_until("the slow call has come through", || world.sample.calls() == 1);
        for wire in Wire::ALL {
            Ask::with_key(&key.text).over(wire, world.gateway).is(LIMITED);
            Ask::with_key(&other.text).to("other.test").over(wire, world.gateway).is_good();
        }
        slow.join().unwrap();
    });
    for wire in Wire::ALL {
        Ask::with_key(&key.text).over(wire, world.gateway).is_good();
    }
    assert_eq!(world.ledger(7).values().sum::<u64>(), 7);
    assert_eq!(world.sample.calls(), 7);
}

#[test]
fn a_gateway_with_all_its_calls_in_flight_tells_everybody_to_come_again() {
    let world = World::start("", "[gateway.limits]\ncalls = 1\n");
    let (_, key) = world.owner(DEFAULT_HOST);
    let (_, other) = world.owner("other.test");
    let gateway = world.gateway;
    thread::scope(|scope| {
        let slow = Ask::with_key(&key.text).and("x-sample-delay-ms", "1500");
        let slow = scope.spawn(move || slow.over(Wire::Http1, gateway).is_good());
        world.wait_until("the slow call has come through", || world.sample.calls() == 1);
        for wire in Wire::ALL {
            let said = Ask::with_key(&other.text).to("other.test").over(wire, world.gateway);
            said.is(Denial::Overloaded);
            assert_eq!(said.header("retry-after"), Some("1"), "{said:?}");
            // Nothing was looked at, so a bad key learns the same.
            Ask::with_key("dvk_nonsense").over(wire, world.gateway).is(Denial::Overloaded);
        }
        slow.join().unwrap();
    });
    // Denied calls give their place back as well.
    for wire in Wire::ALL {
        Ask::with_key("dvk_nonsense").over(wire, world.gateway).is(Denial::NotValid);
        Ask::with_key(&key.text).over(wire, world.gateway).is_good();
    }
    assert_eq!(world.ledger(4).values().sum::<u64>(), 4);
    assert_eq!(world.sample.calls(), 4);
}
