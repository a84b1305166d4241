//! What a dead incarnation left in both folders, hour by hour, and what follows from it.
//!
//! The slabs of an hour are the whole truth, unless one is damaged or gone: then the spool may know more, the ledger gets the
//! greater of each value, and the hour stays open. An hour that is only in the spool was cut off with the power; so may one be whose
//! slabs are on a disk and of an earlier boot, since nobody waits for the disk when a call is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::batch::{Last, Series, batches, closing_of};
use super::estate::{Estate, HourEstate, LeftInPlace};
use super::record::{Closing, Counters, Flush, LineKey};
use super::recover::RecoveredHour;
use super::spool::Remains;
use super::spool::kept::{self, KeptHour};
use super::spool::replay::Places;
use super::witness::Witness;
use crate::principal::{Incarnation, LedgerServer};
use crate::store::{Ledger, StoreError};
use crate::time::{Hour, WallTime};

/// All that an incarnation left. Nobody else can take it up while this lives.
pub struct Heritage {
    pub incarnation: Incarnation,
    pub estate: Estate,
    pub remains: Remains,
}

/// How much is known of an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Everything.
    Whole,
    /// Some slab is damaged or gone.
    InPart,
    /// What reached the disk, of an incarnation that may have ended with the power.
    UpToACut,
}

/// One hour of it.
pub struct HourHeritage {
    series: Series,
    lines: BTreeMap<LineKey, Counters>,
    known: Known,
    closing: Closed,
}

/// How the hour is closed.
#[derive(Clone, Copy)]
enum Closed {
    /// As it already was.
    Before(Closing),
    /// With what was found; `leaves` where it is the last.
    Now { leaves: bool },
}

/// An hour that the ledger has now.
pub struct Merged {
    pub flushes: Vec<Flush>,
    /// Who has it; absent where there was nothing to send.
    pub server: Option<LedgerServer>,
    /// Absent where no call was counted.
    pub recovered: Option<RecoveredHour>,
}

impl Heritage {
    /// The hours of which anything is left.
    pub fn hours(&self) -> BTreeSet<Hour> {
        self.estate.hours.keys().chain(self.remains.hours.keys()).copied().collect()
    }

    /// Writes an hour down that the ledger has now, and removes its slabs.
    pub fn settle(
        &self,
        places: &Places,
        hour: Hour,
        flushes: Vec<Flush>,
        server: Option<LedgerServer>,
        now: WallTime,
    ) -> io::Result<()> {
        if !flushes.is_empty() {
            let written = kept::write(&places.spool, places.owner(self.incarnation), hour, flushes, server);
            if !kept::is_given_up(hour, now) {
                written?;
            }
        }
        self.estate.bury(hour)
    }

    /// Removes the rest. Returns what has to stay.
    pub fn close(&self) -> io::Result<Vec<LeftInPlace>> {
        self.remains.bury()?;
        self.estate.close()?;
        Ok(self.estate.left.iter().cloned().chain(self.remains.left.clone().map(LeftInPlace::from)).collect())
    }
}

impl HourHeritage {
    pub fn read(places: &Places, of: &Heritage, hour: Hour) -> io::Result<Self> {
        let incarnation = of.incarnation;
        let slabs = of.estate.hours.get(&hour);
        let spooled = of.remains.hours.get(&hour);
        let kept = kept::read(&places.spool, places.owner(incarnation), hour)?.and_then(Result::ok);
        let before = kept.as_ref().and_then(KeptHour::closing);
        let known = match slabs {
            _ if before.is_some() => Known::Whole,
            Some(slabs) if slabs.incomplete => Known::InPart,
            Some(slabs) if slabs.boot_ids.iter().all(|boot_id| *boot_id == places.boot_id) => Known::Whole,
            _ => Known::UpToACut,
        };
        let mut lines = slabs.map(HourEstate::used_lines).unwrap_or_default();
        if known == Known::UpToACut {
            lines.values_mut().for_each(|counters| counters.interrupted = 0);
        }
        let kept_lines = kept.iter().flat_map(KeptHour::lines);
        // Where the slabs are whole, nothing in the spool can be greater.
        let spooled_lines = spooled.filter(|_| known != Known::Whole).into_iter().flat_map(|hour| &hour.lines);
        for (key, counters) in kept_lines.map(|line| (&line.0, &line.1)).chain(spooled_lines) {
            let line = lines.entry(*key).or_default();
            *line = line.max(counters);
        }
        let of_kept = kept.iter().flat_map(|kept| &kept.flushes).map(|flush| flush.sequence);
        let sequences = of_kept.chain(slabs.map(|slabs| slabs.flushes)).chain(spooled.map(|spooled| spooled.flushes));
        let sequence = sequences.max().unwrap_or_default();
        let leaves = of.hours().last() == Some(&hour);
        let closing = before.map_or(Closed::Now { leaves }, Closed::Before);
        Ok(Self { series: Series { incarnation, hour, sequence }, lines, known, closing })
    }

    /// Sends all of it.
    pub async fn merge(mut self, witness: &Witness, ledger: &dyn Ledger) -> Result<Merged, StoreError> {
        if self.known == Known::UpToACut {
            // What is known goes there first: an hour that has left the ledger is back once it is taken, and can be read.
            let lines: Vec<_> = self.lines.iter().map(|(key, counters)| (*key, *counters)).collect();
            for flush in batches(self.series, &lines, Last::default()) {
                ledger.merge(flush).await?;
            }
            self.interrupt(ledger).await?;
        }
        let Series { incarnation, hour, .. } = self.series;
        let lines: Vec<(LineKey, Counters)> = std::mem::take(&mut self.lines).into_iter().collect();
        let last = match (self.known, self.closing) {
            (Known::Whole, Closed::Before(closing)) => Last { watermark: hour.end(), closing: Some(closing) },
            (Known::Whole, Closed::Now { leaves }) => {
                Last { watermark: hour.end(), closing: Some(closing_of(&lines, leaves)) }
            }
            _ => Last::default(),
        };
        // Where there is nothing to say, the ledger does not hear of it: it would wait for what nobody sends.
        if !lines.is_empty() || last.closing.is_some() {
            self.number(witness, ledger).await?;
        }
        let flushes = batches(self.series, &lines, last);
        let server = witness.send(ledger, flushes.clone()).await?;
        let totals = closing_of(&lines, false).totals;
        let (calls, interrupted, complete) = (totals.opened, totals.interrupted, self.known == Known::Whole);
        let recovered = RecoveredHour { incarnation, hour, lines: lines.len(), calls, interrupted, complete };
        Ok(Merged { flushes, server, recovered: (!lines.is_empty()).then_some(recovered) })
    }

    /// In an hour without a slab nobody but the ledger knows how many batches there were. What is sent now comes behind them: under the
    /// number of one of them it could be lost, and not be missed.
    async fn number(&mut self, witness: &Witness, ledger: &dyn Ledger) -> Result<(), StoreError> {
        let Series { incarnation, hour, .. } = self.series;
        let (lines, watermark) = (Vec::new(), WallTime(0));
        let nothing = Flush { incarnation, hour, sequence: 0, lines, watermark, closing: None };
        let said = witness.ask(ledger, &nothing).await?;
        witness.judge(said, 0)?;
        self.series.sequence = self.series.sequence.max(said.known);
        Ok(())
    }

    /// What is known to have been opened and not to have ended never will: nobody is left who could know more. The ledger may have
    /// seen the ends of calls of which the spool has only the beginnings.
    async fn interrupt(&mut self, ledger: &dyn Ledger) -> Result<(), StoreError> {
        let Series { incarnation, hour, .. } = self.series;
        for known in ledger.lines(hour, hour).await? {
            if known.incarnation == incarnation {
                let line = self.lines.entry(known.key).or_default();
                *line = line.max(&known.counters);
            }
        }
        for counters in self.lines.values_mut() {
            counters.interrupted = counters.interrupted.max(counters.opened.saturating_sub(counters.committed()));
        }
        Ok(())
    }
}
