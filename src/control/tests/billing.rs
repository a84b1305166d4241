//! Windows, changes, reconciliation and adjustments, as a billing pipeline asks for them.

use super::*;
use crate::control::billing::windows::Settled;
use crate::meter::record::{Closing, Counters, Flush, LineKey, Operation};
use crate::principal::{ClusterId, ID_BYTES, KeyId};
use crate::store::Ledger;
use crate::time::{Hour, WallTime};

const GATEWAY: Incarnation = Incarnation([7; ID_BYTES]);

fn counted(account_id: AccountId, ok: u64) -> (LineKey, Counters) {
    let (key_id, cluster_id) = (KeyId([1; ID_BYTES]), ClusterId([9; ID_BYTES]));
    let line = LineKey { account_id, key_id, cluster_id, operation: Operation::Query };
    (line, Counters { opened: ok, outcomes: [ok, 0, 0, 0, 0, 0], read_units: ok * 2, ..Counters::default() })
}

async fn flush(world: &World, hour: Hour, sequence: u64, lines: Vec<(LineKey, Counters)>, leaves: Option<bool>) {
    let totals = lines.iter().fold(Counters::default(), |sum, (_, counters)| sum.plus(counters));
    let closing = leaves.map(|leaves| Closing { lines: lines.len() as u64, totals, leaves });
    let flush = Flush { incarnation: GATEWAY, hour, sequence, lines, watermark: hour.end(), closing };
    world.store.merge(flush).await.unwrap();
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn states(world: &World) -> Vec<(String, Vec<String>)> {
    let windows = world.get(&world.billing, "/v1/usage/windows").await.ok(200);
    let items = windows["items"].as_array().unwrap().clone();
    let missing =
        |item: &Value| item["missing"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    items.iter().map(|item| (item["state"].as_str().unwrap().to_owned(), missing(item))).collect()
}

#[tokio::test]
async fn an_hour_is_final_once_everybody_has_closed_it_and_its_records_say_so_under_another_revision() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let now = clock::wall();
    let (before, this) = (Hour(now.hour().0 - 1), now.hour());
    flush(&world, before, 1, vec![counted(owner.account_id, 3)], None).await;
    let mut settled = Settled::default();
    let later = WallTime(this.start().0 + 60_000);
    assert_eq!(settled.round(&world.control, later).await.unwrap(), []);
    let (draining, open) = (("draining".to_owned(), vec![GATEWAY.to_string()]), ("open".to_owned(), vec![]));
    assert_eq!(states(&world).await, [draining, open.clone()]);
    let provisional = lines(&world.get(&owner.token, "/v1/usage/records").await);
    let feed = lines(&world.get(&world.billing, "/v1/usage/changes").await);
    flush(&world, before, 2, vec![counted(owner.account_id, 3)], Some(false)).await;
    assert_eq!(
        settled.round(&world.control, WallTime(this.start().0 + 1000)).await.unwrap(),
        [],
        "clocks differ a little"
    );
    assert_eq!(settled.round(&world.control, later).await.unwrap(), [before]);
    assert_eq!(settled.round(&world.control, later).await.unwrap(), []);
    assert_eq!(states(&world).await, [("final".to_owned(), vec![]), open]);
    let last = lines(&world.get(&owner.token, "/v1/usage/records").await);
    assert_eq!((provisional[0]["final"].as_bool(), last[0]["final"].as_bool()), (Some(false), Some(true)));
    assert_eq!(provisional[0]["record_id"], last[0]["record_id"]);
    assert!(provisional[0]["revision"].as_u64() < last[0]["revision"].as_u64());
    let seen = feed[0]["seq"].as_u64().unwrap();
    let news = lines(&world.get(&world.billing, &format!("/v1/usage/changes?after={seen}")).await);
    assert_eq!((news.len(), &news[0]["record"]), (1, &last[0]), "the feed tells that it is final");
    // Late values: another revision, and they are in the feed.
    flush(&world, before, 3, vec![counted(owner.account_id, 4)], None).await;
    let seen = news[0]["seq"].as_u64().unwrap();
    let late = lines(&world.get(&world.billing, &format!("/v1/usage/changes?after={seen}")).await);
    assert_eq!(
        (late[0]["record"]["calls"]["ok"].as_str(), late[0]["record"]["final"].as_bool()),
        (Some("4"), Some(true))
    );
    assert!(last[0]["revision"].as_u64() < late[0]["record"]["revision"].as_u64());
}

#[tokio::test]
async fn records_can_be_asked_for_by_finality() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let this = clock::wall().hour();
    for back in [3, 2, 1] {
        flush(&world, Hour(this.0 - back), 1, vec![counted(owner.account_id, u64::from(back))], Some(back == 2)).await;
    }
    flush(&world, this, 1, vec![counted(owner.account_id, 9)], None).await;
    let mut settled = Settled::default();
    let made = settled.round(&world.control, WallTime(this.start().0 + 60_000)).await.unwrap();
    assert_eq!(made, [Hour(this.0 - 3), Hour(this.0 - 2), Hour(this.0 - 1)]);
    let ok = |records: Vec<Value>| {
        records.iter().map(|one| one["calls"]["ok"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ok(lines(&world.get(&owner.token, "/v1/usage/records?final=true").await)), ["3", "2", "1"]);
    assert_eq!(ok(lines(&world.get(&owner.token, "/v1/usage/records?final=false").await)), ["9"]);
    let first = world.get(&owner.token, "/v1/usage/records?final=true&limit=2").await;
    let cursor = first.headers["x-next-cursor"].to_str().unwrap().to_owned();
    assert_eq!(ok(lines(&first)), ["3", "2"]);
    let rest = world.get(&owner.token, &format!("/v1/usage/records?final=true&limit=2&cursor={cursor}")).await;
    assert!(!rest.headers.contains_key("x-next-cursor"));
    assert_eq!(ok(lines(&rest)), ["1"]);
}

#[tokio::test]
async fn a_reader_that_waits_hears_of_a_change_when_it_comes() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    assert!(lines(&world.get(&world.billing, "/v1/usage/changes?wait=100ms").await).is_empty());
    let hour = clock::wall().hour();
    let (waited, ()) = tokio::join!(world.get(&world.billing, "/v1/usage/changes?wait=30s"), async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        flush(&world, hour, 1, vec![counted(owner.account_id, 3)], None).await;
    });
    let waited = lines(&waited);
    assert_eq!((waited.len(), waited[0]["record"]["calls"]["ok"].as_str()), (1, Some("3")));
    // Of an account its own records alone.
    let other = world.owner("two@example.com").await;
    assert!(lines(&world.get(&other.token, "/v1/usage/changes").await).is_empty());
    assert_eq!(lines(&world.get(&owner.token, "/v1/usage/changes").await), waited);
}

#[tokio::test]
async fn changes_without_a_record_are_passed_by_and_waited_behind() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let this = clock::wall().hour();
    for back in (1..=5).rev() {
        flush(&world, Hour(this.0 - back), 1, vec![], Some(false)).await;
    }
    let later = WallTime(this.start().0 + 60_000);
    assert_eq!(Settled::default().round(&world.control, later).await.unwrap().len(), 5);
    let began = std::time::Instant::now();
    let path = "/v1/usage/changes?limit=1&wait=300ms";
    let nothing = world.get(&world.billing, path).await;
    assert!(lines(&nothing).is_empty() && began.elapsed() >= Duration::from_millis(300), "it waits behind them");
    assert_eq!(nothing.headers["x-next-after"], "5");
    flush(&world, this, 1, vec![counted(owner.account_id, 3)], None).await;
    assert_eq!(lines(&world.get(&world.billing, path).await).len(), 1, "what is behind them is told");
}

#[tokio::test]
async fn an_hour_without_a_gateway_is_final_with_its_corrections() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let before = Hour(clock::wall().hour().0 - 2);
    let adjust = json!({
        "account_id": owner.account_id, "cluster_id": ClusterId([9; ID_BYTES]), "operation": "query",
        "window_start": before.to_string(), "field": "read_units", "delta": 7, "reason": "an outage", "idempotency_key": "one",
    });
    world.post(&world.operator, "/v1/usage/adjustments", adjust).await.ok(201);
    let later = WallTime(clock::wall().hour().start().0 + 60_000);
    assert_eq!(Settled::default().round(&world.control, later).await.unwrap(), [before]);
    assert_eq!(states(&world).await, [("final".to_owned(), vec![])]);
    assert_eq!(lines(&world.get(&owner.token, "/v1/usage/records?final=true").await)[0]["read_units"], "7");
}

#[tokio::test]
async fn a_gateway_that_died_long_ago_is_still_named_and_its_absence_is_not_exact() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let this = clock::wall().hour();
    flush(&world, Hour(this.0 - 9), 1, vec![counted(owner.account_id, 3)], None).await;
    let path = format!("/v1/usage/windows?from={}", Hour(this.0 - 1));
    let windows = world.get(&world.billing, &path).await.ok(200);
    assert_eq!(windows["items"][0]["missing"], json!([GATEWAY]), "{windows}");
    assert_eq!(world.get(&world.billing, "/v1/usage/reconciliation").await.ok(200)["verdict"], "open");
}

#[tokio::test]
async fn what_gateways_said_is_compared_with_what_the_ledger_holds() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let before = Hour(clock::wall().hour().0 - 1);
    let path = format!("/v1/usage/reconciliation?window={before}");
    flush(&world, before, 1, vec![counted(owner.account_id, 3)], None).await;
    assert_eq!(world.get(&world.billing, &path).await.ok(200)["verdict"], "open");
    flush(&world, before, 2, vec![counted(owner.account_id, 3)], Some(true)).await;
    assert_eq!(world.get(&world.billing, &path).await.ok(200)["verdict"], "open", "not final yet");
    let later = WallTime(before.end().0 + 60_000);
    assert_eq!(Settled::default().round(&world.control, later).await.unwrap(), [before]);
    let exact = world.get(&world.billing, &path).await.ok(200);
    let own = world.get(&owner.token, &path).await.ok(200);
    assert_eq!((own["verdict"].as_str(), own["ledger"].as_str()), (Some("exact"), Some("3")));
    let other = world.owner("two@example.com").await;
    assert_eq!(world.get(&other.token, &path).await.ok(200)["ledger"], "0");
    assert_eq!(
        (exact["verdict"].as_str(), exact["flushed"].as_str(), exact["ledger"].as_str()),
        (Some("exact"), Some("3"), Some("3"))
    );
    // The gateway says more than the ledger got.
    let totals = counted(owner.account_id, 5).1;
    let closing = Some(Closing { lines: 1, totals, leaves: true });
    let said =
        Flush { incarnation: GATEWAY, hour: before, sequence: 3, lines: vec![], watermark: before.end(), closing };
    world.store.merge(said).await.unwrap();
    let differs = world.get(&world.billing, &path).await.ok(200);
    assert_eq!(
        (differs["verdict"].as_str(), differs["differences"][0]["field"].as_str()),
        (Some("differs"), Some("opened"))
    );
}

#[tokio::test]
async fn an_hour_no_longer_waits_for_a_gateway_that_was_given_up_and_its_loss_is_named() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (before, this) = (Hour(clock::wall().hour().0 - 1), clock::wall().hour());
    let path = "/v1/usage/abandonments";
    let ask = json!({"incarnation": GATEWAY, "reason": "the machine burnt down"});
    world.post(&world.operator, path, ask.clone()).await.problem(404, "not_found");
    flush(&world, before, 1, vec![counted(owner.account_id, 3)], None).await;
    let renew = Renew { incarnation: GATEWAY, epoch: None, applied: Revision(0), version: "1" };
    world.store.renew(renew).await.unwrap();
    world.post(&world.operator, path, ask.clone()).await.problem(400, "invalid_request");
    world.store.release(GATEWAY).await.unwrap();
    world.post(&world.billing, path, ask.clone()).await.problem(403, "forbidden");
    world.post(&world.operator, path, ask).await.ok(201);
    let later = WallTime(this.start().0 + 60_000);
    assert_eq!(Settled::default().round(&world.control, later).await.unwrap(), [before]);
    let windows = world.get(&world.billing, "/v1/usage/windows").await.ok(200);
    assert_eq!((&windows["items"][0]["state"], &windows["items"][0]["lost"]), (&json!("final"), &json!([GATEWAY])));
    let told = world.get(&world.billing, &format!("/v1/usage/reconciliation?window={before}")).await.ok(200);
    assert_eq!((told["verdict"].as_str(), told["lost"][0]["committed"].as_str()), (Some("differs"), Some("3")));
    // It comes back after all.
    flush(&world, before, 2, vec![counted(owner.account_id, 5)], Some(true)).await;
    let told = world.get(&world.billing, &format!("/v1/usage/reconciliation?window={before}")).await.ok(200);
    assert_eq!((told["verdict"].as_str(), told["ledger"].as_str()), (Some("exact"), Some("5")));
}

#[tokio::test]
async fn an_adjustment_corrects_the_record_as_it_is_billed_and_nothing_that_was_counted() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let hour = Hour(clock::wall().hour().0 - 1);
    flush(&world, hour, 1, vec![counted(owner.account_id, 30)], None).await;
    let before = lines(&world.get(&owner.token, "/v1/usage/records").await);
    let ask = |key: &str, field: &str, delta: i64| {
        json!({
            "account_id": owner.account_id, "cluster_id": before[0]["cluster_id"], "operation": "query",
            "window_start": hour.to_string(), "field": field, "delta": delta, "reason": "an outage", "idempotency_key": key,
        })
    };
    let path = "/v1/usage/adjustments";
    let made = world.post(&world.operator, path, ask("one", "read_units", -20)).await.ok(201);
    assert_eq!(world.post(&world.operator, path, ask("one", "read_units", -20)).await.ok(201), made);
    world.post(&world.operator, path, ask("one", "read_units", -21)).await.problem(409, "idempotency_key_taken");
    world.post(&world.operator, path, ask("two", "read_units", -41)).await.problem(400, "invalid_request");
    world.post(&world.operator, path, ask("three", "calls.ok", 2)).await.ok(201);
    world.post(&world.operator, path, ask("four", "calls.nothing", 2)).await.problem(400, "invalid_request");
    world.post(&world.billing, path, ask("five", "read_units", 1)).await.problem(403, "forbidden");
    let after = lines(&world.get(&owner.token, "/v1/usage/records").await);
    assert_eq!((after[0]["read_units"].as_str(), after[0]["calls"]["ok"].as_str()), (Some("40"), Some("32")));
    assert_eq!(after[0]["revision"].as_u64(), before[0]["revision"].as_u64().map(|revision| revision + 2));
    let by_key = lines(&world.get(&owner.token, "/v1/usage/records?by=key").await);
    assert_eq!(by_key[0]["read_units"], "60", "split by key it is what was counted");
    // Usage that was never counted can be put in as well.
    let mut missed = ask("six", "write_units", 7);
    missed["operation"] = json!("insert");
    world.post(&world.operator, path, missed).await.ok(201);
    let all = lines(&world.get(&owner.token, "/v1/usage/records").await);
    assert_eq!((all.len(), all[0]["write_units"].as_str()), (2, Some("7")));
    let log = world.get(&owner.token, "/v1/audit").await.ok(200);
    assert_eq!(log["items"][0]["action"], "usage.adjust");
}
