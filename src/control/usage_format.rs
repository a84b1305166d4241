//! The forms in which usage records are written. Pure.

use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::usage_record::{Dimensions, UsageRecord};
use super::{accept, cloud_events, usage_csv};
use crate::principal::StoreId;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One record a line.
    Ndjson,
    Csv,
    Cloudevents,
}

/// Records to be written, and what of an answer they are.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    pub records: &'a [(Dimensions, UsageRecord)],
    /// Not behind a cursor.
    pub is_first: bool,
    pub ledger: StoreId,
}

impl Format {
    const ALL: [Self; 3] = [Self::Ndjson, Self::Csv, Self::Cloudevents];

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Cloudevents => "application/cloudevents-batch+json",
        }
    }

    /// NDJSON for who does not ask for anything that there is.
    pub fn wanted(headers: &HeaderMap) -> Self {
        accept::preferred(headers, &Self::ALL.map(|format| (format, format.content_type()))).unwrap_or(Self::Ndjson)
    }

    pub fn write(self, page: Page<'_>) -> Vec<u8> {
        match self {
            Self::Ndjson => ndjson(page.records),
            // So that the pages make one table when they are put together.
            Self::Csv if page.is_first => (usage_csv::HEAD.to_owned() + &usage_csv::lines(page.records)).into_bytes(),
            Self::Csv => usage_csv::lines(page.records).into_bytes(),
            Self::Cloudevents => cloud_events::batch(page.records, page.ledger),
        }
    }
}

fn ndjson(records: &[(Dimensions, UsageRecord)]) -> Vec<u8> {
    lines_of(records.iter().map(|(_, record)| record))
}

/// Each of them on a line of its own.
pub fn lines_of(records: impl Iterator<Item = impl Serialize>) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        // Nothing in a record can fail to be written as JSON.
        let _always_written = serde_json::to_writer(&mut body, &record);
        body.push(b'\n');
    }
    body
}
