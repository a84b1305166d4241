//! The way to the ledger: every dirty line as one absolute value per key and hour, again until the ledger says yes.
//!
//! A line is dirty while its version is another than the one last acknowledged, so counting does nothing for the flush. Lines of
//! the shared shard are read before those of the same key in other shards: a call that ended in the shared shard was opened
//! before that, so no sum ever shows more ends than admissions. For the same reason new lines of the shared shard are looked for first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::record::{Counters, Flush, LineKey};
use super::shard::SHARED;
use super::slab::Slab;
use super::{Core, Meter};
use crate::clock;
use crate::principal::Epoch;
use crate::store::{Ledger, StoreError};
use crate::time::{Hour, WallTime};

/// Lines in one batch at most.
pub const BATCH: usize = 500;

/// What one flush did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushReport {
    /// Lines that the ledger acknowledged.
    pub lines: usize,
    pub batches: usize,
    /// Lines that were written to all the time; the next flush takes them.
    pub busy: usize,
    /// Hours that are over and done with; their files are gone.
    pub folded: Vec<Hour>,
}

/// How one flush went.
pub type Flushed = Result<FlushReport, StoreError>;

/// Carries the counters of one meter to the ledger. There is one for each meter.
pub struct Flusher {
    core: &'static Core,
    ledger: Arc<dyn Ledger>,
    hours: BTreeMap<Hour, HourFlush>,
    epoch: Epochs,
}

/// Tells in which epoch the ledger is, as far as this process knows.
pub type EpochNow = Box<dyn Fn() -> Option<Epoch> + Send + Sync>;

#[derive(Default)]
struct Epochs {
    now: Option<EpochNow>,
    last: Option<Epoch>,
}

impl Epochs {
    /// True once for each epoch but the first: the ledger may have lost what it acknowledged in the one before.
    fn is_another(&mut self) -> bool {
        let Some(now) = self.now.as_ref().and_then(|now| now()) else {
            return false;
        };
        self.last.replace(now).is_some_and(|last| last != now)
    }
}

impl Flusher {
    pub fn new(meter: &Meter, ledger: Arc<dyn Ledger>) -> Self {
        Self { core: meter.core, ledger, hours: BTreeMap::new(), epoch: Epochs::default() }
    }

    /// For a ledger in a store that may be replaced: in another epoch all that this process still has is sent again.
    pub fn following(mut self, now: EpochNow) -> Self {
        self.epoch.now = Some(now);
        self
    }

    /// Flushes, and prepares files, every `every` until `stop` turns true or its sender is gone. What it returns can make the
    /// final flush. `told` hears of every flush.
    pub async fn run(
        mut self,
        every: Duration,
        mut stop: watch::Receiver<bool>,
        mut told: impl FnMut(&Flushed),
    ) -> Self {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut health = Health::default();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return self,
                () = async {
                    ticks.tick().await;
                    told(&self.tend(&mut health).await);
                } => {}
            }
        }
    }

    /// Sends all that the ledger does not have yet. After an error what was not acknowledged stays dirty: call again. It may be
    /// cancelled at any point.
    pub async fn flush_once(&mut self, now: WallTime) -> Result<FlushReport, StoreError> {
        self.core.advance(now.hour());
        self.discover();
        self.hours.values_mut().for_each(HourFlush::learn_shared);
        // A line that was found there is of a call that was opened in a file that is there by now.
        self.discover();
        if self.epoch.is_another() {
            tracing::info!("the store is in another epoch: all usage that is still here is sent again");
            self.flush_everything_again();
        }
        let mut report = FlushReport::default();
        for (hour, state) in &mut self.hours {
            state.flush(self.core, &*self.ledger, *hour, now, &mut report).await?;
        }
        self.fold(&mut report);
        Ok(report)
    }

    /// The last flush, for a process in which no charge is opened any more. Where the ledger then has everything and every call
    /// has ended, the hours are closed in it and the files removed, so that nothing is left to recover. Else they stay.
    pub async fn retire(mut self, now: WallTime) -> Result<FlushReport, StoreError> {
        let mut report = self.flush_once(now).await?;
        if !self.hours.values_mut().all(HourFlush::is_settled) {
            return Ok(report);
        }
        for (hour, state) in self.hours.iter_mut().filter(|(_, state)| !state.keys.is_empty()) {
            state.flush(self.core, &*self.ledger, *hour, now.max(hour.end()), &mut report).await?;
        }
        match self.core.retire(self.hours.keys().copied()) {
            Ok(()) => report.folded.extend(self.hours.into_keys()),
            Err(error) => tracing::warn!(%error, "a slab file could not be removed; the next start looks after it"),
        }
        Ok(report)
    }

    /// Makes every line dirty again: for a ledger that may have lost what it acknowledged.
    pub fn flush_everything_again(&mut self) {
        for state in self.hours.values_mut() {
            state.forget();
        }
    }

    async fn tend(&mut self, health: &mut Health) -> Flushed {
        let (core, now) = (self.core, clock::wall());
        let prepared = tokio::task::spawn_blocking(move || core.prepare(now)).await;
        health.files.note(
            "making slab files ahead",
            prepared.map_err(|e| e.to_string()).and_then(|p| p.map_err(|e| e.to_string())),
        );
        let flushed = self.flush_once(now).await;
        let result = flushed.as_ref().map(|_| ()).map_err(StoreError::to_string);
        health.ledger.note("flushing usage to the ledger", result);
        flushed
    }

    fn discover(&mut self) {
        for slab in self.core.slabs() {
            self.hours.entry(slab.identity().hour).or_default().watch(slab);
        }
    }

    fn fold(&mut self, report: &mut FlushReport) {
        let core = self.core;
        self.hours.retain(|hour, state| {
            let done = state.watermark >= hour.end() && core.leave(*hour) && state.is_settled();
            if !done {
                return true;
            }
            if let Err(error) = core.fold(*hour) {
                tracing::warn!(%hour, %error, "a slab file could not be removed; it will be tried again");
                return true;
            }
            report.folded.push(*hour);
            false
        });
    }
}

/// Whether the two things the background task does are going well; it is logged when that changes.
#[derive(Default)]
struct Health {
    files: Going,
    ledger: Going,
}

#[derive(Default)]
struct Going {
    badly: bool,
}

impl Going {
    fn note(&mut self, what: &str, result: Result<(), String>) {
        match (&result, self.badly) {
            (Err(error), false) => tracing::warn!(%error, "{what} fails; nothing is lost, and it is tried again"),
            (Ok(()), true) => tracing::info!("{what} works again"),
            _ => {}
        }
        self.badly = result.is_err();
    }
}

/// What the ledger has of one hour.
#[derive(Default)]
struct HourFlush {
    files: Vec<Watched>,
    keys: Vec<KeyPlaces>,
    by_key: HashMap<LineKey, usize>,
    sequence: u64,
    /// Up to when the ledger has everything.
    watermark: WallTime,
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

impl HourFlush {
    fn watch(&mut self, slab: Arc<Slab>) {
        if !self.files.iter().any(|file| Arc::ptr_eq(&file.slab, &slab)) {
            self.files.push(Watched { slab, lines: Vec::new() });
        }
    }

    async fn flush(
        &mut self,
        core: &Core,
        ledger: &dyn Ledger,
        hour: Hour,
        now: WallTime,
        report: &mut FlushReport,
    ) -> Result<(), StoreError> {
        self.learn_own();
        let dirty = self.dirty();
        let taken: Vec<Taken> = dirty.iter().filter_map(|key| self.take(*key)).collect();
        let busy = dirty.len() - taken.len();
        report.busy += busy;
        let closing = busy == 0 && self.watermark < hour.end() && now >= hour.end();
        let mut rest = taken.as_slice();
        while !rest.is_empty() || (closing && self.watermark < hour.end()) {
            let (batch, later) = rest.split_at(rest.len().min(BATCH));
            // Only with the last batch does the ledger have everything up to now.
            let watermark = if later.is_empty() && busy == 0 { now.max(self.watermark) } else { self.watermark };
            let lines = batch.iter().filter_map(|one| Some((self.keys.get(one.key)?.key, one.counters))).collect();
            let sequence = self.next_sequence();
            ledger
                .merge(Flush { incarnation: core.incarnation, hour, sequence, lines, watermark, closing: None })
                .await?;
            self.acknowledge(batch, watermark);
            report.lines += batch.len();
            report.batches += 1;
            rest = later;
        }
        Ok(())
    }

    /// Reads the directory records of the shared shard that are new. To be followed by [`HourFlush::learn_own`].
    fn learn_shared(&mut self) {
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
                file.lines.push(WatchedLine { key, flushed: 0 });
            }
        }
    }

    /// The keys with a line that changed since the ledger last acknowledged it.
    fn dirty(&self) -> Vec<usize> {
        let mut dirty = Vec::new();
        for file in &self.files {
            let view = file.slab.view();
            let lines = (0_u32..).zip(&file.lines);
            dirty.extend(lines.filter(|(at, line)| view.version(*at) != line.flushed).filter_map(|(_, line)| line.key));
        }
        dirty.sort_unstable();
        dirty.dedup();
        dirty
    }

    /// The sum over all lines of a key. `None` while one of them is being written.
    fn take(&self, key: usize) -> Option<Taken> {
        let mut taken = Taken { key, counters: Counters::default(), versions: Vec::new() };
        for place in &self.keys.get(key)?.places {
            let (counters, version) = self.files.get(place.file)?.slab.view().snapshot(place.line)?;
            taken.counters = taken.counters.plus(&counters);
            taken.versions.push(version);
        }
        Some(taken)
    }

    fn acknowledge(&mut self, batch: &[Taken], watermark: WallTime) {
        for taken in batch {
            let Some(key) = self.keys.get(taken.key) else { continue };
            for (place, version) in key.places.iter().zip(&taken.versions) {
                let line = self.files.get_mut(place.file).and_then(|file| file.lines.get_mut(place.line as usize));
                if let Some(line) = line {
                    line.flushed = *version;
                }
            }
        }
        self.watermark = watermark;
    }

    /// Nothing is dirty, being written or still open. Final once no charge can be opened in the hour any more.
    fn is_settled(&mut self) -> bool {
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

    fn forget(&mut self) {
        self.watermark = WallTime(0);
        for line in self.files.iter_mut().flat_map(|file| &mut file.lines) {
            line.flushed = 0;
        }
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
