//! When each key was last used, and whether from a browser, from the lines of the ledger.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::clock;
use crate::control::Control;
use crate::meter::record::{Counters, LedgerLine};
use crate::principal::KeyId;
use crate::store::StoreError;
use crate::time::{BootTime, Hour, WallTime};

/// How far back the first look goes, in hours. A key that was not used since has no last use.
const LOOKS_BACK: u32 = 35 * 24;
/// How many hours are read at once.
const AT_ONCE: u32 = 24;
/// What was read is good for this long.
const FRESH: Duration = Duration::from_millis(250);

/// A memory of what was read: all hours once, then only those that may still change.
#[derive(Default)]
pub struct LastUsed {
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    by_key: HashMap<KeyId, Use>,
    /// Everything before this hour was read when it could no longer change much.
    from: Option<Hour>,
    at: Option<BootTime>,
}

/// What is known of a key's use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    pub last: WallTime,
    /// A browser sent it, so a page may hold it.
    pub seen_in_browser: bool,
}

impl LastUsed {
    /// The last use of each of `keys` that has one.
    pub async fn of(&self, keys: &[KeyId], control: &Control) -> Result<HashMap<KeyId, Use>, StoreError> {
        let mut read = self.read.lock().await;
        let now = clock::boot();
        if read.at.is_none_or(|at| now.since(at) >= FRESH) {
            read.catch_up(control, clock::wall().hour()).await?;
            read.at = Some(now);
        }
        Ok(keys.iter().filter_map(|key| Some((*key, *read.by_key.get(key)?))).collect())
    }
}

impl Read {
    async fn catch_up(&mut self, control: &Control, now: Hour) -> Result<(), StoreError> {
        let mut from = self.from.unwrap_or(Hour(now.0.saturating_sub(LOOKS_BACK)));
        for (hour, folded) in control.left(from, now).await? {
            match control.archived(hour, &folded).await {
                Ok(archived) => self.take(&archived.lines),
                // Keys can be looked after without it.
                Err(error) => tracing::error!(%error, %hour, "when keys were last used is not known of an hour"),
            }
        }
        while from <= now {
            let to = Hour(from.0.saturating_add(AT_ONCE - 1)).min(now);
            self.take(&control.store.lines(from, to).await?);
            from = to.next();
        }
        // Late values of the hour before are still on their way.
        self.from = Some(Hour(now.0.saturating_sub(1)));
        Ok(())
    }

    fn take(&mut self, lines: &[LedgerLine]) {
        for line in lines {
            let used = self.by_key.entry(line.key.key_id).or_default();
            used.last = used.last.max(WallTime(line.counters.last_used));
            used.seen_in_browser |= line.counters.flags & Counters::SEEN_IN_BROWSER != 0;
        }
    }
}
