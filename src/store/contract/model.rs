//! Random histories of one account against a small model of the rules: whatever the store answers, the model had foretold.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::scene::{NOW, Scene, actor};
use crate::principal::{AccountStatus, KeyId};
use crate::store::Store;
use crate::store::accounts::{
    AccountError, AccountPatch, Answer, DeleteBy, Expiry, KeyLimits, KeyPatch, Keys, Page, Refusal,
};
use crate::store::audit::AuditVerdict;
use crate::store::embedded::{Embedded, Settings};
use crate::store::records::GrantFor;
use crate::time::WallTime;

const OFFSET: i32 = 8 * 3600;
const DAY: u64 = 86_400_000;

#[derive(Clone, Debug)]
enum Step {
    Create,
    View(usize),
    Delete(usize, By),
    Disable(usize, bool),
    /// In so many seconds from now; the past is possible.
    SetExpiry(usize, i64),
    ClearExpiry(usize),
    Expire,
    Suspend(bool),
    Verify(bool),
    Limits(u32, u32),
    /// Seconds; backwards too.
    Clock(i64),
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum By {
    Grant,
    Nothing,
    Operator,
}

fn step() -> impl Strategy<Value = Step> {
    let by = prop_oneof![3 => Just(By::Grant), 1 => Just(By::Nothing), 1 => Just(By::Operator)];
    prop_oneof![
        12 => Just(Step::Create),
        4 => any::<usize>().prop_map(Step::View),
        6 => (any::<usize>(), by).prop_map(|(key, by)| Step::Delete(key, by)),
        2 => any::<(usize, bool)>().prop_map(|(key, disabled)| Step::Disable(key, disabled)),
        2 => (any::<usize>(), -100..4000_i64).prop_map(|(key, seconds)| Step::SetExpiry(key, seconds)),
        1 => any::<usize>().prop_map(Step::ClearExpiry),
        3 => Just(Step::Expire),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => prop_oneof![3 => Just(true), 1 => Just(false)].prop_map(Step::Verify),
        1 => (0..5_u32, 0..12_u32).prop_map(|(active, daily)| Step::Limits(active, daily)),
        4 => prop_oneof![0..4000_i64, Just(86_400), -4000..0_i64, Just(-86_400)].prop_map(Step::Clock),
        1 => Just(Step::Restart),
    ]
}

#[derive(Clone, Copy)]
struct Key {
    id: KeyId,
    deleted: bool,
    disabled: bool,
    expires_at: Option<WallTime>,
    expired: bool,
}

/// The rules, as a page of the guide has them.
struct Model {
    keys: Vec<Key>,
    created: HashMap<u64, u32>,
    verified: bool,
    suspended: bool,
    active_max: u32,
    daily_max: u32,
    now: WallTime,
    latest: WallTime,
}

impl Model {
    fn day(&self) -> u64 {
        (self.now.0 + u64::try_from(OFFSET).unwrap() * 1000) / DAY
    }

    fn resets_at(&self) -> WallTime {
        WallTime((self.day() + 1) * DAY - u64::try_from(OFFSET).unwrap() * 1000)
    }

    fn active(&self) -> u32 {
        u32::try_from(self.keys.iter().filter(|key| !key.deleted).count()).unwrap()
    }

    fn created_today(&self) -> u32 {
        self.created.get(&self.day()).copied().unwrap_or_default()
    }

    fn may_create(&self) -> Result<(), Refusal> {
        if !self.verified {
            return Err(Refusal::IdentityUnverified);
        }
        if self.suspended {
            return Err(Refusal::AccountSuspended);
        }
        if self.active() >= self.active_max {
            return Err(Refusal::KeyLimitReached { max: self.active_max });
        }
        if self.created_today() >= self.daily_max {
            return Err(Refusal::DailyLimitReached { max: self.daily_max, resets_at: self.resets_at() });
        }
        Ok(())
    }

    /// Counts are kept for a week, so the clock goes back by less.
    fn move_clock(&mut self, seconds: i64) {
        let by = Duration::from_secs(seconds.unsigned_abs());
        let moved =
            if seconds < 0 { WallTime(self.now.0 - self.now.0.min(by.as_millis() as u64)) } else { self.now.plus(by) };
        self.now = moved.max(WallTime(self.latest.0.saturating_sub(5 * DAY)));
        self.latest = self.latest.max(self.now);
    }
}

/// Opens the same store each time, once the handle given before is gone.
pub type Place = Box<dyn Fn() -> Arc<dyn Store>>;

struct World {
    place: Place,
    scene: Scene,
    model: Model,
    code: u64,
}

impl World {
    async fn new(place: Place) -> Self {
        let store = place();
        let scene = Scene::ready(&store).await;
        let model = Model {
            keys: Vec::new(),
            created: HashMap::new(),
            verified: true,
            suspended: false,
            active_max: 3,
            daily_max: 10,
            now: NOW,
            latest: NOW,
        };
        Self { place, scene, model, code: 0 }
    }

    fn limits() -> KeyLimits {
        KeyLimits { active_max: 3, daily_max: 10, day_offset: OFFSET }
    }

    fn pick(&self, at: usize) -> Option<usize> {
        (!self.model.keys.is_empty()).then(|| at % self.model.keys.len())
    }

    async fn run(&mut self, step: &Step) {
        match *step {
            Step::Create => self.create().await,
            Step::View(at) => self.view(at).await,
            Step::Delete(at, by) => self.delete(at, by).await,
            Step::Disable(at, disabled) => {
                self.patch(at, KeyPatch { disabled: Some(disabled), ..KeyPatch::default() }).await;
            }
            Step::SetExpiry(at, seconds) => {
                let at_ms = i64::try_from(self.model.now.0).unwrap() + seconds * 1000;
                let expiry = Some(Expiry::At(WallTime(u64::try_from(at_ms).unwrap())));
                self.patch(at, KeyPatch { expiry, ..KeyPatch::default() }).await;
            }
            Step::ClearExpiry(at) => {
                self.patch(at, KeyPatch { expiry: Some(Expiry::Never), ..KeyPatch::default() }).await;
            }
            Step::Expire => self.expire().await,
            Step::Suspend(suspended) => {
                let status = if suspended { AccountStatus::Suspended } else { AccountStatus::Active };
                self.account(AccountPatch { status: Some(status), ..AccountPatch::default() }).await;
                self.model.suspended = suspended;
            }
            Step::Verify(verified) => {
                self.account(AccountPatch { verified: Some(verified), ..AccountPatch::default() }).await;
                self.model.verified = verified;
            }
            Step::Limits(active, daily) => {
                let patch =
                    AccountPatch { active_max: Some(active), daily_max: Some(daily), ..AccountPatch::default() };
                self.account(patch).await;
                (self.model.active_max, self.model.daily_max) = (active, daily);
            }
            Step::Clock(seconds) => self.model.move_clock(seconds),
            Step::Restart => self.restart(),
        }
        self.compare().await;
    }

    async fn create(&mut self) {
        let new = self.scene.new_key();
        let id = new.key_id;
        let answer = self.scene.store.create_key(new, Self::limits(), actor(), self.model.now).await;
        assert_eq!(said(answer), self.model.may_create());
        if self.model.may_create().is_ok() {
            *self.model.created.entry(self.model.day()).or_default() += 1;
            self.model.keys.push(Key { id, deleted: false, disabled: false, expires_at: None, expired: false });
        }
    }

    /// A grant that ends after the present moment, whatever the clock did.
    async fn grant(&mut self, action: GrantFor) -> crate::store::records::TokenHash {
        self.code += 1;
        let mut step_up = self.scene.step_up(self.code, action);
        step_up.grant.expires_at = self.model.now.plus(Duration::from_secs(120));
        let hash = step_up.grant.hash;
        // Sessions end too, and that is another test.
        self.scene.store.step_up(step_up, actor(), NOW).await.unwrap();
        hash
    }

    async fn view(&mut self, at: usize) {
        let Some(at) = self.pick(at) else { return };
        let key = self.model.keys[at];
        let grant = self.grant(GrantFor::View(key.id)).await;
        let (account_id, session_id) = (self.scene.account_id, self.scene.session.session_id);
        let view = || self.scene.store.view_key(account_id, key.id, grant, session_id, actor(), self.model.now);
        let wanted = if key.deleted { Err(Refusal::NotFound) } else { Ok(()) };
        assert_eq!(said(view().await), wanted);
        let again = if key.deleted { Refusal::NotFound } else { Refusal::GrantInvalid };
        assert_eq!(said(view().await), Err(again), "one grant, one view");
    }

    async fn delete(&mut self, at: usize, by: By) {
        let Some(at) = self.pick(at) else { return };
        let key = self.model.keys[at];
        let session_id = self.scene.session.session_id;
        let by_what = match by {
            By::Grant => DeleteBy::Grant { hash: self.grant(GrantFor::Delete(key.id)).await, session_id },
            By::Nothing => DeleteBy::Nothing,
            By::Operator => DeleteBy::Operator { reason: "leaked".to_owned() },
        };
        let (account_id, now) = (self.scene.account_id, self.model.now);
        let answer = self.scene.store.delete_key(account_id, key.id, by_what, actor(), now).await;
        let refused = matches!(by, By::Nothing) && !key.deleted;
        assert_eq!(said(answer), if refused { Err(Refusal::StepUpRequired) } else { Ok(()) });
        self.model.keys[at].deleted = key.deleted || !refused;
    }

    async fn patch(&mut self, at: usize, patch: KeyPatch) {
        let Some(at) = self.pick(at) else { return };
        let key = &mut self.model.keys[at];
        let (account_id, now) = (self.scene.account_id, self.model.now);
        let answer = self.scene.store.patch_key(account_id, key.id, patch.clone(), actor(), now).await;
        assert_eq!(said(answer), if key.deleted { Err(Refusal::NotFound) } else { Ok(()) });
        if key.deleted {
            return;
        }
        key.disabled = patch.disabled.unwrap_or(key.disabled);
        if let Some(expiry) = patch.expiry {
            (key.expires_at, key.expired) = (expiry.instant(), false);
        }
    }

    async fn expire(&mut self) {
        let now = self.model.now;
        let mut expired = self.scene.store.expire_keys(1000, now).await.unwrap();
        let due = |key: &&mut Key| !key.deleted && !key.expired && key.expires_at.is_some_and(|at| at <= now);
        let mut foretold = Vec::new();
        for key in self.model.keys.iter_mut().filter(due) {
            key.expired = true;
            foretold.push(key.id);
        }
        expired.sort();
        foretold.sort();
        assert_eq!(expired, foretold);
    }

    async fn account(&self, patch: AccountPatch) {
        self.scene.store.patch_account(self.scene.account_id, patch, actor(), self.model.now).await.unwrap();
    }

    fn restart(&mut self) {
        // Another one in its place meanwhile: it opens only once the last handle is gone.
        let folder = tempfile::tempdir().unwrap();
        let other = Embedded::open(&folder.path().join("other"), Settings::new(Duration::from_secs(1))).unwrap();
        self.scene.store = Arc::new(other);
        self.scene.store = (self.place)();
    }

    /// All that can be seen of the account is as the model has it.
    async fn compare(&self) {
        let (store, account_id, model) = (&self.scene.store, self.scene.account_id, &self.model);
        let slots = store.key_slots(account_id, Self::limits(), model.now).await.unwrap();
        let seen = (slots.active, slots.created_today, slots.active_max, slots.daily_max, slots.resets_at);
        let foretold = (model.active(), model.created_today(), model.active_max, model.daily_max, model.resets_at());
        assert_eq!(seen, foretold);
        for (which, deleted) in [(Keys::Live, false), (Keys::Deleted, true)] {
            let listed = store.list_keys(account_id, which, Page::first(1000)).await.unwrap();
            let mut seen: Vec<_> = listed
                .iter()
                .map(|key| (key.key_id(), key.credential.disabled, key.credential.expires_at, key.credential.expired))
                .collect();
            let keys = model.keys.iter().filter(|key| key.deleted == deleted);
            let mut foretold: Vec<_> = keys.map(|key| (key.id, key.disabled, key.expires_at, key.expired)).collect();
            seen.sort_by_key(|key| key.0);
            foretold.sort_by_key(|key| key.0);
            assert_eq!(seen, foretold, "{which:?}");
        }
    }
}

fn said<T>(answer: Answer<T>) -> Result<(), Refusal> {
    match answer {
        Ok(_) => Ok(()),
        Err(AccountError::Refused(refusal)) => Err(refusal),
        Err(AccountError::Store(error)) => panic!("{error}"),
        Err(AccountError::Pending) => unreachable!("without a journal nothing waits"),
    }
}

/// `fresh` gives the place of a store that is empty.
pub fn every_history_of_an_account_is_as_the_rules_foretell(cases: u32, fresh: impl Fn() -> Place) {
    let config =
        ProptestConfig { cases, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() };
    let checked = TestRunner::new(config).run(&vec(step(), 1..40), |steps| {
        // Whatever a store needs of threads beside the one that asks.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(fresh()).await;
            for step in &steps {
                world.run(step).await;
            }
            assert!(matches!(world.scene.store.verify_audit().await.unwrap(), AuditVerdict::Whole { .. }));
        });
        Ok(())
    });
    checked.unwrap();
}
