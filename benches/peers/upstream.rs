//! The vector service that all proxies send to: HTTP/1.1 and HTTP/2 with prior knowledge on one port, one thread, answers made beforehand.
//!
//! It runs in a process of its own. A call that still has its key, or has no account, is answered 500, so that what a proxy is
//! there for is checked with each call.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http1;

/// What the service answers with, chosen by the collection in the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Small,
    K100,
    M10,
}

impl Size {
    const ALL: [Self; 3] = [Self::Small, Self::K100, Self::M10];

    pub fn collection(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::K100 => "k100",
            Self::M10 => "m10",
        }
    }

    /// Bytes of vectors in the answer.
    fn filling(self) -> usize {
        match self {
            Self::Small => 0,
            Self::K100 => 100 << 10,
            Self::M10 => 10 << 20,
        }
    }

    /// The body of an answer over HTTP: documents with vectors, and the units at the end.
    pub fn json(self) -> Bytes {
        const VALUE: &str = "0.123456,";
        let mut text =
            String::from(r#"{"code":0,"request_id":"19215409-ea66-4db9-8764-26ce2eb5bb99","message":"","output":["#);
        let mut number = 0;
        while text.len() < self.filling() {
            let vector = VALUE.repeat(255);
            text += &format!(r#"{{"id":"{number}","score":0.25,"fields":{{}},"vector":[{vector}0.5]}},"#);
            number += 1;
        }
        text += r#"{"id":"last","score":0.5,"fields":{}}],"usage":{"read_units":1}}"#;
        text.into()
    }

    /// The message of an answer over gRPC, with its prefix: request id, one document, usage (protocol, section 4).
    pub fn message(self) -> Bytes {
        let mut message = b"\x0a\x24\x31\x39".to_vec();
        message.resize(2 + 36, b'a');
        message.extend_from_slice(b"\x22\x06\x0a\x04last\x2a\x02\x10\x01");
        let length = u32::try_from(message.len()).expect("a small message");
        [&[0][..], &length.to_be_bytes(), &message].concat().into()
    }
}

/// Serves for ever on two addresses, which are printed: one that checks what a proxy did with key and account, and one that does not.
pub async fn serve() -> io::Result<()> {
    let (strict, lenient) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let answers = Answers::new();
    crate::child::announce(&[strict.local_addr()?, lenient.local_addr()?])?;
    tokio::try_join!(accept(strict, answers.clone(), true), accept(lenient, answers, false))?;
    Ok(())
}

async fn accept(listener: TcpListener, answers: Answers, strict: bool) -> io::Result<()> {
    loop {
        let (stream, _): (TcpStream, SocketAddr) = listener.accept().await?;
        let answers = answers.clone();
        tokio::spawn(async move {
            // How a connection ends is seen by whoever opened it.
            let _ = connection(stream, answers, strict).await;
        });
    }
}

#[derive(Clone)]
struct Answers {
    /// Whole answers over HTTP/1.1, by [`Size::ALL`].
    http: [Bytes; 3],
    /// The same, said to be encoded in a way that nobody knows, so that nobody reads them.
    unread: [Bytes; 3],
    message: Bytes,
}

impl Answers {
    fn new() -> Self {
        let all = |coding: &str| {
            Size::ALL.map(|size| {
                let body = size.json();
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{coding}content-length: {length}\r\n\r\n"
                );
                Bytes::from([head.as_bytes(), &body].concat())
            })
        };
        Self { http: all(""), unread: all("content-encoding: unread\r\n"), message: Size::Small.message() }
    }

    fn to(&self, head: &[u8]) -> &Bytes {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let [small, k100, m10] = if memmem::find(line, b"/unread").is_some() { &self.unread } else { &self.http };
        match () {
            () if memmem::find(line, b"/k100/").is_some() => k100,
            () if memmem::find(line, b"/m10/").is_some() => m10,
            () => small,
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const REFUSAL: &[u8] = b"HTTP/1.1 500 Not As A Proxy Should\r\ncontent-length: 0\r\n\r\n";

async fn connection(mut stream: TcpStream, answers: Answers, strict: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut seen = [0; 3];
    if stream.peek(&mut seen).await? > 0 && PREFACE.starts_with(&seen) {
        return http2(stream, answers, strict).await.map_err(io::Error::other);
    }
    let mut buffer = BytesMut::with_capacity(16 << 10);
    loop {
        let Some(head) = http1::head(&mut stream, &mut buffer).await? else { return Ok(()) };
        let good = !strict || is_as_it_should_be(&head);
        skip_body(&mut stream, &mut buffer, http1::length(&head)).await?;
        stream.write_all(if good { answers.to(&head) } else { REFUSAL }).await?;
    }
}

async fn skip_body(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, length: usize) -> io::Result<()> {
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    buffer.advance(length);
    Ok(())
}

pub const KEY: &str = "dashvector-auth-token";
pub const ACCOUNT: &str = "x-tollgate-account";

/// Without a key, and with an account that is not empty.
fn is_as_it_should_be(head: &[u8]) -> bool {
    http1::field(head, KEY).is_none() && http1::field(head, ACCOUNT).is_some_and(|account| !account.is_empty())
}

async fn http2(stream: TcpStream, answers: Answers, strict: bool) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(1024).initial_window_size(1 << 20).initial_connection_window_size(8 << 20);
    let mut connection = builder.handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        tokio::spawn(call(request, respond, answers.message.clone(), strict));
    }
    Ok(())
}

async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    message: Bytes,
    strict: bool,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let account = head.headers.get(ACCOUNT).is_some_and(|account| !account.is_empty());
    let good = !strict || account && !head.headers.contains_key(KEY);
    let mut answer = Response::new(());
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut answering = respond.send_response(answer, false)?;
    answering.send_data(message, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if good { "0" } else { "13" }));
    answering.send_trailers(trailers)
}
