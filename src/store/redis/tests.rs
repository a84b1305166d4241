//! What only a store on another server can get wrong: two control planes, lost connections and servers, a store that is gone.

mod apart;
mod leaving;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use super::server::Server;
use super::{RedisStore, Role, Settings};
use crate::principal::{Incarnation, Revision};
use crate::store::accounts::{AccountError, Refusal};
use crate::store::audit::AuditVerdict;
use crate::store::contract::{self, LEASE, LIMITS, NOW, Scene, actor, at_once, contract_tests, refusal};
use crate::store::{Found, LogTail, Renew, Store, StoreError};

contract_tests!(fresh_store);

fn fresh_store() -> (Arc<Server>, Arc<dyn Store>) {
    let server = Server::shared();
    let store = control(&server.fresh(), "control-1").unwrap();
    (server, Arc::new(store))
}

fn settings(url: &str, id: &str) -> Settings {
    let role = Role::Control { id: id.to_owned(), peers: Vec::new(), known: None };
    Settings { patience: Duration::from_secs(3), ..Settings::new(url, LEASE, role) }
}

fn control(url: &str, id: &str) -> Result<RedisStore, StoreError> {
    RedisStore::open(settings(url, id))
}

#[test]
fn every_history_of_an_account_is_as_the_rules_foretell() {
    let server = Server::shared();
    contract::every_history_of_an_account_is_as_the_rules_foretell(40, || {
        let url = server.fresh();
        Box::new(move || Arc::new(control(&url, "control-1").unwrap()))
    });
}

async fn active(store: &Arc<dyn Store>, scene: &Scene) -> u32 {
    store.key_slots(scene.account_id, LIMITS, NOW).await.unwrap().active
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hundred_creates_through_two_control_planes_leave_exactly_three() {
    let server = Server::shared();
    let url = server.fresh();
    let stores: Vec<Arc<dyn Store>> =
        ["one", "two"].map(|id| Arc::new(control(&url, id).unwrap()) as Arc<dyn Store>).into();
    let here = Scene::ready(&stores[0]).await;
    let there = Scene { store: Arc::clone(&stores[1]), ..here.clone() };
    let scenes = [here, there];
    let answers = at_once(100, |number| {
        let scene = scenes[number % 2].clone();
        async move { scene.create(NOW).await }
    });
    let (made, refused): (Vec<_>, Vec<_>) = answers.await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 3);
    for answer in refused {
        assert_eq!(refusal(answer), Refusal::KeyLimitReached { max: 3 });
    }
    for store in &stores {
        assert_eq!(active(store, &scenes[0]).await, 3);
        assert!(matches!(store.verify_audit().await.unwrap(), AuditVerdict::Whole { .. }));
    }
    // What one deletes the other knows at once, also where it remembers the rows.
    let key_id = made[0].as_ref().unwrap().record.key_id();
    scenes[0].delete(key_id).await;
    scenes[1].create(NOW).await.unwrap();
    assert_eq!(refusal(scenes[0].create(NOW).await), Refusal::KeyLimitReached { max: 3 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_whose_connection_is_cut_is_made_once_or_not_at_all() {
    let server = Server::start();
    let url = server.fresh();
    let store: Arc<dyn Store> = Arc::new(control(&url, "control-1").unwrap());
    let scene = Scene::ready(&store).await;
    let cutting = tokio::spawn({
        let client = redis::Client::open(url).unwrap();
        async move {
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            loop {
                let _: () = redis::cmd("CLIENT")
                    .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
                    .query_async(&mut connection)
                    .await
                    .unwrap();
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
        }
    });
    let (mut made, mut unsure) = (0, 0);
    for round in 0..60 {
        let keys: Vec<_> = (0..3).map(|_| scene.new_key()).collect();
        match store.import_keys(scene.account_id, keys.clone(), actor(), NOW).await {
            Ok(_) => made += 1,
            Err(AccountError::Store(StoreError::Away(_))) => unsure += 1,
            Err(error) => panic!("{round}: {error}"),
        }
    }
    cutting.abort();
    assert!(made > 0, "{made} made, {unsure} unsure");
    let verdict = async { store.verify_audit().await };
    let verdict = until(|| async { store.verify_audit().await.ok() }).await.unwrap_or(verdict.await.unwrap());
    assert!(matches!(verdict, AuditVerdict::Whole { .. }), "{verdict:?}");
    let imported = store.list_keys(
        scene.account_id,
        crate::store::accounts::Keys::Live,
        crate::store::accounts::Page::first(1000),
    );
    let imported = imported.await.unwrap().len();
    assert!(
        imported.is_multiple_of(3) && (made * 3..=(made + unsure) * 3).contains(&imported),
        "{imported} of {made} + {unsure}"
    );
}

/// Asks until there is an answer, for a while.
async fn until<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> Option<T> {
    for _ in 0..200 {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    None
}

fn frozen<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> Option<String> {
    match answer {
        Err(StoreError::Frozen(why)) => Some(why),
        Err(StoreError::Away(_)) => None,
        other => panic!("neither frozen nor away: {other:?}"),
    }
}

fn renewal(applied: u64) -> Renew {
    Renew { incarnation: Incarnation([7; 10]), epoch: None, applied: Revision(applied), version: "1" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_and_restarted_is_closed_until_another_epoch_is_opened() {
    let server = Server::start();
    let store = Arc::new(control(&server.fresh(), "control-1").unwrap());
    let scene = Scene::ready(&(Arc::clone(&store) as Arc<dyn Store>)).await;
    let key = scene.key().await;
    let first = crate::store::FeedStore::renew(&*store, renewal(0)).await.unwrap();
    let dynamic: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
    server.kill();
    let started = std::time::Instant::now();
    for _ in 0..20 {
        assert!(matches!(dynamic.load(key.digest).await, Err(StoreError::Away(_))));
    }
    assert!(started.elapsed() < Duration::from_secs(3), "nobody waits for a dead server again and again");
    server.start_again();
    // It may have lost something, as far as anybody can tell: never unknown, never a lease.
    until(|| async { frozen(dynamic.load(key.digest).await) }).await.expect("closed");
    until(|| async { frozen(dynamic.renew(renewal(0)).await) }).await.expect("closed");
    until(|| async { frozen(dynamic.gateways().await) }).await.expect("closed");
    assert!(until(|| async { store.look_for_another_server().await.ok() }).await.unwrap().is_some());
    // Only this control plane is answered, to make its changes again.
    scene.create(NOW).await.unwrap();
    assert!(frozen(dynamic.load(key.digest).await).is_some());
    assert_eq!(store.open_epoch().await.unwrap(), super::Opened::Open);
    let second = dynamic.renew(Renew { epoch: Some(first.epoch), ..renewal(first.revision.0) }).await.unwrap();
    assert_ne!(first.epoch, second.epoch);
    assert_eq!((second.log, second.store_id), (LogTail::Trimmed, first.store_id));
    assert!(matches!(dynamic.load(key.digest).await.unwrap().found, Found::Key { .. }));
    // Leases of the epoch before may go on, and nobody knows whose: a delete waits for them once.
    let revision = scene.delete(key.key_id()).await.revision.unwrap();
    let pending = dynamic.confirm(revision, Duration::ZERO).await.unwrap();
    assert!(pending.unconfirmed.contains(&crate::store::gateways::UNNAMED) && pending.at_latest > LEASE);
    let acknowledged = async {
        let renew = Renew { epoch: Some(second.epoch), ..renewal(revision.0) };
        dynamic.renew(renew).await.unwrap();
        dynamic.confirm(revision, Duration::from_secs(10)).await.unwrap()
    };
    assert!(acknowledged.await.is_everywhere());
    assert!(started.elapsed() > LEASE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_flushed_is_frozen_and_never_says_that_a_key_is_unknown() {
    let server = Server::start();
    let url = server.fresh();
    let store = Arc::new(control(&url, "control-1").unwrap());
    let dynamic: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
    let scene = Scene::ready(&dynamic).await;
    let key = scene.key().await;
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    assert!(frozen(dynamic.load(key.digest).await).is_some());
    assert!(frozen(dynamic.renew(renewal(0)).await).is_some());
    assert!(frozen(dynamic.clusters().await.map(drop)).is_some());
    assert!(frozen(dynamic.key(key.key_id()).await).is_some());
    assert!(matches!(scene.create(NOW).await, Err(AccountError::Store(StoreError::Frozen(_)))));
    // Whoever remembers it says so, and then nobody sets another one up in its place.
    assert!(frozen(store.look_for_another_server().await).is_some());
    let fresh = control(&url, "control-2").err().unwrap();
    assert!(matches!(&fresh, StoreError::Frozen(why) if why.contains(&store.store_id().to_string())), "{fresh}");
    assert!(frozen(dynamic.load(key.digest).await).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_beside_a_journal_is_frozen_and_a_gateway_never_sets_a_store_up() {
    let server = Server::shared();
    let url = server.fresh();
    let gateway = Settings { patience: Duration::ZERO, ..Settings::new(&url, LEASE, Role::Gateway) };
    assert!(matches!(RedisStore::open(gateway), Err(StoreError::Away(_))));
    let known = Some(crate::principal::StoreId::random().unwrap());
    let role = Role::Control { id: "control-1".to_owned(), peers: Vec::new(), known };
    assert!(matches!(RedisStore::open(Settings { role, ..settings(&url, "control-1") }), Err(StoreError::Frozen(_))));
    assert!(matches!(control(&url, "control-2"), Err(StoreError::Frozen(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_peers_a_store_is_set_up_once_all_have_come() {
    let server = Server::shared();
    let url = server.fresh();
    let with_peer = |id: &str, peer: &str, patience| {
        let role = Role::Control { id: id.to_owned(), peers: vec![peer.to_owned()], known: None };
        Settings { patience, role, ..settings(&url, id) }
    };
    assert!(matches!(RedisStore::open(with_peer("one", "two", Duration::ZERO)), Err(StoreError::Away(_))));
    let two = RedisStore::open(with_peer("two", "one", Duration::from_secs(5))).unwrap();
    let one = RedisStore::open(with_peer("one", "two", Duration::from_secs(5))).unwrap();
    assert_eq!(one.store_id(), two.store_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replication_id_is_another_server() {
    let server = Server::start();
    let (store, url): (Arc<dyn Store>, _) = {
        let url = server.fresh();
        (Arc::new(control(&url, "control-1").unwrap()), url)
    };
    let scene = Scene::ready(&store).await;
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("DEBUG").arg("CHANGE-REPL-ID").query_async(&mut connection).await.unwrap();
    assert!(frozen(store.renew(renewal(0)).await).is_some());
    assert!(frozen(store.load(scene.new_key().digest).await).is_some());
    assert!(
        frozen(
            store
                .merge(crate::meter::record::Flush {
                    incarnation: Incarnation([7; 10]),
                    hour: crate::time::Hour(1),
                    sequence: 1,
                    lines: Vec::new(),
                    watermark: NOW,
                    closing: None,
                })
                .await
        )
        .is_some()
    );
    assert!(matches!(scene.create(NOW).await, Err(AccountError::Store(StoreError::Frozen(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_read_harms_only_itself() {
    let server = Server::shared();
    let url = server.fresh();
    let store: Arc<dyn Store> = Arc::new(control(&url, "control-1").unwrap());
    let (good, bad) = (Scene::ready(&store).await, Scene::ready(&store).await);
    let (good_key, bad_key) = (good.key().await, bad.key().await);
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let row = |table: &str, key: &[u8]| redis::cmd("HSET").arg(table).arg(key).arg("{\"account\":").clone();
    let _: () = row("{tg}:t:accounts", &bad.account_id.0).query_async(&mut connection).await.unwrap();
    let clusters = store.list_clusters(Some(bad.account_id)).await.unwrap();
    let _: () = row("{tg}:t:clusters", &clusters[0].cluster.cluster_id.0).query_async(&mut connection).await.unwrap();
    assert!(matches!(store.load(good_key.digest).await.unwrap().found, Found::Key { .. }));
    assert!(matches!(store.load(bad_key.digest).await, Err(StoreError::Corrupt(why)) if why.contains("accounts")));
    assert_eq!(store.clusters().await.unwrap().clusters.len(), 1, "the other one is served");
    let _: () = row("{tg}:t:log", &3_u64.to_be_bytes()).query_async(&mut connection).await.unwrap();
    // It may be a deletion: the gateway has to start again behind it.
    assert_eq!(store.renew(renewal(0)).await.unwrap().log, LogTail::Trimmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_does_not_reach_back_is_trimmed() {
    let server = Server::shared();
    let short = Settings { log_keep: 10, ..settings(&server.fresh(), "control-1") };
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(short).unwrap());
    let scene = Scene::ready(&store).await;
    let keys = (0..24).map(|_| scene.new_key()).collect();
    store.import_keys(scene.account_id, keys, actor(), NOW).await.unwrap();
    let first = store.renew(renewal(0)).await.unwrap();
    assert_eq!((first.log, first.revision), (LogTail::Trimmed, Revision(25)));
    for (applied, reaches) in [(0, false), (14, false), (15, true), (24, true), (25, true), (26, false)] {
        match store.renew(Renew { epoch: Some(first.epoch), ..renewal(applied) }).await.unwrap().log {
            LogTail::Entries(entries) => assert!(reaches && entries.len() as u64 == 25 - applied, "{applied}"),
            LogTail::Trimmed => assert!(!reaches, "{applied}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_holds_every_row_and_becomes_a_store() {
    use crate::store::accounts::AccountStore;
    use crate::store::backup::{BackupReader, SettledJournal};
    use crate::store::embedded::{self, Embedded};
    use crate::store::upkeep::Kept;
    let server = Server::shared();
    let store = Arc::new(control(&server.fresh(), "control-1").unwrap());
    let dynamic: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
    let scene = Scene::ready(&dynamic).await;
    let keys: Vec<_> = (0..700).map(|_| scene.new_key()).collect();
    dynamic.import_keys(scene.account_id, keys.clone(), actor(), NOW).await.unwrap();
    scene.delete(keys[5].key_id).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    let to = Box::new(std::fs::File::create(&path).unwrap());
    let journal = SettledJournal { journal_id: crate::principal::JournalId::random().unwrap(), settled: 0 };
    let copying = tokio::task::spawn_blocking(move || store.copy(journal, NOW, to).unwrap());
    let header = copying.await.unwrap();
    assert_eq!(header.revision, Revision(702));
    let made = folder.path().join("made");
    Embedded::make_from(BackupReader::begin(std::fs::File::open(&path).unwrap()).unwrap(), &made, 0).unwrap();
    let copy = Embedded::open(&made, embedded::Settings::new(LEASE)).unwrap();
    for (number, key) in keys.iter().enumerate() {
        let kept = copy.key_by_digest(key.digest).await.unwrap().unwrap();
        assert_eq!(kept.deleted.is_some(), number == 5);
    }
    assert_eq!(copy.verify_audit().await.unwrap(), dynamic.verify_audit().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_too_few_replicas_have_is_not_answered_as_done() {
    let server = Server::start();
    let replica = server.start_replica();
    let url = server.fresh();
    // Attaching the first replica gives the server another id.
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let attached = || {
        let mut connection = connection.clone();
        async move {
            // It has loaded what it was sent, and answers.
            let follow: u32 = redis::cmd("WAIT").arg(&[1, 100]).query_async(&mut connection).await.unwrap();
            (follow == 1).then_some(())
        }
    };
    until(attached).await.expect("the replica follows");
    let settings = Settings { replicas: 1, ..settings(&url, "control-1") };
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(settings).unwrap());
    // A replica has half a second to follow. On a busy machine that may take more than one attempt, each with a scene of its own.
    let deleted = || {
        let store = Arc::clone(&store);
        let attempt = async move {
            let scene = Scene::ready(&store).await;
            let key = scene.key().await;
            let revision = scene.delete(key.key_id()).await.revision.unwrap();
            (scene, revision)
        };
        async { tokio::spawn(attempt).await.ok() }
    };
    let (scene, revision) = until(deleted).await.expect("a key is deleted while the replica follows");
    assert!(store.confirm(revision, Duration::from_secs(5)).await.unwrap().is_everywhere());
    replica.kill();
    let new = scene.new_key();
    let made = store.create_key(new.clone(), LIMITS, actor(), NOW).await;
    assert!(matches!(made, Err(AccountError::Store(StoreError::Away(why))) if why.contains("replicas")));
    let revision = store.load(new.digest).await.unwrap().revision;
    let pending = store.confirm(revision, Duration::ZERO).await.unwrap();
    assert!(!pending.is_everywhere(), "{pending:?}");
    let _: () = redis::cmd("PING").query_async::<String>(&mut connection).await.map(drop).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_made_before_redis_went_away_is_pending_with_a_bound() {
    let server = Server::start();
    let store: Arc<dyn Store> = Arc::new(control(&server.fresh(), "control-1").unwrap());
    let scene = Scene::ready(&store).await;
    let key = scene.key().await;
    store.renew(renewal(0)).await.unwrap();
    let revision = scene.delete(key.key_id()).await.revision.unwrap();
    server.kill();
    let pending = store.confirm(revision, Duration::from_millis(200)).await.unwrap();
    assert!(!pending.is_everywhere());
    assert!(
        pending.at_latest > Duration::ZERO && pending.at_latest <= crate::store::confirm::outwait(LEASE),
        "{pending:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_epoch_waits_for_every_control_plane_that_was_named() {
    let server = Server::start();
    let url = server.fresh();
    let with_peer = |id: &str, peer: &str| {
        let role = Role::Control { id: id.to_owned(), peers: vec![peer.to_owned()], known: None };
        Settings { role, patience: Duration::from_secs(10), ..settings(&url, id) }
    };
    let coming = [with_peer("one", "two"), with_peer("two", "one")]
        .map(|settings| tokio::task::spawn_blocking(move || RedisStore::open(settings).unwrap()));
    let [one, two] = coming;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert!(one.look_for_another_server().await.unwrap().is_none());
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("DEBUG").arg("CHANGE-REPL-ID").query_async(&mut connection).await.unwrap();
    assert!(one.look_for_another_server().await.unwrap().is_some());
    assert_eq!(one.open_epoch().await.unwrap(), super::Opened::Waiting);
    assert!(frozen(crate::store::FeedStore::renew(&one, renewal(0)).await).is_some(), "not before all have come");
    assert!(two.look_for_another_server().await.unwrap().is_some());
    assert_eq!(two.open_epoch().await.unwrap(), super::Opened::Open);
    let renewed = crate::store::FeedStore::renew(&two, renewal(0)).await.unwrap();
    assert_eq!(one.open_epoch().await.unwrap(), super::Opened::Open);
    assert_eq!(crate::store::FeedStore::renew(&one, renewal(0)).await.unwrap().epoch, renewed.epoch);
}
