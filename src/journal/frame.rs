//! How an entry lies in a file: length, checksum, sealed content. Pure: bytes in, bytes out.
//!
//! `length: u32 | crc32: u32 | nonce: 24 bytes | ciphertext with tag`, numbers little-endian; the checksum covers the length and
//! everything after it. The place of a frame is part of what is sealed, so a frame that was moved does not open.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::entry::Entry;
use crate::config::secret::Secret32;
use crate::principal::{JournalId, StoreId};

/// Before the sealed content: length and checksum.
pub const HEAD: usize = 8;
const NONCE: usize = 24;
/// An import of the longest list of keys that a request may hold stays far below it.
const LONGEST: usize = 64 << 20;

/// Where a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u64,
    pub offset: u64,
}

/// Why the bytes at a place are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFrame {
    #[error("the file ends within an entry")]
    Cut,
    #[error("an entry has an impossible length")]
    Length,
    #[error("the checksum does not fit")]
    Checksum,
    #[error("the entry does not open: it was changed or moved, or belongs to another journal")]
    Sealed,
    #[error("the entry is not one that this version knows")]
    Unknown,
}

/// The entry could not be put into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry could not be sealed")]
pub struct CannotFrame;

/// Makes and reads the frames of one journal.
pub struct Framing {
    cipher: XChaCha20Poly1305,
    store_id: StoreId,
    journal_id: JournalId,
}

impl Framing {
    pub fn new(key: &Secret32, store_id: StoreId, journal_id: JournalId) -> Self {
        Self { cipher: XChaCha20Poly1305::new(key.expose_secret().into()), store_id, journal_id }
    }

    pub fn frame(&self, place: Place, entry: &Entry) -> Result<Vec<u8>, CannotFrame> {
        let plain = Zeroizing::new(serde_json::to_vec(entry).map_err(|_| CannotFrame)?);
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| CannotFrame)?;
        let aad = self.associated_data(place);
        let payload = Payload { msg: &plain, aad: &aad };
        let ciphertext = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| CannotFrame)?;
        let length = u32::try_from(NONCE + ciphertext.len()).map_err(|_| CannotFrame)?.to_le_bytes();
        let content = [nonce.as_slice(), &ciphertext].concat();
        let checksum = checksum(length, &content).to_le_bytes();
        Ok([length.as_slice(), &checksum, &content].concat())
    }

    /// Reads the frame at the start of `bytes`, which lie at `place`: the entry, and how many bytes it takes.
    pub fn read(&self, place: Place, bytes: &[u8]) -> Result<(Entry, usize), NotAFrame> {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(NotAFrame::Cut)?;
        let (stated, rest) = rest.split_first_chunk::<4>().ok_or(NotAFrame::Cut)?;
        let size = u32::from_le_bytes(*length) as usize;
        if !(NONCE..=LONGEST).contains(&size) {
            return Err(NotAFrame::Length);
        }
        let content = rest.get(..size).ok_or(NotAFrame::Cut)?;
        if checksum(*length, content) != u32::from_le_bytes(*stated) {
            return Err(NotAFrame::Checksum);
        }
        let (nonce, ciphertext) = content.split_first_chunk::<NONCE>().ok_or(NotAFrame::Cut)?;
        let aad = self.associated_data(place);
        let payload = Payload { msg: ciphertext, aad: &aad };
        let plain = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| NotAFrame::Sealed)?;
        let entry = serde_json::from_slice(&Zeroizing::new(plain)).map_err(|_| NotAFrame::Unknown)?;
        Ok((entry, HEAD + size))
    }

    fn associated_data(&self, place: Place) -> Vec<u8> {
        let Place { segment, offset } = place;
        [&b"entry"[..], &self.store_id.0, &self.journal_id.0, &segment.to_le_bytes(), &offset.to_le_bytes()].concat()
    }
}

impl fmt::Debug for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Framing({})", self.journal_id)
    }
}

fn checksum(length: [u8; 4], content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length);
    crc.update(content);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::ID_BYTES;

    fn framing(key: u8, journal: u8) -> Framing {
        let key = Secret32::init_with_mut(|bytes: &mut [u8; 32]| bytes.fill(key));
        Framing::new(&key, StoreId([1; ID_BYTES]), JournalId([journal; ID_BYTES]))
    }

    const PLACE: Place = Place { segment: 3, offset: 48 };

    #[test]
    fn a_frame_is_read_back_at_its_place_and_nowhere_else() {
        let framing = framing(1, 1);
        let frame = framing.frame(PLACE, &Entry::Refused { no: 9 }).unwrap();
        let (entry, taken) = framing.read(PLACE, &[frame.as_slice(), b"more"].concat()).unwrap();
        assert!(matches!(entry, Entry::Refused { no: 9 }));
        assert_eq!(taken, frame.len());
        for moved in [Place { segment: 4, ..PLACE }, Place { offset: 49, ..PLACE }] {
            assert_eq!(framing.read(moved, &frame).err(), Some(NotAFrame::Sealed));
        }
        assert_eq!(self::framing(2, 1).read(PLACE, &frame).err(), Some(NotAFrame::Sealed));
        assert_eq!(self::framing(1, 2).read(PLACE, &frame).err(), Some(NotAFrame::Sealed));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let framing = framing(1, 1);
        let frame = framing.frame(PLACE, &Entry::Refused { no: 9 }).unwrap();
        for at in 0..frame.len() {
            assert_eq!(framing.read(PLACE, &frame[..at]).err(), Some(NotAFrame::Cut), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = frame.clone();
                flipped[at] ^= 1 << bit;
                assert!(framing.read(PLACE, &flipped).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}
