//! The head of a slab file: whose it is. Written once, before the file has its name.

use std::sync::atomic::AtomicU64;

use super::layout::Damage;
use super::words::{checksum, from_bytes, padded, put, take, to_bytes, unpadded};
use crate::principal::{Incarnation, StoreId};
use crate::time::Hour;

const MAGIC: u64 = u64::from_le_bytes(*b"TGSLAB\r\n");
const FORMAT: u64 = 1;

/// Words of the header, of which the last is its checksum.
pub const HEADER: usize = 12;

/// Whose file it is and which part of the incarnation's counters it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub store_id: StoreId,
    pub boot_id: [u8; 16],
    pub incarnation: Incarnation,
    pub hour: Hour,
    /// 0 is the shared shard.
    pub shard: u16,
    /// Counts the files of this shard and hour, from 0.
    pub extent: u16,
    /// Lines.
    pub capacity: u32,
}

impl Identity {
    /// Writes the header. Returns its checksum.
    pub fn write(&self, words: &[AtomicU64]) -> u32 {
        let header = self.words();
        let seal = checksum(0, &header);
        for (word, value) in words.iter().zip(header.into_iter().chain([u64::from(seal)])) {
            put(word, value);
        }
        seal
    }

    /// Reads a header that somebody else wrote, and its checksum.
    pub fn read(words: &[AtomicU64]) -> Result<(Self, u32), Damage> {
        let header: &[AtomicU64; HEADER] = words.first_chunk().ok_or(Damage::NotASlab)?;
        let [magic, format, stored @ .., seal] = header.each_ref().map(take);
        if magic != MAGIC || format != FORMAT {
            return Err(Damage::NotASlab);
        }
        let identity = Self::from_words(stored).ok_or(Damage::Header)?;
        let right = checksum(0, &identity.words());
        if u64::from(right) == seal { Ok((identity, right)) } else { Err(Damage::Header) }
    }

    fn words(&self) -> [u64; HEADER - 1] {
        let [store_a, store_b] = from_bytes(&padded::<_, 16>(self.store_id.0));
        let [boot_a, boot_b] = from_bytes(&self.boot_id);
        let [incarnation_a, incarnation_b] = from_bytes(&padded::<_, 16>(self.incarnation.0));
        let part = u64::from(self.shard) << 16 | u64::from(self.extent);
        let (hour, capacity) = (u64::from(self.hour.0), u64::from(self.capacity));
        [MAGIC, FORMAT, store_a, store_b, boot_a, boot_b, incarnation_a, incarnation_b, hour, part, capacity]
    }

    fn from_words(words: [u64; HEADER - 3]) -> Option<Self> {
        let [store_a, store_b, boot_a, boot_b, incarnation_a, incarnation_b, hour, part, capacity] = words;
        Some(Self {
            store_id: StoreId(unpadded([store_a, store_b])?),
            boot_id: to_bytes([boot_a, boot_b]),
            incarnation: Incarnation(unpadded([incarnation_a, incarnation_b])?),
            hour: Hour(u32::try_from(hour).ok()?),
            shard: u16::try_from(part >> 16).ok()?,
            extent: (part & 0xffff) as u16,
            capacity: u32::try_from(capacity).ok()?,
        })
    }
}
