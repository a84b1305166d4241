//! Hours: the next one is prepared before it begins, a past one is folded when nothing in it can change any more.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::folder;
use super::shard::{SHARED, Shard, Writer};
use super::slab::Slab;
use crate::time::{Hour, WallTime};

/// How long before its start an hour is prepared.
const LEAD: Duration = Duration::from_secs(300);

impl Core {
    /// Makes the files that calls will soon need, so that no call has to. May wait for a disk.
    pub(super) fn prepare(&self, now: WallTime) -> io::Result<()> {
        let latest = self.latest().max(now.hour());
        let target = if now.plus(LEAD) >= latest.end() { latest.next() } else { latest };
        let shards: Vec<Arc<Shard>> = self.shards.lock().clone();
        shards.iter().try_for_each(|shard| shard.prepare(self, latest, target))
    }

    /// Sees to it that no charge is opened in `hour` any more. False while one may be: a thread that has not had a call since.
    pub(super) fn leave(&self, hour: Hour) -> bool {
        let latest = self.latest();
        if hour >= latest {
            return false;
        }
        if let Some(shared) = self.shared.lock().as_mut() {
            shared.enter(latest);
        }
        for writer in self.idle.lock().iter_mut() {
            writer.enter(latest);
        }
        let shards: Vec<Arc<Shard>> = self.shards.lock().clone();
        shards.iter().all(|shard| shard.leave(hour))
    }

    /// Sees to it that there is a file of a later hour than this.
    pub(super) fn goes_on_after(&self, hour: Hour, now: WallTime) -> bool {
        let is_later = |slab: &Arc<Slab>| slab.identity().shard == SHARED && slab.identity().hour > hour;
        self.slabs.lock().iter().any(is_later) || (self.prepare(now).is_ok() && self.slabs.lock().iter().any(is_later))
    }

    /// Removes the files of an hour whose last values the ledger has. The shared shard's go last: whatever a kill leaves of the
    /// others, the rest shows no call as open, since the calls that moved to the shared shard ended there.
    pub(super) fn fold(&self, hour: Hour) -> io::Result<()> {
        let mut slabs: Vec<Arc<Slab>> =
            self.slabs.lock().iter().filter(|slab| slab.identity().hour == hour).cloned().collect();
        slabs.sort_by_key(|slab| slab.identity().shard == SHARED);
        for slab in &slabs {
            slab.fold()?;
        }
        self.slabs.lock().retain(|slab| slab.identity().hour != hour);
        if let Some(shared) = self.shared.lock().as_mut() {
            shared.let_go();
        }
        self.idle.lock().iter_mut().for_each(Writer::let_go);
        Ok(())
    }

    /// Removes every trace of this incarnation from the folder, once the ledger has all of these hours. The lock goes last.
    pub(super) fn retire(&self, hours: impl Iterator<Item = Hour>) -> io::Result<()> {
        *self.shared.lock() = None;
        for hour in hours {
            self.fold(hour)?;
        }
        fs::remove_file(folder::alive_path(&self.folder, self.incarnation))?;
        if self.in_memory {
            // Other gateways of this host may be in there: then it stays.
            let _ = fs::remove_dir(&self.folder);
        }
        Ok(())
    }

    /// The files there are, those of the shared shard first.
    pub(super) fn slabs(&self) -> Vec<Arc<Slab>> {
        let mut slabs = self.slabs.lock().clone();
        slabs.sort_by_key(|slab| slab.identity().shard);
        slabs
    }
}
