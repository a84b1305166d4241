//! The only place where clocks are read.

use std::sync::atomic::{AtomicI64, Ordering};
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
    let now = WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    #[cfg(test)]
    let now = shifted::from(now);
    now
}

/// The second that it is by the wall clock, as of its last tick: good to some milliseconds, and a fifth of the cost.
pub fn second() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or_default()
}

/// Milliseconds from the boot clock to the wall clock, as last compared by [`compare`].
static WALL_MINUS_BOOT: AtomicI64 = AtomicI64::new(i64::MIN);

/// The wall clock at `now`, from the last comparison: so a call reads one clock. Good to the interval of [`compare`].
pub fn wall_at(now: BootTime) -> WallTime {
    let offset = match WALL_MINUS_BOOT.load(Ordering::Relaxed) {
        i64::MIN => compare(),
        offset => offset,
    };
    let boot = i64::try_from(now.0 / 1_000_000).unwrap_or(i64::MAX);
    WallTime(u64::try_from(boot.saturating_add(offset)).unwrap_or_default())
}

/// Compares the two clocks anew, so that a step of the wall clock is followed. To be called a few times a second.
pub fn compare() -> i64 {
    let boot = i64::try_from(boot().0 / 1_000_000).unwrap_or(i64::MAX);
    let offset = i64::try_from(wall().0).unwrap_or(i64::MAX).saturating_sub(boot);
    WALL_MINUS_BOOT.store(offset, Ordering::Relaxed);
    offset
}

fn nanos(at: Timespec) -> u64 {
    let seconds = u64::try_from(at.tv_sec).unwrap_or_default();
    let rest = u64::try_from(at.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// A wall clock that a test moves, on its own thread only.
#[cfg(test)]
pub mod shifted {
    use std::cell::Cell;

    use crate::time::WallTime;

    thread_local! { static BY_MS: Cell<i64> = const { Cell::new(0) }; }

    /// So many milliseconds ahead of the real one, or behind it.
    pub fn to(ms: i64) {
        BY_MS.set(ms);
    }

    pub(super) fn from(now: WallTime) -> WallTime {
        WallTime(now.0.saturating_add_signed(BY_MS.get()))
    }
}
