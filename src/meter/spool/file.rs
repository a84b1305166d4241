//! One file of the spool on the disk: made whole, extended, read.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::frame::{Content, Foreign, HEADER, LENGTH_AT, Owner, Record, length_bytes};

/// The extension of a file that is not whole yet.
pub const UNFINISHED: &str = "new";

/// A file that this process writes. It is locked as long as this lives.
pub struct SpoolFile {
    file: File,
    path: PathBuf,
    owner: Owner,
    length: u64,
}

impl SpoolFile {
    /// Makes the file with these records, or puts it in the place of the one that is there: after a power cut it is the old one
    /// or the new one. On the disk when this returns; so is the folder, which is made where it is missing.
    pub fn write(path: &Path, owner: Owner, records: &[Record]) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let unfinished = path.with_extension(UNFINISHED);
        let made = Self::make(&unfinished, path, owner, records);
        if made.is_err() {
            // What is left of it only takes up the space that was missing.
            let _ = fs::remove_file(&unfinished);
        }
        let made = made?;
        File::open(folder)?.sync_all()?;
        Ok(made)
    }

    fn make(unfinished: &Path, path: &Path, owner: Owner, records: &[Record]) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(unfinished)?;
        file.try_lock()?;
        let frames = frames(owner, records)?;
        let length = HEADER as u64 + frames.len() as u64;
        file.write_all_at(&[owner.header(length), frames].concat(), 0)?;
        file.sync_all()?;
        fs::rename(unfinished, path)?;
        Ok(Self { file, path: path.to_owned(), owner, length })
    }

    /// Opens a file to add to it. `None`: it is not there, or somebody else has it locked.
    pub fn open(path: &Path, owner: Owner) -> io::Result<Option<Self>> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !lock(&file, path)? {
            return Ok(None);
        }
        let length = file.metadata()?.len();
        Ok(Some(Self { file, path: path.to_owned(), owner, length }))
    }

    /// Adds records behind those that are there. On the disk when this returns; after an error the file is as it was before, or
    /// torn behind that, and what is added next overwrites it.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let frames = frames(self.owner, records)?;
        let added = self.file.write_all_at(&frames, self.length).and_then(|()| self.file.sync_data());
        if added.is_err() {
            let _ = self.file.set_len(self.length);
        }
        added?;
        self.length += frames.len() as u64;
        // It may lag behind after a power cut: then what was added last is there all the same, and only a cut is not known.
        self.file.write_all_at(&length_bytes(self.length), LENGTH_AT as u64)
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn remove(self) -> io::Result<()> {
        remove(&self.path)
    }
}

/// A file of somebody who is dead, locked so that nobody else takes it up.
pub struct Left {
    pub path: PathBuf,
    pub content: Result<Content, Foreign>,
    _lock: File,
}

/// How it is with the file of an incarnation that is thought dead.
pub enum Found {
    Nothing,
    /// Its incarnation writes to it, or somebody else takes it up.
    InUse,
    Left(Left),
}

impl Left {
    pub fn take_up(path: &Path, owner: Owner) -> io::Result<Found> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            opened => opened?,
        };
        if !lock(&file, path)? {
            return Ok(Found::InUse);
        }
        Ok(Found::Left(Self { path: path.to_owned(), content: read(path, owner)?, _lock: file }))
    }
}

pub fn read(path: &Path, owner: Owner) -> io::Result<Result<Content, Foreign>> {
    Ok(owner.read(&fs::read(path)?))
}

pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// False where somebody else has it, or where it was replaced before it was locked.
fn lock(file: &File, path: &Path) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|locked| locked.ino() == there.ino())))
}

fn frames(owner: Owner, records: &[Record]) -> io::Result<Vec<u8>> {
    let framed: Option<Vec<Vec<u8>>> = records.iter().map(|record| owner.frame(record)).collect();
    Ok(framed.ok_or(io::ErrorKind::InvalidData)?.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{ID_BYTES, Incarnation, LedgerServer, StoreId};

    const OWNER: Owner = Owner { store_id: StoreId([1; ID_BYTES]), incarnation: Incarnation([2; ID_BYTES]) };

    fn by(number: u8) -> Record {
        Record::Acknowledged(LedgerServer([number; ID_BYTES]))
    }

    fn records(path: &Path) -> Vec<Record> {
        let content = read(path, OWNER).unwrap().unwrap();
        assert_eq!(content.damage, None);
        content.records
    }

    #[test]
    fn what_is_added_stands_behind_what_is_there_and_a_whole_one_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/x.spool");
        let mut file = SpoolFile::write(&path, OWNER, &[by(1)]).unwrap();
        file.append(&[by(2), by(3)]).unwrap();
        assert_eq!(records(&path), [by(1), by(2), by(3)]);
        let bytes = fs::read(&path).unwrap();
        let cut = OWNER.read(&bytes[..bytes.len() - OWNER.frame(&by(3)).unwrap().len()]).unwrap();
        assert!(cut.records.len() == 2 && cut.damage.is_some(), "cut between two records: {cut:?}");
        let replaced = SpoolFile::write(&path, OWNER, &[by(4)]).unwrap();
        assert_eq!(records(&path), [by(4)]);
        assert_eq!(replaced.length(), fs::metadata(&path).unwrap().len());
        replaced.remove().unwrap();
        assert!(matches!(Left::take_up(&path, OWNER).unwrap(), Found::Nothing));
    }

    #[test]
    fn nobody_takes_up_the_file_of_the_living() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.spool");
        let file = SpoolFile::write(&path, OWNER, &[by(1)]).unwrap();
        assert!(matches!(Left::take_up(&path, OWNER).unwrap(), Found::InUse));
        assert!(SpoolFile::open(&path, OWNER).unwrap().is_none());
        drop(file);
        assert!(matches!(Left::take_up(&path, OWNER).unwrap(), Found::Left(_)));
    }
}
