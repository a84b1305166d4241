//! The entries of the manifest: each says what one file holds, and carries the hash of the entry before it. Pure.

use serde::{Deserialize, Serialize};

use super::hour::{Content, Numbers, Sums, hash};
use crate::principal::StoreId;
use crate::time::{Hour, WallTime};

/// Stands for the hash of the entry before the first.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One revision of one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, without a gap.
    pub number: u64,
    #[serde(with = "as_text")]
    pub window_start: Hour,
    /// Of the hour, from 1.
    pub revision: u64,
    pub file: String,
    pub rows: u64,
    pub totals: Numbers,
    /// Of the file.
    pub sha256: String,
    pub archived_at: String,
    /// Whose usage it is. Absent in entries of early versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_id: Option<StoreId>,
    /// The SHA-256 of the entry before it, as it stands in its file.
    pub previous: String,
}

/// How far a manifest was followed.
#[derive(Debug)]
pub struct Chain {
    number: u64,
    hash: String,
}

/// Why a manifest cannot be followed further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEntry {
    #[error("it cannot be read")]
    Unreadable,
    #[error("it is numbered {0}")]
    Misnumbered(u64),
    #[error("the entry before it is not the one that it was written behind")]
    Unchained,
}

impl Entry {
    pub fn new(chain: &Chain, hour: Hour, revision: u64, content: &Content, now: WallTime) -> Self {
        let Content { sha256, sums: Sums { rows, totals }, .. } = content;
        let name = hour.to_string().replace(':', "-");
        let start_of_hash: String = sha256.chars().take(16).collect();
        Self {
            number: chain.next_number(),
            window_start: hour,
            revision,
            file: format!("hours/{name}/{revision:04}-{start_of_hash}.ndjson"),
            rows: *rows,
            totals: *totals,
            sha256: sha256.clone(),
            archived_at: now.to_string(),
            store_id: None,
            previous: chain.hash.clone(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        // Nothing in an entry can fail to be written as JSON.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    pub fn sums(&self) -> Sums {
        Sums { rows: self.rows, totals: self.totals }
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self { number: 0, hash: GENESIS.to_owned() }
    }
}

impl Chain {
    pub fn next_number(&self) -> u64 {
        self.number + 1
    }

    /// Goes on to the next entry.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Entry, NotAnEntry> {
        let entry: Entry = serde_json::from_slice(bytes).map_err(|_| NotAnEntry::Unreadable)?;
        if entry.number != self.next_number() {
            return Err(NotAnEntry::Misnumbered(entry.number));
        }
        if entry.previous != self.hash {
            return Err(NotAnEntry::Unchained);
        }
        *self = Self { number: entry.number, hash: hash(bytes) };
        Ok(entry)
    }
}

mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::{Hour, WallTime};

    pub fn serialize<S: Serializer>(hour: &Hour, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(hour)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Hour, D::Error> {
        let at = jiff::Timestamp::deserialize(from)?.as_millisecond();
        let at = u64::try_from(at).map(WallTime).map_err(D::Error::custom)?;
        if at.hour().start() == at { Ok(at.hour()) } else { Err(D::Error::custom("not the start of an hour")) }
    }
}
