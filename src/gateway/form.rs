//! The form of a request, before anything in it is believed: what is ambiguous or oversized goes no further.
//!
//! What is refused before, so that it is not looked for here. HTTP/1, by httparse: a bare CR, a line folded onto the next,
//! white space before a colon or in a name, control characters; by [`super::downstream`]: whatever leaves the end of the
//! body in doubt. HTTP/2, by h2: connection headers, `te` other than `trailers`, `transfer-encoding`, upper-case names,
//! missing or repeated pseudo-headers, a length that is malformed, differs from another one or from the data.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Method, Version};

use crate::config::LimitsConfig;
use crate::verdict::Denial;

/// How large the head of a request may be.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Names and values together, with four bytes more for each field.
    pub header_bytes: usize,
    pub header_fields: usize,
    pub uri_bytes: usize,
}

impl From<&LimitsConfig> for HeadLimits {
    fn from(limits: &LimitsConfig) -> Self {
        Self { header_bytes: limits.header_bytes, header_fields: limits.header_fields, uri_bytes: limits.uri_bytes }
    }
}

/// Refuses what would be read differently by the next reader, and what is larger than the limits.
///
/// A request line or a list of headers beyond the limits is [`Denial::HeadersTooLarge`], everything else
/// [`Denial::Malformed`]. The limits hold for both protocols; those of the readers below are for whole buffers.
pub fn check_form(parts: &Parts, limits: HeadLimits) -> Result<(), Denial> {
    check_size(parts, limits)?;
    let headers = &parts.headers;
    let clear =
        has_clear_target(parts) && has_clear_length(headers) && has_clear_coding(headers) && has_no_upgrade(headers);
    if clear { Ok(()) } else { Err(Denial::Malformed) }
}

/// Whether the request is a gRPC call: gRPC's content type over HTTP/2. gRPC-Web frames its messages differently and
/// is not meant.
pub fn is_grpc(parts: &Parts) -> bool {
    if parts.version != Version::HTTP_2 {
        return false;
    }
    let Some(kind) = parts.headers.get(CONTENT_TYPE) else { return false };
    match kind.as_bytes().split_at_checked(b"application/grpc".len()) {
        Some((kind, rest)) => {
            kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        }
        None => false,
    }
}

fn check_size(parts: &Parts, limits: HeadLimits) -> Result<(), Denial> {
    // What a field costs beside its name and value: colon, space and line end.
    const AROUND: usize = 4;
    let uri = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = parts.uri.authority().map_or(0, |authority| authority.as_str().len());
    let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND).sum();
    let fits = uri + authority <= limits.uri_bytes
        && parts.headers.len() <= limits.header_fields
        && bytes <= limits.header_bytes;
    if fits { Ok(()) } else { Err(Denial::HeadersTooLarge) }
}

/// A path, or a whole address with one. Not `*`, not the authority alone, no tunnel; and no TRACE, whose answer would
/// show the client what the gateway adds for the service.
fn has_clear_target(parts: &Parts) -> bool {
    let tunnel = parts.method == Method::CONNECT || parts.method == Method::TRACE;
    !tunnel && parts.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/'))
}

/// At most one length, in digits. h2 takes an empty one for 0.
fn has_clear_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_none_or(is_number) && lengths.next().is_none()
}

/// `chunked` once and nothing else: another coding would be lost when the body is sent on, and a list can be read in
/// two ways.
fn has_clear_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none()
}

/// Clients that would like HTTP/2 in cleartext offer `h2c` on an ordinary call and are content without it (RFC 9110,
/// 7.8). Any other protocol would be a tunnel.
fn has_no_upgrade(headers: &HeaderMap) -> bool {
    let is_h2c = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"h2c");
    headers.get_all(UPGRADE).iter().all(is_h2c)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { header_bytes: 32 << 10, header_fields: 100, uri_bytes: 8 << 10 };

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn parts(method: &str, uri: &str, headers: Fields<'_>) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn check(method: &str, uri: &str, headers: Fields<'_>) -> Result<(), Denial> {
        check_form(&parts(method, uri, headers), LIMITS)
    }

    #[test]
    fn ordinary_requests_pass() {
        assert_eq!(check("GET", "/", &[]), Ok(()));
        assert_eq!(check("DELETE", "http://a.test/v1/x?y", &[("content-length", "3"), ("host", "a.test")]), Ok(()));
        assert_eq!(check("POST", "/", &[("transfer-encoding", "Chunked"), ("expect", "100-continue")]), Ok(()));
        assert_eq!(check("GET", "/", &[("upgrade", "h2c"), ("connection", "Upgrade, HTTP2-Settings")]), Ok(()));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_malformed() {
        let cases: [(&str, &str, Fields<'_>); 10] = [
            ("OPTIONS", "*", &[]),
            ("CONNECT", "a.test:443", &[]),
            ("GET", "a.test:443", &[]),
            ("TRACE", "/", &[]),
            ("POST", "/", &[("content-length", "3"), ("content-length", "3")]),
            ("POST", "/", &[("content-length", "")]),
            ("POST", "/", &[("transfer-encoding", "gzip, chunked")]),
            ("POST", "/", &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]),
            ("POST", "/", &[("transfer-encoding", "identity"), ("transfer-encoding", "chunked")]),
            ("GET", "/", &[("upgrade", "websocket"), ("connection", "upgrade")]),
        ];
        for (method, uri, headers) in cases {
            assert_eq!(check(method, uri, headers), Err(Denial::Malformed), "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn sizes_are_held_to_the_byte() {
        let path = |length: usize| format!("/{}", "a".repeat(length - 1));
        assert_eq!(check("GET", &path(8192), &[]), Ok(()));
        assert_eq!(check("GET", &path(8193), &[]), Err(Denial::HeadersTooLarge));
        let value = |length: usize| "v".repeat(length);
        assert_eq!(check("GET", "/", &[("name", &value((32 << 10) - 8))]), Ok(()));
        assert_eq!(check("GET", "/", &[("name", &value((32 << 10) - 7))]), Err(Denial::HeadersTooLarge));
        assert_eq!(check("GET", "/", &[("a", "b"); 100]), Ok(()));
        assert_eq!(check("GET", "/", &[("a", "b"); 101]), Err(Denial::HeadersTooLarge));
    }

    #[test]
    fn grpc_is_its_content_type_over_http_2() {
        let with = |kind: &str, version| {
            let mut parts = parts("POST", "/", &[("content-type", kind)]);
            parts.version = version;
            is_grpc(&parts)
        };
        for kind in ["application/grpc", "Application/gRPC", "application/grpc+proto", "application/grpc; x=y"] {
            assert!(with(kind, Version::HTTP_2), "{kind}");
            assert!(!with(kind, Version::HTTP_11), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpcx", "application/json", ""] {
            assert!(!with(kind, Version::HTTP_2), "{kind}");
        }
    }
}
