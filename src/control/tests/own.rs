//! What users do for themselves: members, passwords, authenticators, recovery codes, sessions, cookies.

use super::*;
use crate::store::accounts::AccountStore;
use crate::time::WallTime;

const NEW_PASSWORD: &str = "another-canary-0815";

impl World {
    async fn member(&self, owner: &Owner, email: &str) -> (String, String) {
        let path = format!("/v1/accounts/{}/members", owner.account_id);
        let new = json!({"email": email, "password": PASSWORD});
        let made = self.post(&owner.token, &path, new).await.ok(201);
        let session = self.sign_in(email, PASSWORD).await.ok(201);
        assert_eq!(session["role"], "member");
        (made["member_id"].as_str().unwrap().to_owned(), session["token"].as_str().unwrap().to_owned())
    }

    /// A grant for the account itself; `ahead` as with [`World::grant`].
    async fn account_grant(&self, owner: &Owner, ahead: u64) -> String {
        let code = owner.totp.code_at(clock::wall().plus(Duration::from_secs(30 * ahead)));
        let granted = self.step_up(owner, code.as_str()).await.ok(201);
        granted["grant"].as_str().unwrap().to_owned()
    }

    async fn step_up(&self, owner: &Owner, code: &str) -> Answer {
        self.post(&owner.token, "/v1/step-up", json!({"action": "account", "code": code})).await
    }

    async fn granted(&self, owner: &Owner, path: &str, body: Value, grant: &str) -> Answer {
        self.call_with(&owner.token, Method::POST, path, body, Some(grant)).await
    }
}

#[tokio::test]
async fn members_see_masked_keys_and_manage_nothing() {
    let world = World::new();
    let (owner, other) = (world.owner("one@example.com").await, world.owner("two@example.com").await);
    let (id, key) = world.key(&owner).await;
    let (member_id, member) = world.member(&owner, "m@example.com").await;
    let list = world.get(&member, "/v1/keys").await;
    assert!(!list.text.contains(&key));
    assert_eq!(list.ok(200)["keys"][0]["id"], id.as_str());
    world.get(&member, &format!("/v1/keys/{id}")).await.ok(200);
    world.get(&member, "/v1/usage/records").await.status.is_success().then_some(()).unwrap();
    world.post(&member, "/v1/keys", json!({})).await.problem(403, "root_only");
    world.post(&member, &format!("/v1/keys/{id}/view"), Value::Null).await.problem(403, "root_only");
    world.call(&member, Method::DELETE, &format!("/v1/keys/{id}"), Value::Null).await.problem(403, "root_only");
    let members = format!("/v1/accounts/{}/members", owner.account_id);
    world.get(&member, &members).await.problem(403, "root_only");
    world.get(&other.token, &members).await.problem(404, "not_found");
    let items = world.get(&owner.token, &members).await.ok(200);
    assert_eq!(
        (items["items"][0]["email"].as_str(), items["items"].as_array().unwrap().len()),
        (Some("m@example.com"), 1)
    );
    let path = format!("{members}/{member_id}");
    world.call(&other.token, Method::DELETE, &path, Value::Null).await.problem(404, "not_found");
    world.call(&owner.token, Method::DELETE, &path, Value::Null).await.ok(204);
    world.get(&member, "/v1/keys").await.problem(401, "unauthenticated");
    world.sign_in("m@example.com", PASSWORD).await.problem(401, "sign_in_failed");
    let root = world.store.list_users(owner.account_id).await.unwrap()[0].user_id;
    world.call(&owner.token, Method::DELETE, &format!("{members}/{root}"), Value::Null).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_password_is_changed_with_the_present_one_and_a_root_needs_a_grant() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let elsewhere = world.sign_in("one@example.com", PASSWORD).await.ok(201)["token"].as_str().unwrap().to_owned();
    let change = |present: &str| json!({"password": present, "new_password": NEW_PASSWORD});
    world.post(&owner.token, "/v1/password", change(PASSWORD)).await.problem(401, "step_up_required");
    world.granted(&owner, "/v1/password", change(PASSWORD), "tgg_no").await.problem(401, "grant_invalid");
    let grant = world.account_grant(&owner, 0).await;
    world.granted(&owner, "/v1/password", change("wrong"), &grant).await.problem(403, "password_wrong");
    let short = json!({"password": PASSWORD, "new_password": "short"});
    world.granted(&owner, "/v1/password", short, &grant).await.problem(400, "invalid_request");
    world.granted(&owner, "/v1/password", change(PASSWORD), &grant).await.ok(204);
    world.get(&elsewhere, "/v1/keys").await.problem(401, "unauthenticated");
    world.get(&owner.token, "/v1/keys").await.ok(200);
    world.sign_in("one@example.com", PASSWORD).await.problem(401, "sign_in_failed");
    world.sign_in("one@example.com", NEW_PASSWORD).await.ok(201);
    let (_, member) = world.member(&owner, "m@example.com").await;
    world.post(&member, "/v1/password", change(PASSWORD)).await.ok(204);
    world.sign_in("m@example.com", NEW_PASSWORD).await.ok(201);
    for _ in 0..5 {
        world.post(&member, "/v1/password", change("wrong")).await.problem(403, "password_wrong");
    }
    let refused = world.post(&member, "/v1/password", change(NEW_PASSWORD)).await.problem(429, "too_many_attempts");
    assert!(refused["retry_after_s"].as_u64().unwrap() >= 1);
}

#[tokio::test]
async fn an_authenticator_is_replaced_in_two_steps() {
    let world = World::new();
    let mut owner = world.owner("one@example.com").await;
    world.post(&owner.token, "/v1/totp", json!({})).await.problem(401, "step_up_required");
    world.post(&owner.token, "/v1/totp", json!({"code": "123456"})).await.problem(409, "nothing_pending");
    let grant = world.account_grant(&owner, 0).await;
    let begun = world.granted(&owner, "/v1/totp", json!({}), &grant).await.ok(200);
    let new = TotpSecret::from_base32(begun["totp_secret"].as_str().unwrap()).unwrap();
    assert!(begun["totp_uri"].as_str().unwrap().contains(begun["totp_secret"].as_str().unwrap()));
    let old_code = owner.totp.code_at(clock::wall()).to_string();
    let new_code = new.code_at(clock::wall()).to_string();
    if old_code != new_code {
        world.post(&owner.token, "/v1/totp", json!({"code": old_code})).await.problem(401, "code_invalid");
    }
    world.post(&owner.token, "/v1/totp", json!({"code": new_code})).await.ok(204);
    world.post(&owner.token, "/v1/totp", json!({"code": new_code})).await.problem(409, "nothing_pending");
    world.step_up(&owner, &new_code).await.problem(401, "code_replayed");
    owner.totp = new;
    world.account_grant(&owner, 1).await;
}

#[tokio::test]
async fn a_recovery_code_stands_in_for_a_code_once() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    world.post(&owner.token, "/v1/recovery-codes", Value::Null).await.problem(401, "step_up_required");
    let grant = world.account_grant(&owner, 0).await;
    let made = world.granted(&owner, "/v1/recovery-codes", Value::Null, &grant).await.ok(200);
    let codes: Vec<_> = made["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!(codes.len(), 10);
    let granted = world.step_up(&owner, &codes[3].to_uppercase()).await.ok(201);
    let grant = granted["grant"].as_str().unwrap();
    world.step_up(&owner, codes[3]).await.problem(401, "code_invalid");
    let renewed = world.granted(&owner, "/v1/recovery-codes", Value::Null, grant).await.ok(200);
    assert_ne!(renewed["codes"], made["codes"]);
    world.step_up(&owner, codes[4]).await.problem(401, "code_invalid");
    let stored = format!("{:?}", world.store.list_users(owner.account_id).await.unwrap());
    assert!(codes.iter().all(|code| !stored.contains(*code)));
}

#[tokio::test]
async fn the_operator_gives_a_root_new_secrets_and_ends_all_sessions() {
    let world = World::new();
    let mut owner = world.owner("one@example.com").await;
    let (_, member) = world.member(&owner, "m@example.com").await;
    let path = format!("/v1/accounts/{}/reset", owner.account_id);
    world.post(&owner.token, &path, json!({"reason": "x"})).await.problem(403, "forbidden");
    world.post(&world.operator, &path, json!({})).await.problem(400, "invalid_request");
    let nobody = format!("/v1/accounts/{}/reset", AccountId::random().unwrap());
    world.post(&world.operator, &nobody, json!({"reason": "x"})).await.problem(404, "not_found");
    let renewed = world.post(&world.operator, &path, json!({"reason": "lost authenticator"})).await.ok(200);
    for token in [&owner.token, &member] {
        world.get(token, "/v1/keys").await.problem(401, "unauthenticated");
    }
    world.sign_in("one@example.com", PASSWORD).await.problem(401, "sign_in_failed");
    let session = world.sign_in("one@example.com", renewed["password"].as_str().unwrap()).await.ok(201);
    owner.token = session["token"].as_str().unwrap().to_owned();
    owner.totp = TotpSecret::from_base32(renewed["totp_secret"].as_str().unwrap()).unwrap();
    world.account_grant(&owner, 0).await;
    let audit = world.get(&world.operator, "/v1/audit?limit=20").await;
    assert!(audit.text.contains("account.reset") && audit.text.contains("lost authenticator"));
    assert!(!audit.text.contains(renewed["password"].as_str().unwrap()));
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_user() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let second = world.sign_in("one@example.com", PASSWORD).await.ok(201)["token"].as_str().unwrap().to_owned();
    let items = world.get(&second, "/v1/sessions").await.ok(200)["items"].as_array().unwrap().clone();
    let current: Vec<_> = items.iter().filter(|session| session["current"] == true).collect();
    assert_eq!((items.len(), current.len()), (2, 1));
    world.call(&second, Method::DELETE, "/v1/sessions", Value::Null).await.ok(204);
    world.get(&owner.token, "/v1/keys").await.problem(401, "unauthenticated");
    assert_eq!(world.get(&second, "/v1/sessions").await.ok(200)["items"].as_array().unwrap().len(), 1);
    world.call(&second, Method::DELETE, "/v1/session", Value::Null).await.ok(204);
    world.get(&second, "/v1/keys").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_sign_in_whose_password_was_replaced_while_it_was_checked_opens_no_session() {
    use crate::control::caller::Source;
    use crate::control::error::Kind;
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let before = world.store.user_by_email("one@example.com").await.unwrap().unwrap();
    let path = format!("/v1/accounts/{}/reset", owner.account_id);
    world.post(&world.operator, &path, json!({"reason": "lost"})).await.ok(200);
    let refused = world.control.open_session(before.clone(), Source(None)).await.err().unwrap();
    assert_eq!(refused.kind, Kind::SignInFailed);
    let now = world.store.user(before.user_id).await.unwrap().unwrap();
    world.control.open_session(now, Source(None)).await.ok().unwrap();
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_and_use_moves_that_on_but_not_for_ever() {
    use crate::control::session::{IDLE, LASTS};
    use crate::control::token;
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let hash = token::hash(owner.token.as_bytes());
    let now = clock::wall();
    let end = async |world: &World| world.store.session(hash, now).await.unwrap().unwrap().expires_at;
    assert!(end(&world).await <= now.plus(IDLE));
    // As if it had last been used two minutes ago, and would soon end.
    let ago = WallTime(now.0 - 120_000);
    world.store.touch_session(hash, ago, now.plus(Duration::from_secs(60))).await.unwrap();
    world.get(&owner.token, "/v1/keys").await.ok(200);
    assert!(end(&world).await > now.plus(Duration::from_secs(3000)), "use moves the end on");
    let created = world.store.session(hash, now).await.unwrap().unwrap().created_at;
    assert!(end(&world).await <= created.plus(LASTS));
    world.store.touch_session(hash, ago, now).await.unwrap();
    world.get(&owner.token, "/v1/keys").await.problem(401, "unauthenticated");
}

struct Browser {
    session: String,
    csrf: String,
}

impl World {
    async fn browse(
        &self,
        browser: &Browser,
        method: Method,
        path: &str,
        body: Value,
        more: &[(&str, &str)],
    ) -> Answer {
        let cookie = format!("__Host-tollgate={}; __Host-tollgate-csrf={}", browser.session, browser.csrf);
        let mut request = Request::builder().method(method).uri(path).header("cookie", cookie).header("host", "h:1");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).unwrap()).await
    }
}

fn cookies_of(answer: &Answer) -> Browser {
    let set: Vec<_> = answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    let value = |name: &str| {
        let line = set.iter().find(|line| line.starts_with(&format!("{name}="))).unwrap();
        assert!(
            line.contains("; Secure") && line.contains("; SameSite=Strict") && line.contains("; Path=/;"),
            "{line}"
        );
        assert!(!line.contains("Domain"));
        line[name.len() + 1..].split(';').next().unwrap().to_owned()
    };
    assert!(set.iter().any(|line| line.starts_with("__Host-tollgate=") && line.contains("; HttpOnly")));
    Browser { session: value("__Host-tollgate"), csrf: value("__Host-tollgate-csrf") }
}

#[tokio::test]
async fn a_browser_has_a_cookie_and_changes_nothing_without_the_csrf_token() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let sign_in = json!({"email": "one@example.com", "password": PASSWORD, "cookie": true});
    let foreign = Request::post("/v1/session").header("host", "h:1").header("origin", "https://evil.example");
    world.send(foreign.body(Body::from(sign_in.to_string())).unwrap()).await.problem(403, "cross_site");
    let answer = world.post("", "/v1/session", sign_in).await;
    let browser = cookies_of(&answer);
    let body = answer.ok(201);
    assert!(body.get("token").is_none() && body["csrf_token"] == browser.csrf.as_str(), "{body}");

    world.browse(&browser, Method::GET, "/v1/keys", Value::Null, &[]).await.ok(200);
    let good = [("origin", "https://h:1"), ("x-csrf-token", browser.csrf.as_str())];
    for bad in [&[][..], &good[..1], &good[1..], &[good[1], ("origin", "https://evil.example")]] {
        let answer = world.browse(&browser, Method::POST, "/v1/keys", json!({}), bad).await;
        answer.problem(403, "cross_site");
    }
    world.browse(&browser, Method::POST, "/v1/keys", json!({}), &good).await.ok(201);

    let code = owner.totp.code_at(clock::wall()).to_string();
    let ask = json!({"action": "account", "code": code});
    let answer = world.browse(&browser, Method::POST, "/v1/step-up", ask, &good).await;
    let rotated = cookies_of(&answer);
    let granted = answer.ok(201);
    assert!(rotated.session != browser.session && granted["csrf_token"] == rotated.csrf.as_str());
    world.browse(&browser, Method::GET, "/v1/keys", Value::Null, &[]).await.problem(401, "unauthenticated");
    world.get(&owner.token, "/v1/keys").await.ok(200);
    let grant = granted["grant"].as_str().unwrap();
    let good = [("origin", "https://h:1"), ("x-csrf-token", rotated.csrf.as_str()), ("step-up-grant", grant)];
    world.browse(&rotated, Method::POST, "/v1/recovery-codes", Value::Null, &good).await.ok(200);
    let out = world.browse(&rotated, Method::DELETE, "/v1/session", Value::Null, &good).await;
    assert!(out.headers.get_all("set-cookie").iter().all(|line| line.to_str().unwrap().contains("Max-Age=0")));
    out.ok(204);
    world.browse(&rotated, Method::GET, "/v1/keys", Value::Null, &[]).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn the_operators_browser_needs_the_token_once_and_the_csrf_token_for_changes() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let account = format!("/v1/accounts/{}", owner.account_id);
    let sign_in = |token: &str| json!({"token": token});
    let foreign = Request::post("/v1/operator-session").header("host", "h:1").header("origin", "https://evil.example");
    let foreign = foreign.body(Body::from(sign_in(&world.operator).to_string())).unwrap();
    world.send(foreign).await.problem(403, "cross_site");
    for wrong in [&world.billing, &owner.token, ""] {
        world.post("", "/v1/operator-session", sign_in(wrong)).await.problem(401, "sign_in_failed");
    }
    let answer = world.post("", "/v1/operator-session", sign_in(&world.operator)).await;
    let browser = cookies_of(&answer);
    assert!(!answer.ok(201).to_string().contains(&world.operator) && browser.session != world.operator);
    world.browse(&browser, Method::GET, "/v1/accounts", Value::Null, &[]).await.ok(200);
    world.browse(&browser, Method::GET, "/v1/keys", Value::Null, &[]).await.problem(403, "forbidden");
    let patch = json!({"verified": false});
    let forged = world.browse(&browser, Method::PATCH, &account, patch.clone(), &[("origin", "https://h:1")]).await;
    forged.problem(403, "cross_site");
    let good = [("origin", "https://h:1"), ("x-csrf-token", browser.csrf.as_str())];
    assert_eq!(world.browse(&browser, Method::PATCH, &account, patch, &good).await.ok(200)["verified"], false);
    // As a bearer it is nothing: it only ever stands in the cookie.
    world.get(&browser.session, "/v1/accounts").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_bearer_token_counts_alone_and_stays_the_same_at_step_up() {
    let world = World::new();
    let owner = world.owner("one@example.com").await;
    let answer = world.step_up(&owner, owner.totp.code_at(clock::wall()).as_str()).await;
    assert!(!answer.headers.contains_key("set-cookie"));
    assert!(answer.ok(201).get("csrf_token").is_none());
    world.get(&owner.token, "/v1/keys").await.ok(200);
    let both = Request::get("/v1/keys").header("authorization", "Bearer wrong");
    let both = both.header("cookie", format!("__Host-tollgate={}", owner.token));
    world.send(both.body(Body::empty()).unwrap()).await.problem(401, "unauthenticated");
}
