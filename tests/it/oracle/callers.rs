//! Who calls: over HTTP one call after the other, many at once, and each on a connection of its own; and over gRPC side by side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::judge::{Call, How, Life, Said};
use super::scene::{Scene, scrambled};
use crate::harness::h1::H1;
use crate::harness::h2::H2;
use crate::harness::pipe::Pipe;
use crate::harness::stage::{FETCH, GRPC_FETCH, fetch_message, metadata};

/// Between two calls of a client.
const BREATH: Duration = Duration::from_millis(2);
/// Between two calls that wait for nothing.
const FRESH_EVERY: Duration = Duration::from_millis(10);
/// Calls of a client at once, where none waits for another.
const AT_ONCE: usize = 48;

/// How much is called.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Calls that are written at once.
    pub piped: usize,
    /// Between two such.
    pub every: Duration,
    /// gRPC calls that are begun at once.
    pub streams: usize,
}

impl Crowd {
    /// So that the machine has time for other tests.
    pub const SMALL: Self = Self { piped: 8, every: Duration::from_millis(20), streams: 1 };
    /// As much as goes, but for the time that gateways need for their leases.
    pub const GREAT: Self = Self { piped: 64, every: Duration::from_millis(1), streams: 8 };
}

/// A call that has begun.
struct Begun {
    life: Arc<Life>,
    mark: u64,
    started: Instant,
}

impl Begun {
    fn ended(self, gateway: usize, how: How, said: Said) -> Call {
        let Self { life, mark, started } = self;
        Call { life, gateway, how, mark, started, ended: Instant::now(), said }
    }
}

fn said(status: u16) -> Said {
    match status {
        200 => Said::Passed,
        401 => Said::Denied,
        503 => Said::Unsure,
        other => panic!("{other}"),
    }
}

impl Scene {
    fn begin(&self, life: Option<Arc<Life>>) -> Begun {
        let mark = self.marks.fetch_add(1, Ordering::Relaxed);
        Begun { life: life.unwrap_or_else(|| self.pick(mark)), mark, started: Instant::now() }
    }

    /// So that every gateway knows a key before it is deleted, or is asked for one that is gone.
    pub async fn call_once(self: Arc<Self>, gateway: usize, life: Arc<Life>) {
        if let Ok(mut client) = H1::try_connect(self.address(gateway)).await {
            self.call_http(&mut client, gateway, How::Fresh, Some(life)).await;
        }
    }

    pub async fn call_in_turn(self: Arc<Self>, gateway: usize) {
        while !self.is_over() {
            if let Ok(mut client) = H1::try_connect(self.address(gateway)).await {
                while !self.is_over() && self.call_http(&mut client, gateway, How::Http, None).await {
                    tokio::time::sleep(BREATH).await;
                }
            }
            tokio::time::sleep(BREATH * 10).await;
        }
    }

    pub async fn call_in_a_pipe(self: Arc<Self>, gateway: usize, crowd: Crowd) {
        while !self.is_over() {
            if let Ok(mut client) = Pipe::try_connect(self.address(gateway)).await {
                while !self.is_over() && self.call_piped(&mut client, gateway, crowd.piped).await {
                    tokio::time::sleep(crowd.every).await;
                }
            }
            tokio::time::sleep(BREATH * 10).await;
        }
    }

    /// Whether the connection can be used again. All of the calls count as started before the first byte of the first is written.
    async fn call_piped(&self, client: &mut Pipe, gateway: usize, count: usize) -> bool {
        let mut requests = String::new();
        let begun: Vec<_> = (0..count).map(|_| self.begin(None)).collect();
        for Begun { life, mark, .. } in &begun {
            let head = ["GET ", FETCH, " HTTP/1.1\r\nhost: stage.test\r\ndashvector-auth-token: ", &life.text];
            requests.extend(head);
            requests.push_str(&format!("\r\nx-sample-mark: {mark}\r\n\r\n"));
        }
        let (mut begun, mut ended) = (begun.into_iter(), Vec::with_capacity(count));
        let told = |status| ended.extend(begun.next().map(|begun| begun.ended(gateway, How::Piped, said(status))));
        let answered = client.call(requests.as_bytes(), count, told).await;
        ended.extend(begun.map(|begun| begun.ended(gateway, How::Piped, Said::Lost)));
        self.calls.lock().extend(ended);
        if let Err(error) = &answered {
            assert_ne!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
        }
        answered.is_ok()
    }

    /// While a gateway stands still these wait in its queues.
    pub async fn call_afresh(self: Arc<Self>, gateway: usize) {
        let (places, mut calls) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        while !self.is_over() {
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let scene = Arc::clone(&self);
                calls.spawn(async move {
                    if let Ok(mut client) = H1::try_connect(scene.address(gateway)).await {
                        scene.call_http(&mut client, gateway, How::Fresh, None).await;
                    }
                    drop(place);
                });
            }
            while let Some(ended) = calls.try_join_next() {
                ended.unwrap();
            }
            tokio::time::sleep(FRESH_EVERY).await;
        }
        while let Some(ended) = calls.join_next().await {
            ended.unwrap();
        }
    }

    pub async fn call_side_by_side(self: Arc<Self>, gateway: usize, crowd: Crowd) {
        while !self.is_over() {
            if let Some(client) = H2::try_connect(self.address(gateway)).await {
                Arc::clone(&self).call_on(client, gateway, crowd.streams).await;
            }
            tokio::time::sleep(BREATH * 10).await;
        }
    }

    async fn call_on(self: Arc<Self>, client: H2, gateway: usize, streams: usize) {
        let (places, mut calls) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        let mut is_open = true;
        while is_open && !self.is_over() {
            for place in (0..streams).map_while(|_| Arc::clone(&places).try_acquire_owned().ok()) {
                let (scene, client) = (Arc::clone(&self), client.clone());
                calls.spawn(async move {
                    let answered = scene.call_grpc(client, gateway).await;
                    drop(place);
                    answered
                });
            }
            while let Some(answered) = calls.try_join_next() {
                is_open &= answered.unwrap();
            }
            tokio::time::sleep(FRESH_EVERY).await;
        }
        while let Some(answered) = calls.join_next().await {
            answered.unwrap();
        }
    }

    /// Whether the connection can be used again.
    async fn call_http(&self, client: &mut H1, gateway: usize, how: How, life: Option<Arc<Life>>) -> bool {
        let begun = self.begin(life);
        let marked = begun.mark.to_string();
        let headers = [("dashvector-auth-token", begun.life.text.as_str()), ("x-sample-mark", &marked)];
        let answer = client.call("GET", FETCH, &headers, "").await;
        let said = answer.as_ref().map_or(Said::Lost, |answer| said(answer.status.as_u16()));
        self.calls.lock().push(begun.ended(gateway, how, said));
        answer.is_ok_and(|answer| !answer.closes)
    }

    async fn call_grpc(&self, mut client: H2, gateway: usize) -> bool {
        let begun = self.begin(None);
        let marked = begun.mark.to_string();
        let [key, collection] = metadata(&begun.life.text);
        let metadata = [key, collection, ("x-sample-mark", marked.as_str())];
        let answer = client.try_grpc_unary(GRPC_FETCH, &metadata, &fetch_message()).await;
        let said = match answer.as_ref().map(|answer| answer.status()) {
            Ok(0) => Said::Passed,
            Ok(16) => Said::Denied,
            Ok(14) => Said::Unsure,
            Ok(_) => panic!("{answer:?}"),
            Err(_) => Said::Lost,
        };
        self.calls.lock().push(begun.ended(gateway, How::Grpc, said));
        answer.is_ok()
    }

    /// One that stays, one that is gone since short, or one of the latest.
    fn pick(&self, mark: u64) -> Arc<Life> {
        let dice = scrambled(mark);
        let one_of = |lives: &VecDeque<Arc<Life>>| lives.get((dice >> 8) as usize % lives.len().max(1)).map(Arc::clone);
        let chosen = match dice % 4 {
            0 => None,
            1 => one_of(&self.latest.read()),
            _ => one_of(&self.gone.read()),
        };
        chosen.unwrap_or_else(|| Arc::clone(&self.kept[(dice >> 8) as usize % self.kept.len()]))
    }
}
