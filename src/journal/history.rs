//! What a journal tells: which changes still wait for an answer, in which order the others were made.

use std::collections::BTreeMap;
use std::path::Path;

use super::contents::{self, Tail};
use super::entry::Entry;
use super::error::JournalError;
use super::folder::{Folder, Names};
use super::frame::Framing;
use crate::control::seal::Sealer;
use crate::store::intent::{AuditHead, Intent, Noted};

/// What is known of a journal once it was read.
#[derive(Debug, Default)]
pub struct History {
    /// Neither done nor refused, oldest first.
    pub open: Vec<Intent>,
    /// The last known entry of the store's audit log.
    pub audit: Option<AuditHead>,
}

/// A journal as a restore needs it: all of it.
#[derive(Debug)]
pub struct Whole {
    pub names: Names,
    pub first_intent: u64,
    pub last_intent: u64,
    /// In the order in which the store made them.
    pub done: Vec<(Noted, Intent)>,
    /// Neither done nor refused, oldest first.
    pub open: Vec<Intent>,
    /// The last known entry of the store's audit log.
    pub audit: Option<AuditHead>,
}

impl Whole {
    /// Every change up to this number is done or refused.
    pub fn settled(&self) -> u64 {
        self.open.first().map_or(self.last_intent, |open| open.no.saturating_sub(1))
    }

    /// The place of the last change that was made, among all of them.
    pub fn last_commit(&self) -> u64 {
        self.done.last().map_or(0, |(noted, _)| noted.commit)
    }
}

/// Reads the journal and keeps only what is still open.
pub(super) fn read(folder: &Folder, names: Names, framing: &Framing) -> Result<(Tail, History), JournalError> {
    let (mut open, mut audit): (BTreeMap<u64, Intent>, _) = (BTreeMap::new(), None);
    let tail = contents::read(folder, names, framing, |entry| {
        audit = audit_after(audit, &entry);
        match entry {
            Entry::Intent(intent) => drop(open.insert(intent.no, intent)),
            Entry::Done { no, .. } | Entry::Refused { no } => drop(open.remove(&no)),
            Entry::Audited(_) => {}
        }
        Ok(())
    })?;
    Ok((tail, History { open: open.into_values().collect(), audit }))
}

/// Changes that were made at once may be settled in another order.
fn audit_after(known: Option<AuditHead>, entry: &Entry) -> Option<AuditHead> {
    match entry {
        Entry::Done { noted, .. } => known.filter(|known| known.seq > noted.audit.seq).or(Some(noted.audit)),
        Entry::Audited(head) => Some(*head),
        Entry::Intent(_) | Entry::Refused { .. } => known,
    }
}

/// Reads all of a journal that nobody else uses.
pub fn read_whole(path: &Path, sealer: &Sealer) -> Result<Whole, JournalError> {
    whole(&Folder::lock(path)?, sealer)
}

/// Reads all of a journal that this process is writing: what is being written now may be there or not.
pub fn read_beside(path: &Path, sealer: &Sealer) -> Result<Whole, JournalError> {
    whole(&Folder::beside(path), sealer)
}

fn whole(folder: &Folder, sealer: &Sealer) -> Result<Whole, JournalError> {
    let (names, framing) = folder.key(sealer)?;
    let (mut open, mut done): (BTreeMap<u64, Intent>, Vec<(Noted, Intent)>) = Default::default();
    let mut audit = None;
    let tail = contents::read(folder, names, &framing, |entry| {
        audit = audit_after(audit, &entry);
        match entry {
            Entry::Intent(intent) => drop(open.insert(intent.no, intent)),
            // The intent may have left with an old segment.
            Entry::Done { no, noted } => done.extend(open.remove(&no).map(|intent| (noted, intent))),
            Entry::Refused { no } => drop(open.remove(&no)),
            Entry::Audited(_) => {}
        }
        Ok(())
    })?;
    done.sort_by_key(|(noted, _)| noted.commit);
    let (first_intent, last_intent) = (tail.first_intent, tail.head.last);
    Ok(Whole { names, first_intent, last_intent, done, open: open.into_values().collect(), audit })
}
