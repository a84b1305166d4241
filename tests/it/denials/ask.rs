//! One call in three protocols, and what it must look like when it is denied.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::Value;
use tollgate::verdict::Denial;

use crate::harness::h2::{self, H2};
use crate::harness::raw;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Http1,
    Http2,
    Grpc,
}

impl Wire {
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Grpc];
}

/// A call of `get_version`, unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// The gateway's address where absent.
    pub host: Option<&'a str>,
    pub headers: Vec<(&'a str, &'a str)>,
    /// Behind the path, with its question mark.
    pub query: &'a str,
    /// A message over gRPC. Over HTTP it makes the call a POST.
    pub body: Vec<u8>,
}

/// An answer in one shape for all protocols.
#[derive(Clone)]
pub struct Said {
    pub wire: Wire,
    pub status: u16,
    /// Names in lower case, sorted. For a gRPC answer with trailers, those are among them.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers_only: bool,
}

pub const GET_VERSION: &str = "/proxima.dashvector.proto.DashVectorService/get_version";

impl<'a> Ask<'a> {
    pub fn with_key(key: &'a str) -> Self {
        Self { headers: vec![("dashvector-auth-token", key)], ..Self::default() }
    }

    pub fn to(mut self, host: &'a str) -> Self {
        self.host = Some(host);
        self
    }

    pub fn and(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn query(self, query: &'a str) -> Self {
        Self { query, ..self }
    }

    pub fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    /// Makes the call, on a connection of its own.
    pub fn over(&self, wire: Wire, gateway: SocketAddr) -> Said {
        match wire {
            Wire::Http1 => self.over_http1(gateway),
            Wire::Http2 => block_on(self.over_http2(gateway)),
            Wire::Grpc => block_on(self.over_grpc(gateway)),
        }
    }

    fn over_http1(&self, gateway: SocketAddr) -> Said {
        let host = self.host.map(|host| ("host", host));
        let headers: Vec<_> = host.into_iter().chain(self.headers.iter().copied()).collect();
        let path = format!("/service_version{}", self.query);
        let method = if self.body.is_empty() { "GET" } else { "POST" };
        let answer = raw::call(gateway, method, &path, &headers, &self.body);
        Said::new(Wire::Http1, answer.status, answer.headers, answer.body, false)
    }

    async fn over_http2(&self, gateway: SocketAddr) -> Said {
        let authority = self.host.map_or_else(|| gateway.to_string(), str::to_owned);
        let method = if self.body.is_empty() { "GET" } else { "POST" };
        let uri = format!("http://{authority}/service_version{}", self.query);
        let request = self
            .headers
            .iter()
            .fold(Request::builder().method(method).uri(uri), |request, (name, value)| request.header(*name, *value));
        let request = request.body(Bytes::from(self.body.clone())).unwrap();
        let answer = H2::connect(gateway).await.call(request).await;
        Said::new(Wire::Http2, answer.status.as_u16(), pairs(&answer.headers), answer.body.to_vec(), false)
    }

    async fn over_grpc(&self, gateway: SocketAddr) -> Said {
        let authority = self.host.map_or_else(|| gateway.to_string(), str::to_owned);
        let path = format!("{GET_VERSION}{}", self.query);
        let mut connection = H2::connect(gateway).await;
        let answer = connection.grpc_unary_to(&authority, &path, &self.headers, &self.body).await;
        Said::of_grpc(answer)
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{:?} {} {:?} {body}", self.wire, self.status, self.headers)
    }
}

impl Said {
    fn new(wire: Wire, status: u16, mut headers: Vec<(String, String)>, body: Vec<u8>, trailers_only: bool) -> Self {
        headers.sort();
        Self { wire, status, headers, body, trailers_only }
    }

    pub fn of_grpc(answer: h2::GrpcAnswer) -> Self {
        let trailers = answer.trailers.iter().flat_map(pairs);
        let headers = pairs(&answer.headers).into_iter().chain(trailers).collect();
        let body = answer.messages.concat();
        Self::new(Wire::Grpc, answer.http_status.as_u16(), headers, body, answer.trailers.is_none())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// That the call was served.
    pub fn is_good(&self) {
        assert_eq!(self.status, 200, "{self:?}");
        match self.wire {
            Wire::Grpc => assert_eq!(self.header("grpc-status"), Some("0"), "{self:?}"),
            _ => assert_eq!(self.json()["code"], 0, "{self:?}"),
        }
    }

    /// That the call was denied like this, with everything that the client is told.
    #[track_caller]
    pub fn is(&self, denial: Denial) {
        let status = promised(denial).0;
        self.is_in_form(denial, status);
        if self.wire != Wire::Grpc {
            assert_eq!(self.header("www-authenticate").is_some(), status == 401, "{self:?}");
        }
    }

    /// The same with another HTTP status, as `http_denials = "in_body"` has it.
    #[track_caller]
    pub fn is_in_form(&self, denial: Denial, http_status: u16) {
        let (_, grpc_status, code) = promised(denial);
        let id = self.header("x-request-id").unwrap_or_else(|| panic!("no request id in {self:?}"));
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{self:?}");
        let message = denial.row().message;
        if self.wire == Wire::Grpc {
            assert_eq!((self.status, self.trailers_only, self.body.len()), (200, true, 0), "{self:?}");
            assert_eq!(self.header("content-type"), Some("application/grpc"), "{self:?}");
            assert_eq!(self.header("grpc-status"), Some(&*grpc_status.to_string()), "{self:?}");
            assert_eq!(self.header("grpc-message"), Some(message), "{self:?}");
            assert_eq!(self.header("extra-code"), Some(&*code.to_string()), "{self:?}");
            assert_eq!(self.header("request-id"), Some(id), "{self:?}");
        } else {
            let body = serde_json::json!({"request_id": id, "code": code, "message": message});
            assert_eq!((self.status, self.json()), (http_status, body), "{self:?}");
            assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
            assert_eq!(self.header("content-length"), Some(&*self.body.len().to_string()), "{self:?}");
        }
        let retry_after = self.header("retry-after").map(|seconds| seconds.parse::<u64>().unwrap());
        assert_eq!(retry_after.is_some(), denial.retry_after().is_some(), "{self:?}");
        assert!(retry_after.is_none_or(|seconds| seconds >= 1), "{self:?}");
        assert!(!self.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "{self:?}");
    }

    /// What could tell this answer from another: everything but the values that every answer has of its own.
    pub fn comparable(&self) -> (u16, Vec<(String, String)>, String) {
        let id = self.header("x-request-id").unwrap_or_default().to_owned();
        let own = |name: &str| matches!(name, "x-request-id" | "request-id" | "date");
        let blank =
            |(name, value): &(String, String)| (name.clone(), if own(name) { String::new() } else { value.clone() });
        let body = String::from_utf8(self.body.clone()).unwrap().replace(&id, "");
        (self.status, self.headers.iter().map(blank).collect(), body)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// HTTP status, gRPC status and code as they are promised (interfaces, section 3).
fn promised(denial: Denial) -> (u16, u8, i32) {
    match denial {
        Denial::NotValid => (401, 16, -3001),
        Denial::TwoKeys => (400, 3, -3002),
        Denial::KeyInQuery => (400, 3, -3003),
        Denial::NotUsable => (401, 16, -3004),
        Denial::BrowserCall => (403, 7, -3005),
        Denial::AccountSuspended => (403, 7, -3006),
        Denial::UnknownCluster => (404, 5, -3007),
        Denial::NotTheOwner => (403, 7, -3008),
        Denial::AddressNotAllowed => (403, 7, -3009),
        Denial::Limited { .. } => (429, 8, -3010),
        Denial::CannotVerify => (503, 14, -3011),
        Denial::CannotMeter => (503, 14, -3012),
        Denial::Upstream => (502, 14, -3013),
        Denial::Deadline => (504, 4, -3014),
        Denial::BodyTooLarge => (413, 8, -3015),
        Denial::HeadersTooLarge => (431, 8, -3015),
        Denial::Malformed => (400, 3, -3016),
        Denial::Overloaded => (503, 14, -3017),
    }
}

/// A limit; how long to wait is told in `Retry-After` and compared apart.
pub const LIMITED: Denial = Denial::Limited { retry_after: std::time::Duration::from_secs(1) };

pub fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn the_table_says_what_is_promised() {
    for denial in Denial::ALL {
        let row = denial.row();
        assert_eq!((row.http.as_u16(), row.grpc, row.code), promised(denial), "{denial:?}");
    }
    for denial in [LIMITED, Denial::CannotVerify, Denial::Overloaded] {
        assert!(denial.retry_after().is_some(), "{denial:?}");
    }
}
