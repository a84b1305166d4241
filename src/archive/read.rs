//! Reading an hour back.

use std::collections::BTreeMap;

use object_store::path::Path as Name;

use super::hour::{self, Row};
use super::{Archive, ArchiveError, Revision};
use crate::meter::record::{Closing, LedgerLine};
use crate::principal::Incarnation;
use crate::store::folds;
use crate::store::usage::{FlushMark, HourMark};
use crate::time::Hour;

/// What stands in a revision of an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedHour {
    /// In the order of the ledger.
    pub lines: Vec<LedgerLine>,
    pub closings: BTreeMap<Incarnation, Closing>,
    pub sha256: String,
}

impl Archive {
    /// The newest revision of an hour whose lines have this digest; absent where none has. It follows the manifest from where it
    /// last was. Newer ones with other lines are there where the ledger is from a backup.
    ///
    /// # Errors
    /// Also where a file is not what its entry says.
    pub async fn having(&self, hour: Hour, digest: &str) -> Result<Option<ArchivedHour>, ArchiveError> {
        let revisions = {
            let mut known = self.known.lock().await;
            if let Err(error) = self.follow(&mut known).await {
                *known = super::Head::default();
                return Err(error);
            }
            known.revisions(hour).to_vec()
        };
        for revision in revisions.iter().rev() {
            let read = self.read(hour, revision).await?;
            if folds::digest(&read.lines) == digest {
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    /// The file of a revision.
    pub async fn read(&self, hour: Hour, revision: &Revision) -> Result<ArchivedHour, ArchiveError> {
        let damaged = |why: &str| ArchiveError::Damaged { file: revision.file.clone(), why: why.to_owned() };
        let bytes = self.bytes(&Name::from(revision.file.as_str())).await?.ok_or_else(|| damaged("it is gone"))?;
        if hour::hash(&bytes) != revision.sha256 {
            return Err(damaged("its SHA-256 is another"));
        }
        let rows = hour::rows(&bytes).map_err(|line| damaged(&format!("line {line} cannot be read")))?;
        let mut read = ArchivedHour { lines: Vec::new(), closings: BTreeMap::new(), sha256: revision.sha256.clone() };
        for row in rows {
            match row {
                Row::Line { incarnation, key, counted } => {
                    read.lines.push(LedgerLine { hour, incarnation, key, counters: counted.0 });
                }
                Row::Closing { incarnation, lines, totals } => {
                    let closing = Closing { lines, totals: totals.0, leaves: true };
                    read.closings.insert(incarnation, closing);
                }
                // These are in the store for ever.
                Row::Adjustment(_) => {}
            }
        }
        Ok(read)
    }
}

impl ArchivedHour {
    /// The marks of everybody who had closed the hour. That an incarnation went on into the next is not written down, and is said by its later
    /// marks where there are any: so each is said to leave.
    pub fn marks(&self, hour: Hour) -> Vec<HourMark> {
        let mark = |(incarnation, closing): (&Incarnation, &Closing)| {
            let mark = FlushMark { sequence: 0, watermark: hour.end(), closing: Some(*closing) };
            HourMark { hour, incarnation: *incarnation, mark }
        };
        self.closings.iter().map(mark).collect()
    }
}
