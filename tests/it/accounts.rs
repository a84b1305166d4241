//! Accounts and keys through the real binary: limits that outlive a restart, keys that expire, bad keys that slow nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::harness::PATIENCE;
use super::harness::h1::H1;
use super::harness::raw::{self, Answer};
use super::harness::stage::{FETCH, Stage};

impl Stage {
    /// The session of the account's root user.
    fn sign_in(&self) -> String {
        let body = json!({"email": "owner@stage.test", "password": "a password of the stage"});
        let answer = raw::api(self.control, "POST", "/v1/session", "", &body);
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    fn root(&self, token: &str, method: &str, target: &str, body: &Value) -> Answer {
        raw::api(self.control, method, target, token, body)
    }

    fn call_with(&self, key: &str) -> Answer {
        raw::call(self.gateway, "GET", FETCH, &[("dashvector-auth-token", key)], b"")
    }
}

#[test]
fn the_eleventh_creation_of_a_day_is_refused_across_deletes_and_restarts() {
    let mut stage = Stage::start();
    let token = stage.sign_in();
    for _ in 0..10 {
        let made = stage.root(&token, "POST", "/v1/keys", &json!({}));
        assert_eq!(made.status, 201, "{}", made.text());
        let target = format!("/v1/accounts/{}/keys/{}", stage.account, made.json()["id"].as_str().unwrap());
        stage.operator("DELETE", &target, &json!({"reason": "a test"}));
    }
    let refused = stage.root(&token, "POST", "/v1/keys", &json!({}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("daily_limit_reached")));
    stage.restart();
    let again = stage.root(&token, "POST", "/v1/keys", &json!({}));
    assert_eq!((again.status, &again.json()["resets_at"]), (429, &refused.json()["resets_at"]));
    let list = stage.root(&token, "GET", "/v1/keys", &Value::Null).json();
    assert_eq!((list["active"].as_u64(), list["created_today"].as_u64()), (Some(0), Some(10)));
}

#[test]
fn a_key_works_until_it_expires_and_its_end_is_in_the_log() {
    let stage = Stage::start();
    let token = stage.sign_in();
    let made = stage.root(&token, "POST", "/v1/keys", &json!({"name": "short"})).json();
    let (id, key) = (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned());
    assert_eq!(stage.call_with(&key).status, 200);
    // A minute ago in the words of the API: the past is an end like any other.
    let patched =
        stage.root(&token, "PATCH", &format!("/v1/keys/{id}"), &json!({"expires_at": "2020-01-01T00:00:00Z"}));
    assert_eq!((patched.status, patched.json()["status"].as_str()), (200, Some("expired")), "{}", patched.text());
    let denied = stage.call_with(&key);
    assert_eq!((denied.status, denied.json()["code"].as_i64()), (401, Some(-3004)));
    let deadline = Instant::now() + PATIENCE;
    while !stage.operator("GET", "/v1/audit?limit=50", &Value::Null).to_string().contains("key.expire") {
        assert!(Instant::now() < deadline, "the expiry never came into the log");
        std::thread::sleep(Duration::from_millis(20));
    }
    let later = json!({"expires_at": "2099-01-01T00:00:00Z"});
    assert_eq!(stage.root(&token, "PATCH", &format!("/v1/keys/{id}"), &later).status, 200);
    assert_eq!(stage.call_with(&key).status, 200);
}

const LOADS: &str = "tollgate_keyring_loads_total{result=\"unknown\"}";

#[test]
fn malformed_keys_never_reach_the_store_and_too_many_bad_ones_are_told_to_slow_down() {
    let stage = Stage::limited("failed_auth_rate = 1\nfailed_auth_burst = 50");
    let of = |answers: &[Answer], status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(stage.http("GET", FETCH, &[], b"").status, 200, "the gateway knows the good key from here on");
    // A generated key with a wrong checksum, and one with a character that no key has.
    let malformed = format!("dvk_{}", "a".repeat(46));
    let before = stage.metric(LOADS);
    let answers: Vec<_> = (0..100).map(|_| stage.call_with(&malformed)).collect();
    assert_eq!(stage.metric(LOADS), before, "a malformed key was looked for in the store");
    assert!(of(&answers, 401) >= 50 && of(&answers, 401) + of(&answers, 429) == 100);
    let answers: Vec<_> = (0..200).map(|number| stage.call_with(&format!("no-key-of-anybody-{number}"))).collect();
    let limited = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(limited.json()["code"].as_i64(), Some(-3010));
    assert!(limited.header("retry-after").is_some());
    assert_eq!(stage.http("GET", FETCH, &[], b"").status, 200, "a good key from the same address is not held up");
}

#[test]
fn a_good_key_that_comes_for_the_first_time_is_let_through_amid_a_flood_of_bad_ones_of_its_address() {
    let stage = Stage::limited("failed_auth_rate = 1\nfailed_auth_burst = 1");
    let keys: Vec<_> = (0..200).map(|number| format!("first-call-{number}")).collect();
    stage.import(&keys);
    stage.block_on(async {
        let at = stage.gateway;
        let over = Arc::new(AtomicBool::new(false));
        let flooders = (0..4).map(|flooder| {
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                let (mut client, mut calls) = (H1::connect(at).await, 0);
                while !over.load(Ordering::Relaxed) {
                    let bad = format!("bad-key-{flooder}-{calls}");
                    client.call("GET", FETCH, &[("dashvector-auth-token", &bad)], "").await.unwrap();
                    calls += 1;
                }
                calls
            })
        });
        let flooders: Vec<_> = flooders.collect();
        let mut client = H1::connect(at).await;
        for key in &keys {
            let answer = client.call("GET", FETCH, &[("dashvector-auth-token", key)], "").await.unwrap();
            assert_eq!(answer.status.as_u16(), 200, "{key}: {answer:?}");
        }
        over.store(true, Ordering::Relaxed);
        let mut bad = 0;
        for flooder in flooders {
            bad += flooder.await.unwrap();
        }
        assert!(bad > 200, "{bad} bad keys are no flood");
    });
}

#[test]
fn a_deleted_key_is_no_guess_however_often_it_is_shown() {
    let stage = Stage::limited("failed_auth_rate = 1\nfailed_auth_burst = 1");
    let key = "soon-deleted".to_owned();
    let id = stage.import(std::slice::from_ref(&key)).remove(0);
    stage.operator("DELETE", &format!("/v1/accounts/{}/keys/{id}", stage.account), &json!({"reason": "a test"}));
    for _ in 0..50 {
        let answer = stage.call_with(&key);
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (401, Some(-3001)));
    }
}

/// Calls that flood, and calls that are timed beside them.
const FLOOD: usize = 20_000;
const FLOODERS: usize = 8;
const TIMED: usize = 1500;

/// How long each of the timed calls took while others called with `key`; how the others were answered, and how fast they were.
async fn beside_a_flood(stage: &Stage, key: impl Fn(usize) -> String + Clone + Send + 'static) -> (Vec<Duration>, f64) {
    let began = Instant::now();
    let mut flood = JoinSet::new();
    for flooder in 0..FLOODERS {
        let (at, key) = (stage.gateway, key.clone());
        flood.spawn(async move {
            let mut client = H1::connect(at).await;
            for number in 0..FLOOD / FLOODERS {
                let key = key(flooder * FLOOD + number);
                client.call("GET", "/v1/nothing", &[("dashvector-auth-token", &key)], "").await.unwrap();
            }
        });
    }
    let mut client = H1::connect(stage.gateway).await;
    let mut took = Vec::with_capacity(TIMED);
    for _ in 0..TIMED {
        let began = Instant::now();
        let answer = client.call("GET", FETCH, &[("dashvector-auth-token", &stage.key)], "").await.unwrap();
        assert_eq!(answer.status.as_u16(), 200);
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    flood.join_all().await;
    took.sort();
    (took, FLOOD as f64 / began.elapsed().as_secs_f64())
}

#[test]
fn a_flood_of_bad_keys_slows_a_good_one_of_the_same_address_no_more_than_a_flood_of_good_ones() {
    let stage = Stage::start();
    let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
    let good = stage.key.clone();
    let before = stage.metric(LOADS);
    stage.block_on(async {
        let (beside_good, good_rate) = beside_a_flood(&stage, move |_| good.clone()).await;
        let (beside_bad, bad_rate) = beside_a_flood(&stage, |number| format!("bad-key-{number}")).await;
        let (good, bad) = (p99(&beside_good), p99(&beside_bad));
        let loads = stage.metric(LOADS) - before;
        println!(
            "p99 {good:?} beside {good_rate:.0} good calls/s, {bad:?} beside {bad_rate:.0} bad ones/s; {loads} loads"
        );
        assert!(
            bad <= good.mul_f64(1.5) + Duration::from_millis(2),
            "{bad:?} beside bad keys, {good:?} beside good ones"
        );
    });
}
