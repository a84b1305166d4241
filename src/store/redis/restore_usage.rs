//! Usage of a backup on its way to a ledger on a server of its own. It is merged like any other: what the ledger has already, and
//! perhaps more of it, stays.

use super::answer::unexpected;
use super::ledger::{encode, merge_head};
use super::ledger_at::LedgerAt;
use super::scripts;
use crate::meter::record::Counters;
use crate::store::StoreError;
use crate::store::rules::ledger::{line_at, mark_at, mark_key};
use crate::store::usage::FlushMark;
use crate::time::Hour;

/// Lines in one script.
const LINES: usize = 500;

/// Lines that wait for others of the same hour.
pub struct RestoredUsage {
    ledger: LedgerAt,
    hour: Option<Hour>,
    arguments: Vec<Vec<u8>>,
    lines: usize,
}

impl RestoredUsage {
    /// Errors: `Away` where the ledger is not there, `Frozen` where it is another deployment's.
    pub fn begin(ledger: LedgerAt) -> Result<Self, StoreError> {
        ledger.wait_for(ledger.touch(&[]))?;
        Ok(Self { ledger, hour: None, arguments: Vec::new(), lines: 0 })
    }

    pub fn line(&mut self, row: Vec<u8>, counters: &Counters) -> Result<(), StoreError> {
        let line = line_at(&row)?;
        if self.hour != Some(line.hour) || self.lines >= LINES {
            self.end()?;
            let mark = mark_key(line.hour, line.incarnation);
            self.arguments = merge_head(self.ledger.name(), line.hour, mark, &FlushMark::default(), 0)?;
            self.hour = Some(line.hour);
        }
        self.arguments.extend([row, encode(counters)?]);
        self.lines += 1;
        Ok(())
    }

    pub fn mark(&mut self, row: Vec<u8>, mark: FlushMark) -> Result<(), StoreError> {
        self.end()?;
        let hour = mark_at(&row, mark)?.hour;
        self.arguments = merge_head(self.ledger.name(), hour, row, &mark, 0)?;
        self.end()
    }

    /// Sends what waits.
    pub fn end(&mut self) -> Result<(), StoreError> {
        let arguments = std::mem::take(&mut self.arguments);
        (self.hour, self.lines) = (None, 0);
        if arguments.is_empty() {
            return Ok(());
        }
        let arguments: Vec<_> = arguments.iter().map(Vec::as_slice).collect();
        match self.ledger.wait_for(self.ledger.call(&scripts::MERGE, &arguments))?.said.as_str() {
            "OK" => Ok(()),
            "FULL" => Err(StoreError::Away("the redis of the ledger has little memory left".to_owned())),
            _ => Err(unexpected("an answer of an unknown kind")),
        }
    }
}
