//! A backup: one file with every row of a store at one instant, its store id, and a checksum over all of it.
//!
//! `TGBACKUP1\n`, then records: `H` with the header as JSON, for each table `T` with its name and `R` with key and value of each
//! row, at last `E` with the number of rows and the SHA-256 of everything before. Lengths are u32, little-endian. Keys and TOTP
//! secrets in it are sealed, passwords hashed, as they are in the store.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::rules::rows::{Rows, Span};
use crate::principal::{Epoch, JournalId, Revision, StoreId};
use crate::time::WallTime;

const MAGIC: &[u8; 10] = b"TGBACKUP1\n";
/// No row is near it; a longer one means that the file is damaged.
const LONGEST: usize = 64 << 20;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    pub store_id: StoreId,
    /// Of the store it was taken from. A restore opens another one.
    pub epoch: Epoch,
    pub schema: u64,
    pub revision: Revision,
    pub taken_at: WallTime,
    /// Absent where the store had no journal.
    pub journal: Option<SettledJournal>,
}

/// How much of a journal a backup certainly holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledJournal {
    pub journal_id: JournalId,
    /// Every change up to this number.
    pub settled: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("this is not a backup of Tollgate")]
    NotABackup,
    #[error("the backup is damaged at byte {at}: {why}")]
    Damaged { at: u64, why: &'static str },
    #[error("the backup has schema version {0}, which this program does not know")]
    OtherSchema(u64),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Writes a backup, record by record.
pub struct BackupWriter<W> {
    to: Hashing<W>,
    rows: u64,
}

/// What a backup holds, in its order.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// The rows that follow belong to another table: [`BackupReader::table`].
    Table,
    Row {
        key: Vec<u8>,
        value: Vec<u8>,
    },
}

/// Reads a backup. What it gives may be used only once [`BackupReader::read_record`] has come to the good end.
pub struct BackupReader<R> {
    from: Hashing<R>,
    at: u64,
    rows: u64,
    pub header: BackupHeader,
    /// The table that the present rows belong to.
    pub table: String,
}

impl<W: Write> BackupWriter<W> {
    pub fn begin(to: W, header: &BackupHeader) -> Result<Self, BackupError> {
        let mut writer = Self { to: Hashing { inner: to, hash: Sha256::new() }, rows: 0 };
        writer.to.write_all(MAGIC)?;
        writer.part(b"H", &serde_json::to_vec(header).map_err(io::Error::from)?)?;
        Ok(writer)
    }

    pub fn table(&mut self, name: &str) -> Result<(), BackupError> {
        self.part(b"T", name.as_bytes())
    }

    /// Every row of a table.
    pub fn copy(&mut self, rows: &dyn Rows, table: &str) -> Result<(), BackupError> {
        self.table(table)?;
        let mut failed = None;
        rows.scan(table, Span::all(), &mut |key, value| {
            failed = self.row(key, value).err();
            Ok(if failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        failed.map_or(Ok(()), Err)
    }

    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackupError> {
        self.rows += 1;
        self.part(b"R", key)?;
        self.part(b"", value)
    }

    /// Without this end the backup is not one.
    pub fn finish(mut self) -> Result<(), BackupError> {
        self.part(b"E", &self.rows.to_le_bytes())?;
        let Hashing { mut inner, hash } = self.to;
        inner.write_all(&hash.finalize())?;
        Ok(inner.flush()?)
    }

    fn part(&mut self, tag: &[u8], content: &[u8]) -> Result<(), BackupError> {
        let length = u32::try_from(content.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.to.write_all(tag)?;
        self.to.write_all(&length.to_le_bytes())?;
        Ok(self.to.write_all(content)?)
    }
}

impl<R: Read> BackupReader<R> {
    pub fn begin(from: R) -> Result<Self, BackupError> {
        let mut from = Hashing { inner: from, hash: Sha256::new() };
        let mut magic = [0; MAGIC.len() + 1];
        from.read_exact(&mut magic).map_err(|_| BackupError::NotABackup)?;
        if magic.strip_suffix(b"H") != Some(MAGIC) {
            return Err(BackupError::NotABackup);
        }
        let mut at = magic.len() as u64;
        let header = part(&mut from, &mut at)?;
        let header = serde_json::from_slice(&header).map_err(|_| BackupError::Damaged { at, why: "the header" })?;
        Ok(Self { from, at, rows: 0, header, table: String::new() })
    }

    /// The next record; `None` at the end, where count and checksum were good.
    pub fn read_record(&mut self) -> Result<Option<Record>, BackupError> {
        let mut tag = [0];
        read(&mut self.from, &mut tag, self.at)?;
        self.at += 1;
        match &tag {
            b"T" => {
                let name = String::from_utf8(part(&mut self.from, &mut self.at)?);
                self.table = name.map_err(|_| self.damaged("the name of a table"))?;
                Ok(Some(Record::Table))
            }
            b"R" => {
                self.rows += 1;
                let (key, value) = (part(&mut self.from, &mut self.at)?, part(&mut self.from, &mut self.at)?);
                Ok(Some(Record::Row { key, value }))
            }
            b"E" => self.end().map(|()| None),
            _ => Err(self.damaged("an unknown record")),
        }
    }

    /// Reads to the end and gives nothing but whether it is good.
    pub fn verify(mut self) -> Result<BackupHeader, BackupError> {
        while self.read_record()?.is_some() {}
        Ok(self.header)
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let rows = part(&mut self.from, &mut self.at)?;
        let sum = self.from.hash.clone().finalize();
        let mut stated = [0; 32];
        read(&mut self.from.inner, &mut stated, self.at)?;
        if rows != self.rows.to_le_bytes() || sum.as_slice() != stated {
            return Err(self.damaged("the checksum does not fit"));
        }
        match self.from.inner.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(self.damaged("there are bytes behind its end")),
        }
    }

    fn damaged(&self, why: &'static str) -> BackupError {
        BackupError::Damaged { at: self.at, why }
    }
}

fn part(from: &mut impl Read, at: &mut u64) -> Result<Vec<u8>, BackupError> {
    let mut length = [0; 4];
    read(from, &mut length, *at)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(BackupError::Damaged { at: *at, why: "an impossible length" });
    }
    let mut content = vec![0; length];
    read(from, &mut content, *at)?;
    *at += 4 + length as u64;
    Ok(content)
}

fn read(from: &mut impl Read, into: &mut [u8], at: u64) -> Result<(), BackupError> {
    from.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Damaged { at, why: "the file ends here" },
        _ => error.into(),
    })
}

/// Follows what passes through with SHA-256.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.hash.update(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::ID_BYTES;

    fn small() -> Vec<u8> {
        let header = BackupHeader {
            store_id: StoreId([1; ID_BYTES]),
            epoch: Epoch([2; ID_BYTES]),
            schema: 1,
            revision: Revision(3),
            taken_at: WallTime(4),
            journal: None,
        };
        let mut bytes = Vec::new();
        let mut writer = BackupWriter::begin(&mut bytes, &header).unwrap();
        writer.table("one").unwrap();
        writer.row(b"key", b"value").unwrap();
        writer.row(b"", b"").unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn verified(bytes: &[u8]) -> Result<BackupHeader, BackupError> {
        BackupReader::begin(bytes)?.verify()
    }

    #[test]
    fn a_backup_is_read_back() {
        let bytes = small();
        let mut reader = BackupReader::begin(bytes.as_slice()).unwrap();
        assert_eq!(reader.read_record().unwrap(), Some(Record::Table));
        assert_eq!(reader.table, "one");
        assert_eq!(reader.read_record().unwrap(), Some(Record::Row { key: b"key".to_vec(), value: b"value".to_vec() }));
        assert_eq!(reader.read_record().unwrap(), Some(Record::Row { key: vec![], value: vec![] }));
        assert_eq!(reader.read_record().unwrap(), None);
    }

    #[test]
    fn every_flipped_byte_every_cut_and_anything_behind_is_seen() {
        let bytes = small();
        for at in 0..bytes.len() {
            assert!(verified(&bytes[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(verified(&flipped).is_err(), "byte {at} bit {bit}");
            }
        }
        assert!(verified(&[bytes.as_slice(), b"x"].concat()).is_err());
        assert!(verified(&bytes).is_ok());
    }
}
