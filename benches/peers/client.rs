//! The clients of the load generator: HTTP/1.1 as bytes, and gRPC on HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http1;
use crate::load::{Answer, HOST};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// One call after the other, on one connection or on a new one for each.
pub struct Http {
    at: SocketAddr,
    fresh: bool,
    tls: Option<TlsConnector>,
    stream: Option<Box<dyn Stream>>,
    buffer: BytesMut,
}

impl Http {
    pub fn new(at: SocketAddr, fresh: bool, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { at, fresh, tls: tls.map(TlsConnector::from), stream: None, buffer: BytesMut::with_capacity(64 << 10) }
    }

    pub async fn call(&mut self, request: &Bytes) -> Result<Answer, Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        self.buffer.clear();
        stream.write_all(request).await?;
        let head = http1::head(&mut stream, &mut self.buffer).await?.ok_or("closed without an answer")?;
        let status = http1::status(&head).ok_or("no status")?;
        let length = http1::length(&head);
        if http1::field(&head, "transfer-encoding").is_some() {
            return Err("an answer in chunks, though its length was known".into());
        }
        let mut seen = self.buffer.len();
        while seen < length {
            self.buffer.clear();
            self.buffer.reserve(64 << 10);
            match stream.read_buf(&mut self.buffer).await? {
                0 => return Err(format!("cut after {seen} of {length} bytes").into()),
                read => seen += read,
            }
        }
        let closes = http1::field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        if !self.fresh && !closes {
            self.stream = Some(stream);
        }
        Ok(Answer { status, length: seen })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let stream = TcpStream::connect(self.at).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => Ok(Box::new(tls.connect(ServerName::try_from(HOST)?, stream).await?)),
        }
    }
}

/// Calls at once on one connection.
#[derive(Clone)]
pub struct Rpc(SendRequest<Bytes>);

impl Rpc {
    pub async fn connect(at: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        // How it ends is seen by the calls on it.
        tokio::task::spawn_local(connection);
        Ok(Self(sender))
    }

    pub async fn call(&mut self, request: Request<()>, message: Bytes) -> Result<Answer, Failure> {
        let mut sender = self.0.clone().ready().await?;
        let (answer, mut sending) = sender.send_request(request, false)?;
        sending.send_data(message, true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            length += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers = body.trailers().await?;
        let is_ok = |headers: &HeaderMap| headers.get("grpc-status") == Some(&HeaderValue::from_static("0"));
        if !trailers.as_ref().is_some_and(is_ok) {
            return Err(format!("no success: {:?}, {:?}, {trailers:?}", head.status, head.headers).into());
        }
        Ok(Answer { status: head.status.as_u16(), length })
    }
}
