//! The gateway beside HAProxy, nginx with Lua, nginx with a static `map`, and Envoy: the same keys, the same calls, the same vector service,
//! one thread for calls each. docs/performance.md says what is measured and how.
//!
//! `cargo bench --bench peers -- all`, or the names of cases; `--help` says more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark stops by panicking where something is not as it has to be, and reads clocks"
)]

mod bare;
mod cases;
mod certificate;
mod chart;
mod child;
mod client;
mod contest;
mod drive;
mod files;
mod flood;
mod gateway;
mod histogram;
mod http1;
mod keys;
mod load;
mod machine;
mod measure;
mod ours;
mod pacer;
mod private;
mod proxies;
mod report;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Signal, set_parent_process_death_signal};

use cases::Case;
use certificate::Certificate;
use child::Running;
use contest::Plan;
use drive::Times;
use keys::Keys;
use proxies::{Site, Who};
use report::{Held, Report};

/// What the gateway uses, so that the forwarder it is compared with has the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The gateway beside other proxies.
#[derive(Parser)]
struct Options {
    /// What to compare: names of cases, or `all`. Without any, the cases are listed.
    cases: Vec<String>,
    /// With whom. All that are installed where left out.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Who>,
    /// How often each takes its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Three rounds of a second, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// The gateway's `meter.flush`, where it is not to be the default.
    #[arg(long)]
    flush: Option<String>,
    /// A folder for peers.md, peers.json and peers.svg.
    #[arg(long)]
    report: Option<PathBuf>,
    /// The program of Envoy, where it is neither on the path nor below target/peers.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// What this process is for, where the benchmark started it itself.
    #[arg(long, hide = true)]
    part: Option<Part>,
    #[arg(long, hide = true)]
    upstream: Option<SocketAddr>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Upstream,
    Bare,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    if let Some(part) = options.part {
        return play(part, &options);
    }
    let cases = options.chosen()?;
    if cases.is_empty() {
        for case in cases::all() {
            println!("{:<14} {}", case.name, case.what);
        }
        println!("say which: cargo bench --bench peers -- all, or names of cases; --help for more");
        return Ok(());
    }
    files::raise_file_limit();
    options.compare(&cases)
}

fn play(part: Part, options: &Options) -> io::Result<()> {
    // Also where the benchmark is killed.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match part {
        Part::Upstream => runtime.block_on(upstream::serve()),
        Part::Bare => runtime.block_on(bare::serve(options.upstream.ok_or(io::ErrorKind::InvalidInput)?)),
    }
}

impl Options {
    fn chosen(&self) -> io::Result<Vec<Case>> {
        let all = cases::all();
        let known = |name: &&String| *name == "all" || all.iter().any(|case| case.name == **name);
        if let Some(unknown) = self.cases.iter().find(|name| !known(name)) {
            return Err(io::Error::other(format!("there is no case {unknown}")));
        }
        let is_chosen = |case: &Case| self.cases.iter().any(|name| name == "all" || name == case.name);
        Ok(all.into_iter().filter(is_chosen).collect())
    }

    fn plan(&self) -> Plan {
        let (rounds, seconds) = if self.quick { (3, 1.0) } else { (self.rounds, self.seconds) };
        let measured = Duration::from_secs_f64(seconds);
        Plan { rounds, times: Times { lead_in: measured / 6, measured } }
    }

    fn compare(&self, cases: &[Case]) -> io::Result<()> {
        let (folder, plan, envoy) = (tempfile::tempdir()?, self.plan(), proxies::envoy::find(self.envoy.clone()));
        let (certificate, (_service, at)) = (Certificate::new(folder.path())?, Running::part(&["--part", "upstream"])?);
        let keys = Keys::new(cases.iter().map(|case| plan.all_deletes(case)).sum());
        let (upstream, lenient) = (at[0], at[1]);
        let folder = folder.path();
        let site = Site {
            folder,
            upstream,
            lenient,
            keys: &keys,
            certificate: &certificate,
            envoy,
            flush: self.flush.as_deref(),
        };
        let versions = machine::versions(site.envoy.as_deref());
        for (who, version) in &versions {
            println!("{:<18} {}", who.name(), version.as_deref().unwrap_or("is not here, and is left out"));
        }
        let here = |who: Who| {
            let is_wanted = self.peers.is_empty() || matches!(who, Who::Ours) || self.peers.contains(&who);
            is_wanted && versions.iter().all(|(known, version)| *known != who || version.is_some())
        };
        let mut report = Report { machine: machine::describe(&versions, plan, site.flush), cases: Vec::new() };
        for case in cases {
            let held = Held::new(case, contest::hold(case, &site, plan, here)?);
            println!("\n{}", held.table());
            report.cases.push(held);
            // After each case, so that a run that is cut short has left what it found.
            self.report.as_deref().map_or(Ok(()), |folder| report.write(folder))?;
        }
        Ok(())
    }
}
