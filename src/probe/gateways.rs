//! The gateways that the probe calls: one kept connection to each, made anew where it broke.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use serde::Deserialize;

use super::Said;
use crate::cli::client::{ClientError, Endpoint};

/// An authority that no cluster has: the top-level domain "invalid" is nobody's (RFC 6761).
const NOBODY: &str = "nobody.probe.tollgate.invalid";
const KEY: HeaderName = HeaderName::from_static("dashvector-auth-token");
/// A gateway that takes longer has not answered.
const PATIENCE: Duration = Duration::from_secs(5);
/// A denial is far shorter.
const BODY_MOST: usize = 64 << 10;

pub struct Gateways(Vec<Gateway>);

struct Gateway {
    at: Endpoint,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// The body of a denial, as far as the probe needs it.
#[derive(Deserialize)]
struct Body {
    code: i64,
}

impl Gateways {
    pub fn parse(urls: &[String]) -> Result<Self, ClientError> {
        let gateways = urls.iter().map(|url| Ok(Gateway { at: Endpoint::parse(url)?, connection: None }));
        Ok(Self(gateways.collect::<Result<_, ClientError>>()?))
    }

    /// Calls all of them at once with this key: the URL of each and what it said.
    pub async fn call(&mut self, key: &HeaderValue) -> Vec<(String, Said)> {
        let calls = self.0.iter_mut().map(|gateway| async {
            let said = tokio::time::timeout(PATIENCE, gateway.call(key)).await;
            if said.is_err() {
                gateway.connection = None;
            }
            (gateway.at.url().to_owned(), said.unwrap_or(Said::Lost))
        });
        join_all(calls).await
    }
}

/// Polls all of them on this task; there are few.
async fn join_all<T>(calls: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut calls: Vec<_> = calls.map(|call| (Some(Box::pin(call)), None)).collect();
    std::future::poll_fn(|cx| {
        for (call, said) in &mut calls {
            if let Some(pending) = call
                && let std::task::Poll::Ready(ready) = pending.as_mut().poll(cx)
            {
                (*call, *said) = (None, Some(ready));
            }
        }
        if calls.iter().all(|(call, _)| call.is_none()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    calls.into_iter().filter_map(|(_, said)| said).collect()
}

impl Gateway {
    async fn call(&mut self, key: &HeaderValue) -> Said {
        // A kept connection may have been closed meanwhile, which says nothing about the key.
        let kept = self.connection.take();
        if let Some(connection) = kept
            && let Ok(said) = self.ask(connection, key).await
        {
            return said;
        }
        let Ok(connection) = self.at.open().await else { return Said::Lost };
        self.ask(connection, key).await.unwrap_or(Said::Lost)
    }

    async fn ask(&mut self, mut connection: SendRequest<Full<Bytes>>, key: &HeaderValue) -> Result<Said, Broken> {
        let request = Request::builder().method(Method::GET).uri("/service_version").header(HOST, NOBODY);
        let request = request.header(KEY, key).body(Full::default()).map_err(|_| Broken)?;
        connection.ready().await.map_err(|_| Broken)?;
        let answer = connection.send_request(request).await.map_err(|_| Broken)?;
        let body = Limited::new(answer.into_body(), BODY_MOST).collect().await.map_err(|_| Broken)?.to_bytes();
        self.connection = Some(connection);
        Ok(Said::of(serde_json::from_slice(&body).ok().map(|Body { code }| code)))
    }
}

/// The connection ended before the answer did.
struct Broken;
