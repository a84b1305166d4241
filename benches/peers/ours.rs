//! The gateway under test: the real binary, with its control plane and the embedded store, and the keys in it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};

use crate::certificate::write_private;
use crate::child::{PATIENCE, Running};
use crate::load::HOST;
use crate::proxies::{Doors, Site};
use crate::upstream::KEY;

pub const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");
/// How the names of its data-plane threads begin.
pub const DATA_PLANE: &str = "gateway-";

const TOKEN: &str = "operator-token-of-a-benchmark";
/// 32 bytes in base64, for secrets that guard nothing.
const SECRET: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
/// The host of the cluster whose keys are deleted.
const SPARE_HOST: &str = "spare.test";
/// Keys brought in by one call.
const BATCH: usize = 1000;
/// How many deletes may be on their way at once.
const CLERKS: usize = 4;

pub struct Ours {
    /// Dropped first, so that its files are there until it has ended.
    pub process: Running,
    control: SocketAddr,
    gateway: SocketAddr,
    /// Whose keys may be deleted.
    account: String,
    /// Id and text of these keys.
    spare: Vec<(String, String)>,
    _folders: (tempfile::TempDir, Option<tempfile::TempDir>),
}

/// Starts it and brings all keys in. With `tls` it serves TLS and nothing else, since that is a setting of all its addresses.
pub fn start(site: &Site<'_>, tls: bool) -> io::Result<(Ours, Doors)> {
    // Its own for each start, since its store lasts.
    let data = tempfile::tempdir_in(site.folder)?;
    let folder = data.path();
    // Where it has its counters by default, but gone afterwards.
    let slab = tempfile::Builder::new().prefix("tollgate-peers-").tempdir_in("/dev/shm").ok();
    let config = write_config(folder, site, slab.as_ref().map(|slab| slab.path()), tls)?;
    let mut command = Command::new(BINARY);
    command.args(["serve", "--config"]).arg(config).env_remove("TOLLGATE_LOG").env_remove("TOLLGATE_LOG_FORMAT");
    let mut process = Running::start(&mut command, &folder.join("log"))?;
    let gateway = process.says(|log| listening(log, "gateway"))?;
    let control = process.says(|log| listening(log, "control"))?;
    let mut ours =
        Ours { process, control, gateway, account: String::new(), spare: Vec::new(), _folders: (data, slab) };
    ours.seed(site)?;
    let doors = Doors { http: gateway, tls: tls.then_some(gateway), grpc: gateway };
    Ok((ours, doors))
}

fn write_config(folder: &Path, site: &Site<'_>, slab: Option<&Path>, tls: bool) -> io::Result<PathBuf> {
    for (name, content) in [("pepper", SECRET), ("sealing.key", SECRET), ("operator.token", TOKEN)] {
        write_private(&folder.join(name), content)?;
    }
    let certificate = site.certificate;
    let tls = if tls {
        format!("tls.cert = {:?}\ntls.key = {:?}\n", certificate.chain, certificate.key)
    } else {
        String::new()
    };
    let slab = slab.map(|slab| format!("slab_dir = {slab:?}\n")).unwrap_or_default();
    // The throttle of bad keys is off: the other proxies have none, and it would answer 429 in their place.
    let text = format!(
        "[gateway]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\n{tls}[gateway.limits]\nfailed_auth_rate = 0\n\
         [control]\nlisten = \"127.0.0.1:0\"\n[keys]\nactive_max = 10000\ndaily_max = 1000000\n[meter]\n{slab}"
    );
    let path = folder.join("config.toml");
    fs::write(&path, text)?;
    Ok(path)
}

/// From the log line that says so.
fn listening(log: &str, role: &str) -> Option<SocketAddr> {
    log.lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let matches = line["message"] == "listening" && line["role"] == role;
        matches.then(|| line["address"].as_str()?.parse().ok())?
    })
}

impl Ours {
    fn seed(&mut self, site: &Site<'_>) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while call(self.control, "GET", "/readyz", &[], "")?.0 != 200 {
            if Instant::now() > deadline {
                return Err(io::Error::other("it does not become ready"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let account = self.account_at(HOST, site.upstream)?;
        self.import(&account, &site.keys.good)?;
        if !site.keys.spare.is_empty() {
            self.account = self.account_at(SPARE_HOST, site.upstream)?;
            let ids = self.import(&self.account, &site.keys.spare)?;
            self.spare = ids.into_iter().zip(site.keys.spare.iter().cloned()).collect();
        }
        Ok(())
    }

    /// A new account with a cluster of this host.
    fn account_at(&self, host: &str, upstream: SocketAddr) -> io::Result<String> {
        let owner =
            json!({"email": format!("owner@{host}"), "password": "a password of the benchmark", "verified": true});
        let account = text(&self.operator("/v1/accounts", &owner)?, "account_id");
        let cluster = json!({"hosts": [host], "upstreams": [format!("http://{upstream}")], "allow_ips": []});
        self.operator(&format!("/v1/accounts/{account}/clusters"), &cluster)?;
        Ok(account)
    }

    fn import(&self, account: &str, keys: &[String]) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for batch in keys.chunks(BATCH) {
            let batch: Vec<_> = batch.iter().map(|key| json!({"key": key})).collect();
            let target = format!("/v1/accounts/{account}/keys/import?wait=10s");
            let imported = self.operator(&target, &json!({"keys": batch}))?;
            ids.extend(imported["keys"].as_array().into_iter().flatten().map(|key| text(key, "id")));
        }
        Ok(ids)
    }

    fn operator(&self, target: &str, body: &Value) -> io::Result<Value> {
        let (status, answer) = api(self.control, "POST", target, body)?;
        if !matches!(status, 200 | 201) {
            return Err(io::Error::other(format!("{target}: {status} {answer}")));
        }
        serde_json::from_str(&answer).map_err(io::Error::other)
    }

    /// Hands out so many keys for deletion, having made the gateway know them: a delete of what no gateway holds is less work.
    pub fn take_for_deletion(&mut self, count: usize) -> io::Result<Deletes> {
        let mut ids = Vec::new();
        for (id, key) in self.spare.drain(self.spare.len().saturating_sub(count)..) {
            let (status, answer) =
                call(self.gateway, "GET", "/v1/collections/small", &[("host", SPARE_HOST), (KEY, &key)], "")?;
            if status != 200 {
                return Err(io::Error::other(format!("a key that is to be deleted is answered {status}: {answer}")));
            }
            ids.push(id);
        }
        Ok(Deletes { control: self.control, account: self.account.clone(), ids })
    }
}

/// Deletes that are about to be made.
pub struct Deletes {
    control: SocketAddr,
    account: String,
    ids: Vec<String>,
}

/// Deletes that are being made.
pub struct Deleting {
    began: Instant,
    clerks: Vec<thread::JoinHandle<io::Result<usize>>>,
}

/// Deletes that were made.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Deleted {
    pub keys: usize,
    pub per_second: f64,
}

impl Deletes {
    /// So many per second, at even distances, each confirmed by the gateway.
    pub fn start(self, per_second: u32) -> Deleting {
        let began = Instant::now();
        let clerks = (0..CLERKS).map(|clerk| {
            let mine: Vec<_> =
                self.ids.iter().enumerate().skip(clerk).step_by(CLERKS).map(|(at, id)| (at, id.clone())).collect();
            let (control, account) = (self.control, self.account.clone());
            thread::spawn(move || {
                for (at, id) in &mine {
                    let due = began + Duration::from_secs(1) * *at as u32 / per_second;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let target = format!("/v1/accounts/{account}/keys/{id}?wait=10s");
                    let (status, answer) = api(control, "DELETE", &target, &json!({"reason": "a benchmark"}))?;
                    if status != 200 {
                        return Err(io::Error::other(format!("a delete was answered {status}: {answer}")));
                    }
                }
                Ok(mine.len())
            })
        });
        Deleting { began, clerks: clerks.collect() }
    }
}

impl Deleting {
    /// Waits for the last one.
    pub fn finish(self) -> io::Result<Deleted> {
        let ends = self.clerks.into_iter();
        let ends = ends.map(|clerk| clerk.join().map_err(|_| io::Error::other("a clerk panicked"))?);
        let keys = ends.sum::<io::Result<usize>>()?;
        Ok(Deleted { keys, per_second: keys as f64 / self.began.elapsed().as_secs_f64() })
    }
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_default().to_owned()
}

fn api(at: SocketAddr, method: &str, target: &str, body: &Value) -> io::Result<(u16, String)> {
    let token = format!("Bearer {TOKEN}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    call(at, method, target, &headers, &body.to_string())
}

/// One call on a connection of its own; status and body.
fn call(at: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> io::Result<(u16, String)> {
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
