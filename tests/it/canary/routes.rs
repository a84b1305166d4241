//! The routes that the tour has not been to yet: a second account does all that can be done with one's own account; and that in
//! the end no route of the OpenAPI document was left out.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Tour;
use crate::harness::process::run;
use crate::harness::raw::{self, Answer};

const PASSWORD: &str = "second-canary-password-1a2B";
const NEW_PASSWORD: &str = "third-canary-password-3c4D";
const MEMBER_PASSWORD: &str = "member-canary-password-5e6F";
const MEMBERS_NEXT: &str = "member-canary-next-7g8H";
const EMAIL: &str = "second@canary.test";
const MEMBER: &str = "member@canary.test";

/// A user who is signed in.
struct User {
    session: String,
}

impl Tour {
    /// Everything an account and its members can do with themselves.
    pub fn own_account(&mut self) {
        for (name, secret) in [
            ("second password", PASSWORD),
            ("third password", NEW_PASSWORD),
            ("member's password", MEMBER_PASSWORD),
            ("member's next password", MEMBERS_NEXT),
        ] {
            self.needles.add(name, secret.as_bytes());
        }
        let account = self.second_account();
        let root = self.user(EMAIL, PASSWORD, "second session");
        self.members(&account, &root);
        let codes = self.recovery_codes(&root, &account.totp);
        self.key_of_the_second_account(&root, &codes[0]);
        self.authenticator(&root, &codes[1]);
        let grant = self.granted(&root, &json!({"action": "account", "code": codes[2]}));
        let change = json!({"password": PASSWORD, "new_password": NEW_PASSWORD});
        assert_eq!(self.with_grant("POST", "/v1/password", &root, &grant, &change, &[]).status, 204);
        self.user(EMAIL, NEW_PASSWORD, "another session");
        assert_eq!(self.api("GET", "/v1/sessions", &root.session, &Value::Null, &[]).status, 200);
        assert_eq!(self.api("DELETE", "/v1/sessions", &root.session, &Value::Null, &[]).status, 204);
        let last = self.user(EMAIL, NEW_PASSWORD, "last session");
        assert_eq!(self.api("GET", "/v1/session", &last.session, &Value::Null, &[]).status, 200);
        self.billing(&account);
        self.reset(&account);
        self.operators_browser();
    }

    fn billing(&mut self, account: &SecondAccount) {
        let windows = self.operator("GET", "/v1/usage/windows", &Value::Null);
        let hour = windows.json()["items"][0]["window_start"].clone();
        for path in ["/v1/usage/changes", "/v1/usage/reconciliation"] {
            assert_eq!(self.operator("GET", path, &Value::Null).status, 200);
        }
        let adjust = json!({
            "account_id": account.id, "cluster_id": self.demo.facts.cluster_id, "operation": "query", "window_start": hour,
            "field": "read_units", "delta": 1, "reason": "a test", "idempotency_key": "one",
        });
        assert_eq!(self.operator("POST", "/v1/usage/adjustments", &adjust).status, 201);
        let alive = self.operator("GET", "/v1/gateways", &Value::Null).json()[0]["id"].clone();
        let abandon = json!({"incarnation": alive, "reason": "a test"});
        assert_eq!(self.operator("POST", "/v1/usage/abandonments", &abandon).status, 400);
    }

    fn operators_browser(&mut self) {
        let ask = json!({"token": self.demo.facts.operator_token});
        let signed_in = self.api("POST", "/v1/operator-session", "", &ask, &["operator's session"]);
        assert_eq!(signed_in.status, 201, "{}", signed_in.text());
        let cookie = signed_in.header("set-cookie").unwrap();
        let value = cookie.split(';').next().and_then(|pair| pair.split_once('=')).unwrap().1;
        self.needles.add("operator's session", value.as_bytes());
        assert_eq!(self.operator("DELETE", "/v1/operator-session", &Value::Null).status, 204);
    }

    fn second_account(&mut self) -> SecondAccount {
        let ask = json!({"email": EMAIL, "password": PASSWORD, "verified": true, "name": "second"});
        let token = self.demo.facts.operator_token.clone();
        let made = self.api("POST", "/v1/accounts", &token, &ask, &["second TOTP secret"]);
        let (id, totp) = (said(&made, "account_id"), said(&made, "totp_secret"));
        self.needles.add("second TOTP secret", totp.as_bytes());
        self.operator("PATCH", &format!("/v1/accounts/{id}"), &json!({"active_max": 5}));
        let clusters = format!("/v1/accounts/{id}/clusters");
        let cluster = json!({"hosts": ["second.canary.test"], "upstreams": ["http://127.0.0.1:1"]});
        let kept = self.operator("POST", &clusters, &cluster);
        assert_eq!(kept.status, 201, "{}", kept.text());
        let other = json!({"hosts": ["third.canary.test"], "upstreams": ["http://127.0.0.1:1"]});
        let gone = format!("/v1/clusters/{}", said(&self.operator("POST", &clusters, &other), "cluster_id"));
        assert_eq!(self.operator("PATCH", &gone, &json!({"allow_ips": ["10.0.0.0/8"]})).status, 200);
        assert_eq!(self.operator("DELETE", &gone, &Value::Null).status, 204);
        SecondAccount { id, totp }
    }

    fn user(&mut self, email: &str, password: &str, name: &'static str) -> User {
        let signed_in = self.api("POST", "/v1/session", "", &json!({"email": email, "password": password}), &[name]);
        let session = said(&signed_in, "token");
        self.needles.add(name, session.as_bytes());
        User { session }
    }

    fn members(&mut self, account: &SecondAccount, root: &User) {
        let path = format!("/v1/accounts/{}/members", account.id);
        let new = json!({"email": MEMBER, "password": MEMBER_PASSWORD});
        let made = self.api("POST", &path, &root.session, &new, &[]);
        let id = said(&made, "member_id");
        assert_eq!(self.api("GET", &path, &root.session, &Value::Null, &[]).status, 200);
        let member = self.user(MEMBER, MEMBER_PASSWORD, "member's session");
        let change = json!({"password": MEMBER_PASSWORD, "new_password": MEMBERS_NEXT});
        assert_eq!(self.api("POST", "/v1/password", &member.session, &change, &[]).status, 204);
        assert!(self.api("POST", "/v1/password", &member.session, &change, &[]).status >= 400, "it was replaced");
        let removed = self.api("DELETE", &format!("{path}/{id}"), &root.session, &Value::Null, &[]);
        assert_eq!(removed.status, 204);
    }

    fn recovery_codes(&mut self, root: &User, totp: &str) -> Vec<String> {
        let grant = self.granted(root, &json!({"action": "account", "code": code_of(totp)}));
        let path = "/v1/recovery-codes";
        let made = self.with_grant("POST", path, root, &grant, &Value::Null, &["recovery codes"]);
        let body = made.json();
        let codes = body["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned());
        let codes: Vec<_> = codes.collect();
        for code in &codes {
            self.needles.add("recovery codes", code.as_bytes());
            let bare = code.replace('-', "");
            if bare.len() >= 16 {
                self.needles.add("recovery codes", bare.as_bytes());
            }
        }
        codes
    }

    fn key_of_the_second_account(&mut self, root: &User, recovery: &str) {
        let made = self.api("POST", "/v1/keys", &root.session, &json!({"name": "second"}), &["key of the second"]);
        self.needles.add("key of the second", said(&made, "key").as_bytes());
        let id = said(&made, "id");
        let path = format!("/v1/keys/{id}");
        let grant = self.granted(root, &json!({"action": "delete", "key_id": id, "code": recovery}));
        let deleted = self.with_grant("DELETE", &path, root, &grant, &Value::Null, &[]);
        assert_eq!(deleted.status, 200, "{}", deleted.text());
        assert_eq!(self.api("GET", &path, &root.session, &Value::Null, &[]).status, 200);
    }

    fn authenticator(&mut self, root: &User, recovery: &str) {
        let grant = self.granted(root, &json!({"action": "account", "code": recovery}));
        let begun = self.with_grant("POST", "/v1/totp", root, &grant, &Value::Null, &["third TOTP secret"]);
        let secret = said(&begun, "totp_secret");
        self.needles.add("third TOTP secret", secret.as_bytes());
        let confirm = json!({"code": code_of(&secret)});
        assert_eq!(self.api("POST", "/v1/totp", &root.session, &confirm, &[]).status, 204);
    }

    fn reset(&mut self, account: &SecondAccount) {
        let path = format!("/v1/accounts/{}/reset", account.id);
        let token = self.demo.facts.operator_token.clone();
        let shows = ["password of a reset", "TOTP secret of a reset"];
        let reset = self.api("POST", &path, &token, &json!({"reason": "lost"}), &shows);
        self.needles.add(shows[0], said(&reset, "password").as_bytes());
        self.needles.add(shows[1], said(&reset, "totp_secret").as_bytes());
    }

    fn granted(&mut self, user: &User, ask: &Value) -> String {
        let granted = self.api("POST", "/v1/step-up", &user.session, ask, &["second grant"]);
        let grant = said(&granted, "grant");
        self.needles.add("second grant", grant.as_bytes());
        grant
    }

    fn with_grant(
        &mut self,
        method: &str,
        target: &str,
        user: &User,
        grant: &str,
        body: &Value,
        shows: &[&'static str],
    ) -> Answer {
        let bearer = format!("Bearer {}", user.session);
        let headers = [("authorization", &*bearer), ("step-up-grant", grant), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = raw::call(self.demo.control(), method, target, &headers, body.as_bytes());
        self.asked(method, target);
        self.keep_answer(format!("{method} {target}"), &answer, shows);
        answer
    }

    pub fn asked(&mut self, method: &str, target: &str) {
        self.asked.insert((method.to_owned(), target.to_owned()));
    }

    /// Of the document's routes none was left out.
    pub fn check_all_routes_were_asked(&mut self) {
        let document = raw::call(self.demo.control(), "GET", "/openapi.json", &[], b"").json();
        let mut left = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
                if !self.asked.iter().any(|(asked, target)| *asked == method && is_of(path, target)) {
                    left.insert(format!("{method} {path}"));
                }
            }
        }
        assert!(left.is_empty(), "the tour never went to {left:?}");
    }
}

struct SecondAccount {
    id: String,
    totp: String,
}

/// Whether a target is of a path with places like `{id}`.
fn is_of(path: &str, target: &str) -> bool {
    let target = target.split('?').next().unwrap_or_default();
    let (wanted, given): (Vec<_>, Vec<_>) = (path.split('/').collect(), target.split('/').collect());
    wanted.len() == given.len()
        && wanted.iter().zip(given).all(|(wanted, given)| wanted.starts_with('{') || *wanted == given)
}

#[track_caller]
fn said(answer: &Answer, field: &str) -> String {
    let body = answer.json();
    body[field].as_str().unwrap_or_else(|| panic!("no {field} in {}: {body}", answer.status)).to_owned()
}

fn code_of(secret: &str) -> String {
    let output = run(&["totp", secret]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
