//! The side of a client: what a service may say.

use super::*;

/// A client that has asked on this stream, with nothing more to say.
fn client(is_head: bool) -> Link {
    let mut link = Link::new(Side::Client, BOUNDS);
    link.take(&framed(Kind::Settings, 0, 0, &[])).unwrap();
    let number = link.open(is_head);
    link.put_head(number, true, |into| hpack::put(b":method", b"GET", into));
    link.output.clear();
    link
}

#[test]
fn an_answer_is_taken_and_what_is_none_ends_its_stream() {
    let head = |flags: u8, fields: &[(&str, &str)]| framed(Kind::Headers, END_HEADERS | flags, 1, &block(fields));
    let good = [(":status", "200"), ("content-length", "3")];
    let mut link = client(false);
    let interim = head(0, &[(":status", "103")]);
    let trailers = head(END_STREAM, &[("grpc-status", "0")]);
    link.take(&[interim.clone(), head(0, &good), framed(Kind::Data, 0, 1, b"abc"), trailers].concat()).unwrap();
    let stream = link.streams.get(1).unwrap();
    assert!(stream.is_received && stream.trailers.as_ref().unwrap()["grpc-status"] == "0");
    let mut link = client(true);
    link.take(&head(END_STREAM, &good)).unwrap();
    assert!(link.streams.get(1).unwrap().is_received, "HEAD has no content, whatever it says");

    let data = framed(Kind::Data, END_STREAM, 1, b"abcd");
    let cases = [
        ("content before its head", framed(Kind::Data, 0, 1, b"x")),
        ("no status", head(END_STREAM, &[("a", "b")])),
        ("an upgrade", head(0, &[(":status", "101")])),
        ("an interim answer that ends", head(END_STREAM, &[(":status", "100")])),
        ("interim answers without end", interim.repeat(40)),
        ("a name of nothing", head(0, &[(":status", "200"), ("", "v")])),
        ("two lengths", head(0, &[(":status", "200"), ("content-length", "3"), ("content-length", "4")])),
        ("more than it said", [head(0, &good), data.clone()].concat()),
        ("content of 204", [head(0, &[(":status", "204")]), data].concat()),
        ("connection", head(0, &[(":status", "200"), ("connection", "close")])),
    ];
    for (what, bytes) in cases {
        let mut link = client(false);
        link.take(&bytes).unwrap();
        assert!(!link.streams.get(1).unwrap().is_open(), "{what}");
        assert_eq!(resets(&mut link).first(), Some(&(1, 1)), "{what}");
    }
    let mut link = client(false);
    assert!(link.take(&framed(Kind::Headers, END_HEADERS, 3, &block(&good))).is_err());
}

#[test]
fn a_service_that_goes_takes_no_more_streams_and_those_that_it_has_go_on() {
    let mut link = client(false);
    link.open(false);
    link.take(&framed(Kind::GoAway, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).unwrap();
    assert!(!link.stands() && !link.has_room(100));
    assert!(link.streams.get(1).unwrap().is_open());
    assert_eq!(link.streams.get(3).unwrap().broken, Some(Error::GoneAway(Reason::NO_ERROR)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_it_panic(
        frames in prop::collection::vec((0..11_u8, any::<u8>(), 0..8_u32, prop::collection::vec(any::<u8>(), 0..40)), 0..30),
        size in 1..100_usize,
        is_client in any::<bool>(),
    ) {
        let mut link = if is_client { client(false) } else { server() };
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, stream, payload)| {
            let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
            [&[high, middle, low, *kind, *flags], &stream.to_be_bytes()[..], payload].concat()
        }).collect();
        for piece in bytes.chunks(size) {
            if link.take(piece).is_err() {
                break;
            }
            for begun in link.take_begun() {
                link.put_head(begun.stream, false, |into| hpack::put_status(200, into));
                link.put_data(begun.stream, Bytes::from_static(b"abc"), true);
                link.let_go(begun.stream, true);
            }
        }
        link.fail(Error::Closed);
    }
}
