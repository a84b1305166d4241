//! Who may do what, and how they sign in.

use super::*;

#[tokio::test]
async fn every_route_answers_each_caller_as_the_table_says() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let other = world.owner("other@example.com").await;
    let (key, _) = world.key(&owner).await;
    let account = format!("/v1/accounts/{}", owner.account_id);
    let clusters = world.get(&world.operator, &format!("{account}/clusters")).await.ok(200);
    let cluster = format!("/v1/clusters/{}", clusters["items"][0]["cluster_id"].as_str().unwrap());
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let key_path = format!("/v1/keys/{key}");
    // nobody, operator, root, another root, billing
    let table: &[(&Method, &str, [u16; 5])] = &[
        (&get, "/v1/accounts", [401, 200, 403, 403, 403]),
        (&post, "/v1/accounts", [401, 400, 403, 403, 403]),
        (&get, &account, [401, 200, 403, 403, 403]),
        (&patch, &account, [401, 200, 403, 403, 403]),
        (&get, &format!("{account}/clusters"), [401, 200, 200, 404, 403]),
        (&post, &format!("{account}/clusters"), [401, 400, 403, 403, 403]),
        (&get, &cluster, [401, 200, 200, 404, 403]),
        (&patch, &cluster, [401, 200, 200, 404, 403]),
        (&get, &format!("{account}/keys"), [401, 200, 403, 403, 403]),
        (&post, &format!("{account}/keys/import"), [401, 400, 403, 403, 403]),
        (&delete, &format!("{account}/keys/{key}"), [401, 400, 403, 403, 403]),
        (&post, "/v1/keys/lookup", [401, 400, 403, 403, 403]),
        (&get, "/v1/keys", [401, 403, 200, 200, 403]),
        (&get, &key_path, [401, 200, 200, 404, 403]),
        (&patch, &key_path, [401, 403, 200, 404, 403]),
        (&post, &format!("{key_path}/view"), [401, 403, 401, 404, 403]),
        (&delete, &key_path, [401, 403, 401, 404, 403]),
        (&post, "/v1/step-up", [401, 403, 400, 400, 403]),
        (&get, "/v1/audit", [401, 200, 200, 200, 403]),
        (&get, "/v1/gateways", [401, 200, 403, 403, 403]),
        (&get, "/v1/usage/records", [401, 200, 200, 200, 200]),
        (&get, &format!("/v1/usage/records?account={}", owner.account_id), [401, 200, 200, 403, 200]),
        (&get, "/metrics/usage", [401, 200, 403, 403, 200]),
        (&delete, &cluster, [401, 204, 403, 403, 403]),
        (&get, "/livez", [200; 5]),
        (&get, "/readyz", [200; 5]),
        (&get, "/metrics", [200; 5]),
        (&get, "/v1/nothing", [404; 5]),
        (&delete, "/v1/keys", [405; 5]),
        (&delete, "/v1/session", [401, 403, 204, 204, 403]),
    ];
    let callers = ["", &world.operator, &owner.token, &other.token, &world.billing];
    for (method, path, expected) in table {
        // The operator last: it may really delete what the others may not.
        for caller in [0, 2, 3, 4, 1] {
            let answer = world.call(callers[caller], (*method).clone(), path, Value::Null).await;
            assert_eq!(answer.status.as_u16(), expected[caller], "{method} {path} by caller {caller}: {}", answer.text);
            assert_eq!(answer.headers["cache-control"], "no-store");
            assert!(answer.headers.contains_key("x-request-id"));
            if answer.status.as_u16() == 401 {
                assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
            }
            assert_eq!(answer.headers.contains_key("allow"), answer.status.as_u16() == 405);
            if answer.status.is_client_error() {
                assert_eq!(answer.headers["content-type"], "application/problem+json", "{method} {path}");
            }
        }
    }
    world.get(&owner.token, "/v1/keys").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn the_operator_never_creates_or_views_a_key() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let (key, _) = world.key(&owner).await;
    world.post(&world.operator, "/v1/keys", json!({})).await.problem(403, "root_only");
    let grant = world.grant(&owner, "view", &key, 0).await;
    let path = format!("/v1/keys/{key}/view");
    let answer = world.call_with(&world.operator, Method::POST, &path, Value::Null, Some(&grant)).await;
    answer.problem(403, "root_only");
}

#[tokio::test]
async fn wrong_credentials_say_the_same_whether_the_user_exists_or_not() {
    let world = World::new();
    world.bare_owner("one@example.com").await;
    let known = world.sign_in("one@example.com", "wrong password").await.problem(401, "sign_in_failed");
    let unknown = world.sign_in("two@example.com", PASSWORD).await.problem(401, "sign_in_failed");
    assert_eq!(known["title"], unknown["title"]);
    world.sign_in(" ONE@Example.com ", PASSWORD).await.ok(201);
}

#[tokio::test]
async fn failures_are_throttled_and_never_refuse_the_right_password() {
    let world = World::new();
    world.bare_owner("one@example.com").await;
    let mut throttled = 0;
    for _ in 0..30 {
        let answer = world.sign_in("one@example.com", "wrong password").await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            throttled += 1;
            assert!(answer.headers.contains_key("retry-after"));
            assert!(answer.problem(429, "too_many_attempts")["retry_after_s"].as_u64().unwrap() >= 1);
        }
    }
    assert_eq!(throttled, 20);
    world.sign_in("one@example.com", PASSWORD).await.ok(201);
}

#[tokio::test]
async fn an_account_is_shown_with_its_limits_and_without_its_secrets() {
    let world = World::new();
    let owner = world.bare_owner("one@example.com").await;
    let path = format!("/v1/accounts/{}", owner.account_id);
    let changed = world.patch(&world.operator, &path, json!({"active_max": 5, "status": "suspended"})).await.ok(200);
    assert_eq!((changed["active_max"].as_u64(), changed["daily_max"].as_u64()), (Some(5), Some(10)));
    let read = world.get(&world.operator, &path).await;
    assert!(!read.text.contains("argon2") && !read.text.contains(owner.totp.to_base32().as_str()));
    let read = read.ok(200);
    assert_eq!((read["email"].as_str(), read["status"].as_str()), (Some("one@example.com"), Some("suspended")));
    assert!(read["created_at"].as_str().unwrap().ends_with('Z'));
    let again = json!({"email": "ONE@example.com", "password": PASSWORD});
    world.post(&world.operator, "/v1/accounts", again).await.problem(409, "email_taken");
}

#[tokio::test]
async fn the_owner_changes_the_allow_list_of_a_cluster_and_nothing_else() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let clusters = world.get(&owner.token, &format!("/v1/accounts/{}/clusters", owner.account_id)).await.ok(200);
    let path = format!("/v1/clusters/{}", clusters["items"][0]["cluster_id"].as_str().unwrap());
    let changed = world.patch(&owner.token, &path, json!({"allow_ips": ["10.0.0.0/8", "192.0.2.7"]})).await.ok(200);
    assert_eq!(changed["allow_ips"], json!(["10.0.0.0/8", "192.0.2.7/32"]));
    world.patch(&owner.token, &path, json!({"upstreams": ["http://10.0.0.1:80"]})).await.problem(403, "forbidden");
    let taken = json!({"hosts": ["ONE-example.com.example.com."], "upstreams": ["http://127.0.0.1:1"]});
    let other = format!("/v1/accounts/{}/clusters", world.bare_owner("two@example.com").await.account_id);
    world.post(&world.operator, &other, taken).await.problem(409, "host_taken");
}

#[tokio::test]
async fn the_audit_log_shows_a_root_user_only_their_own_account() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let other = world.owner("other@example.com").await;
    world.key(&owner).await;
    let all = world.get(&world.operator, "/v1/audit?limit=1000").await.ok(200);
    assert!(all["items"].as_array().unwrap().iter().any(|entry| entry["account_id"] == json!(other.account_id)));
    let own = world.get(&owner.token, "/v1/audit").await.ok(200);
    let own = own["items"].as_array().unwrap();
    assert!(!own.is_empty() && own.iter().all(|entry| entry["account_id"] == json!(owner.account_id)));
    let first = world.get(&world.operator, "/v1/audit?limit=2").await.ok(200);
    let rest =
        world.get(&world.operator, &format!("/v1/audit?limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!(rest.ok(200)["items"][0]["seq"].as_u64(), first["items"][1]["seq"].as_u64().map(|seq| seq - 1));
    world.get(&owner.token, &format!("/v1/audit?account={}", other.account_id)).await.problem(403, "forbidden");
}
