//! At a start: the journal and the store are held against each other, and what is still open is asked for.

use super::error::JournalError;
use super::history::History;
use super::{Journal, folder};
use crate::principal::JournalId;
use crate::store::StoreError;
use crate::store::accounts::AccountError;
use crate::store::intent::{Intent, Rules, Submit};

/// Why a journal and a store do not go together, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Whether a store that takes its changes from `linked` may go on with the journal in this folder, or begin one there. Asked
/// before one is begun.
pub fn check_link(path: &std::path::Path, linked: Option<JournalId>) -> Result<(), JournalError> {
    let Some(store) = linked else {
        return Ok(());
    };
    let here = match folder::names_in(path)? {
        Some(names) if names.journal_id == store => return Ok(()),
        Some(names) => format!("the one here is {}", names.journal_id),
        None => "there is none here".to_owned(),
    };
    Err(JournalError::OtherJournal { path: path.to_owned(), store, here })
}

/// Attaches the journal to the store, and settles what a crash left open. Nothing may be served before it returns.
pub async fn attach<S: Submit>(store: &S, journal: &Journal, history: History) -> Result<(), AttachError> {
    let made = store.last_intent(journal.id()).await?;
    if made > journal.last_intent() {
        let held = journal.last_intent();
        return Err(JournalError::CutOff { journal: journal.id(), made, held }.into());
    }
    if store.journal().await?.is_none() {
        store.attach_journal(journal.id()).await?;
    }
    for intent in history.open {
        settle(store, journal, intent).await?;
    }
    store.forget_intents(journal.id(), journal.first_intent()).await?;
    if let Some(head) = store.audit_head().await? {
        journal.audited(head).await?;
    }
    Ok(())
}

/// The store finds the note of a change that it has made, so asking again changes nothing.
async fn settle<S: Submit>(store: &S, journal: &Journal, intent: Intent) -> Result<(), AttachError> {
    let (no, change) = (intent.no, intent.action.name());
    match store.submit(journal.id(), intent, Rules::Enforced).await {
        Ok(submitted) => {
            tracing::info!(no, change, made_now = submitted.outcome.is_some(), "a change of the journal was settled");
            journal.done(no, submitted.noted).await;
        }
        Err(AccountError::Refused(refusal)) => {
            tracing::info!(no, change, %refusal, "a change of the journal was refused");
            journal.refused(no).await?;
        }
        Err(AccountError::Store(error)) => return Err(error.into()),
        Err(AccountError::Pending) => return Err(StoreError::Away("a change was not taken".to_owned()).into()),
    }
    Ok(())
}
