//! Why a journal cannot be used, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::principal::{JournalId, StoreId};

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the journal in {} is in use by another process; stop it first", .0.display())]
    InUse(PathBuf),
    #[error("there is no journal in {}", .0.display())]
    Missing(PathBuf),
    #[error(
        "the journal is damaged: {}, byte {at}: {why}. Nothing was changed. Put the folder back from a copy, or, if the store \
         is whole, give the journal up with: tollgate store recover --without JOURNAL", .path.display()
    )]
    Damaged { path: PathBuf, at: u64, why: String },
    #[error(
        "the journal in {} belongs to the store {journal}, and the store here is {store}: it is frozen. Put the right store file \
         back, or make it from a backup and the journal with: tollgate store restore --from BACKUP", .path.display()
    )]
    OtherStore { path: PathBuf, journal: StoreId, store: StoreId },
    #[error(
        "there is no store at {}, and the journal of the store {store} is not empty: starting with an empty store would forget what \
         was deleted. Put the file back, or make it from a backup and the journal with: tollgate store restore --from BACKUP",
        .path.display()
    )]
    StoreGone { path: PathBuf, store: StoreId },
    #[error(
        "the store took its changes from the journal {store}, and {here}: it is frozen. Put the journal folder {} back; if it is \
         lost, say so with: tollgate store recover --without {store}", .path.display()
    )]
    OtherJournal { path: PathBuf, store: JournalId, here: String },
    #[error(
        "the store has made {made} changes of the journal {journal}, which holds {held} only: entries were cut off. Put the \
         journal folder back; if they are lost, say so with: tollgate store recover --without {journal}"
    )]
    CutOff { journal: JournalId, made: u64, held: u64 },
    #[error(
        "the journal in {} was sealed with another sealing key; name that file as secrets.previous_sealing_key_file", .0.display()
    )]
    OtherSealingKey(PathBuf),
    #[error("an entry of the journal could not be sealed: the operating system gave no random bytes")]
    CannotSeal,
    #[error("the journal cannot be written since {0}; restart once that is repaired")]
    Broken(String),
}

impl JournalError {
    /// For `map_err`: what happened to which file.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(super) fn damaged(path: &Path, at: u64, why: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), at, why: why.to_string() }
    }
}
