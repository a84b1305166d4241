//! Usage as the charts show it: records of the API, summed into buckets of hours or days. Pure.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Deserializer};

/// One record of `GET /v1/usage/records?by=key`.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    /// Hours since 1970 in UTC.
    #[serde(rename = "window_start", deserialize_with = "hour")]
    pub hour: i64,
    #[serde(default)]
    pub account_id: String,
    pub cluster_id: String,
    pub operation: String,
    #[serde(default)]
    pub key_id: String,
    pub calls: Calls,
    #[serde(deserialize_with = "decimal")]
    pub request_bytes: u64,
    #[serde(deserialize_with = "decimal")]
    pub response_bytes: u64,
    #[serde(deserialize_with = "decimal")]
    pub read_units: u64,
    #[serde(deserialize_with = "decimal")]
    pub write_units: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Calls {
    #[serde(deserialize_with = "decimal")]
    ok: u64,
    #[serde(deserialize_with = "decimal")]
    refused: u64,
    #[serde(deserialize_with = "decimal")]
    upstream_error: u64,
    #[serde(deserialize_with = "decimal")]
    timeout: u64,
    #[serde(deserialize_with = "decimal")]
    client_abort: u64,
    #[serde(deserialize_with = "decimal")]
    aborted: u64,
}

/// What was used, of whatever was added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub ok: u64,
    /// The service said no.
    pub refused: u64,
    /// The service failed or was too slow, or somebody left before the end.
    pub failed: u64,
    pub read_units: u64,
    pub write_units: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// A stretch of time in buckets of equal length. The last one is not over yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first hour, since 1970 in UTC.
    pub from: i64,
    pub buckets: usize,
    /// Hours in a bucket.
    pub step: i64,
}

impl Span {
    /// The last `buckets` hours or days up to and with `now`, an hour. A day begins `day_starts` hours after midnight UTC.
    pub fn until(now: i64, buckets: usize, step: i64, day_starts: i64) -> Self {
        let shift = if step == 1 { 0 } else { day_starts };
        let last = (now - shift).div_euclid(step) * step + shift;
        Self { from: last - (i64::try_from(buckets).unwrap_or(1) - 1) * step, buckets, step }
    }

    /// How the day of the bucket that starts at `hour` is written down: its noon in UTC. For buckets of hours the hour itself.
    pub fn labelled(self, hour: i64) -> String {
        let into_the_day = self.from.rem_euclid(24);
        match self.step {
            1 => instant(hour),
            // A day that begins in the evening of UTC is the next day further east.
            _ if into_the_day >= 10 => instant(hour - into_the_day + 36),
            _ => instant(hour - into_the_day + 12),
        }
    }

    /// The first hour of each bucket.
    pub fn starts(self) -> impl Iterator<Item = i64> {
        (0..self.buckets).map(move |at| self.from + i64::try_from(at).unwrap_or(0) * self.step)
    }

    pub fn sums<'a>(self, records: impl IntoIterator<Item = &'a Record>) -> Vec<Sum> {
        let mut sums = vec![Sum::default(); self.buckets];
        for record in records {
            let at = usize::try_from((record.hour - self.from).div_euclid(self.step)).ok();
            if let Some(sum) = at.and_then(|at| sums.get_mut(at)) {
                *sum += record.sum();
            }
        }
        sums
    }
}

impl Record {
    pub fn sum(&self) -> Sum {
        let Calls { ok, refused, upstream_error, timeout, client_abort, aborted } = self.calls;
        let failed = [timeout, client_abort, aborted].into_iter().fold(upstream_error, u64::saturating_add);
        let Self { read_units, write_units, request_bytes, response_bytes, .. } = *self;
        Sum { ok, refused, failed, read_units, write_units, request_bytes, response_bytes }
    }
}

impl Sum {
    pub fn calls(&self) -> u64 {
        self.ok.saturating_add(self.refused).saturating_add(self.failed)
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, more: Self) {
        for (to, from) in [
            (&mut self.ok, more.ok),
            (&mut self.refused, more.refused),
            (&mut self.failed, more.failed),
            (&mut self.read_units, more.read_units),
            (&mut self.write_units, more.write_units),
            (&mut self.request_bytes, more.request_bytes),
            (&mut self.response_bytes, more.response_bytes),
        ] {
            *to = to.saturating_add(from);
        }
    }
}

/// Sums by a name of the record, the most calls first.
pub fn by<'a>(records: &'a [Record], name: impl Fn(&'a Record) -> &'a str) -> Vec<(&'a str, Sum)> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for record in records {
        *sums.entry(name(record)).or_default() += record.sum();
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.calls()));
    sums
}

/// The RFC 3339 text of an hour.
pub fn instant(hour: i64) -> String {
    jiff::Timestamp::from_second(hour.saturating_mul(3600)).map(|at| at.to_string()).unwrap_or_default()
}

/// The hour that an instant lies in.
pub fn hour_of(at: &str) -> Option<i64> {
    let at: jiff::Timestamp = at.parse().ok()?;
    Some(at.as_second().div_euclid(3600))
}

pub fn hour<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let text = String::deserialize(from)?;
    hour_of(&text).ok_or_else(|| serde::de::Error::custom("not an instant"))
}

/// Counts travel as text, since JSON's numbers end at 2⁵³ for many readers.
fn decimal<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(hour: i64, operation: &str, ok: u64) -> Record {
        let text = serde_json::json!({
            "window_start": instant(hour), "cluster_id": "clu_a", "operation": operation, "key_id": "key_a",
            "calls": {"ok": ok.to_string(), "refused": "1", "upstream_error": "1", "timeout": "1", "client_abort": "0", "aborted": "0"},
            "request_bytes": "5", "response_bytes": "6", "read_units": "7", "write_units": "0",
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn what_lies_outside_of_the_span_is_not_in_its_sums() {
        let span = Span::until(100, 3, 1, 0);
        let records = [
            record(97, "query", 9),
            record(98, "query", 1),
            record(100, "query", 2),
            record(100, "insert", 3),
            record(101, "query", 9),
        ];
        let sums = span.sums(&records);
        assert_eq!(sums.iter().map(|sum| sum.ok).collect::<Vec<_>>(), [1, 0, 5]);
        assert_eq!((sums[2].refused, sums[2].failed, sums[2].read_units, sums[2].calls()), (2, 4, 14, 11));
    }

    #[test]
    fn a_day_begins_where_the_bill_says() {
        // Midnight at +08:00 is 16:00 UTC.
        for (now, last) in [(16, 16), (39, 16), (40, 40), (15, -8)] {
            let span = Span::until(now, 7, 24, 16);
            assert_eq!(span.starts().last(), Some(last), "at {now}");
            assert_eq!(span.starts().count(), 7);
        }
    }

    #[test]
    fn a_day_is_called_what_it_is_called_where_it_begins_at_midnight() {
        for (day_starts, called) in [(0, "1970-01-11"), (16, "1970-01-11"), (5, "1970-01-10")] {
            // The hour is three o'clock in the morning of January 11th in UTC, 11 o'clock at +08:00, 22 o'clock of the 10th at −05:00.
            let span = Span::until(243, 7, 24, day_starts);
            let last = span.starts().last().unwrap();
            assert_eq!(span.labelled(last), format!("{called}T12:00:00Z"), "at {day_starts}");
        }
    }

    #[test]
    fn the_busiest_comes_first() {
        let records = [record(1, "query", 1), record(1, "insert", 9), record(2, "query", 2)];
        let names: Vec<_> =
            by(&records, |record| record.operation.as_str()).into_iter().map(|(name, sum)| (name, sum.ok)).collect();
        assert_eq!(names, [("insert", 9), ("query", 3)]);
    }
}
