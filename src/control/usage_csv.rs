//! Usage records as CSV (RFC 4180): one line per record, the same fields in a fixed order. Pure.

use std::fmt::Write;

use super::usage_record::{Dimensions, UsageRecord};
use crate::meter::record::Outcome;

/// The names of the fields, as the first line of the first page.
pub fn head() -> String {
    let mut text = String::from("window_start,window_end,final,account_id,cluster_id,operation,key_id");
    for outcome in Outcome::ALL {
        let _infallible = write!(text, ",calls_{}", outcome.name());
    }
    text.push_str(",request_bytes,response_bytes,read_units,write_units,units_missing,interrupted\r\n");
    text
}

/// A line for each record. Nothing in them needs quotes: ids, names of ours, times and numbers.
pub fn lines(records: &[(Dimensions, UsageRecord)]) -> String {
    let mut text = String::with_capacity(records.len() * 256);
    for (dimensions, record) in records {
        write_record(&mut text, dimensions, record);
    }
    text
}

/// Writing to a String cannot fail.
fn write_record(to: &mut String, dimensions: &Dimensions, record: &UsageRecord) {
    let Dimensions { hour, account_id, cluster_id, operation, key_id } = dimensions;
    let key = key_id.map(|id| id.to_string()).unwrap_or_default();
    let (start, end, operation) = (hour.start(), hour.end(), operation.name());
    let _infallible = write!(to, "{start},{end},{},{account_id},{cluster_id},{operation},{key}", record.r#final);
    let UsageRecord { request_bytes, response_bytes, read_units, write_units, units_missing, interrupted, .. } = record;
    let rest = [request_bytes, response_bytes, read_units, write_units, units_missing, interrupted];
    for count in record.calls.0.iter().chain(rest) {
        let _infallible = write!(to, ",{count}");
    }
    to.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::record::{Counters, Operation};
    use crate::principal::{AccountId, ClusterId, ID_BYTES, KeyId};
    use crate::time::Hour;

    #[test]
    fn every_line_has_as_many_fields_as_the_head_and_absent_ones_are_empty() {
        let (account_id, cluster_id) = (AccountId([1; ID_BYTES]), ClusterId([2; ID_BYTES]));
        let of =
            |key_id| Dimensions { hour: Hour(492_777), account_id, cluster_id, operation: Operation::Query, key_id };
        let counters = Counters { outcomes: [3, 1, 0, 0, 0, 0], read_units: u64::MAX, ..Counters::default() };
        let text = head()
            + &lines(
                &[of(None), of(Some(KeyId([3; ID_BYTES])))].map(|of| (of, UsageRecord::new(of, &counters, true, &[]))),
            );
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert!(lines.iter().all(|line| line.len() == 19), "{text}");
        let column = |name| lines[0].iter().position(|head| *head == name).unwrap();
        assert_eq!(lines[1][column("window_start")], "2026-03-20T09:00:00Z");
        assert_eq!((lines[1][column("calls_ok")], lines[1][column("calls_refused")]), ("3", "1"));
        assert_eq!(lines[1][column("read_units")], u64::MAX.to_string());
        assert_eq!((lines[1][column("key_id")], lines[2][column("key_id")].len()), ("", 20));
    }
}
