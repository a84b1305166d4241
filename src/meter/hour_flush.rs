//! What the ledger has of one hour, line by line.
//!
//! A line is dirty while its version is another than the one last acknowledged, so counting does nothing for the flush. Lines of
//! the shared shard are read before those of the same key in other shards: a call that ended in the shared shard was opened
//! before that, so no sum ever shows more ends than admissions. For the same reason new lines of the shared shard are looked for first.

use std::collections::HashMap;
use std::sync::Arc;

use super::Core;
use super::batch::{BATCH, Last, Series, batches, closing_of};
use super::flush::FlushReport;
use super::record::{Closing, Counters, Flush, LineKey};
use super::shard::SHARED;
use super::slab::Slab;
use super::witness::Witness;
use crate::principal::Incarnation;
use crate::store::{Ledger, StoreError};
use crate::time::{Hour, WallTime};

/// What the ledger has of one hour.
#[derive(Default)]
pub struct HourFlush {
    files: Vec<Watched>,
    keys: Vec<KeyPlaces>,
    by_key: HashMap<LineKey, usize>,
    sequence: u64,
    acknowledged: Upto,
    /// Up to when the ledger has everything.
    watermark: WallTime,
    /// The ledger may not know that this incarnation counts in the hour.
    unannounced: bool,
    /// What the ledger acknowledged as the last of the hour.
    closed: Option<Closing>,
}

/// Up to which batch the ledger has an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upto {
    /// The last one it acknowledged.
    pub batch: u64,
    /// The last one that it was found to have behind an anchor.
    pub found: u64,
}

struct Watched {
    slab: Arc<Slab>,
    /// By line.
    lines: Vec<WatchedLine>,
}

struct WatchedLine {
    /// Index into the keys of the hour; absent where the directory record cannot be read.
    key: Option<usize>,
    /// The version that the ledger acknowledged.
    flushed: u64,
    /// The version that was written to the spool last.
    spooled: u64,
}

struct KeyPlaces {
    key: LineKey,
    /// The lines of this key, that of the shared shard first.
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    file: usize,
    line: u32,
}

/// A key's sum, and the versions it was read at, in the order of its places.
struct Taken {
    key: usize,
    counters: Counters,
    versions: Vec<u64>,
}

/// Lines that changed, as they are to be written to the spool.
pub struct Unspooled {
    taken: Vec<Taken>,
    pub flushes: Vec<Flush>,
    /// Lines that were written to all the time.
    pub busy: usize,
}

impl HourFlush {
    pub fn watch(&mut self, slab: Arc<Slab>) {
        if !self.files.iter().any(|file| Arc::ptr_eq(&file.slab, &slab)) {
            self.files.push(Watched { slab, lines: Vec::new() });
        }
    }

    /// Tells the ledger that this incarnation counts in the hour, before it does.
    pub async fn announce(&mut self, core: &Core, ledger: &dyn Ledger, hour: Hour) -> Result<(), StoreError> {
        self.send(core, ledger, hour, Vec::new(), Last { watermark: self.watermark, closing: None }).await?;
        self.unannounced = false;
        Ok(())
    }

    /// Sends what is dirty. When the hour is over the ledger is told so even if there is nothing else to say.
    pub async fn flush(
        &mut self,
        core: &Core,
        ledger: &dyn Ledger,
        hour: Hour,
        now: WallTime,
        report: &mut FlushReport,
    ) -> Result<(), StoreError> {
        self.learn_own();
        let dirty = self.lines_where(|line, version| version != line.flushed);
        // Read in the order in which they lie in memory: in that of the ledger's rows it takes twice as long.
        let mut taken: Vec<Taken> = dirty.iter().filter_map(|key| self.take(*key)).collect();
        // In the order of the ledger's rows, so that each batch is a stretch of them: the embedded one writes whole pages.
        taken.sort_by_cached_key(|taken| self.keys.get(taken.key).map(|places| places.key));
        let busy = dirty.len() - taken.len();
        report.busy += busy;
        let is_over = busy == 0 && self.watermark < hour.end() && now >= hour.end();
        let mut rest = taken.as_slice();
        while !rest.is_empty() || self.unannounced || (is_over && self.watermark < hour.end()) {
            let (batch, later) = rest.split_at(rest.len().min(BATCH));
            // Only with the last batch does the ledger have everything up to now.
            let watermark = if later.is_empty() && busy == 0 { now.max(self.watermark) } else { self.watermark };
            let lines = self.lines_of(batch);
            self.send(core, ledger, hour, lines, Last { watermark, closing: None }).await?;
            self.acknowledge(batch);
            (self.watermark, self.unannounced) = (watermark, false);
            report.lines += batch.len();
            report.batches += 1;
            rest = later;
        }
        Ok(())
    }

    /// Tells the ledger that this was all of the hour, unless it knows. Only for an hour that is settled, and in which no charge
    /// can be opened any more.
    pub async fn close(
        &mut self,
        core: &Core,
        ledger: &dyn Ledger,
        hour: Hour,
        leaves: bool,
    ) -> Result<(), StoreError> {
        let closing = closing_of(&self.lines(), leaves);
        if self.closed == Some(closing) {
            return Ok(());
        }
        let watermark = self.watermark.max(hour.end());
        self.send(core, ledger, hour, Vec::new(), Last { watermark, closing: Some(closing) }).await?;
        (self.watermark, self.closed) = (watermark, Some(closing));
        Ok(())
    }

    /// The whole hour, for a ledger that may lose what it acknowledged. `None` while it is not closed.
    pub fn whole(&self, core: &Core, hour: Hour) -> Option<Vec<Flush>> {
        let last = Last { watermark: self.watermark, closing: Some(self.closed?) };
        Some(batches(self.series(core, hour), &self.lines(), last))
    }

    /// What the ledger does not have: of that all, or only what changed since it was last written to the spool.
    pub fn unspooled(&mut self, core: &Core, hour: Hour, all: bool) -> Unspooled {
        self.learn_shared();
        self.learn_own();
        let keys = self.lines_where(|line, version| version != line.flushed && (all || version != line.spooled));
        let taken: Vec<Taken> = keys.iter().filter_map(|key| self.take(*key)).collect();
        let flushes = batches(self.series(core, hour), &self.lines_of(&taken), Last::default());
        Unspooled { busy: keys.len() - taken.len(), taken, flushes }
    }

    /// Notes that these are in the spool.
    pub fn spooled(&mut self, unspooled: &Unspooled) {
        self.note(&unspooled.taken, |line, version| line.spooled = version);
    }

    /// Asks whether the ledger still has what it acknowledged, unless it was found to.
    pub async fn ask(&mut self, core: &Core, ledger: &dyn Ledger, hour: Hour) -> Result<(), StoreError> {
        self.acknowledged.ask(core.incarnation, hour, &core.witness, ledger).await
    }

    pub fn acknowledged(&self) -> Upto {
        self.acknowledged
    }

    pub fn is_over(&self, hour: Hour) -> bool {
        self.watermark >= hour.end()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    async fn send(
        &mut self,
        core: &Core,
        ledger: &dyn Ledger,
        hour: Hour,
        lines: Vec<(LineKey, Counters)>,
        last: Last,
    ) -> Result<(), StoreError> {
        let (incarnation, sequence) = (core.incarnation, self.next_sequence());
        let Last { watermark, closing } = last;
        let after = self.acknowledged.batch;
        let flush = Flush { incarnation, hour, sequence, lines, watermark, closing };
        core.witness.judge(ledger.merge_after(flush, after).await?, after)?;
        self.acknowledged.batch = sequence;
        Ok(())
    }

    fn series(&self, core: &Core, hour: Hour) -> Series {
        Series { incarnation: core.incarnation, hour, sequence: self.sequence }
    }

    /// All lines of the hour that count anything.
    fn lines(&self) -> Vec<(LineKey, Counters)> {
        let taken: Vec<Taken> = (0..self.keys.len()).filter_map(|key| self.take(key)).collect();
        let mut lines = self.lines_of(&taken);
        lines.retain(|(_, counters)| *counters != Counters::default());
        lines
    }

    fn lines_of(&self, taken: &[Taken]) -> Vec<(LineKey, Counters)> {
        taken.iter().filter_map(|one| Some((self.keys.get(one.key)?.key, one.counters))).collect()
    }

    /// Reads the directory records of the shared shard that are new. To be followed by [`HourFlush::learn_own`].
    pub fn learn_shared(&mut self) {
        self.learn(true);
    }

    /// Reads those of the threads' own shards.
    fn learn_own(&mut self) {
        self.learn(false);
    }

    fn learn(&mut self, of_shared: bool) {
        let is_meant = |file: &Watched| (file.slab.identity().shard == SHARED) == of_shared;
        for (index, file) in self.files.iter_mut().enumerate().filter(|(_, file)| is_meant(file)) {
            let view = file.slab.view();
            for line in u32::try_from(file.lines.len()).unwrap_or(u32::MAX)..view.published() {
                let key = match view.key(line) {
                    Ok(key) => Some(key),
                    Err(damage) => {
                        tracing::error!(file = file.slab.path().display().to_string(), %damage, "a usage line cannot be flushed");
                        None
                    }
                };
                let place = Place { file: index, line };
                let key = key.map(|key| place_of_key(&mut self.keys, &mut self.by_key, key, place, of_shared));
                file.lines.push(WatchedLine { key, flushed: 0, spooled: 0 });
            }
        }
    }

    /// The keys with a line of which this holds, given its version.
    fn lines_where(&self, holds: impl Fn(&WatchedLine, u64) -> bool) -> Vec<usize> {
        let mut keys = Vec::new();
        for file in &self.files {
            let view = file.slab.view();
            let lines = (0_u32..).zip(&file.lines);
            keys.extend(lines.filter(|(at, line)| holds(line, view.version(*at))).filter_map(|(_, line)| line.key));
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The sum over all lines of a key. `None` while one of them is being written, or is not known yet: the line of a key in the shared
    /// shard is there before the one in which its first call is opened, whose file may have been made since files were looked for.
    fn take(&self, key: usize) -> Option<Taken> {
        let mut taken = Taken { key, counters: Counters::default(), versions: Vec::new() };
        for place in &self.keys.get(key)?.places {
            let (counters, version) = self.files.get(place.file)?.slab.view().snapshot(place.line)?;
            taken.counters = taken.counters.plus(&counters);
            taken.versions.push(version);
        }
        (taken.counters.committed() <= taken.counters.opened).then_some(taken)
    }

    fn acknowledge(&mut self, batch: &[Taken]) {
        self.note(batch, |line, version| line.flushed = version);
    }

    fn note(&mut self, taken: &[Taken], note: impl Fn(&mut WatchedLine, u64)) {
        for taken in taken {
            let Some(key) = self.keys.get(taken.key) else { continue };
            for (place, version) in key.places.iter().zip(&taken.versions) {
                let line = self.files.get_mut(place.file).and_then(|file| file.lines.get_mut(place.line as usize));
                if let Some(line) = line {
                    note(line, *version);
                }
            }
        }
    }

    /// Nothing is dirty, being written or still open. Final once no charge can be opened in the hour any more.
    pub fn is_settled(&mut self) -> bool {
        self.learn_shared();
        self.learn_own();
        let readable = self.files.iter().flat_map(|file| &file.lines).all(|line| line.key.is_some());
        readable && (0..self.keys.len()).all(|key| self.take(key).is_some_and(|taken| self.is_last(&taken)))
    }

    fn is_last(&self, taken: &Taken) -> bool {
        let places = self.keys.get(taken.key).map(|key| key.places.as_slice()).unwrap_or_default();
        let flushed =
            |place: &Place| self.files.get(place.file)?.lines.get(place.line as usize).map(|line| line.flushed);
        let acknowledged = places.iter().map(flushed).eq(taken.versions.iter().map(|version| Some(*version)));
        acknowledged && taken.counters.opened == taken.counters.committed()
    }

    /// Numbers go on where an earlier flusher of this meter, or recovery, would find them.
    fn next_sequence(&mut self) -> u64 {
        let first =
            self.files.iter().find(|file| (file.slab.identity().shard, file.slab.identity().extent) == (SHARED, 0));
        let stored = first.map_or(0, |file| file.slab.view().flushes());
        self.sequence = self.sequence.max(stored) + 1;
        if let Some(file) = first {
            file.slab.view().set_flushes(self.sequence);
        }
        self.sequence
    }

    /// For a ledger that may have lost what it acknowledged.
    pub fn forget(&mut self) {
        (self.watermark, self.closed, self.unannounced) = (WallTime(0), None, true);
        self.acknowledged = Upto::default();
        for line in self.files.iter_mut().flat_map(|file| &mut file.lines) {
            line.flushed = 0;
        }
    }
}

impl Upto {
    /// Asks the ledger, unless it was found to have all of it.
    pub async fn ask(
        &mut self,
        incarnation: Incarnation,
        hour: Hour,
        witness: &Witness,
        ledger: &dyn Ledger,
    ) -> Result<(), StoreError> {
        let sequence = self.batch;
        if sequence != self.found {
            let (lines, watermark) = (Vec::new(), WallTime(0));
            let last = Flush { incarnation, hour, sequence, lines, watermark, closing: None };
            witness.judge(witness.ask(ledger, &last).await?, sequence)?;
            self.found = sequence;
        }
        Ok(())
    }
}

fn place_of_key(
    keys: &mut Vec<KeyPlaces>,
    by_key: &mut HashMap<LineKey, usize>,
    key: LineKey,
    place: Place,
    shared: bool,
) -> usize {
    let index = *by_key.entry(key).or_insert_with(|| {
        keys.push(KeyPlaces { key, places: Vec::new() });
        keys.len() - 1
    });
    if let Some(entry) = keys.get_mut(index) {
        let at = if shared { 0 } else { entry.places.len() };
        entry.places.insert(at, place);
    }
    index
}
