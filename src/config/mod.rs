//! The configuration as meant: everything present, checked and resolved. [`settings`] is the table of its keys, and
//! [`file`] reads it as written.

mod check;
mod file;
mod mistakes;
pub mod print;
pub mod secret;
pub mod settings;
mod unknown;
pub mod written;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use mistakes::{Mistake, Mistakes};

/// What one node is told to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Absent on a node with only the control plane.
    pub gateway: Option<GatewayConfig>,
    /// Absent on a node that is only a gateway.
    pub control: Option<ControlConfig>,
    pub health: HealthConfig,
    pub store: StoreConfig,
    pub secrets: SecretsConfig,
    pub meter: MeterConfig,
    pub keys: KeysConfig,
}

#[derive(Clone, Debug)]
pub struct GatewayConfig {
    pub listen: Vec<SocketAddr>,
    pub tls: Option<TlsConfig>,
    /// Data-plane threads, at least 1.
    pub threads: usize,
    /// The cluster for authorities that are an IP literal or `localhost`: an id, or a host of it.
    pub default_cluster: Option<String>,
    pub http_denials: HttpDenials,
    pub allow_browser: bool,
    /// Whether calls are passed on that cannot be counted.
    pub serve_unmetered: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The gRPC service prefixes whose methods are routed by name.
    pub grpc_services: Vec<String>,
    pub limits: LimitsConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpDenials {
    /// The status of the table, with a JSON body.
    Status,
    /// HTTP 200 with the code in the body.
    InBody,
}

#[derive(Clone, Debug)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Deadlines, sizes and caps of the data plane (design, section 7).
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    pub header_bytes: usize,
    pub header_fields: usize,
    pub uri_bytes: usize,
    pub first_byte: Duration,
    pub whole_header: Duration,
    pub idle: Duration,
    pub tls_handshake: Duration,
    pub http_body_bytes: u64,
    pub grpc_message_bytes: u64,
    /// Header list toward clients.
    pub response_header_bytes: usize,
    /// Bytes per second below which a body is cut, after `slow_body_after`.
    pub slow_body_rate: u64,
    pub slow_body_after: Duration,
    pub h2_streams: u32,
    pub h2_stream_window: u32,
    pub h2_connection_window: u32,
    pub connections_per_address: usize,
    /// 0: below the file limit of the process.
    pub connections: usize,
    pub upstream_connect: Duration,
    pub upstream_first_byte: Duration,
    pub total: Duration,
    /// How long and how far an early denial reads on, so that its answer is not lost to a reset.
    pub denial_read_on: Duration,
    pub denial_read_on_bytes: u64,
    /// How long a call is read on for its usage without its client.
    pub abandoned_drain: Duration,
    /// How many such calls are read on at once.
    pub abandoned_calls: usize,
    /// How long a graceful stop waits for calls in flight.
    pub shutdown: Duration,
    /// Bad keys per second from one address; 0: no limit.
    pub failed_auth_rate: u32,
    /// Bad keys from one address that may come at once when `failed_auth_rate` is set.
    pub failed_auth_burst: u32,
    /// How long an answer to a bad key is held back on a connection that shows no good one.
    pub failed_auth_delay: Duration,
    /// Calls in flight in the whole gateway; 0: no limit.
    pub calls: usize,
    /// Calls in flight per account; 0: no limit.
    pub account_concurrency: u32,
    /// Calls per second per account; 0: no limit.
    pub account_rate: u32,
    /// Calls that may come at once when `account_rate` is set.
    pub account_burst: u32,
}

#[derive(Clone, Debug)]
pub struct ControlConfig {
    pub listen: SocketAddr,
    pub tls: Option<TlsConfig>,
    pub id: String,
    pub peers: Vec<String>,
    /// With `{host}` or `{gateway}` in it.
    pub endpoint: String,
    pub operator_token_file: PathBuf,
    pub billing_token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
pub struct HealthConfig {
    /// Absent: on the control listener.
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub kind: StoreKind,
    /// Proposed to the store; the store's value is the one in force.
    pub lease: Duration,
}

#[derive(Clone, Debug)]
pub enum StoreKind {
    Embedded { path: PathBuf },
    Redis(RedisConfig),
}

#[derive(Clone, Debug)]
pub struct RedisConfig {
    pub url: RedisUrl,
    pub sentinel: Option<SentinelConfig>,
    /// Replicas that must have a change before it is answered.
    pub replicas: usize,
}

/// Who is asked where the master is.
#[derive(Clone, Debug)]
pub struct SentinelConfig {
    /// What they call it.
    pub master: String,
    /// One at least.
    pub nodes: Vec<SentinelUrl>,
}

/// Where a sentinel is, perhaps with a password. Never printed.
#[derive(Clone, PartialEq, Eq, PartialOrd)]
pub struct SentinelUrl(pub String);

impl fmt::Debug for SentinelUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentinelUrl(…)")
    }
}

/// Where Redis is, perhaps with a password. Never printed.
#[derive(Clone, PartialEq, Eq, PartialOrd)]
pub struct RedisUrl(pub String);

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl(…)")
    }
}

#[derive(Clone, Debug)]
pub struct SecretsConfig {
    pub pepper_file: PathBuf,
    /// Named while the pepper is rotated.
    pub previous_pepper_file: Option<PathBuf>,
    /// Needed where there is a control plane.
    pub sealing_key_file: PathBuf,
    /// Named while the sealing key is rotated.
    pub previous_sealing_key_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct MeterConfig {
    /// Spool and journal.
    pub dir: PathBuf,
    /// Absent: `/dev/shm/tollgate-<uid>/<store id>` where that is a tmpfs with room, else `dir` with a warning.
    pub slab_dir: Option<PathBuf>,
    /// Of hours that are final.
    pub archive: PathBuf,
    /// Absent: usage is kept in the store.
    pub ledger: Option<LedgerConfig>,
    /// How long such an hour stays in the ledger too. Absent, which is for ever, where nobody has said where the archive is.
    pub retention: Option<Duration>,
    pub flush: Duration,
}

/// A ledger on a server of its own.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    pub url: RedisUrl,
    pub sentinel: Option<SentinelConfig>,
}

#[derive(Clone, Copy, Debug)]
pub struct KeysConfig {
    pub active_max: u32,
    pub daily_max: u32,
    /// Seconds east of UTC: where the day of `daily_max` begins.
    pub day_offset: i32,
}
