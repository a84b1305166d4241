//! One exchange with an upstream, from the charge that was opened for it to the charge that is committed.
//!
//! Whoever holds an [`Exchange`] must end it; dropping it counts the call as aborted, so that nothing is ever lost.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::runtime::Handle;

use crate::gateway::Gateway;
use crate::gateway::body::{Upload, UploadState};
use crate::gateway::fields::{Fields, Name};
use crate::gateway::form;
use crate::gateway::headers;
use crate::gateway::message::AnswerHead;
use crate::gateway::pool::Place;
use crate::gateway::respond::Dialect;
use crate::gateway::upstream::{Broke, Roundtrip};
use crate::gateway::usage::{Reading, UsageReader};
use crate::limits::{CallPlace, Permit};
use crate::meter::record::{Operation, Outcome};
use crate::meter::{Charge, Tally};
use crate::telemetry::metrics::Call;

pub struct Exchange {
    gateway: Arc<Gateway>,
    /// Taken by the commit. A call that is served unmetered never has one.
    charge: Option<Charge>,
    _place: CallPlace,
    _permit: Permit,
    dialect: Dialect,
    operation: Operation,
    upload: Arc<Upload>,
    /// Where the call was sent to, once it was.
    sent_to: Option<Place>,
    answer: Option<Answer>,
    /// Its time is over: whatever becomes of the call, it counts as that.
    is_overdue: bool,
}

struct Answer {
    /// Its connection goes back to the pool when the answer has been read to its end.
    roundtrip: Roundtrip,
    reader: UsageReader,
    bytes: u64,
    /// Whether the status, or for gRPC the head of a trailers-only answer, says success.
    status: Status,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Success,
    Refused,
    /// gRPC: the status comes in the trailers.
    InTrailers,
}

/// What an exchange is begun with.
pub struct Opened {
    pub gateway: Arc<Gateway>,
    /// Absent where the call is served unmetered.
    pub charge: Option<Charge>,
    pub place: CallPlace,
    pub permit: Permit,
    pub dialect: Dialect,
    pub operation: Operation,
    pub upload: Arc<Upload>,
}

impl Exchange {
    pub fn new(opened: Opened) -> Box<Self> {
        let Opened { gateway, charge, place, permit, dialect, operation, upload } = opened;
        let (_place, _permit) = (place, permit);
        Box::new(Self {
            gateway,
            charge,
            _place,
            _permit,
            dialect,
            operation,
            upload,
            sent_to: None,
            answer: None,
            is_overdue: false,
        })
    }

    pub fn upload(&self) -> &Upload {
        &self.upload
    }

    /// From now on the service may know of the call.
    pub fn is_sent_to(&mut self, place: Place) {
        self.sent_to = Some(place);
    }

    /// It knows nothing of it, and may get it once more.
    pub fn is_unsent(&mut self) {
        self.sent_to = None;
    }

    /// Takes the head of the answer in, and hands it back without its body. The exchange may have ended with it:
    /// then the charge is committed before the head goes on to the client, and `None` comes back.
    pub fn answered(mut self: Box<Self>, head: AnswerHead, roundtrip: Roundtrip) -> (AnswerHead, Option<Box<Self>>) {
        self.take_head(&head, roundtrip);
        if self.answer().is_end_stream() {
            self.end(None);
            return (head, None);
        }
        (head, Some(self))
    }

    fn take_head(&mut self, head: &AnswerHead, roundtrip: Roundtrip) {
        let ended = roundtrip.is_end_stream();
        // By what the answer says of itself, and whatever the operation is: a service may take a request for another than we do.
        let is_grpc = form::has_grpc_type(&head.fields);
        let status = match if is_grpc { Dialect::Grpc } else { self.dialect } {
            // Also where a proxy answers in place of a gRPC service: it said no, and broke nothing.
            _ if !head.status.is_success() => Status::Refused,
            Dialect::Http => Status::Success,
            Dialect::Grpc if !ended && !head.fields.has(Name::GrpcStatus) => Status::InTrailers,
            Dialect::Grpc if grpc_status_is_ok(&head.fields) => Status::Success,
            _ => Status::Refused,
        };
        let reader = match is_grpc {
            true => UsageReader::for_grpc(self.gateway.config.limits.grpc_message_bytes),
            false => UsageReader::for_http(&head.fields),
        };
        self.answer = Some(Answer { roundtrip, reader, bytes: 0, status });
    }

    /// The answer's body. To be asked only after [`Exchange::answered`].
    pub fn answer(&self) -> AnswerEnd<'_> {
        AnswerEnd(self.answer.as_ref())
    }

    /// The next frame of the answer, counted and read.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(None);
        };
        let mut frame = answer.roundtrip.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut frame {
            if let Some(data) = frame.data_ref() {
                answer.bytes = answer.bytes.saturating_add(data.len() as u64);
                answer.reader.feed(data);
            } else if let Some(trailers) = frame.trailers_mut() {
                headers::clean_trailers(trailers);
            }
        }
        frame
    }

    /// The answer is complete: commits the charge as what the answer says.
    pub fn end(mut self: Box<Self>, trailers: Option<&HeaderMap>) {
        let reading = self.reading();
        let outcome = match self.answer.as_ref().map(|answer| answer.status) {
            Some(Status::Success) => success(&reading),
            Some(Status::InTrailers) if trailers.is_some_and(says_ok) => success(&reading),
            // The service took it for a call over HTTP.
            Some(Status::InTrailers) if trailers.is_none() && self.reports_in_json(&reading) => success(&reading),
            Some(Status::InTrailers) if trailers.is_none() => Outcome::UpstreamError,
            _ => Outcome::Refused,
        };
        self.commit(outcome, &reading);
        self.give_back();
    }

    /// The answer was read to its end: its connection can carry another call. A service that answers before it has the whole request gets
    /// the rest of it all the same, within bounds.
    fn give_back(&mut self) {
        let (Some(place), Some(Answer { mut roundtrip, .. })) = (self.sent_to, self.answer.take()) else {
            return;
        };
        match Handle::try_current() {
            Ok(runtime) if roundtrip.is_sending() => {
                let patience = self.gateway.config.limits.abandoned_drain;
                runtime.spawn(async move {
                    let sent = tokio::time::timeout(patience, poll_fn(|cx| roundtrip.poll_send(cx))).await;
                    if matches!(sent, Ok(Ok(()))) {
                        place.take_back(roundtrip);
                    }
                });
            }
            _ => place.take_back(roundtrip),
        }
    }

    /// The exchange broke off; what was read of the answer still counts.
    pub fn end_as(mut self: Box<Self>, outcome: Outcome) {
        let reading = self.reading();
        self.commit(outcome, &reading);
    }

    /// The client has left: reads the rest without it, within bounds, and commits.
    pub fn abandon(self: Box<Self>) {
        self.adopt_by_drains(Self::read_on);
    }

    /// The client has left before there was an answer.
    pub fn abandon_unanswered(self: Box<Self>, roundtrip: Roundtrip) {
        self.adopt_by_drains(|exchange| exchange.await_answer(roundtrip));
    }

    /// The call's time is over, and the client told so. What the service sends within bounds still counts: it may have done its work.
    pub fn time_out(mut self: Box<Self>) {
        self.is_overdue = true;
        self.abandon();
    }

    /// The same before there was an answer. A service that does not have the whole request is not made to have it.
    pub fn time_out_unanswered(mut self: Box<Self>, mut roundtrip: Roundtrip) {
        self.is_overdue = true;
        roundtrip.waited_in_vain();
        if self.upload.state() == UploadState::Complete && !roundtrip.is_sending() {
            self.abandon_unanswered(roundtrip);
        }
    }

    pub fn is_overdue(&self) -> bool {
        self.is_overdue
    }

    /// Hands an exchange without a client to those that end it in the background.
    fn adopt_by_drains<F>(self: Box<Self>, work: impl FnOnce(Box<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let gateway = Arc::clone(&self.gateway);
        gateway.drains.adopt(self, work);
    }

    /// Waits for the answer without the client, and reads it.
    async fn await_answer(mut self: Box<Self>, mut roundtrip: Roundtrip) {
        let Ok(head) = poll_fn(|cx| roundtrip.poll_head(cx)).await else {
            return self.end_as(Outcome::ClientAbort);
        };
        self.take_head(&head, roundtrip);
        self.read_on().await;
    }

    /// Reads the rest of the answer without the client. Where it breaks, its connection is not used again.
    async fn read_on(mut self: Box<Self>) {
        let is_whole = loop {
            match poll_fn(|cx| self.poll_frame(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => break false,
                None => break true,
            }
        };
        let reading = self.reading();
        self.commit(Outcome::ClientAbort, &reading);
        if is_whole {
            self.give_back();
        }
    }

    fn reports_in_json(&self, reading: &Option<Reading>) -> bool {
        let is_json = self.answer.as_ref().is_some_and(|answer| matches!(answer.reader, UsageReader::Json(_)));
        is_json && reading.as_ref().is_some_and(|reading| reading.units.is_reported())
    }

    fn reading(&self) -> Option<Reading> {
        self.answer.as_ref().map(|answer| answer.reader.finish())
    }

    fn commit(&mut self, outcome: Outcome, reading: &Option<Reading>) {
        let Some(charge) = self.charge.take() else {
            return;
        };
        let outcome = if self.is_overdue { Outcome::Timeout } else { outcome };
        let units = reading.map(|reading| reading.units).unwrap_or_default();
        let units_missing = outcome == Outcome::Ok && self.operation.has_units() && !units.is_reported();
        let response_bytes = self.answer.as_ref().map_or(0, |answer| answer.bytes);
        charge.commit(outcome, Tally { request_bytes: self.upload.bytes(), response_bytes, units, units_missing });
        let call = Call { protocol: self.dialect.into(), outcome: outcome.into() };
        self.gateway.metrics.calls.of(&call).inc();
    }
}

impl Drop for Exchange {
    /// A panic, or a drain that ran out of time: counted with what is known.
    fn drop(&mut self) {
        let reading = self.reading();
        // Before anything was sent, only a client that left drops its call.
        let outcome =
            if self.sent_to.is_none() && !std::thread::panicking() { Outcome::ClientAbort } else { Outcome::Aborted };
        self.commit(outcome, &reading);
    }
}

/// Whether and how an answer's body ends.
pub struct AnswerEnd<'a>(Option<&'a Answer>);

impl AnswerEnd<'_> {
    pub fn is_end_stream(&self) -> bool {
        self.0.is_none_or(|answer| answer.roundtrip.is_end_stream())
    }

    pub fn size_hint(&self) -> http_body::SizeHint {
        self.0.map_or_else(|| http_body::SizeHint::with_exact(0), |answer| answer.roundtrip.size_hint())
    }
}

fn grpc_status_is_ok(fields: &Fields) -> bool {
    fields.first(Name::GrpcStatus) == Some(b"0")
}

fn says_ok(trailers: &HeaderMap) -> bool {
    trailers.get("grpc-status").is_some_and(|status| status == "0")
}

/// A success status is not yet a success: the service also answers 200 with a code (protocol, section 8).
fn success(reading: &Option<Reading>) -> Outcome {
    match reading.as_ref().and_then(|reading| reading.code) {
        None | Some(0) => Outcome::Ok,
        Some(_) => Outcome::Refused,
    }
}
