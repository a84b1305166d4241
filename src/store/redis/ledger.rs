//! The ledger: for each hour a hash of lines with absolute values, and their sums in memory, kept current by what merges changed.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::answer::unexpected;
use super::lane::Lane;
use super::place::Place;
use super::{RedisStore, scripts};
use crate::meter::record::{Counters, Flush, LedgerLine};
use crate::store::rules::ledger::{FlushMark, Totals, grown, line_at, mark_key, row_key, whose};
use crate::store::rules::rows::RowValue;
use crate::store::{Ledger, StoreError, UsageTotal};
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

/// The sums, and what they were made from.
#[derive(Default)]
pub struct Sums {
    totals: Totals,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The last merge whose changes are in.
    merge: u64,
    lines: HashMap<Vec<u8>, Counters>,
}

impl Sums {
    /// Takes in what merges have changed since the last time.
    pub async fn catch_up(&self, lane: &Lane, place: &Place) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().await;
        loop {
            let (after, most) = (seen.merge.to_string(), CHANGED.to_string());
            let arguments = [place.name(), after.as_bytes(), most.as_bytes()];
            let mut answer = place.good(lane.call(&scripts::CHANGED, &arguments).await?)?;
            if answer.parsed::<u64>()? < seen.merge {
                // The server has lost merges, and will give their numbers again.
                seen.merge = 0;
                continue;
            }
            let mut changed = Vec::new();
            while !answer.is_at_end() {
                changed.push((answer.bytes()?, answer.parsed::<u64>()?, answer.maybe_bytes()?));
            }
            let is_full = changed.len() >= CHANGED;
            let last = changed.last().map_or(seen.merge, |(_, merge, _)| *merge);
            // A full page may end within a merge, whose rest would then be passed over.
            let upto = if is_full { last - 1 } else { last };
            let grown = changed.into_iter().filter(|(_, merge, _)| *merge <= upto);
            let grown: Vec<_> = grown.filter_map(|(row, _, line)| seen.take(row, line?)).collect();
            self.totals.add(&grown);
            seen.merge = upto.max(seen.merge);
            if !is_full {
                return Ok(());
            }
        }
    }
}

impl Seen {
    /// What a line adds to the sums. One that cannot be read adds nothing.
    fn take(&mut self, row: Vec<u8>, line: Vec<u8>) -> Option<(crate::store::rules::ledger::Whose, Counters)> {
        match line_at(&row).and_then(|named| Ok((named.key, decode(&line)?))) {
            Ok((key, now)) => {
                let known = self.lines.entry(row).or_default();
                // Where the server has lost a merge, what was known comes again with the next flush, and is not counted twice.
                let (before, now) = (*known, known.max(&now));
                *known = now;
                Some((whose(&key), grown(&before, &now)))
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
    async fn merge(&self, flush: Flush) -> Result<(), StoreError> {
        let mut chunks: Vec<_> = flush.lines.chunks(LINES).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let arguments = merge_arguments(&self.place, &flush, chunk)?;
            let arguments: Vec<_> = arguments.iter().map(Vec::as_slice).collect();
            let answer = self.place.judged(self.usage.call(&scripts::MERGE, &arguments).await?)?;
            if answer.said == "FULL" {
                return Err(StoreError::Away("redis has little memory left: usage waits on the disk".to_owned()));
            }
        }
        if self.keeps_sums() {
            self.sums.catch_up(&self.usage, &self.place).await?;
        }
        Ok(())
    }

    async fn lines(&self, from: Hour, to: Hour) -> Result<Vec<LedgerLine>, StoreError> {
        let mut lines = Vec::new();
        for hour in hours(&self.usage, &self.place, from, to).await? {
            // Sorted as they are listed, and one that came twice only once.
            let mut sorted = BTreeMap::new();
            pages(&self.usage, &self.place, &hour, |row, line| drop(sorted.insert(row, line))).await?;
            for (row, line) in sorted {
                lines.push(LedgerLine { counters: decode(&line)?, ..line_at(&row)? });
            }
        }
        Ok(lines)
    }

    fn totals(&self) -> Vec<UsageTotal> {
        self.sums.totals.list()
    }
}

/// The hours that have lines, oldest first, as they are named.
pub async fn hours(lane: &Lane, place: &Place, from: Hour, to: Hour) -> Result<Vec<String>, StoreError> {
    let (from, to) = (from.0.to_string(), to.0.to_string());
    let mut answer = place.good(lane.call(&scripts::HOURS, &[place.name(), from.as_bytes(), to.as_bytes()]).await?)?;
    let mut hours = Vec::new();
    while !answer.is_at_end() {
        hours.push(answer.text()?);
    }
    Ok(hours)
}

/// Every line of an hour, or every mark where `of` is `marks`.
pub async fn pages(
    lane: &Lane,
    place: &Place,
    of: &str,
    mut take: impl FnMut(Vec<u8>, Vec<u8>),
) -> Result<(), StoreError> {
    let (mut cursor, most) = ("0".to_owned(), PAGE.to_string());
    loop {
        let arguments = [place.name(), of.as_bytes(), cursor.as_bytes(), most.as_bytes()];
        let mut answer = place.good(lane.call(&scripts::LINES, &arguments).await?)?;
        cursor = answer.text()?;
        while !answer.is_at_end() {
            take(answer.bytes()?, answer.bytes()?);
        }
        if cursor == "0" {
            return Ok(());
        }
    }
}

fn merge_arguments(
    place: &Place,
    flush: &Flush,
    lines: &[(crate::meter::record::LineKey, Counters)],
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut arguments = vec![
        place.name().to_vec(),
        flush.hour.0.to_string().into_bytes(),
        mark_key(flush.hour, flush.incarnation),
        digits(flush.sequence),
        digits(flush.watermark.0),
        (encode(&Counters::default())?.len() / DIGITS).to_string().into_bytes(),
        FLAGS.to_string().into_bytes(),
    ];
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

/// How far an incarnation has flushed an hour, as a backup has it.
pub fn mark(text: &[u8]) -> Result<FlushMark, StoreError> {
    let bad = || unexpected("a mark of the ledger without numbers");
    let ([sequence, watermark], []) = text.as_chunks::<DIGITS>() else {
        return Err(bad());
    };
    let number = |text: &[u8; DIGITS]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
    Ok(FlushMark {
        sequence: number(sequence).ok_or_else(bad)?,
        watermark: WallTime(number(watermark).ok_or_else(bad)?),
    })
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
}
