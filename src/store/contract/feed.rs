//! The change log, loads, renewals, confirmations.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::scene::{LIMITS, NOW, Scene, actor};
use crate::key::Digest;
use crate::principal::{AccountStatus, Credential, Epoch, Incarnation, Revision};
use crate::store::accounts::{AccountPatch, KeyLimits, KeyPatch};
use crate::store::confirm::outwait;
use crate::store::{Change, Found, LogEntry, LogTail, Renew, Renewal, Store};

type AnyStore = Arc<dyn Store>;

/// The lease of the stores under test.
pub const LEASE: Duration = Duration::from_millis(1500);

/// Of the gateways' program; not that of this one.
const VERSION: &str = "9.8.7-of-a-gateway";

const PLENTY: KeyLimits = KeyLimits { active_max: 10_000, daily_max: 10_000, ..LIMITS };

async fn renew(store: &AnyStore, incarnation: Incarnation, epoch: Option<Epoch>, applied: Revision) -> Renewal {
    store.renew(Renew { incarnation, epoch, applied, version: VERSION }).await.unwrap()
}

fn gateway() -> Incarnation {
    Incarnation::random().unwrap()
}

/// Reads the log to its end, as a gateway does.
async fn follow(store: &AnyStore, incarnation: Incarnation) -> (Epoch, Revision, Vec<LogEntry>) {
    let (mut epoch, mut applied, mut seen) = (None, Revision(0), Vec::new());
    loop {
        let renewal = renew(store, incarnation, epoch, applied).await;
        let LogTail::Entries(entries) = renewal.log else { panic!("trimmed") };
        assert!(entries.len() <= LogTail::MOST);
        epoch = Some(renewal.epoch);
        applied = entries.last().map_or(applied, |entry| entry.revision);
        seen.extend(entries);
        if applied == renewal.revision {
            return (renewal.epoch, applied, seen);
        }
    }
}

pub async fn the_log_gives_the_same_state_in_any_order_of_replay(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let mut digests = Vec::new();
    for number in 0..6 {
        let key = store.create_key(scene.new_key(), PLENTY, actor(), NOW).await.unwrap().record;
        digests.push(key.digest);
        for disabled in [true, false].into_iter().take(number) {
            let patch = KeyPatch { disabled: Some(disabled), ..KeyPatch::default() };
            store.patch_key(scene.account_id, key.key_id(), patch, actor(), NOW).await.unwrap();
        }
        if number % 2 == 1 {
            scene.delete(key.key_id()).await;
        }
    }
    let (_, _, log) = follow(&store, gateway()).await;
    let mut backwards = log.clone();
    backwards.reverse();
    let mut rotated = log.clone();
    rotated.rotate_left(log.len() / 2);
    let twice: Vec<_> = log.iter().chain(&backwards).cloned().collect();
    for order in [log, backwards, rotated, twice] {
        let state = replay(&order);
        for digest in &digests {
            let known = match store.load(*digest).await.unwrap().found {
                Found::Key { credential, .. } => Some(credential),
                Found::Deleted => None,
                Found::Unknown => panic!("it was created"),
            };
            assert_eq!(state[digest], known);
        }
    }
}

/// The rule of the gateways: a deletion is final, else the greater version wins.
fn replay(log: &[LogEntry]) -> HashMap<Digest, Option<Credential>> {
    let mut state: HashMap<Digest, Option<Credential>> = HashMap::new();
    for entry in log {
        match &entry.change {
            Change::KeyDeleted { digest, .. } => {
                state.insert(*digest, None);
            }
            Change::KeyPut { digest, credential } => {
                let kept = state.entry(*digest).or_insert(Some(*credential));
                *kept = kept.map(|old| if credential.version > old.version { *credential } else { old });
            }
            _ => {}
        }
    }
    state
}

pub async fn the_log_is_read_in_pages(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let keys: Vec<_> = (0..2500).map(|_| scene.new_key()).collect();
    let imported = store.import_keys(scene.account_id, keys.clone(), actor(), NOW).await.unwrap();
    let me = gateway();
    let first = renew(&store, me, None, Revision(0)).await;
    let LogTail::Entries(entries) = &first.log else { panic!("trimmed") };
    assert_eq!(entries.len(), LogTail::MOST);
    assert!(first.revision > entries.last().unwrap().revision);
    let (epoch, applied, seen) = follow(&store, me).await;
    assert_eq!(Some(applied), imported.revision);
    assert_eq!((first.lease, first.store_id), (store.lease(), store.store_id()));
    let revisions: Vec<_> = seen.iter().map(|entry| entry.revision.0).collect();
    assert_eq!(revisions, (1..=applied.0).collect::<Vec<_>>(), "oldest first, without a gap");
    let current = renew(&store, me, Some(epoch), applied).await;
    assert_eq!(current.log, LogTail::Entries(Vec::new()));
}

pub async fn another_epoch_starts_again_and_acknowledges_nothing(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let me = gateway();
    let (epoch, applied, _) = follow(&store, me).await;
    let stranger = renew(&store, me, Some(Epoch::random().unwrap()), Revision(1_000_000)).await;
    assert_eq!((stranger.log, stranger.epoch), (LogTail::Trimmed, epoch));
    let ahead = renew(&store, gateway(), Some(epoch), Revision(applied.0 + 1)).await;
    assert_eq!(ahead.log, LogTail::Trimmed, "the store has never been there");
    let revision = scene.delete(scene.key().await.key_id()).await.revision.unwrap();
    let confirmation = store.confirm(revision, Duration::ZERO).await.unwrap();
    assert!(confirmation.unconfirmed.contains(&me), "{confirmation:?}");
}

pub async fn a_load_says_what_the_key_is_now(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let created = store.create_key(scene.new_key(), LIMITS, actor(), NOW).await.unwrap();
    let key = created.record;
    let loaded = store.load(key.digest).await.unwrap();
    assert_eq!(Some(loaded.revision), created.revision);
    let Found::Key { credential, account } = loaded.found else { panic!("not found") };
    assert_eq!((credential, account.status), (key.credential, AccountStatus::Active));
    let patch = AccountPatch { status: Some(AccountStatus::Suspended), ..AccountPatch::default() };
    let suspended = store.patch_account(scene.account_id, patch, actor(), NOW).await.unwrap();
    let loaded = store.load(key.digest).await.unwrap();
    assert_eq!(Some(loaded.revision), suspended.revision);
    assert!(matches!(loaded.found, Found::Key { account, .. } if account == suspended.record.account));
    assert_eq!(store.load(scene.new_key().digest).await.unwrap().found, Found::Unknown);
    let clusters = store.clusters().await.unwrap();
    assert_eq!((clusters.revision, clusters.epoch, clusters.clusters.len()), (loaded.revision, loaded.epoch, 1));
}

pub async fn a_change_is_pushed_after_it_can_be_read(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let key = scene.key().await;
    let key_id = key.key_id();
    let mut pushes = store.pushes();
    let deleting = tokio::spawn(async move { scene.delete(key_id).await });
    let mut push = pushes.recv().await.unwrap();
    // Messages about the creation may still be on their way.
    while push.deleted.is_none() {
        push = pushes.recv().await.unwrap();
    }
    assert_eq!(push.deleted, Some(key.digest));
    let loaded = store.load(key.digest).await.unwrap();
    assert_eq!((loaded.found, loaded.epoch), (Found::Deleted, push.epoch));
    assert_eq!(deleting.await.unwrap().revision, Some(push.revision));
}

pub async fn a_change_is_confirmed_by_every_gateway_that_was_there(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let key_id = scene.key().await.key_id();
    let mut gateways = [gateway(), gateway()];
    gateways.sort();
    let [one, two] = gateways;
    let (epoch, before, _) = follow(&store, one).await;
    follow(&store, two).await;
    let revision = scene.delete(key_id).await.revision.unwrap();
    let pending = store.confirm(revision, Duration::ZERO).await.unwrap();
    assert_eq!(pending.unconfirmed.len(), 2);
    assert!(pending.at_latest > Duration::ZERO && pending.at_latest <= outwait(LEASE));

    let later = gateway();
    renew(&store, later, None, Revision(0)).await;
    renew(&store, one, Some(epoch), revision).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.confirm(revision, Duration::from_secs(10)).await.unwrap() }
    });
    renew(&store, two, Some(epoch), before).await;
    assert!(!waiting.is_finished(), "a renewal without the change is no acknowledgement");
    renew(&store, two, Some(epoch), revision).await;
    let confirmation = waiting.await.unwrap();
    assert!(confirmation.is_everywhere() && confirmation.lapsed.is_empty(), "{confirmation:?}");
    let named: Vec<_> = confirmation.acknowledged.iter().map(|gateway| gateway.incarnation).collect();
    assert_eq!(named, [one, two], "one that came later need not be awaited");
    assert!(confirmation.acknowledged.iter().all(|gateway| gateway.after.is_some_and(|after| after < LEASE)));
    let again = store.confirm(revision, Duration::ZERO).await.unwrap();
    assert_eq!(again, confirmation, "the receipt stays the same");
    let states = store.gateways().await.unwrap();
    assert_eq!(states.len(), 3);
    assert!(states.iter().all(|state| state.leased && state.version == VERSION));
}

pub async fn a_silent_gateway_is_outwaited_and_a_released_one_is_not_awaited(store: AnyStore) {
    let scene = Scene::ready(&store).await;
    let (silent, leaving) = (gateway(), gateway());
    follow(&store, silent).await;
    let (epoch, before, _) = follow(&store, leaving).await;
    let started = Instant::now();
    let revision = scene.delete(scene.key().await.key_id()).await.revision.unwrap();
    let short = store.confirm(revision, Duration::from_millis(10)).await.unwrap();
    assert_eq!(short.unconfirmed.len(), 2);
    store.release(leaving).await.unwrap();
    let still = store.confirm(revision, Duration::ZERO).await.unwrap();
    assert_eq!(still.unconfirmed, [silent]);
    // Renewing all the time does not help one that does not apply the change.
    let confirming = store.confirm(revision, Duration::from_secs(10));
    tokio::pin!(confirming);
    let confirmation = loop {
        renew(&store, silent, Some(epoch), before).await;
        match tokio::time::timeout(LEASE / 10, &mut confirming).await {
            Ok(confirmation) => break confirmation.unwrap(),
            Err(_) => assert!(started.elapsed() < Duration::from_secs(8), "it is awaited forever"),
        }
    };
    assert_eq!((confirmation.is_everywhere(), confirmation.lapsed), (true, vec![silent]));
    assert!(started.elapsed() >= LEASE, "its lease had to run out");
    assert!(started.elapsed() < Duration::from_secs(8));
}
