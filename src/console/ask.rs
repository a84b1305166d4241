//! How a page gets what it shows: by asking the API, inside the process, with the visitor's own cookie.
//!
//! So a page can show nothing that its visitor may not read, and no rule stands in two places.

use axum::Router;
use axum::body::Body;
use http::header::{CONTENT_TYPE, COOKIE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::visit::Visit;

/// The API of this process.
#[derive(Clone)]
pub struct Api(Router);

/// What the API said instead of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    /// One of the stable codes of the API.
    pub code: String,
}

/// The longest answer that is read: a month of usage, hour by hour and key by key.
const LONGEST: usize = 64 * 1024 * 1024;

impl Refused {
    fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(cause = %cause, "the API's answer to a page could not be used");
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: "internal".to_owned() }
    }

    /// Nobody is signed in.
    pub fn is_stranger(&self) -> bool {
        self.code == "unauthenticated"
    }
}

impl Api {
    pub fn new(router: Router) -> Self {
        Self(router)
    }

    /// The JSON at `target`, a path with its query.
    pub async fn get<T: DeserializeOwned>(&self, visit: &Visit, target: &str) -> Result<T, Refused> {
        let body = self.read(visit, target).await?;
        serde_json::from_slice(&body).map_err(|error| Refused::internal(&error))
    }

    /// One value for each line at `target`.
    pub async fn lines<T: DeserializeOwned>(&self, visit: &Visit, target: &str) -> Result<Vec<T>, Refused> {
        let body = self.read(visit, target).await?;
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let read: Result<_, _> = lines.map(serde_json::from_slice).collect();
        read.map_err(|error| Refused::internal(&error))
    }

    async fn read(&self, visit: &Visit, target: &str) -> Result<Vec<u8>, Refused> {
        let mut request = Request::get(target).body(Body::empty()).map_err(|error| Refused::internal(&error))?;
        request.extensions_mut().insert(visit.source);
        for cookie in &visit.cookies {
            request.headers_mut().append(COOKIE, cookie.clone());
        }
        let Ok(answer) = TowerToHyperService::new(self.0.clone()).call(request).await;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| Refused::internal(&error))?.to_bytes();
        if head.status.is_success() {
            return Ok(body.to_vec());
        }
        let said = head.headers.get(CONTENT_TYPE).and(serde_json::from_slice::<Said>(&body).ok());
        Err(Refused { status: head.status, code: said.map_or_else(|| "internal".to_owned(), |said| said.code) })
    }
}

/// What is read of a problem.
#[derive(Deserialize)]
struct Said {
    code: String,
}
