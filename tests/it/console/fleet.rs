//! The console in front of two gateways on Redis, each a process of its own: what a person does there holds on both.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::demo::SampleService;

use super::{Codes, PRESS_ENTER, PRESS_ESCAPE};
use crate::harness::PATIENCE;
use crate::harness::browser::{Browser, within};
use crate::harness::process::{Node, OPERATOR_TOKEN, Process, Signal};
use crate::harness::raw;
use crate::harness::redis::Redis;
use crate::harness::stage::{FETCH, fill, serve_sample, text};

const PASSWORD: &str = "a password of the fleet";

struct Fleet {
    redis: Redis,
    control: SocketAddr,
    gateways: Vec<SocketAddr>,
    codes: Codes,
    browser: Browser,
    processes: Vec<(Node, Process)>,
    _sample: SampleService,
    _runtime: tokio::runtime::Runtime,
}

impl Fleet {
    fn start(language: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sample, upstream) = runtime.block_on(serve_sample());
        fill(&sample);
        let redis = Redis::start();
        // Long enough that a gateway which is stopped for a moment still holds its lease, and a delete has to wait for it.
        let store = format!(
            "[store]\nkind = \"redis\"\nurl = \"{}\"\nlease = \"10s\"\n[meter]\nflush = \"100ms\"\nslab_dir = \"slab\"\n",
            redis.url()
        );
        let (node, process) = serve(&format!("[control]\nlisten = \"127.0.0.1:0\"\n{store}"));
        let control = process.listening("control");
        let mut processes = vec![(node, process)];
        let mut gateways = Vec::new();
        for _ in 0..2 {
            let gateway = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"stage.test\"\n";
            let (node, process) = serve(&format!("{gateway}[health]\nlisten = \"127.0.0.1:0\"\n{store}"));
            gateways.push(process.listening("gateway"));
            let health = process.listening("health");
            assert!(
                within(PATIENCE, || raw::call(health, "GET", "/readyz", &[], b"").status == 200),
                "{}",
                process.log()
            );
            processes.push((node, process));
        }
        let codes = seed(control, upstream);
        let browser = Browser::start(language);
        Self { redis, control, gateways, codes, browser, processes, _sample: sample, _runtime: runtime }
    }

    fn open(&self, path: &str) {
        self.browser.go(&format!("http://{}{path}", self.control));
    }

    fn sign_in(&self) {
        self.open("/console/sign-in");
        self.browser.fill("#email", "owner@stage.test");
        self.browser.fill("#password", PASSWORD);
        self.browser.press(PRESS_ENTER);
        self.browser.arrives_at("/console/keys");
    }

    /// What each gateway answers to a call with this key.
    fn statuses(&self, key: &str) -> [u16; 2] {
        [0, 1].map(|at| raw::call(self.gateways[at], "GET", FETCH, &[("dashvector-auth-token", key)], b"").status)
    }

    fn create(&self) -> String {
        self.browser.click("#create");
        self.browser.fill("#create-name", "indexer");
        self.browser.press(PRESS_ENTER);
        let key = self.browser.reads("#create-key [data-key]", "dvk_").trim().to_owned();
        let allowed = json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
        self.browser.devtools("Browser.grantPermissions", &allowed);
        self.browser.click("#create-key [data-copy-key]");
        self.browser.until("copied", || self.browser.count("#create-key [data-copy-key].copied") == 1);
        assert_eq!(self.browser.run_async("navigator.clipboard.readText()"), json!(key));
        self.browser.click("#create-key [data-step=done] [data-close]");
        key
    }

    fn delete(&self, code: &str) {
        self.browser.click("[data-open=delete-key]");
        self.browser.fill("#delete-word", "indexer");
        self.browser.fill("#delete-code", code);
        self.browser.click("#delete-key [type=submit]");
    }

    fn has_no_complaints(&self) {
        let complaints = self.browser.complaints();
        assert!(complaints.iter().all(|one| one.contains("/v1/") && one.contains("status of 4")), "{complaints:#?}");
    }
}

fn serve(config: &str) -> (Node, Process) {
    let node = Node::new(config);
    let process = Process::serve(&node.config());
    (node, process)
}

/// A verified account with a cluster; its authenticator.
fn seed(control: SocketAddr, upstream: SocketAddr) -> Codes {
    let made = |target: &str, body: &Value| {
        let answer = raw::api(control, "POST", target, OPERATOR_TOKEN, body);
        assert_eq!(answer.status, 201, "{target}: {}", answer.text());
        answer.json()
    };
    let account = made("/v1/accounts", &json!({"email": "owner@stage.test", "password": PASSWORD, "verified": true}));
    let cluster = json!({"hosts": ["stage.test"], "upstreams": [format!("http://{upstream}")], "allow_ips": []});
    made(&format!("/v1/accounts/{}/clusters", text(&account, "account_id")), &cluster);
    Codes::of(&text(&account, "totp_secret"))
}

#[test]
fn a_key_lives_and_dies_on_both_gateways_as_its_owner_says() {
    let mut fleet = Fleet::start("en");
    fleet.sign_in();
    fleet.browser.reads("main", "No keys yet");
    let key = fleet.create();
    assert_eq!(fleet.statuses(&key), [200, 200]);
    for _ in 0..2 {
        fleet.browser.click("[data-open=view-key]");
        assert_eq!(fleet.browser.run("return document.querySelector('#view-key [data-key]').textContent"), "");
        fleet.browser.fill("#view-code", &fleet.codes.next());
        fleet.browser.press(PRESS_ENTER);
        fleet.browser.reads("#view-key [data-key]", &key);
        fleet.browser.press(PRESS_ESCAPE);
    }
    // One gateway stands still: the other one confirms, and the page says who is waited for. A code may take a while to come, and
    // nobody would wait for a gateway that has lost its lease meanwhile.
    let code = fleet.codes.next();
    fleet.processes[2].1.signal(Signal::STOP);
    fleet.delete(&code);
    fleet.browser.reads("#delete-key [data-receipt]", "Denied on 1 of 2 gateways so far");
    fleet.browser.reads("#delete-key .gateways .done", " ms");
    fleet.browser.reads("#delete-key .gateways .waiting", "waiting");
    fleet.processes[2].1.signal(Signal::CONT);
    fleet.browser.reads("#delete-key [data-receipt]", "Denied on 2 of 2 gateways");
    assert_eq!(fleet.statuses(&key), [401, 401]);
    assert_eq!(fleet.browser.count("#delete-key .gateways .done"), 2);
    fleet.browser.click("#delete-key [data-step=done] [data-close]");
    fleet.browser.reads("main", "No keys yet");
    fleet.has_no_complaints();
    // Without its store the console says so, and is itself again afterwards.
    fleet.redis.kill();
    fleet.browser.until("the store is missed", || {
        fleet.open("/console/keys");
        fleet.browser.text("h1") == "Something is not right"
    });
    fleet.browser.reads("main", "The store cannot be reached");
    fleet.redis.start_again();
    fleet.browser.until("the page is there again", || {
        std::thread::sleep(Duration::from_millis(100));
        fleet.browser.click("main a.button");
        fleet.browser.text("h1") != "Something is not right"
    });
}

#[test]
fn a_key_lives_and_dies_on_both_gateways_in_chinese() {
    let mut fleet = Fleet::start("zh-CN");
    fleet.sign_in();
    fleet.browser.reads("main", "还没有密钥");
    let key = fleet.create();
    assert_eq!(fleet.statuses(&key), [200, 200]);
    let code = fleet.codes.next();
    fleet.delete(&code);
    fleet.browser.reads("#delete-key [data-receipt]", "已在 2 / 2 个网关上拒绝");
    assert_eq!(fleet.statuses(&key), [401, 401]);
    fleet.has_no_complaints();
}
