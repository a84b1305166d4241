//! `GET /v1/usage/windows`: open → draining → final, and the task that makes hours final.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::attendance::Attendance;
use crate::clock;
use crate::control::Control;
use crate::control::accounts::Items;
use crate::control::caller::UsageReader;
use crate::control::error::Problem;
use crate::control::request::QueryOf;
use crate::control::usage::instant;
use crate::principal::{Epoch, Incarnation};
use crate::store::StoreError;
use crate::store::usage::FinalWindow;
use crate::time::{BootTime, Hour, WallTime};

const EVERY: Duration = Duration::from_secs(5);
/// An hour is not final before this is over: clocks of gateways are not quite equal, and one may begin to count late in an hour
/// that has ended here.
const GRACE: Duration = Duration::from_secs(30);
/// An hour that is not final by then waits for somebody who may need help.
const OVERDUE: Duration = Duration::from_secs(600);
/// Hours in an answer, unless asked otherwise, and at most.
const USUAL: u32 = 7 * 24;
const MOST: u32 = 35 * 24;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The first window, and the end of the last.
    #[serde(default, deserialize_with = "instant")]
    from: Option<WallTime>,
    #[serde(default, deserialize_with = "instant")]
    to: Option<WallTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowState {
    /// The hour is not over.
    Open,
    /// It is over, and not everything of it is certain to be there.
    Draining,
    /// All that was counted is there. Should more come to light, its records get another revision.
    Final,
}

/// Where an hour stands.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Window {
    #[schema(format = DateTime)]
    window_start: String,
    state: WindowState,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    final_at: Option<String>,
    /// The gateways that have not delivered all of it, while it is draining.
    missing: Vec<Incarnation>,
    /// Gateways that were given up before they delivered all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Incarnation>,
}

/// Oldest first; hours in which no gateway ran are left out.
pub async fn list(
    State(control): State<Arc<Control>>,
    _: UsageReader,
    QueryOf(query): QueryOf<Query>,
) -> Result<Json<Items<Window, String>>, Problem> {
    let now = clock::wall().hour();
    let last = query.to.map_or(now, |to| WallTime(to.0.saturating_sub(1)).hour()).min(now);
    let first = query.from.map_or(Hour(last.0.saturating_sub(USUAL - 1)), WallTime::hour);
    if last.0.saturating_sub(first.0) >= MOST {
        return Err(Problem::invalid("A question may be about 840 hours (35 days) at most."));
    }
    let windows = control.windows(first, last, now).await?;
    Ok(Json(Items { items: windows, next: None }))
}

impl Control {
    async fn windows(&self, first: Hour, last: Hour, now: Hour) -> Result<Vec<Window>, StoreError> {
        if first > last {
            return Ok(Vec::new());
        }
        let attendance = self.attendance(Hour(0), last).await?;
        let finals = self.store.final_windows(first, last).await?;
        let finals: BTreeMap<Hour, WallTime> = finals.into_iter().map(|one| (one.hour, one.final_at)).collect();
        let mut hours = attendance.hours(now);
        hours.extend(finals.keys());
        hours.extend(self.corrected_hours(first, last).await?);
        let hours = hours.range(first..=last);
        Ok(hours.map(|hour| window(*hour, now, finals.get(hour).copied(), &attendance)).collect())
    }

    /// Hours with adjustments: there may have been no gateway in one.
    async fn corrected_hours(&self, first: Hour, last: Hour) -> Result<BTreeSet<Hour>, StoreError> {
        Ok(self.store.adjustments(first, last).await?.iter().map(|one| one.new.record.hour).collect())
    }

    /// Of the hours `first..=last`, where all hours before `first` are final; else from the beginning. The marks of the hour before
    /// are needed: who closed that one may not have been heard of since.
    pub(super) async fn attendance(&self, first: Hour, last: Hour) -> Result<Attendance, StoreError> {
        let abandoned = self.store.abandoned().await?.into_iter().map(|one| (one.incarnation, one.at.hour())).collect();
        let from = Hour(first.0.saturating_sub(1));
        let marks = self.store.marks(from, last).await?;
        // Asked behind the marks: those that left before are known to have, and no others are missed.
        let left = self.left(from, last).await?.into_keys().collect();
        Ok(Attendance::of(&marks, abandoned).except(left))
    }
}

fn window(hour: Hour, now: Hour, final_at: Option<WallTime>, attendance: &Attendance) -> Window {
    let state = match final_at {
        Some(_) => WindowState::Final,
        None if hour >= now => WindowState::Open,
        None => WindowState::Draining,
    };
    let missing = if state == WindowState::Draining { attendance.missing(hour) } else { Vec::new() };
    let lost = if hour < now { attendance.lost(hour) } else { Vec::new() };
    Window { window_start: hour.to_string(), state, final_at: final_at.map(|at| at.to_string()), missing, lost }
}

/// Makes hours final once everybody has delivered them. Runs until it is dropped; several control planes may do it at once.
pub async fn run(control: Arc<Control>) {
    let mut settled = Settled::default();
    // The store may have been restored a moment ago, see `Settled::is_settled_in`.
    tokio::time::sleep(GRACE + control.store.lease()).await;
    loop {
        let now = clock::wall();
        let round = settled.round(&control, now).await;
        let overdue = settled.open.iter().filter(|hour| hour.end().plus(OVERDUE) <= now).count();
        control.metrics.usage_hours_overdue.set(i64::try_from(overdue).unwrap_or(i64::MAX));
        match round {
            Ok(made) => made.iter().for_each(|hour| tracing::info!(%hour, "the usage of an hour is final")),
            Err(error) => tracing::warn!(%error, "hours could not be made final; it is tried again"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// How far this process knows that all hours are final.
#[derive(Default)]
pub(in crate::control) struct Settled {
    before: Option<Hour>,
    /// The epoch in which that was seen, and since when it is known.
    epoch: Option<(Epoch, BootTime)>,
    /// It is not the epoch that was there at the start.
    renewed: bool,
    /// Hours that wait for somebody.
    open: Vec<Hour>,
}

impl Settled {
    /// The hours that it made final.
    pub(in crate::control) async fn round(
        &mut self,
        control: &Control,
        now: WallTime,
    ) -> Result<Vec<Hour>, StoreError> {
        let Some(last) = WallTime(now.0.saturating_sub(GRACE.as_millis() as u64)).hour().0.checked_sub(1).map(Hour)
        else {
            return Ok(Vec::new());
        };
        if !self.is_settled_in(control.store.clusters().await?.epoch, control.store.lease()) {
            return Ok(Vec::new());
        }
        let first = self.before.unwrap_or(Hour(0));
        let attendance = control.attendance(first, last).await?;
        // Corrections may be of any hour, also of one in which nobody counted.
        let mut hours: BTreeSet<Hour> = attendance.hours(last).into_iter().filter(|hour| *hour >= first).collect();
        hours.extend(control.corrected_hours(Hour(0), last).await?);
        let from = hours.first().copied().unwrap_or(first);
        let finals = control.store.final_windows(from, last).await?;
        let finals: BTreeSet<Hour> = finals.into_iter().map(|one| one.hour).collect();
        let open: Vec<Hour> = hours.difference(&finals).copied().collect();
        let mut made = Vec::new();
        for hour in &open {
            if attendance.missing(*hour).is_empty() {
                control.store.make_final(FinalWindow { hour: *hour, final_at: now }).await?;
                made.push(*hour);
            }
        }
        self.open = open.into_iter().filter(|hour| !made.contains(hour)).collect();
        self.before = self.open.first().copied().or(Some(last.next()));
        Ok(made)
    }

    /// A store that was restored, or failed over, may lack marks that it had: what it says is taken once every gateway has had the
    /// time to deliver again what it lost.
    fn is_settled_in(&mut self, epoch: Epoch, lease: Duration) -> bool {
        let now = clock::boot();
        let before = self.epoch.filter(|(known, _)| *known == epoch);
        let (_, since) = *self.epoch.insert(before.unwrap_or((epoch, now)));
        if before.is_none() && self.before.take().is_some() {
            tracing::info!("the store is in another epoch: which hours are final is looked at again");
            self.renewed = true;
        }
        !self.renewed || now.since(since) >= GRACE + lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::ID_BYTES;

    #[test]
    fn in_another_epoch_everything_is_looked_at_again_and_not_at_once() {
        let (one, two, lease) = (Epoch([1; ID_BYTES]), Epoch([2; ID_BYTES]), Duration::from_secs(5));
        let mut settled = Settled::default();
        assert!(settled.is_settled_in(one, lease));
        settled.before = Some(Hour(7));
        assert!(settled.is_settled_in(one, lease) && settled.before == Some(Hour(7)), "nothing has changed");
        assert!(!settled.is_settled_in(two, lease) && settled.before.is_none());
        assert!(!settled.is_settled_in(two, lease), "gateways still deliver what was lost");
    }
}
