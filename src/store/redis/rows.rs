//! Rows in Redis, read as they are at one commit: whoever reads on after another commit is told that the rows have moved, and
//! begins again.

use std::cell::Cell;
use std::ops::{Bound, ControlFlow};

use super::lane::Lane;
use super::place::Place;
use super::scripts;
use crate::store::StoreError;
use crate::store::rules::rows::{Rows, Span, Step};
use crate::store::rules::tables::{
    ABANDONED, ACCOUNTS, ADJUSTMENTS, AUDIT, CLUSTERS, CLUSTERS_BY_ACCOUNT, DAILY_COUNTS, DELETED_KEYS, EXPIRIES,
    FINAL_WINDOWS, INTENTS, KEYS, LIVE_KEYS, SESSIONS_BY_USER, USERS, USERS_BY_ACCOUNT,
};

/// Tables that are walked in the order of their keys. Of the others rows are only looked up, and walked in no order for a backup.
pub const WALKED: [&str; 16] = [
    ACCOUNTS.name,
    USERS.name,
    USERS_BY_ACCOUNT.name,
    CLUSTERS.name,
    CLUSTERS_BY_ACCOUNT.name,
    KEYS.name,
    LIVE_KEYS.name,
    DELETED_KEYS.name,
    EXPIRIES.name,
    DAILY_COUNTS.name,
    SESSIONS_BY_USER.name,
    INTENTS.name,
    AUDIT.name,
    FINAL_WINDOWS.name,
    ADJUSTMENTS.name,
    ABANDONED.name,
];

/// Rows in a page: few at first, since most walks are short.
const PAGE_FIRST: usize = 32;
const PAGE_MOST: usize = 1000;

/// Key and value.
type Row = (Vec<u8>, Vec<u8>);

/// The rows at one commit. It blocks, so it is not for async threads.
pub struct View<'a> {
    lane: &'a Lane,
    place: &'a Place,
    at: Cell<Option<u64>>,
    moved: Cell<bool>,
}

impl<'a> View<'a> {
    /// At `at`, or at the commit that is found with the first row.
    pub fn new(lane: &'a Lane, place: &'a Place, at: Option<u64>) -> Self {
        Self { lane, place, at: Cell::new(at), moved: Cell::new(false) }
    }

    /// Another commit came between: what was read so far is of no use.
    pub fn has_moved(&self) -> bool {
        self.moved.get()
    }

    /// The commit; absent where nothing was read.
    pub fn at(&self) -> Option<u64> {
        self.at.get()
    }

    fn ask(&self, script: &redis::Script, arguments: &[&[u8]]) -> Result<super::answer::Answer, StoreError> {
        let (server, at) = (self.place.server(), self.at.get().map(|at| at.to_string()).unwrap_or_default());
        let mut all: Vec<&[u8]> = vec![self.place.name(), &server, at.as_bytes()];
        all.extend_from_slice(arguments);
        let mut answer = self.place.judged(self.lane.call_and_block(script, &all)?)?;
        if answer.said == "MOVED" {
            self.moved.set(true);
            return Err(StoreError::Away("the store changed while it was read".to_owned()));
        }
        self.at.set(Some(answer.parsed()?));
        Ok(answer)
    }

    fn page(&self, table: &str, span: &Span, most: usize) -> Result<Vec<Row>, StoreError> {
        let (from, to) = span.bounds();
        let (from, to) = (end(from, b"-"), end(to, b"+"));
        let (order, most) = (if span.is_newest_first() { "down" } else { "up" }, most.to_string());
        let arguments: [&[u8]; 5] = [table.as_bytes(), &from, &to, order.as_bytes(), most.as_bytes()];
        let mut answer = self.ask(&scripts::SCAN, &arguments)?;
        let mut rows = Vec::new();
        while !answer.is_at_end() {
            let key = answer.bytes()?;
            let value = answer.maybe_bytes()?;
            let value = value.ok_or_else(|| StoreError::Corrupt(format!("table {table}: a key stands for no row")))?;
            rows.push((key, value));
        }
        Ok(rows)
    }

    /// Every row of a table of which there is no order.
    fn sweep(&self, table: &str, visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        let (mut cursor, most) = ("0".to_owned(), PAGE_MOST.to_string());
        loop {
            let arguments: [&[u8]; 3] = [table.as_bytes(), cursor.as_bytes(), most.as_bytes()];
            let mut answer = self.ask(&scripts::SWEEP, &arguments)?;
            cursor = answer.text()?;
            while !answer.is_at_end() {
                if visit(&answer.bytes()?, &answer.bytes()?)?.is_break() {
                    return Ok(());
                }
            }
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}

/// As ZRANGEBYLEX writes the end of a range.
fn end(bound: Bound<&[u8]>, unbounded: &[u8]) -> Vec<u8> {
    match bound {
        Bound::Included(key) => [b"[", key].concat(),
        Bound::Excluded(key) => [b"(", key].concat(),
        Bound::Unbounded => unbounded.to_vec(),
    }
}

impl Rows for View<'_> {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(&scripts::READ, &[table.as_bytes(), key])?.maybe_bytes()
    }

    fn scan(&self, table: &str, span: Span, visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        if !WALKED.contains(&table) {
            return match span.bounds() {
                (Bound::Unbounded, Bound::Unbounded) => self.sweep(table, visit),
                _ => Err(StoreError::Corrupt(format!("table {table} cannot be walked in order"))),
            };
        }
        let (mut span, mut most) = (span, PAGE_FIRST);
        while !span.is_empty() {
            let rows = self.page(table, &span, most)?;
            for (key, value) in &rows {
                if visit(key, value)? == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == most => span = span.beyond(last),
                _ => return Ok(()),
            }
            most = PAGE_MOST;
        }
        Ok(())
    }
}
