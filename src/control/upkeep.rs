//! The store as its operator sees it: how it stands, a copy of it, whether its audit log is whole.

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http_body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::Control;
use super::caller::OperatorOnly;
use super::error::{Kind, Problem};
use crate::clock;
use crate::store::audit::AuditVerdict;
use crate::store::upkeep::StoreStatus;

#[derive(Serialize, ToSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum AuditAnswer {
    Whole {
        entries: u64,
    },
    /// The first entry that is not what it was.
    Broken {
        seq: u64,
    },
}

impl From<AuditVerdict> for AuditAnswer {
    fn from(verdict: AuditVerdict) -> Self {
        match verdict {
            AuditVerdict::Whole { entries } => Self::Whole { entries },
            AuditVerdict::Broken { seq } => Self::Broken { seq },
        }
    }
}

pub async fn status(State(control): State<Arc<Control>>, _: OperatorOnly) -> Result<Json<StoreStatus>, Problem> {
    let upkeep = control.upkeep.as_ref().ok_or(Kind::NotFound)?;
    Ok(Json(upkeep.status().await?))
}

/// Reads the whole chain, and holds it against what the journal remembers of it.
pub async fn verify_audit(State(control): State<Arc<Control>>, _: OperatorOnly) -> Result<Json<AuditAnswer>, Problem> {
    Ok(Json(control.store.verify_audit().await?.into()))
}

/// The backup as a stream. Whoever reads it knows by its end whether it is whole.
pub async fn backup(State(control): State<Arc<Control>>, _: OperatorOnly) -> Result<Response, Problem> {
    let upkeep = Arc::clone(control.upkeep.as_ref().ok_or(Kind::NotFound)?);
    let (chunks, body) = mpsc::channel(8);
    tokio::spawn(async move {
        let out = Box::new(io::BufWriter::with_capacity(CHUNK, Chunks(chunks)));
        if let Err(error) = upkeep.back_up(clock::wall(), out).await {
            tracing::error!(%error, "a backup was cut short");
        }
    });
    let response = Response::builder()
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CACHE_CONTROL, "no-store")
        .body(Body::new(ChunkBody(body)));
    response.map_err(|error| Problem::internal(&error))
}

const CHUNK: usize = 64 << 10;

/// Writes into the body, and waits where its reader is slow. For a thread that may block.
struct Chunks(mpsc::Sender<Bytes>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Bytes::copy_from_slice(bytes)).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct ChunkBody(mpsc::Receiver<Bytes>);

impl http_body::Body for ChunkBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
