//! What the service saw and gave out, for tests that compare it with what a gateway counted.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::request::Parts;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use super::call::Operation;
use super::proto::Units;

/// The header in which a gateway names the account.
const ACCOUNT: &str = "x-tollgate-account";

const MAX_ACCOUNTS: usize = 100_000;
const MAX_TOKENS: usize = 100_000;
const MAX_MARKS: usize = 2_000_000;
const MAX_RECENT: usize = 64;

/// Sums over calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests whose head was read.
    pub calls: u64,
    /// Answers whose last byte went to the connection.
    pub completed: u64,
    pub operations: BTreeMap<Operation, u64>,
    pub completed_operations: BTreeMap<Operation, u64>,
    /// Units in the answers that were begun.
    pub read_units: u64,
    pub write_units: u64,
    /// Units in the answers that were completed.
    pub completed_read_units: u64,
    pub completed_write_units: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    #[serde(flatten)]
    pub total: Tally,
    /// By `x-tollgate-account`; calls without it are under the empty name.
    pub accounts: HashMap<String, Tally>,
    /// Requests turned away by `x-sample-refuse`; they are counted nowhere else.
    pub refused: u64,
}

#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    recent: VecDeque<Arc<Seen>>,
    tokens: HashSet<String>,
    marks: HashSet<u64>,
}

/// A request as it came in.
#[derive(Debug)]
struct Seen {
    head: Parts,
    operation: Operation,
    body_bytes: AtomicU64,
}

/// One call on its way; completes it in the counts once its last byte is handed over.
#[derive(Debug)]
pub struct Ticket {
    ledger: Arc<Ledger>,
    seen: Arc<Seen>,
    units: Option<Units>,
}

impl Ledger {
    pub fn counts(&self) -> Counts {
        self.state.lock().counts.clone()
    }

    pub fn reset(&self) {
        *self.state.lock() = State::default();
    }

    /// The counts and the last request, as JSON.
    pub fn summary(&self) -> Value {
        let state = self.state.lock();
        let mut summary = json!(state.counts);
        if let (Some(summary), Some(last)) = (summary.as_object_mut(), state.recent.back()) {
            summary.insert("last".to_owned(), last.to_json());
        }
        summary
    }

    /// The last requests, oldest first, as JSON.
    pub fn recent(&self) -> Value {
        self.state.lock().recent.iter().map(|seen| seen.to_json()).collect()
    }

    /// Whether this is the first request with this token, which is then turned away.
    pub fn turns_away(&self, token: &str) -> bool {
        let mut state = self.state.lock();
        let first = state.tokens.len() < MAX_TOKENS && state.tokens.insert(token.to_owned());
        state.counts.refused += u64::from(first);
        first
    }

    /// The request with this mark came.
    pub fn mark(&self, mark: u64) {
        let mut state = self.state.lock();
        if state.marks.len() < MAX_MARKS {
            state.marks.insert(mark);
        }
    }

    /// All marks since they were last taken.
    pub fn take_marks(&self) -> HashSet<u64> {
        std::mem::take(&mut self.state.lock().marks)
    }

    pub fn open(self: &Arc<Self>, head: Parts, operation: Operation) -> Ticket {
        let seen = Arc::new(Seen { head, operation, body_bytes: AtomicU64::new(0) });
        let mut state = self.state.lock();
        state.counts.each(seen.account(), |tally| {
            tally.calls += 1;
            *tally.operations.entry(operation).or_default() += 1;
        });
        if state.recent.len() == MAX_RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(seen.clone());
        drop(state);
        Ticket { ledger: self.clone(), seen, units: None }
    }
}

impl Counts {
    fn each(&mut self, account: &str, mut add: impl FnMut(&mut Tally)) {
        add(&mut self.total);
        if let Some(tally) = self.accounts.get_mut(account) {
            add(tally);
        } else if self.accounts.len() < MAX_ACCOUNTS {
            add(self.accounts.entry(account.to_owned()).or_default());
        }
    }
}

impl Ticket {
    pub fn head(&self) -> &Parts {
        &self.seen.head
    }

    /// The request's body had so many bytes, so far.
    pub fn body_bytes(&self, bytes: usize) {
        self.seen.body_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The answer that is about to be sent carries these units.
    pub fn answer(&mut self, units: Option<Units>) {
        self.units = units;
        let Some(units) = units else { return };
        self.ledger.state.lock().counts.each(self.seen.account(), |tally| match units {
            Units::Read(units) => tally.read_units += u64::from(units),
            Units::Write(units) => tally.write_units += u64::from(units),
        });
    }

    /// The last byte is on its way.
    pub fn complete(self) {
        self.ledger.state.lock().counts.each(self.seen.account(), |tally| {
            tally.completed += 1;
            *tally.completed_operations.entry(self.seen.operation).or_default() += 1;
            match self.units {
                Some(Units::Read(units)) => tally.completed_read_units += u64::from(units),
                Some(Units::Write(units)) => tally.completed_write_units += u64::from(units),
                None => {}
            }
        });
    }
}

impl Seen {
    fn account(&self) -> &str {
        self.head.headers.get(ACCOUNT).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn to_json(&self) -> Value {
        let text = |name| self.head.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        json!({
            "operation": self.operation,
            "method": self.head.method.as_str(),
            "target": target(&self.head),
            "authority": authority(&self.head),
            "version": format!("{:?}", self.head.version),
            "headers": headers(&self.head.headers),
            "content_length": text(header::CONTENT_LENGTH),
            "transfer_encoding": text(header::TRANSFER_ENCODING),
            "body_bytes": self.body_bytes.load(Ordering::Relaxed),
        })
    }
}

/// Path and query as they came; over HTTP/2 without the authority.
pub fn target(head: &Parts) -> String {
    head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string)
}

/// `Host` or, over HTTP/2, `:authority`.
pub fn authority(head: &Parts) -> Option<&str> {
    let host = || head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    head.uri.authority().map(|authority| authority.as_str()).or_else(host)
}

/// Names and values in the order of the wire as far as it is kept; bytes that are not text are replaced.
pub fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect()
}
