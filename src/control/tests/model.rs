//! Random sequences of requests against a small model of the rules: whatever the API answers, the model had foretold. Days pass,
//! clocks go back, and the control plane starts again in between.

use std::collections::HashMap;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::clock::shifted;
use crate::principal::{KeyId, SessionId};
use crate::store::accounts::{AccountStore, Proof, StepUp};
use crate::store::audit::Actor;
use crate::store::records::{Grant, GrantFor};
use crate::time::WallTime;

const DAY: u64 = 86_400_000;
const OFFSET: u64 = 8 * 3_600_000;
const EMAIL: &str = "one@example.com";

#[derive(Clone, Debug)]
enum Step {
    Create,
    View(usize),
    Delete(usize, By),
    Disable(usize, bool),
    /// In so many seconds from now, also in the past; or never.
    Expiry(usize, Option<i64>),
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
    let expiry = proptest::option::weighted(0.8, -100..4000_i64);
    prop_oneof![
        12 => Just(Step::Create),
        4 => any::<usize>().prop_map(Step::View),
        6 => (any::<usize>(), by).prop_map(|(key, by)| Step::Delete(key, by)),
        2 => any::<(usize, bool)>().prop_map(|(key, disabled)| Step::Disable(key, disabled)),
        2 => (any::<usize>(), expiry).prop_map(|(key, at)| Step::Expiry(key, at)),
        2 => Just(Step::Expire),
        1 => any::<bool>().prop_map(Step::Suspend),
        1 => prop_oneof![3 => Just(true), 1 => Just(false)].prop_map(Step::Verify),
        1 => (1..5_u32, 1..12_u32).prop_map(|(active, daily)| Step::Limits(active, daily)),
        3 => prop_oneof![0..4000_i64, Just(86_400), -4000..0_i64, Just(-86_400)].prop_map(Step::Clock),
        1 => Just(Step::Restart),
    ]
}

struct Key {
    id: String,
    text: String,
    deleted: bool,
    disabled: bool,
    expires_at: Option<WallTime>,
    expired: bool,
}

impl Key {
    fn status(&self, now: WallTime) -> &'static str {
        match self {
            _ if self.deleted => "deleted",
            _ if self.disabled => "disabled",
            _ if self.expired || self.expires_at.is_some_and(|at| at <= now) => "expired",
            _ => "active",
        }
    }
}

/// The rules, as a page of the guide has them.
struct Model {
    keys: Vec<Key>,
    created: HashMap<u64, u32>,
    verified: bool,
    suspended: bool,
    limits: (u32, u32),
    /// Milliseconds from the real clock to the one that the control plane reads, and the furthest it has been.
    shift: i64,
    furthest: i64,
}

impl Model {
    fn day(&self) -> u64 {
        (clock::wall().0 + OFFSET) / DAY
    }

    fn active(&self) -> u32 {
        u32::try_from(self.keys.iter().filter(|key| !key.deleted).count()).unwrap()
    }

    fn created_today(&self) -> u32 {
        self.created.get(&self.day()).copied().unwrap_or_default()
    }

    /// Status and code of the answer to a create.
    fn foretells(&self) -> (u16, &'static str) {
        let (active_max, daily_max) = self.limits;
        match self {
            _ if !self.verified => (403, "identity_unverified"),
            _ if self.suspended => (403, "account_suspended"),
            _ if self.active() >= active_max => (409, "key_limit_reached"),
            _ if self.created_today() >= daily_max => (429, "daily_limit_reached"),
            _ => (201, ""),
        }
    }
}

struct History {
    world: Option<World>,
    owner: Owner,
    model: Model,
    code: u64,
}

fn keys_config() -> KeysConfig {
    KeysConfig { active_max: 3, daily_max: 10, day_offset: 8 * 3600 }
}

impl History {
    async fn new() -> Self {
        // What matters here is not whether a disk keeps it.
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let world = World::open(Ground::new(folder.unwrap()), keys_config());
        let owner = world.owner(EMAIL).await;
        let (keys, created) = (Vec::new(), HashMap::new());
        let model = Model { keys, created, verified: true, suspended: false, limits: (3, 10), shift: 0, furthest: 0 };
        Self { world: Some(world), owner, model, code: 0 }
    }

    fn world(&self) -> &World {
        self.world.as_ref().unwrap()
    }

    fn pick(&self, at: usize) -> Option<usize> {
        (!self.model.keys.is_empty()).then(|| at % self.model.keys.len())
    }

    async fn run(&mut self, step: &Step) {
        // The day of the model is asked after that of the control plane, and no day may begin between.
        while DAY - (clock::wall().0 + OFFSET) % DAY < 2000 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        match *step {
            Step::Create => self.create().await,
            Step::View(at) => self.view(at).await,
            Step::Delete(at, by) => self.delete(at, by).await,
            Step::Disable(at, disabled) => self.disable(at, disabled).await,
            Step::Expiry(at, seconds) => self.expiry(at, seconds).await,
            Step::Expire => self.expire().await,
            Step::Suspend(suspended) => {
                self.account(json!({"status": if suspended { "suspended" } else { "active" }})).await;
                self.model.suspended = suspended;
            }
            Step::Verify(verified) => {
                self.account(json!({"verified": verified})).await;
                self.model.verified = verified;
            }
            Step::Limits(active, daily) => {
                self.account(json!({"active_max": active, "daily_max": daily})).await;
                self.model.limits = (active, daily);
            }
            Step::Clock(seconds) => self.clock(seconds).await,
            Step::Restart => {
                let world = self.world.take().unwrap();
                self.world = Some(world.restart(keys_config()));
            }
        }
        self.compare().await;
    }

    async fn account(&self, patch: Value) {
        let path = format!("/v1/accounts/{}", self.owner.account_id);
        self.world().patch(&self.world().operator, &path, patch).await.ok(200);
    }

    async fn create(&mut self) {
        let answer = self.world().post(&self.owner.token, "/v1/keys", json!({})).await;
        let (status, code) = self.model.foretells();
        if status != 201 {
            let problem = answer.problem(status, code);
            assert_eq!(problem.get("resets_at").is_some(), status == 429);
            return;
        }
        let made = answer.ok(201);
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        *self.model.created.entry(self.model.day()).or_default() += 1;
        let key = Key {
            id: text("id"),
            text: text("key"),
            deleted: false,
            disabled: false,
            expires_at: None,
            expired: false,
        };
        self.model.keys.push(key);
    }

    async fn session_id(&self) -> SessionId {
        let hash = crate::control::token::hash(self.owner.token.as_bytes());
        self.world().store.session(hash, clock::wall()).await.unwrap().unwrap().session_id
    }

    /// As a step-up leaves it; that only a good code does is shown elsewhere.
    async fn grant(&mut self, action: GrantFor) -> String {
        self.code += 1;
        let token = Token::random(crate::control::token::SESSION).unwrap();
        let expires_at = clock::wall().plus(Duration::from_secs(120));
        let grant = Grant { hash: token.hash(), session_id: self.session_id().await, action, expires_at };
        let account_id = self.owner.account_id;
        let step_up = StepUp { account_id, proof: Proof::Step(self.code), grant, rotate: None };
        self.world().store.step_up(step_up, Actor::system(), clock::wall()).await.unwrap();
        token.expose().to_owned()
    }

    async fn view(&mut self, at: usize) {
        let Some(at) = self.pick(at) else { return };
        let id: KeyId = self.model.keys[at].id.parse().unwrap();
        let grant = self.grant(GrantFor::View(id)).await;
        let (world, key, path) = (self.world(), &self.model.keys[at], format!("/v1/keys/{id}/view"));
        let view = || world.call_with(&self.owner.token, Method::POST, &path, Value::Null, Some(&grant));
        if key.deleted {
            view().await.problem(404, "not_found");
        } else {
            assert_eq!(view().await.ok(200)["key"], key.text.as_str());
            view().await.problem(401, "grant_invalid");
        }
    }

    async fn delete(&mut self, at: usize, by: By) {
        let Some(at) = self.pick(at) else { return };
        let id: KeyId = self.model.keys[at].id.parse().unwrap();
        let grant = if matches!(by, By::Grant) { Some(self.grant(GrantFor::Delete(id)).await) } else { None };
        let (world, own) = (self.world(), format!("/v1/keys/{id}"));
        let answer = match by {
            By::Operator => {
                let path = format!("/v1/accounts/{}/keys/{id}", self.owner.account_id);
                world.call(&world.operator, Method::DELETE, &path, json!({"reason": "leaked"})).await
            }
            _ => world.call_with(&self.owner.token, Method::DELETE, &own, Value::Null, grant.as_deref()).await,
        };
        if matches!(by, By::Nothing) && !self.model.keys[at].deleted {
            answer.problem(401, "step_up_required");
            return;
        }
        assert_eq!(answer.ok(200)["revoked"], "everywhere");
        self.model.keys[at].deleted = true;
    }

    async fn patch(&self, at: usize, patch: Value) -> bool {
        let key = &self.model.keys[at];
        let answer = self.world().patch(&self.owner.token, &format!("/v1/keys/{}", key.id), patch).await;
        if key.deleted {
            answer.problem(404, "not_found");
        } else {
            answer.ok(200);
        }
        !key.deleted
    }

    async fn disable(&mut self, at: usize, disabled: bool) {
        let Some(at) = self.pick(at) else { return };
        if self.patch(at, json!({"status": if disabled { "disabled" } else { "active" }})).await {
            self.model.keys[at].disabled = disabled;
        }
    }

    async fn expiry(&mut self, at: usize, seconds: Option<i64>) {
        let Some(at) = self.pick(at) else { return };
        let end = seconds.map(|seconds| WallTime(clock::wall().0.saturating_add_signed(seconds * 1000)));
        if self.patch(at, json!({"expires_at": end.map(|end| end.to_string())})).await {
            let key = &mut self.model.keys[at];
            (key.expires_at, key.expired) = (end, false);
        }
    }

    /// As the task does it that turns the end of a key into a log entry.
    async fn expire(&mut self) {
        let now = clock::wall();
        let mut expired = self.world().store.expire_keys(1000, now).await.unwrap();
        let due = |key: &&mut Key| !key.deleted && !key.expired && key.expires_at.is_some_and(|at| at <= now);
        let mut foretold: Vec<KeyId> = Vec::new();
        for key in self.model.keys.iter_mut().filter(due) {
            key.expired = true;
            foretold.push(key.id.parse().unwrap());
        }
        expired.sort();
        foretold.sort();
        assert_eq!(expired, foretold);
    }

    /// Counts of days are kept for a week, so the clock goes back by less. A session does not last so long: a new one.
    async fn clock(&mut self, seconds: i64) {
        let furthest_back = self.model.furthest - 5 * i64::try_from(DAY).unwrap();
        self.model.shift = (self.model.shift + seconds * 1000).max(furthest_back);
        self.model.furthest = self.model.furthest.max(self.model.shift);
        shifted::to(self.model.shift);
        let signed_in = self.world().sign_in(EMAIL, PASSWORD).await.ok(201);
        self.owner.token = signed_in["token"].as_str().unwrap().to_owned();
    }

    /// What the owner sees is as the model has it.
    async fn compare(&self) {
        let list = self.world().get(&self.owner.token, "/v1/keys?deleted=true").await.ok(200);
        let number = |field: &str| u32::try_from(list[field].as_u64().unwrap()).unwrap();
        let seen = (number("active"), number("created_today"), number("active_max"), number("daily_max"));
        let (active_max, daily_max) = self.model.limits;
        assert_eq!(seen, (self.model.active(), self.model.created_today(), active_max, daily_max));
        let now = clock::wall();
        let listed = list["keys"].as_array().unwrap().iter();
        let mut seen: Vec<_> =
            listed.map(|key| (key["id"].as_str().unwrap(), key["status"].as_str().unwrap())).collect();
        let mut foretold: Vec<_> = self.model.keys.iter().map(|key| (key.id.as_str(), key.status(now))).collect();
        seen.sort_unstable();
        foretold.sort_unstable();
        assert_eq!(seen, foretold);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_is_answered_as_the_rules_foretell(steps in vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        shifted::to(0);
        runtime.block_on(async {
            let mut history = History::new().await;
            for step in &steps {
                history.run(step).await;
            }
            let world = history.world();
            assert_eq!(world.get(&world.operator, "/v1/audit/verify").await.ok(200)["verdict"], "whole");
        });
        shifted::to(0);
    }
}
