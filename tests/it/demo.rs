//! `tollgate demo`: what it prints, that it works as printed, and what is left of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::PATIENCE;
use crate::harness::process::{Demo, Facts, Process, Signal};
use crate::harness::raw::{self, Answer};

const FIELDS: [&str; 11] = [
    "gateway",
    "control",
    "operator_token",
    "account_id",
    "cluster_id",
    "email",
    "password",
    "totp_secret",
    "cluster_host",
    "api_key",
    "upstream",
];

fn version(demo: &Demo, host: Option<&str>, key: &str) -> Answer {
    let headers = host.map(|host| ("host", host)).into_iter().chain([("dashvector-auth-token", key)]);
    raw::call(demo.gateway(), "GET", "/service_version", &headers.collect::<Vec<_>>(), b"")
}

fn operator(demo: &Demo, method: &str, target: &str, body: &Value) -> Answer {
    raw::api(demo.control(), method, target, &demo.facts.operator_token, body)
}

/// Calls in the ledger, of every outcome.
fn calls(demo: &Demo) -> u64 {
    let records = operator(demo, "GET", "/v1/usage/records", &Value::Null);
    assert_eq!(records.status, 200);
    let records = records.text();
    let records = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let count = |record: Value| -> u64 {
        let calls = record["calls"].as_object().unwrap();
        calls.values().map(|digits| digits.as_str().unwrap().parse::<u64>().unwrap()).sum()
    };
    records.map(count).sum()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn it_prints_one_line_whose_facts_are_true() {
    let demo = Demo::start();
    let output = demo.process.output();
    let line: Value = serde_json::from_str(&output).unwrap();
    let fields: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((output.lines().count(), fields), (1, BTreeSet::from(FIELDS)));
    for url in [&demo.facts.gateway, &demo.facts.control, &demo.facts.upstream] {
        assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with('/') && !url.ends_with(":0"), "{url}");
    }
    assert_eq!(raw::call(demo.control(), "GET", "/readyz", &[], b"").status, 200);
    assert_eq!(raw::call(demo.upstream(), "GET", "/service_version", &[], b"").json()["code"], 0);

    let account = format!("/v1/accounts/{}", demo.facts.account_id);
    let keys = operator(&demo, "GET", &format!("{account}/keys"), &Value::Null).json();
    assert_eq!((keys["keys"].as_array().map(Vec::len), &keys["active"]), (Some(1), &json!(1)), "{keys}");
    assert_eq!(calls(&demo), 0, "the demo has made calls of its own");
    let cluster = operator(&demo, "GET", &format!("/v1/clusters/{}", demo.facts.cluster_id), &Value::Null).json();
    assert_eq!(
        (&cluster["hosts"], &cluster["upstreams"]),
        (&json!([demo.facts.cluster_host]), &json!([demo.facts.upstream]))
    );
    let credentials = json!({"email": demo.facts.email, "password": demo.facts.password});
    let session = raw::api(demo.control(), "POST", "/v1/session", "", &credentials);
    assert_eq!((session.status, &session.json()["role"]), (201, &json!("root")), "{}", session.text());

    assert_eq!(version(&demo, None, demo.key()).json()["code"], 0);
    assert_eq!(version(&demo, Some(&demo.facts.cluster_host), demo.key()).json()["code"], 0);
    assert_eq!(version(&demo, None, "another-key").status, 401);
    wait_until("both calls are in the ledger", || calls(&demo) == 2);
}

#[test]
fn a_second_start_tells_the_same_and_keeps_keys_and_usage() {
    let folder = tempfile::tempdir().unwrap();
    let first = Demo::start_in(folder.path(), &[]);
    assert_eq!(version(&first, None, first.key()).status, 200);
    let session = sign_in(&first);
    let made = raw::api(first.control(), "POST", "/v1/keys", &session, &Value::Null).json();
    let facts = first.facts.clone();
    assert_eq!(first.process.stop().code(), Some(0));

    let second = Demo::start_in(folder.path(), &[]);
    let but_ports = |facts: &Facts| Facts {
        gateway: String::new(),
        control: String::new(),
        upstream: String::new(),
        ..facts.clone()
    };
    assert_eq!(format!("{:?}", but_ports(&second.facts)), format!("{:?}", but_ports(&facts)));
    assert_eq!(calls(&second), 1, "usage of the first run");
    assert_eq!(version(&second, None, second.key()).status, 200);
    assert_eq!(version(&second, None, made["key"].as_str().unwrap()).status, 200);
    wait_until("usage adds up", || calls(&second) == 3);
    let kept = folder.path().join("demo.json");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    assert_eq!(kept["gateway"], second.facts.gateway);

    // And once more after a kill.
    second.process.kill();
    let third = Demo::start_in(folder.path(), &[]);
    assert_eq!(version(&third, None, third.key()).status, 200);
    wait_until("usage of the killed run", || calls(&third) == 4);
}

#[test]
fn a_deleted_key_is_not_told_again_and_stays_denied() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start_in(folder.path(), &[]);
    let (key, session) = (demo.key().to_owned(), sign_in(&demo));
    assert_eq!(version(&demo, None, &key).status, 200);
    let listed = raw::api(demo.control(), "GET", "/v1/keys", &session, &Value::Null).json();
    let id = listed["keys"][0]["id"].as_str().unwrap().to_owned();
    let ask = json!({"action": "delete", "key_id": id, "code": demo.totp_code()});
    let grant = raw::api(demo.control(), "POST", "/v1/step-up", &session, &ask).json();
    let bearer = format!("Bearer {session}");
    let headers = [("authorization", &*bearer), ("step-up-grant", grant["grant"].as_str().unwrap())];
    let receipt = raw::call(demo.control(), "DELETE", &format!("/v1/keys/{id}"), &headers, b"");
    assert_eq!((receipt.status, &receipt.json()["revoked"]), (200, &json!("everywhere")), "{}", receipt.text());
    assert_eq!(version(&demo, None, &key).status, 401);
    assert_eq!(demo.process.stop().code(), Some(0));

    let again = Demo::start_in(folder.path(), &[]);
    assert_eq!(again.facts.api_key, None);
    assert!(!again.process.output().contains("api_key"), "{}", again.process.output());
    assert_eq!(version(&again, None, &key).status, 401);
    assert!(!fs::read_to_string(folder.path().join("demo.json")).unwrap().contains(&key));
}

fn sign_in(demo: &Demo) -> String {
    let credentials = json!({"email": demo.facts.email, "password": demo.facts.password});
    let session = raw::api(demo.control(), "POST", "/v1/session", "", &credentials).json();
    session["token"].as_str().unwrap().to_owned()
}

#[test]
fn its_page_says_what_to_do_and_that_works_as_printed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let page_of = |more: &[&str]| {
        let fixed = ["demo", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--data", data];
        let process = Process::start(&[&fixed[..], more].concat());
        wait_until("the whole page", || process.output().contains("Ctrl-C"));
        (process.output(), process)
    };
    let (page, process) = page_of(&[]);
    let facts: Facts = serde_json::from_slice(&fs::read(folder.path().join("demo.json")).unwrap()).unwrap();
    let Facts { gateway, control, email, password, totp_secret, .. } = &facts;
    let key = facts.api_key.as_deref().unwrap();
    for fact in [gateway, control, email, password, totp_secret, &facts.upstream, key, "tollgate totp"] {
        assert!(page.contains(fact), "{fact} is not on the page:\n{page}");
    }

    let curls: Vec<&str> = page.lines().map(str::trim).filter(|line| line.starts_with("curl")).collect();
    assert!(curls.len() >= 4, "{page}");
    let listed = shell(curls[0]);
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()["code"], 0, "{listed}");
    let python = block(&page, "import os", "print(");
    let printed = run_python(&python);
    assert!(printed.contains("\"id\": \"1\"") || printed.contains("'id': '1'"), "{python}\n{printed}");
    wait_until("the usage is told", || shell(curls[1]).contains("\"operation\":\"insert\""));
    // Signing in, listing and creating keys; the code without a phone.
    let script = block(&page, "TOKEN=$(", "-X POST");
    let keys = shell(&script);
    assert!(keys.contains("\"active\":1") && keys.contains("\"key\":\"dvk_"), "{script}\n{keys}");
    let binary = env!("CARGO_BIN_EXE_tollgate");
    let code = shell(&format!("{binary} totp {totp_secret}"));
    assert!(code.trim().len() == 6 && code.trim().bytes().all(|byte| byte.is_ascii_digit()), "{code}");
    assert_eq!(process.stop().code(), Some(0));
}

/// The lines of the page from the one that contains `first` to the one that contains `last`, without their indentation.
fn block(page: &str, first: &str, last: &str) -> String {
    let lines = page.lines().skip_while(|line| !line.contains(first));
    let mut found = String::new();
    for line in lines {
        found.push_str(line.strip_prefix("    ").unwrap_or(line));
        found.push('\n');
        if line.contains(last) {
            return found;
        }
    }
    panic!("no lines from {first} to {last} on the page:\n{page}");
}

fn shell(script: &str) -> String {
    let output = Command::new("bash").args(["-ec", script]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn run_python(script: &str) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make setup`", python.display());
    let mut child =
        Command::new(python).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn sigterm_and_sigint_end_it_within_seconds_and_leave_nothing_in_memory() {
    for signal in [Signal::TERM, Signal::INT] {
        let temporary = tempfile::tempdir().unwrap();
        let arguments = ["demo", "--json", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0"];
        let process = Process::start_with(&arguments, &[("TMPDIR", temporary.path().to_str().unwrap())]);
        let facts: Facts = serde_json::from_str(&process.first_line()).unwrap();
        let gateway = crate::harness::address(&facts.gateway);
        let headers = [("dashvector-auth-token", facts.api_key.as_deref().unwrap())];
        assert_eq!(raw::call(gateway, "GET", "/service_version", &headers, b"").status, 200);
        let slabs = slab_folder(process.pid());
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);

        let began = Instant::now();
        process.signal(signal);
        assert_eq!(process.ended(PATIENCE).code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "the temporary folder is left");
        let left: Vec<_> = fs::read_dir(&slabs).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        assert!(!slabs.exists(), "{} is left, with {left:?}", slabs.display());
    }
}

/// Where the files are that a process has mapped its usage counters from.
fn slab_folder(pid: u32) -> PathBuf {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let slab = maps.lines().find(|line| line.ends_with(".slab")).unwrap_or_else(|| panic!("no slab in {maps}"));
    Path::new(&slab[slab.find('/').unwrap()..]).parent().unwrap().to_owned()
}

#[test]
fn a_taken_port_is_said_and_ends_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (option, other) in [("--gateway", "--control"), ("--control", "--gateway")] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_str().unwrap();
        let process = Process::start(&["demo", option, &address, other, "127.0.0.1:0", "--data", data]);
        let said = process.log_line(&address);
        assert!(said.starts_with("tollgate: ") && said.contains("choose another"), "{said}");
        assert_eq!(process.output(), "");
        assert_eq!(process.ended(PATIENCE).code(), Some(1));
    }
}

#[test]
fn a_folder_in_use_is_said_and_ends_it() {
    let demo = Demo::start();
    let data = demo.folder.to_str().unwrap();
    let second = Process::start(&["demo", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--data", data]);
    let said = second.log_line("tollgate: ");
    assert!(said.contains("use"), "{said}");
    assert_eq!(second.ended(PATIENCE).code(), Some(1));
    assert_eq!(version(&demo, None, demo.key()).status, 200, "the first one is not disturbed");
}
