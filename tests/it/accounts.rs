//! Accounts and keys through the real binary: limits that outlive a restart, keys that expire.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::PATIENCE;
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

    pub fn call_with(&self, key: &str) -> Answer {
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
