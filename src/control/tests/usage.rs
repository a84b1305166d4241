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
    // Calls and read units of each key.
    assert_eq!(whole.text.lines().count(), 1 + 3 * 2);
    let picked = format!("/v1/usage/records?key={}", KeyId([2; ID_BYTES]));
    let picked = records(world.get(&owner.token, &picked).await);
    assert_eq!((picked.len(), picked[0]["calls"]["ok"].as_str()), (1, Some("2")));
}

async fn accepting(world: &World, token: &str, path: &str, accept: &str) -> Answer {
    let request = Request::get(path).header("accept", accept).header("authorization", format!("Bearer {token}"));
    world.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn cloud_events_carry_the_same_records_and_a_cursor() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let lines = [1, 2, 3].map(|key| line(owner.account_id, key, Operation::Query, u64::from(key)));
    flush(&world, 1, clock::wall().hour(), lines.to_vec()).await;
    let plain = records(world.get(&owner.token, "/v1/usage/records?by=key").await);
    let first = world.get(&owner.token, "/v1/usage/records?by=key&format=cloudevents&limit=2").await;
    assert_eq!(first.headers["content-type"], "application/cloudevents-batch+json");
    let cursor = first.headers["x-next-cursor"].to_str().unwrap().to_owned();
    let rest = format!("/v1/usage/records?by=key&format=cloudevents&cursor={cursor}");
    let rest = world.get(&owner.token, &rest).await;
    assert!(rest.headers.get("x-next-cursor").is_none());
    let events: Vec<_> = [first, rest].into_iter().flat_map(|page| page.ok(200).as_array().unwrap().clone()).collect();
    assert_eq!(events.iter().map(|event| event["data"].clone()).collect::<Vec<_>>(), plain);
    let ids: std::collections::HashSet<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    assert!(events.iter().all(|event| event["source"] == format!("urn:tollgate:store:{}", world.store.store_id())));
}

#[tokio::test]
async fn without_a_format_the_accept_header_decides() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    for (path, accept, given) in [
        ("/v1/usage/records", "text/csv", "text/csv; charset=utf-8"),
        (
            "/v1/usage/records",
            "application/cloudevents-batch+json;q=0.9, text/csv;q=0.1",
            "application/cloudevents-batch+json",
        ),
        ("/v1/usage/records", "application/json", "application/x-ndjson"),
        ("/v1/usage/records", "*/*", "application/x-ndjson"),
        ("/v1/usage/records?format=ndjson", "text/csv", "application/x-ndjson"),
    ] {
        let answer = accepting(&world, &owner.token, path, accept).await;
        assert_eq!(
            (answer.status, answer.headers["content-type"].to_str().unwrap()),
            (StatusCode::OK, given),
            "{accept}"
        );
        assert_eq!(answer.headers["vary"], "accept");
    }
}

/// A record of one key and the record of all keys are about the same hour, and must not be taken for one another.
#[tokio::test]
async fn the_record_of_one_key_has_an_id_of_its_own() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let lines = [1, 2].map(|key| line(owner.account_id, key, Operation::Query, 1));
    flush(&world, 1, clock::wall().hour(), lines.to_vec()).await;
    let all = records(world.get(&owner.token, "/v1/usage/records").await);
    let key = KeyId([1; ID_BYTES]);
    let one = records(world.get(&owner.token, &format!("/v1/usage/records?key={key}")).await);
    let by_key = records(world.get(&owner.token, "/v1/usage/records?by=key").await);
    assert_ne!(one[0]["record_id"], all[0]["record_id"]);
    assert_eq!((&one[0], one[0]["key_id"].as_str()), (&by_key[0], Some(key.to_string().as_str())));
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
    let open = accepting(&world, &world.billing, "/metrics/usage", "application/openmetrics-text; version=1.0.0").await;
    assert!(open.text.ends_with("# EOF\n"));
    let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let coded = accepting(&world, &world.billing, "/metrics/usage", &format!("{protobuf}, text/plain;q=0.5")).await;
    assert_eq!(
        (coded.headers["content-type"].to_str().unwrap(), &coded.headers["vary"]),
        (protobuf, &"accept".parse().unwrap())
    );
    assert!(coded.text.contains(&owner.account_id.to_string()));
    assert!(!world.get("", "/metrics").await.text.contains("acc_"));
}

#[tokio::test]
async fn shards_have_no_account_in_common_and_all_of_them_together() {
    let world = World::new();
    for n in 0..50 {
        let lines =
            [Operation::Query, Operation::Insert].map(|operation| line(AccountId([n; ID_BYTES]), 1, operation, 1));
        flush(&world, 1, clock::wall().hour(), lines.to_vec()).await;
    }
    let samples = |text: &str| -> Vec<String> {
        let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let whole = samples(&world.get(&world.billing, "/metrics/usage").await.text);
    let mut together = Vec::new();
    for index in 0..3 {
        let part = samples(&world.get(&world.billing, &format!("/metrics/usage?shard={index}/3")).await.text);
        // 12 series for each of the two operations: an account is in a part with all it has.
        assert!(!part.is_empty() && part.len() % 24 == 0, "{}", part.len());
        together.extend(part);
    }
    together.sort();
    assert_eq!((together.len(), &together), (50 * 24, &whole));
    for (bad, why) in [("3/3", "counted from 0"), ("x", "i/n"), ("0/0", "at least one"), ("0/5000", "1024")] {
        let answer = world.get(&world.billing, &format!("/metrics/usage?shard={bad}")).await;
        assert!(answer.text.contains(why), "{bad}: {}", answer.text);
        answer.problem(400, "invalid_request");
    }
    world.get(&world.billing, "/metrics/usage?part=1").await.problem(400, "invalid_request");
}

#[tokio::test]
async fn the_ledger_goes_on_while_an_export_is_read_and_the_export_is_of_one_moment() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let hour = clock::wall().hour();
    flush(&world, 1, hour, vec![line(owner.account_id, 1, Operation::Query, 3)]).await;
    let request = Request::get("/metrics/usage").header("authorization", format!("Bearer {}", world.billing));
    let service = TowerToHyperService::new(world.router.clone());
    let response = service.call(request.body(Body::empty()).unwrap()).await.unwrap();
    // Nothing of the body is read yet: were the totals locked until it is, this would wait for ever.
    flush(&world, 1, hour, vec![line(owner.account_id, 1, Operation::Query, 4)]).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("outcome=\"ok\"} 3\n") && !text.contains("outcome=\"ok\"} 4\n"), "{text}");
    assert!(world.get(&world.billing, "/metrics/usage").await.text.contains("outcome=\"ok\"} 4\n"));
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
