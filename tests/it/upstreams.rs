//! Several upstreams to a cluster: turns, ejection, and no call sent twice.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::demo::SampleService;

use crate::harness::PATIENCE;
use crate::harness::stage::{FETCH, GRPC_FETCH, Stage, fetch_message, metadata};

/// Another sample service, for as long as the stage lives.
fn another(stage: &Stage) -> (SampleService, String) {
    let sample = SampleService::new();
    let at = stage.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let serving = sample.clone();
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
        at
    });
    (sample, format!("http://{at}"))
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn set_upstreams(stage: &Stage, upstreams: &[&str]) {
    stage.operator("PATCH", &format!("/v1/clusters/{}", stage.cluster), &json!({"upstreams": upstreams}));
}

#[test]
fn peers_take_turns_and_one_that_is_not_there_costs_no_call() {
    let stage = Stage::start();
    let (other, at_other) = another(&stage);
    set_upstreams(&stage, &[&format!("http://{}", stage.upstream), &nobody(), &at_other]);
    for _ in 0..60 {
        assert_eq!(stage.http("GET", "/echo", &[], b"").status, 200);
    }
    stage.block_on(async {
        let mut h2 = stage.h2().await;
        for _ in 0..20 {
            let answer = h2.grpc_unary(GRPC_FETCH, &metadata(&stage.key), &fetch_message()).await;
            assert_eq!(answer.status(), 0, "{answer:?}");
        }
    });
    let (one, two) = (stage.sample.counts().total.calls, other.counts().total.calls);
    assert_eq!(one + two, 80, "each call went to one of them");
    assert!(one >= 20 && two >= 20, "{one} and {two}");
    assert!(stage.metric("tollgate_upstream_ejections_total") >= 1);
    stage.settled(80);
}

#[test]
fn a_cluster_whose_peers_are_all_away_is_502_and_comes_back_by_itself() {
    let stage = Stage::start();
    let away = nobody();
    set_upstreams(&stage, &[&away]);
    for _ in 0..3 {
        let answer = stage.http("GET", FETCH, &[], b"");
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (502, Some(-3013)));
    }
    let sample = stage.sample.clone();
    let address = away.trim_start_matches("http://").to_owned();
    stage.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move { sample.serve(listener, std::future::pending()).await });
    });
    let deadline = Instant::now() + PATIENCE;
    while stage.http("GET", FETCH, &[], b"").status != 200 {
        assert!(Instant::now() < deadline, "the peer is back and not used");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(stage.usage().of("upstream_error") >= 3);
}

#[test]
fn a_call_whose_connection_breaks_is_not_sent_again() {
    let stage = Stage::start();
    let (other, at_other) = another(&stage);
    set_upstreams(&stage, &[&format!("http://{}", stage.upstream), &at_other]);
    for method in ["GET", "POST"] {
        for _ in 0..10 {
            let answer = stage.http(method, "/echo", &[("x-sample-reset", "head")], b"x");
            assert_eq!((answer.status, answer.json()["code"].as_i64()), (502, Some(-3013)));
        }
    }
    let calls = stage.sample.counts().total.calls + other.counts().total.calls;
    assert_eq!(calls, 20, "each was seen once upstream");
    let usage = stage.settled(20);
    assert_eq!(usage.of("upstream_error"), 20);
}

#[test]
fn an_upstream_that_closes_idle_connections_costs_no_call() {
    let stage = Stage::start();
    for round in 0..5 {
        assert_eq!(stage.http("GET", "/echo", &[], b"").status, 200, "round {round}");
        // The service drops every connection it has, while the gateway holds one of them idle.
        let closing = stage.http("GET", "/echo", &[("x-sample-reset", "head")], b"");
        assert_eq!(closing.status, 502);
    }
    assert_eq!(stage.settled(10).of("ok"), 5);
}

#[test]
fn a_change_of_upstreams_takes_effect_for_the_next_call() {
    let stage = Stage::start();
    assert_eq!(stage.http("GET", "/echo", &[], b"").status, 200);
    let (other, at_other) = another(&stage);
    set_upstreams(&stage, &[&at_other]);
    for _ in 0..10 {
        assert_eq!(stage.http("GET", "/echo", &[], b"").status, 200);
    }
    assert_eq!((stage.sample.counts().total.calls, other.counts().total.calls), (1, 10));
}
