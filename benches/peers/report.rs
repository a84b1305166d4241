//! What came out: rows and ratios, as a table for people, Markdown, JSON, and a chart.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::cases::{Case, Contender, Figure};
use crate::chart;
use crate::flood::Flooded;
use crate::load::Pace;
use crate::ours::Deleted;
use crate::proxies::Who;

/// The share of a rate that has to be reached.
const KEPT_UP: f64 = 0.98;

/// One contender in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// User and system time of the proxy's process per call, in microseconds; the calls of a flood count as well.
    pub cpu_us: f64,
    /// The share of it that threads other than the gateway's data plane used.
    pub background: f64,
    pub calls_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Bytes, at the end.
    pub memory: u64,
    /// Calls that were answered as they had to be.
    pub calls: u64,
    /// Those of a flood too.
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Keys deleted meanwhile.
    pub deleted: Deleted,
    /// What flooded it meanwhile.
    pub flooded: Flooded,
}

/// One contender of a case.
#[derive(Debug, Serialize)]
pub struct Row {
    pub who: String,
    pub is_ours: bool,
    /// Whether it does the work, so that a ratio says something.
    #[serde(skip)]
    is_compared: bool,
    pub runs: Vec<Run>,
    /// What the gateway's figure divided by this one's should be at most.
    pub gate: Option<f64>,
    /// The gateway's figure divided by this one's, round by round.
    pub ratio: Option<Spread>,
}

/// Of the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// A whole run of the benchmark.
#[derive(Serialize)]
pub struct Report {
    pub machine: Vec<(String, String)>,
    pub cases: Vec<Held>,
}

/// A case that was held.
#[derive(Serialize)]
pub struct Held {
    pub name: &'static str,
    pub what: &'static str,
    /// What is compared.
    pub figure: &'static str,
    /// Calls per second that were to be made; `None` where as many as could be.
    pub wanted: Option<u32>,
    pub rows: Vec<Row>,
}

impl Row {
    pub fn new(contender: &Contender, runs: Vec<Run>) -> Self {
        let (is_ours, is_compared) = (contender.who == Who::Ours, contender.who != Who::Direct);
        Self { who: contender.label(), is_ours, is_compared, runs, gate: contender.gate, ratio: None }
    }

    /// Over the rounds.
    pub fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        Spread::of(self.runs.iter().map(of).collect()).map_or(0.0, |spread| spread.median)
    }

    pub fn failed(&self) -> u64 {
        self.runs.iter().map(|run| run.failed).sum()
    }

    /// Whether every round had calls, and none that failed; otherwise its figures are not quoted.
    pub fn is_sound(&self) -> bool {
        self.failed() == 0 && self.runs.iter().all(|run| run.calls > 0)
    }
}

impl Spread {
    /// `None` of nothing.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, least, most })
    }
}

impl Held {
    /// The first row is the gateway's; the others get their ratios to it.
    pub fn new(case: &Case, mut rows: Vec<Row>) -> Self {
        let figure = |run: &Run| match case.figure() {
            Figure::Cpu => run.cpu_us,
            Figure::P99 => run.p99_us,
        };
        if let Some((ours, others)) = rows.split_first_mut().filter(|(ours, _)| ours.is_sound()) {
            for other in others.iter_mut().filter(|other| other.is_compared && other.is_sound()) {
                let pairs = ours.runs.iter().zip(&other.runs);
                let ratios = pairs.map(|(ours, theirs)| figure(ours) / figure(theirs));
                other.ratio = Spread::of(ratios.filter(|ratio| ratio.is_finite()).collect());
            }
        }
        let figure = if case.figure() == Figure::Cpu { "CPU per call" } else { "99th percentile" };
        let wanted = match case.pace {
            Pace::PerSecond(rate) => Some(rate),
            Pace::AtOnce => None,
        };
        Self { name: case.name, what: case.what, figure, wanted, rows }
    }

    /// As a table, whose cells are separated in Markdown's way.
    pub fn table(&self) -> String {
        let mut text = format!("### {}: {}\n\n", self.name, self.what);
        text += "|                             |  calls/s | CPU µs/call |   p50 µs |   p99 µs |   MB |";
        let _ = writeln!(text, " ours ÷ theirs, {:<15} |    gate |", self.figure);
        text += "|-----------------------------|---------:|------------:|---------:|---------:|-----:|--------------------------------|--------:|\n";
        for row in &self.rows {
            text += &row.line();
        }
        for row in &self.rows {
            text += &row.remarks();
            if self.wanted.is_some_and(|wanted| row.median(|run| run.calls_per_second) < f64::from(wanted) * KEPT_UP) {
                let _ =
                    writeln!(text, "\n{}: the rate was not kept up, so its latencies say nothing but that.", row.who);
            }
        }
        text
    }
}

impl Row {
    fn line(&self) -> String {
        let figure = |of: fn(&Run) -> f64, digits: usize| match self.median(of) {
            _ if !self.is_sound() => "–".to_owned(),
            0.0 => "–".to_owned(),
            value => format!("{value:.digits$}"),
        };
        let ratio = match self.ratio {
            Some(Spread { median, least, most }) => format!("{median:.2} ({least:.2}–{most:.2})"),
            None if self.is_sound() => String::new(),
            None if self.failed() == 0 => "a round without a single answer".to_owned(),
            None => format!("{} calls failed", self.failed()),
        };
        let gate = self.gate.map(|gate| format!("≤ {gate:.2}")).unwrap_or_default();
        format!(
            "| {:<27} | {:>8} | {:>11} | {:>8} | {:>8} | {:>4} | {ratio:<30} | {gate:>7} |\n",
            self.who,
            figure(|run| run.calls_per_second, 0),
            figure(|run| run.cpu_us, 1),
            figure(|run| run.p50_us, 0),
            figure(|run| run.p99_us, 0),
            figure(|run| run.memory as f64 / 1e6, 0),
        )
    }

    fn remarks(&self) -> String {
        let mut text = String::new();
        if self.is_ours && self.is_sound() {
            let background = self.median(|run| run.background) * 100.0;
            let _ = writeln!(text, "\n{}: {background:.1} % of the CPU outside the data-plane thread.", self.who);
        }
        let deleted: usize = self.runs.iter().map(|run| run.deleted.keys).sum();
        if deleted > 0 {
            let rate = self.median(|run| run.deleted.per_second);
            let _ = writeln!(text, "{}: {deleted} keys deleted, {rate:.0} per second, each confirmed.", self.who);
        }
        if self.runs.iter().any(|run| run.flooded.calls > 0) {
            let rate = self.median(|run| run.flooded.per_second);
            let _ = writeln!(text, "{}: {rate:.0} calls of the flood per second, CPU per call with them.", self.who);
        }
        if let Some(failure) = self.runs.iter().find_map(|run| run.first_failure.as_ref()) {
            let _ = writeln!(text, "\n{}: {} calls failed, the first: {failure}", self.who, self.failed());
        }
        text
    }
}

impl Report {
    /// Writes `peers.md`, `peers.json` and `peers.svg`.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let machine: String = self.machine.iter().map(|(what, value)| format!("- {what}: {value}\n")).collect();
        let tables: Vec<_> = self.cases.iter().map(Held::table).collect();
        fs::write(folder.join("peers.md"), format!("{machine}\n{}", tables.join("\n")))?;
        fs::write(folder.join("peers.json"), serde_json::to_string_pretty(self)?)?;
        fs::write(folder.join("peers.svg"), chart::draw(&self.cases))
    }
}
