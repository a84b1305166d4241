//! Denial → answer, in the form its client understands: HTTP status and JSON, JSON in a 200, or gRPC trailers-only.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write;

use bytes::Bytes;
use http::{StatusCode, Version};

use crate::config::HttpDenials;
use crate::gateway::body::Outgoing;
use crate::gateway::fields::Fields;
use crate::gateway::guard::InCall;
use crate::gateway::headers;
use crate::gateway::message::{Answer, AnswerHead};
use crate::telemetry::metrics::Protocol;
use crate::verdict::Denial;

/// How a client is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Http,
    Grpc,
}

impl From<Dialect> for Protocol {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Http => Self::Http,
            Dialect::Grpc => Self::Grpc,
        }
    }
}

/// Names one call in its answer, in what the upstream sees, and in the logs: 32 hexadecimal digits.
#[derive(Clone)]
pub struct RequestId([u8; 32]);

thread_local! {
    static NEXT: Cell<u128> = Cell::new(fresh());
}

impl RequestId {
    /// Unique without asking the operating system: a random start for each thread, and steps from there.
    pub fn next() -> Self {
        // An odd step visits every number once; this one scatters neighbours (it is 2¹²⁸ divided by the golden ratio).
        const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        let number = NEXT.with(|next| next.replace(next.get().wrapping_add(STEP)));
        let mut digits = [b'0'; 32];
        for (at, digit) in digits.iter_mut().enumerate() {
            let nibble = (number >> (124 - 4 * at)) & 0xf;
            *digit = b"0123456789abcdef".get(nibble as usize).copied().unwrap_or(b'0');
        }
        Self(digits)
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// 0 to 255; those of calls that follow each other are far apart.
    pub fn scattered(&self) -> u8 {
        self.text().get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }
}

fn fresh() -> u128 {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u128::from_le_bytes(bytes),
        // Only uniqueness within this gateway is left, which is what the logs need.
        Err(_) => u128::from(crate::clock::boot().0) << 64,
    }
}

/// How a denial is to be said.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub dialect: Dialect,
    pub form: HttpDenials,
    /// HTTP/2 has no connection of a call's own to close.
    pub version: Version,
}

/// Says `denial` to the client.
pub fn deny(denial: Denial, manner: Manner, id: &RequestId, in_call: InCall) -> Answer {
    let mut answer = match manner.dialect {
        Dialect::Grpc => grpc(denial, id, in_call),
        Dialect::Http => http(denial, manner.form, id, in_call),
    };
    let fields = &mut answer.head.fields;
    fields.add(headers::REQUEST_ID.as_str().as_bytes(), id.text().as_bytes());
    // Where a malformed request ends is not sure, so nothing that follows it is read as another one.
    if denial == Denial::Malformed && manner.version < Version::HTTP_2 {
        fields.add(b"connection", b"close");
    }
    if let Some(seconds) = denial.retry_after() {
        fields.add(b"retry-after", seconds.to_string().as_bytes());
    }
    answer
}

fn http(denial: Denial, form: HttpDenials, id: &RequestId, in_call: InCall) -> Answer {
    let row = denial.row();
    let mut body = String::with_capacity(256);
    // The messages are plain ASCII without quotes, so this is JSON; a test reads every one of them back.
    let _ = write!(body, r#"{{"request_id":"{}","code":{},"message":"{}"}}"#, id.text(), row.code, row.message);
    let (mut fields, mut status) = (Fields::with_room(256, 6), StatusCode::OK);
    fields.add(b"content-type", b"application/json");
    fields.add(b"cache-control", b"no-store");
    if form == HttpDenials::Status {
        if row.http == StatusCode::UNAUTHORIZED {
            fields.add(b"www-authenticate", b"Bearer realm=\"vector service\"");
        }
        status = row.http;
    }
    Answer { head: AnswerHead { status, reason: None, fields }, body: Outgoing::own(Bytes::from(body), in_call) }
}

/// Trailers-only, with `extra-code` and `request-id`: without them the Python SDK drops the text (protocol, section 2.4).
fn grpc(denial: Denial, id: &RequestId, in_call: InCall) -> Answer {
    let row = denial.row();
    let mut fields = Fields::with_room(384, 8);
    fields.add(b"content-type", b"application/grpc");
    fields.add(b"grpc-status", u16::from(row.grpc).to_string().as_bytes());
    fields.add(b"grpc-message", percent_encoded(row.message).as_bytes());
    fields.add(b"extra-code", row.code.to_string().as_bytes());
    fields.add(b"request-id", id.text().as_bytes());
    let head = AnswerHead { status: StatusCode::OK, reason: None, fields };
    Answer { head, body: Outgoing::own(Bytes::new(), in_call) }
}

/// The messages are printable ASCII, in which gRPC asks for `%` alone to be escaped.
fn percent_encoded(message: &'static str) -> Cow<'static, str> {
    if message.contains('%') { message.replace('%', "%25").into() } else { message.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use http_body_util::BodyExt;

    use super::*;
    use crate::gateway::guard::Activity;

    fn in_call() -> InCall {
        InCall::begin(&Arc::new(Activity::default()))
    }

    fn manner(dialect: Dialect, form: HttpDenials) -> Manner {
        let version = if dialect == Dialect::Grpc { Version::HTTP_2 } else { Version::HTTP_11 };
        Manner { dialect, form, version }
    }

    #[tokio::test]
    async fn every_denial_reads_back_as_json_with_the_code_and_the_request_id() {
        for denial in Denial::ALL {
            for form in [HttpDenials::Status, HttpDenials::InBody] {
                let id = RequestId::next();
                let response = deny(denial, manner(Dialect::Http, form), &id, in_call());
                let status = if form == HttpDenials::Status { denial.row().http } else { StatusCode::OK };
                assert_eq!(response.head.status, status);
                assert_eq!(response.head.fields.into_map()[&headers::REQUEST_ID], id.text());
                let body = response.body.collect().await.unwrap().to_bytes();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(body["code"], denial.row().code);
                assert_eq!(body["message"], denial.row().message);
                assert_eq!(body["request_id"], id.text());
            }
        }
    }

    #[test]
    fn a_grpc_denial_is_trailers_only_and_never_a_bare_status() {
        for denial in Denial::ALL {
            let response = deny(denial, manner(Dialect::Grpc, HttpDenials::Status), &RequestId::next(), in_call());
            assert_eq!(response.head.status, StatusCode::OK);
            assert!(http_body::Body::is_end_stream(&response.body));
            let headers = response.head.fields.into_map();
            assert_eq!(headers["extra-code"], denial.row().code.to_string());
            assert_eq!(headers["grpc-status"], denial.row().grpc.to_string());
        }
    }

    #[test]
    fn request_ids_do_not_repeat() {
        let ids: HashSet<String> = (0..10_000).map(|_| RequestId::next().text().to_owned()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
