//! The form of a request, before anything in it is believed: what is ambiguous or oversized goes no further.
//!
//! What is refused before, so that it is not looked for here. HTTP/1, by httparse: a bare CR, a line folded onto the next,
//! white space before a colon or in a name, control characters; by [`super::downstream`]: whatever leaves the end of the
//! body in doubt. HTTP/2, by [`super::http2`]: connection headers, `te` other than `trailers`, `transfer-encoding`, upper-case names,
//! missing or repeated pseudo-headers, a length that is malformed, said twice, or differs from the data.

use http::{Method, Version};

use crate::config::LimitsConfig;
use crate::gateway::fields::{Fields, Name};
use crate::gateway::http1::digits;
use crate::gateway::message::RequestHead;
use crate::verdict::Denial;

/// Tokens of `Connection`; clients send one or two.
const NOMINATED_MOST: usize = 32;

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
pub fn check_form(head: &RequestHead, limits: HeadLimits) -> Result<(), Denial> {
    check_size(head, limits)?;
    let fields = &head.fields;
    let clear = has_clear_target(head)
        && has_clear_length(fields)
        && fields.all(Name::ContentType).nth(1).is_none()
        && has_clear_coding(fields)
        && has_no_upgrade(fields)
        && names_few(fields);
    if clear { Ok(()) } else { Err(Denial::Malformed) }
}

/// Whether the request is a gRPC call: gRPC's content type in a POST over HTTP/2. gRPC-Web frames its messages differently and
/// is not meant.
pub fn is_grpc(head: &RequestHead) -> bool {
    head.version == Version::HTTP_2 && head.method == Method::POST && has_grpc_type(&head.fields)
}

/// Whether the content is said to be messages of gRPC.
pub fn has_grpc_type(fields: &Fields) -> bool {
    let Some(kind) = fields.first(Name::ContentType) else { return false };
    match kind.split_at_checked(b"application/grpc".len()) {
        Some((kind, rest)) => {
            kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        }
        None => false,
    }
}

fn check_size(head: &RequestHead, limits: HeadLimits) -> Result<(), Denial> {
    // What a field costs beside its name and value: colon, space and line end.
    const AROUND: usize = 4;
    let uri = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = head.uri.authority().map_or(0, |authority| authority.as_str().len());
    let fits = uri + authority <= limits.uri_bytes
        && head.fields.count() <= limits.header_fields
        && head.fields.bytes(AROUND) <= limits.header_bytes;
    if fits { Ok(()) } else { Err(Denial::HeadersTooLarge) }
}

/// A path, or a whole address with one. Not `*`, not the authority alone, no tunnel; and no TRACE, whose answer would
/// show the client what the gateway adds for the service.
fn has_clear_target(head: &RequestHead) -> bool {
    let tunnel = head.method == Method::CONNECT || head.method == Method::TRACE;
    !tunnel && head.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/'))
}

/// At most one length, in digits, and one that we can count to.
fn has_clear_length(fields: &Fields) -> bool {
    let mut lengths = fields.all(Name::ContentLength);
    let is_number = |length: &[u8]| !length.is_empty() && digits(length).is_some();
    lengths.next().is_none_or(is_number) && lengths.next().is_none()
}

/// Whoever names many fields as those of the connection has each compared with all of them.
fn names_few(fields: &Fields) -> bool {
    let commas = |value: &[u8]| value.iter().filter(|byte| **byte == b',').count();
    fields.all(Name::Connection).map(commas).sum::<usize>() < NOMINATED_MOST
}

/// `chunked` once and nothing else: another coding would be lost when the body is sent on, and a list can be read in
/// two ways.
fn has_clear_coding(fields: &Fields) -> bool {
    let mut codings = fields.all(Name::TransferEncoding);
    let chunked = codings.next().is_none_or(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    chunked && codings.next().is_none()
}

/// Clients that would like HTTP/2 in cleartext offer `h2c` on an ordinary call and are content without it (RFC 9110,
/// 7.8). Any other protocol would be a tunnel.
fn has_no_upgrade(fields: &Fields) -> bool {
    fields.all(Name::Upgrade).all(|protocol| protocol.eq_ignore_ascii_case(b"h2c"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, target and fields of a request.
    type Asked<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

    const LIMITS: HeadLimits = HeadLimits { header_bytes: 32 << 10, header_fields: 100, uri_bytes: 8 << 10 };

    fn check(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(), Denial> {
        check_form(&RequestHead::of(method, uri, fields), LIMITS)
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
        let many = "a,".repeat(40);
        let cases: [Asked<'_>; 12] = [
            ("POST", "/", &[("content-length", "18446744073709551637")]),
            ("GET", "/", &[("connection", &many)]),
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
    fn what_the_content_is_is_said_once() {
        assert_eq!(check("POST", "/", &[("content-type", "application/json")]), Ok(()));
        let twice = [("content-type", "application/json"), ("content-type", "application/grpc")];
        assert_eq!(check("POST", "/", &twice), Err(Denial::Malformed));
    }

    #[test]
    fn grpc_is_its_content_type_over_http_2() {
        let with = |kind: &str, version| {
            let mut head = RequestHead::of("POST", "/", &[("content-type", kind)]);
            head.version = version;
            is_grpc(&head)
        };
        for kind in ["application/grpc", "Application/gRPC", "application/grpc+proto", "application/grpc; x=y"] {
            assert!(with(kind, Version::HTTP_2), "{kind}");
            assert!(!with(kind, Version::HTTP_11), "{kind}");
        }
        let mut get = RequestHead::of("GET", "/", &[("content-type", "application/grpc")]);
        get.version = Version::HTTP_2;
        assert!(!is_grpc(&get), "gRPC is POST");
        for kind in ["application/grpc-web", "application/grpcx", "application/json", ""] {
            assert!(!with(kind, Version::HTTP_2), "{kind}");
        }
    }
}
