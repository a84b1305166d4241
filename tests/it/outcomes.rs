//! What is counted of a call, however it ends: a test for each row of the table in docs/metering.md, over HTTP and gRPC.

mod counted;
mod table;

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use counted::{BODY, Counted, await_calls, grpc, http, message, pieces, stage};
use tokio::time::timeout;
use tollgate::verdict::Denial;

use crate::denials::ask::{Ask, Wire};
use crate::harness::PATIENCE;
use crate::harness::fleet::{Fleet, Setting};
use crate::harness::process::Signal;
use crate::harness::raw::Raw;
use crate::harness::scripted::Scripted;
use crate::harness::stage::Usage;
use crate::world::closed_port;

#[test]
fn a_good_answer_is_ok_with_all_bytes_and_units() {
    let stage = stage("");
    let (http, grpc) = (http(&stage, &[]).unwrap(), grpc(&stage, &[]).unwrap());
    assert_eq!((http.status, grpc.trailers.unwrap()["grpc-status"].as_bytes()), (200, &b"0"[..]));
    Counted::of("ok").answers(http.body.len() + grpc.body.len()).units().is_all_of(&stage);
}

#[test]
fn a_code_or_a_status_that_is_no_success_is_refused_with_what_was_reported() {
    for no_success in [("x-sample-code", "-2021"), ("x-sample-status", "404"), ("x-sample-status", "500")] {
        let stage = stage("");
        let (http, grpc) = (http(&stage, &[no_success]).unwrap(), grpc(&stage, &[no_success]).unwrap());
        Counted::of("refused").answers(http.body.len() + grpc.body.len()).is_all_of(&stage);
    }
}

#[test]
fn a_call_is_ok_with_its_units_however_it_is_spelled() {
    let body = r#"{"code":0,"output":[],"usage":{"read_units":1}}"#;
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let service = Scripted::start(move |_| answer.clone().into_bytes());
    let stage = counted::in_front_of(service.at);
    // A service that decodes or tidies paths takes each for a query.
    let spelled = [
        "/v1/collections/c/quer%79",
        "/v1/collections/c/query/",
        "/v1/collections/c/query;x",
        "//v1/collections/c/query",
    ];
    for path in spelled {
        assert_eq!(stage.http("POST", path, &[], b"{}").status, 200, "{path}");
    }
    let as_grpc = Request::get("http://stage.test/v1/collections/c/docs?ids=1")
        .header("content-type", "application/grpc")
        .header("dashvector-auth-token", &stage.key);
    let answer = stage.block_on(async { stage.h2().await.call(as_grpc.body(Bytes::new()).unwrap()).await });
    assert_eq!(answer.status, 200);
    let usage = stage.settled(5);
    assert_eq!((usage.of("ok"), usage.read_units), (5, 5));
}

#[test]
fn an_answer_without_usage_is_ok_and_its_units_are_missing() {
    let stage = stage("");
    let without = [("x-sample-no-usage", "1")];
    let (http, grpc) = (http(&stage, &without).unwrap(), grpc(&stage, &without).unwrap());
    Counted::of("ok").answers(http.body.len() + grpc.body.len()).missing(2).is_all_of(&stage);
}

#[test]
fn an_upstream_that_refuses_the_connection_is_its_error() {
    let stage = counted::in_front_of(closed_port());
    assert_eq!(http(&stage, &[]).unwrap().status, Denial::Upstream.row().http.as_u16());
    assert_eq!(grpc(&stage, &[]).unwrap().headers["grpc-status"], "14");
    // What we say in its place is not of the service.
    Counted::of("upstream_error").nothing_sent().is_all_of(&stage);
}

#[test]
fn an_upstream_that_breaks_before_its_answer_is_its_error() {
    let stage = stage("");
    let broken = [("x-sample-reset", "head")];
    assert_eq!(http(&stage, &broken).unwrap().status, Denial::Upstream.row().http.as_u16());
    assert_eq!(grpc(&stage, &broken).unwrap().headers["grpc-status"], "14");
    Counted::of("upstream_error").is_all_of(&stage);
}

#[test]
fn an_upstream_that_breaks_within_its_answer_is_its_error_with_the_bytes_until_then() {
    let stage = stage("");
    let broken = [("x-sample-reset", "20")];
    assert!(http(&stage, &broken).is_err() && grpc(&stage, &broken).is_err());
    Counted::of("upstream_error").answers_up_to(40).is_all_of(&stage);
}

#[test]
fn an_answer_that_does_not_begin_in_time_is_a_timeout() {
    let stage = stage("upstream_first_byte = \"300ms\"\nabandoned_drain = \"300ms\"");
    let late = [("x-sample-delay-ms", "60000")];
    assert_eq!(http(&stage, &late).unwrap().status, Denial::Deadline.row().http.as_u16());
    assert_eq!(grpc(&stage, &late).unwrap().headers["grpc-status"], "4");
    Counted::of("timeout").is_all_of(&stage);
}

#[test]
fn an_answer_that_does_not_end_in_time_is_a_timeout_with_the_bytes_until_then() {
    let stage = stage("total = \"2s\"\nabandoned_drain = \"1s\"");
    let slow = [("x-sample-chunk", "1"), ("x-sample-pause-ms", "200")];
    let (http, grpc) = std::thread::scope(|scope| {
        let http = scope.spawn(|| http(&stage, &slow).is_err());
        (http.join().unwrap(), grpc(&stage, &slow).is_err())
    });
    assert!(http && grpc, "an answer that is cut looks whole");
    // Two seconds of one byte each 200 ms, and one more without the client.
    let usage = Counted::of("timeout").answers_up_to(2 * 17).is_all_of(&stage);
    assert!(usage.response_bytes > 2 * 11, "{usage:?}");
}

#[test]
fn a_deadline_where_nobody_can_read_on_is_a_timeout_with_what_is_known() {
    let stage = stage("upstream_first_byte = \"300ms\"\nabandoned_calls = 0");
    let late = [("x-sample-delay-ms", "700")];
    assert_eq!(http(&stage, &late).unwrap().status, Denial::Deadline.row().http.as_u16());
    assert_eq!(grpc(&stage, &late).unwrap().headers["grpc-status"], "4");
    Counted::of("timeout").is_all_of(&stage);
}

#[test]
fn an_answer_that_comes_after_the_deadline_is_a_timeout_with_its_units() {
    let stage = stage("upstream_first_byte = \"300ms\"");
    let whole = http(&stage, &[]).unwrap().body.len() + grpc(&stage, &[]).unwrap().body.len();
    let before = stage.settled(2);
    let late = [("x-sample-delay-ms", "700")];
    assert_eq!(http(&stage, &late).unwrap().status, Denial::Deadline.row().http.as_u16());
    assert_eq!(grpc(&stage, &late).unwrap().headers["grpc-status"], "4");
    Counted::of("timeout").answers(whole).units().is_more_than(&before, &stage);
}

#[test]
fn a_client_whose_own_deadline_is_too_short_pays_for_what_the_service_did() {
    let stage = stage("");
    assert!(grpc(&stage, &[]).is_ok());
    let one = stage.settled(1);
    let hurried = [("x-sample-delay-ms", "700"), ("grpc-timeout", "300m")];
    assert_eq!(grpc(&stage, &hurried).unwrap().headers["grpc-status"], "4");
    let slow = [("x-sample-chunk", "8"), ("x-sample-pause-ms", "100"), ("grpc-timeout", "300m")];
    assert!(grpc(&stage, &slow).is_err(), "an answer that is cut looks whole");
    let all = stage.settled(3);
    assert_eq!((all.of("ok"), all.of("timeout")), (1, 2), "{all:?}");
    let counted = |usage: &Usage| [usage.read_units, usage.write_units, usage.request_bytes, usage.response_bytes];
    assert_eq!(counted(&all), counted(&one).map(|of_one| 3 * of_one), "{all:?}");
}

#[test]
fn a_client_that_leaves_before_its_answer_is_a_client_abort_with_the_units_of_the_answer() {
    let stage = stage("");
    let whole = http(&stage, &[]).unwrap().body.len() + grpc(&stage, &[]).unwrap().body.len();
    let before = stage.settled(2);
    let late = [("x-sample-delay-ms", "700")];
    let mut client = Raw::connect(stage.gateway);
    client.send(&counted::request(&stage, &late));
    stage.block_on(async {
        let mut h2 = stage.h2().await;
        // The future that is dropped resets its stream.
        let call = h2.try_call(counted::fetch(&stage, &late));
        assert!(timeout(Duration::from_millis(300), call).await.is_err(), "answered too early");
    });
    await_calls(&stage, 4);
    drop(client);
    // What nobody saw is counted all the same: the service has sent it.
    Counted::of("client_abort").answers(whole).units().is_more_than(&before, &stage);
}

#[test]
fn a_client_that_leaves_within_its_answer_is_a_client_abort_with_the_units_of_the_answer() {
    let stage = stage("");
    let slow = [("x-sample-chunk", "8"), ("x-sample-pause-ms", "50")];
    let whole = http(&stage, &[]).unwrap().body.len() + grpc(&stage, &[]).unwrap().body.len();
    let before = stage.settled(2);
    let mut client = Raw::connect(stage.gateway);
    client.send(&counted::request(&stage, &slow));
    assert!((0..80).all(|_| client.byte(PATIENCE).is_ok()));
    drop(client);
    stage.block_on(async {
        let mut h2 = stage.h2().await;
        let call = h2.try_call(counted::fetch(&stage, &slow));
        assert!(timeout(Duration::from_millis(150), call).await.is_err(), "answered too early");
    });
    Counted::of("client_abort").answers(whole).units().is_more_than(&before, &stage);
}

#[test]
fn a_client_that_leaves_where_nobody_can_read_on_is_a_client_abort_with_what_is_known() {
    let stage = stage("abandoned_calls = 0");
    let late = [("x-sample-delay-ms", "5000")];
    let mut client = Raw::connect(stage.gateway);
    client.send(&counted::request(&stage, &late));
    stage.block_on(async {
        let mut h2 = stage.h2().await;
        let call = h2.try_call(counted::fetch(&stage, &late));
        assert!(timeout(Duration::from_millis(300), call).await.is_err(), "answered too early");
    });
    await_calls(&stage, 2);
    drop(client);
    Counted::of("client_abort").is_all_of(&stage);
}

#[test]
fn a_client_that_leaves_within_its_request_is_a_client_abort_with_the_bytes_it_sent() {
    let stage = stage("");
    let mut client = Raw::connect(stage.gateway);
    client.send(&stage.request("POST", "/echo", &[("content-length", "1000")], &BODY[..10]));
    let mut grpc = pieces(&stage, &message()[..5]);
    await_calls(&stage, 2);
    drop(client);
    grpc.reset();
    Counted::of("client_abort").asks(15).is_all_of(&stage);
}

#[test]
fn an_answer_that_is_read_on_for_too_long_is_aborted() {
    let stage = stage("abandoned_drain = \"300ms\"");
    let late = [("x-sample-delay-ms", "60000")];
    let mut client = Raw::connect(stage.gateway);
    client.send(&counted::request(&stage, &late));
    stage.block_on(async {
        let mut h2 = stage.h2().await;
        let call = h2.try_call(counted::fetch(&stage, &late));
        assert!(timeout(Duration::from_millis(300), call).await.is_err(), "answered too early");
    });
    await_calls(&stage, 2);
    drop(client);
    Counted::of("aborted").is_all_of(&stage);
}

#[test]
fn a_call_that_a_stop_does_not_wait_for_is_aborted() {
    let mut stage = stage("shutdown = \"500ms\"");
    let late = [("x-sample-delay-ms", "60000")];
    let mut client = Raw::connect(stage.gateway);
    client.send(&counted::request(&stage, &late));
    let process = stage.process.take().unwrap();
    let ended = stage.block_on(async {
        let mut h2 = stage.h2().await;
        let call = h2.try_call(counted::fetch(&stage, &late));
        let stop = async {
            let deadline = std::time::Instant::now() + PATIENCE;
            while stage.sample.counts().total.calls < 2 {
                assert!(std::time::Instant::now() < deadline, "the calls do not reach the service");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            process.signal(Signal::TERM);
        };
        tokio::join!(call, stop).0
    });
    assert!(ended.is_err() && client.try_answer(PATIENCE).is_err());
    assert_eq!(process.ended(PATIENCE).code(), Some(0));
    stage.restart();
    Counted::of("aborted").is_all_of(&stage);
}

#[test]
fn a_call_of_a_gateway_that_is_killed_is_interrupted_and_has_no_outcome() {
    let mut stage = stage("");
    let late = [("x-sample-delay-ms", "60000")];
    let mut client = Raw::connect(stage.gateway);
    client.send(&counted::request(&stage, &late));
    let process = stage.process.take().unwrap();
    let ended = stage.block_on(async {
        let mut h2 = stage.h2().await;
        let call = h2.try_call(counted::fetch(&stage, &late));
        let kill = async {
            let deadline = std::time::Instant::now() + PATIENCE;
            while stage.sample.counts().total.calls < 2 {
                assert!(std::time::Instant::now() < deadline, "the calls do not reach the service");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            process.kill();
        };
        tokio::join!(call, kill).0
    });
    assert!(ended.is_err() && client.try_answer(PATIENCE).is_err());
    stage.restart();
    let usage = stage.settled(2);
    let expected = Usage { opened: 2, interrupted: 2, operations: usage.operations.clone(), ..Usage::default() };
    assert_eq!(usage, expected);
    assert!(usage.operations.values().all(|calls| *calls == 0), "{usage:?}");
}

#[test]
fn a_call_whose_key_cannot_be_verified_is_not_counted() {
    let mut fleet = Fleet::start(&Setting::default());
    let (_, key) = fleet.office.create();
    fleet.await_everywhere(&key, 200, 200, PATIENCE);
    fleet.redis.kill();
    fleet.await_everywhere(&key, 503, 200, PATIENCE);
    for gateway in fleet.gateways() {
        Wire::ALL.into_iter().for_each(|wire| Ask::with_key(&key).over(wire, gateway).is(Denial::CannotVerify));
    }
    let passed_on = fleet.sample.counts().total.calls;
    fleet.redis.start_again();
    fleet.await_everywhere(&key, 200, 503, PATIENCE);
    let now = fleet.sample.counts().total.calls;
    assert!(now >= passed_on + fleet.gateways().len() as u64);
    let usage = counted::in_ledger(fleet.office.control, now);
    assert_eq!((usage.opened, usage.of("ok")), (now, now), "{usage:?}");
}
