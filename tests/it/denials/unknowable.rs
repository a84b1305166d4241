//! "Cannot know" is not "not valid": a key that cannot be verified now, and a call that cannot be metered now.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::services::Service;
use prometheus::Registry;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::sync::{broadcast, watch};
use tollgate::auth::keyring::Keyring;
use tollgate::auth::lease::Lease;
use tollgate::auth::loader::Loader;
use tollgate::config::Config;
use tollgate::feed::{Feed, Followed};
use tollgate::gateway::accept::{Drain, Worker, bind};
use tollgate::gateway::{Connector, Gateway, GatewayParts, Protocols, Verifier};
use tollgate::key::{Digest, Digester, PresentedKey};
use tollgate::limits::{AccountLimits, ConnectionCaps, FailedAuth, Limits};
use tollgate::meter::{Meter, MeterOptions};
use tollgate::principal::{
    Account, AccountId, AccountStatus, Cluster, ClusterId, Credential, Epoch, ID_BYTES, Incarnation, KeyId, Revision,
    StoreId,
};
use tollgate::store::{ClustersRead, FeedStore, Found, Loaded, LogTail, Push, Renew, Renewal, StoreError};
use tollgate::telemetry::metrics::Metrics;
use tollgate::time::WallTime;
use tollgate::verdict::Denial;

use super::ask::{Ask, Said, Wire};
use crate::harness::process::OPERATOR_TOKEN;
use crate::harness::raw::{self, Raw};
use crate::harness::{PATIENCE, tls_provider};
use crate::world::{DEFAULT_HOST, Sample, World};

#[test]
fn while_the_store_fails_no_key_is_called_not_valid_and_all_is_well_afterwards() {
    let sample = Sample::start();
    let stand = Stand::start(sample.at);
    let gateway = stand.gateway;
    let all = |key: &str| Wire::ALL.map(|wire| Ask::with_key(key).over(wire, gateway));
    all(GOOD).iter().for_each(Said::is_good);
    all("unknown").iter().for_each(|said| said.is(Denial::NotValid));

    stand.store.set(Mood::Fails);
    // A key that nobody has asked for yet may be a good one.
    all("never-seen").iter().for_each(|said| said.is(Denial::CannotVerify));
    wait_until("the lease has run out", || Ask::with_key(GOOD).over(Wire::Http1, gateway).status == 503);
    let before = sample.calls();
    for key in [GOOD, "unknown", "never-seen"] {
        all(key).iter().for_each(|said| said.is(Denial::CannotVerify));
    }
    all("two words").iter().for_each(|said| said.is(Denial::NotValid));
    assert_eq!(sample.calls(), before, "a denied call reached the service");

    stand.store.set(Mood::Fine);
    wait_until("the store is asked again", || Ask::with_key(GOOD).over(Wire::Http1, gateway).status == 200);
    all(GOOD).iter().for_each(Said::is_good);
    all("never-seen").iter().for_each(|said| said.is(Denial::NotValid));
}

#[test]
fn a_store_that_does_not_answer_is_given_up_in_time() {
    let sample = Sample::start();
    let stand = Stand::start(sample.at);
    let gateway = stand.gateway;
    Ask::with_key(GOOD).over(Wire::Http1, gateway).is_good();
    stand.store.set(Mood::Hangs);
    wait_until("the lease has run out", || Ask::with_key(GOOD).over(Wire::Http1, gateway).status == 503);
    let (began, before) = (Instant::now(), sample.calls());
    thread::scope(|scope| {
        for key in [GOOD, "never-seen"] {
            for wire in Wire::ALL {
                scope.spawn(move || Ask::with_key(key).over(wire, gateway).is(Denial::CannotVerify));
            }
        }
    });
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(sample.calls(), before);
}

#[test]
fn a_call_that_cannot_be_metered_is_not_passed_on_and_known_lines_go_on() {
    let world = World::start("", "");
    let (account, key) = world.owner(DEFAULT_HOST);
    Ask::with_key(&key.text).over(Wire::Http1, world.gateway).is_good();
    let keys: Vec<String> = (0..60).map(|number| format!("imported-key-{number:02}")).collect();
    let imported: Vec<_> = keys.iter().map(|key| json!({"key": key})).collect();
    world.operator("POST", &format!("/v1/accounts/{}/keys/import", account.id), &json!({"keys": imported}));

    // Without its folder the meter can make no further file: it goes on with those it has until they are full.
    fs::remove_dir_all(world.node.path("slab")).unwrap();
    let served = fill_lines(&world, &keys);
    let full = world.sample.calls();
    assert_eq!(full, served + 1);
    for wire in Wire::ALL {
        Ask::with_key(&keys[59]).over(wire, world.gateway).is(Denial::CannotMeter);
    }
    assert_eq!(world.sample.calls(), full, "a call that was not metered was passed on");
    Ask::with_key(&key.text).over(Wire::Http1, world.gateway).is_good();
    let ready = raw::call(world.control, "GET", "/readyz", &[], b"");
    assert_eq!((ready.status, ready.text().contains("\"slab\"")), (503, true), "{}", ready.text());

    fs::create_dir(world.node.path("slab")).unwrap();
    world.wait_until("there is room again", || Ask::with_key(&keys[59]).over(Wire::Http1, world.gateway).status == 200);
    let (passed_on, in_ledger) = (full + 2, world.ledger(full + 2).values().sum::<u64>());
    assert_eq!((world.sample.calls(), in_ledger), (passed_on, passed_on));
    let ready = || raw::api(world.control, "GET", "/readyz", OPERATOR_TOKEN, &json!(null)).status == 200;
    world.wait_until("the node is ready", ready);
}

#[test]
fn a_call_that_cannot_be_metered_is_passed_on_where_that_is_switched_on() {
    let world = World::start("serve_unmetered = true", "");
    let (account, key) = world.owner(DEFAULT_HOST);
    let keys: Vec<String> = (0..60).map(|number| format!("imported-key-{number:02}")).collect();
    let imported: Vec<_> = keys.iter().map(|key| json!({"key": key})).collect();
    world.operator("POST", &format!("/v1/accounts/{}/keys/import", account.id), &json!({"keys": imported}));
    fs::remove_dir_all(world.node.path("slab")).unwrap();
    let called = call_all(&world, &keys);
    let counter = || raw::metric(world.control, "tollgate_unmetered_calls_total");
    world.wait_until("the alarm is up", || counter() > 0);

    // A key that is not valid is none here either.
    for wire in Wire::ALL {
        Ask::with_key(&key.text).over(wire, world.gateway).is_good();
        Ask::with_key("never-seen").over(wire, world.gateway).is(Denial::NotValid);
    }
    let unmetered = counter();
    let passed_on = called + Wire::ALL.len() as u64;
    assert_eq!(world.sample.calls(), passed_on);
    assert_eq!(world.ledger(passed_on - unmetered).values().sum::<u64>(), passed_on - unmetered);
    assert!(unmetered < called, "nothing was counted while there was room: {unmetered} of {called}");
    world.process.log_line("a call could not be metered and was passed on unmetered");
    let ready = raw::call(world.control, "GET", "/readyz", &[], b"");
    assert_eq!(ready.status, 200, "{}", ready.text());
}

/// Calls every operation with every key, all of which must be passed on; how many those are.
fn call_all(world: &World, keys: &[String]) -> u64 {
    let mut connection = Raw::connect(world.gateway);
    for key in keys {
        for (method, target) in OPERATIONS {
            let headers = [("dashvector-auth-token", key.as_str())];
            connection.send(&raw::request(world.gateway, method, target, &headers, b""));
            // Not everything that is called is there.
            assert_ne!(connection.answer().status, 503);
        }
    }
    (keys.len() * OPERATIONS.len()) as u64
}

/// Calls every operation with one key after the other, until a call is denied; how many were served.
pub fn fill_lines(world: &World, keys: &[String]) -> u64 {
    const LINES: u64 = 1024;
    let mut connection = Raw::connect(world.gateway);
    let mut served = 0;
    for key in keys {
        for (method, target) in OPERATIONS {
            let headers = [("dashvector-auth-token", key.as_str())];
            connection.send(&raw::request(world.gateway, method, target, &headers, b""));
            if connection.answer().status == 503 {
                assert!(served + 1 >= LINES, "denied after {served}");
                return served;
            }
            served += 1;
        }
    }
    panic!("{served} calls found a line");
}

pub const OPERATIONS: [(&str, &str); 19] = [
    ("GET", "/service_version"),
    ("POST", "/v1/collections"),
    ("GET", "/v1/collections"),
    ("GET", "/v1/collections/c"),
    ("DELETE", "/v1/collections/c"),
    ("GET", "/v1/collections/c/stats"),
    ("POST", "/v1/collections/c/docs"),
    ("PUT", "/v1/collections/c/docs"),
    ("POST", "/v1/collections/c/docs/upsert"),
    ("DELETE", "/v1/collections/c/docs"),
    ("GET", "/v1/collections/c/docs"),
    ("POST", "/v1/collections/c/query"),
    ("POST", "/v1/collections/c/query_group_by"),
    ("POST", "/v1/collections/c/partitions"),
    ("GET", "/v1/collections/c/partitions"),
    ("GET", "/v1/collections/c/partitions/p"),
    ("DELETE", "/v1/collections/c/partitions/p"),
    ("GET", "/v1/collections/c/partitions/p/stats"),
    ("GET", "/other"),
];

const GOOD: &str = "a-good-key";
const LEASE: Duration = Duration::from_millis(300);
const EPOCH: Epoch = Epoch([5; ID_BYTES]);
const STORE: StoreId = StoreId([7; ID_BYTES]);
const ACCOUNT: AccountId = AccountId([1; ID_BYTES]);

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A real gateway on a real socket, whose store does as it is told. It lives until the tests end.
struct Stand {
    gateway: SocketAddr,
    store: Arc<Moody>,
    _folder: tempfile::TempDir,
}

impl Stand {
    fn start(upstream: SocketAddr) -> Self {
        tls_provider();
        let folder = tempfile::tempdir().unwrap();
        let digester = Digester::new(&[3; 32]);
        let good = digester.digest(PresentedKey::parse(GOOD.as_bytes()).unwrap());
        let store = Arc::new(Moody { mood: AtomicU8::new(0), good, upstream, pushes: broadcast::channel(1).0 });
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = listener.local_addr().unwrap();
        let gateway = Arc::new(gateway(folder.path(), digester, Arc::clone(&store) as Arc<dyn FeedStore>));
        serve(gateway, listener);
        let stand = Self { gateway: at, store, _folder: folder };
        wait_until("the lease is held", || Ask::with_key(GOOD).over(Wire::Http1, at).status != 503);
        stand.forget_calls();
        stand
    }

    fn forget_calls(&self) {
        let reset = raw::call(self.store.upstream, "DELETE", "/sample/counts", &[], b"");
        assert_eq!(reset.status, 200);
    }
}

fn serve(gateway: Arc<Gateway>, listener: TcpListener) {
    let mut worker = Worker { name: "stand".into(), gateway, listeners: vec![listener], drain: Drain::default() };
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_stop, stopped) = watch::channel(false);
        runtime.block_on(worker.start_service(None, stopped, 1));
    });
}

fn gateway(folder: &std::path::Path, digester: Digester, store: Arc<dyn FeedStore>) -> Gateway {
    let config = Config::defaults_in(folder).gateway.unwrap();
    let metrics = Arc::new(Metrics::new(Registry::new(), WallTime(0)).unwrap());
    let (keyring, lease) = (Arc::new(Keyring::default()), Arc::new(Lease::default()));
    let incarnation = Incarnation::random().unwrap();
    let followed = Followed {
        incarnation,
        store_id: STORE,
        keyring: Arc::clone(&keyring),
        lease: Arc::clone(&lease),
        metrics: Arc::clone(&metrics),
    };
    let feed = Arc::new(Feed::start(Arc::clone(&store), followed).unwrap());
    let loader = Loader::new(Arc::clone(&keyring), store, Arc::clone(&metrics));
    let default_cluster = Some(DEFAULT_HOST.to_owned());
    let (slab_dir, spool_dir) = (Some(folder.join("slab")), folder.join("meter"));
    let options = MeterOptions { slab_dir, spool_dir, store_id: STORE, incarnation, now: tollgate::clock::wall() };
    let tls = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    Gateway::new(GatewayParts {
        protocols: Protocols::new(&config.limits, None),
        verifier: Verifier {
            digester,
            keyring,
            lease,
            loader,
            feed,
            failed_auth: FailedAuth::new(0, 1),
            default_cluster,
        },
        limits: Limits::new(AccountLimits::default()),
        caps: ConnectionCaps::new(1000, 1000, Vec::new()),
        meter: Meter::open(options).unwrap(),
        connector: Connector { tls: Arc::new(tls), patience: Duration::from_secs(2), metrics: Arc::clone(&metrics) },
        metrics,
        config,
    })
}

#[derive(Clone, Copy)]
enum Mood {
    Fine,
    Fails,
    Hangs,
}

/// A store with one key and one cluster.
struct Moody {
    mood: AtomicU8,
    good: Digest,
    upstream: SocketAddr,
    pushes: broadcast::Sender<Push>,
}

impl Moody {
    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    async fn answer<T>(&self, good: T) -> Result<T, StoreError> {
        match self.mood.load(Ordering::SeqCst) {
            0 => Ok(good),
            1 => Err(StoreError::Away("as the test wants it".into())),
            _ => std::future::pending().await,
        }
    }
}

#[async_trait]
impl FeedStore for Moody {
    async fn renew(&self, renew: Renew) -> Result<Renewal, StoreError> {
        let known = renew.epoch == Some(EPOCH);
        let log = if known { LogTail::Entries(Vec::new()) } else { LogTail::Trimmed };
        self.answer(Renewal { store_id: STORE, epoch: EPOCH, lease: LEASE, revision: Revision(1), log }).await
    }

    async fn load(&self, digest: Digest) -> Result<Loaded, StoreError> {
        let found = if digest == self.good {
            let key_id = KeyId([2; ID_BYTES]);
            let credential = Credential {
                key_id,
                account_id: ACCOUNT,
                disabled: false,
                expires_at: None,
                expired: false,
                version: 1,
            };
            Found::Key {
                credential,
                account: Account { account_id: ACCOUNT, status: AccountStatus::Active, version: 1 },
            }
        } else {
            Found::Unknown
        };
        self.answer(Loaded { epoch: EPOCH, revision: Revision(1), found }).await
    }

    async fn clusters(&self) -> Result<ClustersRead, StoreError> {
        let cluster = Cluster {
            cluster_id: ClusterId([4; ID_BYTES]),
            account_id: ACCOUNT,
            hosts: vec![DEFAULT_HOST.to_owned()],
            upstreams: vec![format!("http://{}", self.upstream)],
            allow_ips: vec![],
            version: 1,
        };
        self.answer(ClustersRead { epoch: EPOCH, revision: Revision(1), clusters: vec![cluster] }).await
    }

    async fn release(&self, _: Incarnation) -> Result<(), StoreError> {
        Ok(())
    }

    fn pushes(&self) -> broadcast::Receiver<Push> {
        self.pushes.subscribe()
    }
}
