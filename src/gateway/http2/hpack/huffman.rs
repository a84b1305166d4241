//! The Huffman code of HPACK (RFC 7541, 5.2 and appendix B), decoding only: we never send it.
//!
//! The code is canonical: codes of one length follow one another in the order of their symbols, and each length
//! begins where the shorter one ended. So the lengths alone are the whole code, and all tables are computed from them
//! when this is compiled. Codes of up to nine bits (all that text usually holds) are found by one look at the next
//! nine bits; longer ones by comparing with the last code of each length.

use super::Undecodable;

/// The length of each symbol's code in bits (RFC 7541, appendix B), by symbol; the last is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The length of the longest code.
const LONGEST: u8 = 30;

/// How many bits the first look at a code takes in: the length of the longest code that [`SHORT`] holds.
const LOOK: u8 = 9;

/// How many lengths there are beyond that.
const LONG_LENGTHS: usize = (LONGEST - LOOK) as usize;

/// All codes of one length, as the first bits of 64.
#[derive(Clone, Copy)]
struct Row {
    /// The first code, followed by zeros.
    first: u64,
    /// The last code, followed by ones.
    last: u64,
    /// Their length.
    length: u8,
    /// Where the symbol of the first code is in [`SORTED`].
    place: usize,
}

/// The symbols in the order of their codes, except for EOS, which would be the last.
static SORTED: [u8; 256] = const { sort() };

/// The symbol and the length of the code that the next nine bits begin with; length 0 where that code is longer.
static SHORT: [(u8, u8); 1 << LOOK] = const { find_short() };

/// The codes that are longer than nine bits. A length that no code has is a row that nothing falls into.
static LONG: [Row; LONG_LENGTHS] = const { find_long() };

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler only, where a wrong index is an error")]
const fn sort() -> [u8; 256] {
    let mut sorted = [0; 256];
    let (mut place, mut length) = (0, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < sorted.len() {
            if LENGTHS[symbol] == length {
                sorted[place] = symbol as u8;
                place += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    sorted
}

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler only, where a wrong index is an error")]
const fn find_short() -> [(u8, u8); 1 << LOOK] {
    let sorted = sort();
    let mut short = [(0, 0); 1 << LOOK];
    let (mut at, mut place) = (0, 0);
    while LENGTHS[sorted[place] as usize] <= LOOK {
        let length = LENGTHS[sorted[place] as usize];
        let end = at + (1 << (LOOK - length));
        while at < end {
            short[at] = (sorted[place], length);
            at += 1;
        }
        place += 1;
    }
    short
}

const fn find_long() -> [Row; LONG_LENGTHS] {
    let mut long = [Row { first: 0, last: 0, length: 0, place: 0 }; LONG_LENGTHS];
    let (mut code, mut place, mut length) = (0, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        let count = count(length);
        record(&mut long, code, count, length, place);
        code += count as u64;
        place += count;
        length += 1;
    }
    long
}

/// Notes `count` codes from `code` on as the row of their length, where it is a long one.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler only, where a wrong index is an error")]
const fn record(long: &mut [Row; LONG_LENGTHS], code: u64, count: usize, length: u8, place: usize) {
    if length > LOOK {
        let shift = 64 - length;
        let last = ((code + count as u64) << shift).wrapping_sub(1);
        long[(length - LOOK - 1) as usize] = Row { first: code << shift, last, length, place };
    }
}

/// How many symbols, EOS among them, have a code of this length.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler only, where a wrong index is an error")]
const fn count(length: u8) -> usize {
    let (mut count, mut symbol) = (0, 0);
    while symbol < LENGTHS.len() {
        if LENGTHS[symbol] == length {
            count += 1;
        }
        symbol += 1;
    }
    count
}

/// The symbol that the window begins with and the length of its code. EOS is an error (RFC 7541, 5.2).
#[inline]
fn look(window: u64) -> Result<(u8, u8), Undecodable> {
    let short = usize::try_from(window >> (64 - LOOK)).ok().and_then(|bits| SHORT.get(bits));
    match short {
        Some(&(symbol, length)) if length > 0 => Ok((symbol, length)),
        _ => look_long(window),
    }
}

fn look_long(window: u64) -> Result<(u8, u8), Undecodable> {
    let row = LONG.iter().find(|row| window <= row.last).ok_or(Undecodable)?;
    let nth = usize::try_from(window.saturating_sub(row.first) >> (64 - row.length)).map_err(|_| Undecodable)?;
    let symbol = SORTED.get(row.place + nth).ok_or(Undecodable)?;
    Ok((*symbol, row.length))
}

/// What is left of a string: the next bits, and the octets after them.
struct Bits<'a> {
    /// The next bits, the first of them the most significant one. Behind `held` bits there may already be some of
    /// those that `rest` begins with, or zeros.
    window: u64,
    /// How many bits of the window count: at most 63.
    held: u8,
    rest: &'a [u8],
}

impl Bits<'_> {
    /// Takes in octets until more than [`LONGEST`] bits are held, or the string has no more.
    #[inline]
    fn fill(&mut self) {
        if let Some(next) = self.rest.first_chunk::<8>() {
            let octets = (63 - self.held) / 8;
            self.window |= u64::from_be_bytes(*next) >> self.held;
            self.held += octets * 8;
            self.rest = self.rest.get(usize::from(octets)..).unwrap_or_default();
            return;
        }
        while self.held < 56
            && let Some((octet, rest)) = self.rest.split_first()
        {
            self.window |= u64::from(*octet) << (56 - self.held);
            self.held += 8;
            self.rest = rest;
        }
    }

    #[inline]
    fn skip(&mut self, length: u8) {
        self.window <<= length;
        self.held -= length;
    }

    /// Decodes the last bits, of which there are fewer than [`LONGEST`]. What fills the last octet must be the first
    /// bits of EOS, which are ones, and fewer than eight (RFC 7541, 5.2).
    fn finish(mut self, into: &mut Vec<u8>) -> Result<(), Undecodable> {
        loop {
            let filled = self.window | (u64::MAX >> self.held);
            if filled == u64::MAX && self.held < 8 {
                return Ok(());
            }
            let (symbol, length) = look(filled)?;
            if length > self.held {
                return Err(Undecodable);
            }
            into.push(symbol);
            self.skip(length);
        }
    }
}

/// Appends what `coded` stands for: at most 8/5 of its length, as the shortest code has five bits.
pub(super) fn decode(coded: &[u8], into: &mut Vec<u8>) -> Result<(), Undecodable> {
    into.reserve(coded.len() / 5 * 8 + 8);
    let mut bits = Bits { window: 0, held: 0, rest: coded };
    loop {
        bits.fill();
        if bits.held < LONGEST {
            return bits.finish(into);
        }
        while bits.held >= LONGEST {
            let (symbol, length) = look(bits.window)?;
            into.push(symbol);
            bits.skip(length);
        }
    }
}

/// Encoding, for tests only, by codes that are made independently of the decoder's tables.
#[cfg(test)]
pub(super) mod encoding {
    #![allow(clippy::indexing_slicing, reason = "for tests, where a panic is a failure")]

    use std::sync::LazyLock;

    use super::{LENGTHS, LONGEST};

    /// The code of each symbol.
    pub(super) static CODES: LazyLock<Vec<u32>> = LazyLock::new(|| {
        let mut symbols: Vec<usize> = (0..LENGTHS.len()).collect();
        symbols.sort_by_key(|&symbol| LENGTHS[symbol]);
        let mut codes = vec![0; LENGTHS.len()];
        let (mut next, mut length) = (0_u32, 0);
        for symbol in symbols {
            next <<= LENGTHS[symbol] - length;
            length = LENGTHS[symbol];
            codes[symbol] = next;
            next += 1;
        }
        assert_eq!(next, 1 << LONGEST, "the code is complete");
        codes
    });

    /// Encodes symbols of up to 256 (EOS) and fills the last octet with ones.
    pub(super) fn encode_symbols(symbols: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for symbol in symbols {
            bits.extend((0..LENGTHS[symbol]).rev().map(|bit| CODES[symbol] >> bit & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|octet| octet.iter().fold(0, |octet, &bit| octet << 1 | u8::from(bit))).collect()
    }

    /// Encodes a string.
    pub(in super::super) fn encode(plain: &[u8]) -> Vec<u8> {
        encode_symbols(plain.iter().map(|&octet| usize::from(octet)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

    use proptest::prelude::*;

    use super::encoding::{CODES, encode, encode_symbols};
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Undecodable> {
        let mut plain = Vec::new();
        decode(coded, &mut plain).map(|()| plain)
    }

    #[test]
    fn codes_are_those_of_appendix_b() {
        #[rustfmt::skip]
        let known = [
            (0, 0x1ff8, 13), (1, 0x7fffd8, 23), (9, 0xffffea, 24), (10, 0x3ffffffc, 30), (13, 0x3ffffffd, 30), (22, 0x3ffffffe, 30),
            (32, 0x14, 6), (48, 0x0, 5), (58, 0x5c, 7), (59, 0xfb, 8), (63, 0x3fc, 10), (92, 0x7fff0, 19), (97, 0x3, 5),
            (116, 0x9, 5), (122, 0x7b, 7), (124, 0x7fc, 11), (127, 0xffffffc, 28), (128, 0xfffe6, 20), (129, 0x3fffd2, 22),
            (199, 0x1ffffec, 25), (203, 0x7ffffde, 27), (220, 0xffffffd, 28), (249, 0xffffffe, 28), (255, 0x3ffffee, 26),
            (256, 0x3fffffff, 30),
        ];
        for (symbol, code, length) in known {
            assert_eq!((CODES[symbol], LENGTHS[symbol]), (code, length), "symbol {symbol}");
        }
    }

    #[test]
    fn each_symbol_and_each_pair_is_decoded() {
        for first in 0..=255 {
            assert_eq!(decoded(&encode(&[first])), Ok(vec![first]));
            for second in 0..=255 {
                assert_eq!(decoded(&encode(&[first, second])), Ok(vec![first, second]));
            }
        }
    }

    #[test]
    fn an_empty_string_is_one() {
        assert_eq!(decoded(&[]), Ok(vec![]));
    }

    #[test]
    fn padding_is_shorter_than_an_octet() {
        assert_eq!(decoded(&[0x1f]), Ok(b"a".to_vec()));
        assert_eq!(decoded(&[0x1f, 0xff]), Err(Undecodable));
        for octets in 1..40 {
            assert_eq!(decoded(&vec![0xff; octets]), Err(Undecodable), "{octets} octets of ones");
        }
        // ':' has seven bits, '&' eight: the padding is one bit, and none.
        assert_eq!(decoded(&encode(b":")), Ok(b":".to_vec()));
        assert_eq!(decoded(&encode(b"&")), Ok(b"&".to_vec()));
        assert_eq!(decoded(&[encode(b"&"), vec![0xff]].concat()), Err(Undecodable));
    }

    #[test]
    fn padding_is_all_ones() {
        for padding in 0..7 {
            assert_eq!(decoded(&[0x18 | padding]), Err(Undecodable), "padding {padding:03b}");
        }
    }

    #[test]
    fn eos_and_cut_codes_are_errors() {
        assert_eq!(decoded(&encode_symbols([256])), Err(Undecodable));
        assert_eq!(decoded(&encode_symbols([97, 256, 97])), Err(Undecodable));
        for before in 0..20 {
            let symbols = (0..before).map(|_| 97).chain([256]).chain((0..20).map(|_| 98));
            assert_eq!(decoded(&encode_symbols(symbols)), Err(Undecodable));
        }
        let coded = encode(&[10]);
        for cut in 1..coded.len() {
            assert_eq!(decoded(&coded[..cut]), Err(Undecodable));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(plain in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decoded(&encode(&plain)), Ok(plain));
        }

        #[test]
        fn text_is_decoded(plain in "[ -~]{0,200}") {
            prop_assert_eq!(decoded(&encode(plain.as_bytes())), Ok(plain.into_bytes()));
        }

        #[test]
        fn what_is_decoded_is_the_only_encoding(coded in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(plain) = decoded(&coded) {
                prop_assert!(plain.len() * 5 <= coded.len() * 8);
                prop_assert_eq!(encode(&plain), coded);
            }
        }
    }
}
