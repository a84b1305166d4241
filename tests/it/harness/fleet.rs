//! Three gateways and a control plane, each a process of its own, on one real Redis; the way of each to Redis can be a link that
//! misbehaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde_json::{Value, json};
use tollgate::demo::SampleService;

use super::PATIENCE;
use super::faulty::FaultyLink;
use super::process::{Node, OPERATOR_TOKEN, Process};
use super::raw::{self, Answer};
use super::redis::Redis;
use super::stage::{FETCH, fill, serve_sample, text};

pub const GATEWAYS: usize = 3;

/// What differs from one fleet to the next.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Whole seconds.
    pub lease: Duration,
    /// Whether a [`FaultyLink`] stands between each process and Redis.
    pub linked: bool,
    /// Whether the wall clock of each process can be moved.
    pub clocks: bool,
    /// Of every process.
    pub environment: &'a [(&'a str, &'a str)],
}

pub struct Fleet {
    pub redis: Redis,
    pub office: Office,
    pub sample: SampleService,
    pub runtime: tokio::runtime::Runtime,
    environment: Environment,
    members: Vec<Member>,
    addresses: Arc<RwLock<Vec<SocketAddr>>>,
    control: Member,
}

type Environment = Vec<(String, String)>;

struct Member {
    link: Option<FaultyLink>,
    node: Node,
    /// Absent while it is down.
    process: Option<Process>,
}

/// Where keys are made and deleted.
#[derive(Clone)]
pub struct Office {
    pub control: SocketAddr,
    pub account: String,
    /// Of the root user.
    token: String,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self { lease: Duration::from_secs(2), linked: false, clocks: false, environment: &[] }
    }
}

impl Fleet {
    pub fn start(setting: &Setting<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sample, upstream) = runtime.block_on(serve_sample());
        fill(&sample);
        let redis = Redis::start();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut environment: Environment = setting.environment.iter().map(owned).collect();
        if setting.clocks {
            environment.extend(faked_clocks());
        }
        let lease = setting.lease.as_secs();
        let keys = "[keys]\nactive_max = 10000\ndaily_max = 1000000\n";
        let control = format!("[control]\nlisten = \"127.0.0.1:0\"\nid = \"control-1\"\n{keys}");
        let member = |config: &str| {
            let link = setting.linked.then(|| FaultyLink::to(redis.address()));
            let url = link.as_ref().map_or_else(|| redis.url(), |link| format!("redis://{}", link.address));
            let node = Node::new(&format!("{config}{}", store(&url, lease)));
            Member { link, process: Some(serve(&node, &environment)), node }
        };
        let control = member(&control);
        let office = Office::seed(control.running().listening("control"), upstream);
        let gateway = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"stage.test\"\n\
                       [gateway.limits]\nfailed_auth_rate = 0\n[health]\nlisten = \"127.0.0.1:0\"\n";
        let members: Vec<_> = (0..GATEWAYS).map(|_| member(gateway)).collect();
        let listening = |member: &Member| member.running().listening("gateway");
        let addresses = Arc::new(RwLock::new(members.iter().map(listening).collect()));
        let fleet = Self { redis, office, sample, runtime, environment, members, addresses, control };
        (0..GATEWAYS).for_each(|gateway| fleet.await_ready(gateway));
        fleet
    }

    /// The folder of the control plane.
    pub fn control(&self) -> &Node {
        &self.control.node
    }

    /// Where the gateways listen; one that was started again listens elsewhere.
    pub fn addresses(&self) -> Arc<RwLock<Vec<SocketAddr>>> {
        Arc::clone(&self.addresses)
    }

    pub fn gateways(&self) -> Vec<SocketAddr> {
        self.addresses.read().clone()
    }

    /// Between a gateway and Redis.
    pub fn link(&self, gateway: usize) -> &FaultyLink {
        self.members[gateway].link()
    }

    /// Between the control plane and Redis.
    pub fn control_link(&self) -> &FaultyLink {
        self.control.link()
    }

    /// Between Redis and everybody.
    pub fn links(&self) -> impl Iterator<Item = &FaultyLink> {
        self.members.iter().chain([&self.control]).map(Member::link)
    }

    pub fn process(&self, gateway: usize) -> &Process {
        self.members[gateway].running()
    }

    /// SIGKILL.
    pub fn kill(&mut self, gateway: usize) {
        self.members[gateway].process.take().expect("the gateway is up").kill();
    }

    /// Starts a gateway that was killed, and waits until it is ready.
    pub fn start_again(&mut self, gateway: usize) {
        let process = serve(&self.members[gateway].node, &self.environment);
        self.addresses.write()[gateway] = process.listening("gateway");
        self.members[gateway].process = Some(process);
        self.await_ready(gateway);
    }

    /// Moves the wall clock of a gateway to so far from the true time, as `+7h` or `-30m`; that of the control plane where `None`.
    pub fn move_clock(&self, gateway: Option<usize>, by: &str) {
        let node = gateway.map_or(&self.control.node, |gateway| &self.members[gateway].node);
        node.write(CLOCK, by);
    }

    pub fn await_ready(&self, gateway: usize) {
        let process = self.process(gateway);
        let (health, deadline) = (process.listening("health"), Instant::now() + PATIENCE);
        while raw::call(health, "GET", "/readyz", &[], b"").status != 200 {
            assert!(Instant::now() < deadline, "never ready; the log:\n{}", process.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn status(&self, gateway: SocketAddr, key: &str) -> u16 {
        raw::call(gateway, "GET", FETCH, &[("dashvector-auth-token", key)], b"").status
    }

    /// Calls every gateway until `wanted` is the answer of all; meanwhile there is no other but `meanwhile`.
    pub fn await_everywhere(&self, key: &str, wanted: u16, meanwhile: u16, within: Duration) -> Duration {
        let (began, gateways) = (Instant::now(), self.gateways());
        loop {
            let seen: Vec<u16> = gateways.iter().map(|gateway| self.status(*gateway, key)).collect();
            assert!(seen.iter().all(|status| [wanted, meanwhile].contains(status)), "{seen:?}");
            if seen.iter().all(|status| *status == wanted) {
                return began.elapsed();
            }
            assert!(began.elapsed() < within, "after {within:?} still {seen:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Member {
    fn link(&self) -> &FaultyLink {
        self.link.as_ref().expect("the fleet is linked")
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the gateway is up")
    }
}

impl Office {
    /// An account that may create keys, and the session of its root user.
    pub fn seed(control: SocketAddr, upstream: SocketAddr) -> Self {
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
        let token = text(&made("POST", "/v1/session", "", &who), "token");
        Self { control, account, token }
    }

    /// Id and text of a new key.
    pub fn create(&self) -> (String, String) {
        self.try_create().unwrap_or_else(|answer| panic!("{}", answer.text()))
    }

    /// Id and text of a new key, or what was answered in its place.
    pub fn try_create(&self) -> Result<(String, String), Answer> {
        let answer = raw::api(self.control, "POST", "/v1/keys", &self.token, &json!({}));
        if answer.status != 201 {
            return Err(answer);
        }
        Ok((text(&answer.json(), "id"), text(&answer.json(), "key")))
    }

    /// The answer to a delete that waits for so long.
    pub fn delete(&self, id: &str, wait: &str) -> (u16, Value) {
        let target = format!("/v1/accounts/{}/keys/{id}?wait={wait}", self.account);
        let answer = raw::api(self.control, "DELETE", &target, OPERATOR_TOKEN, &json!({"reason": "a test"}));
        (answer.status, answer.json())
    }
}

fn store(url: &str, lease: u64) -> String {
    format!(
        "[store]\nkind = \"redis\"\nurl = \"{url}\"\nlease = \"{lease}s\"\n[meter]\nflush = \"100ms\"\nslab_dir = \"slab\"\n"
    )
}

/// libfaketime reads from this file of a node how far its wall clock is off. Clocks that only run on are left alone.
const CLOCK: &str = "clock";

fn faked_clocks() -> Environment {
    let places = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let library = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let library = library.expect("libfaketime is installed").to_str().unwrap().to_owned();
    let fixed =
        [("LD_PRELOAD", library.as_str()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_CACHE_DURATION", "1")];
    fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn serve(node: &Node, environment: &[(String, String)]) -> Process {
    let clock = node.path(CLOCK);
    if !clock.exists() {
        node.write(CLOCK, "+0");
    }
    let environment = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let environment: Vec<_> = environment.chain([("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap())]).collect();
    Process::start_with(&["serve", "--config", node.config().to_str().unwrap()], &environment)
}
