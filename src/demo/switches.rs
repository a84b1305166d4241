//! How a single request asks for a slow, broken or unusual answer: the `x-sample-*` headers. They pass through a gateway like any
//! other header, so a test steers the service from the far side.
//!
//! | header | effect |
//! |---|---|
//! | `x-sample-delay-ms: n` | the answer begins n ms after the request was read |
//! | `x-sample-early: 1` | the answer does not wait for the request's body (for use with `status`; nothing is executed) |
//! | `x-sample-status: n` | nothing is executed; n ≥ 100 is an HTTP status, also on gRPC, 1–16 a gRPC status (trailers-only) |
//! | `x-sample-code: n` | nothing is executed; success with code n in the body, or, beside a status, n in the body or `extra-code` |
//! | `x-sample-reset: head` or n | the connection (HTTP/2: the stream) breaks before the head, or after n bytes of the body, at the latest before its end |
//! | `x-sample-refuse: token` | the first request with this token is not processed: REFUSED_STREAM, or a closed connection |
//! | `x-sample-mark: n` | it is remembered that a request with this number came, see `SampleService::take_marks` |
//! | `x-sample-no-usage: 1` | the answer carries no usage |
//! | `x-sample-units: n` | the answer carries n units, of the operation's own kind |
//! | `x-sample-chunk: n` | pieces of n bytes, without Content-Length |
//! | `x-sample-pause-ms: n` | n ms between the pieces |
//! | `x-sample-bytes: n` | n bytes of filler in the answer, 128 MiB at most, ahead of the output and the usage |

use std::time::Duration;

use http::{HeaderMap, StatusCode};

pub const MAX_FILLER: u64 = 128 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    pub delay: Option<Duration>,
    pub early: bool,
    pub status: Option<Failure>,
    pub code: Option<i32>,
    pub reset: Option<Reset>,
    pub refuse: Option<String>,
    pub mark: Option<u64>,
    pub no_usage: bool,
    pub units: Option<u32>,
    pub chunk: Option<usize>,
    pub pause: Option<Duration>,
    /// Bytes.
    pub filler: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Http(StatusCode),
    Grpc(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    BeforeHead,
    AfterBytes(u64),
}

impl Switches {
    /// Values that make no sense are ignored.
    pub fn read(headers: &HeaderMap) -> Self {
        // The usual call has none of them, and is not to pay for eleven look-ups.
        if !headers.keys().any(|name| name.as_str().starts_with("x-sample-")) {
            return Self::default();
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let millis = |name| text(name).and_then(|text| text.parse().ok()).map(Duration::from_millis);
        Self {
            delay: millis("x-sample-delay-ms"),
            early: text("x-sample-early").is_some(),
            status: text("x-sample-status").and_then(Failure::parse),
            code: text("x-sample-code").and_then(|text| text.parse().ok()),
            reset: text("x-sample-reset").and_then(Reset::parse),
            refuse: text("x-sample-refuse").map(str::to_owned),
            mark: text("x-sample-mark").and_then(|text| text.parse().ok()),
            no_usage: text("x-sample-no-usage").is_some(),
            units: text("x-sample-units").and_then(|text| text.parse().ok()),
            chunk: text("x-sample-chunk").and_then(|text| text.parse().ok()).filter(|bytes| *bytes > 0),
            pause: millis("x-sample-pause-ms"),
            filler: text("x-sample-bytes").and_then(|text| text.parse().ok()).unwrap_or(0).min(MAX_FILLER),
        }
    }

    /// Whether nothing is to be executed.
    pub fn fails(&self) -> bool {
        self.status.is_some() || self.code.is_some()
    }
}

impl Failure {
    fn parse(text: &str) -> Option<Self> {
        match text.parse().ok()? {
            status @ 1..=16 => u8::try_from(status).ok().map(Self::Grpc),
            // hyper takes a 1xx from a service for a mistake of its author.
            status @ 200..=999 => StatusCode::from_u16(status).ok().map(Self::Http),
            _ => None,
        }
    }
}

impl Reset {
    fn parse(text: &str) -> Option<Self> {
        if text == "head" { Some(Self::BeforeHead) } else { text.parse().ok().map(Self::AfterBytes) }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Switches {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        Switches::read(&headers.iter().map(header).collect())
    }

    #[test]
    fn a_usual_request_switches_nothing() {
        assert_eq!(read(&[("host", "a"), ("x-sampled", "1")]), Switches::default());
        assert!(!Switches::default().fails());
    }

    #[test]
    fn values_that_make_no_sense_switch_nothing() {
        let odd = [
            ("x-sample-status", "17"),
            ("x-sample-code", "many"),
            ("x-sample-reset", "-1"),
            ("x-sample-chunk", "0"),
            ("x-sample-delay-ms", ""),
        ];
        assert_eq!(read(&odd), Switches::default());
    }

    #[test]
    fn a_small_status_is_of_grpc_and_a_large_one_of_http() {
        assert_eq!(read(&[("x-sample-status", "16")]).status, Some(Failure::Grpc(16)));
        assert_eq!(read(&[("x-sample-status", "503")]).status, Some(Failure::Http(StatusCode::SERVICE_UNAVAILABLE)));
        assert_eq!(read(&[("x-sample-reset", "0")]).reset, Some(Reset::AfterBytes(0)));
        assert_eq!(read(&[("x-sample-bytes", "999999999999")]).filler, MAX_FILLER);
    }
}
