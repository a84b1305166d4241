//! Accounts, clusters, sessions, audit.

use std::collections::HashSet;
use std::sync::Arc;

use super::scene::{NOW, Scene, actor, fresh, fresh_hash, new_user, refusal, session_of};
use crate::principal::{AccountId, UserId};
use crate::store::Store;
use crate::store::accounts::{ClusterPatch, DeleteBy, NewAccount, Page, Refusal};
use crate::store::audit::{AuditQuery, AuditVerdict};
use crate::store::records::{GrantFor, Role, Sealed, TokenHash};
use crate::time::WallTime;

type AnyStore = Arc<dyn Store>;

pub async fn hosts_belong_to_one_cluster_in_any_spelling(store: AnyStore) {
    let (one, two) = (Scene::new(&store, true).await, Scene::new(&store, true).await);
    let new = one.new_cluster(&["A.Example.com.", "a.example.com", "b.example.com"]);
    let cluster_id = new.cluster_id;
    let made = store.create_cluster(new, actor(), NOW).await.unwrap();
    assert_eq!(made.record.cluster.hosts, ["a.example.com", "b.example.com"]);
    let taken = |host: &str| Refusal::HostTaken { host: host.to_owned() };
    let clash = two.new_cluster(&["c.example.com", "B.EXAMPLE.COM"]);
    assert_eq!(refusal(store.create_cluster(clash, actor(), NOW).await), taken("b.example.com"));
    for bad in ["c.example.com:443", "", ".", "a b", "http://x", "ü.example.com"] {
        let answer = store.create_cluster(two.new_cluster(&[bad]), actor(), NOW).await;
        assert_eq!(refusal(answer), Refusal::HostMalformed { host: bad.to_owned() });
    }
    assert_eq!(refusal(store.create_cluster(two.new_cluster(&[]), actor(), NOW).await), Refusal::NoHost);

    let other = two.new_cluster(&["c.example.com"]);
    let other_id = other.cluster_id;
    store.create_cluster(other, actor(), NOW).await.unwrap();
    let hosts = |hosts: &[&str]| {
        let hosts = Some(hosts.iter().map(|host| (*host).to_owned()).collect());
        ClusterPatch { hosts, ..ClusterPatch::default() }
    };
    let grab = store.patch_cluster(other_id, hosts(&["a.example.com"]), actor(), NOW).await;
    assert_eq!(refusal(grab), taken("a.example.com"));
    let moved = store.patch_cluster(cluster_id, hosts(&["a.example.com"]), actor(), NOW).await.unwrap();
    assert!(moved.revision > made.revision && moved.record.cluster.version > made.record.cluster.version);
    store.patch_cluster(other_id, hosts(&["b.example.com"]), actor(), NOW).await.unwrap();
    store.delete_cluster(cluster_id, actor(), NOW).await.unwrap();
    assert_eq!(refusal(store.delete_cluster(cluster_id, actor(), NOW).await), Refusal::NotFound);
    store.patch_cluster(other_id, hosts(&["a.example.com", "b.example.com"]), actor(), NOW).await.unwrap();
    assert_eq!(store.list_clusters(Some(two.account_id)).await.unwrap().len(), 1);
    assert_eq!(store.list_clusters(None).await.unwrap().len(), 1);
    let renamed = ClusterPatch { name: Some("prod".to_owned()), ..ClusterPatch::default() };
    assert_eq!(store.patch_cluster(other_id, renamed, actor(), NOW).await.unwrap().revision, None);
}

pub async fn an_email_address_belongs_to_one_user_in_any_spelling(store: AnyStore) {
    let new = |email: &str| NewAccount {
        account_id: AccountId::random().unwrap(),
        name: Some("Example".to_owned()),
        verified: false,
        root: new_user(UserId::random().unwrap(), email),
        totp: Sealed(vec![5]),
    };
    let made = store.create_account(new(" Ann@Example.com"), actor(), NOW).await.unwrap();
    let again = store.create_account(new("ann@example.COM"), actor(), NOW).await;
    assert_eq!(refusal(again), Refusal::EmailTaken);
    let user = store.user_by_email("ANN@example.com ").await.unwrap().unwrap();
    assert_eq!((user.account_id, user.role), (made.account.account_id, Role::Root));
    assert_eq!(user.totp, Some(Sealed(vec![5])));
    assert_eq!(store.user(user.user_id).await.unwrap().as_ref(), Some(&user));
    assert_eq!(store.list_users(user.account_id).await.unwrap(), [user]);
    assert_eq!(store.user_by_email("bob@example.com").await.unwrap(), None);
}

pub async fn accounts_are_listed_in_pages(store: AnyStore) {
    let mut made = HashSet::new();
    for _ in 0..5 {
        made.insert(Scene::new(&store, true).await.account_id);
    }
    let (mut seen, mut page) = (HashSet::new(), Page::first(2));
    loop {
        let accounts = store.list_accounts(page).await.unwrap();
        let Some(last) = accounts.last() else { break };
        page.after = Some(last.account.account_id);
        assert!(accounts.iter().all(|record| seen.insert(record.account.account_id)), "once each");
    }
    assert_eq!(seen, made);
    assert!(store.list_accounts(Page::first(0)).await.unwrap().is_empty());
}

pub async fn a_session_ends_when_it_expires_or_is_closed(store: AnyStore) {
    let scene = Scene::new(&store, true).await;
    let token = scene.session.token;
    let end = scene.session.expires_at;
    assert_eq!(store.session(token, NOW).await.unwrap(), Some(scene.session.clone()));
    assert_eq!(store.session(token, end).await.unwrap(), None);
    let longer = WallTime(end.0 + 1000);
    store.touch_session(token, WallTime(NOW.0 + 1), longer).await.unwrap();
    assert_eq!(store.session(token, end).await.unwrap().unwrap().last_seen, WallTime(NOW.0 + 1));
    store.close_session(token, actor(), NOW).await.unwrap();
    store.close_session(token, actor(), NOW).await.unwrap();
    store.touch_session(token, NOW, longer).await.unwrap();
    assert_eq!(store.session(token, NOW).await.unwrap(), None);

    let mut tokens = Vec::new();
    for number in 0..70 {
        let mut session = session_of(scene.account_id, scene.user_id);
        session.last_seen = WallTime(NOW.0 + number);
        tokens.push(session.token);
        store.open_session(session, actor(), NOW).await.unwrap();
    }
    assert_eq!(store.session(tokens[0], NOW).await.unwrap(), None, "the number of sessions is bounded");
    assert!(store.session(tokens[69], NOW).await.unwrap().is_some());
    let nobody = session_of(scene.account_id, UserId::random().unwrap());
    assert_eq!(refusal(store.open_session(nobody, actor(), NOW).await), Refusal::NotFound);
}

pub async fn a_rotated_session_keeps_its_grants(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let key_id = scene.key().await.key_id();
    let mut step_up = scene.step_up(fresh(), GrantFor::View(key_id));
    let new = TokenHash(fresh_hash());
    step_up.rotate = Some(new);
    let grant = step_up.grant.hash;
    store.step_up(step_up, actor(), NOW).await.unwrap();
    assert_eq!(store.session(scene.session.token, NOW).await.unwrap(), None);
    assert_eq!(store.session(new, NOW).await.unwrap().unwrap().session_id, scene.session.session_id);
    scene.view(key_id, grant).await.unwrap();
}

pub async fn every_change_is_in_the_audit_log_and_the_chain_holds(store: AnyStore) {
    let (scene, other) = (Scene::ready(&store).await, Scene::ready(&store).await);
    let key_id = scene.key().await.key_id();
    let grant = scene.grant(GrantFor::View(key_id)).await;
    scene.view(key_id, grant).await.unwrap();
    refusal(store.delete_key(scene.account_id, key_id, DeleteBy::Nothing, actor(), NOW).await);
    scene.delete(key_id).await;
    let mine = AuditQuery { account_id: Some(scene.account_id), before: None, limit: 100 };
    let entries = store.audit(mine).await.unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
    let expected = ["key.delete", "key.view", "session.step_up", "key.create", "cluster.create", "session.open"];
    assert_eq!(actions, [&expected[..], &["account.create"]].concat());
    assert_eq!((&entries[0].actor, entries[0].at, entries[0].detail.as_deref()), (&actor(), NOW, Some("leaked")));
    assert_eq!(entries[0].subject, key_id.to_string());
    let older = AuditQuery { before: Some(entries[4].seq), limit: 1, ..mine };
    assert_eq!(store.audit(older).await.unwrap(), entries[5..6]);
    let all = store.audit(AuditQuery { account_id: None, ..mine }).await.unwrap();
    assert!(all.iter().any(|entry| entry.account_id == Some(other.account_id)));
    let verdict = store.verify_audit().await.unwrap();
    assert_eq!(verdict, AuditVerdict::Whole { entries: all[0].seq });
}
