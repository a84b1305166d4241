//! Very many series are scraped while calls go on: how long a scrape takes, and what calls notice of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::denials::unknowable::OPERATIONS;
use crate::harness::process::OPERATOR_TOKEN;
use crate::harness::raw::{self, Raw};
use crate::world::{Account, World};

/// Calls that are measured, one after the other.
const CALLS: usize = 3000;

/// A call of an account of these tests.
fn request(number: usize, method: &str, target: &str) -> Vec<u8> {
    let (host, key) = (format!("vectors-{number}.test"), format!("imported-key-{number:04}"));
    format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\ndashvector-auth-token: {key}\r\ncontent-length: 0\r\n\r\n")
        .into()
}

/// An account that has used every operation.
fn account(world: &World, number: usize) {
    let new = json!({"email": format!("{number}@owner.test"), "password": "a password for tests", "verified": true});
    let id = crate::world::text(&world.operator("POST", "/v1/accounts", &new), "account_id");
    let account = Account { id, session: String::new() };
    world.cluster(&account, &format!("vectors-{number}.test"), world.sample.at, &[]);
    let keys = json!({"keys": [{"key": format!("imported-key-{number:04}")}]});
    world.operator("POST", &format!("/v1/accounts/{}/keys/import", account.id), &keys);
    let mut connection = Raw::connect(world.gateway);
    for (method, target) in OPERATIONS {
        connection.send(&request(number, method, target));
        assert_ne!(connection.answer().status, 503);
    }
}

/// Half of the calls were quicker than the first, all but one in a hundred quicker than the second.
fn calls(world: &World) -> (Duration, Duration) {
    let (mut connection, call) = (Raw::connect(world.gateway), request(0, "GET", "/service_version"));
    let mut took: Vec<_> = (0..CALLS)
        .map(|_| {
            let began = Instant::now();
            connection.send(&call);
            assert_eq!(connection.answer().status, 200);
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    (took[CALLS / 2], took[CALLS * 99 / 100])
}

/// How many series there are, and how long it took to be told.
fn scrape(world: &World) -> (usize, Duration) {
    let (began, token) = (Instant::now(), format!("Bearer {OPERATOR_TOKEN}"));
    let answer = raw::call(world.control, "GET", "/metrics/usage", &[("authorization", token.as_str())], b"");
    let took = began.elapsed();
    assert_eq!(answer.status, 200);
    (answer.text().lines().filter(|line| !line.starts_with('#')).count(), took)
}

/// A hundred thousand series with `TOLLGATE_SOAK`.
#[test]
fn very_many_series_are_told_at_once_and_calls_go_on_meanwhile() {
    let accounts = if std::env::var_os("TOLLGATE_SOAK").is_some() { 440 } else { 20 };
    let world = World::start("", "");
    (0..accounts).for_each(|number| account(&world, number));
    let totals = accounts * OPERATIONS.len();
    world.wait_until("all is in the ledger", || scrape(&world).0 >= 12 * totals);

    let quiet = calls(&world);
    let stop = AtomicBool::new(false);
    let (beside, mut scrapes) = thread::scope(|scope| {
        let scraping = scope.spawn(|| {
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let (series, time) = scrape(&world);
                assert!(series >= 12 * totals, "{series}");
                took.push(time);
                // A scraper comes every few seconds; this one every time that ten scrapes would take.
                thread::sleep(time * 9);
            }
            took
        });
        let beside = calls(&world);
        stop.store(true, Ordering::Relaxed);
        (beside, scraping.join().unwrap())
    });
    scrapes.sort_unstable();
    let (series, middle) = (scrape(&world).0, scrapes[scrapes.len() / 2]);
    println!(
        "{series} series in {middle:.1?} ({} scrapes); calls p50 and p99 {quiet:.1?} without, {beside:.1?} beside them",
        scrapes.len()
    );
    assert!(beside.1 < quiet.1 * 10 + Duration::from_millis(20), "calls waited for scrapes: {quiet:?}, {beside:?}");
}
