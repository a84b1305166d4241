//! A client of the control API, as small as the demo needs it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

pub struct Api {
    at: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("the control plane cannot be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the control plane broke off: {0}")]
    Broken(#[from] hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    #[error("{method} {path} was answered {status}: {code}")]
    Refused { method: Method, path: String, status: StatusCode, code: String },
}

impl Api {
    pub fn new(at: SocketAddr) -> Self {
        Self { at }
    }

    /// One call; an answer that is not a success is an error. No content is `Value::Null`.
    pub async fn call(&self, method: Method, path: &str, token: &str, body: &Value) -> Result<Value, ApiError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(self.at).await?)).await?;
        tokio::spawn(connection);
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut request = Request::builder().method(method.clone()).uri(path).header(HOST, self.at.to_string());
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let code = answer.get("code").and_then(Value::as_str).unwrap_or("without a code").to_owned();
        Err(ApiError::Refused { method, path: path.to_owned(), status, code })
    }
}
