//! An HTTP/1.1 client that keeps its connection, for calls in a loop.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// One connection, for one call after the other.
pub struct H1 {
    at: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// Whether the other side closes the connection after it.
    pub closes: bool,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Lost {
    /// There was no connection.
    Connect(std::io::Error),
    /// There was one, and it ended before the answer did.
    Call(hyper::Error),
}

impl H1 {
    pub async fn connect(at: SocketAddr) -> Self {
        Self::try_connect(at).await.unwrap()
    }

    pub async fn try_connect(at: SocketAddr) -> Result<Self, Lost> {
        let stream = timeout(PATIENCE, TcpStream::connect(at)).await.expect("no connection in time");
        let stream = stream.map_err(Lost::Connect)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(Lost::Call)?;
        // Its end is seen by the calls on it.
        tokio::spawn(connection);
        Ok(Self { at, sender })
    }

    /// `Host` is added.
    pub async fn call(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, Lost> {
        let mut request = Request::builder().method(method).uri(target).header("host", self.at.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let call = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let closes = head.headers.get("connection").is_some_and(|value| value.as_bytes() == b"close");
            Ok(Answer { status: head.status, closes, body: body.collect().await?.to_bytes() })
        };
        timeout(PATIENCE, call).await.expect("no answer in time").map_err(Lost::Call)
    }
}
