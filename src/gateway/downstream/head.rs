//! Heads of HTTP/1.1 (RFC 9112): that of a request is read, that of its answer is written.

use std::mem::MaybeUninit;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{Method, StatusCode, Uri, Version};
use http_body::SizeHint;

use super::date;
use crate::gateway::fields::{Fields, Name};
use crate::gateway::headers;
use crate::gateway::http1::{self, Chunks, Framing, digits, write_field};
use crate::gateway::message::{AnswerHead, RequestHead};
use crate::verdict::Denial;

/// Room for the fields of a usual head; where more are allowed, it is made for a head that has them.
const FIELDS_USUAL: usize = 64;

/// How large a head may be before it is refused unread. Twice our own limits, so that one a little above them is still read and
/// answered as a request.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes: usize,
    pub fields: usize,
}

/// The head of a request.
#[derive(Debug)]
pub struct Asked {
    pub head: RequestHead,
    pub framing: Framing,
    pub manner: Manner,
    /// The client sends the body only once it is told to go on.
    pub expects: bool,
    /// Bytes of the head.
    pub length: usize,
}

/// What the answer to a request has to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub is_head: bool,
    /// HTTP/1.0.
    pub is_old: bool,
    /// Whether another request may follow.
    pub keeps: bool,
    pub takes_trailers: bool,
}

impl Manner {
    /// That of a request of which nothing is known.
    pub const UNREAD: Self = Self { is_head: false, is_old: false, keeps: false, takes_trailers: false };
}

/// How the body of an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes are left.
    Length(u64),
    Chunked,
    /// Until the connection ends.
    Close,
    /// Whatever it is, it is not sent.
    Nothing,
}

/// Whether a head may end within `input`, of which `seen` bytes were looked at before. Else whoever sends byte by byte would have it
/// parsed as often.
pub fn may_end(input: &[u8], seen: usize) -> bool {
    let fresh = input.get(seen.saturating_sub(3)..).unwrap_or_default();
    memchr::memchr_iter(b'\n', fresh).any(|at| {
        let rest = fresh.get(at + 1..).unwrap_or_default();
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    })
}

/// Reads the head that `input` begins with. `None`: more is needed.
pub fn read(input: &[u8], bounds: Bounds) -> Result<Option<Asked>, Denial> {
    let mut usual = [const { MaybeUninit::uninit() }; FIELDS_USUAL];
    let read = match parse(input, &mut usual) {
        Err(Denial::HeadersTooLarge) if bounds.fields > FIELDS_USUAL => {
            parse(input, &mut vec![MaybeUninit::uninit(); bounds.fields])
        }
        read => read,
    };
    match read {
        Ok(None) if input.len() > bounds.bytes => Err(Denial::HeadersTooLarge),
        read => read,
    }
}

fn parse<'i>(input: &'i [u8], room: &mut [MaybeUninit<httparse::Header<'i>>]) -> Result<Option<Asked>, Denial> {
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(input, room) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Denial::HeadersTooLarge),
        Err(_) => return Err(Denial::Malformed),
    };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(Denial::Malformed) };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Denial::Malformed)?;
    // What is longer than an address can be is not malformed.
    let too_long = |_| if target.len() >= usize::from(u16::MAX) { Denial::HeadersTooLarge } else { Denial::Malformed };
    let uri = Uri::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes())).map_err(too_long)?;
    let is_old = parsed.version == Some(0);
    let version = if is_old { Version::HTTP_10 } else { Version::HTTP_11 };
    let head = RequestHead { method, uri, version, fields: Fields::read(parsed.headers, length) };
    let framing = framing(&head.fields, is_old)?;
    let manner = manner(&head, is_old);
    let expects = !is_old && framing != Framing::Length(0) && expects(&head.fields);
    Ok(Some(Asked { head, framing, manner, expects, length }))
}

/// RFC 9112, section 6.3, stricter: a request that can be read in two ways is not read.
fn framing(fields: &Fields, is_old: bool) -> Result<Framing, Denial> {
    let is_chunked = http1::is_chunked(fields).map_err(|_| Denial::Malformed)?;
    let mut lengths = fields.all(Name::ContentLength);
    match (lengths.next(), lengths.next()) {
        (None, _) if is_chunked && !is_old => Ok(Framing::Chunked(Chunks::Size)),
        (None, _) if !is_chunked => Ok(Framing::Length(0)),
        (Some(length), None) if !is_chunked => digits(length).map(Framing::Length).ok_or(Denial::Malformed),
        _ => Err(Denial::Malformed),
    }
}

fn manner(head: &RequestHead, is_old: bool) -> Manner {
    let fields = &head.fields;
    let keeps = match fields.has(Name::Connection) {
        false => !is_old,
        true if is_old => http1::connection_says(fields, "keep-alive"),
        true => !http1::connection_says(fields, "close"),
    };
    let takes_trailers = !is_old && headers::accepts_trailers(fields);
    Manner { is_head: head.method == Method::HEAD, is_old, keeps, takes_trailers }
}

fn expects(fields: &Fields) -> bool {
    fields.first(Name::Expect).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// Writes the head of an answer whose body is of this size, and says how that is to be sent. `manner` learns where the connection cannot
/// be kept.
pub fn write(answer: &AnswerHead, size: &SizeHint, manner: &mut Manner, into: &mut BytesMut) -> Sent {
    let status = answer.status;
    write_status(answer, manner.is_old, into);
    let is_bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let (mut declared, mut has_date) = (None, false);
    answer.fields.write_where(into, |field| match field.name {
        Name::Connection => {
            manner.keeps &= !http1::has_token(field.value, "close");
            false
        }
        // RFC 9110, section 8.6.
        Name::ContentLength if status == StatusCode::NO_CONTENT => false,
        Name::ContentLength => {
            declared = digits(field.value);
            true
        }
        Name::Date => {
            has_date = true;
            true
        }
        _ => true,
    });
    let sent = match (declared, size.exact()) {
        _ if is_bodiless => Sent::Nothing,
        (Some(_), _) if manner.is_head => Sent::Nothing,
        (Some(length), _) => Sent::Length(length),
        (None, Some(0)) | (None, None) if manner.is_head => Sent::Nothing,
        (None, Some(length)) => {
            write_number(length, into);
            if manner.is_head { Sent::Nothing } else { Sent::Length(length) }
        }
        (None, None) if manner.is_old => {
            manner.keeps = false;
            Sent::Close
        }
        (None, None) => {
            write_field(&TRANSFER_ENCODING, b"chunked", into);
            Sent::Chunked
        }
    };
    match manner {
        Manner { keeps: false, .. } => write_field(&CONNECTION, b"close", into),
        Manner { is_old: true, .. } => write_field(&CONNECTION, b"keep-alive", into),
        _ => {}
    }
    if !has_date && let Some(now) = date() {
        write_field(&DATE, now.as_bytes(), into);
    }
    into.put_slice(b"\r\n");
    sent
}

fn write_status(answer: &AnswerHead, is_old: bool, into: &mut BytesMut) {
    let status = answer.status;
    into.put_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    into.put_slice(status.as_str().as_bytes());
    into.put_u8(b' ');
    match &answer.reason {
        Some(reason) => into.put_slice(reason),
        None => into.put_slice(status.canonical_reason().unwrap_or_default().as_bytes()),
    }
    into.put_slice(b"\r\n");
}

fn write_number(length: u64, into: &mut BytesMut) {
    write_field(&CONTENT_LENGTH, length.to_string().as_bytes(), into);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { bytes: 1024, fields: 200 };

    fn asked(fields: &str) -> Asked {
        read(format!("POST /x HTTP/1.1\r\n{fields}\r\n").as_bytes(), BOUNDS).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_read_only_once_it_is_there() {
        let text = b"\r\nPOST /a?b HTTP/1.1\r\nHost: a.test\r\nx-empty:\r\ncontent-length: 3\r\n\r\n";
        for length in 0..text.len() {
            assert!(read(&text[..length], BOUNDS).unwrap().is_none(), "{length}");
            assert!(!may_end(&text[..length], length / 2), "{length}");
        }
        let asked = read(text, BOUNDS).unwrap().unwrap();
        assert_eq!((asked.length, asked.framing), (text.len(), Framing::Length(3)));
        assert_eq!((asked.head.uri.to_string(), asked.head.fields.count()), ("/a?b".to_owned(), 3));
        assert!((0..text.len()).all(|seen| may_end(text, seen)));
    }

    #[test]
    fn more_fields_than_usual_are_read() {
        let many = "x: y\r\n".repeat(FIELDS_USUAL * 2);
        assert_eq!(asked(&many).head.fields.count(), FIELDS_USUAL * 2);
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(201));
        assert_eq!(read(head.as_bytes(), BOUNDS).unwrap_err(), Denial::HeadersTooLarge);
        assert_eq!(read(&[b'x'; 1025], BOUNDS).unwrap_err(), Denial::HeadersTooLarge);
        let endless = format!("GET / HTTP/1.1\r\n{}z: {}", "x: y\r\n".repeat(FIELDS_USUAL + 6), "a".repeat(1024));
        assert_eq!(read(endless.as_bytes(), BOUNDS).unwrap_err(), Denial::HeadersTooLarge);
    }

    #[test]
    fn an_expectation_counts_only_where_there_is_a_body() {
        assert!(asked("expect: 100-continue\r\ncontent-length: 1\r\n").expects);
        assert!(asked("expect: 100-continue\r\ntransfer-encoding: chunked\r\n").expects);
        assert!(!asked("expect: 100-continue\r\n").expects);
        assert!(!asked("expect: something\r\ncontent-length: 1\r\n").expects);
    }

    fn written(fields: &[(&'static str, &'static str)], size: SizeHint, mut manner: Manner) -> (Sent, bool, String) {
        let mut lines = Fields::default();
        for (name, value) in [("date", "now")].iter().chain(fields) {
            lines.add(name.as_bytes(), value.as_bytes());
        }
        let answer = AnswerHead { status: StatusCode::OK, reason: None, fields: lines };
        let mut head = BytesMut::new();
        let sent = write(&answer, &size, &mut manner, &mut head);
        let text = String::from_utf8(head.to_vec()).unwrap();
        (sent, manner.keeps, text.replace("date: now\r\n", ""))
    }

    const KEPT: Manner = Manner { is_head: false, is_old: false, keeps: true, takes_trailers: false };

    #[test]
    fn an_answer_is_framed_by_what_is_known_of_it() {
        let (exact, unknown) = (SizeHint::with_exact, SizeHint::default);
        let ok = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}\r\n");
        assert_eq!(written(&[], exact(7), KEPT), (Sent::Length(7), true, ok("content-length: 7\r\n")));
        assert_eq!(written(&[("content-length", "7")], unknown(), KEPT).0, Sent::Length(7));
        assert_eq!(written(&[], unknown(), KEPT), (Sent::Chunked, true, ok("transfer-encoding: chunked\r\n")));
        let head = Manner { is_head: true, ..KEPT };
        assert_eq!(written(&[], exact(7), head), (Sent::Nothing, true, ok("content-length: 7\r\n")));
        assert_eq!(written(&[], unknown(), head), (Sent::Nothing, true, ok("")));
        let old = Manner { is_old: true, ..KEPT };
        let (sent, keeps, text) = written(&[], unknown(), old);
        assert_eq!((sent, keeps, &*text), (Sent::Close, false, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n"));
        let (sent, keeps, text) = written(&[("connection", "close")], exact(0), KEPT);
        assert_eq!((sent, keeps, text), (Sent::Length(0), false, ok("content-length: 0\r\nconnection: close\r\n")));
    }
}
