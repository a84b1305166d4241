//! A storm of SIGKILLs over gateways under load, and what must hold of the books after it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tollgate::demo::SampleService;

use super::callers::{Crowd, Doors, Seen, Tally};
use crate::harness::PATIENCE;
use crate::harness::books::Usage;

/// Gateways that can be killed, and where their usage is read.
pub trait House {
    fn doors(&self) -> Vec<SocketAddr>;
    fn keys(&self) -> Vec<String>;
    fn control(&self) -> SocketAddr;
    fn sample(&self) -> &SampleService;
    /// SIGKILL; returns once the process is gone.
    fn kill(&mut self, gateway: usize);
    /// Returns once it is ready; where it listens.
    fn start_again(&mut self, gateway: usize) -> SocketAddr;
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Force {
    pub kills: u64,
    /// How long gateways are under load between kills, at least.
    pub between: Duration,
    /// No kill comes after this long.
    pub within: Duration,
}

impl Force {
    /// As given, and more than a thousand kills with `TOLLGATE_SOAK`.
    pub fn usual(kills: u64, between: Duration) -> Self {
        if std::env::var_os("TOLLGATE_SOAK").is_some() {
            return Self { kills: 1000, between, within: Duration::from_secs(40 * 60) };
        }
        Self { kills, between, within: Duration::from_secs(120) }
    }
}

/// What was seen from outside.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    pub kills: u64,
    pub clients: Tally,
    /// Calls and read units, by the service.
    pub upstream: (u64, u64),
    pub lasted: Duration,
}

/// Puts gateways under load and kills them, in an order that `seed` decides; in the end all are up and nobody calls.
pub fn raise(house: &mut impl House, force: Force, seed: u64) -> Storm {
    let began = Instant::now();
    let doors: Doors = Arc::new(RwLock::new(house.doors().into_iter().map(Some).collect()));
    let crowd = Crowd::at(&doors, &house.keys());
    let (mut kills, mut dice) = (0, Dice(seed));
    while kills < force.kills && began.elapsed() < force.within {
        await_calls(&crowd.seen, force.between);
        let doomed = dice.some_of(doors.read().len());
        let lost = crowd.seen.tally().lost;
        for gateway in &doomed {
            doors.write()[*gateway] = None;
            house.kill(*gateway);
            kills += 1;
        }
        until("a kill ends calls", || crowd.seen.tally().lost > lost);
        for gateway in &doomed {
            let door = house.start_again(*gateway);
            doors.write()[*gateway] = Some(door);
        }
    }
    await_calls(&crowd.seen, force.between);
    let clients = crowd.end();
    let total = house.sample().counts().total;
    assert!(kills >= force.kills, "only {kills} kills in {:?}", force.within);
    Storm { kills, clients, upstream: (total.calls, total.read_units), lasted: began.elapsed() }
}

/// Waits that long, and for a completed call.
fn await_calls(seen: &Seen, between: Duration) {
    let completed = seen.tally().completed;
    std::thread::sleep(between);
    until("calls are completed", || seen.tally().completed > completed);
}

#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + 3 * PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The usage once all that clients and service know of is in it, and every call is committed or given up.
pub fn settled(control: SocketAddr, storm: &Storm) -> Usage {
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        let usage = Usage::of_records(control, "");
        let there = usage.of("ok") >= storm.clients.completed && usage.opened >= storm.upstream.0;
        if there && usage.opened == usage.committed() + usage.interrupted {
            return usage;
        }
        assert!(Instant::now() < deadline, "{storm:?} is not in {usage:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Storm {
    /// What holds however often and whenever gateways are killed.
    pub fn is_in(&self, usage: &Usage) {
        let Tally { begun, completed, denied, lost, units } = self.clients;
        println!(
            "{} kills in {:.0?}: {begun} calls begun, {completed} completed with {units} units, {denied} denied, {lost} lost; \
             service: {} calls, {} units; ledger: opened {}, {:?}, interrupted {}, {} units",
            self.kills,
            self.lasted,
            self.upstream.0,
            self.upstream.1,
            usage.opened,
            usage.calls,
            usage.interrupted,
            usage.read_units,
        );
        assert_eq!(begun, completed + denied + lost);
        // Completed calls are all there, and nothing that was not called is.
        assert!(completed <= usage.of("ok") && usage.of("ok") <= usage.committed(), "{usage:?}");
        assert!(usage.committed() <= usage.opened && usage.opened <= completed + lost, "{usage:?}");
        // Opened before the first byte goes upstream; only what was in flight can have been opened and not sent.
        assert!(self.upstream.0 <= usage.opened && usage.opened - self.upstream.0 <= lost, "{usage:?}");
        assert!(usage.interrupted <= lost, "{usage:?}");
        // Of a committed call all units, of others none.
        assert!(units <= usage.read_units && usage.read_units <= self.upstream.1, "{usage:?}");
        assert_eq!((usage.write_units, usage.units_missing), (0, 0), "{usage:?}");
    }

    /// What holds where nobody was killed.
    pub fn is_exactly(&self, usage: &Usage) {
        self.is_in(usage);
        let Tally { completed, units, .. } = self.clients;
        assert_eq!((self.clients.lost, usage.interrupted, usage.opened), (0, 0, completed), "{usage:?}");
        assert_eq!((usage.of("ok"), usage.read_units), (completed, units), "{usage:?}");
        assert_eq!(self.upstream, (completed, units));
    }
}

/// Numbers that look random and come again with the same seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Some numbers below `most`, at least one.
    fn some_of(&mut self, most: usize) -> Vec<usize> {
        let always = self.throw() as usize % most;
        // One as a rule; several now and then.
        (0..most).filter(|number| *number == always || self.throw().is_multiple_of(4)).collect()
    }
}
