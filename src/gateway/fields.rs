//! The fields of a head. What a name means to the gateway is told once, when the head is read; whoever asks later compares numbers.
//!
//! Over HTTP/1.1 they are lines, as they are written: there is no map to be made of them and none to be written from. Over HTTP/2 they are
//! the map that h2 makes and takes.

use std::fmt;

use bytes::{BufMut, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue, ValueIter};

use crate::gateway::http1::write_field;

/// What a name means to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Name {
    AcceptEncoding,
    Authorization,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
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

/// Those that stand for one name each, in the order of [`Name`].
static SINGLE: [HeaderName; 19] = [
    HeaderName::from_static("accept-encoding"),
    HeaderName::from_static("authorization"),
    HeaderName::from_static("connection"),
    HeaderName::from_static("content-encoding"),
    HeaderName::from_static("content-length"),
    HeaderName::from_static("content-type"),
    HeaderName::from_static("date"),
    HeaderName::from_static("expect"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("host"),
    HeaderName::from_static("origin"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("te"),
    HeaderName::from_static("dashvector-auth-token"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
];

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

    /// The name, where it stands for one.
    fn header(self) -> Option<&'static HeaderName> {
        SINGLE.get(self as usize)
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

/// The fields of one head. What is printed of them is their names: a value may be a key.
#[derive(Clone)]
pub enum Fields {
    Lines(Lines),
    Map(HeaderMap),
}

/// One field. Its name is in lower case.
#[derive(Clone, Copy)]
pub struct Field<'f> {
    pub name: Name,
    pub text: &'f [u8],
    pub value: &'f [u8],
}

/// Fields as HTTP/1.1 writes them.
#[derive(Clone, Default)]
pub struct Lines {
    /// `name: value` and a line end for each, also for those that were removed since.
    bytes: Vec<u8>,
    lines: Vec<Line>,
    /// The names that were ever there.
    held: u32,
}

/// Where a line is.
#[derive(Clone, Copy, Debug)]
pub struct Line {
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

impl Lines {
    /// What was parsed from a head of this many bytes.
    pub fn read(parsed: &[httparse::Header<'_>], length: usize) -> Self {
        // A line may have come without its space.
        let bytes = Vec::with_capacity(length + parsed.len() + ADDED);
        let mut read = Self { bytes, lines: Vec::with_capacity(parsed.len() + 1), held: 0 };
        for field in parsed {
            read.push(field.name.as_bytes(), field.value);
        }
        read
    }

    /// With room for so much.
    pub fn with_room(bytes: usize, lines: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), lines: Vec::with_capacity(lines), held: 0 }
    }

    /// Adds a field, whose name may be in any case.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let lower = self.bytes.get_mut(start..).unwrap_or_default();
        lower.make_ascii_lowercase();
        let name = Name::of(lower);
        self.end_line(start, name, value);
    }

    /// Adds a field whose name is in lower case, and what that means.
    pub fn push_known(&mut self, known: Name, name: &[u8], value: &[u8]) {
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

    fn remove_where(&mut self, mut so: impl FnMut(Field<'_>) -> bool) {
        let Self { bytes, lines, .. } = self;
        lines.retain(|line| !so(field(bytes, line)));
    }

    fn value(&self, line: &Line) -> &[u8] {
        part(&self.bytes, line.value, line.end)
    }

    fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| field(&self.bytes, line))
    }

    fn whole(&self, line: &Line) -> &[u8] {
        part(&self.bytes, line.start, line.end.saturating_add(LINE_END.len() as u32))
    }
}

fn part(bytes: &[u8], from: u32, to: u32) -> &[u8] {
    bytes.get(from as usize..to as usize).unwrap_or_default()
}

fn field<'f>(bytes: &'f [u8], line: &Line) -> Field<'f> {
    let text = part(bytes, line.start, line.value.saturating_sub(COLON.len() as u32));
    Field { name: line.name, text, value: part(bytes, line.value, line.end) }
}

impl From<Lines> for Fields {
    fn from(lines: Lines) -> Self {
        Self::Lines(lines)
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        Self::Map(map)
    }
}

impl Fields {
    /// All values of a name that stands for one.
    pub fn all(&self, name: Name) -> Values<'_> {
        match self {
            Self::Lines(lines) if lines.held & name.bit() == 0 => Values::None,
            Self::Lines(lines) => Values::Lines { of: lines, left: &lines.lines, name },
            Self::Map(map) => name.header().map_or(Values::None, |name| Values::Map(map.get_all(name).iter())),
        }
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
        match self {
            Self::Lines(lines) => lines.lines.len(),
            Self::Map(map) => map.len(),
        }
    }

    /// The bytes of all names and values, and so many more for each.
    pub fn bytes(&self, around: usize) -> usize {
        match self {
            Self::Lines(lines) => lines.fields().map(|field| field.text.len() + field.value.len() + around).sum(),
            Self::Map(map) => map.iter().map(|(name, value)| name.as_str().len() + value.len() + around).sum(),
        }
    }

    pub fn for_each(&self, mut each: impl FnMut(Field<'_>)) {
        match self {
            Self::Lines(lines) => lines.fields().for_each(each),
            Self::Map(map) => map.iter().for_each(|(name, value)| each(in_map(name, value.as_bytes()))),
        }
    }

    /// Writes those of which this is so, as HTTP/1.1 does.
    pub fn write_where(&self, into: &mut BytesMut, mut so: impl FnMut(Field<'_>) -> bool) {
        match self {
            Self::Lines(lines) => {
                for line in lines.lines.iter().filter(|line| so(field(&lines.bytes, line))) {
                    into.put_slice(lines.whole(line));
                }
            }
            Self::Map(map) => {
                for (name, value) in map.iter().filter(|(name, value)| so(in_map(name, value.as_bytes()))) {
                    write_field(name, value.as_bytes(), into);
                }
            }
        }
    }

    /// Removes all fields whose names are so. Usually there are none, and then this looks at each name once and allocates nothing.
    pub fn remove_where(&mut self, so: impl Fn(Name, &[u8]) -> bool) {
        match self {
            Self::Lines(lines) => lines.remove_where(|field| so(field.name, field.text)),
            Self::Map(map) => remove_where(map, so),
        }
    }

    /// Removes a name that stands for one.
    pub fn remove(&mut self, name: Name) {
        match (self, name.header()) {
            (Self::Lines(lines), _) if lines.held & name.bit() == 0 => {}
            (Self::Lines(lines), _) => lines.remove_where(|field| field.name == name),
            (Self::Map(map), Some(name)) => _ = map.remove(name),
            (Self::Map(_), None) => {}
        }
    }

    /// Removes all but the first of a name that stands for one.
    pub fn keep_first(&mut self, name: Name) {
        match self {
            Self::Lines(lines) => {
                let mut seen = false;
                lines.remove_where(|field| field.name == name && std::mem::replace(&mut seen, true));
            }
            Self::Map(map) => {
                if let Some((name, value)) = name.header().and_then(|name| Some((name, map.get(name)?.clone()))) {
                    map.insert(name, value);
                }
            }
        }
    }

    /// Says this beside all that is there.
    pub fn push(&mut self, name: &'static HeaderName, value: &HeaderValue) {
        match self {
            Self::Lines(lines) => lines.push(name.as_str().as_bytes(), value.as_bytes()),
            Self::Map(map) => _ = map.append(name, value.clone()),
        }
    }

    /// As a map.
    pub fn into_map(self) -> HeaderMap {
        let lines = match self {
            Self::Map(map) => return map,
            Self::Lines(lines) => lines,
        };
        let mut map = HeaderMap::with_capacity(lines.lines.len() + 1);
        for Field { text, value, .. } in lines.fields() {
            // What was read as a field is one.
            if let (Ok(text), Ok(value)) = (HeaderName::from_bytes(text), HeaderValue::from_bytes(value)) {
                map.append(text, value);
            }
        }
        map
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = f.debug_list();
        self.for_each(|field| _ = names.entry(&field.text.escape_ascii().to_string()));
        names.finish()
    }
}

#[cfg(test)]
impl Fields {
    /// The same fields in both forms.
    pub fn both(fields: &[(&str, &str)]) -> [Self; 2] {
        let (mut lines, mut map) = (Lines::default(), HeaderMap::new());
        for (name, value) in fields {
            lines.push(name.as_bytes(), value.as_bytes());
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        [lines.into(), map.into()]
    }
}

fn in_map<'f>(name: &'f HeaderName, value: &'f [u8]) -> Field<'f> {
    let text = name.as_str().as_bytes();
    Field { name: Name::of(text), text, value }
}

/// As [`Fields::remove_where`], of a map.
pub fn remove_where(map: &mut HeaderMap, so: impl Fn(Name, &[u8]) -> bool) {
    let is_so = |name: &&HeaderName| so(Name::of(name.as_str().as_bytes()), name.as_str().as_bytes());
    let found: Vec<HeaderName> = map.keys().filter(is_so).cloned().collect();
    for name in found {
        map.remove(name);
    }
}

/// The values of one name.
pub enum Values<'f> {
    None,
    Lines { of: &'f Lines, left: &'f [Line], name: Name },
    Map(ValueIter<'f, HeaderValue>),
}

impl<'f> Iterator for Values<'f> {
    type Item = &'f [u8];

    fn next(&mut self) -> Option<&'f [u8]> {
        match self {
            Self::None => None,
            Self::Lines { of, left, name } => loop {
                let (line, rest) = left.split_first()?;
                *left = rest;
                if line.name == *name {
                    return Some(of.value(line));
                }
            },
            Self::Map(values) => values.next().map(HeaderValue::as_bytes),
        }
    }
}

impl DoubleEndedIterator for Values<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::None => None,
            Self::Lines { of, left, name } => loop {
                let (line, rest) = left.split_last()?;
                *left = rest;
                if line.name == *name {
                    return Some(of.value(line));
                }
            },
            Self::Map(values) => values.next_back().map(HeaderValue::as_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_stands_for_one_has_its_place() {
        for (at, header) in SINGLE.iter().enumerate() {
            let name = Name::of(header.as_str().as_bytes());
            assert_eq!((name as usize, name.header()), (at, Some(header)));
        }
        for name in [Name::OfTheConnection, Name::NotForTheService, Name::NotForTheClient, Name::Ours, Name::Other] {
            assert_eq!(name.header(), None, "{name:?}");
        }
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
        let mut fields = Fields::from(Lines::read(parsed, length));
        fields.remove(Name::Token);
        let mut written = BytesMut::new();
        fields.write_where(&mut written, |_| true);
        assert_eq!(written, "host: a.test\r\nx-empty: \r\nx-padded: v w\r\n");
        assert!(!fields.has(Name::Token) && fields.count() == 3);
    }

    #[test]
    fn what_is_printed_has_no_values() {
        for fields in Fields::both(&[("dashvector-auth-token", "k1-secret"), ("te", "trailers")]) {
            assert_eq!(format!("{fields:?}"), r#"["dashvector-auth-token", "te"]"#);
        }
    }

    const NAMES: [&str; 12] = [
        "Host",
        "content-length",
        "Connection",
        "x-tollgate-a",
        "x_request_id",
        "x-forwarded-for",
        "Alt-Svc",
        "access-control-max-age",
        "te",
        "Other",
        "other",
        "keep-alive",
    ];

    /// All there is to be known of the fields, in an order that does not depend on their form.
    fn told(fields: &Fields) -> Vec<String> {
        let mut told = vec![format!("{} {}", fields.count(), fields.bytes(4))];
        fields.for_each(|field| told.push(format!("{:?} {:?} {:?}", field.name, field.text, field.value)));
        told.sort();
        for header in &SINGLE {
            let name = Name::of(header.as_str().as_bytes());
            let (values, back): (Vec<_>, Vec<_>) = (fields.all(name).collect(), fields.all(name).rev().collect());
            assert_eq!(back, values.iter().rev().copied().collect::<Vec<_>>());
            told.push(format!("{name:?} {values:?} {:?}", fields.first(name)));
        }
        told
    }

    proptest! {
        #[test]
        fn both_forms_are_the_same_fields(
            fields in prop::collection::vec((prop::sample::select(&NAMES[..]), "[a-z ,]{0,6}[a-z]"), 0..12),
            step in 0..6,
        ) {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
            let mut both = Fields::both(&fields);
            for fields in &mut both {
                match step {
                    0 => fields.remove(Name::Connection),
                    1 => fields.remove_where(|name, text| name == Name::Ours || text == b"other"),
                    2 => fields.keep_first(Name::ContentLength),
                    3 => fields.push(&SINGLE[Name::Te as usize], &HeaderValue::from_static("trailers")),
                    _ => {}
                }
            }
            prop_assert_eq!(told(&both[0]), told(&both[1]));
            let [lines, map] = both;
            prop_assert_eq!(lines.into_map(), map.into_map());
        }
    }
}
