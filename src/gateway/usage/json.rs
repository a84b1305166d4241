//! Reads `usage.read_units`, `usage.write_units` and `code` from a JSON answer while it streams by.
//!
//! Only members of the outermost object count, and within it members of its `usage`: a document that is called
//! `usage`, or a string that looks like one, lies deeper or inside quotes and is skipped. What the Python SDK makes
//! of an answer is the measure: a key spelt with escapes (`"\u0075sage"`) is that key, and of two equal keys the last
//! one wins. Units may be numbers or strings of digits; a value that is not a whole number from 0 to 2⁶⁴−1 counts as
//! not reported. Grammar is checked where something is read; nested values are skipped by their brackets and strings.

use super::block::Skip;
use super::{Form, Reading};
use crate::gateway::http1;
use crate::meter::record::Units;

/// The longest key or number that matters is shorter; of longer ones only the fact is kept.
const TOKEN: usize = 24;

/// See the head of this file. A few dozen bytes of state; every byte is looked at once.
#[derive(Debug)]
pub struct JsonReader {
    place: Place,
    /// Inside the outermost object, or inside its `usage`.
    in_usage: bool,
    /// The member whose value is being read.
    member: Member,
    token: Token,
    units: Units,
    code: Option<i64>,
    /// The first byte has been seen.
    begun: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Place {
    Start,
    /// After an opening brace: a key, or the end of the object.
    FirstKey,
    Key,
    Colon,
    Value,
    /// After a value: a comma, or the end of the object.
    After,
    Text {
        is_key: bool,
        escape: Escape,
    },
    Scalar,
    Nested(Skip),
    End,
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum Escape {
    No,
    Backslash,
    /// `\u` and the digits of it so far.
    Unicode {
        digits: u8,
        value: u16,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Usage,
    Code,
    ReadUnits,
    WriteUnits,
    Other,
}

impl Default for JsonReader {
    fn default() -> Self {
        Self::new()
    }
}

impl JsonReader {
    pub const fn new() -> Self {
        Self {
            place: Place::Start,
            in_usage: false,
            member: Member::Other,
            token: Token::EMPTY,
            units: Units { read: None, write: None },
            code: None,
            begun: false,
        }
    }

    /// The next bytes of the answer, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.place {
                Place::Text { is_key, escape } => self.text(rest, is_key, escape),
                Place::Scalar => self.scalar(rest),
                Place::Nested(skip) => self.nested(rest, skip),
                Place::Broken => return,
                _ => self.structure(rest),
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// What the bytes fed so far amount to, if nothing comes after them. Not inlined: where it was, the compiler took the units apart bit
    /// by bit, in 1 300 instructions.
    #[inline(never)]
    pub fn finish(&self) -> Reading {
        match self.place {
            Place::End => Reading { units: self.units, code: self.code, form: Form::Whole },
            _ if !self.begun => Reading::nothing(Form::Empty),
            _ => Reading::nothing(Form::Malformed),
        }
    }

    /// One byte between keys and values, with the white space before it.
    fn structure(&mut self, bytes: &[u8]) -> usize {
        let spaces = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        let Some(byte) = bytes.get(spaces) else { return spaces };
        self.place = match (self.place, byte) {
            (Place::Start, b'{') => Place::FirstKey,
            (Place::FirstKey | Place::Key, b'"') => self.begin_text(true),
            (Place::FirstKey | Place::After, b'}') => self.end_of_object(),
            (Place::Colon, b':') => Place::Value,
            (Place::Value, _) => self.begin_value(*byte),
            (Place::After, b',') => Place::Key,
            _ => Place::Broken,
        };
        spaces + 1
    }

    fn begin_text(&mut self, is_key: bool) -> Place {
        self.token = Token::EMPTY;
        Place::Text { is_key, escape: Escape::No }
    }

    fn begin_value(&mut self, byte: u8) -> Place {
        // Whatever comes takes the place of an earlier value under the same key.
        self.keep(None);
        match byte {
            b'"' => self.begin_text(false),
            b'{' if self.member == Member::Usage => {
                self.in_usage = true;
                Place::FirstKey
            }
            b'{' | b'[' => Place::Nested(Skip::opened()),
            _ => {
                self.token = Token::EMPTY;
                self.token.push(&[byte]);
                Place::Scalar
            }
        }
    }

    fn end_of_object(&mut self) -> Place {
        if std::mem::take(&mut self.in_usage) { Place::After } else { Place::End }
    }

    fn nested(&mut self, bytes: &[u8], mut skip: Skip) -> usize {
        let taken = skip.run(bytes);
        self.place = if skip.is_over() { Place::After } else { Place::Nested(skip) };
        taken
    }

    fn text(&mut self, bytes: &[u8], is_key: bool, escape: Escape) -> usize {
        let Escape::No = escape else {
            let Some(byte) = bytes.first() else { return 0 };
            self.place = match self.escaped(escape, *byte) {
                Some(escape) => Place::Text { is_key, escape },
                None => Place::Broken,
            };
            return 1;
        };
        let Some(at) = memchr::memchr2(b'"', b'\\', bytes) else {
            self.token.push(bytes);
            return bytes.len();
        };
        if is_key || self.member != Member::Other {
            self.token.push(bytes.get(..at).unwrap_or_default());
        }
        self.place = match bytes.get(at) {
            Some(b'\\') => Place::Text { is_key, escape: Escape::Backslash },
            _ if is_key => self.end_of_key(),
            _ => self.end_of_text(),
        };
        at + 1
    }

    /// One byte of an escape sequence; `None` where there is no such escape.
    fn escaped(&mut self, escape: Escape, byte: u8) -> Option<Escape> {
        match (escape, byte) {
            (Escape::Backslash, b'u') => return Some(Escape::Unicode { digits: 0, value: 0 }),
            (Escape::Backslash, b'"' | b'\\' | b'/') => self.token.push(&[byte]),
            (Escape::Backslash, b'b' | b'f' | b'n' | b'r' | b't') => self.token.spoil(),
            (Escape::Unicode { digits, value }, _) => {
                let digit = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok())?;
                let value = value << 4 | digit;
                if digits < 3 {
                    return Some(Escape::Unicode { digits: digits + 1, value });
                }
                match u8::try_from(value) {
                    Ok(ascii @ ..=0x7f) => self.token.push(&[ascii]),
                    _ => self.token.spoil(),
                }
            }
            _ => return None,
        }
        Some(Escape::No)
    }

    fn end_of_key(&mut self) -> Place {
        self.member = match (self.in_usage, self.token.bytes()) {
            (false, b"usage") => Member::Usage,
            (false, b"code") => Member::Code,
            (true, b"read_units") => Member::ReadUnits,
            (true, b"write_units") => Member::WriteUnits,
            _ => Member::Other,
        };
        Place::Colon
    }

    fn end_of_text(&mut self) -> Place {
        // A code in quotes is no code to the SDK; units in quotes are what some services make of 64-bit numbers.
        if self.member != Member::Code {
            self.keep(self.token.integer());
        }
        Place::After
    }

    fn scalar(&mut self, bytes: &[u8]) -> usize {
        let inside = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = bytes.iter().take_while(inside).count();
        self.token.push(bytes.get(..length).unwrap_or_default());
        if length < bytes.len() {
            self.place = self.end_of_scalar();
        }
        length
    }

    fn end_of_scalar(&mut self) -> Place {
        if !self.token.is_scalar() {
            return Place::Broken;
        }
        self.keep(self.token.integer());
        Place::After
    }

    /// Takes a value to the member it belongs to. One that is out of range counts as not there.
    fn keep(&mut self, value: Option<i128>) {
        let units = value.and_then(|value| u64::try_from(value).ok());
        match self.member {
            Member::Usage => self.units = Units::default(),
            Member::Code => self.code = value.and_then(|value| i64::try_from(value).ok()),
            Member::ReadUnits => self.units.read = units,
            Member::WriteUnits => self.units.write = units,
            Member::Other => {}
        }
    }
}

/// The beginning of a key or a value, as far as it could matter.
#[derive(Clone, Copy, Debug)]
struct Token {
    bytes: [u8; TOKEN],
    /// More than [`TOKEN`] where the token is longer, or contains what no key of ours does.
    length: u8,
}

impl Token {
    const EMPTY: Self = Self { bytes: [0; TOKEN], length: 0 };

    fn push(&mut self, more: &[u8]) {
        let Some(free) = self.bytes.get_mut(usize::from(self.length)..) else { return };
        if more.len() > free.len() {
            return self.spoil();
        }
        if let (Some(free), Ok(length)) = (free.get_mut(..more.len()), u8::try_from(more.len())) {
            free.copy_from_slice(more);
            self.length = self.length.saturating_add(length);
        }
    }

    /// Makes it a token that is of no interest. Its first byte stays.
    fn spoil(&mut self) {
        self.length = u8::MAX;
    }

    /// Empty where the token is too long to be of interest.
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// An integer as JSON writes it: no plus sign, no leading zeros, no fraction, no exponent.
    fn integer(&self) -> Option<i128> {
        let text = self.bytes();
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        if digits.len() > 1 && digits.first() == Some(&b'0') {
            return None;
        }
        // What has no room in 64 bits has none anywhere it could go to.
        let size = i128::from(http1::digits(digits)?);
        Some(if digits.len() == text.len() { size } else { -size })
    }

    fn is_scalar(&self) -> bool {
        let begins_as_number = matches!(self.bytes.first(), Some(b'-' | b'0'..=b'9'));
        begins_as_number || matches!(self.bytes(), b"true" | b"false" | b"null")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn read(chunks: &[&[u8]]) -> Reading {
        let mut reader = JsonReader::new();
        for chunk in chunks {
            reader.feed(chunk);
        }
        reader.finish()
    }

    fn whole(read: Option<u64>, write: Option<u64>, code: Option<i64>) -> Reading {
        Reading { units: Units { read, write }, code, form: Form::Whole }
    }

    const BROKEN: Reading = Reading::nothing(Form::Malformed);

    /// A text, and the read units, write units and code it says.
    type Sample = (&'static str, Option<u64>, Option<u64>, Option<i64>);

    const SAMPLES: &[Sample] = &[
        (
            r#"{"request_id":"r","code":0,"message":"","output":[{"doc_op":"insert","id":"1","code":-7}],"usage":{"write_units":4}}"#,
            None,
            Some(4),
            Some(0),
        ),
        (
            r#"{"usage":{"read_units":300},"code":-2021,"output":{"1":{"id":"1","vector":[0.1,-2e-3],"score":0.0}}}"#,
            Some(300),
            None,
            Some(-2021),
        ),
        (r#"{"code":0,"output":{"usage":{"read_units":9999}},"usage":{"read_units":1}}"#, Some(1), None, Some(0)),
        (r#"{"code":0,"output":{"usage":{"read_units":9999}}}"#, None, None, Some(0)),
        (r#"{"message":"\"usage\":{\"read_units\":9999}","code":0}"#, None, None, Some(0)),
        (r#"{"message":"\\","usage":{"read_units":2},"x":"\\\"}"}"#, Some(2), None, None),
        (r#"{"\u0075sage":{"re\u0061d_units":"18446744073709551615"},"c\u006fde":5}"#, Some(u64::MAX), None, Some(5)),
        (r#"{"usage":{"read_units":18446744073709551616,"write_units":-1}}"#, None, None, None),
        (r#"{"usage":{"read_units":1.5,"write_units":"x"},"code":"0"}"#, None, None, None),
        (r#"{"usage":{"read_units":7},"usage":{"write_units":8}}"#, None, Some(8), None),
        (r#"{"usage":{"read_units":7,"read_units":9}}"#, Some(9), None, None),
        (r#"{"usage":{"read_units":7},"usage":null}"#, None, None, None),
        (r#"{"usage":{"read_units":{"read_units":5},"usage":{"write_units":6},"write_units":[1]}}"#, None, None, None),
        (r#"{"Usage":{"read_units":7},"usage ":{"read_units":7},"read_units":3}"#, None, None, None),
        (
            "\r\n\t { \"usage\" : { \"read_units\" : 0 } , \"code\" : 0 , \"a\" : true , \"b\" : null }\n",
            Some(0),
            None,
            Some(0),
        ),
        (r#"{"usage":{}}"#, None, None, None),
        (r#"{}"#, None, None, None),
        (
            r#"{"a_key_that_is_much_longer_than_any_key_of_interest":"and a text that is too","n":0.12345678901234567890123456789,"code":1}"#,
            None,
            None,
            Some(1),
        ),
        (r#"{"output":[[["]]]{{{","\u005d\\"]],{"a":["}"]}],"usage":{"read_units":12}}"#, Some(12), None, None),
    ];

    #[test]
    fn every_cut_of_every_sample_reads_the_same() {
        for (text, read_units, write_units, code) in SAMPLES {
            let (bytes, expected) = (text.as_bytes(), whole(*read_units, *write_units, *code));
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(read(&single), expected, "{text}");
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(read(&[head, tail]), expected, "{text} cut at {at}");
            }
        }
    }

    #[test]
    fn a_cut_off_answer_says_nothing() {
        for (text, ..) in SAMPLES {
            let bytes = text.trim().as_bytes();
            for length in 1..bytes.len() {
                assert_eq!(read(&[&bytes[..length]]), BROKEN, "{text} cut off at {length}");
            }
        }
        assert_eq!(read(&[b""]), Reading::nothing(Form::Empty));
    }

    #[test]
    fn what_is_not_one_json_object_says_nothing() {
        let bad = [
            "[]",
            "1",
            "null",
            "garbage",
            "{\"usage\":{\"read_units\":1}}x",
            "{\"usage\":{\"read_units\":1}}{}",
            "{,}",
            "{\"a\" 1}",
            "{\"a\":1,}",
            "{\"a\":}",
            "{\"a\":@,\"usage\":{\"read_units\":1}}",
            "{\"a\":nul}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u00g0\"}",
            "{\"a\":1;\"b\":2}",
            "{\"usage\":{\"read_units\":1]}",
            "\u{feff}{}",
            "  ",
        ];
        for text in bad {
            assert_eq!(read(&[text.as_bytes()]), BROKEN, "{text}");
        }
    }

    #[test]
    fn documents_cannot_pose_as_usage() {
        let fake = json!({"read_units": 9999, "write_units": 9999});
        let text = r#""usage":{"read_units":9999}"#;
        let answer = json!({
            "code": 0, "request_id": text, "message": format!("}},{text}"),
            "output": {
                "usage": fake, "docs": [{"id": "usage", "usage": fake, "fields": {"usage": text, "t": format!("\\\"}}]{text}")}}],
                "partitions": {"usage": {"total_doc_count": "3", "usage": fake}},
            },
        });
        assert_eq!(read(&[answer.to_string().as_bytes()]), whole(None, None, Some(0)));
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            Just("usage".to_owned()),
            Just("code".to_owned()),
            Just("read_units".to_owned()),
            Just("write_units".to_owned()),
            Just("\"usage\":{\"read_units\":9999}".to_owned()),
            "[\\\\\"{}\\[\\]a钥\n]{0,12}",
            "[0-9]{1,22}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            let object = proptest::collection::vec((text.clone(), inner.clone()), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>()));
            prop_oneof![object, proptest::collection::vec(inner, 0..6).prop_map(Value::from)]
        })
    }

    fn oracle(value: &Value) -> Reading {
        let Value::Object(members) = value else { return BROKEN };
        let units = |name: &str| match members.get("usage")?.as_object()?.get(name)? {
            Value::String(text) if text == "0" || !text.starts_with('0') => text.parse().ok(),
            other => other.as_u64(),
        };
        whole(units("read_units"), units("write_units"), members.get("code").and_then(Value::as_i64))
    }

    fn chunked(bytes: &[u8], cuts: &[usize]) -> Reading {
        let (mut reader, mut rest) = (JsonReader::new(), bytes);
        for cut in cuts.iter().cycle() {
            let (head, tail) = rest.split_at(rest.len().min(*cut));
            reader.feed(head);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        reader.finish()
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let likely = proptest::sample::select(br#"{}[]":,\u0"#.to_vec());
        proptest::collection::vec(prop_oneof![any::<u8>(), likely], 0..200)
    }

    proptest! {
        #[test]
        fn a_full_parser_reads_the_same(
            value in values(), pretty in any::<bool>(), cuts in proptest::collection::vec(1_usize..90, 1..9),
        ) {
            let print = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let text = print(&value).unwrap();
            prop_assert_eq!(chunked(text.as_bytes(), &cuts), oracle(&value));
        }

        #[test]
        fn no_bytes_make_it_panic_and_cuts_never_matter(
            bytes in bytes(),
            cuts in proptest::collection::vec(1_usize..20, 1..9),
        ) {
            let mut bytes = bytes;
            bytes.splice(0..0, *b"{\"usage\":");
            prop_assert_eq!(chunked(&bytes, &cuts), read(&[&bytes]));
        }
    }
}
