//! What an operator does to a store on Redis by hand: make it from a backup, or go on without what is lost.

use std::io::Read;
use std::time::Duration;

use super::answer::unexpected;
use super::fold::fold_text;
use super::lane::Lane;
use super::ledger;
use super::ledger_at::{LedgerAt, LedgerSettings};
use super::opening::{identity_row, leap, no_ids};
use super::restore_usage::RestoredUsage;
use super::source::Source;
use super::writer::push_row;
use super::{Engine, RedisStore, Settings, scripts};
use crate::meter::record::Counters;
use crate::principal::{Epoch, JournalId, StoreId};
use crate::store::StoreError;
use crate::store::audit::{Actor, ActorKind, AuditEvent};
use crate::store::backup::{BackupError, BackupReader, Record};
use crate::store::folds::Folded;
use crate::store::rules::folds::{FoldRow, hour_at};
use crate::store::rules::ledger::line_at;
use crate::store::rules::rows::RowValue;
use crate::store::rules::tables::{
    BASE, FLUSHES, FOLDS, IDENTITY, Identity, JOURNAL, JournalLink, LEDGER, META_JOURNAL, NAMES, SCHEMA_VERSION,
    SIGNED_IN,
};
use crate::time::WallTime;

/// Rows in one script. No more than lines in one merge, since sums of usage are read by that measure.
const BATCH: usize = 500;

/// What was done by hand, as it is kept until it is in the audit log: time, action, detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub at: WallTime,
    pub action: String,
    pub detail: String,
}

impl Note {
    fn text(&self) -> String {
        format!("{} {} {}", self.at.0, self.action, self.detail)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (at, action, detail) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        Some(Self { at: WallTime(at), action: action.to_owned(), detail: detail.to_owned() })
    }

    fn event(self) -> AuditEvent {
        let actor = Actor { kind: ActorKind::Operator, id: "command line".to_owned(), from: None };
        let (action, subject) = (self.action, "store".to_owned());
        AuditEvent { at: self.at, actor, action, subject, account_id: None, detail: Some(self.detail) }
    }
}

/// A connection for what is done by hand, without a store.
pub struct ByHand {
    lane: Lane,
    /// Where its connection lives.
    engine: Engine,
    lease: Duration,
    /// Where usage is kept, if not in the store.
    ledger: Option<LedgerSettings>,
}

impl ByHand {
    pub fn reach(settings: &Settings) -> Result<Self, StoreError> {
        let engine = Engine::start()?;
        let source = Source::new(&settings.url, settings.sentinels.as_ref())?;
        let lane = Lane::new(source, engine.handle.clone());
        Ok(Self { lane, lease: settings.lease, ledger: settings.ledger.clone(), engine })
    }

    /// Neither setting up nor opening another epoch waits for the control plane `id` any longer.
    ///
    /// Errors: `Away` where nobody waits for it.
    pub fn go_on_without(&self, id: &str, note: &Note) -> Result<(), StoreError> {
        let mut answer = self.lane.call_and_block(&scripts::WAIVE, &[id.as_bytes(), note.text().as_bytes()])?;
        match answer.said.as_str() {
            "OK" => Ok(()),
            "FROZEN" => Err(StoreError::Frozen(answer.text()?)),
            "OPEN" => Err(StoreError::Away("the store is open: nobody waits for a control plane".to_owned())),
            _ => Err(unexpected("an answer of an unknown kind")),
        }
    }

    /// Goes on with one replica less, or with `undo` one more: changes wait for so many fewer, and so does Redis where it is told
    /// to refuse writes without them. Returns how many replicas of the `configured` ones are gone on without.
    ///
    /// Errors: `Away` where this user of Redis may not change its settings.
    pub fn drop_replica(&self, undo: bool, configured: usize, note: &Note) -> Result<usize, StoreError> {
        // In a cluster this finds the server that has the store.
        self.lane.call_and_block(&scripts::DESCRIBE, &[])?;
        // First Redis, which may refuse to write anything until then.
        let setting = "min-replicas-to-write";
        let read = self.lane.command_and_block(redis::cmd("CONFIG").arg("GET").arg(setting))?;
        let read: Vec<String> =
            redis::from_redis_value(read).map_err(|_| unexpected("a setting that cannot be read"))?;
        let demanded: usize = read.get(1).and_then(|value| value.parse().ok()).unwrap_or_default();
        let (fewer, more) = (demanded.saturating_sub(1), (demanded + 1).min(configured));
        if !undo && demanded > 0 {
            self.lane.command_and_block(redis::cmd("CONFIG").arg("SET").arg(setting).arg(fewer))?;
        }
        let (by, most) = (if undo { "-1" } else { "1" }, configured.to_string());
        let arguments = [by.as_bytes(), most.as_bytes(), note.text().as_bytes()].map(<[u8]>::to_vec);
        let arguments: Vec<_> = arguments.iter().map(Vec::as_slice).collect();
        let mut answer = self.lane.call_and_block(&scripts::DROP_REPLICA, &arguments)?;
        if answer.said != "OK" {
            return Err(StoreError::Away("redis has no store".to_owned()));
        }
        if undo && demanded > 0 {
            self.lane.command_and_block(redis::cmd("CONFIG").arg("SET").arg(setting).arg(more))?;
        }
        answer.parsed()
    }

    /// Makes a store from a backup on a Redis that has none: the same store id. It stays closed until every control plane has made
    /// its changes again. `without` is the row of a journal that is given up. A restore that was cut short is begun again.
    pub fn restore<R: Read>(
        &self,
        mut backup: BackupReader<R>,
        without: Option<&str>,
        note: &Note,
    ) -> Result<(), BackupError> {
        if backup.header.schema != SCHEMA_VERSION {
            return Err(BackupError::OtherSchema(backup.header.schema));
        }
        let store_id = backup.header.store_id;
        let ledger = self.ledger.as_ref().map(|at| LedgerAt::apart(at, &self.engine, store_id));
        let mut usage = ledger.transpose()?.map(RestoredUsage::begin).transpose()?;
        let told = format!("it is made from the backup of {} now ({})", backup.header.taken_at, note.at);
        let mut arguments = vec![told.as_bytes()];
        arguments.extend(NAMES.iter().map(|name| name.as_bytes()));
        let mut answer = self.lane.call_and_block(&scripts::RESTORE_BEGIN, &arguments)?;
        if answer.said != "OK" {
            let there = answer.text()?;
            return Err(StoreError::Frozen(format!(
                "redis holds the store {there}. A backup is restored into an empty redis: empty this one first, or name another"
            ))
            .into());
        }
        let mut lease = self.lease;
        let mut batch = Batch::default();
        while let Some(record) = backup.read_record()? {
            let Record::Row { key, value } = record else { continue };
            if backup.table == META_JOURNAL.name && key == IDENTITY.as_bytes() {
                let identity = Identity::decode(&value).map_err(StoreError::Corrupt)?;
                lease = lease.max(Duration::from_millis(identity.lease_ms));
            }
            if without.is_some_and(|row| backup.table == META_JOURNAL.name && key == row.as_bytes()) {
                continue;
            }
            match &mut usage {
                Some(usage) if backup.table == LEDGER.name => usage.line(key, &decoded(&value)?)?,
                Some(usage) if backup.table == FLUSHES.name => usage.mark(key, decoded(&value)?)?,
                _ => batch.take(&backup.table, key, &value)?,
            }
            if batch.rows >= BATCH {
                self.put(&told, &mut batch)?;
            }
        }
        self.put(&told, &mut batch)?;
        if let Some(usage) = &mut usage {
            usage.end()?;
        }
        Ok(self.end(&told, store_id, lease, note)?)
    }

    fn put(&self, told: &str, batch: &mut Batch) -> Result<(), StoreError> {
        let mut arguments = vec![told.as_bytes()];
        arguments.extend(batch.arguments.iter().map(Vec::as_slice));
        good(self.lane.call_and_block(&scripts::RESTORE_ROWS, &arguments)?)?;
        *batch = Batch::default();
        Ok(())
    }

    fn end(&self, told: &str, store_id: StoreId, most: Duration, note: &Note) -> Result<(), StoreError> {
        let epoch = Epoch::random().map_err(no_ids)?;
        let identity = identity_row(store_id, epoch, self.lease)?;
        let mut row = Batch::default();
        row.take(META_JOURNAL.name, IDENTITY.as_bytes().to_vec(), &identity)?;
        self.put(told, &mut row)?;
        let texts = [
            told.to_owned(),
            store_id.to_string(),
            SCHEMA_VERSION.to_string(),
            epoch.to_string(),
            self.lease.as_millis().to_string(),
            most.as_millis().to_string(),
            leap()?.to_string(),
            note.text(),
        ];
        let arguments: Vec<_> = texts.iter().map(String::as_bytes).collect();
        good(self.lane.call_and_block(&scripts::RESTORE_END, &arguments)?)
    }
}

fn good(answer: super::answer::Answer) -> Result<(), StoreError> {
    match answer.said.as_str() {
        "OK" => Ok(()),
        "STOPPED" => Err(StoreError::Away("another restore has begun; this one is given up".to_owned())),
        _ => Err(unexpected("an answer of an unknown kind")),
    }
}

/// Rows on their way, as the script takes them.
#[derive(Default)]
struct Batch {
    arguments: Vec<Vec<u8>>,
    rows: usize,
}

impl Batch {
    fn take(&mut self, table: &str, key: Vec<u8>, value: &[u8]) -> Result<(), StoreError> {
        self.rows += 1;
        if table == LEDGER.name {
            let (hour, line) = (line_at(&key)?.hour, ledger::encode(&decoded::<Counters>(value)?)?);
            self.arguments.extend([b"u".to_vec(), hour.0.to_string().into_bytes(), key, line]);
        } else if table == FLUSHES.name {
            let mark = ledger::mark_text(&decoded(value)?)?;
            self.arguments.extend([b"m".to_vec(), Vec::new(), key, mark]);
        } else if table == BASE.name {
            let counters = ledger::encode(&decoded(value)?)?;
            self.arguments.extend([b"b".to_vec(), Vec::new(), key, counters]);
        } else if table == FOLDS.name {
            let (hour, row) = (hour_at(&key)?, decoded::<FoldRow>(value)?);
            let text = fold_text(&Folded { fold: row.fold, digest: row.digest });
            let hour = hour.0.to_string().into_bytes();
            self.arguments.extend([b"f".to_vec(), Vec::new(), hour, text]);
        } else if let Some(known) = NAMES.into_iter().find(|name| *name == table) {
            // Sessions that ended since the backup would be there again.
            if !SIGNED_IN.contains(&known) {
                push_row(&mut self.arguments, &(known, key), Some(value))?;
            }
        } else {
            return Err(StoreError::Corrupt(format!("the backup has a table {table}, which nobody knows")));
        }
        Ok(())
    }
}

fn decoded<T: RowValue>(value: &[u8]) -> Result<T, StoreError> {
    T::decode(value).map_err(StoreError::Corrupt)
}

impl RedisStore {
    /// Puts into the audit log what was done by hand.
    pub async fn write_notes(&self) -> Result<(), StoreError> {
        let mut written = 0;
        loop {
            let count = written.to_string();
            let mut answer =
                self.place.good(self.calls.call(&scripts::NOTES, &[self.place.name(), count.as_bytes()]).await?)?;
            written = 0;
            while !answer.is_at_end() {
                let text = answer.text()?;
                if let Some(note) = Note::read(&text) {
                    self.record(note.event()).await?;
                }
                written += 1;
            }
            if written == 0 {
                return Ok(());
            }
        }
    }

    /// Writes down what an operator did to the store itself.
    pub async fn record(&self, event: AuditEvent) -> Result<(), StoreError> {
        self.queue.write(move |tx| tx.audit(event.clone())).await
    }

    /// The journal whose changes the store takes from this control plane; with none, its next start begins one.
    pub async fn link_journal(&self, journal: Option<JournalId>) -> Result<(), StoreError> {
        let row = self.journal_row.clone();
        let link = journal.map(|journal_id| JournalLink { journal_id });
        self.queue
            .write(move |tx| match &link {
                Some(link) => tx.put(&META_JOURNAL, &row, link),
                None => tx.remove(&META_JOURNAL, &row),
            })
            .await
    }
}

/// The row that names the journal of a control plane.
pub fn journal_row(id: &str) -> String {
    format!("{JOURNAL}:{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let note = Note { at: WallTime(7), action: "store.recover".to_owned(), detail: "without control-2".to_owned() };
        assert_eq!(Note::read(&note.text()), Some(note));
        assert_eq!(Note::read("seven a b"), None);
    }
}
