//! A store behind a journal: each change is written down, then made, then settled. Everything else goes straight through.
//!
//! Not in the journal: sessions, step-ups and grants. They live for hours at most; after a restore everybody signs in anew.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, broadcast};

use super::accounts::{
    AccountError, AccountPatch, AccountStore, Answer, Changed, ClusterPatch, DeleteBy, KeyLimits, KeyPatch, KeySlots,
    Keys, NewAccount, NewCluster, NewKey, NewUser, Page, StepUp,
};
use super::audit::{Actor, AuditEntry, AuditQuery, AuditVerdict};
use super::confirm::{Confirmation, GatewayState};
use super::intent::{Action, Intent, Outcome, Rules, Submit, Submitted};
use super::records::{
    AccountRecord, ClusterRecord, GrantFor, KeyRecord, PasswordHash, Sealed, SessionRecord, TokenHash, UserRecord,
};
use super::users::{Oneself, Reset, UserStore};
use super::{ClustersRead, FeedStore, Ledger, Loaded, Push, Renew, Renewal, Store, StoreError, UsageTotal};
use crate::fault;
use crate::journal::{Journal, JournalError};
use crate::key::Digest;
use crate::meter::record::{Flush, LedgerLine};
use crate::principal::{AccountId, ClusterId, Incarnation, KeyId, Revision, SessionId, StoreId, UserId};
use crate::time::{Hour, WallTime};

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

    pub fn store_arc(&self) -> Arc<S> {
        Arc::clone(&self.shared.store)
    }
}

impl<S: Submit + 'static> Shared<S> {
    async fn change(self: Arc<Self>, action: Action, actor: Actor, now: WallTime) -> Answer<Outcome> {
        let place = Arc::clone(&self.waiting).try_acquire_owned();
        let place = place.map_err(|_| StoreError::Away("too many changes wait for the store".to_owned()))?;
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
            answered => answered,
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

    /// Asks the store and settles the change. An error of the store says nothing about it.
    async fn submit(&self, intent: Intent) -> Answer<Outcome> {
        let no = intent.no;
        match self.store.submit(self.journal.id(), intent, Rules::Enforced).await {
            Ok(Submitted { noted, outcome }) => {
                fault::point("change.made");
                self.journal.done(no, noted).await;
                fault::point("change.settled");
                outcome
                    .ok_or_else(|| StoreError::Corrupt(format!("change {no} was made before it was asked for")).into())
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

#[async_trait]
impl<S: Submit + 'static> AccountStore for Journaled<S> {
    async fn create_account(&self, new: NewAccount, actor: Actor, now: WallTime) -> Answer<AccountRecord> {
        let created: Changed<AccountRecord> = self.change(Action::CreateAccount(new), actor, now).await?;
        Ok(created.record)
    }

    async fn account(&self, account_id: AccountId) -> Result<Option<AccountRecord>, StoreError> {
        self.store().account(account_id).await
    }

    async fn list_accounts(&self, page: Page<AccountId>) -> Result<Vec<AccountRecord>, StoreError> {
        self.store().list_accounts(page).await
    }

    async fn patch_account(
        &self,
        account_id: AccountId,
        patch: AccountPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<AccountRecord>> {
        self.change(Action::PatchAccount { account_id, patch }, actor, now).await
    }

    async fn user(&self, user_id: UserId) -> Result<Option<UserRecord>, StoreError> {
        self.store().user(user_id).await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<UserRecord>, StoreError> {
        self.store().user_by_email(email).await
    }

    async fn list_users(&self, account_id: AccountId) -> Result<Vec<UserRecord>, StoreError> {
        self.store().list_users(account_id).await
    }

    async fn create_cluster(&self, new: NewCluster, actor: Actor, now: WallTime) -> Answer<Changed<ClusterRecord>> {
        self.change(Action::CreateCluster(new), actor, now).await
    }

    async fn cluster(&self, cluster_id: ClusterId) -> Result<Option<ClusterRecord>, StoreError> {
        self.store().cluster(cluster_id).await
    }

    async fn list_clusters(&self, account_id: Option<AccountId>) -> Result<Vec<ClusterRecord>, StoreError> {
        self.store().list_clusters(account_id).await
    }

    async fn patch_cluster(
        &self,
        cluster_id: ClusterId,
        patch: ClusterPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<ClusterRecord>> {
        self.change(Action::PatchCluster { cluster_id, patch }, actor, now).await
    }

    async fn delete_cluster(
        &self,
        cluster_id: ClusterId,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<ClusterRecord>> {
        self.change(Action::DeleteCluster { cluster_id }, actor, now).await
    }

    async fn create_key(
        &self,
        new: NewKey,
        limits: KeyLimits,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>> {
        self.change(Action::CreateKey { new, limits }, actor, now).await
    }

    async fn import_keys(
        &self,
        account_id: AccountId,
        new: Vec<NewKey>,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<Vec<KeyRecord>>> {
        self.change(Action::ImportKeys { account_id, new }, actor, now).await
    }

    async fn patch_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        patch: KeyPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>> {
        self.change(Action::PatchKey { account_id, key_id, patch }, actor, now).await
    }

    /// A key that is deleted already needs no entry: the facts are there.
    async fn delete_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        by: DeleteBy,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>> {
        let known = self.store().key(key_id).await?.filter(|key| key.credential.account_id == account_id);
        if known.is_none_or(|key| key.deleted.is_some()) || matches!(by, DeleteBy::Nothing) {
            return self.store().delete_key(account_id, key_id, DeleteBy::Nothing, actor, now).await;
        }
        self.change(Action::DeleteKey { account_id, key_id, by }, actor, now).await
    }

    async fn view_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        grant: TokenHash,
        session_id: SessionId,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Sealed> {
        self.store().view_key(account_id, key_id, grant, session_id, actor, now).await
    }

    async fn key(&self, key_id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.store().key(key_id).await
    }

    async fn key_by_digest(&self, digest: Digest) -> Result<Option<KeyRecord>, StoreError> {
        self.store().key_by_digest(digest).await
    }

    async fn list_keys(
        &self,
        account_id: AccountId,
        which: Keys,
        page: Page<KeyId>,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        self.store().list_keys(account_id, which, page).await
    }

    async fn expire_keys(&self, most: usize, now: WallTime) -> Result<Vec<KeyId>, StoreError> {
        // It follows from the expiry that was set, and happens again after a restore.
        self.store().expire_keys(most, now).await
    }

    async fn key_slots(&self, account_id: AccountId, limits: KeyLimits, now: WallTime) -> Answer<KeySlots> {
        self.store().key_slots(account_id, limits, now).await
    }

    async fn open_session(&self, session: SessionRecord, actor: Actor, now: WallTime) -> Answer<()> {
        self.store().open_session(session, actor, now).await
    }

    async fn session(&self, token: TokenHash, now: WallTime) -> Result<Option<SessionRecord>, StoreError> {
        self.store().session(token, now).await
    }

    async fn touch_session(&self, token: TokenHash, now: WallTime, expires_at: WallTime) -> Result<(), StoreError> {
        self.store().touch_session(token, now, expires_at).await
    }

    async fn close_session(&self, token: TokenHash, actor: Actor, now: WallTime) -> Answer<()> {
        self.store().close_session(token, actor, now).await
    }

    async fn step_up(&self, step_up: StepUp, actor: Actor, now: WallTime) -> Answer<()> {
        self.store().step_up(step_up, actor, now).await
    }

    async fn use_grant(
        &self,
        account_id: AccountId,
        action: GrantFor,
        grant: TokenHash,
        session_id: SessionId,
        actor: Actor,
        now: WallTime,
    ) -> Answer<()> {
        self.store().use_grant(account_id, action, grant, session_id, actor, now).await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
        self.store().audit(query).await
    }

    async fn verify_audit(&self) -> Result<AuditVerdict, StoreError> {
        self.store().verify_audit_from(self.shared.journal.audit_head()).await
    }

    async fn confirm(&self, revision: Revision, wait: Duration) -> Result<Confirmation, StoreError> {
        self.store().confirm(revision, wait).await
    }

    async fn gateways(&self) -> Result<Vec<GatewayState>, StoreError> {
        self.store().gateways().await
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        self.store().check_writable().await
    }
}

#[async_trait]
impl<S: Submit + 'static> UserStore for Journaled<S> {
    async fn create_member(
        &self,
        account_id: AccountId,
        new: NewUser,
        actor: Actor,
        now: WallTime,
    ) -> Answer<UserRecord> {
        self.change(Action::CreateMember { account_id, new }, actor, now).await
    }

    async fn delete_member(&self, account_id: AccountId, user_id: UserId, actor: Actor, now: WallTime) -> Answer<()> {
        self.change(Action::DeleteMember { account_id, user_id }, actor, now).await
    }

    async fn set_password(&self, by: Oneself, password: PasswordHash, actor: Actor, now: WallTime) -> Answer<()> {
        self.change(Action::SetPassword { by, password }, actor, now).await
    }

    async fn begin_totp(
        &self,
        by: Oneself,
        secret: Sealed,
        expires_at: WallTime,
        actor: Actor,
        now: WallTime,
    ) -> Answer<()> {
        self.store().begin_totp(by, secret, expires_at, actor, now).await
    }

    async fn confirm_totp(&self, by: Oneself, secret: Sealed, step: u64, actor: Actor, now: WallTime) -> Answer<()> {
        self.change(Action::ConfirmTotp { by, secret, step }, actor, now).await
    }

    async fn set_recovery_codes(&self, by: Oneself, codes: Vec<TokenHash>, actor: Actor, now: WallTime) -> Answer<()> {
        self.change(Action::SetRecoveryCodes { by, codes }, actor, now).await
    }

    async fn reset_root(&self, account_id: AccountId, reset: Reset, actor: Actor, now: WallTime) -> Answer<()> {
        self.change(Action::ResetRoot { account_id, reset }, actor, now).await
    }

    async fn sessions_of(&self, user_id: UserId, now: WallTime) -> Result<Vec<SessionRecord>, StoreError> {
        self.store().sessions_of(user_id, now).await
    }

    async fn close_other_sessions(&self, by: Oneself, actor: Actor, now: WallTime) -> Answer<()> {
        self.store().close_other_sessions(by, actor, now).await
    }
}

#[async_trait]
impl<S: Store + Submit + 'static> FeedStore for Journaled<S> {
    async fn renew(&self, renew: Renew) -> Result<Renewal, StoreError> {
        self.store().renew(renew).await
    }

    async fn load(&self, digest: Digest) -> Result<Loaded, StoreError> {
        self.store().load(digest).await
    }

    async fn clusters(&self) -> Result<ClustersRead, StoreError> {
        self.store().clusters().await
    }

    async fn release(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        self.store().release(incarnation).await
    }

    fn pushes(&self) -> broadcast::Receiver<Push> {
        self.store().pushes()
    }
}

#[async_trait]
impl<S: Store + Submit + 'static> Ledger for Journaled<S> {
    async fn merge(&self, flush: Flush) -> Result<(), StoreError> {
        self.store().merge(flush).await
    }

    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        self.store().lines(from, to).await
    }

    fn totals(&self) -> Vec<UsageTotal> {
        self.store().totals()
    }
}

impl<S: Store + Submit + 'static> Store for Journaled<S> {
    fn store_id(&self) -> StoreId {
        self.store().store_id()
    }

    fn lease(&self) -> Duration {
        self.store().lease()
    }
}
