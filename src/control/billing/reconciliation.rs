//! `GET /v1/usage/reconciliation`: what gateways say they counted in an hour, against what the ledger holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::clock;
use crate::control::Control;
use crate::control::caller::UsageReader;
use crate::control::error::Problem;
use crate::control::request::QueryOf;
use crate::control::usage::instant;
use crate::meter::record::{Closing, Counters, LedgerLine, Outcome};
use crate::principal::Incarnation;
use crate::store::usage::HourMark;
use crate::time::{Hour, WallTime};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Any instant within the hour; absent for the last one that is over.
    #[serde(default, deserialize_with = "instant")]
    window: Option<WallTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every gateway has closed the hour, and the ledger holds exactly what each of them says.
    Exact,
    /// The hour is not final, so there is not everything to compare with yet.
    Open,
    /// The ledger does not hold what a gateway says, or a gateway was given up: usage was lost.
    Differs,
}

/// A number that is not the same on both sides.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Difference {
    incarnation: Incarnation,
    field: String,
    #[serde(serialize_with = "decimal")]
    #[schema(value_type = String)]
    gateway: u64,
    #[serde(serialize_with = "decimal")]
    #[schema(value_type = String)]
    ledger: u64,
}

/// Calls are counted in decimal strings.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reconciliation {
    #[schema(format = DateTime)]
    window_start: String,
    /// Calls that were admitted, by the ledger.
    #[serde(serialize_with = "decimal")]
    #[schema(value_type = String)]
    opened: u64,
    /// Calls that ended, of every outcome, by the ledger.
    #[serde(serialize_with = "decimal")]
    #[schema(value_type = String)]
    committed: u64,
    /// Calls of gateways that were killed, which never ended.
    #[serde(serialize_with = "decimal")]
    #[schema(value_type = String)]
    interrupted: u64,
    /// Calls that ended, by the control totals of the gateways that have closed the hour.
    #[serde(serialize_with = "decimal")]
    #[schema(value_type = String)]
    flushed: u64,
    /// Calls that ended, by the lines of those gateways.
    #[serde(serialize_with = "decimal")]
    #[schema(value_type = String)]
    ledger: u64,
    differences: Vec<Difference>,
    /// What is known of gateways that were given up before they had delivered the hour.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Lost>,
    verdict: Verdict,
}

/// A gateway that was given up: what the ledger has of it. How much more it counted nobody knows.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LostUsage)]
pub struct Lost {
    incarnation: Incarnation,
    /// Calls that ended.
    #[serde(serialize_with = "decimal")]
    #[schema(value_type = String)]
    committed: u64,
    /// Everything that ended before is there; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    complete_until: Option<String>,
}

fn decimal<S: Serializer>(count: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(count)
}

pub async fn read(
    State(control): State<Arc<Control>>,
    reader: UsageReader,
    QueryOf(query): QueryOf<Query>,
) -> Result<Json<Reconciliation>, Problem> {
    let now = clock::wall().hour();
    let hour = query.window.map_or(Hour(now.0.saturating_sub(1)), WallTime::hour);
    let attendance = control.attendance(Hour(0), hour).await?;
    // In this order: lines only grow, so none is behind a closing that was read before it.
    let marks = control.marks_in(hour).await?;
    let lines = control.lines_in(hour).await?;
    let is_final = !control.store.final_windows(hour, hour).await?.is_empty();
    let open = !is_final || !attendance.missing(hour).is_empty();
    let lost = if hour < now { attendance.lost(hour) } else { Vec::new() };
    Ok(Json(reconcile(hour, &marks, &lines, &lost, open).seen_by(reader, &lines)))
}

impl Reconciliation {
    /// Of one account its own calls, and the verdict on the whole hour: what gateways say is of all accounts together.
    fn seen_by(self, reader: UsageReader, lines: &[LedgerLine]) -> Self {
        let Some(account_id) = reader.account_id() else { return self };
        let own = lines.iter().filter(|line| line.key.account_id == account_id);
        let own = own.fold(Counters::default(), |sum, line| sum.plus(&line.counters));
        let (committed, differences, lost) = (own.committed(), Vec::new(), Vec::new());
        let (opened, interrupted) = (own.opened, own.interrupted);
        Self { opened, committed, interrupted, flushed: committed, ledger: committed, differences, lost, ..self }
    }
}

/// Compares the control total of each incarnation with the sum of its lines.
pub fn reconcile(
    hour: Hour,
    marks: &[HourMark],
    lines: &[LedgerLine],
    lost: &[Incarnation],
    open: bool,
) -> Reconciliation {
    let mut held: BTreeMap<Incarnation, (u64, Counters)> = BTreeMap::new();
    for line in lines {
        let (count, sum) = held.entry(line.incarnation).or_default();
        (*count, *sum) = (*count + 1, sum.plus(&line.counters));
    }
    let total = held.values().fold(Counters::default(), |sum, (_, counters)| sum.plus(counters));
    let closings = marks.iter().filter_map(|mark| Some((mark.incarnation, mark.mark.closing?)));
    let (mut flushed, mut ledger, mut differences) = (0_u64, 0_u64, Vec::new());
    for (incarnation, closing) in closings {
        let (count, sum) = held.get(&incarnation).copied().unwrap_or_default();
        flushed = flushed.saturating_add(closing.totals.committed());
        ledger = ledger.saturating_add(sum.committed());
        differences.extend(compare(incarnation, &closing, count, &sum));
    }
    let lost: Vec<Lost> = lost
        .iter()
        .map(|incarnation| {
            let mark = marks.iter().find(|mark| mark.incarnation == *incarnation).map(|mark| mark.mark.watermark);
            let complete_until =
                mark.filter(|watermark| *watermark > WallTime(0)).map(|watermark| watermark.to_string());
            let committed = held.get(incarnation).map_or(0, |(_, sum)| sum.committed());
            Lost { incarnation: *incarnation, committed, complete_until }
        })
        .collect();
    let verdict = match (differences.is_empty() && lost.is_empty(), open) {
        (false, _) => Verdict::Differs,
        (true, true) => Verdict::Open,
        (true, false) => Verdict::Exact,
    };
    Reconciliation {
        window_start: hour.to_string(),
        opened: total.opened,
        committed: total.committed(),
        interrupted: total.interrupted,
        flushed,
        ledger,
        differences,
        lost,
        verdict,
    }
}

fn compare(incarnation: Incarnation, closing: &Closing, count: u64, sum: &Counters) -> Vec<Difference> {
    let said = &closing.totals;
    let numbers = [
        ("lines", closing.lines, count),
        ("opened", said.opened, sum.opened),
        ("request_bytes", said.request_bytes, sum.request_bytes),
        ("response_bytes", said.response_bytes, sum.response_bytes),
        ("read_units", said.read_units, sum.read_units),
        ("write_units", said.write_units, sum.write_units),
        ("units_missing", said.units_missing, sum.units_missing),
        ("interrupted", said.interrupted, sum.interrupted),
    ];
    let numbers = numbers.into_iter().map(|(field, gateway, ledger)| (field.to_owned(), gateway, ledger));
    let calls = Outcome::ALL.iter().zip(said.outcomes.iter().zip(sum.outcomes));
    let calls = calls.map(|(outcome, (gateway, ledger))| (format!("calls.{}", outcome.name()), *gateway, ledger));
    let all = numbers.chain(calls).filter(|(_, gateway, ledger)| gateway != ledger);
    all.map(|(field, gateway, ledger)| Difference { incarnation, field, gateway, ledger }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::record::{LineKey, Operation};
    use crate::principal::{AccountId, ClusterId, ID_BYTES, KeyId};
    use crate::store::usage::FlushMark;

    const HOUR: Hour = Hour(492_777);

    fn line(incarnation: u8, operation: Operation, ok: u64) -> LedgerLine {
        let key = LineKey {
            account_id: AccountId([1; ID_BYTES]),
            key_id: KeyId([1; ID_BYTES]),
            cluster_id: ClusterId([1; ID_BYTES]),
            operation,
        };
        let counters =
            Counters { opened: ok, outcomes: [ok, 0, 0, 0, 0, 0], read_units: ok * 2, ..Counters::default() };
        LedgerLine { hour: HOUR, incarnation: Incarnation([incarnation; ID_BYTES]), key, counters }
    }

    fn closed(incarnation: u8, lines: &[LedgerLine]) -> HourMark {
        let own: Vec<_> = lines.iter().filter(|line| line.incarnation.0[0] == incarnation).collect();
        let totals = own.iter().fold(Counters::default(), |sum, line| sum.plus(&line.counters));
        let closing = Some(Closing { lines: own.len() as u64, totals, leaves: false });
        let mark = FlushMark { sequence: 1, watermark: HOUR.end(), closing };
        HourMark { hour: HOUR, incarnation: Incarnation([incarnation; ID_BYTES]), mark }
    }

    #[test]
    fn what_gateways_say_and_the_ledger_holds_is_exact_or_each_difference_is_named() {
        let lines = [line(1, Operation::Query, 3), line(1, Operation::Fetch, 4), line(2, Operation::Query, 5)];
        let marks = [closed(1, &lines), closed(2, &lines)];
        let good = reconcile(HOUR, &marks, &lines, &[], false);
        assert_eq!(
            (good.verdict, good.opened, good.committed, good.flushed, good.ledger),
            (Verdict::Exact, 12, 12, 12, 12)
        );
        let lost = reconcile(HOUR, &marks, &lines[..2], &[], false);
        assert_eq!(lost.verdict, Verdict::Differs);
        let fields: Vec<_> = lost.differences.iter().map(|one| (one.field.as_str(), one.gateway, one.ledger)).collect();
        assert_eq!(fields, [("lines", 1, 0), ("opened", 5, 0), ("read_units", 10, 0), ("calls.ok", 5, 0)]);
        assert_eq!((lost.flushed, lost.ledger), (12, 7));
    }

    #[test]
    fn an_hour_that_somebody_has_not_closed_is_open_and_a_difference_is_said_all_the_same() {
        let lines = [line(1, Operation::Query, 3), line(2, Operation::Query, 5)];
        assert_eq!(reconcile(HOUR, &[closed(1, &lines)], &lines, &[], true).verdict, Verdict::Open);
        let more = [line(1, Operation::Query, 4), line(2, Operation::Query, 5)];
        assert_eq!(reconcile(HOUR, &[closed(1, &lines)], &more, &[], true).verdict, Verdict::Differs);
    }
}
