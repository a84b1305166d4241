//! What the tests of the contract begin with: an account that may create keys, a session, a grant.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::Digest;
use crate::principal::{AccountId, ClusterId, KeyId, SessionId, UserId};
use crate::store::Store;
use crate::store::accounts::{
    AccountError, Answer, Changed, DeleteBy, KeyLimits, NewAccount, NewCluster, NewKey, NewUser, Proof, Refusal, StepUp,
};
use crate::store::audit::{Actor, ActorKind};
use crate::store::records::{Grant, GrantFor, KeyRecord, PasswordHash, Role, Sealed, SessionRecord, TokenHash};
use crate::time::WallTime;

/// 2026-03-20T09:46:40Z.
pub const NOW: WallTime = WallTime(1_774_000_000_000);
pub const LIMITS: KeyLimits = KeyLimits { active_max: 3, daily_max: 10, day_offset: 8 * 3600 };

/// A number never given before.
pub fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn fresh_hash() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&fresh().to_be_bytes());
    bytes
}

pub fn actor() -> Actor {
    Actor { kind: ActorKind::Root, id: "usr_test".to_owned(), from: Some([127, 0, 0, 1].into()) }
}

pub fn refusal<T: std::fmt::Debug>(answer: Answer<T>) -> Refusal {
    match answer {
        Err(AccountError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// One account with a root user and a session of it.
#[derive(Clone)]
pub struct Scene {
    pub store: Arc<dyn Store>,
    pub account_id: AccountId,
    pub user_id: UserId,
    pub session: SessionRecord,
}

impl Scene {
    /// The account may create keys.
    pub async fn ready(store: &Arc<dyn Store>) -> Self {
        let scene = Self::new(store, true).await;
        scene.add_cluster().await;
        scene
    }

    pub async fn new(store: &Arc<dyn Store>, verified: bool) -> Self {
        let (account_id, user_id) = (AccountId::random().unwrap(), UserId::random().unwrap());
        let root = new_user(user_id, &format!("root-{}@example.com", fresh()));
        let new = NewAccount { account_id, name: None, verified, root, totp: Sealed(vec![1, 2, 3]) };
        store.create_account(new, actor(), NOW).await.unwrap();
        let session = session_of(account_id, user_id);
        store.open_session(session.clone(), actor(), NOW).await.unwrap();
        Self { store: Arc::clone(store), account_id, user_id, session }
    }

    pub async fn add_cluster(&self) -> ClusterId {
        let new = self.new_cluster(&[&format!("c{}.example.com", fresh())]);
        let cluster_id = new.cluster_id;
        self.store.create_cluster(new, actor(), NOW).await.unwrap();
        cluster_id
    }

    pub fn new_cluster(&self, hosts: &[&str]) -> NewCluster {
        NewCluster {
            cluster_id: ClusterId::random().unwrap(),
            account_id: self.account_id,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            upstreams: vec!["http://127.0.0.1:1".to_owned()],
            allow_ips: Vec::new(),
            name: None,
        }
    }

    pub fn new_key(&self) -> NewKey {
        NewKey {
            key_id: KeyId::random().unwrap(),
            account_id: self.account_id,
            digest: Digest(fresh_hash()),
            sealed: Sealed(vec![7; 40]),
            masked: "dvk_abcd…wxyz".to_owned(),
            name: None,
        }
    }

    pub async fn create(&self, now: WallTime) -> Answer<Changed<KeyRecord>> {
        self.store.create_key(self.new_key(), LIMITS, actor(), now).await
    }

    pub async fn key(&self) -> KeyRecord {
        self.create(NOW).await.unwrap().record
    }

    pub async fn delete(&self, key_id: KeyId) -> Changed<KeyRecord> {
        let by = DeleteBy::Operator { reason: "leaked".to_owned() };
        self.store.delete_key(self.account_id, key_id, by, actor(), NOW).await.unwrap()
    }

    pub fn step_up(&self, step: u64, action: GrantFor) -> StepUp {
        let grant = Grant {
            hash: TokenHash(fresh_hash()),
            session_id: self.session.session_id,
            action,
            expires_at: WallTime(NOW.0 + 120_000),
        };
        StepUp { account_id: self.account_id, proof: Proof::Step(step), grant, rotate: None }
    }

    /// A grant that is good now.
    pub async fn grant(&self, action: GrantFor) -> TokenHash {
        let step_up = self.step_up(fresh(), action);
        let hash = step_up.grant.hash;
        self.store.step_up(step_up, actor(), NOW).await.unwrap();
        hash
    }

    pub async fn view(&self, key_id: KeyId, grant: TokenHash) -> Answer<Sealed> {
        self.store.view_key(self.account_id, key_id, grant, self.session.session_id, actor(), NOW).await
    }
}

pub fn new_user(user_id: UserId, email: &str) -> NewUser {
    NewUser { user_id, email: email.to_owned(), password: PasswordHash("$argon2id$test".to_owned()) }
}

pub fn session_of(account_id: AccountId, user_id: UserId) -> SessionRecord {
    SessionRecord {
        session_id: SessionId::random().unwrap(),
        token: TokenHash(fresh_hash()),
        user_id,
        account_id,
        role: Role::Root,
        created_at: NOW,
        last_seen: NOW,
        expires_at: WallTime(NOW.0 + 3_600_000),
    }
}

/// Runs `count` of them at once and gives back all that came of it.
pub async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    make: impl Fn(usize) -> F,
) -> Vec<T> {
    let mut running = tokio::task::JoinSet::new();
    for number in 0..count {
        running.spawn(make(number));
    }
    running.join_all().await
}
