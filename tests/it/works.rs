//! The harness itself: a client that misreads answers would make every other test lie.

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::PATIENCE;
use crate::harness::h2::{H2, frame};
use crate::harness::pipe::Pipe;
use crate::harness::process::{Process, Signal, run};
use crate::harness::raw::{self, Raw};

/// Answers the first bytes of each of `connections` connections with `answer`, then closes it.
fn server(answer: &'static [u8], connections: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().take(connections).map(Result::unwrap) {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            stream.write_all(answer).unwrap();
        }
    });
    at
}

#[test]
fn answers_are_read_by_length_by_chunks_and_to_the_end() {
    let by_length = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-A: b\r\n\r\n{}  ";
    let answer = raw::call(server(by_length, 1), "POST", "/", &[], b"x");
    assert_eq!((answer.status, answer.header("x-a"), answer.text().as_str()), (200, Some("b"), "{}  "));
    assert!(answer.json().is_object());

    let by_chunks =
        b"HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: v\r\n\r\n";
    assert_eq!(raw::call(server(by_chunks, 1), "GET", "/", &[], b"").text(), "abcde");

    let to_the_end = b"HTTP/1.0 200 OK\r\n\r\nrest";
    assert_eq!(raw::call(server(to_the_end, 1), "GET", "/", &[], b"").text(), "rest");
}

#[test]
fn two_answers_on_one_connection_are_told_apart() {
    let at = server(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 204 No Content\r\n\r\n", 1);
    let mut connection = Raw::connect(at);
    connection.send(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(connection.answer().text(), "a");
    assert_eq!(connection.answer().status, 204);
    assert!(connection.closes(Duration::from_secs(5)));
}

#[tokio::test]
async fn answers_to_calls_that_were_written_at_once_are_told_in_their_order_until_the_connection_ends() {
    let both = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 401 No\r\na: b\r\ncontent-length: 0\r\n\r\n";
    let (mut told, mut pipe) = (Vec::new(), Pipe::try_connect(server(both, 1)).await.unwrap());
    let ended = pipe.call(b"x", 3, |status| told.push(status)).await;
    assert_eq!((ended.unwrap_err().kind(), &told[..]), (ErrorKind::UnexpectedEof, &[200, 401][..]));
    let mut unread = Pipe::try_connect(server(b"HTTP/1.1 200 OK\r\n\r\n", 1)).await.unwrap();
    assert_eq!(unread.call(b"x", 1, |_| ()).await.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn an_answer_that_does_not_come_is_an_error_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut silent = Raw::connect(listener.local_addr().unwrap());
    assert!(!silent.closes(Duration::from_millis(20)));
    assert_eq!(silent.try_answer(Duration::from_millis(20)).unwrap_err().kind(), ErrorKind::TimedOut);
    let mut cut = Raw::connect(server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", 1));
    cut.send(b"x");
    assert_eq!(cut.try_answer(PATIENCE).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

/// Echoes the message, with the metadata `x-echo` as the status text; without that metadata, a trailers-only denial.
async fn echo(request: Request<Incoming>) -> Result<Response<BoxedBody>, Infallible> {
    let said = request.headers().get("x-echo").cloned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut answer = Response::builder().header("content-type", "application/grpc");
    let mut trailers = HeaderMap::new();
    match said {
        Some(said) => {
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("grpc-message", said);
        }
        None => answer = answer.header("grpc-status", "16"),
    }
    let body = if trailers.is_empty() {
        Full::new(Bytes::new()).boxed()
    } else {
        Full::new(body).with_trailers(async move { Some(Ok(trailers)) }).boxed()
    };
    Ok(answer.body(body).unwrap())
}

type BoxedBody = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn grpc_server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(echo)));
        }
    });
    at
}

#[tokio::test]
async fn a_grpc_answer_has_its_messages_and_its_status_wherever_that_stands() {
    let mut connection = H2::connect(grpc_server().await).await;
    let answer = connection.grpc_unary("/a.B/C", &[("x-echo", "fine")], b"hello").await;
    assert_eq!((answer.status(), answer.status_message()), (0, "fine"));
    assert_eq!(answer.messages, [Bytes::from_static(b"hello")]);
    assert!(answer.trailers.is_some());

    let denied = connection.grpc_unary("/a.B/C", &[], b"hello").await;
    assert_eq!((denied.status(), denied.messages.len()), (16, 0));
    assert_eq!(frame(b"abc"), Bytes::from_static(b"\0\0\0\0\x03abc"));
}

#[test]
fn commands_end_with_their_output_and_exit_code() {
    let output = run(&["totp", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"]);
    let code = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), code.trim().len()), (Some(0), 6));
    assert_eq!(run(&["totp", "no"]).status.code(), Some(1));
    let process = Process::start(&["config", "--print-default"]);
    assert!(process.first_line().starts_with("# The configuration of Tollgate"));
    // Gone or not: a process that has not been waited for can be signalled.
    process.signal(Signal::TERM);
    process.ended(PATIENCE);
}
