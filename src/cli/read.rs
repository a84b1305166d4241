//! `tollgate gateway`, `tollgate audit`, `tollgate session`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::CliError;
use super::account::all;
use super::client::{Client, ClientError, Control};
use super::table::{Column, Show, items};
use crate::app::upkeep;
use crate::config::Config;
use crate::store::audit::AuditVerdict;

#[derive(Debug, Subcommand)]
pub enum Gateway {
    /// The gateways, their leases, and how far each follows the change log.
    List,
}

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The newest entries: the operator sees all, a root user the own part.
    List {
        #[arg(long)]
        account: Option<String>,
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Read the whole log and name the first entry that is not what it was. With --config the store of a node that is stopped.
    Verify {
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Session {
    /// Sign in and print the token: export TOLLGATE_TOKEN=$(tollgate session open --email …)
    Open {
        #[arg(long)]
        email: Option<String>,
    },
    /// Who is signed in, and how their account stands.
    Show,
    /// The own sessions.
    List,
    /// End the session in TOLLGATE_TOKEN.
    Close,
    /// End all own sessions but the one that asks.
    CloseOthers,
}

const GATEWAYS: &[Column] = &[
    ("GATEWAY", "id"),
    ("LEASE", "lease"),
    ("APPLIED", "applied_revision"),
    ("BEHIND", "lag"),
    ("SILENT MS", "silent_ms"),
    ("VERSION", "version"),
];
const AUDIT: &[Column] = &[
    ("NO", "seq"),
    ("WHEN", "at"),
    ("WHO", "who"),
    ("FROM", "from"),
    ("WHAT", "action"),
    ("OF", "subject"),
    ("DETAIL", "detail"),
];
const SESSIONS: &[Column] = &[
    ("SESSION", "id"),
    ("OPENED", "created_at"),
    ("LAST SEEN", "last_seen_at"),
    ("EXPIRES", "expires_at"),
    ("THIS ONE", "current"),
];

impl Gateway {
    pub fn run(self, control: &Control) -> Result<String, ClientError> {
        let client = Client::with_token(control, "the operator's token")?;
        let gateways = client.call(Method::GET, "/v1/gateways", None)?;
        Ok(Show::new(control.json).rows(GATEWAYS, items(&gateways, "items")))
    }
}

impl Audit {
    pub fn run(self, control: &Control) -> Result<String, CliError> {
        let show = Show::new(control.json);
        match self {
            Self::List { account, limit } => {
                let client = Client::with_token(control, "the operator's token, or a session token")?;
                let account = account.map(|account| format!("&account={account}")).unwrap_or_default();
                let page = client.call(Method::GET, &format!("/v1/audit?limit={limit}{account}"), None)?;
                let entries = items(&page, "items");
                let rows: Vec<Value> = if control.json { entries.to_vec() } else { entries.iter().map(flat).collect() };
                Ok(show.rows(AUDIT, &rows))
            }
            Self::Verify { config } => verified(show, &verdict(control, config)?),
        }
    }
}

/// The actor in two columns.
fn flat(entry: &Value) -> Value {
    let mut row = entry.clone();
    let actor = |field: &str| entry.pointer(&format!("/actor/{field}")).and_then(Value::as_str).unwrap_or_default();
    row["who"] = json!(format!("{} {}", actor("kind"), actor("id")));
    row["from"] = json!(if actor("from").is_empty() { "-" } else { actor("from") });
    row
}

fn verdict(control: &Control, config: Option<PathBuf>) -> Result<Value, CliError> {
    let Some(file) = config else {
        let client = Client::with_token(control, "the operator's token")?;
        return Ok(client.call(Method::GET, "/v1/audit/verify", None)?);
    };
    Ok(match upkeep::verify_audit(&Config::load(&file)?)? {
        AuditVerdict::Whole { entries } => json!({"verdict": "whole", "entries": entries}),
        AuditVerdict::Broken { seq } => json!({"verdict": "broken", "seq": seq}),
    })
}

fn verified(show: Show, verdict: &Value) -> Result<String, CliError> {
    match verdict.get("seq").and_then(Value::as_u64) {
        Some(seq) => {
            if show == Show::Json {
                io::stdout().lock().write_all(show.thing(verdict).as_bytes())?;
            }
            Err(CliError::AuditBroken { seq })
        }
        None if show == Show::Json => Ok(show.thing(verdict)),
        None => {
            let entries = verdict.get("entries").and_then(Value::as_u64).unwrap_or_default();
            Ok(format!("The audit log is whole: {entries} entries.\n"))
        }
    }
}

impl Session {
    pub fn run(self, control: &Control) -> Result<String, ClientError> {
        let show = Show::new(control.json);
        match self {
            Self::Open { email } => {
                let (token, mut session) = Client::open_session(control, email)?;
                if show == Show::Json {
                    session["token"] = json!(token.expose_secret());
                    return Ok(show.thing(&session));
                }
                Ok(format!("{}\n", token.expose_secret()))
            }
            Self::Show => {
                let client = Client::with_token(control, "a session token")?;
                Ok(show.thing(&client.call(Method::GET, "/v1/session", None)?))
            }
            Self::List => {
                let client = Client::with_token(control, "a session token")?;
                Ok(show.rows(SESSIONS, &all(&client, "/v1/sessions")?))
            }
            Self::Close => {
                Client::with_token(control, "a session token")?.call(Method::DELETE, "/v1/session", None)?;
                Ok(show.done("The session is ended."))
            }
            Self::CloseOthers => {
                Client::with_token(control, "a session token")?.call(Method::DELETE, "/v1/sessions", None)?;
                Ok(show.done("All other sessions are ended."))
            }
        }
    }
}
