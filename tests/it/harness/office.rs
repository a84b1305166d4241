//! Where keys are made and deleted: a control plane, an account, and the session of its root user.

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::process::OPERATOR_TOKEN;
use super::raw::{self, Answer};
use super::stage::text;

#[derive(Clone)]
pub struct Office {
    pub control: SocketAddr,
    pub account: String,
    /// Of the root user.
    token: String,
}

impl Office {
    /// An account that may create keys, and the session of its root user.
    pub fn seed(control: SocketAddr, upstream: SocketAddr) -> Self {
        let made = |method: &str, target: &str, token: &str, body: &Value| {
            let answer = raw::api(control, method, target, token, body);
            assert_eq!(answer.status, 201, "{target}: {}", answer.text());
            answer.json()
        };
        let who = json!({"email": "owner@stage.test", "password": "a password of the stage"});
        let mut account = who.clone();
        account["verified"] = json!(true);
        let account = text(&made("POST", "/v1/accounts", OPERATOR_TOKEN, &account), "account_id");
        let cluster = json!({"hosts": ["stage.test"], "upstreams": [format!("http://{upstream}")], "allow_ips": []});
        made("POST", &format!("/v1/accounts/{account}/clusters"), OPERATOR_TOKEN, &cluster);
        let token = text(&made("POST", "/v1/session", "", &who), "token");
        Self { control, account, token }
    }

    /// The same account and session at another control plane of the store.
    pub fn at(&self, control: SocketAddr) -> Self {
        Self { control, ..self.clone() }
    }

    /// Id and text of a new key.
    pub fn create(&self) -> (String, String) {
        self.try_create().unwrap_or_else(|answer| panic!("{}", answer.text()))
    }

    /// Id and text of a new key, or what was answered in its place.
    pub fn try_create(&self) -> Result<(String, String), Answer> {
        made(self.ask_to_create().unwrap())
    }

    /// The answer to a delete that waits for so long.
    pub fn delete(&self, id: &str, wait: &str) -> (u16, Value) {
        let answer = self.ask_to_delete(id, wait).unwrap();
        (answer.status, answer.json())
    }

    /// An error where there is no answer, for example since the control plane was killed.
    pub fn ask_to_create(&self) -> io::Result<Answer> {
        raw::try_api(self.control, "POST", "/v1/keys", &self.token, &json!({}))
    }

    /// As [`Self::ask_to_create`].
    pub fn ask_to_delete(&self, id: &str, wait: &str) -> io::Result<Answer> {
        let target = format!("/v1/accounts/{}/keys/{id}?wait={wait}", self.account);
        raw::try_api(self.control, "DELETE", &target, OPERATOR_TOKEN, &json!({"reason": "a test"}))
    }
}

/// Id and text of the key that an answer says is made.
pub fn made(answer: Answer) -> Result<(String, String), Answer> {
    if answer.status != 201 {
        return Err(answer);
    }
    Ok((text(&answer.json(), "id"), text(&answer.json(), "key")))
}
