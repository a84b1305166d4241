//! Three gateways and a control plane, each a process of its own, on one Redis: a key works everywhere once it was created, and
//! nowhere once its delete was answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::task::JoinSet;

use crate::harness::PATIENCE;
use crate::harness::fleet::{Fleet, GATEWAYS, Setting};
use crate::harness::h1::H1;
use crate::harness::stage::FETCH;

/// Connections to each gateway that call all the time.
const CALLERS: usize = 3;
const LEASE: Duration = Duration::from_secs(2);

/// How far the deletion of a key is, as its deleter knows it.
const LIVE: u8 = 0;
const ASKED: u8 = 1;
const GONE: u8 = 2;

/// The key of the present round, for those who call all the time.
struct Round {
    key: String,
    state: AtomicU8,
}

#[derive(Default)]
struct Calls {
    present: RwLock<Option<Arc<Round>>>,
    stop: AtomicBool,
    passed: AtomicU64,
    denied: AtomicU64,
    unsure: AtomicU64,
}

impl Calls {
    async fn keep_calling(self: Arc<Self>, gateway: SocketAddr) {
        let mut client = H1::connect(gateway).await;
        while !self.stop.load(Ordering::Relaxed) {
            let round = self.present.read().clone();
            if let Some(round) = round {
                self.call(&mut client, &round).await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn call(&self, client: &mut H1, round: &Round) {
        let before = round.state.load(Ordering::SeqCst);
        let answer = client.call("GET", FETCH, &[("dashvector-auth-token", round.key.as_str())], "").await.unwrap();
        let after = round.state.load(Ordering::SeqCst);
        match answer.status.as_u16() {
            200 => {
                assert!(before != GONE, "a call with a deleted key passed");
                self.passed.fetch_add(1, Ordering::Relaxed);
            }
            401 => {
                assert!(after != LIVE, "a call with a live key was denied");
                self.denied.fetch_add(1, Ordering::Relaxed);
            }
            503 => drop(self.unsure.fetch_add(1, Ordering::Relaxed)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_key_works_on_every_gateway_once_created_and_on_none_once_its_delete_is_answered() {
    let fleet = Fleet::start(&Setting { lease: LEASE, ..Setting::default() });
    let calls = Arc::new(Calls::default());
    let mut callers = JoinSet::new();
    for gateway in fleet.gateways().repeat(CALLERS) {
        callers.spawn_on(Arc::clone(&calls).keep_calling(gateway), fleet.runtime.handle());
    }
    let (mut took, mut confirmed) = (Vec::new(), Vec::new());
    // Many with TOLLGATE_SOAK.
    let rounds = if std::env::var_os("TOLLGATE_SOAK").is_some() { 10_000 } else { 200 };
    for _ in 0..rounds {
        let (id, key) = fleet.office.create();
        for gateway in fleet.gateways() {
            assert_eq!(fleet.status(gateway, &key), 200, "a new key works at the first try");
        }
        let round = Arc::new(Round { key, state: AtomicU8::new(LIVE) });
        *calls.present.write() = Some(Arc::clone(&round));
        std::thread::sleep(Duration::from_millis(5));
        round.state.store(ASKED, Ordering::SeqCst);
        let began = Instant::now();
        let (status, receipt) = fleet.office.delete(&id, "10s");
        took.push(began.elapsed());
        assert_eq!((status, receipt["revoked"].as_str()), (200, Some("everywhere")), "{receipt}");
        assert_eq!(receipt["gateways"].as_array().unwrap().len(), GATEWAYS, "{receipt}");
        confirmed.extend(receipt["took_ms"].as_u64());
        round.state.store(GONE, Ordering::SeqCst);
        for gateway in fleet.gateways() {
            assert_eq!(fleet.status(gateway, &round.key), 401);
        }
    }
    calls.stop.store(true, Ordering::Relaxed);
    fleet.runtime.block_on(async {
        while let Some(ended) = callers.join_next().await {
            ended.unwrap()
        }
    });
    took.sort();
    confirmed.sort_unstable();
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (passed, denied, unsure) = (of(&calls.passed), of(&calls.denied), of(&calls.unsure));
    println!(
        "{rounds} deletes on {GATEWAYS} gateways: p50 {:?}, p99 {:?}, of which to be confirmed p50 {} ms, p99 {} ms; \
         {passed} calls passed, {denied} denied, {unsure} unsure",
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        confirmed[confirmed.len() / 2],
        confirmed[confirmed.len() * 99 / 100],
    );
    assert!(passed > 0 && denied > 0, "{passed} {denied}");
    let counted = fleet.sample.counts().total.calls;
    assert_eq!(counted, passed + (rounds * GATEWAYS) as u64, "the service saw calls that were denied");
}

#[test]
fn without_redis_known_keys_are_served_until_the_lease_ends_and_never_called_unknown() {
    let mut fleet = Fleet::start(&Setting { lease: LEASE, ..Setting::default() });
    let ((_, kept), (gone_id, gone)) = (fleet.office.create(), fleet.office.create());
    fleet.await_everywhere(&kept, 200, 200, PATIENCE);
    fleet.await_everywhere(&gone, 200, 200, PATIENCE);
    assert_eq!(fleet.office.delete(&gone_id, "10s").0, 200);
    fleet.redis.kill();
    for _ in 0..3 {
        fleet
            .gateways()
            .into_iter()
            .for_each(|gateway| assert_eq!(fleet.status(gateway, &kept), 200, "the lease is good"));
    }
    let lasted = fleet.await_everywhere(&kept, 503, 200, LEASE + Duration::from_secs(2));
    println!("known keys were served for {lasted:?} without redis, with a lease of {LEASE:?}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        fleet.gateways().into_iter().for_each(|gateway| assert_eq!(fleet.status(gateway, &kept), 503));
    }
    // The control plane makes sure that nothing of its own is lost, and opens another epoch.
    fleet.redis.start_again();
    let back = fleet.await_everywhere(&kept, 200, 503, PATIENCE);
    println!("served again {back:?} after redis was there again");
    fleet.gateways().into_iter().for_each(|gateway| assert_eq!(fleet.status(gateway, &gone), 401));
    let (id, key) = fleet.office.create();
    fleet.await_everywhere(&key, 200, 200, PATIENCE);
    let (status, receipt) = fleet.office.delete(&id, "10s");
    assert_eq!(status, 200, "{receipt}");
    fleet.gateways().into_iter().for_each(|gateway| assert_eq!(fleet.status(gateway, &key), 401));
}
