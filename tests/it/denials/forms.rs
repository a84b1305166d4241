//! The form of a request: what is too large, and what could be read in two ways.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tollgate::verdict::Denial;

use super::ask::{Ask, GET_VERSION, Said, Wire, block_on};
use crate::harness::h2::H2;
use crate::harness::raw::{self, Answer, Raw};
use crate::world::{DEFAULT_HOST, World};

fn only_one_good_call(world: &World, key: &str) {
    Ask::with_key(key).over(Wire::Http1, world.gateway).is_good();
    assert_eq!(world.ledger(1).values().sum::<u64>(), 1);
    assert_eq!(world.sample.calls(), 1);
}

#[test]
fn a_head_that_is_too_large_is_refused_in_every_protocol() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let (large, query) = ("x".repeat(33 * 1024), format!("?ids={}", "x".repeat(9 * 1024)));
    let names: Vec<String> = (0..120).map(|number| format!("x-field-{number}")).collect();
    for wire in Wire::ALL {
        Ask::with_key(&key.text).and("x-large", &large).over(wire, world.gateway).is(Denial::HeadersTooLarge);
        Ask::with_key(&key.text).query(&query).over(wire, world.gateway).is(Denial::HeadersTooLarge);
        let many = names.iter().fold(Ask::with_key(&key.text), |ask, name| ask.and(name, "1"));
        many.over(wire, world.gateway).is(Denial::HeadersTooLarge);
        // Without a key too: the form comes first.
        Ask::default().and("x-large", &large).over(wire, world.gateway).is(Denial::HeadersTooLarge);
    }
    only_one_good_call(&world, &key.text);
}

#[test]
fn what_no_limit_of_ours_lets_through_is_still_refused_as_too_large() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    // Beyond what the parsers below us take in.
    for bytes in [100 << 10, 1 << 20] {
        let large = "x".repeat(bytes);
        let ask = Ask::with_key(&key.text).and("x-large", &large);
        let mut connection = Raw::connect(world.gateway);
        let headers: Vec<_> = ask.headers.clone();
        let _ = connection.try_send(&raw::request(world.gateway, "GET", "/service_version", &headers, b""));
        let answer = connection.try_answer(Duration::from_secs(5));
        assert_eq!(answer.map(|answer| answer.status).unwrap_or(431), 431, "{bytes}");
    }
    only_one_good_call(&world, &key.text);
}

#[test]
fn what_can_be_read_in_two_ways_is_malformed() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    for wire in Wire::ALL {
        let ask = || Ask::with_key(&key.text);
        for host in ["a..", "u@a.test", "a.test:80:80", "a%2eb", "[::1", "a_b..c:x"] {
            if wire == Wire::Http1 {
                ask().to(host).over(wire, world.gateway).is(Denial::Malformed);
            }
        }
        ask().to("default.test:99999").over(wire, world.gateway).is(Denial::Malformed);
        if wire != Wire::Http1 {
            // The authority says one thing, `Host` another.
            ask().and("host", "other.test").over(wire, world.gateway).is(Denial::Malformed);
        }
        if wire == Wire::Grpc {
            for timeout in ["", "3", "3s", "-3S", "123456789S", "3S,4S"] {
                ask().and("grpc-timeout", timeout).over(wire, world.gateway).is(Denial::Malformed);
            }
            ask().and("grpc-timeout", "3S").and("grpc-timeout", "4S").over(wire, world.gateway).is(Denial::Malformed);
        }
    }
    only_one_good_call(&world, &key.text);
}

#[test]
fn http1_requests_of_an_ambiguous_form_are_malformed() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let head = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nhost: default.test\r\ndashvector-auth-token: {}\r\n{more}\r\n", key.text)
    };
    let get = "GET /service_version";
    for request in [
        head("OPTIONS *", ""),
        head("TRACE /service_version", ""),
        head("CONNECT a.test:443", ""),
        head(get, "host: default.test\r\n"),
        head(get, "upgrade: websocket\r\nconnection: upgrade\r\n"),
        head("POST /service_version", "transfer-encoding: gzip, chunked\r\n"),
        head("GET http://other.test/service_version", ""),
        format!("GET /service_version HTTP/1.1\r\ndashvector-auth-token: {}\r\n\r\n", key.text),
    ] {
        let mut connection = Raw::connect(world.gateway);
        connection.send(request.as_bytes());
        said(connection.answer()).is(Denial::Malformed);
    }
    only_one_good_call(&world, &key.text);
}

#[test]
fn http1_that_cannot_be_parsed_is_refused_and_the_connection_closed() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let head = |more: &str| {
        format!(
            "POST /service_version HTTP/1.1\r\nhost: default.test\r\ndashvector-auth-token: {}\r\n{more}\r\n",
            key.text
        )
    };
    for request in [
        head("x-a: b\rc\r\ncontent-length: 0\r\n"),
        head("x-a: b\r\n folded\r\ncontent-length: 0\r\n"),
        head("x-a : b\r\ncontent-length: 0\r\n"),
        head("x-a: \0\r\ncontent-length: 0\r\n"),
        head("content-length: 1\r\ncontent-length: 2\r\n"),
        head("content-length: +1\r\n"),
        head("transfer-encoding: chunked, gzip\r\n"),
        "GET /\x7f HTTP/1.1\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ] {
        let mut connection = Raw::connect(world.gateway);
        connection.send(request.as_bytes());
        said(connection.answer()).is(Denial::Malformed);
        assert!(connection.closes(Duration::from_secs(5)), "{request:?}");
    }
    only_one_good_call(&world, &key.text);
}

#[test]
fn a_denied_head_has_no_body_and_the_connection_goes_on() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    let mut connection = Raw::connect(world.gateway);
    connection.send(&raw::request(world.gateway, "HEAD", "/service_version", &[], b""));
    let head = connection.answer_without_body();
    assert_eq!(head.status, 401, "{}", head.head);
    let good = [("dashvector-auth-token", key.text.as_str())];
    connection.send(&raw::request(world.gateway, "GET", "/service_version", &good, b""));
    said(connection.answer()).is_good();
    assert_eq!(world.ledger(1).values().sum::<u64>(), 1);
}

#[test]
fn denied_and_good_calls_share_one_http2_connection() {
    let world = World::start("", "");
    let (_, key) = world.owner(DEFAULT_HOST);
    block_on(async {
        let mut connection = H2::connect(world.gateway).await;
        for round in 0..20 {
            let denied = connection.grpc_unary(GET_VERSION, &[("dashvector-auth-token", "unknown")], b"").await;
            Said::of_grpc(denied).is(Denial::NotValid);
            let good = connection.grpc_unary(GET_VERSION, &[("dashvector-auth-token", &key.text)], b"").await;
            Said::of_grpc(good).is_good();
            let request = Request::get(format!("http://{}/service_version", world.gateway));
            let denied = connection.call(request.body(Bytes::new()).unwrap()).await;
            assert_eq!(denied.status, 401, "round {round}: {denied:?}");
        }
    });
    assert_eq!(world.ledger(20).values().sum::<u64>(), 20);
}

pub fn said(answer: Answer) -> Said {
    let mut headers = answer.headers;
    headers.sort();
    Said { wire: Wire::Http1, status: answer.status, headers, body: answer.body, trailers_only: false }
}
