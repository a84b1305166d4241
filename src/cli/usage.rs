//! `tollgate usage`: what was used, where the hours stand, whether it all agrees, corrections, the archive.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::CliError;
use super::client::{Client, ClientError, Control};
use super::table::{Column, Show, items};
use crate::archive::{Archive, Whole};

#[derive(Debug, Subcommand)]
pub enum Usage {
    /// What was used, by account, cluster, operation and hour. Open hours are included.
    Records(Records),
    /// Which hours are open, draining or final, and which gateways a draining one waits for.
    Windows(Span),
    /// Compare what gateways say they counted in an hour with what the ledger holds.
    Reconcile {
        /// Any instant within the hour, like 2026-01-01T00:00:00Z; the last one that is over where left out.
        #[arg(long)]
        window: Option<String>,
    },
    /// Give a gateway up whose machine is gone, so that its hours no longer wait for it.
    Abandon {
        /// As `usage windows` names it.
        #[arg(long)]
        gateway: String,
        #[arg(long)]
        reason: String,
    },
    /// Append a correction. What was counted stays as it is.
    Adjust(Adjust),
    /// Read a whole archive and name the first thing in it that is not what it was.
    Verify {
        /// The folder: meter.archive of the control plane.
        #[arg(long, value_name = "DIR")]
        archive: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Records {
    #[arg(long)]
    account: Option<String>,
    #[arg(long)]
    cluster: Option<String>,
    /// Only calls with this key, by its id.
    #[arg(long)]
    key: Option<String>,
    #[arg(long)]
    operation: Option<String>,
    #[command(flatten)]
    span: Span,
    /// Only hours that are final.
    #[arg(long = "final")]
    is_final: bool,
    /// The answer as the API gives it in this format: csv (columns of FOCUS), cloudevents.
    #[arg(long)]
    format: Option<String>,
}

#[derive(Debug, Args)]
pub struct Span {
    /// The first hour, like 2026-01-01T00:00:00Z.
    #[arg(long)]
    from: Option<String>,
    /// The hour behind the last one.
    #[arg(long)]
    to: Option<String>,
}

#[derive(Debug, Args)]
pub struct Adjust {
    #[arg(long)]
    account: String,
    #[arg(long)]
    cluster: String,
    #[arg(long)]
    operation: String,
    /// The start of the hour, like 2026-01-01T00:00:00Z.
    #[arg(long)]
    window: String,
    /// read_units, write_units, request_bytes, response_bytes, or calls. and an outcome.
    #[arg(long)]
    field: String,
    /// How much more, or less, like -100.
    #[arg(long, allow_negative_numbers = true)]
    delta: i64,
    #[arg(long)]
    reason: String,
    /// Chosen by you: the same command again changes nothing.
    #[arg(long)]
    idempotency_key: String,
}

const RECORDS: &[Column] = &[
    ("HOUR", "window_start"),
    ("ACCOUNT", "account_id"),
    ("CLUSTER", "cluster_id"),
    ("OPERATION", "operation"),
    ("CALLS", "calls"),
    ("READ UNITS", "read_units"),
    ("WRITE UNITS", "write_units"),
    ("FINAL", "final"),
];
const WINDOWS: &[Column] =
    &[("HOUR", "window_start"), ("STATE", "state"), ("FINAL SINCE", "final_at"), ("WAITS FOR", "missing")];

impl Usage {
    pub fn run(self, control: &Control) -> Result<String, CliError> {
        let show = Show::new(control.json);
        Ok(match self {
            Self::Records(records) => records.run(control)?,
            Self::Windows(span) => {
                let answer = billing(control)?.call(Method::GET, &span.ask("/v1/usage/windows"), None)?;
                show.rows(WINDOWS, items(&answer, "items"))
            }
            Self::Reconcile { window } => {
                let path = asked("/v1/usage/reconciliation", [("window", window)]);
                show.thing(&billing(control)?.call(Method::GET, &path, None)?)
            }
            Self::Adjust(adjust) => {
                let client = Client::with_token(control, "the operator's token")?;
                show.thing(&client.call(Method::POST, "/v1/usage/adjustments", Some(&adjust.body()))?)
            }
            Self::Abandon { gateway, reason } => {
                let client = Client::with_token(control, "the operator's token")?;
                let body = json!({"incarnation": gateway, "reason": reason});
                show.thing(&client.call(Method::POST, "/v1/usage/abandonments", Some(&body))?)
            }
            Self::Verify { archive } => verify(show, &archive)?,
        })
    }
}

fn billing(control: &Control) -> Result<Client, ClientError> {
    Client::with_token(control, "the operator's or the billing token")
}

fn verify(show: Show, folder: &std::path::Path) -> Result<String, CliError> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no folder {}", folder.display()));
    if !folder.is_dir() {
        return Err(missing().into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let verdict = runtime.block_on(async { Archive::in_folder(folder)?.verify().await })?;
    let Whole { entries, hours, last } =
        verdict.map_err(|broken| CliError::ArchiveBroken(broken.number, broken.why))?;
    let last = last.map(|hour| hour.to_string());
    Ok(match show {
        Show::Json => show.thing(&json!({"verdict": "whole", "entries": entries, "hours": hours, "last": last})),
        Show::People => {
            let until = last.map(|last| format!(", the last one {last}")).unwrap_or_default();
            format!("The archive is whole: {entries} entries about {hours} hours{until}.\n")
        }
    })
}

impl Records {
    fn run(self, control: &Control) -> Result<String, ClientError> {
        let client = Client::with_token(control, "the operator's, the billing or a session token")?;
        let (raw, query) = (self.format.is_some(), self.query());
        let (mut rows, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let more = cursor.as_ref().map(|cursor| format!("&cursor={}", encoded(cursor))).unwrap_or_default();
            let mut page = Vec::new();
            let headers = client.fetch(&format!("/v1/usage/records?{query}{more}"), &mut page)?;
            if raw || control.json {
                io::stdout().lock().write_all(&page)?;
            } else {
                let lines = page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                let lines = lines.map(serde_json::from_slice::<Value>);
                rows.extend(
                    lines.collect::<Result<Vec<_>, _>>().map_err(|_| ClientError::Answer("a record is not JSON"))?,
                );
            }
            cursor = headers.get("x-next-cursor").and_then(|next| next.to_str().ok()).map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        Ok(if raw || control.json { String::new() } else { Show::People.rows(RECORDS, &rows) })
    }

    fn query(self) -> String {
        let fields = [
            ("account", self.account),
            ("cluster", self.cluster),
            ("key", self.key),
            ("operation", self.operation),
            ("from", self.span.from),
            ("to", self.span.to),
            ("format", self.format),
            ("final", self.is_final.then(|| "true".to_owned())),
        ];
        query(fields)
    }
}

impl Span {
    fn ask(self, path: &str) -> String {
        asked(path, [("from", self.from), ("to", self.to)])
    }
}

impl Adjust {
    fn body(self) -> Value {
        json!({
            "account_id": self.account, "cluster_id": self.cluster, "operation": self.operation, "window_start": self.window,
            "field": self.field, "delta": self.delta, "reason": self.reason, "idempotency_key": self.idempotency_key,
        })
    }
}

fn asked<const N: usize>(path: &str, fields: [(&str, Option<String>); N]) -> String {
    format!("{path}?{}", query(fields))
}

fn query<const N: usize>(fields: [(&str, Option<String>); N]) -> String {
    let given = fields.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))));
    given.collect::<Vec<_>>().join("&")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
