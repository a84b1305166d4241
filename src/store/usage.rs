//! Windows, changes and adjustments of usage: what stands beside the lines of the ledger.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::StoreError;
use super::accounts::Answer;
use super::audit::Actor;
use crate::meter::record::{Closing, Counters, LineKey, Operation, Outcome};
use crate::principal::{AccountId, AdjustmentId, ClusterId, Incarnation};
use crate::time::{Hour, WallTime};

/// How far an incarnation has flushed an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushMark {
    pub sequence: u64,
    pub watermark: WallTime,
    /// Absent while calls of the hour may still come or end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
}

/// The mark of one incarnation in one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourMark {
    pub hour: Hour,
    pub incarnation: Incarnation,
    pub mark: FlushMark,
}

/// An hour whose usage is all there. What comes later than this makes new revisions of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalWindow {
    pub hour: Hour,
    pub final_at: WallTime,
}

/// Whose usage one record is about, summed over keys and incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey {
    pub hour: Hour,
    pub account_id: AccountId,
    pub cluster_id: ClusterId,
    pub operation: Operation,
}

impl RecordKey {
    pub fn of(hour: Hour, line: &LineKey) -> Self {
        Self { hour, account_id: line.account_id, cluster_id: line.cluster_id, operation: line.operation }
    }
}

/// What a change of usage was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// One record: lines were merged, or it was adjusted.
    Record(RecordKey),
    /// Every record of the hour, since it became final.
    Hour(Hour),
}

/// Part of the change feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageChanges {
    /// Oldest first. Each place in the ledger is listed once, with the number of its last change.
    pub touched: Vec<(u64, Touched)>,
    /// Everything up to this number is told; ask for what comes after it.
    pub upto: u64,
    /// There is more to ask for at once.
    pub more: bool,
}

/// What a correction changes of a record: one of its numbers. Written as in a record: `read_units`, `calls.ok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    Calls(Outcome),
    RequestBytes,
    ResponseBytes,
    ReadUnits,
    WriteUnits,
}

impl Field {
    const NUMBERS: [(Self, &'static str); 4] = [
        (Self::RequestBytes, "request_bytes"),
        (Self::ResponseBytes, "response_bytes"),
        (Self::ReadUnits, "read_units"),
        (Self::WriteUnits, "write_units"),
    ];

    /// The number of the record that is meant.
    pub fn of(self, counters: &mut Counters) -> &mut u64 {
        match self {
            Self::Calls(outcome) => &mut counters.outcomes[outcome as usize],
            Self::RequestBytes => &mut counters.request_bytes,
            Self::ResponseBytes => &mut counters.response_bytes,
            Self::ReadUnits => &mut counters.read_units,
            Self::WriteUnits => &mut counters.write_units,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls(outcome) => write!(f, "calls.{}", outcome.name()),
            number => f.write_str(Self::NUMBERS.iter().find(|(one, _)| one == number).map_or("", |(_, name)| name)),
        }
    }
}

impl FromStr for Field {
    type Err = NotAField;

    fn from_str(text: &str) -> Result<Self, NotAField> {
        if let Some(outcome) = text.strip_prefix("calls.") {
            return Outcome::from_name(outcome).map(Self::Calls).ok_or(NotAField);
        }
        Self::NUMBERS.iter().find(|(_, name)| *name == text).map(|(field, _)| *field).ok_or(NotAField)
    }
}

/// The text names no number of a record that can be corrected.
#[derive(Debug, thiserror::Error)]
#[error(
    "not one of request_bytes, response_bytes, read_units, write_units, calls.ok, calls.refused and the other outcomes"
)]
pub struct NotAField;

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A correction of what is billed, beside what was counted: appended, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAdjustment {
    pub adjustment_id: AdjustmentId,
    pub record: RecordKey,
    pub field: Field,
    /// Negative where too much was counted.
    pub delta: i64,
    /// What is counted of it at least.
    pub counted: u64,
    pub reason: String,
    /// Chosen by who asks; the same again is the same adjustment.
    pub idempotency_key: String,
}

/// An adjustment as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    pub new: NewAdjustment,
    /// Kind and id of who made it.
    pub actor: Actor,
    pub at: WallTime,
}

/// A gateway whose usage will not come, by the word of the operator: its machine is gone. Hours no longer wait for it. Should the
/// usage come after all, it is taken, and makes new revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandoned {
    pub incarnation: Incarnation,
    pub reason: String,
    pub actor: Actor,
    pub at: WallTime,
}

/// What control planes and billing ask beside the lines.
#[async_trait]
pub trait UsageStore: Send + Sync {
    /// The hours of `from..=to` that are final, oldest first.
    async fn final_windows(&self, from: Hour, to: Hour) -> Result<Vec<FinalWindow>, StoreError>;
    /// Makes an hour final; the time of the first one stays.
    async fn make_final(&self, window: FinalWindow) -> Result<(), StoreError>;
    /// The adjustments of records in the hours `from..=to`, in the order of the records and then of time.
    async fn adjustments(&self, from: Hour, to: Hour) -> Result<Vec<Adjustment>, StoreError>;
    /// Appends a correction. One with the same idempotency key is returned as it was made, where it is the same; else it is refused.
    async fn adjust(&self, new: NewAdjustment, actor: Actor, now: WallTime) -> Answer<Adjustment>;
    /// The gateways that were given up.
    async fn abandoned(&self) -> Result<Vec<Abandoned>, StoreError>;
    /// Gives a gateway up. One that was given up before is returned as it was.
    async fn abandon(&self, incarnation: Incarnation, reason: String, actor: Actor, now: WallTime)
    -> Answer<Abandoned>;
}
