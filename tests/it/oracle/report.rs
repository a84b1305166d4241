//! What was seen in one play.

use std::fmt;
use std::time::Duration;

use super::judge::{Judge, Tally, Violation};

pub struct Report {
    pub violations: Vec<Violation>,
    /// All violations, also those that are not in the list.
    pub broken: usize,
    pub tally: Tally,
    pub deletes: Deletes,
    what: String,
    /// How long it was watched.
    pub lasted: Duration,
}

#[derive(Default)]
pub struct Deletes {
    /// From the first request to the 200, however often it was asked for.
    pub took: Vec<Duration>,
    /// Answers 202 that said until when at latest.
    pub promises: usize,
    /// The longest of those times.
    pub longest_promise: Duration,
    /// Answers 202 that could not say.
    pub pending: usize,
    /// Answers 503.
    pub refused: usize,
    /// No answer, for example since the control plane was killed.
    pub lost: usize,
}

/// What the answers to deletes must keep to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The slowest 200.
    pub took: Duration,
    /// The longest promise of a 202.
    pub promise: Duration,
}

impl Deletes {
    pub fn promised(&mut self, at_latest: Duration) {
        self.promises += 1;
        self.longest_promise = self.longest_promise.max(at_latest);
    }

    pub fn slowest(&self) -> Duration {
        self.took.last().copied().unwrap_or_default()
    }
}

impl Report {
    pub fn new(what: &str, judge: Judge, mut deletes: Deletes, lasted: Duration) -> Self {
        deletes.took.sort();
        let Judge { tally, violations, broken, .. } = judge;
        Self { violations, broken, tally, deletes, what: what.to_owned(), lasted }
    }

    /// There was something to be seen, and all of it was as it must be.
    #[track_caller]
    pub fn assert_clean(&self, bounds: Bounds) {
        let Self { tally, deletes, .. } = self;
        assert!(tally.passed > 0 && tally.denied > 0 && !deletes.took.is_empty(), "nothing was seen: {self}");
        let some: String = self.violations.iter().take(5).map(|violation| format!("\n{violation}")).collect();
        assert!(some.is_empty(), "{} violations, for example{some}", self.broken);
        assert!(deletes.slowest() <= bounds.took, "a delete took longer than {:?}: {self}", bounds.took);
        assert!(deletes.longest_promise <= bounds.promise, "a promise for later than {:?}: {self}", bounds.promise);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, broken, tally, deletes, lasted, .. } = self;
        let Tally { calls, passed, denied, unsure } = tally;
        let Deletes { took, promises, longest_promise, pending, refused, lost } = deletes;
        let of = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
        write!(
            f,
            "{what}: {calls} calls in {lasted:.1?} ({passed} passed, {denied} denied, {unsure} unsure), {} deletes answered 200 \
             after {:.1?} (p50), {:.1?} (p99) and {:.1?} at most, 202 for {longest_promise:.1?} at most {promises} times and \
             without a time {pending} times, 503 {refused} times, not at all {lost} times; {broken} violations",
            took.len(),
            of(50),
            of(99),
            deletes.slowest(),
        )
    }
}
