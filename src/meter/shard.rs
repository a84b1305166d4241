//! A shard: the part of the counters that one thread writes. Its [`Writer`] is held by that thread alone (or, for shard 0, by
//! whoever holds the meter's lock), so that counting needs no locked instruction; [`Shard`] is what the background tasks see.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::charge::{LineAt, Opened, Tally};
use super::line_map::LineMap;
use super::packed_key::PackedKey;
use super::record::{LineKey, Outcome};
use super::slab::Slab;
use super::{Core, Unmetered};
use crate::time::{Hour, WallTime};

/// The shard of all threads that have none of their own, and of calls that end on another thread than they began on.
pub const SHARED: u16 = 0;
/// After a refusal for want of room the next attempt waits this long, in ms: refusing must be cheap.
const REFUSAL_MS: u64 = 100;

/// What the background tasks and the writer of a shard share. Locked when an hour begins or a file fills up, never per call.
pub struct Shard {
    pub number: u16,
    state: Mutex<ShardState>,
}

#[derive(Default)]
struct ShardState {
    /// The hour the writer opens charges in.
    entered: Hour,
    /// The writer must not enter an hour before this one: it may be folded.
    floor: Hour,
    /// Files made ahead, not yet in use.
    prepared: Vec<Arc<Slab>>,
    /// The file that was last taken into use.
    last: Option<Arc<Slab>>,
}

impl Shard {
    pub fn new(number: u16) -> Self {
        Self { number, state: Mutex::default() }
    }

    /// Makes what the writer will need next: the file after one that is half full, and the first file of `target`. A writer that has none
    /// yet needs one for this hour too, also shortly before the next one.
    pub fn prepare(&self, core: &Core, latest: Hour, target: Hour) -> io::Result<()> {
        let mut state = self.state.lock();
        let last =
            state.last.as_ref().map(|slab| (slab.identity().hour, slab.identity().extent, slab.view().is_half_full()));
        if let Some((hour, extent, true)) = last
            && hour >= latest
        {
            self.prepare_one(core, &mut state, hour, extent.saturating_add(1))?;
        }
        if last.is_none() {
            self.prepare_one(core, &mut state, latest, 0)?;
        }
        if last.is_none_or(|(hour, ..)| hour < target) {
            self.prepare_one(core, &mut state, target, 0)?;
        }
        Ok(())
    }

    fn prepare_one(&self, core: &Core, state: &mut ShardState, hour: Hour, extent: u16) -> io::Result<()> {
        let is_there = |slab: &Arc<Slab>| (slab.identity().hour, slab.identity().extent) == (hour, extent);
        if hour >= state.floor && !state.prepared.iter().any(is_there) {
            state.prepared.push(core.create(self.number, hour, extent)?);
        }
        Ok(())
    }

    /// Sees to it that the writer never again opens a charge in `hour`. False while it still may.
    pub fn leave(&self, hour: Hour) -> bool {
        let mut state = self.state.lock();
        if state.entered == hour {
            return false;
        }
        state.floor = state.floor.max(hour.next());
        state.prepared.retain(|slab| slab.identity().hour > hour);
        state.last.take_if(|slab| slab.identity().hour <= hour);
        true
    }

    /// Enters `hour`, or a later one where that may be folded by now.
    fn enter(&self, hour: Hour) -> Hour {
        let mut state = self.state.lock();
        state.entered = hour.max(state.floor).max(state.entered);
        state.entered
    }

    /// The next file for `hour`: one made ahead, else a new one.
    fn extend(&self, core: &Core, hour: Hour, extent: u16) -> io::Result<Arc<Slab>> {
        let mut state = self.state.lock();
        let is_it = |slab: &Arc<Slab>| (slab.identity().hour, slab.identity().extent) == (hour, extent);
        let slab = match state.prepared.iter().position(is_it) {
            Some(at) => state.prepared.swap_remove(at),
            None => core.create(self.number, hour, extent)?,
        };
        state.last = Some(Arc::clone(&slab));
        Ok(slab)
    }

    /// Lets go of all files, so that their locks end.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.prepared.clear();
        state.last = None;
    }
}

/// The lines of one shard in one hour.
struct HourLines {
    hour: Hour,
    /// By extent.
    slabs: Vec<Arc<Slab>>,
    lines: LineMap,
}

/// The single writer of a shard.
pub struct Writer {
    core: &'static Core,
    shard: Arc<Shard>,
    entered: Hour,
    hours: Vec<HourLines>,
    opened: u64,
    refused_at: Option<WallTime>,
}

impl Writer {
    pub fn new(core: &'static Core, shard: Arc<Shard>) -> Self {
        Self { core, shard, entered: Hour(0), hours: Vec::new(), opened: 0, refused_at: None }
    }

    #[inline]
    pub fn number(&self) -> u16 {
        self.shard.number
    }

    /// Counts an admission. On a line that exists nothing is allocated and no lock is taken.
    pub fn open(&mut self, key: &LineKey, now: WallTime, browser: bool) -> Result<Opened, Unmetered> {
        let hour = self.hour_of(now);
        let packed = PackedKey::of(key);
        let at = match self.find(hour, &packed) {
            Some(at) => at,
            None => self.add_line_unless_refused(hour, &packed, now)?,
        };
        let slab = self.slab(hour, at.extent).ok_or(Unmetered::Closed)?;
        slab.view().open(at.line, now, browser).ok_or(Unmetered::Closed)?;
        self.opened += 1;
        let sequence = u64::from(self.shard.number) << 48 | self.opened;
        Ok(Opened { hour, shard: self.shard.number, at, sequence })
    }

    /// Notes that a browser sent the key, in a call that is not admitted.
    #[cold]
    pub fn mark_browser(&mut self, key: &LineKey, now: WallTime) -> Result<(), Unmetered> {
        let hour = self.hour_of(now);
        let at = self.line(hour, &PackedKey::of(key))?;
        self.slab(hour, at.extent).and_then(|slab| slab.view().mark_browser(at.line)).ok_or(Unmetered::Closed)
    }

    /// Counts an end in a line of this shard. `None`: there is no such line.
    #[inline]
    pub fn commit_at(&mut self, hour: Hour, at: LineAt, outcome: Outcome, tally: &Tally) -> Option<()> {
        self.slab(hour, at.extent)?.view().commit(at.line, outcome, tally)
    }

    /// Counts an end of a call that began in another shard.
    pub fn commit_for(
        &mut self,
        hour: Hour,
        key: &PackedKey,
        outcome: Outcome,
        tally: &Tally,
    ) -> Result<(), Unmetered> {
        let at = self.line(hour, key)?;
        self.commit_at(hour, at, outcome, tally).ok_or(Unmetered::Closed)
    }

    /// Enters an hour before the next call does.
    #[cold]
    pub fn enter(&mut self, hour: Hour) {
        if hour > self.entered {
            self.entered = self.shard.enter(hour);
            self.core.advance(self.entered);
            self.let_go();
        }
    }

    /// Gives back the memory of hours whose files were removed.
    pub fn let_go(&mut self) {
        self.hours.retain(|lines| lines.slabs.iter().any(|slab| !slab.is_folded()));
    }

    /// The hour of `now`, but never before one that this process has used.
    #[inline]
    fn hour_of(&mut self, now: WallTime) -> Hour {
        let hour = now.hour().max(self.core.latest());
        if hour > self.entered {
            self.enter(hour);
        }
        self.entered
    }

    #[inline]
    fn lines(&self, hour: Hour) -> Option<&HourLines> {
        self.hours.iter().rev().find(|lines| lines.hour == hour)
    }

    #[inline]
    fn find(&self, hour: Hour, key: &PackedKey) -> Option<LineAt> {
        self.lines(hour)?.lines.get(key)
    }

    #[inline]
    fn slab(&self, hour: Hour, extent: u16) -> Option<&Slab> {
        self.lines(hour)?.slabs.get(usize::from(extent)).map(|slab| &**slab)
    }

    fn line(&mut self, hour: Hour, key: &PackedKey) -> Result<LineAt, Unmetered> {
        match self.find(hour, key) {
            Some(at) => Ok(at),
            None => self.add_line(hour, key),
        }
    }

    #[cold]
    fn add_line_unless_refused(&mut self, hour: Hour, key: &PackedKey, now: WallTime) -> Result<LineAt, Unmetered> {
        if self.refused_at.is_some_and(|at| (at.0..at.0.saturating_add(REFUSAL_MS)).contains(&now.0)) {
            return Err(Unmetered::Lately);
        }
        let added = self.add_line(hour, key);
        self.refused_at = added.is_err().then_some(now);
        added
    }

    /// Every line has a line in the shared shard, made before it: so a call that ends on another thread always finds its
    /// place, however full the folder is by then.
    fn add_line(&mut self, hour: Hour, key: &PackedKey) -> Result<LineAt, Unmetered> {
        if self.shard.number != SHARED {
            self.core.shared.lock().as_mut().ok_or(Unmetered::Closed)?.line(hour, key)?;
        }
        let at = match self.hours.iter().position(|lines| lines.hour == hour) {
            Some(at) => at,
            None => {
                self.hours.push(HourLines { hour, slabs: Vec::new(), lines: LineMap::default() });
                self.hours.len() - 1
            }
        };
        let lines = self.hours.get_mut(at).ok_or(Unmetered::Closed)?;
        lines.add(self.core, &self.shard, key)
    }
}

impl HourLines {
    fn add(&mut self, core: &Core, shard: &Shard, key: &PackedKey) -> Result<LineAt, Unmetered> {
        if !self.slabs.last().is_some_and(|slab| slab.view().has_room()) {
            let extent = u16::try_from(self.slabs.len()).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
            let slab = shard.extend(core, self.hour, extent)?;
            self.slabs.push(slab);
        }
        let slab = self.slabs.last().ok_or(Unmetered::Closed)?;
        let line = slab.view().publish(key).ok_or(Unmetered::Closed)?;
        let at = LineAt { extent: slab.identity().extent, line };
        self.lines.insert(*key, at);
        Ok(at)
    }
}

/// The writers of this thread: one for each meter it is attached to, which in a gateway is one.
struct Own(Vec<Writer>);

thread_local! {
    static OWN: RefCell<Own> = const { RefCell::new(Own(Vec::new())) };
}

impl Drop for Own {
    /// A thread that ends leaves its shard to the next one.
    fn drop(&mut self) {
        for writer in self.0.drain(..) {
            writer.core.take_back(writer);
        }
    }
}

/// Runs `work` with this thread's writer. `None` where the thread has none, or is ending.
#[inline]
pub fn with_own<R>(core: &'static Core, work: impl FnOnce(&mut Writer) -> R) -> Option<R> {
    let found = OWN.try_with(|own| {
        let mut own = own.try_borrow_mut().ok()?;
        own.0.iter_mut().find(|writer| std::ptr::eq(writer.core, core)).map(work)
    });
    found.ok().flatten()
}

/// Gives this thread a writer, unless it has one.
pub fn attach(core: &'static Core) {
    if with_own(core, |_| ()).is_none()
        && let Some(writer) = core.claim_writer()
    {
        let _ = OWN.try_with(|own| own.borrow_mut().0.push(writer));
    }
}
