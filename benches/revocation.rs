//! How long a delete takes: three gateways and a control plane, each a process of its own, on one real Redis. Idle and under a steady
//! load of calls, and with a Redis that syncs every change to its disk.
//!
//! `confirmed` is from the change in the store to the last acknowledgement, as the control plane measures it; `whole` is what
//! the caller waits for: checks, the journal's fsync, the change, the confirmation, and a new connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark stops by panicking, as its harness does, and reads clocks"
)]

#[path = "../tests/it/harness/mod.rs"]
mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::fleet::{Fleet, Setting};
use harness::h1::H1;
use harness::raw;
use harness::stage::FETCH;

const DELETES: usize = 1000;
/// At first connections are made and scripts are sent whole.
const WARM_UP: usize = 50;
/// Between two calls to a gateway under load.
const CALL_EVERY: Duration = Duration::from_millis(5);

struct Case {
    name: &'static str,
    /// The setting of Redis.
    fsync: &'static str,
    loaded: bool,
}

const CASES: [Case; 4] = [
    Case { name: "everysec, idle", fsync: "everysec", loaded: false },
    Case { name: "everysec, calls", fsync: "everysec", loaded: true },
    Case { name: "always, idle", fsync: "always", loaded: false },
    Case { name: "always, calls", fsync: "always", loaded: true },
];

/// Of one delete.
struct Took {
    confirmed: Duration,
    whole: Duration,
}

fn main() {
    let deletes = std::env::var("DELETES").map_or(DELETES, |text| text.parse().expect("DELETES is a number"));
    println!("deletes on three gateways, in ms, {deletes} each");
    println!("{:<16} {:>22} {:>22} {:>9}", "", "confirmed p50    p99", "whole p50    p99", "calls/s");
    for case in CASES {
        let fleet = Fleet::start(&Setting { lease: Duration::from_secs(5), ..Setting::default() });
        redis::cmd("CONFIG").arg("SET").arg("appendfsync").arg(case.fsync).exec(&mut fleet.redis.client()).unwrap();
        for _ in 0..WARM_UP {
            delete_one(&fleet);
        }
        let load = case.loaded.then(|| Load::start(&fleet));
        let began = Instant::now();
        let mut all: Vec<_> = (0..deletes).map(|_| delete_one(&fleet)).collect();
        let rate = load.map_or(0.0, |load| load.stop() as f64 / began.elapsed().as_secs_f64());
        let mut of = |time: fn(&Took) -> Duration, share: usize| {
            all.sort_by_key(time);
            time(&all[all.len() * share / 100]).as_secs_f64() * 1000.0
        };
        let [confirmed, whole]: [fn(&Took) -> Duration; 2] = [|took| took.confirmed, |took| took.whole];
        println!(
            "{:<16} {:>14.2} {:>7.2} {:>14.2} {:>7.2} {rate:>9.0}",
            case.name,
            of(confirmed, 50),
            of(confirmed, 99),
            of(whole, 50),
            of(whole, 99),
        );
    }
}

/// A key that every gateway has used.
fn delete_one(fleet: &Fleet) -> Took {
    let (id, key) = fleet.office.create();
    for gateway in fleet.gateways() {
        assert_eq!(fleet.status(gateway, &key), 200);
    }
    let (before, began) = (confirmed_in_all(fleet), Instant::now());
    let (status, receipt) = fleet.office.delete(&id, "10s");
    let whole = began.elapsed();
    assert_eq!(status, 200, "{receipt}");
    Took { confirmed: Duration::from_secs_f64((confirmed_in_all(fleet) - before).max(0.0)), whole }
}

/// Seconds, of all deletes so far.
fn confirmed_in_all(fleet: &Fleet) -> f64 {
    let text = raw::call(fleet.office.control, "GET", "/metrics", &[], b"").text();
    let line = text.lines().find_map(|line| line.strip_prefix("tollgate_revocation_seconds_sum "));
    line.expect("the control plane measures it").parse().unwrap()
}

/// Calls with a key that stays, on a connection to each gateway.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Load {
    fn start(fleet: &Fleet) -> Self {
        let (load, (_, key)) = (Self { stop: Arc::default(), calls: Arc::default() }, fleet.office.create());
        for gateway in fleet.gateways() {
            let (stop, calls) = (Arc::clone(&load.stop), Arc::clone(&load.calls));
            fleet.runtime.spawn(call(gateway, key.clone(), stop, calls));
        }
        load
    }

    /// How many calls were made.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.calls.load(Ordering::Relaxed)
    }
}

async fn call(gateway: SocketAddr, key: String, stop: Arc<AtomicBool>, calls: Arc<AtomicU64>) {
    let (mut client, mut ticks) = (H1::connect(gateway).await, tokio::time::interval(CALL_EVERY));
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let answer = client.call("GET", FETCH, &[("dashvector-auth-token", &key)], "").await.unwrap();
        assert_eq!(answer.status, 200);
        calls.fetch_add(1, Ordering::Relaxed);
    }
}
