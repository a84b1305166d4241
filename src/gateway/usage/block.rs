//! Skips nested JSON values 64 bytes at a time: finds strings and brackets as bit masks instead of walking bytes.
//!
//! Bit `i` of a mask stands for byte `i` of a block. Most of a large answer is numbers, which are passed over without masks.

use wide::u8x64;

/// The bytes looked at in one step.
const BLOCK: usize = 64;
/// Bytes that are looked at together where they may be nothing but numbers.
const WIDE: usize = 2 * BLOCK;

/// Where the skipping stands: how deep, and whether inside a string.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skip {
    /// Brackets opened and not yet closed.
    depth: u64,
    in_string: bool,
    /// The last byte was a backslash that escapes the next one.
    escaping: bool,
}

impl Skip {
    /// Just after the opening bracket of the value to skip.
    pub const fn opened() -> Self {
        Self { depth: 1, in_string: false, escaping: false }
    }

    /// Whether the bracket that ends the value has been passed.
    pub const fn is_over(&self) -> bool {
        self.depth == 0
    }

    /// Skips as far as the value goes, and gives the number of bytes that were its own.
    pub fn run(&mut self, bytes: &[u8]) -> usize {
        let (wide, rest) = bytes.as_chunks::<WIDE>();
        let mut skipped = 0;
        for wide in wide {
            // Nearly all of a large answer is numbers.
            if !self.escaping && !may_have_marks(wide) {
                skipped += WIDE;
                continue;
            }
            skipped += self.blocks(wide.as_chunks().0);
            if self.is_over() {
                return skipped;
            }
        }
        let (blocks, rest) = rest.as_chunks::<BLOCK>();
        skipped += self.blocks(blocks);
        if self.is_over() {
            return skipped;
        }
        if rest.is_empty() {
            return skipped;
        }
        // Spaces change no state, so a short block is a whole one with spaces behind it.
        let mut padded = [b' '; BLOCK];
        for (to, from) in padded.iter_mut().zip(rest) {
            *to = *from;
        }
        skipped + self.block(&padded, rest.len())
    }

    /// Skips whole blocks, as far as the value goes.
    fn blocks(&mut self, blocks: &[[u8; BLOCK]]) -> usize {
        let mut skipped = 0;
        for block in blocks {
            if !self.escaping && !may_have_marks(block) {
                skipped += BLOCK;
                continue;
            }
            skipped += self.block(block, BLOCK);
            if self.is_over() {
                break;
            }
        }
        skipped
    }

    /// `used` is the number of bytes in the block that belong to the input.
    fn block(&mut self, block: &[u8; BLOCK], used: usize) -> usize {
        let bytes = u8x64::new(*block);
        let escaped = self.escaped(where_is(bytes, b'\\'), used);
        let quotes = where_is(bytes, b'"') & !escaped;
        let strings = prefix_xor(quotes) ^ if self.in_string { u64::MAX } else { 0 };
        self.in_string = strings >> 63 == 1;
        // `[` and `]` are `{` and `}` without this bit.
        let brackets = bytes | u8x64::splat(0x20);
        let (opens, closes) = (where_is(brackets, b'{') & !strings, where_is(brackets, b'}') & !strings);
        if u64::from(closes.count_ones()) < self.depth {
            self.depth += u64::from(opens.count_ones());
            self.depth -= u64::from(closes.count_ones());
            return used;
        }
        self.walk(opens, closes).unwrap_or(used)
    }

    /// Follows the brackets of a block one by one, and gives the number of bytes up to the one that ends the value.
    fn walk(&mut self, opens: u64, closes: u64) -> Option<usize> {
        let mut brackets = opens | closes;
        while brackets != 0 {
            let lowest = brackets & brackets.wrapping_neg();
            if opens & lowest != 0 {
                self.depth += 1;
            } else {
                self.depth -= 1;
            }
            if self.is_over() {
                return Some(lowest.trailing_zeros() as usize + 1);
            }
            brackets ^= lowest;
        }
        None
    }

    /// The bytes that a backslash takes their meaning from. A backslash that is escaped itself escapes nothing.
    fn escaped(&mut self, backslashes: u64, used: usize) -> u64 {
        let mut escaped = u64::from(self.escaping);
        let mut backslashes = backslashes & !escaped;
        self.escaping = false;
        while backslashes != 0 {
            let lowest = backslashes & backslashes.wrapping_neg();
            let next = lowest << 1;
            self.escaping = lowest.trailing_zeros() as usize + 1 == used;
            escaped |= next;
            backslashes &= !(lowest | next);
        }
        escaped
    }
}

/// Whether there are quotes, or anything from `[` on, which all other marks are. What numbers are made of is not, but for exponents.
fn may_have_marks<const N: usize>(block: &[u8; N]) -> bool {
    let (mut most, mut quotes) = (0, 0);
    for byte in block {
        most = u8::max(most, *byte);
        quotes |= u8::from(*byte == b'"');
    }
    most >= b'[' || quotes != 0
}

/// The mask of the bytes that are this one.
fn where_is(bytes: u8x64, byte: u8) -> u64 {
    bytes.simd_eq(u8x64::splat(byte)).to_bitmask()
}

/// Bit `i` is the parity of the bits `0..=i`: set from an opening quote up to, but not including, its closing one.
const fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^ (bits << 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, byte by byte, as plainly as it can be said.
    fn plain(bytes: &[u8]) -> Option<usize> {
        let (mut depth, mut in_string, mut escaping) = (1_u64, false, false);
        for (at, byte) in bytes.iter().enumerate() {
            let escaped = std::mem::take(&mut escaping);
            match byte {
                b'\\' => escaping = !escaped,
                b'"' => in_string ^= !escaped,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(at + 1);
            }
        }
        None
    }

    fn skipped(bytes: &[u8], cuts: &[usize]) -> Option<usize> {
        let mut skip = Skip::opened();
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while at < bytes.len() {
            let end = bytes.len().min(at + cuts.next().map_or(bytes.len(), |cut| *cut));
            at += skip.run(&bytes[at..end]);
            if skip.is_over() {
                return Some(at);
            }
        }
        None
    }

    fn marks() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            3 => Just(b'a'),
            4 => proptest::sample::select(vec![b'"', b'\\']),
            4 => proptest::sample::select(b"{[}]".to_vec()),
            1 => any::<u8>(),
        ];
        proptest::collection::vec(byte, 0..400)
    }

    proptest! {
        #[test]
        fn blocks_end_where_a_walk_over_bytes_ends(
            bytes in marks(), cuts in proptest::collection::vec(1_usize..150, 1..8),
        ) {
            prop_assert_eq!(skipped(&bytes, &cuts), plain(&bytes));
        }
    }

    #[test]
    fn a_mask_has_the_bit_of_each_byte() {
        for at in 0..BLOCK {
            let mut block = [0; BLOCK];
            block[at] = b'x';
            assert_eq!(where_is(u8x64::new(block), b'x'), 1 << at);
        }
        assert_eq!(where_is(u8x64::splat(b'x'), b'x'), u64::MAX);
    }
}
