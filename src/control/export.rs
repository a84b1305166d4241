//! `GET /metrics/usage`: cumulative usage per account, straight from the ledger's memory.
//!
//! It is not made with the `prometheus` crate: that one mixes up label values that hash alike, which must not happen to bills.

mod family;
mod pieces;
mod protobuf;
mod shard;
mod text;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

pub use self::pieces::Pieces;
pub use self::shard::Shard;
use super::Control;
use super::accept;
use super::caller::MeterReader;
use super::error::Problem;
use super::request::QueryOf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
    /// Delimited messages of Prometheus' own protobuf format.
    Protobuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    shard: Option<String>,
}

pub async fn totals(
    State(control): State<Arc<Control>>,
    _: MeterReader,
    QueryOf(query): QueryOf<Query>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shard = query.shard.as_deref().map(Shard::parse).transpose().map_err(Problem::invalid)?;
    // The one copy: from here on nothing is locked.
    let mut totals = control.store.totals()?;
    if let Some(shard) = shard {
        totals.retain(|total| shard.takes(total.account_id));
    }
    let exposition = Exposition::wanted(&headers);
    let mut response = Response::new(Body::new(Pieces::new(totals, exposition)));
    let content_type = HeaderValue::from_static(exposition.content_type());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

impl Exposition {
    const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// The oldest text for who does not ask for anything that there is.
    fn wanted(headers: &HeaderMap) -> Self {
        accept::preferred(headers, &Self::ALL.map(|form| (form, form.content_type()))).unwrap_or(Self::Text)
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    fn wanted(accept: &'static str) -> Exposition {
        Exposition::wanted(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn each_scraper_is_given_what_it_wants_most() {
        for (accept, form) in [
            // Prometheus 2.42, and with native histograms.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Exposition::OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                 application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Exposition::Protobuf,
            ),
            // Prometheus 2.53 as it comes, and 3 with each of its protocols first.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Exposition::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Exposition::OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                 escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Exposition::Protobuf,
            ),
            ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5", Exposition::Text),
            // Other forms of the same types.
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", Exposition::Text),
            ("application/openmetrics-text;version=0.0.1,text/plain;q=0.5", Exposition::Text),
            // A person.
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Exposition::Text),
            ("application/openmetrics-text;q=0,text/plain;q=0.1", Exposition::Text),
            ("application/json", Exposition::Text),
        ] {
            assert_eq!(wanted(accept), form, "{accept}");
        }
        assert_eq!(Exposition::wanted(&HeaderMap::new()), Exposition::Text);
    }
}
