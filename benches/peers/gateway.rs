//! The real binary, with its control plane and the embedded store, and what the operator asks of it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};

use crate::child::{PATIENCE, Running};
use crate::private::write_private;

pub const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");
/// How the names of its data-plane threads begin.
pub const DATA_PLANE: &str = "gateway-";

const TOKEN: &str = "operator-token-of-a-benchmark";
/// 32 bytes in base64, for secrets that guard nothing.
const SECRET: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
/// Keys brought in by one call.
const BATCH: usize = 1000;

pub struct Gateway {
    /// Dropped first, so that its files are there until it has ended.
    pub process: Running,
    /// Where it takes calls.
    pub at: SocketAddr,
    pub operator: Operator,
    _folders: (tempfile::TempDir, Option<tempfile::TempDir>),
}

impl Gateway {
    /// Starts it with these settings of `[gateway]` and what is below it, and with these of `[meter]`, and waits until it is ready. Its data
    /// is in a folder of its own below this one, since its store lasts.
    pub fn start(below: &Path, settings: &str, of_meter: &str) -> io::Result<Self> {
        let data = tempfile::tempdir_in(below)?;
        let folder = data.path();
        // Where it has its counters by default, but gone afterwards.
        let slab = tempfile::Builder::new().prefix("tollgate-bench-").tempdir_in("/dev/shm").ok();
        for (name, content) in [("pepper", SECRET), ("sealing.key", SECRET), ("operator.token", TOKEN)] {
            write_private(&folder.join(name), content)?;
        }
        let meter = slab.as_ref().map(|slab| format!("slab_dir = {:?}\n", slab.path())).unwrap_or_default();
        let text = format!(
            "[gateway]\nlisten = [\"127.0.0.1:0\"]\n{settings}\
             [control]\nlisten = \"127.0.0.1:0\"\n[keys]\nactive_max = 10000\ndaily_max = 1000000\n[meter]\n{of_meter}{meter}"
        );
        let config = folder.join("config.toml");
        fs::write(&config, text)?;
        let mut command = Command::new(BINARY);
        command.args(["serve", "--config"]).arg(config).env_remove("TOLLGATE_LOG").env_remove("TOLLGATE_LOG_FORMAT");
        let mut process = Running::start(&mut command, &folder.join("log"))?;
        let at = process.says(|log| listening(log, "gateway"))?;
        let operator = Operator(process.says(|log| listening(log, "control"))?);
        operator.wait_until_ready()?;
        Ok(Self { process, at, operator, _folders: (data, slab) })
    }
}

/// From the log line that says so.
fn listening(log: &str, role: &str) -> Option<SocketAddr> {
    log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let matches = line["message"] == "listening" && line["role"] == role;
        matches.then(|| line["address"].as_str()?.parse().ok())?
    })
}

/// Asks at the control plane that is there.
#[derive(Clone, Copy)]
pub struct Operator(pub SocketAddr);

impl Operator {
    fn wait_until_ready(self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while call(self.0, "GET", "/readyz", &[], "")?.0 != 200 {
            if Instant::now() > deadline {
                return Err(io::Error::other("it does not become ready"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A new account with a cluster of this host.
    pub fn account_at(self, host: &str, upstream: SocketAddr) -> io::Result<String> {
        let owner =
            json!({"email": format!("owner@{host}"), "password": "a password of the benchmark", "verified": true});
        let account = text(&self.post("/v1/accounts", &owner)?, "account_id");
        let cluster = json!({"hosts": [host], "upstreams": [format!("http://{upstream}")], "allow_ips": []});
        self.post(&format!("/v1/accounts/{account}/clusters"), &cluster)?;
        Ok(account)
    }

    /// Brings keys in, and says their ids.
    pub fn import(self, account: &str, keys: &[String]) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for batch in keys.chunks(BATCH) {
            let batch: Vec<_> = batch.iter().map(|key| json!({"key": key})).collect();
            let target = format!("/v1/accounts/{account}/keys/import?wait=10s");
            let imported = self.post(&target, &json!({"keys": batch}))?;
            ids.extend(imported["keys"].as_array().into_iter().flatten().map(|key| text(key, "id")));
        }
        Ok(ids)
    }

    /// Deletes a key; the gateway has confirmed it then.
    pub fn delete(self, account: &str, id: &str) -> io::Result<()> {
        let target = format!("/v1/accounts/{account}/keys/{id}?wait=10s");
        let (status, answer) = self.ask("DELETE", &target, &json!({"reason": "a benchmark"}))?;
        if status != 200 {
            return Err(io::Error::other(format!("a delete was answered {status}: {answer}")));
        }
        Ok(())
    }

    fn post(self, target: &str, body: &Value) -> io::Result<Value> {
        let (status, answer) = self.ask("POST", target, body)?;
        if !matches!(status, 200 | 201) {
            return Err(io::Error::other(format!("{target}: {status} {answer}")));
        }
        serde_json::from_str(&answer).map_err(io::Error::other)
    }

    fn ask(self, method: &str, target: &str, body: &Value) -> io::Result<(u16, String)> {
        let token = format!("Bearer {TOKEN}");
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        call(self.0, method, target, &headers, &body.to_string())
    }
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_default().to_owned()
}

/// One call on a connection of its own; status and body.
pub fn call(
    at: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if headers.iter().all(|(name, _)| *name != "host") {
        request += &format!("host: {at}\r\n");
    }
    request.extend(headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
    stream.write_all(format!("{request}\r\n{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = crate::http1::status(head.as_bytes()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}
