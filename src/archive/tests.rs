//! What is added stays, and whatever becomes of an archive is seen.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::meter::record::{Closing, Counters, LedgerLine, LineKey, Operation};
use crate::principal::{AccountId, ClusterId, ID_BYTES, Incarnation, KeyId};
use crate::store::usage::{FlushMark, HourMark};

const HOUR: Hour = Hour(492_777);
const NOW: WallTime = WallTime(1_774_000_000_000);

fn content(calls: u64) -> Content {
    let key = LineKey {
        account_id: AccountId([1; ID_BYTES]),
        key_id: KeyId([2; ID_BYTES]),
        cluster_id: ClusterId([3; ID_BYTES]),
        operation: Operation::Query,
    };
    let incarnation = Incarnation([4; ID_BYTES]);
    let counters =
        Counters { opened: calls, outcomes: [calls, 0, 0, 0, 0, 0], read_units: 1 << 60, ..Counters::default() };
    let closing = Some(Closing { lines: 1, totals: counters, leaves: false });
    let mark = FlushMark { sequence: 1, watermark: HOUR.end(), closing };
    let line = LedgerLine { hour: HOUR, incarnation, key, counters };
    Content::of(&[line, line], &[HourMark { hour: HOUR, incarnation, mark }], &[])
}

async fn filled() -> (tempfile::TempDir, Archive) {
    let folder = tempfile::tempdir().unwrap();
    let archive = Archive::in_folder(folder.path()).unwrap();
    let mut head = archive.head().await.unwrap();
    for (hour, calls) in [(HOUR, 1), (HOUR.next(), 2), (HOUR, 3)] {
        assert!(archive.add(&mut head, hour, &content(calls), NOW).await.unwrap());
    }
    (folder, archive)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn an_hour_gets_another_revision_only_where_it_has_changed() {
    let (folder, archive) = filled().await;
    let mut head = archive.head().await.unwrap();
    assert_eq!(head.entries(), 3);
    assert!(!archive.add(&mut head, HOUR, &content(3), NOW).await.unwrap());
    assert!(archive.add(&mut head, HOUR, &content(4), NOW).await.unwrap());
    assert_eq!(archive.verify().await.unwrap(), Ok(Whole { entries: 4, hours: 2, last: Some(HOUR.next()) }));
    let entry: Entry =
        serde_json::from_slice(&fs::read(folder.path().join("manifest/0000000004.json")).unwrap()).unwrap();
    assert_eq!((entry.window_start, entry.revision, entry.rows), (HOUR, 3, 3));
    assert_eq!(entry.totals.0.opened, 8, "lines are summed, and closings are not");
}

#[tokio::test]
async fn of_two_that_add_at_once_one_reads_the_manifest_again() {
    let (_folder, archive) = filled().await;
    let (mut one, mut two) = (archive.head().await.unwrap(), archive.head().await.unwrap());
    assert!(archive.add(&mut one, HOUR, &content(8), NOW).await.unwrap());
    let overtaken = archive.add(&mut two, HOUR, &content(9), NOW).await;
    assert!(matches!(overtaken, Err(ArchiveError::Overtaken)), "{overtaken:?}");
    let mut two = archive.head().await.unwrap();
    assert!(archive.add(&mut two, HOUR, &content(9), NOW).await.unwrap());
    assert!(archive.verify().await.unwrap().is_ok());
}

#[tokio::test]
async fn every_flipped_byte_and_every_file_that_is_gone_is_seen() {
    let (folder, archive) = filled().await;
    for path in files(folder.path()) {
        let before = fs::read(&path).unwrap();
        for at in 0..before.len() {
            let mut flipped = before.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            // The hash of the last entry stands nowhere yet: there a flip may make another good entry.
            let is_last = path.ends_with("0000000003.json");
            assert!(archive.verify().await.unwrap().is_err() || is_last, "{} byte {at}", path.display());
        }
        fs::remove_file(&path).unwrap();
        let is_last = path.ends_with("0000000003.json");
        assert!(archive.verify().await.unwrap().is_err() || is_last, "{}", path.display());
        fs::write(&path, &before).unwrap();
    }
    assert!(archive.verify().await.unwrap().is_ok());
}

#[tokio::test]
async fn nothing_is_added_behind_a_broken_manifest() {
    let (folder, archive) = filled().await;
    let second = folder.path().join("manifest/0000000002.json");
    let text = fs::read_to_string(&second).unwrap();
    fs::write(&second, text.replace("\"rows\": 3", "\"rows\": 4")).unwrap();
    let head = archive.head().await;
    assert!(matches!(head, Err(ArchiveError::Manifest { number: 3, why: NotAnEntry::Unchained })), "{head:?}");
}

#[test]
fn the_same_usage_makes_the_same_bytes_and_is_read_back() {
    let content = super::tests::content(3);
    assert_eq!(content, super::tests::content(3));
    assert_eq!(Content::read(content.bytes.clone()), Ok(content.clone()));
    let cut = content.bytes[..content.bytes.len() - 1].to_vec();
    assert_eq!(Content::read(cut), Err(3));
}
