//! A primary with replicas, and sentinels that look after them: real servers on free ports, killed when the test ends.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::PATIENCE;

const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
/// What the sentinels call the primary.
pub const MASTER: &str = "tollgate";

pub struct Group {
    folder: tempfile::TempDir,
    servers: Vec<Server>,
    sentinels: Vec<Server>,
}

pub struct Server {
    pub port: u16,
    child: Option<Child>,
}

impl Group {
    /// One primary, two replicas that follow it, three sentinels of which two must agree.
    pub fn start() -> Self {
        let mut group = Self { folder: tempfile::tempdir().unwrap(), servers: Vec::new(), sentinels: Vec::new() };
        group.server(&[]);
        let primary = group.servers[0].port.to_string();
        for _ in 0..REPLICAS {
            group.server(&["--replicaof", "127.0.0.1", &primary, "--repl-diskless-sync-delay", "0"]);
        }
        group.until("the replicas follow", |group| group.says(0, &["WAIT", "2", "100"]) == "2");
        for _ in 0..SENTINELS {
            group.sentinel(&primary);
        }
        group.until("the sentinels know each other and the replicas", Self::is_looked_after);
        group
    }

    /// What a node's `[store]` says.
    pub fn config(&self) -> String {
        let nodes: Vec<_> = self.sentinels.iter().map(|node| format!("\"127.0.0.1:{}\"", node.port)).collect();
        format!(
            "[store]\nkind = \"redis\"\nurl = \"redis://unused\"\nsentinel = {{ master = \"{MASTER}\", nodes = [{}] }}\n",
            nodes.join(", ")
        )
    }

    /// What the primary gets no replica gets any longer.
    pub fn cut_replication(&self) {
        assert_eq!(self.says(0, &["ACL", "SETUSER", "default", "-psync", "-replconf"]), "OK");
        self.says(0, &["CLIENT", "KILL", "TYPE", "replica"]);
        self.until("no replica is there", |group| group.says(0, &["WAIT", "1", "20"]) == "0");
    }

    /// SIGKILL.
    pub fn kill_primary(&mut self) {
        self.servers[0].end();
    }

    /// The port of the server that the sentinels call the primary.
    pub fn primary(&self) -> String {
        let port = self.sentinels[0].port;
        let answer = ask(port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        answer.lines().last().unwrap_or_default().to_owned()
    }

    fn says(&self, server: usize, words: &[&str]) -> String {
        ask(self.servers[server].port, words)
    }

    fn is_looked_after(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let told = ask(sentinel.port, &["INFO", "sentinel"]);
            told.contains(&format!("status=ok,address=127.0.0.1:{}", self.servers[0].port))
                && told.contains(&format!("slaves={REPLICAS},sentinels={SENTINELS}"))
        })
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn server(&mut self, more: &[&str]) {
        let folder = self.folder.path().join(format!("server-{}", self.servers.len()));
        fs::create_dir(&folder).unwrap();
        let mut fixed =
            vec!["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--repl-ping-replica-period", "1"];
        fixed.extend(more);
        self.servers.push(start(&folder, &fixed, |_| {}));
    }

    fn sentinel(&mut self, primary: &str) {
        let folder = self.folder.path().join(format!("sentinel-{}", self.sentinels.len()));
        fs::create_dir(&folder).unwrap();
        let watched = format!(
            "sentinel monitor {MASTER} 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 4000\n"
        );
        let config = folder.join("sentinel.conf");
        let write = |_| fs::write(&config, &watched).unwrap();
        let file = config.to_str().unwrap().to_owned();
        self.sentinels.push(start(&folder, &[&file, "--sentinel"], write));
    }
}

impl Server {
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// On a free port. `prepare` writes what the server reads first.
pub fn start(folder: &Path, arguments: &[&str], prepare: impl Fn(u16)) -> Server {
    for _ in 0..20 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        prepare(port);
        // A sentinel's file stands first, before the options.
        let (file, options) = match arguments {
            [file, options @ ..] if !file.starts_with("--") => (Some(*file), options),
            options => (None, options),
        };
        let child = Command::new("redis-server")
            .args(file)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
            .arg(folder)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let mut server = Server { port, child: Some(child) };
        if is_there(&mut server) {
            return server;
        }
    }
    panic!("redis-server did not start; is it installed?");
}

/// False where somebody else has the port.
fn is_there(server: &mut Server) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let child = server.child.as_mut().unwrap();
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", server.port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

/// What `redis-cli` prints.
pub fn ask(port: u16, words: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
