//! `tollgate store restore`: a store from a backup, and everything that the journal knows and the backup lacks.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::keeping::{journal_folder, redis_settings};
use super::upkeep::{
    UpkeepError, block_on, by_hand, file_of, note, parent_of, read_back, sealer, sync_folder, whole_journal,
};
use crate::clock;
use crate::config::{Config, RedisConfig, StoreKind};
use crate::journal::Journal;
use crate::journal::folder::{self, Names};
use crate::journal::history::{self, Whole};
use crate::principal::JournalId;
use crate::store::StoreError;
use crate::store::accounts::AccountError;
use crate::store::backup::{BackupHeader, BackupReader};
use crate::store::embedded::{Embedded, Settings};
use crate::store::intent::{AuditHead, Intent, Noted, Rules, Submit};
use crate::store::redis::{ByHand, journal_row};

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    pub header: BackupHeader,
    /// Changes of the journal that the backup lacked. Absent where control planes make them when they see the store.
    pub made_again: Option<usize>,
    /// Where the file that was there before is now.
    pub kept: Option<PathBuf>,
}

/// The store keeps its id and opens another epoch; the file that was there stays beside it. A crash on the way leaves that file,
/// or the new one, in its place.
pub fn restore(config: &Config, from: &Path, without_journal: bool) -> Result<Restored, UpkeepError> {
    if let StoreKind::Redis(at) = &config.store.kind {
        return restore_to_redis(config, at, from, without_journal);
    }
    let path = file_of(config)?;
    let settings = Settings::new(config.store.lease);
    if path.exists() {
        // One that is in use cannot be opened; a damaged one may well be what is to be replaced.
        match Embedded::open(path, settings) {
            Ok(_) | Err(StoreError::Corrupt(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Once through before anything is made of it.
    let header = read_back(from).map_err(UpkeepError::backup(from))?;
    let journal = whole_journal(config)?;
    check_belongs(&header, journal.as_ref(), &journal_folder(config), without_journal)?;
    let new = path.with_extension("restoring");
    if new.exists() {
        fs::remove_file(&new).map_err(UpkeepError::file(&new))?;
    }
    let commits = journal.as_ref().map_or(0, Whole::last_commit);
    let file = File::open(from).map_err(UpkeepError::file(from))?;
    let made = BackupReader::begin(BufReader::new(file)).and_then(|reader| Embedded::make_from(reader, &new, commits));
    made.map_err(UpkeepError::backup(from))?;
    let names = journal.as_ref().map(|whole| whole.names);
    let store = Embedded::open(&new, settings)?;
    let made = block_on(make_again(&store, journal, &header))??;
    drop(store);
    let kept = swap(path, &new)?;
    let made_again = Some(made.count);
    if let Some(Names { store_id, .. }) = names {
        let (journal, _) = Journal::open(&journal_folder(config), &sealer(config)?, store_id)?;
        block_on(settle(&journal, made))??;
    }
    Ok(Restored { header, made_again, kept })
}

/// The store stays closed until every control plane has made again what its journal knows; those that run do so at once.
fn restore_to_redis(
    config: &Config,
    at: &RedisConfig,
    from: &Path,
    without_journal: bool,
) -> Result<Restored, UpkeepError> {
    let failed = UpkeepError::backup(from);
    let header = read_back(from).map_err(&failed)?;
    let (folder, id) = (journal_folder(config), config.control.as_ref().map(|control| control.id.as_str()));
    // Beside a node that may run: nothing is written here.
    let journal = match folder::names_in(&folder)? {
        Some(_) => Some(history::read_beside(&folder, &sealer(config)?)?),
        None => None,
    };
    check_belongs(&header, journal.as_ref(), &folder, without_journal)?;
    let given_up = id.filter(|_| journal.is_none()).map(journal_row);
    let file = File::open(from).map_err(UpkeepError::file(from))?;
    let note = note("store.restore", format!("backup of {}", header.taken_at));
    let by_hand = ByHand::reach(&redis_settings(config, at, &folder)?)?;
    let restored = BackupReader::begin(BufReader::new(file))
        .and_then(|reader| by_hand.restore(reader, given_up.as_deref(), &note));
    restored.map_err(&failed)?;
    Ok(Restored { header, made_again: None, kept: None })
}

fn check_belongs(
    header: &BackupHeader,
    journal: Option<&Whole>,
    folder: &Path,
    without_journal: bool,
) -> Result<(), UpkeepError> {
    let Some(whole) = journal else {
        return if without_journal { Ok(()) } else { Err(UpkeepError::NoJournal(folder.to_owned())) };
    };
    if whole.names.store_id != header.store_id {
        let (backup, journal) = (header.store_id.to_string(), whole.names.store_id.to_string());
        return Err(UpkeepError::OtherStore { backup, journal });
    }
    // A backup from before this journal lacks all of it.
    let same = header.journal.filter(|covered| covered.journal_id == whole.names.journal_id);
    let (settled, first) = (same.map_or(0, |covered| covered.settled), whole.first_intent);
    if first > settled + 1 { Err(UpkeepError::TooOld { settled, first }) } else { Ok(()) }
}

/// What became of the changes that were made again.
#[derive(Default)]
struct MadeAgain {
    count: usize,
    /// Changes that were open in the journal: done now, or refused.
    settled: Vec<(u64, Option<Noted>)>,
    head: Option<AuditHead>,
}

async fn make_again(store: &Embedded, journal: Option<Whole>, header: &BackupHeader) -> Result<MadeAgain, UpkeepError> {
    let mut made = MadeAgain::default();
    let attached = journal.as_ref().map(|whole| whole.names.journal_id);
    if let Some(whole) = journal {
        let (id, mut commit) = (whole.names.journal_id, whole.last_commit());
        for (noted, intent) in whole.done {
            let answer = submit(store, id, intent, Rules::Waived { commit: noted.commit }).await?;
            made.count += usize::from(answer.is_some_and(|(_, new)| new));
        }
        for intent in whole.open {
            commit += 1;
            let no = intent.no;
            // Nobody may have been answered: only what takes something away is made whatever the rules say now.
            let rules = if intent.action.is_deletion() { Rules::Waived { commit } } else { Rules::Enforced };
            let answer = submit(store, id, intent, rules).await?;
            made.count += usize::from(answer.is_some_and(|(_, new)| new));
            made.settled.push((no, answer.map(|(noted, _)| noted)));
        }
    }
    store.link_journal(attached).await?;
    let detail = format!("backup of {}, {} changes made again", header.taken_at, made.count);
    store.record(by_hand("store.restore", detail)).await?;
    made.head = store.audit_head().await?;
    Ok(made)
}

/// The note of a change, and whether it was made now. Absent where nobody was answered, and the rules refuse it now.
async fn submit(
    store: &Embedded,
    journal_id: JournalId,
    intent: Intent,
    rules: Rules,
) -> Result<Option<(Noted, bool)>, UpkeepError> {
    let (no, change) = (intent.no, intent.action.name());
    match store.submit(journal_id, intent, rules).await {
        Ok(submitted) => Ok(Some((submitted.noted, submitted.outcome.is_some()))),
        Err(AccountError::Refused(_)) if rules == Rules::Enforced => Ok(None),
        Err(error) => Err(UpkeepError::NotMade { no, change, why: error.to_string() }),
    }
}

async fn settle(journal: &Journal, made: MadeAgain) -> Result<(), UpkeepError> {
    for (no, noted) in made.settled {
        match noted {
            Some(noted) => journal.done(no, noted).await,
            None => journal.refused(no).await?,
        }
    }
    match made.head {
        Some(head) => Ok(journal.audited(head).await?),
        None => Ok(()),
    }
}

/// Puts the new file in place of the old one, which stays beside it.
fn swap(path: &Path, new: &Path) -> Result<Option<PathBuf>, UpkeepError> {
    let failed = UpkeepError::file(path);
    let kept = path.exists().then(|| path.with_extension(format!("before-{}", clock::wall().unix_seconds())));
    if let Some(kept) = &kept {
        fs::rename(path, kept).map_err(&failed)?;
    }
    fs::rename(new, path).map_err(&failed)?;
    sync_folder(parent_of(path)).map_err(&failed)?;
    Ok(kept)
}
