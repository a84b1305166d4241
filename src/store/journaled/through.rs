//! Users through the journal; what gateways and the meter ask goes straight to the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::Journaled;
use crate::key::Digest;
use crate::meter::record::{Flush, LedgerLine};
use crate::meter::witness::Acknowledged;
use crate::principal::{AccountId, Incarnation, StoreId, UserId};
use crate::store::accounts::{Answer, NewUser};
use crate::store::audit::Actor;
use crate::store::folds::{Folded, Folds, Step, Way};
use crate::store::intent::{Action, Submit};
use crate::store::records::{PasswordHash, Sealed, SessionRecord, TokenHash, UserRecord};
use crate::store::usage::{Abandoned, Adjustment, FinalWindow, HourMark, NewAdjustment, UsageChanges, UsageStore};
use crate::store::users::{Oneself, Reset, UserStore};
use crate::store::{
    ClustersRead, FeedStore, Ledger, LedgerReader, Loaded, Push, Renew, Renewal, Store, StoreError, UsageTotal,
};
use crate::time::{Hour, WallTime};

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
        self.open()?.begin_totp(by, secret, expires_at, actor, now).await
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
        self.open()?.sessions_of(user_id, now).await
    }

    async fn close_other_sessions(&self, by: Oneself, actor: Actor, now: WallTime) -> Answer<()> {
        self.open()?.close_other_sessions(by, actor, now).await
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
    async fn merge_after(&self, flush: Flush, after: u64) -> Result<Acknowledged, StoreError> {
        self.store().merge_after(flush, after).await
    }

    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        self.store().lines(from, to).await
    }

    fn totals(&self) -> Result<Vec<UsageTotal>, StoreError> {
        self.store().totals()
    }

    async fn check_ledger(&self) -> Result<(), StoreError> {
        self.store().check_ledger().await
    }
}

#[async_trait]
impl<S: Store + Submit + 'static> LedgerReader for Journaled<S> {
    async fn lines_of(&self, accounts: BTreeSet<(Hour, AccountId)>) -> Result<Vec<LedgerLine>, StoreError> {
        self.store().lines_of(accounts).await
    }

    async fn marks(&self, from: Hour, to: Hour) -> Result<Vec<HourMark>, StoreError> {
        self.store().marks(from, to).await
    }

    async fn changed(&self, after: u64, most: usize) -> Result<UsageChanges, StoreError> {
        self.store().changed(after, most).await
    }
}

#[async_trait]
impl<S: Store + Submit + 'static> Folds for Journaled<S> {
    async fn folds(&self, from: Hour, to: Hour) -> Result<BTreeMap<Hour, Folded>, StoreError> {
        self.store().folds(from, to).await
    }

    async fn wanted(&self) -> Result<BTreeSet<Hour>, StoreError> {
        self.store().wanted().await
    }

    async fn step(&self, hour: Hour, step: Step) -> Result<bool, StoreError> {
        self.store().step(hour, step).await
    }

    async fn move_lines(&self, hour: Hour, way: Way, lines: Vec<LedgerLine>) -> Result<bool, StoreError> {
        self.store().move_lines(hour, way, lines).await
    }
}

#[async_trait]
impl<S: Store + Submit + 'static> UsageStore for Journaled<S> {
    async fn final_windows(&self, from: Hour, to: Hour) -> Result<Vec<FinalWindow>, StoreError> {
        self.store().final_windows(from, to).await
    }

    async fn make_final(&self, window: FinalWindow) -> Result<(), StoreError> {
        self.store().make_final(window).await
    }

    async fn adjustments(&self, from: Hour, to: Hour) -> Result<Vec<Adjustment>, StoreError> {
        self.store().adjustments(from, to).await
    }

    async fn adjust(&self, new: NewAdjustment, actor: Actor, now: WallTime) -> Answer<Adjustment> {
        self.change(Action::AdjustUsage(new), actor, now).await
    }

    async fn abandoned(&self) -> Result<Vec<Abandoned>, StoreError> {
        self.store().abandoned().await
    }

    async fn abandon(
        &self,
        incarnation: Incarnation,
        reason: String,
        actor: Actor,
        now: WallTime,
    ) -> Answer<Abandoned> {
        self.change(Action::AbandonGateway { incarnation, reason }, actor, now).await
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
