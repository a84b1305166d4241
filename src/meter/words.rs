//! Single words of a slab: how they are stored and loaded, and what is made of bytes. Why in this order: [`super::layout`].

use std::sync::atomic::{AtomicU64, Ordering};

pub const WORD: usize = size_of::<u64>();

/// Every store into a slab. See [`super::layout`] for why the order is `Release`.
#[inline(always)]
pub fn put(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Release);
    #[cfg(test)]
    cut::after_a_store();
}

#[inline(always)]
pub fn take(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

pub fn low(word: u64) -> u32 {
    (word & u64::from(u32::MAX)) as u32
}

/// CRC-32 of the words, beginning with that of the file's header.
pub fn checksum(seal: u32, words: &[u64]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seal.to_le_bytes());
    for word in words {
        hasher.update(&word.to_le_bytes());
    }
    hasher.finalize()
}

pub fn from_bytes<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

pub fn to_bytes(words: [u64; 2]) -> [u8; 16] {
    let [a, b] = words;
    (u128::from(b) << 64 | u128::from(a)).to_le_bytes()
}

pub fn padded<const FROM: usize, const TO: usize>(id: [u8; FROM]) -> [u8; TO] {
    let mut bytes = [0; TO];
    for (to, from) in bytes.iter_mut().zip(id) {
        *to = from;
    }
    bytes
}

pub fn unpadded<const TO: usize>(words: [u64; 2]) -> Option<[u8; TO]> {
    let bytes = to_bytes(words);
    let (id, rest) = bytes.split_first_chunk::<TO>()?;
    rest.iter().all(|byte| *byte == 0).then_some(*id)
}

/// Lets a test look at a file after every single store of the current thread.
#[cfg(test)]
pub mod cut {
    use std::cell::RefCell;

    type Look = Box<dyn FnMut()>;

    thread_local! {
        static LOOK: RefCell<Option<Look>> = const { RefCell::new(None) };
    }

    /// Calls `look` after every store that `work` makes.
    pub fn at_every_store(look: impl FnMut() + 'static, work: impl FnOnce()) {
        LOOK.set(Some(Box::new(look)));
        work();
        LOOK.set(None);
    }

    pub fn after_a_store() {
        LOOK.with_borrow_mut(|look| look.as_mut().map(|look| look()));
    }
}
