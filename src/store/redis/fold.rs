//! Hours that leave the ledger on Redis, and the sums of usage while they do. All of it is in keys of usage, and done by scripts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;

use super::answer::unexpected;
use super::lane::jittered;
use super::ledger::{Seen, changed_rows, decode, encode, mark_text, pages};
use super::ledger_at::LedgerAt;
use super::scripts::UsageScript;
use super::{RedisStore, scripts};
use crate::meter::record::{Counters, LedgerLine};
use crate::store::StoreError;
use crate::store::folds::{Fold, Folded, Folds, Step, Way};
use crate::store::rules::folds::{base_at, base_key, moved_base, sums_of};
use crate::store::rules::ledger::{Totals, Whose, line_at, mark_key, row_key, whose};
use crate::store::rules::usage::place_of;
use crate::store::usage::RecordKey;
use crate::time::Hour;

/// Hours that are asked for one by one; where it is about more, all there are are read.
const FEW: u32 = 1000;
/// How often sums are begun again at a start while hours are moved.
const BEGINNINGS: u32 = 100;

#[async_trait]
impl Folds for RedisStore {
    async fn folds(&self, from: Hour, to: Hour) -> Result<BTreeMap<Hour, Folded>, StoreError> {
        if from > to {
            return Ok(BTreeMap::new());
        }
        if to.0 - from.0 >= FEW {
            let mut all = all_folds(&self.usage).await?;
            all.retain(|hour, _| (from..=to).contains(hour));
            return Ok(all);
        }
        let hours: Vec<_> = (from.0..=to.0).map(Hour).collect();
        let names: Vec<_> = hours.iter().map(|hour| hour.0.to_string().into_bytes()).collect();
        let values = self.pick("folds", &names).await?;
        let found = hours.into_iter().zip(values).filter_map(|(hour, value)| Some((hour, value?)));
        found.map(|(hour, value)| Ok((hour, fold_of(&value)?))).collect()
    }

    async fn wanted(&self) -> Result<BTreeSet<Hour>, StoreError> {
        let mut found = Vec::new();
        pages(&self.usage, "wanted", |hour, _| found.push(hour)).await?;
        found.iter().map(|hour| hour_of(hour)).collect()
    }

    async fn step(&self, hour: Hour, step: Step) -> Result<bool, StoreError> {
        let (from, to) = step.ends();
        let name = |fold: Option<Fold>| fold.map_or("", Fold::name).as_bytes().to_vec();
        let mut arguments = vec![self.usage.name().to_vec(), hour.0.to_string().into_bytes(), name(from), name(to)];
        arguments.push(if let Step::Leave { digest } = &step { digest.clone().into_bytes() } else { Vec::new() });
        match step {
            Step::Archive { gone } => {
                arguments.extend(gone.iter().flat_map(|incarnation| [mark_key(hour, *incarnation), Vec::new()]));
            }
            Step::Settle { marks } => {
                for mark in marks {
                    arguments.extend([mark_key(hour, mark.incarnation), mark_text(&mark.mark)?]);
                }
            }
            Step::Check | Step::Stay | Step::Leave { .. } | Step::Return => {}
        }
        self.took(&scripts::FOLD_STEP, &arguments).await
    }

    async fn move_lines(&self, hour: Hour, way: Way, lines: Vec<LedgerLine>) -> Result<bool, StoreError> {
        let sums = sums_of(&lines);
        let rows: Vec<_> = sums.keys().map(base_key).collect();
        let known = self.pick("base", &rows).await?;
        let places: BTreeSet<_> = lines.iter().map(|line| place_of(&RecordKey::of(hour, &line.key))).collect();
        let mut arguments = vec![
            self.usage.name().to_vec(),
            hour.0.to_string().into_bytes(),
            hour.0.to_be_bytes().to_vec(),
            way.fold().name().as_bytes().to_vec(),
            rows.len().to_string().into_bytes(),
            lines.len().to_string().into_bytes(),
        ];
        for ((row, known), moved) in rows.into_iter().zip(known).zip(sums.values()) {
            let before = known.as_deref().map(decode).transpose()?.unwrap_or_default();
            arguments.extend([row, known.unwrap_or_default(), encode(&moved_base(way, &before, moved))?]);
        }
        for line in &lines {
            arguments.extend([row_key(hour, &line.key, line.incarnation), encode(&line.counters)?]);
        }
        arguments.extend(places);
        self.took(&scripts::FOLD_MOVE, &arguments).await
    }
}

impl RedisStore {
    async fn pick(&self, of: &str, fields: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut arguments = vec![self.usage.name(), of.as_bytes()];
        arguments.extend(fields.iter().map(Vec::as_slice));
        let mut answer = self.usage.good(&scripts::PICK, &arguments).await?;
        fields.iter().map(|_| answer.maybe_bytes()).collect()
    }

    /// Whether the script did it, on a server that still is the master.
    async fn took(&self, script: &UsageScript, arguments: &[Vec<u8>]) -> Result<bool, StoreError> {
        let arguments: Vec<_> = arguments.iter().map(Vec::as_slice).collect();
        let mut answer = self.usage.call(script, &arguments).await?;
        if answer.said == "CHANGED" {
            return Ok(false);
        }
        if answer.said != "OK" {
            return Err(unexpected("an answer of an unknown kind"));
        }
        if !self.usage.is_apart() && self.watch.is_another_epoch(answer.parsed()?) {
            return Err(StoreError::Away("an hour was moved on a server that is not the master any more".to_owned()));
        }
        Ok(true)
    }
}

pub async fn all_folds(usage: &LedgerAt) -> Result<BTreeMap<Hour, Folded>, StoreError> {
    let mut found = Vec::new();
    pages(usage, "folds", |hour, fold| found.push((hour, fold))).await?;
    found.iter().map(|(hour, fold)| Ok((hour_of(hour)?, fold_of(fold)?))).collect()
}

fn hour_of(name: &[u8]) -> Result<Hour, StoreError> {
    let number = std::str::from_utf8(name).ok().and_then(|text| text.parse().ok());
    number.map(Hour).ok_or_else(|| unexpected("an hour that is not a number"))
}

/// Where it stands, and the digest.
fn fold_of(text: &[u8]) -> Result<Folded, StoreError> {
    let parts = std::str::from_utf8(text).ok().and_then(|text| text.split_once(' '));
    let folded =
        parts.and_then(|(name, digest)| Some(Folded { fold: Fold::from_name(name)?, digest: digest.to_owned() }));
    folded.ok_or_else(|| unexpected("an hour that stands nowhere this version knows"))
}

pub fn fold_text(Folded { fold, digest }: &Folded) -> Vec<u8> {
    format!("{} {digest}", fold.name()).into_bytes()
}

/// Which hours are in the sums by way of the base, and since which move that is known.
#[derive(Default)]
pub struct Apart {
    moved: Option<u64>,
    hours: BTreeSet<Hour>,
}

impl Apart {
    pub fn is_known(&self) -> bool {
        self.moved.is_some()
    }

    pub fn is_as_of(&self, moved: u64) -> bool {
        self.moved == Some(moved)
    }

    /// Whether what a line of this hour grows by is to be added to the sums. Before they were made for the first time, nothing is.
    pub fn counts(&self, hour: Hour) -> bool {
        self.is_known() && !self.hours.contains(&hour)
    }
}

/// Makes the sums again from the base and from the lines that were seen, once hours were moved between the two. `moved`: the numbers
/// of the last move when reading of the lines began and when it ended.
///
/// While hours are on the move the sums stay what they are, and go on growing by what is merged into others. The first time there are
/// none yet, so it is begun again until nothing moved meanwhile.
pub async fn sum_anew(
    seen: &mut Seen,
    totals: &Totals,
    usage: &LedgerAt,
    (before, moved): (u64, u64),
) -> Result<(), StoreError> {
    let is_first = !seen.apart.is_known();
    let folds = all_folds(usage).await?;
    let moving = folds.values().any(|fold| matches!(fold.fold, Fold::Leaving | Fold::Returning));
    // Lines that were seen before they left would be there twice.
    if moving && !is_first {
        return Ok(());
    }
    let mut sums = base(usage).await?;
    if before != moved || changed_rows(usage, seen.merge, 1).await?.moved != moved {
        if is_first {
            seen.begin_again(moved).await?;
        }
        return Ok(());
    }
    let left = |hour: Hour| folds.get(&hour).is_some_and(|folded| folded.fold == Fold::Archived);
    seen.lines.retain(|row, counters| {
        let Ok(line) = line_at(row) else { return false };
        if !left(line.hour) {
            let sum = sums.entry(whose(&line.key)).or_default();
            *sum = sum.plus(counters);
        }
        !left(line.hour)
    });
    totals.raise(sums);
    let hours = folds.into_iter().filter(|(_, folded)| folded.fold != Fold::Checking).map(|(hour, _)| hour).collect();
    seen.apart = Apart { moved: Some(moved), hours };
    seen.beginnings = 0;
    Ok(())
}

async fn base(usage: &LedgerAt) -> Result<HashMap<Whose, Counters>, StoreError> {
    let mut rows = BTreeMap::new();
    pages(usage, "base", |row, counters| drop(rows.insert(row, counters))).await?;
    rows.iter().map(|(row, counters)| Ok((base_at(row)?, decode(counters)?))).collect()
}

impl Seen {
    async fn begin_again(&mut self, moved: u64) -> Result<(), StoreError> {
        self.beginnings += 1;
        if self.beginnings > BEGINNINGS {
            self.beginnings = 0;
            return Err(StoreError::Away(format!("hours leave the ledger faster than it can be read (move {moved})")));
        }
        (self.merge, self.lines) = (0, BTreeMap::new());
        tokio::time::sleep(jittered(Duration::from_millis(100))).await;
        Ok(())
    }
}
