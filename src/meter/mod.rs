//! Metering: a charge is opened at admission and committed exactly once; counters survive SIGKILL; absolute values reach the ledger.
//!
//! - [`charge`]: what the path of a call holds. [`shard`] (with [`line_map`]): who writes where.
//! - [`layout`] (with [`header`], [`line`], [`packed_key`] and [`words`]): what is in a file, and why no kill can tear it.
//!   [`slab`]: the mapped file. [`folder`]: where the files are and who is alive.
//! - [`window`]: hours are prepared early and folded when over. [`flush`] (with [`hour_flush`] and [`batch`]): absolute values to the
//!   ledger. [`spool`]: the same on a disk, for when the ledger is away or loses what it had. [`recover`] (with
//!   [`estate`] and [`inherit`]): what dead incarnations left. [`witness`]: whether the ledger may have lost what it had.

mod batch;
mod charge;
mod estate;
mod flush;
mod folder;
mod header;
mod hour_flush;
mod inherit;
mod layout;
mod line;
mod line_map;
#[cfg(test)]
mod memory_ledger;
mod packed_key;
pub mod record;
mod recover;
mod shard;
mod slab;
mod spool;
mod window;
pub mod witness;
mod words;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::charge::{Charge, Tally};
pub use self::flush::{FlushReport, Flushed, Flusher};
pub use self::folder::FolderError;
use self::folder::SlabFolder;
use self::header::Identity;
use self::packed_key::PackedKey;
use self::record::{LineKey, Outcome};
pub use self::recover::{LeftInPlace, RecoveredHour, Recovery, RecoveryReport, Why};
use self::shard::{SHARED, Shard, Writer};
use self::slab::Slab;
use self::witness::Witness;
use crate::principal::{Incarnation, StoreId};
use crate::time::{Hour, WallTime};

/// What a meter is opened with.
#[derive(Clone, Debug)]
pub struct MeterOptions {
    /// Absent: `/dev/shm/tollgate-<uid>/<store id>` where that is a tmpfs with room, else `spool_dir` with a warning.
    pub slab_dir: Option<PathBuf>,
    /// `meter.dir`: the spool is a folder in it.
    pub spool_dir: PathBuf,
    pub store_id: StoreId,
    /// Of this process, and never used before.
    pub incarnation: Incarnation,
    pub now: WallTime,
}

/// The meter cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(
        "cannot lock a file in {path}: {source}. Set meter.slab_dir to a local file system; each process is an incarnation of its own"
    )]
    Alive { path: PathBuf, source: io::Error },
    #[error(
        "cannot reserve room for usage counters in {path}: {source}. Free some, or set meter.slab_dir to a larger tmpfs"
    )]
    Room { path: PathBuf, source: io::Error },
}

/// A call cannot be counted now, so it must not be passed on (`Denial::CannotMeter`).
#[derive(Debug, thiserror::Error)]
pub enum Unmetered {
    #[error("no room for another usage line: {0}")]
    NoRoom(#[from] io::Error),
    #[error("there was no room for another usage line a moment ago")]
    Lately,
    #[error("the meter is closed")]
    Closed,
}

/// The counters of this process. Dropping it is like dying: what is still open is left to recovery as interrupted.
pub struct Meter {
    /// A process has one meter from start to end, so it is leaked: a charge then needs no count of references, which all
    /// threads would fight for.
    core: &'static Core,
}

impl Meter {
    /// Chooses the slab folder, takes the lock of this incarnation, and makes the first file.
    pub fn open(options: MeterOptions) -> Result<Arc<Self>, MeterError> {
        Self::open_sized(options, Sizing::USUAL)
    }

    fn open_sized(options: MeterOptions, sizing: Sizing) -> Result<Arc<Self>, MeterError> {
        let (chosen, alive) = take_place(&options)?;
        let core = Core::new(&options, chosen, sizing, alive);
        core.start(options.now).map_err(|source| MeterError::Room { path: core.folder.clone(), source })?;
        Ok(Arc::new(Self { core }))
    }

    pub fn incarnation(&self) -> Incarnation {
        self.core.incarnation
    }

    /// Where the slabs are.
    pub fn folder(&self) -> &Path {
        &self.core.folder
    }

    /// Gives the calling thread a shard of its own, until it ends. For each data-plane thread, at its start; again does nothing.
    pub fn attach_thread(&self) {
        shard::attach(self.core);
    }

    /// Counts an admission, before it returns. The hour is that of `now`, but never before one this process has used.
    pub fn open_charge(&self, key: LineKey, now: WallTime, browser: bool) -> Result<Charge, Unmetered> {
        let opened = match shard::with_own(self.core, |writer| writer.open(&key, now, browser)) {
            Some(opened) => opened?,
            None => self.core.shared.lock().as_mut().ok_or(Unmetered::Closed)?.open(&key, now, browser)?,
        };
        Ok(Charge::new(self.core, key, opened))
    }

    /// Notes that a browser sent the key, in a call that is not admitted. Nothing is counted.
    pub fn mark_browser(&self, key: LineKey, now: WallTime) -> Result<(), Unmetered> {
        match shard::with_own(self.core, |writer| writer.mark_browser(&key, now)) {
            Some(marked) => marked,
            None => self.core.shared.lock().as_mut().ok_or(Unmetered::Closed)?.mark_browser(&key, now),
        }
    }

    /// Whether the last file that was needed could be made: for readiness.
    pub fn is_writable(&self) -> bool {
        !self.core.starved.load(Ordering::Relaxed)
    }

    /// False while usage cannot be written to the spool: then a power cut could take what the ledger does not have.
    pub fn is_spool_writable(&self) -> bool {
        !self.core.spool_fails.load(Ordering::Relaxed)
    }

    /// Enters the hour of `now` on the calling thread, so that the one before can be closed although no call came since. For
    /// each data-plane thread, about once a second.
    pub fn keep_up(&self, now: WallTime) {
        let hour = now.hour().max(self.core.latest());
        shard::with_own(self.core, |writer| {
            writer.enter(hour);
            writer.let_go();
        });
    }

    /// Ends that found no line, which the order of making lines rules out. Anything but 0 is a defect, and an alarm.
    pub fn lost(&self) -> u64 {
        self.core.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.core.close();
    }
}

/// How many lines the files of a shard have: the first of an hour, and the largest.
#[derive(Clone, Copy)]
struct Sizing {
    first: u32,
    most: u32,
}

impl Sizing {
    /// 176 KiB, and growing to 11 MiB.
    const USUAL: Self = Self { first: 1 << 10, most: 1 << 16 };
}

/// What the threads of the process share of the meter.
struct Core {
    incarnation: Incarnation,
    store_id: StoreId,
    boot_id: [u8; 16],
    folder: PathBuf,
    spool: PathBuf,
    /// The folder is to be removed once it is empty.
    in_memory: bool,
    sizing: Sizing,
    /// The greatest hour used so far.
    latest: AtomicU32,
    /// By number.
    shards: Mutex<Vec<Arc<Shard>>>,
    /// Writers of threads that ended.
    idle: Mutex<Vec<Writer>>,
    shared: Mutex<Option<Writer>>,
    /// All files that are not folded. A file is in here before it is written to.
    slabs: Mutex<Vec<Arc<Slab>>>,
    alive: Mutex<Option<File>>,
    starved: AtomicBool,
    spool_fails: AtomicBool,
    lost: AtomicU64,
    witness: Witness,
}

impl Core {
    fn new(options: &MeterOptions, folder: SlabFolder, sizing: Sizing, alive: File) -> &'static Self {
        Box::leak(Box::new(Self {
            incarnation: options.incarnation,
            store_id: options.store_id,
            boot_id: boot_id(),
            folder: folder.path,
            spool: spool::folder_in(&options.spool_dir),
            in_memory: folder.in_memory,
            sizing,
            latest: AtomicU32::new(options.now.hour().0),
            shards: Mutex::default(),
            idle: Mutex::default(),
            shared: Mutex::default(),
            slabs: Mutex::default(),
            alive: Mutex::new(Some(alive)),
            starved: AtomicBool::new(false),
            spool_fails: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            witness: Witness::default(),
        }))
    }

    /// Makes the shared shard and its first file, so that a folder without room is found at the start.
    fn start(&'static self, now: WallTime) -> io::Result<()> {
        let shard = Arc::new(Shard::new(SHARED));
        self.shards.lock().push(Arc::clone(&shard));
        *self.shared.lock() = Some(Writer::new(self, shard));
        self.prepare(now)
    }

    fn latest(&self) -> Hour {
        Hour(self.latest.load(Ordering::Acquire))
    }

    fn advance(&self, hour: Hour) {
        if hour > self.latest() {
            self.latest.fetch_max(hour.0, Ordering::AcqRel);
        }
    }

    /// A writer for a new thread: that of a thread that ended, or one for a new shard. `None`: all numbers are taken.
    fn claim_writer(&'static self) -> Option<Writer> {
        if let Some(writer) = self.idle.lock().pop() {
            return Some(writer);
        }
        let mut shards = self.shards.lock();
        let shard = Arc::new(Shard::new(u16::try_from(shards.len()).ok()?));
        shards.push(Arc::clone(&shard));
        Some(Writer::new(self, shard))
    }

    fn take_back(&self, writer: Writer) {
        let mut idle = self.idle.lock();
        if self.alive.lock().is_some() {
            idle.push(writer);
        }
    }

    fn create(&self, shard: u16, hour: Hour, extent: u16) -> io::Result<Arc<Slab>> {
        let identity = Identity {
            store_id: self.store_id,
            boot_id: self.boot_id,
            incarnation: self.incarnation,
            hour,
            shard,
            extent,
            capacity: self.capacity(shard, hour, extent),
        };
        let made = Slab::create(&self.folder, identity).map(Arc::new);
        self.starved.store(made.is_err(), Ordering::Relaxed);
        let slab = made?;
        self.slabs.lock().push(Arc::clone(&slab));
        Ok(slab)
    }

    /// Twice as many lines as in the file before; the first of an hour has room for as many as the hour before had.
    fn capacity(&self, shard: u16, hour: Hour, extent: u16) -> u32 {
        let slabs = self.slabs.lock();
        let ours = slabs.iter().filter(|slab| slab.identity().shard == shard && slab.identity().hour <= hour);
        let lines = if extent == 0 {
            let previous = ours.clone().map(|slab| slab.identity().hour).filter(|one| *one < hour).max();
            let of_previous = ours.filter(|slab| Some(slab.identity().hour) == previous);
            of_previous.map(|slab| slab.view().published()).fold(0, u32::saturating_add)
        } else {
            let largest = ours.filter(|slab| slab.identity().hour == hour).map(|slab| slab.identity().capacity).max();
            largest.unwrap_or(0).saturating_mul(2)
        };
        lines.clamp(self.sizing.first, self.sizing.most).checked_next_power_of_two().unwrap_or(self.sizing.most)
    }

    /// Counts, in the shared shard, the end of a call that began in the shard of another thread.
    fn commit_elsewhere(&self, hour: Hour, key: &PackedKey, outcome: Outcome, tally: &Tally) {
        let committed = match self.shared.lock().as_mut() {
            Some(writer) => writer.commit_for(hour, key, outcome, tally),
            None => Err(Unmetered::Closed),
        };
        if let Err(error) = committed {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%hour, outcome = outcome.name(), %error, "a call ended without being counted");
        }
    }

    /// Lets go of all files and locks.
    fn close(&self) {
        *self.shared.lock() = None;
        for shard in self.shards.lock().iter() {
            shard.close();
        }
        self.slabs.lock().clear();
        let mut idle = self.idle.lock();
        idle.clear();
        *self.alive.lock() = None;
    }
}

/// Chooses the folder and takes the lock of this incarnation in it.
fn take_place(options: &MeterOptions) -> Result<(SlabFolder, File), MeterError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let chosen = SlabFolder::choose(options.slab_dir.as_deref(), &options.spool_dir, options.store_id)?;
        match folder::declare_alive(&chosen.path, options.incarnation) {
            Ok(alive) => {
                if let Some(warning) = &chosen.warning {
                    tracing::warn!("{warning}");
                }
                return Ok((chosen, alive));
            }
            // The last gateway in there has just ended and taken the folder with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 10 => {}
            Err(source) => return Err(MeterError::Alive { path: chosen.path, source }),
        }
    }
}

/// Which boot this is. It is written down for people; nothing is decided by it, so it may be all zero.
fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_be_bytes()
}

#[cfg(test)]
mod tests;
