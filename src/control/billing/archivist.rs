//! Puts hours that are final into the archive, and puts them there again when something came later; then lets them leave the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::counted::Unread;
use super::folding::Folded;
use crate::archive::hour::Content;
use crate::archive::{Archive, ArchiveError, ArchivedHour, Head};
use crate::clock;
use crate::control::Control;
use crate::meter::record::{Closing, Flush, LedgerLine};
use crate::principal::{Epoch, Incarnation};
use crate::store::StoreError;
use crate::store::folds::{CHUNK, digest};
use crate::store::usage::{HourMark, Touched};
use crate::time::{Hour, WallTime};

const EVERY: Duration = Duration::from_secs(10);
/// How long an hour has been at rest before it leaves: late usage seldom comes alone, and one that came back has first to be taken.
const REST: Duration = Duration::from_secs(3600);
/// Changes looked at in one go.
const CHANGES: usize = 5000;
/// Hours of the archive that are compared with the ledger in one round.
const COMPARED: usize = 24;

/// Why a round could not be finished; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(in crate::control) enum NotArchived {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Unread> for NotArchived {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Store(error) => Self::Store(error),
            Unread::Archive(error) => Self::Archive(error),
        }
    }
}

/// Runs until it is dropped. Control planes of one store share one archive.
pub async fn run(control: Arc<Control>) {
    let Some(archive) = &control.archive else { return };
    let mut archivist = Archivist::default();
    loop {
        let round = archivist.round(&control, archive, clock::wall()).await;
        control.metrics.usage_archive_fails.set(i64::from(!matches!(round, Ok(true))));
        if let Err(error) = round {
            archivist.head = None;
            tracing::warn!(%error, "hours could not be archived; it is tried again");
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[derive(Default)]
pub(in crate::control) struct Archivist {
    /// In which everything below was found out.
    epoch: Option<Epoch>,
    /// Absent until the manifest was read.
    head: Option<Head>,
    /// Changes of usage that were looked at.
    seen: u64,
    /// Hours that changed since they were archived, or were not archived yet. Open ones wait here until they are final.
    changed: BTreeSet<Hour>,
    /// When this control plane last saw a change of an hour that has not left. A start is as if all had changed.
    stirred: BTreeMap<Hour, WallTime>,
    /// Hours of the archive that the ledger may lack, if it is from a backup. Absent until it is known which there are.
    uncompared: Option<BTreeSet<Hour>>,
    /// What went wrong in this round.
    failed: Vec<(Hour, NotArchived)>,
}

impl Archivist {
    /// False where some hour failed, and others did not wait for it.
    pub(in crate::control) async fn round(
        &mut self,
        control: &Control,
        archive: &Archive,
        now: WallTime,
    ) -> Result<bool, NotArchived> {
        let epoch = control.store.clusters().await?.epoch;
        if self.epoch.replace(epoch) != Some(epoch) {
            // The store may be another one than before.
            *self = Self { epoch: Some(epoch), ..Self::default() };
        }
        self.failed = control.resume_folds().await?;
        let mut head = match self.head.take() {
            Some(head) => head,
            None => archive.head().await?,
        };
        self.compare(control, archive, &head).await?;
        self.catch_up(control, now).await?;
        self.archive_changed(control, archive, &mut head, now).await?;
        let rested = |at: &WallTime| at.plus(REST) <= now;
        let rested = self.stirred.iter().filter(|(_, at)| rested(at)).map(|(hour, _)| *hour).collect();
        let Folded { left, differing } = control.fold_old(archive, &head, &rested, now).await?;
        self.stirred.retain(|hour, _| !left.contains(hour));
        self.changed.extend(differing);
        self.head = Some(head);
        for (hour, error) in &self.failed {
            tracing::error!(%hour, %error, "something is wrong with an hour in the archive; others do not wait for it");
        }
        Ok(self.failed.is_empty())
    }

    /// Gives the ledger what it lacks of hours that the archive has, some in each round.
    async fn compare(&mut self, control: &Control, archive: &Archive, head: &Head) -> Result<(), StoreError> {
        if self.uncompared.is_none() {
            let left = control.left(Hour(0), Hour(u32::MAX)).await?;
            // One that has left had these very lines, unless it has come back and left again since.
            let may_differ = |hour: &Hour| !left.contains_key(hour) || head.revisions(*hour).len() > 1;
            self.uncompared = Some(head.hours().filter(may_differ).collect());
        }
        let mut compared = BTreeSet::new();
        for hour in self.uncompared.iter().flatten().copied() {
            if compared.len() == COMPARED {
                break;
            }
            match control.give_back(archive, head, hour).await {
                Ok(_) => drop(compared.insert(hour)),
                Err(NotArchived::Store(error)) => return Err(error),
                Err(error) => self.failed.push((hour, error)),
            }
        }
        self.uncompared.iter_mut().for_each(|uncompared| uncompared.retain(|hour| !compared.contains(hour)));
        Ok(())
    }

    async fn archive_changed(
        &mut self,
        control: &Control,
        archive: &Archive,
        head: &mut Head,
        now: WallTime,
    ) -> Result<(), NotArchived> {
        let (Some(first), Some(last)) = (self.changed.first().copied(), self.changed.last().copied()) else {
            return Ok(());
        };
        let finals = control.store.final_windows(first, last).await?;
        for hour in finals.iter().map(|one| one.hour).filter(|hour| self.changed.contains(hour)).collect::<Vec<_>>() {
            let content = match control.next_content(archive, head, hour).await {
                Ok(content) => content,
                Err(NotArchived::Archive(error)) => {
                    self.failed.push((hour, error.into()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if archive.add(head, hour, &content, now).await? {
                tracing::info!(%hour, "the usage of an hour is archived");
            }
            self.changed.remove(&hour);
        }
        Ok(())
    }

    /// After a start it looks at all there is.
    async fn catch_up(&mut self, control: &Control, now: WallTime) -> Result<(), StoreError> {
        loop {
            let changes = control.store.changed(self.seen, CHANGES).await?;
            // Whether one of its records was told, and not only the hour.
            let mut told: BTreeMap<Hour, bool> = BTreeMap::new();
            for (_, touched) in &changes.touched {
                match touched {
                    Touched::Record(record) => *told.entry(record.hour).or_default() = true,
                    Touched::Hour(hour) => drop(told.entry(*hour).or_default()),
                }
            }
            if let Some(((first, _), (last, _))) = told.first_key_value().zip(told.last_key_value()) {
                let left = control.left(*first, *last).await?;
                let stirred = told.keys().filter(|hour| !left.contains_key(hour));
                self.stirred.extend(stirred.map(|hour| (*hour, now)));
                // Of an hour that has left nothing can change but its corrections, which are told as records.
                let changed = told.iter().filter(|(hour, by_record)| **by_record || !left.contains_key(hour));
                self.changed.extend(changed.map(|(hour, _)| *hour));
            }
            self.seen = changes.upto;
            if !changes.more {
                return Ok(());
            }
        }
    }
}

impl Control {
    async fn content_of(&self, hour: Hour) -> Result<Content, Unread> {
        let (marks, lines) = (self.marks_in(hour).await?, self.lines_in(hour).await?);
        let adjustments = self.store.adjustments(hour, hour).await?;
        Ok(Content::of(&lines, &marks, &adjustments))
    }

    /// What the next revision of an hour says. None has less than the one before.
    async fn next_content(&self, archive: &Archive, head: &Head, hour: Hour) -> Result<Content, NotArchived> {
        let content = self.content_of(hour).await?;
        let is_new = head.last(hour).is_some_and(|last| last.sha256 != content.sha256);
        if is_new && self.give_back(archive, head, hour).await? {
            Ok(self.content_of(hour).await?)
        } else {
            Ok(content)
        }
    }

    /// Merges what the archive has of an hour and the ledger has not: it is from an old backup, or has lost what it acknowledged.
    /// True where there was any. An hour that has left with other lines than the archive has now comes back for that.
    async fn give_back(&self, archive: &Archive, head: &Head, hour: Hour) -> Result<bool, NotArchived> {
        let Some(last) = head.last(hour) else { return Ok(false) };
        let archived = archive.read(hour, last).await?;
        if let Some(folded) = self.left(hour, hour).await?.remove(&hour) {
            if folded.digest == digest(&archived.lines) {
                return Ok(false);
            }
            self.resume_fold(hour, true).await?;
        }
        let (lines, marks) = (self.store.lines(hour, hour).await?, self.store.marks(hour, hour).await?);
        let missing = missing(hour, &archived, &lines, &marks);
        if missing.is_empty() {
            return Ok(false);
        }
        tracing::warn!(%hour, batches = missing.len(), "the ledger lacks usage that the archive has; it is given back");
        for flush in missing {
            self.store.merge(flush).await?;
        }
        Ok(true)
    }
}

/// What of an archived hour is not in these lines and marks.
fn missing(hour: Hour, archived: &ArchivedHour, lines: &[LedgerLine], marks: &[HourMark]) -> Vec<Flush> {
    let known: BTreeMap<_, _> = lines.iter().map(|line| ((line.key, line.incarnation), line.counters)).collect();
    let mut by_incarnation: BTreeMap<Incarnation, Vec<_>> = BTreeMap::new();
    for line in &archived.lines {
        let before = known.get(&(line.key, line.incarnation)).copied();
        if before.is_none_or(|before| before.max(&line.counters) != before) {
            by_incarnation.entry(line.incarnation).or_default().push((line.key, line.counters));
        }
    }
    let flush =
        |incarnation, lines| Flush { incarnation, hour, sequence: 0, lines, watermark: WallTime(0), closing: None };
    let chunks = by_incarnation
        .iter()
        .flat_map(|(incarnation, lines)| lines.chunks(CHUNK).map(|chunk| flush(*incarnation, chunk.to_vec())));
    let closings = archived.closings.iter().filter_map(|(incarnation, closing)| {
        let known = marks.iter().find(|mark| mark.incarnation == *incarnation).and_then(|mark| mark.mark.closing);
        // Whether it left is not in the archive; one of which nothing is known any more has.
        let closing = Closing { leaves: known.is_none_or(|known| known.leaves), ..*closing };
        let is_known = known.is_some_and(|known| known.max(&closing) == known);
        (!is_known).then(|| Flush { watermark: hour.end(), closing: Some(closing), ..flush(*incarnation, Vec::new()) })
    });
    chunks.chain(closings).collect()
}
