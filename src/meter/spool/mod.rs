//! The spool: usage on a disk. The slabs are in memory, and the ledger may be away or lose what it acknowledged; so there are
//! two kinds of files in `<meter.dir>/spool`, all with absolute values, and both are read as [`frame`] says.
//!
//! - `<incarnation>.spool`: lines that the ledger does not have yet, while it is away. It goes once the ledger has everything.
//! - `<incarnation>-<hour>.hour`: all of an hour that was closed and whose slabs are gone ([`kept`]), for another epoch.
//!
//! [`folded`] looks after the hours of this incarnation, [`replay`] after those of the dead; what else these left is taken up by
//! [`super::recover`].

pub mod file;
pub mod folded;
pub mod frame;
pub mod kept;
pub mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::file::{Found, Left, SpoolFile};
use self::frame::{Damage, Foreign, Owner, Record};
use super::record::{Counters, Flush, LineKey};
use crate::principal::{Incarnation, StoreId};
use crate::time::Hour;

const SPOOL: &str = "spool";
const HOUR: &str = "hour";
/// The file is written anew, without what is outdated, once it is so many times as long as when that was last done ...
const GROWTH: u64 = 4;
/// ... but not before it has so many bytes.
const SMALL: u64 = 1 << 20;

pub fn folder_in(meter_dir: &Path) -> PathBuf {
    meter_dir.join("spool")
}

fn live_path(folder: &Path, incarnation: Incarnation) -> PathBuf {
    folder.join(format!("{incarnation}.{SPOOL}"))
}

/// Where a living incarnation writes what the ledger does not have yet.
pub struct Spool {
    live: Arc<Mutex<Live>>,
    /// There may be a file, so it is worth looking.
    may_be_there: bool,
}

struct Live {
    path: PathBuf,
    owner: Owner,
    file: Option<SpoolFile>,
    /// How long the file was when it was last written as a whole.
    compact: u64,
}

impl Spool {
    pub fn new(folder: &Path, owner: Owner) -> Self {
        let path = live_path(folder, owner.incarnation);
        Self { live: Arc::new(Mutex::new(Live { path, owner, file: None, compact: 0 })), may_be_there: false }
    }

    /// Whether the next write should be of all lines that the ledger does not have, with [`Spool::replace`].
    pub fn is_outgrown(&self) -> bool {
        let live = self.live.lock();
        live.file.as_ref().is_none_or(|file| file.length() > SMALL.max(live.compact.saturating_mul(GROWTH)))
    }

    /// Writes behind what is there.
    pub async fn append(&mut self, flushes: Vec<Flush>) -> io::Result<()> {
        self.work(move |live| match &mut live.file {
            Some(file) => file.append(&records(flushes)),
            None => live.replace(flushes),
        })
        .await
    }

    /// Writes the file anew.
    pub async fn replace(&mut self, flushes: Vec<Flush>) -> io::Result<()> {
        self.work(|live| live.replace(flushes)).await
    }

    /// Removes the file: the ledger has all that is in it.
    pub async fn clear(&mut self) -> io::Result<()> {
        if self.may_be_there {
            self.work(|live| live.file.take().map_or(Ok(()), SpoolFile::remove)).await?;
            self.may_be_there = false;
        }
        Ok(())
    }

    /// Should the caller stop waiting, the work is done all the same, and before what is asked for next.
    async fn work(&mut self, work: impl FnOnce(&mut Live) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        self.may_be_there = true;
        let live = Arc::clone(&self.live);
        off_thread(move || work(&mut live.lock())).await
    }
}

impl Live {
    fn replace(&mut self, flushes: Vec<Flush>) -> io::Result<()> {
        let file = SpoolFile::write(&self.path, self.owner, &records(flushes))?;
        self.compact = file.length();
        self.file = Some(file);
        Ok(())
    }
}

fn records(flushes: Vec<Flush>) -> Vec<Record> {
    flushes.into_iter().map(Record::Flush).collect()
}

/// What is in a spool folder, by the names of its files.
#[derive(Default)]
pub struct Survey {
    /// Incarnations that were writing what the ledger did not have.
    pub live: BTreeSet<Incarnation>,
    pub hours: BTreeSet<(Incarnation, Hour)>,
    pub misnamed: Vec<PathBuf>,
}

/// Looks into a spool folder; one that is not there is empty.
pub fn survey(folder: &Path) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(survey),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let (stem, extension) = (path.file_stem().and_then(|stem| stem.to_str()), path.extension());
        match (stem.and_then(read_name), extension.and_then(|extension| extension.to_str())) {
            (Some((incarnation, None)), Some(SPOOL)) => drop(survey.live.insert(incarnation)),
            (Some((incarnation, Some(hour))), Some(HOUR)) => drop(survey.hours.insert((incarnation, hour))),
            (_, Some(SPOOL | HOUR)) => survey.misnamed.push(path),
            _ => {}
        }
    }
    Ok(survey)
}

fn read_name(stem: &str) -> Option<(Incarnation, Option<Hour>)> {
    match stem.split_once('-') {
        None => Some((stem.parse().ok()?, None)),
        Some((incarnation, hour)) => Some((incarnation.parse().ok()?, Some(Hour(hour.parse().ok()?)))),
    }
}

/// What a dead incarnation had written while the ledger was away. Nobody else can take it up while this lives.
#[derive(Default)]
pub struct Remains {
    pub hours: BTreeMap<Hour, HourRemains>,
    /// The file, and what is wrong with it.
    pub left: Option<(PathBuf, Wrong)>,
    file: Option<Left>,
}

#[derive(Default)]
pub struct HourRemains {
    pub lines: BTreeMap<LineKey, Counters>,
    /// The greatest sequence number.
    pub flushes: u64,
}

/// Why a file of the spool is left where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Foreign(StoreId),
    Damaged(Damage),
}

impl Remains {
    /// `None`: the incarnation is alive, or somebody else is at it.
    pub fn take_up(folder: &Path, owner: Owner) -> io::Result<Option<Self>> {
        let mut remains = Self::default();
        let left = match Left::take_up(&live_path(folder, owner.incarnation), owner)? {
            Found::InUse => return Ok(None),
            Found::Nothing => return Ok(Some(remains)),
            Found::Left(left) => left,
        };
        let wrong = match &left.content {
            Err(Foreign(store_id)) => Some(Wrong::Foreign(*store_id)),
            Ok(content) => {
                content.records.iter().for_each(|record| remains.add(record));
                content.damage.map(Wrong::Damaged)
            }
        };
        remains.left = wrong.map(|wrong| (left.path.clone(), wrong));
        remains.file = Some(left);
        Ok(Some(remains))
    }

    fn add(&mut self, record: &Record) {
        let Record::Flush(flush) = record else { return };
        let hour = self.hours.entry(flush.hour).or_default();
        hour.flushes = hour.flushes.max(flush.sequence);
        for (key, counters) in &flush.lines {
            let line = hour.lines.entry(*key).or_default();
            *line = line.max(counters);
        }
    }

    /// Removes the file, unless it is damaged or of others; the ledger has what was in it.
    pub fn bury(&self) -> io::Result<()> {
        match &self.file {
            Some(left) if self.left.is_none() => {
                file::remove(&left.path)?;
                file::remove(&left.path.with_extension(file::UNFINISHED))
            }
            _ => Ok(()),
        }
    }
}

pub async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
