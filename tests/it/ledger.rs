//! A ledger that loses what it acknowledged, with real servers: a primary that is killed with flushes that no replica has, an old
//! copy put back, a server that is emptied. After the dust has settled the records are what the clients saw, to the byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;
use crate::harness::books::Usage;
use crate::harness::fleet::{Fleet, GATEWAYS, Ground, Setting};
use crate::harness::group::Group;
use crate::harness::h1::H1;
use crate::harness::raw;
use crate::harness::redis::{Apart, Redis};
use crate::harness::stage::{FETCH, FETCH_UNITS};

/// To notice a loss, to promote and to open another epoch, and to send again; on a busy machine.
const SETTLED: Duration = Duration::from_secs(60);

/// What clients saw of calls that were completed.
#[derive(Default)]
struct Seen {
    calls: AtomicU64,
    bytes: AtomicU64,
    /// Answers in their place: 503, while a lease is not good.
    denied: AtomicU64,
}

/// Clients that call until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn on<S: Ground>(fleet: &Fleet<S>, key: &str, seen: &Arc<Seen>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = fleet.gateways().into_iter().map(|at| {
            let (stop, seen, key) = (Arc::clone(&stop), Arc::clone(seen), key.to_owned());
            fleet.runtime.spawn(async move {
                let mut client = H1::connect(at).await;
                while !stop.load(Ordering::Relaxed) {
                    call(&mut client, &key, &seen).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        });
        Self { clients: clients.collect(), stop }
    }

    /// None is in flight any more.
    fn end<S>(self, fleet: &Fleet<S>) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| fleet.runtime.block_on(client).unwrap());
    }
}

async fn call(client: &mut H1, key: &str, seen: &Seen) {
    let answer = client.call("GET", FETCH, &[("dashvector-auth-token", key)], "").await.unwrap();
    match answer.status.as_u16() {
        200 => {
            seen.calls.fetch_add(1, Ordering::Relaxed);
            seen.bytes.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
        }
        503 => drop(seen.denied.fetch_add(1, Ordering::Relaxed)),
        other => panic!("{other}"),
    }
}

/// So many calls at each gateway, one after the other.
fn call_each<S: Ground>(fleet: &Fleet<S>, key: &str, times: usize, seen: &Seen) {
    for at in fleet.gateways() {
        fleet.runtime.block_on(async {
            let mut client = H1::connect(at).await;
            for _ in 0..times {
                call(&mut client, key, seen).await;
            }
        });
    }
}

fn key<S: Ground>(fleet: &Fleet<S>) -> String {
    let (_, key) = fleet.office.create();
    fleet.await_everywhere(&key, 200, 503, PATIENCE);
    key
}

/// A key, counted as soon as it works: its first calls were seen too.
fn usage(seen: &Seen, before: &Usage) -> Usage {
    let calls = seen.calls.load(Ordering::Relaxed);
    let mut usage = before.clone();
    *usage.calls.entry("ok".to_owned()).or_default() += calls;
    *usage.operations.entry("fetch".to_owned()).or_default() += calls;
    usage.opened += calls;
    usage.response_bytes += seen.bytes.load(Ordering::Relaxed);
    usage.read_units += calls * FETCH_UNITS;
    usage
}

/// The records, once nothing is added to them any more.
fn at_rest(control: SocketAddr) -> Usage {
    let mut last = Usage::of_records(control, "");
    loop {
        std::thread::sleep(Duration::from_millis(600));
        let now = Usage::of_records(control, "");
        if now == last {
            return now;
        }
        last = now;
    }
}

#[track_caller]
fn until_equal(control: SocketAddr, expected: &Usage) -> Duration {
    let began = Instant::now();
    loop {
        let records = Usage::of_records(control, "");
        if records == *expected && Usage::of_changes(control) == *expected {
            return began.elapsed();
        }
        assert!(began.elapsed() < SETTLED, "the records {records:#?} are not what the clients saw: {expected:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

fn sent_again<S: Ground>(fleet: &Fleet<S>) -> bool {
    (0..GATEWAYS).all(|gateway| fleet.process(gateway).log().contains("all usage that is still here is sent again"))
}

#[test]
fn usage_that_only_the_lost_primary_had_is_sent_to_the_new_one() {
    let mut fleet = Fleet::on(Group::start(), &Setting::default());
    let (steady, brief) = (key(&fleet), key(&fleet));
    let control = fleet.office.control;
    let before = at_rest(control);
    let seen = Arc::new(Seen::default());
    let load = Load::on(&fleet, &steady, &seen);
    wait(1.0);
    fleet.redis.cut_replication();
    // Nobody calls with this key later, so that nothing makes its lines dirty again.
    call_each(&fleet, &brief, 40, &seen);
    wait(1.5);
    let lost = fleet.redis.kill_primary();
    let began = Instant::now();
    fleet.redis.await_another_primary(lost);
    wait(3.0);
    load.end(&fleet);
    until_equal(control, &usage(&seen, &before));
    println!(
        "equal {:?} after the primary was killed; {} calls were completed, {} denied",
        began.elapsed(),
        seen.calls.load(Ordering::Relaxed),
        seen.denied.load(Ordering::Relaxed)
    );
    assert!(sent_again(&fleet), "{}", fleet.process(0).log());
}

fn apart() -> Fleet<Apart> {
    Fleet::on(Apart { store: Redis::start(), ledger: Redis::start() }, &Setting::default())
}

#[test]
fn a_ledger_that_is_an_old_copy_or_empty_has_everything_again_a_moment_later() {
    let mut fleet = apart();
    let (steady, first, second) = (key(&fleet), key(&fleet), key(&fleet));
    let control = fleet.office.control;
    let before = at_rest(control);
    let seen = Arc::new(Seen::default());
    let load = Load::on(&fleet, &steady, &seen);
    call_each(&fleet, &first, 20, &seen);
    wait(1.0);
    let copy = fleet.redis.ledger.copy_of_files();
    call_each(&fleet, &second, 30, &seen);
    wait(1.0);
    fleet.redis.ledger.kill();
    fleet.redis.ledger.put_back(copy);
    wait(1.0);
    fleet.redis.ledger.start_again();
    let began = Instant::now();
    wait(1.0);
    load.end(&fleet);
    until_equal(control, &usage(&seen, &before));
    println!("equal {:?} after an old copy was put in place of the ledger", began.elapsed());
    assert!(sent_again(&fleet), "{}", fleet.process(0).log());
    assert_eq!(seen.denied.load(Ordering::Relaxed), 0, "calls go on without a ledger");

    let load = Load::on(&fleet, &steady, &seen);
    wait(0.5);
    let _: () = redis::cmd("FLUSHALL").query(&mut fleet.redis.ledger.client()).unwrap();
    let began = Instant::now();
    wait(0.5);
    load.end(&fleet);
    until_equal(control, &usage(&seen, &before));
    println!("equal {:?} after the ledger was emptied", began.elapsed());
    // And once more where nobody calls at all.
    let _: () = redis::cmd("FLUSHALL").query(&mut fleet.redis.ledger.client()).unwrap();
    let took = until_equal(control, &usage(&seen, &before));
    println!("equal {took:?} after the ledger was emptied, with nobody calling");
}

#[test]
fn the_ledger_and_the_store_do_not_need_each_other() {
    let mut fleet = apart();
    let steady = key(&fleet);
    let control = fleet.office.control;
    let before = at_rest(control);
    let seen = Arc::new(Seen::default());
    fleet.redis.ledger.kill();
    // Longer than a lease.
    for _ in 0..4 {
        call_each(&fleet, &steady, 10, &seen);
        wait(1.0);
    }
    assert_eq!(seen.denied.load(Ordering::Relaxed), 0, "calls go on without a ledger");
    (0..GATEWAYS).for_each(|gateway| fleet.await_ready(gateway));
    let ready = raw::call(control, "GET", "/readyz", &[], b"");
    assert!(ready.status == 503 && ready.text().contains("\"ledger\""), "{}", ready.text());
    let (id, made) = fleet.office.create();
    fleet.await_everywhere(&made, 200, 401, PATIENCE);
    let (status, receipt) = fleet.office.delete(&id, "10s");
    assert_eq!((status, receipt["revoked"].as_str()), (200, Some("everywhere")), "{receipt}");
    fleet.redis.ledger.start_again();
    let took = until_at_least(control, &usage(&seen, &before));
    println!("equal {took:?} after the ledger was back");

    let counted = calls_in(&fleet.redis.ledger);
    fleet.redis.store.kill();
    let late = Seen::default();
    call_each(&fleet, &steady, 10, &late);
    let called = late.calls.load(Ordering::Relaxed);
    assert!(called > 0, "leases hold for a while");
    let deadline = Instant::now() + PATIENCE;
    while calls_in(&fleet.redis.ledger) != counted + called {
        assert!(Instant::now() < deadline, "usage does not come to the ledger while the store is away");
        wait(0.05);
    }
}

/// The key that was made and deleted meanwhile was called too.
#[track_caller]
fn until_at_least(control: SocketAddr, expected: &Usage) -> Duration {
    let began = Instant::now();
    while Usage::of_records(control, "").of("ok") < expected.of("ok") {
        assert!(began.elapsed() < SETTLED);
        wait(0.05);
    }
    began.elapsed()
}

/// All calls that were opened, as the ledger itself has them.
fn calls_in(ledger: &Redis) -> u64 {
    let mut client = ledger.client();
    let hours: Vec<String> = redis::cmd("ZRANGE").arg(&["{tg}:u:hours", "0", "-1"]).query(&mut client).unwrap();
    let of = |hour: &String| -> u64 {
        let lines: BTreeMap<Vec<u8>, String> =
            redis::cmd("HGETALL").arg(format!("{{tg}}:u:{hour}")).query(&mut client).unwrap();
        lines.values().map(|line| line[..20].parse::<u64>().unwrap()).sum()
    };
    hours.iter().map(of).sum()
}

#[test]
fn a_ledger_of_another_deployment_is_refused_with_its_name() {
    let mut fleet = apart();
    let other = Apart { store: Redis::start(), ledger: Redis::start() };
    let _: () = redis::cmd("HSET")
        .arg(&["{tg}:ledger", "store_id", "sto_aaaaaaaaaaaaaaaa"])
        .query(&mut other.ledger.client())
        .unwrap();
    let config = std::fs::read_to_string(fleet.control().config()).unwrap();
    fleet.control().write("config.toml", &config.replace(&fleet.redis.ledger.url(), &other.ledger.url()));
    fleet.kill_control(0);
    fleet.start_control_alone(0, &[]);
    let said = fleet.control_process(0).log_line("tollgate: ");
    assert!(said.contains("another deployment") && said.contains("sto_aaaaaaaaaaaaaaaa"), "{said}");
    fleet.await_end_of_control(0);
}
