//! The life of a key: create, list, view, delete; the second factor in between.

use super::*;
use crate::principal::ID_BYTES;

async fn view(world: &World, owner: &Owner, key: &str, grant: Option<&str>) -> Answer {
    world.call_with(&owner.token, Method::POST, &format!("/v1/keys/{key}/view"), Value::Null, grant).await
}

async fn delete(world: &World, owner: &Owner, key: &str, grant: Option<&str>) -> Answer {
    world.call_with(&owner.token, Method::DELETE, &format!("/v1/keys/{key}?wait=0s"), Value::Null, grant).await
}

#[tokio::test]
async fn a_key_is_shown_whole_once_and_masked_ever_after() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let made = world.post(&owner.token, "/v1/keys", Value::Null).await.ok(201);
    let (id, text) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(text.starts_with("dvk_") && made.get("name").is_none());
    for path in ["/v1/keys", &format!("/v1/keys/{id}"), "/v1/audit"] {
        assert!(!world.get(&owner.token, path).await.text.contains(text), "{path}");
    }
    let list = world.get(&owner.token, "/v1/keys").await.ok(200);
    assert_eq!(list["keys"][0]["masked"], made["masked"]);
    assert_eq!((list["active"].as_u64(), list["active_max"].as_u64()), (Some(1), Some(3)));
    assert_eq!((list["created_today"].as_u64(), list["daily_max"].as_u64()), (Some(1), Some(10)));
    let found = world.post(&world.operator, "/v1/keys/lookup", json!({"key": text})).await.ok(200);
    assert_eq!(found, json!({"id": id, "account_id": owner.account_id, "status": "active"}));
    world.post(&world.operator, "/v1/keys/lookup", json!({"key": "dvk_nonsense"})).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_rules_of_creation_are_those_of_the_account() {
    let world = World::with(KeysConfig { active_max: 3, daily_max: 4, day_offset: 0 });
    let bare = world.bare_owner("bare@example.com").await;
    world.post(&bare.token, "/v1/keys", json!({})).await.problem(403, "identity_unverified");
    let path = format!("/v1/accounts/{}", bare.account_id);
    world.patch(&world.operator, &path, json!({"verified": true})).await.ok(200);
    world.post(&bare.token, "/v1/keys", json!({})).await.problem(409, "no_cluster");
    let owner = world.owner("one@example.com").await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(world.key(&owner).await.0);
    }
    world.post(&owner.token, "/v1/keys", json!({})).await.problem(409, "key_limit_reached");
    let revoke = format!("/v1/accounts/{}/keys/{}", owner.account_id, keys[0]);
    world.call(&world.operator, Method::DELETE, &revoke, json!({"reason": "leaked"})).await.ok(200);
    world.key(&owner).await;
    let revoke = format!("/v1/accounts/{}/keys/{}", owner.account_id, keys[1]);
    world.call(&world.operator, Method::DELETE, &revoke, json!({"reason": "leaked"})).await.ok(200);
    let daily = world.post(&owner.token, "/v1/keys", json!({})).await.problem(429, "daily_limit_reached");
    assert!(daily["resets_at"].as_str().unwrap().ends_with("T00:00:00Z"));
}

#[tokio::test]
async fn view_and_delete_ask_for_a_fresh_code() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (key, _) = world.key(&owner).await;
    for answer in [view(&world, &owner, &key, None).await, delete(&world, &owner, &key, None).await] {
        let challenge = answer.headers["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.contains("insufficient_user_authentication") && challenge.contains("max_age"), "{challenge}");
        answer.problem(401, "step_up_required");
    }
    for answer in [view(&world, &owner, &key, Some("tgg_x")).await, delete(&world, &owner, &key, Some("")).await] {
        answer.problem(401, "grant_invalid");
    }
}

#[tokio::test]
async fn a_grant_is_for_one_action_on_one_key_of_one_session_and_works_once() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let ((key, text), (other, _)) = (world.key(&owner).await, world.key(&owner).await);
    let grant = world.grant(&owner, "view", &key, 0).await;
    delete(&world, &owner, &key, Some(&grant)).await.problem(401, "grant_invalid");
    view(&world, &owner, &other, Some(&grant)).await.problem(401, "grant_invalid");
    let token = world.sign_in("one@example.com", PASSWORD).await.ok(201)["token"].as_str().unwrap().to_owned();
    let elsewhere = Owner { account_id: owner.account_id, token, totp: owner.totp.clone() };
    view(&world, &elsewhere, &key, Some(&grant)).await.problem(401, "grant_invalid");
    let seen = view(&world, &owner, &key, Some(&grant)).await;
    assert_eq!(seen.headers["cache-control"], "no-store");
    assert_eq!(seen.ok(200), json!({"id": key, "key": text}));
    view(&world, &owner, &key, Some(&grant)).await.problem(401, "grant_invalid");
}

#[tokio::test]
async fn a_used_code_is_answered_with_the_wait_for_the_next_one() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (key, _) = world.key(&owner).await;
    let code = owner.totp.code_at(clock::wall()).to_string();
    let ask = json!({"action": "view", "key_id": key, "code": code});
    world.post(&owner.token, "/v1/step-up", ask.clone()).await.ok(201);
    let replayed = world.post(&owner.token, "/v1/step-up", ask).await.problem(401, "code_replayed");
    assert!((1..=30).contains(&replayed["retry_after_s"].as_u64().unwrap()), "{replayed}");
    world.grant(&owner, "view", &key, 1).await;
}

#[tokio::test]
async fn guessing_codes_ends_soon_and_a_mistaken_key_costs_no_code() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (key, _) = world.key(&owner).await;
    let code = owner.totp.code_at(clock::wall()).to_string();
    let nowhere = crate::principal::KeyId([0; ID_BYTES]);
    let ask = json!({"action": "view", "key_id": nowhere, "code": code});
    world.post(&owner.token, "/v1/step-up", ask).await.problem(404, "not_found");
    for wrong in 0..5 {
        let ask = json!({"action": "view", "key_id": key, "code": format!("wrong{wrong}")});
        world.post(&owner.token, "/v1/step-up", ask).await.problem(401, "code_invalid");
    }
    let ask = json!({"action": "view", "key_id": key, "code": code});
    let refused = world.post(&owner.token, "/v1/step-up", ask).await.problem(429, "too_many_codes");
    assert!((1..=60).contains(&refused["retry_after_s"].as_u64().unwrap()), "{refused}");
    let another = world.owner("two@example.com").await;
    let (key, _) = world.key(&another).await;
    world.grant(&another, "view", &key, 0).await;
}

#[tokio::test]
async fn a_delete_gives_a_receipt_that_stays_the_same() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (key, _) = world.key(&owner).await;
    let grant = world.grant(&owner, "delete", &key, 0).await;
    let receipt = delete(&world, &owner, &key, Some(&grant)).await.ok(200);
    assert_eq!((receipt["id"].as_str(), receipt["revoked"].as_str()), (Some(key.as_str()), Some("everywhere")));
    assert!(receipt["revision"].as_u64().unwrap() > 0 && receipt["gateways"].is_array() && receipt["took_ms"].is_u64());
    assert_eq!(delete(&world, &owner, &key, None).await.ok(200), receipt);
    assert_eq!(delete(&world, &owner, &key, Some(&grant)).await.ok(200), receipt);
    let path = format!("/v1/keys/{key}");
    assert_eq!(world.call(&world.operator, Method::DELETE, &path, Value::Null).await.ok(200), receipt);
    let read = world.get(&owner.token, &path).await.ok(200);
    assert_eq!((read["status"].as_str(), read["revoked"].as_str()), (Some("deleted"), Some("everywhere")));
    assert_eq!(world.get(&owner.token, "/v1/keys").await.ok(200)["keys"], json!([]));
    let all = world.get(&owner.token, "/v1/keys?deleted=true").await.ok(200);
    assert_eq!(all["keys"][0]["id"], json!(key));
    let ask = json!({"action": "view", "key_id": key, "code": "000000"});
    world.post(&owner.token, "/v1/step-up", ask).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_delete_is_pending_until_the_gateway_has_it() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (key, _) = world.key(&owner).await;
    let gateway = Incarnation([5; ID_BYTES]);
    let revision = world.renew(gateway, Revision(0)).await;
    world.renew(gateway, revision).await;
    let grant = world.grant(&owner, "delete", &key, 0).await;
    let answer = delete(&world, &owner, &key, Some(&grant)).await;
    let pending = answer.ok(202);
    assert_eq!((pending["revoked"].as_str(), &pending["unconfirmed"]), (Some("pending"), &json!([gateway])));
    assert!((1..=5100).contains(&pending["at_latest_ms"].as_u64().unwrap()), "{pending}");
    assert_eq!(world.get(&owner.token, &format!("/v1/keys/{key}")).await.ok(200)["revoked"], "pending");
    world.renew(gateway, Revision(pending["revision"].as_u64().unwrap())).await;
    let done = delete(&world, &owner, &key, None).await.ok(200);
    assert_eq!(done["gateways"][0]["id"], json!(gateway));
    assert!(done["gateways"][0]["acknowledged_ms"].is_u64() && done["took_ms"].is_u64(), "{done}");
    let gateways = world.get(&world.operator, "/v1/gateways").await.ok(200);
    assert_eq!((gateways[0]["id"].clone(), gateways[0]["lag"].as_u64()), (json!(gateway), Some(0)));
}

#[tokio::test]
async fn imported_keys_come_all_or_none_and_toward_no_limit() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let path = format!("/v1/accounts/{}/keys/import", owner.account_id);
    let keys: Vec<_> = (0..20).map(|n| json!({"key": format!("sk-old-{n}"), "name": "old"})).collect();
    let made = world.post(&world.operator, &path, json!({"keys": keys})).await;
    assert!(!made.text.contains("sk-old-1"));
    assert_eq!(made.ok(201)["keys"].as_array().unwrap().len(), 20);
    let list = world.get(&owner.token, "/v1/keys").await.ok(200);
    assert_eq!((list["active"].as_u64(), list["created_today"].as_u64()), (Some(0), Some(0)));
    let again = json!({"keys": [{"key": "sk-new"}, {"key": "sk-old-3"}]});
    let taken = world.post(&world.operator, &path, again).await;
    assert!(!taken.text.contains("sk-old-3"));
    taken.problem(409, "key_taken");
    world.post(&world.operator, "/v1/keys/lookup", json!({"key": "sk-new"})).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_key_can_be_renamed_and_switched_off_and_on() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (key, _) = world.key(&owner).await;
    let path = format!("/v1/keys/{key}");
    let off = world.patch(&owner.token, &path, json!({"name": " new ", "status": "disabled"})).await.ok(200);
    assert_eq!((off["name"].as_str(), off["status"].as_str()), (Some("new"), Some("disabled")));
    let past = json!({"status": "active", "expires_at": "2020-01-01T00:00:00Z"});
    assert_eq!(world.patch(&owner.token, &path, past).await.ok(200)["status"], "expired");
    let kept = world.patch(&owner.token, &path, json!({"name": "newer"})).await.ok(200);
    assert_eq!(kept["status"], "expired", "what is absent stays as it is");
    let endless = world.patch(&owner.token, &path, json!({"expires_at": null})).await.ok(200);
    assert_eq!((endless["status"].as_str(), endless.get("expires_at")), (Some("active"), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_creates_at_once_leave_as_many_keys_as_there_may_be() {
    let world = Arc::new(World::new());
    let owner = Arc::new(world.owner("one@example.com").await);
    let creates = (0..100).map(|_| {
        let (world, owner) = (Arc::clone(&world), Arc::clone(&owner));
        tokio::spawn(async move { world.post(&owner.token, "/v1/keys", json!({})).await.status.as_u16() })
    });
    let mut statuses = Vec::new();
    for create in creates.collect::<Vec<_>>() {
        statuses.push(create.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!((&statuses[..3], &statuses[3..]), (&[201; 3][..], &[409; 97][..]));
}

#[tokio::test]
async fn a_suspension_is_pending_until_the_gateway_has_it() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let gateway = Incarnation([5; ID_BYTES]);
    let revision = world.renew(gateway, Revision(0)).await;
    world.renew(gateway, revision).await;
    let path = format!("/v1/accounts/{}?wait=0", owner.account_id);
    let pending = world.patch(&world.operator, &path, json!({"status": "suspended"})).await.ok(202);
    assert_eq!((pending["applied"].as_str(), &pending["unconfirmed"]), (Some("pending"), &json!([gateway])));
    assert_eq!(pending["status"], "suspended");
    world.post(&owner.token, "/v1/keys", json!({})).await.problem(403, "account_suspended");
}
