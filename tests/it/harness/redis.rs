//! A real redis-server on a free port, killed when the test ends.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::fleet::Ground;

pub struct Redis {
    /// Absent while it is stopped.
    child: Option<Child>,
    folder: tempfile::TempDir,
    port: u16,
}

impl Redis {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = run(folder.path(), port) {
                return Self { child: Some(child), folder, port };
            }
        }
        panic!("redis-server did not start; is it installed?");
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A connection of the test's own.
    pub fn client(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// On the same port, with what it has written to its disk.
    pub fn start_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.is_none() {
            assert!(Instant::now() < deadline, "redis-server did not start again");
            self.child = run(self.folder.path(), self.port);
        }
    }
}

impl Redis {
    /// What it has written to its disk, as it is now.
    pub fn copy_of_files(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        copy
    }

    /// Puts a copy in place of what a server that is stopped has written.
    pub fn put_back(&mut self, copy: tempfile::TempDir) {
        assert!(self.child.is_none());
        self.folder = copy;
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// A store, and a ledger on a server of its own.
pub struct Apart {
    pub store: Redis,
    pub ledger: Redis,
}

impl Ground for Apart {
    fn address(&self) -> Option<SocketAddr> {
        Some(self.store.address())
    }

    fn store(&self, through: Option<SocketAddr>) -> String {
        Ground::store(&self.store, through)
    }

    fn meter(&self) -> String {
        format!("ledger_url = \"{}\"\n", self.ledger.url())
    }
}

impl Ground for Redis {
    fn address(&self) -> Option<SocketAddr> {
        Some(self.address())
    }

    fn store(&self, through: Option<SocketAddr>) -> String {
        let url = through.map_or_else(|| self.url(), |link| format!("redis://{link}"));
        format!("[store]\nkind = \"redis\"\nurl = \"{url}\"\n")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `None` where somebody else has the port.
fn run(folder: &Path, port: u16) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "everysec", "--dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(child);
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
