//! `GET /v1/usage/changes`: every record that changed, as it is now, oldest change first; with long polling.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::counted::Unread;
use crate::clock;
use crate::control::Control;
use crate::control::caller::UsageReader;
use crate::control::confirm::duration;
use crate::control::error::Problem;
use crate::control::request::QueryOf;
use crate::control::usage_format::{Format, lines_of};
use crate::control::usage_record::{Dimensions, Selection, UsageRecord, sum};
use crate::meter::record::LedgerLine;
use crate::store::usage::{Touched, UsageChanges};
use crate::time::Hour;

/// Changes in an answer, unless asked otherwise, and at most; more where they are of one hour that became final.
const USUAL: usize = 1000;
const MOST: usize = 10_000;
/// How long between two looks while nothing changes.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The greatest `seq` that was taken in; absent to begin.
    #[serde(default)]
    after: u64,
    /// How long to wait for a change where there is none.
    #[serde(default, deserialize_with = "duration")]
    wait: Option<Duration>,
    limit: Option<usize>,
}

/// A line of the answer.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    record: &'a UsageRecord,
}

/// To go on behind changes that are about no record of the reader: the `after` of the next question.
const NEXT_AFTER: HeaderName = HeaderName::from_static("x-next-after");

pub async fn list(
    State(control): State<Arc<Control>>,
    reader: UsageReader,
    QueryOf(query): QueryOf<Query>,
) -> Result<Response, Problem> {
    let most = query.limit.unwrap_or(USUAL).clamp(1, MOST);
    let wait = query.wait.unwrap_or_default().min(LONGEST_WAIT);
    let until = clock::boot().plus(wait);
    let selection = Selection { account_id: reader.account_id(), ..Selection::default() };
    let mut after = query.after;
    // Many changes are about no record of this reader: an hour without calls became final, or it is another account's.
    let changed = loop {
        let changes = control.store.changed(after, most).await?;
        let changed = control.changed_records(&changes, &selection).await?;
        after = changes.upto;
        let left = until.since(clock::boot());
        if !changed.is_empty() || (!changes.more && left.is_zero()) {
            break changed;
        }
        if !changes.more {
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    };
    let lines = lines_of(changed.iter().map(|(seq, record)| Line { seq: *seq, record }));
    let mut response = Response::new(Body::from(lines));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(Format::Ndjson.content_type()));
    headers.insert(NEXT_AFTER, HeaderValue::from(after));
    Ok(response)
}

impl Control {
    /// Each record once, with the number of its last change among these, in the order of the numbers.
    async fn changed_records(
        &self,
        changes: &UsageChanges,
        selection: &Selection,
    ) -> Result<Vec<(u64, UsageRecord)>, Unread> {
        let asked = Asked::of(changes, selection);
        let Some((first, last)) = asked.span() else { return Ok(Vec::new()) };
        // Asked before the lines: a record that says it is final has at least all that made it so.
        let standing = self.standing(first, last).await?;
        let lines = self.lines_about(&asked).await?;
        let records = standing.records(sum(&lines, selection), selection);
        let numbered = records.into_iter().filter_map(|(about, record)| Some((asked.number(&about)?, record)));
        let mut numbered: Vec<_> = numbered.collect();
        // Those of one change stay in the order of the records.
        numbered.sort_by_key(|(number, _)| *number);
        Ok(numbered)
    }

    async fn lines_about(&self, asked: &Asked) -> Result<Vec<LedgerLine>, Unread> {
        let mut lines = Vec::new();
        for hour in asked.hours.keys() {
            lines.extend(self.lines_in(*hour).await?);
        }
        let accounts = asked.records.keys().filter(|record| !asked.hours.contains_key(&record.hour));
        let accounts: BTreeSet<_> = accounts.map(|record| (record.hour, record.account_id)).collect();
        lines.extend(self.lines_of(accounts).await?);
        Ok(lines)
    }
}

/// What changes are about, each with the number of its last one.
#[derive(Default)]
struct Asked {
    hours: BTreeMap<Hour, u64>,
    records: BTreeMap<Dimensions, u64>,
}

impl Asked {
    /// Records of other accounts are not looked up only to be left out.
    fn of(changes: &UsageChanges, selection: &Selection) -> Self {
        let mut asked = Self::default();
        for (number, touched) in &changes.touched {
            let known = match touched {
                Touched::Hour(hour) => asked.hours.entry(*hour).or_default(),
                Touched::Record(record) if !selection.takes_record(&Dimensions::of(record)) => continue,
                Touched::Record(record) => asked.records.entry(Dimensions::of(record)).or_default(),
            };
            *known = (*known).max(*number);
        }
        asked
    }

    fn span(&self) -> Option<(Hour, Hour)> {
        let hours = self.hours.keys().copied().chain(self.records.keys().map(|record| record.hour));
        hours.clone().min().zip(hours.max())
    }

    fn number(&self, record: &Dimensions) -> Option<u64> {
        self.records.get(record).copied().max(self.hours.get(&record.hour).copied())
    }
}
