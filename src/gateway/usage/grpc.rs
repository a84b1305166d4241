//! Reads `code` and `usage` from gRPC answers while they stream by: five bytes of prefix, then the fields of the
//! message.
//!
//! Every answer of the service has `code` as field 2 and, where units are reported, `usage` as field 5 (protocol
//! sheet, section 4). All other fields are skipped by their length, without looking inside, so the cost is one step
//! per field and not per byte.

use super::{Form, Reading};
use crate::meter::record::Units;

const PREFIX: usize = 5;
/// The first byte of `usage`: field 5, with a length.
const USAGE: u8 = 5 << 3 | 2;

/// Splits a body into messages. Also useful alone, to hold the messages of a request to their length.
#[derive(Debug)]
pub struct Messages {
    most: u64,
    prefix: [u8; PREFIX],
    have: u8,
    /// Bytes of the current message that are still to come.
    left: u64,
    begun: u64,
    compressed: bool,
    too_large: bool,
    malformed: bool,
}

/// A piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Begin,
    Bytes(&'a [u8]),
    End,
}

impl Messages {
    /// `most` is the greatest length of a message in bytes, without its prefix.
    pub const fn new(most: u64) -> Self {
        Self {
            most,
            prefix: [0; PREFIX],
            have: 0,
            left: 0,
            begun: 0,
            compressed: false,
            too_large: false,
            malformed: false,
        }
    }

    /// The next bytes of the body, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.split(bytes, |_| ());
    }

    /// Whether a message announced more bytes than allowed. Nothing after its prefix is looked at.
    pub const fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// Whether the bytes so far are whole messages, or at least could become some.
    pub const fn form(&self) -> Form {
        match () {
            () if self.too_large => Form::TooLarge,
            () if self.malformed || self.have > 0 => Form::Malformed,
            () if self.compressed => Form::Compressed,
            () if self.begun == 0 => Form::Empty,
            () => Form::Whole,
        }
    }

    fn split<'a>(&mut self, bytes: &'a [u8], mut piece: impl FnMut(Piece<'a>)) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.too_large && !self.malformed {
            if usize::from(self.have) < PREFIX {
                rest = self.prefix(rest);
                if usize::from(self.have) < PREFIX || self.too_large || self.malformed {
                    continue;
                }
                piece(Piece::Begin);
            }
            let length = usize::try_from(self.left).map_or(rest.len(), |left| left.min(rest.len()));
            let (mine, others) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            if !mine.is_empty() {
                piece(Piece::Bytes(mine));
            }
            self.left -= length as u64;
            rest = others;
            if self.left == 0 {
                self.have = 0;
                piece(Piece::End);
            }
        }
    }

    /// Takes bytes for the prefix, and gives the ones behind it.
    fn prefix<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        while let (Some(to), Some((byte, others))) = (self.prefix.get_mut(usize::from(self.have)), rest.split_first()) {
            *to = *byte;
            self.have += 1;
            rest = others;
        }
        if usize::from(self.have) == PREFIX {
            let [flag, length @ ..] = self.prefix;
            self.left = u64::from(u32::from_be_bytes(length));
            self.begun = self.begun.saturating_add(1);
            self.compressed |= flag == 1;
            self.malformed = flag > 1;
            self.too_large = self.left > self.most;
        }
        rest
    }
}

/// Reads the fields of interest. Where a body has several messages the last one counts.
#[derive(Debug)]
pub struct GrpcReader {
    messages: Messages,
    fields: Fields,
}

impl GrpcReader {
    /// `most` is the greatest length of a message in bytes, without its prefix.
    pub const fn new(most: u64) -> Self {
        Self { messages: Messages::new(most), fields: Fields::NEW }
    }

    /// The next bytes of the body, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let fields = &mut self.fields;
        self.messages.split(bytes, |piece| match piece {
            Piece::Begin => fields.begin(),
            Piece::Bytes(bytes) => fields.feed(bytes),
            Piece::End => fields.end(),
        });
    }

    /// What the bytes fed so far amount to, if nothing comes after them.
    pub fn finish(&self) -> Reading {
        match self.messages.form() {
            Form::Whole if self.fields.broken => Reading::nothing(Form::Malformed),
            // A code of 0 is not written.
            Form::Whole => {
                Reading { units: self.fields.units, code: Some(self.fields.code.unwrap_or(0)), form: Form::Whole }
            }
            form => Reading::nothing(form),
        }
    }
}

/// The top-level fields of one message, and those of its `usage`.
#[derive(Debug)]
struct Fields {
    step: Step,
    varint: Varint,
    /// Bytes of `usage` that are still to come; `None` outside it.
    usage_left: Option<u64>,
    units: Units,
    code: Option<i64>,
    broken: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Tag,
    Value(u64),
    Length(u64),
    Skip(u64),
}

#[derive(Clone, Copy, Debug)]
struct Varint {
    value: u64,
    bytes: u32,
}

impl Varint {
    const NEW: Self = Self { value: 0, bytes: 0 };
    const LONGEST: u32 = 10;
}

impl Fields {
    const NEW: Self = Self {
        step: Step::Tag,
        varint: Varint::NEW,
        usage_left: None,
        units: Units { read: None, write: None },
        code: None,
        broken: false,
    };

    fn begin(&mut self) {
        *self = Self { broken: self.broken, ..Self::NEW };
    }

    fn end(&mut self) {
        self.broken |= self.step != Step::Tag || self.varint.bytes > 0 || self.usage_left.is_some();
    }

    fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.broken {
            let taken = match self.step {
                Step::Skip(left) => self.skip(left, rest.len()),
                Step::Tag if self.varint.bytes == 0 && self.usage_left.is_none() => match documents(rest) {
                    0 => self.byte(rest.first().copied().unwrap_or_default()),
                    passed => passed,
                },
                _ => self.byte(rest.first().copied().unwrap_or_default()),
            };
            rest = rest.get(taken..).unwrap_or_default();
            self.leave_usage(taken as u64);
        }
    }

    fn skip(&mut self, left: u64, available: usize) -> usize {
        let taken = usize::try_from(left).map_or(available, |left| left.min(available));
        self.skip_next(left - taken as u64);
        taken
    }

    /// One byte of a varint, and what follows from it when it is the last one.
    fn byte(&mut self, byte: u8) -> usize {
        let Varint { value, bytes } = self.varint;
        let value = value | u64::from(byte & 0x7f).checked_shl(7 * bytes).unwrap_or(0);
        self.varint = Varint { value, bytes: bytes + 1 };
        if byte < 0x80 {
            self.varint = Varint::NEW;
            self.complete(value);
        } else if self.varint.bytes == Varint::LONGEST {
            self.broken = true;
        }
        1
    }

    fn complete(&mut self, value: u64) {
        match self.step {
            Step::Tag => self.tag(value),
            Step::Value(field) => {
                self.keep(field, value);
                self.step = Step::Tag;
            }
            Step::Length(field) if field == 5 && self.usage_left.is_none() => {
                self.step = Step::Tag;
                // One more for the byte that ended the length itself.
                self.usage_left = value.checked_add(1);
                self.broken = self.usage_left.is_none();
            }
            Step::Length(_) | Step::Skip(_) => self.skip_next(value),
        }
    }

    fn tag(&mut self, tag: u64) {
        let (field, kind) = (tag >> 3, tag & 7);
        match kind {
            0 => self.step = Step::Value(field),
            1 => self.skip_next(8),
            2 => self.step = Step::Length(field),
            5 => self.skip_next(4),
            // Groups have not been written since proto2.
            _ => self.broken = true,
        }
        self.broken |= field == 0 || tag > u64::from(u32::MAX);
    }

    fn skip_next(&mut self, bytes: u64) {
        self.step = if bytes == 0 { Step::Tag } else { Step::Skip(bytes) };
    }

    fn keep(&mut self, field: u64, value: u64) {
        match (self.usage_left, field) {
            // An int32 is written sign-extended to 64 bits; its low half is the number.
            (None, 2) => self.code = Some(i64::from(value as u32 as i32)),
            (Some(_), 1) => self.units.write = Some(value),
            (Some(_), 2) => self.units.read = Some(value),
            _ => {}
        }
    }

    /// Counts the bytes of `usage`, which must end where one of its fields ends.
    fn leave_usage(&mut self, taken: u64) {
        let Some(left) = self.usage_left else { return };
        match left.checked_sub(taken) {
            Some(0) => {
                self.broken |= self.step != Step::Tag || self.varint.bytes > 0;
                self.usage_left = None;
            }
            Some(left) => self.usage_left = Some(left),
            None => self.broken = true,
        }
    }
}

/// The bytes of whole fields with a length, of numbers up to 15, as far as `usage` is none of them: most of an answer. They begin where a
/// field does.
fn documents(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    // One byte of number and kind, then the length in one or two.
    while let [tag @ 0x08..0x80, length, behind @ ..] = rest
        && tag & 7 == 2
        && *tag != USAGE
    {
        let (length, behind) = match (*length, behind) {
            (0x80.., [high @ ..0x80, behind @ ..]) => (usize::from(length & 0x7f) | usize::from(*high) << 7, behind),
            (..0x80, behind) => (usize::from(*length), behind),
            _ => break,
        };
        let Some(behind) = behind.get(length..) else { break };
        rest = behind;
    }
    bytes.len() - rest.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: u64 = 1000;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flag];
        bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend(message);
        bytes
    }

    fn read(chunks: &[&[u8]]) -> Reading {
        let mut reader = GrpcReader::new(MOST);
        for chunk in chunks {
            reader.feed(chunk);
        }
        reader.finish()
    }

    fn whole(read: Option<u64>, write: Option<u64>, code: i64) -> Reading {
        Reading { units: Units { read, write }, code: Some(code), form: Form::Whole }
    }

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
    }

    #[test]
    fn answers_as_seen_on_the_wire_read_the_same_at_every_cut() {
        // The payload of the last one poses as a usage field, but lies within field 4.
        let samples = [
            ("0a0172 2a02 0804", whole(None, Some(4), 0)),
            ("0a0172 2a03 10ac02", whole(Some(300), None, 0)),
            ("2a02 1000", whole(Some(0), None, 0)),
            ("2a00", whole(None, None, 0)),
            ("", whole(None, None, 0)),
            ("0a0172 108ef0ffffffffffffff01 1a026e6f", whole(None, None, -2034)),
            ("108ef0ffff0f", whole(None, None, -2034)),
            ("10051000", whole(None, None, 0)),
            ("2206 2a0410a78d06 2a021007", whole(Some(7), None, 0)),
        ];
        for (text, expected) in samples {
            let bytes = framed(0, &hex(text));
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(read(&single), expected, "{text}");
            for at in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(at);
                assert_eq!(read(&[head, tail]), expected, "{text} cut at {at}");
                let cut_off = if at == 0 { Form::Empty } else { Form::Malformed };
                assert!(at == bytes.len() || read(&[head]) == Reading::nothing(cut_off), "{text} cut off at {at}");
            }
        }
    }

    #[test]
    fn other_fields_are_skipped_whatever_their_kind() {
        let mut message = hex("21 2a0210092a021009");
        message.extend(hex("2d 2a021009"));
        message.extend(hex("3a04 2a021009"));
        message.extend(hex("28 63"));
        message.extend(hex("1203 108002"));
        assert_eq!(
            read(&[&framed(0, &message)]),
            whole(None, None, 0),
            "usage and code of another wire type are other fields"
        );
        message.extend(hex("2a0f 0a0210091d100910091100000000000000"));
        assert_eq!(read(&[&framed(0, &message)]).form, Form::Malformed, "a field that ends behind the usage it is in");
    }

    #[test]
    fn unknown_fields_inside_usage_are_skipped() {
        let message = hex("2a0e 0a021009 1d10091009 188101 1005");
        assert_eq!(read(&[&framed(0, &message)]), whole(Some(5), None, 0));
        let nested = hex("2a04 2a021009");
        assert_eq!(read(&[&framed(0, &nested)]), whole(None, None, 0), "a usage within usage is none");
    }

    #[test]
    fn the_last_of_several_messages_counts() {
        let mut bytes = framed(0, &hex("10052a020803"));
        bytes.extend(framed(0, &hex("2a021004")));
        assert_eq!(read(&[&bytes]), whole(Some(4), None, 0));
    }

    #[test]
    fn compressed_and_oversized_messages_say_so() {
        assert_eq!(read(&[&framed(1, &hex("2a021004"))]), Reading::nothing(Form::Compressed));
        assert_eq!(read(&[&framed(2, &hex("2a021004"))]), Reading::nothing(Form::Malformed));
        assert_eq!(read(&[&[0, 0, 0, 3, 0xe9]]), Reading::nothing(Form::TooLarge));
        assert_eq!(read(&[&framed(0, &vec![0x7a; 1001])]), Reading::nothing(Form::TooLarge));
        let mut request = Messages::new(3);
        request.feed(&framed(0, b"abc"));
        assert!(!request.is_too_large() && request.form() == Form::Whole);
        request.feed(&[0, 0, 0, 0, 4]);
        assert!(request.is_too_large());
    }

    #[test]
    fn broken_messages_say_nothing() {
        for text in [
            "10",
            "1080",
            "2a",
            "2a05 1004",
            "2a01 10 04",
            "2a02 1080",
            "02 00",
            "0b",
            "ffffffffffffffffffff01",
            "10ffffffffffffffffffff01",
        ] {
            assert_eq!(read(&[&framed(0, &hex(text))]), Reading::nothing(Form::Malformed), "{text}");
        }
    }

    #[derive(prost::Message)]
    struct Usage {
        #[prost(uint64, optional, tag = "1")]
        write_units: Option<u64>,
        #[prost(uint64, optional, tag = "2")]
        read_units: Option<u64>,
        #[prost(string, tag = "9")]
        other: String,
    }

    #[derive(prost::Message)]
    struct Answer {
        #[prost(string, tag = "1")]
        request_id: String,
        #[prost(int32, tag = "2")]
        code: i32,
        #[prost(bytes = "vec", repeated, tag = "4")]
        output: Vec<Vec<u8>>,
        #[prost(message, optional, tag = "5")]
        usage: Option<Usage>,
        #[prost(fixed64, tag = "300")]
        other: u64,
        #[prost(float, tag = "301")]
        another: f32,
    }

    fn chunked(bytes: &[u8], cuts: &[usize]) -> Reading {
        let (mut reader, mut rest) = (GrpcReader::new(MOST), bytes);
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
        let likely = proptest::sample::select(vec![0x2a, 0x10, 0x22, 0x02, 0x80]);
        proptest::collection::vec(prop_oneof![any::<u8>(), likely], 0..200)
    }

    proptest! {
        #[test]
        fn a_full_decoder_reads_the_same(
            request_id in "[a-z]{0,9}", code in any::<i32>(), other in any::<u64>(), text in "[a-z]{0,150}",
            output in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..9),
            units in proptest::option::of((proptest::option::of(any::<u64>()), proptest::option::of(any::<u64>()))),
            cuts in proptest::collection::vec(1_usize..60, 1..9),
        ) {
            let usage = units.map(|(read_units, write_units)| Usage { write_units, read_units, other: text });
            let answer = Answer { request_id, code, output, usage, other, another: 0.5 };
            let (read, write) = units.unwrap_or_default();
            let bytes = framed(0, &prost::Message::encode_to_vec(&answer));
            prop_assert_eq!(chunked(&bytes, &cuts), whole(read, write, i64::from(code)));
        }

        #[test]
        fn no_bytes_make_it_panic_and_cuts_never_matter(
            message in bytes(),
            raw in any::<bool>(), cuts in proptest::collection::vec(1_usize..20, 1..9),
        ) {
            let bytes = if raw { message } else { framed(0, &message) };
            prop_assert_eq!(chunked(&bytes, &cuts), read(&[&bytes]));
        }
    }
}
