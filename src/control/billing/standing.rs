//! What a record is beside what was counted: whether its hour is final, and its adjustments.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::Control;
use crate::control::usage_record::{Dimensions, Selection, UsageRecord};
use crate::meter::record::Counters;
use crate::store::StoreError;
use crate::store::usage::{Adjustment, Field};
use crate::time::Hour;

/// The final hours and the adjustments of a span of hours.
#[derive(Default)]
pub struct Standing {
    finals: BTreeSet<Hour>,
    adjustments: Vec<Adjustment>,
}

impl Control {
    /// Of the hours `from..=to`.
    pub(in crate::control) async fn standing(&self, from: Hour, to: Hour) -> Result<Standing, StoreError> {
        let finals = self.store.final_windows(from, to).await?;
        let adjustments = self.store.adjustments(from, to).await?;
        Ok(Standing { finals: finals.into_iter().map(|one| one.hour).collect(), adjustments })
    }
}

impl Standing {
    pub fn is_final(&self, hour: Hour) -> bool {
        self.finals.contains(&hour)
    }

    /// Records of what was counted, corrected where they are not split by key: a correction is of a record as it is billed.
    pub fn records(
        &self,
        mut sums: BTreeMap<Dimensions, Counters>,
        selection: &Selection,
    ) -> Vec<(Dimensions, UsageRecord)> {
        let corrections = if selection.by_key { BTreeMap::new() } else { self.corrections(selection) };
        // Some are of a record of which nothing was counted.
        for about in corrections.keys() {
            sums.entry(*about).or_default();
        }
        let record = |(about, counted): (Dimensions, Counters)| {
            let corrections = corrections.get(&about).map(Vec::as_slice).unwrap_or_default();
            (about, UsageRecord::new(about, &counted, self.is_final(about.hour), corrections))
        };
        sums.into_iter().map(record).collect()
    }

    fn corrections(&self, selection: &Selection) -> BTreeMap<Dimensions, Vec<(Field, i64)>> {
        let mut corrections: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Adjustment { new, .. } in &self.adjustments {
            let about = Dimensions::of(&new.record);
            if selection.takes_record(&about) {
                corrections.entry(about).or_default().push((new.field, new.delta));
            }
        }
        corrections
    }
}
