//! A flood: calls as fast as they come, on connections and a thread of their own, while other calls are measured.

use std::time::Duration;
use std::{io, thread};

use crate::cases::SMALL;
use crate::drive::{Driven, Load, Times};
use crate::keys::{KEYS, Keys};
use crate::load::{Ask, Calls, Wire};

/// How a flood reaches the gateway.
pub const WIRE: Wire = Wire::Http { connections: 16, fresh: false, tls: false };
/// Bad keys made beforehand. The gateway remembers fewer than a third as many, so it has forgotten a key that comes again.
const BAD_KEYS: usize = 200_000;
/// By how much a flood outlasts what is measured beside it.
const MARGIN: Duration = Duration::from_millis(200);

/// What the calls of a flood come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Each with another key that nobody knows, well-formed and with the right checksum. The gateway answers such connections after a pause.
    Unknown,
    /// The same, but one in a hundred is good, so that nothing is held back: whoever has a key can do that.
    Insider,
    /// With the keys that the calls beside it have too.
    Good,
    /// With keys whose checksum is wrong.
    Malformed,
}

impl Flood {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "bad keys",
            Self::Insider => "bad keys and 1 % good ones",
            Self::Good => "good keys",
            Self::Malformed => "malformed keys",
        }
    }

    /// Its calls; `keys` are those of the run.
    pub fn calls(self, keys: &Keys) -> Calls {
        let (wrong, percent) = match self {
            Self::Good => return Calls::http(keys, SMALL),
            Self::Unknown => (Keys::unknown(BAD_KEYS), 100),
            Self::Insider => (Keys::unknown(BAD_KEYS), 99),
            Self::Malformed => (Keys::unknown(KEYS).into_iter().map(malformed).collect(), 100),
        };
        let keys = Keys { good: keys.good.clone(), wrong, spare: Vec::new() };
        Calls::http(&keys, Ask { wrong: percent, ..SMALL })
    }
}

/// The same key with another last digit of its checksum.
fn malformed(mut key: String) -> String {
    let last = key.pop();
    key.push(if last == Some('0') { '1' } else { '0' });
    key
}

/// A flood that is under way.
pub struct Flooding(thread::JoinHandle<Driven<()>>);

/// A flood that has ended.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Flooded {
    /// Calls that were answered as they had to be.
    pub calls: u64,
    pub per_second: f64,
    pub failed: u64,
    #[serde(skip)]
    pub first_failure: Option<String>,
    /// The number of the call that the next flood begins with.
    #[serde(skip)]
    pub next: usize,
}

impl Flooding {
    /// Begins one that lasts as long as a load which is driven for these times from now on.
    pub fn start(load: Load, times: Times) -> Self {
        let times = Times { measured: times.measured + MARGIN, ..times };
        Self(thread::spawn(move || load.drive(times, || ())))
    }

    /// Waits for its end.
    pub fn finish(self) -> io::Result<Flooded> {
        let Driven { tally, took, next, .. } = self.0.join().map_err(|_| io::Error::other("the flood panicked"))?;
        let first_failure = tally.first_failure.map(|failure| format!("of the flood: {failure}"));
        let per_second = tally.good as f64 / took.as_secs_f64();
        Ok(Flooded { calls: tally.good, per_second, failed: tally.failed, first_failure, next })
    }
}
