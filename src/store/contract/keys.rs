//! Keys: limits, days, grants, deletion.

use std::sync::Arc;

use super::scene::{LIMITS, NOW, Scene, actor, at_once, fresh, refusal};
use crate::principal::{AccountStatus, Revision, SessionId};
use crate::store::accounts::{AccountPatch, DeleteBy, KeyLimits, KeyPatch, Keys, Page, Refusal};
use crate::store::records::{GrantFor, Sealed};
use crate::store::{Found, Store};
use crate::time::WallTime;

type AnyStore = Arc<dyn Store>;

pub async fn one_hundred_concurrent_creates_leave_exactly_three(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let answers = at_once(100, |_| {
        let scene = scene.clone();
        async move { scene.create(NOW).await }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    for answer in answers.into_iter().filter(Result::is_err) {
        assert_eq!(refusal(answer), Refusal::KeyLimitReached { max: 3 });
    }
    let listed = store.list_keys(scene.account_id, Keys::Live, Page::first(100)).await.unwrap();
    assert_eq!(listed.len(), 3);
    let slots = store.key_slots(scene.account_id, LIMITS, NOW).await.unwrap();
    assert_eq!((slots.active, slots.created_today), (3, 3), "a refused create costs nothing");
}

pub async fn the_eleventh_creation_of_a_day_is_refused_until_the_next_one_begins_at_the_offset(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    // 23:59:59.999 at +08:00, and the instant after.
    let (late, midnight) = (WallTime(1_774_022_399_999), WallTime(1_774_022_400_000));
    assert_eq!(midnight.to_string(), "2026-03-20T16:00:00Z");
    for _ in 0..10 {
        let key = scene.create(late).await.unwrap().record;
        scene.delete(key.key_id()).await;
    }
    let limited = Refusal::DailyLimitReached { max: 10, resets_at: midnight };
    assert_eq!(refusal(scene.create(late).await), limited);
    assert_eq!(refusal(scene.create(late).await), limited);
    scene.create(midnight).await.unwrap();
    let slots = store.key_slots(scene.account_id, LIMITS, midnight).await.unwrap();
    assert_eq!((slots.active, slots.created_today), (1, 1));
    assert_eq!(slots.resets_at, WallTime(midnight.0 + 86_400_000));
    assert_eq!(refusal(scene.create(late).await), limited, "setting the clock back gives nothing back");
}

pub async fn nothing_is_created_before_the_account_may(store: AnyStore) {
    let scene = Scene::new(&store, false).await;
    assert_eq!(refusal(scene.create(NOW).await), Refusal::IdentityUnverified);
    let patch = AccountPatch { verified: Some(true), ..AccountPatch::default() };
    assert_eq!(store.patch_account(scene.account_id, patch, actor(), NOW).await.unwrap().revision, None);
    assert_eq!(refusal(scene.create(NOW).await), Refusal::NoCluster);
    let cluster_id = scene.add_cluster().await;
    suspend(&scene, AccountStatus::Suspended).await;
    assert_eq!(refusal(scene.create(NOW).await), Refusal::AccountSuspended);
    suspend(&scene, AccountStatus::Active).await;
    scene.create(NOW).await.unwrap();
    store.delete_cluster(cluster_id, actor(), NOW).await.unwrap();
    assert_eq!(refusal(scene.create(NOW).await), Refusal::NoCluster);
}

async fn suspend(scene: &Scene, status: AccountStatus) {
    let patch = AccountPatch { status: Some(status), ..AccountPatch::default() };
    let changed = scene.store.patch_account(scene.account_id, patch, actor(), NOW).await.unwrap();
    assert!(changed.revision.is_some());
    assert_eq!(changed.record.account.status, status);
}

pub async fn a_disabled_key_holds_its_slot_and_a_deleted_one_does_not(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let (one, _, _) = (scene.key().await, scene.key().await, scene.key().await);
    let disable = KeyPatch { disabled: Some(true), ..KeyPatch::default() };
    let changed = store.patch_key(scene.account_id, one.key_id(), disable, actor(), NOW).await.unwrap();
    assert!(changed.record.credential.disabled && changed.record.credential.version > one.credential.version);
    assert_eq!(refusal(scene.create(NOW).await), Refusal::KeyLimitReached { max: 3 });
    scene.delete(one.key_id()).await;
    scene.create(NOW).await.unwrap();
    assert_eq!(refusal(scene.create(NOW).await), Refusal::KeyLimitReached { max: 3 });
}

pub async fn limits_of_the_account_come_before_the_configured_ones(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let patch = AccountPatch { active_max: Some(1), daily_max: Some(2), ..AccountPatch::default() };
    store.patch_account(scene.account_id, patch, actor(), NOW).await.unwrap();
    let key = scene.key().await;
    assert_eq!(refusal(scene.create(NOW).await), Refusal::KeyLimitReached { max: 1 });
    scene.delete(key.key_id()).await;
    let key = scene.key().await;
    scene.delete(key.key_id()).await;
    assert!(matches!(refusal(scene.create(NOW).await), Refusal::DailyLimitReached { max: 2, .. }));
}

pub async fn an_import_is_all_or_nothing_and_counts_toward_no_limit(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let gone = scene.key().await;
    scene.delete(gone.key_id()).await;
    let mut keys: Vec<_> = (0..20).map(|_| scene.new_key()).collect();
    keys[17].digest = gone.digest;
    let answer = store.import_keys(scene.account_id, keys.clone(), actor(), NOW).await;
    assert_eq!(refusal(answer), Refusal::DigestTaken { index: 17 });
    keys[17].digest = keys[3].digest;
    let answer = store.import_keys(scene.account_id, keys.clone(), actor(), NOW).await;
    assert_eq!(refusal(answer), Refusal::DigestTaken { index: 17 });
    assert_eq!(store.load(keys[0].digest).await.unwrap().found, Found::Unknown);

    keys[17].digest = scene.new_key().digest;
    let changed = store.import_keys(scene.account_id, keys.clone(), actor(), NOW).await.unwrap();
    assert_eq!(changed.record.len(), 20);
    assert_eq!(changed.revision, Some(store.load(keys[0].digest).await.unwrap().revision));
    let slots = store.key_slots(scene.account_id, LIMITS, NOW).await.unwrap();
    assert_eq!((slots.active, slots.created_today), (0, 1));
    scene.delete(keys[0].key_id).await;
    assert_eq!(store.key_slots(scene.account_id, LIMITS, NOW).await.unwrap().active, 0);
    for _ in 0..3 {
        scene.key().await;
    }
}

pub async fn a_deleted_key_never_comes_back(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let key = scene.key().await;
    let deleted = scene.delete(key.key_id()).await;
    let enable = KeyPatch { disabled: Some(false), ..KeyPatch::default() };
    let patched = store.patch_key(scene.account_id, key.key_id(), enable, actor(), NOW).await;
    assert_eq!(refusal(patched), Refusal::NotFound);
    let mut again = scene.new_key();
    again.digest = key.digest;
    let created = store.create_key(again.clone(), LIMITS, actor(), NOW).await;
    assert_eq!(refusal(created), Refusal::DigestTaken { index: 0 });
    let imported = store.import_keys(scene.account_id, vec![again], actor(), NOW).await;
    assert_eq!(refusal(imported), Refusal::DigestTaken { index: 0 });
    let loaded = store.load(key.digest).await.unwrap();
    assert_eq!(loaded.found, Found::Deleted);
    assert_eq!(Some(loaded.revision), deleted.revision);
    let grant = scene.grant(GrantFor::View(key.key_id())).await;
    assert_eq!(refusal(scene.view(key.key_id(), grant).await), Refusal::NotFound);
}

pub async fn a_repeated_delete_gives_the_same_facts_and_needs_no_grant(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let key = scene.key().await;
    let bare = store.delete_key(scene.account_id, key.key_id(), DeleteBy::Nothing, actor(), NOW).await;
    assert_eq!(refusal(bare), Refusal::StepUpRequired);
    let first = scene.delete(key.key_id()).await;
    let deletion = first.record.deleted.clone().unwrap();
    assert_eq!((Some(deletion.revision), deletion.deleted_at), (first.revision, NOW));
    assert_eq!(deletion.reason.as_deref(), Some("leaked"));
    let later = WallTime(NOW.0 + 5000);
    let again = store.delete_key(scene.account_id, key.key_id(), DeleteBy::Nothing, actor(), later).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(store.key(key.key_id()).await.unwrap().unwrap().deleted, Some(deletion));

    let other = Scene::ready(&store).await;
    let foreign = store.delete_key(other.account_id, key.key_id(), DeleteBy::Nothing, actor(), NOW).await;
    assert_eq!(refusal(foreign), Refusal::NotFound);
}

pub async fn one_hundred_views_with_one_grant_show_the_key_once(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let key_id = scene.key().await.key_id();
    let grant = scene.grant(GrantFor::View(key_id)).await;
    let answers = at_once(100, |_| {
        let scene = scene.clone();
        async move { scene.view(key_id, grant).await }
    })
    .await;
    let (shown, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(shown.len(), 1);
    assert!(matches!(&shown[0], Ok(sealed) if *sealed == Sealed(vec![7; 40])));
    assert!(refused.into_iter().all(|answer| refusal(answer) == Refusal::GrantInvalid));
}

pub async fn one_hundred_uses_of_one_step_give_one_grant(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let key_id = scene.key().await.key_id();
    let step = fresh();
    let answers = at_once(100, |_| {
        let (scene, step_up) = (scene.clone(), scene.step_up(step, GrantFor::View(key_id)));
        async move {
            let hash = step_up.grant.hash;
            (scene.store.step_up(step_up, actor(), NOW).await, scene.view(key_id, hash).await)
        }
    })
    .await;
    assert_eq!(answers.iter().filter(|(exchanged, _)| exchanged.is_ok()).count(), 1);
    assert_eq!(answers.iter().filter(|(_, viewed)| viewed.is_ok()).count(), 1);
    for (exchanged, _) in answers.into_iter().filter(|(exchanged, _)| exchanged.is_err()) {
        assert_eq!(refusal(exchanged), Refusal::CodeReplayed { next_step: step + 1 });
    }
    let earlier = scene.step_up(step - 1, GrantFor::View(key_id));
    assert_eq!(refusal(store.step_up(earlier, actor(), NOW).await), Refusal::CodeReplayed { next_step: step + 1 });
}

pub async fn a_grant_is_bound_to_session_action_and_key_and_ends(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let (one, two) = (scene.key().await.key_id(), scene.key().await.key_id());
    let account_id = scene.account_id;
    let session_id = scene.session.session_id;
    let grant = scene.grant(GrantFor::View(one)).await;
    assert_eq!(refusal(scene.view(two, grant).await), Refusal::GrantInvalid, "another key");
    let by = DeleteBy::Grant { hash: grant, session_id };
    let deleted = store.delete_key(account_id, one, by, actor(), NOW).await;
    assert_eq!(refusal(deleted), Refusal::GrantInvalid, "another action");
    let elsewhere = SessionId::random().unwrap();
    let viewed = store.view_key(account_id, one, grant, elsewhere, actor(), NOW).await;
    assert_eq!(refusal(viewed), Refusal::GrantInvalid, "another session");
    let end = WallTime(NOW.0 + 120_000);
    let viewed = store.view_key(account_id, one, grant, session_id, actor(), end).await;
    assert_eq!(refusal(viewed), Refusal::GrantInvalid, "at its end");
    scene.view(one, grant).await.unwrap();

    let grant = scene.grant(GrantFor::Account).await;
    let using = |action| store.use_grant(account_id, action, grant, session_id, actor(), NOW);
    assert_eq!(refusal(using(GrantFor::View(one)).await), Refusal::GrantInvalid);
    using(GrantFor::Account).await.unwrap();
    assert_eq!(refusal(using(GrantFor::Account).await), Refusal::GrantInvalid, "used");

    let grant = scene.grant(GrantFor::View(one)).await;
    store.close_session(scene.session.token, actor(), NOW).await.unwrap();
    assert_eq!(refusal(scene.view(one, grant).await), Refusal::GrantInvalid, "its session is closed");
    let orphan = scene.step_up(fresh(), GrantFor::View(one));
    assert_eq!(refusal(store.step_up(orphan, actor(), NOW).await), Refusal::NotFound);
}

pub async fn a_delete_uses_its_grant_up(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let key_id = scene.key().await.key_id();
    let hash = scene.grant(GrantFor::Delete(key_id)).await;
    let by = DeleteBy::Grant { hash, session_id: scene.session.session_id };
    let answers = at_once(50, |_| {
        let (scene, by) = (scene.clone(), by.clone());
        async move { scene.store.delete_key(scene.account_id, key_id, by, actor(), NOW).await.unwrap() }
    })
    .await;
    let first: Option<Revision> = answers[0].revision;
    assert!(answers.iter().all(|answer| answer.revision == first), "one deletion, whoever asks");
    let session_id = scene.session.session_id;
    let used = store.use_grant(scene.account_id, GrantFor::Delete(key_id), hash, session_id, actor(), NOW).await;
    assert_eq!(refusal(used), Refusal::GrantInvalid);
}

pub async fn keys_are_listed_in_pages_oldest_first(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let limits = KeyLimits { active_max: 100, daily_max: 100, ..LIMITS };
    let mut made = Vec::new();
    for number in 0..7 {
        let at = WallTime(NOW.0 + number);
        made.push(store.create_key(scene.new_key(), limits, actor(), at).await.unwrap().record.key_id());
    }
    Scene::ready(&store).await.key().await;
    assert_eq!(pages(&scene, Keys::Live).await, made);
    let gone = made.remove(3);
    scene.delete(gone).await;
    assert_eq!(pages(&scene, Keys::Live).await, made);
    assert_eq!(pages(&scene, Keys::Deleted).await, [gone]);
}

async fn pages(scene: &Scene, which: Keys) -> Vec<crate::principal::KeyId> {
    let (mut seen, mut page) = (Vec::new(), Page::first(3));
    loop {
        let keys = scene.store.list_keys(scene.account_id, which, page).await.unwrap();
        let Some(last) = keys.last() else { return seen };
        page.after = Some(last.key_id());
        seen.extend(keys.iter().map(super::super::records::KeyRecord::key_id));
    }
}
