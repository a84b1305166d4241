//! One call over HTTP and one over gRPC, and what the ledger must say of the two together.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;

use crate::harness::PATIENCE;
use crate::harness::h2::{self, frame};
use crate::harness::raw::{Answer, Raw};
use crate::harness::stage::{COLLECTION, GRPC_FETCH, Setting, Stage, Usage, fetch_message, metadata};
use crate::harness::wire::{self, Wire};

/// An upsert: the call over HTTP.
const UPSERT: &str = "/v1/collections/things/docs/upsert";
pub const BODY: &[u8] = b"{\"docs\":[{\"id\":\"2\",\"vector\":[1,2,3,4]}]}";
/// Write units of the one, read units of the other.
pub const HTTP_UNITS: u64 = 1;
pub const MESSAGE_UNITS: u64 = 2;

/// With these lines of `[gateway.limits]`.
pub fn stage(limits: &str) -> Stage {
    Stage::limited(limits)
}

pub fn in_front_of(upstream: SocketAddr) -> Stage {
    Stage::with(Setting { upstream: Some(upstream), ..Setting::default() })
}

pub fn request(stage: &Stage, more: &[(&str, &str)]) -> Vec<u8> {
    stage.request("POST", UPSERT, more, BODY)
}

/// The upsert, on a connection of its own; an error where the answer does not come to its end.
pub fn http(stage: &Stage, more: &[(&str, &str)]) -> io::Result<Answer> {
    let mut client = Raw::connect(stage.gateway);
    client.send(&request(stage, more));
    client.try_answer(PATIENCE)
}

/// The message of the call over gRPC, with its prefix.
pub fn message() -> Bytes {
    frame(&fetch_message())
}

pub fn fetch(stage: &Stage, more: &[(&str, &str)]) -> Request<Bytes> {
    let mut request = Request::post(format!("http://stage.test{GRPC_FETCH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata(&stage.key).iter().chain(more) {
        request = request.header(*name, *value);
    }
    request.body(message()).unwrap()
}

/// The fetch, on a connection of its own; an error where the answer does not come to its end.
pub fn grpc(stage: &Stage, more: &[(&str, &str)]) -> Result<h2::Answer, hyper::Error> {
    stage.block_on(async { stage.h2().await.try_call(fetch(stage, more)).await })
}

/// A gRPC call that is not sent to its end.
pub struct Pieces(Wire);

pub fn pieces(stage: &Stage, bytes: &[u8]) -> Pieces {
    let more = [("dashvector-auth-token", stage.key.as_str()), ("collection-name", COLLECTION)];
    let fields = wire::grpc_fields("stage.test", GRPC_FETCH, &more);
    let mut client = Wire::greet(stage.gateway);
    client.send(&wire::frame(wire::HEADERS, wire::END_HEADERS, 1, &wire::block(&fields)));
    client.send(&wire::frame(wire::DATA, 0, 1, bytes));
    Pieces(client)
}

impl Pieces {
    /// RST_STREAM with CANCEL.
    pub fn reset(&mut self) {
        self.0.send(&wire::frame(wire::RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    }
}

/// Waits until so many calls have come to the service.
pub fn await_calls(stage: &Stage, calls: u64) {
    let deadline = Instant::now() + PATIENCE;
    while stage.sample.counts().total.calls < calls {
        assert!(Instant::now() < deadline, "the calls do not reach the service");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// All usage, once so many calls are opened.
pub fn in_ledger(control: SocketAddr, calls: u64) -> Usage {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let usage = Usage::of_records(control, "");
        if usage.opened >= calls && usage.committed() >= calls {
            return usage;
        }
        assert!(Instant::now() < deadline, "{calls} calls are not in {usage:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What must be counted of the two calls: opened twice, the outcome twice, and nothing that is not said.
#[derive(Clone, Copy)]
pub struct Counted {
    outcome: &'static str,
    request_bytes: u64,
    response_bytes: u64,
    /// The bytes of the answers may be fewer.
    up_to: bool,
    units: (u64, u64),
    missing: u64,
}

impl Counted {
    /// With all that the clients sent.
    pub fn of(outcome: &'static str) -> Self {
        let request_bytes = (BODY.len() + message().len()) as u64;
        Self { outcome, request_bytes, response_bytes: 0, up_to: false, units: (0, 0), missing: 0 }
    }

    pub fn nothing_sent(self) -> Self {
        Self { request_bytes: 0, ..self }
    }

    pub fn asks(self, request_bytes: u64) -> Self {
        Self { request_bytes, ..self }
    }

    pub fn answers(self, response_bytes: usize) -> Self {
        Self { response_bytes: response_bytes as u64, ..self }
    }

    pub fn answers_up_to(self, most: u64) -> Self {
        Self { response_bytes: most, up_to: true, ..self }
    }

    pub fn units(self) -> Self {
        Self { units: (MESSAGE_UNITS, HTTP_UNITS), ..self }
    }

    pub fn missing(self, missing: u64) -> Self {
        Self { missing, ..self }
    }

    #[track_caller]
    pub fn is_all_of(self, stage: &Stage) -> Usage {
        self.is_more_than(&Usage::default(), stage)
    }

    #[track_caller]
    pub fn is_more_than(self, before: &Usage, stage: &Stage) -> Usage {
        let usage = stage.settled(before.opened + 2);
        let calls = |of: &Usage| (of.opened, of.committed(), of.of(self.outcome), of.interrupted);
        let (was, is) = (calls(before), calls(&usage));
        assert_eq!((is.0 - was.0, is.1 - was.1, is.2 - was.2, is.3), (2, 2, 2, 0), "{usage:?}");
        assert_eq!(usage.request_bytes - before.request_bytes, self.request_bytes, "{usage:?}");
        let answers = usage.response_bytes - before.response_bytes;
        let expected = if self.up_to { answers.min(self.response_bytes) } else { self.response_bytes };
        assert_eq!(answers, expected, "{usage:?}");
        let units = (usage.read_units - before.read_units, usage.write_units - before.write_units);
        assert_eq!((units, usage.units_missing - before.units_missing), (self.units, self.missing), "{usage:?}");
        usage
    }
}
