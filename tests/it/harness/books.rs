//! What a billing pipeline reads of a control plane: records, changes, windows and their reconciliation.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;
use super::process::OPERATOR_TOKEN;
use super::raw;
use super::stage::text;

/// The ledger, summed over all records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// By outcome; only those that occurred.
    pub calls: BTreeMap<String, u64>,
    /// Calls by operation.
    pub operations: BTreeMap<String, u64>,
    pub opened: u64,
    pub interrupted: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub read_units: u64,
    pub write_units: u64,
    pub units_missing: u64,
}

impl Usage {
    pub fn committed(&self) -> u64 {
        self.calls.values().sum()
    }

    pub fn of(&self, outcome: &str) -> u64 {
        self.calls.get(outcome).copied().unwrap_or_default()
    }

    /// All records that a query selects, as `?account=…`.
    pub fn of_records(control: SocketAddr, query: &str) -> Self {
        Self::sum(lines(control, &format!("/v1/usage/records{query}")).iter())
    }

    /// All changes from the first to the last, as a pipeline takes them in: the greatest revision of each record in place of others.
    pub fn of_changes(control: SocketAddr) -> Self {
        let mut records: BTreeMap<String, (u64, Value)> = BTreeMap::new();
        let mut after = 0;
        loop {
            // Pages that are small beside what there is, so that there are many.
            let page = lines(control, &format!("/v1/usage/changes?after={after}&limit=50"));
            let Some(last) = page.last() else { break };
            assert!(last["seq"].as_u64().unwrap() > after, "the feed does not go on after {after}");
            after = last["seq"].as_u64().unwrap();
            for line in page {
                let record = line["record"].clone();
                let revision = revision(&record);
                let known = records.entry(record["record_id"].as_str().unwrap().to_owned()).or_default();
                if revision >= known.0 {
                    *known = (revision, record);
                }
            }
        }
        Self::sum(records.values().map(|(_, record)| record))
    }

    fn sum<'a>(records: impl Iterator<Item = &'a Value>) -> Self {
        let mut usage = Self::default();
        records.for_each(|record| usage.add(record));
        usage
    }

    fn add(&mut self, record: &Value) {
        let mut calls = 0;
        for (outcome, count) in record["calls"].as_object().unwrap() {
            calls += number(count);
            if number(count) > 0 {
                *self.calls.entry(outcome.clone()).or_default() += number(count);
            }
        }
        *self.operations.entry(record["operation"].as_str().unwrap().to_owned()).or_default() += calls;
        let interrupted = number(&record["interrupted"]);
        // A record's revision moves with each of these by one, and once more when the record becomes final.
        let becoming_final = u64::from(record["final"] == true);
        self.opened += revision(record) - calls - interrupted - becoming_final;
        self.interrupted += interrupted;
        self.request_bytes += number(&record["request_bytes"]);
        self.response_bytes += number(&record["response_bytes"]);
        self.read_units += number(&record["read_units"]);
        self.write_units += number(&record["write_units"]);
        self.units_missing += number(&record["units_missing"]);
    }
}

/// The reconciliation of one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconciled {
    /// Of the window.
    pub state: String,
    pub verdict: String,
    pub opened: u64,
    pub committed: u64,
    pub interrupted: u64,
    /// Calls that ended, by those who have closed the hour and by their lines.
    pub closed: (u64, u64),
    pub differences: usize,
}

/// Every hour that there is, oldest first.
pub fn reconciled(control: SocketAddr) -> Vec<Reconciled> {
    let windows = get(control, "/v1/usage/windows").json();
    let windows = windows["items"].as_array().unwrap().iter();
    let of = |window: &Value| {
        let told = get(control, &format!("/v1/usage/reconciliation?window={}", text(window, "window_start"))).json();
        Reconciled {
            state: text(window, "state"),
            verdict: text(&told, "verdict"),
            opened: number(&told["opened"]),
            committed: number(&told["committed"]),
            interrupted: number(&told["interrupted"]),
            closed: (number(&told["flushed"]), number(&told["ledger"])),
            differences: told["differences"].as_array().unwrap().len(),
        }
    };
    windows.map(of).collect()
}

fn lines(control: SocketAddr, target: &str) -> Vec<Value> {
    get(control, target).text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asks again where the store cannot be asked now, as a pipeline does.
fn get(control: SocketAddr, target: &str) -> raw::Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = raw::api(control, "GET", target, OPERATOR_TOKEN, &Value::Null);
        if answer.status != 503 || Instant::now() > deadline {
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            return answer;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn revision(record: &Value) -> u64 {
    record["revision"].as_u64().unwrap_or_else(|| number(&record["revision"]))
}

/// A count that is written as a decimal string; 0 where there is none.
fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}
