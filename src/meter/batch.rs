//! How the lines of an hour travel: in batches, the last of which may close the hour.

use super::record::{Closing, Counters, Flush, LineKey};
use crate::principal::Incarnation;
use crate::time::{Hour, WallTime};

/// Lines in one batch at most.
pub const BATCH: usize = 500;

/// Whose hour it is, and the number of the last batch of it so far.
#[derive(Clone, Copy)]
pub struct Series {
    pub incarnation: Incarnation,
    pub hour: Hour,
    pub sequence: u64,
}

/// What the last batch says.
#[derive(Clone, Copy, Default)]
pub struct Last {
    pub watermark: WallTime,
    pub closing: Option<Closing>,
}

/// The control total of an hour with these lines, all of which the ledger gets.
pub fn closing_of(lines: &[(LineKey, Counters)], leaves: bool) -> Closing {
    let totals = lines.iter().fold(Counters::default(), |sum, (_, counters)| sum.plus(counters));
    Closing { lines: lines.len() as u64, totals, leaves }
}

/// The lines in batches, numbered from the one after `series`; none where there is nothing to say.
pub fn batches(series: Series, lines: &[(LineKey, Counters)], last: Last) -> Vec<Flush> {
    let Series { incarnation, hour, sequence } = series;
    let mut chunks: Vec<&[(LineKey, Counters)]> = lines.chunks(BATCH).collect();
    if chunks.is_empty() && last.closing.is_some() {
        chunks.push(&[]);
    }
    let count = chunks.len();
    let batch = |(index, lines): (usize, &[(LineKey, Counters)])| {
        let Last { watermark, closing } = if index + 1 == count { last } else { Last::default() };
        let sequence = sequence.saturating_add(index as u64 + 1);
        Flush { incarnation, hour, sequence, lines: lines.to_vec(), watermark, closing }
    };
    chunks.into_iter().enumerate().map(batch).collect()
}
