//! Processes that the benchmark starts: proxies, and itself in another part. They end with it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take to start or to stop on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running process. It is asked to end when this is dropped, and made to where it does not.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts the command; what it says goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let file = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, log: log.into() })
    }

    /// This program in another part, and the addresses that it [announces](announce).
    pub fn part(arguments: &[&str]) -> io::Result<(Self, Vec<SocketAddr>)> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let parsed = line.split_whitespace().map(|text| text.parse::<SocketAddr>().map_err(io::Error::other));
        let addresses: io::Result<_> = parsed.collect();
        Ok((Self { child, log: PathBuf::new() }, addresses?))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it takes connections there.
    pub fn listens(&mut self, at: SocketAddr) -> io::Result<()> {
        self.says(|_| TcpStream::connect(at).ok().map(drop))
    }

    /// Waits for what `pick` finds in the log.
    pub fn says<T>(&mut self, pick: impl Fn(&str) -> Option<T>) -> io::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = pick(&self.log()) {
                return Ok(found);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = self.log();
                let last = log.char_indices().rev().nth(2000).map_or(0, |(at, _)| at);
                return Err(io::Error::other(format!("it did not start; its log:\n{}", &log[last..])));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has not been waited for yet, so its id is still its own. An error says that it has ended already.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says where this part listens, to the one that started it.
pub fn announce(addresses: &[SocketAddr]) -> io::Result<()> {
    let line: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
    writeln!(io::stdout(), "{}", line.join(" "))
}

/// An address that nobody listens on at this moment.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
