//! The examples of RFC 7541 (appendix C), and the decoder against an encoder that uses all that there is.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::huffman::encoding::encode;
use super::table::STATIC;
use super::{Decoder, Undecodable};

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn octets(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u32> = hexadecimal.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Undecodable> {
    let mut fields = Vec::new();
    decoder.decode(block, |name, value| fields.push((name.to_vec(), value.to_vec())))?;
    Ok(fields)
}

fn fields(list: &[(&str, &str)]) -> Fields {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// Decodes a block and compares its fields, and the size and entries of the dynamic table after it.
#[track_caller]
fn example(decoder: &mut Decoder, block: &str, list: &[(&str, &str)], size: usize, table: &[(&str, &str)]) {
    assert_eq!(decoded(decoder, &octets(block)), Ok(fields(list)));
    let (held, entries) = decoder.table().dynamic();
    let entries: Fields = entries.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    assert_eq!((held, entries), (size, fields(table)));
}

#[test]
fn appendix_c_2_representations() {
    let custom = ("custom-key", "custom-header");
    let block = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    example(&mut Decoder::new(4096), block, &[custom], 55, &[custom]);
    let block = "040c 2f73 616d 706c 652f 7061 7468";
    example(&mut Decoder::new(4096), block, &[(":path", "/sample/path")], 0, &[]);
    let block = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    example(&mut Decoder::new(4096), block, &[("password", "secret")], 0, &[]);
    example(&mut Decoder::new(4096), "82", &[(":method", "GET")], 0, &[]);
}

const AUTHORITY: (&str, &str) = (":authority", "www.example.com");
const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const CUSTOM: (&str, &str) = ("custom-key", "custom-value");

/// The three requests of C.3 and C.4.
fn requests(blocks: [&str; 3]) {
    let mut decoder = Decoder::new(4096);
    let [first, second, third] = blocks;
    let list = [(":method", "GET"), (":scheme", "http"), (":path", "/"), AUTHORITY];
    example(&mut decoder, first, &list, 57, &[AUTHORITY]);
    let list = [(":method", "GET"), (":scheme", "http"), (":path", "/"), AUTHORITY, NO_CACHE];
    example(&mut decoder, second, &list, 110, &[NO_CACHE, AUTHORITY]);
    let list = [(":method", "GET"), (":scheme", "https"), (":path", "/index.html"), AUTHORITY, CUSTOM];
    example(&mut decoder, third, &list, 164, &[CUSTOM, NO_CACHE, AUTHORITY]);
}

#[test]
fn appendix_c_3_requests_without_huffman() {
    requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn appendix_c_4_requests_with_huffman() {
    requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

const DATE: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const LATER: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const COOKIE: (&str, &str) = ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");

/// The three responses of C.5 and C.6, with a table of 256 octets.
fn responses(blocks: [&str; 3]) {
    let mut decoder = Decoder::new(4096);
    example(&mut decoder, "3fe1 01", &[], 0, &[]);
    let [first, second, third] = blocks;
    let (found, moved, fine) = ((":status", "302"), (":status", "307"), (":status", "200"));
    example(&mut decoder, first, &[found, PRIVATE, DATE, LOCATION], 222, &[LOCATION, DATE, PRIVATE, found]);
    example(&mut decoder, second, &[moved, PRIVATE, DATE, LOCATION], 222, &[moved, LOCATION, DATE, PRIVATE]);
    example(&mut decoder, third, &[fine, PRIVATE, LATER, LOCATION, GZIP, COOKIE], 215, &[COOKIE, GZIP, LATER]);
}

#[test]
fn appendix_c_5_responses_without_huffman() {
    responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d \
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f \
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b \
         2076 6572 7369 6f6e 3d31",
    ]);
}

#[test]
fn appendix_c_6_responses_with_huffman() {
    responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 \
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 \
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}

/// An encoder that chooses among all representations as it is told, with a dynamic table of its own.
struct Chooser {
    entries: Fields,
    limit: usize,
}

impl Chooser {
    fn evict(&mut self, most: usize) {
        let size = |entries: &Fields| entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
        while size(&self.entries) > most {
            self.entries.pop();
        }
    }

    fn resize(&mut self, limit: usize, block: &mut Vec<u8>) {
        self.limit = limit;
        self.evict(limit);
        integer(limit, 0x20, 0x1f, block);
    }

    fn put(&mut self, name: &[u8], value: &[u8], choice: u8, block: &mut Vec<u8>) {
        let both: Fields =
            STATIC.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).chain(self.entries.clone()).collect();
        // The last that fits: this prefers the dynamic table and the oldest entries, which are about to be evicted.
        if let Some(nth) =
            both.iter().rposition(|field| field.0 == name && field.1 == value).filter(|_| choice & 3 != 0)
        {
            integer(nth + 1, 0x80, 0x7f, block);
            return;
        }
        let named = both.iter().rposition(|field| field.0 == name).filter(|_| choice & 4 != 0);
        let (kind, prefix) = [(0x40, 0x3f), (0x40, 0x3f), (0x00, 0x0f), (0x10, 0x0f)][usize::from(choice >> 3 & 3)];
        integer(named.map_or(0, |nth| nth + 1), kind, prefix, block);
        if named.is_none() {
            string(name, choice & 0x20 != 0, block);
        }
        string(value, choice & 0x40 != 0, block);
        if kind == 0x40 {
            let size = name.len() + value.len() + 32;
            self.evict(self.limit.saturating_sub(size));
            if size <= self.limit {
                self.entries.insert(0, (name.to_vec(), value.to_vec()));
            }
        }
    }
}

fn integer(value: usize, kind: u8, prefix: u8, block: &mut Vec<u8>) {
    if value < usize::from(prefix) {
        return block.push(kind | value as u8);
    }
    block.push(kind | prefix);
    let mut rest = value - usize::from(prefix);
    while rest >= 128 {
        block.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

fn string(text: &[u8], coded: bool, block: &mut Vec<u8>) {
    let (kind, octets) = if coded { (0x80, encode(text)) } else { (0, text.to_vec()) };
    integer(octets.len(), kind, 0x7f, block);
    block.extend(octets);
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(STATIC.to_vec()).prop_map(|field| field.0.to_vec()),
        prop::sample::select(vec![b"a".to_vec(), b"b".to_vec(), vec![], vec![b'n'; 100], vec![b'N'; 3000]]),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(STATIC.to_vec()).prop_map(|field| field.1.to_vec()),
        prop::sample::select(vec![b"1".to_vec(), b"2".to_vec(), vec![], vec![b'v'; 900], vec![b'V'; 5000]]),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// The changes of the size that a block begins with, and its fields, each with a choice.
type Plan = (Vec<usize>, Vec<(Vec<u8>, Vec<u8>, u8)>);

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let sizes = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(0_usize..=8192, 1..=2)];
    prop::collection::vec((sizes, prop::collection::vec((names(), values(), any::<u8>()), 0..12)), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn all_representations_are_decoded(plans in plans()) {
        let mut decoder = Decoder::new(8192);
        let mut chooser = Chooser { entries: vec![], limit: 4096 };
        for (sizes, list) in plans {
            let mut block = Vec::new();
            for size in sizes {
                chooser.resize(size, &mut block);
            }
            for (name, value, choice) in &list {
                chooser.put(name, value, *choice, &mut block);
            }
            let expected: Fields = list.into_iter().map(|(name, value, _)| (name, value)).collect();
            prop_assert_eq!(decoded(&mut decoder, &block), Ok(expected));
            let entries: Vec<_> =
                chooser.entries.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            prop_assert_eq!(decoder.table().dynamic().1, entries);
        }
    }

    #[test]
    fn a_damaged_block_is_harmless(plans in plans(), damage in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4)) {
        let mut decoder = Decoder::new(8192);
        let mut chooser = Chooser { entries: vec![], limit: 4096 };
        for (_, list) in plans {
            let mut block = Vec::new();
            for (name, value, choice) in &list {
                chooser.put(name, value, *choice, &mut block);
            }
            for (at, octet) in &damage {
                let length = block.len().max(1);
                if let Some(place) = block.get_mut(usize::from(*at) % length) {
                    *place = *octet;
                }
            }
            let _ = decoded(&mut decoder, &block);
            prop_assert!(decoder.table().dynamic().0 <= 8192);
        }
    }

    #[test]
    fn arbitrary_octets_are_harmless(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6)) {
        let mut decoder = Decoder::new(4096);
        for block in blocks {
            let _ = decoded(&mut decoder, &block);
            let (size, entries) = decoder.table().dynamic();
            prop_assert!(size <= 4096);
            prop_assert_eq!(size, entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>());
        }
    }
}
