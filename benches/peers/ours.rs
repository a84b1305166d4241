//! The gateway under test, with the keys in it, and deletes of some of them.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::{Gateway, Operator, call};
use crate::load::HOST;
use crate::proxies::{Doors, Site};
use crate::upstream::KEY;

/// The host of the cluster whose keys are deleted.
const SPARE_HOST: &str = "spare.test";
/// How many deletes may be on their way at once.
const CLERKS: usize = 4;

pub struct Ours {
    pub gateway: Gateway,
    /// Whose keys may be deleted.
    account: String,
    /// Id and text of these keys.
    spare: Vec<(String, String)>,
}

/// Starts it and brings all keys in. With `tls` it serves TLS and nothing else, since that is a setting of all its addresses.
pub fn start(site: &Site<'_>, tls: bool) -> io::Result<(Ours, Doors)> {
    let of_meter = site.flush.map(|flush| format!("flush = {flush:?}\n")).unwrap_or_default();
    let gateway = Gateway::start(site.folder, &settings(site, tls), &of_meter)?;
    let doors = Doors { http: gateway.at, tls: tls.then_some(gateway.at), grpc: gateway.at };
    let operator = gateway.operator;
    operator.import(&operator.account_at(HOST, site.upstream)?, &site.keys.good)?;
    let mut ours = Ours { gateway, account: String::new(), spare: Vec::new() };
    if !site.keys.spare.is_empty() {
        ours.account = operator.account_at(SPARE_HOST, site.upstream)?;
        let ids = operator.import(&ours.account, &site.keys.spare)?;
        ours.spare = ids.into_iter().zip(site.keys.spare.iter().cloned()).collect();
    }
    Ok((ours, doors))
}

fn settings(site: &Site<'_>, tls: bool) -> String {
    let certificate = site.certificate;
    let tls = if tls {
        format!("tls.cert = {:?}\ntls.key = {:?}\n", certificate.chain, certificate.key)
    } else {
        String::new()
    };
    // The throttle of bad keys is off: the other proxies have none, and it would answer 429 in their place.
    format!("threads = 1\n{tls}[gateway.limits]\nfailed_auth_rate = 0\n")
}

impl Ours {
    /// Hands out so many keys for deletion, having made the gateway know them: a delete of what no gateway holds is less work.
    pub fn take_for_deletion(&mut self, count: usize) -> io::Result<Deletes> {
        let mut ids = Vec::new();
        for (id, key) in self.spare.drain(self.spare.len().saturating_sub(count)..) {
            let (status, answer) =
                call(self.gateway.at, "GET", "/v1/collections/small", &[("host", SPARE_HOST), (KEY, &key)], "")?;
            if status != 200 {
                return Err(io::Error::other(format!("a key that is to be deleted is answered {status}: {answer}")));
            }
            ids.push(id);
        }
        Ok(Deletes { operator: self.gateway.operator, account: self.account.clone(), ids })
    }
}

/// Deletes that are about to be made.
pub struct Deletes {
    operator: Operator,
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
            let (operator, account) = (self.operator, self.account.clone());
            thread::spawn(move || {
                for (at, id) in &mine {
                    let due = began + Duration::from_secs(1) * *at as u32 / per_second;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    operator.delete(&account, id)?;
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
