//! What every measurement needs: the vector service, the gateway, an account with keys, and the calls with each of them.

use std::io;

use crate::child::Running;
use crate::gateway::{Gateway, call};
use crate::keys::Keys;
use crate::load::{Ask, Calls, HOST};
use crate::measure::resident;
use crate::upstream::Size;

/// A call whose answer is small and is read for units.
const ASK: Ask = Ask { size: Size::Small, has_units: true, wrong: 0 };

pub struct Stand {
    pub gateway: Gateway,
    pub account: String,
    /// The calls with key `n` are number `n`, also of keys that are not there yet.
    pub http: Calls,
    pub grpc: Calls,
    _service: Running,
    _folder: tempfile::TempDir,
}

impl Stand {
    /// The gateway has these settings of `[gateway]` and what is below it, and knows the first `known` of the keys.
    pub fn start(settings: &str, keys: Vec<String>, known: usize) -> io::Result<Self> {
        let (folder, (service, at)) = (tempfile::tempdir()?, Running::part(&["upstream"])?);
        let gateway = Gateway::start(folder.path(), settings, "")?;
        let account = gateway.operator.account_at(HOST, at[0])?;
        gateway.operator.import(&account, &keys[..known])?;
        let keys = Keys { good: keys, wrong: Vec::new(), spare: Vec::new() };
        let (http, grpc) = (Calls::http(&keys, ASK), Calls::grpc(&keys, ASK));
        Ok(Self { gateway, account, http, grpc, _service: service, _folder: folder })
    }

    /// The gateway's resident memory in bytes: its own, and what it has mapped of files.
    pub fn resident(&self) -> u64 {
        resident(self.gateway.process.pid())
    }

    /// How many connections the gateway says it has.
    pub fn open_connections(&self) -> io::Result<usize> {
        let (_, metrics) = call(self.gateway.operator.0, "GET", "/metrics", &[], "")?;
        let mut lines = metrics.lines().filter_map(|line| line.strip_prefix("tollgate_connections_open "));
        let open = lines.next().and_then(|value| value.parse().ok());
        open.ok_or_else(|| io::Error::other("it does not say how many connections it has"))
    }
}

pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
