//! Heads of HTTP/1.1 (RFC 9112): that of a request is written, that of an answer is read, and how its body is framed is told.

use std::mem::MaybeUninit;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use http_body::Body;

use super::Outbound;
use crate::gateway::fields::{Fields, Name};
use crate::gateway::headers;
use crate::gateway::http1::{self, Chunks, Framing, Malformed, digits, write_field};
use crate::gateway::message::AnswerHead;

/// Fields of one head.
const FIELDS_MOST: usize = 100;
/// Interim answers to one request.
const INTERIM_MOST: u8 = 32;
/// Bytes of one head.
const HEAD_MOST: usize = 256 * 1024;

/// How the body of a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes are left.
    Length(u64),
    Chunked,
}

/// Writes the head of a request, and says how its body is to be sent. A length that the client declared is kept, since the body is held
/// to it.
pub fn write(request: &Outbound, into: &mut BytesMut) -> Sent {
    let Outbound { method, path, authority, fields, stamp, body } = request;
    into.put_slice(method.as_str().as_bytes());
    into.put_u8(b' ');
    into.put_slice(path.as_str().as_bytes());
    into.put_slice(b" HTTP/1.1\r\n");
    headers::write_upstream(fields, authority.as_ref(), stamp, into);
    let declared = fields.first(Name::ContentLength).and_then(digits);
    let known = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    let sent = match (declared, known) {
        (Some(length), _) => Sent::Length(length),
        (None, Some(0)) => Sent::Length(0),
        (None, Some(length)) => {
            write_field(&CONTENT_LENGTH, length.to_string().as_bytes(), into);
            Sent::Length(length)
        }
        (None, None) => {
            write_field(&TRANSFER_ENCODING, b"chunked", into);
            Sent::Chunked
        }
    };
    into.put_slice(b"\r\n");
    sent
}

/// The head of an answer, taken off the front of a buffer.
pub struct Answered {
    pub head: AnswerHead,
    pub framing: Framing,
    /// Whether the connection can be used again after the body.
    pub keeps: bool,
}

/// Reads the head of the answer to a request of this method, passing over interim ones, which are counted. `None`: more is needed.
pub fn read(input: &mut BytesMut, method: &Method, interim: &mut u8) -> Result<Option<Answered>, Malformed> {
    loop {
        let Some((head, is_old)) = read_one(input)? else {
            return if input.len() > HEAD_MOST { Err(Malformed("its head is too large")) } else { Ok(None) };
        };
        match head.status {
            // Nobody asked for another protocol.
            StatusCode::SWITCHING_PROTOCOLS => return Err(Malformed("it switches protocols")),
            status if status.is_informational() && *interim < INTERIM_MOST => *interim += 1,
            status if status.is_informational() => return Err(Malformed("it never comes to an end")),
            _ => return framed(head, is_old, method).map(Some),
        }
    }
}

/// One head, and whether it is one of HTTP/1.0.
fn read_one(input: &mut BytesMut) -> Result<Option<(AnswerHead, bool)>, Malformed> {
    let mut fields_read = [const { MaybeUninit::uninit() }; FIELDS_MOST];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, input, &mut fields_read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed("its head")),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed("its status"))?;
    let unusual = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason());
    let reason = unusual.map(|reason| Bytes::copy_from_slice(reason.as_bytes()));
    let is_old = parsed.version == Some(0);
    let fields = Fields::read(parsed.headers, length);
    input.advance(length);
    Ok(Some((AnswerHead { status, reason, fields }, is_old)))
}

/// RFC 9112, section 6.3, stricter: what can be read in two ways is malformed.
fn framed(mut head: AnswerHead, is_old: bool, method: &Method) -> Result<Answered, Malformed> {
    let AnswerHead { status, fields, .. } = &mut head;
    let mut keeps = !is_old && !http1::connection_says(fields, "close");
    let length = length(fields)?;
    let is_chunked = http1::is_chunked(fields)?;
    if is_chunked && is_old {
        return Err(Malformed("it is chunked over HTTP/1.0"));
    }
    let has_none = *method == Method::HEAD || matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // A body may follow all the same.
    keeps &= *status != StatusCode::NO_CONTENT || !is_chunked && length.unwrap_or(0) == 0;
    let framing = match length {
        _ if has_none => Framing::Length(0),
        _ if is_chunked => {
            // Who sends both may mean either.
            keeps &= length.is_none();
            fields.remove(Name::ContentLength);
            Framing::Chunked(Chunks::Size)
        }
        Some(length) => Framing::Length(length),
        None => Framing::Close,
    };
    keeps &= framing != Framing::Close;
    Ok(Answered { head, framing, keeps })
}

/// Where a length is given more than once it has to be the same, and is made one.
fn length(fields: &mut Fields) -> Result<Option<u64>, Malformed> {
    let mut lengths = fields.all(Name::ContentLength);
    let Some(first) = lengths.next() else { return Ok(None) };
    let length = digits(first).ok_or(Malformed("its length"))?;
    let mut repeated = false;
    for other in lengths {
        if digits(other) != Some(length) {
            return Err(Malformed("it has two lengths"));
        }
        repeated = true;
    }
    if repeated {
        fields.keep_first(Name::ContentLength);
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read_to(text: &str, method: &Method) -> Result<Option<Answered>, Malformed> {
        read(&mut BytesMut::from(text), method, &mut 0)
    }

    fn framing(fields: &str) -> Option<(Framing, bool)> {
        let answered = read_to(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), &Method::POST).ok()??;
        Some((answered.framing, answered.keeps))
    }

    #[test]
    fn a_head_is_read_and_taken_off_the_buffer() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Empty:\r\nx-two: 1\r\nx-two: 2\r\n\r\n";
        for length in 0..text.len() {
            assert!(read_to(&text[..length], &Method::GET).unwrap().is_none(), "{length}");
        }
        let mut input = BytesMut::from(text);
        input.extend_from_slice(b"abc");
        let answered = read(&mut input, &Method::GET, &mut 0).unwrap().unwrap();
        assert_eq!((answered.framing, answered.keeps), (Framing::Length(3), true));
        assert_eq!(&input[..], b"abc");
        let fields = answered.head.fields.into_map();
        assert_eq!((&fields["x-empty"], fields.len()), (&HeaderValue::from_static(""), 4));
        assert_eq!(fields.get_all("x-two").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let text =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        let answered = read_to(text, &Method::GET).unwrap().unwrap();
        assert_eq!(answered.head.status, StatusCode::NO_CONTENT);
        assert_eq!(answered.head.fields.count(), 0);
        assert!(matches!(read_to("HTTP/1.1 101 X\r\n\r\n", &Method::GET), Err(Malformed(_))));
        assert!(read_to("HTTP/1.1 100 Continue\r\n\r\n", &Method::GET).unwrap().is_none());
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(usize::from(INTERIM_MOST) + 1);
        assert!(matches!(read_to(&endless, &Method::GET), Err(Malformed(_))));
    }

    #[test]
    fn the_framing_is_told_from_the_head() {
        let chunked = Framing::Chunked(Chunks::Size);
        assert_eq!(framing("content-length: 0\r\n"), Some((Framing::Length(0), true)));
        assert_eq!(framing("content-length: 7\r\nContent-Length: 7\r\n"), Some((Framing::Length(7), true)));
        assert_eq!(framing("transfer-encoding: Chunked\r\n"), Some((chunked, true)));
        assert_eq!(framing("transfer-encoding: chunked\r\ncontent-length: 7\r\n"), Some((chunked, false)));
        assert_eq!(framing(""), Some((Framing::Close, false)));
        assert_eq!(framing("content-length: 7\r\nconnection: x, Close\r\n"), Some((Framing::Length(7), false)));
        for bad in [
            "content-length: 7\r\ncontent-length: 8\r\n",
            "content-length: 7, 7\r\n",
            "content-length: +7\r\n",
            "content-length: \r\n",
            "content-length: 99999999999999999999\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            " folded: x\r\n",
            "name : x\r\n",
        ] {
            assert_eq!(framing(bad), None, "{bad}");
        }
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        let with_length = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n";
        let answered = read_to(with_length, &Method::HEAD).unwrap().unwrap();
        assert_eq!((answered.framing, answered.keeps), (Framing::Length(0), true));
        assert_eq!(answered.head.fields.first(Name::ContentLength), Some(&b"7"[..]));
        for status in ["204 No Content", "304 Not Modified"] {
            let answered = read_to(&format!("HTTP/1.1 {status}\r\n\r\n"), &Method::GET).unwrap().unwrap();
            assert_eq!((answered.framing, answered.keeps), (Framing::Length(0), true), "{status}");
        }
    }

    #[test]
    fn an_old_service_is_understood_and_its_connection_not_kept() {
        let answered = read_to("HTTP/1.0 200 OK\r\ncontent-length: 7\r\nconnection: keep-alive\r\n\r\n", &Method::GET);
        assert_eq!(
            answered.unwrap().map(|answered| (answered.framing, answered.keeps)),
            Some((Framing::Length(7), false))
        );
        let chunked = read_to("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &Method::GET);
        assert!(matches!(chunked, Err(Malformed(_))));
    }

    #[test]
    fn a_reason_of_its_own_is_kept() {
        let answered =
            read_to("HTTP/1.1 404 No Collection\r\ncontent-length: 0\r\n\r\n", &Method::GET).unwrap().unwrap();
        assert_eq!(answered.head.reason.unwrap(), "No Collection");
    }

    #[test]
    fn a_head_that_never_ends_is_refused() {
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\nx: ");
        input.extend_from_slice(&vec![b'y'; HEAD_MOST]);
        assert!(matches!(read(&mut input, &Method::GET, &mut 0), Err(Malformed(_))));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(FIELDS_MOST + 1));
        assert!(matches!(read_to(&many, &Method::GET), Err(Malformed(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut input = BytesMut::from("HTTP/1.1 200 OK\r\n");
            input.extend_from_slice(&tail);
            let _ = read(&mut input, &Method::GET, &mut 0);
        }
    }
}
