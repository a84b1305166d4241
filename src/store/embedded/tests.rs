//! What only a file can get wrong: reopening, a kill, a foreign or damaged file, a trimmed log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, TableDefinition};
use tempfile::TempDir;

use super::{Embedded, Settings};
use crate::principal::{AccountId, Incarnation, Revision};
use crate::store::accounts::{AccountError, AccountStore, NewAccount, Page, Refusal};
use crate::store::audit::{AuditQuery, AuditVerdict};
use crate::store::contract::{self, LEASE, contract_tests};
use crate::store::contract::{NOW, Scene, actor, new_user, refusal};
use crate::store::intent::{AuditHead, Submit};
use crate::store::records::Sealed;
use crate::store::rules::{keys, tables::SEALED_KEYS};
use crate::store::{FeedStore, Found, LogTail, Renew, Store, StoreError};
use crate::time::WallTime;

contract_tests!(fresh_store);

fn fresh_store() -> (TempDir, Arc<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&file_in(&folder)).unwrap();
    (folder, Arc::new(store))
}

#[test]
fn every_history_of_an_account_is_as_the_rules_foretell() {
    contract::every_history_of_an_account_is_as_the_rules_foretell(2000, || {
        // What matters here is not whether a disk keeps it.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.unwrap();
        Box::new(move || Arc::new(open(&file_in(&folder)).unwrap()))
    });
}

fn file_in(folder: &TempDir) -> PathBuf {
    folder.path().join("tollgate.redb")
}

fn open(path: &Path) -> Result<Embedded, StoreError> {
    Embedded::open(path, Settings::new(LEASE))
}

/// Changes one row of a closed file behind the store's back; without a value the row is removed.
fn tamper(path: &Path, table: &str, key: &[u8], value: Option<&[u8]>) {
    let database = Database::open(path).unwrap();
    let write = database.begin_write().unwrap();
    let mut rows = write.open_table(TableDefinition::<&[u8], &[u8]>::new(table)).unwrap();
    match value {
        Some(value) => rows.insert(key, value).map(drop).unwrap(),
        None => rows.remove(key).map(drop).unwrap(),
    }
    drop(rows);
    write.commit().unwrap();
}

#[tokio::test]
async fn everything_is_there_after_reopening_also_the_count_of_the_day() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&file_in(&folder)).unwrap());
    let (store_id, scene) = (store.store_id(), Scene::ready(&store).await);
    let mut keys = Vec::new();
    for _ in 0..10 {
        let key = scene.key().await;
        scene.delete(key.key_id()).await;
        keys.push(key);
    }
    let deleted = store.key(keys[0].key_id()).await.unwrap();
    let Scene { account_id, user_id, session, store: handle } = scene;
    drop((store, handle));

    let store: Arc<dyn Store> = Arc::new(open(&file_in(&folder)).unwrap());
    assert_eq!(store.store_id(), store_id);
    assert_eq!(store.key(keys[0].key_id()).await.unwrap(), deleted);
    let scene = Scene { store: Arc::clone(&store), account_id, user_id, session };
    let refused = refusal(scene.create(NOW).await);
    assert_eq!(refused, Refusal::DailyLimitReached { max: 10, resets_at: WallTime(1_774_022_400_000) });
    for key in keys {
        assert_eq!(store.load(key.digest).await.unwrap().found, Found::Deleted);
    }
    let revision = deleted.unwrap().deleted.unwrap().revision;
    assert!(store.confirm(revision, std::time::Duration::ZERO).await.unwrap().is_everywhere());
}

#[tokio::test]
async fn a_deleted_key_leaves_no_sealed_text_behind() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Arc::new(open(&file_in(&folder)).unwrap());
    let store: Arc<dyn Store> = Arc::<Embedded>::clone(&embedded);
    let scene = Scene::ready(&store).await;
    let key_id = scene.key().await.key_id();
    assert!(SEALED_KEYS.get(&embedded.snapshot().unwrap(), &key_id).unwrap().is_some());
    scene.delete(key_id).await;
    assert!(SEALED_KEYS.get(&embedded.snapshot().unwrap(), &key_id).unwrap().is_none());
}

#[tokio::test]
async fn what_was_answered_survives_a_kill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&file_in(&folder)).unwrap());
    let scene = Scene::ready(&store).await;
    for round in 0..5 {
        let key = scene.key().await;
        scene.delete(key.key_id()).await;
        // The file as it stands while the store has it open: what a killed process leaves behind.
        let copy = folder.path().join(format!("killed-{round}.redb"));
        std::fs::copy(file_in(&folder), &copy).unwrap();
        let left = open(&copy).unwrap();
        assert_eq!(left.load(key.digest).await.unwrap().found, Found::Deleted);
        assert_eq!(left.load(key.digest).await.unwrap().revision, store.load(key.digest).await.unwrap().revision);
        assert!(matches!(left.verify_audit().await.unwrap(), AuditVerdict::Whole { .. }));
    }
}

#[tokio::test]
async fn a_log_that_does_not_reach_back_is_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { lease: LEASE, log_keep: 10 };
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&file_in(&folder), settings).unwrap());
    let scene = Scene::ready(&store).await;
    let keys = (0..24).map(|_| scene.new_key()).collect();
    store.import_keys(scene.account_id, keys, actor(), NOW).await.unwrap();
    let incarnation = Incarnation::random().unwrap();
    let first = store.renew(Renew { incarnation, epoch: None, applied: Revision(0), version: "1" }).await.unwrap();
    assert_eq!((first.log, first.revision), (LogTail::Trimmed, Revision(25)));
    for (applied, reaches) in [(0, false), (14, false), (15, true), (24, true), (25, true)] {
        let renew = Renew { incarnation, epoch: Some(first.epoch), applied: Revision(applied), version: "1" };
        let tail = store.renew(renew).await.unwrap().log;
        let expected = (25 - applied) as usize;
        match tail {
            LogTail::Entries(entries) => assert!(reaches && entries.len() == expected, "{applied}: {entries:?}"),
            LogTail::Trimmed => assert!(!reaches, "{applied}"),
        }
    }
}

#[test]
fn a_file_of_another_schema_version_is_refused_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder);
    drop(open(&path).unwrap());
    tamper(&path, "meta", b"schema", Some(b"7"));
    let error = open(&path).err().unwrap();
    assert!(matches!(error, StoreError::Corrupt(_)));
    let said = error.to_string();
    assert!(said.contains("schema version 7") && said.contains("version 1 only"), "{said}");
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.redb");
    let database = Database::create(&foreign).unwrap();
    drop(database);
    tamper(&foreign, "recipes", b"soup", Some(b"water"));
    let error = open(&foreign).err().unwrap().to_string();
    assert!(error.contains("recipes"), "{error}");
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database".repeat(1000)).unwrap();
    assert!(open(&text).is_err());
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("not a database"));
}

#[test]
fn a_file_in_use_is_not_opened_twice_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&file_in(&folder)).unwrap();
    assert!(matches!(open(&file_in(&folder)), Err(StoreError::Away(why)) if why.contains("in use")));
    let mode = std::fs::metadata(file_in(&folder)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(store);
    open(&file_in(&folder)).unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_nothing_else_is_harmed() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&file_in(&folder)).unwrap());
    let (good, bad) = (Scene::ready(&store).await, Scene::ready(&store).await);
    let (good_key, bad_key) = (good.key().await, bad.key().await);
    let (good_id, bad_id) = (good.account_id, bad.account_id);
    drop((store, good, bad));
    tamper(&file_in(&folder), "accounts", &bad_id.0, Some(b"{\"account\":"));
    let store = open(&file_in(&folder)).unwrap();
    assert!(matches!(store.load(good_key.digest).await.unwrap().found, Found::Key { .. }));
    assert!(store.account(good_id).await.unwrap().is_some());
    let error = store.load(bad_key.digest).await.err().unwrap();
    let key = data_encoding::HEXLOWER.encode(&bad_id.0);
    assert!(matches!(&error, StoreError::Corrupt(why) if why.contains("accounts") && why.contains(&key)), "{error}");
    the_neighbours_change_is_made(&store, bad_id).await;
}

/// A change that meets the damaged row fails alone; one beside it in the same batch is made.
async fn the_neighbours_change_is_made(store: &Embedded, bad_id: AccountId) {
    let new = NewAccount {
        account_id: AccountId::random().unwrap(),
        name: None,
        verified: true,
        root: new_user(crate::principal::UserId::random().unwrap(), "beside@example.com"),
        totp: Sealed(Vec::new()),
    };
    let (failed, made) = tokio::join!(
        store.patch_account(bad_id, Default::default(), actor(), NOW),
        store.create_account(new, actor(), NOW),
    );
    assert!(matches!(failed, Err(AccountError::Store(StoreError::Corrupt(_)))));
    made.unwrap();
}

#[tokio::test]
async fn a_change_that_fails_half_way_leaves_nothing_and_its_neighbours_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&file_in(&folder)).unwrap());
    let scene = Scene::ready(&store).await;
    let embedded_path = file_in(&folder);
    let keys: Vec<_> = (0..40).map(|_| scene.new_key()).collect();
    store.import_keys(scene.account_id, keys.clone(), actor(), NOW).await.unwrap();
    drop((store, scene.store));
    let store = Arc::new(open(&embedded_path).unwrap());
    let before = store.load(keys[0].digest).await.unwrap().revision;
    let mut running = tokio::task::JoinSet::new();
    for (number, key) in keys.iter().enumerate() {
        let (store, account_id, key_id) = (Arc::clone(&store), scene.account_id, key.key_id);
        running.spawn(async move {
            store
                .writer
                .write(move |tx| {
                    let by = crate::store::accounts::DeleteBy::Operator { reason: String::new() };
                    let changed = keys::delete(tx, (account_id, key_id), keys::Word::Judged(&by), &actor(), NOW)?;
                    if number % 4 == 0 {
                        return Err(AccountError::Refused(Refusal::NotFound));
                    }
                    Ok(changed)
                })
                .await
        });
    }
    let made = running.join_all().await.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(made, 30);
    for (number, key) in keys.iter().enumerate() {
        let found = store.load(key.digest).await.unwrap().found;
        assert_eq!(found == Found::Deleted, number % 4 != 0, "{number}");
    }
    assert_eq!(store.load(keys[0].digest).await.unwrap().revision, Revision(before.0 + 30));
    assert!(matches!(store.verify_audit().await.unwrap(), AuditVerdict::Whole { .. }));
}

#[tokio::test]
async fn a_changed_a_removed_and_a_cut_audit_entry_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&file_in(&folder)).unwrap());
    let scene = Scene::ready(&store).await;
    let query = crate::store::audit::AuditQuery { account_id: None, before: None, limit: 10 };
    let entries = store.audit(query).await.unwrap();
    assert_eq!(entries.len(), 3);
    drop((store, scene));
    let mut forged = entries[1].clone();
    forged.subject.push('x');
    let forged = serde_json::to_vec(&forged).unwrap();
    for (seq, value) in [(2, Some(forged.as_slice())), (2, None), (3, None), (1, None)] {
        let copy = folder.path().join("copy.redb");
        std::fs::copy(file_in(&folder), &copy).unwrap();
        tamper(&copy, "audit", &u64::to_be_bytes(seq), value);
        let store = open(&copy).unwrap();
        assert_eq!(store.verify_audit().await.unwrap(), AuditVerdict::Broken { seq });
        assert_eq!(store.list_accounts(Page::first(9)).await.unwrap().len(), 1);
    }
}

/// A file with twelve entries in its audit log, and the last of them as a journal remembers it.
async fn audited() -> (TempDir, AuditHead) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&file_in(&folder)).unwrap());
    let scene = Scene::ready(&store).await;
    while store.audit(newest(1)).await.unwrap()[0].seq < 12 {
        let key = scene.key().await;
        scene.delete(key.key_id()).await;
    }
    let last = store.audit(newest(1)).await.unwrap().remove(0);
    (folder, AuditHead { seq: last.seq, hash: last.hash })
}

fn newest(limit: usize) -> AuditQuery {
    AuditQuery { account_id: None, before: None, limit }
}

fn row(path: &Path, table: &str, key: &[u8]) -> Vec<u8> {
    let database = Database::open(path).unwrap();
    let read = database.begin_read().unwrap();
    let rows = read.open_table(TableDefinition::<&[u8], &[u8]>::new(table)).unwrap();
    rows.get(key).unwrap().unwrap().value().to_vec()
}

async fn verdict(path: &Path, known: Option<AuditHead>) -> AuditVerdict {
    open(path).unwrap().verify_audit_from(known).await.unwrap()
}

#[tokio::test]
async fn a_flipped_a_removed_a_moved_and_a_cut_audit_entry_are_found_at_their_place() {
    let key = |seq: u64| seq.to_be_bytes();
    let (folder, known) = audited().await;
    let path = file_in(&folder);
    assert_eq!(verdict(&path, Some(known)).await, AuditVerdict::Whole { entries: known.seq });
    let entry = row(&path, "audit", &key(5));
    for at in (0..entry.len()).step_by(7) {
        let mut flipped = entry.clone();
        flipped[at] ^= 1;
        tamper(&path, "audit", &key(5), Some(&flipped));
        assert_eq!(verdict(&path, Some(known)).await, AuditVerdict::Broken { seq: 5 }, "byte {at}");
    }
    tamper(&path, "audit", &key(5), None);
    assert_eq!(verdict(&path, Some(known)).await, AuditVerdict::Broken { seq: 5 });
    tamper(&path, "audit", &key(5), Some(&row(&path, "audit", &key(6))));
    tamper(&path, "audit", &key(6), Some(&entry));
    assert_eq!(verdict(&path, Some(known)).await, AuditVerdict::Broken { seq: 5 });
}

#[tokio::test]
async fn an_audit_log_that_was_cut_together_with_its_head_is_found_by_what_the_journal_remembers() {
    let (folder, known) = audited().await;
    let path = file_in(&folder);
    let last: serde_json::Value = serde_json::from_slice(&row(&path, "audit", &(known.seq - 2).to_be_bytes())).unwrap();
    let head = serde_json::json!({"seq": last["seq"], "hash": last["hash"]}).to_string();
    tamper(&path, "meta", b"audit_head", Some(head.as_bytes()));
    for seq in [known.seq - 1, known.seq] {
        tamper(&path, "audit", &seq.to_be_bytes(), None);
    }
    assert_eq!(verdict(&path, None).await, AuditVerdict::Whole { entries: known.seq - 2 });
    assert_eq!(verdict(&path, Some(known)).await, AuditVerdict::Broken { seq: known.seq - 1 });
    // Written anew in the same length, with other hashes.
    let other = AuditHead { seq: known.seq - 2, ..known };
    assert_eq!(verdict(&path, Some(other)).await, AuditVerdict::Broken { seq: known.seq - 2 });
}
