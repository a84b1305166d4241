//! Three gateways and a control plane, each a process of its own, on one Redis: a key works everywhere once it was created, and
//! nowhere once its delete was answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tollgate::demo::SampleService;

use crate::harness::PATIENCE;
use crate::harness::h1::H1;
use crate::harness::process::{Node, OPERATOR_TOKEN, Process};
use crate::harness::raw;
use crate::harness::redis::Redis;
use crate::harness::stage::{FETCH, fill, serve_sample, text};

const GATEWAYS: usize = 3;
const ROUNDS: usize = 200;
/// Connections to each gateway that call all the time.
const CALLERS: usize = 3;
const LEASE: Duration = Duration::from_secs(2);

/// How far the deletion of a key is, as its deleter knows it.
const LIVE: u8 = 0;
const ASKED: u8 = 1;
const GONE: u8 = 2;

struct Fleet {
    redis: Redis,
    control: SocketAddr,
    gateways: Vec<SocketAddr>,
    account: String,
    /// Of the root user.
    token: String,
    sample: SampleService,
    runtime: tokio::runtime::Runtime,
    _processes: Vec<(Node, Process)>,
}

impl Fleet {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sample, upstream) = runtime.block_on(serve_sample());
        fill(&sample);
        let redis = Redis::start();
        let store = format!(
            "[store]\nkind = \"redis\"\nurl = \"{}\"\nlease = \"2s\"\n[meter]\nflush = \"100ms\"\nslab_dir = \"slab\"\n",
            redis.url()
        );
        let keys = "[keys]\nactive_max = 10000\ndaily_max = 100000\n";
        let (node, process) = start(&format!("[control]\nlisten = \"127.0.0.1:0\"\nid = \"control-1\"\n{store}{keys}"));
        let control = process.listening("control");
        let mut processes = vec![(node, process)];
        let mut gateways = Vec::new();
        for _ in 0..GATEWAYS {
            let gateway = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"stage.test\"\n";
            let (node, process) = start(&format!("{gateway}[health]\nlisten = \"127.0.0.1:0\"\n{store}"));
            gateways.push(process.listening("gateway"));
            processes.push((node, process));
        }
        let (account, token) = seed(control, upstream);
        let fleet = Self { redis, control, gateways, account, token, sample, runtime, _processes: processes };
        fleet.processes_are_ready();
        fleet
    }

    fn processes_are_ready(&self) {
        for (_, process) in self._processes.iter().skip(1) {
            let health = process.listening("health");
            let deadline = Instant::now() + PATIENCE;
            while raw::call(health, "GET", "/readyz", &[], b"").status != 200 {
                assert!(Instant::now() < deadline, "never ready; the log:\n{}", process.log());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Id and text of a new key.
    fn create(&self) -> (String, String) {
        let answer = raw::api(self.control, "POST", "/v1/keys", &self.token, &json!({}));
        assert_eq!(answer.status, 201, "{}", answer.text());
        (text(&answer.json(), "id"), text(&answer.json(), "key"))
    }

    /// The answer to a delete that waits for so long.
    fn delete(&self, id: &str, wait: &str) -> (u16, Value) {
        let target = format!("/v1/accounts/{}/keys/{id}?wait={wait}", self.account);
        let answer = raw::api(self.control, "DELETE", &target, OPERATOR_TOKEN, &json!({"reason": "a test"}));
        (answer.status, answer.json())
    }

    fn status(&self, gateway: SocketAddr, key: &str) -> u16 {
        raw::call(gateway, "GET", FETCH, &[("dashvector-auth-token", key)], b"").status
    }

    /// Calls every gateway until `wanted` is the answer of all; meanwhile there is no other but `meanwhile`.
    fn await_everywhere(&self, key: &str, wanted: u16, meanwhile: u16, within: Duration) -> Duration {
        let began = Instant::now();
        loop {
            let seen: Vec<u16> = self.gateways.iter().map(|gateway| self.status(*gateway, key)).collect();
            assert!(seen.iter().all(|status| [wanted, meanwhile].contains(status)), "{seen:?}");
            if seen.iter().all(|status| *status == wanted) {
                return began.elapsed();
            }
            assert!(began.elapsed() < within, "after {within:?} still {seen:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn start(config: &str) -> (Node, Process) {
    let node = Node::new(config);
    let process = Process::serve(&node.config());
    (node, process)
}

/// An account that may create keys, and the session of its root user.
fn seed(control: SocketAddr, upstream: SocketAddr) -> (String, String) {
    let made = |method: &str, target: &str, token: &str, body: &Value| {
        let answer = raw::api(control, method, target, token, body);
        assert_eq!(answer.status, 201, "{target}: {}", answer.text());
        answer.json()
    };
    let who = json!({"email": "owner@stage.test", "password": "a password of the stage"});
    let mut account = who.clone();
    account["verified"] = json!(true);
    let account = text(&made("POST", "/v1/accounts", OPERATOR_TOKEN, &account), "account_id");
    let cluster = json!({"hosts": ["stage.test"], "upstreams": [format!("http://{upstream}")], "allow_ips": []});
    made("POST", &format!("/v1/accounts/{account}/clusters"), OPERATOR_TOKEN, &cluster);
    (account, text(&made("POST", "/v1/session", "", &who), "token"))
}

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
    let fleet = Fleet::start();
    let calls = Arc::new(Calls::default());
    let mut callers = JoinSet::new();
    for gateway in fleet.gateways.repeat(CALLERS) {
        callers.spawn_on(Arc::clone(&calls).keep_calling(gateway), fleet.runtime.handle());
    }
    let (mut took, mut confirmed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (id, key) = fleet.create();
        for gateway in &fleet.gateways {
            assert_eq!(fleet.status(*gateway, &key), 200, "a new key works at the first try");
        }
        let round = Arc::new(Round { key, state: AtomicU8::new(LIVE) });
        *calls.present.write() = Some(Arc::clone(&round));
        std::thread::sleep(Duration::from_millis(5));
        round.state.store(ASKED, Ordering::SeqCst);
        let began = Instant::now();
        let (status, receipt) = fleet.delete(&id, "10s");
        took.push(began.elapsed());
        assert_eq!((status, receipt["revoked"].as_str()), (200, Some("everywhere")), "{receipt}");
        assert_eq!(receipt["gateways"].as_array().unwrap().len(), GATEWAYS, "{receipt}");
        confirmed.extend(receipt["took_ms"].as_u64());
        round.state.store(GONE, Ordering::SeqCst);
        for gateway in &fleet.gateways {
            assert_eq!(fleet.status(*gateway, &round.key), 401);
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
        "{ROUNDS} deletes on {GATEWAYS} gateways: p50 {:?}, p99 {:?}, of which to be confirmed p50 {} ms, p99 {} ms; \
         {passed} calls passed, {denied} denied, {unsure} unsure",
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        confirmed[confirmed.len() / 2],
        confirmed[confirmed.len() * 99 / 100],
    );
    assert!(passed > 0 && denied > 0, "{passed} {denied}");
    let counted = fleet.sample.counts().total.calls;
    assert_eq!(counted, passed + (ROUNDS * GATEWAYS) as u64, "the service saw calls that were denied");
}

#[test]
fn without_redis_known_keys_are_served_until_the_lease_ends_and_never_called_unknown() {
    let mut fleet = Fleet::start();
    let ((_, kept), (gone_id, gone)) = (fleet.create(), fleet.create());
    fleet.await_everywhere(&kept, 200, 200, PATIENCE);
    fleet.await_everywhere(&gone, 200, 200, PATIENCE);
    assert_eq!(fleet.delete(&gone_id, "10s").0, 200);
    fleet.redis.kill();
    for _ in 0..3 {
        fleet.gateways.iter().for_each(|gateway| assert_eq!(fleet.status(*gateway, &kept), 200, "the lease is good"));
    }
    let lasted = fleet.await_everywhere(&kept, 503, 200, LEASE + Duration::from_secs(2));
    println!("known keys were served for {lasted:?} without redis, with a lease of {LEASE:?}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        fleet.gateways.iter().for_each(|gateway| assert_eq!(fleet.status(*gateway, &kept), 503));
    }
    // The control plane makes sure that nothing of its own is lost, and opens another epoch.
    fleet.redis.start_again();
    let back = fleet.await_everywhere(&kept, 200, 503, PATIENCE);
    println!("served again {back:?} after redis was there again");
    fleet.gateways.iter().for_each(|gateway| assert_eq!(fleet.status(*gateway, &gone), 401));
    let (id, key) = fleet.create();
    fleet.await_everywhere(&key, 200, 200, PATIENCE);
    let (status, receipt) = fleet.delete(&id, "10s");
    assert_eq!(status, 200, "{receipt}");
    fleet.gateways.iter().for_each(|gateway| assert_eq!(fleet.status(*gateway, &key), 401));
}
