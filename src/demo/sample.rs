//! The path of a call through the sample service: count it, obey its switches, run it, answer it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::json;

use super::answer::{Answer, Broken};
use super::call::{Operation, Outcome, Refusal, Request as Wanted, code};
use super::counts::{self, Counts, Ledger, Ticket};
use super::engine::Engine;
use super::grpc::{self, Failed};
use super::proto::Units;
use super::rest;
use super::switches::{Failure, Reset, Switches};

/// A gRPC message may have 128 MiB; its prefix comes on top.
const MAX_BODY: usize = (128 << 20) + 1024;

const AS_ASKED: &str = "the request asked for this answer";

/// A vector service with one state for everybody, in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct SampleService {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    engine: Engine,
    ledger: Arc<Ledger>,
    requests: AtomicU64,
}

/// Where a request goes. [`Operation::Other`] is a path where there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Rest(Operation),
    Grpc(Operation),
    /// Tells what came, as JSON.
    Echo,
    /// Sends the body and its trailers back while they come.
    EchoBody,
}

impl SampleService {
    pub fn new() -> Self {
        Self::default()
    }

    /// What was seen and given out so far; the same as `GET /sample/counts`.
    pub fn counts(&self) -> Counts {
        self.inner.ledger.counts()
    }

    /// What `x-sample-mark` said in the requests that came since this was last asked for.
    pub fn take_marks(&self) -> HashSet<u64> {
        self.inner.ledger.take_marks()
    }

    /// Runs one operation without any protocol, for example to fill a demo with documents.
    pub fn execute(&self, collection: &str, request: Wanted) -> Result<Outcome, Refusal> {
        self.inner.engine.execute(super::call::Call { collection: collection.to_owned(), request })
    }

    /// Answers one request. An error is not an answer: it breaks the connection, or the HTTP/2 stream.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> Result<Response<Answer>, Broken> {
        if let Some(path) = request.uri().path().strip_prefix("/sample/") {
            return Ok(self.inspect(request.method(), path));
        }
        let switches = Switches::read(request.headers());
        if let Some(mark) = switches.mark {
            self.inner.ledger.mark(mark);
        }
        if switches.refuse.as_ref().is_some_and(|token| self.inner.ledger.turns_away(token)) {
            return Err(Broken::Refused(h2::Reason::REFUSED_STREAM.into()));
        }
        let (head, body) = request.into_parts();
        let route = Route::of(&head);
        let ticket = self.inner.ledger.open(head, route.operation());
        if route == Route::EchoBody {
            wait(&switches).await?;
            return Ok(echo_body(body, ticket));
        }
        let (body, trailers) = if switches.early { Default::default() } else { read(body, &ticket).await? };
        wait(&switches).await?;
        let request_id = self.request_id(&ticket.head().headers);
        if switches.fails() {
            return Ok(fail_as_asked(route, &request_id, &switches, ticket));
        }
        Ok(match route {
            Route::Grpc(operation) => match grpc::decode(operation, ticket.head(), &body) {
                Ok(call) => grpc::respond(self.run(call, &switches), &request_id, &switches, ticket),
                Err(failed) => grpc::fail(&failed, &request_id, &switches, ticket),
            },
            Route::Rest(Operation::Other) => {
                let status = StatusCode::NOT_FOUND;
                rest::fail(status, code::INVALID_ARGUMENT, "there is no such path", &request_id, &switches, ticket)
            }
            Route::Rest(operation) => {
                let outcome = rest::decode(operation, ticket.head(), &body).and_then(|call| self.run(call, &switches));
                rest::respond(outcome, &request_id, &switches, ticket)
            }
            Route::Echo | Route::EchoBody => echo(&body, &trailers, &switches, ticket),
        })
    }

    fn run(&self, call: super::call::Call, switches: &Switches) -> Result<Outcome, Refusal> {
        let mut outcome = self.inner.engine.execute(call)?;
        outcome.units = match (outcome.units, switches.units) {
            _ if switches.no_usage => None,
            (Some(Units::Read(_)), Some(asked)) => Some(Units::Read(asked)),
            (Some(Units::Write(_)), Some(asked)) => Some(Units::Write(asked)),
            (units, _) => units,
        };
        Ok(outcome)
    }

    /// The id that the gateway gave, so that both sides of a test can be matched; else one of our own.
    fn request_id(&self, headers: &HeaderMap) -> String {
        match headers.get("x-request-id").and_then(|id| id.to_str().ok()) {
            Some(id) => id.to_owned(),
            None => format!("sample-{}", self.inner.requests.fetch_add(1, Ordering::Relaxed) + 1),
        }
    }

    /// The paths through which tests look inside. They are not counted.
    fn inspect(&self, method: &Method, path: &str) -> Response<Answer> {
        let ledger = &self.inner.ledger;
        let (status, body) = match (method, path) {
            (&Method::GET, "counts") => (StatusCode::OK, ledger.summary()),
            (&Method::GET, "requests") => (StatusCode::OK, ledger.recent()),
            (&Method::DELETE, "counts") => {
                ledger.reset();
                (StatusCode::OK, json!({}))
            }
            _ => (StatusCode::NOT_FOUND, json!({"code": code::INVALID_ARGUMENT, "message": "there is no such path"})),
        };
        let mut response = Response::new(Answer::uncounted(rest::to_json(&body)));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Route {
    fn of(head: &Parts) -> Self {
        let path = head.uri.path();
        match path {
            "/echo" => Self::Echo,
            "/echo/body" => Self::EchoBody,
            _ if grpc::is_grpc(&head.headers) => Self::Grpc(grpc::operation(path).unwrap_or(Operation::Other)),
            _ => Self::Rest(rest::operation(&head.method, path).unwrap_or(Operation::Other)),
        }
    }

    fn operation(self) -> Operation {
        match self {
            Self::Rest(operation) | Self::Grpc(operation) => operation,
            Self::Echo | Self::EchoBody => Operation::Other,
        }
    }
}

/// Keeps the client waiting, or breaks the connection in place of an answer.
async fn wait(switches: &Switches) -> Result<(), Broken> {
    if let Some(delay) = switches.delay {
        tokio::time::sleep(delay).await;
    }
    if switches.reset == Some(Reset::BeforeHead) { Err(Broken::BreaksOff) } else { Ok(()) }
}

async fn read(body: Incoming, ticket: &Ticket) -> Result<(Bytes, HeaderMap), Broken> {
    let collected = Limited::new(body, MAX_BODY).collect().await.map_err(Broken::Request)?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let body = collected.to_bytes();
    ticket.body_bytes(body.len());
    Ok((body, trailers))
}

fn fail_as_asked(route: Route, request_id: &str, switches: &Switches, ticket: Ticket) -> Response<Answer> {
    let refusal = || Refusal::new(switches.code.unwrap_or(code::INVALID_ARGUMENT), AS_ASKED);
    match (switches.status, route) {
        (Some(Failure::Http(status)), _) => {
            let code = switches.code.unwrap_or_else(|| i32::from(status.as_u16()));
            rest::fail(status, code, AS_ASKED, request_id, switches, ticket)
        }
        (Some(Failure::Grpc(status)), Route::Grpc(_)) => {
            let failed = Failed { status, message: AS_ASKED.to_owned(), code: switches.code };
            grpc::fail(&failed, request_id, switches, ticket)
        }
        (None, Route::Grpc(_)) => grpc::respond(Err(refusal()), request_id, switches, ticket),
        _ => rest::respond(Err(refusal()), request_id, switches, ticket),
    }
}

fn echo(body: &Bytes, trailers: &HeaderMap, switches: &Switches, ticket: Ticket) -> Response<Answer> {
    let head = ticket.head();
    let seen = json!({
        "method": head.method.as_str(),
        "target": counts::target(head),
        "authority": counts::authority(head),
        "version": format!("{:?}", head.version),
        "headers": counts::headers(&head.headers),
        "trailers": counts::headers(trailers),
        "body_bytes": body.len(),
    });
    let json = rest::to_json(&seen).into();
    let mut response = Response::new(Answer::new(rest::filled(json, switches.filler), switches, ticket));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn echo_body(body: Incoming, ticket: Ticket) -> Response<Answer> {
    let content_type = ticket.head().headers.get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(Answer::echo(body, ticket));
    response.headers_mut().extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
    response
}
