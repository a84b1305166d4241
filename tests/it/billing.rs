//! Hours as they are billed: three gateways on Redis under load while the hour ends, with wall clocks that disagree and are set
//! back; a gateway that is dead when it ends; and what a billing pipeline reads of it.

mod leaving;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::harness::PATIENCE;
use crate::harness::faulty::Fault;
use crate::harness::fleet::{Fleet, GATEWAYS, Setting};
use crate::harness::h1::H1;
use crate::harness::process::{OPERATOR_TOKEN, run_with};
use crate::harness::raw;
use crate::harness::stage::{FETCH, FETCH_UNITS};

const HOUR: u64 = 3600;
/// Longer than libfaketime goes by the last look at its file.
const CLOCKS_SEEN: Duration = Duration::from_millis(1500);

/// Clients that call until they are told to stop, and what they saw.
struct Load {
    stop: Arc<AtomicBool>,
    completed: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on(fleet: &Fleet, key: &str) -> Self {
        let (stop, completed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = fleet.gateways().into_iter().flat_map(|at| [at, at]).map(|at| {
            let (stop, completed, key) = (Arc::clone(&stop), Arc::clone(&completed), key.to_owned());
            fleet.runtime.spawn(call(at, key, stop, completed))
        });
        let clients = clients.collect();
        Self { stop, completed, clients }
    }

    /// How many calls were completed; none is in flight any more.
    fn end(self, fleet: &Fleet) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| fleet.runtime.block_on(client).unwrap());
        self.completed.load(Ordering::Relaxed)
    }
}

async fn call(at: SocketAddr, key: String, stop: Arc<AtomicBool>, completed: Arc<AtomicU64>) {
    let mut client = H1::connect(at).await;
    while !stop.load(Ordering::Relaxed) {
        let answer = client.call("GET", FETCH, &[("dashvector-auth-token", &key)], "").await.unwrap();
        assert_eq!(answer.status, 200);
        completed.fetch_add(1, Ordering::Relaxed);
        // Neither the number of calls nor their speed is what this is about.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn wall() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// Sets the wall clocks of all processes to the same offset from the true time, in seconds.
fn set_clocks(fleet: &Fleet, offset: u64) {
    (0..GATEWAYS).map(Some).chain([None]).for_each(|member| fleet.move_clock(member, &format!("+{offset}")));
}

fn get(fleet: &Fleet, target: &str) -> raw::Answer {
    let answer = raw::api(fleet.office.control, "GET", target, OPERATOR_TOKEN, &Value::Null);
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    answer
}

fn lines(fleet: &Fleet, target: &str) -> Vec<Value> {
    get(fleet, target).text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

/// Good calls and read units, by the start of the hour.
fn by_hour(fleet: &Fleet) -> BTreeMap<String, (u64, u64)> {
    let mut hours = BTreeMap::new();
    for record in lines(fleet, "/v1/usage/records") {
        let hour: &mut (u64, u64) = hours.entry(record["window_start"].as_str().unwrap().to_owned()).or_default();
        hour.0 += number(&record["calls"]["ok"]);
        hour.1 += number(&record["read_units"]);
    }
    hours
}

/// The state of each hour with the gateways that are missing, oldest first.
fn windows(fleet: &Fleet) -> Vec<(String, String, usize)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let windows = get(fleet, "/v1/usage/windows").json();
    let items = windows["items"].as_array().unwrap().iter();
    items
        .map(|one| (text(&one["window_start"]), text(&one["state"]), one["missing"].as_array().unwrap().len()))
        .collect()
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < 3 * PATIENCE, "no sign of: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    began.elapsed()
}

/// So far before the end of an hour of the true time that what follows is within it.
fn away_from_the_end_of_an_hour() {
    while wall() % HOUR > HOUR - 100 {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What `tollgate usage` says to the operator of the fleet.
fn tell(fleet: &Fleet, arguments: &[&str]) -> Value {
    let control = format!("http://{}", fleet.office.control);
    let told = run_with(
        &[&["usage"], arguments, &["--json", "--control", &control]].concat(),
        &[("TOLLGATE_TOKEN", OPERATOR_TOKEN)],
    );
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    serde_json::from_slice(&told.stdout).unwrap()
}

/// Entries of the archive by the start of their hour, oldest first.
fn archived(fleet: &Fleet) -> BTreeMap<String, Vec<Value>> {
    let mut entries: Vec<_> = std::fs::read_dir(fleet.control().path("meter/archive/manifest"))
        .map(|found| found.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    entries.sort();
    let mut hours: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for path in entries.iter().filter(|path| path.extension().is_some_and(|text| text == "json")) {
        let entry: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        hours.entry(entry["window_start"].as_str().unwrap().to_owned()).or_default().push(entry);
    }
    hours
}

#[test]
fn usage_that_comes_back_after_its_hour_was_archived_makes_another_revision_of_both() {
    away_from_the_end_of_an_hour();
    let mut fleet = Fleet::start(&Setting { clocks: true, linked: true, ..Setting::default() });
    let (_, key) = fleet.office.create();
    fleet.await_everywhere(&key, 200, 200, PATIENCE);
    let told_before = by_hour_settled(&fleet, GATEWAYS as u64);
    // What a gateway counts from here on is known to nobody else: it is killed before it can tell.
    let gone = fleet.gateways()[0];
    fleet.link(0).set(Fault::StallBoth);
    let counted_there = (0..20).filter(|_| fleet.status(gone, &key) == 200).count() as u64;
    let all = told_before + counted_there;
    fleet.kill(0);
    fleet.link(0).set(Fault::None);
    set_clocks(&fleet, HOUR);
    until("the hour waits for it alone", || {
        windows(&fleet).first().is_some_and(|window| window.1 == "draining" && window.2 == 1)
    });
    let told = tell(&fleet, &["windows"]);
    let (hour, missing) = (told[0]["window_start"].as_str().unwrap(), told[0]["missing"][0].as_str().unwrap());
    // Its lease has to end first.
    let mut given_up = Value::Null;
    until("it can be given up", || {
        let body = serde_json::json!({"incarnation": missing, "reason": "the machine is gone"});
        let answer = raw::api(fleet.office.control, "POST", "/v1/usage/abandonments", OPERATOR_TOKEN, &body);
        given_up = answer.json();
        answer.status == 201
    });
    until("the hour is final without it", || windows(&fleet)[0].1 == "final");
    until("it is archived", || archived(&fleet).contains_key(hour));
    let before: u64 = by_hour(&fleet)[hour].0;
    assert!(before < all, "nothing was counted while the gateway was cut off");
    let known = lines(&fleet, "/v1/usage/records")[0]["revision"].as_u64().unwrap();
    let told = tell(&fleet, &["reconcile", "--window", hour]);
    assert_eq!((told["verdict"].as_str(), told["lost"][0]["incarnation"].as_str()), (Some("differs"), Some(missing)));

    fleet.start_again(0);
    until("its usage is there", || by_hour(&fleet)[hour].0 == all);
    assert!(lines(&fleet, "/v1/usage/records")[0]["revision"].as_u64().unwrap() > known);
    until("another revision is archived", || archived(&fleet)[hour].len() > 1);
    let entries = archived(&fleet).remove(hour).unwrap();
    let last = entries.last().unwrap();
    let archive = fleet.control().path("meter/archive");
    let verified = tell(&fleet, &["verify", "--archive", archive.to_str().unwrap()]);
    assert_eq!(
        (verified["verdict"].as_str(), verified["entries"].as_u64()),
        (Some("whole"), Some(entries.len() as u64))
    );
    until("the archive says what the ledger says", || {
        let entries = archived(&fleet).remove(hour).unwrap();
        number(&entries.last().unwrap()["totals"]["ok"]) == all
    });
    assert_eq!(number(&entries[0]["totals"]["ok"]), before, "what was archived first stays as it was");
    assert!(last["revision"].as_u64() > entries[0]["revision"].as_u64());
    until("everybody has closed the hour", || tell(&fleet, &["reconcile", "--window", hour])["verdict"] == "exact");
}

#[test]
fn an_hour_that_ends_under_load_adds_up_and_is_final_once_every_gateway_has_closed_it() {
    away_from_the_end_of_an_hour();
    let mut fleet = Fleet::start(&Setting { clocks: true, ..Setting::default() });
    let (_, key) = fleet.office.create();
    fleet.await_everywhere(&key, 200, 200, PATIENCE);
    let before = by_hour_settled(&fleet, GATEWAYS as u64);
    // A few seconds before the hour ends.
    let offset = HOUR - 5 - wall() % HOUR;
    set_clocks(&fleet, offset);
    std::thread::sleep(CLOCKS_SEEN);
    let load = Load::on(&fleet, &key);
    let ends_at = wall() / HOUR * HOUR + HOUR - offset;
    // One clock is ahead and is set back into the hour that it has left; one is behind.
    fleet.move_clock(Some(1), &format!("+{}", offset + 2));
    fleet.move_clock(Some(2), &format!("+{}", offset - 2));
    while wall() < ends_at {
        std::thread::sleep(Duration::from_millis(50));
    }
    fleet.move_clock(Some(1), &format!("+{}", offset - 2));
    fleet.move_clock(Some(2), &format!("+{}", offset + 2));
    std::thread::sleep(3 * CLOCKS_SEEN);
    let completed = load.end(&fleet) + before;

    let sum = by_hour_settled(&fleet, completed);
    assert_eq!(sum, completed, "no call is lost at the boundary and none is in both hours");
    let hours = by_hour(&fleet);
    assert_eq!(hours.len(), 2, "{hours:?}");
    assert!(hours.values().all(|(calls, units)| *calls > 0 && *units == calls * FETCH_UNITS), "{hours:?}");
    assert_eq!(fleet.sample.counts().total.calls, completed);

    // Everybody is there: final soon after the time that is left to clocks that disagree.
    set_clocks(&fleet, offset + 60);
    let took = until("the first hour is final", || windows(&fleet)[0].1 == "final");
    println!("final {took:?} after a minute had passed");
    assert_eq!(windows(&fleet)[1].1, "open");
    let first = windows(&fleet)[0].0.clone();
    let told = get(&fleet, &format!("/v1/usage/reconciliation?window={first}")).json();
    assert_eq!((told["verdict"].as_str(), number(&told["ledger"])), (Some("exact"), hours[&first].0), "{told}");
    let last: Vec<_> = lines(&fleet, "/v1/usage/changes").into_iter().map(|line| line["record"].clone()).collect();
    assert!(last.iter().any(|record| record["window_start"] == first.as_str() && record["final"] == true), "{last:?}");

    // A gateway is dead when the second hour ends: it is named, and the hour waits for it.
    let load = Load::on(&fleet, &key);
    std::thread::sleep(Duration::from_millis(500));
    let completed = completed + load.end(&fleet);
    fleet.kill(2);
    set_clocks(&fleet, offset + HOUR + 60);
    until("the second hour waits for the dead gateway alone", || {
        let window = &windows(&fleet)[1];
        (window.1.as_str(), window.2) == ("draining", 1)
    });
    fleet.start_again(2);
    until("the second hour is final", || windows(&fleet)[1].1 == "final");
    let hours = by_hour(&fleet);
    assert_eq!(hours.values().map(|(calls, _)| calls).sum::<u64>(), completed, "{hours:?}");
    let second = windows(&fleet)[1].0.clone();
    let told = get(&fleet, &format!("/v1/usage/reconciliation?window={second}")).json();
    assert_eq!(told["verdict"], "exact", "{told}");
}

/// Good calls of all hours, once there are at least so many.
fn by_hour_settled(fleet: &Fleet, at_least: u64) -> u64 {
    let mut sum = 0;
    until("all calls are in the ledger", || {
        sum = by_hour(fleet).values().map(|(calls, _)| calls).sum();
        sum >= at_least
    });
    sum
}
