//! `tollgate account` and `tollgate member`.

use clap::{Args, Subcommand};
use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::client::{Client, ClientError, Control};
use super::prompt;
use super::table::{Column, Show, items};

#[derive(Debug, Subcommand)]
pub enum Account {
    /// Set up an account with its root user; shows the TOTP secret, once. The password comes from TOLLGATE_PASSWORD or is asked for.
    Create {
        /// The e-mail address of the root user.
        #[arg(long)]
        email: String,
        #[arg(long)]
        name: Option<String>,
        /// Its identity is verified already.
        #[arg(long)]
        verified: bool,
    },
    /// All accounts.
    List,
    /// One account.
    Show {
        account: String,
    },
    /// Say that the account's identity is verified.
    Verify {
        account: String,
    },
    /// Deny all calls of the account, until it is resumed.
    Suspend {
        account: String,
    },
    Resume {
        account: String,
    },
    /// Set limits for this account alone.
    Limits(Limits),
    /// Give the root user a new password and authenticator; shows them, once. All sessions of the account end.
    Reset {
        account: String,
        /// Goes into the audit log.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub struct Limits {
    account: String,
    /// Keys it may have at once.
    #[arg(long, required_unless_present = "daily_max")]
    active_max: Option<u32>,
    /// Keys it may create per day.
    #[arg(long)]
    daily_max: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub enum Member {
    /// The members of an account. As its root user, like all of these.
    List { account: String },
    /// Add a user with read-only rights. Their password comes from TOLLGATE_MEMBER_PASSWORD or is asked for.
    Add {
        account: String,
        #[arg(long)]
        email: String,
    },
    /// Remove a member and end their sessions.
    Remove { account: String, member: String },
}

const ACCOUNTS: &[Column] = &[
    ("ACCOUNT", "account_id"),
    ("NAME", "name"),
    ("EMAIL", "email"),
    ("VERIFIED", "verified"),
    ("STATUS", "status"),
    ("KEYS", "active_max"),
    ("PER DAY", "daily_max"),
    ("CREATED", "created_at"),
];
const MEMBERS: &[Column] = &[("MEMBER", "member_id"), ("EMAIL", "email"), ("CREATED", "created_at")];

impl Account {
    pub fn run(self, control: &Control) -> Result<String, ClientError> {
        let client = Client::with_token(control, "the operator's token")?;
        let show = Show::new(control.json);
        let patch = |account: &str, patch: &Value| {
            let changed = client.call(Method::PATCH, &format!("/v1/accounts/{account}"), Some(patch))?;
            Ok::<_, ClientError>(show.thing(&changed))
        };
        match self {
            Self::Create { email, name, verified } => {
                let password = prompt::secret("TOLLGATE_PASSWORD", "Password of the new root user: ")?;
                let mut new = json!({"email": email, "password": password.expose_secret(), "verified": verified});
                if let Some(name) = name {
                    new["name"] = json!(name);
                }
                Ok(show.thing(&client.call(Method::POST, "/v1/accounts", Some(&new))?))
            }
            Self::List => Ok(show.rows(ACCOUNTS, &all(&client, "/v1/accounts")?)),
            Self::Show { account } => {
                Ok(show.thing(&client.call(Method::GET, &format!("/v1/accounts/{account}"), None)?))
            }
            Self::Verify { account } => patch(&account, &json!({"verified": true})),
            Self::Suspend { account } => patch(&account, &json!({"status": "suspended"})),
            Self::Resume { account } => patch(&account, &json!({"status": "active"})),
            Self::Limits(Limits { account, active_max, daily_max }) => {
                let limits = [("active_max", active_max), ("daily_max", daily_max)].into_iter();
                let set = limits.filter_map(|(name, limit)| Some((name.to_owned(), json!(limit?))));
                patch(&account, &Value::Object(set.collect::<Map<_, _>>()))
            }
            Self::Reset { account, reason } => {
                let path = format!("/v1/accounts/{account}/reset");
                Ok(show.thing(&client.call(Method::POST, &path, Some(&json!({"reason": reason})))?))
            }
        }
    }
}

impl Member {
    pub fn run(self, control: &Control) -> Result<String, ClientError> {
        let show = Show::new(control.json);
        Client::as_user(control, |client| match self {
            Self::List { account } => {
                let members = client.call(Method::GET, &format!("/v1/accounts/{account}/members"), None)?;
                Ok(show.rows(MEMBERS, items(&members, "items")))
            }
            Self::Add { account, email } => {
                let password = prompt::secret("TOLLGATE_MEMBER_PASSWORD", "Password of the new member: ")?;
                let new = json!({"email": email, "password": password.expose_secret()});
                Ok(show.thing(&client.call(Method::POST, &format!("/v1/accounts/{account}/members"), Some(&new))?))
            }
            Self::Remove { account, member } => {
                client.call(Method::DELETE, &format!("/v1/accounts/{account}/members/{member}"), None)?;
                Ok(show.done("The member is removed."))
            }
        })
    }
}

/// Every page of a list.
pub fn all(client: &Client, path: &str) -> Result<Vec<Value>, ClientError> {
    let (mut all, mut at) = (Vec::new(), path.to_owned());
    loop {
        let page = client.call(Method::GET, &at, None)?;
        all.extend_from_slice(items(&page, "items"));
        let next = match page.get("next") {
            Some(Value::String(next)) => next.clone(),
            Some(Value::Number(next)) => next.to_string(),
            _ => return Ok(all),
        };
        let sign = if path.contains('?') { '&' } else { '?' };
        at = format!("{path}{sign}cursor={next}");
    }
}
