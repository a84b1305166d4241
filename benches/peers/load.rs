//! What is sent: requests made beforehand, and what has to come back.

use bytes::Bytes;
use http::{HeaderValue, Request};

use crate::keys::Keys;
use crate::upstream::{KEY, Size};

pub const HOST: &str = "bench.test";
const BODY_BYTES: usize = 60;
const METHOD: &str = "http://bench.test/proxima.dashvector.proto.DashVectorService/query_doc";

/// How calls reach a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1 on so many connections at once. A call on a fresh connection has it for itself, and the client closes it, as the Python SDK
    /// does; under TLS that is a whole handshake of TLS 1.3.
    Http { connections: usize, fresh: bool, tls: bool },
    /// Unary calls on connections of HTTP/2 with prior knowledge, so many at once on each.
    Grpc { connections: usize, streams: usize },
}

impl Wire {
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Http { tls: true, .. })
    }

    /// The same on 32 connections that stay, to use many keys in little time.
    pub fn kept(self) -> Self {
        match self {
            Self::Http { tls, .. } => Self::Http { connections: 32, fresh: false, tls },
            Self::Grpc { .. } => self,
        }
    }
}

/// When calls are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each as soon as the one before it is answered: for throughput and CPU.
    AtOnce,
    /// So many per second, each at its time, and its latency counted from that time: for latency.
    PerSecond(u32),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub size: Size,
    /// Whether it is an operation on documents, whose answers are read for units.
    pub has_units: bool,
    /// Of a hundred calls, how many come with a key that nobody knows.
    pub wrong: usize,
}

/// The calls of one load.
pub struct Calls {
    good: Vec<Bytes>,
    wrong: Vec<Bytes>,
    keys: Vec<HeaderValue>,
    ask: Ask,
    /// Bytes of the body of a good answer.
    length: usize,
    pub message: Bytes,
}

/// An answer, as far as it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub length: usize,
}

impl Calls {
    pub fn http(keys: &Keys, ask: Ask) -> Self {
        // Its answers are said to be encoded: the gateway forwards and counts the call, and does not read them.
        let operation = if ask.has_units { "query" } else { "unread" };
        let path = format!("/v1/collections/{}/{operation}", ask.size.collection());
        let body = body();
        let request = |key: &String| {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{KEY}: {key}\r\ncontent-type: application/json\r\n\
                 accept: */*\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            Bytes::from([head.as_bytes(), &body].concat())
        };
        let (good, wrong) = (keys.good.iter().map(request).collect(), keys.wrong.iter().map(request).collect());
        Self { good, wrong, keys: Vec::new(), ask, length: ask.size.json().len(), message: Bytes::new() }
    }

    pub fn grpc(keys: &Keys, ask: Ask) -> Self {
        let value = |key: &String| HeaderValue::from_str(key).expect("a key is visible ASCII");
        let message = [&[0, 0, 0, 0, BODY_BYTES as u8][..], &body()].concat().into();
        let (good, wrong, keys) = (Vec::new(), Vec::new(), keys.good.iter().map(value).collect());
        Self { good, wrong, keys, ask, length: ask.size.message().len(), message }
    }

    /// The bytes of call `number` over HTTP/1.1, and what has to come back.
    pub fn nth(&self, number: usize) -> (&Bytes, Expected) {
        // 61 and 100 have no divisor in common, so a hundred calls in a row have their share of wrong ones.
        let is_wrong = number.wrapping_mul(61) % 100 < self.ask.wrong;
        let requests = if is_wrong { &self.wrong } else { &self.good };
        let expected = if is_wrong { Expected::Denied } else { Expected::Answered(self.length) };
        (&requests[number % requests.len()], expected)
    }

    /// Call `number` over gRPC.
    pub fn nth_rpc(&self, number: usize) -> (Request<()>, Expected) {
        let request = Request::post(METHOD)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header(KEY, self.keys[number % self.keys.len()].clone())
            .header("collection-name", self.ask.size.collection());
        (request.body(()).expect("it is well-formed"), Expected::Answered(self.length))
    }
}

/// What has to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// 200 and so many bytes.
    Answered(usize),
    /// 401.
    Denied,
}

impl Expected {
    pub fn is_met_by(self, answer: Answer) -> bool {
        match self {
            Self::Answered(length) => answer == Answer { status: 200, length },
            Self::Denied => answer.status == 401,
        }
    }
}

/// The body of a request: JSON, or what stands for a message.
fn body() -> Vec<u8> {
    let mut body = br#"{"topk":10,"vector":[0.1,0.2,0.3,0.4],"filter":""#.to_vec();
    body.resize(BODY_BYTES - 2, b'a');
    body.extend_from_slice(br#""}"#);
    body
}
