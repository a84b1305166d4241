//! Changes that are done only when every gateway has them: how long an answer waits, and what it says then.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::error::Problem;
use crate::principal::{Incarnation, KeyId, Revision};
use crate::store::confirm::Confirmation;
use crate::telemetry::metrics::Awaited;

/// `?wait=`: how long the answer may take, as `2s`, `250ms`, or a number of seconds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    #[serde(default, deserialize_with = "duration")]
    wait: Option<Duration>,
}

const LONGEST: Duration = Duration::from_secs(10);

pub(super) fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    parse_wait(&text).map(Some).ok_or_else(|| serde::de::Error::custom("a wait is written as 2s, 250ms or 2"))
}

fn parse_wait(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let seconds: f64 = text.strip_suffix('s').unwrap_or(text).parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

impl WaitQuery {
    /// By default a little longer than a silent gateway can keep its lease, and never longer than 10 s.
    fn within(self, lease: Duration) -> Duration {
        self.wait.unwrap_or(lease + Duration::from_secs(1)).min(LONGEST)
    }
}

impl Control {
    /// Waits for the gateways. A change without a revision needs none.
    pub(super) async fn confirmed(
        &self,
        revision: Option<Revision>,
        wait: WaitQuery,
    ) -> Result<Option<Confirmation>, Problem> {
        let Some(revision) = revision else {
            return Ok(None);
        };
        let confirmation = self.store.confirm(revision, wait.within(self.store.lease())).await?;
        self.count(&confirmation);
        Ok(Some(confirmation))
    }

    /// How far the deletion of a key is by now, after waiting for at most `wait`.
    pub(super) async fn receipt(&self, id: KeyId, revision: Revision, wait: Duration) -> Result<Receipt, Problem> {
        Ok(Receipt::of(id, &self.store.confirm(revision, wait).await?))
    }

    pub(super) async fn receipt_after(&self, id: KeyId, at: Revision, wait: WaitQuery) -> Result<Receipt, Problem> {
        let confirmation = self.store.confirm(at, wait.within(self.store.lease())).await?;
        self.count(&confirmation);
        Ok(Receipt::of(id, &confirmation))
    }

    fn count(&self, confirmation: &Confirmation) {
        let took = confirmation.acknowledged.iter().map(|gateway| gateway.after).max().flatten();
        match confirmation.is_everywhere() {
            true => self.metrics.revocation.answered(Awaited::Everywhere, took),
            false => self.metrics.revocation.answered(Awaited::Pending, None),
        }
    }
}

/// What became of a deletion: the answer to it, however often it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Receipt {
    pub id: KeyId,
    #[serde(flatten)]
    pub progress: Progress,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "revoked", rename_all = "snake_case")]
pub enum Progress {
    Everywhere {
        revision: Revision,
        gateways: Vec<Acknowledgement>,
        /// Gateways that cannot admit anything since their lease ran out.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        lapsed: Vec<Incarnation>,
        /// From the deletion to the last acknowledgement; absent once that is forgotten.
        #[serde(skip_serializing_if = "Option::is_none")]
        took_ms: Option<u64>,
    },
    /// Revision and bound are absent while the store has not taken the deletion.
    Pending {
        #[serde(skip_serializing_if = "Option::is_none")]
        revision: Option<Revision>,
        /// Who has taken it so far.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        gateways: Vec<Acknowledgement>,
        /// Gateways that cannot admit anything since their lease ran out.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        lapsed: Vec<Incarnation>,
        unconfirmed: Vec<Unconfirmed>,
        #[serde(skip_serializing_if = "Option::is_none")]
        at_latest_ms: Option<u64>,
    },
}

/// Who has still to take a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Unconfirmed {
    Gateway(Incarnation),
    Store(TheStore),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub enum TheStore {
    #[serde(rename = "store")]
    Store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Acknowledgement {
    id: Incarnation,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_ms: Option<u64>,
}

impl Receipt {
    /// The deletion is in the journal and the store has not taken it yet.
    pub fn submitted(id: KeyId) -> Self {
        let unconfirmed = vec![Unconfirmed::Store(TheStore::Store)];
        let (gateways, lapsed) = (Vec::new(), Vec::new());
        Self { id, progress: Progress::Pending { revision: None, gateways, lapsed, unconfirmed, at_latest_ms: None } }
    }

    fn of(id: KeyId, confirmation: &Confirmation) -> Self {
        let (revision, lapsed) = (confirmation.revision, confirmation.lapsed.clone());
        let acknowledged = confirmation.acknowledged.iter();
        let gateways: Vec<_> = acknowledged
            .map(|gateway| Acknowledgement {
                id: gateway.incarnation,
                acknowledged_ms: gateway.after.map(whole_millis),
            })
            .collect();
        if !confirmation.is_everywhere() {
            let unconfirmed = confirmation.unconfirmed.iter().copied().map(Unconfirmed::Gateway).collect();
            let (revision, at_latest_ms) = (Some(revision), Some(whole_millis(confirmation.at_latest)));
            return Self { id, progress: Progress::Pending { revision, gateways, lapsed, unconfirmed, at_latest_ms } };
        }
        let forgotten = gateways.iter().any(|gateway| gateway.acknowledged_ms.is_none());
        let slowest = gateways.iter().filter_map(|gateway| gateway.acknowledged_ms).max().unwrap_or_default();
        let took_ms = (!forgotten).then_some(slowest);
        Self { id, progress: Progress::Everywhere { revision, gateways, lapsed, took_ms } }
    }

    fn status(&self) -> StatusCode {
        match self.progress {
            Progress::Everywhere { .. } => StatusCode::OK,
            Progress::Pending { .. } => StatusCode::ACCEPTED,
        }
    }
}

impl IntoResponse for Receipt {
    fn into_response(self) -> Response {
        (self.status(), axum::Json(self)).into_response()
    }
}

/// Rounded up: what took less than a millisecond did not take none.
fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// A thing as it is after a change, with what the gateways have still to learn of it.
#[derive(Debug, Serialize)]
pub struct AfterChange<T> {
    #[serde(flatten)]
    thing: T,
    #[serde(flatten)]
    pending: Option<Outstanding>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Outstanding {
    applied: &'static str,
    revision: Revision,
    unconfirmed: Vec<Incarnation>,
    at_latest_ms: u64,
}

impl<T: Serialize> AfterChange<T> {
    pub fn new(thing: T, confirmation: Option<Confirmation>) -> Self {
        let pending =
            confirmation.filter(|confirmation| !confirmation.is_everywhere()).map(|confirmation| Outstanding {
                applied: "pending",
                revision: confirmation.revision,
                at_latest_ms: whole_millis(confirmation.at_latest),
                unconfirmed: confirmation.unconfirmed,
            });
        Self { thing, pending }
    }

    /// `done` where every gateway has the change, else 202.
    pub fn into_response_as(self, done: StatusCode) -> Response {
        let status = if self.pending.is_some() { StatusCode::ACCEPTED } else { done };
        if status == StatusCode::NO_CONTENT {
            status.into_response()
        } else {
            (status, axum::Json(self)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::ID_BYTES;
    use crate::store::confirm::Acknowledged;

    #[test]
    fn a_wait_is_read_in_three_ways_and_capped() {
        assert_eq!(parse_wait("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_wait("2s"), Some(Duration::from_secs(2)));
        assert_eq!(parse_wait("0.5"), Some(Duration::from_millis(500)));
        for bad in ["", "s", "-1", "NaN", "inf", "1h", "1e300"] {
            assert_eq!(parse_wait(bad), None, "{bad}");
        }
        let lease = Duration::from_secs(5);
        assert_eq!(WaitQuery::default().within(lease), Duration::from_secs(6));
        assert_eq!(WaitQuery { wait: Some(Duration::from_secs(99)) }.within(lease), LONGEST);
        assert_eq!(WaitQuery::default().within(Duration::from_secs(60)), LONGEST);
    }

    #[test]
    fn a_receipt_says_who_acknowledged_and_never_more_than_is_known() {
        let (one, two) = (Incarnation([1; ID_BYTES]), Incarnation([2; ID_BYTES]));
        let mut confirmation = Confirmation {
            revision: Revision(7),
            acknowledged: vec![Acknowledged { incarnation: one, after: Some(Duration::from_micros(1500)) }],
            lapsed: vec![],
            unconfirmed: vec![two],
            at_latest: Duration::from_millis(4_200),
        };
        let id = KeyId([3; ID_BYTES]);
        let pending = Receipt::of(id, &confirmation);
        let gateways = serde_json::json!([{"id": one, "acknowledged_ms": 2}]);
        let expected = serde_json::json!({
            "id": id, "revoked": "pending", "revision": 7, "gateways": gateways, "unconfirmed": [two], "at_latest_ms": 4200
        });
        assert_eq!((serde_json::to_value(&pending).unwrap(), pending.status()), (expected, StatusCode::ACCEPTED));
        let submitted = serde_json::to_value(Receipt::submitted(id)).unwrap();
        assert_eq!(submitted, serde_json::json!({"id": id, "revoked": "pending", "unconfirmed": ["store"]}));
        confirmation.unconfirmed.clear();
        let done = Receipt::of(id, &confirmation);
        let expected =
            serde_json::json!({"id": id, "revoked": "everywhere", "revision": 7, "gateways": gateways, "took_ms": 2});
        assert_eq!((serde_json::to_value(&done).unwrap(), done.status()), (expected, StatusCode::OK));
    }
}
