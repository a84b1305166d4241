//! The composition root: builds the parts of a node, runs them, drains them and flushes what is left.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Config;

/// What `tollgate demo` was asked for.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    pub gateway: SocketAddr,
    pub control: SocketAddr,
    /// Absent: a new temporary folder.
    pub data: Option<PathBuf>,
    /// One line of JSON on stdout once it serves, in place of a text for people.
    pub json: bool,
}

/// Why a node could not start, or ended other than by a graceful stop. Said to a person.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("this part of Tollgate is not wired yet")]
    NotWired,
}

/// Runs a node until it is told to stop.
pub fn serve(_config: Config) -> Result<(), AppError> {
    Err(AppError::NotWired)
}

/// Runs the sample vector service, a gateway and a control plane in this process until told to stop.
pub fn demo(_options: DemoOptions) -> Result<(), AppError> {
    Err(AppError::NotWired)
}
