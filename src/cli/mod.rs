//! The command line: what was asked for, who does it, and what a failure says and exits with.

mod account;
pub(crate) mod client;
mod cluster;
mod key;
mod probe;
mod prompt;
mod read;
mod store;
mod table;
mod usage;

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use data_encoding::BASE32_NOPAD;
use totp_rs::{Builder, Secret};

use self::account::{Account, Member};
use self::client::{ClientError, Control};
use self::cluster::Cluster;
use self::key::Key;
use self::probe::{Probe, ProbeError};
use self::read::{Audit, Gateway, Session};
use self::store::{Backup, Store};
use self::usage::Usage;
use crate::app::upkeep::UpkeepError;
use crate::app::{self, AppError};
use crate::archive::ArchiveError;
use crate::clock;
use crate::config::{self, Config, Mistakes};
use crate::demo::{self, run::DemoOptions};
use crate::telemetry::log::{self, LogError};

/// The exit code of a wrong configuration (EX_USAGE of sysexits.h).
const EXIT_CONFIG: u8 = 64;
const EXIT_RUNTIME: u8 = 1;

/// An authentication and metering reverse proxy in front of a vector service.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything at once with a sample vector service and one account, to try it out.
    Demo(Demo),
    /// Run a node.
    Serve(ConfigFile),
    /// Check a configuration and name all its mistakes.
    Check(ConfigFile),
    /// Print the configuration that is in force when nothing is configured.
    Config(PrintConfig),
    /// Print the present six-digit code of a TOTP secret, as an authenticator app shows it.
    Totp {
        /// The secret in base32, 20 bytes.
        secret: String,
    },
    /// Accounts: set up, verify, suspend, limit, reset. For the operator.
    Account(Remote<Account>),
    /// Members of the own account: users with read-only rights.
    Member(Remote<Member>),
    /// Clusters of the vector service, and who may reach them.
    Cluster(Remote<Cluster>),
    /// API keys.
    Key(Remote<Key>),
    /// What was used.
    Usage(Remote<Usage>),
    /// Gateways and how far they follow.
    Gateway(Remote<Gateway>),
    /// The audit log.
    Audit(Remote<Audit>),
    /// Signing in and out.
    Session(Remote<Session>),
    /// Copy the whole store into one file, of a node that runs or is stopped.
    Backup(Backup),
    /// Look after the store itself.
    #[command(subcommand)]
    Store(Store),
    Probe(Probe),
    /// Print the completions for a shell: source <(tollgate completions bash)
    Completions {
        shell: clap_complete::Shell,
    },
}

/// A command for a control plane.
#[derive(Debug, Args)]
struct Remote<C: Subcommand> {
    #[command(flatten)]
    control: Control,
    #[command(subcommand)]
    command: C,
}

#[derive(Debug, Args)]
struct Demo {
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    gateway: SocketAddr,
    /// Where the control plane listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    control: SocketAddr,
    /// The data folder; a second start with the same one goes on where the first ended. A new temporary one by default.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print one line of JSON once it serves.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct PrintConfig {
    /// Print every key with its default and what it is for.
    #[arg(long, required = true)]
    print_default: bool,
}

/// Why a command failed, in words for the one who gave it.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Config(#[from] Mistakes),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    App(#[from] AppError),
    #[error("the secret is not base32 of 20 bytes: 32 characters of A-Z and 2-7")]
    TotpSecret,
    #[error("the answer could not be written: {0}")]
    Output(#[from] io::Error),
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Probe(#[from] ProbeError),
    #[error("{0}")]
    Upkeep(#[from] UpkeepError),
    #[error(
        "the audit log is not whole: entry {seq} is the first that was changed, removed or moved. Keep the store file as it is, and \
         compare with a backup"
    )]
    AuditBroken { seq: u64 },
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error(
        "the archive is not whole: entry {0} of its manifest is the first with which something is amiss: {1}. Keep the folder as it is, \
         and compare with a copy"
    )]
    ArchiveBroken(u64, String),
    #[error("the store is in use by a node without [control]; stop it first")]
    NoControl,
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            _ => EXIT_RUNTIME,
        }
    }
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where stderr is gone too.
            let _ = writeln!(io::stderr(), "tollgate: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(command: Command) -> Result<(), CliError> {
    match command {
        Command::Demo(demo) => {
            log::install()?;
            Ok(demo::run::run(demo.into())?)
        }
        Command::Serve(file) => {
            let config = Config::load(&file.config)?;
            log::install()?;
            Ok(app::serve(config)?)
        }
        Command::Check(file) => {
            Config::load(&file.config)?;
            print(format_args!("{}: no mistakes\n", file.config.display()))
        }
        Command::Config(PrintConfig { .. }) => print(format_args!("{}", config::print::default_file())),
        Command::Totp { secret } => print(format_args!("{}\n", totp_code(&secret, clock::wall().unix_seconds())?)),
        Command::Account(Remote { control, command }) => say(&command.run(&control)?),
        Command::Member(Remote { control, command }) => say(&command.run(&control)?),
        Command::Cluster(Remote { control, command }) => say(&command.run(&control)?),
        Command::Key(Remote { control, command }) => say(&command.run(&control)?),
        Command::Usage(Remote { control, command }) => say(&command.run(&control)?),
        Command::Gateway(Remote { control, command }) => say(&command.run(&control)?),
        Command::Audit(Remote { control, command }) => say(&command.run(&control)?),
        Command::Session(Remote { control, command }) => say(&command.run(&control)?),
        Command::Backup(backup) => say(&backup.run()?),
        Command::Store(store) => say(&store.run()?),
        Command::Probe(probe) => say(&probe.run()?),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut io::stdout().lock());
            Ok(())
        }
    }
}

/// The code of the step that `unix_seconds` lies in (RFC 6238: SHA-1, 6 digits, 30 s).
fn totp_code(secret: &str, unix_seconds: u64) -> Result<String, CliError> {
    let text = secret.trim().trim_end_matches('=').to_ascii_uppercase();
    let bytes = BASE32_NOPAD.decode(text.as_bytes()).map_err(|_| CliError::TotpSecret)?;
    let bytes: [u8; 20] = bytes.try_into().map_err(|_| CliError::TotpSecret)?;
    let totp = Builder::new().with_secret(Secret::from(bytes)).build().map_err(|_| CliError::TotpSecret)?;
    Ok(totp.generate(unix_seconds).to_string())
}

fn say(text: &str) -> Result<(), CliError> {
    print(format_args!("{text}"))
}

fn print(text: fmt::Arguments<'_>) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_fmt(text)?;
    Ok(out.flush()?)
}

impl From<Demo> for DemoOptions {
    fn from(demo: Demo) -> Self {
        Self { gateway: demo.gateway, control: demo.control, data: demo.data, json: demo.json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_totp_code_is_that_of_rfc_6238() {
        // RFC 6238, appendix B: the secret "12345678901234567890", of whose eight digits these are the last six.
        let secret = BASE32_NOPAD.encode(b"12345678901234567890");
        assert_eq!(totp_code(&secret, 59).unwrap(), "287082");
        assert_eq!(totp_code(&secret.to_lowercase(), 1_111_111_109).unwrap(), "081804");
        assert!(totp_code("not base32", 0).is_err());
    }
}
