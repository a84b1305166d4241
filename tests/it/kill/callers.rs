//! Clients that call all the time, at gateways that come and go, and what they know of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::harness::h1::H1;
use crate::harness::h2::{H2, frame};
use crate::harness::stage::{FETCH, FETCH_UNITS, GRPC_FETCH, fetch_message, metadata};

/// At each gateway: clients of HTTP/1.1, connections of HTTP/2, and gRPC clients on each of those.
const HTTP: usize = 6;
const CONNECTIONS: usize = 2;
const STREAMS: usize = 5;
/// Until a client knocks again at a gateway that is down, or that said it cannot serve now.
const AGAIN: Duration = Duration::from_millis(2);

/// One after the other, each with the read units that the service takes for it.
const TARGETS: [(&str, u64); 4] =
    [(FETCH, FETCH_UNITS), ("/v1/collections", 0), ("/v1/collections/things", 0), ("/v1/collections/things/stats", 0)];

/// Where each gateway listens; absent while it is down, so that nobody calls who has its port next.
pub type Doors = Arc<RwLock<Vec<Option<SocketAddr>>>>;

/// What the clients know.
#[derive(Default)]
pub struct Seen {
    begun: AtomicU64,
    completed: AtomicU64,
    denied: AtomicU64,
    lost: AtomicU64,
    units: AtomicU64,
    stop: AtomicBool,
}

/// All of it at one moment, in calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Whatever became of them.
    pub begun: u64,
    /// Answered to the last byte.
    pub completed: u64,
    /// Told that it cannot be served now; not counted by anybody.
    pub denied: u64,
    /// Ended without an answer.
    pub lost: u64,
    /// Read units of the calls that were completed.
    pub units: u64,
}

/// All clients of a storm.
pub struct Crowd {
    pub seen: Arc<Seen>,
    clients: JoinSet<()>,
    runtime: Runtime,
}

impl Crowd {
    pub fn at(doors: &Doors, keys: &[String]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut crowd = Self { seen: Arc::default(), clients: JoinSet::new(), runtime };
        let gateways = doors.read().len();
        for gateway in 0..gateways {
            let who = |number: usize| Who {
                door: (Arc::clone(doors), gateway),
                key: keys[number % keys.len()].clone(),
                seen: Arc::clone(&crowd.seen),
            };
            (0..HTTP).map(who).for_each(|who| drop(crowd.clients.spawn_on(over_http(who), crowd.runtime.handle())));
            (0..CONNECTIONS)
                .map(who)
                .for_each(|who| drop(crowd.clients.spawn_on(over_http2(who), crowd.runtime.handle())));
        }
        crowd
    }

    /// Lets every client end its call, and says what they all saw.
    pub fn end(self) -> Tally {
        let Self { seen, clients, runtime } = self;
        seen.stop.store(true, Ordering::Relaxed);
        runtime.block_on(clients.join_all());
        seen.tally()
    }
}

impl Seen {
    pub fn tally(&self) -> Tally {
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Tally {
            begun: of(&self.begun),
            completed: of(&self.completed),
            denied: of(&self.denied),
            lost: of(&self.lost),
            units: of(&self.units),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    fn complete(&self, units: u64) {
        self.units.fetch_add(units, Ordering::SeqCst);
        self.completed.fetch_add(1, Ordering::SeqCst);
    }

    async fn deny(&self) {
        self.denied.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(AGAIN).await;
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::SeqCst);
    }
}

/// A client: at which gateway, with which key.
#[derive(Clone)]
struct Who {
    door: (Doors, usize),
    key: String,
    seen: Arc<Seen>,
}

impl Who {
    fn door(&self) -> Option<SocketAddr> {
        self.door.0.read()[self.door.1]
    }
}

async fn over_http(who: Who) {
    while who.seen.goes_on() {
        match who.door() {
            Some(at) => match H1::try_connect(at).await {
                Ok(client) => call_http(client, &who).await,
                Err(_) => tokio::time::sleep(AGAIN).await,
            },
            None => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Until the connection ends.
async fn call_http(mut client: H1, who: &Who) {
    for (target, units) in TARGETS.iter().cycle() {
        if !who.seen.goes_on() {
            return;
        }
        who.seen.begin();
        match client.call("GET", target, &[("dashvector-auth-token", &who.key)], "").await {
            Ok(answer) if answer.status == 200 => who.seen.complete(*units),
            Ok(answer) if answer.status == 503 => who.seen.deny().await,
            Ok(answer) => panic!("{target}: {answer:?}"),
            Err(_) => return who.seen.lose(),
        }
    }
}

async fn over_http2(who: Who) {
    while who.seen.goes_on() {
        let connection = match who.door() {
            Some(at) => H2::try_connect(at).await,
            None => None,
        };
        let Some(connection) = connection else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let mut streams = JoinSet::new();
        (0..STREAMS).for_each(|_| drop(streams.spawn(call_grpc(connection.clone(), who.clone()))));
        streams.join_all().await;
    }
}

/// Until the connection ends.
async fn call_grpc(mut client: H2, who: Who) {
    let message = frame(&fetch_message());
    while who.seen.goes_on() {
        who.seen.begin();
        let Ok(answer) = client.try_call(fetch(&who.key, message.clone())).await else { return who.seen.lose() };
        // The status of a denial is in the head.
        match answer.trailers.as_ref().unwrap_or(&answer.headers)["grpc-status"].to_str().unwrap() {
            "0" => who.seen.complete(FETCH_UNITS),
            "14" => who.seen.deny().await,
            _ => panic!("{answer:?}"),
        }
    }
}

fn fetch(key: &str, message: Bytes) -> http::Request<Bytes> {
    let mut request = http::Request::post(format!("http://stage.test{GRPC_FETCH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata(key) {
        request = request.header(name, value);
    }
    request.body(message).unwrap()
}
