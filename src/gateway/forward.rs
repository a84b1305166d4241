//! Passing a call on: choose a peer, send, wait within the deadline. A call is sent again only where nothing of it was sent,
//! or where the service has said that it did nothing with it: a refused stream over HTTP/2, or one above the last of a GOAWAY.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::gateway::body::UploadState;
use crate::gateway::exchange::Exchange;
use crate::gateway::message::AnswerHead;
use crate::gateway::pool::{self, Checkout, ConnectError, Place, Pooled, Wanted};
use crate::gateway::respond::RequestId;
use crate::gateway::upstream::{Broke, NoAnswer, Outbound, Roundtrip};
use crate::meter::record::Outcome;
use crate::principal::Cluster;
use crate::telemetry::metrics::UpstreamFailure;
use crate::verdict::Denial;

/// Attempts in all.
const ATTEMPTS: usize = 3;
/// Before the second attempt of what the service has refused, and up to twice as long; twice that before the third, and again while its
/// connections are full.
const PAUSE: Duration = Duration::from_millis(10);

/// Until when what must have happened.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// The whole call.
    pub total: Instant,
    /// From the end of the request to the head of the answer.
    pub first_byte: Duration,
    /// When the call began.
    pub begun: Instant,
}

/// Where a call goes, and until when.
#[derive(Clone, Copy)]
pub struct Onward<'a> {
    pub cluster: &'a Cluster,
    pub wanted: Wanted,
    pub deadlines: Deadlines,
}

/// The head of an answer, and the exchange where its body is still to be read.
pub type Answered = (AnswerHead, Option<Box<Exchange>>);

/// Sends the request and returns the head of the answer. On a denial the charge is committed.
///
/// The request leaves before this returns, where a connection is at hand; what is seldom is boxed, since every call would carry the
/// room for it.
pub fn forward<'a>(
    gateway: &'a Arc<Gateway>,
    onward: Onward<'a>,
    request: Outbound,
    exchange: Box<Exchange>,
) -> impl Future<Output = Result<Answered, Denial>> + Send + 'a {
    let Onward { cluster, wanted, deadlines } = onward;
    let begun = match pool::check_out(cluster, wanted, 0) {
        Ok(Checkout::Ready(pooled)) => {
            Ok((pooled.place(), InFlight::begin(pooled, request, exchange, deadlines, deadlines.begun)))
        }
        checkout => Err(Box::pin(forward_slowly(gateway, onward, request, exchange, (0, checkout)))),
    };
    async move {
        let (place, in_flight) = match begun {
            Ok(begun) => begun,
            Err(slowly) => return slowly.await,
        };
        let (replied, exchange) = in_flight.await;
        match conclude(gateway, cluster, place, replied, exchange) {
            Concluded::Over(answered) => answered,
            Concluded::Unsent(request, exchange, again) => {
                let slowly = async {
                    let checkout = again.check_out(cluster, wanted, 1).await;
                    forward_slowly(gateway, onward, *request, exchange, (1, checkout)).await
                };
                Box::pin(slowly).await
            }
        }
    }
}

/// Tries one peer after the other, as long as the call may be sent again, from the attempt of this number on.
async fn forward_slowly(
    gateway: &Arc<Gateway>,
    onward: Onward<'_>,
    mut request: Outbound,
    mut exchange: Box<Exchange>,
    (first, mut checkout): (usize, Result<Checkout, ConnectError>),
) -> Result<Answered, Denial> {
    let Onward { cluster, wanted, deadlines } = onward;
    for attempt in first + 1..=ATTEMPTS {
        let pooled = match connection(gateway, checkout, wanted).await {
            Ok(pooled) => pooled,
            Err(error) if attempt < ATTEMPTS && !matches!(error, ConnectError::NoPeer) => {
                tracing::debug!(cluster = %cluster.cluster_id, %error, "a peer is passed over");
                checkout = pool::check_out(cluster, wanted, attempt);
                continue;
            }
            Err(error) => {
                tracing::warn!(cluster = %cluster.cluster_id, %error, "the upstream could not be reached");
                exchange.end_as(Outcome::UpstreamError);
                return Err(Denial::Upstream);
            }
        };
        let (place, now) = (pooled.place(), Instant::now());
        if now >= deadlines.total {
            exchange.end_as(Outcome::Timeout);
            return Err(Denial::Deadline);
        }
        let (replied, returned) = InFlight::begin(pooled, request, exchange, deadlines, now).await;
        let again;
        (request, exchange, again) = match conclude(gateway, cluster, place, replied, returned) {
            Concluded::Over(answered) => return answered,
            Concluded::Unsent(request, exchange, again) => (*request, exchange, again),
        };
        checkout = if attempt < ATTEMPTS { again.check_out(cluster, wanted, attempt).await } else { break };
    }
    exchange.end_as(Outcome::UpstreamError);
    Err(Denial::Upstream)
}

async fn connection(
    gateway: &Gateway,
    checkout: Result<Checkout, ConnectError>,
    wanted: Wanted,
) -> Result<Pooled, ConnectError> {
    match checkout? {
        Checkout::Ready(pooled) => Ok(pooled),
        Checkout::Connect(place, target) => gateway.connector.connect(place, &target, wanted).await,
    }
}

/// What an attempt came to.
enum Concluded {
    Over(Result<Answered, Denial>),
    /// It may be sent again.
    Unsent(Box<Outbound>, Box<Exchange>, Again),
}

/// How a call is sent again.
#[derive(Clone, Copy)]
enum Again {
    /// Its connection did not stand: at once, on a new one.
    AtOnce,
    /// The service has too much to do, or goes: after a pause, or some more while its connections are full, on whatever connection there
    /// is. So it has no more of us than before.
    Later,
}

impl Again {
    /// `attempt` counts from 1, after the first one.
    async fn check_out(self, cluster: &Cluster, wanted: Wanted, attempt: usize) -> Result<Checkout, ConnectError> {
        match self {
            Self::AtOnce => pool::check_out(cluster, wanted, attempt),
            Self::Later => {
                for factor in [1, 2, 4] {
                    let pause = PAUSE * u32::try_from(attempt).unwrap_or(u32::MAX) * factor;
                    // What was refused at once does not come back at once.
                    tokio::time::sleep(pause + pause * u32::from(RequestId::next().scattered()) / 256).await;
                    if !pool::is_full(cluster) {
                        break;
                    }
                }
                pool::check_out(cluster, wanted, 0)
            }
        }
    }
}

fn conclude(
    gateway: &Gateway,
    cluster: &Cluster,
    place: Place,
    replied: Replied,
    mut exchange: Box<Exchange>,
) -> Concluded {
    Concluded::Over(match replied {
        Replied::Answer(head, roundtrip) if gateway.fits(&head.fields) => Ok(exchange.answered(head, roundtrip)),
        Replied::Answer(..) => {
            tracing::warn!(cluster = %cluster.cluster_id, "an answer's list of headers is too large for clients");
            exchange.end_as(Outcome::UpstreamError);
            Err(Denial::Upstream)
        }
        Replied::Unsent(request, again) => {
            place.broke();
            exchange.is_unsent();
            return Concluded::Unsent(request, exchange, again);
        }
        Replied::Late(roundtrip) => {
            gateway.metrics.upstream_failures.of(&UpstreamFailure::FirstByteTimeout).inc();
            exchange.time_out_unanswered(roundtrip);
            Err(Denial::Deadline)
        }
        Replied::Broken(error) => Err(broken(gateway, cluster, place, exchange, &error)),
    })
}

/// The exchange broke before an answer came: says whose fault it was.
fn broken(gateway: &Gateway, cluster: &Cluster, place: Place, exchange: Box<Exchange>, error: &Broke) -> Denial {
    let upload = exchange.upload().state();
    let denial = match upload {
        UploadState::Broken => Denial::Malformed,
        UploadState::TooLarge => Denial::BodyTooLarge,
        UploadState::TooSlow => Denial::Deadline,
        UploadState::Sending | UploadState::Complete => {
            tracing::warn!(cluster = %cluster.cluster_id, %error, "the upstream broke the connection");
            let failure =
                if matches!(error, Broke::Malformed(_)) { UpstreamFailure::Malformed } else { UpstreamFailure::Reset };
            gateway.metrics.upstream_failures.of(&failure).inc();
            place.broke();
            Denial::Upstream
        }
    };
    exchange.end_as(upload.blame());
    denial
}

enum Replied {
    Answer(AnswerHead, Roundtrip),
    /// It may be sent again.
    Unsent(Box<Outbound>, Again),
    Broken(Broke),
    Late(Roundtrip),
}

/// A request on its way. If the client leaves, this is dropped, and the answer is awaited without the client.
struct InFlight {
    waiting: Option<Waiting>,
}

struct Waiting {
    roundtrip: Roundtrip,
    exchange: Box<Exchange>,
    deadlines: Deadlines,
    /// When this attempt began.
    begun: Instant,
    /// Present once the service keeps us waiting.
    until: Option<Until>,
}

/// The end of a wait for the first byte.
#[derive(Clone, Copy)]
struct Until {
    at: Instant,
    /// The service had the whole request by the beginning of the wait.
    is_complete: bool,
}

impl InFlight {
    /// `begun` is now.
    fn begin(
        pooled: Pooled,
        request: Outbound,
        mut exchange: Box<Exchange>,
        deadlines: Deadlines,
        begun: Instant,
    ) -> Self {
        exchange.is_sent_to(pooled.place());
        let roundtrip = pooled.send(request, begun);
        Self { waiting: Some(Waiting { roundtrip, exchange, deadlines, begun, until: None }) }
    }
}

impl Future for InFlight {
    type Output = (Replied, Box<Exchange>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(waiting) = &mut self.waiting else {
            return Poll::Pending;
        };
        let replied = match waiting.roundtrip.poll_head(cx) {
            Poll::Ready(replied) => replied.map_err(Some),
            Poll::Pending => {
                ready!(waiting.poll_deadline(cx));
                Err(None)
            }
        };
        let Some(Waiting { roundtrip, exchange, .. }) = self.waiting.take() else {
            return Poll::Pending;
        };
        let replied = match replied {
            Ok(head) => Replied::Answer(head, roundtrip),
            Err(Some(NoAnswer::Unsent(request))) => Replied::Unsent(request, Again::AtOnce),
            Err(Some(NoAnswer::Refused(request))) => Replied::Unsent(request, Again::Later),
            Err(Some(NoAnswer::Broke(broke))) => Replied::Broken(broke),
            Err(None) => Replied::Late(roundtrip),
        };
        Poll::Ready((replied, exchange))
    }
}

impl Waiting {
    /// The wait for the first byte begins when the request is complete; the whole call has its own deadline.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Deadlines { total, first_byte, .. } = self.deadlines;
        let is_complete = self.exchange.upload().state() == UploadState::Complete;
        let mut until = match self.until {
            // A request that came whole was complete when the attempt began.
            None => Until { at: total.min(self.begun + first_byte), is_complete },
            Some(until) if is_complete && !until.is_complete => {
                Until { at: total.min(Instant::now() + first_byte), is_complete }
            }
            Some(until) => until,
        };
        while self.roundtrip.poll_until(cx, until.at).is_ready() {
            let now = Instant::now();
            if now >= total || until.is_complete {
                return Poll::Ready(());
            }
            until.at = total.min(now + first_byte);
        }
        self.until = Some(until);
        Poll::Pending
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(Waiting { roundtrip, exchange, .. }) = self.waiting.take() else {
            return;
        };
        // What is half done is left so: the exchange commits itself.
        if !std::thread::panicking() {
            exchange.abandon_unanswered(roundtrip);
        }
    }
}
