//! The journal of a control plane: every change it acknowledges, written down before the store is asked (design, section 5).
//!
//! A change is an intent, on the disk before the store hears of it, and later either done or refused. A refusal is on the disk
//! before it is answered, so what was refused is never made; `done` is not waited for, because the store itself knows by the
//! number of an intent whether it has made it. Changes that come at once share one fsync.
//!
//! What it is good for: after a crash, what was written down and neither done nor refused is asked for again; after a restore
//! from a backup, everything that the backup lacks is made again, so a deleted key stays deleted.
//!
//! How long it is kept: a segment goes only when every change in it is in the older one of the last two backups that were read
//! back and found good (see [`retention`]). Without backups it grows, by about a kilobyte per change, and says so in the log.

mod contents;
pub mod entry;
mod error;
pub mod folder;
mod frame;
pub mod history;
pub mod replay;
pub mod retention;
mod segment;
mod writer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub use self::error::JournalError;
use self::folder::{Folder, Head, Names};
use self::history::History;
use self::retention::VerifiedBackup;
use self::segment::{HEADER, Header};
use self::writer::{Job, Writer};
use crate::control::seal::Sealer;
use crate::principal::{JournalId, StoreId};
use crate::store::audit::Actor;
use crate::store::intent::{Action, AuditHead, Intent, Noted};
use crate::time::WallTime;

/// Changes that may wait to be written; whoever comes then waits for a place in the queue.
const QUEUE: usize = 1024;

/// A journal that is open for writing. Dropping it writes what waits and ends.
pub struct Journal {
    path: PathBuf,
    names: Names,
    first_intent: u64,
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    standing: Arc<Mutex<Standing>>,
}

/// Which changes are neither done nor refused.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    open: BTreeSet<u64>,
    last: u64,
    /// The last known entry of the audit log.
    audit: Option<AuditHead>,
}

impl Journal {
    /// Opens the journal, or begins one for this store where there is none. A torn tail is cut; damage anywhere else, another
    /// store's journal, and one that is in use are errors. It blocks.
    pub fn open(path: &Path, sealer: &Sealer, store_id: StoreId) -> Result<(Self, History), JournalError> {
        let folder = Folder::lock(path)?;
        if folder::names_in(path)?.is_none() {
            begin(&folder, sealer, store_id)?;
        }
        let (names, framing) = folder.key(sealer)?;
        if names.store_id != store_id {
            let (journal, store) = (names.store_id, store_id);
            return Err(JournalError::OtherStore { path: path.to_owned(), journal, store });
        }
        let (tail, history) = history::read(&folder, names, &framing)?;
        let open = history.open.iter().map(|intent| intent.no).collect();
        let standing = Standing { open, last: tail.head.last, audit: history.audit };
        let standing = Arc::new(Mutex::new(standing));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer::resume(folder, names, framing, tail, Arc::clone(&standing))?;
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.serve(jobs));
        let thread = thread.map_err(JournalError::io(path))?;
        let first_intent = tail.first_intent;
        Ok((
            Self { path: path.to_owned(), names, first_intent, queue: Some(queue), thread: Some(thread), standing },
            history,
        ))
    }

    pub fn id(&self) -> JournalId {
        self.names.journal_id
    }

    /// The number of the first change that is still in it.
    pub fn first_intent(&self) -> u64 {
        self.first_intent
    }

    /// The last backups that were read back and found good, oldest first.
    pub fn verified_backups(&self) -> Result<Vec<VerifiedBackup>, JournalError> {
        retention::verified(&self.path)
    }

    /// The number of the last change written down.
    pub fn last_intent(&self) -> u64 {
        self.standing.lock().last
    }

    /// Every change up to this number is done or refused: what a backup taken from now on certainly holds.
    pub fn settled(&self) -> u64 {
        self.standing.lock().settled()
    }

    /// The audit log as the journal knows it: it must still reach at least that far.
    pub fn audit_head(&self) -> Option<AuditHead> {
        self.standing.lock().audit
    }

    /// Writes a change down. When it returns, it is on the disk and has its number; on an error, nothing happened.
    pub async fn intend(&self, action: Action, actor: Actor, now: WallTime) -> Result<Intent, JournalError> {
        self.ask(|done| Job::Intend { action, actor, now, done }).await
    }

    /// The store has made it. Written with what comes next; nobody waits for it.
    pub async fn done(&self, no: u64, noted: Noted) {
        self.standing.lock().saw_audit(noted.audit);
        // A journal that cannot be written any more says so to the next change; the store knows this one.
        let _ = self.send(Job::Done { no, noted }).await;
    }

    /// The store answered no. On the disk when it returns.
    pub async fn refused(&self, no: u64) -> Result<(), JournalError> {
        self.ask(|done| Job::Refuse { no, done }).await
    }

    /// How long the audit log is now. On the disk when it returns.
    pub async fn audited(&self, head: AuditHead) -> Result<(), JournalError> {
        self.ask(|done| Job::Audited { head, done }).await?;
        self.standing.lock().audit = Some(head);
        Ok(())
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, JournalError>>) -> Job,
    ) -> Result<T, JournalError> {
        let (done, answer) = oneshot::channel();
        self.send(job(done)).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn send(&self, job: Job) -> Result<(), JournalError> {
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(job).await.map_err(|_| stopped())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

impl Standing {
    /// Changes that were made at once may be settled in another order.
    fn saw_audit(&mut self, head: AuditHead) {
        self.audit = self.audit.filter(|known| known.seq > head.seq).or(Some(head));
    }

    fn settled(&self) -> u64 {
        self.open.first().map_or(self.last, |open| open - 1)
    }
}

fn stopped() -> JournalError {
    JournalError::Broken("its writer stopped".to_owned())
}

/// The key comes last: until it is there, no journal was begun, and what a crash left of these files is written anew.
fn begin(folder: &Folder, sealer: &Sealer, store_id: StoreId) -> Result<(), JournalError> {
    let journal_id = JournalId::random().map_err(|_| JournalError::CannotSeal)?;
    let names = Names { store_id, journal_id };
    for stale in folder.segments()? {
        let path = folder.segment(stale);
        std::fs::remove_file(&path).map_err(JournalError::io(&path))?;
    }
    segment::make(folder, Header { names, number: 1, first: 1, previous: 0 })?;
    folder.make_head(Head { first: 1, segment: 1, length: HEADER, last: 0 })?;
    folder.begin(names, sealer).map(drop)
}

#[cfg(test)]
mod tests;
