//! Usage records as CSV (RFC 4180) under the column names of FOCUS, the FinOps Open Cost and Usage Specification. Pure.
//!
//! FOCUS knows one quantity of one SKU per row, so a record is as many rows as it has quantities above zero: a tool that sums
//! `ConsumedQuantity` by `SkuId` gets what is billed, and never adds bytes to calls. Rows of one record share `x_RecordId` and
//! `x_Revision`; whoever loads a later revision replaces all rows of the earlier ones. Prices are not known here: there is no column
//! of costs, rather than one full of zeros.

use std::fmt::Write;

use super::usage_record::{Dimensions, UsageRecord};
use crate::meter::record::Outcome;

/// What is metered, in the words of FOCUS.
struct Sku {
    id: &'static str,
    meter: &'static str,
    /// Each kind of quantity has its own, but for the two directions of bytes.
    unit: &'static str,
}

const CALLS: Sku = Sku { id: "calls", meter: "Calls", unit: "Requests" };

/// The names of the columns, as the first line of the first page. Own ones begin with `x_`.
pub const HEAD: &str = "BillingAccountId,ChargeCategory,ChargeFrequency,ChargePeriodStart,ChargePeriodEnd,\
    ServiceCategory,ServiceName,ResourceId,ResourceType,SkuId,SkuMeter,ConsumedQuantity,ConsumedUnit,\
    x_Operation,x_Outcome,x_KeyId,x_RecordId,x_Revision,x_Final\r\n";

/// The rows of each record.
pub fn lines(records: &[(Dimensions, UsageRecord)]) -> String {
    let mut text = String::with_capacity(records.len() * 1024);
    for (dimensions, record) in records {
        write_record(&mut text, dimensions, record);
    }
    text
}

/// Nothing in a row needs quotes, and no spreadsheet takes any of it for a formula: ids, names of ours, times and numbers.
fn write_record(to: &mut String, dimensions: &Dimensions, record: &UsageRecord) {
    let Dimensions { hour, account_id, cluster_id, operation, key_id } = dimensions;
    let key = key_id.map(|id| id.to_string()).unwrap_or_default();
    let (start, end, operation) = (hour.start(), hour.end(), operation.name());
    let shared = format!("{account_id},Usage,Usage-Based,{start},{end},Databases,Vector Service,{cluster_id},Cluster,");
    let own = format!("{key},{},{},{}\r\n", record.record_id, record.revision, record.r#final);
    each_quantity(record, |Sku { id, meter, unit }, outcome, quantity| {
        let outcome = outcome.map_or("", Outcome::name);
        // Writing to a String cannot fail.
        let _infallible = write!(to, "{shared}{id},{meter},{quantity},{unit},{operation},{outcome},{own}");
    });
}

/// Hands over each quantity above zero; calls by their outcome, which is what decides over their price. Those that ended ok also
/// where there are none: every record has a row, so that no revision of it goes unseen.
fn each_quantity(record: &UsageRecord, mut take: impl FnMut(&Sku, Option<Outcome>, u64)) {
    for (outcome, count) in Outcome::ALL.iter().zip(record.calls.0) {
        if count > 0 || *outcome == Outcome::Ok {
            take(&CALLS, Some(*outcome), count);
        }
    }
    let sku = |id, meter, unit| Sku { id, meter, unit };
    let others = [
        (sku("read_units", "Read Units", "Read Units"), record.read_units),
        (sku("write_units", "Write Units", "Write Units"), record.write_units),
        (sku("request_bytes", "Bytes In", "B"), record.request_bytes),
        (sku("response_bytes", "Bytes Out", "B"), record.response_bytes),
        // No consumption of their own, so in units that nobody adds to requests.
        (sku("units_missing", "Calls Without Units", "Requests Without Units"), record.units_missing),
        (sku("interrupted", "Interrupted Calls", "Interrupted Requests"), record.interrupted),
    ];
    others.iter().filter(|(_, count)| *count > 0).for_each(|(sku, count)| take(sku, None, *count));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meter::record::{Counters, Operation};
    use crate::principal::{AccountId, ClusterId, ID_BYTES, KeyId};
    use crate::time::Hour;

    fn of(key_id: Option<KeyId>) -> Dimensions {
        let (account_id, cluster_id) = (AccountId([1; ID_BYTES]), ClusterId([2; ID_BYTES]));
        Dimensions { hour: Hour(492_777), account_id, cluster_id, operation: Operation::Query, key_id }
    }

    fn record(about: Dimensions, counters: &Counters) -> (Dimensions, UsageRecord) {
        (about, UsageRecord::new(about, counters, false, &[]))
    }

    fn rows(text: &str) -> Vec<Vec<&str>> {
        text.split_terminator("\r\n").map(|line| line.split(',').collect()).collect()
    }

    fn at(column: &str) -> usize {
        rows(HEAD)[0].iter().position(|head| *head == column).unwrap()
    }

    #[test]
    fn a_record_is_a_row_for_each_quantity_that_there_is() {
        let outcomes = [3, 1, 0, 0, 0, 0];
        let counters = Counters {
            opened: 5,
            outcomes,
            read_units: u64::MAX,
            units_missing: 2,
            interrupted: 1,
            ..Counters::default()
        };
        let text = lines(&[record(of(None), &counters), record(of(Some(KeyId([3; ID_BYTES]))), &counters)]);
        let rows = rows(&text);
        let picked = |row: &Vec<&str>| {
            ["SkuId", "x_Outcome", "ConsumedQuantity", "ConsumedUnit"].map(|name| row[at(name)].to_owned()).join(" ")
        };
        let most = format!("read_units  {} Read Units", u64::MAX);
        let expected = [
            "calls ok 3 Requests",
            "calls refused 1 Requests",
            &most,
            "units_missing  2 Requests Without Units",
            "interrupted  1 Interrupted Requests",
        ];
        assert_eq!(rows[..5].iter().map(picked).collect::<Vec<_>>(), expected);
        assert_eq!(rows.len(), 10);
        assert_eq!(rows[0][at("ChargePeriodStart")], "2026-03-20T09:00:00Z");
        assert_eq!(rows[0][at("ChargePeriodEnd")], "2026-03-20T10:00:00Z");
        assert_eq!((rows[0][at("x_KeyId")], rows[5][at("x_KeyId")].len()), ("", 20));
        assert!(rows[..5].iter().all(|row| row[at("x_RecordId")] == rows[0][at("x_RecordId")]));
        assert_ne!(rows[0][at("x_RecordId")], rows[5][at("x_RecordId")]);
        assert_eq!((rows[0][at("x_Revision")], rows[0][at("x_Final")]), ("10", "false"));
    }

    #[test]
    fn a_record_without_an_ended_call_is_still_seen() {
        let text = lines(&[record(of(None), &Counters { opened: 1, ..Counters::default() })]);
        let rows = rows(&text);
        assert_eq!((rows.len(), rows[0][at("SkuId")], rows[0][at("ConsumedQuantity")]), (1, "calls", "0"));
        assert_eq!(rows[0][at("x_Revision")], "1");
    }

    proptest! {
        /// Neither quotes nor a formula: `=`, `+`, `-`, `@` and control characters are what spreadsheets act on.
        #[test]
        fn no_field_needs_quotes_or_begins_a_formula(
            ids: [[u8; ID_BYTES]; 3],
            operation in 0..Operation::ALL.len(),
            outcomes: [u64; 6],
            rest: [u64; 6],
            hour in 0..4_000_000_u32,
        ) {
            let [request_bytes, response_bytes, read_units, write_units, units_missing, interrupted] = rest;
            let dimensions = Dimensions {
                hour: Hour(hour),
                account_id: AccountId(ids[0]),
                cluster_id: ClusterId(ids[1]),
                operation: Operation::ALL[operation],
                key_id: Some(KeyId(ids[2])),
            };
            let counters = Counters {
                outcomes, request_bytes, response_bytes, read_units, write_units, units_missing, interrupted,
                ..Counters::default()
            };
            let text = HEAD.to_owned() + &lines(&[record(dimensions, &counters)]);
            prop_assert!(text.ends_with("\r\n"));
            for row in rows(&text) {
                prop_assert_eq!(row.len(), 19);
                for field in row {
                    let plain = |c: char| c.is_ascii_alphanumeric() || " :_-".contains(c);
                    prop_assert!(field.chars().all(plain) && !field.starts_with(['-', ' ']), "{}", field);
                }
            }
        }
    }
}
