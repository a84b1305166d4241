//! Bad keys through the real binary: they never reach the store where they need not, are told to slow down, and slow nobody else down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::harness::h1::H1;
use super::harness::raw::Answer;
use super::harness::stage::{FETCH, Stage};

const LOADS: &str = "tollgate_keyring_loads_total{result=\"unknown\"}";

#[test]
fn malformed_keys_never_reach_the_store_and_too_many_bad_ones_are_told_to_slow_down() {
    let stage = Stage::limited("failed_auth_rate = 1\nfailed_auth_burst = 50\nfailed_auth_delay = \"0s\"");
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
    let stage = Stage::limited("failed_auth_rate = 1\nfailed_auth_burst = 1\nfailed_auth_delay = \"0s\"");
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

/// How long each of these calls with the good key took.
async fn timed(stage: &Stage) -> Vec<Duration> {
    let mut client = H1::connect(stage.gateway).await;
    let mut took = Vec::with_capacity(TIMED);
    for _ in 0..TIMED {
        let began = Instant::now();
        let answer = client.call("GET", FETCH, &[("dashvector-auth-token", &stage.key)], "").await.unwrap();
        assert_eq!(answer.status.as_u16(), 200);
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    took.sort();
    took
}

/// The same while others call with `key`, until the timed calls are over or the flood has none left, and how many flooded per second.
async fn beside_a_flood(stage: &Stage, key: impl Fn(usize) -> String + Clone + Send + 'static) -> (Vec<Duration>, f64) {
    let (began, over) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let mut flood = JoinSet::new();
    for flooder in 0..FLOODERS {
        let (at, key, over) = (stage.gateway, key.clone(), Arc::clone(&over));
        flood.spawn(async move {
            let mut client = H1::connect(at).await;
            for number in 0..FLOOD / FLOODERS {
                let key = key(flooder * FLOOD + number);
                client.call("GET", "/v1/nothing", &[("dashvector-auth-token", &key)], "").await.unwrap();
                if over.load(Ordering::Relaxed) {
                    return number;
                }
            }
            FLOOD / FLOODERS
        });
    }
    let took = timed(stage).await;
    over.store(true, Ordering::Relaxed);
    let calls: usize = flood.join_all().await.into_iter().sum();
    (took, calls as f64 / began.elapsed().as_secs_f64())
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

#[test]
fn a_flood_of_bad_keys_slows_a_good_one_of_the_same_address_no_more_than_a_flood_of_good_ones() {
    let stage = Stage::limited("failed_auth_delay = \"0s\"");
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

#[test]
fn whoever_tries_keys_is_slowed_down_and_others_are_not() {
    let stage = Stage::start();
    stage.block_on(async {
        timed(&stage).await;
        let alone = timed(&stage).await;
        let (beside, rate) = beside_a_flood(&stage, |number| format!("bad-key-{number}")).await;
        println!("p99 {:?} alone, {:?} beside a flood of {rate:.0} calls/s", p99(&alone), p99(&beside));
        // Each connection has 32 at once, then one in 50 to 100 ms: of 2 500, which take a second or less where nothing is held back.
        assert!(rate < 1000.0, "{rate:.0} calls/s");
        // What is seen of it in the 99th percentile is measured by benches/peers, on a machine that does nothing else.
        let [alone, beside] = [alone, beside].map(|took| took[TIMED / 2]);
        assert!(beside <= alone * 2 + Duration::from_millis(2), "{beside:?} beside a flood, {alone:?} without");
    });
    assert!(stage.metric("tollgate_denials_held_back_total") > 0);
}

#[test]
fn nothing_is_held_back_where_a_good_key_was_shown() {
    // Within the patience of a test there would be time for a few answers only, if they were held back.
    let stage = Stage::limited("failed_auth_delay = \"1s\"\nfailed_auth_rate = 1\nfailed_auth_burst = 50");
    stage.block_on(async {
        let mut shared = H1::connect(stage.gateway).await;
        let began = Instant::now();
        let good = [("dashvector-auth-token", stage.key.as_str())];
        assert_eq!(shared.call("GET", FETCH, &good, "").await.unwrap().status.as_u16(), 200);
        for number in 0..200 {
            let key = format!("bad-key-{number}");
            let answer = shared.call("GET", FETCH, &[("dashvector-auth-token", &key)], "").await.unwrap();
            assert_eq!(answer.status.as_u16(), if number < 50 { 401 } else { 429 }, "{number}");
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(shared.call("GET", FETCH, &good, "").await.unwrap().status.as_u16(), 200);
        let began = Instant::now();
        let mut fresh = H1::connect(stage.gateway).await;
        let bad = [("dashvector-auth-token", "another-bad-key")];
        assert_eq!(fresh.call("GET", FETCH, &bad, "").await.unwrap().status.as_u16(), 429);
        assert!(began.elapsed() >= Duration::from_secs(1), "an address over its rate waits: {:?}", began.elapsed());
    });
}
