//! Calls that a service did not process are sent again, and nothing else is: refused streams, and those above the last of a GOAWAY (RFC 9113,
//! section 8.7).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use http::Request;
use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::h2::frame as grpc_frame;
use crate::harness::stage::{GRPC_FETCH, Stage, fetch_message, metadata};
use crate::harness::wire::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, block,
    frame,
};

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// What a service does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Once all of it has come, as [`Does::Leave`] and [`Does::Answer`].
    Reset(u32),
    /// It goes, and has taken no stream above this one.
    Leave(u32),
    Answer,
    /// It resets the stream before the body has come.
    RefuseHead,
    Nothing,
}

/// A service that does one thing with the first request, and so on, and the last one again and again.
#[derive(Clone)]
struct Service {
    at: SocketAddr,
    does: &'static [Does],
    begun: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    /// The content of each request, as far as it came.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Service {
    fn start(does: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let service = Self { at, does, begun: Arc::default(), connections: Arc::default(), seen: Arc::default() };
        let serving = service.clone();
        // Ends with the process: nobody connects to it after the test.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        service
    }

    fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }

    fn serve(&self, stream: TcpStream) {
        let mut wire = Wire::over(stream, PREFACE.len());
        wire.send(&frame(SETTINGS, 0, 0, &[]));
        // One request after the other.
        let (mut does, mut content) = (Does::Answer, Vec::new());
        while let Some(came) = wire.next(PATIENCE * 2) {
            match came.kind {
                SETTINGS if came.flags & ACK == 0 => wire.send(&frame(SETTINGS, ACK, 0, &[])),
                HEADERS => {
                    let number = self.begun.fetch_add(1, Ordering::Relaxed);
                    (does, content) = (self.does[number.min(self.does.len() - 1)], Vec::new());
                    if does == Does::RefuseHead {
                        self.seen.lock().unwrap().push(Vec::new());
                        wire.send(&frame(RST_STREAM, 0, came.stream, &REFUSED_STREAM.to_be_bytes()));
                    }
                }
                DATA => {
                    content.extend_from_slice(&came.payload);
                    let more = u32::try_from(came.payload.len()).unwrap();
                    if more > 0 && does != Does::Nothing {
                        wire.send(&frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes()));
                    }
                }
                _ => continue,
            }
            if came.flags & END_STREAM == 0 || came.kind == SETTINGS || does == Does::RefuseHead {
                continue;
            }
            self.seen.lock().unwrap().push(std::mem::take(&mut content));
            match does {
                Does::Reset(reason) => wire.send(&frame(RST_STREAM, 0, came.stream, &reason.to_be_bytes())),
                Does::Leave(last) => wire.send(&frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())),
                Does::Nothing => {}
                Does::Answer | Does::RefuseHead => {
                    let fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")];
                    wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, came.stream, &block(&fields)));
                }
            }
        }
    }
}

/// A stage whose service does this, and one call of it: its status by gRPC, and what the service saw.
fn call(does: &'static [Does]) -> (Stage, u8, Service) {
    let (stage, service) = (Stage::start(), Service::start(does));
    let upstreams = json!({"upstreams": [format!("http://{}", service.at)]});
    stage.operator("PATCH", &format!("/v1/clusters/{}", stage.cluster), &upstreams);
    let answer = stage
        .block_on(async { stage.h2().await.grpc_unary(GRPC_FETCH, &metadata(&stage.key), &fetch_message()).await });
    (stage, answer.status(), service)
}

#[test]
fn a_refused_call_and_one_above_the_last_of_a_goaway_are_sent_again_and_counted_once() {
    let message = grpc_frame(&fetch_message()).to_vec();
    // A connection that stands is used again; one that is left is not.
    for (does, connections) in [(&[Does::Reset(REFUSED_STREAM), Does::Answer], 1), (&[Does::Leave(0), Does::Answer], 2)]
    {
        let (stage, status, service) = call(does);
        assert_eq!((status, service.seen()), (0, vec![message.clone(), message.clone()]), "{does:?}");
        assert_eq!(service.connections.load(Ordering::Relaxed), connections, "{does:?}");
        let usage = stage.settled(1);
        assert_eq!((usage.of("ok"), usage.request_bytes), (1, message.len() as u64), "{does:?}");
    }
}

#[test]
fn a_call_that_is_refused_more_than_once_is_sent_again_whole_however_much_of_it_had_come() {
    let stage = Stage::start();
    let service = Service::start(&[Does::Reset(REFUSED_STREAM), Does::RefuseHead, Does::Answer]);
    let upstreams = json!({"upstreams": [format!("http://{}", service.at)]});
    stage.operator("PATCH", &format!("/v1/clusters/{}", stage.cluster), &upstreams);
    // More than one read of the gateway, and less than it keeps.
    let message = grpc_frame(&[7; 40_000]);
    let answer = stage.block_on(async {
        let request = Request::post(format!("http://{}{GRPC_FETCH}", stage.gateway))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request =
            metadata(&stage.key).into_iter().fold(request, |request, (name, value)| request.header(name, value));
        stage.h2().await.call(request.body(message.clone()).unwrap()).await
    });
    assert_eq!(answer.headers["grpc-status"], "0", "{answer:?}");
    assert_eq!(service.seen(), [message.to_vec(), Vec::new(), message.to_vec()]);
    assert_eq!(stage.settled(1).request_bytes, message.len() as u64);
}

#[test]
fn a_call_that_is_refused_again_and_again_is_given_up() {
    let (stage, status, service) = call(&[Does::Reset(REFUSED_STREAM)]);
    assert_eq!((status, service.seen().len(), service.connections.load(Ordering::Relaxed)), (14, 3, 1));
    let usage = stage.settled(1);
    assert_eq!((usage.of("upstream_error"), usage.request_bytes), (1, grpc_frame(&fetch_message()).len() as u64));
}

#[test]
fn what_the_service_may_have_processed_is_not_sent_again() {
    for does in [&[Does::Reset(CANCEL), Does::Answer], &[Does::Reset(2), Does::Answer]] {
        let (stage, status, service) = call(does);
        assert_eq!((status, service.seen().len()), (14, 1), "{does:?}");
        assert_eq!(stage.settled(1).of("upstream_error"), 1);
    }
}

#[test]
fn a_connection_that_is_silent_for_long_carries_no_more_calls() {
    let stage = Stage::limited("upstream_first_byte = \"500ms\"");
    let service = Service::start(&[Does::Answer, Does::Nothing]);
    let upstreams = json!({"upstreams": [format!("http://{}", service.at)]});
    stage.operator("PATCH", &format!("/v1/clusters/{}", stage.cluster), &upstreams);
    stage.block_on(async {
        // One connection, so that one thread of the gateway has all calls: each has connections of its own.
        let client = stage.h2().await;
        let call =
            async || client.clone().grpc_unary(GRPC_FETCH, &metadata(&stage.key), &fetch_message()).await.status();
        assert_eq!(call().await, 0);
        let (began, mut calls) = (Instant::now(), 1);
        while service.connections.load(Ordering::Relaxed) == 1 {
            assert_eq!(call().await, 4, "no answer in time");
            calls += 1;
            assert!(began.elapsed() < PATIENCE, "after {calls} calls it is used still");
        }
        assert!(calls > 5, "one call that took long is not enough");
    });
}
