//! Accounts, clusters and keys: changes through the journal, reads past it.

use std::time::Duration;

use async_trait::async_trait;

use super::Journaled;
use crate::key::Digest;
use crate::principal::{AccountId, ClusterId, KeyId, Revision, SessionId, UserId};
use crate::store::StoreError;
use crate::store::accounts::{
    AccountPatch, AccountStore, Answer, Changed, ClusterPatch, DeleteBy, KeyLimits, KeyPatch, KeySlots, Keys,
    NewAccount, NewCluster, NewKey, Page, StepUp,
};
use crate::store::audit::{Actor, AuditEntry, AuditQuery, AuditVerdict};
use crate::store::confirm::{Confirmation, GatewayState};
use crate::store::intent::{Action, Submit};
use crate::store::records::{
    AccountRecord, ClusterRecord, GrantFor, KeyRecord, Sealed, SessionRecord, TokenHash, UserRecord,
};
use crate::time::WallTime;

#[async_trait]
impl<S: Submit + 'static> AccountStore for Journaled<S> {
    async fn create_account(&self, new: NewAccount, actor: Actor, now: WallTime) -> Answer<AccountRecord> {
        let created: Changed<AccountRecord> = self.change(Action::CreateAccount(new), actor, now).await?;
        Ok(created.record)
    }

    async fn account(&self, account_id: AccountId) -> Result<Option<AccountRecord>, StoreError> {
        self.open()?.account(account_id).await
    }

    async fn list_accounts(&self, page: Page<AccountId>) -> Result<Vec<AccountRecord>, StoreError> {
        self.open()?.list_accounts(page).await
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
        self.open()?.user(user_id).await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<UserRecord>, StoreError> {
        self.open()?.user_by_email(email).await
    }

    async fn list_users(&self, account_id: AccountId) -> Result<Vec<UserRecord>, StoreError> {
        self.open()?.list_users(account_id).await
    }

    async fn create_cluster(&self, new: NewCluster, actor: Actor, now: WallTime) -> Answer<Changed<ClusterRecord>> {
        self.change(Action::CreateCluster(new), actor, now).await
    }

    async fn cluster(&self, cluster_id: ClusterId) -> Result<Option<ClusterRecord>, StoreError> {
        self.open()?.cluster(cluster_id).await
    }

    async fn list_clusters(&self, account_id: Option<AccountId>) -> Result<Vec<ClusterRecord>, StoreError> {
        self.open()?.list_clusters(account_id).await
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
        let known = self.open()?.key(key_id).await?.filter(|key| key.credential.account_id == account_id);
        if known.is_none_or(|key| key.deleted.is_some()) || matches!(by, DeleteBy::Nothing) {
            let answer = self.open()?.delete_key(account_id, key_id, DeleteBy::Nothing, actor, now).await;
            // It may have been looked for where changes had still to be made again.
            self.open()?;
            return answer;
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
        self.open()?.view_key(account_id, key_id, grant, session_id, actor, now).await
    }

    async fn key(&self, key_id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.open()?.key(key_id).await
    }

    async fn key_by_digest(&self, digest: Digest) -> Result<Option<KeyRecord>, StoreError> {
        self.open()?.key_by_digest(digest).await
    }

    async fn list_keys(
        &self,
        account_id: AccountId,
        which: Keys,
        page: Page<KeyId>,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        self.open()?.list_keys(account_id, which, page).await
    }

    async fn expire_keys(&self, most: usize, now: WallTime) -> Result<Vec<KeyId>, StoreError> {
        // It follows from the expiry that was set, and happens again after a restore.
        self.open()?.expire_keys(most, now).await
    }

    async fn key_slots(&self, account_id: AccountId, limits: KeyLimits, now: WallTime) -> Answer<KeySlots> {
        self.open()?.key_slots(account_id, limits, now).await
    }

    async fn open_session(&self, session: SessionRecord, actor: Actor, now: WallTime) -> Answer<()> {
        self.open()?.open_session(session, actor, now).await
    }

    async fn session(&self, token: TokenHash, now: WallTime) -> Result<Option<SessionRecord>, StoreError> {
        self.open()?.session(token, now).await
    }

    async fn touch_session(&self, token: TokenHash, now: WallTime, expires_at: WallTime) -> Result<(), StoreError> {
        self.open()?.touch_session(token, now, expires_at).await
    }

    async fn close_session(&self, token: TokenHash, actor: Actor, now: WallTime) -> Answer<()> {
        self.open()?.close_session(token, actor, now).await
    }

    async fn step_up(&self, step_up: StepUp, actor: Actor, now: WallTime) -> Answer<()> {
        self.open()?.step_up(step_up, actor, now).await
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
        self.open()?.use_grant(account_id, action, grant, session_id, actor, now).await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
        self.open()?.audit(query).await
    }

    async fn verify_audit(&self) -> Result<AuditVerdict, StoreError> {
        self.open()?.verify_audit_from(self.shared.journal.audit_head()).await
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
