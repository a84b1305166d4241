//! Passing a call on: choose a peer, send, wait within the deadline. A call is sent again only where nothing of it was sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::gateway::body::{UploadState, Uploading};
use crate::gateway::exchange::Exchange;
use crate::gateway::pool::{self, Checkout, ConnectError, Place, Pooled, Reply, Wanted};
use crate::meter::record::Outcome;
use crate::principal::Cluster;
use crate::telemetry::metrics::UpstreamFailure;
use crate::verdict::Denial;

/// Attempts in all, each on another connection, as long as nothing was sent.
const ATTEMPTS: usize = 3;

/// Until when what must have happened.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// The whole call.
    pub total: Instant,
    /// From the end of the request to the head of the answer.
    pub first_byte: Duration,
}

/// Where a call goes, and until when.
pub struct Onward<'a> {
    pub cluster: &'a Cluster,
    pub wanted: Wanted,
    /// The authority as the client wrote it.
    pub authority: HeaderValue,
    pub deadlines: Deadlines,
}

/// The head of an answer, and the exchange where its body is still to be read.
pub type Answered = (Response<()>, Option<Box<Exchange>>);

/// Sends the request and returns the head of the answer. On a denial the charge is committed.
pub async fn forward(
    gateway: &Arc<Gateway>,
    onward: Onward<'_>,
    mut request: Request<Uploading>,
    mut exchange: Box<Exchange>,
) -> Result<Answered, Denial> {
    let Onward { cluster, wanted, authority, deadlines } = onward;
    let path = request.uri().path_and_query().cloned();
    for attempt in 0..ATTEMPTS {
        let pooled = match connection(gateway, cluster, wanted, attempt).await {
            Ok(pooled) => pooled,
            Err(error) if attempt + 1 < ATTEMPTS && !matches!(error, ConnectError::NoPeer) => {
                tracing::debug!(cluster = %cluster.cluster_id, %error, "a peer is passed over");
                continue;
            }
            Err(error) => {
                tracing::warn!(cluster = %cluster.cluster_id, %error, "the upstream could not be reached");
                exchange.end_as(Outcome::UpstreamError);
                return Err(Denial::Upstream);
            }
        };
        let place = pooled.place();
        address(&mut request, path.as_ref(), &authority, pooled.http2_scheme());
        let reply = exchange.on(pooled).send(request);
        let (replied, returned) = InFlight::new(reply, exchange, deadlines).await;
        exchange = returned;
        match replied {
            Replied::Answer(answer) if gateway.fits(answer.headers()) => return Ok(exchange.answered(answer)),
            Replied::Answer(_) => {
                tracing::warn!(cluster = %cluster.cluster_id, "an answer's list of headers is too large for clients");
                exchange.end_as(Outcome::UpstreamError);
                return Err(Denial::Upstream);
            }
            Replied::Unsent(unsent) => request = *unsent,
            Replied::Late => {
                gateway.metrics.upstream_failures.of(&UpstreamFailure::FirstByteTimeout).inc();
                exchange.end_as(Outcome::Timeout);
                return Err(Denial::Deadline);
            }
            Replied::Broken(error) => return Err(broken(gateway, cluster, place, exchange, &error)),
        }
    }
    exchange.end_as(Outcome::UpstreamError);
    Err(Denial::Upstream)
}

async fn connection(
    gateway: &Gateway,
    cluster: &Cluster,
    wanted: Wanted,
    attempt: usize,
) -> Result<Pooled, ConnectError> {
    match pool::check_out(cluster, wanted, attempt)? {
        Checkout::Ready(pooled) => Ok(pooled),
        // Boxed: it is seldom, and large, and every call would carry the room for it.
        Checkout::Connect(place, target) => Box::pin(gateway.connector.connect(place, &target, wanted)).await,
    }
}

/// HTTP/1.1 names the path alone and the authority in `Host`; HTTP/2 names both in the target.
fn address(
    request: &mut Request<Uploading>,
    path: Option<&PathAndQuery>,
    authority: &HeaderValue,
    http2: Option<Scheme>,
) {
    let path = path.cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let Some(scheme) = http2 else {
        *request.version_mut() = Version::HTTP_11;
        *request.uri_mut() = Uri::from(path);
        request.headers_mut().insert(HOST, authority.clone());
        return;
    };
    request.headers_mut().remove(HOST);
    *request.version_mut() = Version::HTTP_2;
    let target = Uri::builder().scheme(scheme).authority(authority.as_bytes()).path_and_query(path.clone()).build();
    *request.uri_mut() = target.unwrap_or_else(|_| Uri::from(path));
}

/// The exchange broke before an answer came: says whose fault it was.
fn broken(gateway: &Gateway, cluster: &Cluster, place: Place, exchange: Box<Exchange>, error: &hyper::Error) -> Denial {
    let (outcome, denial) = match exchange.upload().state() {
        UploadState::Broken => (Outcome::ClientAbort, Denial::Malformed),
        UploadState::TooLarge => (Outcome::Aborted, Denial::BodyTooLarge),
        UploadState::TooSlow => (Outcome::Timeout, Denial::Deadline),
        UploadState::Sending | UploadState::Complete => {
            tracing::warn!(cluster = %cluster.cluster_id, %error, "the upstream broke the connection");
            let failure = if error.is_parse() { UpstreamFailure::Malformed } else { UpstreamFailure::Reset };
            gateway.metrics.upstream_failures.of(&failure).inc();
            place.broke();
            (Outcome::UpstreamError, Denial::Upstream)
        }
    };
    exchange.end_as(outcome);
    denial
}

enum Replied {
    Answer(Response<Incoming>),
    /// Nothing of it was sent.
    Unsent(Box<Request<Uploading>>),
    Broken(hyper::Error),
    Late,
}

/// A request on its way. If the client leaves, this is dropped, and the answer is awaited without the client.
struct InFlight {
    waiting: Option<Waiting>,
}

struct Waiting {
    reply: Reply,
    exchange: Box<Exchange>,
    deadlines: Deadlines,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl InFlight {
    fn new(reply: Reply, exchange: Box<Exchange>, deadlines: Deadlines) -> Self {
        Self { waiting: Some(Waiting { reply, exchange, deadlines, timer: None }) }
    }
}

impl Future for InFlight {
    type Output = (Replied, Box<Exchange>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(mut waiting) = self.waiting.take() else {
            return Poll::Pending;
        };
        match waiting.poll(cx) {
            Poll::Ready(replied) => Poll::Ready((replied, waiting.exchange)),
            Poll::Pending => {
                self.waiting = Some(waiting);
                Poll::Pending
            }
        }
    }
}

impl Waiting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Replied> {
        match self.reply.as_mut().poll(cx) {
            Poll::Ready(Ok(answer)) => Poll::Ready(Replied::Answer(answer)),
            Poll::Ready(Err(error)) => Poll::Ready(failed(error)),
            Poll::Pending => self.poll_deadline(cx).map(|()| Replied::Late),
        }
    }

    /// The wait for the first byte begins when the request is complete; the whole call has its own deadline.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Deadlines { total, first_byte } = self.deadlines;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(total.min(Instant::now() + first_byte))));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= total || self.exchange.upload().state() == UploadState::Complete {
                return Poll::Ready(());
            }
            timer.as_mut().reset(total.min(now + first_byte));
        }
        Poll::Pending
    }
}

fn failed(mut error: TrySendError<Request<Uploading>>) -> Replied {
    match error.take_message() {
        Some(unsent) => Replied::Unsent(Box::new(unsent)),
        None => Replied::Broken(error.into_error()),
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(Waiting { reply, exchange, deadlines, .. }) = self.waiting.take() else {
            return;
        };
        exchange.adopt_by_drains(|exchange| async move {
            match tokio::time::timeout_at(deadlines.total, reply).await {
                Ok(Ok(answer)) => exchange.answered_without_client(answer, deadlines.total).await,
                Ok(Err(_)) => exchange.end_as(Outcome::ClientAbort),
                Err(_) => exchange.end_as(Outcome::Timeout),
            }
        });
    }
}
