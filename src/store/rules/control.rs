//! What the control plane asks, as one transaction or one look at the rows each.

use std::time::Duration;

use async_trait::async_trait;

use super::sessions::Shown;
use super::tables::{ACCOUNTS, CLUSTERS, KEYS, USERS};
use super::{Backend, accounts, audit, clusters, keys, sessions};
use crate::key::Digest;
use crate::principal::{AccountId, ClusterId, KeyId, Revision, SessionId, UserId};
use crate::store::StoreError;
use crate::store::accounts::{
    AccountPatch, AccountStore, Answer, Changed, ClusterPatch, DeleteBy, KeyLimits, KeyPatch, KeySlots, Keys,
    NewAccount, NewCluster, NewKey, Page, StepUp,
};
use crate::store::audit::{Actor, AuditEntry, AuditEvent, AuditQuery, AuditVerdict};
use crate::store::confirm::{Confirmation, GatewayState};
use crate::store::records::{
    AccountRecord, ClusterRecord, GrantFor, KeyRecord, Sealed, SessionRecord, TokenHash, UserRecord,
};
use crate::time::WallTime;

#[async_trait]
impl<S: Backend> AccountStore for S {
    async fn create_account(&self, new: NewAccount, actor: Actor, now: WallTime) -> Answer<AccountRecord> {
        self.write(move |tx| accounts::create(tx, &new, &actor, now)).await
    }

    async fn account(&self, account_id: AccountId) -> Result<Option<AccountRecord>, StoreError> {
        self.read(move |rows| ACCOUNTS.get(rows, &account_id)).await
    }

    async fn list_accounts(&self, page: Page<AccountId>) -> Result<Vec<AccountRecord>, StoreError> {
        self.read_long(move |rows| accounts::list(rows, page)).await
    }

    async fn patch_account(
        &self,
        account_id: AccountId,
        patch: AccountPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<AccountRecord>> {
        self.write(move |tx| accounts::patch(tx, account_id, &patch, &actor, now)).await
    }

    async fn user(&self, user_id: UserId) -> Result<Option<UserRecord>, StoreError> {
        self.read(move |rows| USERS.get(rows, &user_id)).await
    }

    async fn user_by_email(&self, email: &str) -> Result<Option<UserRecord>, StoreError> {
        let email = email.to_owned();
        self.read(move |rows| accounts::user_by_email(rows, &email)).await
    }

    async fn list_users(&self, account_id: AccountId) -> Result<Vec<UserRecord>, StoreError> {
        self.read_long(move |rows| accounts::users(rows, account_id)).await
    }

    async fn create_cluster(&self, new: NewCluster, actor: Actor, now: WallTime) -> Answer<Changed<ClusterRecord>> {
        self.write(move |tx| clusters::create(tx, &new, &actor, now)).await
    }

    async fn cluster(&self, cluster_id: ClusterId) -> Result<Option<ClusterRecord>, StoreError> {
        self.read(move |rows| CLUSTERS.get(rows, &cluster_id)).await
    }

    async fn list_clusters(&self, account_id: Option<AccountId>) -> Result<Vec<ClusterRecord>, StoreError> {
        self.read_long(move |rows| clusters::list(rows, account_id)).await
    }

    async fn patch_cluster(
        &self,
        cluster_id: ClusterId,
        patch: ClusterPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<ClusterRecord>> {
        self.write(move |tx| clusters::patch(tx, cluster_id, &patch, &actor, now)).await
    }

    async fn delete_cluster(
        &self,
        cluster_id: ClusterId,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<ClusterRecord>> {
        self.write(move |tx| clusters::delete(tx, cluster_id, &actor, now)).await
    }

    async fn create_key(
        &self,
        new: NewKey,
        limits: KeyLimits,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>> {
        self.write(move |tx| keys::create(tx, &new, limits, &actor, now)).await
    }

    async fn import_keys(
        &self,
        account_id: AccountId,
        new: Vec<NewKey>,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<Vec<KeyRecord>>> {
        self.write(move |tx| keys::import(tx, account_id, &new, &actor, now)).await
    }

    async fn patch_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        patch: KeyPatch,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>> {
        self.write(move |tx| keys::patch(tx, (account_id, key_id), &patch, &actor, now)).await
    }

    async fn delete_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        by: DeleteBy,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Changed<KeyRecord>> {
        self.write(move |tx| keys::delete(tx, (account_id, key_id), keys::Word::Judged(&by), &actor, now)).await
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
        let shown = Shown { hash: grant, session_id, action: GrantFor::View(key_id) };
        self.write(move |tx| keys::view(tx, (account_id, key_id), shown, &actor, now)).await
    }

    async fn key(&self, key_id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        self.read(move |rows| KEYS.get(rows, &key_id)).await
    }

    async fn key_by_digest(&self, digest: Digest) -> Result<Option<KeyRecord>, StoreError> {
        self.read(move |rows| keys::by_digest(rows, digest)).await
    }

    async fn list_keys(
        &self,
        account_id: AccountId,
        which: Keys,
        page: Page<KeyId>,
    ) -> Result<Vec<KeyRecord>, StoreError> {
        self.read_long(move |rows| keys::list(rows, account_id, which, page)).await
    }

    async fn expire_keys(&self, most: usize, now: WallTime) -> Result<Vec<KeyId>, StoreError> {
        // Nearly always nothing is due, and then nothing is written.
        if self.read(move |rows| keys::due(rows, 1, now)).await?.is_empty() {
            return Ok(Vec::new());
        }
        self.write(move |tx| keys::expire(tx, most, now)).await
    }

    async fn key_slots(&self, account_id: AccountId, limits: KeyLimits, now: WallTime) -> Answer<KeySlots> {
        self.read(move |rows| keys::slots(rows, account_id, limits, now)).await
    }

    async fn open_session(&self, session: SessionRecord, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| sessions::open(tx, &session, &actor, now)).await
    }

    async fn session(&self, token: TokenHash, now: WallTime) -> Result<Option<SessionRecord>, StoreError> {
        self.read(move |rows| sessions::find(rows, token, now)).await
    }

    async fn touch_session(&self, token: TokenHash, now: WallTime, expires_at: WallTime) -> Result<(), StoreError> {
        self.write(move |tx| sessions::touch(tx, token, now, expires_at)).await
    }

    async fn close_session(&self, token: TokenHash, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| sessions::close(tx, token, &actor, now)).await
    }

    async fn step_up(&self, step_up: StepUp, actor: Actor, now: WallTime) -> Answer<()> {
        self.write(move |tx| sessions::step_up(tx, &step_up, &actor, now)).await
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
        let shown = Shown { hash: grant, session_id, action };
        self.write(move |tx| {
            sessions::consume(tx, account_id, shown, now)?;
            let (subject, action) = (session_id.to_string(), "session.use_grant".to_owned());
            let (actor, account_id) = (actor.clone(), Some(account_id));
            Ok(tx.audit(AuditEvent { at: now, actor, action, subject, account_id, detail: None })?)
        })
        .await
    }

    async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
        self.read_long(move |rows| audit::list(rows, query)).await
    }

    async fn verify_audit(&self) -> Result<AuditVerdict, StoreError> {
        self.read_long(|rows| audit::verify(rows, None)).await
    }

    async fn confirm(&self, revision: Revision, wait: Duration) -> Result<Confirmation, StoreError> {
        Backend::confirm(self, revision, wait).await
    }

    async fn gateways(&self) -> Result<Vec<GatewayState>, StoreError> {
        Backend::gateways(self).await
    }

    async fn check_writable(&self) -> Result<(), StoreError> {
        Backend::check_writable(self).await
    }
}
