//! Gateways that are killed under load, again and again, on the embedded store and on Redis: what clients saw completed is in the
//! ledger, nothing is there twice. With `TOLLGATE_SOAK` a thousand times.

mod callers;
mod storm;

use std::net::SocketAddr;
use std::time::Duration;

use tollgate::demo::SampleService;

use crate::harness::books::{Usage, reconciled};
use crate::harness::fleet::{Fleet, GATEWAYS, Setting};
use crate::harness::stage::Stage;
use storm::{Force, House, Storm, raise, settled, until};

const KEYS: usize = 3;
const SEED: u64 = 20_261_123;

/// One gateway with the embedded store: each kill takes store and control plane with it.
struct Embedded {
    stage: Stage,
    keys: Vec<String>,
}

impl Embedded {
    fn new() -> Self {
        let stage = Stage::start();
        let keys: Vec<String> = (0..KEYS).map(|number| format!("a-key-of-the-storm-{number}")).collect();
        stage.import(&keys);
        Self { stage, keys }
    }
}

impl House for Embedded {
    fn doors(&self) -> Vec<SocketAddr> {
        vec![self.stage.gateway]
    }

    fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    fn control(&self) -> SocketAddr {
        self.stage.control
    }

    fn sample(&self) -> &SampleService {
        &self.stage.sample
    }

    fn kill(&mut self, _: usize) {
        self.stage.process.take().unwrap().kill();
    }

    fn start_again(&mut self, _: usize) -> SocketAddr {
        self.stage.restart();
        self.stage.gateway
    }
}

/// Three gateways on Redis: the control plane and the others go on.
struct Redis {
    fleet: Fleet,
    keys: Vec<String>,
}

impl Redis {
    fn new() -> Self {
        let fleet = Fleet::start(&Setting { clocks: true, ..Setting::default() });
        let keys: Vec<String> = (0..KEYS).map(|_| fleet.office.create().1).collect();
        Self { fleet, keys }
    }

    /// All hours that calls were in are over for everybody, and have their last values.
    fn end_hours(&self) {
        (0..GATEWAYS).map(Some).chain([None]).for_each(|member| self.fleet.move_clock(member, "+3700"));
        // The last one is the hour that the clocks are in now.
        until("all hours but the present one are final", || {
            let hours = reconciled(self.control());
            hours.len() > 1 && hours.iter().rev().skip(1).all(|hour| hour.state == "final")
        });
    }
}

impl House for Redis {
    fn doors(&self) -> Vec<SocketAddr> {
        self.fleet.gateways()
    }

    fn keys(&self) -> Vec<String> {
        self.keys.clone()
    }

    fn control(&self) -> SocketAddr {
        self.fleet.office.control
    }

    fn sample(&self) -> &SampleService {
        &self.fleet.sample
    }

    fn kill(&mut self, gateway: usize) {
        self.fleet.kill(gateway);
    }

    fn start_again(&mut self, gateway: usize) -> SocketAddr {
        self.fleet.start_again(gateway);
        self.fleet.gateways()[gateway]
    }
}

/// Records, changes and reconciliation say the same. An hour that is over is exact to the last counter, the present one is open.
fn books_agree(control: SocketAddr, usage: &Usage) {
    until("the feed has the last change", || Usage::of_changes(control) == *usage);
    let hours = reconciled(control);
    for hour in &hours {
        let verdict = if hour.state == "final" { "exact" } else { "open" };
        assert_eq!((hour.verdict.as_str(), hour.differences), (verdict, 0), "{hour:?}");
        assert_eq!(hour.opened, hour.committed + hour.interrupted, "{hour:?}");
        let closed = if hour.state == "final" { (hour.committed, hour.committed) } else { hour.closed };
        assert_eq!((hour.closed, closed.0), (closed, closed.1), "{hour:?}");
    }
    let sums = hours
        .iter()
        .fold((0, 0, 0), |sum, hour| (sum.0 + hour.opened, sum.1 + hour.committed, sum.2 + hour.interrupted));
    assert_eq!(sums, (usage.opened, usage.committed(), usage.interrupted), "{hours:?}");
}

/// Raises a storm; what is in the books once it is over.
fn in_the_books(house: &mut impl House, force: Force) -> (Storm, Usage) {
    let storm = raise(house, force, SEED);
    let usage = settled(house.control(), &storm);
    (storm, usage)
}

const QUIET: Force = Force { kills: 0, between: Duration::from_millis(500), within: Duration::from_secs(60) };

#[test]
fn kills_of_a_node_under_load_lose_no_completed_call_and_count_none_twice() {
    let mut house = Embedded::new();
    let (storm, usage) = in_the_books(&mut house, Force::usual(20, Duration::from_millis(150)));
    storm.is_in(&usage);
    assert!(usage.interrupted > 0, "{usage:?}");
    books_agree(house.control(), &usage);

    // Recovering again, after a kill and after a stop, changes nothing.
    house.stage.process.take().unwrap().kill();
    house.stage.restart();
    assert_eq!(settled(house.control(), &storm), usage);
    assert_eq!(house.stage.process.take().unwrap().stop().code(), Some(0));
    house.stage.restart();
    assert_eq!(settled(house.control(), &storm), usage);
    books_agree(house.control(), &usage);
}

#[test]
fn kills_of_three_gateways_on_redis_under_load_lose_no_completed_call_and_count_none_twice() {
    let mut house = Redis::new();
    let (storm, usage) = in_the_books(&mut house, Force::usual(12, Duration::from_millis(100)));
    storm.is_in(&usage);
    assert!(usage.interrupted > 0, "{usage:?}");
    books_agree(house.control(), &usage);

    // Every incarnation has closed its hours, also the dead ones, whose hours were closed by those who came after them.
    house.end_hours();
    assert_eq!(Usage::of_records(house.control(), ""), usage);
    books_agree(house.control(), &usage);
}

#[test]
fn without_a_kill_the_ledger_says_exactly_what_clients_and_service_say() {
    let mut house = Embedded::new();
    let (storm, usage) = in_the_books(&mut house, QUIET);
    storm.is_exactly(&usage);
    books_agree(house.control(), &usage);
    house.stage.process.take().unwrap().kill();
    house.stage.restart();
    assert_eq!(settled(house.control(), &storm), usage, "a kill of an idle gateway changes nothing");
}

#[test]
fn without_a_kill_three_gateways_on_redis_say_exactly_what_clients_and_service_say() {
    let mut house = Redis::new();
    let (storm, usage) = in_the_books(&mut house, QUIET);
    storm.is_exactly(&usage);
    books_agree(house.control(), &usage);
    house.end_hours();
    assert_eq!(Usage::of_records(house.control(), ""), usage);
    books_agree(house.control(), &usage);
}
