//! The rules that every call is held against. All times are of one clock, that of the test's process.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A key from its creation to the end of the test.
#[derive(Debug)]
pub struct Life {
    pub id: String,
    pub text: String,
    times: Mutex<Times>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    asked: Option<Instant>,
    is_final: Option<Instant>,
}

/// A call, from before its connection was used until its answer was read.
#[derive(Clone, Debug)]
pub struct Call {
    pub life: Arc<Life>,
    pub gateway: usize,
    pub how: How,
    /// By which the service behind the gateway tells it from others.
    pub mark: u64,
    pub started: Instant,
    pub ended: Instant,
    pub said: Said,
}

/// Which kind of client called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// HTTP/1.1, one call after the other.
    Http,
    /// HTTP/1.1, many written at once.
    Piped,
    /// HTTP/1.1, each on a connection of its own, and none waits for another.
    Fresh,
    /// gRPC, side by side on one connection.
    Grpc,
}

/// What a call with a key came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Passed,
    Denied,
    /// The key cannot be verified now. It says nothing against the key, and lets nothing through.
    Unsure,
    /// No answer, for example since the gateway was killed.
    Lost,
}

/// Hears of every call and holds it against the rules a little later, so that a long play takes no more memory than a short one.
#[derive(Debug, Default)]
pub struct Judge {
    pub tally: Tally,
    /// The first of them.
    pub violations: Vec<Violation>,
    /// All of them.
    pub broken: usize,
    /// Calls that are not judged yet, about in the order of their ends.
    waiting: VecDeque<Call>,
    /// Calls without an answer with a key whose deletion was final: whatever they waited in, the service must never see them.
    unanswered: Vec<Call>,
    /// The marks of calls that the service behind the gateways has seen, and that are not judged yet.
    seen: HashSet<u64>,
}

/// How many calls there were, by what they came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub calls: usize,
    pub passed: usize,
    pub denied: usize,
    pub unsure: usize,
}

/// From the end of a call until it is judged: by then it is known who was deleted when, and what the service saw of it.
const SETTLES: Duration = Duration::from_secs(2);
/// Violations that are kept.
const KEPT: usize = 1000;

/// A rule that was broken.
#[derive(Clone, Debug)]
pub enum Violation {
    /// The call started this long after the deletion of its key was final, and passed.
    Passed(Duration, Call),
    /// The same, and the service saw it, whatever the caller was told.
    Seen(Duration, Call),
    /// 401 for a key whose deletion nobody had asked for.
    LiveDenied(Call),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Passed(_, call) | Self::Seen(_, call) | Self::LiveDenied(call)) = self;
        match self {
            Self::Passed(since, _) => write!(f, "passed {since:.1?} after the deletion was final")?,
            Self::Seen(since, _) => write!(f, "forwarded {since:.1?} after the deletion was final")?,
            Self::LiveDenied(_) => write!(f, "denied, and nobody had asked for a deletion")?,
        }
        let Call { life, gateway, how, started, ended, said, .. } = call;
        write!(f, ": {how:?} at gateway {gateway} with key {}, {said:?} within {:.1?}", life.id, *ended - *started)
    }
}

impl Life {
    pub fn new((id, text): (String, String)) -> Arc<Self> {
        Arc::new(Self { id, text, times: Mutex::default() })
    }

    /// The deletion is asked for from now on. Only the first time counts.
    pub fn asked(&self, now: Instant) {
        self.times.lock().asked.get_or_insert(now);
    }

    /// From `at` on the deletion is final, by what its answer said.
    pub fn is_final(&self, at: Instant) {
        let mut times = self.times.lock();
        times.is_final = Some(times.is_final.map_or(at, |known| known.min(at)));
    }

    /// When the deletion is final, if that is known.
    pub fn final_at(&self) -> Option<Instant> {
        self.times.lock().is_final
    }

    /// For how long the deletion has been final at `now`.
    pub fn final_for(&self, now: Instant) -> Option<Duration> {
        now.checked_duration_since(self.times.lock().is_final?)
    }
}

impl Judge {
    /// Of calls that have ended, and marks that the service has seen since it was last asked.
    pub fn hear(&mut self, calls: Vec<Call>, seen: HashSet<u64>, now: Instant) {
        self.waiting.extend(calls);
        self.seen.extend(seen);
        while self.waiting.front().is_some_and(|call| call.ended + SETTLES <= now) {
            self.judge_next();
        }
    }

    /// All is over.
    pub fn close(&mut self, calls: Vec<Call>, seen: HashSet<u64>) {
        self.waiting.extend(calls);
        self.seen.extend(seen);
        while !self.waiting.is_empty() {
            self.judge_next();
        }
        for call in std::mem::take(&mut self.unanswered) {
            if self.seen.contains(&call.mark) {
                self.break_rule(Violation::Seen(call.life.final_for(call.started).unwrap_or_default(), call));
            }
        }
    }

    fn judge_next(&mut self) {
        let Some(call) = self.waiting.pop_front() else { return };
        self.tally.calls += 1;
        let was_seen = self.seen.remove(&call.mark);
        let of_its_kind = match call.said {
            Said::Passed => &mut self.tally.passed,
            Said::Denied => &mut self.tally.denied,
            Said::Unsure => &mut self.tally.unsure,
            Said::Lost => &mut 0,
        };
        *of_its_kind += 1;
        let asked = call.life.times.lock().asked;
        match (call.life.final_for(call.started).filter(|since| !since.is_zero()), call.said) {
            (Some(since), Said::Passed) => self.break_rule(Violation::Passed(since, call)),
            (Some(since), _) if was_seen => self.break_rule(Violation::Seen(since, call)),
            (Some(_), Said::Lost) => self.unanswered.push(call),
            (None, Said::Denied) if asked.is_none_or(|asked| call.ended < asked) => {
                self.break_rule(Violation::LiveDenied(call));
            }
            _ => {}
        }
    }

    fn break_rule(&mut self, violation: Violation) {
        self.broken += 1;
        if self.violations.len() < KEPT {
            self.violations.push(violation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key whose deletion is asked for at 100 ms and final at 200 ms, and one call with it.
    fn judged(started: u64, ended: u64, said: Said, seen: bool) -> Vec<Violation> {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let life = Life::new(Default::default());
        life.asked(at(100));
        life.is_final(at(300));
        life.is_final(at(200));
        let call = Call { life, gateway: 0, how: How::Http, mark: 1, started: at(started), ended: at(ended), said };
        let mut judge = Judge::default();
        judge.hear(vec![call], seen.then_some(1).into_iter().collect(), zero);
        assert_eq!(judge.tally.calls, 0, "it is too early");
        judge.hear(Vec::new(), HashSet::new(), at(ended) + SETTLES);
        assert_eq!(judge.tally.calls, 1);
        judge.close(Vec::new(), HashSet::new());
        assert_eq!(judge.broken, judge.violations.len());
        judge.violations
    }

    #[test]
    fn what_was_never_answered_must_not_be_seen_later_either() {
        let zero = Instant::now();
        let life = Life::new(Default::default());
        life.is_final(zero);
        let (started, ended) = (zero + Duration::from_millis(1), zero + Duration::from_millis(2));
        let mut judge = Judge::default();
        judge.hear(
            vec![Call { life, gateway: 0, how: How::Fresh, mark: 7, started, ended, said: Said::Lost }],
            HashSet::new(),
            ended + SETTLES,
        );
        judge.close(Vec::new(), HashSet::from([7]));
        assert!(matches!(judge.violations[..], [Violation::Seen(..)]));
    }

    #[test]
    fn what_may_be_is_no_violation() {
        for (started, ended) in [(0, 50), (50, 150), (150, 180), (150, 400), (200, 400)] {
            assert!(judged(started, ended, Said::Passed, true).is_empty(), "{started} {ended}");
        }
        for (started, ended) in [(50, 150), (150, 180), (250, 300)] {
            assert!(judged(started, ended, Said::Denied, false).is_empty(), "{started} {ended}");
        }
        assert!(judged(250, 300, Said::Lost, false).is_empty() && judged(0, 50, Said::Unsure, false).is_empty());
    }

    #[test]
    fn what_may_not_be_is_told() {
        assert!(matches!(judged(201, 300, Said::Passed, true)[..], [Violation::Passed(..)]));
        assert!(matches!(judged(201, 300, Said::Passed, false)[..], [Violation::Passed(..)]));
        for said in [Said::Denied, Said::Unsure, Said::Lost] {
            assert!(matches!(judged(250, 300, said, true)[..], [Violation::Seen(..)]), "{said:?}");
        }
        assert!(matches!(judged(50, 90, Said::Denied, false)[..], [Violation::LiveDenied(_)]));
    }
}
