//! Upstream connections. Each data-plane thread has its own, so taking one is a look into a list: no lock, no wake-up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::gateway::upstream::{Outbound, Roundtrip, Wire, http1, http2};
use crate::principal::{Cluster, ClusterId, RandomAlready};
use crate::telemetry::metrics::{Metrics, UpstreamFailure};

/// Idle HTTP/1.1 connections kept per peer and thread.
const IDLE_MOST: usize = 256;
/// An idle connection is closed after this many sweeps.
const SWEEPS_MOST: u8 = 6;
pub const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How long a peer that could not be reached is passed over, doubled with each failure in a row.
const EJECTED_FIRST: Duration = Duration::from_millis(500);
const EJECTED_LONGEST: Duration = Duration::from_secs(30);

thread_local! {
    static CLUSTERS: RefCell<HashMap<ClusterId, Peers, RandomAlready>> = RefCell::default();
}

/// The peers of one cluster as one thread sees them.
struct Peers {
    version: u64,
    peers: Vec<Peer>,
    next: usize,
}

struct Peer {
    target: Arc<Target>,
    idle: Vec<Idle>,
    http2: Vec<Shared>,
    failures: u32,
    ejected_until: Option<Instant>,
}

/// Many calls at once may have it.
struct Shared {
    line: http2::Line,
    /// For how many sweeps nobody had.
    sweeps: u8,
}

struct Idle {
    line: Box<http1::Line>,
    sweeps: u8,
}

/// Where a peer is.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    tls: Option<ServerName<'static>>,
}

/// How a call is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An HTTP call: HTTP/1.1, or what TLS agrees on.
    Any,
    /// A gRPC call: HTTP/2.
    Http2,
}

/// A connection taken from the pool, for one call.
pub struct Pooled {
    place: Place,
    line: Line,
}

/// Which peer of which version of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    cluster_id: ClusterId,
    version: u64,
    peer: usize,
    tls: bool,
}

enum Line {
    Http1(Box<http1::Line>),
    Http2(http2::Line),
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the cluster has no upstream that can be used")]
    NoPeer,
    #[error("{target}: no connection within {after:?}")]
    Slow { target: String, after: Duration },
    #[error("{target}: {source}")]
    Io { target: String, source: io::Error },
    #[error("{target}: TLS: {source}")]
    Tls { target: String, source: io::Error },
    #[error("{target} does not speak HTTP/2, which gRPC needs")]
    NotHttp2 { target: String },
}

impl ConnectError {
    fn failure(&self) -> UpstreamFailure {
        match self {
            Self::NoPeer | Self::Io { .. } => UpstreamFailure::Connect,
            Self::Slow { .. } => UpstreamFailure::ConnectTimeout,
            Self::Tls { .. } | Self::NotHttp2 { .. } => UpstreamFailure::Tls,
        }
    }
}

/// What connecting needs to know.
#[derive(Clone)]
pub struct Connector {
    pub tls: Arc<rustls::ClientConfig>,
    pub patience: Duration,
    pub metrics: Arc<Metrics>,
}

/// What a look into the pool comes to.
pub enum Checkout {
    Ready(Pooled),
    Connect(Place, Arc<Target>),
}

/// Takes a connection to a peer of the cluster, or says which peer to connect to. `attempt` counts from 0; a repeated
/// attempt always connects anew.
pub fn check_out(cluster: &Cluster, wanted: Wanted, attempt: usize) -> Result<Checkout, ConnectError> {
    CLUSTERS.with_borrow_mut(|clusters| {
        let peers = match clusters.get_mut(&cluster.cluster_id) {
            Some(peers) if peers.version == cluster.version => peers,
            _ => {
                clusters.insert(cluster.cluster_id, Peers::of(cluster));
                clusters.get_mut(&cluster.cluster_id).ok_or(ConnectError::NoPeer)?
            }
        };
        let index = peers.choose().ok_or(ConnectError::NoPeer)?;
        let peer = peers.peers.get_mut(index).ok_or(ConnectError::NoPeer)?;
        let tls = peer.target.tls.is_some();
        let place = Place { cluster_id: cluster.cluster_id, version: cluster.version, peer: index, tls };
        match if attempt == 0 { peer.take(wanted) } else { None } {
            Some(line) => Ok(Checkout::Ready(Pooled { place, line })),
            None => Ok(Checkout::Connect(place, Arc::clone(&peer.target))),
        }
    })
}

/// Whether connections for many calls stand and none of them has room for another.
pub fn is_full(cluster: &Cluster) -> bool {
    CLUSTERS.with_borrow(|clusters| {
        let peers = clusters.get(&cluster.cluster_id).filter(|peers| peers.version == cluster.version);
        let mut shared = peers.into_iter().flat_map(|peers| &peers.peers).flat_map(|peer| &peer.http2);
        let stands = shared.clone().any(|shared| shared.line.stands());
        stands && !shared.any(|shared| shared.line.has_room())
    })
}

/// Runs for the life of a data-plane thread: closes what has been idle for long.
pub async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        CLUSTERS.with_borrow_mut(|clusters| {
            for peer in clusters.values_mut().flat_map(|peers| &mut peers.peers) {
                peer.sweep();
            }
        });
    }
}

impl Connector {
    /// Connects to a peer and remembers how that went.
    pub async fn connect(&self, place: Place, target: &Target, wanted: Wanted) -> Result<Pooled, ConnectError> {
        let name = || target.to_string();
        let connected = tokio::time::timeout(self.patience, self.open(target, wanted)).await;
        let connected = connected.unwrap_or_else(|_| Err(ConnectError::Slow { target: name(), after: self.patience }));
        match &connected {
            Ok(_) => {
                self.metrics.upstream_connects.inc();
                place.with_peer(Peer::reached);
            }
            Err(error) => {
                self.metrics.upstream_failures.of(&error.failure()).inc();
                self.metrics.upstream_ejections.inc();
                place.with_peer(Peer::missed);
            }
        }
        let line = connected?;
        if let Line::Http2(line) = &line {
            place.with_peer(|peer| peer.share(line.clone()));
        }
        Ok(Pooled { place, line })
    }

    async fn open(&self, target: &Target, wanted: Wanted) -> Result<Line, ConnectError> {
        let failed = |source| ConnectError::Io { target: target.to_string(), source };
        let stream = match target.host.parse::<IpAddr>() {
            Ok(address) => TcpStream::connect((address, target.port)).await,
            Err(_) => TcpStream::connect((target.host.as_str(), target.port)).await,
        };
        let stream = stream.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(server_name) = &target.tls else {
            let wire = Wire::Clear(stream);
            return Ok(match wanted {
                Wanted::Any => http1_over(wire),
                Wanted::Http2 => http2_over(wire),
            });
        };
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let failed = |source| ConnectError::Tls { target: target.to_string(), source };
        let stream = connector.connect(server_name.clone(), stream).await.map_err(failed)?;
        let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let wire = Wire::Tls(Box::new(stream));
        match wanted {
            _ if speaks_http2 => Ok(http2_over(wire)),
            Wanted::Any => Ok(http1_over(wire)),
            Wanted::Http2 => Err(ConnectError::NotHttp2 { target: target.to_string() }),
        }
    }
}

fn http1_over(wire: Wire) -> Line {
    Line::Http1(Box::new(http1::Line::new(wire)))
}

fn http2_over(wire: Wire) -> Line {
    Line::Http2(http2::Line::open(wire))
}

impl Peers {
    fn of(cluster: &Cluster) -> Self {
        let targets = cluster.upstreams.iter().filter_map(|upstream| match upstream.parse() {
            Ok(target) => Some(target),
            Err(error) => {
                tracing::error!(cluster = %cluster.cluster_id, upstream, %error, "an upstream is passed over");
                None
            }
        });
        let peers = targets.map(Peer::new).collect();
        Self { version: cluster.version, peers, next: 0 }
    }

    /// The next peer in turn, passing over the ejected; when all are, the one in turn all the same.
    fn choose(&mut self) -> Option<usize> {
        let count = self.peers.len();
        let start = self.next;
        self.next = self.next.wrapping_add(1);
        let in_turn = (0..count).map(|offset| start.wrapping_add(offset) % count);
        in_turn
            .clone()
            .find(|index| self.peers.get_mut(*index).is_some_and(Peer::is_in))
            .or_else(|| in_turn.clone().next())
    }
}

impl Peer {
    fn new(target: Target) -> Self {
        let target = Arc::new(target);
        Self { target, idle: Vec::new(), http2: Vec::new(), failures: 0, ejected_until: None }
    }

    /// Looks at the clock only while ejected.
    fn is_in(&mut self) -> bool {
        if self.ejected_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        self.ejected_until = None;
        true
    }

    fn take(&mut self, wanted: Wanted) -> Option<Line> {
        if wanted == Wanted::Http2 || self.target.tls.is_some() {
            if let Some(line) = self.shared() {
                return Some(Line::Http2(line));
            }
            if wanted == Wanted::Http2 {
                return None;
            }
        }
        // The last one given back is the likeliest to be alive and in the cache. What was closed meanwhile is dropped.
        while let Some(Idle { mut line, .. }) = self.idle.pop() {
            if line.is_idle() {
                return Some(Line::Http1(line));
            }
        }
        None
    }

    /// A connection with room for another stream. Whether it still stands is seen when the stream is begun.
    fn shared(&self) -> Option<http2::Line> {
        self.http2.iter().find(|shared| shared.line.has_room()).map(|shared| shared.line.clone())
    }

    /// Lets others have it too. Where there are very many already it is for the one call.
    fn share(&mut self, line: http2::Line) {
        if self.http2.len() < IDLE_MOST {
            self.http2.push(Shared { line, sweeps: 0 });
        }
    }

    fn reached(&mut self) {
        self.failures = 0;
        self.ejected_until = None;
    }

    fn missed(&mut self) {
        let doubled = EJECTED_FIRST.saturating_mul(1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.ejected_until = Some(Instant::now() + doubled.min(EJECTED_LONGEST));
    }

    fn sweep(&mut self) {
        self.http2.retain_mut(|Shared { line, sweeps }| {
            *sweeps = if line.is_quiet() { *sweeps + 1 } else { 0 };
            line.stands() && *sweeps < SWEEPS_MOST
        });
        self.idle.retain_mut(|idle| {
            idle.sweeps += 1;
            idle.line.is_idle() && idle.sweeps < SWEEPS_MOST
        });
    }
}

impl Place {
    /// Nothing happens where the cluster has changed since.
    fn with_peer(self, change: impl FnOnce(&mut Peer)) {
        // At the end of the thread the pool may be gone already.
        let _ = CLUSTERS.try_with(|clusters| {
            let mut clusters = clusters.try_borrow_mut().ok()?;
            let peers = clusters.get_mut(&self.cluster_id).filter(|peers| peers.version == self.version)?;
            peers.peers.get_mut(self.peer).map(change)
        });
    }

    /// The peer broke a connection before it answered: its other ones are likely to be dead as well.
    pub fn broke(self) {
        self.with_peer(|peer| {
            peer.http2.retain_mut(|shared| shared.line.stands());
            peer.idle.retain_mut(|idle| idle.line.is_idle());
        });
    }
}

impl Pooled {
    pub fn place(&self) -> Place {
        self.place
    }

    /// Begins to send the request. `now` is when.
    pub fn send(self, request: Outbound, now: Instant) -> Roundtrip {
        match self.line {
            Line::Http1(line) => Roundtrip::Http1(line.begin(request)),
            Line::Http2(line) => {
                let scheme = if self.place.tls { Scheme::HTTPS } else { Scheme::HTTP };
                Roundtrip::Http2(line.begin(request, scheme, now))
            }
        }
    }
}

impl Place {
    /// Takes back the connection of a call that is over, where it can carry another one.
    pub fn take_back(self, roundtrip: Roundtrip) {
        let Roundtrip::Http1(line) = roundtrip else { return };
        if let Some(line) = line.finish() {
            self.with_peer(|peer| {
                if peer.idle.len() < IDLE_MOST {
                    peer.idle.push(Idle { line, sweeps: 0 });
                }
            });
        }
    }
}

/// The text is not `http://host:port` or `https://host:port`.
#[derive(Debug, thiserror::Error)]
#[error("an upstream is written http://host:port or https://host:port")]
pub struct NotAnUpstream;

impl std::str::FromStr for Target {
    type Err = NotAnUpstream;

    fn from_str(text: &str) -> Result<Self, NotAnUpstream> {
        let uri: Uri = text.parse().map_err(|_| NotAnUpstream)?;
        let host = uri.host().ok_or(NotAnUpstream)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(NotAnUpstream);
        }
        let (tls, default_port) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(ServerName::try_from(host.clone()).map_err(|_| NotAnUpstream)?), 443),
            _ => return Err(NotAnUpstream),
        };
        Ok(Self { host, port: uri.port_u16().unwrap_or(default_port), tls })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: usize) -> Peers {
        let peers = (0..count).map(|at| Peer::new(format!("http://127.0.0.1:{}", at + 1).parse().unwrap())).collect();
        Peers { version: 1, peers, next: 0 }
    }

    #[test]
    fn peers_take_turns_and_an_ejected_one_is_passed_over() {
        let mut peers = peers(3);
        let turns: Vec<_> = (0..4).map(|_| peers.choose().unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0]);
        peers.peers[1].missed();
        assert!((0..6).all(|_| peers.choose() != Some(1)));
    }

    #[test]
    fn ejection_never_leaves_a_cluster_without_a_peer() {
        let mut peers = peers(2);
        peers.peers.iter_mut().for_each(Peer::missed);
        assert!(peers.choose().is_some());
        assert_eq!(Peers { version: 1, peers: Vec::new(), next: 0 }.choose(), None);
    }

    #[test]
    fn upstreams_are_urls_without_a_path() {
        let target: Target = "https://vectors.example:8443".parse().unwrap();
        assert_eq!(target.to_string(), "https://vectors.example:8443");
        assert_eq!("http://[::1]:80/".parse::<Target>().unwrap().host, "::1");
        for bad in ["vectors.example:80", "ftp://x:1", "http://x:1/path", "http://", ""] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
