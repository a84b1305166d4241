//! A whole world for end-to-end tests: the sample vector service inside the test, `tollgate serve` in front of it, and what
//! an operator and an owner do over the control API.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tollgate::demo::SampleService;

use crate::harness::PATIENCE;
use crate::harness::process::{Node, OPERATOR_TOKEN, Process};
use crate::harness::raw::{self, Answer};

/// The host that calls to an address are for.
pub const DEFAULT_HOST: &str = "default.test";

/// Calls in the ledger, by operation and outcome; without those of which there are none.
pub type Calls = BTreeMap<(String, String), u64>;

pub struct World {
    pub process: Process,
    pub node: Node,
    pub sample: Sample,
    pub gateway: SocketAddr,
    pub control: SocketAddr,
}

/// The sample service on a thread and runtime of its own.
pub struct Sample {
    pub service: SampleService,
    pub at: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// An account, signed in.
pub struct Account {
    pub id: String,
    pub session: String,
}

pub struct Key {
    pub id: String,
    pub text: String,
}

impl World {
    /// `gateway` is written into that table of the configuration, `rest` behind it. Files that the configuration names
    /// are made by `prepare`.
    pub fn start_prepared(gateway: &str, rest: &str, prepare: impl FnOnce(&Node)) -> Self {
        let node = Node::new(&format!(
            "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"{DEFAULT_HOST}\"\n{gateway}\n\
             [control]\nlisten = \"127.0.0.1:0\"\n[meter]\nslab_dir = \"slab\"\nflush = \"50ms\"\n{rest}\n"
        ));
        prepare(&node);
        let process = Process::serve(&node.config());
        Self::around(node, process)
    }

    /// A node that is served already.
    pub fn around(node: Node, process: Process) -> Self {
        let (gateway, control) = (process.listening("gateway"), process.listening("control"));
        let sample = Sample::start();
        let world = Self { process, node, sample, gateway, control };
        world.wait_until("the node is ready", || raw::call(control, "GET", "/readyz", &[], b"").status == 200);
        world
    }

    pub fn start(gateway: &str, rest: &str) -> Self {
        Self::start_prepared(gateway, rest, |_| {})
    }

    /// A call of the control API that must succeed; the answer's JSON, null where it is empty.
    pub fn api(&self, method: &str, target: &str, token: &str, body: &Value) -> Value {
        let answer = raw::api(self.control, method, target, token, body);
        assert!((200..300).contains(&answer.status), "{method} {target}: {} {}", answer.head, answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    pub fn operator(&self, method: &str, target: &str, body: &Value) -> Value {
        self.api(method, target, OPERATOR_TOKEN, body)
    }

    /// A verified account whose owner has signed in.
    pub fn account(&self, name: &str) -> Account {
        let credentials = json!({"email": format!("{name}@owner.test"), "password": "a password for tests"});
        let mut new = credentials.clone();
        new["verified"] = json!(true);
        let id = text(&self.operator("POST", "/v1/accounts", &new), "account_id");
        Account { id, session: text(&self.api("POST", "/v1/session", "", &credentials), "token") }
    }

    /// A cluster under this host, served by `upstream`.
    pub fn cluster(&self, account: &Account, host: &str, upstream: SocketAddr, allow_ips: &[&str]) -> String {
        let new = json!({"hosts": [host], "upstreams": [format!("http://{upstream}")], "allow_ips": allow_ips});
        text(&self.operator("POST", &format!("/v1/accounts/{}/clusters", account.id), &new), "cluster_id")
    }

    /// An account with a cluster under this host, served by the sample service, and a key.
    pub fn owner(&self, host: &str) -> (Account, Key) {
        let account = self.account(host);
        self.cluster(&account, host, self.sample.at, &[]);
        let key = self.key(&account);
        (account, key)
    }

    pub fn key(&self, account: &Account) -> Key {
        let made = self.api("POST", "/v1/keys", &account.session, &Value::Null);
        Key { id: text(&made, "id"), text: text(&made, "key") }
    }

    /// Deletes a key, and has it confirmed that it is denied everywhere.
    pub fn delete_key(&self, account: &Account, key: &Key) {
        let target = format!("/v1/accounts/{}/keys/{}", account.id, key.id);
        let receipt = self.operator("DELETE", &target, &json!({"reason": "a test"}));
        assert_eq!(receipt["revoked"], "everywhere", "{receipt}");
    }

    /// Everything in the ledger that this query selects.
    pub fn records(&self, query: &str) -> Vec<Value> {
        let answer = raw::api(self.control, "GET", &format!("/v1/usage/records{query}"), OPERATOR_TOKEN, &Value::Null);
        assert_eq!((answer.status, answer.header("x-next-cursor")), (200, None), "{}", answer.text());
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The calls in the ledger, once there are as many as these. All dirty lines are flushed together, so nothing that
    /// ended before the last of them is missing.
    pub fn ledger(&self, calls: u64) -> Calls {
        let mut found = Calls::new();
        self.wait_until(&format!("{calls} calls are in the ledger"), || {
            found = calls_of(&self.records(""));
            found.values().sum::<u64>() >= calls
        });
        found
    }

    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}; the log:\n{}", self.process.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// One call over HTTP/1.1.
    pub fn call(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        raw::call(self.gateway, method, target, headers, body)
    }
}

impl Sample {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (service, at) = (SampleService::new(), listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = service.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let ended = async { drop(stopped.await) };
                serving.serve(listener, ended).await.unwrap();
            });
        });
        Self { service, at, stop: Some(stop), thread: Some(thread) }
    }

    /// Requests that it was sent, whoever they were from.
    pub fn calls(&self) -> u64 {
        self.service.counts().total.calls
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An address where nobody listens.
pub fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn text(json: &Value, field: &str) -> String {
    json[field].as_str().unwrap_or_else(|| panic!("no {field} in {json}")).to_owned()
}

/// A count that is written as a decimal string.
pub fn count(json: &Value) -> u64 {
    json.as_str().and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{json} is not a count"))
}

fn calls_of(records: &[Value]) -> Calls {
    let mut calls = Calls::new();
    for record in records {
        for (outcome, digits) in record["calls"].as_object().unwrap() {
            *calls.entry((text(record, "operation"), outcome.clone())).or_default() += count(digits);
        }
    }
    calls.retain(|_, count| *count > 0);
    calls
}
