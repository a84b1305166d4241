//! What a record is beside what was counted: whether its hour is final, and its adjustments.

use std::collections::{BTreeMap, BTreeSet};

use crate::control::Control;
use crate::control::usage_record::{Dimensions, Selection, UsageRecord};
use crate::meter::record::Counters;
use crate::store::StoreError;
use crate::store::usage::Adjustment;
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
    /// Records of what was counted, corrected where they are not split by key: a correction is of a record as it is billed.
    pub fn records(
        &self,
        mut sums: BTreeMap<Dimensions, Counters>,
        selection: &Selection,
    ) -> Vec<(Dimensions, UsageRecord)> {
        let corrected = if selection.by_key { BTreeMap::new() } else { self.correct(&mut sums, selection) };
        let record = |(dimensions, counters): (Dimensions, Counters)| {
            let adjustments = corrected.get(&dimensions).copied().unwrap_or_default();
            let r#final = self.finals.contains(&dimensions.hour);
            (dimensions, UsageRecord::new(dimensions, &counters, r#final, adjustments))
        };
        sums.into_iter().map(record).collect()
    }

    /// How many adjustments each record has.
    fn correct(&self, sums: &mut BTreeMap<Dimensions, Counters>, selection: &Selection) -> BTreeMap<Dimensions, u64> {
        let mut counts = BTreeMap::new();
        for Adjustment { new, .. } in &self.adjustments {
            let dimensions = Dimensions::of(&new.record);
            if selection.takes_record(&dimensions) {
                let number = new.field.of(sums.entry(dimensions).or_default());
                // It was checked that nothing goes below zero, and what is counted only grows.
                *number = number.saturating_add_signed(new.delta);
                *counts.entry(dimensions).or_default() += 1;
            }
        }
        counts
    }
}
