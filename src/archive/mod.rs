//! The archive of hours that are final: for each a file of what every incarnation counted, and a chain of manifest entries that
//! names the files with their hashes. Nothing in it is ever changed; what comes to light later makes another revision of its hour.
//!
//! `hours/<hour>/<revision>-<hash>.ndjson`, `manifest/<number>.json`. Whoever has the folder can check it, and add it up, without
//! this program: [`hour`] says what stands in a file, [`manifest`] in an entry.

pub mod hour;
pub mod manifest;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use self::hour::Content;
use self::manifest::{Chain, Entry, GENESIS, NotAnEntry};
pub use self::verify::{Broken, Whole};
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
}

pub struct Archive {
    files: Arc<dyn ObjectStore>,
}

/// The end of the manifest, and the last revision of each hour.
#[derive(Debug)]
pub struct Head {
    chain: Chain,
    hours: BTreeMap<Hour, (u64, String)>,
}

impl Archive {
    /// In a folder, which is made where it is not there.
    pub fn in_folder(path: &Path) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Folder { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        Ok(Self { files: Arc::new(LocalFileSystem::new_with_prefix(path)?.with_fsync(true)) })
    }

    /// Reads the manifest to its end.
    pub async fn head(&self) -> Result<Head, ArchiveError> {
        let mut head = Head { chain: Chain::default(), hours: BTreeMap::new() };
        while let Some(bytes) = self.entry_bytes(head.chain.next_number()).await? {
            head.take(&bytes)?;
        }
        Ok(head)
    }

    /// Adds another revision of an hour, unless its last one is the same. True where it did.
    pub async fn add(
        &self,
        head: &mut Head,
        hour: Hour,
        content: &Content,
        now: WallTime,
    ) -> Result<bool, ArchiveError> {
        let (last, hash) = head.hours.get(&hour).map_or((0, GENESIS), |(revision, hash)| (*revision, hash.as_str()));
        if hash == content.sha256 {
            return Ok(false);
        }
        let entry = Entry::new(&head.chain, hour, last + 1, content, now);
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

    fn take(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let number = self.chain.next_number();
        let entry = self.chain.take(bytes).map_err(|why| ArchiveError::Manifest { number, why })?;
        self.hours.insert(entry.window_start, (entry.revision, entry.sha256));
        Ok(())
    }
}

fn entry_name(number: u64) -> Name {
    Name::from(format!("manifest/{number:010}.json"))
}

#[cfg(test)]
mod tests;
