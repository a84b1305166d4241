//! The archive of hours that are final: for each a file of what every incarnation counted, and a chain of manifest entries that
//! names the files with their hashes. Nothing in it is ever changed; what comes to light later makes another revision of its hour.
//!
//! `hours/<hour>/<revision>-<hash>.ndjson`, `manifest/<number>.json`. Whoever has the folder can check it, and add it up, without
//! this program: [`hour`] says what stands in a file, [`manifest`] in an entry.

pub mod hour;
pub mod manifest;
mod read;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::sync::Mutex;

use self::hour::Content;
use self::manifest::{Chain, Entry, GENESIS, NotAnEntry};
pub use self::read::ArchivedHour;
pub use self::verify::{Broken, Whole};
use crate::principal::StoreId;
use crate::time::{Hour, WallTime};

/// The archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive: {0}")]
    Store(#[from] object_store::Error),
    #[error("the archive: {path}: {source}")]
    Folder { path: std::path::PathBuf, source: std::io::Error },
    #[error(
        "the manifest of the archive is broken at entry {number}: {why}. Run `tollgate usage verify`; nothing is added to it"
    )]
    Manifest { number: u64, why: NotAnEntry },
    /// Somebody else has added an entry meanwhile: read the manifest again.
    #[error("the archive was added to by somebody else")]
    Overtaken,
    #[error("the archive: {file} is not what it was: {why}. Put a copy of it back")]
    Damaged { file: String, why: String },
    #[error(
        "the last entry of the archive is of the store {0}, and this is another; nothing is added to it or taken from it"
    )]
    Foreign(StoreId),
    #[error(
        "the archive does not have what left the ledger of {0}: it is another archive, or not whole. Put a copy of it back"
    )]
    Absent(Hour),
    #[error("{0} is in an archive, and this control plane has none (meter.archive)")]
    None(Hour),
}

pub struct Archive {
    files: Arc<dyn ObjectStore>,
    /// Whose usage is added to it.
    store_id: Option<StoreId>,
    /// For those who read hours back.
    known: Mutex<Head>,
}

/// The end of the manifest, and the revisions of each hour.
#[derive(Debug, Default)]
pub struct Head {
    chain: Chain,
    hours: BTreeMap<Hour, Vec<Revision>>,
    store_id: Option<StoreId>,
}

/// One revision of an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub number: u64,
    pub file: String,
    pub sha256: String,
}

impl Archive {
    /// In a folder, which is made where it is not there.
    pub fn in_folder(path: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Folder { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let files = Arc::new(LocalFileSystem::new_with_prefix(path)?.with_fsync(true));
        Ok(Self { files, store_id: None, known: Mutex::default() })
    }

    /// Entries from now on say that they are of this store, and an archive of another is left alone.
    #[must_use]
    pub fn of(self, store_id: StoreId) -> Self {
        Self { store_id: Some(store_id), ..self }
    }

    /// Reads the manifest to its end.
    pub async fn head(&self) -> Result<Head, ArchiveError> {
        let mut head = Head::default();
        self.follow(&mut head).await?;
        Ok(head)
    }

    /// Reads on to the end of the manifest.
    async fn follow(&self, head: &mut Head) -> Result<(), ArchiveError> {
        while let Some(bytes) = self.entry_bytes(head.chain.next_number()).await? {
            head.take(&bytes)?;
        }
        match (head.store_id, self.store_id) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(ArchiveError::Foreign(theirs)),
            _ => Ok(()),
        }
    }

    /// Adds another revision of an hour, unless its last one is the same. True where it did.
    pub async fn add(
        &self,
        head: &mut Head,
        hour: Hour,
        content: &Content,
        now: WallTime,
    ) -> Result<bool, ArchiveError> {
        let (last, hash) = head.last(hour).map_or((0, GENESIS), |last| (last.number, last.sha256.as_str()));
        if hash == content.sha256 {
            return Ok(false);
        }
        let entry = Entry { store_id: self.store_id, ..Entry::new(&head.chain, hour, last + 1, content, now) };
        // The name says what is in it, so nobody writes anything else there.
        self.files.put(&Name::from(entry.file.as_str()), PutPayload::from(content.bytes.clone())).await?;
        let bytes = entry.bytes();
        let once = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.files.put_opts(&entry_name(entry.number), PutPayload::from(bytes.clone()), once).await {
            Ok(_) => head.take(&bytes).map(|()| true),
            Err(object_store::Error::AlreadyExists { .. }) => Err(ArchiveError::Overtaken),
            Err(error) => Err(error.into()),
        }
    }

    /// Absent behind the last one.
    async fn entry_bytes(&self, number: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.bytes(&entry_name(number)).await
    }

    async fn bytes(&self, name: &Name) -> Result<Option<Vec<u8>>, ArchiveError> {
        match self.files.get(name).await {
            Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Head {
    /// How many entries the manifest has.
    pub fn entries(&self) -> u64 {
        self.chain.next_number() - 1
    }

    /// The last revision of an hour; absent where there is none.
    pub fn last(&self, hour: Hour) -> Option<&Revision> {
        self.revisions(hour).last()
    }

    /// Oldest first.
    pub fn revisions(&self, hour: Hour) -> &[Revision] {
        self.hours.get(&hour).map(Vec::as_slice).unwrap_or_default()
    }

    /// The hours of which there is a revision.
    pub fn hours(&self) -> impl Iterator<Item = Hour> {
        self.hours.keys().copied()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let number = self.chain.next_number();
        let entry = self.chain.take(bytes).map_err(|why| ArchiveError::Manifest { number, why })?;
        let Entry { window_start, revision, file, sha256, store_id, .. } = entry;
        self.hours.entry(window_start).or_default().push(Revision { number: revision, file, sha256 });
        self.store_id = store_id.or(self.store_id);
        Ok(())
    }
}

fn entry_name(number: u64) -> Name {
    Name::from(format!("manifest/{number:010}.json"))
}

#[cfg(test)]
mod tests;
