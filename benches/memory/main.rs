//! How much memory the gateway takes: with ten thousand connections that are idle, and over many minutes of calls while keys come and go.
//! docs/performance.md has the figures.
//!
//! `cargo bench --bench memory -- idle`, or `-- steady --minutes 20`. A verdict that is not met ends with an error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark stops by panicking where something is not as it has to be, and reads clocks"
)]

mod churn;
mod idle;
mod stand;
mod steady;
mod traffic;

#[expect(dead_code, reason = "benches/peers uses the rest")]
#[path = "../peers/child.rs"]
mod child;
#[path = "../peers/client.rs"]
mod client;
#[path = "../peers/files.rs"]
mod files;
#[path = "../peers/gateway.rs"]
mod gateway;
#[path = "../peers/http1.rs"]
mod http1;
#[expect(dead_code, reason = "benches/peers uses the rest")]
#[path = "../peers/keys.rs"]
mod keys;
#[expect(dead_code, reason = "benches/peers uses the rest")]
#[path = "../peers/load.rs"]
mod load;
#[path = "../peers/measure.rs"]
mod measure;
#[path = "../peers/pacer.rs"]
mod pacer;
#[path = "../peers/private.rs"]
mod private;
#[path = "../peers/upstream.rs"]
mod upstream;

use std::io;

use clap::{Parser, Subcommand};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::runtime::{Builder, Runtime};

/// What this process allocates with, as the gateway does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much memory the gateway takes.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Given by cargo.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Ten thousand connections, each idle after a call.
    Idle,
    /// A steady load, while keys are made and deleted.
    Steady {
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: u32,
        /// Keys brought in, and keys deleted, each second.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
        keys: u32,
    },
    /// The vector service, in a process of its own that the benchmark starts.
    #[command(hide = true)]
    Upstream,
}

fn main() -> io::Result<()> {
    let Some(what) = Options::parse().what else {
        println!("say which: cargo bench --bench memory -- idle, or steady --minutes 20");
        return Ok(());
    };
    files::raise_file_limit();
    match what {
        What::Idle => idle::run(),
        What::Steady { minutes, keys } => steady::run(minutes, keys),
        What::Upstream => {
            // Also where the benchmark is killed.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            runtime()?.block_on(upstream::serve())
        }
    }
}

/// One thread, since the gateway needs the other cores.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
