//! Secrets are sent through every path of a demo that logs all it can, and then looked for in everything that comes out.

mod needles;
mod routes;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{BASE32_NOPAD, BASE64};
use serde_json::{Value, json};
use tollgate::key::KeyText;

use self::needles::Needles;
use crate::denials::ask::{Ask, Wire};
use crate::harness::process::Demo;
use crate::harness::raw::{self, Answer, Raw};

/// Files that hold secrets because that is what they are for.
const SECRET_FILES: [&str; 4] = ["demo.json", "operator.token", "pepper", "sealing.key"];

const WRONG_PASSWORD: &str = "wrong-canary-password-7Hq2";
const WRONG_TOKEN: &str = "tgs_wrong-canary-token-9Xk4Lm";
const IMPORTED: &str = "imported-canary-key/Zt5+Qw8";
const SPACED: &str = "canary key with spaces Jh3Nf";

/// Something that came out, and the secrets that it is to show.
struct Output {
    what: String,
    bytes: Vec<u8>,
    shows: Vec<&'static str>,
}

/// Calls whose answers are kept.
struct Tour {
    demo: Demo,
    needles: Needles,
    outputs: Vec<Output>,
    /// Method and target of each request to the control plane.
    asked: BTreeSet<(String, String)>,
}

#[test]
fn no_secret_is_in_any_output() {
    let folder = tempfile::tempdir().unwrap();
    let mut tour = Tour::start(folder.path());
    let (unknown, malformed) = (KeyText::generate().unwrap(), malformed_key());
    let key = tour.demo.key().to_owned();
    tour.needles.add("unknown key", unknown.expose().as_bytes());
    tour.needles.add("malformed key", malformed.as_bytes());
    for key in [&*key, unknown.expose(), &malformed, SPACED, IMPORTED] {
        tour.call_with(key);
    }
    let session = tour.sign_in();
    tour.misuse_the_api(&session, &[&key, unknown.expose(), &malformed, SPACED]);
    tour.keys(&session);
    tour.call_with(IMPORTED);
    tour.step_up(&session);
    tour.delete_the_imported_key();
    tour.call_with(IMPORTED);
    tour.own_account();
    tour.read_everything(&session);
    tour.check_all_routes_were_asked();
    tour.check(folder.path());
}

fn malformed_key() -> String {
    let mut key = KeyText::generate().unwrap().expose().to_owned();
    let last = key.pop().unwrap();
    key.push(if last == 'a' { 'b' } else { 'a' });
    key
}

impl Tour {
    fn start(folder: &Path) -> Self {
        let demo = Demo::start_with(folder, &[], &[("TOLLGATE_LOG", "trace")]);
        let mut needles = Needles::default();
        let facts = &demo.facts;
        for (name, text) in [
            ("key", demo.key()),
            ("password", &facts.password),
            ("TOTP secret", &facts.totp_secret),
            ("operator token", &facts.operator_token),
            ("wrong password", WRONG_PASSWORD),
            ("wrong token", WRONG_TOKEN),
            ("imported key", IMPORTED),
            ("spaced key", SPACED),
        ] {
            needles.add(name, text.as_bytes());
        }
        needles.add("TOTP secret", &BASE32_NOPAD.decode(facts.totp_secret.as_bytes()).unwrap());
        for name in ["pepper", "sealing.key"] {
            let text = fs::read_to_string(folder.join(name)).unwrap();
            needles.add(name, &BASE64.decode(text.trim().as_bytes()).unwrap());
        }
        // That the search finds what is there.
        let found = needles.found_in(&fs::read(folder.join("demo.json")).unwrap());
        assert_eq!(found, ["TOTP secret", "key", "operator token", "password"].into());
        Self { demo, needles, outputs: Vec::new(), asked: BTreeSet::new() }
    }

    fn keep(&mut self, what: String, bytes: Vec<u8>, shows: &[&'static str]) {
        self.outputs.push(Output { what, bytes, shows: shows.to_vec() });
    }

    fn keep_answer(&mut self, what: String, answer: &Answer, shows: &[&'static str]) {
        self.keep(what, [answer.head.as_bytes(), &answer.body].concat(), shows);
    }

    fn api(&mut self, method: &str, target: &str, token: &str, body: &Value, shows: &[&'static str]) -> Answer {
        let answer = raw::api(self.demo.control(), method, target, token, body);
        self.asked(method, target);
        self.keep_answer(format!("{method} {target}"), &answer, shows);
        answer
    }

    fn operator(&mut self, method: &str, target: &str, body: &Value) -> Answer {
        let token = self.demo.facts.operator_token.clone();
        self.api(method, target, &token, body, &[])
    }

    /// Every way in which a call with this key goes through, or is refused.
    fn call_with(&mut self, key: &str) {
        let gateway = self.demo.gateway();
        let (bearer, basic) = (format!("Bearer {key}"), format!("Basic {}", BASE64.encode(key.as_bytes())));
        // Only a generated key is known as one whatever the parameter is called.
        let parameter = if key.starts_with("dvk_") { "ids" } else { "api_key" };
        let (query, large) = (format!("?{parameter}={}", key.replace(' ', "%20")), key.repeat(3000));
        let asks = [
            Ask::with_key(key),
            Ask::default().and("authorization", &bearer),
            Ask::default().and("authorization", &basic),
            Ask::with_key(key).and("authorization", &bearer),
            Ask::with_key(key).query(&query),
            Ask::default().query("?api_key=x").and("authorization", &bearer),
            Ask::with_key(key).to("nobody.test"),
            Ask::with_key(key).and("origin", "https://page.test"),
            Ask::with_key(key).and("x-large", &large[..40_000]),
            Ask::with_key(key).and("x-sample-reset", "head"),
            Ask::with_key(key).and("x-sample-code", "-2999"),
            Ask::with_key(key).and("x-sample-delay-ms", "2000").and("grpc-timeout", "20m"),
            Ask::with_key(key).and("te", "nonsense"),
            Ask::with_key(key).body(vec![b'x'; 100]),
        ];
        for (number, ask) in asks.iter().enumerate() {
            let slow = ask.headers.iter().any(|(name, _)| *name == "grpc-timeout");
            for wire in Wire::ALL.into_iter().filter(|wire| *wire == Wire::Grpc || !slow) {
                // HTTP/2 forbids this one; the client of the test would not get an answer.
                if wire != Wire::Http1 && ask.headers.iter().any(|(name, _)| *name == "te") {
                    continue;
                }
                let said = ask.over(wire, gateway);
                self.keep(format!("call {number} over {wire:?}"), format!("{said:?}").into_bytes(), &[]);
            }
        }
        for request in [
            format!("GET /service_version HTTP/1.1\r\nhost : a\r\ndashvector-auth-token: {key}\r\n\r\n"),
            format!("GET /service_version HTTP/1.1\r\n{key}\r\n\r\n"),
            format!("{key} / HTTP/1.1\r\n\r\n"),
            format!("DELETE /service_version HTTP/1.1\r\nhost: a\r\ndashvector-auth-token:{key}\r\n\r\n"),
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {key}\r\n\r\n"),
        ] {
            let mut connection = Raw::connect(gateway);
            connection.send(request.as_bytes());
            let answer = connection.answer();
            self.keep_answer("a request that cannot be read".into(), &answer, &[]);
        }
    }

    fn sign_in(&mut self) -> String {
        let (email, password) = (self.demo.facts.email.clone(), self.demo.facts.password.clone());
        let credentials = json!({"email": email, "password": password});
        let signed_in = self.api("POST", "/v1/session", "", &credentials, &["session"]);
        assert_eq!(signed_in.status, 201, "{}", signed_in.text());
        let session = signed_in.json()["token"].as_str().unwrap().to_owned();
        self.needles.add("session", session.as_bytes());
        for body in [
            json!({"email": email, "password": WRONG_PASSWORD}),
            json!({"email": password, "password": WRONG_PASSWORD}),
            json!({"email": format!("{password}@a.test"), "password": WRONG_PASSWORD}),
            json!({"email": [password], "password": {"a": password}}),
            json!({"email": email, "password": password, "more": password}),
            json!({WRONG_PASSWORD: 1}),
            json!([password]),
        ] {
            let refused = self.api("POST", "/v1/session", "", &body, &[]);
            assert!((400..500).contains(&refused.status), "{}", refused.text());
        }
        session
    }

    /// Secrets where they do not belong.
    fn misuse_the_api(&mut self, session: &str, keys: &[&str]) {
        let control = self.demo.control();
        for key in keys {
            let escaped = key.replace(' ', "%20");
            for (method, target) in [
                ("GET", format!("/v1/keys/{escaped}")),
                ("POST", format!("/v1/keys/{escaped}/view")),
                ("DELETE", format!("/v1/keys/{escaped}")),
                ("GET", format!("/v1/keys?deleted={escaped}")),
                ("GET", format!("/v1/usage/records?account={escaped}")),
                ("GET", format!("/{escaped}")),
                ("PUT", format!("/v1/keys/{escaped}")),
            ] {
                self.api(method, &target, session, &Value::Null, &[]);
                self.api(method, &target, key, &Value::Null, &[]);
            }
            self.operator("POST", "/v1/keys/lookup", &json!({"key": key}));
            self.operator("POST", "/v1/keys/lookup", &json!({"key": [key]}));
            self.operator("POST", "/v1/keys/lookup", &json!({*key: "a"}));
            self.api("POST", "/v1/keys", session, &json!({"key": key}), &[]);
            self.api("GET", "/v1/accounts", WRONG_TOKEN, &Value::Null, &[]);
            let broken = format!("{{\"key\": \"{key}");
            let answer =
                raw::call(control, "POST", "/v1/keys/lookup", &[("authorization", "Bearer x")], broken.as_bytes());
            self.keep_answer("a body that is cut short".into(), &answer, &[]);
            let cookie = format!("session={session}; key={key}");
            let answer = raw::call(control, "GET", "/v1/keys", &[("cookie", &cookie)], b"");
            self.keep_answer("a cookie".into(), &answer, &[]);
        }
    }

    fn keys(&mut self, session: &str) {
        let account = self.demo.facts.account_id.clone();
        let import = format!("/v1/accounts/{account}/keys/import");
        let imported = self.operator("POST", &import, &json!({"keys": [{"key": IMPORTED, "name": "moved"}]}));
        assert_eq!(imported.status, 201, "{}", imported.text());
        for refused in [
            json!({"keys": [{"key": IMPORTED}]}),
            json!({"keys": [{"key": SPACED}]}),
            json!({"keys": [{"key": malformed_key()}]}),
            json!({"keys": [IMPORTED]}),
            json!({"keys": IMPORTED}),
        ] {
            let refused = self.operator("POST", &import, &refused);
            assert!((400..500).contains(&refused.status), "{}", refused.text());
        }
        let made = self.api("POST", "/v1/keys", session, &json!({"name": "second"}), &["second key"]).json();
        self.needles.add("second key", made["key"].as_str().unwrap().as_bytes());
        let target = format!("/v1/keys/{}", made["id"].as_str().unwrap());
        self.api("PATCH", &target, session, &json!({"status": "disabled"}), &[]);
        self.call_with(made["key"].as_str().unwrap());
    }

    fn step_up(&mut self, session: &str) {
        let listed = self.api("GET", "/v1/keys", session, &Value::Null, &[]).json();
        let keys = listed["keys"].as_array().unwrap();
        let first = keys.iter().find(|key| key["name"] == "demo").unwrap()["id"].as_str().unwrap().to_owned();
        let secret = self.demo.facts.totp_secret.clone();
        for code in [json!("000000"), json!(secret), json!([secret]), json!(1)] {
            let ask = json!({"action": "view", "key_id": first, "code": code});
            let refused = self.api("POST", "/v1/step-up", session, &ask, &[]);
            assert!((400..500).contains(&refused.status), "{}", refused.text());
        }
        let ask = json!({"action": "view", "key_id": first, "code": self.demo.totp_code()});
        let granted = self.api("POST", "/v1/step-up", session, &ask, &["grant"]);
        assert_eq!(granted.status, 201, "{}", granted.text());
        let grant = granted.json()["grant"].as_str().unwrap().to_owned();
        self.needles.add("grant", grant.as_bytes());
        self.api("POST", "/v1/step-up", session, &ask, &[]);
        let bearer = format!("Bearer {session}");
        for (grant, shows) in [("wrong", &[][..]), (&grant, &["key"][..]), (&grant, &[])] {
            let headers = [("authorization", &*bearer), ("step-up-grant", grant)];
            let target = format!("/v1/keys/{first}/view");
            let viewed = raw::call(self.demo.control(), "POST", &target, &headers, b"");
            self.asked("POST", &target);
            self.keep_answer("a view".into(), &viewed, shows);
            assert_eq!(viewed.status == 200, !shows.is_empty(), "{}", viewed.text());
        }
    }

    fn delete_the_imported_key(&mut self) {
        let found = self.operator("POST", "/v1/keys/lookup", &json!({"key": IMPORTED})).json();
        let account = self.demo.facts.account_id.clone();
        let target = format!("/v1/accounts/{account}/keys/{}", found["id"].as_str().unwrap());
        let receipt = self.operator("DELETE", &target, &json!({"reason": "leaked"}));
        assert_eq!(receipt.json()["revoked"], "everywhere");
    }

    fn read_everything(&mut self, session: &str) {
        let facts = self.demo.facts.clone();
        for target in [
            "/metrics",
            "/metrics/usage",
            "/livez",
            "/readyz",
            "/v1/accounts",
            &format!("/v1/accounts/{}", facts.account_id),
            &format!("/v1/accounts/{}/clusters", facts.account_id),
            &format!("/v1/accounts/{}/keys?deleted=true", facts.account_id),
            &format!("/v1/clusters/{}", facts.cluster_id),
            "/v1/audit",
            "/v1/audit/verify",
            "/v1/store",
            "/v1/store/backup",
            "/v1/gateways",
            "/v1/usage/records",
            "/v1/usage/records?by=key",
        ] {
            let answer = self.operator("GET", target, &Value::Null);
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        }
        for target in ["/v1/keys?deleted=true", "/v1/audit", "/v1/usage/records"] {
            assert_eq!(self.api("GET", target, session, &Value::Null, &[]).status, 200, "{target}");
        }
        // What the vector service was told.
        for target in ["/sample/counts", "/sample/requests"] {
            let answer = raw::call(self.demo.upstream(), "GET", target, &[], b"");
            assert_eq!(answer.status, 200);
            self.keep_answer(target.into(), &answer, &[]);
        }
        self.api("DELETE", "/v1/session", session, &Value::Null, &[]);
    }

    /// Looks at the answers, the log, and every file, while the process lives and after it has ended.
    fn check(mut self, folder: &Path) {
        let memory = PathBuf::from(format!("/dev/shm/tollgate-{}", rustix::process::getuid().as_raw()));
        let mut files = files_below(folder);
        let slabs = files_below(&memory);
        assert!(files.iter().any(|(path, _)| path.extension().is_some_and(|kind| kind == "redb")), "no store");
        files.extend(slabs);
        self.demo.process.signal(crate::harness::process::Signal::TERM);
        let log = loop {
            let log = self.demo.process.log();
            if log.contains("nothing is in flight any more") {
                break log;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert!(log.lines().count() < 100_000, "the log was cut");
        assert!(log.contains("\"level\":\"TRACE\""), "the log does not say all it can");
        self.keep("the log".into(), log.into_bytes(), &[]);
        for (path, bytes) in files.into_iter().chain(files_below(folder)) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !SECRET_FILES.contains(&name) {
                self.keep(path.display().to_string(), bytes, &[]);
            }
        }
        for Output { what, bytes, shows } in &self.outputs {
            let found = self.needles.found_in(bytes);
            assert_eq!(found, shows.iter().copied().collect(), "in {what}: {}", self.needles.context(bytes));
        }
    }
}

/// Every file with its content. Those of other processes may go meanwhile.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            found.push((path, bytes));
        }
    }
    found
}
