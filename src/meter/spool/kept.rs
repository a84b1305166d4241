//! An hour that is over and done with, on the disk: what a ledger that lost it is sent again. It is kept until no server to
//! come may need it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, SpoolFile};
use super::frame::{Damage, Foreign, Owner, Record};
use crate::meter::record::{Closing, Counters, Flush, LineKey};
use crate::principal::{Incarnation, LedgerServer};
use crate::time::{Hour, WallTime};

/// How long after its end an hour is kept. No hour leaves the ledger for the archive before that.
const RETENTION: Duration = Duration::from_secs(48 * 3600);
/// How long after its end the slabs of an hour stay when it cannot be written down. The ledger has acknowledged it, and memory
/// is not to fill up for want of a second copy.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// What a kept hour says.
#[derive(Debug, Default)]
pub struct KeptHour {
    pub flushes: Vec<Flush>,
    /// Who last acknowledged all of it.
    pub acknowledged: Option<LedgerServer>,
    pub damage: Option<Damage>,
}

/// Whether an hour need not be kept any longer.
pub fn is_old(hour: Hour, now: WallTime) -> bool {
    now > hour.end().plus(RETENTION)
}

/// Whether the slabs of an hour may go although it could not be written down.
pub fn is_given_up(hour: Hour, now: WallTime) -> bool {
    now > hour.end().plus(PATIENCE)
}

pub fn path(folder: &Path, incarnation: Incarnation, hour: Hour) -> PathBuf {
    folder.join(format!("{incarnation}-{}.{}", hour.0, super::HOUR))
}

/// Writes an hour down that `server` has acknowledged, as far as that is known.
pub fn write(
    folder: &Path,
    owner: Owner,
    hour: Hour,
    flushes: Vec<Flush>,
    server: Option<LedgerServer>,
) -> io::Result<()> {
    let records: Vec<Record> = flushes.into_iter().map(Record::Flush).chain(server.map(Record::Acknowledged)).collect();
    SpoolFile::write(&path(folder, owner.incarnation, hour), owner, &records).map(drop)
}

/// `Ok(None)`: there is no such hour.
pub fn read(folder: &Path, owner: Owner, hour: Hour) -> io::Result<Option<Result<KeptHour, Foreign>>> {
    match file::read(&path(folder, owner.incarnation, hour), owner) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => Ok(Some(read?.map(|content| {
            let mut kept = KeptHour { damage: content.damage, ..KeptHour::default() };
            for record in content.records {
                match record {
                    Record::Flush(flush) => kept.flushes.push(flush),
                    Record::Acknowledged(server) => kept.acknowledged = Some(server),
                    Record::AcknowledgedIn(_) => {}
                }
            }
            kept
        }))),
    }
}

/// Notes who has the hour now. Where somebody else is at it nothing is noted, and it is sent once more.
pub fn acknowledge(folder: &Path, owner: Owner, hour: Hour, server: LedgerServer) -> io::Result<()> {
    match SpoolFile::open(&path(folder, owner.incarnation, hour), owner)? {
        Some(mut file) => file.append(&[Record::Acknowledged(server)]),
        None => Ok(()),
    }
}

pub fn remove(folder: &Path, incarnation: Incarnation, hour: Hour) -> io::Result<()> {
    file::remove(&path(folder, incarnation, hour))
}

impl KeptHour {
    pub fn lines(&self) -> impl Iterator<Item = &(LineKey, Counters)> {
        self.flushes.iter().flat_map(|flush| &flush.lines)
    }

    /// The closing, where the whole hour can be believed.
    pub fn closing(&self) -> Option<Closing> {
        self.flushes.iter().filter(|_| self.damage.is_none()).find_map(|flush| flush.closing)
    }
}
