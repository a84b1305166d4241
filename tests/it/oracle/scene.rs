//! Who calls and who deletes while something goes wrong.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::judge::{Call, History, How, Life, Said, Violation};
use crate::harness::fleet::{Fleet, GATEWAYS, Office, Setting};
use crate::harness::h1::H1;
use crate::harness::h2::H2;
use crate::harness::stage::{FETCH, GRPC_FETCH, fetch_message, metadata};

/// Keys that are never deleted.
const KEPT: usize = 2;
/// Keys that are called with besides, the latest.
const LATEST: usize = 64;
/// Between two calls of a client.
const BREATH: Duration = Duration::from_millis(2);
/// Between two calls that wait for nothing.
const FRESH_EVERY: Duration = Duration::from_millis(10);
/// Calls of a client at once, where none waits for another.
const AT_ONCE: usize = 48;

/// How a scene is set.
#[derive(Clone, Copy, Debug)]
pub struct Cast<'a> {
    pub fleet: Setting<'a>,
    /// Keys that are deleted side by side.
    pub deleters: usize,
    /// For how long a key is used before it is deleted, in milliseconds.
    pub used_for: (u64, u64),
    /// Clients of each gateway that call over HTTP, one call after the other.
    pub callers: usize,
    /// Whether there are clients that do not wait for an answer before the next call.
    pub impatient: bool,
}

impl Default for Cast<'_> {
    fn default() -> Self {
        let fleet = Setting { lease: super::LEASE, linked: true, ..Setting::default() };
        Self { fleet, deleters: 6, used_for: (10, 60), callers: 2, impatient: true }
    }
}

/// What was seen.
pub struct Report {
    pub violations: Vec<Violation>,
    calls: usize,
    passed: usize,
    denied: usize,
    unsure: usize,
    deletes: Deletes,
}

#[derive(Default)]
struct Deletes {
    /// From the request to the 200, however often it was asked for.
    took: Vec<Duration>,
    /// Answers 202.
    pending: usize,
    /// Answers 503.
    refused: usize,
}

pub struct Scene {
    office: Office,
    addresses: Arc<RwLock<Vec<SocketAddr>>>,
    first_calls: Mutex<JoinSet<()>>,
    kept: Vec<Arc<Life>>,
    latest: RwLock<VecDeque<Arc<Life>>>,
    calls: Mutex<Vec<Call>>,
    deletes: Mutex<Deletes>,
    marks: AtomicU64,
    stop: AtomicBool,
}

/// Plays, while keys are called with and deleted all the time, and says what was seen.
pub fn watched(what: &str, cast: &Cast<'_>, play: impl FnOnce(&mut Fleet)) -> Report {
    let mut fleet = Fleet::start(&cast.fleet);
    let scene = Arc::new(Scene {
        office: fleet.office.clone(),
        addresses: fleet.addresses(),
        first_calls: Mutex::default(),
        kept: (0..KEPT).map(|_| Life::new(fleet.office.create())).collect(),
        latest: RwLock::default(),
        calls: Mutex::default(),
        deletes: Mutex::default(),
        marks: AtomicU64::new(1),
        stop: AtomicBool::new(false),
    });
    let mut callers = JoinSet::new();
    for gateway in 0..GATEWAYS {
        let on = fleet.runtime.handle();
        for _ in 0..cast.callers {
            callers.spawn_on(Arc::clone(&scene).call_in_turn(gateway), on);
        }
        if cast.impatient {
            callers.spawn_on(Arc::clone(&scene).call_afresh(gateway), on);
            callers.spawn_on(Arc::clone(&scene).call_side_by_side(gateway), on);
        }
    }
    std::thread::scope(|scope| {
        // Whatever the play comes to, the others are told to stop.
        let _curtain = Curtain(&scene.stop);
        for number in 0..cast.deleters {
            let (scene, on) = (&scene, fleet.runtime.handle().clone());
            scope.spawn(move || scene.keep_deleting(number as u64, cast.used_for, &on));
        }
        play(&mut fleet);
    });
    let mut first_calls = std::mem::take(&mut *scene.first_calls.lock());
    fleet.runtime.block_on(async {
        while let Some(ended) = first_calls.join_next().await {
            ended.unwrap();
        }
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
    });
    let history = History { calls: std::mem::take(&mut scene.calls.lock()), seen: fleet.sample.take_marks() };
    let report = Report::of(&history, std::mem::take(&mut scene.deletes.lock()));
    println!("{what}: {report}");
    report
}

struct Curtain<'a>(&'a AtomicBool);

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Scene {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn keep_deleting(self: &Arc<Self>, number: u64, (least, most): (u64, u64), on: &Handle) {
        for turn in 0.. {
            let Some(life) = self.create() else { return };
            let mut latest = self.latest.write();
            latest.push_back(Arc::clone(&life));
            if latest.len() > LATEST {
                latest.pop_front();
            }
            drop(latest);
            for gateway in 0..GATEWAYS {
                let first_call = Arc::clone(self).call_once(gateway, Arc::clone(&life));
                self.first_calls.lock().spawn_on(first_call, on);
            }
            let used_for = least + scrambled(turn << 8 | number) % (most - least);
            std::thread::sleep(Duration::from_millis(used_for));
            // Now and then so short that the answer is a promise only.
            self.delete(&life, if turn % 3 == 0 { "200ms" } else { "3s" });
            if self.is_over() {
                return;
            }
        }
    }

    fn create(&self) -> Option<Arc<Life>> {
        while !self.is_over() {
            match self.office.try_create() {
                Ok(made) => return Some(Life::new(made)),
                Err(answer) => assert!([202, 503].contains(&answer.status), "{} {}", answer.head, answer.text()),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    }

    /// Asks until the answer is final.
    fn delete(&self, life: &Life, wait: &str) {
        let began = Instant::now();
        life.asked(began);
        while !self.is_over() {
            let (status, receipt) = self.office.delete(&life.id, wait);
            let now = Instant::now();
            let mut deletes = self.deletes.lock();
            match status {
                200 => {
                    life.is_final(now);
                    deletes.took.push(now - began);
                    return;
                }
                202 => {
                    deletes.pending += 1;
                    if let Some(millis) = receipt["at_latest_ms"].as_u64() {
                        life.is_final(now + Duration::from_millis(millis));
                    }
                }
                503 => deletes.refused += 1,
                _ => panic!("{status} {receipt}"),
            }
            drop(deletes);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One that stays, one that is gone since short, or one of the latest.
    fn pick(&self, mark: u64) -> Arc<Life> {
        let dice = scrambled(mark);
        let latest = self.latest.read();
        let one_of =
            |lives: &[&Arc<Life>]| lives.get((dice >> 8) as usize % lives.len().max(1)).map(|life| Arc::clone(life));
        let chosen = match dice % 4 {
            0 => None,
            1 => one_of(&latest.iter().collect::<Vec<_>>()),
            _ => {
                let now = Instant::now();
                let gone = |life: &&Arc<Life>| life.final_for(now).is_some_and(|since| since < super::LEASE * 2);
                one_of(&latest.iter().filter(gone).collect::<Vec<_>>())
            }
        };
        chosen.unwrap_or_else(|| Arc::clone(&self.kept[(dice >> 8) as usize % KEPT]))
    }

    fn address(&self, gateway: usize) -> SocketAddr {
        self.addresses.read()[gateway]
    }

    /// So that every gateway knows a key before it is deleted.
    async fn call_once(self: Arc<Self>, gateway: usize, life: Arc<Life>) {
        if let Ok(mut client) = H1::try_connect(self.address(gateway)).await {
            self.call_with(&mut client, gateway, How::Fresh, |_| life).await;
        }
    }

    async fn call_in_turn(self: Arc<Self>, gateway: usize) {
        while !self.is_over() {
            if let Ok(mut client) = H1::try_connect(self.address(gateway)).await {
                while !self.is_over() && self.call_http(&mut client, gateway, How::Http).await {
                    tokio::time::sleep(BREATH).await;
                }
            }
            tokio::time::sleep(BREATH * 10).await;
        }
    }

    /// While a gateway stands still these wait in its queues.
    async fn call_afresh(self: Arc<Self>, gateway: usize) {
        let (places, mut calls) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        while !self.is_over() {
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let scene = Arc::clone(&self);
                calls.spawn(async move {
                    if let Ok(mut client) = H1::try_connect(scene.address(gateway)).await {
                        scene.call_http(&mut client, gateway, How::Fresh).await;
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

    async fn call_side_by_side(self: Arc<Self>, gateway: usize) {
        while !self.is_over() {
            if let Some(client) = H2::try_connect(self.address(gateway)).await {
                Arc::clone(&self).call_on(client, gateway).await;
            }
            tokio::time::sleep(BREATH * 10).await;
        }
    }

    async fn call_on(self: Arc<Self>, client: H2, gateway: usize) {
        let (places, mut calls) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        let mut is_open = true;
        while is_open && !self.is_over() {
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
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
    async fn call_http(&self, client: &mut H1, gateway: usize, how: How) -> bool {
        self.call_with(client, gateway, how, |mark| self.pick(mark)).await
    }

    async fn call_with(&self, client: &mut H1, gateway: usize, how: How, life: impl FnOnce(u64) -> Arc<Life>) -> bool {
        let mark = self.marks.fetch_add(1, Ordering::Relaxed);
        let (life, started) = (life(mark), Instant::now());
        let marked = mark.to_string();
        let headers = [("dashvector-auth-token", life.text.as_str()), ("x-sample-mark", &marked)];
        let answer = client.call("GET", FETCH, &headers, "").await;
        let said = match answer.as_ref().map(|answer| answer.status.as_u16()) {
            Ok(200) => Said::Passed,
            Ok(401) => Said::Denied,
            Ok(503) => Said::Unsure,
            Ok(_) => panic!("{answer:?}"),
            Err(_) => Said::Lost,
        };
        let ended = Instant::now();
        self.calls.lock().push(Call { life, gateway, how, mark, started, ended, said });
        answer.is_ok_and(|answer| !answer.closes)
    }

    async fn call_grpc(&self, mut client: H2, gateway: usize) -> bool {
        let mark = self.marks.fetch_add(1, Ordering::Relaxed);
        let (life, started) = (self.pick(mark), Instant::now());
        let marked = mark.to_string();
        let [key, collection] = metadata(&life.text);
        let metadata = [key, collection, ("x-sample-mark", marked.as_str())];
        let answer = client.try_grpc_unary(GRPC_FETCH, &metadata, &fetch_message()).await;
        let said = match answer.as_ref().map(|answer| answer.status()) {
            Ok(0) => Said::Passed,
            Ok(16) => Said::Denied,
            Ok(14) => Said::Unsure,
            Ok(_) => panic!("{answer:?}"),
            Err(_) => Said::Lost,
        };
        let ended = Instant::now();
        self.calls.lock().push(Call { life: Arc::clone(&life), gateway, how: How::Grpc, mark, started, ended, said });
        answer.is_ok()
    }
}

/// A number that looks like chance, the same in every run.
fn scrambled(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 27
}

impl Report {
    fn of(history: &History, mut deletes: Deletes) -> Self {
        deletes.took.sort();
        let of = |said| history.calls.iter().filter(|call| call.said == said).count();
        let (passed, denied, unsure) = (of(Said::Passed), of(Said::Denied), of(Said::Unsure));
        Self { violations: history.violations(), calls: history.calls.len(), passed, denied, unsure, deletes }
    }

    /// There was something to be seen, and all of it was as it must be.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.passed > 0 && self.denied > 0 && !self.deletes.took.is_empty(), "nothing was seen: {self}");
        let some: String = self.violations.iter().take(5).map(|violation| format!("\n{violation}")).collect();
        assert!(some.is_empty(), "{} violations, for example{some}", self.violations.len());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { violations, calls, passed, denied, unsure, deletes } = self;
        let took = |share: usize| deletes.took.get(deletes.took.len() * share / 100).copied().unwrap_or_default();
        write!(
            f,
            "{calls} calls ({passed} passed, {denied} denied, {unsure} unsure), {} deletes answered 200 after {:.1?} (p50) and \
             {:.1?} (p99), 202 {} times, 503 {} times; {} violations",
            deletes.took.len(),
            took(50),
            took(99),
            deletes.pending,
            deletes.refused,
            violations.len()
        )
    }
}
