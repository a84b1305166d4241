//! The operational metrics in one struct: few series, all there from the start at zero, and never an account id.

mod families;
mod revocation;

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Registry, TextEncoder};

pub use families::{
    Awaited, Call, CallOutcome, ConnectionEnd, Counted, DrainEnd, FeedRestart, Label, LoadResult, Protocol,
    UpstreamFailure,
};
pub use revocation::Revocation;

use crate::time::{BootTime, WallTime};
use crate::verdict::Denial;

/// Handles of all counters: counting is one atomic addition, without any lookup of a label's text.
pub struct Metrics {
    /// Calls that ended, by protocol and outcome.
    pub calls: Counted<Call>,
    /// Calls denied, by reason (the labels of the table of denials).
    pub denials: Counted<Denial>,
    /// Answers to bad keys that came after a pause.
    pub denials_held_back: IntCounter,
    /// Connections open now.
    pub connections_open: IntGauge,
    /// Connections accepted.
    pub connections_accepted: IntCounter,
    /// Connections refused or cut, by reason.
    pub connections_rejected: Counted<ConnectionEnd>,
    /// Connections made to vector services.
    pub upstream_connects: IntCounter,
    /// Failures of vector services, by what went wrong.
    pub upstream_failures: Counted<UpstreamFailure>,
    /// Peers taken out of rotation for a while.
    pub upstream_ejections: IntCounter,
    /// Keys loaded from the store because the keyring did not have them, by result.
    pub keyring_loads: Counted<LoadResult>,
    /// The last revision of the change log that was applied without a gap.
    pub applied_revision: IntGauge,
    /// Batches of usage that the ledger took.
    pub meter_flushes: IntCounter,
    /// Batches of usage that the ledger did not take; they are sent again.
    pub meter_flush_failures: IntCounter,
    /// Lines of usage in the batches that the ledger took.
    pub meter_lines: IntCounter,
    /// Lines of usage recovered from gateways that died.
    pub meter_recovered_lines: IntCounter,
    /// 1 while no file for further usage lines can be made: a call that needs one is denied as `cannot_meter`.
    pub meter_no_room: IntGauge,
    /// 1 while usage cannot be written to the spool: a power cut would take what the ledger does not have.
    pub meter_spool_fails: IntGauge,
    /// Files with usage of dead gateways that were left in place, since they are damaged or of another store.
    pub meter_files_left: IntGauge,
    /// Calls passed on although they could not be counted, as `gateway.serve_unmetered` says.
    pub unmetered_calls: IntCounter,
    /// Calls that ended without being counted. Anything but 0 is a defect.
    pub meter_uncounted: IntGauge,
    /// Calls read on after their client had gone, by how that ended.
    pub abandoned_drains: Counted<DrainEnd>,
    /// Hours that are over for longer than they should take and are not final.
    pub usage_hours_overdue: IntGauge,
    /// 1 while hours cannot be archived, or cannot leave the ledger or come back from the archive.
    pub usage_archive_fails: IntGauge,
    /// How changes reach the gateways.
    pub revocation: Revocation,
    lease_remaining: Gauge,
    /// Nanoseconds of [`BootTime`]; 0: no lease yet.
    lease_deadline: AtomicU64,
    registry: Registry,
}

impl Metrics {
    /// Registers everything with `registry`; fails only where a name is taken there already.
    pub fn new(registry: Registry, started: WallTime) -> Result<Self, prometheus::Error> {
        let r = Registrar(&registry);
        r.gauge("process_start_time_seconds", "When the process started, in seconds since 1970.")?
            .set(started.0 as f64 / 1000.0);
        r.build_info()?;
        Ok(Self {
            calls: r.counted("calls_total", "Calls that ended, by protocol and outcome.")?,
            denials: r.counted("denials_total", "Calls denied, by reason.")?,
            denials_held_back: r.counter("denials_held_back_total", "Answers to bad keys that came after a pause.")?,
            connections_open: r.int_gauge("connections_open", "Connections open now.")?,
            connections_accepted: r.counter("connections_accepted_total", "Connections accepted.")?,
            connections_rejected: r.counted("connections_rejected_total", "Connections refused or cut, by reason.")?,
            upstream_connects: r.counter("upstream_connects_total", "Connections made to vector services.")?,
            upstream_failures: r
                .counted("upstream_failures_total", "Failures of vector services, by what went wrong.")?,
            upstream_ejections: r
                .counter("upstream_ejections_total", "Peers of a cluster taken out of rotation for a while.")?,
            keyring_loads: r
                .counted("keyring_loads_total", "Keys loaded from the store on a keyring miss, by result.")?,
            applied_revision: r
                .int_gauge("applied_revision", "Last revision of the change log applied without a gap.")?,
            meter_flushes: r.counter("meter_flushes_total", "Batches of usage that the ledger took.")?,
            meter_flush_failures: r
                .counter("meter_flush_failures_total", "Batches of usage that the ledger did not take; sent again.")?,
            meter_lines: r.counter("meter_lines_total", "Lines of usage in the batches that the ledger took.")?,
            meter_recovered_lines: r
                .counter("meter_recovered_lines_total", "Lines of usage recovered from gateways that died.")?,
            meter_no_room: r.int_gauge("meter_no_room", "1 while no file for further usage lines can be made.")?,
            meter_spool_fails: r.int_gauge("meter_spool_fails", "1 while usage cannot be written to the spool.")?,
            meter_files_left: r
                .int_gauge("meter_files_left", "Files with usage left in place: damaged, or of another store.")?,
            unmetered_calls: r.counter(
                "unmetered_calls_total",
                "Calls passed on although they could not be counted (gateway.serve_unmetered).",
            )?,
            meter_uncounted: r
                .int_gauge("meter_uncounted", "Calls that ended without being counted; anything but 0 is a defect.")?,
            abandoned_drains: r.counted(
                "abandoned_drains_total",
                "Calls read on after their client had gone or their time was over, by how it ended.",
            )?,
            usage_hours_overdue: r
                .int_gauge("usage_hours_overdue", "Hours that ended more than 10 minutes ago and are not final.")?,
            usage_archive_fails: r
                .int_gauge("usage_archive_fails", "1 while hours of usage cannot be archived, or read back.")?,
            revocation: Revocation::new(&r)?,
            lease_remaining: r.gauge("tollgate_lease_remaining_seconds", "Time left of the gateway's lease.")?,
            lease_deadline: AtomicU64::new(0),
            registry: registry.clone(),
        })
    }

    /// The lease is good until `deadline`.
    pub fn lease_until(&self, deadline: BootTime) {
        self.lease_deadline.store(deadline.0, Ordering::Relaxed);
    }

    /// Everything in the registry in Prometheus' text form, as of `now`.
    pub fn render(&self, now: BootTime) -> Result<String, prometheus::Error> {
        let deadline = BootTime(self.lease_deadline.load(Ordering::Relaxed));
        self.lease_remaining.set(deadline.since(now).as_secs_f64());
        self.revocation.age_at(now);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Makes metrics and registers them.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(format!("tollgate_{name}"), help)?)
    }

    fn int_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(format!("tollgate_{name}"), help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.add(Gauge::new(name, help)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(format!("tollgate_{name}"), help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts)?)
    }

    fn counted<L: Label>(&self, name: &str, help: &str) -> Result<Counted<L>, prometheus::Error> {
        let (family, counted) = Counted::new(&format!("tollgate_{name}"), help)?;
        self.add(family)?;
        Ok(counted)
    }

    fn build_info(&self) -> Result<(), prometheus::Error> {
        let opts = prometheus::Opts::new("tollgate_build_info", "Which Tollgate this is; always 1.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        self.add(IntGauge::with_opts(opts)?)?.set(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(Registry::new(), WallTime(1_774_000_000_500)).unwrap()
    }

    #[test]
    fn every_series_is_there_at_zero_from_the_start() {
        let text = metrics().render(BootTime(0)).unwrap();
        for denial in Denial::ALL {
            let line = format!("tollgate_denials_total{{denial=\"{}\"}} 0\n", denial.row().label);
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        for line in [
            "tollgate_calls_total{outcome=\"client_abort\",protocol=\"grpc\"} 0\n",
            "tollgate_connections_rejected_total{reason=\"per_address\"} 0\n",
            "tollgate_keyring_loads_total{result=\"failed\"} 0\n",
            "tollgate_meter_recovered_lines_total 0\n",
            "tollgate_meter_no_room 0\n",
            "tollgate_lease_remaining_seconds 0\n",
            "tollgate_feed_age_seconds -1\n",
            "tollgate_feed_restarts_total{reason=\"epoch\"} 0\n",
            "tollgate_changes_awaited_total{result=\"pending\"} 0\n",
            "tollgate_revocation_seconds_count 0\n",
            "process_start_time_seconds 1774000000.5\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_denial_counts_under_its_own_label_whatever_it_carries() {
        let metrics = metrics();
        metrics.denials.of(&Denial::Limited { retry_after: Duration::from_secs(7) }).inc();
        let text = metrics.render(BootTime(0)).unwrap();
        assert!(text.contains("tollgate_denials_total{denial=\"limited\"} 1\n"), "{text}");
        assert_eq!(text.matches("} 1\n").count(), 2, "the other one is the build info\n{text}");
    }

    #[test]
    fn every_label_has_a_series_of_its_own() {
        fn check<L: Label>() {
            let places: HashSet<_> = L::all().iter().map(L::place).collect();
            assert_eq!(places.len(), L::all().len());
            assert!(L::all().iter().enumerate().all(|(at, label)| label.place() == at));
        }
        check::<Call>();
        check::<Denial>();
        check::<ConnectionEnd>();
        check::<UpstreamFailure>();
        check::<LoadResult>();
        check::<DrainEnd>();
        check::<FeedRestart>();
        check::<Awaited>();
    }

    #[test]
    fn the_lease_runs_down_between_two_scrapes() {
        let metrics = metrics();
        metrics.lease_until(BootTime(5_000_000_000));
        assert!(metrics.render(BootTime(1_000_000_000)).unwrap().contains("lease_remaining_seconds 4\n"));
        assert!(metrics.render(BootTime(9_000_000_000)).unwrap().contains("lease_remaining_seconds 0\n"));
    }
}
