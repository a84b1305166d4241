//! The only place where clocks are read.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::time::{BootTime, WallTime};

/// Now, by `CLOCK_BOOTTIME`: goes on through suspend, never jumps with the wall clock.
pub fn boot() -> BootTime {
    BootTime(nanos(clock_gettime(ClockId::Boottime)))
}

/// Now, by the wall clock.
pub fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn nanos(at: Timespec) -> u64 {
    let seconds = u64::try_from(at.tv_sec).unwrap_or_default();
    let rest = u64::try_from(at.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
