//! Encoding of header blocks (RFC 7541, 6), without the dynamic table and without Huffman's code.
//!
//! What this costs is some octets per field. What it saves is the table with its look-ups, for each connection, and
//! the care for what must not be compressed together with what an attacker chooses (RFC 7541, 7.1).

use bytes::{BufMut, BytesMut};

/// The size of the dynamic table that the peer's decoder begins with (RFC 9113, 6.5.2).
const FIRST_SIZE: u32 = 4096;

/// A change of the table's size to 0 (RFC 7541, 6.3).
const RESIZE_TO_ZERO: u8 = 0x20;

/// A field that is in the static table, before its index (RFC 7541, 6.1).
const INDEXED: u8 = 0x80;

/// A literal that nobody may put into a table (RFC 7541, 6.2.3). What came so has to go on so, and for the rest nothing is lost by it: we
/// say each field anew.
const NEVER_INDEXED: u8 = 0x10;

/// The largest value of the integers' prefixes (RFC 7541, 5.1): of a name's index and of a string's length.
const NAME_PREFIX: u8 = 0x0f;
const LENGTH_PREFIX: u8 = 0x7f;

/// The index of `:status`, the first of the static table with that name.
const STATUS: u8 = 8;

/// What the peer must be told about the dynamic table. We never use it, but where the peer makes it smaller than it
/// was, the peer may demand to hear that we noticed (RFC 7541, 4.2; RFC 9113, 4.3.1).
#[derive(Debug, Default)]
pub struct Encoder {
    /// By how much the peer's table is smaller than what it began with.
    missing: u32,
    due: bool,
}

impl Encoder {
    /// Takes note of the peer's `SETTINGS_HEADER_TABLE_SIZE`, for each time that it is announced and in that order.
    /// Where it is reduced below 4096, the next block begins with a change of the size to 0, which satisfies every
    /// reduction before it; also where it was raised again in between.
    pub fn peer_allows(&mut self, size: u32) {
        let missing = FIRST_SIZE.saturating_sub(size);
        self.due |= missing > self.missing;
        self.missing = missing;
    }

    /// Begins a block: writes what is due of changes of the table's size. Every block must begin with this, and its
    /// fields follow by [`put_status`] and [`put`].
    pub fn begin(&mut self, into: &mut BytesMut) {
        if std::mem::take(&mut self.due) {
            into.put_u8(RESIZE_TO_ZERO);
        }
    }
}

/// Writes one field: indexed where name and value are in the static table, else as a literal that nobody indexes. The
/// name is in lower case, as HTTP/2 demands (RFC 9113, 8.2.1).
pub fn put(name: &[u8], value: &[u8], into: &mut BytesMut) {
    let index = name_index(name);
    if let Some(index) = field_index(index, value) {
        into.put_u8(INDEXED | index);
        return;
    }
    into.reserve(name.len().saturating_add(value.len()).saturating_add(16));
    put_name_index(index, into);
    if index == 0 {
        put_string(name, into);
    }
    put_string(value, into);
}

/// Writes the field `:status`, which must be the first of a response (RFC 9113, 8.3). A number that is no status
/// (those have three digits: RFC 9110, 15) is a mistake of ours and becomes 500.
pub fn put_status(status: u16, into: &mut BytesMut) {
    let [hundreds, tens, ones] = match status {
        100..=999 => [status / 100, status / 10 % 10, status % 10].map(digit),
        _ => *b"500",
    };
    put(b":status", &[hundreds, tens, ones], into);
}

/// The character of a number below 10.
fn digit(number: u16) -> u8 {
    u8::try_from(number).map_or(b'0', |number| b'0'.saturating_add(number))
}

/// Begins a literal. 0 stands for a name that follows.
fn put_name_index(index: u8, into: &mut BytesMut) {
    match index.checked_sub(NAME_PREFIX) {
        None => into.put_u8(NEVER_INDEXED | index),
        Some(rest) => into.put_slice(&[NEVER_INDEXED | NAME_PREFIX, rest]),
    }
}

/// A string without Huffman's code (RFC 7541, 5.2).
fn put_string(text: &[u8], into: &mut BytesMut) {
    match u8::try_from(text.len()) {
        Ok(length) if length < LENGTH_PREFIX => into.put_u8(length),
        _ => put_long_length(text.len(), into),
    }
    into.put_slice(text);
}

/// An integer that does not fit into its prefix: the rest of it in sevens of bits, the least significant first.
fn put_long_length(length: usize, into: &mut BytesMut) {
    into.put_u8(LENGTH_PREFIX);
    let mut rest = length.saturating_sub(usize::from(LENGTH_PREFIX));
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        into.put_u8(0x80 | low);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    into.put_u8(low);
}

/// The index of a field in the static table, by the (first) index of its name.
fn field_index(name: u8, value: &[u8]) -> Option<u8> {
    match (name, value) {
        (2, b"GET") => Some(2),
        (2, b"POST") => Some(3),
        (4, b"/") => Some(4),
        (4, b"/index.html") => Some(5),
        (6, b"http") => Some(6),
        (6, b"https") => Some(7),
        (STATUS, _) => status_index(value),
        (16, b"gzip, deflate") => Some(16),
        (0 | 2 | 4 | 6 | 16, _) => None,
        // All others have no value there.
        (_, b"") => Some(name),
        _ => None,
    }
}

fn status_index(value: &[u8]) -> Option<u8> {
    match value {
        b"200" => Some(8),
        b"204" => Some(9),
        b"206" => Some(10),
        b"304" => Some(11),
        b"400" => Some(12),
        b"404" => Some(13),
        b"500" => Some(14),
        _ => None,
    }
}

/// The first index in the static table that has this name, or 0. By its length first, so that only a few names are
/// compared.
fn name_index(name: &[u8]) -> u8 {
    match name.len() {
        3..=5 => index_of_three_to_five(name),
        6..=8 => index_of_six_to_eight(name),
        10..=13 => index_of_ten_to_thirteen(name),
        14..=16 => index_of_fourteen_to_sixteen(name),
        17.. => index_of_seventeen_and_more(name),
        _ => 0,
    }
}

fn index_of_three_to_five(name: &[u8]) -> u8 {
    match (name.len(), name) {
        (3, b"age") => 21,
        (3, b"via") => 60,
        (4, b"date") => 33,
        (4, b"etag") => 34,
        (4, b"from") => 37,
        (4, b"host") => 38,
        (4, b"link") => 45,
        (4, b"vary") => 59,
        (5, b":path") => 4,
        (5, b"allow") => 22,
        (5, b"range") => 50,
        _ => 0,
    }
}

fn index_of_six_to_eight(name: &[u8]) -> u8 {
    match (name.len(), name) {
        (6, b"accept") => 19,
        (6, b"cookie") => 32,
        (6, b"expect") => 35,
        (6, b"server") => 54,
        (7, b":status") => STATUS,
        (7, b":method") => 2,
        (7, b":scheme") => 6,
        (7, b"expires") => 36,
        (7, b"referer") => 51,
        (7, b"refresh") => 52,
        (8, b"location") => 46,
        (8, b"if-match") => 39,
        (8, b"if-range") => 42,
        _ => 0,
    }
}

fn index_of_ten_to_thirteen(name: &[u8]) -> u8 {
    match (name.len(), name) {
        (10, b":authority") => 1,
        (10, b"set-cookie") => 55,
        (10, b"user-agent") => 58,
        (11, b"retry-after") => 53,
        (12, b"content-type") => 31,
        (12, b"max-forwards") => 47,
        (13, b"accept-ranges") => 18,
        (13, b"authorization") => 23,
        (13, b"cache-control") => 24,
        (13, b"content-range") => 30,
        (13, b"if-none-match") => 41,
        (13, b"last-modified") => 44,
        _ => 0,
    }
}

fn index_of_fourteen_to_sixteen(name: &[u8]) -> u8 {
    match (name.len(), name) {
        (14, b"content-length") => 28,
        (14, b"accept-charset") => 15,
        (15, b"accept-encoding") => 16,
        (15, b"accept-language") => 17,
        (16, b"content-encoding") => 26,
        (16, b"content-language") => 27,
        (16, b"content-location") => 29,
        (16, b"www-authenticate") => 61,
        _ => 0,
    }
}

fn index_of_seventeen_and_more(name: &[u8]) -> u8 {
    match (name.len(), name) {
        (17, b"if-modified-since") => 40,
        (17, b"transfer-encoding") => 57,
        (18, b"proxy-authenticate") => 48,
        (19, b"content-disposition") => 25,
        (19, b"if-unmodified-since") => 43,
        (19, b"proxy-authorization") => 49,
        (25, b"strict-transport-security") => 56,
        (27, b"access-control-allow-origin") => 20,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::super::Decoder;
    use super::super::table::STATIC;
    use super::*;

    fn written(name: &[u8], value: &[u8]) -> BytesMut {
        let mut into = BytesMut::new();
        put(name, value, &mut into);
        into
    }

    fn begun(encoder: &mut Encoder) -> BytesMut {
        let mut into = BytesMut::new();
        encoder.begin(&mut into);
        into
    }

    #[test]
    fn the_static_table_is_known() {
        for (nth, &(name, value)) in STATIC.iter().enumerate() {
            let first = STATIC.iter().position(|field| field.0 == name).map(|first| first + 1);
            assert_eq!(Some(usize::from(name_index(name))), first, "{}", name.escape_ascii());
            assert_eq!(written(name, value)[..], [0x81 + nth as u8], "{}", name.escape_ascii());
            assert_eq!(name_index(&name[1..]), 0);
            assert_eq!(name_index(&[name, b"x"].concat()), 0);
        }
        assert_eq!(name_index(b""), 0);
    }

    #[test]
    fn other_fields_are_literals_that_are_not_indexed() {
        assert_eq!(written(b":path", b"/sample/path")[..], b"\x14\x0c/sample/path"[..]);
        assert_eq!(written(b"www-authenticate", b"x")[..], [0x1f, 61 - 15, 1, b'x']);
        assert_eq!(written(b"accept-charset", b"x")[..], [0x1f, 0, 1, b'x']);
        assert_eq!(written(b":status", b"418")[..], b"\x18\x03418"[..]);
        assert_eq!(written(b":method", b"")[..], [0x12, 0]);
        assert_eq!(written(b"accept-encoding", b"")[..], [0x1f, 1, 0]);
        assert_eq!(written(b"x-a", b"b")[..], b"\x10\x03x-a\x01b"[..]);
        assert_eq!(written(b"", b"")[..], [0x10, 0, 0]);
    }

    #[test]
    fn long_strings_have_long_lengths() {
        for (length, begin) in [
            (126, &[0x14, 126][..]),
            (127, &[0x14, 127, 0]),
            (254, &[0x14, 127, 127]),
            (255, &[0x14, 127, 0x80, 1]),
            (1337 + 127, &[0x14, 127, 0xb9, 0x0a]),
            (100_000, &[0x14, 127, 0xa1, 0x8c, 0x06]),
        ] {
            assert_eq!(written(b":path", &vec![b'a'; length])[..], [begin, &vec![b'a'; length]].concat());
        }
    }

    #[test]
    fn a_status_has_three_digits() {
        for (status, block) in [
            (200, &[0x88][..]),
            (204, &[0x89]),
            (206, &[0x8a]),
            (304, &[0x8b]),
            (400, &[0x8c]),
            (404, &[0x8d]),
            (500, &[0x8e]),
            (100, b"\x18\x03100"),
            (502, b"\x18\x03502"),
            (999, b"\x18\x03999"),
            (99, &[0x8e]),
            (0, &[0x8e]),
            (1000, &[0x8e]),
            (u16::MAX, &[0x8e]),
        ] {
            let mut into = BytesMut::new();
            put_status(status, &mut into);
            assert_eq!(into[..], *block, "{status}");
        }
    }

    #[test]
    fn a_reduction_is_answered_once() {
        let mut encoder = Encoder::default();
        assert!(begun(&mut encoder).is_empty());
        encoder.peer_allows(4096);
        encoder.peer_allows(65_536);
        encoder.peer_allows(4096);
        assert!(begun(&mut encoder).is_empty());
        encoder.peer_allows(1000);
        assert_eq!(begun(&mut encoder)[..], [0x20]);
        assert!(begun(&mut encoder).is_empty());
        encoder.peer_allows(1000);
        encoder.peer_allows(2000);
        assert!(begun(&mut encoder).is_empty());
        encoder.peer_allows(0);
        encoder.peer_allows(4096);
        assert_eq!(begun(&mut encoder)[..], [0x20]);
        assert!(begun(&mut encoder).is_empty());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            fields in prop::collection::vec(
                (
                    prop_oneof![
                        prop::sample::select(STATIC.to_vec()).prop_map(|field| field.0.to_vec()),
                        prop::collection::vec(any::<u8>(), 0..300),
                    ],
                    prop_oneof![
                        prop::sample::select(STATIC.to_vec()).prop_map(|field| field.1.to_vec()),
                        prop::collection::vec(any::<u8>(), 0..300),
                    ],
                ),
                0..20,
            ),
            status in 100_u16..1000,
            size: u32,
        ) {
            let mut block = BytesMut::new();
            let mut encoder = Encoder::default();
            encoder.peer_allows(size);
            encoder.begin(&mut block);
            put_status(status, &mut block);
            for (name, value) in &fields {
                put(name, value, &mut block);
            }
            let mut expected = vec![(b":status".to_vec(), status.to_string().into_bytes())];
            expected.extend(fields);
            let mut decoded = Vec::new();
            let outcome = Decoder::new(4096).decode(&block, |name, value| decoded.push((name.to_vec(), value.to_vec())));
            prop_assert_eq!(outcome, Ok(()));
            prop_assert_eq!(decoded, expected);
        }
    }
}
