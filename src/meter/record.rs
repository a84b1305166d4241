//! The vocabulary of metering: operations, outcomes, counters, usage records. Values only.

use serde::{Deserialize, Serialize};

use crate::principal::{AccountId, ClusterId, Incarnation, KeyId};
use crate::time::{Hour, WallTime};

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum $name { $($(#[$note])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }

            pub fn from_index(index: u8) -> Option<Self> {
                Self::ALL.get(usize::from(index)).copied()
            }
        }
    };
}

names! {
    /// What a call asks the vector service to do (interfaces, section 5).
    Operation {
        GetVersion => "get_version",
        CreateCollection => "create_collection",
        DeleteCollection => "delete_collection",
        DescribeCollection => "describe_collection",
        ListCollections => "list_collections",
        StatsCollection => "stats_collection",
        CreatePartition => "create_partition",
        DeletePartition => "delete_partition",
        DescribePartition => "describe_partition",
        ListPartitions => "list_partitions",
        StatsPartition => "stats_partition",
        Insert => "insert",
        Update => "update",
        Upsert => "upsert",
        Delete => "delete",
        Query => "query",
        QueryGroupBy => "query_group_by",
        Fetch => "fetch",
        Other => "other",
    }
}

impl Operation {
    /// Document operations are the ones whose answers carry units.
    pub const fn has_units(self) -> bool {
        matches!(
            self,
            Self::Insert | Self::Update | Self::Upsert | Self::Delete | Self::Query | Self::QueryGroupBy | Self::Fetch
        )
    }

    /// Sending a write twice could change the answer, so it is never sent twice.
    pub const fn is_read(self) -> bool {
        matches!(
            self,
            Self::GetVersion
                | Self::DescribeCollection
                | Self::ListCollections
                | Self::StatsCollection
                | Self::DescribePartition
                | Self::ListPartitions
                | Self::StatsPartition
                | Self::Query
                | Self::QueryGroupBy
                | Self::Fetch
        )
    }
}

names! {
    /// How a metered call ended (interfaces, section 5). Each call has exactly one.
    Outcome {
        Ok => "ok",
        /// The service answered with a code or status that is not success.
        Refused => "refused",
        UpstreamError => "upstream_error",
        Timeout => "timeout",
        ClientAbort => "client_abort",
        /// The gateway itself gave up: a panic, or a drain that ran out of time.
        Aborted => "aborted",
    }
}

/// Units as the service reported them. A `Some(0)` was reported, a `None` was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    pub read: Option<u64>,
    pub write: Option<u64>,
}

impl Units {
    pub const fn is_reported(self) -> bool {
        self.read.is_some() || self.write.is_some()
    }
}

/// What is counted apart: one line of the slab and of the ledger, within one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LineKey {
    pub account_id: AccountId,
    pub key_id: KeyId,
    pub cluster_id: ClusterId,
    pub operation: Operation,
}

/// The counters of a line: absolute values since its incarnation began the hour, never differences.
/// Merging two observations takes the greater of each field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Calls admitted, stored before the first upstream byte.
    pub opened: u64,
    /// Calls ended, by [`Outcome`].
    pub outcomes: [u64; 6],
    /// Ok document operations whose answer reported no units.
    pub units_missing: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub read_units: u64,
    pub write_units: u64,
    /// Wall clock of the last admission, in ms since 1970.
    pub last_used: u64,
    /// Bit 0: the key was seen in a browser call.
    pub flags: u64,
    /// Calls of a dead incarnation that opened and never ended. Set by recovery alone.
    pub interrupted: u64,
}

impl Counters {
    pub const SEEN_IN_BROWSER: u64 = 1;

    pub fn committed(&self) -> u64 {
        self.outcomes.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Merges two observations of the same line of the same incarnation.
    #[must_use]
    pub fn max(mut self, other: &Self) -> Self {
        self.combine(other, u64::max);
        self.flags |= other.flags;
        self
    }

    /// Adds up lines of different incarnations or of different keys.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        let (last_used, flags) = (self.last_used.max(other.last_used), self.flags | other.flags);
        self.combine(other, u64::saturating_add);
        (self.last_used, self.flags) = (last_used, flags);
        self
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        let outcomes = self.outcomes.iter_mut().zip(other.outcomes);
        let fields = [
            (&mut self.opened, other.opened),
            (&mut self.units_missing, other.units_missing),
            (&mut self.request_bytes, other.request_bytes),
            (&mut self.response_bytes, other.response_bytes),
            (&mut self.read_units, other.read_units),
            (&mut self.write_units, other.write_units),
            (&mut self.last_used, other.last_used),
            (&mut self.interrupted, other.interrupted),
        ];
        for (mine, theirs) in fields.into_iter().chain(outcomes) {
            *mine = with(*mine, theirs);
        }
    }
}

/// One batch on its way to the ledger. Merging it twice, late or out of order changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flush {
    pub incarnation: Incarnation,
    pub hour: Hour,
    /// Counts the flushes of this incarnation and hour, from 1.
    pub sequence: u64,
    pub lines: Vec<(LineKey, Counters)>,
    /// When the batch was taken: nothing that ended before it in this hour is missing from this and earlier batches.
    pub watermark: WallTime,
    /// With the last batch of an hour in which nothing can change any more.
    pub closing: Option<Closing>,
}

/// What an incarnation counted in an hour that is over and in which every call has ended: the control total of the hour.
/// An hour is final once every incarnation that may have counted in it has closed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    pub lines: u64,
    /// The sum of all lines; `last_used` and `flags` are the greatest and all of them.
    pub totals: Counters,
    /// The incarnation counts nothing in any later hour: it has stopped, or is dead and recovered.
    pub leaves: bool,
}

impl Closing {
    /// Merges two closings of the same hour and incarnation.
    #[must_use]
    pub fn max(self, other: &Self) -> Self {
        Self {
            lines: self.lines.max(other.lines),
            totals: self.totals.max(&other.totals),
            leaves: self.leaves || other.leaves,
        }
    }
}

/// One line of the ledger, as it was last merged: a usage line of one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    pub hour: Hour,
    pub incarnation: Incarnation,
    pub key: LineKey,
    pub counters: Counters,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counters() -> impl Strategy<Value = Counters> {
        proptest::array::uniform15(0_u64..1 << 40).prop_map(|v| Counters {
            opened: v[0],
            outcomes: [v[1], v[2], v[3], v[4], v[5], v[6]],
            units_missing: v[7],
            request_bytes: v[8],
            response_bytes: v[9],
            read_units: v[10],
            write_units: v[11],
            last_used: v[12],
            flags: v[13] & 1,
            interrupted: v[14],
        })
    }

    proptest! {
        #[test]
        fn merging_is_idempotent_commutative_and_associative(a in counters(), b in counters(), c in counters()) {
            prop_assert_eq!(a.max(&a), a);
            prop_assert_eq!(a.max(&b), b.max(&a));
            prop_assert_eq!(a.max(&b).max(&c), a.max(&b.max(&c)));
            prop_assert_eq!(a.plus(&b), b.plus(&a));
            prop_assert_eq!(a.plus(&b).plus(&c), a.plus(&b.plus(&c)));
        }
    }

    #[test]
    fn names_and_indexes_survive_a_round_trip() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.name()), Some(*operation));
            assert_eq!(Operation::from_index(*operation as u8), Some(*operation));
        }
        assert_eq!(Operation::ALL.len(), 19);
        assert_eq!(Outcome::ALL.len(), 6);
    }
}
