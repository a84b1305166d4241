//! Places at which a test kills the process, or holds it up. In builds without debug assertions there are none.

use std::time::Duration;

/// Kills this process as SIGKILL does when it passes the place that `TOLLGATE_FAULT` names for the n-th time since it serves
/// (`name` or `name:n`), so that tests can show what a crash right there leaves behind. `start/name` counts from the start.
pub fn point(name: &str) {
    if strikes(name) {
        strike();
    }
}

/// How long whoever passes this place is held up there: what `TOLLGATE_PAUSE` says (`name:milliseconds`), so that tests can make a
/// narrow race wide.
pub fn pause(name: &str) -> Option<Duration> {
    armed::pause(name)
}

/// The same for a place where nothing may be awaited: the thread stands still, as a busy machine may leave it standing.
#[allow(clippy::disallowed_methods, reason = "what a test wants to be blocked is blocked")]
pub fn hold_up(name: &str) {
    if let Some(pause) = pause(name) {
        std::thread::sleep(pause);
    }
}

/// The node serves: what is passed from now on counts.
pub fn serving() {
    armed::serving();
}

/// Whether this passing of the place is the one that kills; for places that do something half before [`strike`].
pub fn strikes(name: &str) -> bool {
    armed::strikes(name)
}

pub fn strike() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    struct Wanted {
        name: String,
        at_start: bool,
        left: AtomicU64,
    }

    static SERVING: AtomicBool = AtomicBool::new(false);
    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    static PAUSE: OnceLock<Option<(String, Duration)>> = OnceLock::new();

    pub fn serving() {
        SERVING.store(true, Ordering::SeqCst);
    }

    pub fn pause(name: &str) -> Option<Duration> {
        let wanted = PAUSE.get_or_init(|| {
            let text = std::env::var("TOLLGATE_PAUSE").ok()?;
            let (name, millis) = text.split_once(':')?;
            Some((name.to_owned(), Duration::from_millis(millis.parse().ok()?)))
        });
        wanted.as_ref().filter(|(wanted, _)| wanted == name).map(|(_, pause)| *pause)
    }

    pub fn strikes(name: &str) -> bool {
        let wanted = WANTED.get_or_init(|| {
            let text = std::env::var("TOLLGATE_FAULT").ok()?;
            let (at_start, text) = text.strip_prefix("start/").map_or((false, text.as_str()), |rest| (true, rest));
            let (name, times) = text.split_once(':').unwrap_or((text, "1"));
            Some(Wanted { name: name.to_owned(), at_start, left: AtomicU64::new(times.parse().ok()?) })
        });
        let Some(Wanted { name: wanted, at_start, left }) = wanted else {
            return false;
        };
        wanted == name && (*at_start || SERVING.load(Ordering::SeqCst)) && left.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

#[cfg(not(debug_assertions))]
mod armed {
    use std::time::Duration;

    pub fn pause(_: &str) -> Option<Duration> {
        None
    }

    pub fn serving() {}

    pub fn strikes(_: &str) -> bool {
        false
    }
}
