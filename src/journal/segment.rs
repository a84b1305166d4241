//! One segment file: its header, and reading it from the front with every byte accounted for.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::entry::Entry;
use super::error::JournalError;
use super::folder::{Folder, Names};
use super::frame::{Framing, Place};
use crate::checksummed::{checked, with_checksum};
use crate::principal::{ID_BYTES, JournalId, StoreId};

const MAGIC: &[u8; 8] = b"TGJSEG1\n";
/// Bytes of the header: magic, store, journal, three numbers, checksum.
pub const HEADER: u64 = 8 + 2 * ID_BYTES as u64 + 3 * 8 + 4;

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub names: Names,
    pub number: u64,
    /// The number of the first intent that comes in it or later.
    pub first: u64,
    /// How long the segment before this one is, in bytes; 0 where there is none.
    pub previous: u64,
}

impl Header {
    fn bytes(self) -> Vec<u8> {
        let numbers = [self.number, self.first, self.previous].map(u64::to_le_bytes);
        let names = [&self.names.store_id.0[..], &self.names.journal_id.0].concat();
        with_checksum([MAGIC.as_slice(), &names, numbers.as_flattened()].concat())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let content = checked(bytes.get(..usize::try_from(HEADER).ok()?)?)?.strip_prefix(MAGIC)?;
        let (store_id, content) = content.split_first_chunk::<ID_BYTES>()?;
        let (journal_id, content) = content.split_first_chunk::<ID_BYTES>()?;
        let names = Names { store_id: StoreId(*store_id), journal_id: JournalId(*journal_id) };
        let mut numbers = content.chunks_exact(8).map(|number| number.try_into().map(u64::from_le_bytes));
        let mut next = || numbers.next()?.ok();
        Some(Self { names, number: next()?, first: next()?, previous: next()? })
    }
}

/// Makes a segment with its header, on the disk when this returns.
pub fn make(folder: &Folder, header: Header) -> Result<File, JournalError> {
    let path = folder.segment(header.number);
    let made = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path);
    let file = made.map_err(JournalError::io(&path))?;
    file.write_all_at(&header.bytes(), 0).and_then(|()| file.sync_all()).map_err(JournalError::io(&path))?;
    folder.sync()?;
    Ok(file)
}

/// The header of a segment that is kept.
pub fn header(path: &Path) -> Result<Header, JournalError> {
    let bytes = fs::read(path).map_err(JournalError::io(path))?;
    Header::read(&bytes).ok_or_else(|| JournalError::damaged(path, 0, "the header of a segment does not fit"))
}

/// How much of a segment must be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certain {
    /// Up to this many bytes; what follows may be a torn tail.
    UpTo(u64),
    /// Exactly as long as this: the segment was closed.
    Closed(u64),
}

/// Reads a segment and shows each entry with its place. Gives the length in bytes up to which it is good.
pub fn read(
    path: &Path,
    expected: Header,
    framing: &Framing,
    certain: Certain,
    see: &mut dyn FnMut(Place, Entry) -> Result<(), String>,
) -> Result<u64, JournalError> {
    let bytes = fs::read(path).map_err(JournalError::io(path))?;
    let damaged = |at: usize, why: String| JournalError::damaged(path, at as u64, why);
    let there = bytes.len() as u64;
    let must = match certain {
        Certain::Closed(length) if there > length => {
            return Err(damaged(usize::try_from(length).unwrap_or_default(), "there are bytes behind its end".into()));
        }
        Certain::Closed(length) | Certain::UpTo(length) => length,
    };
    if Header::read(&bytes) != Some(expected) {
        return Err(damaged(0, "the header of a segment does not fit".into()));
    }
    let mut offset = usize::try_from(HEADER).unwrap_or_default();
    while offset < bytes.len() {
        let place = Place { segment: expected.number, offset: offset as u64 };
        let read = framing.read(place, bytes.get(offset..).unwrap_or_default());
        let read = read.map_err(|why| why.to_string());
        let seen = read.and_then(|(entry, taken)| see(place, entry).map(|()| taken));
        match seen {
            Ok(taken) => offset += taken,
            // Nothing behind the certain end was ever answered, so what is torn there may go.
            Err(_) if offset as u64 >= must => break,
            Err(why) => return Err(damaged(offset, why)),
        }
    }
    if (offset as u64) < must {
        return Err(damaged(bytes.len(), format!("the file ends here, and {must} bytes were written")));
    }
    Ok(offset as u64)
}
