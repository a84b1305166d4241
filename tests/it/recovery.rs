//! A Redis that lost its store, and a control plane that is lost: what an operator does by hand, and what nobody is told meanwhile.

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::PATIENCE;
use crate::harness::fleet::{Fleet, Setting};
use crate::harness::process::{Node, OPERATOR_TOKEN, Process, run_with};
use crate::harness::raw;
use crate::harness::redis::Redis;

/// `tollgate`, on the machine of the fleet's control plane.
fn tollgate(fleet: &Fleet, arguments: &[&str]) -> String {
    let node = fleet.control();
    let control = format!("http://{}", fleet.office.control);
    let config = node.config();
    let arguments: Vec<_> = arguments.iter().copied().chain(["--config", config.to_str().unwrap()]).collect();
    said(run_with(&arguments, &[("TOLLGATE_CONTROL", &control)]))
}

#[track_caller]
fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn operator(fleet: &Fleet, target: &str) -> Value {
    let answer = raw::api(fleet.office.control, "GET", target, OPERATOR_TOKEN, &Value::Null);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn audited(fleet: &Fleet, action: &str) -> bool {
    let entries = operator(fleet, "/v1/audit?limit=100");
    entries["items"].as_array().unwrap().iter().any(|entry| entry["action"] == action)
}

/// Calls of the account, by all gateways.
fn calls(fleet: &Fleet) -> u64 {
    let text = raw::call(
        fleet.office.control,
        "GET",
        "/metrics/usage",
        &[("authorization", &format!("Bearer {OPERATOR_TOKEN}"))],
        b"",
    )
    .text();
    let lines = text.lines().filter(|line| line.starts_with("tollgate_usage_calls_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

#[test]
fn a_flushed_redis_calls_no_key_unknown_and_is_restored_with_all_that_was_answered_since_the_backup() {
    let fleet = Fleet::start(&Setting::default());
    let ((_, live), (gone_id, gone)) = (fleet.office.create(), fleet.office.create());
    fleet.await_everywhere(&live, 200, 200, PATIENCE);
    fleet.await_everywhere(&gone, 200, 200, PATIENCE);
    let counted = 2 * fleet.gateways().len() as u64;
    let deadline = Instant::now() + PATIENCE;
    while calls(&fleet) < counted {
        assert!(Instant::now() < deadline, "{} calls are in the ledger", calls(&fleet));
        std::thread::sleep(Duration::from_millis(50));
    }
    let backup = fleet.control().path("backup");
    let said = tollgate(&fleet, &["backup", "--to", backup.to_str().unwrap()]);
    assert!(said.contains("found good"), "{said}");
    // Neither of these is in the backup.
    assert_eq!(fleet.office.delete(&gone_id, "10s").0, 200);
    let (_, late) = fleet.office.create();
    fleet.await_everywhere(&late, 200, 200, PATIENCE);
    redis::cmd("FLUSHALL").exec(&mut fleet.redis.client()).unwrap();
    let ended = fleet.await_everywhere(&live, 503, 200, Duration::from_secs(5));
    println!("known keys were served for {ended:?} after the store was lost");
    for gateway in fleet.gateways() {
        assert_eq!(fleet.status(gateway, &late), 503, "nobody can know");
        assert!(
            [401, 503].contains(&fleet.status(gateway, &gone)),
            "a delete is final: who has heard of it may say so"
        );
    }
    assert_eq!(fleet.office.try_create().unwrap_err().status, 503);
    let said = tollgate(&fleet, &["store", "restore", "--from", backup.to_str().unwrap()]);
    assert!(said.contains("is restored"), "{said}");
    let back = fleet.await_everywhere(&live, 200, 503, PATIENCE);
    println!("served again {back:?} after the restore");
    fleet.await_everywhere(&late, 200, 503, PATIENCE);
    for gateway in fleet.gateways() {
        assert_eq!(fleet.status(gateway, &gone), 401, "what was deleted after the backup stays deleted");
    }
    let deadline = Instant::now() + PATIENCE;
    while !audited(&fleet, "store.restore") {
        assert!(Instant::now() < deadline, "the restore is in the audit log");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Calls after the backup too: the gateways send what they still have again.
    let served = fleet.sample.counts().total.calls;
    while calls(&fleet) != served {
        assert!(Instant::now() < deadline, "{} calls of {served} are in the ledger", calls(&fleet));
        std::thread::sleep(Duration::from_millis(50));
    }
    // Sessions are not restored: their owners sign in again.
    assert_eq!(fleet.office.try_create().unwrap_err().status, 401);
    let again = run_with(
        &[
            "store",
            "restore",
            "--from",
            backup.to_str().unwrap(),
            "--config",
            fleet.control().config().to_str().unwrap(),
        ],
        &[],
    );
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("holds the store"));
}

/// A control plane that names another one as its peer.
fn control(redis: &Redis, id: &str, peer: &str) -> (Node, Process) {
    let node = Node::new(&format!(
        "[control]\nlisten = \"127.0.0.1:0\"\nid = \"{id}\"\npeers = [\"{peer}\"]\n[store]\nkind = \"redis\"\nurl = \"{}\"\n\
         lease = \"1s\"\n",
        redis.url()
    ));
    let process = Process::serve(&node.config());
    (node, process)
}

#[test]
fn a_lost_control_plane_is_waited_for_until_the_operator_goes_on_without_it() {
    let mut redis = Redis::start();
    // Both have to come before there is a store, so neither is awaited before the other is started.
    let (one, two) = (control(&redis, "control-1", "control-2"), control(&redis, "control-2", "control-1"));
    let at = one.1.listening("control");
    two.1.listening("control");
    two.1.kill();
    let accounts = || raw::api(at, "GET", "/v1/accounts", OPERATOR_TOKEN, &Value::Null).status;
    let check = || raw::call(at, "GET", "/readyz", &[], b"").status;
    assert_eq!((accounts(), check()), (200, 200));
    redis.kill();
    redis.start_again();
    one.1.log_line("another control plane has still to make its changes again");
    // Readiness asks the store once a second.
    let deadline = Instant::now() + PATIENCE;
    while check() == 200 {
        assert!(Instant::now() < deadline, "it may lack what control-2 has answered");
        std::thread::sleep(Duration::from_millis(50));
    }
    let account = json!({"email": "owner@stage.test", "password": "a password of the stage"});
    let create = || raw::api(at, "POST", "/v1/accounts", OPERATOR_TOKEN, &account).status;
    assert_eq!(create(), 503, "nothing new before everything of before is there");
    let config = one.0.config();
    let recover = |without: &str| {
        run_with(&["store", "recover", "--config", config.to_str().unwrap(), "--without", without], &[])
    };
    let unknown = recover("control-9");
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("control.peers"));
    let text = said(recover("control-2"));
    assert!(text.contains("Nobody waits for the control plane control-2"), "{text}");
    let deadline = Instant::now() + PATIENCE;
    while check() != 200 {
        assert!(Instant::now() < deadline, "never open; the log:\n{}", one.1.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(create(), 201);
    let needless = recover("control-2");
    assert!(!needless.status.success() && String::from_utf8_lossy(&needless.stderr).contains("nobody waits"));
    let audit = || raw::api(at, "GET", "/v1/audit?limit=100", OPERATOR_TOKEN, &Value::Null).text();
    while !audit().contains("without the control plane control-2") {
        assert!(Instant::now() < deadline, "it is in the audit log: {}", audit());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_fresh_control_plane_beside_a_flushed_redis_waits_for_its_peer_and_the_peer_freezes_the_store() {
    let mut fleet = Fleet::start(&Setting { controls: 2, ..Setting::default() });
    let (_, live) = fleet.office.create();
    fleet.await_everywhere(&live, 200, 200, PATIENCE);
    (0..2).for_each(|number| fleet.kill_control(number));
    redis::cmd("FLUSHALL").exec(&mut fleet.redis.client()).unwrap();
    let _lost = fleet.lose_folder_of_control(0);
    fleet.start_control_alone(0, &[]);
    fleet.control_process(0).log_line("the control plane control-2 has not come yet");
    let is_set_up = |fleet: &Fleet| -> bool {
        redis::cmd("HEXISTS").arg("{tg}:head").arg("store_id").query(&mut fleet.redis.client()).unwrap()
    };
    fleet.await_everywhere(&live, 503, 200, Duration::from_secs(5));
    assert!(!is_set_up(&fleet), "by itself it sets nothing up");
    fleet.start_control_alone(1, &[]);
    let deadline = Instant::now() + PATIENCE;
    while !redis::cmd("EXISTS").arg("{tg}:frozen").query::<bool>(&mut fleet.redis.client()).unwrap() {
        assert!(Instant::now() < deadline, "the one that knows of a store says so");
        std::thread::sleep(Duration::from_millis(20));
    }
    fleet.await_everywhere(&live, 503, 503, PATIENCE);
    assert!(!is_set_up(&fleet));
}
