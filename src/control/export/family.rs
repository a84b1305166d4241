//! The families of counters of the usage export: what they are called, and how they are read from a total.

use crate::meter::record::{Counters, Outcome};

/// A family of counters.
pub struct Family {
    /// Without `_total`.
    pub name: &'static str,
    pub help: &'static str,
    values: Values,
}

enum Values {
    ByOutcome,
    One(fn(&Counters) -> u64),
}

pub const FAMILIES: [Family; 7] = [
    Family { name: "tollgate_usage_calls", help: "Calls ended, by outcome.", values: Values::ByOutcome },
    one("tollgate_usage_request_bytes", "Bytes of request bodies.", |c| c.request_bytes),
    one("tollgate_usage_response_bytes", "Bytes of response bodies.", |c| c.response_bytes),
    one("tollgate_usage_read_units", "Read units that the service reported.", |c| c.read_units),
    one("tollgate_usage_write_units", "Write units that the service reported.", |c| c.write_units),
    one("tollgate_usage_units_missing", "Ok document operations without reported units.", |c| c.units_missing),
    one("tollgate_usage_interrupted", "Calls of a killed gateway that never ended.", |c| c.interrupted),
];

const fn one(name: &'static str, help: &'static str, read: fn(&Counters) -> u64) -> Family {
    Family { name, help, values: Values::One(read) }
}

impl Family {
    /// Hands over each sample of a total. Of calls every outcome from the start, also those that never happened: a series that
    /// begins above zero hides its first ones.
    pub fn samples(&self, counters: &Counters, mut take: impl FnMut(Option<Outcome>, u64)) {
        match self.values {
            Values::ByOutcome => {
                for (outcome, count) in Outcome::ALL.iter().zip(counters.outcomes) {
                    take(Some(*outcome), count);
                }
            }
            Values::One(read) => take(None, read(counters)),
        }
    }
}
