//! Calls that a service did not process are sent again, and nothing else is: refused streams, and those above the last of a GOAWAY (RFC 9113,
//! section 8.7).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use http::Request;
use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::h2::frame as grpc_frame;
use crate::harness::stage::{GRPC_FETCH, Stage, fetch_message, metadata};
use crate::harness::wire::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, Wire, block, frame,
};

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// What a service does on a connection once a whole request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Reset(u32),
    /// It goes, and has taken no stream above this one.
    Leave(u32),
    Answer,
    /// It resets the stream before the body has come.
    RefuseHead,
}

/// A service that does one thing after the other, each on the next connection, and the last one again and again.
struct Service {
    at: SocketAddr,
    /// The content of each request that came, as far as it came.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Service {
    fn start(does: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        // Ends with the process: nobody connects to it after the test.
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let (does, log) = (does[number.min(does.len() - 1)], Arc::clone(&log));
                thread::spawn(move || serve(stream, does, &log));
            }
        });
        Self { at, seen }
    }

    fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, does: Does, seen: &Mutex<Vec<Vec<u8>>>) {
    let mut wire = Wire::over(stream, PREFACE.len());
    wire.send(&frame(SETTINGS, 0, 0, &[]));
    let mut content = Vec::new();
    while let Some(came) = wire.next(PATIENCE * 2) {
        match came.kind {
            SETTINGS if came.flags & ACK == 0 => wire.send(&frame(SETTINGS, ACK, 0, &[])),
            HEADERS if does == Does::RefuseHead => {
                seen.lock().unwrap().push(Vec::new());
                wire.send(&frame(RST_STREAM, 0, came.stream, &REFUSED_STREAM.to_be_bytes()));
            }
            DATA => content.extend_from_slice(&came.payload),
            _ => {}
        }
        let is_whole = matches!(came.kind, HEADERS | DATA) && came.flags & END_STREAM != 0;
        if !is_whole || does == Does::RefuseHead {
            continue;
        }
        seen.lock().unwrap().push(std::mem::take(&mut content));
        match does {
            Does::Reset(reason) => wire.send(&frame(RST_STREAM, 0, came.stream, &reason.to_be_bytes())),
            Does::Leave(last) => wire.send(&frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())),
            Does::Answer | Does::RefuseHead => {
                let fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")];
                wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, came.stream, &block(&fields)));
            }
        }
    }
}

/// A stage whose service does this, and one call of it: its status by gRPC, and what the service saw.
fn call(does: &'static [Does]) -> (Stage, u8, Vec<Vec<u8>>) {
    let (stage, service) = (Stage::start(), Service::start(does));
    let upstreams = json!({"upstreams": [format!("http://{}", service.at)]});
    stage.operator("PATCH", &format!("/v1/clusters/{}", stage.cluster), &upstreams);
    let answer = stage
        .block_on(async { stage.h2().await.grpc_unary(GRPC_FETCH, &metadata(&stage.key), &fetch_message()).await });
    (stage, answer.status(), service.seen())
}

#[test]
fn a_refused_call_and_one_above_the_last_of_a_goaway_are_sent_again_and_counted_once() {
    let message = grpc_frame(&fetch_message()).to_vec();
    for does in [&[Does::Reset(REFUSED_STREAM), Does::Answer], &[Does::Leave(0), Does::Answer]] {
        let (stage, status, seen) = call(does);
        assert_eq!((status, seen), (0, vec![message.clone(), message.clone()]), "{does:?}");
        let usage = stage.settled(1);
        assert_eq!((usage.of("ok"), usage.request_bytes), (1, message.len() as u64), "{does:?}");
    }
}

#[test]
fn a_call_that_is_refused_before_its_content_came_is_sent_again_whole() {
    let stage = Stage::start();
    let service = Service::start(&[Does::RefuseHead, Does::Answer]);
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
    assert_eq!(service.seen(), [Vec::new(), message.to_vec()]);
    assert_eq!(stage.settled(1).request_bytes, message.len() as u64);
}

#[test]
fn a_call_that_is_refused_again_and_again_is_given_up() {
    let (stage, status, seen) = call(&[Does::Reset(REFUSED_STREAM)]);
    assert_eq!((status, seen.len()), (14, 3));
    assert_eq!(stage.settled(1).of("upstream_error"), 1);
}

#[test]
fn what_the_service_may_have_processed_is_not_sent_again() {
    for does in [&[Does::Reset(CANCEL), Does::Answer], &[Does::Reset(2), Does::Answer]] {
        let (stage, status, seen) = call(does);
        assert_eq!((status, seen.len()), (14, 1), "{does:?}");
        assert_eq!(stage.settled(1).of("upstream_error"), 1);
    }
}
