//! `tollgate key`.

use std::io::{self, BufRead};

use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, ClientError, Control};
use super::prompt;
use super::table::{Column, Show, items};

#[derive(Debug, Subcommand)]
pub enum Key {
    /// The own keys, masked; or, as the operator, those of an account.
    List {
        #[arg(long)]
        account: Option<String>,
        /// Also deleted ones.
        #[arg(long)]
        deleted: bool,
    },
    /// Create a key and show it, once.
    Create {
        #[arg(long)]
        name: Option<String>,
    },
    /// One key, with the receipt once it is deleted.
    Show {
        key: String,
    },
    /// Show a key again. Needs a code of the authenticator.
    View {
        key: String,
        /// Asked for where it is not given.
        #[arg(long)]
        code: Option<String>,
    },
    Rename {
        key: String,
        name: String,
    },
    /// Deny calls with this key, until it is enabled. It keeps its slot.
    Disable {
        key: String,
    },
    Enable {
        key: String,
    },
    /// Let a key end at a time like 2030-01-01T00:00:00Z, or "never".
    Expire {
        key: String,
        at: String,
    },
    /// Delete a key for good and wait until no gateway admits it. Needs a code of the authenticator.
    Delete {
        key: String,
        /// Asked for where it is not given.
        #[arg(long)]
        code: Option<String>,
    },
    /// As the operator: delete a key at once, for one that was leaked.
    Revoke {
        account: String,
        key: String,
        /// Goes into the audit log.
        #[arg(long)]
        reason: String,
    },
    /// As the operator: whose is this key? It is read from stdin, so that it stands in no history.
    Lookup,
    /// As the operator: bring in keys that were made elsewhere: one on each line of stdin, behind it a name if it has one.
    Import {
        account: String,
    },
}

const COLUMNS: &[Column] = &[
    ("KEY", "id"),
    ("NAME", "name"),
    ("MASKED", "masked"),
    ("STATUS", "status"),
    ("CREATED", "created_at"),
    ("LAST USED", "last_used_at"),
    ("EXPIRES", "expires_at"),
];

impl Key {
    pub fn run(self, control: &Control) -> Result<String, ClientError> {
        let show = Show::new(control.json);
        match self {
            Self::List { account: Some(account), deleted } => {
                let client = Client::with_token(control, "the operator's token")?;
                list(&client, show, &format!("/v1/accounts/{account}/keys?deleted={deleted}"))
            }
            Self::Revoke { account, key, reason } => {
                let client = Client::with_token(control, "the operator's token")?;
                let path = format!("/v1/accounts/{account}/keys/{key}");
                receipt(show, &client.call(Method::DELETE, &path, Some(&json!({"reason": reason})))?)
            }
            Self::Lookup => {
                let client = Client::with_token(control, "the operator's token")?;
                let key = prompt::line("Key: ")?;
                Ok(show.thing(&client.call(Method::POST, "/v1/keys/lookup", Some(&json!({"key": key})))?))
            }
            Self::Import { account } => {
                let client = Client::with_token(control, "the operator's token")?;
                let keys =
                    io::stdin().lock().lines().filter_map(|line| line.map(|line| read_import(&line)).transpose());
                let keys = keys.collect::<io::Result<Vec<_>>>()?;
                let path = format!("/v1/accounts/{account}/keys/import");
                let imported = client.call(Method::POST, &path, Some(&json!({"keys": keys})))?;
                Ok(show.rows(COLUMNS, items(&imported, "keys")))
            }
            own => Client::as_user(control, |client| own.run_as(client, show)),
        }
    }

    fn run_as(self, client: &Client, show: Show) -> Result<String, ClientError> {
        let patch = |key: &str, patch: Value| {
            let changed = client.call(Method::PATCH, &format!("/v1/keys/{key}"), Some(&patch))?;
            Ok(show.thing(&changed))
        };
        match self {
            Self::Create { name } => {
                let new: Map<_, _> = name.into_iter().map(|name| ("name".to_owned(), json!(name))).collect();
                let made = client.call(Method::POST, "/v1/keys", Some(&Value::Object(new)))?;
                Ok(show.thing(&made))
            }
            Self::Show { key } => Ok(show.thing(&client.call(Method::GET, &format!("/v1/keys/{key}"), None)?)),
            Self::View { key, code } => {
                let grant = client.step_up("view", Some(&key), code)?;
                let path = format!("/v1/keys/{key}/view");
                Ok(show.thing(&client.call_with(Method::POST, &path, None, Some(&grant))?))
            }
            Self::Rename { key, name } => patch(&key, json!({"name": name})),
            Self::Disable { key } => patch(&key, json!({"status": "disabled"})),
            Self::Enable { key } => patch(&key, json!({"status": "active"})),
            Self::Expire { key, at } if at == "never" => patch(&key, json!({"expires_at": null})),
            Self::Expire { key, at } => patch(&key, json!({"expires_at": at})),
            Self::Delete { key, code } => delete(client, show, &key, code),
            Self::List { deleted, .. } => list(client, show, &format!("/v1/keys?deleted={deleted}")),
            Self::Revoke { .. } | Self::Lookup | Self::Import { .. } => {
                Err(ClientError::NoToken("the operator's token"))
            }
        }
    }
}

fn list(client: &Client, show: Show, path: &str) -> Result<String, ClientError> {
    let answer = client.call(Method::GET, path, None)?;
    if show == Show::Json {
        return Ok(show.thing(&answer));
    }
    let number = |field: &str| answer.get(field).map(Value::to_string).unwrap_or_default();
    Ok(format!(
        "{}\n{} of {} active, {} of {} created today (the day ends at {})\n",
        show.rows(COLUMNS, items(&answer, "keys")),
        number("active"),
        number("active_max"),
        number("created_today"),
        number("daily_max"),
        answer.get("resets_at").and_then(Value::as_str).unwrap_or("-"),
    ))
}

/// A key that is deleted already gives its receipt without a code.
fn delete(client: &Client, show: Show, key: &str, code: Option<String>) -> Result<String, ClientError> {
    let path = format!("/v1/keys/{key}");
    let first = client.call(Method::DELETE, &path, None);
    match first {
        Err(ClientError::Refused(refused)) if refused.code == "step_up_required" => {
            let grant = client.step_up("delete", Some(key), code)?;
            receipt(show, &client.call_with(Method::DELETE, &path, None, Some(&grant))?)
        }
        answered => receipt(show, &answered?),
    }
}

fn receipt(show: Show, receipt: &Value) -> Result<String, ClientError> {
    if show == Show::Json {
        return Ok(show.thing(receipt));
    }
    let said = match receipt.get("revoked").and_then(Value::as_str) {
        Some("everywhere") => "Deleted. No gateway admits this key any more.",
        _ => "Deleted, and not confirmed everywhere yet. Ask again with: tollgate key show",
    };
    Ok(format!("{said}\n{}", show.thing(receipt)))
}

/// A line with a key and, behind white space, its name. Empty lines are left out.
fn read_import(line: &str) -> Option<Value> {
    let line = line.trim();
    let (key, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    if key.is_empty() {
        return None;
    }
    Some(match name.trim() {
        "" => json!({"key": key}),
        name => json!({"key": key, "name": name}),
    })
}
