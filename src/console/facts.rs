//! What the pages read of the API's answers.

use serde::Deserialize;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Root,
    Member,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    pub role: Role,
    pub email: String,
    pub account_id: String,
    pub account_name: Option<String>,
    pub verified: bool,
    pub status: AccountStatus,
    /// As `+08:00`.
    pub utc_offset: String,
}

impl Session {
    /// The zone of the account for people: `UTC+8`, `UTC+5:30`.
    pub fn zone(&self) -> String {
        let (hours, minutes) = self.utc_offset.split_once(':').unwrap_or((&self.utc_offset, "00"));
        let (sign, hours) = hours.split_at_checked(1).unwrap_or(("", hours));
        let hours = hours.strip_prefix('0').unwrap_or(hours);
        if minutes == "00" { format!("UTC{sign}{hours}") } else { format!("UTC{sign}{hours}:{minutes}") }
    }

    pub fn is_root(&self) -> bool {
        self.role == Role::Root
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AccountStatus {
    Active,
    Suspended,
}

#[derive(Debug, Deserialize)]
pub struct KeyList {
    pub keys: Vec<Key>,
    pub active: u32,
    pub active_max: u32,
    pub created_today: u32,
    pub daily_max: u32,
    pub resets_at: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    Active,
    Disabled,
    Expired,
    Deleted,
}

#[derive(Debug, Deserialize)]
pub struct Key {
    pub id: String,
    pub name: Option<String>,
    pub masked: String,
    pub status: KeyStatus,
    pub created_at: String,
    pub last_used_at: Option<String>,
    pub expires_at: Option<String>,
    pub deleted_at: Option<String>,
    #[serde(default)]
    pub seen_in_browser: bool,
}

/// A list, or a page of one.
#[derive(Debug, Deserialize)]
pub struct Items<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Cluster {
    pub cluster_id: String,
    pub name: Option<String>,
    pub hosts: Vec<String>,
    pub endpoint: String,
    pub allow_ips: Vec<String>,
    pub created_at: String,
}

#[derive(Debug, Deserialize)]
pub struct AuditEntry {
    pub at: String,
    pub actor: Actor,
    pub action: String,
    pub subject: String,
    pub account_id: Option<String>,
    pub detail: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Actor {
    pub kind: String,
    pub id: String,
    pub from: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Member {
    pub member_id: String,
    pub email: String,
    pub created_at: String,
}

#[derive(Debug, Deserialize)]
pub struct OpenSession {
    pub id: String,
    pub created_at: String,
    pub last_seen_at: String,
    pub expires_at: String,
    pub current: bool,
}

#[derive(Debug, Deserialize)]
pub struct Account {
    pub account_id: String,
    pub name: Option<String>,
    pub email: Option<String>,
    pub verified: bool,
    pub status: AccountStatus,
    pub active_max: u32,
    pub daily_max: u32,
    pub created_at: String,
}

#[derive(Debug, Deserialize)]
pub struct Gateway {
    pub id: String,
    pub lease: String,
    pub applied_revision: u64,
    pub lag: u64,
    pub silent_ms: u64,
    pub version: String,
}
