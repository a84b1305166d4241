//! Usage records as a batch of CloudEvents 1.0 in JSON. Pure.

use serde::Serialize;

use super::usage_record::{Dimensions, UsageRecord};
use crate::principal::{AccountId, StoreId};

/// One event: that a record has this revision. The attributes are those of the specification, in its order.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    /// The same for the same revision of the same record, however often it is read, so that a receiver takes it once.
    id: String,
    /// The ledger: ids are unique within it.
    source: &'a str,
    r#type: &'static str,
    subject: AccountId,
    /// When the window ends; in an open window that is yet to come.
    time: &'a str,
    datacontenttype: &'static str,
    data: &'a UsageRecord,
}

/// The records as one JSON array.
pub fn batch(records: &[(Dimensions, UsageRecord)], ledger: StoreId) -> Vec<u8> {
    let source = format!("urn:tollgate:store:{ledger}");
    let mut body = Vec::with_capacity(records.len() * 768 + 2);
    body.push(b'[');
    for (at, (_, record)) in records.iter().enumerate() {
        body.extend_from_slice(if at == 0 { b"" } else { b",\n" });
        // Nothing in an event can fail to be written as JSON.
        let _always_written = serde_json::to_writer(&mut body, &Event::of(record, &source));
    }
    body.push(b']');
    body
}

impl<'a> Event<'a> {
    fn of(record: &'a UsageRecord, source: &'a str) -> Self {
        Self {
            specversion: "1.0",
            id: format!("{}:{}", record.record_id, record.revision),
            source,
            r#type: "tollgate.usage.record.v1",
            subject: record.account_id,
            time: &record.window_end,
            datacontenttype: "application/json",
            data: record,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::meter::record::{Counters, Operation};
    use crate::principal::{ClusterId, ID_BYTES, KeyId};
    use crate::time::Hour;

    fn record(key: u8, ok: u64) -> (Dimensions, UsageRecord) {
        let dimensions = Dimensions {
            hour: Hour(492_777),
            account_id: AccountId([1; ID_BYTES]),
            cluster_id: ClusterId([2; ID_BYTES]),
            operation: Operation::Query,
            key_id: Some(KeyId([key; ID_BYTES])),
        };
        let counters = Counters { opened: ok, outcomes: [ok, 0, 0, 0, 0, 0], ..Counters::default() };
        (dimensions, UsageRecord::new(dimensions, &counters, false, &[]))
    }

    fn events(records: &[(Dimensions, UsageRecord)]) -> Vec<Value> {
        serde_json::from_slice(&batch(records, StoreId([5; ID_BYTES]))).unwrap()
    }

    #[test]
    fn an_event_carries_the_record_and_says_whose_it_is() {
        let record = record(1, 3);
        let data = json!(record.1);
        let events = events(&[record]);
        let expected = json!({
            "specversion": "1.0",
            "id": format!("{}:6", data["record_id"].as_str().unwrap()),
            "source": format!("urn:tollgate:store:{}", StoreId([5; ID_BYTES])),
            "type": "tollgate.usage.record.v1",
            "subject": AccountId([1; ID_BYTES]).to_string(),
            "time": "2026-03-20T10:00:00Z",
            "datacontenttype": "application/json",
            "data": data,
        });
        assert_eq!(events, [expected]);
    }

    #[test]
    fn an_id_names_one_revision_of_one_record() {
        let id = |record| events(&[record])[0]["id"].clone();
        assert_eq!(id(record(1, 3)), id(record(1, 3)));
        assert_ne!(id(record(1, 3)), id(record(1, 4)), "another revision");
        assert_ne!(id(record(1, 3)), id(record(2, 3)), "another record");
    }

    #[test]
    fn a_batch_of_nothing_is_an_empty_list() {
        assert!(events(&[]).is_empty());
        assert_eq!(events(&[record(1, 1), record(2, 1)]).len(), 2);
    }
}
