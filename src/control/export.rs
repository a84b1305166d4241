//! `GET /metrics/usage`: cumulative usage per account, straight from the ledger's memory.
//!
//! It is not made with the `prometheus` crate: that one mixes up label values that hash alike, which must not happen to bills.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;

use super::Control;
use super::caller::MeterReader;
use crate::meter::record::{Counters, Outcome};
use crate::store::UsageTotal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exposition {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

/// A family of counters: its name without `_total`, its help, and how it is read from the counters of a line.
struct Family {
    name: &'static str,
    help: &'static str,
    values: Values,
}

enum Values {
    ByOutcome,
    One(fn(&Counters) -> u64),
}

const FAMILIES: [Family; 7] = [
    Family { name: "tollgate_usage_calls", help: "Calls ended, by outcome.", values: Values::ByOutcome },
    one("tollgate_usage_request_bytes", "Bytes of request bodies.", |c| c.request_bytes),
    one("tollgate_usage_response_bytes", "Bytes of response bodies.", |c| c.response_bytes),
    one("tollgate_usage_read_units", "Read units that the service reported.", |c| c.read_units),
    one("tollgate_usage_write_units", "Write units that the service reported.", |c| c.write_units),
    one("tollgate_usage_units_missing", "Ok document operations without reported units.", |c| c.units_missing),
    one("tollgate_usage_interrupted", "Calls of a killed gateway that never ended.", |c| c.interrupted),
];

const fn one(name: &'static str, help: &'static str, read: fn(&Counters) -> u64) -> Family {
    Family { name, help, values: Values::One(read) }
}

pub async fn totals(State(control): State<Arc<Control>>, _: MeterReader, headers: HeaderMap) -> Response {
    let exposition = negotiated(&headers);
    let mut response = Response::new(Body::new(Pieces::new(control.store.totals(), exposition)));
    let content_type = HeaderValue::from_static(exposition.content_type());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// OpenMetrics for who names it, the older text for everybody else.
fn negotiated(headers: &HeaderMap) -> Exposition {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepted.any(|value| value.contains("application/openmetrics-text"));
    if open { Exposition::OpenMetrics } else { Exposition::Text }
}

impl Exposition {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A body that is written while it is sent: one piece at a time, of as many accounts as there are.
struct Pieces {
    totals: Vec<UsageTotal>,
    exposition: Exposition,
    /// The index in [`FAMILIES`].
    family: usize,
    /// The next of `totals` within the family.
    next: usize,
    ended: bool,
}

/// About how many bytes a piece has.
const PIECE: usize = 64 * 1024;
/// No sample is longer.
const SAMPLES: usize = 2048;

impl Pieces {
    fn new(totals: Vec<UsageTotal>, exposition: Exposition) -> Self {
        Self { totals, exposition, family: 0, next: 0, ended: false }
    }

    /// None at the end.
    fn piece(&mut self) -> Option<String> {
        let mut text = String::with_capacity(PIECE + SAMPLES);
        while text.len() < PIECE && !self.ended {
            self.advance(&mut text);
        }
        (!text.is_empty()).then_some(text)
    }

    /// Writes one total of one family, with the family's head before its first one.
    fn advance(&mut self, to: &mut String) {
        let Some(family) = FAMILIES.get(self.family) else {
            self.ended = true;
            if self.exposition == Exposition::OpenMetrics {
                to.push_str("# EOF\n");
            }
            return;
        };
        if self.next == 0 {
            write_head(to, self.exposition, family);
        }
        match self.totals.get(self.next) {
            Some(total) => {
                write_samples(to, family, total);
                self.next += 1;
            }
            None => (self.family, self.next) = (self.family + 1, 0),
        }
    }
}

// Writing to a String cannot fail.

fn write_head(to: &mut String, exposition: Exposition, family: &Family) {
    let (name, help) = (family.name, family.help);
    let suffix = if exposition == Exposition::Text { "_total" } else { "" };
    let _infallible = writeln!(to, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} counter");
}

/// Of calls every outcome from the start, also those that never happened: a series that begins above zero hides its first ones.
fn write_samples(to: &mut String, family: &Family, total: &UsageTotal) {
    match family.values {
        Values::ByOutcome => {
            for (outcome, count) in Outcome::ALL.iter().zip(total.counters.outcomes) {
                write_labels(to, family.name, total);
                let _infallible = writeln!(to, ",outcome=\"{}\"}} {count}", outcome.name());
            }
        }
        Values::One(read) => {
            write_labels(to, family.name, total);
            let _infallible = writeln!(to, "}} {}", read(&total.counters));
        }
    }
}

/// None of the label values can hold a character that would have to be escaped.
fn write_labels(to: &mut String, name: &str, total: &UsageTotal) {
    let UsageTotal { account_id, cluster_id, operation, .. } = total;
    let operation = operation.name();
    let _infallible =
        write!(to, "{name}_total{{account_id=\"{account_id}\",cluster_id=\"{cluster_id}\",operation=\"{operation}\"");
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.piece().map(|text| Ok(Frame::data(Bytes::from(text)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::record::Operation;
    use crate::principal::{AccountId, ClusterId, ID_BYTES};

    fn totals(count: u16) -> Vec<UsageTotal> {
        let total = |n: u16| {
            let mut id = [0; ID_BYTES];
            id[..2].copy_from_slice(&n.to_be_bytes());
            let outcomes = [u64::from(n), 0, 0, 0, 0, 0];
            UsageTotal {
                account_id: AccountId(id),
                cluster_id: ClusterId([1; ID_BYTES]),
                operation: Operation::Query,
                counters: Counters { outcomes, read_units: 7, ..Counters::default() },
            }
        };
        (0..count).map(total).collect()
    }

    fn written(count: u16, exposition: Exposition) -> String {
        let mut pieces = Pieces::new(totals(count), exposition);
        std::iter::from_fn(|| pieces.piece()).inspect(|piece| assert!(piece.len() < PIECE + SAMPLES)).collect()
    }

    #[test]
    fn each_family_is_written_once_and_whole_however_many_pieces_it_takes() {
        let text = written(1000, Exposition::Text);
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 1000 * (6 + 6));
        assert_eq!(text.matches("# TYPE tollgate_usage_read_units_total counter\n").count(), 1);
        let sample = format!(
            "tollgate_usage_calls_total{{account_id=\"{}\",cluster_id=\"{}\",operation=\"query\",outcome=\"ok\"}} 999\n",
            totals(1000)[999].account_id,
            totals(1)[0].cluster_id
        );
        assert_eq!(text.matches(&sample).count(), 1);
        assert!(!text.contains("# EOF"));
    }

    #[test]
    fn openmetrics_names_families_without_total_and_ends_with_eof() {
        let text = written(1, Exposition::OpenMetrics);
        assert!(text.contains("# TYPE tollgate_usage_calls counter\n"));
        assert!(text.contains("tollgate_usage_calls_total{"));
        assert!(text.ends_with("\n# EOF\n"));
        assert!(written(0, Exposition::OpenMetrics).ends_with("# EOF\n"));
    }

    #[test]
    fn openmetrics_is_given_to_who_asks_for_it() {
        let accept = |value: &'static str| HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]);
        assert_eq!(
            negotiated(&accept("application/openmetrics-text;version=1.0.0,*/*;q=0.1")),
            Exposition::OpenMetrics
        );
        assert_eq!(negotiated(&accept("*/*")), Exposition::Text);
        assert_eq!(negotiated(&HeaderMap::new()), Exposition::Text);
    }
}
