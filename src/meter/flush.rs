//! The way to the ledger: every dirty line as one absolute value per key and hour, again until the ledger says yes. While it does
//! not, what changed goes to the spool once a second.
//!
//! An hour is announced before the first call is counted in it: the first by [`Flusher::enrol`], every other one by the closing of
//! the hour before, which says that this incarnation goes on.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::hour_flush::{HourFlush, Unspooled};
use super::spool::folded::{Folded, Resent};
use super::spool::frame::Owner;
use super::spool::{Spool, kept};
use super::witness::Turn;
use super::{Core, Meter};
use crate::clock;
use crate::principal::LedgerServer;
use crate::store::{Ledger, StoreError};
use crate::time::{Hour, WallTime};

/// While the ledger is away, what changed is written to the spool so often. A power cut takes what was counted since.
const SPOOL_EVERY: Duration = Duration::from_secs(1);
/// A ledger that may lose what it acknowledged is asked so often whether it still has it.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long after an hour could not be written down that is tried again.
const KEEP_AGAIN: Duration = Duration::from_secs(10);
/// A clock that jumps over more hours than these was set: nobody waits for usage of the years between.
const MOST_HOURS: u32 = 35 * 24;

/// So many lines are a fifth of what makes the longest pause.
const FIFTH: usize = 1000;
/// However few lines there are (and none were sent where the ledger is away), the next flush is not sooner than this, unless `every` is.
const SOONEST: Duration = Duration::from_millis(250);

/// How long after the beginning of a flush of so many lines the next one begins: from a fifth of `every`, and a second at
/// most, where they were few to all of it.
///
/// A thousand lines take the writer of the embedded ledger some 3 ms, mostly for pages that it writes. While it is at that, calls wait that
/// came to the same processor; and most lines that change at all change again within the interval. Where flushing took 1.5 % of the time,
/// one call in a hundred was seen to wait (`docs/performance.md`).
pub fn pause_after(lines: usize, every: Duration) -> Duration {
    let fifths = (1 + lines / FIFTH).min(5);
    let pause = every * u32::try_from(fifths).unwrap_or(5) / 5;
    let longest = if fifths == 1 { SPOOL_EVERY } else { every };
    pause.min(longest).max(SOONEST).min(every)
}

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
    /// Hours that have left the ledger: they are asked back by this, and their usage stays here until they are there.
    pub waiting: Vec<Hour>,
}

impl FlushReport {
    /// What the next flush is likely to have: as many lines again, or few and soon where some were not to be had this time.
    fn to_come(&self) -> usize {
        if self.busy > 0 { 0 } else { self.lines }
    }

    /// An hour that has left the ledger holds no other up.
    fn waits(&mut self, sent: Result<(), StoreError>) -> Result<(), StoreError> {
        match sent {
            Err(StoreError::Archived(hour)) => {
                self.waiting.push(hour);
                Ok(())
            }
            sent => sent,
        }
    }
}

/// How one flush went.
pub type Flushed = Result<FlushReport, StoreError>;

/// Carries the counters of one meter to the ledger. There is one for each meter.
pub struct Flusher {
    core: &'static Core,
    ledger: Arc<dyn Ledger>,
    hours: BTreeMap<Hour, HourFlush>,
    /// The last hour that is, or was, among them.
    reached: Hour,
    /// What the ledger acknowledged was acknowledged in this turn.
    turn: Turn,
    asked_at: Option<WallTime>,
    spool: Spool,
    spooled_at: Option<WallTime>,
    folded: Folded,
    /// When an hour could not be written down last.
    unkept_at: Option<WallTime>,
}

impl Flusher {
    pub fn new(meter: &Meter, ledger: Arc<dyn Ledger>) -> Self {
        let core = meter.core;
        let owner = Owner { store_id: core.store_id, incarnation: core.incarnation };
        Self {
            core,
            ledger,
            hours: BTreeMap::new(),
            reached: core.latest(),
            turn: core.witness.turn(),
            asked_at: None,
            spool: Spool::new(&core.spool, owner),
            spooled_at: None,
            folded: Folded::new(core.spool.clone(), owner),
            unkept_at: None,
        }
    }

    /// Flushes, and prepares files, until `stop` turns true or its sender is gone: at least every `every`, and sooner while few lines
    /// change ([`pause_after`]). What it returns can make the final flush. `told` hears of every flush.
    pub async fn run(
        mut self,
        every: Duration,
        mut stop: watch::Receiver<bool>,
        mut told: impl FnMut(&Flushed),
    ) -> Self {
        let mut health = Health::default();
        let mut next = Instant::now();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return self,
                () = async {
                    tokio::time::sleep_until(next).await;
                    let began = Instant::now();
                    let flushed = self.tend(&mut health).await;
                    told(&flushed);
                    next = began + pause_after(flushed.map_or(0, |report| report.to_come()), every);
                } => {}
            }
        }
    }

    /// Makes this incarnation known to the ledger for the current hour. To be called until it succeeds, and before the first call
    /// is admitted: no call is ever counted by somebody whom the ledger does not wait for.
    ///
    /// # Errors
    /// The ledger has not said yes; it may know of this incarnation all the same.
    pub async fn enrol(&mut self, now: WallTime) -> Result<(), StoreError> {
        self.look(now);
        let hour = self.core.latest();
        self.hours.entry(hour).or_default().announce(self.core, &*self.ledger, hour).await
    }

    /// Enrols, however long that takes, asking again after `pause`. False: it is to stop, and the ledger has not said yes.
    pub async fn enrol_until(&mut self, pause: Duration, mut stop: watch::Receiver<bool>) -> bool {
        let mut told = false;
        loop {
            let tried = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return false,
                tried = self.enrol(clock::wall()) => tried,
            };
            match tried {
                Ok(()) => return true,
                Err(error) if !told => {
                    tracing::error!(%error, "the ledger does not know of this gateway yet, so no call is taken; it is asked again");
                    told = true;
                }
                Err(_) => {}
            }
            // A stop cuts the wait short, and is seen above.
            let _ = tokio::time::timeout(pause, stop.wait_for(|stop| *stop)).await;
        }
    }

    /// Sends all that the ledger does not have yet. After an error what was not acknowledged stays dirty, and is in the spool if it
    /// was not lately: call again. It may be cancelled at any point.
    pub async fn flush_once(&mut self, now: WallTime) -> Flushed {
        let flushed = self.send(now).await;
        match &flushed {
            // What was being written to all the time may be newer in the spool than in the ledger.
            Ok(report) if report.busy > 0 => {}
            Ok(report) if !report.waiting.is_empty() => self.spool(now).await,
            Ok(_) => self.clear_spool().await,
            Err(_) => self.spool(now).await,
        }
        flushed
    }

    /// Once more where the ledger turns out to have lost something.
    async fn send(&mut self, now: WallTime) -> Flushed {
        match self.send_once(now).await {
            Err(_) if self.turn != self.core.witness.turn() => self.send_once(now).await,
            sent => sent,
        }
    }

    async fn send_once(&mut self, now: WallTime) -> Flushed {
        self.look(now);
        let turn = self.core.witness.turn();
        if self.turn != turn {
            self.flush_everything_again();
            self.turn = turn;
        }
        let Resent { lines, batches, waiting } = self.folded.send_again(&self.core.witness, &*self.ledger).await?;
        let mut report = FlushReport { lines, batches, waiting, ..FlushReport::default() };
        for (hour, state) in &mut self.hours {
            let sent = state.flush(self.core, &*self.ledger, *hour, now, &mut report).await;
            report.waits(sent)?;
        }
        for (hour, state) in &mut self.hours {
            if !state.is_over(*hour) || !self.core.leave(*hour) {
                continue;
            }
            // None is made any more. One that was being made when this flush began is seen only now.
            self.core
                .slabs()
                .into_iter()
                .filter(|slab| slab.identity().hour == *hour)
                .for_each(|slab| state.watch(slab));
            if state.is_settled() {
                let sent = state.close(self.core, &*self.ledger, *hour, false).await;
                report.waits(sent)?;
            }
        }
        self.ask(now).await?;
        self.fold(now, &mut report).await;
        Ok(report)
    }

    /// Finds out whether the ledger has lost what it acknowledged, also where there is nothing to be sent: now and then a batch
    /// without lines is put behind everything else, and then every hour is asked for that has changed since the last time.
    async fn ask(&mut self, now: WallTime) -> Result<(), StoreError> {
        let witness = &self.core.witness;
        let at = *self.asked_at.get_or_insert(now);
        let may_lose = witness.server().is_some_and(|server| server != LedgerServer::EMBEDDED);
        if !may_lose || (at..at.plus(ASK_EVERY)).contains(&now) {
            return Ok(());
        }
        let latest = self.core.latest();
        self.hours.entry(latest).or_default().announce(self.core, &*self.ledger, latest).await?;
        witness.anchored();
        for (hour, state) in self.hours.iter_mut().filter(|(hour, _)| **hour != latest) {
            state.ask(self.core, &*self.ledger, *hour).await?;
        }
        self.folded.ask(witness, &*self.ledger).await?;
        self.asked_at = Some(now);
        Ok(())
    }

    /// The last flush, for a process in which no charge is opened any more. Where the ledger then has everything and every call
    /// has ended, the hours are closed in it and the files removed, so that nothing is left to recover. Else they stay.
    pub async fn retire(mut self, now: WallTime) -> Flushed {
        let (mut report, is_settled) = match self.settle(now).await {
            // It has lost something meanwhile.
            Err(_) if self.turn != self.core.witness.turn() => self.settle(now).await?,
            settled => settled?,
        };
        if !is_settled || self.turn != self.core.witness.turn() {
            return Ok(report);
        }
        let last = self.core.latest();
        for (hour, state) in self.hours.range(..=last) {
            if !self.keep(*hour, state, now).await {
                return Ok(report);
            }
        }
        self.clear_spool().await;
        match self.core.retire(self.hours.keys().copied()) {
            Ok(()) => report.folded.extend(self.hours.into_keys().filter(|hour| *hour <= last)),
            Err(error) => tracing::warn!(%error, "a slab file could not be removed; the next start looks after it"),
        }
        Ok(report)
    }

    /// Flushes, and closes the hours where nothing in them can change any more; false else.
    async fn settle(&mut self, now: WallTime) -> Result<(FlushReport, bool), StoreError> {
        let report = self.flush_once(now).await?;
        let is_settled = self.hours.values_mut().all(HourFlush::is_settled);
        if is_settled {
            let last = self.core.latest();
            for (hour, state) in self.hours.range_mut(..=last) {
                state.close(self.core, &*self.ledger, *hour, *hour == last).await?;
            }
        }
        Ok((report, is_settled))
    }

    /// Makes every line dirty again, and every hour that is kept: for a ledger that may have lost what it acknowledged.
    pub fn flush_everything_again(&mut self) {
        self.hours.values_mut().for_each(HourFlush::forget);
        self.folded.all_again();
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
        let waiting = flushed.iter().find_map(|report| report.waiting.first());
        let result = waiting.map_or(Ok(()), |hour| Err(StoreError::Archived(*hour).to_string()));
        health.archive.note("flushing usage of an hour that left the ledger long ago", result);
        flushed
    }

    /// Finds out what hours, files and lines there are.
    fn look(&mut self, now: WallTime) {
        self.core.advance(now.hour());
        self.reach(self.core.latest());
        self.discover();
        self.hours.values_mut().for_each(HourFlush::learn_shared);
        // A line that was found there is of a call that is opened in a file that is there by now, or will be.
        self.discover();
    }

    fn discover(&mut self) {
        for slab in self.core.slabs() {
            self.hours.entry(slab.identity().hour).or_default().watch(slab);
        }
    }

    /// Hours in which nothing at all happened are closed too, since the closing of the hour before has announced them.
    fn reach(&mut self, latest: Hour) {
        let missed = latest.0.saturating_sub(self.reached.0);
        if missed > MOST_HOURS {
            let from = self.reached;
            tracing::error!(%from, to = %latest, "the clock jumped: the hours between are not closed by this gateway");
            self.reached = Hour(latest.0 - 1);
        }
        while self.reached < latest {
            self.reached = self.reached.next();
            self.hours.entry(self.reached).or_default();
        }
    }

    /// Removes the files of hours that are closed, once they are written down; and what was written down long ago.
    async fn fold(&mut self, now: WallTime, report: &mut FlushReport) {
        let core = self.core;
        if self.unkept_at.is_some_and(|at| (at..at.plus(KEEP_AGAIN)).contains(&now)) {
            return;
        }
        let closed: Vec<Hour> = self.hours.iter().filter(|(_, state)| state.is_closed()).map(|(at, _)| *at).collect();
        for hour in closed {
            let Some(state) = self.hours.get(&hour) else { continue };
            if !self.keep(hour, state, now).await {
                self.unkept_at = Some(now);
                return;
            }
            // Were there no later hour in the folder, nobody could tell that this incarnation went on.
            if !core.goes_on_after(hour, now) {
                continue;
            }
            let acknowledged = state.acknowledged();
            match core.fold(hour) {
                Ok(()) => {
                    self.hours.remove(&hour);
                    self.folded.insert(hour, acknowledged);
                    report.folded.push(hour);
                }
                Err(error) => tracing::warn!(%hour, %error, "a slab file could not be removed; it will be tried again"),
            }
        }
        self.folded.remove_old(now).await;
    }

    /// Writes a closed hour down. False: it could not be, and its slabs have to stay.
    async fn keep(&self, hour: Hour, state: &HourFlush, now: WallTime) -> bool {
        let Some(whole) = state.whole(self.core, hour) else { return false };
        let written = self.folded.keep(hour, whole, self.core.witness.server()).await;
        self.note_spool(&written);
        written.is_ok() || kept::is_given_up(hour, now)
    }

    async fn clear_spool(&mut self) {
        if let Err(error) = self.spool.clear().await {
            self.note_spool(&Err(error));
        }
    }

    /// Writes what changed to the spool, if that was not done lately.
    async fn spool(&mut self, now: WallTime) {
        let lately = self.spooled_at.is_some_and(|at| (at..at.plus(SPOOL_EVERY)).contains(&now));
        if lately {
            return;
        }
        self.spooled_at = Some(now);
        let all = self.spool.is_outgrown();
        let unspooled = |(hour, state): (&Hour, &mut HourFlush)| (*hour, state.unspooled(self.core, *hour, all));
        let mut parts: Vec<(Hour, Unspooled)> = self.hours.iter_mut().map(unspooled).collect();
        let flushes: Vec<_> = parts.iter_mut().flat_map(|(_, part)| std::mem::take(&mut part.flushes)).collect();
        if flushes.is_empty() {
            return;
        }
        // What is being written to just now may be in the file with an earlier value, which is not to be lost.
        let is_whole = all && parts.iter().all(|(_, part)| part.busy == 0);
        let written = if is_whole { self.spool.replace(flushes).await } else { self.spool.append(flushes).await };
        if written.is_ok() {
            for (hour, part) in &parts {
                if let Some(state) = self.hours.get_mut(hour) {
                    state.spooled(part);
                }
            }
        }
        self.note_spool(&written);
    }

    fn note_spool(&self, result: &io::Result<()>) {
        let fails = result.is_err();
        let failed = self.core.spool_fails.swap(fails, Ordering::Relaxed);
        match result {
            Err(error) if !failed => tracing::error!(
                %error, folder = %self.core.spool.display(),
                "usage cannot be written to the spool: nothing is lost by that, but a power cut while the ledger is away would take it"
            ),
            Ok(()) if failed => tracing::info!("the spool works again"),
            _ => {}
        }
    }
}

/// Whether the things the background task does are going well; it is logged when that changes.
#[derive(Default)]
struct Health {
    files: Going,
    ledger: Going,
    archive: Going,
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
