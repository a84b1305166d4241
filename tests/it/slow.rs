//! Clients that are slow, silent, or too many: each is cut in its time, and nobody else notices.

mod floods;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::h2::frame as grpc_frame;
use crate::harness::raw::Raw;
use crate::harness::stage::{COLLECTION, FETCH, FETCH_UNITS, GRPC_FETCH, Setting, Stage, fetch_message, metadata};
use crate::harness::wire::{self, Wire};

const LIMITS: &str = "first_byte = \"500ms\"\nwhole_header = \"700ms\"\nidle = \"1500ms\"\ntls_handshake = \"600ms\"\n\
                      slow_body_after = \"1s\"\ntotal = \"4s\"";
/// A busy machine may be late, but not by this much.
const LATE: Duration = Duration::from_secs(6);

/// How long it takes until the gateway ends this connection.
fn time_until_closed(client: &mut Raw) -> Duration {
    let began = Instant::now();
    assert!(client.closes(LATE * 2), "never closed");
    began.elapsed()
}

fn assert_within(took: Duration, least: Duration) {
    // The clock of the gateway may have begun a little before ours.
    assert!(took + Duration::from_millis(100) >= least && took < least + LATE, "{took:?} in place of {least:?}");
}

/// Waits until so many connections were counted as cut for this reason: a cut is counted just after it.
fn await_cuts(stage: &Stage, reason: &str, least: u64) {
    let deadline = Instant::now() + LATE;
    let series = format!("tollgate_connections_rejected_total{{reason=\"{reason}\"}}");
    while stage.metric(&series) < least {
        assert!(Instant::now() < deadline, "{reason}: {} in place of {least}", stage.metric(&series));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_phase_of_a_connection_has_its_deadline() {
    let stage = Stage::limited(LIMITS);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let took = time_until_closed(&mut Raw::connect(stage.gateway));
            assert_within(took, Duration::from_millis(500));
        });
        scope.spawn(|| {
            // A header that goes on and on, on a new connection and after a call.
            for calls in [0, 1] {
                let mut client = Raw::connect(stage.gateway);
                for _ in 0..calls {
                    client.send(&stage.request("GET", FETCH, &[], b""));
                    assert_eq!(client.answer().status, 200);
                }
                let began = Instant::now();
                client.send(b"GET / HTTP/1.1\r\n");
                while client.try_send(b"x-a: b\r\n").is_ok() && began.elapsed() < LATE * 2 {
                    std::thread::sleep(Duration::from_millis(50));
                }
                assert_within(began.elapsed(), Duration::from_millis(700));
            }
        });
        scope.spawn(|| {
            let mut client = Raw::connect(stage.gateway);
            client.send(&stage.request("GET", FETCH, &[], b""));
            assert_eq!(client.answer().status, 200);
            assert_within(time_until_closed(&mut client), Duration::from_millis(1500));
        });
        scope.spawn(|| {
            let mut client = Raw::connect(stage.gateway);
            client.send(&wire::PREFACE[..10]);
            assert_within(time_until_closed(&mut client), Duration::from_millis(700));
        });
        scope.spawn(|| {
            // A greeting without its settings, and one that stops in the middle of them.
            for more in [&[][..], &wire::frame(wire::SETTINGS, 0, 0, &[0; 6])[..12]] {
                let (mut client, began) = (Wire::connect(stage.gateway), Instant::now());
                client.send(&[wire::PREFACE, more].concat());
                assert!(client.ends(LATE * 2), "a greeting that never ends");
                assert_within(began.elapsed(), Duration::from_millis(700));
            }
        });
        scope.spawn(|| {
            // A block of headers that goes on and on, in frames and within one, while a call beside it keeps the connection busy.
            let (host, block) = (stage.gateway.to_string(), wire::block(&[("x-a", "b")]));
            let waiting = wire::block(&wire::grpc_fields(&host, GRPC_FETCH, &metadata(&stage.key)));
            let headers = |flags, stream, payload: &[u8]| wire::frame(wire::HEADERS, flags, stream, payload);
            let long = headers(wire::END_HEADERS, 3, &[0; 1000]);
            for begin in [headers(0, 3, &block), long[..9].to_vec()] {
                let (mut client, began) = (Wire::greet(stage.gateway), Instant::now());
                client.send(&[headers(wire::END_HEADERS, 1, &waiting), begin.clone()].concat());
                let more = if begin.len() > 9 { wire::frame(wire::CONTINUATION, 0, 3, &block) } else { vec![0] };
                while client.stream.write_all(&more).is_ok() && began.elapsed() < LATE * 2 {
                    std::thread::sleep(Duration::from_millis(50));
                }
                assert_within(began.elapsed(), Duration::from_millis(700));
            }
        });
        scope.spawn(|| {
            let (mut client, began) = (Wire::greet(stage.gateway), Instant::now());
            assert!(client.ends(LATE * 2), "an idle HTTP/2 connection is never closed");
            assert_within(began.elapsed(), Duration::from_millis(1500));
        });
    });
    for (reason, least) in [("first_byte", 1), ("whole_header", 7), ("idle", 2)] {
        await_cuts(&stage, reason, least);
    }
    let usage = stage.settled(4);
    assert_eq!((usage.of("ok"), usage.of("client_abort")), (2, 2));
}

#[test]
fn a_body_that_trickles_is_cut_and_counted_and_a_steady_one_is_not() {
    let stage = Stage::limited(LIMITS);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Raw::connect(stage.gateway);
            client.send(&stage.request("POST", "/echo", &[("content-length", "1000")], b""));
            let began = Instant::now();
            let trickled = (0..400).take_while(|_| {
                std::thread::sleep(Duration::from_millis(50));
                began.elapsed() < Duration::from_secs(2) && client.try_send(b"x").is_ok()
            });
            assert!(trickled.count() < 400);
            let answer = client.try_answer(LATE).unwrap();
            assert_eq!(answer.status, 504, "{}", answer.head);
            assert_within(began.elapsed(), Duration::from_secs(1));
        });
        scope.spawn(|| {
            // 250 bytes a second for two and a half seconds.
            let mut client = Raw::connect(stage.gateway);
            client.send(&stage.request("POST", "/echo", &[("content-length", "625")], b""));
            for _ in 0..25 {
                client.send(&[b'x'; 25]);
                std::thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(client.answer().json()["body_bytes"], 625);
        });
    });
    let usage = stage.settled(2);
    assert_eq!((usage.of("ok"), usage.of("timeout")), (1, 1), "{usage:?}");
}

#[test]
fn a_service_that_takes_nothing_for_a_while_does_not_make_the_client_slow() {
    // Reads nothing for longer than a client may be slow, then everything.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::thread::sleep(Duration::from_millis(1800));
        let mut raw = [0; 64 * 1024];
        let mut left = LARGE as u64;
        while left > 0 {
            let read = std::io::Read::read(&mut stream, &mut raw).unwrap();
            assert!(read > 0, "the call was cut, {left} bytes before its end");
            left = left.saturating_sub(read as u64);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        std::thread::sleep(LATE);
    });
    const LARGE: usize = 14 * 1024 * 1024;
    let stage = Stage::with(Setting { limits: LIMITS, upstream: Some(at), ..Setting::default() });
    let mut client = Raw::connect(stage.gateway);
    client.send(&stage.request("POST", "/echo", &[("content-length", &LARGE.to_string())], b""));
    // The last piece comes a little after the service has begun to read.
    client.send(&vec![b'x'; LARGE - 1000]);
    std::thread::sleep(Duration::from_millis(200));
    client.send(&[b'x'; 1000]);
    let answer = client.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(stage.settled(1).of("ok"), 1);
}

#[test]
fn a_client_that_does_not_read_is_cut_and_its_call_still_has_its_units() {
    let stage = Stage::limited(LIMITS);
    let large = [("x-sample-bytes", "33554432")];
    let before = stage.watch_memory();
    let mut http = Raw::connect(stage.gateway);
    http.send(&stage.request("GET", FETCH, &large, b""));
    // Over HTTP/2 nothing is sent beyond the window, which this client never opens; it goes on pinging.
    let mut h2 = Wire::greet(stage.gateway);
    let more = [("dashvector-auth-token", stage.key.as_str()), ("collection-name", COLLECTION), large[0]];
    let fields = wire::grpc_fields("stage.test", GRPC_FETCH, &more);
    h2.send(&wire::frame(wire::HEADERS, wire::END_HEADERS, 1, &wire::block(&fields)));
    h2.send(&wire::frame(wire::DATA, wire::END_STREAM, 1, &grpc_frame(&fetch_message())));
    let deadline = Instant::now() + LATE * 3;
    loop {
        let usage = stage.usage();
        if usage.opened == 2 && usage.committed() == 2 {
            println!("clients that do not read: {:?}", usage.calls);
            assert_eq!(usage.of("ok"), 0);
            // Whether the rest could be read in its time is not ours to say for the second one.
            assert!(usage.read_units >= FETCH_UNITS, "{usage:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{usage:?}");
        h2.send(&wire::frame(wire::PING, 0, 0, &[7; 8]));
        std::thread::sleep(Duration::from_millis(100));
    }
    let grown = stage.grown(before);
    assert!(grown < 12 * 1024, "{grown} KiB");
    await_cuts(&stage, "slow_body", 1);
}

#[test]
fn a_client_that_reads_slowly_has_the_time_of_a_call_and_its_call_still_has_its_units() {
    let stage = Stage::limited(LIMITS);
    let large = [("x-sample-bytes", "33554432")];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Three megabytes a second.
            let (mut http, began) = (TcpStream::connect(stage.gateway).unwrap(), Instant::now());
            http.write_all(&stage.request("GET", FETCH, &large, b"")).unwrap();
            http.set_read_timeout(Some(LATE)).unwrap();
            let mut buffer = vec![0; 64 * 1024];
            while http.read_exact(&mut buffer).is_ok() && began.elapsed() < LATE * 2 {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_within(began.elapsed(), Duration::from_secs(4));
        });
        scope.spawn(|| {
            // A window for one piece after the other, of the stream alone: there is always more to be sent.
            let (mut h2, began) = (Wire::greet(stage.gateway), Instant::now());
            let more = [("dashvector-auth-token", stage.key.as_str()), ("collection-name", COLLECTION), large[0]];
            h2.send(&wire::frame(wire::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()));
            let fields = wire::grpc_fields("stage.test", GRPC_FETCH, &more);
            h2.send(&wire::frame(wire::HEADERS, wire::END_HEADERS, 1, &wire::block(&fields)));
            h2.send(&wire::frame(wire::DATA, wire::END_STREAM, 1, &grpc_frame(&fetch_message())));
            while let Some(came) = h2.next(LATE)
                && came.kind != wire::RST_STREAM
                && began.elapsed() < LATE * 2
            {
                if came.kind == wire::DATA && !came.payload.is_empty() {
                    let more = u32::try_from(came.payload.len()).unwrap();
                    h2.send(&wire::frame(wire::WINDOW_UPDATE, 0, 1, &more.to_be_bytes()));
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            assert_within(began.elapsed(), Duration::from_secs(4));
        });
    });
    let usage = stage.settled(2);
    assert_eq!((usage.of("timeout"), usage.read_units), (2, 2 * FETCH_UNITS), "{usage:?}");
}

#[test]
fn clients_that_do_not_read_do_not_keep_the_answers_of_others() {
    let stage = Stage::start();
    let more = [("dashvector-auth-token", stage.key.as_str()), ("collection-name", COLLECTION)];
    let large = [&more[..], &[("x-sample-bytes", "2000000")]].concat();
    // Several, so that each thread has its share; all of their calls and the next ones go to the service on the same connections.
    let mut deaf: Vec<_> = (0..4).map(|_| Wire::greet(stage.gateway)).collect();
    for client in &mut deaf {
        client.send(&wire::frame(wire::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        for stream in (1..24).step_by(2) {
            let block = wire::block(&wire::grpc_fields("stage.test", GRPC_FETCH, &large));
            client.send(&wire::frame(wire::HEADERS, wire::END_HEADERS, stream, &block));
            client.send(&wire::frame(wire::DATA, wire::END_STREAM, stream, &grpc_frame(&fetch_message())));
        }
        (0..12).for_each(|_| _ = client.next_of(wire::HEADERS, LATE).unwrap());
    }
    for _ in 0..8 {
        let call = async { stage.h2().await.grpc_unary(GRPC_FETCH, &more, &fetch_message()).await };
        let answer = stage.block_on(async { tokio::time::timeout(LATE, call).await });
        assert_eq!(answer.expect("it waits for the others").status(), 0);
    }
}

#[test]
fn a_tls_handshake_that_stalls_is_cut() {
    let certified = rcgen::generate_simple_self_signed(vec!["stage.test".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let gateway = format!("tls = {{ cert = {cert:?}, key = {key:?} }}");
    let stage = Stage::with(Setting { limits: LIMITS, gateway: &gateway, ..Setting::default() });
    let mut silent = Raw::connect(stage.gateway);
    assert_within(time_until_closed(&mut silent), Duration::from_millis(600));
    let mut begun = Raw::connect(stage.gateway);
    begun.send(&[22, 3, 1, 2, 0, 1]);
    assert_within(time_until_closed(&mut begun), Duration::from_millis(600));
    await_cuts(&stage, "tls_handshake", 2);
}

#[test]
fn an_address_has_so_many_connections_and_gets_a_place_back_for_each_it_closes() {
    let stage = Stage::limited("connections_per_address = 4");
    let call = |client: &mut Raw| {
        client.send(&stage.request("GET", FETCH, &[], b""));
        client.answer().status
    };
    let mut held: Vec<Raw> = (0..4).map(|_| Raw::connect(stage.gateway)).collect();
    held.iter_mut().for_each(|client| assert_eq!(call(client), 200));
    for _ in 0..3 {
        let mut refused = Raw::connect(stage.gateway);
        assert!(refused.closes(LATE), "a fifth connection is open");
    }
    held.pop();
    let deadline = Instant::now() + LATE;
    loop {
        let mut next = Raw::connect(stage.gateway);
        let _ = next.try_send(&stage.request("GET", FETCH, &[], b""));
        match next.try_answer(LATE) {
            Ok(answer) => break assert_eq!(answer.status, 200),
            Err(error) => assert!(Instant::now() < deadline, "the place is not given back: {error}"),
        }
    }
    held.iter_mut().for_each(|client| assert_eq!(call(client), 200));
    await_cuts(&stage, "per_address", 3);
}

#[test]
fn pings_keep_a_connection_and_are_answered() {
    let stage = Stage::limited(LIMITS);
    let mut client = Wire::greet(stage.gateway);
    // Three times as long as a silent connection may last.
    for turn in 0..9_u8 {
        client.send(&wire::frame(wire::PING, 0, 0, &[turn; 8]));
        let pong = client.next_of(wire::PING, LATE).expect("the connection has ended");
        assert_eq!((pong.flags, pong.payload), (wire::ACK, vec![turn; 8]));
        std::thread::sleep(Duration::from_millis(500));
    }
    call_on(&mut client, &stage, 1);
    assert_eq!(stage.settled(1).of("ok"), 1);
}

/// One gRPC call on this connection, which must be answered.
fn call_on(client: &mut Wire, stage: &Stage, stream: u32) {
    let more = [("dashvector-auth-token", stage.key.as_str()), ("collection-name", COLLECTION)];
    let fields = wire::grpc_fields("stage.test", GRPC_FETCH, &more);
    client.send(&wire::frame(wire::HEADERS, wire::END_HEADERS, stream, &wire::block(&fields)));
    client.send(&wire::frame(wire::DATA, wire::END_STREAM, stream, &grpc_frame(&fetch_message())));
    let data = client.next_of(wire::DATA, LATE).expect("the connection has ended");
    assert_eq!(data.stream, stream);
}

/// Whether a new client is served at once, as if nothing had happened.
fn is_served(at: SocketAddr, stage: &Stage) -> bool {
    let mut client = Raw::connect(at);
    client.send(&stage.request("GET", FETCH, &[], b""));
    client.answer().status == 200
}
