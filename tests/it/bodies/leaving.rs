//! Clients that leave, after every byte of what they send and of what they get: each call is counted once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::harness::h2::frame;
use crate::harness::raw::Raw;
use crate::harness::stage::{COLLECTION, FETCH, FETCH_UNITS, GRPC_FETCH, Stage, Usage, fetch_message, metadata};
use crate::harness::wire::{self, Wire};

const CLIENTS: usize = 24;
const SOON: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// Closes, as a program that ends.
    Close,
    /// Resets the connection.
    Reset,
    /// Closes when what was sent has been read.
    Later,
}

impl Leave {
    fn wait(self) {
        if self == Self::Later {
            std::thread::sleep(Duration::from_millis(60));
        }
    }
}

/// Runs `one` for each number below `count`, several at once.
fn each(count: usize, one: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS.min(count) {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= count {
                        return;
                    }
                    one(turn);
                }
            });
        }
    });
}

/// Waits until nothing is opened any more, and checks what must hold for every call.
fn settled(stage: &Stage, at_least: u64) -> Usage {
    let mut before = stage.usage();
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        std::thread::sleep(Duration::from_millis(150));
        let now = stage.usage();
        let quiet = now == before && now.opened >= at_least && now.opened == now.committed() + now.interrupted;
        if quiet {
            assert_eq!(now.interrupted, 0, "{now:?}");
            let counts = stage.sample.counts();
            assert!(counts.total.calls <= now.opened, "{counts:?} {now:?}");
            assert_eq!(counts.total.read_units, now.read_units, "units of answers that were begun: {now:?}");
            assert_eq!(counts.total.write_units, now.write_units, "{now:?}");
            return now;
        }
        assert!(std::time::Instant::now() < deadline, "not settled: {now:?}");
        before = now;
    }
}

#[test]
fn a_client_that_leaves_after_any_byte_of_an_http_request_is_counted_once() {
    let stage = Stage::start();
    let body = b"{\"docs\":[{\"id\":\"2\",\"vector\":[1,2,3,4]}]}";
    let request = stage.request("POST", "/v1/collections/things/docs/upsert", &[], body);
    let whole = request.len();
    let head = whole - body.len();
    // With a head that is whole there is a call, unless the end of the connection is seen as soon.
    let calls = (whole - head + 1) as u64;
    for leave in [Leave::Close, Leave::Reset, Leave::Later] {
        let before = settled(&stage, 0);
        each(whole, |cut| {
            let mut client = Raw::connect(stage.gateway);
            client.send(&request[..=cut]);
            leave_http(client, leave);
        });
        let least = if leave == Leave::Later { calls } else { 0 };
        let usage = settled(&stage, before.opened + least);
        assert!(usage.opened <= before.opened + calls, "{usage:?}");
        let (ok, gone) = (usage.of("ok") - before.of("ok"), usage.of("client_abort") - before.of("client_abort"));
        let whole_was_answered = leave != Leave::Later || ok == 1;
        assert!(whole_was_answered, "{usage:?}");
        println!("{leave:?} after each of {whole} bytes of a request: {ok} ok, {gone} client_abort");
        // Only the one that sent everything can have been answered.
        assert!(ok <= 1 && ok + gone == usage.opened - before.opened, "{usage:?}");
    }
}

fn leave_http(client: Raw, leave: Leave) {
    leave.wait();
    if leave == Leave::Reset {
        client.reset();
    }
}

#[test]
fn a_client_that_leaves_after_any_byte_of_an_http_answer_is_counted_once_with_its_units() {
    let stage = Stage::start();
    // Of a length that is said, of one that is not, and byte by byte.
    let pieces: [&[(&str, &str)]; 3] =
        [&[], &[("x-sample-chunk", "40")], &[("x-sample-chunk", "1"), ("x-sample-pause-ms", "1")]];
    let mut sent = 0;
    for more in pieces {
        let request = stage.request("GET", FETCH, more, b"");
        let whole = stage.http("GET", FETCH, more, b"").body.len() + 150;
        sent += 1;
        for leave in [Leave::Close, Leave::Reset] {
            each(whole / 2, |turn| {
                let mut client = Raw::connect(stage.gateway);
                client.send(&request);
                let mut read = 0;
                while read < turn * 2 {
                    match client.byte(SOON) {
                        Ok(_) => read += 1,
                        Err(_) => break,
                    }
                }
                leave_http(client, leave);
            });
            sent += whole as u64 / 2;
        }
        let usage = settled(&stage, 1);
        let opened = usage.opened;
        assert!(opened <= sent && opened > sent * 9 / 10, "{opened} of {sent}");
        println!("after {more:?}: {:?}", usage.calls);
        assert_eq!(usage.of("ok") + usage.of("client_abort"), opened, "{usage:?}");
        // A client that resets at once may be gone before its call is sent on.
        let reached = stage.sample.counts().total.calls;
        assert_eq!(usage.read_units, reached * FETCH_UNITS);
        assert!(reached > opened * 9 / 10, "{reached} of {opened}");
    }
    assert!(stage.usage().of("client_abort") > 100, "the byte-by-byte answers are left before their end");
}

#[test]
fn a_client_that_leaves_after_any_byte_of_a_grpc_call_is_counted_once() {
    let stage = Stage::start();
    let message = frame(&fetch_message());
    let fields = wire::grpc_fields(
        "stage.test",
        GRPC_FETCH,
        &[("dashvector-auth-token", &stage.key), ("collection-name", COLLECTION)],
    );
    let begin = [wire::hello(), wire::frame(wire::HEADERS, wire::END_HEADERS, 1, &wire::block(&fields))].concat();
    let request = [begin.clone(), wire::frame(wire::DATA, wire::END_STREAM, 1, &message)].concat();
    let calls = (request.len() - begin.len() + 1) as u64;
    for leave in [Leave::Close, Leave::Reset, Leave::Later] {
        let before = settled(&stage, 0);
        each(request.len(), |cut| {
            let mut client = Wire::connect(stage.gateway);
            client.send(&request[..=cut]);
            leave.wait();
            if leave == Leave::Reset {
                client.reset();
            }
        });
        let least = if leave == Leave::Later { calls } else { 0 };
        let usage = settled(&stage, before.opened + least);
        let (ok, gone) = (usage.of("ok") - before.of("ok"), usage.of("client_abort") - before.of("client_abort"));
        println!("{leave:?} after each of {} bytes of a gRPC call: {ok} ok, {gone} client_abort", request.len());
        assert!(ok <= 1 && ok + gone == usage.opened - before.opened && ok + gone <= calls, "{usage:?}");
    }
}

#[test]
fn a_grpc_call_that_is_reset_after_any_byte_either_way_is_counted_once() {
    let stage = Stage::start();
    let message = frame(&fetch_message());
    let sent = message.len();
    // As long as an answer is, and then some.
    let answered = 120;
    stage.block_on(async {
        let connect = || async {
            let stream = tokio::net::TcpStream::connect(stage.gateway).await.unwrap();
            // Answers come byte by byte, more than a client usually lets pile up.
            let (sender, connection) =
                h2::client::Builder::new().data_frame_budget(1 << 30).handshake::<_, Bytes>(stream).await.unwrap();
            tokio::spawn(connection);
            sender
        };
        let mut connection = connect().await;
        for cut in 0..=sent {
            connection = connection.ready().await.unwrap();
            let (_, mut upload) = connection.send_request(request(&stage, &[]), false).unwrap();
            for byte in &message[..cut] {
                upload.send_data(Bytes::copy_from_slice(&[*byte]), false).unwrap();
            }
            // So that the bytes go out before the reset.
            tokio::time::sleep(Duration::from_millis(2)).await;
            upload.send_reset(h2::Reason::CANCEL);
        }
        let pieces = [("x-sample-chunk", "1"), ("x-sample-pause-ms", "1")];
        let mut calls = tokio::task::JoinSet::new();
        for cut in 0..answered {
            let mut sender = connection.clone().ready().await.unwrap();
            let (answer, mut upload) = sender.send_request(request(&stage, &pieces), false).unwrap();
            upload.send_data(message.clone(), true).unwrap();
            calls.spawn(async move {
                let mut body = answer.await.unwrap().into_body();
                let mut read = 0;
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    read += data.len();
                    if read >= cut {
                        break;
                    }
                }
                upload.send_reset(h2::Reason::CANCEL);
            });
            if calls.len() >= CLIENTS {
                calls.join_next().await.unwrap().unwrap();
            }
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    });
    let usage = settled(&stage, answered as u64);
    println!("reset after each byte: {:?}", usage.calls);
    let reached = stage.sample.counts().total.calls;
    assert!(usage.opened >= reached && usage.opened <= (sent + 1 + answered) as u64, "{usage:?}");
    assert_eq!(usage.of("ok") + usage.of("client_abort"), usage.opened, "{usage:?}");
    assert!(usage.of("client_abort") > 50, "{usage:?}");
    assert!(usage.read_units >= answered as u64 * FETCH_UNITS, "{usage:?}");
}

fn request(stage: &Stage, more: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::post(format!("http://stage.test{GRPC_FETCH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata(&stage.key).iter().chain(more) {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}
