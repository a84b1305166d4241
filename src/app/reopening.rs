//! Looks after a store on a server that may be replaced or restarted: what this control plane acknowledged is made again on a
//! server that may lack it, and then another epoch is opened (design, section 5).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::AppError;
use crate::control::seal::Sealer;
use crate::journal::JournalError;
use crate::journal::history::{self, Whole};
use crate::store::StoreError;
use crate::store::accounts::AccountError;
use crate::store::intent::{Rules, Submit};
use crate::store::redis::{Opened, RedisStore};

/// How often it is looked whether the server is still the same.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks between two questions for what was done by hand.
const NOTES_EVERY: u32 = 20;

/// A thread that looks. Dropping it stops it.
pub struct Reopening {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

struct Looking {
    store: Arc<RedisStore>,
    journal: PathBuf,
    sealer: Sealer,
    /// The server on which everything was made again, while others have still to do it.
    made_on: Option<String>,
    last_error: Option<String>,
    /// Looks since it was asked what was done by hand.
    since_notes: u32,
}

#[derive(Debug, thiserror::Error)]
enum ReopenError {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("change {no} ({change}) of the journal could not be made again: {why}")]
    NotMade { no: u64, change: &'static str, why: String },
}

impl Reopening {
    pub fn start(store: Arc<RedisStore>, journal: &Path, sealer: Sealer) -> Result<Self, AppError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
        let mut looking = Looking {
            store,
            journal: journal.to_owned(),
            sealer,
            made_on: None,
            last_error: None,
            since_notes: NOTES_EVERY,
        };
        // At once, so that what follows finds the store open if it can be.
        runtime.block_on(looking.look_and_tell());
        let (stop, mut stopped) = watch::channel(false);
        let run = move || {
            runtime.block_on(async move {
                while tokio::time::timeout(LOOK_EVERY, stopped.changed()).await.is_err() {
                    looking.look_and_tell().await;
                }
            });
        };
        let thread = std::thread::Builder::new().name("reopening".into()).spawn(run).map_err(AppError::Thread)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Reopening {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // What it left undone the next start does.
            let _ = thread.join();
        }
    }
}

impl Looking {
    /// The same trouble is told once.
    async fn look_and_tell(&mut self) {
        let error = self.look().await.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|error| self.last_error.as_ref() != Some(error)) {
            tracing::error!(error, "the store is looked after");
        }
        self.last_error = error;
    }

    async fn look(&mut self) -> Result<(), ReopenError> {
        let Some(server) = self.store.look_for_another_server().await? else {
            self.made_on = None;
            self.since_notes += 1;
            if self.since_notes > NOTES_EVERY {
                self.store.write_notes().await?;
                self.since_notes = 0;
            }
            return Ok(());
        };
        if self.made_on.as_ref() != Some(&server) {
            let whole = history::read_beside(&self.journal, &self.sealer)?;
            let made = self.make_again(whole).await?;
            tracing::warn!(
                made,
                "redis was replaced or restarted; what it lacked of this control plane was made again"
            );
            self.made_on = Some(server);
        }
        match self.store.open_epoch().await? {
            Opened::Open => {
                self.made_on = None;
                self.since_notes = NOTES_EVERY;
            }
            Opened::Waiting => {}
        }
        Ok(())
    }

    /// Of what the journal knows, what the store has no note of. What was lost need not be the last: changes are made side by side.
    async fn make_again(&self, whole: Whole) -> Result<usize, ReopenError> {
        let (journal, mut commit, mut made) = (whole.names.journal_id, whole.last_commit(), 0);
        let done = whole.done.into_iter().map(|(noted, intent)| (Rules::Waived { commit: noted.commit }, intent));
        let open = whole.open.into_iter().map(|intent| {
            commit += 1;
            // Nobody may have been answered: only what takes something away is made whatever the rules say now.
            (if intent.action.is_deletion() { Rules::Waived { commit } } else { Rules::Enforced }, intent)
        });
        // Thousands of changes are there for each one that is not.
        let noted = self.store.noted(journal).await?;
        for (rules, intent) in done.chain(open).filter(|(_, intent)| !noted.contains(&intent.no)) {
            let (no, change) = (intent.no, intent.action.name());
            match self.store.submit(journal, intent, rules).await {
                Ok(submitted) => made += usize::from(submitted.outcome.is_some()),
                Err(AccountError::Refused(_)) if rules == Rules::Enforced => {}
                Err(AccountError::Store(error)) => return Err(error.into()),
                Err(error) => return Err(ReopenError::NotMade { no, change, why: error.to_string() }),
            }
        }
        Ok(made)
    }
}
