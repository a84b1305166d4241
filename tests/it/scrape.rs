//! What a billing pipeline gets that scrapes `/metrics/usage` with a real Prometheus, as text and as protobuf in two parts: the
//! documented query is exact while the node ends, is killed and is away. docs/metering.md has the same numbers.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;
use crate::harness::fleet::{Fleet, GATEWAYS, Setting};
use crate::harness::process::OPERATOR_TOKEN;
use crate::harness::prometheus::{Prometheus, Relay};
use crate::harness::stage::{FETCH, Stage};

/// Of calls that ended ok, in docs/metering.md of all.
const SERIES: &str = "tollgate_usage_calls_total{outcome=\"ok\"}";

/// The query of docs/metering.md: what was used between two moments, in seconds since 1970.
fn used(start: &str, end: &str) -> String {
    let docs = include_str!("../../docs/metering.md");
    let query = docs.split("```promql\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(query.contains("START") && query.contains("END") && query.contains("tollgate_usage_calls_total"));
    query.replace("tollgate_usage_calls_total", SERIES).replace("START", start).replace("END", end)
}

fn started(folder: &Path, name: &str, scrape: &str, more: &[&str]) -> Prometheus {
    let config = folder.join(format!("{name}.yml"));
    let content = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: tollgate-usage\n    metrics_path: /metrics/usage\n    \
         authorization:\n      credentials: {OPERATOR_TOKEN}\n    static_configs:\n{scrape}"
    );
    std::fs::write(&config, content).unwrap();
    Prometheus::start(&config, &folder.join(name), more)
}

/// What scrapes the same thing, each in its way.
struct Scrapers(Vec<Prometheus>);

impl Scrapers {
    #[track_caller]
    fn until(&self, query: &str, number: Option<&str>) {
        let deadline = Instant::now() + PATIENCE;
        for scraper in &self.0 {
            while scraper.number(query).as_deref() != number {
                assert!(Instant::now() < deadline, "{query} is {:?}", scraper.number(query));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Waits until there are so many samples after this moment.
    fn scraped(&self, times: usize, moment: &str) {
        let since = format!("sum(count_over_time({SERIES}[1h]) - count_over_time({SERIES}[1h] @ {moment}))");
        self.until(&format!("{since} >= bool {times}"), Some("1"));
    }

    /// Nothing is scraped while `work` is done.
    fn behind_their_back(&self, work: impl FnOnce()) {
        self.0.iter().for_each(Prometheus::pause);
        work();
        self.0.iter().for_each(Prometheus::go_on);
    }

    /// A moment between two scrapes of every scraper, in seconds since 1970.
    fn moment(&self) -> String {
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let since = |scraper: &Prometheus, now: f64| {
                let last = scraper.query("max(timestamp(up))")[0]["value"][1].as_str().unwrap().parse::<f64>().unwrap();
                now - last
            };
            let at = now();
            if self.0.iter().all(|scraper| (0.1..0.9).contains(&since(scraper, at))) {
                return format!("{at:.3}");
            }
            assert!(Instant::now() < deadline, "no moment without a scrape");
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    #[track_caller]
    fn all_say(&self, query: &str, number: Option<&str>) {
        for scraper in &self.0 {
            assert_eq!(scraper.number(query).as_deref(), number, "{query}");
        }
    }
}

struct Pipeline {
    stage: Stage,
    relay: Relay,
    /// Of text, and of protobuf in two parts.
    scrapers: Scrapers,
    _folder: tempfile::TempDir,
}

impl Pipeline {
    fn start() -> Self {
        let (stage, relay, folder) = (Stage::start(), Relay::start(), tempfile::tempdir().unwrap());
        relay.lead_to(Some(stage.control));
        let at = relay.at;
        let whole = format!("      - targets: [\"{at}\"]\n");
        let part = |part: &str| {
            format!("      - targets: [\"{at}\"]\n        labels: {{ shard: {part}, __param_shard: {part} }}\n")
        };
        // What makes this version of Debian's ask for protobuf.
        let protobuf = ["--enable-feature=native-histograms"];
        let scrapers = vec![
            started(folder.path(), "text", &whole, &[]),
            started(folder.path(), "protobuf", &[part("0/2"), part("1/2")].concat(), &protobuf),
        ];
        Self { stage, relay, scrapers: Scrapers(scrapers), _folder: folder }
    }

    fn call(&self, times: usize) {
        (0..times).for_each(|_| assert_eq!(self.stage.http("GET", FETCH, &[], b"").status, 200));
    }

    fn restart(&mut self) {
        self.stage.restart();
        self.relay.lead_to(Some(self.stage.control));
    }
}

#[test]
fn the_documented_query_is_exact_over_a_restart_a_kill_and_an_outage_and_increase_is_not() {
    let mut pipeline = Pipeline::start();
    pipeline.scrapers.until("min(up)", Some("1"));
    let start = pipeline.scrapers.moment();

    // A series that appears at 37: nobody has scraped it before.
    pipeline.scrapers.behind_their_back(|| {
        pipeline.call(37);
        pipeline.stage.settled(37);
    });
    pipeline.scrapers.until(&format!("sum({SERIES})"), Some("37"));

    // A restart, with calls on both sides of it.
    assert_eq!(pipeline.stage.process.take().unwrap().stop().code(), Some(0));
    pipeline.restart();
    pipeline.call(5);
    pipeline.scrapers.until(&format!("sum({SERIES})"), Some("42"));
    let middle = pipeline.scrapers.moment();

    // A kill right behind the last answer, before anything of it is flushed or scraped.
    pipeline.scrapers.scraped(1, &middle);
    pipeline.call(8);
    pipeline.stage.process.take().unwrap().kill();
    pipeline.restart();
    pipeline.scrapers.until(&format!("sum({SERIES})"), Some("50"));
    pipeline.scrapers.scraped(3, &middle);
    let end = pipeline.scrapers.moment();

    pipeline.scrapers.all_say(&used(&start, &end), Some("50"));
    pipeline.scrapers.all_say(&used(&start, &middle), Some("42"));
    pipeline.scrapers.all_say(&used(&middle, &end), Some("8"));
    pipeline.scrapers.all_say(&format!("sum(resets({SERIES}[1h]))"), Some("0"));
    increase_is_wrong(&pipeline, [&start, &middle, &end]);
    nothing_is_said_about_what_was_not_scraped(&pipeline, &end);

    // Nobody answers at the end of the period: what was scraped last counts.
    pipeline.relay.lead_to(None);
    pipeline.scrapers.until("max(up)", Some("0"));
    let away = pipeline.scrapers.moment();
    pipeline.scrapers.all_say(&format!("sum({SERIES} @ {away})"), None);
    pipeline.scrapers.all_say(&used(&start, &away), Some("50"));
    each_scraper_was_given_its_format(&pipeline.relay);
}

/// The first value is not counted, and the rest is stretched to the length of the window.
fn increase_is_wrong(pipeline: &Pipeline, [start, middle, end]: [&str; 3]) {
    let seconds = |moment: &str| moment.parse::<f64>().unwrap();
    let increase = |scraper: &Prometheus, from: &str, to: &str| {
        let window = ((seconds(to) - seconds(from)) * 1000.0).round();
        let query = format!("sum(increase({SERIES}[{window}ms] @ {to}))");
        scraper.number(&query).unwrap().parse::<f64>().unwrap()
    };
    for scraper in &pipeline.scrapers.0 {
        let (whole, late) = (increase(scraper, start, end), increase(scraper, middle, end));
        println!("used 50 and of these 8 in the end; increase() says {whole} and {late}");
        assert!(whole < 30.0, "the first 37 are not in it: {whole}");
        assert!(late > 8.0, "stretched to a window that no scrape began or ended: {late}");
        // A difference of two instants has no value where the first has none.
        assert_eq!(scraper.number(&format!("sum({SERIES} @ {end} - {SERIES} @ {start})")), None);
    }
}

/// Without a scrape before the start nobody knows what was used before it: no answer, rather than all that was ever used.
fn nothing_is_said_about_what_was_not_scraped(pipeline: &Pipeline, end: &str) {
    let long_ago = (end.parse::<f64>().unwrap() - 3600.0).to_string();
    pipeline.scrapers.all_say(&used(&long_ago, end), None);
}

fn each_scraper_was_given_its_format(relay: &Relay) {
    let exchanges = relay.exchanges();
    for (target, content_type) in [
        ("/metrics/usage", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (
            "/metrics/usage?shard=0%2F2",
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        ),
        (
            "/metrics/usage?shard=1%2F2",
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        ),
    ] {
        let own: Vec<_> = exchanges.iter().filter(|exchange| exchange.target == target).collect();
        assert!(!own.is_empty(), "{exchanges:?}");
        assert!(own.iter().all(|exchange| exchange.content_type == content_type), "{own:?}");
        println!("{target}: Accept: {}", own[0].accept);
    }
}

#[test]
fn the_documented_query_is_exact_while_one_gateway_of_three_is_killed() {
    let (mut fleet, folder) = (Fleet::start(&Setting::default()), tempfile::tempdir().unwrap());
    let target = format!("      - targets: [\"{}\"]\n", fleet.office.control);
    let scrapers = Scrapers(vec![started(folder.path(), "fleet", &target, &[])]);
    let (_, key) = fleet.office.create();
    scrapers.until("min(up)", Some("1"));
    let start = scrapers.moment();
    let call = |fleet: &Fleet, gateway: usize, times: usize| {
        let at = fleet.gateways()[gateway];
        (0..times).for_each(|_| assert_eq!(fleet.status(at, &key), 200));
    };
    scrapers.behind_their_back(|| {
        (0..GATEWAYS).for_each(|gateway| call(&fleet, gateway, 10));
        // Right behind the last answer: nobody else knows of these yet.
        call(&fleet, 1, 7);
        fleet.kill(1);
        call(&fleet, 0, 3);
        fleet.start_again(1);
        call(&fleet, 1, 4);
    });
    let calls = GATEWAYS * 10 + 7 + 3 + 4;
    scrapers.until(&format!("sum({SERIES})"), Some(&calls.to_string()));
    let end = scrapers.moment();
    scrapers.all_say(&used(&start, &end), Some(&calls.to_string()));
    assert_eq!(fleet.sample.counts().total.calls, calls as u64, "what the service itself has counted");
}
