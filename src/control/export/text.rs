//! The export as text: Prometheus 0.0.4, and OpenMetrics 1.0.0. Pure.

use std::io::Write;

use super::family::Family;
use crate::meter::record::Outcome;
use crate::store::UsageTotal;

// Writing to memory cannot fail.

/// `name` is that of the family: OpenMetrics has it without the suffix of its samples.
pub fn head(to: &mut Vec<u8>, name: &str, help: &str) {
    let _infallible = write!(to, "# HELP {name} {help}\n# TYPE {name} counter\n");
}

/// The labels that all samples of a total have, without the closing brace. None of the values can hold a character that would
/// have to be escaped.
pub fn labels(to: &mut Vec<u8>, total: &UsageTotal) {
    let UsageTotal { account_id, cluster_id, operation, .. } = total;
    let operation = operation.name();
    let _infallible = write!(to, "{{account_id=\"{account_id}\",cluster_id=\"{cluster_id}\",operation=\"{operation}\"");
}

pub fn sample(to: &mut Vec<u8>, family: &Family, labels: &[u8], outcome: Option<Outcome>, value: u64) {
    to.extend_from_slice(family.name.as_bytes());
    to.extend_from_slice(b"_total");
    to.extend_from_slice(labels);
    if let Some(outcome) = outcome {
        let _infallible = write!(to, ",outcome=\"{}\"", outcome.name());
    }
    let _infallible = writeln!(to, "}} {value}");
}

pub const OPENMETRICS_END: &[u8] = b"# EOF\n";
