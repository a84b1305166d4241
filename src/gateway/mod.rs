//! The data plane. This file is the path of a call, step by step, top to bottom.

pub mod accept;
pub mod address;
pub mod body;
pub mod connection;
pub mod downstream;
mod drain;
mod exchange;
pub mod extract;
pub mod fields;
pub mod form;
mod forward;
pub mod guard;
pub mod headers;
mod http1;
mod http2;
mod leaving;
pub mod message;
mod pool;
mod respond;
pub mod route;
mod unread;
mod upstream;
pub mod usage;
mod verify;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use http::uri::PathAndQuery;
use tokio::time::Instant;

pub use self::body::Outgoing;
pub use self::connection::Protocols;
pub use self::pool::{Connector, sweep};
pub use self::verify::{Admission, Destination, Verifier};

use self::body::{UploadLimits, Uploading};
use self::connection::Connection;
use self::downstream::ClientBody;
use self::drain::Drains;
use self::exchange::{Exchange, Opened};
use self::fields::{Fields, Name};
use self::form::HeadLimits;
use self::forward::{Deadlines, Onward, forward};
use self::guard::InCall;
use self::headers::{CountedIn, Stamp};
use self::message::{Answer, AnswerHead, RequestHead};
use self::pool::Wanted;
use self::respond::{Dialect, Manner, RequestId};
use self::route::{Authority, GrpcServices};
use self::unread::UnreadBody;
use self::upstream::Outbound;
use crate::config::GatewayConfig;
use crate::limits::{CallCap, ConnectionCaps, ConnectionPermit, Limits};
use crate::meter::record::{LineKey, Operation};
use crate::meter::{Charge, Meter, Unmetered};
use crate::telemetry::metrics::{ConnectionEnd, Metrics};
use crate::verdict::Denial;

/// Why a call is denied, and how long its answer waits, if it does.
struct Denied {
    denial: Denial,
    held_back: Option<Duration>,
}

impl From<Denial> for Denied {
    fn from(denial: Denial) -> Self {
        Self { denial, held_back: None }
    }
}

/// An hour is closed no sooner than all threads have left it.
const KEEP_UP_EVERY: Duration = Duration::from_secs(1);

/// Everything a call needs, shared by the data-plane threads.
pub struct Gateway {
    pub config: GatewayConfig,
    pub(crate) protocols: Arc<Protocols>,
    verifier: Verifier,
    calls: CallCap,
    limits: Limits,
    caps: ConnectionCaps,
    meter: Arc<Meter>,
    pub(crate) connector: Connector,
    pub(crate) drains: Drains,
    services: GrpcServices,
    pub(crate) metrics: Arc<Metrics>,
}

/// What a gateway is made of.
pub struct GatewayParts {
    pub config: GatewayConfig,
    pub protocols: Protocols,
    pub verifier: Verifier,
    pub limits: Limits,
    pub caps: ConnectionCaps,
    pub meter: Arc<Meter>,
    pub connector: Connector,
    pub metrics: Arc<Metrics>,
}

impl Gateway {
    pub fn new(parts: GatewayParts) -> Self {
        let GatewayParts { config, protocols, verifier, limits, caps, meter, connector, metrics } = parts;
        let drains = Drains::new(config.limits.abandoned_calls, config.limits.abandoned_drain, Arc::clone(&metrics));
        let services = GrpcServices::new(&config.grpc_services);
        let (protocols, calls) = (Arc::new(protocols), CallCap::new(config.limits.calls));
        Self { config, protocols, verifier, calls, limits, caps, meter, connector, drains, services, metrics }
    }

    /// To be called on each data-plane thread before its first connection.
    pub fn begin_thread(&self) {
        self.meter.attach_thread();
        tokio::spawn(sweep());
        tokio::spawn(keep_up(Arc::clone(&self.meter)));
    }

    /// A place among the open connections, or nothing where a cap is reached.
    pub fn connection_slot(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        match self.caps.open(peer.to_canonical()) {
            Ok(permit) => {
                self.metrics.connections_accepted.inc();
                self.metrics.connections_open.inc();
                Some(permit)
            }
            Err(full) => {
                self.metrics.connections_rejected.of(&ConnectionEnd::from(full)).inc();
                None
            }
        }
    }

    /// Whether calls can be admitted at this moment.
    pub fn has_lease(&self) -> bool {
        self.verifier.lease.snapshot().is_good_at(crate::clock::boot())
    }

    /// Abandoned calls that are still being read on.
    pub fn abandoned(&self) -> usize {
        self.drains.live()
    }

    /// Serves one call. Whatever happens, the client gets an answer, and an admitted call gets exactly one outcome.
    pub async fn call(
        self: Arc<Self>,
        connection: Arc<Connection>,
        in_call: InCall,
        head: RequestHead,
        body: ClientBody,
    ) -> Answer {
        let id = RequestId::next();
        let dialect = if form::is_grpc(&head) { Dialect::Grpc } else { Dialect::Http };
        let manner = Manner { dialect, form: self.config.http_denials, version: head.version };
        let mut answer = match self.serve(&connection, &id, dialect, head, body).await {
            Ok((mut head, exchange, deadline)) => {
                headers::to_client(&mut head.fields, id.text());
                Answer { head, body: Outgoing::relayed(exchange, deadline, in_call) }
            }
            Err(Denied { denial, held_back }) => {
                if let Some(time) = held_back {
                    self.hold_back(time).await;
                }
                self.deny(&connection, in_call, denial, manner, &id)
            }
        };
        if manner.version != Version::HTTP_2 && connection.is_closing() {
            answer.head.fields.add(b"connection", b"close");
        }
        answer
    }

    /// Answers what could not be read as a request over HTTP/1.1.
    pub fn refuse(&self, connection: &Connection, in_call: InCall, denial: Denial) -> Answer {
        let manner = Manner { dialect: Dialect::Http, form: self.config.http_denials, version: Version::HTTP_11 };
        self.deny(connection, in_call, denial, manner, &RequestId::next())
    }

    /// By now the call has no place among those in flight any more. Boxed: it is seldom, and every call would carry the room for it.
    async fn hold_back(&self, time: Duration) {
        self.metrics.denials_held_back.inc();
        Box::pin(tokio::time::sleep(time)).await;
    }

    fn deny(&self, connection: &Connection, in_call: InCall, denial: Denial, manner: Manner, id: &RequestId) -> Answer {
        self.metrics.denials.of(&denial).inc();
        tracing::debug!(request_id = id.text(), address = %connection.address, reason = denial.row().label, "a call was denied");
        respond::deny(denial, manner, id, in_call)
    }

    /// The steps of a call. Each needs what the one before it gives.
    async fn serve(
        self: &Arc<Self>,
        connection: &Connection,
        id: &RequestId,
        dialect: Dialect,
        head: RequestHead,
        body: ClientBody,
    ) -> Result<(AnswerHead, Option<Box<Exchange>>, Instant), Denied> {
        // A body that will not be passed on is read on for a while, or the denial would be lost to a reset.
        let unread = UnreadBody::new(&self.config.limits, &head.fields, body);
        // What the gateway is too busy for must not cost it anything more.
        let place = self.calls.enter()?;
        // Form first: what is ambiguous must not be looked at any further.
        form::check_form(&head, HeadLimits::from(&self.config.limits))?;
        let limits = self.upload_limits(dialect);
        check_length(&head.fields, limits)?;
        let timeout = if dialect == Dialect::Grpc { headers::grpc_timeout(&head.fields)? } else { None };
        let from = address::client_address(connection.address, &head.fields, &self.config.trusted_proxies);
        // The key, its account and the cluster, under one lease.
        let admission = {
            let authority = route::authority(&head)?;
            let to = match &authority {
                Authority::Name(name) => Destination::Host(name),
                Authority::Machine(_) => Destination::Default,
            };
            let verified = match extract::presented(&head) {
                Ok(key) => self.verifier.verify(key, to, from).await,
                Err(denial) => Err(self.verifier.denial(denial, from, crate::clock::boot())),
            };
            verified.map_err(|denial| self.denied_key(connection, denial, id))?
        };
        connection.shown_keys.good();
        let browser = extract::is_browser_call(&head.fields);
        if browser && !self.config.allow_browser {
            self.mark_browser(&admission, self.operation(dialect, &head));
            return Err(Denial::BrowserCall.into());
        }
        let permit = self.limits.admit(admission.verified.account_id(), admission.at)?;
        // From here on the call is counted, whatever becomes of it.
        let operation = self.operation(dialect, &head);
        let charge = self.open_charge(&admission, operation, browser)?;
        let stamp = self.stamp(&admission, charge.as_ref(), id);
        let (body, upload) = Uploading::new(unread, limits);
        let request = outbound(head, stamp, body);
        let gateway = Arc::clone(self);
        let exchange = Exchange::new(Opened { gateway, charge, place, permit, dialect, operation, upload });
        let deadlines = self.deadlines(timeout);
        let wanted = if dialect == Dialect::Grpc { Wanted::Http2 } else { Wanted::Any };
        let onward = Onward { cluster: admission.verified.cluster(), wanted, deadlines };
        let (answer, exchange) = forward(self, onward, request, exchange).await?;
        Ok((answer, exchange, deadlines.total))
    }

    /// A connection of bad keys alone is answered more slowly: after up to twice the delay, so that the answers of many connections do
    /// not go out at once.
    fn denied_key(&self, connection: &Connection, denial: Denial, id: &RequestId) -> Denied {
        let delay = self.config.limits.failed_auth_delay;
        let delay = delay + delay * u32::from(id.scattered()) / 256;
        Denied { denial, held_back: connection.shown_keys.bad(denial, delay, crate::clock::boot()) }
    }

    fn operation(&self, dialect: Dialect, head: &RequestHead) -> Operation {
        match dialect {
            Dialect::Grpc => route::grpc_operation(&head.method, head.uri.path(), &self.services),
            Dialect::Http => route::http_operation(&head.method, head.uri.path()),
        }
    }

    /// A page may hold this key: its owner is told, though the call goes no further and counts nothing.
    fn mark_browser(&self, admission: &Admission, operation: Operation) {
        if let Err(error) = self.meter.mark_browser(line_of(admission, operation), admission.wall) {
            tracing::debug!(%error, "a key that a browser sent could not be marked");
        }
    }

    /// `None`: the call cannot be counted, and is passed on all the same, since `gateway.serve_unmetered` says so.
    fn open_charge(
        &self,
        admission: &Admission,
        operation: Operation,
        browser: bool,
    ) -> Result<Option<Charge>, Denial> {
        let error = match self.meter.open_charge(line_of(admission, operation), admission.wall, browser) {
            Ok(charge) => return Ok(Some(charge)),
            Err(error) => error,
        };
        // All of them are in the metrics; the log has one for each time that it was tried.
        let is_news = !matches!(error, Unmetered::Lately);
        if self.config.serve_unmetered {
            self.metrics.unmetered_calls.inc();
            if is_news {
                tracing::error!(%error, "a call could not be metered and was passed on unmetered");
            }
            return Ok(None);
        }
        if is_news {
            tracing::error!(%error, "a call could not be metered and was not passed on");
        }
        Err(Denial::CannotMeter)
    }

    /// What the service is told of who is charged.
    fn stamp(&self, admission: &Admission, charge: Option<&Charge>, id: &RequestId) -> Stamp {
        let verified = &admission.verified;
        let counted = charge.map(|charge| CountedIn(self.meter.incarnation(), charge.hour(), charge.sequence()));
        Stamp::new(verified.account_id(), verified.key_id(), counted, id.text())
    }

    /// A client may refuse a longer list of headers, and break all its calls on the connection with it.
    pub(crate) fn fits(&self, answer: &Fields) -> bool {
        // RFC 9113, section 10.5.1, counts 32 bytes more for each field.
        answer.bytes(32) <= self.config.limits.response_header_bytes
    }

    fn upload_limits(&self, dialect: Dialect) -> UploadLimits {
        let limits = &self.config.limits;
        let bytes = match dialect {
            Dialect::Http => limits.http_body_bytes,
            Dialect::Grpc => limits.grpc_message_bytes.saturating_add(5),
        };
        UploadLimits { bytes, slow_rate: limits.slow_body_rate, slow_after: limits.slow_body_after }
    }

    fn deadlines(&self, timeout: Option<Duration>) -> Deadlines {
        let limits = &self.config.limits;
        let total = timeout.map_or(limits.total, |timeout| timeout.min(limits.total));
        let begun = Instant::now();
        Deadlines { total: begun + total, first_byte: limits.upstream_first_byte, begun }
    }
}

/// Tells the meter on this thread which hour it is, also while no call comes.
async fn keep_up(meter: Arc<Meter>) {
    loop {
        tokio::time::sleep(KEEP_UP_EVERY).await;
        meter.keep_up(crate::clock::wall());
    }
}

fn line_of(admission: &Admission, operation: Operation) -> LineKey {
    let verified = &admission.verified;
    let (account_id, key_id) = (verified.account_id(), verified.key_id());
    LineKey { account_id, key_id, cluster_id: verified.cluster().cluster_id, operation }
}

/// A declared length is believed, so that a body that is too large is refused before it is sent.
fn check_length(fields: &Fields, limits: UploadLimits) -> Result<(), Denial> {
    let declared = fields.first(Name::ContentLength).and_then(http1::digits);
    if declared.is_some_and(|bytes| bytes > limits.bytes) { Err(Denial::BodyTooLarge) } else { Ok(()) }
}

/// The request as it goes on, without the client's secrets.
fn outbound(head: RequestHead, stamp: Stamp, body: Uploading) -> Outbound {
    let RequestHead { method, uri, mut fields, .. } = head;
    let uri = uri.into_parts();
    let path = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    extract::take_out(&mut fields);
    Outbound { method, path, authority: uri.authority, fields, stamp, body }
}
