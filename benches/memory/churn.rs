//! Keys that come and go: so many are brought in and deleted each second, through the API.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::gateway::{Operator, call};
use crate::load::HOST;
use crate::stand::Stand;
use crate::upstream::KEY;

/// Keys that stay.
pub const STAYING: usize = 1000;
/// Keys that are used until they are to be deleted.
const USED: usize = 300;
/// Keys that are not used any more and not deleted yet, so that no call with one of them is on its way.
const RESTING: usize = 20;

/// Which keys are there, by their numbers.
#[derive(Default)]
pub struct Present {
    /// The first of those in use that go, less [`STAYING`].
    first: AtomicUsize,
    pub made: AtomicUsize,
    pub deleted: AtomicUsize,
}

impl Present {
    /// A key for that call: for half of them one that stays, for the others one that goes.
    pub fn pick(&self, call: usize) -> usize {
        let (first, made) = (self.first.load(Ordering::Acquire), self.made.load(Ordering::Acquire));
        let turn = call / 2;
        if call.is_multiple_of(2) || made == first {
            return turn % STAYING;
        }
        STAYING + first + turn % (made - first)
    }
}

pub struct Churn {
    pub present: Arc<Present>,
    stop: Arc<AtomicBool>,
    clerk: JoinHandle<io::Result<()>>,
}

impl Churn {
    /// Brings these keys in, so many a second, until it is stopped.
    pub fn start(stand: &Stand, keys: Vec<String>, per_second: u32) -> Self {
        let (present, stop) = (Arc::<Present>::default(), Arc::<AtomicBool>::default());
        let clerk = Clerk {
            operator: stand.gateway.operator,
            gateway: stand.gateway.at,
            account: stand.account.clone(),
            present: Arc::clone(&present),
            per_second,
        };
        let stopped = Arc::clone(&stop);
        Self { present, stop, clerk: thread::spawn(move || clerk.work(&keys, &stopped)) }
    }

    /// Whether it has no keys any more, or something went wrong.
    pub fn has_ended(&self) -> bool {
        self.clerk.is_finished()
    }

    pub fn stop(self) -> io::Result<()> {
        self.stop.store(true, Ordering::Release);
        self.clerk.join().map_err(|_| io::Error::other("the clerk panicked"))?
    }
}

struct Clerk {
    operator: Operator,
    gateway: std::net::SocketAddr,
    account: String,
    present: Arc<Present>,
    per_second: u32,
}

impl Clerk {
    fn work(&self, keys: &[String], stopped: &AtomicBool) -> io::Result<()> {
        let (began, mut alive) = (Instant::now(), VecDeque::new());
        for (number, key) in keys.iter().enumerate() {
            let due = began + Duration::from_secs(1) * number as u32 / self.per_second;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if stopped.load(Ordering::Acquire) {
                break;
            }
            let ids = self.operator.import(&self.account, std::slice::from_ref(key))?;
            alive.push_back((ids.into_iter().next().ok_or(io::ErrorKind::InvalidData)?, key));
            self.present.made.store(number + 1, Ordering::Release);
            self.present.first.store((number + 1).saturating_sub(USED), Ordering::Release);
            if alive.len() > USED + RESTING {
                let (id, key) = alive.pop_front().ok_or(io::ErrorKind::NotFound)?;
                self.delete(&id, key)?;
            }
        }
        Ok(())
    }

    /// Also tries the key afterwards, as those do who have not heard of it.
    fn delete(&self, id: &str, key: &str) -> io::Result<()> {
        self.operator.delete(&self.account, id)?;
        self.present.deleted.fetch_add(1, Ordering::Relaxed);
        let (status, answer) = call(self.gateway, "GET", "/v1/collections/small", &[("host", HOST), (KEY, key)], "")?;
        if status != 401 {
            return Err(io::Error::other(format!("a deleted key is answered {status}: {answer}")));
        }
        Ok(())
    }
}
