//! The fields of a head. What a name means to the gateway is told once, when the head is read; whoever asks later compares numbers.
//!
//! They are lines, as HTTP/1.1 writes them, whichever protocol they came by: no map is made of them and none is written from.

use std::fmt;

use bytes::{BufMut, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// What a name means to the gateway. Those before [`Name::OfTheConnection`] stand for one name each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Name {
    AcceptEncoding,
    Authorization,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Cookie,
    Date,
    Expect,
    ForwardedFor,
    GrpcAcceptEncoding,
    GrpcStatus,
    GrpcTimeout,
    Host,
    Origin,
    SecFetchMode,
    Te,
    /// Where the SDK puts the key.
    Token,
    TransferEncoding,
    Upgrade,
    /// Another one of those that belong to one connection (RFC 9110, section 7.6.1).
    OfTheConnection,
    /// What the service is not told. A part of a document would hide the usage at its end. Where a call came from is nothing that the
    /// service could check, so it is not told what the client or a proxy claimed.
    NotForTheService,
    /// What no client is told. `Alt-Svc` would lead it around the gateway; a key is for servers, so no answer ever tells a browser that it
    /// may be read (CORS).
    NotForTheClient,
    /// Only the gateway may say it.
    Ours,
    Other,
}

impl Name {
    /// That of a name in lower case.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"accept-encoding" => Self::AcceptEncoding,
            b"authorization" => Self::Authorization,
            b"connection" => Self::Connection,
            b"content-encoding" => Self::ContentEncoding,
            b"content-length" => Self::ContentLength,
            b"content-type" => Self::ContentType,
            b"cookie" => Self::Cookie,
            b"date" => Self::Date,
            b"expect" => Self::Expect,
            b"x-forwarded-for" => Self::ForwardedFor,
            b"grpc-accept-encoding" => Self::GrpcAcceptEncoding,
            b"grpc-status" => Self::GrpcStatus,
            b"grpc-timeout" => Self::GrpcTimeout,
            b"host" => Self::Host,
            b"origin" => Self::Origin,
            b"sec-fetch-mode" => Self::SecFetchMode,
            b"te" => Self::Te,
            b"dashvector-auth-token" => Self::Token,
            b"transfer-encoding" => Self::TransferEncoding,
            b"upgrade" => Self::Upgrade,
            b"http2-settings"
            | b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization" => Self::OfTheConnection,
            b"range" | b"if-range" | b"forwarded" | b"x-forwarded-host" | b"x-forwarded-proto"
            | b"x-forwarded-port" | b"x-real-ip" => Self::NotForTheService,
            b"alt-svc" => Self::NotForTheClient,
            [b'a', ..] if name.starts_with(b"access-control-") => Self::NotForTheClient,
            [b'x', ..] if is_ours(name) => Self::Ours,
            _ => Self::Other,
        }
    }

    /// Its place in a set of names.
    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Names that only the gateway may set. Some services read `_` as `-`, so both spellings are meant.
fn is_ours(name: &[u8]) -> bool {
    let dashed = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    let is = |ours: &[u8], name: &[u8]| ours.iter().copied().eq(name.iter().map(dashed));
    name.get(..11).is_some_and(|start| is(b"x-tollgate-", start)) || is(b"x-request-id", name)
}

/// The fields of one head, in their order. What is printed of them is their names: a value may be a key.
#[derive(Clone, Default)]
pub struct Fields {
    /// `name: value` and a line end for each, also for those that were removed since.
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// The names that were ever there.
    held: u32,
}

/// One field. Its name is in lower case.
#[derive(Clone, Copy)]
pub struct Field<'f> {
    pub name: Name,
    pub text: &'f [u8],
    pub value: &'f [u8],
}

/// Where a line is.
#[derive(Clone, Copy, Debug)]
struct Line {
    name: Name,
    start: u32,
    value: u32,
    /// Of the value; the line end follows.
    end: u32,
}

/// What stands between a name and its value, and after it.
const COLON: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";
/// Room for what is added to each answer.
const ADDED: usize = 64;

impl Fields {
    /// With room for so much.
    pub fn with_room(bytes: usize, lines: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), lines: Vec::with_capacity(lines), held: 0 }
    }

    /// What was parsed from a head of this many bytes.
    pub fn read(parsed: &[httparse::Header<'_>], length: usize) -> Self {
        // A line may have come without its space.
        let mut read = Self::with_room(length + parsed.len() + ADDED, parsed.len() + 1);
        for field in parsed {
            read.add(field.name.as_bytes(), field.value);
        }
        read
    }

    /// Adds a field, whose name may be in any case.
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let lower = self.bytes.get_mut(start..).unwrap_or_default();
        lower.make_ascii_lowercase();
        let name = Name::of(lower);
        self.end_line(start, name, value);
    }

    /// Adds a field whose name is in lower case, and what that means.
    pub fn add_known(&mut self, known: Name, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.end_line(start, known, value);
    }

    fn end_line(&mut self, start: usize, name: Name, value: &[u8]) {
        self.bytes.extend_from_slice(COLON);
        let from = self.bytes.len();
        self.bytes.extend_from_slice(value);
        let end = self.bytes.len();
        self.bytes.extend_from_slice(LINE_END);
        self.held |= name.bit();
        // A head is far smaller than that, and a place that is not there has nothing in it.
        let [start, value, end] = [start, from, end].map(|at| u32::try_from(at).unwrap_or(u32::MAX));
        self.lines.push(Line { name, start, value, end });
    }

    /// All values of a name that stands for one.
    pub fn all(&self, name: Name) -> Values<'_> {
        let lines = if self.held & name.bit() == 0 { &[][..] } else { &self.lines };
        Values { bytes: &self.bytes, lines, name }
    }

    /// The first value of a name that stands for one.
    pub fn first(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    pub fn has(&self, name: Name) -> bool {
        self.first(name).is_some()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// The bytes of all names and values, and so many more for each.
    pub fn bytes(&self, around: usize) -> usize {
        self.each().map(|field| field.text.len() + field.value.len() + around).sum()
    }

    pub fn each(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| field(&self.bytes, line))
    }

    /// Writes those of which this is so, as HTTP/1.1 does.
    pub fn write_where(&self, into: &mut BytesMut, mut so: impl FnMut(Field<'_>) -> bool) {
        for line in self.lines.iter().filter(|line| so(field(&self.bytes, line))) {
            into.put_slice(part(&self.bytes, line.start, line.end.saturating_add(LINE_END.len() as u32)));
        }
    }

    /// Removes all fields whose names are so.
    pub fn remove_where(&mut self, so: impl Fn(Name, &[u8]) -> bool) {
        let Self { bytes, lines, .. } = self;
        lines.retain(|line| {
            let field = field(bytes, line);
            !so(field.name, field.text)
        });
    }

    /// Removes a name that stands for one.
    pub fn remove(&mut self, name: Name) {
        if self.held & name.bit() != 0 {
            self.lines.retain(|line| line.name != name);
        }
    }

    /// Removes all but the first of a name that stands for one.
    pub fn keep_first(&mut self, name: Name) {
        let mut seen = false;
        self.lines.retain(|line| line.name != name || !std::mem::replace(&mut seen, true));
    }

    /// As a map.
    pub fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len() + 1);
        for Field { text, value, .. } in self.each() {
            // What was read as a field is one.
            if let (Ok(text), Ok(value)) = (HeaderName::from_bytes(text), HeaderValue::from_bytes(value)) {
                map.append(text, value);
            }
        }
        map
    }
}

fn part(bytes: &[u8], from: u32, to: u32) -> &[u8] {
    bytes.get(from as usize..to as usize).unwrap_or_default()
}

fn field<'f>(bytes: &'f [u8], line: &Line) -> Field<'f> {
    let text = part(bytes, line.start, line.value.saturating_sub(COLON.len() as u32));
    Field { name: line.name, text, value: part(bytes, line.value, line.end) }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.each().map(|field| field.text.escape_ascii().to_string())).finish()
    }
}

#[cfg(test)]
impl From<&[(&str, &str)]> for Fields {
    fn from(fields: &[(&str, &str)]) -> Self {
        let mut read = Self::default();
        fields.iter().for_each(|(name, value)| read.add(name.as_bytes(), value.as_bytes()));
        read
    }
}

/// Removes all fields from a map whose names are so. Usually there are none, and then this allocates nothing.
pub fn remove_where(map: &mut HeaderMap, so: impl Fn(Name, &[u8]) -> bool) {
    let is_so = |name: &&HeaderName| so(Name::of(name.as_str().as_bytes()), name.as_str().as_bytes());
    let found: Vec<HeaderName> = map.keys().filter(is_so).cloned().collect();
    for name in found {
        map.remove(name);
    }
}

/// The values of one name.
pub struct Values<'f> {
    bytes: &'f [u8],
    lines: &'f [Line],
    name: Name,
}

impl<'f> Iterator for Values<'f> {
    type Item = &'f [u8];

    fn next(&mut self) -> Option<&'f [u8]> {
        loop {
            let (line, rest) = self.lines.split_first()?;
            self.lines = rest;
            if line.name == self.name {
                return Some(part(self.bytes, line.value, line.end));
            }
        }
    }
}

impl DoubleEndedIterator for Values<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            let (line, rest) = self.lines.split_last()?;
            self.lines = rest;
            if line.name == self.name {
                return Some(part(self.bytes, line.value, line.end));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_name_that_stands_for_one_is_another() {
        let texts = [
            "accept-encoding",
            "authorization",
            "connection",
            "content-encoding",
            "content-length",
            "content-type",
            "cookie",
            "date",
            "expect",
            "x-forwarded-for",
            "grpc-accept-encoding",
            "grpc-status",
            "grpc-timeout",
            "host",
            "origin",
            "sec-fetch-mode",
            "te",
            "dashvector-auth-token",
            "transfer-encoding",
            "upgrade",
        ];
        let names: Vec<_> = texts.iter().map(|text| Name::of(text.as_bytes()) as u32).collect();
        assert_eq!(names, (0..texts.len() as u32).collect::<Vec<_>>());
        assert!((Name::Other as u32) < u32::BITS);
    }

    #[test]
    fn both_spellings_of_our_names_are_ours() {
        for name in ["x-tollgate-account", "x_tollgate_account", "x-tollgate-", "x-request-id", "x_request-id"] {
            assert_eq!(Name::of(name.as_bytes()), Name::Ours, "{name}");
        }
        for name in ["x-tollgat", "x-tollgate", "x-request-ids", "x-request-i", "x", "my-x-request-id"] {
            assert_eq!(Name::of(name.as_bytes()), Name::Other, "{name}");
        }
    }

    #[test]
    fn lines_are_written_as_http_1_has_them_whatever_they_came_as() {
        let text = b"Host:a.test\r\nX-Empty:\r\nx-Padded: \t v w \t\nDASHVECTOR-auth-token: k\r\n\r\n";
        let mut room = [httparse::EMPTY_HEADER; 8];
        let httparse::Status::Complete((length, parsed)) = httparse::parse_headers(text, &mut room).unwrap() else {
            panic!("it is whole");
        };
        let mut fields = Fields::read(parsed, length);
        fields.remove(Name::Token);
        let mut written = BytesMut::new();
        fields.write_where(&mut written, |_| true);
        assert_eq!(written, "host: a.test\r\nx-empty: \r\nx-padded: v w\r\n");
        assert!(!fields.has(Name::Token) && fields.count() == 3);
    }

    #[test]
    fn what_is_printed_has_no_values() {
        let fields = Fields::from(&[("dashvector-auth-token", "k1-secret"), ("te", "trailers")][..]);
        assert_eq!(format!("{fields:?}"), r#"["dashvector-auth-token", "te"]"#);
    }

    const NAMES: [&str; 10] = [
        "Host",
        "content-length",
        "Connection",
        "x-tollgate-a",
        "x_request_id",
        "x-forwarded-for",
        "te",
        "Other",
        "other",
        "keep-alive",
    ];

    proptest! {
        #[test]
        fn fields_are_what_a_list_of_them_would_be(
            fields in prop::collection::vec((prop::sample::select(&NAMES[..]), "[a-z ,]{0,6}[a-z]"), 0..12),
            step in 0..6,
        ) {
            let mut list: Vec<(String, String)> =
                fields.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
            let given: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
            let mut fields = Fields::from(&given[..]);
            match step {
                0 => {
                    fields.remove(Name::Connection);
                    list.retain(|(name, _)| name != "connection");
                }
                1 => {
                    fields.remove_where(|name, text| name == Name::Ours || text == b"other");
                    list.retain(|(name, _)| !["x-tollgate-a", "x_request_id", "other"].contains(&&**name));
                }
                2 => {
                    fields.keep_first(Name::ContentLength);
                    let mut seen = false;
                    list.retain(|(name, _)| name != "content-length" || !std::mem::replace(&mut seen, true));
                }
                3 => {
                    fields.add(b"TE", b"trailers");
                    list.push(("te".to_owned(), "trailers".to_owned()));
                }
                _ => {}
            }
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let told: Vec<_> = fields.each().map(|field| (text(field.text), text(field.value))).collect();
            prop_assert_eq!(&told, &list);
            prop_assert_eq!(fields.bytes(4), list.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>());
            for (of, name) in [("host", Name::Host), ("content-length", Name::ContentLength), ("te", Name::Te)] {
                let expected: Vec<_> =
                    list.iter().filter(|(name, _)| name == of).map(|(_, value)| value.as_bytes()).collect();
                prop_assert_eq!(fields.all(name).collect::<Vec<_>>(), expected.clone());
                prop_assert_eq!(fields.all(name).rev().collect::<Vec<_>>(), expected.into_iter().rev().collect::<Vec<_>>());
            }
            let map: HeaderMap = list.iter().map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
            }).collect();
            prop_assert_eq!(fields.clone().into_map().len(), list.len());
            prop_assert_eq!(fields.into_map().keys_len(), map.keys_len());
        }
    }
}
