//! The ledger: for each hour a hash of lines with absolute values, and their sums in memory, kept current by what merges changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::answer::unexpected;
use super::fold::{Apart, sum_anew};
use super::ledger_at::LedgerAt;
use super::{RedisStore, scripts};
use crate::meter::record::{Closing, Counters, Flush, LedgerLine, LineKey};
use crate::meter::witness::Acknowledged;
use crate::principal::{AccountId, LedgerServer};
use crate::store::rules::ledger::{LINE, Totals, account_prefix, grown, line_at, mark_at, mark_key, row_key, whose};
use crate::store::rules::rows::RowValue;
use crate::store::rules::usage::touched;
use crate::store::usage::{FlushMark, HourMark, UsageChanges};
use crate::store::{Ledger, LedgerReader, StoreError, UsageTotal};
use crate::time::{Hour, WallTime};

/// Lines in one merge.
const LINES: usize = 500;
/// Rows in a page.
const PAGE: usize = 1000;
/// Lines in a page of what was changed; more than one merge can change.
const CHANGED: usize = 4 * LINES;
/// Digits of a number: as many as the greatest has.
const DIGITS: usize = 20;
/// The place of the flags among the numbers of a line, from 1.
const FLAGS: usize = 14;

type Line = (LineKey, Counters);

/// The sums, and what they were made from.
#[derive(Default)]
pub struct Sums {
    totals: Totals,
    /// All that was there at some time is in.
    is_whole: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
pub(super) struct Seen {
    /// The last merge whose changes are in.
    pub(super) merge: u64,
    /// Of the hours that have not left the ledger.
    pub(super) lines: BTreeMap<Vec<u8>, Counters>,
    pub(super) apart: Apart,
    /// How often reading was begun again, before there were sums.
    pub(super) beginnings: u32,
}

impl Sums {
    /// Takes in what merges have changed since the last time.
    pub async fn catch_up(&self, usage: &LedgerAt) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        let mut begun = None;
        loop {
            let changed = changed_rows(usage, seen.merge, CHANGED).await?;
            if changed.last < seen.merge {
                // The server has lost merges, and will give their numbers again.
                seen.merge = 0;
                continue;
            }
            let grown = changed.rows.into_iter().filter(|(place, ..)| place.len() == LINE);
            let grown: Vec<_> = grown.filter_map(|(row, _, line)| seen.take(row, line?)).collect();
            self.totals.add(&grown);
            seen.merge = changed.upto.max(seen.merge);
            let moved_before = *begun.get_or_insert(changed.moved);
            if changed.more {
                continue;
            }
            if !seen.apart.is_as_of(changed.moved) {
                sum_anew(&mut seen, &self.totals, usage, (moved_before, changed.moved)).await?;
            }
            if seen.apart.is_known() {
                self.is_whole.store(true, Ordering::Relaxed);
                return Ok(());
            }
            begun = None;
        }
    }
}

impl Seen {
    /// What a line adds to the sums. One that cannot be read adds nothing.
    fn take(&mut self, row: Vec<u8>, line: Vec<u8>) -> Option<(crate::store::rules::ledger::Whose, Counters)> {
        match line_at(&row).and_then(|named| Ok((named.hour, named.key, decode(&line)?))) {
            Ok((hour, key, now)) => {
                let known = self.lines.entry(row).or_default();
                // Where the server has lost a merge, what was known comes again with the next flush, and is not counted twice.
                let (before, now) = (*known, known.max(&now));
                *known = now;
                self.apart.counts(hour).then(|| (whose(&key), grown(&before, &now)))
            }
            Err(error) => {
                tracing::error!(%error, "a line of the ledger is left out of the sums");
                None
            }
        }
    }
}

#[async_trait]
impl Ledger for RedisStore {
    async fn merge_after(&self, flush: Flush, after: u64) -> Result<Acknowledged, StoreError> {
        let (first, last) = flush.lines.split_at(flush.lines.len().saturating_sub(LINES));
        let mut servers = BTreeSet::new();
        for lines in first.chunks(LINES) {
            // Only behind the last of them the batch is there.
            let part = Flush { lines: Vec::new(), sequence: 0, watermark: WallTime(0), closing: None, ..flush };
            servers.insert(self.merge_part(&part, lines, 0).await?.server);
        }
        let said = self.merge_part(&flush, last, after).await?;
        if servers.into_iter().any(|server| server != said.server) {
            return Err(StoreError::Away("the ledger came to another server while it took a batch".to_owned()));
        }
        if self.keeps_sums() {
            self.sums.catch_up(&self.usage).await?;
        }
        Ok(said)
    }

    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        let mut lines = Vec::new();
        for hour in hours(&self.usage, from, to).await? {
            // Sorted as they are listed, and one that came twice only once.
            let mut sorted = BTreeMap::new();
            pages(&self.usage, &hour, |row, line| drop(sorted.insert(row, line))).await?;
            for (row, line) in sorted {
                lines.push(LedgerLine { counters: decode(&line)?, ..line_at(&row)? });
            }
        }
        Ok(lines)
    }

    fn totals(&self) -> Result<Vec<UsageTotal>, StoreError> {
        if !self.sums.is_whole.load(Ordering::Relaxed) {
            return Err(StoreError::Away("the ledger was not read yet".to_owned()));
        }
        Ok(self.sums.totals.list())
    }

    async fn check_ledger(&self) -> Result<(), StoreError> {
        self.usage.check().await
    }
}

#[async_trait]
impl LedgerReader for RedisStore {
    /// From what is in memory, once it holds every merge until now.
    async fn lines_of(&self, accounts: BTreeSet<(Hour, AccountId)>) -> Result<Vec<LedgerLine>, StoreError> {
        self.sums.catch_up(&self.usage).await?;
        let seen = self.sums.seen.lock().await;
        let prefixes = accounts.iter().map(|(hour, account_id)| account_prefix(*hour, *account_id));
        let rows = prefixes.flat_map(|prefix| {
            let from = seen.lines.range(prefix.clone()..);
            from.take_while(move |(row, _)| row.starts_with(&prefix))
        });
        rows.map(|(row, counters)| Ok(LedgerLine { counters: *counters, ..line_at(row)? })).collect()
    }

    async fn marks(&self, from: Hour, to: Hour) -> Result<Vec<HourMark>, StoreError> {
        let mut found = BTreeMap::new();
        pages(&self.usage, "marks", |row, text| drop(found.insert(row, text))).await?;
        let marks = found.iter().map(|(row, text)| mark_at(row, mark(text)?));
        marks.filter(|one| one.as_ref().map_or(true, |one| (from..=to).contains(&one.hour))).collect()
    }

    async fn changed(&self, after: u64, most: usize) -> Result<UsageChanges, StoreError> {
        let changed = changed_rows(&self.usage, after, most.max(CHANGED)).await?;
        let touched = changed.rows.iter().map(|(place, number, _)| Ok((*number, touched(place)?)));
        let touched: Result<_, StoreError> = touched.collect();
        Ok(UsageChanges { touched: touched?, upto: changed.upto.max(after), more: changed.more })
    }
}

/// What merges changed after a certain one, each with the number of its last merge and, where it is a line, what it is now.
pub(super) struct ChangedRows {
    rows: Vec<(Vec<u8>, u64, Option<Vec<u8>>)>,
    /// Everything up to this merge is in.
    upto: u64,
    more: bool,
    /// The last merge there was.
    last: u64,
    /// Another number after every move between ledger and base.
    pub(super) moved: u64,
}

pub(super) async fn changed_rows(usage: &LedgerAt, after: u64, most: usize) -> Result<ChangedRows, StoreError> {
    let (after_text, most_text) = (after.to_string(), most.to_string());
    let arguments = [usage.name(), after_text.as_bytes(), most_text.as_bytes()];
    let mut answer = usage.good(&scripts::CHANGED, &arguments).await?;
    let (last, moved) = (answer.parsed::<u64>()?, answer.parsed::<u64>()?);
    let mut rows = Vec::new();
    while !answer.is_at_end() {
        rows.push((answer.bytes()?, answer.parsed::<u64>()?, answer.maybe_bytes()?));
    }
    let more = rows.len() >= most;
    let greatest = rows.last().map_or(after, |(_, merge, _)| *merge);
    // A full page may end within a merge, whose rest would then be passed over.
    let upto = if more { greatest - 1 } else { greatest };
    rows.retain(|(_, merge, _)| *merge <= upto);
    Ok(ChangedRows { rows, upto, more, last, moved })
}

/// The hours that have lines, oldest first, as they are named.
pub async fn hours(usage: &LedgerAt, from: Hour, to: Hour) -> Result<Vec<String>, StoreError> {
    let (mut from, to, most) = (format!("{}", from.0), to.0.to_string(), PAGE.to_string());
    let mut hours = Vec::new();
    loop {
        let arguments = [usage.name(), from.as_bytes(), to.as_bytes(), most.as_bytes()];
        let mut answer = usage.good(&scripts::HOURS, &arguments).await?;
        let before = hours.len();
        while !answer.is_at_end() {
            hours.push(answer.text()?);
        }
        match hours.last() {
            Some(last) if hours.len() - before == PAGE => from = format!("({last}"),
            _ => return Ok(hours),
        }
    }
}

/// Every line of an hour, or every mark where `of` is `marks`.
pub async fn pages(usage: &LedgerAt, of: &str, mut take: impl FnMut(Vec<u8>, Vec<u8>)) -> Result<(), StoreError> {
    let (mut cursor, most) = ("0".to_owned(), PAGE.to_string());
    loop {
        let arguments = [usage.name(), of.as_bytes(), cursor.as_bytes(), most.as_bytes()];
        let mut answer = usage.good(&scripts::LINES, &arguments).await?;
        cursor = answer.text()?;
        while !answer.is_at_end() {
            take(answer.bytes()?, answer.bytes()?);
        }
        if cursor == "0" {
            return Ok(());
        }
    }
}

impl RedisStore {
    async fn merge_part(&self, part: &Flush, lines: &[Line], after: u64) -> Result<Acknowledged, StoreError> {
        let arguments = merge_arguments(&self.usage, part, lines, after)?;
        let arguments: Vec<_> = arguments.iter().map(Vec::as_slice).collect();
        let mut answer = self.usage.call(&scripts::MERGE, &arguments).await?;
        if answer.said == "ARCHIVED" {
            return Err(StoreError::Archived(part.hour));
        }
        if answer.said == "FULL" {
            return Err(StoreError::Away("redis has little memory left: usage waits on the disk".to_owned()));
        }
        let epoch = answer.text()?;
        let of_store = !self.usage.is_apart();
        if of_store && self.watch.is_another_epoch(epoch.parse().map_err(|_| unexpected("an epoch that is none"))?) {
            // A master that was cut off still takes what comes over old connections, and what it takes is lost.
            return Err(StoreError::Away("usage went to a server that is not the master any more".to_owned()));
        }
        Ok(Acknowledged { server: server_of(&answer.text()?), known: answer.parsed()? })
    }
}

/// By the id that a server has for as long as it goes on from where it was.
fn server_of(replid: &str) -> LedgerServer {
    let digest: [u8; 32] = Sha256::digest(replid.as_bytes()).into();
    let mut server = LedgerServer::EMBEDDED;
    server.0.iter_mut().zip(digest).for_each(|(mine, theirs)| *mine = theirs);
    server
}

/// What stands before the rows and lines of a merge.
pub fn merge_head(
    name: &[u8],
    hour: Hour,
    row: Vec<u8>,
    mark: &FlushMark,
    after: u64,
) -> Result<Vec<Vec<u8>>, StoreError> {
    Ok(vec![
        name.to_vec(),
        hour.0.to_string().into_bytes(),
        row,
        [digits(mark.sequence), digits(after)].concat(),
        digits(mark.watermark.0),
        closing_text(mark.closing.as_ref())?,
        (encode(&Counters::default())?.len() / DIGITS).to_string().into_bytes(),
        FLAGS.to_string().into_bytes(),
    ])
}

fn merge_arguments(usage: &LedgerAt, flush: &Flush, lines: &[Line], after: u64) -> Result<Vec<Vec<u8>>, StoreError> {
    let Flush { incarnation, hour, sequence, watermark, closing, .. } = *flush;
    let mark = FlushMark { sequence, watermark, closing };
    let mut arguments = merge_head(usage.name(), hour, mark_key(hour, incarnation), &mark, after)?;
    for (key, counters) in lines {
        arguments.push(row_key(flush.hour, key, flush.incarnation));
        arguments.push(encode(counters)?);
    }
    Ok(arguments)
}

pub fn digits(number: u64) -> Vec<u8> {
    format!("{number:0DIGITS$}").into_bytes()
}

/// The numbers of a line in their order, each with 20 digits.
pub fn encode(counters: &Counters) -> Result<Vec<u8>, StoreError> {
    let bytes = RowValue::encode(counters).map_err(StoreError::Corrupt)?;
    let (numbers, _) = bytes.as_chunks::<8>();
    Ok(numbers.iter().flat_map(|number| digits(u64::from_le_bytes(*number))).collect())
}

pub fn decode(line: &[u8]) -> Result<Counters, StoreError> {
    let (numbers, rest) = line.as_chunks::<DIGITS>();
    let number = |text: &[u8; DIGITS]| std::str::from_utf8(text).ok()?.parse::<u64>().ok().map(u64::to_le_bytes);
    let numbers: Option<Vec<_>> = numbers.iter().map(number).collect();
    let bytes =
        numbers.filter(|_| rest.is_empty()).ok_or_else(|| unexpected("a line of the ledger without numbers"))?;
    <Counters as RowValue>::decode(&bytes.concat()).map_err(StoreError::Corrupt)
}

/// sequence · watermark · closing, the numbers with 20 digits.
pub fn mark_text(mark: &FlushMark) -> Result<Vec<u8>, StoreError> {
    let closing = closing_text(mark.closing.as_ref())?;
    Ok([digits(mark.sequence), digits(mark.watermark.0), closing].concat())
}

/// lines · totals · 1 where the incarnation leaves, else 0; nothing where there is no closing.
fn closing_text(closing: Option<&Closing>) -> Result<Vec<u8>, StoreError> {
    let Some(Closing { lines, totals, leaves }) = closing else { return Ok(Vec::new()) };
    Ok([digits(*lines), encode(totals)?, digits(u64::from(*leaves))].concat())
}

/// How far an incarnation has flushed an hour.
pub fn mark(text: &[u8]) -> Result<FlushMark, StoreError> {
    let bad = || unexpected("a mark of the ledger without numbers");
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(bad);
    let (sequence, rest) = text.split_at_checked(DIGITS).ok_or_else(bad)?;
    let (watermark, closing) = rest.split_at_checked(DIGITS).ok_or_else(bad)?;
    let closing = match closing.split_at_checked(DIGITS) {
        None if closing.is_empty() => None,
        None => return Err(bad()),
        Some((lines, rest)) => {
            let (totals, leaves) = rest.len().checked_sub(DIGITS).map(|at| rest.split_at(at)).ok_or_else(bad)?;
            Some(Closing { lines: number(lines)?, totals: decode(totals)?, leaves: number(leaves)? == 1 })
        }
    };
    Ok(FlushMark { sequence: number(sequence)?, watermark: WallTime(number(watermark)?), closing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_and_its_flags_are_where_the_script_looks_for_them() {
        let counters =
            Counters { opened: u64::MAX, flags: 5, interrupted: 7, last_used: 1 << 60, ..Counters::default() };
        let line = encode(&counters).unwrap();
        assert_eq!(decode(&line).unwrap(), counters);
        assert_eq!(&line[(FLAGS - 1) * DIGITS..FLAGS * DIGITS], digits(5));
    }

    #[test]
    fn a_mark_is_read_back_with_its_closing_and_without() {
        let totals = Counters { opened: 3, read_units: u64::MAX, ..Counters::default() };
        for closing in
            [None, Some(Closing { lines: 2, totals, leaves: true }), Some(Closing { lines: 0, totals, leaves: false })]
        {
            let known = FlushMark { sequence: 7, watermark: WallTime(9), closing };
            assert_eq!(mark(&mark_text(&known).unwrap()).unwrap(), known);
        }
        for bad in [&b""[..], b"1", &[b'0'; 41], &[b'0'; 60], &[b'x'; 40]] {
            assert!(mark(bad).is_err());
        }
    }
}
