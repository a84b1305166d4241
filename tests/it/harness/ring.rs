//! A Redis cluster of three masters, each with a replica: real servers on free ports, killed when the test ends.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::group::{Server, ask, start};

const SERVERS: usize = 6;

pub struct Ring {
    folder: tempfile::TempDir,
    servers: Vec<Server>,
}

impl Ring {
    pub fn start() -> Self {
        let mut ring = Self { folder: tempfile::tempdir().unwrap(), servers: Vec::new() };
        for number in 0..SERVERS {
            let folder = ring.folder.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            let options =
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--save", "", "--appendonly", "yes"];
            let more = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
            ring.servers.push(start(&folder, &[&options[..], &more].concat(), |_| {}));
        }
        let addresses = ring.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        ring.until("the cluster is whole", |ring| {
            ring.servers.iter().all(|server| ask(server.port, &["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        });
        ring.until("each master has its replica", |ring| {
            let masters = ring.servers.iter().filter(|server| ask(server.port, &["ROLE"]).starts_with("master"));
            masters.clone().count() == 3 && masters.clone().all(|server| ask(server.port, &["WAIT", "1", "100"]) == "1")
        });
        ring
    }

    /// The address of a server that does not have the store.
    pub fn url(&self) -> String {
        let owner = self.owner();
        let other = self.servers.iter().find(|server| server.port != owner).unwrap();
        format!("redis://127.0.0.1:{}", other.port)
    }

    /// SIGKILL of the server that has the store.
    pub fn kill_owner(&mut self) {
        let owner = self.owner();
        self.servers.iter_mut().find(|server| server.port == owner).unwrap().end();
    }

    /// The port of the master that has the slot of `{tg}`.
    pub fn owner(&self) -> u16 {
        self.servers
            .iter()
            .filter(|server| server.is_up())
            .find(|server| {
                let asked = ask(server.port, &["GET", "{tg}:nothing"]);
                !asked.contains("MOVED")
                    && !asked.contains("CLUSTERDOWN")
                    && ask(server.port, &["ROLE"]).starts_with("master")
            })
            .map_or(0, |server| server.port)
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}
