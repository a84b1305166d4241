//! Hours leave the ledger once the archive has kept them for long enough, and come back when usage of theirs comes late.
//!
//! Hours leave in their order, and none before everybody has closed it and the hour behind it: who counts in which hours is worked
//! out from the marks that are there, and it must come out the same without the older ones.

use std::collections::BTreeSet;

use super::archivist::NotArchived;
use crate::archive::hour::Content;
use crate::archive::{Archive, ArchivedHour, Head};
use crate::control::Control;
use crate::store::StoreError;
use crate::store::folds::{self, Fold, Step, digest};
use crate::time::{Hour, WallTime};

/// Hours that leave in one round. Between rounds the sums of usage are read by those who have just started.
const MOST: usize = 24;

/// What became of hours that were to leave.
#[derive(Default)]
pub(super) struct Folded {
    pub left: BTreeSet<Hour>,
    /// One that the archive does not have as it is in the ledger.
    pub differing: Option<Hour>,
}

impl Control {
    /// Goes on with what was begun and brings back what is wanted. Returns what failed, hour by hour: none waits for another.
    pub(super) async fn resume_folds(&self) -> Result<Vec<(Hour, NotArchived)>, StoreError> {
        let wanted = self.store.wanted().await?;
        let begun = self.store.folds(Hour(0), Hour(u32::MAX)).await?;
        let begun = begun.into_iter().filter(|(hour, one)| one.fold != Fold::Archived || wanted.contains(hour));
        let mut failed = Vec::new();
        for (hour, _) in begun {
            if let Err(error) = self.resume_fold(hour, wanted.contains(&hour)).await {
                failed.push((hour, error));
            }
        }
        Ok(failed)
    }

    /// `wanted`: it is brought back.
    pub(super) async fn resume_fold(&self, hour: Hour, wanted: bool) -> Result<(), NotArchived> {
        let folded = |folds: std::collections::BTreeMap<_, _>| folds.into_values().next();
        let Some(mut at) = folded(self.store.folds(hour, hour).await?) else { return Ok(()) };
        if at.fold == Fold::Checking {
            // Nothing has moved. Should somebody be at it just now, that comes to nothing and is begun again.
            self.store.step(hour, Step::Stay).await?;
            return Ok(());
        }
        if at.fold == Fold::Leaving {
            folds::move_out(&*self.store, hour, &self.given_up().await?).await?;
            tracing::info!(%hour, "an hour has left the ledger for the archive");
            match folded(self.store.folds(hour, hour).await?) {
                Some(now) => at = now,
                None => return Ok(()),
            }
        }
        if at.fold == Fold::Archived && !wanted {
            return Ok(());
        }
        let archived = self.archived(hour, &at).await?;
        if at.fold == Fold::Archived {
            self.store.step(hour, Step::Return).await?;
        }
        folds::move_back(&*self.store, hour, &archived.lines, archived.marks(hour)).await?;
        tracing::info!(%hour, "an hour is back in the ledger: usage of it has come late");
        Ok(())
    }

    /// Lets hours leave that ended before the retention and are `rested`.
    pub(super) async fn fold_old(
        &self,
        archive: &Archive,
        head: &Head,
        rested: &BTreeSet<Hour>,
        now: WallTime,
    ) -> Result<Folded, NotArchived> {
        let mut folded = Folded::default();
        for hour in self.foldable(now).await? {
            let Some(last) = head.last(hour).filter(|_| rested.contains(&hour) && folded.left.len() < MOST) else {
                break;
            };
            // Also to see that its file is there.
            let archived = archive.read(hour, last).await?;
            if !self.fold(hour, &archived).await? {
                folded.differing = Some(hour);
                break;
            }
            folded.left.insert(hour);
        }
        Ok(folded)
    }

    /// The hours that may leave, oldest first.
    async fn foldable(&self, now: WallTime) -> Result<Vec<Hour>, StoreError> {
        let Some(retention) = self.retention else { return Ok(Vec::new()) };
        let retention = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let Some(last) = WallTime(now.0.saturating_sub(retention)).hour().0.checked_sub(1).map(Hour) else {
            return Ok(Vec::new());
        };
        let archived = self.store.folds(Hour(0), last).await?;
        let marks = self.store.marks(Hour(0), last).await?;
        let hours: BTreeSet<_> =
            marks.iter().map(|mark| mark.hour).filter(|hour| !archived.contains_key(hour)).collect();
        let Some(first) = hours.first().copied() else { return Ok(Vec::new()) };
        let attendance = self.attendance(first, last.next()).await?;
        let finals = self.store.final_windows(first, last.next()).await?;
        let finals: BTreeSet<_> = finals.into_iter().map(|one| one.hour).collect();
        let is_done = |hour: Hour| finals.contains(&hour) && attendance.missing(hour).is_empty();
        Ok(hours.into_iter().take_while(|hour| is_done(*hour) && is_done(hour.next())).collect())
    }

    /// False where the ledger has something else than the archive.
    async fn fold(&self, hour: Hour, archived: &ArchivedHour) -> Result<bool, NotArchived> {
        let is_same = |content: &Content| content.sha256 == archived.sha256;
        if !is_same(&self.content_in_ledger(hour).await?) {
            return Ok(false);
        }
        if !self.store.step(hour, Step::Check).await? {
            return Ok(true);
        }
        // From here on nothing is merged into it.
        if !is_same(&self.content_in_ledger(hour).await?) {
            self.store.step(hour, Step::Stay).await?;
            return Ok(false);
        }
        let digest = digest(&archived.lines);
        if self.store.step(hour, Step::Leave { digest }).await? {
            folds::move_out(&*self.store, hour, &self.given_up().await?).await?;
            tracing::info!(%hour, "an hour has left the ledger for the archive");
        }
        Ok(true)
    }

    async fn content_in_ledger(&self, hour: Hour) -> Result<Content, StoreError> {
        let (lines, marks) = (self.store.lines(hour, hour).await?, self.store.marks(hour, hour).await?);
        Ok(Content::of(&lines, &marks, &self.store.adjustments(hour, hour).await?))
    }

    /// The marks of these stay: they say until when each is missed.
    async fn given_up(&self) -> Result<BTreeSet<crate::principal::Incarnation>, StoreError> {
        Ok(self.store.abandoned().await?.into_iter().map(|one| one.incarnation).collect())
    }
}
