//! What will be billed for the hours of the last day, for the operator: each hour with its state and what it holds.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};
use serde::Deserialize;

use super::operator::operator;
use crate::clock;
use crate::console::ask::Refused;
use crate::console::elements::{Clock, badge, bytes, count, escaped, time};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::{Lang, fill};
use crate::console::usage::{Record, Sum, hour, instant};
use crate::console::visit::Visit;

const HOURS: i64 = 24;

/// How far the bill of an hour is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Calls are still counted in it.
    Open,
    /// It is over, and late counts may still come.
    Draining,
    Final,
}

/// Where an hour stands, of `GET /v1/usage/windows`.
#[derive(Debug, Deserialize)]
struct Standing {
    #[serde(rename = "window_start", deserialize_with = "hour")]
    hour: i64,
    state: State,
    /// The gateways it waits for.
    missing: Vec<String>,
    /// Those that were given up.
    #[serde(default)]
    lost: Vec<String>,
}

#[derive(Deserialize)]
struct Standings {
    items: Vec<Standing>,
}

/// What was counted in an hour.
#[derive(Default)]
struct Counted<'a> {
    accounts: BTreeSet<&'a str>,
    sum: Sum,
}

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let now = i64::from(clock::wall().hour().0);
    let from = escaped(&instant(now - HOURS + 1));
    let asked = visit.api.lines(&visit, &format!("/v1/usage/records?limit=100000&from={from}")).await;
    let records: Vec<Record> = operator(asked)?;
    let Standings { items: windows } =
        operator(visit.api.get(&visit, &format!("/v1/usage/windows?from={from}")).await)?;
    let csv = format!("/v1/usage/records?format=csv&limit=100000&from={from}");
    let content = html! {
        div .head {
            div { h1 { (lang.billing_title()) } p .hint { (lang.billing_text()) } }
            div .action { a .button href=(csv) download="usage.csv" { (lang.download_csv()) } }
        }
        (table(lang, &windows, &by_hour(&records)))
    };
    Ok(shell::page(&visit, &Whose::Operator, Place::Billing, lang.billing_title(), &content))
}

fn by_hour(records: &[Record]) -> BTreeMap<i64, Counted<'_>> {
    let mut hours: BTreeMap<i64, Counted<'_>> = BTreeMap::new();
    for record in records {
        let counted = hours.entry(record.hour).or_default();
        counted.accounts.insert(record.account_id.as_str());
        counted.sum += record.sum();
    }
    hours
}

fn table(lang: Lang, windows: &[Standing], counted: &BTreeMap<i64, Counted<'_>>) -> Markup {
    if windows.is_empty() {
        return html! { div .empty.card { h2 { (lang.no_calls()) } } };
    }
    let nothing = Counted::default();
    html! {
        div .card.list { table .stacked {
            caption .visually-hidden { (lang.billing_title()) }
            thead { tr {
                @for name in [lang.hour(), lang.status()] { th scope="col" { (name) } }
                @for name in heads(lang) { th scope="col" .number { (name) } }
            } }
            tbody { @for window in windows.iter().rev() {
                (row(lang, window, counted.get(&window.hour).unwrap_or(&nothing)))
            } }
        } }
    }
}

fn heads(lang: Lang) -> [&'static str; 5] {
    [lang.accounts_counted(), lang.calls(), lang.read_units(), lang.write_units(), lang.traffic()]
}

fn row(lang: Lang, window: &Standing, counted: &Counted<'_>) -> Markup {
    let sum = &counted.sum;
    let accounts = u64::try_from(counted.accounts.len()).unwrap_or(u64::MAX);
    let traffic = bytes(sum.request_bytes.saturating_add(sum.response_bytes));
    let numbers = [count(accounts), count(sum.calls()), count(sum.read_units), count(sum.write_units), traffic];
    html! {
        tr {
            th scope="row" { (time(&instant(window.hour), Clock::Minute)) }
            td data-label=(lang.status()) {
                @match window.state {
                    State::Open => (badge("neutral", lang.window_open())),
                    State::Draining => (badge("warn", lang.window_draining())),
                    State::Final => (badge("good", lang.window_final())),
                }
                @if !window.missing.is_empty() { " " span .hint { (fill(lang.waits_for(), &[&window.missing.join(", ")])) } }
                @if !window.lost.is_empty() { " " span .hint { (fill(lang.lost_usage_of(), &[&window.lost.join(", ")])) } }
            }
            @for (name, number) in heads(lang).into_iter().zip(numbers) { td .number data-label=(name) { (number) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(hour: &str, account: &str) -> Record {
        let calls = json!({"ok": "2", "refused": "1", "upstream_error": "0", "timeout": "0", "client_abort": "0", "aborted": "0"});
        let record = json!({
            "window_start": hour, "account_id": account, "final": false, "cluster_id": "clu_a", "operation": "query", "calls": calls,
            "request_bytes": "1", "response_bytes": "1", "read_units": "5", "write_units": "0",
        });
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn an_hour_adds_up_its_accounts_and_names_the_gateways_it_waits_for() {
        let records = [
            record("1970-01-01T02:00:00Z", "acc_a"),
            record("1970-01-01T03:00:00Z", "acc_a"),
            record("1970-01-01T03:00:00Z", "acc_b"),
        ];
        let counted = by_hour(&records);
        assert_eq!((counted[&3].accounts.len(), counted[&3].sum.calls(), counted[&3].sum.read_units), (2, 6, 10));
        let windows = json!({"items": [
            {"window_start": "1970-01-01T01:00:00Z", "state": "final", "missing": [], "lost": ["gw_b"]},
            {"window_start": "1970-01-01T02:00:00Z", "state": "draining", "missing": ["gw_a"]},
        ]});
        let Standings { items } = serde_json::from_value(windows).unwrap();
        let shown = table(Lang::En, &items, &counted).into_string();
        let place = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text} is not in {shown}"));
        assert!(place("waits for gw_a") < place("without gw_b"), "the newest hour stands first");
    }
}
