//! The one thread that writes a journal: it takes what waits, writes it at once, syncs once, and then answers.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::Standing;
use super::contents::Tail;
use super::entry::Entry;
use super::error::JournalError;
use super::folder::{Folder, Head, Names};
use super::frame::{Framing, Place};
use super::retention;
use super::segment::{self, HEADER, Header};
use crate::fault;
use crate::store::audit::Actor;
use crate::store::intent::{Action, AuditHead, Intent, Noted};
use crate::time::WallTime;

/// Entries in one write at most.
const BATCH: usize = 256;
/// A segment that is longer than this, in bytes, is the last one to be written to no more.
const SEGMENT: u64 = 8 << 20;
/// More segments than this, and the log says that backups are missing.
const MANY_SEGMENTS: u64 = 16;

/// What the thread is asked to write.
pub enum Job {
    Intend { action: Action, actor: Actor, now: WallTime, done: oneshot::Sender<Result<Intent, JournalError>> },
    Done { no: u64, noted: Noted },
    Refuse { no: u64, done: oneshot::Sender<Result<(), JournalError>> },
    Audited { head: AuditHead, done: oneshot::Sender<Result<(), JournalError>> },
}

pub struct Writer {
    folder: Folder,
    names: Names,
    framing: Framing,
    /// The segment that is written to.
    file: File,
    head_file: File,
    /// On the disk for certain.
    head: Head,
    /// What was written, synced or not.
    written: u64,
    /// The number of the last intent.
    last: u64,
    standing: Arc<Mutex<Standing>>,
    broken: Option<String>,
}

/// Somebody who waits for a batch.
enum Waiting {
    Intent(Intent, oneshot::Sender<Result<Intent, JournalError>>),
    Refusal(u64, oneshot::Sender<Result<(), JournalError>>),
    Mark(oneshot::Sender<Result<(), JournalError>>),
    Nobody(u64),
}

impl Waiting {
    /// Waits until the entry is on the disk.
    fn for_the_disk(&self) -> bool {
        !matches!(self, Self::Nobody(_))
    }
}

impl Writer {
    /// Cuts the torn tail and goes on behind it.
    pub fn resume(
        folder: Folder,
        names: Names,
        framing: Framing,
        tail: Tail,
        standing: Arc<Mutex<Standing>>,
    ) -> Result<Self, JournalError> {
        let Tail { head, torn, .. } = tail;
        let path = folder.segment(head.segment);
        let file = OpenOptions::new().write(true).open(&path).map_err(JournalError::io(&path))?;
        if torn > 0 {
            tracing::warn!(file = %path.display(), at = head.length, bytes = torn, "the journal had a torn tail, which is cut");
        }
        file.set_len(head.length).and_then(|()| file.sync_all()).map_err(JournalError::io(&path))?;
        folder.make_head(head)?;
        let head_file = folder.open_head()?;
        Ok(Self {
            folder,
            names,
            framing,
            file,
            head_file,
            head,
            written: head.length,
            last: head.last,
            standing,
            broken: None,
        })
    }

    pub fn serve(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH {
                let Ok(job) = jobs.try_recv() else { break };
                batch.push(job);
            }
            self.settle(batch);
        }
        if let Err(error) = self.sync() {
            tracing::warn!(%error, "the end of the journal could not be synced");
        }
    }

    fn settle(&mut self, batch: Vec<Job>) {
        let (entries, waiting) = numbered(batch, self.last);
        let ended = self.write(&entries, waiting.iter().any(Waiting::for_the_disk));
        if let Err(error) = &ended {
            tracing::error!(%error, "the journal could not be written");
        }
        for waiting in waiting {
            self.answer(waiting, ended.as_ref().err());
        }
    }

    /// All of it or nothing.
    fn write(&mut self, entries: &[Entry], synced: bool) -> Result<(), JournalError> {
        if let Some(why) = &self.broken {
            return Err(JournalError::Broken(why.clone()));
        }
        if self.written > SEGMENT {
            let rotated = self.rotate();
            self.broken = rotated.as_ref().err().map(ToString::to_string);
            rotated?;
        }
        let before = (self.written, self.last);
        let ended = self.append(entries).and_then(|()| if synced { self.sync() } else { Ok(()) });
        if ended.is_err() {
            self.take_back(before);
        }
        ended
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for entry in entries {
            let place = Place { segment: self.head.segment, offset: self.written + bytes.len() as u64 };
            bytes.extend(self.framing.frame(place, entry).map_err(|_| JournalError::CannotSeal)?);
            if let Entry::Intent(intent) = entry {
                self.last = intent.no;
            }
        }
        let path = self.folder.segment(self.head.segment);
        fault::point("journal.before_write");
        if fault::strikes("journal.half_written") {
            let _ = self.file.write_all_at(bytes.get(..bytes.len() / 2).unwrap_or_default(), self.written);
            fault::strike();
        }
        self.file.write_all_at(&bytes, self.written).map_err(JournalError::io(&path))?;
        self.written += bytes.len() as u64;
        fault::point("journal.before_sync");
        Ok(())
    }

    /// First the entries, then the head: it never says more than is there.
    fn sync(&mut self) -> Result<(), JournalError> {
        let path = self.folder.segment(self.head.segment);
        self.file.sync_data().map_err(JournalError::io(&path))?;
        fault::point("journal.before_head");
        self.head = Head { length: self.written, last: self.last, ..self.head };
        self.head.write(&self.head_file).map_err(JournalError::io(&self.folder.path))
    }

    /// What was not answered must not be found at the next start either.
    fn take_back(&mut self, (written, last): (u64, u64)) {
        let undone = self.file.set_len(written).and_then(|()| self.file.sync_all());
        (self.written, self.last) = (written, last);
        if let Err(error) = undone {
            self.broken = Some(format!("a failed write could not be taken back: {error}"));
        }
    }

    fn answer(&self, waiting: Waiting, failed: Option<&JournalError>) {
        let outcome = failed.map_or(Ok(()), |error| Err(JournalError::Broken(error.to_string())));
        let mut standing = self.standing.lock();
        // Who has gone away does not undo what is written.
        match waiting {
            Waiting::Intent(intent, done) => {
                if outcome.is_ok() {
                    standing.open.insert(intent.no);
                    standing.last = standing.last.max(intent.no);
                }
                drop(standing);
                let _ = done.send(outcome.map(|()| intent));
            }
            Waiting::Refusal(no, done) => {
                if outcome.is_ok() {
                    standing.open.remove(&no);
                }
                drop(standing);
                let _ = done.send(outcome);
            }
            Waiting::Mark(done) => {
                drop(standing);
                let _ = done.send(outcome);
            }
            // The store knows that it has made it, whatever became of this entry.
            Waiting::Nobody(no) => drop(standing.open.remove(&no)),
        }
    }

    /// Closes the segment, begins the next one, and drops those that are not needed any more.
    fn rotate(&mut self) -> Result<(), JournalError> {
        self.sync()?;
        let number = self.head.segment + 1;
        let header = Header { names: self.names, number, first: self.head.last + 1, previous: self.written };
        self.file = segment::make(&self.folder, header)?;
        self.written = HEADER;
        let first = self.first_needed();
        self.head = Head { first, segment: number, length: HEADER, ..self.head };
        self.folder.make_head(self.head)?;
        self.head_file = self.folder.open_head()?;
        if number - first > MANY_SEGMENTS {
            tracing::warn!(segments = number - first, "the journal is long; it is cut after two verified backups");
        }
        self.drop_before(first)
    }

    /// The first segment with a change that a verified backup may lack.
    fn first_needed(&self) -> u64 {
        let forget = retention::may_forget(&self.folder.path, self.names.journal_id).unwrap_or_else(|error| {
            tracing::warn!(%error, "nothing of the journal is dropped");
            0
        });
        let forget = forget.min(self.standing.lock().settled());
        let ends_before = |number: &u64| {
            let next = segment::header(&self.folder.segment(number + 1));
            next.is_ok_and(|next| next.first <= forget + 1)
        };
        self.head.first + (self.head.first..self.head.segment).take_while(ends_before).count() as u64
    }

    /// The head has let go of them, so a crash in between leaves files that the next rotation removes.
    fn drop_before(&self, first: u64) -> Result<(), JournalError> {
        for number in self.folder.segments()?.into_iter().filter(|number| *number < first) {
            let path = self.folder.segment(number);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(JournalError::io(&path)(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Gives each new intent its number.
fn numbered(batch: Vec<Job>, mut last: u64) -> (Vec<Entry>, Vec<Waiting>) {
    let pairs = batch.into_iter().map(|job| match job {
        Job::Intend { action, actor, now, done } => {
            last += 1;
            let intent = Intent { no: last, action, actor, now };
            (Entry::Intent(intent.clone()), Waiting::Intent(intent, done))
        }
        Job::Done { no, noted } => (Entry::Done { no, noted }, Waiting::Nobody(no)),
        Job::Refuse { no, done } => (Entry::Refused { no }, Waiting::Refusal(no, done)),
        Job::Audited { head, done } => (Entry::Audited(head), Waiting::Mark(done)),
    });
    pairs.unzip()
}
