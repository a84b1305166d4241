//! A real Prometheus, and a relay between it and what it scrapes: the address stays while the node behind it starts again on
//! another port, and what both said is seen.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::PATIENCE;
use super::raw;

/// Killed when the test ends.
pub struct Prometheus {
    child: Child,
    at: SocketAddr,
}

impl Prometheus {
    /// With this configuration, a folder of its own for what it keeps, and further arguments.
    pub fn start(config: &Path, data: &Path, more: &[&str]) -> Self {
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={at}"))
            .args(more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{error}; is prometheus installed?"));
        let prometheus = Self { child, at };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(at).is_err() {
            assert!(Instant::now() < deadline, "prometheus did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        prometheus
    }

    /// The answer of its API.
    pub fn get(&self, target: &str) -> Value {
        let answer = raw::call(self.at, "GET", target, &[], b"");
        // It listens before it is ready.
        if answer.status == 503 { Value::Null } else { answer.json() }
    }

    /// The series that a query gives now.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/query?query={}", utf8_percent_encode(query, NON_ALPHANUMERIC)));
        assert!(answer.is_null() || answer["status"] == "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The one number that a query gives, as Prometheus writes it; None where it gives nothing.
    #[track_caller]
    pub fn number(&self, query: &str) -> Option<String> {
        let mut series = self.query(query);
        assert!(series.len() < 2, "{query}: {series:?}");
        series.pop().map(|series| series["value"][1].as_str().unwrap().to_owned())
    }

    /// Nothing is scraped until [`Self::go_on`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes GET requests on, one at a time.
pub struct Relay {
    pub at: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Where to; None cuts every connection.
    to: Mutex<Option<SocketAddr>>,
    exchanges: Mutex<Vec<Exchange>>,
    stop: AtomicBool,
}

/// What was asked and answered.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub target: String,
    pub accept: String,
    pub content_type: String,
}

impl Relay {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if serving.stop.load(Ordering::Relaxed) {
                    return;
                }
                // Either side may be gone at any time.
                let _ = serving.pass(connection);
            }
        });
        Self { at, shared, thread: Some(thread) }
    }

    pub fn lead_to(&self, to: Option<SocketAddr>) {
        *self.shared.to.lock() = to;
    }

    /// Those so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.at));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn pass(&self, mut from: TcpStream) -> std::io::Result<()> {
        from.set_read_timeout(Some(PATIENCE))?;
        let mut lines = BufReader::new(from.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let target = first.split(' ').nth(1).unwrap_or("/").to_owned();
        let mut headers = Vec::new();
        while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let Some(to) = *self.to.lock() else { return Ok(()) };
        // A node that is just being killed must not end this thread.
        TcpStream::connect(to)?;
        let header = |name: &str| headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
        let passed = [("accept", header("accept")), ("authorization", header("authorization"))];
        let mut node = raw::Raw::connect(to);
        node.try_send(&raw::request(to, "GET", &target, &passed, b""))?;
        let answer = node.try_answer(PATIENCE)?;
        let content_type = answer.header("content-type").unwrap_or_default().to_owned();
        let (status, length) = (answer.status, answer.body.len());
        let head = format!(
            "HTTP/1.1 {status} \r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        self.exchanges.lock().push(Exchange { target, accept: header("accept").to_owned(), content_type });
        from.write_all(&[head.as_bytes(), &answer.body].concat())
    }
}
