//! Three gateways and a control plane, each a process of its own, on one real Redis; the way of each to Redis can be a link that
//! misbehaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tollgate::demo::SampleService;

use super::PATIENCE;
use super::faulty::FaultyLink;
use super::office::Office;
use super::process::{Node, Process};
use super::raw;
use super::redis::Redis;
use super::stage::{FETCH, fill, serve_sample};

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
    /// Whether hours leave the ledger for the archive.
    pub archive: bool,
    /// Control planes.
    pub controls: usize,
    /// Of every process.
    pub environment: &'a [(&'a str, &'a str)],
}

pub struct Fleet<S = Redis> {
    /// Where the store is.
    pub redis: S,
    /// At the first control plane as it began.
    pub office: Office,
    pub sample: SampleService,
    pub runtime: tokio::runtime::Runtime,
    environment: Environment,
    members: Vec<Member>,
    addresses: Arc<RwLock<Vec<SocketAddr>>>,
    controls: Vec<Member>,
    offices: Arc<RwLock<Vec<SocketAddr>>>,
}

/// What the store of a fleet is on.
pub trait Ground {
    /// Where links lead to; absent where that is not one place.
    fn address(&self) -> Option<SocketAddr>;
    /// What a node's `[store]` begins with, if it comes there through a link.
    fn store(&self, through: Option<SocketAddr>) -> String;
    /// What a node's `[meter]` says beside.
    fn meter(&self) -> String {
        String::new()
    }
}

type Environment = Vec<(String, String)>;

struct Member {
    link: Option<FaultyLink>,
    node: Node,
    /// Absent while it is down.
    process: Option<Process>,
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(2),
            linked: false,
            clocks: false,
            archive: false,
            controls: 1,
            environment: &[],
        }
    }
}

impl Fleet {
    pub fn start(setting: &Setting<'_>) -> Self {
        Self::on(Redis::start(), setting)
    }
}

impl<S: Ground> Fleet<S> {
    pub fn on(redis: S, setting: &Setting<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sample, upstream) = runtime.block_on(serve_sample());
        fill(&sample);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut environment: Environment = setting.environment.iter().map(owned).collect();
        if setting.clocks {
            environment.extend(faked_clocks());
        }
        let lease = setting.lease.as_secs();
        let archive = if setting.archive { "archive = \"meter/archive\"\n" } else { "" };
        let meter = redis.meter();
        let rest = format!("lease = \"{lease}s\"\n[meter]\nflush = \"100ms\"\nslab_dir = \"slab\"\n{archive}{meter}");
        let member = |config: &str| {
            let link = redis.address().filter(|_| setting.linked).map(FaultyLink::to);
            let store = redis.store(link.as_ref().map(|link| link.address));
            let node = Node::new(&format!("{config}{store}{rest}"));
            Member { link, process: Some(serve(&node, &environment)), node }
        };
        // None of them listens before all are there.
        let controls: Vec<_> =
            (1..=setting.controls).map(|number| member(&control(number, setting.controls))).collect();
        let offices: Vec<_> = controls.iter().map(|control| control.running().listening("control")).collect();
        let office = Office::seed(offices[0], upstream);
        let gateway = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"stage.test\"\n\
                       [gateway.limits]\nfailed_auth_rate = 0\n[health]\nlisten = \"127.0.0.1:0\"\n";
        let members: Vec<_> = (0..GATEWAYS).map(|_| member(gateway)).collect();
        let listening = |member: &Member| member.running().listening("gateway");
        let addresses = Arc::new(RwLock::new(members.iter().map(listening).collect()));
        let offices = Arc::new(RwLock::new(offices));
        let fleet = Self { redis, office, sample, runtime, environment, members, addresses, controls, offices };
        (0..GATEWAYS).for_each(|gateway| fleet.await_ready(gateway));
        fleet
    }

    /// The folder of the first control plane.
    pub fn control(&self) -> &Node {
        &self.controls[0].node
    }

    pub fn control_process(&self, number: usize) -> &Process {
        self.controls[number].running()
    }

    /// Where the control planes listen; one that was started again listens elsewhere.
    pub fn offices(&self) -> Arc<RwLock<Vec<SocketAddr>>> {
        Arc::clone(&self.offices)
    }

    /// SIGKILL.
    pub fn kill_control(&mut self, number: usize) {
        self.controls[number].process.take().expect("the control plane is up").kill();
    }

    /// Waits for the end of a control plane that kills itself.
    pub fn await_end_of_control(&mut self, number: usize) {
        self.controls[number].process.take().expect("the control plane is up").ended(PATIENCE);
    }

    /// Starts a control plane that is down, with `more` in its environment, and waits until it listens.
    pub fn start_control(&mut self, number: usize, more: &[(&str, &str)]) {
        self.start_control_alone(number, more);
        self.offices.write()[number] = self.controls[number].running().listening("control");
    }

    /// As [`Self::start_control`], and waits for nothing.
    pub fn start_control_alone(&mut self, number: usize, more: &[(&str, &str)]) {
        let mut environment = self.environment.clone();
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let process = serve(&self.controls[number].node, &environment);
        self.controls[number].process = Some(process);
    }

    /// The folder of a control plane that is down is gone, and it is set up anew with the same configuration.
    pub fn lose_folder_of_control(&mut self, number: usize) -> Node {
        let control = &mut self.controls[number];
        let config = std::fs::read_to_string(control.node.config()).unwrap();
        std::mem::replace(&mut control.node, Node::new(&config))
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
        self.controls[0].link()
    }

    /// Between Redis and everybody.
    pub fn links(&self) -> impl Iterator<Item = &FaultyLink> {
        self.members.iter().chain(&self.controls).map(Member::link)
    }

    pub fn process(&self, gateway: usize) -> &Process {
        self.members[gateway].running()
    }

    /// The folder of a gateway.
    pub fn node(&self, gateway: usize) -> &Node {
        &self.members[gateway].node
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
        let node = gateway.map_or(&self.controls[0].node, |gateway| &self.members[gateway].node);
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

/// Of the control plane `number` of so many.
fn control(number: usize, of: usize) -> String {
    let peers: Vec<_> = (1..=of).filter(|peer| *peer != number).map(|peer| format!("\"control-{peer}\"")).collect();
    format!(
        "[control]\nlisten = \"127.0.0.1:0\"\nid = \"control-{number}\"\npeers = [{}]\n\
         [keys]\nactive_max = 10000\ndaily_max = 1000000\n",
        peers.join(", ")
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
