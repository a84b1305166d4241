//! Connections with another implementation at the other end.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use proptest::prelude::*;
use tokio::io::duplex;

use super::super::*;
use super::BOUNDS;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn whole_requests_do_not_use_the_connections_window_up() {
    let (theirs, ours) = duplex(64 * 1024);
    let mut driver = Driver::new(ours, Shared::new(Side::Server, Bounds { streams: 100, ..BOUNDS }));
    tokio::spawn(async move {
        let answered = poll_fn(|cx| {
            driver.poll(cx, |shared, begun| {
                let stream = Held::new(shared, begun.stream, false);
                let Whole::All(content) = stream.whole() else { panic!("it came with its head") };
                assert_eq!(content.len(), 10_000);
                stream.head(true, |into| hpack::put_status(204, into));
            })
        });
        answered.await.unwrap();
    });
    let (sender, connection) = h2::client::handshake(theirs).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..30 {
        let request = Request::post("http://a.test/x").body(()).unwrap();
        let (answer, mut stream) = sender.clone().ready().await.unwrap().send_request(request, false).unwrap();
        stream.send_data(content(10_000), true).unwrap();
        let answer = tokio::time::timeout(SOON, answer).await.expect("there is room for it");
        assert_eq!(answer.unwrap().status(), 204);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn contents_of_any_size_come_through_beside_each_other(
        sizes in prop::collection::vec(prop_oneof![0..100_usize, 0..200_000_usize], 1..6),
        window in prop_oneof![Just(0x7fff_u32), 10..500_u32, Just(1 << 20)],
        pipe in prop_oneof![7..100_usize, Just(64 * 1024)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(SOON, served_to_h2(&sizes, window, pipe)).await.expect("it ends");
            tokio::time::timeout(SOON, asked_of_h2(&sizes, window, pipe)).await.expect("it ends too");
        });
    }
}

/// Contents that tell their places.
fn content(length: usize) -> Bytes {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

/// Our server, with a client of h2's.
async fn served_to_h2(sizes: &[usize], window: u32, pipe: usize) {
    let (theirs, ours) = duplex(pipe);
    tokio::spawn(echo(ours, window.max(1000)));
    let mut builder = h2::client::Builder::new();
    let (sender, connection) = builder.initial_window_size(window).handshake::<_, Bytes>(theirs).await.unwrap();
    let connection = tokio::spawn(connection);
    let calls = sizes.iter().map(|size| tokio::spawn(ask_by_h2(sender.clone(), content(*size)))).collect::<Vec<_>>();
    drop(sender);
    for call in calls {
        call.await.unwrap();
    }
    connection.await.unwrap().unwrap();
}

/// Our client, with a server of h2's.
async fn asked_of_h2(sizes: &[usize], window: u32, pipe: usize) {
    let (theirs, ours) = duplex(pipe);
    tokio::spawn(echo_by_h2(theirs, window));
    let bounds = Bounds { stream_window: window.max(1000), ..BOUNDS };
    let shared = Shared::new(Side::Client, bounds);
    let mut driver = Driver::new(ours, shared.clone());
    let driver = tokio::spawn(async move { poll_fn(|cx| driver.poll(cx, |_, _| {})).await });
    // A server of h2's that makes windows smaller after content has come grants nothing any more.
    while !shared.lock().is_greeted() {
        tokio::task::yield_now().await;
    }
    let calls = sizes.iter().map(|size| tokio::spawn(ask(shared.clone(), content(*size)))).collect::<Vec<_>>();
    for call in calls {
        call.await.unwrap();
    }
    shared.lock().finish();
    driver.await.unwrap().unwrap();
}

/// Our server: says back what it is sent, and its length in a trailer.
async fn echo(stream: tokio::io::DuplexStream, window: u32) {
    let bounds = Bounds { stream_window: window, streams: 100, ..BOUNDS };
    let mut driver = Driver::new(stream, Shared::new(Side::Server, bounds));
    let _ = poll_fn(|cx| {
        driver.poll(cx, |shared, begun| {
            let stream = Held::new(shared, begun.stream, true);
            tokio::spawn(async move {
                stream.head(false, |into| hpack::put_status(200, into));
                let (mut length, mut trailers) = (0, HeaderMap::new());
                while let Some(frame) = poll_fn(|cx| stream.poll_frame(cx)).await {
                    let data = frame.unwrap().into_data().unwrap();
                    length += data.len();
                    stream.data(data, false);
                    poll_fn(|cx| stream.poll_sent(cx)).await.unwrap();
                }
                trailers.insert("x-length", length.into());
                stream.trailers(Some(&trailers));
            });
        })
    })
    .await;
}

async fn ask_by_h2(sender: h2::client::SendRequest<Bytes>, content: Bytes) {
    let request = Request::post("http://a.test/x").header("x-a", "b").body(()).unwrap();
    let (answer, mut stream) = sender.ready().await.unwrap().send_request(request, false).unwrap();
    stream.send_data(content.clone(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut came = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        came.extend_from_slice(&data);
    }
    assert!(came == content);
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["x-length"], content.len().to_string());
}

async fn echo_by_h2(stream: tokio::io::DuplexStream, window: u32) {
    let mut builder = h2::server::Builder::new();
    let mut connection = builder.initial_window_size(window).handshake::<_, Bytes>(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut sending = respond.send_response(Response::new(()), false).unwrap();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                sending.send_data(data, false).unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", "1".parse().unwrap());
            sending.send_trailers(trailers).unwrap();
        });
    }
}

async fn ask(shared: Shared, content: Bytes) {
    let stream = {
        let mut link = shared.lock();
        let number = link.open(false);
        link.put_head(number, false, |into| {
            for (name, value) in [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/x")] {
                hpack::put(name.as_bytes(), value.as_bytes(), into);
            }
        });
        Held::new(&shared, number, true)
    };
    stream.data(content.clone(), true);
    let head = poll_fn(|cx| stream.poll_answer(cx)).await.unwrap();
    assert_eq!(head.status, 200);
    let mut came = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| stream.poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(data) => came.extend_from_slice(&data),
            Err(frame) => assert_eq!(frame.into_trailers().unwrap()["x-end"], "1"),
        }
    }
    assert!(came == content);
}
