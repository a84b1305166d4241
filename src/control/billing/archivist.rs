//! Puts hours that are final into the archive, and puts them there again when something came later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::archive::hour::Content;
use crate::archive::{Archive, ArchiveError, Head};
use crate::clock;
use crate::control::Control;
use crate::store::StoreError;
use crate::store::usage::{HourMark, Touched};
use crate::time::Hour;

const EVERY: Duration = Duration::from_secs(10);
/// Changes looked at in one go.
const CHANGES: usize = 5000;

/// Why a round could not be finished; it is tried again.
#[derive(Debug, thiserror::Error)]
enum NotArchived {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Runs until it is dropped. Several control planes may share an archive, or have one each.
pub async fn run(control: Arc<Control>) {
    let Some(archive) = &control.archive else { return };
    let mut archivist = Archivist::default();
    loop {
        match archivist.round(&control, archive).await {
            Ok(hours) => hours.iter().for_each(|hour| tracing::info!(%hour, "the usage of an hour is archived")),
            Err(error) => {
                archivist.head = None;
                tracing::warn!(%error, "hours could not be archived; it is tried again");
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[derive(Default)]
struct Archivist {
    /// Absent until the manifest was read.
    head: Option<Head>,
    /// Changes of usage that were looked at.
    seen: u64,
    /// Hours that changed since they were archived, or were not archived yet. Open ones wait here until they are final.
    changed: BTreeSet<Hour>,
}

impl Archivist {
    /// The hours of which it added a revision.
    async fn round(&mut self, control: &Control, archive: &Archive) -> Result<Vec<Hour>, NotArchived> {
        self.catch_up(control).await?;
        let (Some(first), Some(last)) = (self.changed.first().copied(), self.changed.last().copied()) else {
            return Ok(Vec::new());
        };
        let finals = control.store.final_windows(first, last).await?;
        let mut head = match self.head.take() {
            Some(head) => head,
            None => archive.head().await?,
        };
        let mut added = Vec::new();
        // All at once: a store may have to read all marks there are for those of one hour.
        let marks = control.store.marks(first, last).await?;
        for hour in finals.iter().map(|one| one.hour).filter(|hour| self.changed.contains(hour)).collect::<Vec<_>>() {
            let of_hour: Vec<_> = marks.iter().filter(|mark| mark.hour == hour).copied().collect();
            let content = control.content_of(hour, &of_hour).await?;
            if archive.add(&mut head, hour, &content, clock::wall()).await? {
                added.push(hour);
            }
            self.changed.remove(&hour);
        }
        self.head = Some(head);
        Ok(added)
    }

    /// After a start it looks at all there is.
    async fn catch_up(&mut self, control: &Control) -> Result<(), StoreError> {
        loop {
            let changes = control.store.changed(self.seen, CHANGES).await?;
            self.changed.extend(changes.touched.iter().map(|(_, touched)| match touched {
                Touched::Record(record) => record.hour,
                Touched::Hour(hour) => *hour,
            }));
            self.seen = changes.upto;
            if !changes.more {
                return Ok(());
            }
        }
    }
}

impl Control {
    async fn content_of(&self, hour: Hour, marks: &[HourMark]) -> Result<Content, StoreError> {
        let lines = self.store.lines(hour, hour).await?;
        let adjustments = self.store.adjustments(hour, hour).await?;
        Ok(Content::of(&lines, marks, &adjustments))
    }
}
