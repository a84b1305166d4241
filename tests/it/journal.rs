//! What a control plane has answered stays true: over kills at every step, over a restore from an old backup.

use std::fs;

use serde_json::{Value, json};

use crate::harness::process::OPERATOR_TOKEN;
use crate::kept::{Admitted, Kept, PASSWORD, code, text};

/// Every step of a change that is made, in order, and whether the change is there after a crash right behind it.
const STEPS: [(&str, Option<bool>); 9] = [
    ("change.asked", Some(false)),
    ("journal.before_write", Some(false)),
    ("journal.half_written", Some(false)),
    // Written and not synced: a power cut could take it, a kill does not.
    ("journal.before_sync", None),
    ("journal.before_head", Some(true)),
    ("change.intended", Some(true)),
    ("change.not_committed", Some(true)),
    ("change.made", Some(true)),
    ("change.settled", Some(true)),
];

#[test]
fn a_create_that_is_killed_at_any_step_is_whole_or_absent() {
    let mut kept = Kept::new();
    kept.start();
    let owner = kept.owner();
    kept.running().operator(
        "PATCH",
        &format!("/v1/accounts/{}", owner.id),
        &json!({"active_max": 100, "daily_max": 100}),
    );
    let session = kept.running().sign_in();
    let answered = kept.running().key(&session);
    kept.kill();
    let mut there = 1;
    for (step, expected) in STEPS {
        kept.start_with(&[("TOLLGATE_FAULT", step)]);
        kept.running().ask_in_vain("POST", "/v1/keys", &session, &json!({"name": step}));
        kept.dies();
        let running = kept.start();
        let list = running.operator("GET", &format!("/v1/accounts/{}/keys", owner.id), &Value::Null);
        let keys = list["keys"].as_array().unwrap();
        let made = keys.len() - there;
        assert!(made <= 1 && expected.is_none_or(|expected| made == usize::from(expected)), "{step}: {made} were made");
        // Whole: its slot and its day are counted, and it can be shown.
        assert_eq!(
            (list["active"].as_u64(), list["created_today"].as_u64()),
            (Some(keys.len() as u64), Some(keys.len() as u64))
        );
        there = keys.len();
        assert_eq!(running.admits(&answered.text), Admitted::Yes, "{step}");
        kept.kill();
    }
    kept.start();
    assert_eq!(kept.running().operator("GET", "/v1/audit/verify", &Value::Null)["verdict"], "whole");
}

#[test]
fn a_delete_that_is_killed_at_any_step_is_whole_or_absent_and_then_final() {
    let mut kept = Kept::new();
    kept.start();
    let owner = kept.owner();
    kept.running().operator(
        "PATCH",
        &format!("/v1/accounts/{}", owner.id),
        &json!({"active_max": 100, "daily_max": 100}),
    );
    let session = kept.running().sign_in();
    let keys: Vec<_> = STEPS.iter().map(|_| kept.running().key(&session)).collect();
    kept.stop();
    for ((step, expected), key) in STEPS.into_iter().zip(&keys) {
        kept.start_with(&[("TOLLGATE_FAULT", step)]);
        let target = format!("/v1/accounts/{}/keys/{}", owner.id, key.id);
        kept.running().ask_in_vain("DELETE", &target, OPERATOR_TOKEN, &json!({"reason": step}));
        kept.dies();
        let running = kept.start();
        let deleted = !running.keys(&owner).contains(&key.id);
        assert!(expected.is_none_or(|expected| deleted == expected), "{step}: deleted {deleted}");
        assert_eq!(running.admits(&key.text), if deleted { Admitted::No } else { Admitted::Yes }, "{step}");
        // Asked for again it is done, and stays so.
        running.revoke(&owner, key);
        kept.kill();
        assert_eq!(kept.start().admits(&key.text), Admitted::No, "{step}");
        kept.kill();
    }
}

#[test]
fn a_change_that_was_refused_is_never_made_later() {
    let mut kept = Kept::new();
    kept.start();
    let owner = kept.owner();
    let session = kept.running().sign_in();
    let keys: Vec<_> = (0..3).map(|_| kept.running().key(&session)).collect();
    kept.stop();
    for step in ["change.denied", "change.refused"] {
        kept.start_with(&[("TOLLGATE_FAULT", step)]);
        kept.running().ask_in_vain("POST", "/v1/keys", &session, &Value::Null);
        kept.dies();
        assert_eq!(kept.start().keys(&owner).len(), 3, "{step}");
        kept.stop();
    }
    kept.start();
    kept.running().revoke(&owner, &keys[0]);
    kept.kill();
    // There is room now, and still nothing is made of what was refused.
    assert_eq!(kept.start().keys(&owner).len(), 2);
}

#[test]
fn a_restore_from_an_old_backup_brings_nothing_back_and_loses_nothing() {
    let mut kept = Kept::new();
    kept.start();
    let owner = kept.owner();
    let session = kept.running().sign_in();
    let [deleted, disabled] = [kept.running().key(&session), kept.running().key(&session)];
    let old = kept.path("old.backup");
    let said = kept.told(&["backup"], &["--to", old.to_str().unwrap()]);
    assert!(said.contains("found good"), "{said}");
    let running = kept.running();
    running.revoke(&owner, &deleted);
    running.api(
        "PATCH",
        &format!("/v1/keys/{}", disabled.id),
        &session,
        &json!({"status": "disabled", "name": "later"}),
    );
    let created = running.key(&session);
    running.operator("PATCH", &format!("/v1/accounts/{}", owner.id), &json!({"daily_max": 7}));
    let before: Value = serde_json::from_str(&kept.told(&["store", "status"], &["--json"])).unwrap();
    kept.kill();

    for round in 0..2 {
        fs::remove_file(kept.path("tollgate.redb")).unwrap();
        let refused = kept.refuses_to_start();
        assert!(refused.contains("tollgate store restore"), "{refused}");
        assert!(!kept.path("tollgate.redb").exists());
        let said = kept.told(&["store", "restore"], &["--from", old.to_str().unwrap()]);
        assert!(said.contains(" 4 later changes"), "round {round}: {said}");
        let running = kept.start();
        let list = running.operator("GET", &format!("/v1/accounts/{}/keys?deleted=true", owner.id), &Value::Null);
        let of = |id: &str| list["keys"].as_array().unwrap().iter().find(|key| key["id"] == *id).unwrap();
        assert_eq!(of(&deleted.id)["status"], "deleted");
        assert_eq!(
            (of(&disabled.id)["status"].as_str(), of(&disabled.id)["name"].as_str()),
            (Some("disabled"), Some("later"))
        );
        assert_eq!(of(&created.id)["status"], "active");
        assert_eq!(
            (list["active"].as_u64(), list["created_today"].as_u64(), list["daily_max"].as_u64()),
            (Some(2), Some(3), Some(7))
        );
        assert_eq!(running.admits(&deleted.text), Admitted::No);
        assert_eq!(running.admits(&disabled.text), Admitted::No);
        assert_eq!(running.admits(&created.text), Admitted::Yes);
        assert_eq!(running.operator("GET", "/v1/audit/verify", &Value::Null)["verdict"], "whole");
        let after: Value = serde_json::from_str(&kept.told(&["store", "status"], &["--json"])).unwrap();
        assert_eq!(after["store_id"], before["store_id"]);
        assert_eq!(after["journal"]["journal_id"], before["journal"]["journal_id"]);
        assert_ne!(after["epoch"], before["epoch"]);
        kept.stop();
    }
}

#[test]
fn a_store_in_use_a_foreign_store_and_a_lost_journal_are_refused_in_words() {
    let mut kept = Kept::new();
    kept.start();
    kept.owner();
    let backup = kept.path("backup");
    kept.told(&["backup"], &["--to", backup.to_str().unwrap()]);
    let output = kept.command(&["store", "restore"], &["--from", backup.to_str().unwrap()]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("in use"), "{output:?}");
    kept.stop();

    // The store of somebody else beside this journal.
    let mut other = Kept::new();
    other.start();
    other.stop();
    let (store, foreign) = (kept.path("tollgate.redb"), other.path("tollgate.redb"));
    fs::rename(&store, kept.path("aside")).unwrap();
    fs::copy(foreign, &store).unwrap();
    let said = kept.refuses_to_start();
    assert!(said.contains("frozen"), "{said}");
    fs::rename(kept.path("aside"), &store).unwrap();

    // The journal is gone: said, and given up only by name.
    fs::rename(kept.path("meter/journal"), kept.path("lost")).unwrap();
    let said = kept.refuses_to_start();
    let journal =
        said.split_whitespace().find(|word| word.starts_with("jrn_")).unwrap().trim_end_matches(',').to_owned();
    let wrong = kept.command(&["store", "recover"], &["--without", "jrn_aaaaaaaaaaaaaaaa"]);
    assert!(!wrong.status.success(), "{wrong:?}");
    kept.told(&["store", "recover"], &["--without", &journal]);
    kept.start();
    let audit = kept.running().operator("GET", "/v1/audit?limit=1000", &Value::Null);
    assert!(audit["items"].as_array().unwrap().iter().any(|entry| entry["action"] == "store.recover"));
    kept.stop();
    // Without the journal that the backup knows, a restore says what would be lost.
    fs::remove_dir_all(kept.path("meter/journal")).unwrap();
    let output = kept.command(&["store", "restore"], &["--from", backup.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--without-journal"), "{output:?}");
    kept.told(&["store", "restore"], &["--from", backup.to_str().unwrap(), "--without-journal"]);
    kept.start();
}

#[test]
fn a_damaged_backup_restores_nothing() {
    let mut kept = Kept::new();
    kept.start();
    kept.owner();
    kept.stop();
    let backup = kept.path("backup");
    kept.told(&["backup"], &["--to", backup.to_str().unwrap()]);
    let whole = fs::read(&backup).unwrap();
    let before = fs::read(kept.path("tollgate.redb")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped, &whole[..whole.len() - 1].to_vec()] {
        fs::write(&backup, damaged).unwrap();
        let output = kept.command(&["store", "restore"], &["--from", backup.to_str().unwrap()]);
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("damaged"), "{output:?}");
    }
    assert_eq!(fs::read(kept.path("tollgate.redb")).unwrap().len(), before.len());
}

#[test]
fn no_plaintext_stands_in_store_journal_or_backup() {
    let mut kept = Kept::new();
    kept.start();
    let owner = kept.owner();
    let session = kept.running().sign_in();
    let key = kept.running().key(&session);
    let used = code(&owner.totp);
    let step_up = json!({"action": "delete", "key_id": key.id, "code": used});
    let grant = text(&kept.running().api("POST", "/v1/step-up", &session, &step_up), "grant");
    kept.running().operator(
        "POST",
        &format!("/v1/accounts/{}/keys/import", owner.id),
        &json!({"keys": [{"key": "canary-imported-key-0001"}]}),
    );
    kept.told(&["backup"], &["--to", kept.path("backup").to_str().unwrap()]);
    kept.stop();
    let secret = data_encoding::BASE32_NOPAD.decode(owner.totp.as_bytes()).unwrap();
    let secrets =
        [key.text.as_bytes(), b"canary-imported-key-0001", PASSWORD.as_bytes(), owner.totp.as_bytes(), &secret];
    for secret in secrets.into_iter().chain([session.as_bytes(), grant.as_bytes()]) {
        assert_eq!(kept.files_with(secret), Vec::<std::path::PathBuf>::new());
    }
    // The search finds what is there.
    assert!(!kept.files_with(OPERATOR_TOKEN.as_bytes()).is_empty());
}
