//! Places at which a test kills the process. In builds without debug assertions there are none.

/// Kills this process as SIGKILL does when it passes the place that `TOLLGATE_FAULT` names for the n-th time (`name` or
/// `name:n`), so that tests can show what a crash right there leaves behind.
pub fn point(name: &str) {
    if strikes(name) {
        strike();
    }
}

/// Whether this passing of the place is the one that kills; for places that do something half before [`strike`].
#[cfg(debug_assertions)]
pub fn strikes(name: &str) -> bool {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("TOLLGATE_FAULT").ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(times.parse().ok()?)))
    });
    let Some((wanted, left)) = wanted else {
        return false;
    };
    wanted == name && left.fetch_sub(1, Ordering::SeqCst) == 1
}

#[cfg(not(debug_assertions))]
pub fn strikes(_: &str) -> bool {
    false
}

pub fn strike() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
