//! Several upstreams to a cluster: turns, ejection, and no call sent twice.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use serde_json::json;
use tollgate::demo::SampleService;

use crate::harness::raw::Raw;
use crate::harness::stage::{FETCH, GRPC_FETCH, Setting, Stage, fetch_message, metadata};
use crate::harness::{PATIENCE, tls_provider};

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
    let mut calls = 3;
    for _ in 0..calls {
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
        calls += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    let usage = stage.settled(calls + 1);
    assert_eq!((usage.of("upstream_error"), usage.of("ok")), (calls, 1));
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
fn the_wait_for_an_answer_begins_once_the_request_is_whole_and_is_as_long_as_configured() {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let (limits, upstream) = ("upstream_first_byte = \"2s\"", Some(deaf.local_addr().unwrap()));
    let stage = Stage::with(Setting { limits, upstream, ..Setting::default() });
    // Whole at once, almost, and only after the time of a whole wait.
    for late in [0, 50, 2500].map(Duration::from_millis) {
        let (mut client, began) = (Raw::connect(stage.gateway), Instant::now());
        client.send(&stage.request("POST", "/echo", &[("content-length", "10")], b"12345"));
        std::thread::sleep(late);
        client.send(b"67890");
        assert_eq!(client.answer().status, 504);
        let took = began.elapsed() - late;
        let expected = Duration::from_millis(1900)..Duration::from_millis(3900);
        assert!(expected.contains(&took), "{took:?} after a request that took {late:?}");
    }
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

#[test]
fn upstreams_under_tls_are_called_over_the_protocol_that_was_agreed_on() {
    tls_provider();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, made.cert.pem()).unwrap();
    let stage = Stage::with(Setting { trust: roots.to_str(), ..Setting::default() });
    for (protocols, version) in [(&[&b"h2"[..], b"http/1.1"][..], "HTTP/2.0"), (&[&b"http/1.1"[..]][..], "HTTP/1.1")] {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let chain = vec![made.cert.der().clone()];
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let sample = stage.sample.clone();
        let port = stage.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move { sample.serve_tls(listener, Arc::new(config), std::future::pending()).await });
            port
        });
        set_upstreams(&stage, &[&format!("https://localhost:{port}")]);
        let answer = stage.http("GET", "/echo", &[], b"");
        assert_eq!((answer.status, answer.json()["version"].as_str()), (200, Some(version)), "{}", answer.text());
        let grpc = stage
            .block_on(async { stage.h2().await.grpc_unary(GRPC_FETCH, &metadata(&stage.key), &fetch_message()).await });
        // gRPC needs HTTP/2; an upstream that does not speak it is like one that is not there.
        let expected = if protocols.len() == 2 { 0 } else { 14 };
        assert_eq!(grpc.status(), expected, "{grpc:?}");
    }
    // A certificate that nobody vouches for is no upstream.
    let stranger = Stage::start();
    set_upstreams(&stranger, &[&format!("https://localhost:{}", stage.upstream.port())]);
    assert_eq!(stranger.http("GET", "/echo", &[], b"").status, 502);
}
