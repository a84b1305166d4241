//! A node whose store, journal and secrets are put to the test: it is killed, restored, rotated. The upstream is nobody, so a
//! key that is let through is answered 502, and one that is not 401.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::PATIENCE;
use crate::harness::process::{Node, OPERATOR_TOKEN, Process, run, run_with};
use crate::harness::raw::{self, Raw};

const EMAIL: &str = "root@owner.test";
pub const PASSWORD: &str = "canary-password-0815";

/// A node that runs now and then.
pub struct Kept {
    pub node: Node,
    pub running: Option<Running>,
}

pub struct Running {
    process: Process,
    pub gateway: SocketAddr,
    pub control: SocketAddr,
}

/// An account with a cluster, and what its root user knows.
pub struct Owner {
    pub id: String,
    pub totp: String,
}

pub struct Key {
    pub id: String,
    pub text: String,
}

/// What a call with a key comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    Yes,
    No,
}

impl Kept {
    pub fn new() -> Self {
        let config = Self::config("");
        Self { node: Node::new(&config), running: None }
    }

    /// The configuration with these lines in `[secrets]`.
    pub fn config(secrets: &str) -> String {
        format!(
            "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"kept.test\"\n\
             [control]\nlisten = \"127.0.0.1:0\"\n[store]\nlease = \"1s\"\n[meter]\nslab_dir = \"slab\"\n[secrets]\n{secrets}\n"
        )
    }

    pub fn start(&mut self) -> &Running {
        self.start_with(&[])
    }

    pub fn start_with(&mut self, environment: &[(&str, &str)]) -> &Running {
        let config = self.config_file();
        let process = Process::start_with(&["serve", "--config", &config], environment);
        let (gateway, control) = (process.listening("gateway"), process.listening("control"));
        let running = Running { process, gateway, control };
        wait_until("the node is ready", || raw::call(control, "GET", "/readyz", &[], b"").status == 200);
        self.running.insert(running)
    }

    /// A start that must fail: what it says.
    pub fn refuses_to_start(&self) -> String {
        let process = Process::start(&["serve", "--config", &self.config_file()]);
        let said = process.log_line("tollgate: ");
        assert!(!process.ended(PATIENCE).success());
        said
    }

    pub fn stop(&mut self) {
        let status = self.running.take().unwrap().process.stop();
        assert!(status.success(), "{status}");
    }

    pub fn kill(&mut self) {
        self.running.take().unwrap().process.kill();
    }

    /// Waits for a process that kills itself.
    pub fn dies(&mut self) {
        let status = self.running.take().unwrap().process.ended(PATIENCE);
        assert!(!status.success(), "it was to be killed");
    }

    pub fn config_file(&self) -> String {
        self.node.config().to_str().unwrap().to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.node.path(name)
    }

    /// A command with the configuration of this node: `tollgate <arguments> --config FILE <more>`. The port of a node that runs
    /// is not in its configuration, so it is named.
    pub fn command(&self, arguments: &[&str], more: &[&str]) -> Output {
        let control = self.running.as_ref().map(|running| format!("http://{}", running.control));
        let environment: Vec<_> = control.iter().map(|url| ("TOLLGATE_CONTROL", url.as_str())).collect();
        run_with(&[arguments, &["--config", &self.config_file()], more].concat(), &environment)
    }

    /// The same, which must succeed: its stdout.
    #[track_caller]
    pub fn told(&self, arguments: &[&str], more: &[&str]) -> String {
        told(self.command(arguments, more))
    }

    /// A command for the control plane that must succeed: its stdout.
    #[track_caller]
    pub fn tell(&self, token: &str, arguments: &[&str]) -> String {
        told(self.ask(&[("TOLLGATE_TOKEN", token)], arguments))
    }

    pub fn ask(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let control = format!("http://{}", self.running().control);
        run_with(&[arguments, &["--control", &control]].concat(), environment)
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// An account whose identity is verified, with a cluster that calls to an address are for.
    pub fn owner(&self) -> Owner {
        let running = self.running();
        let made =
            running.operator("POST", "/v1/accounts", &json!({"email": EMAIL, "password": PASSWORD, "verified": true}));
        let (id, totp) = (text(&made, "account_id"), text(&made, "totp_secret"));
        let cluster = json!({"hosts": ["kept.test"], "upstreams": ["http://127.0.0.1:1"]});
        running.operator("POST", &format!("/v1/accounts/{id}/clusters"), &cluster);
        Owner { id, totp }
    }

    /// Whether the name of a file and `found` say so: secrets that stand in it, out of the node's configuration.
    pub fn files_with(&self, secret: &[u8]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.node.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if contains(&entry, secret) {
                    found.push(entry);
                }
            }
        }
        found
    }
}

fn contains(path: &Path, secret: &[u8]) -> bool {
    fs::read(path).unwrap().windows(secret.len()).any(|window| window == secret)
}

#[track_caller]
pub fn told(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Running {
    #[track_caller]
    pub fn api(&self, method: &str, target: &str, token: &str, body: &Value) -> Value {
        let answer = raw::api(self.control, method, target, token, body);
        assert!((200..300).contains(&answer.status), "{method} {target}: {} {}", answer.head, answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    #[track_caller]
    pub fn operator(&self, method: &str, target: &str, body: &Value) -> Value {
        self.api(method, target, OPERATOR_TOKEN, body)
    }

    pub fn sign_in(&self) -> String {
        text(&self.api("POST", "/v1/session", "", &json!({"email": EMAIL, "password": PASSWORD})), "token")
    }

    pub fn key(&self, session: &str) -> Key {
        let made = self.api("POST", "/v1/keys", session, &Value::Null);
        Key { id: text(&made, "id"), text: text(&made, "key") }
    }

    /// The ids of the keys that are not deleted.
    pub fn keys(&self, owner: &Owner) -> Vec<String> {
        let list = self.operator("GET", &format!("/v1/accounts/{}/keys", owner.id), &Value::Null);
        list["keys"].as_array().unwrap().iter().map(|key| text(key, "id")).collect()
    }

    pub fn revoke(&self, owner: &Owner, key: &Key) {
        let target = format!("/v1/accounts/{}/keys/{}", owner.id, key.id);
        let receipt = self.operator("DELETE", &target, &json!({"reason": "a test"}));
        assert_eq!(receipt["revoked"], "everywhere", "{receipt}");
    }

    /// Sends a request that will not be answered.
    pub fn ask_in_vain(&self, method: &str, target: &str, token: &str, body: &Value) {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut connection = Raw::connect(self.control);
        connection.send(&raw::request(self.control, method, target, &headers, body.as_bytes()));
        let answer = connection.try_answer(PATIENCE);
        assert!(answer.is_err(), "answered: {}", answer.map(|answer| answer.text()).unwrap_or_default());
    }

    #[track_caller]
    pub fn admits(&self, key: &str) -> Admitted {
        admitted(self.gateway, key)
    }
}

#[track_caller]
fn admitted(gateway: SocketAddr, key: &str) -> Admitted {
    let answer = raw::call(gateway, "GET", "/v1/collections", &[("dashvector-auth-token", key)], b"");
    match answer.status {
        502 => Admitted::Yes,
        401 => Admitted::No,
        other => panic!("{other}: {}", answer.text()),
    }
}

pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

/// The code an authenticator shows in `steps` steps from now.
pub fn code(secret: &str) -> String {
    told(run(&["totp", secret])).trim().to_owned()
}

#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
