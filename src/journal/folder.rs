//! The folder of a journal: who may use it, and its small files.
//!
//! - `lock` is locked by the one process that uses the journal.
//! - `key` names the store and the journal and holds the journal's own key, sealed with the sealing key: rotating that rewrites
//!   this file only.
//! - `head` says how far the segments are on the disk for certain. It is rewritten after each fsync and may lag behind after a
//!   power cut; below it every byte must be whole, above it a torn tail is cut.
//! - `00000001.segment` and so on hold the entries.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use zeroize::Zeroize;

use super::error::JournalError;
use super::frame::Framing;
use crate::checksummed::{checked, with_checksum};
use crate::config::secret::Secret32;
use crate::control::seal::{Opened, Owner, Sealer};
use crate::principal::{ID_BYTES, JournalId, StoreId};
use crate::store::records::Sealed;

const KEY_MAGIC: &[u8; 8] = b"TGJKEY1\n";
const HEAD_MAGIC: &[u8; 8] = b"TGJHEAD1";
const HEAD_BYTES: usize = 8 + 4 * 8 + 4;

/// The folder of a journal, locked for this process until dropped.
pub struct Folder {
    pub path: PathBuf,
    _lock: Option<File>,
}

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    pub store_id: StoreId,
    pub journal_id: JournalId,
}

/// How far the journal is on the disk for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The first segment that is kept.
    pub first: u64,
    pub segment: u64,
    /// Bytes of that segment.
    pub length: u64,
    /// The number of the last intent.
    pub last: u64,
}

/// Whose journal is in the folder, without touching it; absent where none was begun.
pub fn names_in(path: &Path) -> Result<Option<Names>, JournalError> {
    Ok(read_key_file(&path.join("key"))?.map(|(names, _)| names))
}

impl Folder {
    /// Makes the folder (mode 0700) where it is missing, and locks it.
    pub fn lock(path: &Path) -> Result<Self, JournalError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(JournalError::io(path))?;
        let name = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name);
        let lock = lock.map_err(JournalError::io(&name))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(JournalError::Io { path: name, source }),
        }
    }

    /// Without the lock, for reading what this process writes.
    pub fn beside(path: &Path) -> Self {
        Self { path: path.to_owned(), _lock: None }
    }

    pub fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:08}.segment"))
    }

    /// The numbers of the segments that are there, in order.
    pub fn segments(&self) -> Result<Vec<u64>, JournalError> {
        let mut numbers = Vec::new();
        for file in fs::read_dir(&self.path).map_err(JournalError::io(&self.path))? {
            let path = file.map_err(JournalError::io(&self.path))?.path();
            let is_segment = path.extension().is_some_and(|extension| extension == "segment");
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
            numbers.extend(number.filter(|_| is_segment));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes the names of new files last.
    pub fn sync(&self) -> Result<(), JournalError> {
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(JournalError::io(&self.path))
    }

    /// Writes a file as a whole: after a crash it is the old one or the new one.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), JournalError> {
        let path = self.path.join(name);
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(JournalError::io(&path))?;
        self.sync()
    }

    /// A new journal's key.
    pub fn begin(&self, names: Names, sealer: &Sealer) -> Result<Framing, JournalError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|_| JournalError::CannotSeal)?;
        let key = Secret32::init_with_mut(|key: &mut [u8; 32]| key.copy_from_slice(&random));
        random.zeroize();
        self.write_key(names, &key, sealer)?;
        Ok(Framing::new(&key, names.store_id, names.journal_id))
    }

    /// The key of the journal that is here. One that was sealed with the previous sealing key is sealed anew.
    pub fn key(&self, sealer: &Sealer) -> Result<(Names, Framing), JournalError> {
        let (names, sealed) =
            read_key_file(&self.path.join("key"))?.ok_or_else(|| JournalError::Missing(self.path.clone()))?;
        let opened = sealer.open_any(owner(names), &sealed);
        let Opened { plain, current } = opened.map_err(|_| JournalError::OtherSealingKey(self.path.clone()))?;
        let bytes: [u8; 32] = plain
            .as_slice()
            .try_into()
            .map_err(|_| JournalError::damaged(&self.path.join("key"), 0, "a key has the wrong length"))?;
        let key = Secret32::init_with_mut(|key: &mut [u8; 32]| key.copy_from_slice(&bytes));
        if !current {
            self.write_key(names, &key, sealer)?;
        }
        Ok((names, Framing::new(&key, names.store_id, names.journal_id)))
    }

    fn write_key(&self, names: Names, key: &Secret32, sealer: &Sealer) -> Result<(), JournalError> {
        let sealed = sealer.seal(owner(names), key.expose_secret()).map_err(|_| JournalError::CannotSeal)?;
        let content = [KEY_MAGIC.as_slice(), &names.store_id.0, &names.journal_id.0, &sealed.0].concat();
        self.replace("key", &with_checksum(content))
    }

    pub fn head(&self) -> Result<Head, JournalError> {
        let path = self.path.join("head");
        let bytes = fs::read(&path).map_err(JournalError::io(&path))?;
        let read = || {
            let content = checked(&bytes)?.strip_prefix(HEAD_MAGIC)?;
            let mut numbers = content.chunks_exact(8).map(|number| number.try_into().map(u64::from_le_bytes));
            let mut next = || numbers.next()?.ok();
            Some(Head { first: next()?, segment: next()?, length: next()?, last: next()? })
        };
        read().ok_or_else(|| JournalError::damaged(&path, 0, "its checksum does not fit"))
    }

    pub fn make_head(&self, head: Head) -> Result<(), JournalError> {
        self.replace("head", &head.bytes())
    }

    /// The head, open for [`Head::write`].
    pub fn open_head(&self) -> Result<File, JournalError> {
        let path = self.path.join("head");
        OpenOptions::new().write(true).open(&path).map_err(JournalError::io(&path))
    }
}

impl Head {
    fn bytes(self) -> Vec<u8> {
        let numbers = [self.first, self.segment, self.length, self.last];
        with_checksum([HEAD_MAGIC.as_slice(), numbers.map(u64::to_le_bytes).as_flattened()].concat())
    }

    /// In place: it is smaller than a sector, which a disk writes as a whole.
    pub fn write(self, file: &File) -> io::Result<()> {
        let bytes = self.bytes();
        debug_assert_eq!(bytes.len(), HEAD_BYTES);
        file.write_all_at(&bytes, 0)
    }
}

fn owner(names: Names) -> Owner {
    Owner::Journal { store_id: names.store_id, journal_id: names.journal_id }
}

fn read_key_file(path: &Path) -> Result<Option<(Names, Sealed)>, JournalError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io(path)(error)),
    };
    let read = || {
        let content = checked(&bytes)?.strip_prefix(KEY_MAGIC)?;
        let (store_id, content) = content.split_first_chunk::<ID_BYTES>()?;
        let (journal_id, sealed) = content.split_first_chunk::<ID_BYTES>()?;
        let names = Names { store_id: StoreId(*store_id), journal_id: JournalId(*journal_id) };
        Some((names, Sealed(sealed.to_vec())))
    };
    read().map(Some).ok_or_else(|| JournalError::damaged(path, 0, "its checksum does not fit"))
}
