//! What a request may look like, and what of it reaches the service.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use crate::harness::h2::frame;
use crate::harness::raw::Raw;
use crate::harness::scripted::Scripted;
use crate::harness::stage::{FETCH, Setting, Stage};

const SOON: Duration = Duration::from_secs(10);

/// The head of a request with the stage's key up to a given rest, which ends it.
fn head(stage: &Stage, start: &str, rest: &str) -> Vec<u8> {
    format!("{start}\r\ndashvector-auth-token: {}\r\n{rest}", stage.key).into_bytes()
}

/// Sends these bytes, then reads every answer until the connection ends or nothing more comes.
fn statuses(stage: &Stage, bytes: &[u8]) -> (Vec<u16>, bool) {
    let mut connection = Raw::connect(stage.gateway);
    let _ = connection.try_send(bytes);
    let mut statuses = Vec::new();
    // Nobody waits long for a second answer, which is not expected.
    let mut patience = SOON;
    while let Ok(answer) = connection.try_answer(patience) {
        statuses.push(answer.status);
        patience = Duration::from_millis(100);
    }
    let closed = connection.closes(Duration::from_millis(100));
    (statuses, closed)
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_and_the_connection_closes() {
    let stage = Stage::start();
    let cases: [(&str, &str, &str); 14] = [
        ("obs-fold", "POST /echo HTTP/1.1\r\nhost: stage.test", "x-a: b\r\n folded\r\ncontent-length: 0\r\n\r\n"),
        ("a bare CR in a value", "POST /echo HTTP/1.1\r\nhost: stage.test", "x-a: b\rc\r\ncontent-length: 0\r\n\r\n"),
        ("a space before the colon", "POST /echo HTTP/1.1\r\nhost: stage.test", "content-length : 0\r\n\r\n"),
        ("a space in a name", "POST /echo HTTP/1.1\r\nhost: stage.test", "x a: b\r\ncontent-length: 0\r\n\r\n"),
        ("two hosts", "POST /echo HTTP/1.1\r\nhost: stage.test\r\nhost: other.test", "content-length: 0\r\n\r\n"),
        ("two equal hosts", "POST /echo HTTP/1.1\r\nhost: stage.test\r\nhost: stage.test", "content-length: 0\r\n\r\n"),
        ("no host", "POST /echo HTTP/1.1", "content-length: 0\r\n\r\n"),
        (
            "another absolute host",
            "POST http://other.test/echo HTTP/1.1\r\nhost: stage.test",
            "content-length: 0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /echo HTTP/1.1\r\nhost: stage.test",
            "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        ),
        ("a list of lengths", "POST /echo HTTP/1.1\r\nhost: stage.test", "content-length: 3, 4\r\n\r\nabcd"),
        ("a signed length", "POST /echo HTTP/1.1\r\nhost: stage.test", "content-length: +3\r\n\r\nabc"),
        (
            "a coding that is not the last",
            "POST /echo HTTP/1.1\r\nhost: stage.test",
            "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "another coding",
            "POST /echo HTTP/1.1\r\nhost: stage.test",
            "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a coding of HTTP/1.0",
            "POST /echo HTTP/1.0\r\nhost: stage.test",
            "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ];
    for (what, start, rest) in cases {
        let (statuses, closed) = statuses(&stage, &head(&stage, start, rest));
        assert_eq!(statuses, [400], "{what}");
        assert!(closed, "{what}: the connection stays");
    }
    assert_eq!(stage.sample.counts().total.calls, 0);
    assert_eq!(stage.http("GET", FETCH, &[], b"").status, 200);
    assert_eq!(stage.settled(1).of("ok"), 1);
}

#[test]
fn a_length_beside_a_coding_is_refused() {
    let stage = Stage::start();
    let hidden =
        format!("GET /echo?hidden HTTP/1.1\r\nhost: stage.test\r\ndashvector-auth-token: {}\r\n\r\n", stage.key);
    // By its coding the body is empty and the rest is a second request; by its length that is the body.
    let body = format!("0\r\n\r\n{hidden}");
    for order in
        ["content-length: LEN\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: LEN"]
    {
        let before = stage.sample.counts().total.calls;
        let order = order.replace("LEN", &body.len().to_string());
        let request = head(&stage, "POST /echo HTTP/1.1\r\nhost: stage.test", &format!("{order}\r\n\r\n{body}"));
        let (statuses, closed) = statuses(&stage, &request);
        assert_eq!(statuses, [400]);
        assert!(closed, "the connection stays");
        assert_eq!(stage.sample.counts().total.calls, before);
    }
    // A chunk whose size is nonsense ends the call and the connection.
    let broken =
        head(&stage, "POST /echo HTTP/1.1\r\nhost: stage.test", "transfer-encoding: chunked\r\n\r\nzz\r\n\r\n");
    let (statuses, closed) = statuses(&stage, &[&broken[..], hidden.as_bytes()].concat());
    assert!(statuses == [400] && closed, "{statuses:?}");
    let usage = stage.settled(1);
    assert_eq!((usage.of("ok"), usage.of("client_abort")), (0, 1));
}

#[test]
fn the_service_sees_the_target_as_it_was_written() {
    let stage = Stage::start();
    for query in ["a=%2F%2f&b=+%20;=&&c=", "?", "", "%00%ff=%zz", "a='\"<>\\^`{|}", "ids=1,2,3&partition=d%C3%A9f"] {
        let target = format!("/echo?{query}");
        let answer = stage.http("GET", &target, &[], b"");
        if answer.status == 400 {
            // Not a target at all by RFC 3986; then nobody sees it.
            assert!(query.contains('^') || query.contains('\\'), "{query}");
            continue;
        }
        assert_eq!(answer.json()["target"], target.as_str());
    }
    let absolute = head(&stage, "GET http://stage.test/echo?x=%41 HTTP/1.1\r\nhost: Stage.test:80", "\r\n");
    let mut connection = Raw::connect(stage.gateway);
    connection.send(&absolute);
    let echo = connection.answer().json();
    assert_eq!((&echo["target"], &echo["authority"]), (&"/echo?x=%41".into(), &"Stage.test:80".into()));
}

#[test]
fn what_belongs_to_the_connection_and_what_is_forged_stays_outside() {
    let stage = Stage::start();
    let more = [
        ("connection", "x-private, close"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("te", "gzip, trailers"),
        ("x-tollgate-account", "acc_forged"),
        ("X-Tollgate-Anything", "forged"),
        ("x_tollgate_key_id", "forged"),
        ("x-request-id", "forged"),
        ("accept-encoding", "gzip"),
        ("x-mine", "stays"),
    ];
    let answer = stage.http("GET", "/echo", &more, b"");
    let echo = answer.json();
    let fields: Vec<(&str, &str)> = echo["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| (field[0].as_str().unwrap(), field[1].as_str().unwrap()))
        .collect();
    let value =
        |wanted: &str| fields.iter().filter(|(name, _)| *name == wanted).map(|(_, value)| *value).collect::<Vec<_>>();
    for gone in [
        "x-private",
        "keep-alive",
        "proxy-authorization",
        "x-tollgate-anything",
        "x_tollgate_key_id",
        "dashvector-auth-token",
    ] {
        assert!(value(gone).is_empty(), "{gone} in {fields:?}");
    }
    assert!(!echo.to_string().contains("forged") && !echo.to_string().contains(&stage.key));
    assert_eq!(value("x-tollgate-account"), [stage.account.as_str()]);
    assert_eq!(value("accept-encoding"), ["identity"]);
    assert_eq!((value("x-mine"), value("te")), (vec!["stays"], vec!["trailers"]));
    assert_eq!(value("x-request-id").len(), 1);
    assert_eq!(answer.header("x-request-id"), Some(value("x-request-id")[0]));
    let stamp: Vec<&str> = value("x-tollgate-usage")[0].split(';').collect();
    assert_eq!(stamp.len(), 3);
}

#[test]
fn redirects_are_passed_on_and_not_followed() {
    let upstream = Scripted::start(|_| {
        b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/elsewhere\r\ncontent-length: 0\r\n\r\n"
            .to_vec()
    });
    let stage = Stage::with(Setting { upstream: Some(upstream.at), ..Setting::default() });
    let answer = stage.http("GET", FETCH, &[], b"");
    assert_eq!((answer.status, answer.header("location")), (307, Some("http://127.0.0.1:1/elsewhere")));
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(stage.settled(1).of("refused"), 1);
}

#[test]
fn an_answer_compressed_against_our_wish_comes_through_and_its_units_are_missing() {
    let upstream = Scripted::start(|_| {
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00".to_vec()
    });
    let stage = Stage::with(Setting { upstream: Some(upstream.at), ..Setting::default() });
    let answer = stage.http("GET", FETCH, &[("accept-encoding", "gzip")], b"");
    assert_eq!((answer.header("content-encoding"), &answer.body[..]), (Some("gzip"), &b"\x1f\x8b\x08\x00"[..]));
    assert!(upstream.seen()[0].to_ascii_lowercase().contains("accept-encoding: identity\r\n"));
    let usage = stage.settled(1);
    assert_eq!((usage.of("ok"), usage.units_missing, usage.response_bytes), (1, 1, 4));
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_only_where_its_body_is_wanted() {
    let stage = Stage::start();
    let expect = [("expect", "100-continue"), ("content-length", "5")];
    let mut connection = Raw::connect(stage.gateway);
    connection.send(&stage.request("POST", "/echo", &expect, b""));
    let interim = connection.some(SOON).unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&interim));
    connection.send(b"hello");
    assert_eq!(connection.answer().json()["body_bytes"], 5);

    let mut denied = Raw::connect(stage.gateway);
    let wrong = [&expect[..], &[("dashvector-auth-token", "wrong")]].concat();
    denied.send(&crate::harness::raw::request(stage.gateway, "POST", "/echo", &wrong, b""));
    let answer = denied.some(SOON).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 401 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(stage.settled(1).of("ok"), 1);
}

#[test]
fn trailers_pass_both_ways() {
    let stage = Stage::start();
    // HTTP/1.1, toward the service.
    let fields = [("transfer-encoding", "chunked"), ("trailer", "x-sum"), ("te", "trailers")];
    let body = b"3\r\nabc\r\n0\r\nx-sum: 6\r\nx-tollgate-account: forged\r\n\r\n";
    let mut connection = Raw::connect(stage.gateway);
    connection.send(&stage.request("POST", "/echo", &fields, body));
    let echo = connection.answer().json();
    let came: Vec<_> = echo["trailers"].as_array().unwrap().iter().map(|field| field[0].as_str().unwrap()).collect();
    assert!(!came.contains(&"x-tollgate-account"), "{came:?}");
    assert_eq!(came, ["x-sum"], "{echo}");

    // HTTP/1.1, toward the client.
    let upstream = Scripted::start(|_| {
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx-sum: 7\r\n\r\n"
            .to_vec()
    });
    let scripted = Stage::with(Setting { upstream: Some(upstream.at), ..Setting::default() });
    let mut connection = Raw::connect(scripted.gateway);
    connection.send(&scripted.request("GET", "/echo", &[("te", "trailers"), ("connection", "te")], b""));
    let mut came = Vec::new();
    while !came.ends_with(b"\r\n\r\n") || !came.windows(3).any(|window| window == b"0\r\n") {
        came.extend(connection.some(SOON).unwrap());
    }
    assert!(String::from_utf8_lossy(&came).contains("x-sum: 7\r\n"), "{}", String::from_utf8_lossy(&came));

    // gRPC, there and back.
    let trailers = stage.block_on(grpc_trailers(&stage));
    assert_eq!((trailers["grpc-status"].as_bytes(), trailers["x-sum"].as_bytes()), (&b"0"[..], &b"8"[..]));
    assert!(!trailers.contains_key("x-tollgate-account"));
    assert_eq!(stage.settled(2).of("ok"), 2);
}

/// Sends a message with trailers to the service, which sends both back.
async fn grpc_trailers(stage: &Stage) -> HeaderMap {
    let stream = tokio::net::TcpStream::connect(stage.gateway).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    for (name, value) in [("x-sum", "8"), ("grpc-status", "0"), ("x-tollgate-account", "forged")] {
        trailers.insert(name, HeaderValue::from_static(value));
    }
    let body = Full::new(frame(b"\x10\x00")).with_trailers(std::future::ready(Some(Ok(trailers))));
    let request = Request::post(format!("http://{}/echo/body", stage.gateway))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dashvector-auth-token", &stage.key)
        .body(body)
        .unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    let trailers = answer.trailers().cloned().unwrap();
    assert_eq!(answer.to_bytes(), frame(b"\x10\x00"));
    trailers
}

#[test]
fn headers_of_an_answer_are_cleaned_too() {
    let upstream = Scripted::start(|_| {
        b"HTTP/1.1 200 OK\r\nconnection: x-inner\r\nx-inner: 1\r\nx-tollgate-account: told\r\naccess-control-allow-origin: *\r\n\
          x-kept: yes\r\ncontent-length: 2\r\n\r\n{}"
            .to_vec()
    });
    let stage = Stage::with(Setting { upstream: Some(upstream.at), ..Setting::default() });
    let answer = stage.http("GET", FETCH, &[], b"");
    assert_eq!(answer.header("x-kept"), Some("yes"));
    for gone in ["x-inner", "x-tollgate-account", "access-control-allow-origin"] {
        assert_eq!(answer.header(gone), None, "{}", answer.head);
    }
    assert_eq!(answer.json(), Value::Object(serde_json::Map::new()));
}

#[test]
fn a_long_head_with_a_body_and_a_body_that_comes_late_go_through() {
    let stage = Stage::start();
    let long = "v".repeat(20 * 1024);
    let answer = stage.http("POST", "/echo", &[("x-long", &long)], b"a body");
    assert_eq!((answer.status, &answer.json()["body_bytes"]), (200, &Value::from(6)));
    let mut connection = Raw::connect(stage.gateway);
    connection.send(&head(&stage, "POST /echo HTTP/1.1\r\nhost: stage.test", "content-length: 6\r\n\r\n"));
    std::thread::sleep(Duration::from_millis(200));
    connection.send(b"a body");
    let answer = connection.answer();
    assert_eq!((answer.status, &answer.json()["body_bytes"]), (200, &Value::from(6)));
    stage.settled(2);
}

#[test]
fn an_old_client_gets_an_answer_of_unknown_length_until_its_connection_ends() {
    let upstream = Scripted::start(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n1\r\n \r\n0\r\n\r\n".to_vec()
    });
    let stage = Stage::with(Setting { upstream: Some(upstream.at), ..Setting::default() });
    let mut connection = Raw::connect(stage.gateway);
    connection.send(&head(&stage, "GET /echo HTTP/1.0\r\nhost: stage.test", "connection: keep-alive\r\n\r\n"));
    let mut came = Vec::new();
    while let Ok(byte) = connection.byte(SOON) {
        came.push(byte);
    }
    let came = String::from_utf8(came).unwrap();
    let (head, body) = came.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "{} ");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && head.contains("\r\nconnection: close"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert_eq!(stage.settled(1).of("ok"), 1);
}
