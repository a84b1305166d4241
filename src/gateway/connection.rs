//! One downstream connection: TLS, protocol choice, serving, drain.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::LimitsConfig;
use crate::gateway::Gateway;
use crate::gateway::downstream::{ClientBody, Service, http1, http2};
use crate::gateway::guard::{Activity, Cut, Deadlines, Guard, InCall};
use crate::gateway::http2::{Error, PREFACE};
use crate::gateway::leaving::{Leaving, Left};
use crate::gateway::message::{Answer, RequestHead};
use crate::limits::ShownKeys;
use crate::telemetry::metrics::ConnectionEnd;
use crate::verdict::Denial;

/// What one read takes in while the protocol is chosen: usually a whole request.
const FIRST_READ: usize = 4096;
/// How long a stop waits for a call on a connection that it found open without one: the client may not know yet.
const LAST_CALL: Duration = Duration::from_millis(250);
/// How long a connection on which nothing happens may take to end once it was told to.
const PARTING: Duration = Duration::from_secs(3);

/// How connections are served; made once.
pub struct Protocols {
    http1: http1::Bounds,
    http2: http2::Bounds,
    deadlines: Deadlines,
    tls: Option<TlsAcceptor>,
}

/// Facts of a connection that its calls need.
pub struct Connection {
    pub address: IpAddr,
    pub shown_keys: ShownKeys,
    activity: Arc<Activity>,
}

impl Connection {
    /// Whether it ends with the calls that it has.
    pub fn is_closing(&self) -> bool {
        self.activity.is_closing()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// What is known of a connection before its first byte.
enum Agreed {
    /// In clear.
    Nothing,
    /// Under TLS, whose bytes are counted as they leave.
    Under(Protocol, Left),
}

impl Protocols {
    pub fn new(limits: &LimitsConfig, tls: Option<TlsAcceptor>) -> Self {
        let deadlines = Deadlines {
            whole_header: limits.whole_header,
            idle: limits.idle,
            slow_rate: limits.slow_body_rate,
            slow_after: limits.slow_body_after,
        };
        Self { http1: http1_bounds(limits), http2: http2::Bounds::new(limits), deadlines, tls }
    }
}

/// Twice our own limits, so that a head a little above them still gets our answer as a request.
fn http1_bounds(limits: &LimitsConfig) -> http1::Bounds {
    http1::Bounds {
        fields: limits.header_fields.saturating_mul(2),
        bytes: limits.header_bytes.saturating_mul(2).max(64 * 1024),
    }
}

/// Serves one connection until it ends, or until `stop` and the calls on it have ended.
pub async fn serve(gateway: Arc<Gateway>, stream: TcpStream, address: IpAddr, stop: watch::Receiver<bool>) {
    let served = match &gateway.protocols.tls {
        None => serve_stream(Arc::clone(&gateway), stream, Agreed::Nothing, address, stop).await,
        // Boxed, as is HTTP/2 below: a connection in clear over HTTP/1.1, of which there may be very many, has no room for it.
        Some(tls) => Box::pin(serve_tls(Arc::clone(&gateway), tls, stream, address, stop)).await,
    };
    if let Err(error) = served {
        if let Some(Cut(end)) = cut_of(&*error) {
            gateway.metrics.connections_rejected.of(end).inc();
        }
        tracing::debug!(%address, error, "a connection ended early");
    }
}

async fn serve_tls(
    gateway: Arc<Gateway>,
    tls: &TlsAcceptor,
    stream: TcpStream,
    address: IpAddr,
    stop: watch::Receiver<bool>,
) -> Ended {
    let (stream, left) = Leaving::new(stream);
    let handshake = tls.accept(stream);
    match tokio::time::timeout(gateway.config.limits.tls_handshake, handshake).await {
        Ok(Ok(stream)) => {
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let protocol = if is_h2 { Protocol::Http2 } else { Protocol::Http1 };
            serve_stream(gateway, stream, Agreed::Under(protocol, left), address, stop).await
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "a TLS handshake failed");
            Err(Cut(ConnectionEnd::TlsHandshake).into())
        }
        Err(_) => Err(Cut(ConnectionEnd::TlsHandshake).into()),
    }
}

/// The reason where we cut the connection: said as it is, or in the error of a read.
fn cut_of<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Cut> {
    error.downcast_ref::<Cut>().or_else(|| error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref())
}

/// Answers what one connection asks.
struct Calls {
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
}

impl Service for Calls {
    /// Boxed: it is large, and whoever holds it moves it about before it is first polled.
    type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn call(&self, head: RequestHead, body: ClientBody) -> Self::Call {
        let (gateway, connection) = (Arc::clone(&self.gateway), Arc::clone(&self.connection));
        let in_call = InCall::begin(&connection.activity);
        // Written where it is to be, and not moved there: most of its two thousand bytes are room for later.
        let call = Box::write(Box::new_uninit(), gateway.call(connection, in_call, head, body));
        Box::into_pin(call)
    }

    fn refuse(&self, denial: Denial) -> Answer {
        self.gateway.refuse(&self.connection, InCall::begin(&self.connection.activity), denial)
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn serve_stream<S>(
    gateway: Arc<Gateway>,
    mut stream: S,
    agreed: Agreed,
    address: IpAddr,
    mut stop: watch::Receiver<bool>,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (agreed, left) = match agreed {
        Agreed::Nothing => (None, None),
        Agreed::Under(protocol, left) => (Some(protocol), Some(left)),
    };
    let chosen = tokio::select! {
        chosen = choose(&gateway.config.limits, &mut stream, agreed) => chosen?,
        () = last_call(&mut stop) => return Ok(()),
    };
    let Some((protocol, early)) = chosen else {
        return Ok(());
    };
    let activity = Arc::new(Activity::default());
    let connection =
        Arc::new(Connection { address, shown_keys: ShownKeys::default(), activity: Arc::clone(&activity) });
    let protocols = Arc::clone(&gateway.protocols);
    let is_h2 = protocol == Protocol::Http2;
    let guard = Guard::new(stream, early, Arc::clone(&activity), protocols.deadlines, is_h2).counting(left);
    let calls = Calls { gateway, connection };
    let ended = match protocol {
        Protocol::Http1 => {
            let serving = std::pin::pin!(http1::Serving::new(guard, calls, protocols.http1));
            until_stopped(serving, &activity, stop, LAST_CALL, http1::Serving::close).await.map_err(Into::into)
        }
        Protocol::Http2 => {
            let mut serving = Box::pin(http2::Serving::new(guard, calls, &protocols.http2));
            let ended = until_stopped(serving.as_mut(), &activity, stop, Duration::ZERO, http2::Serving::close).await;
            ended.map_err(|error| match error {
                Error::Late => Cut(ConnectionEnd::WholeHeader).into(),
                error if error.is_flood() => Cut(ConnectionEnd::Flood).into(),
                error => error.into(),
            })
        }
    };
    match activity.cut() {
        Some(cut) => Err(cut.into()),
        None => ended,
    }
}

/// Serves until the connection ends by itself. Once stopped, a call that is on the way has `last_call` to come in, and
/// its answer says `connection: close`; then what is in flight ends, over HTTP/2 after a GOAWAY in two steps.
async fn until_stopped<C, E>(
    mut serving: Pin<&mut C>,
    activity: &Activity,
    mut stop: watch::Receiver<bool>,
    last_call: Duration,
    goodbye: fn(Pin<&mut C>),
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    tokio::select! {
        ended = serving.as_mut() => return ended,
        _ = stop.wait_for(|stop| *stop) => activity.close(),
    }
    if let Ok(ended) = tokio::time::timeout(last_call, serving.as_mut()).await {
        return ended;
    }
    goodbye(serving.as_mut());
    loop {
        // A head that never ends, or a client that does not answer the GOAWAY, is not waited for.
        let begun = activity.begun();
        match tokio::time::timeout(PARTING, serving.as_mut()).await {
            Ok(ended) => return ended,
            Err(_) if activity.is_quiet() && activity.begun() == begun => return Ok(()),
            Err(_) => {}
        }
    }
}

/// A connection that was just made when the stop came has a call on the way, which is still served.
async fn last_call(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
    tokio::time::sleep(LAST_CALL).await;
}

/// Reads the first bytes and says what they are; they are handed to the guard. `None`: the client went away.
async fn choose<S: AsyncRead + Unpin>(
    limits: &LimitsConfig,
    stream: &mut S,
    agreed: Option<Protocol>,
) -> io::Result<Option<(Protocol, Bytes)>> {
    let mut early = Bytes::new();
    let (mut patience, mut end) = (limits.first_byte, ConnectionEnd::FirstByte);
    loop {
        let read = poll_fn(|cx| poll_some(stream, cx));
        let read = tokio::time::timeout(patience, read).await.map_err(|_| Cut(end))??;
        if read.is_empty() {
            return Ok(None);
        }
        early = if early.is_empty() { read } else { [early, read].concat().into() };
        let compared = early.len().min(PREFACE.len());
        let is_preface = early.get(..compared) == PREFACE.get(..compared);
        match agreed {
            // Over TLS the protocol was agreed; the preface is checked where frames are read.
            Some(protocol) => return Ok(Some((protocol, early))),
            None if !is_preface => return Ok(Some((Protocol::Http1, early))),
            None if compared == PREFACE.len() => return Ok(Some((Protocol::Http2, early))),
            None => (patience, end) = (limits.whole_header, ConnectionEnd::WholeHeader),
        }
    }
}

/// What there is to be read; nothing at the end. While there is none, no room is kept for it.
fn poll_some<S: AsyncRead + Unpin>(stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut room = [const { MaybeUninit::uninit() }; FIRST_READ];
    let mut read = ReadBuf::uninit(&mut room);
    ready!(Pin::new(stream).poll_read(cx, &mut read))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(read.filled())))
}
