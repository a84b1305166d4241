//! A client's connection, with a service that says back what it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::http1::{Bounds, CONTINUE, Ended, Serving};
use super::*;
use crate::gateway::body::Outgoing;
use crate::gateway::fields::Fields;
use crate::gateway::guard::{Activity, InCall};
use crate::gateway::message::AnswerHead;
use crate::verdict::Denial;

const BOUNDS: Bounds = Bounds { bytes: 16 * 1024, fields: 100 };
const SOON: Duration = Duration::from_secs(10);

/// Sends back what it is sent, except for what the target asks for.
#[derive(Clone, Default)]
pub struct Echo {
    activity: Arc<Activity>,
    open: Arc<AtomicUsize>,
}

pub struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Echo {
    type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn call(&self, head: RequestHead, body: ClientBody) -> Self::Call {
        let in_call = InCall::begin(&self.activity);
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open));
        Box::pin(async move {
            let _open = open;
            let answer = |status: u16, content| answer_of(status.try_into().unwrap(), Outgoing::own(content, in_call));
            match head.uri.path() {
                "/never" => std::future::pending().await,
                "/at-once" => answer(200, Bytes::from_static(b"no")),
                "/empty" => answer(204, Bytes::new()),
                "/later" => {
                    // Somebody reads on for a while, and gives up.
                    tokio::spawn(tokio::time::timeout(Duration::from_millis(50), body.collect()));
                    answer(200, Bytes::from_static(b"no"))
                }
                _ => match body.collect().await {
                    Ok(body) => {
                        let sum = body.trailers().and_then(|fields| fields.get("x-sum")).cloned();
                        let content = body.to_bytes();
                        let mut answer = answer(200, content);
                        if let Some(sum) = sum {
                            answer.head.fields.add(b"x-sum", sum.as_bytes());
                        }
                        answer
                    }
                    Err(_) => answer(400, Bytes::new()),
                },
            }
        })
    }

    fn refuse(&self, denial: Denial) -> Answer {
        let content = Outgoing::own(Bytes::new(), InCall::begin(&self.activity));
        answer_of(denial.row().http, content)
    }
}

fn answer_of(status: StatusCode, body: Outgoing) -> Answer {
    Answer { head: AnswerHead { status, reason: None, fields: Fields::default() }, body }
}

fn served(echo: Echo) -> (DuplexStream, Serving<DuplexStream, Echo>) {
    let (theirs, ours) = duplex(1024);
    (theirs, Serving::new(ours, echo, BOUNDS))
}

/// Sends bytes in pieces of this length, ends, and takes in all that comes back.
async fn sent(bytes: Vec<u8>, piece: usize) -> String {
    let (theirs, serving) = served(Echo::default());
    let serving = tokio::spawn(serving);
    let (mut reads, mut writes) = tokio::io::split(theirs);
    let wrote = tokio::spawn(async move {
        for piece in bytes.chunks(piece.max(1)) {
            if writes.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // What ends at once may leave its last call unanswered.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let _ = writes.shutdown().await;
    });
    let mut came = Vec::new();
    tokio::time::timeout(SOON, reads.read_to_end(&mut came)).await.expect("it ends").unwrap();
    wrote.await.unwrap();
    let _ = tokio::time::timeout(SOON, serving).await.expect("it ends").unwrap();
    String::from_utf8(came).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Statuses and contents of the answers, all of which say their length.
fn answers(mut came: &str) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    while let Some((head, rest)) = came.split_once("\r\n\r\n") {
        let status = head[9..12].parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        answers.push((status, rest[..length].to_owned()));
        came = &rest[length..];
    }
    assert_eq!(came, "");
    answers
}

#[test]
fn an_answer_says_all_that_is_needed_to_read_it() {
    let came = block_on(sent(b"PUT /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc".to_vec(), 1000));
    let (head, body) = came.split_once("\r\n\r\n").unwrap();
    let lines: Vec<_> = head.lines().collect();
    assert_eq!((lines[0], lines[1], lines.len(), body), ("HTTP/1.1 200 OK", "content-length: 3", 3, "abc"));
    assert!(lines[2].starts_with("date: ") && lines[2].ends_with(" GMT"), "{head}");
}

#[test]
fn a_head_and_no_content_have_no_body() {
    let came = block_on(sent(b"HEAD /at-once HTTP/1.1\r\n\r\nGET /empty HTTP/1.1\r\n\r\n".to_vec(), 1000));
    let heads: Vec<_> = came.split("\r\n\r\n").collect();
    assert!(heads[0].contains("\r\ncontent-length: 2\r\n"), "{came}");
    assert!(heads[1].starts_with("HTTP/1.1 204 No Content\r\n") && !heads[1].contains("content-length"), "{came}");
    assert_eq!((heads.len(), heads[2]), (3, ""));
}

#[test]
fn old_clients_are_kept_only_where_they_ask_for_it() {
    let two = |more: &str| format!("GET /x HTTP/1.0\r\n{more}\r\n").repeat(2).into_bytes();
    let came = block_on(sent(two(""), 1000));
    assert!(came.starts_with("HTTP/1.0 200 OK\r\n") && came.contains("\r\nconnection: close\r\n"), "{came}");
    assert_eq!(answers(&came).len(), 1);
    let came = block_on(sent(two("connection: Keep-Alive\r\n"), 1000));
    assert_eq!(came.matches("\r\nconnection: keep-alive\r\n").count(), 2, "{came}");
}

#[test]
fn a_client_that_wants_the_last_answer_gets_no_other() {
    let came = block_on(sent(b"GET /x HTTP/1.1\r\nconnection: x, close\r\n\r\nGET /x HTTP/1.1\r\n\r\n".to_vec(), 1000));
    assert!(came.contains("\r\nconnection: close\r\n"), "{came}");
    assert_eq!(answers(&came).len(), 1);
}

#[test]
fn what_is_no_request_is_refused_at_once_and_nothing_after_it_is_read() {
    for bad in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}",
        "GET /x HTTP/2.0\r\n\r\n",
        "GET /x\r\n\r\n",
        "POST /x HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /x HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        "POST /x HTTP/1.1\r\ncontent-length: \r\n\r\n",
        "POST /x HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\n",
        "POST /x HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        "POST /x HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let came = block_on(sent([bad, "GET /x HTTP/1.1\r\n\r\n"].concat().into_bytes(), 1000));
        assert_eq!(answers(&came), [(400, String::new())], "{bad:?}");
        assert!(came.contains("\r\nconnection: close\r\n"), "{came}");
    }
}

#[test]
fn a_head_beyond_the_bounds_is_too_large_and_one_within_them_is_read() {
    let with = |fields: usize, bytes: usize| {
        let fields = (0..fields).map(|field| format!("x-{field}: y\r\n")).collect::<String>();
        format!("GET /x HTTP/1.1\r\n{fields}x: {}\r\n\r\n", "z".repeat(bytes)).into_bytes()
    };
    for (fields, bytes, status) in [(99, 1, 200), (100, 1, 431), (0, 15_000, 200), (0, 40_000, 431)] {
        let came = block_on(sent(with(fields, bytes), 500));
        assert!(came.starts_with(&format!("HTTP/1.1 {status} ")), "{fields} {bytes}: {came}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(10_000));
    assert!(block_on(sent(long.into_bytes(), 5000)).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_body_that_breaks_its_framing_is_told_to_its_call_and_ends_the_connection() {
    for bad in ["zz\r\n", "3\r\nabcd\r\n", "3\r\nab", "0\r\nx : y\r\n\r\n"] {
        let request = ["POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", bad].concat();
        let came = block_on(sent(request.into_bytes(), 1000));
        assert_eq!(answers(&came), [(400, String::new())], "{bad:?}");
    }
}

#[test]
fn a_client_is_told_to_go_on_once_its_body_is_wanted() {
    block_on(async {
        let (mut client, serving) = served(Echo::default());
        let serving = tokio::spawn(serving);
        let ask = |path: &str| {
            format!("PUT {path} HTTP/1.1\r\nexpect: 100-Continue\r\ncontent-length: 3\r\n\r\n").into_bytes()
        };
        client.write_all(&ask("/x")).await.unwrap();
        let mut interim = [0; 25];
        client.read_exact(&mut interim).await.unwrap();
        assert_eq!(interim, CONTINUE);
        client.write_all(b"abc").await.unwrap();
        client.write_all(&ask("/at-once")).await.unwrap();
        let mut came = String::new();
        tokio::time::timeout(SOON, client.read_to_string(&mut came)).await.unwrap().unwrap();
        assert_eq!(answers(&came), [(200, "abc".to_owned()), (200, "no".to_owned())]);
        assert!(came.contains("\r\nconnection: close\r\n"), "{came}");
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn a_call_ends_with_its_client() {
    block_on(async {
        let echo = Echo::default();
        for body in ["content-length: 0\r\n\r\n", "content-length: 3\r\n\r\nabc"] {
            let (mut client, serving) = served(echo.clone());
            let serving = tokio::spawn(serving);
            client.write_all(format!("PUT /never HTTP/1.1\r\n{body}").as_bytes()).await.unwrap();
            while echo.open.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            drop(client);
            let ended = tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
            assert!(matches!(ended, Err(Ended::Left)), "{ended:?}");
            assert_eq!(echo.open.load(Ordering::SeqCst), 0);
        }
    });
}

#[test]
fn what_is_left_of_a_body_that_nobody_wants_ends_the_connection_after_the_answer() {
    let request = format!("PUT /at-once HTTP/1.1\r\ncontent-length: 5000\r\n\r\n{}", "x".repeat(4999));
    let came = block_on(sent(request.into_bytes(), 100));
    assert_eq!(answers(&came), [(200, "no".to_owned())]);
}

#[test]
fn whoever_reads_on_and_gives_up_ends_a_connection_that_waits_for_its_client() {
    block_on(async {
        let (mut client, serving) = served(Echo::default());
        let serving = tokio::spawn(serving);
        client.write_all(b"PUT /later HTTP/1.1\r\ncontent-length: 3\r\n\r\na").await.unwrap();
        let mut came = String::new();
        tokio::time::timeout(SOON, client.read_to_string(&mut came)).await.unwrap().unwrap();
        assert_eq!(answers(&came), [(200, "no".to_owned())]);
        serving.await.unwrap().unwrap();
    });
}

#[test]
fn closing_ends_what_is_idle_and_lets_a_call_end() {
    block_on(async {
        let (mut client, serving) = served(Echo::default());
        let mut serving = std::pin::pin!(serving);
        // Half a call.
        client.write_all(b"PUT /x HTTP/1.1\r\ncontent-length: 3\r\n\r\na").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), serving.as_mut()).await.is_err());
        serving.as_mut().close();
        client.write_all(b"bcGET /x HTTP/1.1\r\n\r\n").await.unwrap();
        tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
        let mut came = String::new();
        client.read_to_string(&mut came).await.unwrap();
        assert_eq!(answers(&came), [(200, "abc".to_owned())]);
        assert!(came.contains("\r\nconnection: close\r\n"), "{came}");

        let (mut client, serving) = served(Echo::default());
        let mut serving = std::pin::pin!(serving);
        assert!(tokio::time::timeout(Duration::from_millis(20), serving.as_mut()).await.is_err());
        serving.as_mut().close();
        tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn requests_are_answered_in_their_order_however_they_are_cut(
        bodies in prop::collection::vec((prop::collection::vec(b' '..b'~', 0..6000), any::<bool>()), 1..5),
        piece in 1_usize..3000,
    ) {
        let mut bytes = Vec::new();
        for (body, is_chunked) in &bodies {
            if *is_chunked {
                bytes.extend_from_slice(b"PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
                for chunk in body.chunks(700) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\nx-sum: 1\r\n\r\n");
            } else {
                bytes.extend_from_slice(format!("PUT /x HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
        }
        let came = block_on(sent(bytes, piece));
        let expected: Vec<_> = bodies.iter().map(|(body, _)| (200, String::from_utf8(body.clone()).unwrap())).collect();
        prop_assert_eq!(answers(&came), expected);
        prop_assert_eq!(came.matches("\r\nx-sum: 1\r\n").count(), bodies.iter().filter(|(_, is_chunked)| *is_chunked).count());
    }

    #[test]
    fn no_bytes_make_it_panic_or_hang(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1_usize..100) {
        for start in ["", "PUT /x HTTP/1.1\r\n", "PUT /x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"] {
            let _ = block_on(sent([start.as_bytes(), &bytes].concat(), piece));
        }
    }
}

#[test]
fn a_date_is_as_http_writes_it() {
    assert_eq!(written(784_111_777).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
}
