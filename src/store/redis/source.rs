//! Where the master is: at the address that is configured; where the sentinels say it is, each time a connection is made; or, in a
//! cluster, where its servers say that the store's one slot is.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisError, ServerErrorKind, Value,
};

use super::lane::{ANSWER, CONNECT};
use crate::store::StoreError;

/// Of a sentinel, to be connected and to answer: a silent one must not keep us from asking the next.
const SENTINEL: Duration = Duration::from_millis(400);

/// The sentinels that are asked for the master, as the configuration names them.
#[derive(Clone, Debug)]
pub struct Sentinels {
    /// What they call the master.
    pub master: String,
    /// `host:port`, or an address with user and password.
    pub nodes: Vec<SentinelNode>,
}

/// Where a sentinel is, perhaps with a password. Never printed.
#[derive(Clone)]
pub struct SentinelNode(pub String);

impl std::fmt::Debug for SentinelNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SentinelNode(…)")
    }
}

/// Makes connections to the master.
#[derive(Clone)]
pub struct Source {
    info: ConnectionInfo,
    sentinels: Option<Asked>,
    /// Shared by all connections: what one was told the others know.
    cluster: Arc<Mutex<Cluster>>,
}

/// Host and port.
type Address = (String, u16);

/// What is known of a cluster; nothing where the server is alone.
#[derive(Default)]
struct Cluster {
    /// Who has the store's slot, as last told.
    owner: Option<Address>,
    /// Who may be asked when neither it nor the configured address answers.
    others: Vec<Address>,
    asked: usize,
}

#[derive(Clone)]
struct Asked {
    master: String,
    nodes: Vec<Client>,
}

impl Source {
    /// `url` says how to come to the master: TLS, user, password, number of the database; and where it is, unless there are sentinels.
    pub fn new(url: &str, sentinels: Option<&Sentinels>) -> Result<Self, StoreError> {
        let info = url.into_connection_info().map_err(bad)?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self { info, sentinels: sentinels.map(Asked::of).transpose()?, cluster: Arc::default() })
    }

    /// The same for connections over which messages may come at any time.
    pub fn for_messages(&self) -> Self {
        let settings = self.info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Self {
            info: self.info.clone().set_redis_settings(settings),
            sentinels: self.sentinels.clone(),
            cluster: Arc::clone(&self.cluster),
        }
    }

    /// A connection to the master.
    pub async fn connect(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, RedisError> {
        let Some(sentinels) = &self.sentinels else {
            return self.connect_directly(config).await;
        };
        let (host, port) = sentinels.master_address().await?;
        let at = Client::open(self.info.clone().set_addr(moved(self.info.addr(), host, port)))?;
        let mut connection = at.get_multiplexed_async_connection_with_config(config).await?;
        // Until the sentinels agree, one may still name a server that is none any longer.
        let role = redis::cmd("ROLE").query_async::<Value>(&mut connection).await?;
        if is_master(&role) { Ok(connection) } else { Err(refused("the sentinels name a server that is no master")) }
    }

    async fn connect_directly(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, RedisError> {
        let address = self.cluster.lock().next();
        let info = match &address {
            Some((host, port)) => self.info.clone().set_addr(moved(self.info.addr(), host.clone(), *port)),
            None => self.info.clone(),
        };
        let connected = Client::open(info)?.get_multiplexed_async_connection_with_config(config).await;
        match connected {
            Ok(mut connection) => {
                if address.is_some() {
                    let slots = redis::cmd("CLUSTER").arg("SLOTS").query_async::<Value>(&mut connection).await?;
                    self.cluster.lock().others = servers(&slots);
                }
                Ok(connection)
            }
            Err(error) => {
                self.cluster.lock().is_not_there(address);
                Err(error)
            }
        }
    }

    /// Whether the error says that the store's slot is elsewhere; then the next connection is made there.
    pub fn follows(&self, error: &RedisError) -> bool {
        if error.kind() != ErrorKind::Server(ServerErrorKind::Moved) {
            return false;
        }
        let address = error.redirect_node().and_then(|(address, _)| address.rsplit_once(':'));
        let Some((host, Ok(port))) = address.map(|(host, port)| (host, port.parse::<u16>())) else {
            return false;
        };
        self.cluster.lock().owner = Some((host.to_owned(), port));
        true
    }
}

impl Cluster {
    /// Whom to connect to; `None` is the configured address.
    fn next(&self) -> Option<Address> {
        self.owner.clone().or_else(|| match self.asked % (self.others.len() + 1) {
            0 => None,
            other => self.others.get(other - 1).cloned(),
        })
    }

    fn is_not_there(&mut self, address: Option<Address>) {
        if address.is_some() && self.owner == address {
            self.owner = None;
        } else {
            self.asked = self.asked.wrapping_add(1);
        }
    }
}

/// Every server in an answer to CLUSTER SLOTS: for each range its ends, then servers as address, port and more.
fn servers(slots: &Value) -> Vec<Address> {
    let parts = |value: &Value| match value {
        Value::Array(parts) => parts.clone(),
        _ => Vec::new(),
    };
    let server = |value: Value| match parts(&value).as_slice() {
        [Value::BulkString(host), Value::Int(port), ..] if !host.is_empty() => {
            Some((String::from_utf8(host.clone()).ok()?, u16::try_from(*port).ok()?))
        }
        _ => None,
    };
    let mut servers: Vec<_> =
        parts(slots).iter().flat_map(|range| parts(range).into_iter().skip(2).filter_map(server)).collect();
    servers.sort();
    servers.dedup();
    servers
}

impl Asked {
    fn of(sentinels: &Sentinels) -> Result<Self, StoreError> {
        let node = |node: &SentinelNode| {
            let url = if node.0.contains("://") { node.0.clone() } else { format!("redis://{}", node.0) };
            Client::open(url).map_err(bad)
        };
        Ok(Self {
            master: sentinels.master.clone(),
            nodes: sentinels.nodes.iter().map(node).collect::<Result<_, _>>()?,
        })
    }

    /// From the first sentinel that knows one.
    async fn master_address(&self) -> Result<(String, u16), RedisError> {
        let mut last = refused("no sentinel is configured");
        for node in &self.nodes {
            match self.ask(node).await {
                Ok(Some(address)) => return Ok(address),
                Ok(None) => last = refused("a sentinel does not know a master of this name"),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, node: &Client) -> Result<Option<(String, u16)>, RedisError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(SENTINEL)).set_response_timeout(Some(SENTINEL));
        let mut connection = node.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master).query_async(&mut connection).await
    }
}

/// What a connection for calls may take.
pub fn patience() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER))
}

/// Reached in the same way, but elsewhere.
fn moved(from: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    match from {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}

fn is_master(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    matches!(parts.first(), Some(Value::BulkString(name)) if name == b"master")
}

fn refused(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, why))
}

fn bad(error: RedisError) -> StoreError {
    StoreError::Away(format!("the address of redis: {error}"))
}
