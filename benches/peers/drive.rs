//! The load generator: one thread, as many clients as the load says, every answer checked.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::task::{JoinSet, LocalSet};

use crate::client::{Failure, Http, Rpc};
use crate::histogram::Histogram;
use crate::load::{Answer, Calls, Expected, Pace, Wire};
use crate::pacer::Pacer;

/// How long calls that are on their way may take once a load has ended.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// What is driven, and where.
pub struct Load {
    pub at: SocketAddr,
    pub wire: Wire,
    pub pace: Pace,
    pub calls: Arc<Calls>,
    /// The number of the first call.
    pub first: usize,
    pub tls: Arc<ClientConfig>,
}

/// For how long.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Before anything is measured.
    pub lead_in: Duration,
    pub measured: Duration,
}

/// What came of it.
#[derive(Default)]
pub struct Tally {
    /// Answered as they had to be.
    pub good: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Of the good ones, since they were due.
    pub latencies: Histogram,
}

/// A load that was driven, with what `read` said at the beginning and at the end of what was measured.
pub struct Driven<R> {
    pub tally: Tally,
    pub before: R,
    pub after: R,
    pub took: Duration,
    /// The number after those of all its calls.
    pub next: usize,
}

impl Load {
    pub fn drive<R>(&self, times: Times, read: impl Fn() -> R) -> Driven<R> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, self.run(times, read))
    }

    async fn run<R>(&self, times: Times, read: impl Fn() -> R) -> Driven<R> {
        let (shared, mut clients) = (Rc::<Shared>::default(), JoinSet::new());
        match self.wire {
            Wire::Http { connections, fresh, tls } => {
                for number in 0..connections {
                    let tls = tls.then(|| Arc::clone(&self.tls));
                    clients
                        .spawn_local(http(self.client(number, connections, &shared), Http::new(self.at, fresh, tls)));
                }
            }
            Wire::Grpc { connections, streams } => {
                for connection in 0..connections {
                    match Rpc::connect(self.at).await {
                        Ok(rpc) => (0..streams).for_each(|stream| {
                            let client = self.client(connection * streams + stream, connections * streams, &shared);
                            clients.spawn_local(grpc(client, rpc.clone()));
                        }),
                        Err(failure) => shared.tally.borrow_mut().failed(&failure),
                    }
                }
            }
        }
        tokio::time::sleep(times.lead_in).await;
        // What fails before is not measured, but it has failed.
        let earlier = shared.tally.take();
        let (before, began) = (read(), Instant::now());
        tokio::time::sleep(times.measured).await;
        let (after, took) = (read(), began.elapsed());
        let mut tally = shared.tally.take();
        shared.ended.set(true);
        let ends = async { while clients.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_CALLS, ends).await.is_err() {
            tally.failed("calls without an end");
        }
        tally.failed += earlier.failed;
        tally.first_failure = earlier.first_failure.or(tally.first_failure);
        Driven { tally, before, after, took, next: shared.next.get() }
    }

    fn client(&self, number: usize, of: usize, shared: &Rc<Shared>) -> Client {
        let pacer = Pacer::new(self.pace, number, of);
        let (calls, shared) = (Arc::clone(&self.calls), Rc::clone(shared));
        Client { calls, pacer, next: self.first + number, step: of, shared }
    }
}

impl Tally {
    fn failed(&mut self, what: impl ToString) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| what.to_string());
    }
}

#[derive(Default)]
struct Shared {
    ended: Cell<bool>,
    /// The number after the highest that was given out.
    next: Cell<usize>,
    tally: RefCell<Tally>,
}

/// One of the clients, which share the calls out among them.
struct Client {
    calls: Arc<Calls>,
    pacer: Pacer,
    next: usize,
    step: usize,
    shared: Rc<Shared>,
}

impl Client {
    /// When the next call is due, and its number; `None` at the end of the load.
    async fn due(&mut self) -> Option<(Instant, usize)> {
        let due = self.pacer.due().await;
        let number = self.next;
        self.next += self.step;
        self.shared.next.set(self.shared.next.get().max(number + 1));
        (!self.shared.ended.get()).then_some((due, number))
    }

    /// Notes how a call went; false where the connection cannot be used any more.
    fn note(&self, due: Instant, expected: Expected, answer: Result<Answer, Failure>) {
        let mut tally = self.shared.tally.borrow_mut();
        match answer {
            Ok(answer) if expected.is_met_by(answer) => {
                tally.good += 1;
                tally.latencies.record(due.elapsed());
            }
            Ok(answer) => tally.failed(format!("{answer:?} where {expected:?} was expected")),
            Err(failure) => tally.failed(failure),
        }
    }
}

async fn http(mut client: Client, mut http: Http) {
    while let Some((due, number)) = client.due().await {
        let (request, expected) = client.calls.nth(number);
        let answer = http.call(request).await;
        client.note(due, expected, answer);
    }
}

async fn grpc(mut client: Client, mut rpc: Rpc) {
    while let Some((due, number)) = client.due().await {
        let (request, expected) = client.calls.nth_rpc(number);
        let answer = rpc.call(request, client.calls.message.clone()).await;
        let is_lost = answer.is_err();
        client.note(due, expected, answer);
        if is_lost {
            return;
        }
    }
}
