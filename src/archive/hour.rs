//! The file of an hour: NDJSON, a line of the ledger, a closing or an adjustment on each line. Pure.
//!
//! The same usage always makes the same bytes, so whether an hour has changed is a question of their hash.

use data_encoding::HEXLOWER;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::meter::record::{Counters, LedgerLine, LineKey};
use crate::principal::Incarnation;
use crate::store::usage::{Adjustment, HourMark};

/// The bytes of a file and what the manifest says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub sha256: String,
    pub sums: Sums,
}

/// What the lines of a file come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Lines of the file, of every kind.
    pub rows: u64,
    /// The sum over all lines of the ledger.
    pub totals: Numbers,
}

/// One line of a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Row {
    /// What one incarnation counted.
    Line {
        incarnation: Incarnation,
        #[serde(flatten)]
        key: LineKey,
        #[serde(flatten)]
        counted: Numbers,
    },
    /// What an incarnation says that all its lines come to.
    Closing { incarnation: Incarnation, lines: u64, totals: Numbers },
    /// A correction, which is in none of the sums.
    Adjustment(Box<Adjustment>),
}

/// Every number of a line. In JSON they are decimal strings, since many readers of JSON lose digits above 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers(pub Counters);

impl Content {
    /// Of one hour, each list in the order of the store.
    pub fn of(lines: &[LedgerLine], marks: &[HourMark], adjustments: &[Adjustment]) -> Self {
        let counted = lines.iter().map(|line| Row::Line {
            incarnation: line.incarnation,
            key: line.key,
            counted: Numbers(line.counters),
        });
        let closings = marks.iter().filter_map(|mark| {
            let closing = mark.mark.closing?;
            let totals = Numbers(closing.totals);
            Some(Row::Closing { incarnation: mark.incarnation, lines: closing.lines, totals })
        });
        let adjustments = adjustments.iter().map(|one| Row::Adjustment(Box::new(one.clone())));
        let (mut bytes, mut sums) = (Vec::new(), Sums::default());
        for row in counted.chain(closings).chain(adjustments) {
            sums.add(&row);
            // Nothing in a row can fail to be written as JSON.
            let _always_written = serde_json::to_writer(&mut bytes, &row);
            bytes.push(b'\n');
        }
        Self { sha256: hash(&bytes), bytes, sums }
    }

    /// Reads a file; the number of the first line that cannot be read, from 1, where there is one.
    pub fn read(bytes: Vec<u8>) -> Result<Self, usize> {
        let mut sums = Sums::default();
        for (number, line) in (1_usize..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
            let row = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok()).ok_or(number)?;
            sums.add(&row);
        }
        Ok(Self { sha256: hash(&bytes), bytes, sums })
    }
}

/// Every line of a file; the number of the first that cannot be read, from 1, where there is one.
pub fn rows(bytes: &[u8]) -> Result<Vec<Row>, usize> {
    let lines = (1_usize..).zip(bytes.split_inclusive(|byte| *byte == b'\n'));
    let row = |line: &[u8]| serde_json::from_slice(line.strip_suffix(b"\n")?).ok();
    lines.map(|(number, line)| row(line).ok_or(number)).collect()
}

impl Sums {
    fn add(&mut self, row: &Row) {
        self.rows += 1;
        if let Row::Line { counted, .. } = row {
            self.totals.0 = self.totals.0.plus(&counted.0);
        }
    }
}

pub fn hash(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The names of the numbers in their order, and the numbers.
fn named(counters: &mut Counters) -> [(&'static str, &mut u64); 15] {
    let Counters {
        opened,
        outcomes: [ok, refused, upstream_error, timeout, client_abort, aborted],
        units_missing,
        request_bytes,
        response_bytes,
        read_units,
        write_units,
        last_used,
        flags,
        interrupted,
    } = counters;
    [
        ("opened", opened),
        ("ok", ok),
        ("refused", refused),
        ("upstream_error", upstream_error),
        ("timeout", timeout),
        ("client_abort", client_abort),
        ("aborted", aborted),
        ("interrupted", interrupted),
        ("units_missing", units_missing),
        ("request_bytes", request_bytes),
        ("response_bytes", response_bytes),
        ("read_units", read_units),
        ("write_units", write_units),
        ("last_used", last_used),
        ("flags", flags),
    ]
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut counters = self.0;
        to.collect_map(named(&mut counters).map(|(name, number)| (name, number.to_string())))
    }
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = serde_json::Map::deserialize(from)?;
        let mut counters = Counters::default();
        for (name, number) in named(&mut counters) {
            let text = fields.get(name).and_then(serde_json::Value::as_str);
            *number = text.and_then(|text| text.parse().ok()).ok_or_else(|| D::Error::missing_field(name))?;
        }
        Ok(Self(counters))
    }
}
