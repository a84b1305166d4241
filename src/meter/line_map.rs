//! Where the lines of one shard and hour are, by key.

use std::array;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::charge::LineAt;
use super::packed_key::PackedKey;

/// A table that grows a part at a time: to move all of some hundred thousand lines at once would hold up every call of the thread
/// for several milliseconds.
pub struct LineMap {
    parts: [HashMap<PackedKey, LineAt, BuildHasherDefault<Mixed>>; PARTS],
}

const PARTS: usize = 64;

impl Default for LineMap {
    fn default() -> Self {
        Self { parts: array::from_fn(|_| HashMap::default()) }
    }
}

impl LineMap {
    #[inline]
    pub fn get(&self, key: &PackedKey) -> Option<LineAt> {
        self.parts.get(part(key))?.get(key).copied()
    }

    pub fn insert(&mut self, key: PackedKey, at: LineAt) {
        if let Some(part) = self.parts.get_mut(part(&key)) {
            part.insert(key, at);
        }
    }
}

/// By account and API key, which are random: neither one account with many keys nor one key with many operations fills a part alone.
#[inline]
fn part(PackedKey([account, api_key, ..]): &PackedKey) -> usize {
    (account.wrapping_add(*api_key) >> (u64::BITS - PARTS.trailing_zeros())) as usize
}

/// [`PackedKey`] mixes itself; this only keeps the result.
#[derive(Default)]
pub struct Mixed(u64);

impl Hasher for Mixed {
    fn write_u64(&mut self, mixed: u64) {
        self.0 = mixed;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed(number: u64) -> u64 {
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn every_line_is_found_and_no_part_has_much_more_than_its_share() {
        let of_one_account = (0..20_000).map(|number| PackedKey([7, mixed(number), 9, number % 3]));
        let of_many = (0..20_000).map(|number| PackedKey([mixed(number), mixed(number), 9, number % 3]));
        for keys in [of_one_account.collect::<Vec<_>>(), of_many.collect()] {
            let mut lines = LineMap::default();
            for (line, key) in (0..).zip(&keys) {
                assert_eq!(lines.get(key), None);
                lines.insert(*key, LineAt { extent: 0, line });
            }
            for (line, key) in (0..).zip(&keys) {
                assert_eq!(lines.get(key), Some(LineAt { extent: 0, line }));
            }
            let largest = lines.parts.iter().map(HashMap::len).max().unwrap();
            assert!(largest < 2 * keys.len() / PARTS, "{largest} of {}", keys.len());
        }
    }
}
