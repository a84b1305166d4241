//! What goes on while something goes wrong: keys are made, used and deleted all the time, and everything is told to the judge.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::callers::Crowd;
use super::judge::{Call, Judge, Life};
use super::report::{Deletes, Report};
use crate::harness::fleet::{Fleet, GATEWAYS, Ground, Setting};
use crate::harness::office::{Office, made};

/// Keys that are never deleted.
const KEPT: usize = 2;
/// Keys that are called with besides, the latest.
const LATEST: usize = 64;
/// And of those that are gone the latest.
const GONE: usize = 24;
/// Between two attempts at what came to nothing.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often the judge is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

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
    /// Those that do not wait for an answer before the next call; absent where there are none.
    pub crowd: Option<Crowd>,
}

pub struct Scene {
    office: Office,
    /// Where the control planes are.
    offices: Arc<RwLock<Vec<SocketAddr>>>,
    addresses: Arc<RwLock<Vec<SocketAddr>>>,
    first_calls: Mutex<JoinSet<()>>,
    pub kept: Vec<Arc<Life>>,
    pub latest: RwLock<VecDeque<Arc<Life>>>,
    /// Whose deletion is final since short, or will be in a moment.
    pub gone: RwLock<VecDeque<Arc<Life>>>,
    /// That the judge has not been told of.
    pub calls: Mutex<Vec<Call>>,
    deletes: Mutex<Deletes>,
    pub marks: AtomicU64,
    stop: AtomicBool,
    /// The play is over, and so are the last calls.
    curtain: AtomicBool,
}

/// Plays, while keys are called with and deleted all the time, and says what was seen.
pub fn watched<S: Ground>(
    what: &str,
    cast: &Cast<'_>,
    mut fleet: Fleet<S>,
    play: impl FnOnce(&mut Fleet<S>),
) -> Report {
    let scene = Arc::new(Scene::of(&fleet));
    let mut callers = JoinSet::new();
    for gateway in 0..GATEWAYS {
        let on = fleet.runtime.handle();
        for _ in 0..cast.callers {
            callers.spawn_on(Arc::clone(&scene).call_in_turn(gateway), on);
        }
        if let Some(crowd) = cast.crowd {
            callers.spawn_on(Arc::clone(&scene).call_in_a_pipe(gateway, crowd), on);
            callers.spawn_on(Arc::clone(&scene).call_afresh(gateway), on);
            callers.spawn_on(Arc::clone(&scene).call_side_by_side(gateway, crowd), on);
        }
    }
    let (sample, began) = (fleet.sample.clone(), Instant::now());
    let mut judge = Judge::default();
    std::thread::scope(|scope| {
        let judging = scope.spawn(|| {
            while !scene.curtain.load(Ordering::SeqCst) {
                std::thread::sleep(TELL_EVERY);
                // The calls first: what the service saw of them is told with them, or was before.
                let calls = std::mem::take(&mut *scene.calls.lock());
                judge.hear(calls, sample.take_marks(), Instant::now());
            }
        });
        // Whatever the play comes to, the others are told to stop.
        let curtain = Curtain([&scene.stop, &scene.curtain]);
        std::thread::scope(|scope| {
            let over = Curtain([&scene.stop, &scene.stop]);
            for number in 0..cast.deleters {
                let (scene, on) = (&scene, fleet.runtime.handle().clone());
                scope.spawn(move || scene.keep_deleting(number as u64, cast.used_for, &on));
            }
            play(&mut fleet);
            drop(over);
        });
        fleet.runtime.block_on(scene.last_calls(callers));
        drop(curtain);
        judging.join().unwrap();
    });
    let calls = std::mem::take(&mut *scene.calls.lock());
    judge.close(calls, fleet.sample.take_marks());
    let report = Report::new(what, judge, std::mem::take(&mut scene.deletes.lock()), began.elapsed());
    println!("{report}");
    report
}

/// Falls when it is dropped.
struct Curtain<'a>([&'a AtomicBool; 2]);

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|stop| stop.store(true, Ordering::SeqCst));
    }
}

impl Scene {
    fn of<S: Ground>(fleet: &Fleet<S>) -> Self {
        Self {
            office: fleet.office.clone(),
            offices: fleet.offices(),
            addresses: fleet.addresses(),
            first_calls: Mutex::default(),
            kept: (0..KEPT).map(|_| Life::new(fleet.office.create())).collect(),
            latest: RwLock::default(),
            gone: RwLock::default(),
            calls: Mutex::default(),
            deletes: Mutex::default(),
            marks: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            curtain: AtomicBool::new(false),
        }
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub fn address(&self, gateway: usize) -> SocketAddr {
        self.addresses.read()[gateway]
    }

    /// One control plane after the other.
    fn office(&self, number: u64) -> Office {
        let offices = self.offices.read();
        self.office.at(offices[number as usize % offices.len()])
    }

    fn keep_deleting(self: &Arc<Self>, number: u64, (least, most): (u64, u64), on: &Handle) {
        for turn in 0.. {
            let Some(life) = self.create(number + turn) else { return };
            push(&self.latest, &life, LATEST);
            for gateway in 0..GATEWAYS {
                let first_call = Arc::clone(self).call_once(gateway, Arc::clone(&life));
                self.first_calls.lock().spawn_on(first_call, on);
            }
            let used_for = least + scrambled(turn << 8 | number) % (most - least);
            std::thread::sleep(Duration::from_millis(used_for));
            // Now and then so short that the answer is a promise only.
            self.delete(&life, if turn % 3 == 0 { "200ms" } else { "3s" }, number + turn);
            self.forget_first_calls();
            if self.is_over() {
                return;
            }
        }
    }

    fn create(&self, mut at: u64) -> Option<Arc<Life>> {
        while !self.is_over() {
            match self.office(at).ask_to_create().map(made) {
                Ok(Ok(key)) => return Some(Life::new(key)),
                Ok(Err(answer)) => assert!([202, 503].contains(&answer.status), "{} {}", answer.head, answer.text()),
                // There may be a key now that nobody knows.
                Err(_) => at += 1,
            }
            std::thread::sleep(ASK_AGAIN);
        }
        None
    }

    /// Asks until the answer is final.
    fn delete(&self, life: &Arc<Life>, wait: &str, mut at: u64) {
        let began = Instant::now();
        life.asked(began);
        while !self.is_over() {
            let answered = self.office(at).ask_to_delete(&life.id, wait);
            let now = Instant::now();
            let mut deletes = self.deletes.lock();
            match answered.map(|answer| (answer.status, answer.json())) {
                Ok((200, _)) => {
                    life.is_final(now);
                    deletes.took.push(now - began);
                    drop(deletes);
                    return push(&self.gone, life, GONE);
                }
                Ok((202, receipt)) => match receipt["at_latest_ms"].as_u64().map(Duration::from_millis) {
                    Some(at_latest) => {
                        deletes.promised(at_latest);
                        life.is_final(now + at_latest);
                        push(&self.gone, life, GONE);
                    }
                    None => deletes.pending += 1,
                },
                Ok((503, _)) => deletes.refused += 1,
                Ok((status, receipt)) => panic!("{status} {receipt}"),
                Err(_) => {
                    deletes.lost += 1;
                    at += 1;
                }
            }
            drop(deletes);
            std::thread::sleep(ASK_AGAIN);
        }
    }

    /// Those that have ended.
    fn forget_first_calls(&self) {
        let mut calls = self.first_calls.lock();
        while let Some(ended) = calls.try_join_next() {
            ended.unwrap();
        }
    }

    /// The callers come to an end. Then every gateway is called once more with each key that was promised to be gone.
    async fn last_calls(self: &Arc<Self>, mut callers: JoinSet<()>) {
        let mut first_calls = std::mem::take(&mut *self.first_calls.lock());
        while let Some(ended) = first_calls.join_next().await {
            ended.unwrap();
        }
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
        let gone: Vec<_> = self.gone.read().iter().cloned().collect();
        if let Some(last) = gone.iter().filter_map(|life| life.final_at()).max() {
            tokio::time::sleep_until((last + Duration::from_millis(1)).into()).await;
        }
        for life in gone {
            for gateway in 0..GATEWAYS {
                Arc::clone(self).call_once(gateway, Arc::clone(&life)).await;
            }
        }
    }
}

fn push(lives: &RwLock<VecDeque<Arc<Life>>>, life: &Arc<Life>, most: usize) {
    let mut lives = lives.write();
    lives.push_back(Arc::clone(life));
    if lives.len() > most {
        lives.pop_front();
    }
}

/// A number that looks like chance, the same in every run.
pub fn scrambled(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 27
}
