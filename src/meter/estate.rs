//! What a dead incarnation left in the slab folder, read and checked but not changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use super::folder;
use super::layout::{Damage, View};
use super::record::{Counters, LineKey};
use super::shard::SHARED;
use super::spool::{Wrong, frame};
use super::words::WORD;
use crate::principal::{Incarnation, StoreId};
use crate::time::Hour;

/// Why a file is left where it is, neither counted nor removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("it belongs to {0}, which is another store")]
    Foreign(StoreId),
    #[error("it is damaged: {0}")]
    Damaged(#[from] Damage),
    #[error("it is damaged: {0}; what can be read of it was counted")]
    SpoolDamaged(frame::Damage),
    #[error("it is not what its name says")]
    Misnamed,
    #[error("it cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// It was counted, as far as it goes, and is kept in case the other file can be repaired.
    #[error("another file of its incarnation and hour is damaged or gone")]
    Incomplete,
}

/// A file that stays where it is, for a person to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftInPlace {
    pub path: PathBuf,
    pub why: Why,
}

impl From<(PathBuf, Wrong)> for LeftInPlace {
    fn from((path, wrong): (PathBuf, Wrong)) -> Self {
        let why = match wrong {
            Wrong::Foreign(store_id) => Why::Foreign(store_id),
            Wrong::Damaged(damage) => Why::SpoolDamaged(damage),
        };
        Self { path, why }
    }
}

/// The incarnations that have files in a folder, and the slabs whose names say nothing.
pub fn survey(folder: &Path) -> io::Result<(BTreeSet<Incarnation>, Vec<LeftInPlace>)> {
    let (mut found, mut left) = (BTreeSet::new(), Vec::new());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match whose(&path) {
            Some(incarnation) => drop(found.insert(incarnation)),
            None if has_extension(&path, folder::SLAB) => left.push(LeftInPlace { path, why: Why::Misnamed }),
            None => {}
        }
    }
    Ok((found, left))
}

fn whose(path: &Path) -> Option<Incarnation> {
    if has_extension(path, folder::ALIVE) {
        return path.file_stem()?.to_str()?.parse().ok();
    }
    let is_slab = has_extension(path, folder::SLAB) || has_extension(path, folder::UNFINISHED);
    folder::read_slab_name(path).filter(|_| is_slab).map(|(incarnation, _)| incarnation)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|text| text == extension)
}

/// All that a dead incarnation left. Nobody else can take it up while this lives.
pub struct Estate {
    pub hours: BTreeMap<Hour, HourEstate>,
    pub left: Vec<LeftInPlace>,
    folder: PathBuf,
    incarnation: Incarnation,
    /// Files that never got a line.
    unfinished: Vec<PathBuf>,
    /// There was no lock file, so there shall be none afterwards.
    without_lock: bool,
    _lock: File,
}

/// The sums of one hour over all shards, and the files they were read from.
#[derive(Default)]
pub struct HourEstate {
    pub lines: BTreeMap<LineKey, KeySum>,
    /// Files, those of the shared shard last.
    pub files: Vec<PathBuf>,
    pub flushes: u64,
    /// Some file is damaged or gone, so the sums may be too small.
    pub incomplete: bool,
    /// Under which boots of the machine they were written.
    pub boot_ids: BTreeSet<[u8; 16]>,
}

#[derive(Default)]
pub struct KeySum {
    pub counters: Counters,
    in_shared: bool,
}

impl Estate {
    /// Reads the files of an incarnation that is dead. `None`: it is alive, or somebody else is at it.
    pub fn take_up(folder: &Path, incarnation: Incarnation, store_id: StoreId) -> io::Result<Option<Self>> {
        let without_lock = !folder::alive_path(folder, incarnation).exists();
        let Some(lock) = folder::lock_dead(folder, incarnation)? else { return Ok(None) };
        let mut estate = Self {
            hours: BTreeMap::new(),
            left: Vec::new(),
            folder: folder.to_owned(),
            incarnation,
            unfinished: Vec::new(),
            without_lock,
            _lock: lock,
        };
        // Listed under the lock: nobody adds or removes any of these files now.
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if whose(&path) == Some(incarnation) && !estate.take_file(path, store_id)? {
                return Ok(None);
            }
        }
        estate.check_hours();
        Ok(Some(estate))
    }

    /// Removes what was merged. Files of the shared shard go last: should this be cut short, the rest shows no call as
    /// interrupted that was not.
    pub fn bury(&self, hour: Hour) -> io::Result<()> {
        let Some(estate) = self.hours.get(&hour).filter(|estate| !estate.incomplete) else { return Ok(()) };
        estate.files.iter().try_for_each(fs::remove_file)
    }

    /// Removes the lock, where nothing is left that it would have to guard.
    pub fn close(&self) -> io::Result<()> {
        self.unfinished.iter().try_for_each(fs::remove_file)?;
        if self.left.is_empty() || self.without_lock {
            fs::remove_file(folder::alive_path(&self.folder, self.incarnation))?;
        }
        Ok(())
    }

    /// False where the file is locked, so that its process must be alive after all.
    fn take_file(&mut self, path: PathBuf, store_id: StoreId) -> io::Result<bool> {
        let Some((_, hour)) = folder::read_slab_name(&path) else { return Ok(true) };
        let why = match read_unlocked(&path) {
            Ok(None) => return Ok(false),
            Ok(Some(words)) if has_extension(&path, folder::SLAB) => {
                match self.hours.entry(hour).or_default().add(&path, &words, store_id) {
                    Ok(()) => return Ok(true),
                    Err(why) => why,
                }
            }
            Ok(Some(_)) => {
                self.unfinished.push(path);
                return Ok(true);
            }
            Err(error) => Why::Unreadable(error.kind()),
        };
        self.hours.entry(hour).or_default().incomplete = true;
        self.left.push(LeftInPlace { path, why });
        Ok(true)
    }

    fn check_hours(&mut self) {
        for hour in self.hours.values_mut() {
            // Every line is made in the shared shard first, and its files are removed last.
            hour.incomplete |= !hour.lines.values().all(|sum| sum.in_shared);
            if hour.incomplete {
                let incomplete = |path: &PathBuf| LeftInPlace { path: path.clone(), why: Why::Incomplete };
                self.left.extend(hour.files.iter().map(incomplete));
            }
        }
    }
}

impl HourEstate {
    /// The lines that count anything, with the calls that never ended.
    pub fn used_lines(&self) -> BTreeMap<LineKey, Counters> {
        let all = self.lines.iter().map(|(key, sum)| {
            let interrupted = self.interrupted(&sum.counters);
            (*key, Counters { interrupted, ..sum.counters })
        });
        all.filter(|(_, counters)| *counters != Counters::default()).collect()
    }

    /// Opened and never ended. Not known where a file is missing: the call may have ended in that one.
    fn interrupted(&self, of: &Counters) -> u64 {
        if self.incomplete { 0 } else { of.opened.saturating_sub(of.committed()) }
    }

    /// Adds all lines of a file, or nothing.
    pub(super) fn add(&mut self, path: &Path, words: &[AtomicU64], store_id: StoreId) -> Result<(), Why> {
        let (view, identity) = View::read(words)?;
        if identity.store_id != store_id {
            return Err(Why::Foreign(identity.store_id));
        }
        if path.file_name().and_then(|name| name.to_str()) != Some(&folder::slab_name(&identity)) {
            return Err(Why::Misnamed);
        }
        view.finish_commit()?;
        let keys: Vec<LineKey> = (0..view.published()).map(|line| view.key(line)).collect::<Result<_, _>>()?;
        let shared = identity.shard == SHARED;
        for (line, key) in (0..).zip(keys) {
            let sum = self.lines.entry(key).or_default();
            sum.counters = sum.counters.plus(&view.last_counters(line));
            sum.in_shared |= shared;
        }
        self.flushes = self.flushes.max(view.flushes());
        self.boot_ids.insert(identity.boot_id);
        let at = if shared { self.files.len() } else { 0 };
        self.files.insert(at, path.to_owned());
        Ok(())
    }
}

/// The words of a file; `None` where it is locked.
fn read_unlocked(path: &Path) -> io::Result<Option<Vec<AtomicU64>>> {
    let mut file = File::open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    match bytes.as_chunks::<WORD>() {
        (words, []) => Ok(Some(words.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word))).collect())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
