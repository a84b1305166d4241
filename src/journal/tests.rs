//! The journal against its files: what it keeps, what it sees of damage, what a store loses without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::folder::names_in;
use super::history::read_whole;
use super::retention::{VerifiedBackup, remember};
use super::*;
use crate::config::secret::Secret32;
use crate::principal::{AccountId, ID_BYTES, UserId};
use crate::store::accounts::{AccountPatch, AccountStore, NewAccount, NewUser, Page};
use crate::store::audit::GENESIS;
use crate::store::embedded::{Embedded, Settings};
use crate::store::intent::Submit;
use crate::store::records::{PasswordHash, Sealed};

const STORE: StoreId = StoreId([7; ID_BYTES]);
const NOTED: Noted = Noted { commit: 1, audit: AuditHead { seq: 1, hash: GENESIS } };

fn sealer(key: u8) -> Sealer {
    Sealer::new(1, &secret(key))
}

fn secret(key: u8) -> Secret32 {
    Secret32::init_with_mut(|bytes: &mut [u8; 32]| bytes.fill(key))
}

fn open(path: &Path) -> Result<(Journal, History), JournalError> {
    Journal::open(path, &sealer(1), STORE)
}

fn patch(number: u8) -> Action {
    let patch = AccountPatch { active_max: Some(number.into()), ..AccountPatch::default() };
    Action::PatchAccount { account_id: AccountId([number; ID_BYTES]), patch }
}

fn new_account(number: u8) -> Action {
    Action::CreateAccount(NewAccount {
        account_id: AccountId([number; ID_BYTES]),
        name: None,
        verified: true,
        root: NewUser {
            user_id: UserId([number; ID_BYTES]),
            email: format!("canary-{number}@example.com"),
            password: PasswordHash("canary-hash".into()),
        },
        totp: Sealed(vec![number; 40]),
    })
}

async fn intend(journal: &Journal, action: Action) -> u64 {
    journal.intend(action, Actor::system(), WallTime(1)).await.unwrap().no
}

/// Three changes: done, refused, open.
async fn small(path: &Path) {
    let (journal, _) = open(path).unwrap();
    let done = intend(&journal, patch(1)).await;
    journal.done(done, NOTED).await;
    let refused = intend(&journal, patch(2)).await;
    journal.refused(refused).await.unwrap();
    assert_eq!(intend(&journal, patch(3)).await, 3);
    assert_eq!(journal.settled(), 2);
}

/// A copy of a journal's folder, for damage.
fn copy(of: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(of).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

fn segment_of(folder: &Path) -> PathBuf {
    folder.join("00000001.segment")
}

#[tokio::test]
async fn only_what_is_neither_done_nor_refused_is_open_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path()).await;
    for _ in 0..2 {
        let (journal, history) = open(folder.path()).unwrap();
        assert_eq!(history.open.iter().map(|intent| intent.no).collect::<Vec<_>>(), [3]);
        assert_eq!((journal.last_intent(), journal.settled()), (3, 2));
        assert_eq!(history.audit, Some(NOTED.audit));
    }
    let (journal, _) = open(folder.path()).unwrap();
    assert_eq!(intend(&journal, patch(4)).await, 4);
}

#[tokio::test]
async fn a_journal_has_one_user_one_store_and_one_sealing_key() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()).err(), Some(JournalError::InUse(_))));
    drop(journal);
    let other = StoreId([8; ID_BYTES]);
    let refused = Journal::open(folder.path(), &sealer(1), other).err();
    assert!(matches!(refused, Some(JournalError::OtherStore { store, .. }) if store == other));
    assert!(matches!(Journal::open(folder.path(), &sealer(2), STORE).err(), Some(JournalError::OtherSealingKey(_))));
    assert_eq!(names_in(folder.path()).unwrap().unwrap().store_id, STORE);
}

#[tokio::test]
async fn a_rotated_sealing_key_opens_the_journal_and_the_old_one_does_not_any_more() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path()).await;
    drop(Journal::open(folder.path(), &sealer(2).with_previous(&secret(1)), STORE).unwrap());
    let (_, history) = Journal::open(folder.path(), &sealer(2), STORE).unwrap();
    assert_eq!(history.open.len(), 1);
    assert!(Journal::open(folder.path(), &sealer(1), STORE).is_err());
}

#[tokio::test]
async fn every_flipped_byte_is_refused_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path()).await;
    for name in ["00000001.segment", "head", "key"] {
        let whole = fs::read(folder.path().join(name)).unwrap();
        for at in 0..whole.len() {
            let damaged = copy(folder.path());
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(damaged.path().join(name), &bytes).unwrap();
            match open(damaged.path()).err() {
                Some(JournalError::Damaged { path, at: place, .. }) => {
                    assert!(path.ends_with(name) && place <= at as u64, "{name} byte {at}: {} {place}", path.display());
                }
                other => panic!("{name} byte {at}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn every_truncation_of_what_was_synced_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    small(folder.path()).await;
    let whole = fs::read(segment_of(folder.path())).unwrap();
    for length in 0..whole.len() {
        let cut = copy(folder.path());
        fs::write(segment_of(cut.path()), &whole[..length]).unwrap();
        assert!(matches!(open(cut.path()).err(), Some(JournalError::Damaged { .. })), "cut to {length}");
    }
    let cut = copy(folder.path());
    fs::remove_file(segment_of(cut.path())).unwrap();
    assert!(matches!(open(cut.path()).err(), Some(JournalError::Damaged { .. })));
}

#[tokio::test]
async fn every_torn_tail_behind_what_was_synced_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path()).unwrap();
    intend(&journal, patch(1)).await;
    drop(journal);
    let before = copy(folder.path());
    let (journal, _) = open(folder.path()).unwrap();
    intend(&journal, patch(2)).await;
    drop(journal);
    let (synced, whole) = (fs::read(segment_of(before.path())).unwrap(), fs::read(segment_of(folder.path())).unwrap());
    for length in synced.len()..=whole.len() {
        let torn = copy(before.path());
        fs::write(segment_of(torn.path()), &whole[..length]).unwrap();
        let (journal, history) = open(torn.path()).unwrap();
        let expected = if length == whole.len() { 2 } else { 1 };
        assert_eq!((history.open.len(), journal.last_intent()), (expected, expected as u64), "torn at {length}");
        assert_eq!(intend(&journal, patch(9)).await, expected as u64 + 1);
        drop(journal);
        assert_eq!(open(torn.path()).unwrap().1.open.len(), expected + 1);
    }
}

#[tokio::test]
async fn changes_that_come_at_once_get_numbers_of_their_own_and_share_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path()).unwrap();
    let journal = Arc::new(journal);
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move { intend(&journal, patch(number)).await })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.push(task.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn segments_go_only_after_two_verified_backups_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // Names of a megabyte each fill segments quickly.
    let large = || {
        Action::CreateAccount(match new_account(1) {
            Action::CreateAccount(new) => NewAccount { name: Some("x".repeat(3 << 20)), ..new },
            _ => unreachable!("it is an account"),
        })
    };
    let (journal, _) = open(folder.path()).unwrap();
    let id = journal.id();
    let settled = |settled: u64| VerifiedBackup { journal_id: id, settled, taken_at: WallTime(settled) };
    for _ in 0..12 {
        let no = intend(&journal, large()).await;
        journal.done(no, NOTED).await;
    }
    remember(folder.path(), settled(12)).unwrap();
    drop(journal);
    let (journal, history) = open(folder.path()).unwrap();
    assert_eq!((journal.first_intent(), journal.last_intent(), history.open.len()), (1, 12, 0));
    remember(folder.path(), settled(7)).unwrap();
    for _ in 0..6 {
        let no = intend(&journal, large()).await;
        journal.done(no, NOTED).await;
    }
    drop(journal);
    let (journal, _) = open(folder.path()).unwrap();
    let first = journal.first_intent();
    assert!((2..=8).contains(&first), "kept from {first}");
    assert_eq!(journal.last_intent(), 18);
    assert!(!segment_of(folder.path()).exists());
    drop(journal);
    let whole = read_whole(folder.path(), &sealer(1)).unwrap();
    assert_eq!((whole.first_intent, whole.last_intent, whole.done.len() as u64), (first, 18, 18 - first + 1));
}

#[tokio::test]
async fn nothing_in_the_files_can_be_read_without_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = open(folder.path()).unwrap();
    intend(&journal, new_account(1)).await;
    drop(journal);
    let bytes = fs::read(segment_of(folder.path())).unwrap();
    for secret in [&b"canary"[..], b"example.com", b"create_account"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

fn embedded(folder: &TempDir) -> Arc<Embedded> {
    Arc::new(Embedded::open(&folder.path().join("store"), Settings::new(Duration::from_secs(5))).unwrap())
}

#[tokio::test]
async fn what_is_open_is_made_at_the_start_once_however_often_it_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let store = embedded(&folder);
    let (journal, _) = Journal::open(&path, &sealer(1), crate::store::Store::store_id(&*store)).unwrap();
    intend(&journal, new_account(1)).await;
    // The same address again: refused, also at the start.
    let twice = Action::CreateAccount(match new_account(2) {
        Action::CreateAccount(new) => {
            NewAccount { root: NewUser { email: "canary-1@example.com".into(), ..new.root }, ..new }
        }
        _ => unreachable!("it is an account"),
    });
    intend(&journal, twice).await;
    drop(journal);
    for _ in 0..3 {
        let (journal, history) = Journal::open(&path, &sealer(1), crate::store::Store::store_id(&*store)).unwrap();
        replay::attach(&*store, &journal, history).await.unwrap();
        assert_eq!(journal.settled(), 2);
        assert_eq!(store.list_accounts(Page::first(10)).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_journal_that_holds_less_than_the_store_has_made_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let store = embedded(&folder);
    let store_id = crate::store::Store::store_id(&*store);
    let (journal, history) = Journal::open(&path, &sealer(1), store_id).unwrap();
    replay::attach(&*store, &journal, history).await.unwrap();
    drop(journal);
    let early = copy(&path);
    let (journal, _) = Journal::open(&path, &sealer(1), store_id).unwrap();
    let journaled = crate::store::journaled::Journaled::new(Arc::clone(&store), journal);
    let Action::CreateAccount(new) = new_account(1) else { unreachable!("it is an account") };
    journaled.create_account(new, Actor::system(), WallTime(1)).await.unwrap();
    drop(journaled);
    let (journal, history) = Journal::open(early.path(), &sealer(1), store_id).unwrap();
    let refused = replay::attach(&*store, &journal, history).await;
    assert!(matches!(refused, Err(replay::AttachError::Journal(JournalError::CutOff { made: 1, held: 0, .. }))));
    let none = replay::check_link(&folder.path().join("elsewhere"), store.journal().await.unwrap());
    assert!(matches!(none, Err(JournalError::OtherJournal { .. })));
}
