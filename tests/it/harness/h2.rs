//! A client for HTTP/2 in cleartext with prior knowledge, and for unary gRPC calls on it.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// One connection; clone it for calls side by side.
#[derive(Clone)]
pub struct H2 {
    at: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// The answer to a gRPC call.
#[derive(Clone, Debug)]
pub struct GrpcAnswer {
    pub http_status: StatusCode,
    pub headers: HeaderMap,
    /// The messages without their 5-byte prefix.
    pub messages: Vec<Bytes>,
    /// `None` for a trailers-only answer, whose trailers are its headers.
    pub trailers: Option<HeaderMap>,
}

impl GrpcAnswer {
    /// From the trailers, or from the headers of a trailers-only answer.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref().unwrap_or(&self.headers).get(name).and_then(|value| value.to_str().ok())
    }

    pub fn status(&self) -> u8 {
        let status = self.field("grpc-status").and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no grpc-status in {self:?}"))
    }

    /// The status text as it came, percent-encoded.
    pub fn status_message(&self) -> &str {
        self.field("grpc-message").unwrap_or_default()
    }
}

impl H2 {
    pub async fn connect(at: SocketAddr) -> Self {
        Self::try_connect(at).await.expect("no HTTP/2 connection")
    }

    /// Absent where nobody listens, or who does ends the connection at once.
    pub async fn try_connect(at: SocketAddr) -> Option<Self> {
        let connect = async {
            let stream = TcpStream::connect(at).await.ok()?;
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()
        };
        let (sender, connection) = timeout(PATIENCE, connect).await.expect("no HTTP/2 connection in time")?;
        // Its end is seen by the calls on it.
        tokio::spawn(connection);
        Some(Self { at, sender })
    }

    /// One call. The URI must be whole: `http://authority/path`.
    pub async fn try_call(&mut self, request: Request<Bytes>) -> Result<Answer, hyper::Error> {
        let call = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request.map(Full::new)).await?.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned();
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes(), trailers })
        };
        timeout(PATIENCE, call).await.expect("no answer in time")
    }

    /// A call that must be answered.
    pub async fn call(&mut self, request: Request<Bytes>) -> Answer {
        self.try_call(request).await.unwrap()
    }

    /// A unary gRPC call to this connection's own address. `path` is `/package.Service/Method`.
    pub async fn grpc_unary(&mut self, path: &str, metadata: &[(&str, &str)], message: &[u8]) -> GrpcAnswer {
        let authority = self.at.to_string();
        self.grpc_unary_to(&authority, path, metadata, message).await
    }

    /// A unary gRPC call under this authority.
    pub async fn grpc_unary_to(
        &mut self,
        authority: &str,
        path: &str,
        metadata: &[(&str, &str)],
        message: &[u8],
    ) -> GrpcAnswer {
        self.try_grpc_unary_to(authority, path, metadata, message).await.unwrap()
    }

    /// As [`H2::grpc_unary`], where the connection may end before the answer does.
    pub async fn try_grpc_unary(
        &mut self,
        path: &str,
        metadata: &[(&str, &str)],
        message: &[u8],
    ) -> Result<GrpcAnswer, hyper::Error> {
        let authority = self.at.to_string();
        self.try_grpc_unary_to(&authority, path, metadata, message).await
    }

    async fn try_grpc_unary_to(
        &mut self,
        authority: &str,
        path: &str,
        metadata: &[(&str, &str)],
        message: &[u8],
    ) -> Result<GrpcAnswer, hyper::Error> {
        let mut request = Request::post(format!("http://{authority}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let answer = self.try_call(request.body(frame(message)).unwrap()).await?;
        Ok(GrpcAnswer {
            http_status: answer.status,
            headers: answer.headers,
            messages: messages(&answer.body),
            trailers: answer.trailers,
        })
    }
}

/// A gRPC message with its prefix: not compressed, length.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len().try_into().unwrap());
    framed.put_slice(message);
    framed.freeze()
}

fn messages(mut body: &[u8]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let (message, rest) = rest.split_at_checked(length).expect("a message that is cut short");
        messages.push(Bytes::copy_from_slice(message));
        body = rest;
    }
    assert!(body.is_empty(), "a prefix that is cut short");
    messages
}
