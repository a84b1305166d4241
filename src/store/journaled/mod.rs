//! A store behind a journal: each change is written down, then made, then settled. Everything else goes straight through.
//!
//! Not in the journal: sessions, step-ups and grants. They live for hours at most; after a restore everybody signs in anew.

mod accounts;
mod through;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::StoreError;
use super::accounts::{AccountError, Answer};
use super::audit::Actor;
use super::intent::{Action, Intent, Outcome, Rules, Submit, Submitted};
use crate::fault;
use crate::journal::{Journal, JournalError};
use crate::time::WallTime;

/// How long between two attempts to have a change taken by a store that is away.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Changes that may wait for a store that is away; above it nothing more is promised.
const WAITING_MOST: usize = 1024;

/// A store whose changes are in a journal.
pub struct Journaled<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    store: Arc<S>,
    journal: Journal,
    /// Places for changes that are written down and not taken yet.
    waiting: Arc<Semaphore>,
}

impl<S: Submit + 'static> Journaled<S> {
    pub fn new(store: Arc<S>, journal: Journal) -> Self {
        Self { shared: Arc::new(Shared { store, journal, waiting: Arc::new(Semaphore::new(WAITING_MOST)) }) }
    }

    /// Runs to its end also when its caller goes away: a change that is written down is not left for the next start.
    async fn change<T: TryFrom<Outcome, Error = StoreError>>(
        &self,
        action: Action,
        actor: Actor,
        now: WallTime,
    ) -> Answer<T> {
        let shared = Arc::clone(&self.shared);
        let ended = tokio::spawn(async move { shared.change(action, actor, now).await }).await;
        let outcome = ended.map_err(|error| StoreError::Away(format!("a change ended early: {error}")))??;
        Ok(T::try_from(outcome)?)
    }

    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    pub fn store(&self) -> &S {
        &self.shared.store
    }

    /// The store, unless changes of before have still to be made again in it: what is not there yet is not unknown.
    fn open(&self) -> Result<&S, StoreError> {
        self.shared.store.check_open()?;
        Ok(&self.shared.store)
    }

    pub fn store_arc(&self) -> Arc<S> {
        Arc::clone(&self.shared.store)
    }
}

impl<S: Submit + 'static> Shared<S> {
    async fn change(self: Arc<Self>, action: Action, actor: Actor, now: WallTime) -> Answer<Outcome> {
        let place = Arc::clone(&self.waiting).try_acquire_owned();
        let place = place.map_err(|_| StoreError::Away("too many changes wait for the store".to_owned()))?;
        self.store.check_open()?;
        fault::point("change.asked");
        let intent = self.journal.intend(action, actor, now).await.map_err(not_written)?;
        fault::point("change.intended");
        match self.submit(intent.clone()).await {
            Err(AccountError::Store(error)) => {
                tracing::error!(%error, no = intent.no, change = intent.action.name(), "the store has not taken a change yet");
                tokio::spawn(async move {
                    self.submit_until_taken(intent).await;
                    drop(place);
                });
                Err(AccountError::Pending)
            }
            // It was made while its answer was lost, and what it gave back with it.
            Ok(None) => Err(AccountError::Pending),
            Ok(Some(outcome)) => Ok(outcome),
            Err(refused) => Err(refused),
        }
    }

    async fn submit_until_taken(&self, intent: Intent) {
        loop {
            tokio::time::sleep(TRY_EVERY).await;
            match self.submit(intent.clone()).await {
                Err(AccountError::Store(_)) => {}
                Err(refused) => return tracing::error!(no = intent.no, %refused, "a change that waited was refused"),
                Ok(_) => return tracing::info!(no = intent.no, "the store has taken a change that waited"),
            }
        }
    }

    /// Asks the store and settles the change. An error of the store says nothing about it; without an outcome the change was made
    /// before it was asked for now.
    async fn submit(&self, intent: Intent) -> Answer<Option<Outcome>> {
        let no = intent.no;
        self.store.check_open()?;
        match self.store.submit(self.journal.id(), intent, Rules::Enforced).await {
            Ok(Submitted { noted, outcome }) => {
                fault::point("change.made");
                self.journal.done(no, noted).await;
                fault::point("change.settled");
                Ok(outcome)
            }
            Err(AccountError::Refused(refusal)) => {
                fault::point("change.denied");
                if let Err(error) = self.journal.refused(no).await {
                    tracing::error!(%error, no, "a refusal could not be written down; at the next start it may be asked for again");
                }
                fault::point("change.refused");
                Err(refusal.into())
            }
            Err(error) => Err(error),
        }
    }
}

/// Before the fsync a failure means that nothing happened.
fn not_written(error: JournalError) -> StoreError {
    StoreError::Away(format!("the change could not be written down: {error}"))
}
