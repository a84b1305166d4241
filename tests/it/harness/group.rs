//! A primary with replicas, and sentinels that look after them: real servers on free ports, killed when the test ends.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;
use super::fleet::Ground;

const REPLICAS: usize = 2;
const SENTINELS: usize = 3;
/// What the sentinels call the primary.
pub const MASTER: &str = "tollgate";

pub struct Group {
    folder: tempfile::TempDir,
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    /// Replicas without which a primary takes no writes, and for which changes wait.
    needed: usize,
}

pub struct Server {
    pub port: u16,
    child: Option<Child>,
}

impl Group {
    /// One primary, two replicas that follow it, three sentinels of which two must agree.
    pub fn start() -> Self {
        Self::with(0)
    }

    /// The same, and no server takes a write without so many replicas.
    pub fn with(needed: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut group = Self { folder, servers: Vec::new(), sentinels: Vec::new(), needed };
        group.server(&[]);
        let primary = group.servers[0].port.to_string();
        for _ in 0..REPLICAS {
            group.server(&["--replicaof", "127.0.0.1", &primary]);
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

    /// What the primary gets no replica gets any longer. One that is refused PSYNC asks for SYNC.
    pub fn cut_replication(&self) {
        // On a busy machine sentinels may find that a primary is gone which is not, and make another one.
        self.until("no replica is there", |group| {
            let primary = group.present();
            group.says(primary, &["ACL", "SETUSER", "default", "-sync", "-psync", "-replconf"]);
            group.says(primary, &["CLIENT", "KILL", "TYPE", "replica"]);
            group.says(primary, &["WAIT", "1", "20"]) == "0"
        });
    }

    /// SIGKILL; which server it was.
    pub fn kill_primary(&mut self) -> usize {
        let primary = self.present();
        self.servers[primary].end();
        primary
    }

    /// SIGSTOP; which server it was.
    pub fn stop_primary(&self) -> usize {
        let primary = self.present();
        self.servers[primary].signal(Signal::STOP);
        primary
    }

    /// SIGCONT, to a server that has not heard that another one is the primary now.
    pub fn continue_server(&self, server: usize) {
        self.servers[server].signal(Signal::CONT);
    }

    /// On the same port, with what it has written to its disk.
    pub fn start_again(&mut self, server: usize) {
        let folder = self.folder.path().join(format!("server-{server}"));
        let port = self.servers[server].port;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut again = start_at(port, &folder, &self.options(&[]));
            if is_there(&mut again) {
                self.servers[server] = again;
                return;
            }
            assert!(Instant::now() < deadline, "redis-server did not start again");
        }
    }

    /// Waits until the sentinels have agreed on another primary than this server, and it says so itself.
    pub fn await_another_primary(&self, than: usize) {
        self.until("another server is the primary", |group| {
            let primary = group.present();
            primary != than && group.says(primary, &["ROLE"]).starts_with("master")
        });
    }

    /// The sentinels make another server the primary, and the old one goes on for some seconds; which server that was.
    pub fn fail_over(&self) -> usize {
        let old = self.present();
        assert_eq!(ask(self.sentinels[0].port, &["SENTINEL", "FAILOVER", MASTER]), "OK");
        self.await_another_primary(old);
        old
    }

    /// Ends the oldest connection of a process of the fleet to a server.
    pub fn end_oldest_client(&self, server: usize) {
        let clients = self.says(server, &["CLIENT", "LIST", "TYPE", "NORMAL"]);
        let oldest = clients.lines().find(|client| client.contains("cmd=evalsha"));
        let id =
            oldest.and_then(|client| client.split_whitespace().next()?.strip_prefix("id=")).expect("it has clients");
        assert_eq!(self.says(server, &["CLIENT", "KILL", "ID", id]), "1");
    }

    /// Ends all connections to a server, as sentinels do with one that is to follow another.
    pub fn end_clients(&self, server: usize) {
        self.says(server, &["CLIENT", "KILL", "TYPE", "normal"]);
        self.says(server, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    }

    /// Tells a server to follow the present primary, as the sentinels do after a while, and waits until all do.
    pub fn follow(&self, server: usize) {
        let primary = self.present();
        let port = self.servers[primary].port.to_string();
        self.until("it follows", |group| group.says(server, &["REPLICAOF", "127.0.0.1", &port]).contains("OK"));
        let all = (self.servers.len() - 1).to_string();
        self.until("all follow", |group| group.says(primary, &["WAIT", &all, "100"]) == all);
    }

    /// Which server the sentinels call the primary.
    fn present(&self) -> usize {
        let port = self.primary();
        self.servers.iter().position(|server| server.port.to_string() == port).expect("the sentinels know a primary")
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
        let options = self.options(more);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        self.servers.push(start(&folder, &options, |_| {}));
    }

    fn options(&self, more: &[&str]) -> Vec<String> {
        let needed = self.needed.to_string();
        let fixed =
            ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--repl-ping-replica-period", "1"];
        // Otherwise a primary without replicas forgets its history, and they begin anew.
        let kept = ["--repl-backlog-ttl", "0", "--repl-diskless-sync-delay", "0"];
        let strict = ["--min-replicas-to-write", &needed, "--min-replicas-max-lag", "1"];
        [&fixed[..], &kept, &strict, more].concat().into_iter().map(str::to_owned).collect()
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

impl Ground for Group {
    /// There are several.
    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn store(&self, _: Option<SocketAddr>) -> String {
        format!("{}replicas = {}\n", self.config(), self.needed)
    }
}

impl Server {
    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().expect("the server is up").id();
        kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
    }

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
        let mut server = start_at(port, folder, arguments);
        if is_there(&mut server) {
            return server;
        }
    }
    panic!("redis-server did not start; is it installed?");
}

fn start_at<T: AsRef<str>>(port: u16, folder: &Path, arguments: &[T]) -> Server {
    // A sentinel's file stands first, before the options.
    let files = arguments.iter().take_while(|argument| !argument.as_ref().starts_with("--")).count();
    let (file, options) = arguments.split_at(files);
    let child = Command::new("redis-server")
        .args(file.iter().map(AsRef::as_ref))
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(folder)
        .args(options.iter().map(AsRef::as_ref))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    Server { port, child: Some(child) }
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
