//! A gateway that is killed under load, again and again: what clients saw completed is in the ledger, nothing is there twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::harness::h1::H1;
use crate::harness::h2::{H2, frame};
use crate::harness::stage::{FETCH, FETCH_UNITS, GRPC_FETCH, Stage, Usage, fetch_message, metadata};

const KILLS: u64 = 20;
const HTTP: usize = 8;
const CONNECTIONS: usize = 2;
const STREAMS: usize = 8;
const ROUND: Duration = Duration::from_millis(250);

/// What the clients know.
#[derive(Default)]
struct Seen {
    /// Begun, whatever became of them.
    begun: AtomicU64,
    /// Answered to the last byte.
    completed: AtomicU64,
    stop: AtomicBool,
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    fn complete(&self) {
        self.completed.fetch_add(1, Ordering::Relaxed);
    }

    /// Begun and completed so far.
    fn so_far(&self) -> (u64, u64) {
        (self.begun.load(Ordering::SeqCst), self.completed.load(Ordering::SeqCst))
    }
}

async fn over_http(at: SocketAddr, key: String, seen: Arc<Seen>) {
    let mut client = H1::connect(at).await;
    while seen.goes_on() {
        seen.begin();
        let Ok(answer) = client.call("GET", FETCH, &[("dashvector-auth-token", &key)], "").await else {
            return;
        };
        assert_eq!(answer.status, 200);
        seen.complete();
    }
}

async fn over_grpc(mut client: H2, key: String, seen: Arc<Seen>) {
    let message = frame(&fetch_message());
    while seen.goes_on() {
        let mut request = http::Request::post(format!("http://stage.test{GRPC_FETCH}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata(&key) {
            request = request.header(name, value);
        }
        seen.begin();
        let Ok(answer) = client.try_call(request.body(message.clone()).unwrap()).await else {
            return;
        };
        assert_eq!(answer.trailers.expect("an answer without status")["grpc-status"], "0");
        seen.complete();
    }
}

/// Puts load on the stage for a while, and ends it with `end`; every client has stopped when this returns.
async fn load(stage: &Stage, seen: &Arc<Seen>, end: impl FnOnce()) {
    let mut clients = JoinSet::new();
    (0..HTTP).for_each(|_| drop(clients.spawn(over_http(stage.gateway, stage.key.clone(), Arc::clone(seen)))));
    for _ in 0..CONNECTIONS {
        let client = stage.h2().await;
        (0..STREAMS).for_each(|_| drop(clients.spawn(over_grpc(client.clone(), stage.key.clone(), Arc::clone(seen)))));
    }
    tokio::time::sleep(ROUND).await;
    end();
    clients.join_all().await;
}

/// The usage once every call is committed or given up, which a recovery may take a while for.
fn recovered(stage: &Stage, at_least: u64) -> Usage {
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        let usage = stage.usage();
        if usage.opened >= at_least && usage.opened == usage.committed() + usage.interrupted {
            return usage;
        }
        assert!(std::time::Instant::now() < deadline, "not recovered, {at_least} completed: {usage:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn twenty_kills_under_load_lose_no_completed_call_and_count_none_twice() {
    let mut stage = Stage::start();
    let seen = Arc::new(Seen::default());
    let mut in_flight = 0;
    for kill in 0..KILLS {
        let process = stage.process.take().unwrap();
        stage.block_on(load(&stage, &seen, move || process.kill()));
        // Nobody calls any more: what was begun and not completed was in flight at the kill.
        let (begun, completed) = seen.so_far();
        assert!(begun - completed - in_flight > 0, "nothing was in flight at kill {kill}");
        in_flight = begun - completed;
        stage.restart();
    }
    let (begun, completed) = seen.so_far();
    let usage = recovered(&stage, completed);
    let upstream = stage.sample.counts();
    println!(
        "{KILLS} kills: {begun} calls begun, {completed} completed, {in_flight} in flight at the kills; \
         {} reached the service; ledger: opened {}, {:?}, interrupted {}",
        upstream.total.calls, usage.opened, usage.calls, usage.interrupted
    );
    // Completed calls are all there, and nothing that was not called is.
    assert!(completed <= usage.of("ok"), "{usage:?}");
    assert!(usage.committed() <= usage.opened && usage.opened <= begun, "{usage:?}");
    // Opened before the first byte goes upstream; only what was in flight can have been opened and not sent.
    assert!(upstream.total.calls <= usage.opened && usage.opened - upstream.total.calls <= in_flight, "{usage:?}");
    assert!(usage.interrupted <= in_flight && usage.interrupted > 0, "{usage:?}");
    assert!(usage.read_units >= completed * FETCH_UNITS, "{usage:?}");
    assert!(usage.read_units <= upstream.total.read_units, "{usage:?}");

    // Recovering again, after a kill and after a stop, changes nothing.
    stage.process.take().unwrap().kill();
    stage.restart();
    assert_eq!(recovered(&stage, completed), usage);
    assert_eq!(stage.process.take().unwrap().stop().code(), Some(0));
    stage.restart();
    assert_eq!(recovered(&stage, completed), usage);
}

#[test]
fn without_a_kill_the_ledger_says_exactly_what_clients_and_service_say() {
    let mut stage = Stage::start();
    let seen = Arc::new(Seen::default());
    let end = Arc::clone(&seen);
    stage.block_on(load(&stage, &seen, move || end.stop.store(true, Ordering::Relaxed)));
    let (begun, completed) = seen.so_far();
    assert_eq!(begun, completed);
    let usage = stage.settled(completed);
    assert_eq!((usage.of("ok"), usage.read_units), (completed, completed * FETCH_UNITS));
    let upstream = stage.sample.counts();
    assert_eq!((upstream.total.calls, upstream.total.read_units), (completed, usage.read_units));
    stage.process.take().unwrap().kill();
    stage.restart();
    assert_eq!(stage.settled(completed), usage, "a kill of an idle gateway changes nothing");
}
