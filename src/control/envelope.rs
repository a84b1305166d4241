//! What every answer of the control plane carries: a request id, security headers, and a body for each problem.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::HEXLOWER;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use super::error::{Kind, Problem};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What one request is called in its answer and in the log.
#[derive(Clone, Debug)]
pub struct RequestId(String);

impl RequestId {
    /// 96 random bits. Nothing but a name: a dull one is better than no answer.
    fn random() -> Self {
        let mut bytes = [0; 12];
        let _dull_if_it_fails = getrandom::fill(&mut bytes);
        Self(HEXLOWER.encode(&bytes))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The outermost layer. Errors that axum makes on its own become problems here as well.
pub async fn wrap(mut request: Request, next: Next) -> Response {
    let id = RequestId::random();
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Some(problem) = problem_of(&mut response) {
        write_problem(&mut response, &problem, &id);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Headers of every answer that does not set them itself. Nearly all of them are about one account, so none is stored.
const DEFAULTS: [(HeaderName, &str); 4] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

fn problem_of(response: &mut Response) -> Option<Problem> {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return Some(problem);
    }
    let status = response.status();
    let ours = response.headers().contains_key(CONTENT_TYPE) && !is_plain_text(response);
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let same = Kind::ALL.iter().find(|kind| kind.status() == status);
    let fallback = if status.is_client_error() { Kind::Invalid } else { Kind::Internal };
    Some(Problem::from(*same.unwrap_or(&fallback)))
}

fn is_plain_text(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/plain"))
}

fn write_problem(response: &mut Response, problem: &Problem, id: &RequestId) {
    *response.status_mut() = problem.kind.status();
    let body = serde_json::to_vec(&problem.body(id.as_str())).unwrap_or_default();
    *response.body_mut() = Body::from(body);
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    tracing::debug!(request_id = id.as_str(), code = problem.kind.code(), "a request of the control API was refused");
}
