//! Hours that leave the ledger for the archive, and come back. Their lines go into a cumulative base: base and lines together are
//! the same at every moment, so the sums of usage are too.
//!
//! ```text
//! in the ledger ──► Checking ──► Leaving ──► Archived ──► Returning ──► in the ledger
//!        ◄─────────────┘
//! ```
//!
//! From `Checking` on merges are refused. Every step, and every move of lines, is one atomic step of the store that is taken only if
//! things are what its caller took them for. So it can be gone on with after a crash, and by several control planes at once.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rules::ledger::row_key;
use super::rules::rows::RowValue;
use super::usage::HourMark;
use super::{Store, StoreError};
use crate::meter::record::LedgerLine;
use crate::principal::Incarnation;
use crate::time::Hour;

/// Where an hour stands that is not simply in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// It is compared with the archive. All of it is in the ledger.
    Checking,
    /// Its lines go into the base. The archive has all of them.
    Leaving,
    /// The archive alone has it.
    Archived,
    /// Its lines come out of the base again. The archive has all of them.
    Returning,
}

impl Fold {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::Checking, "checking"),
        (Self::Leaving, "leaving"),
        (Self::Archived, "archived"),
        (Self::Returning, "returning"),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(one, _)| *one == self).map_or("", |(_, name)| name)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, one)| *one == name).map(|(fold, _)| *fold)
    }
}

/// An hour that is not simply in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    pub fold: Fold,
    /// The [`digest`] of the lines that left: only an archive that has these very lines can stand for the hour. Empty while it is
    /// compared.
    pub digest: String,
}

/// Tells the lines of an hour, in their order, from all others.
pub fn digest(lines: &[LedgerLine]) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(row_key(line.hour, &line.key, line.incarnation));
        // Nothing in a line can fail to be encoded.
        hash.update(RowValue::encode(&line.counters).unwrap_or_default());
    }
    HEXLOWER.encode(&hash.finalize())
}

/// A step of an hour from one state to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Merges are refused from now on.
    Check,
    /// It stays in the ledger after all.
    Stay,
    /// The archive has its lines, which have this digest.
    Leave {
        digest: String,
    },
    /// None of its lines may be left. The marks of these incarnations go with them.
    Archive {
        gone: Vec<Incarnation>,
    },
    Return,
    /// Its lines are all there again. Marks that are there already stay as they are.
    Settle {
        marks: Vec<HourMark>,
    },
}

impl Step {
    /// From where to where; `None` is simply in the ledger.
    pub fn ends(&self) -> (Option<Fold>, Option<Fold>) {
        match self {
            Self::Check => (None, Some(Fold::Checking)),
            Self::Stay => (Some(Fold::Checking), None),
            Self::Leave { .. } => (Some(Fold::Checking), Some(Fold::Leaving)),
            Self::Archive { .. } => (Some(Fold::Leaving), Some(Fold::Archived)),
            Self::Return => (Some(Fold::Archived), Some(Fold::Returning)),
            Self::Settle { .. } => (Some(Fold::Returning), None),
        }
    }
}

/// Which way lines are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Into the base, of an hour that is leaving.
    Out,
    /// Out of the base, of an hour that is returning.
    Back,
}

impl Way {
    /// Where the hour has to stand.
    pub fn fold(self) -> Fold {
        match self {
            Self::Out => Fold::Leaving,
            Self::Back => Fold::Returning,
        }
    }
}

/// Lines in one move at most.
pub const CHUNK: usize = 500;
/// Moves that came to nothing because somebody else was at the same hour, before it is left for later.
const ATTEMPTS: u32 = 1000;

/// What the archivist of a control plane asks of the ledger.
#[async_trait]
pub trait Folds: Send + Sync {
    /// The hours of `from..=to` that are not simply in the ledger.
    async fn folds(&self, from: Hour, to: Hour) -> Result<BTreeMap<Hour, Folded>, StoreError>;
    /// Hours into which a merge was refused since they left.
    async fn wanted(&self) -> Result<BTreeSet<Hour>, StoreError>;
    /// Takes a step. False, and nothing is changed, where the hour does not stand where the step begins, or has lines left that it
    /// may not have.
    async fn step(&self, hour: Hour, step: Step) -> Result<bool, StoreError>;
    /// Moves lines of one hour between ledger and base, at most [`CHUNK`]. False, and nothing is changed, where the hour does not
    /// stand so that they may move, or one of them is not (out), or is already (back), in the ledger. The change feed loses the
    /// lines that leave; where one is newer in it than the hour itself, the hour is told once more.
    async fn move_lines(&self, hour: Hour, way: Way, lines: Vec<LedgerLine>) -> Result<bool, StoreError>;
}

/// Moves what is left of an hour that is leaving. The marks of `kept` stay. It may be called again at any time.
pub async fn move_out(store: &dyn Store, hour: Hour, kept: &BTreeSet<Incarnation>) -> Result<(), StoreError> {
    for _ in 0..ATTEMPTS {
        let lines = store.lines(hour, hour).await?;
        if lines.is_empty() {
            let marks = store.marks(hour, hour).await?.into_iter().map(|mark| mark.incarnation);
            let gone = marks.filter(|incarnation| !kept.contains(incarnation)).collect();
            if store.step(hour, Step::Archive { gone }).await? {
                return Ok(());
            }
        } else {
            move_in_chunks(store, hour, Way::Out, &lines).await?;
        }
        if stands(store, hour).await? != Some(Fold::Leaving) {
            // Somebody else has come to the end.
            return Ok(());
        }
    }
    Err(contended(hour))
}

/// Puts back what is still missing of an hour that is returning: all its `lines` and `marks` as the archive has them.
pub async fn move_back(
    store: &dyn Store,
    hour: Hour,
    lines: &[LedgerLine],
    marks: Vec<HourMark>,
) -> Result<(), StoreError> {
    for _ in 0..ATTEMPTS {
        let there = store.lines(hour, hour).await?;
        let there: BTreeSet<_> = there.iter().map(|line| (line.key, line.incarnation)).collect();
        let is_missing = |line: &&LedgerLine| !there.contains(&(line.key, line.incarnation));
        let missing: Vec<_> = lines.iter().filter(is_missing).copied().collect();
        if !missing.is_empty() {
            move_in_chunks(store, hour, Way::Back, &missing).await?;
        } else if store.step(hour, Step::Settle { marks: marks.clone() }).await? {
            return Ok(());
        }
        if stands(store, hour).await? != Some(Fold::Returning) {
            return Ok(());
        }
    }
    Err(contended(hour))
}

/// Until all are moved, or one chunk is not what it was taken for.
async fn move_in_chunks(store: &dyn Store, hour: Hour, way: Way, lines: &[LedgerLine]) -> Result<(), StoreError> {
    for chunk in lines.chunks(CHUNK) {
        if !store.move_lines(hour, way, chunk.to_vec()).await? {
            break;
        }
    }
    Ok(())
}

/// Where an hour stands; `None` is simply in the ledger.
pub async fn stands(store: &dyn Store, hour: Hour) -> Result<Option<Fold>, StoreError> {
    Ok(store.folds(hour, hour).await?.get(&hour).map(|folded| folded.fold))
}

fn contended(hour: Hour) -> StoreError {
    StoreError::Away(format!("others are at the lines of {hour} all the time"))
}
