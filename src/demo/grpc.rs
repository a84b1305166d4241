//! DashVector over gRPC: eighteen unary methods, one message each way.

use bytes::{BufMut, Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::answer::{Answer, Part};
use super::call::{Call, Operation, Outcome, Output, Refusal, Request};
use super::counts::Ticket;
use super::proto::request::Named;
use super::proto::{DocOp, RequestUsage, response};
use super::switches::Switches;

/// Five bytes stand before every message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The field in which filler travels; no message knows it, and it comes first.
const FILLER_TAG: u32 = 100;

const NOT_IMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;

const MESSAGE_ESCAPES: &AsciiSet = &CONTROLS.add(b'%');

/// A call that ends without a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The gRPC status, 1–16.
    pub status: u8,
    pub message: String,
    /// Goes into `extra-code`.
    pub code: Option<i32>,
}

pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The operation of a path. The name of the service does not matter: other SDKs may use another one.
pub fn operation(path: &str) -> Option<Operation> {
    Some(match path.rsplit('/').next()? {
        "get_version" => Operation::GetVersion,
        "create_collection" => Operation::CreateCollection,
        "delete_collection" => Operation::DeleteCollection,
        "describe_collection" => Operation::DescribeCollection,
        "list_collections" => Operation::ListCollections,
        "stats_collection" => Operation::StatsCollection,
        "create_partition" => Operation::CreatePartition,
        "delete_partition" => Operation::DeletePartition,
        "describe_partition" => Operation::DescribePartition,
        "list_partitions" => Operation::ListPartitions,
        "stats_partition" => Operation::StatsPartition,
        "insert_doc" => Operation::Insert,
        "update_doc" => Operation::Update,
        "upsert_doc" => Operation::Upsert,
        "delete_doc" => Operation::Delete,
        "fetch_doc" => Operation::Fetch,
        "query_doc" => Operation::Query,
        "query_doc_group_by" => Operation::QueryGroupBy,
        _ => return None,
    })
}

/// Reads the call out of the metadata and the one message of the body.
pub fn decode(operation: Operation, head: &Parts, body: &[u8]) -> Result<Call, Failed> {
    let message = unframe(body)?;
    let collection = head.headers.get("collection-name").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let call = |request| Call { collection: collection.to_owned(), request };
    Ok(match operation {
        Operation::DeleteCollection => Call { collection: named(message)?.name, request: Request::DeleteCollection },
        Operation::DescribeCollection => {
            Call { collection: named(message)?.name, request: Request::DescribeCollection }
        }
        Operation::GetVersion => call(Request::GetVersion),
        Operation::CreateCollection => call(Request::CreateCollection(read(message)?)),
        Operation::ListCollections => call(Request::ListCollections),
        Operation::StatsCollection => call(Request::StatsCollection),
        Operation::CreatePartition => call(Request::CreatePartition(read(message)?)),
        Operation::DeletePartition => call(Request::DeletePartition(read(message)?)),
        Operation::DescribePartition => call(Request::DescribePartition(read(message)?)),
        Operation::ListPartitions => call(Request::ListPartitions),
        Operation::StatsPartition => call(Request::StatsPartition(read(message)?)),
        Operation::Insert => call(Request::Write(DocOp::Insert, read(message)?)),
        Operation::Update => call(Request::Write(DocOp::Update, read(message)?)),
        Operation::Upsert => call(Request::Write(DocOp::Upsert, read(message)?)),
        Operation::Delete => call(Request::Delete(read(message)?)),
        Operation::Query => call(Request::Query(read(message)?)),
        Operation::QueryGroupBy => call(Request::QueryGroupBy(read(message)?)),
        Operation::Fetch => call(Request::Fetch(read(message)?)),
        Operation::Other => return Err(Failed::not_a_method()),
    })
}

/// The whole answer: one message and `grpc-status: 0`, also for a refusal, whose code is in the message.
pub fn respond(
    outcome: Result<Outcome, Refusal>,
    request_id: &str,
    switches: &Switches,
    mut ticket: Ticket,
) -> Response<Answer> {
    ticket.answer(outcome.as_ref().ok().and_then(|outcome| outcome.units));
    let message = encode(outcome, request_id.to_owned());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response =
        Response::new(Answer::with_trailers(frame(message, switches.filler), trailers, switches, ticket));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An answer in one block of headers.
pub fn fail(failed: &Failed, request_id: &str, switches: &Switches, ticket: Ticket) -> Response<Answer> {
    let mut response = Response::new(Answer::new([Part::Bytes(Bytes::new())], switches, ticket));
    let message = utf8_percent_encode(&failed.message, MESSAGE_ESCAPES).to_string();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(failed.status)));
    headers.extend(HeaderValue::try_from(message).ok().map(|it| (http::HeaderName::from_static("grpc-message"), it)));
    headers.extend(HeaderValue::try_from(request_id).ok().map(|it| (http::HeaderName::from_static("request-id"), it)));
    headers.extend(failed.code.map(|code| (http::HeaderName::from_static("extra-code"), HeaderValue::from(code))));
    response
}

impl Failed {
    pub fn not_a_method() -> Self {
        Self { status: NOT_IMPLEMENTED, message: "there is no such method".to_owned(), code: None }
    }

    fn internal(message: String) -> Self {
        Self { status: INTERNAL, message, code: None }
    }
}

/// The bytes of the response message.
fn encode(outcome: Result<Outcome, Refusal>, request_id: String) -> Vec<u8> {
    let (code, message) = (0, String::new());
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(refusal) => {
            return response::Bare { request_id, code: refusal.code, message: refusal.message }.encode_to_vec();
        }
    };
    let usage = outcome.units.map(|units| RequestUsage { units: Some(units) });
    match outcome.output {
        Output::Nothing => response::Bare { request_id, code, message }.encode_to_vec(),
        Output::Version(version) => response::Version { request_id, code, message, version }.encode_to_vec(),
        Output::Names(output) => response::Names { request_id, code, message, output }.encode_to_vec(),
        Output::Collection(info) => {
            response::Collection { request_id, code, message, output: Some(info) }.encode_to_vec()
        }
        Output::Stats(stats) => response::Stats { request_id, code, message, output: Some(stats) }.encode_to_vec(),
        Output::Status(output) => response::Partition { request_id, code, message, output }.encode_to_vec(),
        Output::PartitionStats(stats) => {
            response::StatsOfPartition { request_id, code, message, output: Some(stats) }.encode_to_vec()
        }
        Output::Written(output) => response::Written { request_id, code, message, output, usage }.encode_to_vec(),
        Output::Docs(output) => response::Docs { request_id, code, message, output, usage }.encode_to_vec(),
        Output::Fetched(output) => response::Fetched { request_id, code, message, output, usage }.encode_to_vec(),
        Output::Groups(output) => response::Groups { request_id, code, message, output }.encode_to_vec(),
    }
}

fn read<M: Message + Default>(message: &[u8]) -> Result<M, Failed> {
    M::decode(message).map_err(|error| Failed::internal(error.to_string()))
}

fn named(message: &[u8]) -> Result<Named, Failed> {
    read(message)
}

/// The one message of a unary request.
fn unframe(body: &[u8]) -> Result<&[u8], Failed> {
    let wrong = || Failed::internal("the body is not one message".to_owned());
    let (prefix, message) = body.split_first_chunk::<PREFIX>().ok_or_else(wrong)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(Failed { message: "compression is not supported".to_owned(), ..Failed::not_a_method() });
    }
    if u32::try_from(message.len()) == Ok(u32::from_be_bytes(length)) { Ok(message) } else { Err(wrong()) }
}

/// The prefix, the filler as an unknown field if there is any, and the message.
fn frame(message: Vec<u8>, filler: u64) -> Vec<Part> {
    let mut opening = BytesMut::with_capacity(PREFIX + 16);
    let key = if filler > 0 { key_len(FILLER_TAG) + encoded_len_varint(filler) } else { 0 };
    let length = key as u64 + filler + message.len() as u64;
    opening.put_u8(0);
    opening.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    if filler > 0 {
        encode_key(FILLER_TAG, WireType::LengthDelimited, &mut opening);
        encode_varint(filler, &mut opening);
    }
    if filler == 0 {
        opening.extend_from_slice(&message);
        return vec![Part::Bytes(opening.freeze())];
    }
    vec![Part::Bytes(opening.freeze()), Part::Filler(filler), Part::Bytes(message.into())]
}
