//! Changes from a journal: each is made once, together with the note that it was made.

use std::collections::HashSet;
use std::ops::ControlFlow;

use async_trait::async_trait;

use super::rows::{Rows, Span, Step};
use super::tables::{AUDIT_HEAD, COMMITS, INTENTS, JournalLink, META_AUDIT, META_JOURNAL, META_NUMBERS, ROW_NO};
use super::{Backend, Changes, accounts, audit, clusters, keys, usage, users};
use crate::fault;
use crate::principal::JournalId;
use crate::store::StoreError;
use crate::store::accounts::{Answer, Changed};
use crate::store::audit::{AuditVerdict, GENESIS};
use crate::store::intent::{Action, AuditHead, Intent, Noted, Outcome, Rules, Submit, Submitted};

#[async_trait]
impl<S: Backend> Submit for S {
    fn check_open(&self) -> Result<(), StoreError> {
        Backend::check_open(self)
    }

    async fn submit(&self, journal: JournalId, intent: Intent, rules: Rules) -> Answer<Submitted> {
        self.write(move |tx| submit(tx, journal, &intent, rules)).await
    }

    async fn journal(&self) -> Result<Option<JournalId>, StoreError> {
        let row = self.journal_row().to_owned();
        self.read(move |rows| Ok(META_JOURNAL.get(rows, &row)?.map(|link| link.journal_id))).await
    }

    async fn attach_journal(&self, journal_id: JournalId) -> Result<(), StoreError> {
        let row = self.journal_row().to_owned();
        self.write(move |tx| tx.put(&META_JOURNAL, &row, &JournalLink { journal_id })).await
    }

    async fn last_intent(&self, journal: JournalId) -> Result<u64, StoreError> {
        self.read(move |rows| last_intent(rows, journal)).await
    }

    async fn noted(&self, journal: JournalId) -> Result<HashSet<u64>, StoreError> {
        self.read_long(move |rows| noted(rows, journal)).await
    }

    async fn audit_head(&self) -> Result<Option<AuditHead>, StoreError> {
        self.read(|rows| META_AUDIT.get(rows, AUDIT_HEAD)).await
    }

    async fn verify_audit_from(&self, known: Option<AuditHead>) -> Result<AuditVerdict, StoreError> {
        self.read_long(move |rows| audit::verify(rows, known)).await
    }

    async fn forget_intents(&self, journal: JournalId, before: u64) -> Result<(), StoreError> {
        let span = Span::prefix(&journal).before(&(journal, before));
        self.write(move |tx| tx.remove_all(&INTENTS, span.clone())).await
    }
}

fn last_intent(rows: &dyn Rows, journal: JournalId) -> Result<u64, StoreError> {
    let mut last = 0;
    INTENTS.scan(rows, Span::prefix(&journal).backwards(), |key, _| {
        last = number_in(key)?;
        Step::Ok(ControlFlow::Break(()))
    })?;
    Ok(last)
}

fn noted(rows: &dyn Rows, journal: JournalId) -> Result<HashSet<u64>, StoreError> {
    let mut noted = HashSet::new();
    INTENTS.scan(rows, Span::prefix(&journal), |key, _| {
        noted.insert(number_in(key)?);
        Step::Ok(ControlFlow::Continue(()))
    })?;
    Ok(noted)
}

fn number_in(key: &[u8]) -> Result<u64, StoreError> {
    let no = key.get(ROW_NO).and_then(|no| no.try_into().ok()).map(u64::from_be_bytes);
    no.ok_or_else(|| StoreError::Corrupt("table intents: a key has the wrong length".to_owned()))
}

fn submit(tx: &mut dyn Changes, journal: JournalId, intent: &Intent, rules: Rules) -> Answer<Submitted> {
    if let Some(noted) = INTENTS.get(tx, &(journal, intent.no))? {
        return Ok(Submitted { noted, outcome: None });
    }
    let outcome = make(tx, intent, rules)?;
    let last = META_NUMBERS.get(tx, COMMITS)?.unwrap_or_default();
    let commit = match rules {
        Rules::Enforced => last + 1,
        Rules::Waived { commit } => commit,
    };
    tx.put(&META_NUMBERS, COMMITS, &last.max(commit))?;
    let audit = META_AUDIT.get(tx, AUDIT_HEAD)?.unwrap_or(AuditHead { seq: 0, hash: GENESIS });
    let noted = Noted { commit, audit };
    tx.put(&INTENTS, &(journal, intent.no), &noted)?;
    fault::point("change.not_committed");
    Ok(Submitted { noted, outcome: Some(outcome) })
}

fn make(tx: &mut dyn Changes, intent: &Intent, rules: Rules) -> Answer<Outcome> {
    let Intent { action, actor, now, .. } = intent;
    let now = *now;
    Ok(match action {
        Action::CreateAccount(new) => {
            Outcome::Account(Changed { record: accounts::create(tx, new, actor, now)?, revision: None })
        }
        Action::PatchAccount { account_id, patch } => {
            Outcome::Account(accounts::patch(tx, *account_id, patch, actor, now)?)
        }
        Action::CreateCluster(new) => Outcome::Cluster(clusters::create(tx, new, actor, now)?),
        Action::PatchCluster { cluster_id, patch } => {
            Outcome::Cluster(clusters::patch(tx, *cluster_id, patch, actor, now)?)
        }
        Action::DeleteCluster { cluster_id } => Outcome::Cluster(clusters::delete(tx, *cluster_id, actor, now)?),
        Action::CreateKey { .. } | Action::ImportKeys { .. } | Action::PatchKey { .. } | Action::DeleteKey { .. } => {
            return make_to_keys(tx, intent, rules);
        }
        Action::CreateMember { account_id, new } => Outcome::User(users::create(tx, *account_id, new, actor, now)?),
        Action::DeleteMember { account_id, user_id } => {
            Outcome::Nothing(users::delete(tx, *account_id, *user_id, actor, now)?)
        }
        Action::SetPassword { by, password } => {
            Outcome::Nothing(users::set_password(tx, *by, password, rules, actor, now)?)
        }
        Action::ConfirmTotp { by, secret, step } => {
            Outcome::Nothing(users::confirm_totp(tx, *by, (secret, *step), rules, actor, now)?)
        }
        Action::SetRecoveryCodes { by, codes } => {
            Outcome::Nothing(users::set_recovery_codes(tx, *by, codes, rules, actor, now)?)
        }
        Action::ResetRoot { account_id, reset } => {
            Outcome::Nothing(users::reset_root(tx, *account_id, reset, actor, now)?)
        }
        Action::AdjustUsage(new) => Outcome::Adjustment(usage::adjust(tx, new, actor, now)?),
        Action::AbandonGateway { incarnation, reason } => {
            Outcome::Abandoned(usage::abandon(tx, *incarnation, reason, actor, now)?)
        }
    })
}

fn make_to_keys(tx: &mut dyn Changes, intent: &Intent, rules: Rules) -> Answer<Outcome> {
    let Intent { action, actor, now, .. } = intent;
    let (now, enforced) = (*now, rules == Rules::Enforced);
    Ok(match action {
        Action::CreateKey { new, limits } if enforced => Outcome::Key(keys::create(tx, new, *limits, actor, now)?),
        Action::CreateKey { new, limits } => Outcome::Key(keys::create_again(tx, new, *limits, actor, now)?),
        Action::ImportKeys { account_id, new } => Outcome::Keys(keys::import(tx, *account_id, new, actor, now)?),
        Action::PatchKey { account_id, key_id, patch } => {
            Outcome::Key(keys::patch(tx, (*account_id, *key_id), patch, actor, now)?)
        }
        Action::DeleteKey { account_id, key_id, by } => {
            let word = if enforced { keys::Word::Judged(by) } else { keys::Word::Good(by) };
            Outcome::Key(keys::delete(tx, (*account_id, *key_id), word, actor, now)?)
        }
        other => return Err(StoreError::Corrupt(format!("{} is not a change of keys", other.name())).into()),
    })
}
