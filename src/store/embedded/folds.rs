//! Hours that leave an embedded ledger.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::Embedded;
use crate::meter::record::LedgerLine;
use crate::store::StoreError;
use crate::store::folds::{Folded, Folds, Step, Way};
use crate::store::rules::Backend;
use crate::store::rules::folds::{self, FoldRow};
use crate::time::Hour;

#[async_trait]
impl Folds for Embedded {
    async fn folds(&self, from: Hour, to: Hour) -> Result<BTreeMap<Hour, Folded>, StoreError> {
        let found = self.read_long(move |rows| folds::folds(rows, from, to)).await?;
        Ok(found.into_iter().map(|(hour, FoldRow { fold, digest, .. })| (hour, Folded { fold, digest })).collect())
    }

    async fn wanted(&self) -> Result<BTreeSet<Hour>, StoreError> {
        let found = self.read_long(move |rows| folds::folds(rows, Hour(0), Hour(u32::MAX))).await?;
        Ok(found.into_iter().filter(|(_, row)| row.wanted).map(|(hour, _)| hour).collect())
    }

    async fn step(&self, hour: Hour, step: Step) -> Result<bool, StoreError> {
        self.writer.write(move |tx| folds::step(tx, hour, &step)).await
    }

    async fn move_lines(&self, hour: Hour, way: Way, lines: Vec<LedgerLine>) -> Result<bool, StoreError> {
        self.writer.write(move |tx| folds::move_lines(tx, hour, way, &lines)).await
    }
}
