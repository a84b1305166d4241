//! What `deploy/` sets up, as far as it goes without an engine for containers: its files are used as they are, but for addresses and
//! folders, by real processes on a real Redis, and a real Prometheus scrapes them as it is told to.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::demo::SampleService;

use crate::harness::PATIENCE;
use crate::harness::process::{Process, run_with};
use crate::harness::prometheus::Prometheus;
use crate::harness::raw;
use crate::harness::stage::{serve_sample, text};

const GATEWAYS: usize = 2;

/// A copy of `deploy/compose`, prepared as its README says.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn prepared() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for entry in fs::read_dir(compose()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, place.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
            }
        }
        place.prepare();
        place
    }

    fn prepare(&self) {
        let run = Command::new("sh").arg(self.path("prepare.sh")).env("TOLLGATE_SLABS", self.path("slabs")).output();
        let run = run.unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A file of the place with other addresses and folders, under another name.
    fn altered(&self, name: &str, to: &str, changes: &[(&str, &str)]) -> PathBuf {
        let mut content = self.read(name);
        for (from, to) in changes {
            assert!(content.contains(from), "{name} has no {from}");
            content = content.replace(from, to);
        }
        fs::write(self.path(to), content).unwrap();
        self.path(to)
    }

    /// A node with the configuration `name`, and folders of its own.
    fn node(&self, name: &str, own: &str, redis: u16, more: &[(&str, &str)]) -> Process {
        let data = self.path(&format!("data/{own}"));
        let (data, redis) = (data.to_str().unwrap(), format!("redis://127.0.0.1:{redis}"));
        let mut changes = vec![("/var/lib/tollgate", data), ("redis://redis:6379", &redis)];
        changes.extend([("0.0.0.0:9091", "127.0.0.1:0")]);
        changes.extend(more);
        Process::serve(&self.altered(name, &format!("{own}.toml"), &changes))
    }
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn compose() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn quietly(command: &mut Command) -> Running {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Everything {
    place: Place,
    _redis: Running,
    control: Process,
    gateways: Vec<Process>,
    _sample: SampleService,
    _runtime: tokio::runtime::Runtime,
    upstream: SocketAddr,
}

impl Everything {
    fn start() -> Self {
        let place = Place::prepared();
        let port = free_port();
        let redis = quietly(
            Command::new("redis-server")
                .arg(place.altered("redis.conf", "redis.here.conf", &[("bind * -::*", "bind 127.0.0.1")]))
                .args(["--port", &port.to_string(), "--dir"])
                .arg(place.path("data")),
        );
        until("redis is there", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        let control = place.node("control.toml", "control", port, &[("0.0.0.0:8081", "127.0.0.1:0")]);
        let slabs = place.path("slabs");
        let changes = [("0.0.0.0:8080", "127.0.0.1:0"), ("/slabs", slabs.to_str().unwrap())];
        let names = (1..=GATEWAYS).map(|number| format!("gateway-{number}"));
        let gateways: Vec<_> = names.map(|own| place.node("gateway.toml", &own, port, &changes)).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sample, upstream) = runtime.block_on(serve_sample());
        Self { place, _redis: redis, control, gateways, _sample: sample, _runtime: runtime, upstream }
    }

    fn tollgate(&self, arguments: &[&str]) -> String {
        let control = format!("http://{}", self.control.listening("control"));
        let arguments: Vec<_> = arguments.iter().copied().chain(["--control", &control, "--json"]).collect();
        let environment =
            [("TOLLGATE_TOKEN", self.place.read("secrets/operator.token")), ("TOLLGATE_PASSWORD", PASSWORD.to_owned())];
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = run_with(&arguments, &environment);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the README does by hand, up to a key.
    fn key(&self) -> String {
        let account = self.tollgate(&["account", "create", "--email", EMAIL, "--verified"]);
        let account = text(&serde_json::from_str(&account).unwrap(), "account_id");
        let upstream = format!("http://{}", self.upstream);
        self.tollgate(&["cluster", "create", &account, "--host", "demo.example.com", "--upstream", &upstream]);
        let control = self.control.listening("control");
        let session = raw::api(control, "POST", "/v1/session", "", &json!({"email": EMAIL, "password": PASSWORD}));
        let made = raw::api(control, "POST", "/v1/keys", &text(&session.json(), "token"), &json!({}));
        assert_eq!(made.status, 201, "{}", made.text());
        text(&made.json(), "key")
    }

    fn metrics(&self) -> String {
        let of = |process: &Process| raw::call(process.listening("health"), "GET", "/metrics", &[], b"").text();
        self.gateways.iter().chain([&self.control]).map(of).collect()
    }

    /// The usage counters, as Prometheus gets them.
    fn usage(&self) -> String {
        let token = format!("Bearer {}", self.place.read("secrets/billing.token").trim());
        let usage = [("authorization", token.as_str())];
        raw::call(self.control.listening("control"), "GET", "/metrics/usage", &usage, b"").text()
    }
}

const EMAIL: &str = "owner@example.com";
const PASSWORD: &str = "a password of the owner";

#[test]
fn the_files_of_the_compose_folder_make_a_system_that_serves_and_is_scraped() {
    let everything = Everything::start();
    let key = everything.key();
    for gateway in &everything.gateways {
        let at = gateway.listening("gateway");
        let headers = [("host", "demo.example.com"), ("dashvector-auth-token", key.as_str())];
        until("a call is served", || raw::call(at, "GET", "/v1/collections", &headers, b"").status == 200);
    }
    let health = |process: &Process| process.listening("health").to_string();
    let (one, two) = (health(&everything.gateways[0]), health(&everything.gateways[1]));
    let (control, usage) = (health(&everything.control), everything.control.listening("control").to_string());
    let token = everything.place.path("secrets/billing.token");
    let config = everything.place.altered(
        "prometheus.yml",
        "prometheus.here.yml",
        &[
            ("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s"),
            ("gateway-1:9091", &one),
            ("gateway-2:9091", &two),
            ("control:9091", &control),
            ("control:8081", &usage),
            ("/etc/prometheus/billing.token", token.to_str().unwrap()),
        ],
    );
    let prometheus = Prometheus::start(&config, &everything.place.path("data/prometheus"), &[]);
    until("every target is up", || prometheus.query("up == 1").len() == GATEWAYS + 2);
    until("usage is scraped", || !prometheus.query("tollgate_usage_calls_total").is_empty());
    until("the rules are evaluated", || {
        let rules = prometheus.get("/api/v1/rules");
        let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")
    });
    let firing = prometheus.get("/api/v1/alerts");
    assert_eq!(firing["data"]["alerts"], json!([]), "nothing is wrong");
}

#[test]
fn rules_name_only_metrics_that_there_are() {
    let everything = Everything::start();
    let known = everything.metrics() + &everything.usage();
    let rules = everything.place.read("rules.yml");
    let names = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: BTreeSet<_> = names.filter(|word| word.starts_with("tollgate_")).collect();
    assert!(names.len() > 4, "{names:?}");
    // The probe is a process of its own.
    for name in names.into_iter().filter(|name| !name.starts_with("tollgate_probe_")) {
        assert!(known.contains(&format!("# TYPE {name} ")), "no metric is called {name}");
    }
    assert!(include_str!("../../src/probe/report.rs").contains("probe_violations_total"));
}

#[test]
fn preparing_twice_keeps_the_secrets_and_shows_them_to_nobody() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::prepared();
    let names = ["pepper", "sealing.key", "operator.token", "billing.token"];
    let all = || names.map(|name| place.read(&format!("secrets/{name}")));
    let before = all();
    place.prepare();
    assert_eq!(all(), before);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), names.len());
    for name in names {
        let mode = fs::metadata(place.path(&format!("secrets/{name}"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn the_compose_file_mounts_what_there_is_and_scrapes_what_listens() {
    let place = Place::prepared();
    let file = place.read("compose.yaml");
    let words: Vec<_> = file.split([' ', '"', '\n', '[', ']', ',']).collect();
    for mounted in words.iter().filter_map(|word| word.strip_prefix("./")?.split_once(':')) {
        assert!(place.path(mounted.0).exists(), "{} is not there", mounted.0);
    }
    for config in words.iter().filter_map(|word| word.strip_prefix("/etc/tollgate/")?.strip_suffix(".toml")) {
        assert!(file.contains(&format!("- ./{config}.toml:/etc/tollgate/{config}.toml:ro")), "{config} is not mounted");
    }
    let scraped = place.read("prometheus.yml");
    for target in ["gateway-1:9091", "gateway-2:9091", "control:9091", "control:8081"] {
        assert!(scraped.contains(target));
        let (service, port) = target.split_once(':').unwrap();
        assert!(file.contains(&format!("\n  {service}:\n")), "no service {service}");
        let config = if service == "control" { "control.toml" } else { "gateway.toml" };
        assert!(place.read(config).contains(&format!("0.0.0.0:{port}")), "{service} does not listen on {port}");
    }
    assert!(file.contains("cap_drop: [ALL]") && file.contains("read_only: true"));
}

#[test]
fn the_image_is_built_with_the_right_compiler_and_runs_as_nobody_of_importance() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (file, manifest) = (
        fs::read_to_string(root.join("deploy/Dockerfile")).unwrap(),
        fs::read_to_string(root.join("Cargo.toml")).unwrap(),
    );
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(file.contains(&format!("FROM rust:{wanted}-")), "{wanted}");
    let user = file.lines().rev().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(!user.starts_with('0') && !user.starts_with("root"), "{user}");
    assert!(root.join("examples/sample_service.rs").exists() && file.contains("--example sample_service"));
    assert_eq!(file.matches("\nFROM ").count(), 2, "what builds is not in the image");
}

/// Of two accounts, the one of which a tenth of the good calls came without units.
#[test]
fn calls_without_units_raise_an_alarm_for_their_account_alone() {
    let place = Place::prepared();
    let cases = "rule_files: [rules.yml]\n\
                 evaluation_interval: 1m\n\
                 tests:\n\
                 - interval: 1m\n\
                 \x20 input_series:\n\
                 \x20 - {series: 'tollgate_usage_units_missing_total{account_id=\"acc_one\",operation=\"query\"}', values: '0+1x90'}\n\
                 \x20 - {series: 'tollgate_usage_calls_total{account_id=\"acc_one\",operation=\"query\",outcome=\"ok\"}', values: '0+10x90'}\n\
                 \x20 - {series: 'tollgate_usage_units_missing_total{account_id=\"acc_two\",operation=\"query\"}', values: '0+1x9 9x80'}\n\
                 \x20 - {series: 'tollgate_usage_calls_total{account_id=\"acc_two\",operation=\"query\",outcome=\"ok\"}', values: '0+10x90'}\n\
                 \x20 alert_rule_test:\n\
                 \x20 - eval_time: 80m\n\
                 \x20   alertname: TollgateUnitsMissing\n\
                 \x20   exp_alerts:\n\
                 \x20   - exp_labels: {account_id: acc_one}\n\
                 \x20     exp_annotations: {summary: 'more than one in a hundred good calls of acc_one came without units: nobody can bill them by units'}\n";
    fs::write(place.path("cases.yml"), cases).unwrap();
    let tested = Command::new("promtool").args(["test", "rules"]).arg(place.path("cases.yml")).output();
    let tested = tested.expect("promtool comes with prometheus, which `make setup` installs");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&[tested.stdout, tested.stderr].concat()));
}
