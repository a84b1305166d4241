//! The log on stderr: text for a terminal, one JSON object per line otherwise.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Says what is logged, in the syntax of tracing's `EnvFilter`: `debug`, `info,tollgate::feed=trace`.
pub const FILTER_VARIABLE: &str = "TOLLGATE_LOG";
/// `text` or `json`; where unset, text for a terminal and JSON otherwise.
pub const FORMAT_VARIABLE: &str = "TOLLGATE_LOG_FORMAT";

/// Our own steps, and of others only what needs attention.
const DEFAULT_FILTER: &str = "warn,tollgate=info";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

/// The log cannot be set up as the environment says.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the environment variable {FILTER_VARIABLE} is not a filter like \"info\" or \"warn,tollgate=debug\": {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the environment variable {FORMAT_VARIABLE} must be \"text\" or \"json\"")]
    Format,
    #[error("a log is installed already: {0}")]
    Twice(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// Installs the log for the whole process, once.
pub fn install() -> Result<(), LogError> {
    let filter = EnvFilter::try_new(text_of(FILTER_VARIABLE).unwrap_or_else(|| DEFAULT_FILTER.to_owned()))?;
    let log = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    match format(text_of(FORMAT_VARIABLE).as_deref(), io::stderr().is_terminal())? {
        Format::Text => log.with_target(false).try_init()?,
        Format::Json => log.json().flatten_event(true).with_current_span(false).try_init()?,
    }
    Ok(())
}

fn text_of(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|text| !text.is_empty())
}

fn format(asked: Option<&str>, terminal: bool) -> Result<Format, LogError> {
    match asked {
        Some("text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        Some(_) => Err(LogError::Format),
        None if terminal => Ok(Format::Text),
        None => Ok(Format::Json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_json_and_a_terminal_text_unless_asked_otherwise() {
        assert_eq!(format(None, true).unwrap(), Format::Text);
        assert_eq!(format(None, false).unwrap(), Format::Json);
        assert_eq!(format(Some("text"), false).unwrap(), Format::Text);
        assert!(format(Some("xml"), false).is_err());
    }

    #[test]
    fn the_default_filter_is_one() {
        EnvFilter::try_new(DEFAULT_FILTER).unwrap();
    }
}
