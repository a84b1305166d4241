//! `GET /v1/usage/records`: what was used, by hour, as NDJSON, CSV or CloudEvents.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use serde::{Deserialize, Deserializer};

use super::Control;
use super::caller::UsageReader;
use super::error::{Kind, Problem};
use super::request::QueryOf;
use super::usage_format::{Format, Page};
use super::usage_record::{Dimensions, Selection, UsageRecord};
use crate::clock;
use crate::meter::record::Operation;
use crate::principal::{AccountId, ClusterId, KeyId};
use crate::time::{Hour, WallTime};

const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");
/// Records in one answer, unless asked otherwise, and at most.
const USUAL: usize = 10_000;
const MOST: usize = 100_000;
/// Hours that are longer ago than these are read a day at once, since most questions about them are about long spans.
const RECENT_HOURS: u32 = 35 * 24;
const AT_ONCE: u32 = 24;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    account: Option<AccountId>,
    cluster: Option<ClusterId>,
    key: Option<KeyId>,
    operation: Option<Operation>,
    /// The first window, and the end of the last.
    #[serde(default, deserialize_with = "instant")]
    from: Option<WallTime>,
    #[serde(default, deserialize_with = "instant")]
    to: Option<WallTime>,
    r#final: Option<bool>,
    limit: Option<usize>,
    cursor: Option<String>,
    by: Option<By>,
    format: Option<Format>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum By {
    Key,
}

pub async fn records(
    State(control): State<Arc<Control>>,
    reader: UsageReader,
    QueryOf(query): QueryOf<Query>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let selection = query.selection(reader)?;
    let limit = query.limit.unwrap_or(USUAL).clamp(1, MOST);
    let mut records = control.page(&selection, query.r#final, query.hours(), limit).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let page = Page { records: &records, is_first: query.cursor.is_none(), ledger: control.store.store_id() };
    let next = records.last().filter(|_| more).map(|(dimensions, _)| dimensions.to_cursor());
    Ok(written(page, query.format.unwrap_or_else(|| Format::wanted(&headers)), next))
}

fn written(page: Page<'_>, format: Format, next: Option<String>) -> Response {
    let mut response = Response::new(Body::from(format.write(page)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if let Some(value) = next.and_then(|next| next.try_into().ok()) {
        headers.insert(NEXT_CURSOR, value);
    }
    response
}

impl Query {
    fn selection(&self, reader: UsageReader) -> Result<Selection, Problem> {
        let account_id = match (reader, self.account) {
            (UsageReader::All, asked) => asked,
            (UsageReader::Of(own), Some(asked)) if asked != own => return Err(Kind::Forbidden.into()),
            (UsageReader::Of(own), _) => Some(own),
        };
        // Of one key alone it is another record than of all keys, and has to have another id.
        let by_key = self.by == Some(By::Key) || self.key.is_some();
        let after = match self.cursor.as_deref() {
            None => None,
            Some(text) => Some(cursor(text, by_key)?),
        };
        let Self { cluster: cluster_id, key: key_id, operation, .. } = *self;
        Ok(Selection { account_id, cluster_id, key_id, operation, by_key, after })
    }

    /// Every hour that lies in `from..to` at least in part, up to the one that is open now.
    fn hours(&self) -> std::ops::RangeInclusive<Hour> {
        let from = self.from.unwrap_or_default().hour();
        let end = self.to.map_or(Hour(u32::MAX), |to| Hour(WallTime(to.0.saturating_sub(1)).hour().0));
        let empty = self.to.is_some_and(|to| to <= self.from.unwrap_or_default());
        // A gateway's clock may be a little ahead of ours.
        let last = clock::wall().hour().next().min(end);
        if empty { Hour(1)..=Hour(0) } else { from..=last }
    }
}

/// A cursor belongs to the question it was given for.
fn cursor(text: &str, by_key: bool) -> Result<Dimensions, Problem> {
    let cursor = Dimensions::from_cursor(text).filter(|cursor| cursor.key_id.is_some() == by_key);
    cursor.ok_or_else(|| Problem::invalid("The cursor is not one that was given out for this question."))
}

impl Control {
    /// Up to `limit` records and, where there are more, one beyond. Read by the hour or the day, so that memory is bounded by what one of these
    /// holds and the page.
    async fn page(
        &self,
        selection: &Selection,
        is_final: Option<bool>,
        hours: std::ops::RangeInclusive<Hour>,
        limit: usize,
    ) -> Result<Vec<(Dimensions, UsageRecord)>, Problem> {
        let (last, recent) = (*hours.end(), Hour(hours.end().0.saturating_sub(RECENT_HOURS)));
        let mut from = (*hours.start()).max(selection.after.map_or(Hour(0), |after| after.hour));
        if from < recent {
            // Without this, whoever asks for everything would have every hour since 1970 looked at.
            let corrected = self.store.adjustments(Hour(0), recent).await?.first().map(|one| one.new.record.hour);
            let counted = self.store.marks(Hour(0), recent).await?.first().map(|mark| mark.hour);
            let left = self.left(Hour(0), recent).await?.first_key_value().map(|(hour, _)| *hour);
            from = from.max(corrected.into_iter().chain(counted).chain(left).min().unwrap_or(recent));
        }
        let mut page = Vec::new();
        while from <= last && page.len() <= limit {
            let to = if from < recent { Hour(from.0 + AT_ONCE - 1).min(recent) } else { from };
            // Asked before the lines: a record that says it is final has at least all that made it so.
            let standing = self.standing(from, to).await?;
            let records = standing.records(self.sums_in(from, to, selection).await?, selection);
            let is_wanted = |hour| is_final.is_none_or(|is| is == standing.is_final(hour));
            let wanted = records.into_iter().filter(|(about, _)| is_wanted(about.hour));
            page.extend(wanted.take(limit + 1 - page.len()));
            from = to.next();
        }
        Ok(page)
    }
}

/// RFC 3339 in UTC or with an offset.
pub(super) fn instant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<WallTime>, D::Error> {
    let at = jiff::Timestamp::deserialize(from)?;
    Ok(Some(WallTime(u64::try_from(at.as_millisecond()).unwrap_or_default())))
}
