//! Many at once, through the API: limits hold, and what is good once is good once.

use std::collections::BTreeMap;

use super::*;
use crate::store::contract::at_once;

/// How often each code was answered; successes count as their status.
fn tally(answers: &[Answer]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        let code = answer.json()["code"].as_str().map_or_else(|| answer.status.as_str().to_owned(), str::to_owned);
        *tally.entry(code).or_default() += 1;
    }
    tally
}

fn counted(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_hundred_concurrent_creates_leave_three_keys() {
    let world = Arc::new(World::new());
    let owner = world.owner("one@example.com").await;
    let answers = at_once(100, |_| {
        let (world, token) = (Arc::clone(&world), owner.token.clone());
        async move { world.post(&token, "/v1/keys", json!({})).await }
    })
    .await;
    assert_eq!(tally(&answers), counted(&[("201", 3), ("key_limit_reached", 97)]));
    let list = world.get(&owner.token, "/v1/keys").await.ok(200);
    assert_eq!((list["active"].as_u64(), list["created_today"].as_u64()), (Some(3), Some(3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_hundred_uses_of_one_code_give_one_grant_and_of_one_grant_one_view() {
    let world = Arc::new(World::new());
    let owner = world.owner("one@example.com").await;
    let (id, _) = world.key(&owner).await;
    let code = owner.totp.code_at(clock::wall()).to_string();
    let answers = at_once(100, |_| {
        let (world, token, code, id) = (Arc::clone(&world), owner.token.clone(), code.clone(), id.clone());
        async move { world.post(&token, "/v1/step-up", json!({"action": "view", "key_id": id, "code": code})).await }
    })
    .await;
    assert_eq!(tally(&answers), counted(&[("201", 1), ("code_replayed", 99)]));
    let granted = answers.iter().find(|answer| answer.status == StatusCode::CREATED).unwrap().json();
    let grant = granted["grant"].as_str().unwrap().to_owned();
    let answers = at_once(100, |_| {
        let (world, token, grant) = (Arc::clone(&world), owner.token.clone(), grant.clone());
        let path = format!("/v1/keys/{id}/view");
        async move { world.call_with(&token, Method::POST, &path, Value::Null, Some(&grant)).await }
    })
    .await;
    assert_eq!(tally(&answers), counted(&[("200", 1), ("grant_invalid", 99)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deletes_give_no_creation_of_the_day_back() {
    let world = Arc::new(World::new());
    let owner = world.owner("one@example.com").await;
    for _ in 0..10 {
        let (id, _) = world.key(&owner).await;
        let path = format!("/v1/accounts/{}/keys/{id}", owner.account_id);
        world.call(&world.operator, Method::DELETE, &path, json!({"reason": "test"})).await.ok(200);
    }
    let answers = at_once(20, |_| {
        let (world, token) = (Arc::clone(&world), owner.token.clone());
        async move { world.post(&token, "/v1/keys", json!({})).await }
    })
    .await;
    assert_eq!(tally(&answers), counted(&[("daily_limit_reached", 20)]));
    let refused = answers[0].json();
    let list = world.get(&owner.token, "/v1/keys").await.ok(200);
    assert_eq!(refused["resets_at"], list["resets_at"]);
    assert!(refused["resets_at"].as_str().unwrap().ends_with("T16:00:00Z"), "midnight at +08:00: {refused}");
}
