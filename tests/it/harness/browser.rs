//! A real browser, driven over the WebDriver protocol: Debian's chromium and chromedriver, on free loopback ports.
//!
//! The protocol is a few requests with JSON bodies. The crates that speak it bring a second TLS provider or a licence that is
//! not ours, so this client is our own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::PATIENCE;
use super::raw;

/// One chromedriver with one window. Both end with the test.
pub struct Browser {
    driver: Child,
    at: SocketAddr,
    session: String,
    _profile: tempfile::TempDir,
}

/// How the protocol names an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const LOOK_EVERY: Duration = Duration::from_millis(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
}

impl Browser {
    /// A window of 1280 × 900 with an empty profile, whose user prefers this language.
    pub fn start(language: &str) -> Self {
        Self::start_with(language, &[])
    }

    /// As [`Browser::start`], with further arguments of the browser.
    pub fn start_with(language: &str, more: &[&str]) -> Self {
        let (driver, at) = driver();
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--window-size=1280,900".to_owned(),
            format!("--lang={language}"),
            format!("--accept-lang={language}"),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let options = json!({"args": arguments, "prefs": {"intl.accept_languages": language}});
        let wanted =
            json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let mut browser = Self { driver, at, session: String::new(), _profile: profile };
        let opened = browser.command("POST", "/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        let opened = opened.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        browser.session = opened["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    pub fn go(&self, url: &str) {
        self.own("POST", "/url", &json!({"url": url}));
    }

    /// Path and query of the page that is shown.
    pub fn path(&self) -> String {
        let url = self.own("GET", "/url", &Value::Null);
        let rest = url.as_str().unwrap().split_once("://").unwrap().1.to_owned();
        rest.find('/').map_or_else(|| "/".to_owned(), |at| rest[at..].to_owned())
    }

    /// Waits until the page is at `path`, whatever its query.
    #[track_caller]
    pub fn arrives_at(&self, path: &str) {
        self.until(&format!("the page {path}"), || self.path().split('?').next() == Some(path));
        self.until("the page is loaded", || self.run("return document.readyState") == "complete");
    }

    /// What a script of the test returns. Not one of the page's: its policy does not hold for it.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.settled(|| self.attempt("POST", "/execute/sync", &json!({"script": script, "args": []})))
    }

    /// What the promise comes to that this expression is.
    pub fn run_async(&self, expression: &str) -> Value {
        let script = format!("const done = arguments[0]; ({expression}).then(done, (error) => done(String(error)))");
        self.own("POST", "/execute/async", &json!({"script": script, "args": []}))
    }

    /// Clicks what can be seen and pressed, waiting for it.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.with(selector, |id| self.attempt("POST", &format!("/element/{id}/click"), &json!({})));
    }

    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        self.with(selector, |id| {
            self.attempt("POST", &format!("/element/{id}/clear"), &json!({}))?;
            self.attempt("POST", &format!("/element/{id}/value"), &json!({"text": text}))
        });
    }

    /// Presses keys where the focus is.
    pub fn press(&self, keys: &str) {
        let active = self.own("GET", "/element/active", &Value::Null);
        self.own("POST", &format!("/element/{}/value", active[ELEMENT].as_str().unwrap()), &json!({"text": keys}));
    }

    /// The text of the first such element that can be seen, waiting for one.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let text = self.with(selector, |id| self.attempt("GET", &format!("/element/{id}/text"), &Value::Null));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the text of an element contains this.
    #[track_caller]
    pub fn reads(&self, selector: &str, text: &str) -> String {
        let mut last = String::new();
        let found = || {
            let script = format!("return document.querySelector({})?.innerText ?? ''", json!(selector));
            last = self.run(&script).as_str().unwrap_or_default().to_owned();
            last.contains(text)
        };
        let seen = within(PATIENCE, found);
        assert!(seen, "{selector} does not read {text:?} but {last:?}");
        last
    }

    /// How many such elements there are, seen or not.
    pub fn count(&self, selector: &str) -> u64 {
        self.run(&format!("return document.querySelectorAll({}).length", json!(selector))).as_u64().unwrap()
    }

    pub fn is_shown(&self, selector: &str) -> bool {
        self.run(&format!("return document.querySelector({})?.checkVisibility() ?? false", json!(selector))) == true
    }

    /// Does something with the first such element that can be seen.
    #[track_caller]
    fn with(&self, selector: &str, does: impl Fn(&str) -> Result<Value, Refusal>) -> Value {
        self.settled(|| does(&self.find(selector)))
    }

    /// Does it again where the page was just being replaced by another.
    #[track_caller]
    fn settled(&self, mut does: impl FnMut() -> Result<Value, Refusal>) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match does() {
                Ok(value) => return value,
                Err(refusal) if refusal.is_of_a_page_that_goes() && Instant::now() < deadline => {
                    thread::sleep(LOOK_EVERY)
                }
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
    }

    /// The id of the first such element that can be seen.
    #[track_caller]
    fn find(&self, selector: &str) -> String {
        let script = format!(
            "return [...document.querySelectorAll({})].find((one) => one.checkVisibility({{visibilityProperty: true}})) ?? null",
            json!(selector)
        );
        let mut found = Value::Null;
        let there = within(PATIENCE, || {
            found = self.run(&script);
            found.is_object()
        });
        assert!(there, "{selector} is not to be seen at {}:\n{}", self.path(), self.page_text());
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    pub fn page_text(&self) -> String {
        self.run("return document.body?.innerText ?? ''").as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        let held = within(PATIENCE, holds);
        assert!(held, "no sign of: {what}; at {} the page reads:\n{}", self.path(), self.page_text());
    }

    /// What the console of the browser holds since the last look: errors, and violations of the policy.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.own("POST", "/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().unwrap().iter();
        entries.filter(|entry| entry["level"] != "INFO").map(|entry| entry["message"].to_string()).collect()
    }

    pub fn prefers(&self, scheme: Scheme) {
        let value = if scheme == Scheme::Dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": value}, {"name": "prefers-reduced-motion", "value": "reduce"}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// The window as the page sees it, in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// What the page needs in width beyond the window.
    pub fn overflow(&self) -> i64 {
        self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth").as_i64().unwrap()
    }

    /// The whole page as PNG, or the window where a dialog lies over it.
    pub fn shoot(&self, file: &Path) {
        let whole = self.count("dialog[open]") == 0;
        let shot = self.devtools("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": whole}));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, BASE64.decode(shot["data"].as_str().unwrap().as_bytes()).unwrap()).unwrap();
    }

    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.own("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    #[track_caller]
    fn own(&self, method: &str, path: &str, body: &Value) -> Value {
        self.attempt(method, path, body).unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    fn attempt(&self, method: &str, path: &str, body: &Value) -> Result<Value, Refusal> {
        self.command(method, &format!("/session/{}{path}", self.session), body)
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value, Refusal> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = raw::call(self.at, method, path, &[("content-type", "application/json")], text.as_bytes());
        let value = answer.json()["value"].clone();
        if answer.status == 200 { Ok(value) } else { Err(Refusal { command: format!("{method} {path}"), value }) }
    }
}

/// What the driver did not do, and why.
#[derive(Debug)]
struct Refusal {
    command: String,
    value: Value,
}

impl Refusal {
    /// What it says while a page gives way to the next one.
    fn is_of_a_page_that_goes(&self) -> bool {
        let [error, message] = ["error", "message"].map(|field| self.value[field].as_str().unwrap_or_default());
        error == "stale element reference"
            || ["navigation", "execution context", "document unloaded", "belong to the document"]
                .iter()
                .any(|sign| message.contains(sign))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !thread::panicking() {
            let path = format!("/session/{}", self.session);
            raw::call(self.at, "DELETE", &path, &[("content-type", "application/json")], b"");
        }
        // The driver ends its browser when it is told to go; one that was killed would leave it behind.
        let pid = rustix::process::Pid::from_child(&self.driver);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.driver.wait();
    }
}

pub fn within(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A driver, and where it listens. It takes a port for IPv4 and then the same for IPv6, which somebody else may have by then.
fn driver() -> (Child, SocketAddr) {
    for _ in 0..5 {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is not there; `make setup` installs it");
        match listening(&mut driver) {
            Some(at) => return (driver, at),
            None => drop(driver.wait()),
        }
    }
    panic!("chromedriver does not say where it listens");
}

/// The port that the driver says it took. `None`: it ended.
fn listening(driver: &mut Child) -> Option<SocketAddr> {
    let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let (said, heard) = mpsc::sync_channel(1);
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let port = line.strip_suffix('.').and_then(|line| line.rsplit_once("on port "));
            if let Some(port) = port.and_then(|(_, port)| port.parse::<u16>().ok()) {
                let _ = said.try_send(port);
            }
        }
    });
    match heard.recv_timeout(PATIENCE) {
        Ok(port) => Some(SocketAddr::from(([127, 0, 0, 1], port))),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("chromedriver is silent"),
    }
}
