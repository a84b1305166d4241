//! One case: everybody started and warmed up, then rounds in which they take turns.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::cases::{Case, Contender, SMALL};
use crate::drive::{Driven, Load, Times};
use crate::flood::{self, Flooded, Flooding};
use crate::gateway::DATA_PLANE;
use crate::keys::{KEYS, Keys};
use crate::load::{Ask, Calls, Pace, Wire};
use crate::measure::{Used, resident, used};
use crate::ours::Deleted;
use crate::proxies::{Process, Site, Standing, Who};
use crate::report::{Row, Run};

/// How often the warm-up is repeated at most, until each key was used.
const WARM_UPS: usize = 8;

/// How long, and how often.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    pub times: Times,
}

impl Plan {
    /// How many deletes there are in one round.
    fn deletes(&self, per_second: u32) -> usize {
        ((self.times.lead_in + self.times.measured).as_secs_f64() * f64::from(per_second)).ceil() as usize
    }

    /// How many keys are deleted in all.
    pub fn all_deletes(&self, case: &Case) -> usize {
        case.contenders.iter().map(|contender| self.deletes(contender.deletes)).sum::<usize>() * self.rounds
    }
}

/// Runs a case among those of its contenders that are `here`. One row for each, with a run for each round.
pub fn hold(case: &Case, site: &Site<'_>, plan: Plan, here: impl Fn(Who) -> bool) -> io::Result<Vec<Row>> {
    let mut standing = start(case, site, here)?;
    let contenders = case.contenders.iter().filter(|contender| standing.contains_key(&contender.who));
    let mut entries: Vec<_> = contenders.map(|contender| Entry::new(case, site, contender)).collect();
    for entry in &entries {
        entry.warm_up(&standing, plan.times);
    }
    for round in 0..plan.rounds {
        for turn in 0..entries.len() {
            let at = (round + turn) % entries.len();
            let run = entries[at].run(&mut standing, plan)?;
            entries[at].runs.push(run);
        }
    }
    Ok(entries.into_iter().map(|entry| Row::new(entry.contender, entry.runs)).collect())
}

/// Everybody who is here. A proxy that does not start is left out, and that is said; the gateway has to.
fn start(case: &Case, site: &Site<'_>, here: impl Fn(Who) -> bool) -> io::Result<HashMap<Who, Standing>> {
    let mut standing = HashMap::new();
    for who in case.contenders.iter().map(|contender| contender.who).filter(|who| here(*who)) {
        if standing.contains_key(&who) {
            continue;
        }
        match who.start(site, case.wire) {
            Ok(started) => _ = standing.insert(who, started),
            Err(error) if who == Who::Ours => return Err(error),
            Err(error) => println!("{} is left out of {}: {error}", who.name(), case.name),
        }
    }
    Ok(standing)
}

struct Entry<'a> {
    contender: &'a Contender,
    wire: Wire,
    pace: Pace,
    calls: Arc<Calls>,
    flood: Option<Arc<Calls>>,
    site: &'a Site<'a>,
    runs: Vec<Run>,
}

impl<'a> Entry<'a> {
    fn new(case: &Case, site: &'a Site<'a>, contender: &'a Contender) -> Self {
        let calls = Arc::new(calls(case.wire, site.keys, contender.ask));
        let flood = contender.flood.map(|flood| Arc::new(flood.calls(site.keys)));
        Self { contender, wire: case.wire, pace: case.pace, calls, flood, site, runs: Vec::new() }
    }

    fn load(&self, standing: &Standing) -> Load {
        let (calls, tls) = (Arc::clone(&self.calls), Arc::clone(&self.site.certificate.client));
        Load { at: standing.at(self.wire), wire: self.wire, pace: self.pace, calls, first: 0, tls }
    }

    /// Starts the flood, where there is one. Its calls go on where those of the round before ended, so that their keys are other ones.
    fn start_flood(&self, standing: &Standing, times: Times) -> Option<Flooding> {
        let calls = Arc::clone(self.flood.as_ref()?);
        let first = self.runs.last().map_or(0, |run| run.flooded.next);
        let load = Load { wire: flood::WIRE, pace: Pace::AtOnce, calls, first, ..self.load(standing) };
        Some(Flooding::start(load, times))
    }

    /// First each key is used, as far as that does not take too long, and then there is a turn that does not count.
    fn warm_up(&self, standing: &HashMap<Who, Standing>, times: Times) {
        let itself = self.load(&standing[&self.contender.who]);
        let calls = Arc::new(calls(self.wire, self.site.keys, SMALL));
        let (wire, tls) = (self.wire.kept(), Arc::clone(&itself.tls));
        let all_keys = Load { at: itself.at, wire, pace: Pace::AtOnce, calls, first: 0, tls };
        let times = Times { lead_in: Duration::ZERO, ..times };
        let mut used = 0;
        for _ in 0..WARM_UPS {
            used += all_keys.drive(times, || ()).tally.good;
            if used >= KEYS as u64 {
                break;
            }
        }
        itself.drive(times, || ());
    }

    fn run(&self, standing: &mut HashMap<Who, Standing>, plan: Plan) -> io::Result<Run> {
        let deletes = self.contender.deletes;
        let deleting = match standing.get_mut(&Who::Ours).map(|ours| &mut ours.process) {
            Some(Process::Ours(ours)) if deletes > 0 => {
                Some(ours.take_for_deletion(plan.deletes(deletes))?.start(deletes))
            }
            _ => None,
        };
        let standing = standing.get(&self.contender.who).ok_or(io::ErrorKind::NotFound)?;
        let (load, pid) = (self.load(standing), standing.pid());
        let read = || pid.map_or_else(Used::default, |pid| used(pid, DATA_PLANE));
        let flooding = self.start_flood(standing, plan.times);
        let driven = load.drive(plan.times, read);
        let flooded = flooding.map(Flooding::finish).transpose()?;
        let deleted = deleting.map(|deleting| deleting.finish()).transpose()?;
        Ok(run_of(driven, pid, deleted.unwrap_or_default(), flooded.unwrap_or_default()))
    }
}

fn calls(wire: Wire, keys: &Keys, ask: Ask) -> Calls {
    match wire {
        Wire::Http { .. } => Calls::http(keys, ask),
        Wire::Grpc { .. } => Calls::grpc(keys, ask),
    }
}

fn run_of(driven: Driven<Used>, pid: Option<u32>, deleted: Deleted, flooded: Flooded) -> Run {
    let Driven { tally, before, after, took, .. } = driven;
    let (cpu, named) = (after.cpu.saturating_sub(before.cpu), after.named.saturating_sub(before.named));
    // The process's CPU cannot be told apart by call, so those of the flood count as well.
    let calls = (tally.good as f64 + flooded.per_second * took.as_secs_f64()).max(1.0);
    Run {
        cpu_us: cpu.as_secs_f64() * 1e6 / calls,
        background: (1.0 - named.as_secs_f64() / cpu.as_secs_f64().max(f64::EPSILON)).max(0.0),
        calls_per_second: tally.good as f64 / took.as_secs_f64(),
        p50_us: tally.latencies.quantile(0.5),
        p99_us: tally.latencies.quantile(0.99),
        memory: pid.map_or(0, resident),
        calls: tally.good,
        failed: tally.failed + flooded.failed,
        first_failure: tally.first_failure.or_else(|| flooded.first_failure.clone()),
        deleted,
        flooded,
    }
}
