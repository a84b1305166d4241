//! Five hundred calls per second: on connections that stay, on a new one for each call, and over gRPC.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::churn::Present;
use crate::client::{Failure, Http, Rpc};
use crate::load::{Answer, Expected, Pace};
use crate::pacer::Pacer;
use crate::stand::Stand;

/// Calls per second, and the clients that take turns at them.
struct Share {
    per_second: u32,
    clients: usize,
}

const KEPT: Share = Share { per_second: 300, clients: 16 };
const FRESH: Share = Share { per_second: 100, clients: 8 };
const GRPC: Share = Share { per_second: 100, clients: 8 };
/// Of those over gRPC, how many share a connection.
const STREAMS: usize = 2;

pub struct Traffic {
    stand: Rc<Stand>,
    present: Arc<Present>,
    /// Calls that were begun.
    begun: Cell<usize>,
    ended: Cell<bool>,
    tally: RefCell<Tally>,
}

/// What came of the calls.
#[derive(Clone, Default)]
pub struct Tally {
    /// Answered as they had to be.
    pub good: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
}

impl Traffic {
    pub fn new(stand: &Rc<Stand>, present: &Arc<Present>) -> Rc<Self> {
        let (stand, present) = (Rc::clone(stand), Arc::clone(present));
        Rc::new(Self { stand, present, begun: Cell::default(), ended: Cell::default(), tally: RefCell::default() })
    }

    /// So far.
    pub fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// Every client ends when its next call is due.
    pub fn end(&self) {
        self.ended.set(true);
    }

    pub async fn start(self: &Rc<Self>) -> Result<JoinSet<()>, Failure> {
        let mut clients = JoinSet::new();
        for (share, fresh) in [(KEPT, false), (FRESH, true)] {
            for number in 0..share.clients {
                let client = Http::new(self.stand.gateway.at, fresh, None);
                clients.spawn_local(http(Rc::clone(self), share.pacer(number), client));
            }
        }
        for connection in 0..GRPC.clients / STREAMS {
            let client = Rpc::connect(self.stand.gateway.at).await?;
            for stream in 0..STREAMS {
                let pacer = GRPC.pacer(connection * STREAMS + stream);
                clients.spawn_local(grpc(Rc::clone(self), pacer, client.clone()));
            }
        }
        Ok(clients)
    }

    /// Waits for the next call's time, and says with which key it is made; `None` at the end.
    async fn next(&self, pacer: &mut Pacer) -> Option<usize> {
        pacer.due().await;
        let call = self.begun.replace(self.begun.get() + 1);
        (!self.ended.get()).then(|| self.present.pick(call))
    }

    fn note(&self, expected: Expected, answer: Result<Answer, Failure>) {
        let mut tally = self.tally.borrow_mut();
        let failure = match answer {
            Ok(answer) if expected.is_met_by(answer) => {
                tally.good += 1;
                return;
            }
            Ok(answer) => format!("{answer:?} where {expected:?} was expected"),
            Err(failure) => failure.to_string(),
        };
        tally.failed += 1;
        tally.first_failure.get_or_insert(failure);
    }
}

impl Share {
    fn pacer(&self, number: usize) -> Pacer {
        Pacer::new(Pace::PerSecond(self.per_second), number, self.clients)
    }
}

async fn http(traffic: Rc<Traffic>, mut pacer: Pacer, mut client: Http) {
    while let Some(key) = traffic.next(&mut pacer).await {
        let (request, expected) = traffic.stand.http.nth(key);
        let answer = client.call(request).await;
        traffic.note(expected, answer);
    }
}

async fn grpc(traffic: Rc<Traffic>, mut pacer: Pacer, mut client: Rpc) {
    while let Some(key) = traffic.next(&mut pacer).await {
        let (request, expected) = traffic.stand.grpc.nth_rpc(key);
        let answer = client.call(request, traffic.stand.grpc.message.clone()).await;
        traffic.note(expected, answer);
    }
}
