//! Both secrets are rotated while calls go on, and no good key is answered 401.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::PATIENCE;
use crate::harness::raw::{self, Raw};
use crate::kept::{Admitted, Kept, Key, Owner, code, text, wait_until};

/// 32 bytes in base64 that are not those of the node.
const NEW: &str = "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICA=";
/// Imported keys beside those that are called with.
const MORE: usize = 5000;

#[test]
fn both_secrets_are_rotated_under_load_without_one_wrong_401() {
    let mut kept = Kept::new();
    kept.start();
    let owner = kept.owner();
    kept.running().operator(
        "PATCH",
        &format!("/v1/accounts/{}", owner.id),
        &json!({"active_max": 500, "daily_max": 500}),
    );
    let session = kept.running().sign_in();
    let gone = kept.running().key(&session);
    kept.running().revoke(&owner, &gone);
    let keys: Vec<_> = (0..200).map(|_| kept.running().key(&session)).collect();
    // Many more, so that it takes a while.
    let more: Vec<_> = (0..MORE).map(|no| json!({"key": format!("imported-key-{no:08}")})).collect();
    for part in more.chunks(500) {
        kept.running().operator("POST", &format!("/v1/accounts/{}/keys/import", owner.id), &json!({"keys": part}));
    }
    kept.stop();

    kept.node.write("pepper.before", &std::fs::read_to_string(kept.path("pepper")).unwrap());
    kept.node.write("sealing.before", &std::fs::read_to_string(kept.path("sealing.key")).unwrap());
    kept.node.write("pepper", NEW);
    kept.node.write("sealing.key", NEW);
    let refused = kept.refuses_to_start();
    assert!(refused.contains("previous_"), "{refused}");
    let both = "previous_pepper_file = \"pepper.before\"\nprevious_sealing_key_file = \"sealing.before\"";
    kept.node.write("config.toml", &Kept::config(both));
    // Killed on the way, and gone on with.
    kept.start();
    kept.kill();
    kept.start();

    let load = Load::start(kept.running().gateway, keys.iter().map(|key| key.text.clone()).collect());
    wait_until("the rotation is complete", || {
        let status: Value = serde_json::from_str(&kept.told(&["store", "status"], &["--json"])).unwrap();
        status["secrets"]["pepper"].get("previous").is_none()
    });
    std::thread::sleep(Duration::from_millis(300));
    let (calls, wrong) = load.end();
    assert!(calls > 100, "{calls} calls are no load");
    assert_eq!(wrong, Vec::<u16>::new());
    assert_eq!(kept.running().admits(&gone.text), Admitted::No);
    // Deleted in the middle of it, under either digest.
    kept.running().revoke(&owner, &keys[0]);
    assert_eq!(kept.running().admits(&keys[0].text), Admitted::No);
    kept.stop();

    kept.node.write("config.toml", &Kept::config(""));
    kept.start();
    for key in &keys[1..20] {
        assert_eq!(kept.running().admits(&key.text), Admitted::Yes);
    }
    assert_eq!(kept.running().admits(&keys[0].text), Admitted::No);
    assert_eq!(kept.running().admits(&gone.text), Admitted::No);
    assert_eq!(viewed(&kept, &owner, &keys[1]), keys[1].text);
}

/// The key as its owner sees it: the authenticator's secret and the key open with the new sealing key.
fn viewed(kept: &Kept, owner: &Owner, key: &Key) -> String {
    let session = kept.running().sign_in();
    let ask = json!({"action": "view", "key_id": key.id, "code": code(&owner.totp)});
    let grant = text(&kept.running().api("POST", "/v1/step-up", &session, &ask), "grant");
    let target = format!("/v1/keys/{}/view", key.id);
    let headers = [("authorization", format!("Bearer {session}")), ("step-up-grant", grant)];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let viewed = raw::call(kept.running().control, "POST", &target, &headers, b"");
    assert_eq!(viewed.status, 200, "{}", viewed.text());
    text(&viewed.json(), "key")
}

/// Calls with good keys, one after the other on each of four connections, until it is ended.
struct Load {
    stop: Arc<AtomicBool>,
    wrong: Arc<Mutex<Vec<u16>>>,
    callers: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(gateway: SocketAddr, keys: Vec<String>) -> Self {
        let (stop, wrong) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let keys = Arc::new(keys);
        let callers = (0..4).map(|number| {
            let (stop, wrong, keys) = (Arc::clone(&stop), Arc::clone(&wrong), Arc::clone(&keys));
            std::thread::spawn(move || {
                let (mut calls, mut connection) = (0, Raw::connect(gateway));
                while !stop.load(Ordering::Relaxed) {
                    let key = keys[(calls * 7 + number * 50) % keys.len()].as_str();
                    let headers = [("dashvector-auth-token", key)];
                    connection.send(&raw::request(gateway, "GET", "/v1/collections", &headers, b""));
                    match connection.try_answer(PATIENCE) {
                        // The upstream is nobody: the key was let through.
                        Ok(answer) if answer.status == 502 => {}
                        Ok(answer) => wrong.lock().unwrap().push(answer.status),
                        Err(_) => connection = Raw::connect(gateway),
                    }
                    calls += 1;
                }
                calls
            })
        });
        let callers = callers.collect();
        Self { stop, wrong, callers }
    }

    /// How many calls there were, and the statuses of those that were not let through.
    fn end(self) -> (usize, Vec<u16>) {
        self.stop.store(true, Ordering::Relaxed);
        let calls = self.callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        let wrong = self.wrong.lock().unwrap().clone();
        (calls, wrong)
    }
}
