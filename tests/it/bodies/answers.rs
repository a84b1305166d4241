//! What an answer may look like over HTTP/1.1, and what of it reaches the client; and that no byte of one answer is ever taken for
//! a part of another.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::harness::PATIENCE;
use crate::harness::raw::Raw;
use crate::harness::scripted::Scripted;
use crate::harness::stage::{Setting, Stage};

/// A stage whose service answers `/odd` with these bytes, on connections that stay, and everything else with its path.
fn stage_for(odd: &'static [u8]) -> (Stage, Scripted) {
    let service = Scripted::keeping(move |request| match request.split(' ').nth(1) {
        Some("/odd") => odd.to_vec(),
        path => {
            let path = path.unwrap_or_default();
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len()).into_bytes()
        }
    });
    (Stage::with(Setting { upstream: Some(service.at), ..Setting::default() }), service)
}

#[test]
fn every_framing_comes_through_and_its_connection_is_used_again_only_where_it_can_be() {
    let cases: [(&[u8], u16, &[u8], bool); 8] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, b"abc", true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", 200, b"abc", true),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nx-sum: 1\r\n\r\n", 200, b"abc", true),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", true),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\nx", 201, b"x", true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc", 200, b"abc", false),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, b"abc", false),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 9\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, b"abc", false),
    ];
    for (odd, status, body, keeps) in cases {
        let what = String::from_utf8_lossy(odd);
        let (stage, _service) = stage_for(odd);
        for _ in 0..3 {
            let answer = stage.http("POST", "/odd", &[], b"x");
            assert_eq!((answer.status, &answer.body[..]), (status, body), "{what}");
            let framings = ["transfer-encoding", "content-length"]
                .map(|name| answer.headers.iter().filter(|(known, _)| known == name).count());
            assert!(framings.iter().sum::<usize>() <= 1, "{what}");
        }
        let made = stage.metric("tollgate_upstream_connects_total");
        // Two data-plane threads have a pool each.
        assert_eq!(made <= 2, keeps, "{what}: {made} connections for 3 calls");
        assert_eq!(stage.settled(3).of("ok"), 3, "{what}");
    }
}

#[test]
fn what_follows_an_answer_is_never_taken_for_the_next_one() {
    let evil = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let (stage, _service) = stage_for(evil);
    let mut connection = Raw::connect(stage.gateway);
    for round in 0..50 {
        for (path, expected) in [("/odd", "abc"), ("/plain", "/plain")] {
            connection.send(&stage.request("GET", path, &[], b""));
            let answer = connection.answer();
            assert_eq!(String::from_utf8_lossy(&answer.body), expected, "round {round}");
        }
    }
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_a_bad_gateway() {
    let cases: [&[u8]; 9] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx y: z\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ];
    for odd in cases {
        let what = String::from_utf8_lossy(odd);
        let (stage, _service) = stage_for(odd);
        let answer = stage.http("POST", "/odd", &[], b"x");
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (502, Some(-3013)), "{what}");
        assert_eq!(stage.settled(1).of("upstream_error"), 1, "{what}");
    }
}

#[test]
fn a_body_that_breaks_its_framing_breaks_off_at_the_client_too() {
    let cases: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcX",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ];
    for odd in cases {
        let what = String::from_utf8_lossy(odd);
        let (stage, _service) = stage_for(odd);
        let mut connection = Raw::connect(stage.gateway);
        connection.send(&stage.request("GET", "/odd", &[], b""));
        assert!(connection.try_answer(std::time::Duration::from_secs(10)).is_err(), "{what}");
        assert_eq!(stage.settled(1).of("upstream_error"), 1, "{what}");
    }
}

#[test]
fn a_service_that_answers_before_it_has_the_whole_request_gets_the_rest_of_it() {
    const BODY: usize = 300_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let service = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        let head_end = loop {
            let read = stream.read(&mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..read]);
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
        };
        stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").unwrap();
        while bytes.len() < head_end + BODY {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the request broke off after {} bytes", bytes.len() - head_end);
            bytes.extend_from_slice(&buffer[..read]);
        }
        bytes.len() - head_end
    });
    let stage = Stage::with(Setting { upstream: Some(at), ..Setting::default() });
    let whole = stage.request("POST", "/odd", &[], &vec![b'x'; BODY]);
    let (first, rest) = whole.split_at(whole.len() - BODY / 2);
    let mut connection = Raw::connect(stage.gateway);
    connection.send(first);
    assert_eq!(connection.answer().status, 202);
    connection.send(rest);
    assert_eq!(service.join().unwrap(), BODY);
    assert_eq!(stage.settled(1).of("ok"), 1);
}
