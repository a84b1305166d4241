//! A gateway in front of the sample service: the gateway is a process of its own, the service runs in this one, so that
//! what it counted outlives the gateway.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::{Value, json};
use tollgate::demo::SampleService;
use tollgate::demo::call::Request;
use tollgate::demo::proto::request::{CreateCollection, FetchDocs, WriteDocs};
use tollgate::demo::proto::{Dense, Doc, DocOp, Floats, Vector};

use super::PATIENCE;
pub use super::books::Usage;
use super::h2::H2;
use super::process::{Node, OPERATOR_TOKEN, Process};
use super::raw::{self, Answer};

pub const COLLECTION: &str = "things";
/// Fetching the one document costs two read units: one, and one for each document found.
pub const FETCH: &str = "/v1/collections/things/docs?ids=1";
pub const GRPC_FETCH: &str = "/proxima.dashvector.proto.DashVectorService/fetch_doc";
pub const FETCH_UNITS: u64 = 2;

pub struct Stage {
    pub sample: SampleService,
    pub upstream: SocketAddr,
    pub node: Node,
    /// Absent while the gateway is stopped.
    pub process: Option<Process>,
    pub gateway: SocketAddr,
    pub control: SocketAddr,
    pub account: String,
    pub cluster: String,
    pub key: String,
    /// Serves the sample.
    runtime: tokio::runtime::Runtime,
}

/// What differs from one stage to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting<'a> {
    /// Lines of `[gateway.limits]`.
    pub limits: &'a str,
    /// Lines of `[gateway]`.
    pub gateway: &'a str,
    /// In place of the sample service: where calls are sent.
    pub upstream: Option<SocketAddr>,
    /// A PEM file of the roots that the gateway trusts upstream, in place of the system's.
    pub trust: Option<&'a str>,
}

impl Stage {
    pub fn start() -> Self {
        Self::with(Setting::default())
    }

    /// With these lines of `[gateway.limits]`.
    pub fn limited(limits: &str) -> Self {
        Self::with(Setting { limits, ..Setting::default() })
    }

    pub fn with(setting: Setting<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (sample, own) = runtime.block_on(serve_sample());
        let upstream = setting.upstream.unwrap_or(own);
        let Setting { limits, gateway, .. } = setting;
        let node = Node::new(&format!(
            "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 2\ndefault_cluster = \"stage.test\"\n{gateway}\n\
             [gateway.limits]\n{limits}\n\
             [control]\nlisten = \"127.0.0.1:0\"\n[keys]\nactive_max = 10000\n\
             [meter]\nflush = \"20ms\"\nslab_dir = \"slab\"\n"
        ));
        let serve = ["serve", "--config", node.config().to_str().unwrap()].map(str::to_owned);
        let trust: Vec<_> = setting.trust.map(|roots| ("SSL_CERT_FILE", roots)).into_iter().collect();
        let process = Process::start_with(&serve.each_ref().map(String::as_str), &trust);
        let (at_gateway, control) = (process.listening("gateway"), process.listening("control"));
        let mut stage = Self {
            sample,
            upstream,
            node,
            process: Some(process),
            gateway: at_gateway,
            control,
            account: String::new(),
            cluster: String::new(),
            key: "a-key-of-the-stage".to_owned(),
            runtime,
        };
        stage.seed();
        stage
    }

    fn seed(&mut self) {
        self.ready();
        let account = json!({"email": "owner@stage.test", "password": "a password of the stage", "verified": true});
        self.account = text(&self.operator("POST", "/v1/accounts", &account), "account_id");
        let cluster =
            json!({"hosts": ["stage.test"], "upstreams": [format!("http://{}", self.upstream)], "allow_ips": []});
        let clusters = format!("/v1/accounts/{}/clusters", self.account);
        self.cluster = text(&self.operator("POST", &clusters, &cluster), "cluster_id");
        self.import(std::slice::from_ref(&self.key));
        fill(&self.sample);
    }

    /// Waits until the node says that it is ready.
    pub fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while raw::call(self.control, "GET", "/readyz", &[], b"").status != 200 {
            assert!(Instant::now() < deadline, "never ready; the log:\n{}", self.process().log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the gateway is stopped")
    }

    /// Starts the gateway again, on other ports, with what it wrote before.
    pub fn restart(&mut self) {
        drop(self.process.take());
        let process = Process::serve(&self.node.config());
        (self.gateway, self.control) = (process.listening("gateway"), process.listening("control"));
        self.process = Some(process);
        self.ready();
    }

    /// A call of the control API that must succeed.
    pub fn operator(&self, method: &str, target: &str, body: &Value) -> Value {
        let answer = raw::api(self.control, method, target, OPERATOR_TOKEN, body);
        assert!(matches!(answer.status, 200 | 201), "{method} {target}: {} {}", answer.head, answer.text());
        answer.json()
    }

    /// Brings in keys; their ids, in the same order.
    pub fn import(&self, keys: &[String]) -> Vec<String> {
        let target = format!("/v1/accounts/{}/keys/import", self.account);
        let keys: Vec<Value> = keys.iter().map(|key| json!({"key": key})).collect();
        let imported = self.operator("POST", &target, &json!({"keys": keys}));
        imported["keys"].as_array().unwrap().iter().map(|key| text(key, "id")).collect()
    }

    /// One HTTP call with the stage's key on a connection of its own.
    pub fn http(&self, method: &str, target: &str, more: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers = [&[("dashvector-auth-token", self.key.as_str())], more].concat();
        raw::call(self.gateway, method, target, &headers, body)
    }

    /// The bytes of an HTTP call with the stage's key.
    pub fn request(&self, method: &str, target: &str, more: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let headers = [&[("dashvector-auth-token", self.key.as_str())], more].concat();
        raw::request(self.gateway, method, target, &headers, body)
    }

    /// Runs what is async, on this thread.
    pub fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    pub async fn h2(&self) -> H2 {
        H2::connect(self.gateway).await
    }

    /// What the ledger says now.
    pub fn usage(&self) -> Usage {
        Usage::of_records(self.control, &format!("?account={}", self.account))
    }

    /// The usage once so many calls are opened, and all of them are committed or given up as interrupted.
    pub fn settled(&self, opened: u64) -> Usage {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let usage = self.usage();
            if usage.opened >= opened && usage.committed() + usage.interrupted >= usage.opened {
                assert_eq!((usage.opened, usage.committed() + usage.interrupted), (opened, opened), "{usage:?}");
                return usage;
            }
            assert!(Instant::now() < deadline, "{opened} calls were not settled: {usage:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// One number of `/metrics`, where all labels are the given text.
    pub fn metric(&self, series: &str) -> u64 {
        raw::metric(self.control, series)
    }

    /// A field of `/proc/<pid>/status` of the gateway in KiB, as `VmRSS`.
    pub fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process().pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Forgets how much memory the gateway ever had at most, and says how much it has, in KiB; for [`Self::grown`].
    pub fn watch_memory(&self) -> u64 {
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.process().pid()), "5");
        self.memory("VmRSS")
    }

    /// By how much the memory was above `before` at most, in KiB.
    pub fn grown(&self, before: u64) -> u64 {
        self.memory("VmHWM").saturating_sub(before)
    }

    /// User and system time that the gateway has used.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process().pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// A name that no other call of this process uses.
    pub fn unique(prefix: &str) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The message of a fetch of the one document.
pub fn fetch_message() -> Vec<u8> {
    FetchDocs { ids: vec!["1".to_owned()], ..FetchDocs::default() }.encode_to_vec()
}

/// The metadata of a gRPC call of the sample's collection.
pub fn metadata(key: &str) -> [(&str, &str); 2] {
    [("dashvector-auth-token", key), ("collection-name", COLLECTION)]
}

/// A document with a vector of the sample's dimension.
pub fn doc(id: &str) -> Doc {
    let vector = Vector { dense: Some(Dense::Floats(Floats { values: vec![0.5; 4] })) };
    Doc { id: id.to_owned(), vector: Some(vector), ..Doc::default() }
}

pub async fn serve_sample() -> (SampleService, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let sample = SampleService::new();
    let serving = sample.clone();
    tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    (sample, at)
}

/// A collection with one document.
pub fn fill(sample: &SampleService) {
    let create = CreateCollection { name: COLLECTION.to_owned(), dimension: 4, ..CreateCollection::default() };
    sample.execute(COLLECTION, Request::CreateCollection(create)).unwrap();
    let docs = WriteDocs { docs: vec![doc("1")], ..WriteDocs::default() };
    sample.execute(COLLECTION, Request::Write(DocOp::Insert, docs)).unwrap();
}

pub fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_else(|| panic!("no {field} in {answer}")).to_owned()
}
