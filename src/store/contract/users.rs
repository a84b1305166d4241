//! Members, passwords, second factors, expiry.

use std::sync::Arc;

use super::scene::{NOW, Scene, actor, at_once, fresh, fresh_hash, new_user, refusal, session_of};
use crate::principal::{SessionId, UserId};
use crate::store::accounts::{Expiry, KeyPatch, Proof, Refusal};
use crate::store::records::{GrantFor, PasswordHash, Role, Sealed, SessionRecord, TokenHash};
use crate::store::users::{MEMBERS_MOST, Oneself, Reset};
use crate::store::{Change, Found, LogTail, Renew, Store};
use crate::time::WallTime;

type AnyStore = Arc<dyn Store>;

impl Scene {
    async fn member(&self) -> UserId {
        let new = new_user(UserId::random().unwrap(), &format!("member-{}@example.com", fresh()));
        self.store.create_member(self.account_id, new, actor(), NOW).await.unwrap().user_id
    }

    async fn session_of(&self, user_id: UserId) -> SessionRecord {
        let session = session_of(self.account_id, user_id);
        self.store.open_session(session.clone(), actor(), NOW).await.unwrap();
        session
    }

    fn oneself(&self, grant: Option<TokenHash>) -> Oneself {
        Oneself { user_id: self.user_id, session_id: self.session.session_id, grant }
    }

    async fn is_open(&self, session: &SessionRecord) -> bool {
        self.store.session(session.token, NOW).await.unwrap().is_some()
    }
}

fn password(text: &str) -> PasswordHash {
    PasswordHash(text.to_owned())
}

pub async fn a_member_is_of_one_account_and_goes_with_their_sessions(store: AnyStore) {
    let (scene, other) = (Scene::new(&store, true).await, Scene::new(&store, true).await);
    let user_id = scene.member().await;
    let record = store.user(user_id).await.unwrap().unwrap();
    assert_eq!((record.role, record.account_id, &record.totp), (Role::Member, scene.account_id, &None));
    let session = scene.session_of(user_id).await;
    let again = new_user(UserId::random().unwrap(), &record.email.to_uppercase());
    assert_eq!(refusal(store.create_member(other.account_id, again, actor(), NOW).await), Refusal::EmailTaken);
    for (account_id, user_id) in [(other.account_id, user_id), (scene.account_id, scene.user_id)] {
        let refused = store.delete_member(account_id, user_id, actor(), NOW).await;
        assert_eq!(refusal(refused), Refusal::NotFound);
    }
    store.delete_member(scene.account_id, user_id, actor(), NOW).await.unwrap();
    assert!(!scene.is_open(&session).await && scene.is_open(&scene.session).await);
    assert_eq!(store.user_by_email(&record.email).await.unwrap(), None);
    assert_eq!(store.list_users(scene.account_id).await.unwrap().len(), 1);
    for _ in 0..MEMBERS_MOST {
        scene.member().await;
    }
    let surplus = new_user(UserId::random().unwrap(), "surplus@example.com");
    let refused = store.create_member(scene.account_id, surplus, actor(), NOW).await;
    assert_eq!(refusal(refused), Refusal::MemberLimitReached { max: MEMBERS_MOST });
}

pub async fn a_password_change_ends_the_other_sessions_and_needs_a_grant_of_the_root(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let elsewhere = scene.session_of(scene.user_id).await;
    let change = |by| store.set_password(by, password("new"), actor(), NOW);
    assert_eq!(refusal(change(scene.oneself(None)).await), Refusal::StepUpRequired);
    let view = scene.grant(GrantFor::View(scene.key().await.key_id())).await;
    assert_eq!(refusal(change(scene.oneself(Some(view))).await), Refusal::GrantInvalid);
    assert!(scene.is_open(&elsewhere).await);
    let grant = scene.grant(GrantFor::Account).await;
    change(scene.oneself(Some(grant))).await.unwrap();
    assert_eq!(refusal(change(scene.oneself(Some(grant))).await), Refusal::GrantInvalid, "used");
    assert!(!scene.is_open(&elsewhere).await && scene.is_open(&scene.session).await);
    assert_eq!(store.user(scene.user_id).await.unwrap().unwrap().password, password("new"));

    let user_id = scene.member().await;
    let session = scene.session_of(user_id).await;
    let member = Oneself { user_id, session_id: session.session_id, grant: None };
    store.set_password(member, password("mine"), actor(), NOW).await.unwrap();
    assert_eq!(store.user(user_id).await.unwrap().unwrap().password, password("mine"));
}

pub async fn a_new_authenticator_is_in_force_once_confirmed(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let elsewhere = scene.session_of(scene.user_id).await;
    let (old, new) = (store.user(scene.user_id).await.unwrap().unwrap().totp, Sealed(vec![9]));
    let end = WallTime(NOW.0 + 1000);
    let begin = |grant| store.begin_totp(scene.oneself(grant), new.clone(), end, actor(), NOW);
    let confirm = |by, secret, now| store.confirm_totp(by, secret, 5, actor(), now);
    assert_eq!(refusal(confirm(scene.oneself(None), new.clone(), NOW).await), Refusal::NotFound, "not begun");
    assert_eq!(refusal(begin(None).await), Refusal::StepUpRequired);
    begin(Some(scene.grant(GrantFor::Account).await)).await.unwrap();
    assert_eq!(store.user(scene.user_id).await.unwrap().unwrap().totp, old);
    let other = Oneself { session_id: SessionId::random().unwrap(), ..scene.oneself(None) };
    assert_eq!(refusal(confirm(other, new.clone(), NOW).await), Refusal::NotFound, "another session");
    assert_eq!(refusal(confirm(scene.oneself(None), Sealed(vec![8]), NOW).await), Refusal::NotFound, "another secret");
    assert_eq!(refusal(confirm(scene.oneself(None), new.clone(), end).await), Refusal::NotFound, "too late");
    let (step, grant) = (fresh(), scene.grant(GrantFor::Account).await);
    store.confirm_totp(scene.oneself(None), new.clone(), step + 100, actor(), NOW).await.unwrap();
    let user = store.user(scene.user_id).await.unwrap().unwrap();
    assert_eq!((user.totp, user.pending_totp), (Some(new.clone()), None));
    assert!(!scene.is_open(&elsewhere).await && scene.is_open(&scene.session).await);
    let used = store.step_up(scene.step_up(step + 100, GrantFor::Account), actor(), NOW).await;
    assert!(matches!(refusal(used), Refusal::CodeReplayed { .. }), "the code that confirmed it is used up");
    let stale = store.set_password(scene.oneself(Some(grant)), password("x"), actor(), NOW).await;
    assert_eq!(refusal(stale), Refusal::GrantInvalid, "grants of the old authenticator are gone");
}

pub async fn one_hundred_uses_of_one_recovery_code_give_one_grant(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let (code, spare) = (TokenHash(fresh_hash()), TokenHash(fresh_hash()));
    let by = scene.oneself(Some(scene.grant(GrantFor::Account).await));
    store.set_recovery_codes(by, vec![code, spare], actor(), NOW).await.unwrap();
    let answers = at_once(100, |_| {
        let scene = scene.clone();
        async move {
            let mut step_up = scene.step_up(0, GrantFor::Account);
            step_up.proof = Proof::Recovery(code);
            scene.store.step_up(step_up, actor(), NOW).await
        }
    })
    .await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(good.len(), 1);
    assert!(bad.into_iter().all(|answer| refusal(answer) == Refusal::RecoveryCodeInvalid));
    assert_eq!(store.user(scene.user_id).await.unwrap().unwrap().recovery_codes, [spare]);
}

pub async fn a_reset_ends_every_session_of_the_account(store: AnyStore) {
    let (scene, other) = (Scene::ready(&store).await, Scene::ready(&store).await);
    let member = scene.session_of(scene.member().await).await;
    let by = scene.oneself(Some(scene.grant(GrantFor::Account).await));
    store.set_recovery_codes(by, vec![TokenHash(fresh_hash())], actor(), NOW).await.unwrap();
    let reset =
        Reset { user_id: scene.user_id, password: password("reset"), totp: Sealed(vec![4]), reason: "lost".to_owned() };
    let foreign = store.reset_root(other.account_id, reset.clone(), actor(), NOW).await;
    assert_eq!(refusal(foreign), Refusal::NotFound);
    store.reset_root(scene.account_id, reset, actor(), NOW).await.unwrap();
    let user = store.user(scene.user_id).await.unwrap().unwrap();
    assert_eq!((user.password, user.totp), (password("reset"), Some(Sealed(vec![4]))));
    assert!(user.recovery_codes.is_empty());
    assert!(!scene.is_open(&scene.session).await && !scene.is_open(&member).await);
    assert!(other.is_open(&other.session).await);
}

pub async fn a_key_expires_once_and_comes_back_with_a_new_end(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let (key, never) = (scene.key().await, scene.key().await);
    let (key_id, end) = (key.key_id(), WallTime(NOW.0 + 1000));
    let until = |at| KeyPatch { expiry: Some(Expiry::At(at)), ..KeyPatch::default() };
    store.patch_key(scene.account_id, key_id, until(WallTime(NOW.0 + 500)), actor(), NOW).await.unwrap();
    store.patch_key(scene.account_id, key_id, until(end), actor(), NOW).await.unwrap();
    assert!(store.expire_keys(10, WallTime(end.0 - 1)).await.unwrap().is_empty(), "it is not time");
    let before = store.clusters().await.unwrap();
    assert_eq!(store.expire_keys(10, end).await.unwrap(), [key_id]);
    assert!(store.expire_keys(10, end).await.unwrap().is_empty(), "once");
    let renew = Renew {
        incarnation: crate::principal::Incarnation::random().unwrap(),
        epoch: Some(before.epoch),
        applied: before.revision,
        version: "1",
    };
    let LogTail::Entries(entries) = store.renew(renew).await.unwrap().log else { panic!("the log is short") };
    let expired = |change: &Change| matches!(change, Change::KeyPut { credential, .. } if credential.expired);
    assert!(entries.len() == 1 && expired(&entries[0].change), "{entries:?}");
    let Found::Key { credential, .. } = store.load(key.digest).await.unwrap().found else { panic!("not found") };
    assert!(credential.expired);
    let later = WallTime(end.0 + 5000);
    let back = store.patch_key(scene.account_id, key_id, until(later), actor(), end).await.unwrap();
    assert!(!back.record.credential.expired && back.revision.is_some());
    let endless = KeyPatch { expiry: Some(Expiry::Never), ..KeyPatch::default() };
    let back = store.patch_key(scene.account_id, key_id, endless, actor(), end).await.unwrap();
    assert_eq!((back.record.credential.expires_at, back.revision.is_some()), (None, true));
    assert!(store.expire_keys(10, WallTime(later.0 + 1)).await.unwrap().is_empty(), "it has no end any more");
    scene.delete(key_id).await;
    assert!(store.expire_keys(10, later).await.unwrap().is_empty(), "a deleted key does not expire");
    assert!(!store.key(never.key_id()).await.unwrap().unwrap().credential.expired);
}
