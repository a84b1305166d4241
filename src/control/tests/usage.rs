//! Reading usage: records, totals, and when a key was last used.

use super::*;
use crate::meter::record::{Counters, Flush, LineKey, Operation};
use crate::principal::{ClusterId, ID_BYTES, KeyId};
use crate::store::Ledger;
use crate::time::Hour;

async fn flush(world: &World, incarnation: u8, hour: Hour, lines: Vec<(LineKey, Counters)>) {
    let incarnation = Incarnation([incarnation; ID_BYTES]);
    let watermark = clock::wall();
    world.store.merge(Flush { incarnation, hour, sequence: 1, lines, watermark, closing: None }).await.unwrap();
}

fn line(account_id: AccountId, key: u8, operation: Operation, ok: u64) -> (LineKey, Counters) {
    let line = LineKey { account_id, key_id: KeyId([key; ID_BYTES]), cluster_id: ClusterId([9; ID_BYTES]), operation };
    let (outcomes, last_used) = ([ok, 0, 0, 0, 0, 0], clock::wall().0);
    (line, Counters { opened: ok, outcomes, read_units: ok * 2, last_used, ..Counters::default() })
}

fn records(answer: Answer) -> Vec<Value> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn records_are_filtered_paged_and_kept_apart_by_account() {
    let world = World::new();
    let (one, two) = (world.owner("one@example.com").await, world.owner("two@example.com").await);
    let (now, before) = (clock::wall().hour(), Hour(clock::wall().hour().0 - 3));
    let old = Hour(now.0 - 40 * 24);
    for hour in [old, before, now] {
        let lines = vec![line(one.account_id, 1, Operation::Query, 3), line(one.account_id, 2, Operation::Query, 4)];
        flush(&world, 1, hour, lines).await;
        flush(&world, 2, hour, vec![line(one.account_id, 1, Operation::Insert, 5)]).await;
        flush(&world, 1, hour, vec![line(two.account_id, 3, Operation::Query, 6)]).await;
    }
    let all = records(world.get(&world.billing, "/v1/usage/records").await);
    assert_eq!(all.len(), 9);
    assert!(all.iter().all(|record| record["final"] == json!(false)));
    let own = records(world.get(&one.token, "/v1/usage/records?operation=query").await);
    assert_eq!((own.len(), own[0]["calls"]["ok"].as_str(), own[0]["read_units"].as_str()), (3, Some("7"), Some("14")));
    let by_key = records(world.get(&one.token, "/v1/usage/records?operation=query&by=key").await);
    assert_eq!(by_key.len(), 6);
    let window = format!("/v1/usage/records?from={}&to={}", before, now);
    assert_eq!(records(world.get(&world.billing, &window).await).len(), 3);
    assert!(records(world.get(&world.billing, "/v1/usage/records?final=true").await).is_empty());
    assert_eq!(paged(&world, 2).await, all);
    assert_eq!(paged(&world, 9).await, all);
}

#[tokio::test]
async fn csv_pages_make_one_table_and_a_key_can_be_picked() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let lines = [1, 2, 3].map(|key| line(owner.account_id, key, Operation::Query, u64::from(key)));
    flush(&world, 1, clock::wall().hour(), lines.to_vec()).await;
    let whole = world.get(&owner.token, "/v1/usage/records?format=csv&by=key").await;
    assert_eq!(whole.headers["content-type"], "text/csv; charset=utf-8");
    let first = world.get(&owner.token, "/v1/usage/records?format=csv&by=key&limit=1").await;
    let cursor = first.headers["x-next-cursor"].to_str().unwrap().to_owned();
    let rest = world.get(&owner.token, &format!("/v1/usage/records?format=csv&by=key&cursor={cursor}")).await;
    assert_eq!(first.text + &rest.text, whole.text);
    assert_eq!(whole.text.lines().count(), 4);
    let picked = format!("/v1/usage/records?key={}", KeyId([2; ID_BYTES]));
    let picked = records(world.get(&owner.token, &picked).await);
    assert_eq!((picked.len(), picked[0]["calls"]["ok"].as_str()), (1, Some("2")));
}

async fn paged(world: &World, limit: usize) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    for _ in 0..20 {
        let answer = world.get(&world.billing, &format!("/v1/usage/records?limit={limit}{cursor}")).await;
        let next = answer.headers.get("x-next-cursor").map(|next| next.to_str().unwrap().to_owned());
        all.extend(records(answer));
        match next {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
    panic!("the pages do not end")
}

#[tokio::test]
async fn totals_are_exported_in_the_format_that_is_asked_for() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    flush(&world, 1, clock::wall().hour(), vec![line(owner.account_id, 1, Operation::Query, 3)]).await;
    let text = world.get(&world.operator, "/metrics/usage").await;
    assert!(text.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let sample = format!("tollgate_usage_calls_total{{account_id=\"{}\"", owner.account_id);
    assert!(text.text.contains(&sample), "{}", text.text);
    let request = Request::get("/metrics/usage").header("accept", "application/openmetrics-text; version=1.0.0");
    let request = request.header("authorization", format!("Bearer {}", world.billing)).body(Body::empty()).unwrap();
    let open = world.send(request).await;
    assert!(open.text.ends_with("# EOF\n"));
    assert!(!world.get("", "/metrics").await.text.contains("acc_"));
}

#[tokio::test]
async fn a_key_shows_when_it_was_last_used() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (key, _) = world.key(&owner).await;
    let path = format!("/v1/keys/{key}");
    assert!(world.get(&owner.token, &path).await.ok(200).get("last_used_at").is_none());
    let (mut used, counters) = line(owner.account_id, 0, Operation::Query, 1);
    used.key_id = key.parse().unwrap();
    flush(&world, 1, clock::wall().hour(), vec![(used, counters)]).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while world.get(&owner.token, &path).await.ok(200).get("last_used_at").is_none() {
        assert!(std::time::Instant::now() < deadline, "the use of the key never shows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
