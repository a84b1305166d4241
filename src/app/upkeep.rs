//! What is done to a store that no node uses: how it stands, a copy, its audit log, giving a lost journal up.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::AppError;
use super::keeping::{Sealing, journal_folder, redis_settings};
use crate::clock;
use crate::config::{Config, StoreKind};
use crate::control::seal::Sealer;
use crate::journal::history::{self, Whole};
use crate::journal::retention::{self, VerifiedBackup};
use crate::journal::{JournalError, folder};
use crate::principal::JournalId;
use crate::store::StoreError;
use crate::store::audit::{Actor, ActorKind, AuditEvent, AuditVerdict};
use crate::store::backup::{BackupError, BackupHeader, BackupReader, SettledJournal};
use crate::store::embedded::{Embedded, Settings};
use crate::store::intent::{AuditHead, Submit};
use crate::store::redis::{ByHand, Note, RedisStore};
use crate::store::upkeep::{JournalStatus, StoreStatus};

/// Why a store could not be looked after. Said to a person.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    #[error("{0}")]
    App(#[from] AppError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("{}: {source}", .path.display())]
    Backup { path: PathBuf, source: BackupError },
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the store is on redis: ask a control plane that runs, with --control URL")]
    NotAFile,
    #[error("there is no store at {}", .0.display())]
    NoStore(PathBuf),
    #[error(
        "the backup is of the store {backup}, and the journal here is of the store {journal}: they do not belong together"
    )]
    OtherStore { backup: String, journal: String },
    #[error(
        "the backup holds changes up to {settled}, and the journal begins at {first}: what lies between is lost, and deleted keys \
         could come back. Take a newer backup"
    )]
    TooOld { settled: u64, first: u64 },
    #[error(
        "there is no journal in {}, so what changed after the backup cannot be made again, and keys deleted since would work \
         again. Put the journal back, or accept that with --without-journal", .0.display()
    )]
    NoJournal(PathBuf),
    #[error("change {no} ({change}) of the journal could not be made again: {why}")]
    NotMade { no: u64, change: &'static str, why: String },
    #[error("the journal attached to this store is {attached}; name that one")]
    OtherJournal { attached: String },
    #[error("{0} is neither the id of a journal nor one of the control planes in control.peers")]
    NobodyKnown(String),
    #[error("store.replicas is 0: no change waits for a replica")]
    NoReplicas,
    #[error("the store is one file: it has no other control planes to go on without")]
    NotShared,
}

impl UpkeepError {
    /// For `map_err`: what happened to which file.
    pub(super) fn file(path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path: path.clone(), source }
    }

    pub(super) fn backup(path: &Path) -> impl Fn(BackupError) -> Self {
        let path = path.to_owned();
        move |source| Self::Backup { path: path.clone(), source }
    }
}

pub(super) fn file_of(config: &Config) -> Result<&Path, UpkeepError> {
    match &config.store.kind {
        StoreKind::Embedded { path } => Ok(path),
        StoreKind::Redis(_) => Err(UpkeepError::NotAFile),
    }
}

/// Whether a node has to be asked: it uses the store now, or the store is one that nodes share.
pub fn is_in_use(config: &Config) -> bool {
    if matches!(config.store.kind, StoreKind::Redis(_)) {
        return true;
    }
    // Opening would make a file that is not there.
    file_of(config).is_ok_and(Path::exists) && matches!(open(config), Err(UpkeepError::Store(StoreError::Away(_))))
}

/// Opens the store of a node that is stopped; one that is in use is an error.
fn open(config: &Config) -> Result<Embedded, UpkeepError> {
    let path = file_of(config)?;
    if !path.exists() {
        return Err(UpkeepError::NoStore(path.to_owned()));
    }
    Ok(Embedded::open(path, Settings::new(config.store.lease))?)
}

/// The journal beside the store, if one was begun.
pub(super) fn whole_journal(config: &Config) -> Result<Option<Whole>, UpkeepError> {
    let path = journal_folder(config);
    if folder::names_in(&path)?.is_none() {
        return Ok(None);
    }
    Ok(Some(history::read_whole(&path, &sealer(config)?)?))
}

pub(super) fn sealer(config: &Config) -> Result<Sealer, UpkeepError> {
    Ok(Sealing::read(config)?.sealer)
}

pub fn status(config: &Config) -> Result<StoreStatus, UpkeepError> {
    let store = open(config)?;
    let journal = match whole_journal(config)? {
        Some(whole) => Some(JournalStatus {
            journal_id: whole.names.journal_id,
            first: whole.first_intent,
            last: whole.last_intent,
            settled: whole.settled(),
            verified_backups: retention::verified(&journal_folder(config))?,
        }),
        None => None,
    };
    Ok(StoreStatus { journal, ..store.status()? })
}

/// Reads the whole audit log, and holds it against what the journal remembers of it.
pub fn verify_audit(config: &Config) -> Result<AuditVerdict, UpkeepError> {
    let store = open(config)?;
    let known: Option<AuditHead> = whole_journal(config)?.and_then(|whole| whole.audit);
    Ok(block_on(store.verify_audit_from(known))??)
}

/// Copies the store of a node that is stopped.
pub fn back_up(config: &Config, to: &Path) -> Result<BackupHeader, UpkeepError> {
    let store = open(config)?;
    let journal = whole_journal(config)?;
    let journal = journal.map(|whole| SettledJournal { journal_id: whole.names.journal_id, settled: whole.settled() });
    write_backup(config, to, |out| store.back_up(journal, clock::wall(), out).map(drop))
}

/// Makes the file (mode 0600) as a whole or not at all, reads it back, and lets the journal beside the store know of it.
pub fn write_backup(
    config: &Config,
    to: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), BackupError>,
) -> Result<BackupHeader, UpkeepError> {
    let failed = UpkeepError::file(to);
    let folder = parent_of(to);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(&failed)?;
    let mut out = BufWriter::new(file.as_file_mut());
    fill(&mut out).map_err(UpkeepError::backup(to))?;
    out.flush().map_err(&failed)?;
    drop(out);
    file.as_file().sync_all().map_err(&failed)?;
    // Under its temporary name, so that a bad one replaces nothing.
    let header = read_back(file.path()).map_err(UpkeepError::backup(to))?;
    file.persist(to).map_err(|error| failed(error.error))?;
    sync_folder(folder).map_err(&failed)?;
    let journal = journal_folder(config);
    if let Some(SettledJournal { journal_id, settled }) = header.journal
        && folder::names_in(&journal)?.is_some_and(|names| names.journal_id == journal_id)
    {
        retention::remember(&journal, VerifiedBackup { journal_id, settled, taken_at: header.taken_at })?;
    }
    Ok(header)
}

pub(super) fn read_back(path: &Path) -> Result<BackupHeader, BackupError> {
    BackupReader::begin(BufReader::new(File::open(path)?))?.verify()
}

pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Gives up a journal that is lost or damaged: the store goes on with a new one. What is left of the old one stays beside it.
pub fn recover(config: &Config, without: JournalId) -> Result<Option<PathBuf>, UpkeepError> {
    let event = by_hand("store.recover", format!("without the journal {without}"));
    match &config.store.kind {
        StoreKind::Embedded { .. } => {
            let store = open(config)?;
            let kept = give_up(config, block_on(store.journal())??, without)?;
            block_on(async {
                store.link_journal(None).await?;
                store.record(event).await
            })??;
            Ok(kept)
        }
        StoreKind::Redis(at) => {
            let store = RedisStore::open(redis_settings(config, at, &journal_folder(config))?)?;
            let kept = give_up(config, block_on(store.journal())??, without)?;
            block_on(async {
                store.link_journal(None).await?;
                store.record(event).await
            })??;
            Ok(kept)
        }
    }
}

/// Puts the journal of this node aside, if it is the one that is meant.
fn give_up(config: &Config, attached: Option<JournalId>, without: JournalId) -> Result<Option<PathBuf>, UpkeepError> {
    if attached != Some(without) {
        let attached = attached.map_or_else(|| "none".to_owned(), |attached| attached.to_string());
        return Err(UpkeepError::OtherJournal { attached });
    }
    let path = journal_folder(config);
    let kept = path.exists().then(|| path.with_extension(format!("given-up-{}", clock::wall().unix_seconds())));
    if let Some(kept) = &kept {
        drop(folder::Folder::lock(&path)?);
        fs::rename(&path, kept).map_err(UpkeepError::file(&path))?;
    }
    Ok(kept)
}

/// Goes on without another control plane that is lost, where a store on Redis waits for it. Nodes may run.
pub fn go_on_without(config: &Config, id: &str) -> Result<(), UpkeepError> {
    let StoreKind::Redis(at) = &config.store.kind else {
        return Err(UpkeepError::NotShared);
    };
    if !config.control.as_ref().is_some_and(|control| control.peers.iter().any(|peer| peer == id)) {
        return Err(UpkeepError::NobodyKnown(id.to_owned()));
    }
    let note = note("store.recover", format!("without the control plane {id}"));
    Ok(ByHand::reach(&redis_settings(config, at, &journal_folder(config))?)?.go_on_without(id, &note)?)
}

/// Goes on without a replica of Redis that is lost, or with `undo` waits for it again. Returns how many changes wait for now.
pub fn drop_replica(config: &Config, undo: bool) -> Result<usize, UpkeepError> {
    let StoreKind::Redis(at) = &config.store.kind else {
        return Err(UpkeepError::NoReplicas);
    };
    if at.replicas == 0 {
        return Err(UpkeepError::NoReplicas);
    }
    let detail = if undo { "one replica more is waited for" } else { "one replica less is waited for" };
    let note = note("store.drop_replica", detail.to_owned());
    let by_hand = ByHand::reach(&redis_settings(config, at, &journal_folder(config))?)?;
    Ok(at.replicas - by_hand.drop_replica(undo, at.replicas, &note)?)
}

pub(super) fn note(action: &str, detail: String) -> Note {
    Note { at: clock::wall(), action: action.to_owned(), detail }
}

/// What the operator did to the store itself, on its machine.
pub(super) fn by_hand(action: &str, detail: String) -> AuditEvent {
    let actor = Actor { kind: ActorKind::Operator, id: "command line".to_owned(), from: None };
    let (action, subject) = (action.to_owned(), "store".to_owned());
    AuditEvent { at: clock::wall(), actor, action, subject, account_id: None, detail: Some(detail) }
}

pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, UpkeepError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
    Ok(runtime.block_on(future))
}
