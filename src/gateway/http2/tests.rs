//! A connection that is told frames by hand.

mod as_client;
mod with_h2;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use proptest::prelude::*;

use super::frame::{self, ACK, END_HEADERS, END_STREAM, HEAD, Head, Kind, PADDED};
use super::link::Link;
use super::*;
use crate::gateway::fields::Fields;
use crate::gateway::message::AnswerHead;
use crate::verdict::Denial;

const BOUNDS: Bounds = Bounds {
    stream_window: 65_535,
    connection_window: 100_000,
    streams: 3,
    head_bytes: 2000,
    head_within: Duration::from_secs(10),
};

fn framed(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame::put(kind, flags, stream, payload, &mut bytes);
    bytes.to_vec()
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    fields.iter().for_each(|(name, value)| hpack::put(name.as_bytes(), value.as_bytes(), &mut bytes));
    bytes.to_vec()
}

fn asked(more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&[(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x")], more].concat())
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    framed(Kind::Headers, flags | END_HEADERS, stream, &asked(&[]))
}

/// A server that was greeted; what it has said so far is forgotten.
fn server() -> Link {
    let mut link = Link::new(Side::Server, BOUNDS);
    link.take(&[&PREFACE[..], &framed(Kind::Settings, 0, 0, &[])].concat()).unwrap();
    link.output.clear();
    link
}

/// What lies in the outbox, frame by frame.
fn said(link: &mut Link) -> Vec<(Kind, u8, u32, Vec<u8>)> {
    let (mut said, mut bytes) = (Vec::new(), link.output.last().split().to_vec());
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        let head = Head::read(*head);
        let (payload, rest) = rest.split_at(head.length as usize);
        said.push((head.kind, head.flags, head.stream, payload.to_vec()));
        bytes = rest.to_vec();
    }
    said
}

fn resets(link: &mut Link) -> Vec<(u32, u32)> {
    let resets = said(link).into_iter().filter(|(kind, ..)| *kind == Kind::RstStream);
    resets.map(|(_, _, stream, payload)| (stream, u32::from_be_bytes(payload.try_into().unwrap()))).collect()
}

#[test]
fn a_request_is_handed_over_with_what_came_with_it() {
    let bytes =
        [request(1, 0), framed(Kind::Data, END_STREAM | PADDED, 1, b"\x02abc\0\0"), request(3, END_STREAM)].concat();
    for size in [1, 2, 9, 10, 50, bytes.len()] {
        let mut link = server();
        bytes.chunks(size).for_each(|piece| link.take(piece).unwrap());
        let begun = link.take_begun();
        assert_eq!(begun.iter().map(|begun| begun.stream).collect::<Vec<_>>(), [1, 3]);
        let head = begun[0].head.as_ref().unwrap();
        assert_eq!((head.method.as_str(), head.uri.to_string()), ("POST", "http://a.test/x".to_owned()));
        let stream = link.streams.get(1).unwrap();
        assert!(stream.is_received && stream.content.all() == "abc");
        assert!(link.streams.get(3).unwrap().is_received);
    }
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let headers = |stream, flags: u8, block: &[u8]| framed(Kind::Headers, flags, stream, block);
    let ping = framed(Kind::Ping, 0, 0, &[0; 8]);
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("DATA of the connection", framed(Kind::Data, 0, 0, b"x"), Reason::PROTOCOL_ERROR),
        ("DATA before HEADERS", framed(Kind::Data, 0, 1, b"x"), Reason::PROTOCOL_ERROR),
        ("an even stream", request(2, END_STREAM), Reason::PROTOCOL_ERROR),
        ("HEADERS of the connection", request(0, END_STREAM), Reason::PROTOCOL_ERROR),
        ("a block that is cut", [headers(1, 0, &asked(&[])), ping.clone()].concat(), Reason::PROTOCOL_ERROR),
        (
            "a block that goes on elsewhere",
            [headers(1, 0, &asked(&[])), framed(Kind::Continuation, END_HEADERS, 3, &[])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        ("CONTINUATION of nothing", framed(Kind::Continuation, END_HEADERS, 1, &[]), Reason::PROTOCOL_ERROR),
        ("no HPACK", headers(1, END_HEADERS, &[0x80]), Reason::COMPRESSION_ERROR),
        ("more padding than HEADERS", headers(1, END_HEADERS | PADDED, &[5, 0x83]), Reason::PROTOCOL_ERROR),
        (
            "more padding than DATA",
            [request(1, 0), framed(Kind::Data, PADDED, 1, &[3, 0, 0])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        ("a push", framed(Kind::PushPromise, END_HEADERS, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        ("a short PING", framed(Kind::Ping, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("a PING of a stream", framed(Kind::Ping, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        ("SETTINGS cut", framed(Kind::Settings, 0, 0, &[0; 5]), Reason::FRAME_SIZE_ERROR),
        ("SETTINGS with an ACK", framed(Kind::Settings, ACK, 0, &[0; 6]), Reason::FRAME_SIZE_ERROR),
        ("a window too large", framed(Kind::Settings, 0, 0, b"\0\x04\x80\0\0\0"), Reason::FLOW_CONTROL_ERROR),
        ("frames too small", framed(Kind::Settings, 0, 0, b"\0\x05\0\0\0\x10"), Reason::PROTOCOL_ERROR),
        ("a push that is half wanted", framed(Kind::Settings, 0, 0, b"\0\x02\0\0\0\x02"), Reason::PROTOCOL_ERROR),
        ("a window that does not grow", framed(Kind::WindowUpdate, 0, 0, &[0; 4]), Reason::PROTOCOL_ERROR),
        (
            "a window that overflows",
            framed(Kind::WindowUpdate, 0, 0, &[0x7f, 255, 255, 255]),
            Reason::FLOW_CONTROL_ERROR,
        ),
        ("a window of an idle stream", framed(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 1]), Reason::PROTOCOL_ERROR),
        ("a reset of an idle stream", framed(Kind::RstStream, 0, 1, &[0; 4]), Reason::PROTOCOL_ERROR),
        ("a long reset", [request(1, 0), framed(Kind::RstStream, 0, 1, &[0; 5])].concat(), Reason::FRAME_SIZE_ERROR),
        ("a short GOAWAY", framed(Kind::GoAway, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("a short PRIORITY", framed(Kind::Priority, 0, 1, &[0; 4]), Reason::FRAME_SIZE_ERROR),
        (
            "a frame too large",
            Head { length: 16_385, kind: Kind::Unknown, flags: 0, stream: 1 }.written().to_vec(),
            Reason::FRAME_SIZE_ERROR,
        ),
    ];
    for (what, bytes, reason) in cases {
        let mut link = server();
        match link.take(&bytes) {
            Err(Error::Broke(is, _)) => assert_eq!(is, reason, "{what}"),
            went => panic!("{what}: {went:?}"),
        }
        link.fail(Error::Broke(reason, "x"));
        let (kind, _, _, payload) = said(&mut link).pop().unwrap();
        assert_eq!((kind, &payload[4..]), (Kind::GoAway, &reason.0.to_be_bytes()[..]), "{what}");
    }
    let mut link = Link::new(Side::Server, BOUNDS);
    assert!(link.take(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").is_err());
    let mut link = Link::new(Side::Server, BOUNDS);
    assert!(link.take(&[&PREFACE[..], &ping].concat()).is_err(), "SETTINGS come first");
}

#[test]
fn what_is_no_message_ends_its_stream_alone() {
    let head = |fields: &[(&str, &str)]| framed(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(fields));
    let whole = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let with = |more: &[(&'static str, &'static str)]| head(&[&whole[..], more].concat());
    let cases = [
        ("no path", head(&whole[..2])),
        ("no method", head(&whole[1..])),
        ("two paths", with(&[(":path", "/")])),
        ("an unknown name with a colon", with(&[(":protocol", "websocket")])),
        ("a status", with(&[(":status", "200")])),
        ("a path after fields", head(&[whole[0], whole[1], ("a", "b"), whole[2]])),
        ("an empty path", head(&[whole[0], whole[1], (":path", "")])),
        ("upper case", with(&[("A", "b")])),
        ("a space in a name", with(&[("a b", "c")])),
        ("a line end in a value", with(&[("a", "b\r\nc: d")])),
        ("a zero in a value", with(&[("a", "b\0")])),
        ("connection", with(&[("connection", "close")])),
        ("a transfer coding", with(&[("transfer-encoding", "chunked")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("te", with(&[("te", "gzip")])),
        ("a name of nothing", with(&[("", "v")])),
        ("a length that nobody counts to", with(&[("content-length", "18446744073709551637")])),
        ("the same length twice", with(&[("content-length", "0"), ("content-length", "0")])),
        ("no length", with(&[("content-length", "")])),
        ("a length without content", with(&[("content-length", "1")])),
        ("a tunnel to a path", head(&[(":method", "CONNECT"), (":path", "/"), (":authority", "a.test")])),
        (
            "more content than it said",
            [
                framed(Kind::Headers, END_HEADERS, 1, &asked(&[("content-length", "2")])),
                framed(Kind::Data, 0, 1, b"abc"),
            ]
            .concat(),
        ),
        (
            "less content than it said",
            [
                framed(Kind::Headers, END_HEADERS, 1, &asked(&[("content-length", "2")])),
                framed(Kind::Data, END_STREAM, 1, b"a"),
            ]
            .concat(),
        ),
        (
            "trailers that do not end it",
            [request(1, 0), framed(Kind::Headers, END_HEADERS, 1, &block(&[("a", "b")]))].concat(),
        ),
        (
            "a path in trailers",
            [request(1, 0), framed(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&[(":path", "/")]))].concat(),
        ),
        (
            "a window of the stream that does not grow",
            [request(1, 0), framed(Kind::WindowUpdate, 0, 1, &[0; 4])].concat(),
        ),
    ];
    for (what, bytes) in cases {
        let mut link = server();
        link.take(&bytes).unwrap();
        assert_eq!(resets(&mut link), [(1, 1)], "{what}");
        let is_over = link.streams.get(1).is_none_or(|stream| !stream.is_open());
        assert!(is_over, "{what}");
        link.take(&request(3, END_STREAM)).unwrap();
        assert_eq!(link.take_begun().last().unwrap().stream, 3, "{what}");
    }
}

#[test]
fn what_comes_after_the_end_of_a_stream_is_passed_over_or_refused() {
    let mut link = server();
    link.take(&[request(1, END_STREAM), framed(Kind::Data, 0, 1, b"x")].concat()).unwrap();
    assert_eq!(resets(&mut link), [(1, Reason::STREAM_CLOSED.0)]);
    link.take_begun();
    link.let_go(1, true);
    let late = [
        framed(Kind::Data, 0, 1, &[0; 60_000][..16_000]),
        framed(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&[("a", "b")])),
        framed(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 1]),
        framed(Kind::RstStream, 0, 1, &[0; 4]),
        framed(Kind::Data, 0, 1, &[0; 60_000][..16_000]),
        framed(Kind::Unknown, 0xff, 9, b"anything"),
    ];
    // Whatever is let go is granted anew: nobody else has to wait for it.
    (0..20).for_each(|_| link.take(&late.concat()).unwrap());
    assert!(resets(&mut link).is_empty());
}

#[test]
fn a_list_of_headers_that_is_too_long_is_denied_and_the_next_is_read() {
    let mut link = server();
    let long = "v".repeat(3000);
    link.take(&framed(Kind::Headers, END_HEADERS | END_STREAM, 1, &asked(&[("a", &long)]))).unwrap();
    link.take(&request(3, END_STREAM)).unwrap();
    let begun = link.take_begun();
    assert!(matches!(begun[0].head, Err(Denial::HeadersTooLarge)) && begun[1].head.is_ok());
    // One that never ends is ended, however small its pieces are.
    for piece in [&[0x83_u8][..], &[][..], &[0x83; 4000]] {
        let mut link = server();
        link.take(&framed(Kind::Headers, 0, 1, &asked(&[]))).unwrap();
        let went = (0..1000).try_for_each(|_| link.take(&framed(Kind::Continuation, 0, 1, piece)));
        assert!(went.unwrap_err().is_flood());
    }
}

#[test]
fn more_streams_than_are_allowed_are_refused() {
    let mut link = server();
    (0..5).for_each(|at| link.take(&request(at * 2 + 1, 0)).unwrap());
    assert_eq!(link.take_begun().len(), 3);
    assert_eq!(resets(&mut link), [(7, 7), (9, 7)]);
    // One that was reset makes room at once; that its call has not noticed yet is bounded by what is read.
    link.take(&framed(Kind::RstStream, 0, 1, &8_u32.to_be_bytes())).unwrap();
    link.take(&request(11, 0)).unwrap();
    assert_eq!(link.take_begun().len(), 1);
    assert!(!link.is_crowded());
}

#[test]
fn streams_that_are_reset_and_frames_without_a_call_are_a_flood_beyond_a_bound() {
    let mut link = server();
    let mut number = 1;
    let went = (0..20_000).try_for_each(|_| {
        let went = link.take(&[request(number, 0), framed(Kind::RstStream, 0, number, &8_u32.to_be_bytes())].concat());
        link.take_begun();
        link.let_go(number, true);
        number += 2;
        went
    });
    assert!(went.unwrap_err().is_flood() && number > 2000);
    let floods = [
        framed(Kind::Ping, 0, 0, &[0; 8]),
        framed(Kind::Settings, 0, 0, &[]),
        framed(Kind::Priority, 0, 1, &[0; 5]),
        framed(Kind::Unknown, 0, 0, &[]),
        framed(Kind::GoAway, 0, 0, &[0; 8]),
        framed(Kind::Data, 0, 1, &[]),
    ];
    for flood in floods {
        let mut link = server();
        link.take(&request(1, 0)).unwrap();
        let went = (0..20_000).try_for_each(|_| {
            link.output.clear();
            link.take(&flood)
        });
        assert!(went.unwrap_err().is_flood());
    }
}

#[test]
fn more_than_there_is_room_for_is_refused_and_what_was_read_is_granted_anew() {
    let piece = framed(Kind::Data, 0, 1, &[0; 16_000]);
    let mut link = server();
    link.take(&request(1, 0)).unwrap();
    let went = (0..5).try_for_each(|_| link.take(&piece));
    assert!(matches!(went, Err(Error::Broke(Reason::FLOW_CONTROL_ERROR, _))));
    let mut link = server();
    link.take(&request(1, 0)).unwrap();
    for _ in 0..50 {
        link.take(&piece).unwrap();
        let length = link.streams.get(1).unwrap().content.all().len();
        link.was_read(1, length);
    }
    let granted = said(&mut link).into_iter().filter(|(kind, ..)| *kind == Kind::WindowUpdate);
    let granted: Vec<_> =
        granted.map(|(_, _, stream, more)| (stream, u32::from_be_bytes(more.try_into().unwrap()))).collect();
    let sum = |of| granted.iter().filter(|(stream, _)| *stream == of).map(|(_, more)| more).sum::<u32>();
    assert!(sum(0) > 740_000 && sum(1) > 740_000, "{granted:?}");
    // Small pieces take no more memory than they are long.
    let mut link = server();
    link.take(&request(1, 0)).unwrap();
    (0..9000).for_each(|_| link.take(&framed(Kind::Data, 0, 1, b"x")).unwrap());
    assert_eq!(link.streams.get(1).unwrap().content.all().len(), 9000);
}

#[test]
fn what_was_broken_does_not_become_whole() {
    let trailers = |flags| framed(Kind::Headers, END_HEADERS | flags, 1, &block(&[("a", "b")]));
    let mut link = server();
    link.take(&[request(1, 0), trailers(0), trailers(END_STREAM)].concat()).unwrap();
    let stream = link.streams.get(1).unwrap();
    assert!(!stream.is_received && stream.broken.is_some());
    // What comes after the end is no content, also where we have said all.
    let mut link = server();
    link.take(&[request(1, 0), framed(Kind::Data, END_STREAM, 1, b"abc")].concat()).unwrap();
    link.put_head(1, true, |into| hpack::put_status(200, into));
    link.take(&framed(Kind::Data, 0, 1, b"def")).unwrap();
    assert_eq!(link.streams.get(1).unwrap().content.all(), "abc");
}

#[test]
fn content_waits_for_windows_and_goes_on_in_turn() {
    let mut link = server();
    // A window of ten bytes for each stream, as a setting that comes late.
    link.take(&[request(1, END_STREAM), request(3, END_STREAM)].concat()).unwrap();
    link.take(&framed(Kind::Settings, 0, 0, b"\0\x04\0\0\0\x0a")).unwrap();
    said(&mut link);
    let put = |link: &mut Link, number, bytes: &'static [u8]| link.put_data(number, Bytes::from_static(bytes), true);
    put(&mut link, 1, b"0123456789abc");
    put(&mut link, 3, b"0123456789");
    let data = |link: &mut Link| -> Vec<_> {
        said(link)
            .into_iter()
            .map(|(_, flags, stream, data)| (stream, flags, String::from_utf8(data).unwrap()))
            .collect()
    };
    assert_eq!(data(&mut link), [(1, 0, "0123456789".to_owned()), (3, END_STREAM, "0123456789".to_owned())]);
    link.take(&framed(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 2])).unwrap();
    assert_eq!(data(&mut link), [(1, 0, "ab".to_owned())]);
    // All windows grow by a setting.
    link.take(&framed(Kind::Settings, 0, 0, b"\0\x04\0\0\0\x10")).unwrap();
    assert_eq!(data(&mut link)[0], (1, END_STREAM, "c".to_owned()));
    assert!(link.streams.get(1).is_some_and(|stream| stream.is_sent && stream.queued.is_none()));
}

#[test]
fn a_stream_that_is_gone_does_not_stand_in_line() {
    let mut link = server();
    link.take(&request(1, END_STREAM)).unwrap();
    link.take(&framed(Kind::WindowUpdate, 0, 1, &1_000_000_u32.to_be_bytes())).unwrap();
    link.put_data(1, Bytes::from(vec![0; 70_000]), true);
    assert!(link.streams.get(1).unwrap().is_blocked, "the connection's window is used up, or the outbox is full");
    link.let_go(1, true);
    assert_eq!(link.in_line(), 0);
}

#[test]
fn an_answer_without_content_has_no_length() {
    let mut fields = Fields::default();
    fields.add(b"content-length", b"5");
    let head = AnswerHead { status: StatusCode::NO_CONTENT, reason: None, fields };
    let mut written = BytesMut::new();
    put_answer(&head, None, None, &mut written);
    assert_eq!(written[..], [0x89]);
}

#[test]
fn a_long_head_goes_in_pieces() {
    let mut link = server();
    link.take(&request(1, END_STREAM)).unwrap();
    let long = "v".repeat(40_000);
    link.put_head(1, true, |into| hpack::put(b"a", long.as_bytes(), into));
    let said = said(&mut link);
    let kinds: Vec<_> = said.iter().map(|(kind, flags, ..)| (*kind, *flags)).collect();
    assert_eq!(kinds, [(Kind::Headers, END_STREAM), (Kind::Continuation, 0), (Kind::Continuation, END_HEADERS)]);
}

#[test]
fn a_parting_takes_what_was_on_its_way_and_ends_with_the_last_stream() {
    let mut link = server();
    link.take(&request(1, END_STREAM)).unwrap();
    link.part();
    let first = said(&mut link);
    assert_eq!((first[0].0, first[1].0), (Kind::GoAway, Kind::Ping));
    assert_eq!(&first[0].3[..4], [0x7f, 255, 255, 255]);
    link.take(&request(3, END_STREAM)).unwrap();
    link.take(&framed(Kind::Ping, ACK, 0, &first[1].3)).unwrap();
    assert_eq!(said(&mut link)[0].3, [0, 0, 0, 3, 0, 0, 0, 0]);
    link.take(&request(5, END_STREAM)).unwrap();
    assert_eq!(link.take_begun().len(), 2);
    assert!(!link.is_over());
    for number in [1, 3] {
        link.put_head(number, true, |into| hpack::put_status(204, into));
        link.let_go(number, true);
    }
    assert!(link.is_over());
}
