//! The export as protobuf: delimited `io.prometheus.client.MetricFamily` messages. Pure.
//!
//! Written by hand: a message is preceded by its length, and an encoder of whole messages would need a family of millions of series
//! in memory to know it. Here the length of a sample follows from its names alone, so a family is measured first and then
//! streamed. Field numbers are those of `metrics.proto` of prometheus/client_model.

use std::fmt::Display;
use std::io::Write;

use super::family::Family;
use crate::meter::record::{Counters, Outcome};
use crate::principal::AccountId;
use crate::store::UsageTotal;

/// Tags: the number of the field, shifted by three, and how its value is written (0 varint, 1 eight bytes, 2 with its length).
mod tag {
    pub const FAMILY_NAME: u8 = 1 << 3 | 2;
    pub const FAMILY_HELP: u8 = 2 << 3 | 2;
    pub const FAMILY_TYPE: u8 = 3 << 3;
    pub const FAMILY_METRIC: u8 = 4 << 3 | 2;
    pub const METRIC_LABEL: u8 = 1 << 3 | 2;
    pub const METRIC_COUNTER: u8 = 3 << 3 | 2;
    pub const LABEL_NAME: u8 = 1 << 3 | 2;
    pub const LABEL_VALUE: u8 = 2 << 3 | 2;
    pub const COUNTER_VALUE: u8 = 1 << 3 | 1;
}

const COUNTER: u8 = 0;
/// The counter in a metric: its tag and length, and in it a tag and a double.
const COUNTER_BYTES: usize = 2 + 1 + 8;
/// An id as text: its prefix and 16 characters.
const ID_TEXT: usize = AccountId::PREFIX.len() + 16;

/// Begins the message of a family whose samples are those of `totals`. Nothing where there are none: readers take a family without
/// metrics for a mistake.
pub fn head(to: &mut Vec<u8>, family: &Family, totals: &[UsageTotal]) {
    if totals.is_empty() {
        return;
    }
    let mut facts = Vec::with_capacity(128);
    write_text(&mut facts, tag::FAMILY_NAME, &[family.name, "_total"].concat());
    write_text(&mut facts, tag::FAMILY_HELP, family.help);
    facts.extend([tag::FAMILY_TYPE, COUNTER]);
    let samples: usize = totals.iter().map(|total| samples_bytes(family, total)).sum();
    write_varint(to, facts.len() + samples);
    to.extend_from_slice(&facts);
}

/// The labels that all samples of a total have.
pub fn labels(to: &mut Vec<u8>, total: &UsageTotal) {
    write_id(to, "account_id", total.account_id);
    write_id(to, "cluster_id", total.cluster_id);
    write_label(to, "operation", total.operation.name());
}

/// Values are doubles, as they are in Prometheus: exact up to 2⁵³.
pub fn sample(to: &mut Vec<u8>, labels: &[u8], outcome: Option<Outcome>, value: u64) {
    to.push(tag::FAMILY_METRIC);
    write_varint(to, metric_bytes(labels.len(), outcome));
    to.extend_from_slice(labels);
    if let Some(outcome) = outcome {
        write_label(to, "outcome", outcome.name());
    }
    to.extend([tag::METRIC_COUNTER, 1 + 8, tag::COUNTER_VALUE]);
    to.extend_from_slice(&(value as f64).to_le_bytes());
}

/// All samples of a total, each with its tag and length.
fn samples_bytes(family: &Family, total: &UsageTotal) -> usize {
    let labels = label_bytes("account_id", ID_TEXT)
        + label_bytes("cluster_id", ID_TEXT)
        + label_bytes("operation", total.operation.name().len());
    let mut bytes = 0;
    family.samples(&Counters::default(), |outcome, _| {
        let metric = metric_bytes(labels, outcome);
        bytes += 1 + varint_bytes(metric) + metric;
    });
    bytes
}

fn metric_bytes(labels: usize, outcome: Option<Outcome>) -> usize {
    labels + outcome.map_or(0, |outcome| label_bytes("outcome", outcome.name().len())) + COUNTER_BYTES
}

/// A label with its tag and length.
fn label_bytes(name: &str, value: usize) -> usize {
    let pair = pair_bytes(name, value);
    1 + varint_bytes(pair) + pair
}

fn pair_bytes(name: &str, value: usize) -> usize {
    1 + varint_bytes(name.len()) + name.len() + 1 + varint_bytes(value) + value
}

fn write_label(to: &mut Vec<u8>, name: &str, value: &str) {
    to.push(tag::METRIC_LABEL);
    write_varint(to, pair_bytes(name, value.len()));
    write_text(to, tag::LABEL_NAME, name);
    write_text(to, tag::LABEL_VALUE, value);
}

/// As a label, without a String in between.
fn write_id(to: &mut Vec<u8>, name: &str, id: impl Display) {
    to.push(tag::METRIC_LABEL);
    write_varint(to, pair_bytes(name, ID_TEXT));
    write_text(to, tag::LABEL_NAME, name);
    to.push(tag::LABEL_VALUE);
    write_varint(to, ID_TEXT);
    // Writing to memory cannot fail.
    let _infallible = write!(to, "{id}");
}

fn write_text(to: &mut Vec<u8>, tag: u8, text: &str) {
    to.push(tag);
    write_varint(to, text.len());
    to.extend_from_slice(text.as_bytes());
}

/// Seven bits a byte, the lowest first; all bytes but the last have the eighth bit.
fn write_varint(to: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        to.push(number as u8 & 0x7f | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

const fn varint_bytes(number: usize) -> usize {
    let bits = (usize::BITS - number.leading_zeros()) as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_varint_is_known_before_it_is_written() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u32::MAX as usize, usize::MAX] {
            let mut written = Vec::new();
            write_varint(&mut written, number);
            assert_eq!(written.len(), varint_bytes(number), "{number}");
            assert_eq!(prost::decode_length_delimiter(&written[..]).unwrap(), number);
        }
    }
}
