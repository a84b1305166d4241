//! `/livez`, `/readyz` and `/metrics`: what a node says about itself, to anyone who reaches `[health]`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::clock;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::time::BootTime;

/// One thing that has to be right before the node is ready. Err says what is not, for an operator; never a secret.
#[derive(Clone)]
pub struct ReadinessCheck {
    name: &'static str,
    passes: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl ReadinessCheck {
    /// `passes` is asked on every probe and must not block.
    pub fn new(name: &'static str, passes: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { name, passes: Arc::new(passes) }
    }
}

/// What the health routes show.
#[derive(Clone)]
pub struct Health {
    pub metrics: Arc<Metrics>,
    pub checks: Vec<ReadinessCheck>,
    /// Where the node has a control plane: the store must be writable.
    pub store: Option<WriteProbe>,
    /// The same of a ledger apart from the store, where nothing else works without it.
    pub ledger: Option<WriteProbe>,
}

/// Whether the store, or the ledger, takes writes. Asked by anyone at any rate, the store is asked once a second at most, by one at a time.
#[derive(Clone)]
pub struct WriteProbe {
    store: Arc<dyn Store>,
    asks: Asked,
    last: Arc<Mutex<Option<Probed>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Store,
    Ledger,
}

/// What the store said, and when.
struct Probed {
    at: BootTime,
    said: Result<(), String>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_ready: Vec<NotReady>,
}

#[derive(Serialize)]
struct NotReady {
    name: &'static str,
    reason: String,
}

/// How long what the store said holds.
const STORE_ASKED_EVERY: Duration = Duration::from_secs(1);
/// A store that does not answer a probe within this time is not ready.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The routes, for the control listener's `extra` or, through [`super::enveloped`], for a listener of their own.
pub fn routes(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|| async { Json(serde_json::json!({"alive": true})) }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn readyz(State(health): State<Health>) -> Response {
    let failed = health.checks.iter().filter_map(|check| {
        let reason = (check.passes)().err()?;
        Some(NotReady { name: check.name, reason })
    });
    let mut not_ready: Vec<_> = failed.collect();
    not_ready.extend(not_writable("store", health.store.as_ref()).await);
    not_ready.extend(not_writable("ledger", health.ledger.as_ref()).await);
    let ready = not_ready.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, not_ready })).into_response()
}

async fn not_writable(name: &'static str, probe: Option<&WriteProbe>) -> Option<NotReady> {
    let reason = probe?.check().await.err()?;
    Some(NotReady { name, reason })
}

impl WriteProbe {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, asks: Asked::Store, last: Arc::default() }
    }

    pub fn of_ledger(store: Arc<dyn Store>) -> Self {
        Self { store, asks: Asked::Ledger, last: Arc::default() }
    }

    async fn check(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some(Probed { at, said }) = &*last
            && clock::boot().since(*at) < STORE_ASKED_EVERY
        {
            return said.clone();
        }
        let asked = async {
            match self.asks {
                Asked::Store => self.store.check_writable().await,
                Asked::Ledger => self.store.check_ledger().await,
            }
        };
        let said = match tokio::time::timeout(STORE_ANSWERS_WITHIN, asked).await {
            Ok(said) => said.map_err(|error| error.to_string()),
            Err(_) => Err("it does not answer".to_owned()),
        };
        *last = Some(Probed { at: clock::boot(), said: said.clone() });
        said
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    match health.metrics.render(clock::boot()) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => super::error::Problem::internal(&error).into_response(),
    }
}
