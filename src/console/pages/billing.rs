//! What will be billed for the hours of the last day, for the operator: each hour with its state and what it holds.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::operator::operator;
use crate::clock;
use crate::console::ask::Refused;
use crate::console::elements::{Clock, badge, bytes, count, escaped, time};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::Lang;
use crate::console::usage::{Record, Sum, instant};
use crate::console::visit::Visit;

const HOURS: i64 = 24;

/// How far the bill of an hour is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls are still counted in it.
    Open,
    /// It is over, and late counts may still come.
    Draining,
    Final,
}

/// An hour with calls.
struct Window<'a> {
    state: State,
    accounts: BTreeSet<&'a str>,
    sum: Sum,
}

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let now = i64::from(clock::wall().hour().0);
    let from = escaped(&instant(now - HOURS + 1));
    let asked = visit.api.lines(&visit, &format!("/v1/usage/records?limit=100000&from={from}")).await;
    let records: Vec<Record> = operator(asked)?;
    let csv = format!("/v1/usage/records?format=csv&limit=100000&from={from}");
    let content = html! {
        div .head {
            div { h1 { (lang.billing_title()) } p .hint { (lang.billing_text()) } }
            div .action { a .button href=(csv) download="usage.csv" { (lang.download_csv()) } }
        }
        (table(lang, &windows(&records, now)))
    };
    Ok(shell::page(&visit, &Whose::Operator, Place::Billing, lang.billing_title(), &content))
}

fn windows(records: &[Record], now: i64) -> BTreeMap<i64, Window<'_>> {
    let mut windows = BTreeMap::new();
    for record in records {
        let state = match () {
            () if record.is_final => State::Final,
            () if record.hour >= now => State::Open,
            () => State::Draining,
        };
        let empty = || Window { state, accounts: BTreeSet::new(), sum: Sum::default() };
        let window = windows.entry(record.hour).or_insert_with(empty);
        window.accounts.insert(record.account_id.as_str());
        window.sum += record.sum();
    }
    windows
}

fn table(lang: Lang, windows: &BTreeMap<i64, Window<'_>>) -> Markup {
    if windows.is_empty() {
        return html! { div .empty.card { h2 { (lang.no_calls()) } } };
    }
    html! {
        div .card.list { table .stacked {
            caption .visually-hidden { (lang.billing_title()) }
            thead { tr {
                @for name in [lang.hour(), lang.status()] { th scope="col" { (name) } }
                @for name in heads(lang) { th scope="col" .number { (name) } }
            } }
            tbody { @for (hour, window) in windows.iter().rev() { (row(lang, *hour, window)) } }
        } }
    }
}

fn heads(lang: Lang) -> [&'static str; 5] {
    [lang.accounts_counted(), lang.calls(), lang.read_units(), lang.write_units(), lang.traffic()]
}

fn row(lang: Lang, hour: i64, window: &Window<'_>) -> Markup {
    let sum = &window.sum;
    let accounts = u64::try_from(window.accounts.len()).unwrap_or(u64::MAX);
    let traffic = bytes(sum.request_bytes.saturating_add(sum.response_bytes));
    let numbers = [count(accounts), count(sum.calls()), count(sum.read_units), count(sum.write_units), traffic];
    html! {
        tr {
            th scope="row" { (time(&instant(hour), Clock::Minute)) }
            td data-label=(lang.status()) {
                @match window.state {
                    State::Open => (badge("neutral", lang.window_open())),
                    State::Draining => (badge("warn", lang.window_draining())),
                    State::Final => (badge("good", lang.window_final())),
                }
            }
            @for (name, number) in heads(lang).into_iter().zip(numbers) { td .number data-label=(name) { (number) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_hour_is_open_then_draining_then_final_and_adds_up_its_accounts() {
        let record = |hour: &str, account: &str, is_final: bool| -> Record {
            let calls = json!({"ok": "2", "refused": "1", "upstream_error": "0", "timeout": "0", "client_abort": "0", "aborted": "0"});
            let record = json!({
                "window_start": hour, "account_id": account, "final": is_final, "cluster_id": "clu_a", "operation": "query", "calls": calls,
                "request_bytes": "1", "response_bytes": "1", "read_units": "5", "write_units": "0",
            });
            serde_json::from_value(record).unwrap()
        };
        let records = [
            record("1970-01-01T01:00:00Z", "acc_a", true),
            record("1970-01-01T02:00:00Z", "acc_a", false),
            record("1970-01-01T03:00:00Z", "acc_a", false),
            record("1970-01-01T03:00:00Z", "acc_b", false),
        ];
        let windows = windows(&records, 3);
        assert!(windows[&1].state == State::Final && windows[&2].state == State::Draining);
        let open = &windows[&3];
        assert!(open.state == State::Open);
        assert_eq!((open.accounts.len(), open.sum.calls(), open.sum.read_units), (2, 6, 10));
    }
}
