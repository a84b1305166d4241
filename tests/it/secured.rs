//! A Redis that speaks TLS only, with a user who may do no more than Tollgate needs.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::office::Office;
use crate::harness::process::{Node, OPERATOR_TOKEN, Process};
use crate::harness::raw;
use crate::harness::stage::{FETCH, fill, serve_sample};

/// As docs/operations.md has it.
const MAY: &str = "~{tg}:* &{tg}:* -@all +@connection +@scripting +@hash +@sortedset +@string +@list +@set +@keyspace +@pubsub \
                   -keys -flushall -flushdb +info +role +wait +config|get +config|set";

struct Secured {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Secured {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("cert"), certified.cert.pem()).unwrap();
        fs::write(folder.path().join("key"), certified.signing_key.serialize_pem()).unwrap();
        let users = format!("user default off\nuser tollgate on >secret {MAY}\n");
        fs::write(folder.path().join("users"), users).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--tls-auth-clients", "no"])
            .args([
                "--tls-cert-file",
                "cert",
                "--tls-key-file",
                "key",
                "--tls-ca-cert-file",
                "cert",
                "--aclfile",
                "users",
            ])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let secured = Self { child, folder, port };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server did not start; was it built with TLS?");
            thread::sleep(Duration::from_millis(10));
        }
        secured
    }

    /// A node whose trust and whose `store.url` are right, or wrong.
    fn node(&self, of: &str, user: &str, trusts: bool) -> (Node, Process) {
        let node = Node::new(&format!(
            "{of}[store]\nkind = \"redis\"\nurl = \"rediss://{user}@localhost:{}\"\nlease = \"2s\"\n[meter]\nslab_dir = \"slab\"\n",
            self.port
        ));
        let trusted = if trusts { self.folder.path().join("cert") } else { "/dev/null".into() };
        let process = Process::start_with(
            &["serve", "--config", node.config().to_str().unwrap()],
            &[("SSL_CERT_FILE", trusted.to_str().unwrap())],
        );
        (node, process)
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONTROL: &str = "[control]\nlisten = \"127.0.0.1:0\"\nid = \"control-1\"\n";
const GATEWAY: &str = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\ndefault_cluster = \"stage.test\"\n[health]\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn everything_works_over_tls_for_a_user_who_may_do_no_more_than_is_needed() {
    let redis = Secured::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (sample, upstream) = runtime.block_on(serve_sample());
    fill(&sample);
    let (_control, control) = redis.node(CONTROL, "tollgate:secret", true);
    let office = Office::seed(control.listening("control"), upstream);
    let (_gateway, gateway) = redis.node(GATEWAY, "tollgate:secret", true);
    let at = gateway.listening("gateway");
    let status = |key: &str| raw::call(at, "GET", FETCH, &[("dashvector-auth-token", key)], b"").status;
    let (id, key) = office.create();
    let deadline = Instant::now() + PATIENCE;
    while status(&key) != 200 {
        assert!(Instant::now() < deadline, "{}", gateway.log());
        thread::sleep(Duration::from_millis(20));
    }
    let (deleted, receipt) = office.delete(&id, "5s");
    assert_eq!(deleted, 200, "{receipt}");
    assert_eq!(status(&key), 401);
    let gateways = raw::api(office.control, "GET", "/v1/gateways", OPERATOR_TOKEN, &json!(null));
    assert_eq!(gateways.json().as_array().unwrap().len(), 1, "{}", gateways.text());
    for log in [control.log(), gateway.log()] {
        assert!(!log.contains("NOPERM") && !log.contains("secret"), "{log}");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_and_a_wrong_password_are_told_and_never_shown() {
    let redis = Secured::start();
    for (user, trusts, says) in [("tollgate:secret", false, "ertificate"), ("tollgate:wrong-one", true, "redis")] {
        let (_node, process) = redis.node(CONTROL, user, trusts);
        let line = process.log_line("the store is not there yet");
        assert!(line.contains(says), "{line}");
        assert!(!process.log().contains(user.split(':').nth(1).unwrap()), "{}", process.log());
        process.kill();
    }
}
