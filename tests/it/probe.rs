//! `tollgate probe` against a real node, and against a gateway that does not keep the promise.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::harness::process::{OPERATOR_TOKEN, Process, Signal, run_with};
use crate::harness::stage::Stage;
use crate::harness::{PATIENCE, raw};

fn probe(stage: &Stage, gateways: &[&str], more: &[&str]) -> Output {
    run_with(&arguments(stage, gateways, more), &[("TOLLGATE_TOKEN", OPERATOR_TOKEN)])
}

fn arguments<'a>(stage: &Stage, gateways: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let control: &str = Box::leak(format!("http://{}", stage.control).into_boxed_str());
    let mut arguments = vec!["probe", "--control", control, "--every", "0ms"];
    for gateway in gateways {
        arguments.extend(["--gateway", gateway]);
    }
    arguments.extend(more);
    arguments
}

#[test]
fn rounds_of_create_call_delete_call_find_no_violation_and_cost_the_accounts_nothing() {
    let stage = Stage::start();
    let gateway = format!("http://{}", stage.gateway);
    let ended = probe(&stage, &[&gateway, &gateway], &["--rounds", "50", "--json"]);
    assert!(ended.status.success(), "{ended:?}");
    let totals: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(totals, serde_json::json!({"rounds": 50, "failed_rounds": 0, "pending": 0, "violations": 0}));
    // A second one uses the same account, and nothing of the first is left.
    let ended = probe(&stage, &[&gateway], &["--rounds", "2"]);
    assert!(String::from_utf8_lossy(&ended.stdout).starts_with("2 rounds, 0 violations"), "{ended:?}");
    let accounts = stage.operator("GET", "/v1/accounts", &Value::Null);
    let mine: Vec<_> =
        accounts["items"].as_array().unwrap().iter().filter(|account| account["name"] == "Tollgate probe").collect();
    assert_eq!(mine.len(), 1);
    let keys = format!("/v1/accounts/{}/keys", mine[0]["account_id"].as_str().unwrap());
    assert_eq!(stage.operator("GET", &keys, &Value::Null)["active"], 0);
    let records = raw::api(stage.control, "GET", "/v1/usage/records", OPERATOR_TOKEN, &Value::Null).text();
    assert!(!records.contains(mine[0]["account_id"].as_str().unwrap()), "the probe was billed");
}

/// Answers every call like a gateway that lets it through.
fn lets_everything_through() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        // A bounded number of connections is plenty for a test.
        for mut stream in listener.incoming().take(100).flatten() {
            let mut head = [0; 4096];
            while let Ok(1..) = stream.read(&mut head) {
                let body = r#"{"request_id":"0","code":-3007,"message":""}"#;
                let answer = format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    url
}

#[test]
fn a_gateway_that_lets_a_deleted_key_through_is_named_and_the_exit_code_says_so() {
    let stage = Stage::start();
    let (good, bad) = (format!("http://{}", stage.gateway), lets_everything_through());
    let ended = probe(&stage, &[&good, &bad], &["--rounds", "3"]);
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stderr);
    let named = said.lines().filter(|line| line.contains("VIOLATION deleted_admitted") && line.contains(&bad)).count();
    assert_eq!((named, said.contains(&good), said.contains("broken 3 times in 3 rounds")), (3, false, true), "{said}");
}

#[test]
fn it_runs_until_a_signal_publishes_metrics_and_calls_a_node_that_is_gone_no_violation() {
    let mut stage = Stage::start();
    let gateway: &str = Box::leak(format!("http://{}", stage.gateway).into_boxed_str());
    let arguments = arguments(&stage, &[gateway], &["--listen", "127.0.0.1:0"]);
    let process = Process::start_with(&arguments, &[("TOLLGATE_TOKEN", OPERATOR_TOKEN)]);
    let line = process.log_line("/metrics");
    let address = line.split("http://").nth(1).unwrap().trim_end_matches("/metrics").parse().unwrap();
    let count = |name: &str| -> f64 {
        let text = raw::call(address, "GET", "/metrics", &[], b"").text();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let wait = |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(std::time::Instant::now() < deadline, "never: {what}; {}", process.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("ten rounds", &|| count("tollgate_probe_rounds_total") >= 10.0);
    stage.restart();
    wait("a round that fails", &|| count("tollgate_probe_failed_rounds_total") >= 1.0);
    assert!(count("tollgate_probe_violations_total{kind=\"deleted_admitted\"}") == 0.0);
    assert!(count("tollgate_probe_violations_total{kind=\"live_not_valid\"}") == 0.0);
    process.signal(Signal::TERM);
    assert!(process.ended(PATIENCE).success());
}
