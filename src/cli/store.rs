//! `tollgate backup` and `tollgate store`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use http::Method;

use super::CliError;
use super::client::{Client, Control};
use super::table::Show;
use crate::app::upkeep::{self, UpkeepError};
use crate::app::{AppError, restore};
use crate::config::{Config, secret};
use crate::principal::JournalId;
use crate::store::upkeep::StoreStatus;

#[derive(Debug, Args)]
pub struct Backup {
    /// The configuration of the node.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the backup goes: one file, mode 0600, replaced as a whole.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Store {
    /// The store, its secrets and its journal, of a node that runs or is stopped.
    Status {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Make the store from a backup, and again what the journal knows and the backup lacks. The node must be stopped; beside a Redis
    /// that lost its store, nodes may run: each control plane makes its changes again.
    Restore {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The backup.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// There is no journal any more: what changed after the backup is lost, and keys deleted since work again.
        #[arg(long)]
        without_journal: bool,
    },
    /// Go on with one replica of Redis less, since it is lost: changes wait for one fewer of store.replicas, and Redis refuses writes for
    /// one fewer. Nodes run on.
    DropReplica {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// It is there again: wait for one more.
        #[arg(long)]
        undo: bool,
    },
    /// Give up what is lost: this node's journal, beside a store that is whole, with the node stopped; or another control plane that a
    /// store on Redis waits for.
    Recover {
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The journal that is given up, which the error that asks for this names; or the id of a control plane in control.peers.
        #[arg(long, value_name = "JOURNAL|CONTROL")]
        without: String,
    },
}

impl Backup {
    /// Of a node that runs through its control API, of one that is stopped from its file.
    pub fn run(self) -> Result<String, CliError> {
        let config = Config::load(&self.config)?;
        let header = if upkeep::is_in_use(&config) {
            let client = client_of(&config)?;
            let mut failed = None;
            let written = upkeep::write_backup(&config, &self.to, |out| {
                let fetched = client.fetch("/v1/store/backup", out);
                fetched.map(drop).map_err(|error| {
                    failed = Some(error);
                    io::Error::from(io::ErrorKind::ConnectionAborted).into()
                })
            });
            if let Some(error) = failed {
                return Err(error.into());
            }
            written?
        } else {
            upkeep::back_up(&config, &self.to)?
        };
        let show = Show::new(self.json);
        let facts = serde_json::to_value(&header).map_err(io::Error::from)?;
        Ok(match show {
            Show::Json => show.thing(&facts),
            Show::People => {
                format!("{}: written, read back and found good.\n{}", self.to.display(), show.thing(&facts))
            }
        })
    }
}

impl Store {
    pub fn run(self) -> Result<String, CliError> {
        match self {
            Self::Status { config, json } => {
                let status = status(&Config::load(&config)?)?;
                let facts = serde_json::to_value(&status).map_err(io::Error::from)?;
                let show = Show::new(json);
                Ok(if json { show.thing(&facts) } else { format!("{}{}", show.thing(&facts), advice(&status)) })
            }
            Self::Restore { config, from, without_journal } => restored(&config, &from, without_journal),
            Self::DropReplica { config, undo } => {
                let waited = upkeep::drop_replica(&Config::load(&config)?, undo)?;
                Ok(format!(
                    "Changes wait for {waited} replicas now, as soon as every control plane has heard of it (1 s).\n"
                ))
            }
            Self::Recover { config, without } => recovered(&Config::load(&config)?, &without),
        }
    }
}

fn status(config: &Config) -> Result<StoreStatus, CliError> {
    if !upkeep::is_in_use(config) {
        return Ok(upkeep::status(config)?);
    }
    let status = client_of(config)?.call(Method::GET, "/v1/store", None)?;
    Ok(serde_json::from_value(status).map_err(io::Error::from)?)
}

fn advice(status: &StoreStatus) -> &'static str {
    match &status.secrets {
        Some(secrets) if secrets.is_rotating() => {
            "\nA rotation of secrets is under way: keep the previous files in the configuration.\n"
        }
        Some(_) => "\nNothing is left of earlier secrets: previous files can be taken out of the configuration.\n",
        None => "",
    }
}

fn recovered(config: &Config, without: &str) -> Result<String, CliError> {
    let Ok(journal) = without.parse::<JournalId>() else {
        upkeep::go_on_without(config, without)?;
        return Ok(format!("Nobody waits for the control plane {without} any longer.\n"));
    };
    let kept = upkeep::recover(config, journal)?;
    let kept = kept.map(|kept| format!(" What was left of it is in {}.", kept.display())).unwrap_or_default();
    Ok(format!("The journal {without} is given up; the next start begins a new one.{kept}\n"))
}

fn restored(config: &Path, from: &Path, without_journal: bool) -> Result<String, CliError> {
    let done = restore::restore(&Config::load(config)?, from, without_journal)?;
    let mut said =
        format!("The store {} is restored from the backup of {}", done.header.store_id, done.header.taken_at);
    match done.made_again {
        Some(count) => said.push_str(&format!("; {count} later changes were made again from the journal.\n")),
        None => {
            said.push_str(
                ".\nIt opens once every control plane has made its later changes again; those that run do so now.\n",
            );
            said.push_str("Everybody has to sign in anew.\n");
            return Ok(said);
        }
    }
    if let Some(kept) = done.kept {
        said.push_str(&format!("What was there before is in {}.\n", kept.display()));
    }
    said.push_str("Everybody has to sign in anew. Start the node now.\n");
    Ok(said)
}

/// The control API of the node that this configuration describes, as its operator.
fn client_of(config: &Config) -> Result<Client, CliError> {
    let control = config.control.as_ref().ok_or(CliError::NoControl)?;
    let token = secret::token(&control.operator_token_file).map_err(AppError::from).map_err(UpkeepError::from)?;
    let scheme = if control.tls.is_some() { "https" } else { "http" };
    let at = reachable(control.listen);
    // A certificate is for a name, so with TLS the name may be given.
    let url = std::env::var("TOLLGATE_CONTROL").unwrap_or_else(|_| format!("{scheme}://{at}"));
    Ok(Client::as_operator(&Control { control: url, json: true }, token)?)
}

/// An address to call where the node listens on all of them.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut at = listen;
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    at
}
