//! `POST /v1/usage/adjustments`: corrections of what is billed. They are appended beside what was counted, which stays as it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::counted::Unread;
use crate::clock;
use crate::control::Control;
use crate::control::caller::OperatorOnly;
use crate::control::error::{Kind, Problem};
use crate::control::name;
use crate::control::request::{JsonBody, broken_rule};
use crate::control::usage_record::{Dimensions, Selection, sum};
use crate::meter::record::{Counters, Operation};
use crate::principal::{AccountId, AdjustmentId, ClusterId};
use crate::store::usage::{Adjustment, Field, NewAdjustment, RecordKey};
use crate::time::{Hour, WallTime};

#[derive(Deserialize, ToSchema)]
#[schema(as = UsageAdjust)]
#[serde(deny_unknown_fields)]
pub struct Adjust {
    account_id: AccountId,
    cluster_id: ClusterId,
    #[schema(value_type = String)]
    operation: Operation,
    /// The start of the hour.
    #[serde(deserialize_with = "hour")]
    #[schema(value_type = String, format = DateTime)]
    window_start: Hour,
    /// `read_units`, `write_units`, `request_bytes`, `response_bytes`, or `calls.` and an outcome.
    #[serde(deserialize_with = "field")]
    #[schema(value_type = String)]
    field: Field,
    /// Negative where too much was counted; not zero.
    delta: i64,
    #[serde(deserialize_with = "name::reason")]
    reason: String,
    /// Chosen by you: the same request again is answered as the first time, and changes nothing.
    #[serde(deserialize_with = "idempotency_key")]
    idempotency_key: String,
}

/// A correction as it was made.
#[derive(Serialize, ToSchema)]
#[schema(as = UsageAdjustment)]
pub struct Adjusted {
    adjustment_id: AdjustmentId,
    account_id: AccountId,
    cluster_id: ClusterId,
    #[schema(value_type = String)]
    operation: Operation,
    #[schema(format = DateTime)]
    window_start: String,
    #[schema(value_type = String)]
    field: Field,
    delta: i64,
    reason: String,
    idempotency_key: String,
    #[schema(format = DateTime)]
    created_at: String,
}

fn hour<'de, D: Deserializer<'de>>(from: D) -> Result<Hour, D::Error> {
    let at = jiff::Timestamp::deserialize(from)?;
    let at = u64::try_from(at.as_millisecond()).ok().map(WallTime);
    let hour = at.filter(|at| at.hour().start() == *at).map(WallTime::hour);
    hour.ok_or_else(|| broken_rule("window_start is not the start of an hour"))
}

fn field<'de, D: Deserializer<'de>>(from: D) -> Result<Field, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| broken_rule("field names no number of a record that can be corrected"))
}

fn idempotency_key<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let fits = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text) } else { Err(broken_rule("an idempotency key has 1 to 128 visible ASCII characters")) }
}

pub async fn create(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    JsonBody(asked): JsonBody<Adjust>,
) -> Result<(StatusCode, Json<Adjusted>), Problem> {
    let Adjust { account_id, cluster_id, operation, window_start, field, delta, reason, idempotency_key } = asked;
    if delta == 0 {
        return Err(Problem::invalid("A delta of 0 corrects nothing."));
    }
    let now = clock::wall();
    if window_start > now.hour() {
        return Err(Problem::invalid("The hour has not begun."));
    }
    let record = RecordKey { hour: window_start, account_id, cluster_id, operation };
    let adjustment_id = AdjustmentId::random().map_err(|_| Kind::Overloaded)?;
    let counted = *field.of(&mut control.counted(&record).await?);
    let new = NewAdjustment { adjustment_id, record, field, delta, counted, reason, idempotency_key };
    let made = control.store.adjust(new, operator.actor(), now).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

impl Control {
    async fn counted(&self, record: &RecordKey) -> Result<Counters, Unread> {
        let lines = self.lines_of([(record.hour, record.account_id)].into()).await?;
        let sums = sum(&lines, &Selection::default());
        Ok(sums.get(&Dimensions::of(record)).copied().unwrap_or_default())
    }
}

impl From<Adjustment> for Adjusted {
    fn from(Adjustment { new, at, .. }: Adjustment) -> Self {
        let NewAdjustment { adjustment_id, record, field, delta, reason, idempotency_key, .. } = new;
        let RecordKey { hour, account_id, cluster_id, operation } = record;
        let (window_start, created_at) = (hour.to_string(), at.to_string());
        Self {
            adjustment_id,
            account_id,
            cluster_id,
            operation,
            window_start,
            field,
            delta,
            reason,
            idempotency_key,
            created_at,
        }
    }
}
