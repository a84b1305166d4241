//! The real binary as a child process, killed when the test ends.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde::Deserialize;

use super::{PATIENCE, address};

/// A command of the binary that ends by itself.
pub fn run(arguments: &[&str]) -> Output {
    binary(arguments).output().unwrap()
}

/// As [`run`], with environment variables besides.
pub fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    binary(arguments).envs(environment.iter().copied()).output().unwrap()
}

fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env_remove("TOLLGATE_LOG").env_remove("TOLLGATE_LOG_FORMAT").stdin(Stdio::null());
    command
}

/// A running Tollgate.
pub struct Process {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    /// Starts the binary with these arguments and does not wait for anything.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// As [`Process::start`], with environment variables besides.
    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = binary(arguments);
        command.envs(environment.iter().copied());
        Self::spawn(command)
    }

    /// `tollgate serve --config FILE` where `folder` is a tmpfs that nobody else has mounted, with these options of mount(8). From here
    /// it is below [`Process::root`]. `None` where no process may have mounts of its own, as in most containers.
    pub fn serve_on_tmpfs(config: &Path, folder: &Path, options: &str) -> Option<Self> {
        let unshared = || {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount"]);
            command
        };
        if !unshared().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return None;
        }
        const SCRIPT: &str = "mount -t tmpfs -o \"$1\" none \"$2\" && exec \"$3\" serve --config \"$4\"";
        let mut command = unshared();
        command.args(["sh", "-c", SCRIPT, "sh", options]);
        command.args([folder, Path::new(env!("CARGO_BIN_EXE_tollgate")), config]);
        command.env_remove("TOLLGATE_LOG").env_remove("TOLLGATE_LOG_FORMAT").stdin(Stdio::null());
        Some(Self::spawn(command))
    }

    /// `tollgate serve --config FILE` under valgrind, which counts the instructions of each thread, and writes what it has counted into
    /// the folder when `callgrind_control` asks for it.
    pub fn serve_counted(config: &Path, counts: &Path) -> Self {
        let mut command = Command::new("valgrind");
        command.args(["--quiet", "--tool=callgrind", "--separate-threads=yes", "--callgrind-out-file=counts"]);
        command.args([env!("CARGO_BIN_EXE_tollgate"), "serve", "--config"]).arg(config).current_dir(counts);
        command.env_remove("TOLLGATE_LOG").env_remove("TOLLGATE_LOG_FORMAT").stdin(Stdio::null());
        let process = Self::spawn(command);
        // It takes many times as long as usual.
        let is_up = |line: &str| line.contains("the lease is held").then_some(());
        process.expect(&process.stderr, "that the lease is held", PATIENCE * 6, is_up);
        process
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Lines::read_from(child.stdout.take().unwrap());
        let stderr = Lines::read_from(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// `tollgate serve --config FILE`.
    pub fn serve(config: &Path) -> Self {
        Self::start(&["serve", "--config", config.to_str().unwrap()])
    }

    /// Where `role` (`gateway`, `control`, `health`) listens, from the log line `listening` that says so.
    pub fn listening(&self, role: &str) -> SocketAddr {
        let said = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let matches = line["message"] == "listening" && line["role"] == role;
            matches.then(|| line["address"].as_str().and_then(|at| at.parse().ok()))?
        };
        self.expect(&self.stderr, &format!("the log line that {role} is listening"), PATIENCE, said)
    }

    /// The first line of stdout.
    pub fn first_line(&self) -> String {
        self.expect(&self.stdout, "a line on stdout", PATIENCE, |line| Some(line.to_owned()))
    }

    /// The first line of the log that contains `text`, waiting for it.
    pub fn log_line(&self, text: &str) -> String {
        self.expect(&self.stderr, text, PATIENCE, |line| line.contains(text).then(|| line.to_owned()))
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.stderr.all()
    }

    /// Everything on stdout so far.
    pub fn output(&self) -> String {
        self.stdout.all()
    }

    /// Where the files are as this process sees them.
    pub fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.pid()).into()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. The process has not been waited for yet, so its id is still its own.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended(PATIENCE)
    }

    /// Waits until the process has ended by itself.
    pub fn ended(mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {within:?}; its log:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn expect<T>(&self, lines: &Lines, what: &str, within: Duration, pick: impl Fn(&str) -> Option<T>) -> T {
        lines.find(within, pick).unwrap_or_else(|| panic!("no sign of: {what}; the log:\n{}", self.log()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `tollgate demo` on free ports.
pub struct Demo {
    pub process: Process,
    pub facts: Facts,
    /// Kept until the test ends.
    pub folder: PathBuf,
    _own: Option<tempfile::TempDir>,
}

/// The one line of `tollgate demo --json` (interfaces, section 1).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    pub gateway: String,
    pub control: String,
    pub operator_token: String,
    pub account_id: String,
    pub cluster_id: String,
    pub email: String,
    pub password: String,
    pub totp_secret: String,
    pub cluster_host: String,
    /// Absent once that key is deleted.
    pub api_key: Option<String>,
    pub upstream: String,
}

impl Demo {
    /// In a new folder that goes away with the test.
    pub fn start() -> Self {
        let own = tempfile::tempdir().unwrap();
        let demo = Self::start_in(own.path(), &[]);
        Self { _own: Some(own), ..demo }
    }

    /// In this folder, which stays; for tests that start twice. `more` are further arguments.
    pub fn start_in(folder: &Path, more: &[&str]) -> Self {
        Self::start_with(folder, more, &[])
    }

    /// As [`Demo::start_in`], with environment variables besides.
    pub fn start_with(folder: &Path, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let data = folder.to_str().unwrap();
        let fixed = ["demo", "--json", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--data", data];
        let process = Process::start_with(&[&fixed[..], more].concat(), environment);
        let line = process.first_line();
        let facts = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { process, facts, folder: folder.into(), _own: None }
    }

    pub fn gateway(&self) -> SocketAddr {
        address(&self.facts.gateway)
    }

    pub fn control(&self) -> SocketAddr {
        address(&self.facts.control)
    }

    pub fn upstream(&self) -> SocketAddr {
        address(&self.facts.upstream)
    }

    /// The demo's key, while it is there.
    pub fn key(&self) -> &str {
        self.facts.api_key.as_deref().expect("the demo's key is deleted")
    }

    /// The code an authenticator app shows now.
    pub fn totp_code(&self) -> String {
        let output = run(&["totp", &self.facts.totp_secret]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// A folder with the secrets that the default configuration names, and a configuration file.
pub struct Node {
    pub folder: tempfile::TempDir,
}

/// The content of `operator.token` in a [`Node`].
pub const OPERATOR_TOKEN: &str = "operator-token-of-a-test";

impl Node {
    /// Writes `config` to the node's file.
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Self { folder };
        // 32 bytes in base64.
        let key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
        node.write("pepper", key);
        node.write("sealing.key", key);
        node.write("operator.token", OPERATOR_TOKEN);
        node.write("config.toml", config);
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// The lines of a pipe, read by a thread of their own so that the child never waits for us.
struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    ended: bool,
}

impl Lines {
    /// More than any test reads; the oldest go first.
    const MOST: usize = 100_000;

    fn read_from(pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let mut state = writer.state.lock().unwrap();
                state.lines.push_back(String::from_utf8_lossy(&line).into_owned());
                if state.lines.len() > Self::MOST {
                    state.lines.pop_front();
                }
                writer.changed.notify_all();
            }
            writer.state.lock().unwrap().ended = true;
            writer.changed.notify_all();
        });
        Self(shared)
    }

    /// What `pick` makes of the first line it takes; `None` once time is up or the pipe has ended.
    fn find<T>(&self, within: Duration, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut state = self.0.state.lock().unwrap();
        loop {
            if let Some(found) = state.lines.iter().find_map(|line| pick(line)) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    fn all(&self) -> String {
        let state = self.0.state.lock().unwrap();
        state.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}
