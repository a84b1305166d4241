//! Bodies that are too large: declared, or found out while they stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tollgate::verdict::Denial;

use super::ask::{Ask, GET_VERSION, Said, Wire, block_on, pairs};
use super::forms::said;
use crate::harness::PATIENCE;
use crate::harness::raw::{self, Raw};
use crate::world::{DEFAULT_HOST, World};

const SMALL: &str = "[gateway.limits]\nhttp_body_bytes = \"4KiB\"\ngrpc_message_bytes = \"8KiB\"\n";

#[test]
fn a_length_that_is_too_large_is_refused_before_anything_is_passed_on() {
    let world = World::start("", SMALL);
    let (_, key) = world.owner(DEFAULT_HOST);
    for wire in Wire::ALL {
        let fits = if wire == Wire::Grpc { 8 << 10 } else { 4 << 10 };
        Ask::with_key(&key.text).body(vec![b'x'; fits + 1]).over(wire, world.gateway).is(Denial::BodyTooLarge);
        // Without a key too: the form comes first.
        Ask::default().body(vec![b'x'; fits + 1]).over(wire, world.gateway).is(Denial::BodyTooLarge);
    }
    // The whole of it, so that a client that does not read before it has written everything gets its answer.
    let large = vec![b'x'; 4 << 20];
    Ask::with_key(&key.text).body(large.clone()).over(Wire::Http1, world.gateway).is(Denial::BodyTooLarge);
    Ask::default().body(large).over(Wire::Http2, world.gateway).is(Denial::BodyTooLarge);

    Ask::with_key(&key.text).over(Wire::Http1, world.gateway).is_good();
    assert_eq!(world.ledger(1).values().sum::<u64>(), 1);
    assert_eq!(world.sample.calls(), 1);
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends() {
    let world = World::start("", SMALL);
    let (_, key) = world.owner(DEFAULT_HOST);
    let asking = |key: &str| {
        format!(
            "POST /service_version HTTP/1.1\r\nhost: default.test\r\ndashvector-auth-token: {key}\r\n\
             content-length: 5000\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    for key in [key.text.as_str(), "unknown"] {
        let mut connection = Raw::connect(world.gateway);
        connection.send(asking(key).as_bytes());
        said(connection.answer()).is(Denial::BodyTooLarge);
    }
}

#[test]
fn a_body_that_grows_too_large_over_http1_is_cut_and_counted_as_aborted() {
    let world = World::start("", SMALL);
    let (_, key) = world.owner(DEFAULT_HOST);
    for pieces in [5, 64, 1024] {
        let headers = [("host", DEFAULT_HOST), ("dashvector-auth-token", &*key.text), ("transfer-encoding", "chunked")];
        let mut connection = Raw::connect(world.gateway);
        connection.send(&raw::request(world.gateway, "POST", "/echo", &headers, b""));
        let piece = [b"400\r\n", &[b'x'; 1024][..], b"\r\n"].concat();
        for _ in 0..pieces {
            connection.try_send(&piece).unwrap_or_else(|error| panic!("of {pieces} pieces: {error}"));
        }
        let _ = connection.try_send(b"0\r\n\r\n");
        said(connection.try_answer(PATIENCE).unwrap_or_else(|error| panic!("{pieces} pieces: {error}")))
            .is(Denial::BodyTooLarge);
    }
    assert_eq!(world.ledger(3), [(("other".to_owned(), "aborted".to_owned()), 3)].into());
}

#[test]
fn a_body_that_grows_too_large_over_http2_is_cut_and_counted_as_aborted() {
    let world = World::start("", SMALL);
    let (_, key) = world.owner(DEFAULT_HOST);
    for (pieces, size) in [(5, 1024), (64, 1024)] {
        let http = streamed(&world, Wire::Http2, &key.text, pieces, size);
        http.is(Denial::BodyTooLarge);
        let grpc = streamed(&world, Wire::Grpc, &key.text, pieces * 2, size);
        grpc.is(Denial::BodyTooLarge);
    }
    let aborted = |operation: &str| ((operation.to_owned(), "aborted".to_owned()), 2);
    assert_eq!(world.ledger(4), [aborted("other"), aborted("get_version")].into());
}

#[test]
fn a_body_of_exactly_the_limit_passes() {
    let world = World::start("", SMALL);
    let (_, key) = world.owner(DEFAULT_HOST);
    let headers = [("dashvector-auth-token", key.text.as_str())];
    let answer = world.call("POST", "/echo", &headers, &[b'x'; 4 << 10]);
    assert_eq!((answer.status, &answer.json()["body_bytes"]), (200, &serde_json::json!(4 << 10)), "{}", answer.head);
}

/// A call whose body comes in pieces, without a length.
fn streamed(world: &World, wire: Wire, key: &str, pieces: usize, size: usize) -> Said {
    let path = if wire == Wire::Grpc { GET_VERSION } else { "/echo" };
    let mut request = Request::post(format!("http://{}{path}", world.gateway)).header("dashvector-auth-token", key);
    if wire == Wire::Grpc {
        request = request.header("content-type", "application/grpc").header("te", "trailers");
    }
    let request = request.body(Pieces { left: pieces, size }).unwrap();
    let exchange = async {
        let io = TokioIo::new(TcpStream::connect(world.gateway).await.unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let trailers_only = body.trailers().is_none() && wire == Wire::Grpc;
        let mut headers = pairs(&head.headers);
        headers.sort();
        Said { wire, status: head.status.as_u16(), headers, body: body.to_bytes().to_vec(), trailers_only }
    };
    block_on(async { tokio::time::timeout(PATIENCE, exchange).await.expect("no answer in time") })
}

/// Pieces of a body, each at its own turn. Over gRPC the first begins a message longer than all of them.
struct Pieces {
    left: usize,
    size: usize,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; self.size])))))
    }
}
