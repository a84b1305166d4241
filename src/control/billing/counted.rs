//! What was counted in an hour, from wherever it is: the ledger, or the archive once it has left there. An hour is read whole from
//! one of the two, never in part from each.

use std::collections::{BTreeMap, BTreeSet};

use crate::archive::{ArchiveError, ArchivedHour};
use crate::control::Control;
use crate::control::error::{Kind, Problem};
use crate::control::usage_record::{Dimensions, Selection, sum};
use crate::meter::record::{Counters, LedgerLine};
use crate::principal::{AccountId, Incarnation};
use crate::store::StoreError;
use crate::store::folds::{Fold, Folded};
use crate::store::usage::HourMark;
use crate::time::Hour;

/// How often hours are read again that left, or came back, while they were read.
const ATTEMPTS: u32 = 20;

/// Why it cannot be told what was counted.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl From<Unread> for Problem {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Store(error) => error.into(),
            Unread::Archive(error) => {
                tracing::error!(%error, "an hour cannot be read back from the archive");
                Kind::ArchiveAway.into()
            }
        }
    }
}

type Folds = BTreeMap<Hour, Folded>;

impl Control {
    /// All lines of an hour, in the order of the ledger.
    pub(in crate::control) async fn lines_in(&self, hour: Hour) -> Result<Vec<LedgerLine>, Unread> {
        let (lines, left) = self.whole_in_ledger(hour, hour, || self.store.lines(hour, hour)).await?;
        match left.get(&hour) {
            None => Ok(lines),
            Some(folded) => Ok(self.archived(hour, folded).await?.lines),
        }
    }

    /// The marks of an hour. One that has left keeps in the ledger only those of gateways that were given up.
    pub(in crate::control) async fn marks_in(&self, hour: Hour) -> Result<Vec<HourMark>, Unread> {
        let (marks, left) = self.whole_in_ledger(hour, hour, || self.store.marks(hour, hour)).await?;
        let Some(folded) = left.get(&hour) else { return Ok(marks) };
        let archived = self.archived(hour, folded).await?.marks(hour);
        let all: BTreeMap<Incarnation, HourMark> =
            archived.into_iter().chain(marks).map(|mark| (mark.incarnation, mark)).collect();
        Ok(all.into_values().collect())
    }

    /// All lines of these accounts in these hours, in no order.
    pub(in crate::control) async fn lines_of(
        &self,
        accounts: BTreeSet<(Hour, AccountId)>,
    ) -> Result<Vec<LedgerLine>, Unread> {
        let Some(((from, _), (to, _))) = accounts.first().copied().zip(accounts.last().copied()) else {
            return Ok(Vec::new());
        };
        let (mut lines, left) = self.whole_in_ledger(from, to, || self.store.lines_of(accounts.clone())).await?;
        lines.retain(|line| !left.contains_key(&line.hour));
        for (hour, folded) in left {
            if !accounts.iter().any(|(asked, _)| *asked == hour) {
                continue;
            }
            let all = self.archived(hour, &folded).await?.lines.into_iter();
            lines.extend(all.filter(|line| accounts.contains(&(hour, line.key.account_id))));
        }
        Ok(lines)
    }

    /// Sums of the hours `from..=to`. In memory are the lines of the hours of the span that are in the ledger, or of one that has left.
    pub(in crate::control) async fn sums_in(
        &self,
        from: Hour,
        to: Hour,
        selection: &Selection,
    ) -> Result<BTreeMap<Dimensions, Counters>, Unread> {
        let (mut lines, left) = self.whole_in_ledger(from, to, || self.store.lines(from, to)).await?;
        lines.retain(|line| !left.contains_key(&line.hour));
        let mut sums = sum(&lines, selection);
        drop(lines);
        for (hour, folded) in left {
            sums.extend(sum(&self.archived(hour, &folded).await?.lines, selection));
        }
        Ok(sums)
    }

    /// What the ledger says, and the hours of the span about which it says nothing, or only a part.
    async fn whole_in_ledger<T, F>(&self, from: Hour, to: Hour, read: impl Fn() -> F) -> Result<(T, Folds), StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut before = self.left(from, to).await?;
        for _ in 0..ATTEMPTS {
            let answer = read().await?;
            let after = self.left(from, to).await?;
            if before.keys().eq(after.keys()) {
                return Ok((answer, after));
            }
            before = after;
        }
        Err(StoreError::Away("hours leave the ledger faster than they can be read".to_owned()))
    }

    /// The hours of the span that are not whole in the ledger.
    pub(in crate::control) async fn left(&self, from: Hour, to: Hour) -> Result<Folds, StoreError> {
        let mut folds = self.store.folds(from, to).await?;
        folds.retain(|_, folded| folded.fold != Fold::Checking);
        Ok(folds)
    }

    /// An hour that has left the ledger, as it left.
    pub(in crate::control) async fn archived(&self, hour: Hour, of: &Folded) -> Result<ArchivedHour, ArchiveError> {
        let archive = self.archive.as_ref().ok_or(ArchiveError::None(hour))?;
        archive.having(hour, &of.digest).await?.ok_or(ArchiveError::Absent(hour))
    }
}
