//! What is in a file of the spool: a header and frames behind it. Pure: bytes in, records out.
//!
//! - header: `magic: 8 | store: 10 | incarnation: 10 | crc32: 4 | length: 8 | crc32: 4`, numbers little-endian. The length is how
//!   long the file is for certain; it is written anew after each append, so after a power cut it may be that of the one before.
//! - frame: `mark: 4 | length: 4 | crc32: 4 | record as JSON`. The checksum begins with the store and the incarnation, so no frame
//!   fits into another file, and one can be read although the header is damaged. The mark is no text, so no record contains it:
//!   behind damage the reader goes on at the next mark, and damage costs the records it is in and no other.

use serde::{Deserialize, Serialize};

use crate::checksummed::{checked, with_checksum};
use crate::meter::record::Flush;
use crate::principal::{Epoch, ID_BYTES, Incarnation, LedgerServer, StoreId};

const MAGIC: &[u8; 8] = b"TGSPOOL1";
const IDENTITY: usize = MAGIC.len() + 2 * ID_BYTES + 4;
/// Where in a file its length stands.
pub const LENGTH_AT: usize = IDENTITY;
pub const HEADER: usize = IDENTITY + 8 + 4;
const MARK: [u8; 4] = [0xf5, b'T', b'G', 0xff];
/// Before the record: mark, length, checksum.
const HEAD: usize = MARK.len() + 4 + 4;
/// A batch of 500 lines stays far below it.
const LONGEST: usize = 4 << 20;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub store_id: StoreId,
    pub incarnation: Incarnation,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Absolute values, as they went to the ledger or will.
    Flush(Flush),
    /// This server has all that is before this, and acknowledged it.
    #[serde(rename = "acknowledged_by")]
    Acknowledged(LedgerServer),
    /// As earlier versions wrote it: in this epoch, by nobody in particular.
    #[serde(rename = "acknowledged")]
    AcknowledgedIn(Epoch),
}

/// What does not fit in a file; the first such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("its header does not match its checksum, or is not one of this version")]
    Header,
    #[error("a record does not match its checksum at byte {0}")]
    Record(u64),
    #[error("it ends after {there} of {length} bytes")]
    Cut { there: u64, length: u64 },
}

/// All records that can be read, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub records: Vec<Record>,
    pub damage: Option<Damage>,
}

/// The file belongs to another store; nothing in it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign(pub StoreId);

impl Owner {
    pub fn header(&self, length: u64) -> Vec<u8> {
        [with_checksum([MAGIC.as_slice(), &self.ids()].concat()), length_bytes(length)].concat()
    }

    /// The frame of a record. `None`: it is too long for one.
    pub fn frame(&self, record: &Record) -> Option<Vec<u8>> {
        let content = serde_json::to_vec(record).ok().filter(|content| content.len() <= LONGEST)?;
        let length = u32::try_from(content.len()).ok()?.to_le_bytes();
        let checksum = self.checksum(length, &content).to_le_bytes();
        Some([MARK.as_slice(), &length, &checksum, &content].concat())
    }

    /// Reads a whole file.
    pub fn read(&self, bytes: &[u8]) -> Result<Content, Foreign> {
        let mut content = Content::default();
        let mut at = match self.read_header(bytes)? {
            Ok(length) => {
                let there = bytes.len() as u64;
                content.damage = (there < length).then_some(Damage::Cut { there, length });
                HEADER
            }
            Err(damage) => {
                content.damage = Some(damage);
                next_mark(bytes, 0)
            }
        };
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.read_frame(rest) {
                Some((record, taken)) => {
                    content.records.push(record);
                    at += taken;
                }
                None => {
                    content.damage.get_or_insert(Damage::Record(at as u64));
                    at = next_mark(bytes, at + 1);
                }
            }
        }
        Ok(content)
    }

    /// How long the file was for certain.
    fn read_header(&self, bytes: &[u8]) -> Result<Result<u64, Damage>, Foreign> {
        let identity = bytes.get(..IDENTITY).and_then(checked).and_then(|bytes| bytes.strip_prefix(MAGIC));
        let Some((store_id, incarnation)) = identity.and_then(|ids| ids.split_first_chunk::<ID_BYTES>()) else {
            return Ok(Err(Damage::Header));
        };
        if *store_id != self.store_id.0 {
            return Err(Foreign(StoreId(*store_id)));
        }
        let length = bytes.get(LENGTH_AT..HEADER).and_then(checked).and_then(|length| length.try_into().ok());
        let length = length.filter(|_| *incarnation == self.incarnation.0);
        Ok(length.map(u64::from_le_bytes).ok_or(Damage::Header))
    }

    fn read_frame(&self, bytes: &[u8]) -> Option<(Record, usize)> {
        let (length, rest) = bytes.strip_prefix(&MARK)?.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let size = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|size| *size <= LONGEST)?;
        let content = rest.get(..size)?;
        if self.checksum(*length, content) != u32::from_le_bytes(*checksum) {
            return None;
        }
        Some((serde_json::from_slice(content).ok()?, HEAD + size))
    }

    fn checksum(&self, length: [u8; 4], content: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.ids());
        crc.update(&length);
        crc.update(content);
        crc.finalize()
    }

    fn ids(&self) -> Vec<u8> {
        [self.store_id.0, self.incarnation.0].concat()
    }
}

/// What stands at [`LENGTH_AT`].
pub fn length_bytes(length: u64) -> Vec<u8> {
    with_checksum(length.to_le_bytes().to_vec())
}

fn next_mark(bytes: &[u8], from: usize) -> usize {
    let found = bytes.get(from..).and_then(|rest| memchr::memmem::find(rest, &MARK));
    found.map_or(bytes.len(), |found| from + found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::record::{Counters, LineKey, Operation};
    use crate::principal::{AccountId, ClusterId, KeyId};
    use crate::time::{Hour, WallTime};

    const OWNER: Owner = Owner { store_id: StoreId([1; ID_BYTES]), incarnation: Incarnation([2; ID_BYTES]) };

    fn record(number: u64) -> Record {
        let key = LineKey {
            account_id: AccountId([3; ID_BYTES]),
            key_id: KeyId([4; ID_BYTES]),
            cluster_id: ClusterId([5; ID_BYTES]),
            operation: Operation::Query,
        };
        let lines = vec![(key, Counters { opened: number, ..Counters::default() })];
        let (incarnation, hour, watermark) = (OWNER.incarnation, Hour(7), WallTime(8));
        Record::Flush(Flush { incarnation, hour, sequence: number, lines, watermark, closing: None })
    }

    /// The bytes of a file with these records, and where each frame begins.
    fn file(owner: Owner, records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let frames: Vec<Vec<u8>> = records.iter().map(|record| owner.frame(record).unwrap()).collect();
        let length = HEADER + frames.iter().map(Vec::len).sum::<usize>();
        let (mut bytes, mut starts) = (owner.header(length as u64), Vec::new());
        for frame in frames {
            starts.push(bytes.len());
            bytes.extend(frame);
        }
        (bytes, starts)
    }

    fn records() -> Vec<Record> {
        vec![record(1), record(2), Record::Acknowledged(LedgerServer([6; ID_BYTES])), record(3)]
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (bytes, _) = file(OWNER, &records());
        assert_eq!(OWNER.read(&bytes), Ok(Content { records: records(), damage: None }));
    }

    #[test]
    fn a_file_cut_at_any_length_is_known_and_gives_all_records_before_the_cut() {
        let (bytes, starts) = file(OWNER, &records());
        for cut in 0..bytes.len() {
            let content = OWNER.read(&bytes[..cut]).unwrap();
            let whole = starts[1..].iter().filter(|end| **end <= cut).count();
            assert_eq!(content.records, records()[..whole], "cut at {cut}");
            assert!(content.damage.is_some(), "cut at {cut}");
        }
    }

    #[test]
    fn every_flipped_byte_is_known_and_costs_no_more_than_the_record_it_is_in() {
        let (bytes, starts) = file(OWNER, &records());
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                let content = OWNER.read(&bad).unwrap();
                assert!(content.damage.is_some(), "byte {at} ^ {flip}");
                let hit = starts.iter().rposition(|start| *start <= at);
                let left = records().into_iter().enumerate().filter(|(index, _)| Some(*index) != hit);
                assert_eq!(content.records, left.map(|(_, record)| record).collect::<Vec<_>>(), "byte {at} ^ {flip}");
            }
        }
    }

    #[test]
    fn files_of_others_are_not_read() {
        let foreign = StoreId([9; ID_BYTES]);
        let (bytes, _) = file(Owner { store_id: foreign, ..OWNER }, &records());
        assert_eq!(OWNER.read(&bytes), Err(Foreign(foreign)));
        let (bytes, _) = file(Owner { incarnation: Incarnation([9; ID_BYTES]), ..OWNER }, &records());
        assert_eq!(OWNER.read(&bytes), Ok(Content { records: vec![], damage: Some(Damage::Header) }));
    }
}
