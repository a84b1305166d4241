//! The proxies: what each is called, whether it is here, and how it is started. All have one thread for calls.

pub mod envoy;
mod haproxy;
mod nginx;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::certificate::Certificate;
use crate::child::{Running, free_address};
use crate::gateway;
use crate::keys::Keys;
use crate::load::Wire;
use crate::ours::{self, Ours};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Who {
    Ours,
    Haproxy,
    NginxLua,
    NginxStatic,
    Envoy,
    /// A forwarder on hyper and tokio that does nothing else.
    Bare,
    /// No proxy at all.
    Direct,
}

/// What a proxy is started with.
pub struct Site<'a> {
    pub folder: &'a Path,
    /// Where the vector service is that wants an account and no key.
    pub upstream: SocketAddr,
    /// Where it does not look at either.
    pub lenient: SocketAddr,
    pub keys: &'a Keys,
    pub certificate: &'a Certificate,
    /// Envoy, where it is not on the path.
    pub envoy: Option<PathBuf>,
    /// How often the gateway is to flush usage, where that is not the default.
    pub flush: Option<&'a str>,
}

/// Where a proxy takes calls.
#[derive(Clone, Copy)]
pub struct Doors {
    pub http: SocketAddr,
    pub tls: Option<SocketAddr>,
    pub grpc: SocketAddr,
}

/// A proxy that serves.
pub struct Standing {
    pub doors: Doors,
    pub process: Process,
}

pub enum Process {
    Ours(Box<Ours>),
    Other(Running),
    None,
}

impl Who {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "tollgate",
            Self::Haproxy => "HAProxy",
            Self::NginxLua => "nginx + Lua",
            Self::NginxStatic => "nginx, static map",
            Self::Envoy => "Envoy",
            Self::Bare => "bare forwarder",
            Self::Direct => "no proxy",
        }
    }

    /// What it says of its version; `None` where it is not here.
    pub fn version(self, envoy: Option<&Path>) -> Option<String> {
        match self {
            Self::Ours => first_line(Command::new(gateway::BINARY).arg("--version")),
            Self::Haproxy => first_line(Command::new("haproxy").arg("-v")),
            Self::NginxLua => nginx::lua_module().and_then(|_| first_line(Command::new("nginx").arg("-v"))),
            Self::NginxStatic => first_line(Command::new("nginx").arg("-v")),
            Self::Envoy => first_line(Command::new(envoy?).arg("--version")),
            Self::Bare | Self::Direct => Some(String::new()),
        }
    }

    /// Starts it for loads of this kind.
    pub fn start(self, site: &Site<'_>, wire: Wire) -> io::Result<Standing> {
        let (process, doors) = match self {
            Self::Ours => {
                ours::start(site, wire.is_tls()).map(|(ours, doors)| (Process::Ours(Box::new(ours)), doors))?
            }
            Self::Haproxy => other(haproxy::start(site)?),
            Self::NginxLua => other(nginx::start(site, true)?),
            Self::NginxStatic => other(nginx::start(site, false)?),
            Self::Envoy => other(envoy::start(site)?),
            Self::Bare => {
                let (process, at) = Running::part(&["--part", "bare", "--upstream", &site.lenient.to_string()])?;
                other((process, Doors { http: at[0], tls: None, grpc: at[1] }))
            }
            Self::Direct => (Process::None, Doors { http: site.lenient, tls: None, grpc: site.lenient }),
        };
        Ok(Standing { doors, process })
    }
}

fn other((process, doors): (Running, Doors)) -> (Process, Doors) {
    (Process::Other(process), doors)
}

impl Standing {
    pub fn at(&self, wire: Wire) -> SocketAddr {
        match wire {
            Wire::Http { tls: true, .. } => self.doors.tls.unwrap_or(self.doors.http),
            Wire::Http { tls: false, .. } => self.doors.http,
            Wire::Grpc { .. } => self.doors.grpc,
        }
    }

    pub fn pid(&self) -> Option<u32> {
        match &self.process {
            Process::Ours(ours) => Some(ours.gateway.process.pid()),
            Process::Other(process) => Some(process.pid()),
            Process::None => None,
        }
    }
}

impl Doors {
    /// On ports that are free now.
    fn free() -> io::Result<Self> {
        Ok(Self { http: free_address()?, tls: Some(free_address()?), grpc: free_address()? })
    }

    /// Waits until all are open.
    fn open(&self, process: &mut Running) -> io::Result<()> {
        [Some(self.http), self.tls, Some(self.grpc)].into_iter().flatten().try_for_each(|at| process.listens(at))
    }
}

/// Of what a command that succeeds prints, without the name of the program before it.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.rsplit("version: ").next().unwrap_or(line).to_owned())
}
