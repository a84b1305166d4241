//! Decoding of header blocks (RFC 7541, 3 and 6).

use super::Undecodable;
use super::huffman;
use super::table::{Entry, Field, Table};

/// The size of the dynamic table that a peer's encoder begins with (RFC 9113, 6.5.2).
const FIRST_SIZE: usize = 4096;

/// How large the buffer for strings may be that is kept from one block to the next.
const KEPT: usize = 16 * 1024;

/// How many changes of the table's size a block may begin with (RFC 7541, 4.2: the least of them and the last).
const MOST_RESIZES: usize = 2;

// The integers' prefixes (RFC 7541, 5.1), as the bits of the first octet that belong to them.
const INDEXED: u8 = 0x7f;
const INDEXING: u8 = 0x3f;
const NOT_INDEXING: u8 = 0x0f;
const RESIZE: u8 = 0x1f;
const LENGTH: u8 = 0x7f;

/// Decodes the header blocks of one connection, in the order in which they arrive: each may refer to fields of those
/// before it. So a block must be decoded even where nobody wants its fields any more, as that of a refused stream.
pub struct Decoder {
    table: Table,
    most: usize,
    /// What the Huffman-coded strings of one field stand for: the name and, after it, the value.
    scratch: Vec<u8>,
}

impl Decoder {
    /// Begins a connection. `most` is the `SETTINGS_HEADER_TABLE_SIZE` that we announced, 4096 where we announced
    /// nothing. The table begins with 4096 whatever we announced, as the peer's encoder does until it says otherwise
    /// (RFC 9113, 4.3.1 and 6.5.2), so that the table holds at most the larger of both.
    pub fn new(most: usize) -> Self {
        Self { table: Table::new(FIRST_SIZE), most, scratch: Vec::new() }
    }

    /// Decodes one whole header block (all its fragments put together) and hands each field over, in order. Name and
    /// value are only valid during the call. Fields that were handed over before an error was found must be
    /// forgotten, and the decoder with them: the connection ends. The fields together may be many times larger than
    /// the block, as one octet may stand for an entry of the table: whoever keeps them must count them.
    pub fn decode(&mut self, block: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Undecodable> {
        let outcome = self.decode_all(block, &mut each);
        if self.scratch.capacity() > KEPT {
            self.scratch = Vec::new();
        }
        outcome
    }

    fn decode_all(&mut self, block: &[u8], each: &mut impl FnMut(&[u8], &[u8])) -> Result<(), Undecodable> {
        let mut rest = self.resize(block)?;
        while let Some(first) = rest.first() {
            rest = match first {
                0x80.. => self.indexed(rest, each)?,
                0x40.. => self.literal_to_index(rest, each)?,
                // A change of the size after a field, or one too many before the first (RFC 7541, 4.2).
                0x20.. => return Err(Undecodable),
                // Without indexing, or never indexed: this is the same to one who decodes.
                _ => self.literal(rest, each)?,
            };
        }
        Ok(())
    }

    /// The changes of the table's size that the block begins with (RFC 7541, 6.3); returns what follows them.
    fn resize<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], Undecodable> {
        let mut rest = block;
        for _ in 0..MOST_RESIZES {
            let Some(0x20..=0x3f) = rest.first() else { break };
            let (size, after) = integer(rest, RESIZE)?;
            if size > self.most {
                return Err(Undecodable);
            }
            self.table.resize(size);
            rest = after;
        }
        Ok(rest)
    }

    /// A field of one of the tables (RFC 7541, 6.1).
    #[inline]
    fn indexed<'a>(&self, block: &'a [u8], each: &mut impl FnMut(&[u8], &[u8])) -> Result<&'a [u8], Undecodable> {
        let (index, rest) = integer(block, INDEXED)?;
        let (name, value) = self.table.get(index).ok_or(Undecodable)?;
        each(name, value);
        Ok(rest)
    }

    /// A field that the table receives (RFC 7541, 6.2.1).
    fn literal_to_index<'a>(
        &mut self,
        block: &'a [u8],
        each: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<&'a [u8], Undecodable> {
        let (literal, rest) = Literal::read(block, INDEXING)?;
        let (name, value) = literal.field(&self.table, &mut self.scratch)?;
        each(name, value);
        let entry = Entry::new(name, value);
        self.table.insert(entry);
        Ok(rest)
    }

    /// A field that the table does not receive (RFC 7541, 6.2.2 and 6.2.3).
    fn literal<'a>(&mut self, block: &'a [u8], each: &mut impl FnMut(&[u8], &[u8])) -> Result<&'a [u8], Undecodable> {
        let (literal, rest) = Literal::read(block, NOT_INDEXING)?;
        let (name, value) = literal.field(&self.table, &mut self.scratch)?;
        each(name, value);
        Ok(rest)
    }

    /// The tables, for tests.
    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

/// A literal as the block has it.
struct Literal<'a> {
    name: Name<'a>,
    value: Text<'a>,
}

enum Name<'a> {
    /// That of the field with this index.
    Of(usize),
    New(Text<'a>),
}

impl<'a> Literal<'a> {
    fn read(block: &'a [u8], prefix: u8) -> Result<(Self, &'a [u8]), Undecodable> {
        let (index, rest) = integer(block, prefix)?;
        let (name, rest) = match index {
            0 => Text::read(rest).map(|(name, rest)| (Name::New(name), rest))?,
            _ => (Name::Of(index), rest),
        };
        let (value, rest) = Text::read(rest)?;
        Ok((Self { name, value }, rest))
    }

    /// The name and the value: parts of the block, of the table or, where they are Huffman-coded, of `scratch`.
    fn field<'b>(&self, table: &'b Table, scratch: &'b mut Vec<u8>) -> Result<Field<'b>, Undecodable>
    where
        'a: 'b,
    {
        scratch.clear();
        if let Name::New(name) = &self.name {
            name.unpack(scratch)?;
        }
        let name_length = scratch.len();
        self.value.unpack(scratch)?;
        let (name, value) = scratch.split_at_checked(name_length).ok_or(Undecodable)?;
        let name = match &self.name {
            Name::Of(index) => table.get(*index).ok_or(Undecodable)?.0,
            Name::New(text) => text.plain_or(name),
        };
        Ok((name, self.value.plain_or(value)))
    }
}

/// A string as the block has it (RFC 7541, 5.2).
enum Text<'a> {
    Plain(&'a [u8]),
    Huffman(&'a [u8]),
}

impl<'a> Text<'a> {
    fn read(block: &'a [u8]) -> Result<(Self, &'a [u8]), Undecodable> {
        let coded = matches!(block.first(), Some(0x80..));
        let (length, rest) = integer(block, LENGTH)?;
        let (octets, rest) = rest.split_at_checked(length).ok_or(Undecodable)?;
        let text = if coded { Self::Huffman(octets) } else { Self::Plain(octets) };
        Ok((text, rest))
    }

    /// Appends what a coded string stands for; nothing for a plain one.
    fn unpack(&self, scratch: &mut Vec<u8>) -> Result<(), Undecodable> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Huffman(coded) => huffman::decode(coded, scratch),
        }
    }

    fn plain_or<'b>(&self, unpacked: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Self::Plain(plain) => plain,
            Self::Huffman(_) => unpacked,
        }
    }
}

/// An integer whose first bits are those of the first octet that `prefix` has; returns also what follows it.
#[inline]
fn integer(block: &[u8], prefix: u8) -> Result<(usize, &[u8]), Undecodable> {
    let (first, rest) = block.split_first().ok_or(Undecodable)?;
    match first & prefix {
        start if start < prefix => Ok((usize::from(start), rest)),
        start => continued(start, rest),
    }
}

/// The octets of an integer after its prefix. The RFC (5.1) leaves it to us how many there may be and how large it
/// may become, and demands an error beyond that: here five octets and 32 bits, far above all that a block can hold.
fn continued(start: u8, block: &[u8]) -> Result<(usize, &[u8]), Undecodable> {
    let mut value = u64::from(start);
    let mut rest = block;
    for shift in [0, 7, 14, 21, 28] {
        let (octet, after) = rest.split_first().ok_or(Undecodable)?;
        value += u64::from(octet & 0x7f) << shift;
        rest = after;
        if octet & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| Undecodable)?;
            return usize::try_from(value).map(|value| (value, rest)).map_err(|_| Undecodable);
        }
    }
    Err(Undecodable)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Undecodable> {
        let mut fields = Vec::new();
        decoder.decode(block, |name, value| fields.push((name.to_vec(), value.to_vec())))?;
        Ok(fields)
    }

    fn fresh(block: &[u8]) -> Result<Fields, Undecodable> {
        decoded(&mut Decoder::new(4096), block)
    }

    fn field(name: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (name.to_vec(), value.to_vec())
    }

    #[test]
    fn integers_of_appendix_c_1() {
        assert_eq!(integer(&[0b1110_1010], 0x1f), Ok((10, &[][..])));
        assert_eq!(integer(&[0b0001_1111, 0b1001_1010, 0b0000_1010, 7], 0x1f), Ok((1337, &[7][..])));
        assert_eq!(integer(&[0b0010_1010], 0xff), Ok((42, &[][..])));
    }

    #[test]
    fn integers_are_bounded() {
        assert_eq!(integer(&[0x1f, 0], 0x1f), Ok((31, &[][..])));
        assert_eq!(integer(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0], 0x1f), Ok((31, &[][..])));
        assert_eq!(integer(&[0x1f, 0xe0, 0xff, 0xff, 0xff, 0x0f], 0x1f), Ok((u32::MAX as usize, &[][..])));
        assert_eq!(integer(&[0x1f, 0xe1, 0xff, 0xff, 0xff, 0x0f], 0x1f), Err(Undecodable));
        assert_eq!(integer(&[0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f], 0x1f), Err(Undecodable));
        assert_eq!(integer(&[0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0], 0x1f), Err(Undecodable));
        assert_eq!(integer(&[0x1f; 1], 0x1f), Err(Undecodable));
        assert_eq!(integer(&[0x1f, 0x80], 0x1f), Err(Undecodable));
        assert_eq!(integer(&[], 0x1f), Err(Undecodable));
        assert_eq!(integer(&[0xff; 1000], 0x7f), Err(Undecodable));
    }

    #[test]
    fn an_index_is_in_the_tables() {
        assert_eq!(fresh(&[]), Ok(vec![]));
        assert_eq!(fresh(&[0x80]), Err(Undecodable));
        assert_eq!(fresh(&[0x80 | 61]), Ok(vec![field(b"www-authenticate", b"")]));
        assert_eq!(fresh(&[0x80 | 62]), Err(Undecodable));
        assert_eq!(fresh(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x07]), Err(Undecodable));
        assert_eq!(fresh(&[0x40 | 62, 1, b'v']), Err(Undecodable));
        assert_eq!(fresh(&[0x0f, 62 - 15, 1, b'v']), Err(Undecodable));
        assert_eq!(fresh(&[0x1f, 61 - 15, 1, b'v']), Ok(vec![field(b"www-authenticate", b"v")]));
        assert_eq!(fresh(&[0x40, 1, b'n', 1, b'v', 0x80 | 62]), Ok(vec![field(b"n", b"v"), field(b"n", b"v")]));
    }

    #[test]
    fn a_string_ends_within_the_block() {
        assert_eq!(fresh(&[0x00]), Err(Undecodable));
        assert_eq!(fresh(&[0x00, 2, b'n']), Err(Undecodable));
        assert_eq!(fresh(&[0x00, 1, b'n']), Err(Undecodable));
        assert_eq!(fresh(&[0x00, 1, b'n', 2, b'v']), Err(Undecodable));
        assert_eq!(fresh(&[0x00, 1, b'n', 0x82, 0x1f]), Err(Undecodable));
        assert_eq!(fresh(&[0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x07, b'n']), Err(Undecodable));
        assert_eq!(fresh(&[0x00, 0, 0]), Ok(vec![field(b"", b"")]));
    }

    #[test]
    fn huffman_errors_are_errors_of_the_block() {
        assert_eq!(fresh(&[0x00, 0x81, 0x1f, 0x81, 0x1f]), Ok(vec![field(b"a", b"a")]));
        assert_eq!(fresh(&[0x00, 0x81, 0x1f, 1, b'v']), Ok(vec![field(b"a", b"v")]));
        assert_eq!(fresh(&[0x00, 1, b'n', 0x81, 0x1f]), Ok(vec![field(b"n", b"a")]));
        assert_eq!(fresh(&[0x00, 0x81, 0x18, 1, b'v']), Err(Undecodable));
        assert_eq!(fresh(&[0x00, 1, b'n', 0x82, 0x1f, 0xff]), Err(Undecodable));
        assert_eq!(fresh(&[0x00, 1, b'n', 0x84, 0xff, 0xff, 0xff, 0xff]), Err(Undecodable));
    }

    #[test]
    fn the_size_changes_only_before_the_first_field_and_twice_at_most() {
        assert_eq!(fresh(&[0x20]), Ok(vec![]));
        assert_eq!(fresh(&[0x20, 0x3f, 0xe1, 0x1f, 0x82]), Ok(vec![field(b":method", b"GET")]));
        assert_eq!(fresh(&[0x20, 0x20, 0x20]), Err(Undecodable));
        assert_eq!(fresh(&[0x82, 0x20]), Err(Undecodable));
        assert_eq!(fresh(&[0x20, 0x82, 0x20, 0x82]), Err(Undecodable));
        assert_eq!(fresh(&[0x3f]), Err(Undecodable));
    }

    #[test]
    fn the_size_stays_within_what_was_announced() {
        assert_eq!(fresh(&[0x3f, 0xe1, 0x1f]), Ok(vec![]));
        assert_eq!(fresh(&[0x3f, 0xe2, 0x1f]), Err(Undecodable));
        assert_eq!(decoded(&mut Decoder::new(0), &[0x20, 0x82]), Ok(vec![field(b":method", b"GET")]));
        assert_eq!(decoded(&mut Decoder::new(0), &[0x21]), Err(Undecodable));
        assert_eq!(decoded(&mut Decoder::new(8192), &[0x3f, 0xe1, 0x3f]), Ok(vec![]));
        assert_eq!(decoded(&mut Decoder::new(8192), &[0x3f, 0xe2, 0x3f]), Err(Undecodable));
    }

    #[test]
    fn a_smaller_size_evicts() {
        let mut decoder = Decoder::new(4096);
        assert!(decoded(&mut decoder, &[0x40, 1, b'n', 1, b'v']).is_ok());
        assert_eq!(decoder.table().dynamic().0, 34);
        assert_eq!(decoded(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f, 0x80 | 62]), Err(Undecodable));
        assert_eq!(decoder.table().dynamic().0, 0);
    }

    #[test]
    fn an_entry_may_be_named_after_one_that_it_evicts() {
        let mut decoder = Decoder::new(4096);
        assert!(decoded(&mut decoder, &[0x20 | 30, 0x40, 1, b'n', 0]).is_ok());
        assert_eq!(decoder.table().dynamic(), (0, vec![]), "33 octets do not fit into 30");
        assert!(decoded(&mut decoder, &[0x3f, 36 - 31, 0x40, 2, b'n', b'm', 1, b'1']).is_ok());
        assert_eq!(decoded(&mut decoder, &[0x40 | 62, 2, b'2', b'3']), Ok(vec![field(b"nm", b"23")]));
        assert_eq!(decoder.table().dynamic(), (36, vec![(&b"nm"[..], &b"23"[..])]));
        assert_eq!(decoded(&mut decoder, &[0x40 | 62, 3, b'4', b'5', b'6']), Ok(vec![field(b"nm", b"456")]));
        assert_eq!(decoder.table().dynamic(), (0, vec![]), "and where it does not fit itself");
    }

    #[test]
    fn a_large_buffer_is_not_kept() {
        let mut decoder = Decoder::new(4096);
        assert!(decoded(&mut decoder, &[0x00, 1, b'n', 0x81, 0x1f]).is_ok());
        assert!(decoder.scratch.capacity() > 0);
        let long = [&[0x00, 1, b'n', 0xff, 0xd5, 0x60][..], &huffman::encoding::encode(&[b'a'; 20_000])].concat();
        assert_eq!(decoded(&mut decoder, &long), Ok(vec![field(b"n", &[b'a'; 20_000])]));
        assert_eq!(decoder.scratch.capacity(), 0);
        assert_eq!(decoded(&mut decoder, &[&long[..], &[0x80]].concat()), Err(Undecodable));
        assert_eq!(decoder.scratch.capacity(), 0);
    }

    #[test]
    fn the_table_does_not_grow_beyond_its_size() {
        let mut decoder = Decoder::new(4096);
        assert!(decoded(&mut decoder, &[0x40, 0, 0].repeat(10_000)).is_ok());
        let (size, fields) = decoder.table().dynamic();
        assert_eq!((size, fields.len()), (4096, 128));
    }
}
