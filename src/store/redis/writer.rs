//! Changes to a store that others change as well. What waits is worked out in Rust from the rows as they are at one commit, and
//! made by one script if no other commit came between; else it is worked out again. Rows that were read are kept for as long as
//! nobody else commits.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::answer::Answer;
use super::lane::{ANSWER, Lane, jittered};
use super::place::Place;
use super::rows::{View, WALKED};
use super::scripts;
use super::watch::Watch;
use crate::clock;
use crate::principal::{Epoch, Revision};
use crate::store::StoreError;
use crate::store::records::KeyRecord;
use crate::store::rules::queue::Job;
use crate::store::rules::rows::{RowKey, RowValue, Rows, Span, Step};
use crate::store::rules::tables::{KEYS, LOG};
use crate::store::rules::{Changes, Effects};

/// Rounds of a batch; each but the last was overtaken by another control plane.
const ROUNDS: u32 = 60;
/// A commit whose answer was lost is asked for again, so often.
const ATTEMPTS: u32 = 4;
/// Rows kept between batches.
const KEPT: usize = 50_000;
/// Between two rounds, at least.
const STEP_BACK: Duration = Duration::from_millis(1);

/// The one writer of this process, on a thread of its own.
pub struct Writer {
    pub lane: Lane,
    pub place: Arc<Place>,
    pub watch: Arc<Watch>,
    pub options: Options,
    /// By which its commits are known again when an answer was lost.
    name: String,
    sequence: u64,
    /// The server that rows are kept from.
    server: Vec<u8>,
    kept: RefCell<Kept>,
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Entries of the change log that are kept, at least 1.
    pub log_keep: u64,
    /// Replicas that must have a change before it is answered.
    pub replicas: usize,
    /// Told of what the ledger on another server has to tell in its change feed; absent where the ledger is in the store.
    pub posted: Option<Arc<Notify>>,
}

/// Rows as they are at one commit.
#[derive(Default)]
struct Kept {
    at: Option<u64>,
    rows: HashMap<RowName, Option<Vec<u8>>>,
}

type RowName = (&'static str, Vec<u8>);
/// Rows as a transaction leaves them; absent where it removes one.
type Written = BTreeMap<RowName, Option<Vec<u8>>>;

/// What a batch comes to.
enum Round {
    Made,
    Overtaken,
}

impl Writer {
    pub fn new(lane: Lane, place: Arc<Place>, watch: Arc<Watch>, options: Options) -> Result<Self, StoreError> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|error| StoreError::Away(format!("no random numbers: {error}")))?;
        let name = data_encoding::HEXLOWER.encode(&name);
        Ok(Self { lane, place, watch, options, name, sequence: 0, server: Vec::new(), kept: RefCell::default() })
    }

    /// Answers every job. The last one may come to nothing where other control planes are always quicker.
    pub fn settle(&mut self, mut batch: Vec<Box<dyn Job>>) {
        let settled = self.settle_in_rounds(&mut batch);
        for job in batch {
            match &settled {
                Ok(()) => job.answer(),
                Err(error) => job.fail(error.again()),
            }
        }
    }

    fn settle_in_rounds(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        for round in 0..ROUNDS {
            match self.round(batch) {
                Ok(Round::Made) => return Ok(()),
                Ok(Round::Overtaken) => self.forget(),
                Err(error) => {
                    self.forget();
                    return Err(error);
                }
            }
            if round > 0 {
                self.lane.pause_and_block(jittered(STEP_BACK * round.min(20)));
            }
        }
        Err(StoreError::Away("other control planes change the store all the time".to_owned()))
    }

    fn forget(&self) {
        *self.kept.borrow_mut() = Kept::default();
    }

    fn round(&mut self, batch: &mut [Box<dyn Job>]) -> Result<Round, StoreError> {
        let server = self.place.server();
        if server != self.server {
            self.forget();
            self.server = server;
        }
        let at = self.kept.borrow().at;
        let view = View::new(&self.lane, &self.place, at);
        let (mut written, mut effects) = (Written::new(), Effects::default());
        for job in batch {
            let mut tx =
                Tx { view: &view, kept: &self.kept, batch: &written, own: Written::new(), effects: Effects::default() };
            let good = job.run(&mut tx);
            let Tx { own, effects: more, .. } = tx;
            if view.has_moved() {
                return Ok(Round::Overtaken);
            }
            if good {
                written.extend(own);
                effects.changes.extend(more.changes);
                effects.touched.extend(more.touched);
            }
        }
        let at = view.at();
        let Some(at) = at.filter(|_| !written.is_empty()) else {
            return self.verify(at);
        };
        self.commit(at, written, &effects)
    }

    /// Nothing is to be changed. But what was answered has to be true now, not only by what is remembered.
    fn verify(&self, at: Option<u64>) -> Result<Round, StoreError> {
        let answer = self.lane.call_and_block(&scripts::CHECK, &[self.place.name(), &self.server])?;
        let found: u64 = self.place.good(answer)?.parsed()?;
        if at.is_some_and(|at| at != found) {
            return Ok(Round::Overtaken);
        }
        self.wait_for_replicas()?;
        Ok(Round::Made)
    }

    fn commit(&mut self, at: u64, written: Written, effects: &Effects) -> Result<Round, StoreError> {
        self.sequence += 1;
        let arguments = self.arguments(at, &written, effects)?;
        let mut answer = self.ask_until_answered(&arguments)?;
        if answer.said == "CONFLICT" {
            return Ok(Round::Overtaken);
        }
        let made: u64 = answer.parsed()?;
        let told = self.watch.told(&mut answer)?;
        let mut kept = self.kept.borrow_mut();
        kept.at = Some(made);
        kept.rows.extend(written);
        if kept.rows.len() > KEPT {
            *kept = Kept::default();
        }
        drop(kept);
        self.watch.gateways.told(&told, clock::boot());
        if let Some(posted) = self.options.posted.as_ref().filter(|_| !effects.touched.is_empty()) {
            posted.notify_one();
        }
        self.wait_for_replicas()?;
        if let Some((revision, _)) = effects.changes.last() {
            self.watch.replicated.raise(*revision);
        }
        Ok(Round::Made)
    }

    /// Asking again for the same commit changes nothing, so an answer that was lost is asked for again.
    fn ask_until_answered(&self, arguments: &[Vec<u8>]) -> Result<Answer, StoreError> {
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.lane.pause_and_block(jittered(Duration::from_millis(60)));
            }
            match self.lane.call_and_block(&scripts::COMMIT, &arguments) {
                Ok(answer) => return self.place.judged(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| StoreError::Away("redis was not asked".to_owned())))
    }

    fn arguments(&self, at: u64, written: &Written, effects: &Effects) -> Result<Vec<Vec<u8>>, StoreError> {
        let epoch = self.watch.gateways.epoch();
        let messages: Vec<_> = effects.changes.iter().map(|change| message(epoch, change)).collect();
        let mut arguments = vec![
            self.place.name().to_vec(),
            self.server.clone(),
            self.name.clone().into_bytes(),
            self.sequence.to_string().into_bytes(),
            at.to_string().into_bytes(),
            super::pushes::changes_channel(&self.place).into_bytes(),
            messages.len().to_string().into_bytes(),
        ];
        arguments.extend(messages);
        for (row, value) in written {
            push_row(&mut arguments, row, value.as_deref())?;
        }
        let told: &[u8] = if self.options.posted.is_some() { b"b" } else { b"t" };
        for place in &effects.touched {
            arguments.extend([told.to_vec(), Vec::new(), place.clone(), Vec::new()]);
        }
        for (revision, _) in &effects.changes {
            if let Some(old) = revision.0.checked_sub(self.options.log_keep).filter(|old| *old > 0) {
                push_row(&mut arguments, &(LOG.name, old.row_key()), None)?;
            }
        }
        Ok(arguments)
    }

    /// Fewer of them than are asked for: the change is made, and nobody may be told that it is done.
    fn wait_for_replicas(&self) -> Result<(), StoreError> {
        let replicas = self.watch.replicas(self.options.replicas);
        if replicas == 0 {
            return Ok(());
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(replicas).arg((ANSWER.as_millis() / 2) as u64);
        match self.lane.command_behind_and_block(&wait)? {
            redis::Value::Int(count) if usize::try_from(count).is_ok_and(|count| count >= replicas) => Ok(()),
            _ => Err(StoreError::Away("too few replicas have the change".to_owned())),
        }
    }
}

/// What a row means to the script, and beside a key the way that leads to it from its digest.
pub(super) fn push_row(arguments: &mut Vec<Vec<u8>>, row: &RowName, value: Option<&[u8]>) -> Result<(), StoreError> {
    let (table, key) = row;
    let what: &[u8] = match (value.is_some(), WALKED.contains(table)) {
        (true, true) => b"o",
        (true, false) => b"p",
        (false, true) => b"w",
        (false, false) => b"r",
    };
    let entry = [what, table.as_bytes(), key, value.unwrap_or_default()];
    arguments.extend(entry.map(<[u8]>::to_vec));
    if let Some(value) = value.filter(|_| *table == KEYS.name) {
        let record = KeyRecord::decode(value).map_err(StoreError::Corrupt)?;
        let way = [record.credential.key_id.0, record.credential.account_id.0].concat();
        arguments.extend([b"l".to_vec(), Vec::new(), record.digest.0.to_vec(), way]);
    }
    Ok(())
}

fn message(epoch: Epoch, (revision, deleted): &(Revision, Option<crate::key::Digest>)) -> Vec<u8> {
    let deleted = deleted.map_or_else(|| "-".to_owned(), |digest| data_encoding::HEXLOWER.encode(&digest.0));
    format!("{epoch} {revision} {deleted}").into_bytes()
}

/// One change of a batch: it sees what those before it wrote.
struct Tx<'a> {
    view: &'a View<'a>,
    kept: &'a RefCell<Kept>,
    batch: &'a Written,
    own: Written,
    effects: Effects,
}

impl Tx<'_> {
    /// Rows of `table` within `span` that this batch has written; `None` where it removed one.
    fn written(&self, table: &str, span: &Span) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let within = |((name, key), _): &(&RowName, &Option<Vec<u8>>)| *name == table && span.contains(key);
        let all = self.batch.iter().chain(&self.own).filter(within);
        all.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }
}

impl Rows for Tx<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(table) = name_of(table) else {
            return self.view.get(table, key);
        };
        let row = (table, key.to_vec());
        if let Some(written) = self.own.get(&row).or_else(|| self.batch.get(&row)) {
            return Ok(written.clone());
        }
        if let Some(known) = self.kept.borrow().rows.get(&row) {
            return Ok(known.clone());
        }
        let found = self.view.get(table, key)?;
        let mut kept = self.kept.borrow_mut();
        kept.at = self.view.at();
        kept.rows.insert(row, found.clone());
        Ok(found)
    }

    fn scan(&self, table: &str, span: Span, visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        let written = self.written(table, &span);
        if written.is_empty() {
            return self.view.scan(table, span, visit);
        }
        let newest_first = span.is_newest_first();
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        self.view.scan(table, span, &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        for (key, value) in written {
            match value {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        if newest_first {
            rows.reverse();
        }
        for (key, value) in rows {
            if visit(&key, &value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The same name, for as long as the program runs.
fn name_of(table: &str) -> Option<&'static str> {
    crate::store::rules::tables::NAMES.into_iter().find(|name| *name == table)
}

impl Changes for Tx<'_> {
    fn put_row(&mut self, table: &'static str, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.own.insert((table, key), Some(value));
        Ok(())
    }

    fn remove_row(&mut self, table: &'static str, key: Vec<u8>) -> Result<(), StoreError> {
        self.own.insert((table, key), None);
        Ok(())
    }

    fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    fn touch(&mut self, place: Vec<u8>) -> Result<(), StoreError> {
        self.effects.touched.push(place);
        Ok(())
    }
}
