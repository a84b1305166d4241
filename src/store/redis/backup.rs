//! Copying a store on Redis while it is used.

use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::time::Duration;

use super::fold::all_folds;
use super::lane::jittered;
use super::ledger::{changed_rows, decode, hours, mark, pages};
use super::rows::View;
use super::{READS, RedisStore};
use crate::store::StoreError;
use crate::store::backup::{BackupError, BackupHeader, BackupWriter, SettledJournal};
use crate::store::folds::Folded;
use crate::store::rules::folds::FoldRow;
use crate::store::rules::rows::RowValue;
use crate::store::rules::status;
use crate::store::rules::tables::{BASE, FLUSHES, FOLDS, LEDGER, NAMES};
use crate::store::upkeep::{Kept, StoreStatus};
use crate::time::{Hour, WallTime};

/// Key and text of a mark.
type Mark = (Vec<u8>, Vec<u8>);
/// Numbers of changes end here: Lua has no greater ones.
const NO_CHANGE_BEHIND: u64 = 1 << 53;

impl Kept for RedisStore {
    fn copy(
        &self,
        journal: SettledJournal,
        now: WallTime,
        mut to: Box<dyn Write + Send>,
    ) -> Result<BackupHeader, BackupError> {
        for attempt in 0..READS {
            // What was written before a change came between must not be seen by anybody.
            let mut draft = tempfile::tempfile()?;
            let view = View::new(&self.reads, &self.place, None);
            let moved = self.moved()?;
            let copied = self.copy_once(&view, journal, now, &mut draft);
            // An hour that left meanwhile might be in the copy twice, or not at all.
            if !view.has_moved() && self.moved()? == moved {
                let header = copied?;
                draft.seek(SeekFrom::Start(0))?;
                io::copy(&mut draft, &mut to)?;
                to.flush()?;
                return Ok(header);
            }
            self.reads.pause_and_block(jittered(Duration::from_millis(5)) * attempt);
        }
        Err(StoreError::Away("the store changes faster than it can be copied".to_owned()).into())
    }
}

impl RedisStore {
    fn copy_once(
        &self,
        view: &View<'_>,
        journal: SettledJournal,
        now: WallTime,
        to: &mut impl Write,
    ) -> Result<BackupHeader, BackupError> {
        let StoreStatus { store_id, epoch, schema, revision, .. } = status(view)?;
        let header = BackupHeader { store_id, epoch, schema, revision, taken_at: now, journal: Some(journal) };
        // First: a mark says that the lines until it are there.
        let marks = self.marks_now()?;
        let mut writer = BackupWriter::begin(io::BufWriter::new(to), &header)?;
        for table in NAMES {
            match table {
                _ if table == LEDGER.name => self.copy_usage(&mut writer)?,
                _ if table == FLUSHES.name => copy_marks(&mut writer, &marks)?,
                _ if table == BASE.name => self.copy_base(&mut writer)?,
                _ if table == FOLDS.name => self.copy_folds(&mut writer)?,
                _ => writer.copy(view, table)?,
            }
        }
        writer.finish()?;
        Ok(header)
    }

    /// Its values only grow, and the greater one wins: it need not be of one instant.
    fn copy_usage(&self, writer: &mut BackupWriter<impl Write>) -> Result<(), BackupError> {
        writer.table(LEDGER.name)?;
        for hour in self.usage.wait_for(hours(&self.usage, Hour(0), Hour(u32::MAX)))? {
            let mut lines = Vec::new();
            self.usage.wait_for(pages(&self.usage, &hour, |row, line| lines.push((row, line))))?;
            for (row, line) in lines {
                let counters = RowValue::encode(&decode(&line)?).map_err(StoreError::Corrupt)?;
                writer.row(&row, &counters)?;
            }
        }
        Ok(())
    }

    fn moved(&self) -> Result<u64, StoreError> {
        Ok(self.usage.wait_for(changed_rows(&self.usage, NO_CHANGE_BEHIND, 1))?.moved)
    }

    fn copy_base(&self, writer: &mut BackupWriter<impl Write>) -> Result<(), BackupError> {
        writer.table(BASE.name)?;
        // A row may come twice.
        let mut rows = BTreeMap::new();
        self.usage.wait_for(pages(&self.usage, "base", |row, text| drop(rows.insert(row, text))))?;
        for (row, text) in rows {
            writer.row(&row, &RowValue::encode(&decode(&text)?).map_err(StoreError::Corrupt)?)?;
        }
        Ok(())
    }

    fn copy_folds(&self, writer: &mut BackupWriter<impl Write>) -> Result<(), BackupError> {
        writer.table(FOLDS.name)?;
        for (hour, Folded { fold, digest }) in self.usage.wait_for(all_folds(&self.usage))? {
            let row = RowValue::encode(&FoldRow { fold, digest, wanted: false }).map_err(StoreError::Corrupt)?;
            writer.row(&hour.0.to_be_bytes(), &row)?;
        }
        Ok(())
    }

    fn marks_now(&self) -> Result<Vec<Mark>, StoreError> {
        let mut marks = Vec::new();
        self.usage.wait_for(pages(&self.usage, "marks", |row, text| marks.push((row, text))))?;
        Ok(marks)
    }
}

fn copy_marks(writer: &mut BackupWriter<impl Write>, marks: &[Mark]) -> Result<(), BackupError> {
    writer.table(FLUSHES.name)?;
    for (row, text) in marks {
        writer.row(row, &RowValue::encode(&mark(text)?).map_err(StoreError::Corrupt)?)?;
    }
    Ok(())
}
