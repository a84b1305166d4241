//! A graceful stop: what was sent is answered, what runs too long is cut and counted, and nothing else is waited for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::harness::h1::{H1, Lost};
use crate::harness::h2::{H2, frame};
use crate::harness::process::Signal;
use crate::harness::raw::{self, Raw};
use crate::harness::stage::{FETCH, GRPC_FETCH, Stage, fetch_message, metadata};
use crate::harness::wire::{GOAWAY, Wire};

const KEEP_ALIVE: usize = 16;
const NEW_EACH_TIME: usize = 8;
const CONNECTIONS: usize = 8;
const STREAMS: usize = 16;

/// What the clients saw.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    /// Keep-alive connections that were told of their end.
    told: AtomicU64,
    lost: AtomicU64,
    /// New connections that the kernel took and nobody served.
    unserved: AtomicU64,
}

impl Tally {
    fn answer(&self, status: u16) {
        assert_eq!(status, 200);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Calls until the connection is ended in an orderly way.
async fn keep_alive(at: SocketAddr, key: String, tally: Arc<Tally>) {
    let mut client = H1::connect(at).await;
    loop {
        match client.call("GET", FETCH, &[("dashvector-auth-token", &key)], "").await {
            Ok(answer) => {
                tally.answer(answer.status.as_u16());
                if answer.closes {
                    tally.told.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
            Err(error) => {
                println!("a call on a kept connection was lost: {error:?}");
                tally.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Calls on a new connection each time, until nobody listens.
async fn new_each_time(at: SocketAddr, key: String, tally: Arc<Tally>) {
    loop {
        let mut client = match H1::try_connect(at).await {
            Ok(client) => client,
            Err(Lost::Connect(_)) => return,
            Err(Lost::Call(error)) => panic!("{error}"),
        };
        match client.call("GET", FETCH, &[("dashvector-auth-token", &key), ("connection", "close")], "").await {
            Ok(answer) => tally.answer(answer.status.as_u16()),
            Err(error) => {
                println!("a call on a new connection was lost: {error:?}");
                tally.unserved.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Calls on one stream after the other, until the connection takes no more.
async fn one_stream_each(mut sender: SendRequest<Full<Bytes>>, key: String, tally: Arc<Tally>) {
    while sender.ready().await.is_ok() {
        let mut request = Request::post(format!("http://stage.test{GRPC_FETCH}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata(&key) {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(frame(&fetch_message()))).unwrap();
        let answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            Err(mut error) => {
                if error.take_message().is_none() && !was_not_processed(error.error()) {
                    println!("a stream was lost: {:?}", error.error());
                    tally.lost.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
        };
        match answer.into_body().collect().await {
            Ok(body) if body.trailers().is_some_and(|trailers| trailers["grpc-status"] == "0") => tally.answer(200),
            other => {
                println!("an answer was lost: {other:?}");
                tally.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The gateway said GOAWAY below this stream, which is as good as not sent.
fn was_not_processed(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote())
}

async fn streams(at: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[test]
fn a_stop_under_load_loses_no_call_and_waits_for_nothing_else() {
    let mut stage = Stage::limited("shutdown = \"60s\"");
    let tally = Arc::new(Tally::default());
    let (at, key) = (stage.gateway, stage.key.clone());
    let process = stage.process.take().unwrap();
    let stopped = stage.block_on(async {
        let mut clients = JoinSet::new();
        (0..KEEP_ALIVE).for_each(|_| drop(clients.spawn(keep_alive(at, key.clone(), Arc::clone(&tally)))));
        (0..NEW_EACH_TIME).for_each(|_| drop(clients.spawn(new_each_time(at, key.clone(), Arc::clone(&tally)))));
        for _ in 0..CONNECTIONS {
            let sender = streams(at).await;
            (0..STREAMS)
                .for_each(|_| drop(clients.spawn(one_stream_each(sender.clone(), key.clone(), Arc::clone(&tally)))));
        }
        tokio::time::sleep(Duration::from_millis(1000)).await;
        process.signal(Signal::TERM);
        let stopped = Instant::now();
        clients.join_all().await;
        stopped
    });
    let status = process.ended(Duration::from_secs(20));
    let took = stopped.elapsed();
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{} calls answered; {} connections told; ended {took:?} after the signal",
        of(&tally.answered),
        of(&tally.told)
    );
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!((of(&tally.lost), of(&tally.told)), (0, KEEP_ALIVE as u64));
    // Between the last accept and the close of a listener the kernel may take one more connection.
    assert!(of(&tally.unserved) <= 1, "{}", of(&tally.unserved));
    stage.restart();
    assert_eq!(stage.settled(of(&tally.answered)).of("ok"), of(&tally.answered));
}

#[test]
fn a_stop_waits_for_a_call_in_flight_and_cuts_and_counts_one_that_takes_too_long() {
    let mut stage = Stage::limited("shutdown = \"4s\"");
    let process = stage.process.take().unwrap();
    let send = |delay: &str| {
        let mut client = Raw::connect(stage.gateway);
        client.send(&stage.request("GET", FETCH, &[("x-sample-delay-ms", delay)], b""));
        client
    };
    let (mut short, mut long) = (send("2000"), send("60000"));
    let key = stage.key.clone();
    let (at, deadline) = (stage.gateway, Instant::now() + Duration::from_secs(10));
    let grpc = |delay: &'static str| {
        let key = key.clone();
        async move {
            let more = [&metadata(&key)[..], &[("x-sample-delay-ms", delay)]].concat();
            let mut request = Request::post(format!("http://stage.test{GRPC_FETCH}")).header("te", "trailers");
            for (name, value) in more.iter().chain(&[("content-type", "application/grpc")]) {
                request = request.header(*name, *value);
            }
            H2::connect(at).await.try_call(request.body(frame(&fetch_message())).unwrap()).await
        }
    };
    let (short_grpc, long_grpc, stopped) = stage.block_on(async {
        let (short, long) = (tokio::spawn(grpc("2000")), tokio::spawn(grpc("60000")));
        while stage.sample.counts().total.calls < 4 {
            assert!(Instant::now() < deadline, "the calls do not reach the service");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.signal(Signal::TERM);
        let stopped = Instant::now();
        let short = short.await.unwrap();
        // Nobody else comes in meanwhile.
        assert!(tokio::net::TcpStream::connect(at).await.is_err(), "the listener is still open");
        (short, long.await.unwrap(), stopped)
    });
    let answer = short.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(short_grpc.unwrap().trailers.unwrap()["grpc-status"], "0");
    assert!(long_grpc.is_err(), "{long_grpc:?}");
    assert!(long.try_answer(Duration::from_secs(10)).is_err());
    assert_eq!(process.ended(Duration::from_secs(10)).code(), Some(0));
    let took = stopped.elapsed();
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(9), "{took:?}");
    stage.restart();
    let usage = stage.settled(4);
    println!("{:?} after {took:?}", usage.calls);
    assert_eq!((usage.of("ok"), usage.interrupted, usage.committed()), (2, 0, 4), "{usage:?}");
}

#[test]
fn connections_without_a_call_do_not_hold_a_stop() {
    let mut stage = Stage::limited("shutdown = \"60s\"");
    let process = stage.process.take().unwrap();
    let silent = Raw::connect(stage.gateway);
    let mut kept = Raw::connect(stage.gateway);
    kept.send(&stage.request("GET", FETCH, &[], b""));
    assert_eq!(kept.answer().status, 200);
    let mut half = Raw::connect(stage.gateway);
    half.send(b"GET / HTTP/1.1\r\nhost: stage.te");
    let mut frames = Wire::greet(stage.gateway);
    assert!(frames.next(Duration::from_secs(10)).is_some());
    process.signal(Signal::TERM);
    let stopped = Instant::now();
    assert!(frames.next_of(GOAWAY, Duration::from_secs(10)).is_some(), "no GOAWAY");
    assert!(kept.closes(Duration::from_secs(10)));
    assert_eq!(process.ended(Duration::from_secs(10)).code(), Some(0));
    println!("ended {:?} after the signal, with four connections open", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(6), "{:?}", stopped.elapsed());
    drop((silent, half));
}

#[test]
fn a_node_that_drains_is_not_ready_any_more() {
    let mut stage = Stage::limited("shutdown = \"60s\"");
    let process = stage.process.take().unwrap();
    let mut call = Raw::connect(stage.gateway);
    call.send(&stage.request("GET", FETCH, &[("x-sample-delay-ms", "1500")], b""));
    let deadline = Instant::now() + Duration::from_secs(10);
    while stage.sample.counts().total.calls < 1 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    process.signal(Signal::TERM);
    while raw::call(stage.control, "GET", "/readyz", &[], b"").status != 503 {
        assert!(Instant::now() < deadline, "still ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(call.answer().status, 200);
    assert_eq!(process.ended(Duration::from_secs(10)).code(), Some(0));
}
