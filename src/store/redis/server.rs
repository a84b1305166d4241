//! A real redis-server for tests, on a port of its own, ended with the last test that holds it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

const DATABASES: u32 = 4096;

pub struct Server {
    child: Mutex<Option<Child>>,
    folder: TempDir,
    port: u16,
    databases: AtomicU32,
}

impl Server {
    /// The one that tests running at the same time share.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that follows this one.
    pub fn start_replica(&self) -> Self {
        Self::start_with(&["--replicaof".to_owned(), "127.0.0.1".to_owned(), self.port.to_string()])
    }

    fn start_with(more: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = run(folder.path(), port, more) {
                return Self { child: Mutex::new(Some(child)), folder, port, databases: AtomicU32::new(0) };
            }
        }
        panic!("redis-server did not start; is it installed?");
    }

    /// The address of an empty database.
    pub fn fresh(&self) -> String {
        let database = self.databases.fetch_add(1, Ordering::Relaxed);
        assert!(database < DATABASES, "the server has no more databases");
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// With what it has written to its disk.
    pub fn start_again(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(child) = run(self.folder.path(), self.port, &[]) {
                *self.child.lock() = Some(child);
                return;
            }
        }
        panic!("redis-server did not start again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `None` where somebody else has taken the port.
fn run(folder: &Path, port: u16, more: &[String]) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"])
        .args(["--enable-debug-command", "yes", "--port", &port.to_string(), "--databases", &DATABASES.to_string()])
        .arg("--dir")
        .arg(folder)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(child);
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
