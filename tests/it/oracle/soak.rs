//! All plays in turn, for as long as it takes to have seen very many calls and deletes.

use std::time::{Duration, Instant};

use super::callers::Crowd;
use super::report::Report;
use super::{Pace, SCENARIOS, Scenario};

/// What is to be reached over all plays.
#[derive(Clone, Copy, Debug)]
struct Target {
    calls: usize,
    deletes: usize,
    /// No play begins after this long.
    within: Duration,
}

const SOAK: Target = Target { calls: 10_000_000, deletes: 10_000, within: Duration::from_secs(60 * 60) };
/// To show that there is an end.
const SHORT: Target = Target { calls: 1000, deletes: 20, within: Duration::from_secs(60) };
/// How often a play is gone through before the next one has its turn.
const TIMES: usize = 4;

/// What was seen of one scenario, however often it was played.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    calls: usize,
    deletes: usize,
    /// Answers 202.
    promised: usize,
    slowest: Duration,
    violations: usize,
    lasted: Duration,
}

impl Row {
    fn add(&mut self, report: &Report) {
        self.calls += report.tally.calls;
        self.deletes += report.deletes.took.len();
        self.promised += report.deletes.promises + report.deletes.pending;
        self.slowest = self.slowest.max(report.deletes.slowest());
        self.violations += report.broken;
        self.lasted += report.lasted;
    }

    fn line(&self, what: &str) -> String {
        let Self { calls, deletes, promised, slowest, violations, lasted } = self;
        let rate = *calls as f64 / lasted.as_secs_f64().max(1.0);
        format!("{what:<30} {calls:>9} {rate:>7.0} {deletes:>7} {promised:>6} {slowest:>9.1?} {violations:>10}")
    }
}

fn play_in_turn(scenarios: &[Scenario], pace: Pace, target: Target) -> Row {
    let (began, mut rows) = (Instant::now(), vec![Row::default(); scenarios.len()]);
    let sum = |rows: &[Row]| {
        let mut all = Row::default();
        for row in rows {
            all.calls += row.calls;
            all.deletes += row.deletes;
            all.promised += row.promised;
            all.slowest = all.slowest.max(row.slowest);
            all.violations += row.violations;
            all.lasted += row.lasted;
        }
        all
    };
    for turn in (0..scenarios.len()).cycle() {
        let all = sum(&rows);
        // Each has its turn at least once.
        let all_played = rows.iter().all(|row| row.calls > 0);
        let reached = all_played && all.calls >= target.calls && all.deletes >= target.deletes;
        if reached || began.elapsed() >= target.within {
            break;
        }
        let scenario = &scenarios[turn];
        let report = scenario.run(pace);
        report.assert_clean(scenario.bounds());
        rows[turn].add(&report);
    }
    println!(
        "{:<30} {:>9} {:>7} {:>7} {:>6} {:>9} {:>10}",
        "", "calls", "calls/s", "200", "202", "slowest", "violations"
    );
    scenarios.iter().zip(&rows).for_each(|(scenario, row)| println!("{}", row.line(scenario.what)));
    let all = sum(&rows);
    println!("{}\nin {:.0?}", all.line("all"), began.elapsed());
    all
}

/// With `TOLLGATE_SOAK` all plays, until as much was seen as is aimed at; `TOLLGATE_SOAK_CALLS` aims lower. Otherwise one play shows
/// that it comes to an end.
#[test]
fn in_all_plays_together_many_calls_and_deletes_are_seen() {
    let (scenarios, times, crowd, target) = match std::env::var_os("TOLLGATE_SOAK") {
        None => (&SCENARIOS[..1], 1, Crowd::SMALL, SHORT),
        Some(_) => {
            let calls = std::env::var("TOLLGATE_SOAK_CALLS").map_or(SOAK.calls, |text| text.parse().unwrap());
            let deletes = SOAK.deletes.min(calls / 1000);
            (&SCENARIOS[..], TIMES, Crowd::GREAT, Target { calls, deletes, ..SOAK })
        }
    };
    let seen = play_in_turn(scenarios, Pace { times, crowd }, target);
    assert!(seen.calls >= target.calls && seen.deletes >= target.deletes, "{seen:?} is less than {target:?}");
}
