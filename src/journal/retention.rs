//! When a part of a journal may go.
//!
//! The rule: a segment is dropped when every change in it is settled in **both** of the last two backups that were read back and
//! found good, so that either of them, with what is kept, makes the store whole. The file `verified` in the folder of the journal
//! remembers those two; `tollgate backup` writes it, and the journal looks at it when it begins a new segment.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::JournalError;
use crate::principal::JournalId;
use crate::time::WallTime;

/// A backup that was read back and found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedBackup {
    pub journal_id: JournalId,
    /// Every change up to this number is settled in it.
    pub settled: u64,
    pub taken_at: WallTime,
}

/// Backups that must both be able to make the store whole.
const KEPT: usize = 2;

/// The last verified backups of this folder, oldest first.
pub fn verified(path: &Path) -> Result<Vec<VerifiedBackup>, JournalError> {
    let path = path.join("verified");
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| JournalError::damaged(&path, 0, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(JournalError::io(&path)(error)),
    }
}

/// Remembers a backup. For whoever has just read it back as a whole.
pub fn remember(path: &Path, backup: VerifiedBackup) -> Result<(), JournalError> {
    let mut known = verified(path)?;
    known.retain(|other| other.journal_id == backup.journal_id);
    known.push(backup);
    known.sort_by_key(|backup| backup.settled);
    let newest = known.split_off(known.len().saturating_sub(KEPT));
    let file = path.join("verified");
    let write = || {
        let mut new = tempfile::NamedTempFile::new_in(path)?;
        serde_json::to_writer(&mut new, &newest)?;
        new.as_file().sync_all()?;
        new.persist(&file).map(drop).map_err(|error| error.error)
    };
    write().map_err(JournalError::io(&file))
}

/// Changes up to this number may go.
pub fn may_forget(path: &Path, journal_id: JournalId) -> Result<u64, JournalError> {
    let mut known = verified(path)?;
    known.retain(|backup| backup.journal_id == journal_id);
    let oldest = known.iter().map(|backup| backup.settled).min();
    Ok(oldest.filter(|_| known.len() >= KEPT).unwrap_or_default())
}
