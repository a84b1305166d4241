//! Every key of the configuration file once: its path, its type, its default and what it is for. Reading a file, its
//! defaults and the documented default file all follow from this table, so that they cannot drift apart.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::written::{Name, Size, StoreName, UtcOffset};
use super::{HttpDenials, RedisUrl, SentinelUrl};

/// One line of the table, without its type.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The key's path from the root of the file, with dots.
    pub path: &'static str,
    pub written: Written,
    /// The least and the greatest value allowed, as TOML.
    pub range: Option<(&'static str, &'static str)>,
    /// One or two sentences for the one who writes the file.
    pub doc: &'static str,
}

/// What stands for a key that the file does not show, as TOML.
#[derive(Clone, Copy, Debug)]
pub enum Written {
    Default(&'static str),
    /// No default: an example of what could stand there.
    Example(&'static str),
}

impl Written {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Default(text) | Self::Example(text) => text,
        }
    }
}

/// A key that always has a value.
pub struct Defaulted<T>(pub Row, PhantomData<fn() -> T>);

/// A key that may be left out.
pub struct Optional<T>(pub Row, PhantomData<fn() -> T>);

/// The tables of the file, in the order they are printed.
pub const SECTIONS: &[(&str, &str)] = &[
    ("gateway", "The data plane. Leave it out on a node with only the control plane."),
    ("gateway.limits", "Deadlines, sizes and caps of the data plane."),
    ("control", "The control plane: API and console. Leave it out on a node that is only a gateway."),
    ("health", "/livez, /readyz and /metrics, open to everyone who reaches the address."),
    ("store", "What is written down and shared."),
    ("secrets", "Files that hold 32 random bytes in base64 and that only Tollgate's user may read."),
    ("meter", "Where usage is counted and flushed from."),
    ("keys", "The limits of API keys per account; the operator can set others for one account."),
];

macro_rules! settings {
    (@type default $type:ty) => { Defaulted<$type> };
    (@type example $type:ty) => { Optional<$type> };
    (@make default $row:expr) => { Defaulted($row, PhantomData) };
    (@make example $row:expr) => { Optional($row, PhantomData) };
    (@written default $text:tt) => { Written::Default(stringify!($text)) };
    (@written example $text:tt) => { Written::Example(stringify!($text)) };
    (@range) => { None };
    (@range $low:tt $high:tt) => { Some((stringify!($low), stringify!($high))) };
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $path:literal, $kind:ident $text:tt $(from $low:tt to $high:tt)?;)+) => {
        $($(#[doc = $doc])+ pub const $name: settings!(@type $kind $type) = settings!(@make $kind Row {
            path: $path,
            written: settings!(@written $kind $text),
            range: settings!(@range $($low $high)?),
            doc: concat!($($doc),+),
        });)+

        /// The whole table, in the order it is printed.
        pub const ALL: &[Row] = &[$($name.0),+];
    };
}

settings! {
    /// Addresses the gateway listens on; port 0 takes a free one.
    GATEWAY_LISTEN: Vec<SocketAddr> = "gateway.listen", default ["127.0.0.1:8080"];
    /// The certificate chain (PEM) for TLS on these addresses. Cleartext without it.
    GATEWAY_TLS_CERT: PathBuf = "gateway.tls.cert", example "gateway.crt";
    /// The private key (PEM) of that certificate.
    GATEWAY_TLS_KEY: PathBuf = "gateway.tls.key", example "gateway.key";
    /// Threads of the data plane. 0: one per core.
    THREADS: usize = "gateway.threads", default 0 from 0 to 1024;
    /// The cluster (its id, or one of its hosts) for calls to an IP address or to localhost.
    DEFAULT_CLUSTER: Name = "gateway.default_cluster", example "cluster.example.com";
    /// How HTTP calls are denied: "status" with a status code, "in_body" with HTTP 200 and the code in the body, the only text the Python SDK shows over HTTP.
    HTTP_DENIALS: HttpDenials = "gateway.http_denials", default "status";
    /// Whether calls from browsers are let through. API keys are for servers only.
    ALLOW_BROWSER: bool = "gateway.allow_browser", default false;
    /// Whether calls are passed on that cannot be counted now, for want of room for usage counters. Nobody is billed for them; a metric counts them.
    SERVE_UNMETERED: bool = "gateway.serve_unmetered", default false;
    /// Networks whose X-Forwarded-For is believed, for allow-lists and the audit log.
    TRUSTED_PROXIES: Vec<IpNet> = "gateway.trusted_proxies", default [];
    /// gRPC services whose methods are known by name; calls to others are counted as the operation "other".
    GRPC_SERVICES: Vec<Name> = "gateway.grpc_services",
        default ["proxima.dashvector.proto.DashVectorService", "com.aliyun.dashvector.proto.DashVectorService"];

    /// Size of all header fields of a request.
    HEADER_BYTES: Size = "gateway.limits.header_bytes", default "32KiB" from "8KiB" to "1MiB";
    /// Number of header fields of a request.
    HEADER_FIELDS: usize = "gateway.limits.header_fields", default 100 from 10 to 10000;
    /// Length of a request's path and query.
    URI_BYTES: Size = "gateway.limits.uri_bytes", default "8KiB" from "256B" to "1MiB";
    /// Time from the start of a connection to its first byte.
    FIRST_BYTE: Duration = "gateway.limits.first_byte", default "5s" from "100ms" to "10m";
    /// Time from the first byte of a request to the end of its header.
    WHOLE_HEADER: Duration = "gateway.limits.whole_header", default "10s" from "100ms" to "10m";
    /// Time a connection may stand still between calls; the DashVector SDK pings every 60 s.
    IDLE: Duration = "gateway.limits.idle", default "75s" from "1s" to "24h";
    /// Time for a TLS handshake.
    TLS_HANDSHAKE: Duration = "gateway.limits.tls_handshake", default "5s" from "100ms" to "10m";
    /// Size of a request body over HTTP.
    HTTP_BODY_BYTES: Size = "gateway.limits.http_body_bytes", default "16MiB" from "1KiB" to "64GiB";
    /// Size of a request message over gRPC.
    GRPC_MESSAGE_BYTES: Size = "gateway.limits.grpc_message_bytes", default "128MiB" from "1KiB" to "4GiB";
    /// Size of the header fields of an answer toward the client.
    RESPONSE_HEADER_BYTES: Size = "gateway.limits.response_header_bytes", default "16KiB" from "1KiB" to "1MiB";
    /// Bytes per second below which a request body is cut. 0: never.
    SLOW_BODY_RATE: Size = "gateway.limits.slow_body_rate", default 100 from 0 to "1GiB";
    /// How long a request body may be slow before it is cut.
    SLOW_BODY_AFTER: Duration = "gateway.limits.slow_body_after", default "10s" from "100ms" to "1h";
    /// Calls at once on one HTTP/2 connection.
    H2_STREAMS: u32 = "gateway.limits.h2_streams", default 100 from 1 to 10000;
    /// HTTP/2 flow-control window of one call.
    H2_STREAM_WINDOW: Size = "gateway.limits.h2_stream_window", default "64KiB" from "16KiB" to "1GiB";
    /// HTTP/2 flow-control window of one connection.
    H2_CONNECTION_WINDOW: Size = "gateway.limits.h2_connection_window", default "1MiB" from "64KiB" to "1GiB";
    /// Connections at once from one address.
    CONNECTIONS_PER_ADDRESS: usize = "gateway.limits.connections_per_address", default 512 from 1 to 1000000;
    /// Connections at once in all. 0: as many as the file limit of the process leaves room for.
    CONNECTIONS: usize = "gateway.limits.connections", default 0 from 0 to 10000000;
    /// Time to connect to a vector service.
    UPSTREAM_CONNECT: Duration = "gateway.limits.upstream_connect", default "2s" from "10ms" to "10m";
    /// Time from sending a call on to the first byte of its answer.
    UPSTREAM_FIRST_BYTE: Duration = "gateway.limits.upstream_first_byte", default "60s" from "10ms" to "24h";
    /// Time for a whole call.
    TOTAL: Duration = "gateway.limits.total", default "300s" from "10ms" to "24h";
    /// How long a denied request is read on, so that its answer is not lost to a reset.
    DENIAL_READ_ON: Duration = "gateway.limits.denial_read_on", default "1s" from "0s" to "1m";
    /// How far a denied request is read on.
    DENIAL_READ_ON_BYTES: Size = "gateway.limits.denial_read_on_bytes", default "16MiB" from 0 to "1GiB";
    /// How long a call is read on for its usage once its client has gone, or its time is over.
    ABANDONED_DRAIN: Duration = "gateway.limits.abandoned_drain", default "10s" from "0s" to "10m";
    /// How many such calls are read on at once, of each kind.
    ABANDONED_CALLS: usize = "gateway.limits.abandoned_calls", default 1024 from 0 to 1000000;
    /// How long a graceful stop waits for calls in flight.
    SHUTDOWN: Duration = "gateway.limits.shutdown", default "10s" from "0s" to "1h";
    /// Bad keys per second from one address (IPv6: one /64); more are answered 429 until there are fewer. Good keys are not held up, and those not known yet are looked up. 0: no limit.
    FAILED_AUTH_RATE: u32 = "gateway.limits.failed_auth_rate", default 100 from 0 to 1000000;
    /// Bad keys from one address that may come at once where failed_auth_rate is set.
    FAILED_AUTH_BURST: u32 = "gateway.limits.failed_auth_burst", default 1000 from 1 to 10000000;
    /// The time, and up to twice as much, between two answers to bad keys on a connection that has shown 32 of them and no good key, or none and whose address is over failed_auth_rate. 0s: none.
    FAILED_AUTH_DELAY: Duration = "gateway.limits.failed_auth_delay", default "50ms" from "0s" to "1s";
    /// Calls in flight in the whole gateway; more are answered 503 and told to come again. 0: no limit.
    CALLS: usize = "gateway.limits.calls", default 0 from 0 to 10000000;
    /// Calls in flight per account. 0: no limit.
    ACCOUNT_CONCURRENCY: u32 = "gateway.limits.account_concurrency", default 0 from 0 to 1000000;
    /// Calls per second per account. 0: no limit.
    ACCOUNT_RATE: u32 = "gateway.limits.account_rate", default 0 from 0 to 10000000;
    /// Calls of one account that may come at once where account_rate is set.
    ACCOUNT_BURST: u32 = "gateway.limits.account_burst", default 100 from 1 to 10000000;

    /// The address of the API and the console; port 0 takes a free one.
    CONTROL_LISTEN: SocketAddr = "control.listen", default "127.0.0.1:8081";
    /// The certificate chain (PEM) for TLS on this address. Cleartext without it.
    CONTROL_TLS_CERT: PathBuf = "control.tls.cert", example "control.crt";
    /// The private key (PEM) of that certificate.
    CONTROL_TLS_KEY: PathBuf = "control.tls.key", example "control.key";
    /// The name of this control plane among its peers. The host name where left out.
    CONTROL_ID: Name = "control.id", example "control-1";
    /// Names of the other control planes.
    CONTROL_PEERS: Vec<Name> = "control.peers", default [];
    /// How clients reach a cluster, as the API and the console show it: {host} is its first host name, {gateway} where this node's gateway listens.
    ENDPOINT: Name = "control.endpoint", default "https://{host}";
    /// A file with the operator's token: 16 to 256 visible ASCII characters.
    OPERATOR_TOKEN_FILE: PathBuf = "control.operator_token_file", default "operator.token";
    /// A file with a token that may only read usage.
    BILLING_TOKEN_FILE: PathBuf = "control.billing_token_file", example "billing.token";

    /// An address of its own for health and metrics. The control listener where left out; needed without [control].
    HEALTH_LISTEN: SocketAddr = "health.listen", example "127.0.0.1:9091";

    /// The kind of store: "embedded", one file and one process; or "redis", which many gateways and control planes share.
    STORE_KIND: StoreName = "store.kind", default "embedded";
    /// The file of the embedded store.
    STORE_PATH: PathBuf = "store.path", default "tollgate.redb";
    /// Where Redis is, for kind = "redis": redis://user:password@host:port/database, or rediss:// for TLS.
    STORE_URL: RedisUrl = "store.url", example "redis://127.0.0.1:6379";
    /// The name by which sentinels know the master. They are asked where it is; store.url says how to come to it, and its host and port are not used.
    SENTINEL_MASTER: Name = "store.sentinel.master", example "tollgate";
    /// The sentinels, each as host:port, or as redis://user:password@host:port.
    SENTINEL_NODES: Vec<SentinelUrl> = "store.sentinel.nodes", default [];
    /// Replicas of Redis that must have a change before it is answered as done. 0: the master is enough.
    STORE_REPLICAS: usize = "store.replicas", default 0 from 0 to 16;
    /// How long a gateway cut off from the store goes on serving known keys, and how long a delete waits for a silent gateway at most.
    LEASE: Duration = "store.lease", default "5s" from "1s" to "60s";

    /// The pepper of the key digests.
    PEPPER_FILE: PathBuf = "secrets.pepper_file", default "pepper";
    /// While the pepper is rotated: the one before it. Keys digested with it go on working and are digested anew.
    PREVIOUS_PEPPER_FILE: PathBuf = "secrets.previous_pepper_file", example "pepper.before";
    /// The key that API keys are sealed with for View; only the control plane needs it.
    SEALING_KEY_FILE: PathBuf = "secrets.sealing_key_file", default "sealing.key";
    /// While the sealing key is rotated: the one before it. What was sealed with it is sealed anew.
    PREVIOUS_SEALING_KEY_FILE: PathBuf = "secrets.previous_sealing_key_file", example "sealing.key.before";

    /// The folder of the spool and of the journal.
    METER_DIR: PathBuf = "meter.dir", default "meter";
    /// The folder of the counters. /dev/shm/tollgate-<uid>/<store id> where left out and that is a tmpfs with room, else meter.dir.
    SLAB_DIR: PathBuf = "meter.slab_dir", example "/dev/shm/tollgate";
    /// The folder to which a control plane writes hours that are final. The folder archive in meter.dir where left out. Once it is named, old hours leave the ledger for it.
    ARCHIVE: PathBuf = "meter.archive", example "archive";
    /// A Redis of its own for usage, with kind = "redis": written as store.url. Usage is kept in the store where left out. All nodes name the same.
    LEDGER_URL: RedisUrl = "meter.ledger_url", example "redis://127.0.0.1:6380";
    /// The name by which sentinels know the master of the ledger, as in store.sentinel.
    LEDGER_SENTINEL_MASTER: Name = "meter.ledger_sentinel.master", example "tollgate-ledger";
    /// The sentinels of the ledger.
    LEDGER_SENTINEL_NODES: Vec<SentinelUrl> = "meter.ledger_sentinel.nodes", default [];
    /// How long an hour stays in the ledger, where meter.archive is named. Gateways send usage again that is up to 48 hours old.
    RETENTION: Duration = "meter.retention", default "168h" from "50h" to "87600h";
    /// The longest time between two flushes of usage to the ledger; while few lines change a fifth of it, a second at most and a quarter of one at least. At most this much is lost with the power.
    FLUSH: Duration = "meter.flush", default "5s" from "10ms" to "60s";

    /// Keys an account may have at once.
    ACTIVE_MAX: u32 = "keys.active_max", default 3 from 1 to 10000;
    /// Keys an account may create per day; a delete gives nothing back.
    DAILY_MAX: u32 = "keys.daily_max", default 10 from 1 to 1000000;
    /// The UTC offset in which that day begins.
    DAY_OFFSET: UtcOffset = "keys.day_offset", default "+08:00";
}
