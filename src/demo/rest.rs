//! DashVector over HTTP/1.1 and JSON: which call a request is, and how its outcome is written.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::answer::{Answer, Part};
use super::call::{Call, Operation, Outcome, Output, Refusal, Request, code};
use super::counts::Ticket;
use super::proto::request::{FetchDocs, Named};
use super::proto::{DocOp, RequestUsage};
use super::switches::Switches;

/// The operation of a method and path; `None` if there is nothing there.
pub fn operation(method: &Method, path: &str) -> Option<Operation> {
    let segments = segments(path)?;
    Some(match (method.as_str(), segments.as_slice()) {
        ("GET", []) => Operation::GetVersion,
        ("POST", ["collections"]) => Operation::CreateCollection,
        ("GET", ["collections"]) => Operation::ListCollections,
        ("GET", ["collections", _]) => Operation::DescribeCollection,
        ("DELETE", ["collections", _]) => Operation::DeleteCollection,
        ("GET", ["collections", _, "stats"]) => Operation::StatsCollection,
        ("POST", ["collections", _, "docs"]) => Operation::Insert,
        ("PUT", ["collections", _, "docs"]) => Operation::Update,
        ("POST", ["collections", _, "docs", "upsert"]) => Operation::Upsert,
        ("DELETE", ["collections", _, "docs"]) => Operation::Delete,
        ("GET", ["collections", _, "docs"]) => Operation::Fetch,
        ("POST", ["collections", _, "query"]) => Operation::Query,
        ("POST", ["collections", _, "query_group_by"]) => Operation::QueryGroupBy,
        ("POST", ["collections", _, "partitions"]) => Operation::CreatePartition,
        ("GET", ["collections", _, "partitions"]) => Operation::ListPartitions,
        ("GET", ["collections", _, "partitions", _]) => Operation::DescribePartition,
        ("DELETE", ["collections", _, "partitions", _]) => Operation::DeletePartition,
        ("GET", ["collections", _, "partitions", _, "stats"]) => Operation::StatsPartition,
        _ => return None,
    })
}

/// Reads the call out of the head and the body.
pub fn decode(operation: Operation, head: &Parts, body: &[u8]) -> Result<Call, Refusal> {
    let segments = segments(head.uri.path()).unwrap_or_default();
    let segment = |at: usize| segments.get(at).copied().unwrap_or_default().to_owned();
    let partition = || Named { name: segment(3) };
    let request = match operation {
        Operation::GetVersion => Request::GetVersion,
        Operation::CreateCollection => Request::CreateCollection(json(body)?),
        Operation::DeleteCollection => Request::DeleteCollection,
        Operation::DescribeCollection => Request::DescribeCollection,
        Operation::ListCollections => Request::ListCollections,
        Operation::StatsCollection => Request::StatsCollection,
        Operation::CreatePartition => Request::CreatePartition(json(body)?),
        Operation::DeletePartition => Request::DeletePartition(partition()),
        Operation::DescribePartition => Request::DescribePartition(partition()),
        Operation::ListPartitions => Request::ListPartitions,
        Operation::StatsPartition => Request::StatsPartition(partition()),
        Operation::Insert => Request::Write(DocOp::Insert, json(body)?),
        Operation::Update => Request::Write(DocOp::Update, json(body)?),
        Operation::Upsert => Request::Write(DocOp::Upsert, json(body)?),
        Operation::Delete => Request::Delete(json(body)?),
        Operation::Query => Request::Query(json(body)?),
        Operation::QueryGroupBy => Request::QueryGroupBy(json(body)?),
        Operation::Fetch => Request::Fetch(fetch(head.uri.query().unwrap_or_default())),
        Operation::Other => return Err(Refusal::new(code::INVALID_ARGUMENT, "there is no such path")),
    };
    Ok(Call { collection: segment(1), request })
}

/// The whole answer, with its units if it has any.
pub fn respond(
    outcome: Result<Outcome, Refusal>,
    request_id: &str,
    switches: &Switches,
    mut ticket: Ticket,
) -> Response<Answer> {
    let (output, units, code, message) = match outcome {
        Ok(outcome) => (outcome.output, outcome.units, 0, String::new()),
        Err(refusal) => (Output::Nothing, None, refusal.code, refusal.message),
    };
    ticket.answer(units);
    let (version, output) = match &output {
        Output::Version(version) => (Some(version.as_str()), None),
        Output::Nothing => (None, None),
        other => (None, Some(other)),
    };
    let usage = units.map(|units| RequestUsage { units: Some(units) });
    let message = if code == 0 { "Success" } else { &message };
    envelope(StatusCode::OK, &Envelope { request_id, code, message, version, output, usage }, switches, ticket)
}

/// An answer that is not DashVector's, in the same form of body.
pub fn fail(
    status: StatusCode,
    code: i32,
    message: &str,
    request_id: &str,
    switches: &Switches,
    ticket: Ticket,
) -> Response<Answer> {
    envelope(
        status,
        &Envelope { request_id, code, message, version: None, output: None, usage: None },
        switches,
        ticket,
    )
}

#[derive(Serialize)]
struct Envelope<'a> {
    request_id: &'a str,
    code: i32,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a Output>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<RequestUsage>,
}

fn envelope(status: StatusCode, envelope: &Envelope<'_>, switches: &Switches, ticket: Ticket) -> Response<Answer> {
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let json = if bodiless { Bytes::new() } else { Bytes::from(to_json(envelope)) };
    let mut response = Response::new(Answer::new(filled(json, switches.filler), switches, ticket));
    *response.status_mut() = status;
    if !bodiless {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

/// JSON that this service makes; every value in it can be written.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// A JSON object with so many bytes of filler: `{"filler":"xxx…",` and then the object without its opening brace.
pub fn filled(json: Bytes, filler: u64) -> Vec<Part> {
    if filler == 0 || json.is_empty() {
        return vec![Part::Bytes(json)];
    }
    let opening = Part::Bytes(Bytes::from_static(b"{\"filler\":\""));
    // It is an object, so there is a first byte, the brace.
    vec![opening, Part::Filler(filler), Part::Bytes(Bytes::from_static(b"\",")), Part::Bytes(json.slice(1..))]
}

/// The segments after `/v1`; none for the version, which is not under it.
fn segments(path: &str) -> Option<Vec<&str>> {
    if path == "/service_version" {
        return Some(Vec::new());
    }
    Some(path.strip_prefix("/v1/")?.split('/').collect())
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::new(code::INVALID_JSON, format!("the body: {error}")))
}

fn fetch(query: &str) -> FetchDocs {
    let mut request = FetchDocs::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8_lossy();
        match name {
            "ids" => request.ids = value.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect(),
            "partition" => request.partition = value.into_owned(),
            _ => {}
        }
    }
    request
}
