//! The headers of a call, both ways: what belongs to one connection stays there, nobody but us says who the caller
//! is, and the answer comes back readable.

use std::cell::RefCell;
use std::fmt::Write;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, TE};
use http::uri::Authority;

use crate::gateway::fields::{Field, Fields, Name, remove_where};
use crate::gateway::http1::{has_token, write_field};
use crate::principal::{AccountId, Incarnation, KeyId};
use crate::time::Hour;
use crate::verdict::Denial;

/// Set on every answer, and on every call that goes upstream.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static ACCOUNT: HeaderName = HeaderName::from_static("x-tollgate-account");
static KEY_ID: HeaderName = HeaderName::from_static("x-tollgate-key-id");
static USAGE: HeaderName = HeaderName::from_static("x-tollgate-usage");
static GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Headers of one connection (RFC 9110, section 7.6.1), in both directions. `Trailer` passes; `TE` is said anew.
fn is_hop_by_hop(name: Name) -> bool {
    matches!(name, Name::Connection | Name::TransferEncoding | Name::Te | Name::Upgrade | Name::OfTheConnection)
}

/// What the service is not told. `Expect` was answered already.
fn is_not_for_the_service(name: Name) -> bool {
    matches!(name, Name::Expect | Name::ForwardedFor | Name::NotForTheService)
}

/// What is said before a body or not at all (RFC 9110, section 6.5.1).
fn says_what_the_body_is(name: &[u8]) -> bool {
    matches!(
        name,
        b"cache-control"
            | b"content-encoding"
            | b"content-range"
            | b"content-type"
            | b"max-forwards"
            | b"set-cookie"
            | b"trailer"
    )
}

/// What has no place in trailers: it would change the message after it was judged.
fn is_no_trailer(name: Name) -> bool {
    matches!(name, Name::Host | Name::ContentLength | Name::Authorization | Name::Token)
}

/// What the gateway itself says to the service with a call: who is charged and where, and the call's name. Made once per call.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// Account, key, place of the count and request id, one after the other, and where each ends but the last.
    text: String,
    ends: [usize; 3],
}

/// Where a call is counted: by whom, in which hour, and the number that tells the calls of one incarnation apart.
pub struct CountedIn(pub Incarnation, pub Hour, pub u64);

impl Stamp {
    /// The stamp of a call that is sent again is the same. Without a count the call is served unmetered, and the service can tell.
    pub fn new(account: AccountId, key_id: KeyId, counted: Option<CountedIn>, request_id: &str) -> Self {
        // Long enough for all of it, so that there is one allocation.
        let mut text = String::with_capacity(192);
        account.write_to(&mut text);
        let account_end = text.len();
        key_id.write_to(&mut text);
        let key_end = text.len();
        if let Some(CountedIn(incarnation, hour, sequence)) = counted {
            COUNTED_TEXT.with_borrow_mut(|held| text.push_str(held.of(incarnation, hour)));
            // Writing to a string does not fail.
            let _ = write!(text, ";{sequence}");
        }
        let counted_end = text.len();
        text.push_str(request_id);
        Self { text, ends: [account_end, key_end, counted_end] }
    }

    /// Hands over names and values. Without a count nothing is said of one.
    fn each(&self, mut put: impl FnMut(&HeaderName, &[u8])) {
        let [account_end, key_end, counted_end] = self.ends;
        let parts = [0..account_end, account_end..key_end, key_end..counted_end, counted_end..self.text.len()];
        for (name, part) in [&ACCOUNT, &KEY_ID, &USAGE, &REQUEST_ID].into_iter().zip(parts) {
            if let Some(value) = self.text.get(part).filter(|value| !value.is_empty()) {
                put(name, value.as_bytes());
            }
        }
    }
}

thread_local! {
    static COUNTED_TEXT: RefCell<CountedText> = RefCell::default();
}

/// Incarnation and hour as they are written, which is dear to make and the same for millions of calls.
#[derive(Default)]
struct CountedText {
    of: Option<(Incarnation, Hour)>,
    text: String,
}

impl CountedText {
    fn of(&mut self, incarnation: Incarnation, hour: Hour) -> &str {
        if self.of != Some((incarnation, hour)) {
            *self = Self { of: Some((incarnation, hour)), text: format!("{incarnation};{hour}") };
        }
        &self.text
    }
}

/// Writes the fields of a request as they go to the service, as HTTP/1.1 has them, and as `Host` the one that is among them, or else this
/// authority.
///
/// The key must have been taken out before ([`super::extract::take_out`]).
pub fn write_upstream(fields: &Fields, authority: Option<&Authority>, stamp: &Stamp, into: &mut BytesMut) {
    if let Some(host) = fields.first(Name::Host).or(authority.map(|authority| authority.as_str().as_bytes())) {
        write_field(&HOST, host, into);
    }
    let mut passing = Passing::of(fields);
    let has_crumbs = fields.all(Name::Cookie).nth(1).is_some();
    fields.write_where(into, |field| passing.passes(field) && !(has_crumbs && field.name == Name::Cookie));
    if has_crumbs && !is_one_of(&passing.nominated, COOKIE.as_str().as_bytes()) {
        // Over HTTP/2 a cookie may come in several fields (RFC 9113, section 8.2.3).
        let crumbs: Vec<_> = fields.all(Name::Cookie).collect();
        write_field(&COOKIE, &crumbs.join(&b"; "[..]), into);
    }
    passing.each_anew(|name, value| write_field(name, value, into));
    stamp.each(|name, value| write_field(name, value, into));
}

/// Hands the same fields over by name and value, but for `Host`, which HTTP/2 says before them.
pub fn pass_upstream(fields: &Fields, stamp: &Stamp, mut put: impl FnMut(&[u8], &[u8])) {
    let mut passing = Passing::of(fields);
    for field in fields.each().filter(|field| passing.passes(*field)) {
        put(field.text, field.value);
    }
    passing.each_anew(|name, value| put(name.as_str().as_bytes(), value));
    stamp.each(|name, value| put(name.as_str().as_bytes(), value));
}

/// What of a request goes on as it is, and what is said anew after that.
struct Passing {
    nominated: Vec<HeaderName>,
    takes_trailers: bool,
    has_grpc_codings: bool,
}

impl Passing {
    fn of(fields: &Fields) -> Self {
        let nominated = nominated(fields.all(Name::Connection));
        Self { nominated, takes_trailers: false, has_grpc_codings: false }
    }

    /// To be asked for each field.
    fn passes(&mut self, field: Field<'_>) -> bool {
        self.takes_trailers |= field.name == Name::Te && has_token(field.value, "trailers");
        let goes_on = goes_on(field.name) && !is_one_of(&self.nominated, field.text);
        self.has_grpc_codings |= goes_on && field.name == Name::GrpcAcceptEncoding;
        goes_on && !matches!(field.name, Name::Host | Name::AcceptEncoding | Name::GrpcAcceptEncoding)
    }

    /// Without codings that we can read, the service may choose one by itself.
    fn each_anew(&self, mut put: impl FnMut(&HeaderName, &[u8])) {
        if self.takes_trailers {
            put(&TE, b"trailers");
        }
        put(&ACCEPT_ENCODING, b"identity");
        if self.has_grpc_codings {
            put(&GRPC_ACCEPT_ENCODING, b"identity");
        }
    }
}

/// Whether a field of a request is passed on to the service.
fn goes_on(name: Name) -> bool {
    !(is_hop_by_hop(name) || is_not_for_the_service(name) || name == Name::Ours)
}

/// Makes the headers of an answer those that the client gets.
pub fn to_client(answer: &mut Fields, request_id: &str) {
    let nominated = nominated(answer.all(Name::Connection));
    answer.remove_where(|name, text| {
        is_hop_by_hop(name) || matches!(name, Name::NotForTheClient | Name::Ours) || is_one_of(&nominated, text)
    });
    answer.add_known(Name::Ours, REQUEST_ID.as_str().as_bytes(), request_id.as_bytes());
}

/// The same for those of a request: a service may take them for headers, so nothing passes that would not pass as one.
pub fn clean_request_trailers(trailers: &mut HeaderMap) {
    clean_trailers(trailers);
    remove_where(trailers, |name, text| is_not_for_the_service(name) || says_what_the_body_is(text));
}

/// Removes from trailers, of a request or an answer, what must not stand there or would be forged.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name, _| is_hop_by_hop(name) || is_no_trailer(name) || name == Name::Ours);
}

/// The deadline a gRPC client set: one to eight digits and a unit. More than one, or any other form, is
/// [`Denial::Malformed`].
pub fn grpc_timeout(fields: &Fields) -> Result<Option<Duration>, Denial> {
    let mut values = fields.all(Name::GrpcTimeout);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => timeout(value).map(Some).ok_or(Denial::Malformed),
        (Some(_), Some(_)) => Err(Denial::Malformed),
    }
}

fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Whether trailers may follow an answer to this request.
pub fn accepts_trailers(fields: &Fields) -> bool {
    fields.all(Name::Te).any(|value| has_token(value, "trailers"))
}

/// What `Connection` names and is to be removed, except for headers without which the message would be another one. Ours are set
/// after this, so a client cannot name them away. Usually there is nothing, and nothing is allocated.
fn nominated<'f>(connection: impl Iterator<Item = &'f [u8]>) -> Vec<HeaderName> {
    let values = connection.flat_map(|value| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    // The two usual tokens name no header that would be left anyway.
    let unusual =
        values.filter(|token| !token.eq_ignore_ascii_case(b"keep-alive") && !token.eq_ignore_ascii_case(b"close"));
    let names = unusual.filter_map(|token| HeaderName::from_bytes(token).ok());
    names.filter(|name| ![HOST, CONTENT_LENGTH, CONTENT_TYPE].contains(name)).collect()
}

fn is_one_of(names: &[HeaderName], name: &[u8]) -> bool {
    names.iter().any(|other| other.as_str().as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::principal::ID_BYTES;

    const OUR_ID: &str = "r-1";

    fn stamp() -> Stamp {
        let counted = CountedIn(Incarnation([3; ID_BYTES]), Hour(492_777), u64::MAX);
        Stamp::new(AccountId([1; ID_BYTES]), KeyId([2; ID_BYTES]), Some(counted), OUR_ID)
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn passed(fields: &Fields, stamp: &Stamp) -> HeaderMap {
        let mut headers = HeaderMap::new();
        pass_upstream(fields, stamp, |name, value| {
            headers.append(HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(value).unwrap());
        });
        headers
    }

    fn upstream(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        // Both ways that there are say the same.
        let (fields, mut written) = (Fields::from(fields), BytesMut::new());
        write_upstream(&fields, Some(&Authority::from_static("a.test")), &stamp(), &mut written);
        // Over HTTP/2 the host is said elsewhere.
        let mut headers = passed(&fields, &stamp());
        assert!(!headers.contains_key(HOST));
        if let Some(host) = fields.first(Name::Host) {
            headers.insert(HOST, HeaderValue::from_bytes(host).unwrap());
        }
        let mut expected = headers.clone();
        expected.entry(HOST).or_insert(HeaderValue::from_static("a.test"));
        assert_eq!(read(&written), expected);
        headers
    }

    fn answer(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut answer = Fields::from(fields);
        to_client(&mut answer, OUR_ID);
        answer.into_map()
    }

    fn read(written: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in std::str::from_utf8(written).unwrap().split_terminator("\r\n") {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    /// Asserts that exactly these headers are there beside the ones set on every call.
    fn assert_left(mut headers: HeaderMap, left: &[(&'static str, &'static str)]) {
        for name in ["x-tollgate-account", "x-tollgate-key-id", "x-tollgate-usage", "x-request-id", "accept-encoding"] {
            assert!(headers.remove(name).is_some(), "{name}");
        }
        assert_eq!(headers, map(left));
    }

    #[test]
    fn the_service_is_told_who_is_charged() {
        let headers = upstream(&[]);
        let (account, key, incarnation) = (AccountId([1; ID_BYTES]), KeyId([2; ID_BYTES]), Incarnation([3; ID_BYTES]));
        assert_eq!(headers["x-tollgate-account"], account.to_string());
        assert_eq!(headers["x-tollgate-key-id"], key.to_string());
        assert_eq!(headers["x-tollgate-usage"], format!("{incarnation};{};18446744073709551615", Hour(492_777)));
        assert_eq!(headers["x-request-id"], "r-1");
        assert_eq!(headers["accept-encoding"], "identity");
    }

    #[test]
    fn a_cookie_in_several_fields_is_one_over_http_1_and_as_it_came_over_http_2() {
        let fields = Fields::from(&[("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2")][..]);
        let mut written = BytesMut::new();
        write_upstream(&fields, Some(&Authority::from_static("a.test")), &stamp(), &mut written);
        assert_eq!(read(&written).get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        assert_eq!(passed(&fields, &stamp()).get_all("cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
        let hidden = Fields::from(&[("connection", "cookie"), ("cookie", "a=1"), ("cookie", "b=2")][..]);
        written.clear();
        write_upstream(&hidden, Some(&Authority::from_static("a.test")), &stamp(), &mut written);
        assert!(!read(&written).contains_key("cookie"));
    }

    #[test]
    fn a_call_that_nobody_counts_goes_on_without_a_place_where_it_is_counted() {
        let fields = Fields::from(&[("x-tollgate-usage", "forged")][..]);
        let uncounted = Stamp::new(AccountId([1; ID_BYTES]), KeyId([2; ID_BYTES]), None, OUR_ID);
        let headers = passed(&fields, &uncounted);
        assert_eq!(headers["x-tollgate-account"], AccountId([1; ID_BYTES]).to_string());
        assert!(!headers.contains_key("x-tollgate-usage"), "{headers:?}");
    }

    #[test]
    fn a_forged_identity_does_not_get_through() {
        let headers = upstream(&[
            ("x-tollgate-account", "acc_forged"),
            ("x-tollgate-account", "acc_forged_too"),
            ("x_tollgate_account", "acc_forged"),
            ("x-tollgate-anything", "forged"),
            ("x-request-id", "forged"),
            ("x_request_id", "forged"),
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-tollgat", "harmless"),
        ]);
        assert_eq!(headers.get_all("x-tollgate-account").iter().count(), 1);
        assert_left(headers, &[("x-tollgat", "harmless")]);
    }

    #[test]
    fn nominating_our_headers_does_not_remove_them() {
        let headers = upstream(&[
            ("connection", "X-Tollgate-Account, x-request-id, close"),
            ("connection", "accept-encoding, x-mine, Host, content-length, content-type"),
            ("host", "a.test"),
            ("content-length", "3"),
            ("content-type", "application/json"),
            ("x-mine", "1"),
        ]);
        assert_left(headers, &[("host", "a.test"), ("content-length", "3"), ("content-type", "application/json")]);
    }

    #[test]
    fn what_belongs_to_the_connection_stays_there() {
        let fields = [
            ("connection", "keep-alive, Upgrade, HTTP2-Settings"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, Trailers;q=0.5, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAM"),
            ("expect", "100-continue"),
            ("range", "bytes=0-1"),
            ("trailer", "x-sum"),
            ("collection-name", "c"),
        ];
        assert_left(upstream(&fields), &[("te", "trailers"), ("trailer", "x-sum"), ("collection-name", "c")]);
        assert!(!upstream(&[("te", "gzip")]).contains_key(TE));
        assert_eq!(answer(&fields[..7]), map(&[("x-request-id", "r-1")]));
    }

    #[test]
    fn answers_are_asked_for_uncompressed() {
        let headers =
            upstream(&[("accept-encoding", "gzip, deflate"), ("grpc-accept-encoding", "identity, deflate, gzip")]);
        assert_eq!(headers["accept-encoding"], "identity");
        assert_eq!(headers["grpc-accept-encoding"], "identity");
    }

    #[test]
    fn a_client_gets_our_request_id_and_nothing_that_is_ours_to_say() {
        let answer = answer(&[
            ("x-request-id", "theirs"),
            ("x-tollgate-account", "acc_x"),
            ("alt-svc", "h3=\":443\""),
            ("access-control-allow-origin", "*"),
            ("content-length", "3"),
            ("connection", "x-mine"),
            ("x-mine", "1"),
        ]);
        assert_eq!(answer, map(&[("x-request-id", "r-1"), ("content-length", "3")]));
    }

    #[test]
    fn trailers_carry_neither_identity_nor_framing() {
        let mut trailers = map(&[
            ("x-tollgate-account", "a"),
            ("dashvector-auth-token", "k"),
            ("content-length", "1"),
            ("grpc-status", "0"),
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(trailers, map(&[("grpc-status", "0")]));
    }

    #[test]
    fn a_grpc_timeout_has_up_to_eight_digits_and_a_unit() {
        let of = |value: &'static str| grpc_timeout(&Fields::from(&[("grpc-timeout", value)][..]));
        assert_eq!(grpc_timeout(&Fields::default()), Ok(None));
        for (value, nanos) in [
            ("3S", 3_000_000_000_u128),
            ("2M", 120_000_000_000),
            ("1H", 3_600_000_000_000),
            ("5m", 5_000_000),
            ("5u", 5000),
            ("5n", 5),
            ("0n", 0),
        ] {
            assert_eq!(of(value).map(|timeout| timeout.map(|timeout| timeout.as_nanos())), Ok(Some(nanos)), "{value}");
        }
        assert_eq!(of("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3600))));
        for value in ["", "S", "3", "3s", "-3S", "+3S", "3.5S", "123456789S", "3S,4S", " 3S", "3 S"] {
            assert_eq!(of(value), Err(Denial::Malformed), "{value:?}");
        }
        let two = Fields::from(&[("grpc-timeout", "3S"); 2][..]);
        assert_eq!(grpc_timeout(&two), Err(Denial::Malformed));
    }
}
