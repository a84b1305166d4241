//! Heads as fields come out of HPACK and go into it (RFC 9113, section 8).

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, Version, uri};

use super::hpack;
use crate::gateway::fields::{Fields, Name};
use crate::gateway::headers::{self, Stamp};
use crate::gateway::http1::digits;
use crate::gateway::message::{AnswerHead, RequestHead};

/// What a field counts beside its name and value (RFC 9113, section 6.5.2).
const AROUND: usize = 32;
/// Room for the fields of a usual head.
const LINES: usize = 16;
const BYTES: usize = 768;

/// Why a list of headers is none that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Malformed,
    TooLarge,
}

/// The length that a head says its content has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    #[default]
    Unsaid,
    Said(u64),
}

impl Length {
    /// False: it says another one, says it again, or what is no number.
    fn say(&mut self, value: &[u8]) -> bool {
        let said = digits(value).filter(|_| !value.is_empty());
        match (*self, said) {
            (Self::Unsaid, Some(length)) => *self = Self::Said(length),
            _ => return false,
        }
        true
    }
}

/// What all three lists of headers share: fields below a bound, none of which belongs to a connection.
#[derive(Default)]
struct List {
    fields: Fields,
    length: Length,
    /// Bytes that it may still have.
    left: usize,
    wrong: Option<Wrong>,
    /// A field was there: what has a colon before its name has to stand before all fields.
    has_fields: bool,
}

impl List {
    fn new(most: usize, bytes: usize, lines: usize) -> Self {
        Self { fields: Fields::with_room(bytes, lines), left: most, ..Self::default() }
    }

    fn spoil(&mut self, wrong: Wrong) {
        self.wrong.get_or_insert(wrong);
    }

    /// Takes a field in. Nothing is kept of a list that is too long, but it has to be read to its end: the tables of HPACK go on.
    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.has_fields = true;
        if !self.counts(name, value) {
            return;
        }
        let is_name = !name.is_empty() && name.iter().all(|byte| is_in_name(*byte));
        if !is_name || !value.iter().all(|byte| is_in_value(*byte)) {
            return self.spoil(Wrong::Malformed);
        }
        // As over HTTP/1.1, white space around a value is no part of it.
        let value = value.trim_ascii();
        let known = Name::of(name);
        let is_clear = match known {
            Name::Connection | Name::TransferEncoding | Name::Upgrade => false,
            Name::OfTheConnection => !matches!(name, b"keep-alive" | b"proxy-connection"),
            Name::Te => value.eq_ignore_ascii_case(b"trailers"),
            Name::ContentLength => self.length.say(value),
            _ => true,
        };
        if !is_clear {
            return self.spoil(Wrong::Malformed);
        }
        self.fields.add_known(known, name, value);
    }

    /// Whether there is room for it.
    fn counts(&mut self, name: &[u8], value: &[u8]) -> bool {
        match self.left.checked_sub(name.len() + value.len() + AROUND) {
            Some(left) if self.wrong.is_none() => {
                self.left = left;
                true
            }
            Some(_) => false,
            None => {
                self.spoil(Wrong::TooLarge);
                false
            }
        }
    }

    /// Where a name with a colon may not stand any more, or twice.
    fn pseudo<T>(&mut self, place: &mut Option<T>, is: Option<T>) {
        if self.has_fields || place.is_some() || is.is_none() {
            self.spoil(Wrong::Malformed);
        }
        *place = is;
    }
}

/// A character of a token in lower case (RFC 9110, section 5.6.2; RFC 9113, section 8.2.1).
fn is_in_name(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'.' | b'^' | b'`' | b'|' | b'~')
}

/// What a value may have (RFC 9110, section 5.5).
fn is_in_value(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

/// A request as its fields come.
pub struct Asking {
    list: List,
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
}

impl Asking {
    pub fn new(most: usize) -> Self {
        Self { list: List::new(most, BYTES, LINES), method: None, scheme: None, authority: None, path: None }
    }

    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        let Self { list, method, scheme, authority, path } = self;
        if name.first() != Some(&b':') {
            return list.field(name, value);
        }
        if !list.counts(name, value) {
            return;
        }
        match name {
            b":method" => list.pseudo(method, Method::from_bytes(value).ok()),
            b":scheme" => list.pseudo(scheme, scheme_of(value)),
            // As if it were not there: some say whom they mean in `Host` alone.
            b":authority" if value.is_empty() => {}
            b":authority" => list.pseudo(authority, Authority::from_maybe_shared(Bytes::copy_from_slice(value)).ok()),
            b":path" => list.pseudo(path, path_of(value)),
            _ => list.spoil(Wrong::Malformed),
        }
    }

    pub fn finish(self) -> Result<(RequestHead, Length), Wrong> {
        let Self { list, method, scheme, authority, path } = self;
        let List { fields, length, wrong, .. } = list;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let method = method.ok_or(Wrong::Malformed)?;
        // A tunnel has an authority alone (RFC 9113, section 8.5); whether we make one is decided elsewhere.
        let is_tunnel = method == Method::CONNECT;
        let is_whole = if is_tunnel { authority.is_some() } else { scheme.is_some() && path.is_some() };
        if !is_whole || is_tunnel && (scheme.is_some() || path.is_some()) {
            return Err(Wrong::Malformed);
        }
        let mut parts = uri::Parts::default();
        // An address without an authority has no scheme either.
        parts.scheme = scheme.filter(|_| authority.is_some());
        (parts.authority, parts.path_and_query) = (authority, path);
        let uri = Uri::from_parts(parts).map_err(|_| Wrong::Malformed)?;
        Ok((RequestHead { method, uri, version: Version::HTTP_2, fields }, length))
    }
}

fn scheme_of(value: &[u8]) -> Option<Scheme> {
    match value {
        b"http" => Some(Scheme::HTTP),
        b"https" => Some(Scheme::HTTPS),
        other => Scheme::try_from(other).ok(),
    }
}

fn path_of(value: &[u8]) -> Option<PathAndQuery> {
    let is_path = value.first() == Some(&b'/') || value == b"*";
    is_path.then(|| PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(value)).ok())?
}

/// An answer as its fields come.
pub struct Answering {
    list: List,
    status: Option<StatusCode>,
}

impl Answering {
    pub fn new(most: usize) -> Self {
        Self { list: List::new(most, BYTES / 2, LINES / 2), status: None }
    }

    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":status" if self.list.counts(name, value) => {
                self.list.pseudo(&mut self.status, StatusCode::from_bytes(value).ok());
            }
            [b':', ..] => self.list.spoil(Wrong::Malformed),
            name => self.list.field(name, value),
        }
    }

    pub fn finish(self) -> Result<(AnswerHead, Length), Wrong> {
        let Self { list: List { fields, length, wrong, .. }, status } = self;
        match (wrong, status) {
            (Some(wrong), _) => Err(wrong),
            (None, Some(status)) => Ok((AnswerHead { status, reason: None, fields }, length)),
            (None, _) => Err(Wrong::Malformed),
        }
    }
}

/// What follows content, as its fields come.
pub struct Trailing {
    list: List,
    map: HeaderMap,
}

impl Trailing {
    pub fn new(most: usize) -> Self {
        Self { list: List::new(most, 0, 0), map: HeaderMap::new() }
    }

    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        if !self.list.counts(name, value) {
            return;
        }
        let is_lower = name.iter().all(|byte| is_in_name(*byte));
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) if is_lower => {
                if self.map.try_append(name, value).is_err() {
                    self.list.spoil(Wrong::TooLarge);
                }
            }
            // With a colon before it, it is no name.
            _ => self.list.spoil(Wrong::Malformed),
        }
    }

    pub fn finish(self) -> Result<HeaderMap, Wrong> {
        self.list.wrong.map_or(Ok(self.map), Err)
    }
}

/// Writes the head of a request as it goes to the service.
pub fn put_request(
    method: &Method,
    scheme: &Scheme,
    (authority, path): (Option<&Authority>, &PathAndQuery),
    fields: &Fields,
    (stamp, length): (&Stamp, Option<u64>),
    into: &mut BytesMut,
) {
    hpack::put(b":method", method.as_str().as_bytes(), into);
    hpack::put(b":scheme", scheme.as_str().as_bytes(), into);
    // It was looked at before the key was, so it is an authority.
    let host = fields.first(Name::Host).or(authority.map(|authority| authority.as_str().as_bytes()));
    hpack::put(b":authority", host.unwrap_or_default(), into);
    hpack::put(b":path", path.as_str().as_bytes(), into);
    headers::pass_upstream(fields, stamp, |name, value| hpack::put(name, value, into));
    if let Some(length) = length.filter(|_| !fields.has(Name::ContentLength)) {
        put_length(length, into);
    }
}

/// Writes the head of an answer as it goes to the client. What belongs to a connection over HTTP/1.1 has no place in it.
pub fn put_answer(head: &AnswerHead, date: Option<&HeaderValue>, length: Option<u64>, into: &mut BytesMut) {
    hpack::put_status(head.status.as_u16(), into);
    let (mut has_date, mut has_length) = (false, false);
    for field in head.fields.each() {
        has_date |= field.name == Name::Date;
        has_length |= field.name == Name::ContentLength;
        // RFC 9110, section 8.6.
        if field.name == Name::ContentLength && head.status == StatusCode::NO_CONTENT {
            continue;
        }
        if !matches!(field.name, Name::Connection | Name::TransferEncoding | Name::Upgrade | Name::OfTheConnection) {
            hpack::put(field.text, field.value, into);
        }
    }
    if let Some(date) = date.filter(|_| !has_date) {
        hpack::put(b"date", date.as_bytes(), into);
    }
    if let Some(length) = length.filter(|_| !has_length) {
        put_length(length, into);
    }
}

fn put_length(length: u64, into: &mut BytesMut) {
    hpack::put(b"content-length", HeaderValue::from(length).as_bytes(), into);
}

pub fn put_trailers(trailers: &HeaderMap, into: &mut BytesMut) {
    for (name, value) in trailers {
        hpack::put(name.as_str().as_bytes(), value.as_bytes(), into);
    }
}
