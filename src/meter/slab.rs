//! One mapped slab file of this process: made whole, locked, and never sparse. What is in it: [`super::layout`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};

use super::folder;
use super::header::Identity;
use super::layout::{View, words_of};
use super::words::WORD;

/// A mapped file. Its shard is the only one that writes to it; everybody may read.
pub struct Slab {
    map: MmapRaw,
    /// Kept open for its lock, which ends with the process.
    _locked: File,
    path: PathBuf,
    identity: Identity,
    seal: u32,
    folded: AtomicBool,
}

impl Slab {
    /// Makes the file and reserves all of its space. It gets its name only when it is whole, so recovery never sees half of one.
    pub fn create(folder: &Path, identity: Identity) -> io::Result<Self> {
        let path = folder.join(folder::slab_name(&identity));
        let unfinished = path.with_extension(folder::UNFINISHED);
        let made = Self::make(&unfinished, &path, identity);
        if made.is_err() {
            // What is left of a failed attempt only takes up the space that was missing.
            let _ = fs::remove_file(&unfinished);
        }
        made
    }

    fn make(unfinished: &Path, path: &Path, identity: Identity) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(unfinished)?;
        file.try_lock()?;
        let bytes = words_of(identity.capacity) * WORD;
        // A hole would be filled at the first store into it; if there were no space then, the store would end in SIGBUS.
        fallocate(&file, FallocateFlags::empty(), 0, bytes as u64)?;
        let map = MmapOptions::new().len(bytes).populate().map_raw(&file)?;
        let mut slab =
            Self { map, _locked: file, path: path.to_owned(), identity, seal: 0, folded: AtomicBool::new(false) };
        slab.seal = View::initialise(slab.words(), &identity);
        fs::rename(unfinished, path)?;
        Ok(slab)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    #[inline]
    pub fn view(&self) -> View<'_> {
        View::trusted(self.words(), self.identity.capacity, self.seal)
    }

    /// Removes the file; the ledger has everything that is in it. The mapping stays until its last user drops it.
    pub fn fold(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.folded.store(true, Ordering::Release),
        }
        Ok(())
    }

    pub fn is_folded(&self) -> bool {
        self.folded.load(Ordering::Acquire)
    }

    #[inline]
    #[allow(unsafe_code, reason = "mapped memory has no safe view; this is the only one of the program")]
    fn words(&self) -> &[AtomicU64] {
        let words = self.map.len() / WORD;
        // SAFETY: The pointer is the start of a mapping, hence aligned to a page and not null; the mapping is `words` × 8 bytes
        // long at least, shared and writable, and is unmapped only when `self.map` is dropped, which the lifetime of the
        // returned slice, borrowed from `self`, rules out. Every bit pattern is a valid `AtomicU64`. The memory is reached in
        // no other way than through this slice, that is, by atomic operations only; other processes read the file with read(2).
        // No page of it can be missing (SIGBUS): the file was allocated to its full length and nobody shortens it, since it
        // is in a folder that only this user may enter.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), words) }
    }
}
