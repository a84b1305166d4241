//! When a client's next call is due. The timers of the runtime are a millisecond coarse, so the kernel's are used.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::load::Pace;

pub struct Pacer(Option<Ticks>);

struct Ticks {
    timer: AsyncFd<OwnedFd>,
    /// When the call before was due.
    last: Instant,
    every: Duration,
    /// Calls that are due and were not asked for yet.
    pending: u64,
}

impl Pacer {
    /// Of client `number` of `of`, which take turns at even distances.
    pub fn new(pace: Pace, number: usize, of: usize) -> Self {
        let Pace::PerSecond(rate) = pace else { return Self(None) };
        let between = Duration::from_secs(1) / rate;
        let (every, first) = (between * of as u32, between * (number as u32 + 1));
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).expect("a timer");
        let spec = Itimerspec { it_interval: timespec(every), it_value: timespec(first) };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec).expect("a time in the future");
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe code; a descriptor that is owned stays open as long as this is there"
        )]
        let timer = AsyncFd::new(timer).expect("a timer can be waited for");
        Self(Some(Ticks { timer, last: Instant::now() + first - every, every, pending: 0 }))
    }

    /// Waits for the next call's time, and says when that was; at once where calls follow each other. A call that could not be sent at its
    /// time, since the one before it was not answered, was due then all the same.
    pub async fn due(&mut self) -> Instant {
        let Some(ticks) = &mut self.0 else { return Instant::now() };
        while ticks.pending == 0 {
            let mut ready = ticks.timer.readable().await.expect("the timer is there");
            let mut count = [0; 8];
            let read = ready.try_io(|timer| rustix::io::read(timer.get_ref(), &mut count).map_err(Into::into));
            if read.is_ok() {
                ticks.pending = u64::from_ne_bytes(count);
            }
        }
        ticks.pending -= 1;
        ticks.last += ticks.every;
        ticks.last
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}
