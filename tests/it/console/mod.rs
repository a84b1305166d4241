//! The console in a real browser, as a person uses it, against a real `tollgate demo`.

mod account;
mod careful;
mod fleet;
mod keys;
mod operator;
mod proxy;
mod rivals;
mod shots;
mod signing_in;
mod usage;

use std::net::SocketAddr;
use std::time::SystemTime;

use serde_json::{Value, json};
use tollgate::control::totp::TotpSecret;
use tollgate::time::WallTime;

use crate::harness::browser::Browser;
use crate::harness::process::Demo;
use crate::harness::raw;

/// A demo, and a browser that nobody has signed in with yet.
struct Scene {
    demo: Demo,
    browser: Browser,
    codes: Codes,
}

/// The codes of an authenticator, each one given out once.
struct Codes {
    secret: TotpSecret,
    used: u64,
}

const STEP: u64 = 30;

/// In seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

const PRESS_ENTER: &str = "\u{e007}";
const PRESS_ESCAPE: &str = "\u{e00c}";
const PRESS_TAB: &str = "\u{e004}";

impl Codes {
    fn of(secret: &str) -> Self {
        Self { secret: TotpSecret::from_base32(secret).unwrap(), used: 0 }
    }

    /// Waits for a step that has only begun, where what is said of the next one is looked at.
    fn early(&mut self) -> &mut Self {
        while now() % STEP > STEP / 4 {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        self
    }

    /// The code of the earliest step that is good and was not used, waited for where the next ones were used already.
    fn next(&mut self) -> String {
        // The step before this one ends to be good when this one ends. A busy machine takes its time with a form.
        let begun = now();
        let earliest = if begun % STEP > 12 { begun / STEP } else { begun / STEP - 1 };
        let step = earliest.max(self.used + 1);
        assert!(step <= begun / STEP + 2, "a test uses no more than four codes");
        while step > now() / STEP + 1 {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        self.used = step;
        self.code_of(step)
    }

    /// The code that was given out last.
    fn last(&self) -> String {
        self.code_of(self.used)
    }

    fn code_of(&self, step: u64) -> String {
        self.secret.code_at(WallTime(step * STEP * 1000)).as_str().to_owned()
    }

    /// A code that none of the steps around now has.
    fn wrong(&self) -> String {
        let step = now() / STEP;
        let good: Vec<String> = (step - 3..step + 4).map(|step| self.code_of(step)).collect();
        (0..).map(|n| format!("{n:06}")).find(|code| !good.contains(code)).unwrap()
    }
}

impl Scene {
    fn new() -> Self {
        Self::in_language("en")
    }

    fn in_language(language: &str) -> Self {
        let demo = Demo::start();
        let codes = Codes::of(&demo.facts.totp_secret);
        Self { demo, browser: Browser::start(language), codes }
    }

    /// With the account's owner signed in, on the keys' page.
    fn signed_in() -> Self {
        let scene = Self::new();
        scene.sign_in(&scene.demo.facts.email, &scene.demo.facts.password);
        scene
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.demo.facts.control)
    }

    fn open(&self, path: &str) {
        self.browser.go(&self.url(path));
    }

    #[track_caller]
    fn sign_in(&self, email: &str, password: &str) {
        sign_in(&self.browser, &self.demo.facts.control, email, password);
    }

    /// A call to the sample service: its status, and the `code` in its answer.
    fn call(&self, key: &str) -> u16 {
        call(self.demo.gateway(), key)
    }

    fn operator(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = raw::api(self.demo.control(), method, path, &self.demo.facts.operator_token, body);
        assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.text());
        if answer.text().is_empty() { Value::Null } else { answer.json() }
    }

    /// The session of a program, for what is not tested in the browser.
    fn token(&self) -> String {
        let body = json!({"email": self.demo.facts.email, "password": self.demo.facts.password});
        let answer = raw::api(self.demo.control(), "POST", "/v1/session", "", &body);
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    fn create_key(&self, token: &str, name: &str) -> Value {
        let answer = raw::api(self.demo.control(), "POST", "/v1/keys", token, &json!({"name": name}));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()
    }

    /// A change by hand, with all that a page would send.
    fn fetch(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { "undefined".to_owned() } else { json!(body.to_string()).to_string() };
        self.browser.run_async(&format!(
            "fetch({path:?}, {{method: {method:?}, body: {body}, headers: {{'Content-Type': 'application/json', \
             'X-CSRF-Token': document.cookie.split('__Host-tollgate-csrf=')[1]?.split(';')[0] ?? ''}}}})\
             .then(async (answer) => ({{status: answer.status, body: await answer.text()}}))"
        ))
    }

    /// What axe-core has to say of the page as it is now, but for what is minor or moderate.
    #[track_caller]
    fn is_accessible(&self, what: &str) {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let axe = std::fs::read_dir(root.join(".venv/lib")).into_iter().flatten().flatten();
        let axe =
            axe.map(|python| python.path().join("site-packages/axe_core_python/axe.min.js")).find(|file| file.exists());
        let axe = axe.expect("axe-core is not there: run `make setup`");
        self.browser.run(&std::fs::read_to_string(axe).unwrap());
        let found = self.browser.run_async(
            "axe.run().then((result) => result.violations.filter((one) => ['serious', 'critical'].includes(one.impact))\
             .map((one) => `${one.id}: ${one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | ')}`))",
        );
        assert_eq!(found, json!([]), "{what}");
    }

    /// No error of a script, no violation of the policy, nothing that was not found. What the API refused is not among them.
    #[track_caller]
    fn has_no_complaints(&self) {
        let complaints = self.browser.complaints();
        let bad: Vec<_> =
            complaints.iter().filter(|one| !(one.contains("/v1/") && one.contains("status of 4"))).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

#[track_caller]
fn sign_in(browser: &Browser, url: &str, email: &str, password: &str) {
    browser.go(url);
    browser.arrives_at("/console/sign-in");
    browser.fill("#email", email);
    browser.fill("#password", password);
    browser.click("button[type=submit]");
    browser.arrives_at("/console/keys");
}

/// What the browser has of a cookie, the value that no script can read included.
fn cookie(browser: &Browser, name: &str) -> Value {
    let cookies = browser.devtools("Network.getCookies", &json!({}));
    let found = cookies["cookies"].as_array().unwrap().iter().find(|cookie| cookie["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {name} among {cookies}")).clone()
}

fn call(gateway: SocketAddr, key: &str) -> u16 {
    raw::call(gateway, "GET", "/v1/collections", &[("dashvector-auth-token", key)], b"").status
}
