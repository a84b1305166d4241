//! What the probe publishes: metrics for a scrape, and one line for each round that was not as it should be.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

use super::{Said, Standing, Violation, judge};

/// Upper ends of the buckets of the time that a delete took, in seconds.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 60.0];

pub struct Report {
    registry: Registry,
    rounds: IntCounter,
    failed_rounds: IntCounter,
    pending: IntCounter,
    violations: IntCounterVec,
    calls: IntCounterVec,
    revocation: Histogram,
}

/// How it stands, for people and programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    pub rounds: u64,
    pub failed_rounds: u64,
    /// Deletes that were answered 202 at first.
    pub pending: u64,
    pub violations: u64,
}

impl Report {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let family = |name: &str, help: &str, label: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let rounds = counter(
            "tollgate_probe_rounds_total",
            "Keys that were created, called with, deleted, and called with again.",
        )?;
        let failed_rounds = counter(
            "tollgate_probe_failed_rounds_total",
            "Rounds that the control plane did not let come to their end.",
        )?;
        let pending = counter("tollgate_probe_pending_total", "Deletes that were answered 202 at first.")?;
        let violations =
            family("tollgate_probe_violations_total", "Answers that break the promise. Must stay 0.", "kind")?;
        let calls = family("tollgate_probe_calls_total", "Calls of gateways, by what they said.", "said")?;
        // All series are there from the start, so that an alert on an increase sees the first one.
        for kind in Violation::ALL {
            violations.with_label_values(&[kind.label()]).reset();
        }
        for said in Said::ALL {
            calls.with_label_values(&[said.label()]).reset();
        }
        let options = HistogramOpts::new(
            "tollgate_probe_revocation_seconds",
            "From asking for a delete to its answer, where that was 200.",
        );
        let revocation = Histogram::with_opts(options.buckets(BUCKETS.to_vec()))?;
        registry.register(Box::new(revocation.clone()))?;
        Ok(Self { registry, rounds, failed_rounds, pending, violations, calls, revocation })
    }

    /// Counts what the gateways said, and gives what of it must not be.
    pub fn heard<'a>(&self, standing: Standing, said: &'a [(String, Said)]) -> Vec<(&'a str, Violation)> {
        let mut violated = Vec::new();
        for (gateway, said) in said {
            self.calls.with_label_values(&[said.label()]).inc();
            if let Some(violation) = judge(standing, *said) {
                self.violations.with_label_values(&[violation.label()]).inc();
                violated.push((gateway.as_str(), violation));
            }
        }
        violated
    }

    pub fn revoked(&self, took: Duration) {
        self.revocation.observe(took.as_secs_f64());
    }

    pub fn pending(&self) {
        self.pending.inc();
    }

    /// A round has ended, well or not.
    pub fn round(&self, ended: bool) {
        if ended { self.rounds.inc() } else { self.failed_rounds.inc() }
    }

    pub fn totals(&self) -> Totals {
        let violations = Violation::ALL.iter().map(|kind| self.violations.with_label_values(&[kind.label()]).get());
        Totals {
            rounds: self.rounds.get(),
            failed_rounds: self.failed_rounds.get(),
            pending: self.pending.get(),
            violations: violations.sum(),
        }
    }

    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_are_counted_by_kind_and_named_by_gateway() {
        let report = Report::new().unwrap();
        let said =
            [("a".to_owned(), Said::Admitted), ("b".to_owned(), Said::NotValid), ("c".to_owned(), Said::CannotKnow)];
        assert_eq!(report.heard(Standing::Deleted, &said), [("a", Violation::DeletedAdmitted)]);
        assert_eq!(report.heard(Standing::Live, &said), [("b", Violation::LiveNotValid)]);
        report.revoked(Duration::from_millis(3));
        report.round(true);
        assert_eq!(report.totals(), Totals { rounds: 1, failed_rounds: 0, pending: 0, violations: 2 });
        let text = report.text().unwrap();
        assert!(text.contains("tollgate_probe_violations_total{kind=\"deleted_admitted\"} 1"), "{text}");
        assert!(text.contains("tollgate_probe_revocation_seconds_count 1"));
        assert!(
            Report::new()
                .unwrap()
                .text()
                .unwrap()
                .contains("tollgate_probe_violations_total{kind=\"live_not_valid\"} 0")
        );
    }
}
