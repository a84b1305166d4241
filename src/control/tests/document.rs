//! What the OpenAPI document says, asked of the router: every route with every caller, and with bodies nobody should send.

use std::collections::BTreeSet;

use super::operation::Operation;
use super::*;
use crate::meter::record::Flush;
use crate::principal::{ID_BYTES, KeyId, SessionId};
use crate::store::Ledger;
use crate::store::accounts::{AccountStore, Proof, StepUp};
use crate::store::records::{Grant, GrantFor};

/// The routes of interfaces, section 4, and those of section 5 that there are.
const ROUTES: &str = "
    POST /v1/session, GET /v1/session, POST /v1/operator-session, DELETE /v1/operator-session, DELETE /v1/session, POST /v1/accounts, GET /v1/accounts, GET /v1/accounts/{id}, PATCH /v1/accounts/{id},
    POST /v1/accounts/{id}/reset, GET /v1/accounts/{id}/members, POST /v1/accounts/{id}/members,
    DELETE /v1/accounts/{id}/members/{member}, GET /v1/accounts/{id}/clusters, POST /v1/accounts/{id}/clusters,
    GET /v1/clusters/{id}, PATCH /v1/clusters/{id}, DELETE /v1/clusters/{id}, GET /v1/keys, POST /v1/keys, GET /v1/keys/{id},
    PATCH /v1/keys/{id}, DELETE /v1/keys/{id}, POST /v1/step-up, POST /v1/password, POST /v1/totp, POST /v1/recovery-codes,
    GET /v1/sessions, DELETE /v1/sessions, POST /v1/keys/{id}/view, GET /v1/accounts/{id}/keys,
    POST /v1/accounts/{id}/keys/import, DELETE /v1/accounts/{id}/keys/{key_id}, POST /v1/keys/lookup, GET /v1/audit,
    GET /v1/audit/verify, GET /v1/store, GET /v1/store/backup, GET /v1/gateways, GET /v1/usage/records, GET /metrics/usage,
    GET /v1/usage/windows, GET /v1/usage/changes, GET /v1/usage/reconciliation, POST /v1/usage/adjustments,
    POST /v1/usage/abandonments";

async fn document(world: &World) -> Value {
    let answer = world.get("", "/openapi.json").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    answer.ok(200)
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, facts) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            operations.push(Operation { method, path: path.clone(), facts: facts.clone() });
        }
    }
    operations
}

/// Two accounts with all that the paths name, and everybody who may call.
struct Scene {
    world: World,
    owner: Owner,
    other: Owner,
    member: String,
    member_id: String,
    key: (String, String),
    cluster: String,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let (owner, other) = (world.owner("one@example.com").await, world.owner("two@example.com").await);
        let path = format!("/v1/accounts/{}", owner.account_id);
        let member = json!({"email": "three@example.com", "password": PASSWORD});
        let made = world.post(&owner.token, &format!("{path}/members"), member).await.ok(201);
        let session = world.sign_in("three@example.com", PASSWORD).await.ok(201);
        let clusters = world.get(&owner.token, &format!("{path}/clusters")).await.ok(200);
        // A gateway that has counted, and is gone.
        let (incarnation, hour) = (Incarnation([0; ID_BYTES]), clock::wall().hour());
        let flush = Flush { incarnation, hour, sequence: 1, lines: vec![], watermark: hour.start(), closing: None };
        world.store.merge(flush).await.unwrap();
        Self {
            key: world.key(&owner).await,
            member: session["token"].as_str().unwrap().to_owned(),
            member_id: made["member_id"].as_str().unwrap().to_owned(),
            cluster: clusters["items"][0]["cluster_id"].as_str().unwrap().to_owned(),
            world,
            owner,
            other,
        }
    }

    /// Each kind of caller by its name in the document; `other` is the root user of the other account.
    fn callers(&self) -> [(&'static str, &str); 6] {
        [
            ("none", ""),
            ("member", &self.member),
            ("root", &self.owner.token),
            ("other", &self.other.token),
            ("operator", &self.world.operator),
            ("billing", &self.world.billing),
        ]
    }

    fn path_of(&self, operation: &Operation) -> String {
        let account = self.owner.account_id.to_string();
        let id = match operation.path.split('/').nth(2).unwrap_or_default() {
            "accounts" => &account,
            "clusters" => &self.cluster,
            _ => &self.key.0,
        };
        let path = operation.path.replace("{id}", id).replace("{key_id}", &self.key.0);
        path.replace("{member}", &self.member_id)
    }

    /// The example of the document, with what only this scene knows.
    fn body_of(&self, operation: &Operation) -> Value {
        let mut body = operation.example();
        let present = match operation.id() {
            "signIn" => vec![("email", json!("one@example.com")), ("password", json!(PASSWORD))],
            "operatorSignIn" => vec![("token", json!(self.world.operator))],
            "changePassword" => vec![("password", json!(PASSWORD))],
            "stepUp" => vec![("code", json!(self.owner.totp.code_at(clock::wall()).as_str()))],
            "lookupKey" => vec![("key", json!(self.key.1))],
            "adjustUsage" => vec![("account_id", json!(self.owner.account_id))],
            _ => Vec::new(),
        };
        present.into_iter().for_each(|(name, value)| body[name] = value);
        body
    }

    /// Straight into the store: an authenticator would give one code in half a minute.
    async fn grant(&self, operation: &Operation, owner: &Owner) -> String {
        let token = Token::random("tgg_").unwrap();
        let session = self.session_of(owner).await;
        let key_id: KeyId = self.key.0.parse().unwrap();
        let action = match operation.id() {
            "viewKey" => GrantFor::View(key_id),
            "deleteKey" => GrantFor::Delete(key_id),
            _ => GrantFor::Account,
        };
        let expires_at = clock::wall().plus(Duration::from_secs(60));
        let grant = Grant { hash: token.hash(), session_id: session, action, expires_at };
        let step_up = StepUp { account_id: owner.account_id, proof: Proof::Step(1), grant, rotate: None };
        self.world.store.step_up(step_up, crate::store::audit::Actor::system(), clock::wall()).await.unwrap();
        token.expose().to_owned()
    }

    async fn session_of(&self, owner: &Owner) -> SessionId {
        let hash = crate::control::token::hash(owner.token.as_bytes());
        self.world.store.session(hash, clock::wall()).await.unwrap().unwrap().session_id
    }

    async fn ask(&self, operation: &Operation, token: &str, body: Value, grant: Option<&str>) -> Answer {
        self.world.call_with(token, operation.method.clone(), &self.path_of(operation), body, grant).await
    }

    /// How many changes there have been: every one of them is audited.
    async fn changes(&self) -> Value {
        self.world.get(&self.world.operator, "/v1/audit?limit=1").await.ok(200)["items"][0]["seq"].clone()
    }

    /// What nobody of another account may read.
    fn secrets_of_the_owner(&self) -> Vec<String> {
        let (account, host) = (self.owner.account_id.to_string(), "one-example.com.example.com".to_owned());
        let names = ["one@example.com".to_owned(), "three@example.com".to_owned(), self.member_id.clone()];
        let key = [self.key.0.clone(), self.key.1.clone(), self.key.1[..12].to_owned()];
        [vec![account, host, self.cluster.clone()], names.to_vec(), key.to_vec()].concat()
    }

    #[track_caller]
    fn check_tells_nothing(&self, who: &str, operation: &Operation, answer: &Answer) {
        for secret in self.secrets_of_the_owner() {
            assert!(!answer.text.contains(&secret), "{who} {}: {secret} in {}", operation.id(), answer.text);
        }
    }
}

#[tokio::test]
async fn the_document_has_every_route_and_the_router_every_operation() {
    let world = World::new();
    let document = document(&world).await;
    assert_eq!(document["openapi"], "3.1.0");
    let operations = operations(&document);
    let told: BTreeSet<_> = operations.iter().map(|one| format!("{} {}", one.method, one.path)).collect();
    let wanted: BTreeSet<_> = ROUTES.split(',').map(|route| route.trim().to_owned()).collect();
    assert_eq!(told, wanted);
    let ids: BTreeSet<_> = operations.iter().map(Operation::id).collect();
    assert_eq!(ids.len(), operations.len(), "each operation has a name of its own");
    let paths: BTreeSet<_> = operations.iter().map(|one| one.path.as_str()).collect();
    for path in paths {
        let concrete = path.replace("{id}", "acc_aaaaaaaaaaaaaaaa").replace("{key_id}", "key_aaaaaaaaaaaaaaaa");
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = world.call("", method.clone(), &concrete, Value::Null).await;
            // axum answers HEAD where there is GET, and nothing else that is not told.
            let is_told = told.contains(&format!("{method} {path}"));
            assert_eq!(answer.status != StatusCode::METHOD_NOT_ALLOWED, is_told, "{method} {path}: {}", answer.status);
            assert_ne!(answer.status, StatusCode::NOT_FOUND, "{method} {path} is not in the router");
        }
    }
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere_and_nothing_is_null() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document(&World::new()).await;
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let place = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
    }
    let pages = document["components"]["schemas"].as_object().unwrap().values();
    let pages = pages.filter(|schema| schema["properties"]["next"].is_object()).count();
    assert_eq!(document.to_string().matches("\"null\"").count(), pages, "only the end of a list is null");
}

#[tokio::test]
async fn whoever_may_not_use_a_route_is_refused_and_changes_nothing() {
    let scene = Scene::new().await;
    let operations = operations(&document(&scene.world).await);
    let mut refused = 0;
    for operation in operations.iter().filter(|operation| !operation.callers().is_empty()) {
        let before = scene.changes().await;
        for (who, token) in scene.callers() {
            let takes_id = !operation.parameters("path").is_empty();
            let role = if who == "other" { "root" } else { who };
            let (status, codes): (_, &[&str]) = match (who, operation.callers().contains(&role)) {
                ("none", _) => (401, &["unauthenticated"]),
                ("other", true) if takes_id => (404, &["not_found"]),
                (_, true) => continue,
                (_, false) if operation.callers() == ["root"] => (403, &["root_only", "forbidden"]),
                (_, false) => (403, &["forbidden", "root_only"]),
            };
            let answer = scene.ask(operation, token, scene.body_of(operation), None).await;
            let shown = format!("{who} {} {}: {} {}", operation.method, operation.path, answer.status, answer.text);
            assert_eq!(answer.status.as_u16(), status, "{shown}");
            assert!(codes.contains(&answer.json()["code"].as_str().unwrap()), "{shown}");
            operation.check_documented(&answer);
            scene.check_tells_nothing(who, operation, &answer);
            refused += 1;
        }
        assert_eq!(scene.changes().await, before, "{} changed something", operation.id());
    }
    assert!(refused > 100, "only {refused} refusals were tried");
}

#[tokio::test]
async fn whoever_may_use_a_route_is_served_as_the_document_says() {
    let operations = operations(&document(&World::new()).await);
    for operation in &operations {
        for who in ["member", "root", "operator", "billing"] {
            let may = operation.callers().contains(&who) || operation.callers().is_empty();
            if !may {
                continue;
            }
            let scene = Scene::new().await;
            let token = scene.callers().iter().find(|(name, _)| *name == who).unwrap().1.to_owned();
            let token = if operation.callers().is_empty() { String::new() } else { token };
            let takes_grant = who == "root" && !operation.parameters("header").is_empty();
            let grant = if takes_grant { Some(scene.grant(operation, &scene.owner).await) } else { None };
            let answer = scene.ask(operation, &token, scene.body_of(operation), grant.as_deref()).await;
            assert!(operation.is_success(answer.status), "{who} {}: {} {}", operation.id(), answer.status, answer.text);
            let told = &operation.facts["responses"][answer.status.as_str()]["content"];
            assert_eq!(
                told.is_null(),
                answer.text.is_empty()
                    && operation.path != "/metrics/usage"
                    && !["listUsage", "listUsageChanges"].contains(&operation.id())
            );
        }
    }
}

#[tokio::test]
async fn another_accounts_root_sees_nothing_of_this_one_where_it_is_served() {
    let operations = operations(&document(&World::new()).await);
    let scene = Scene::new().await;
    let mut served = 0;
    for operation in &operations {
        let own = operation.callers().contains(&"root") && operation.parameters("path").is_empty();
        if !own || operation.method != Method::GET {
            continue;
        }
        let answer = scene.ask(operation, &scene.other.token, Value::Null, None).await;
        assert!(operation.is_success(answer.status), "{}", operation.id());
        scene.check_tells_nothing("other", operation, &answer);
        for (name, value) in [("account", scene.owner.account_id.to_string()), ("cluster", scene.cluster.clone())] {
            if operation.parameters("query").iter().any(|parameter| parameter["name"] == name) {
                let path = format!("{}?{name}={value}", operation.path);
                let answer = scene.world.get(&scene.other.token, &path).await;
                assert!(answer.status.is_client_error() || answer.text.is_empty(), "{path}: {}", answer.text);
                scene.check_tells_nothing("other", operation, &answer);
            }
        }
        served += 1;
    }
    assert!(served >= 4, "only {served} routes were tried");
}

/// Values that a property of this schema cannot have, as JSON text.
fn wrong_values(schema: &Value) -> Vec<String> {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let mut wrong = vec!["{\"a\":{}}".to_owned(), "1e999".to_owned(), deep];
    match schema["type"].as_str() {
        Some("string") => wrong.extend(["1", "true", "[]", "[\"x\"]", "-0.0"].map(str::to_owned)),
        Some("integer") => wrong.extend(["\"x\"", "-1", "1.5", "99999999999999999999", "true"].map(str::to_owned)),
        Some("boolean") => wrong.extend(["\"true\"", "0", "[]"].map(str::to_owned)),
        Some("array") => wrong.extend(["\"x\"", "1", "[1]", "[{}]", "[null]", "[\"\\u0000\"]"].map(str::to_owned)),
        _ => wrong.extend(["1", "\"nonsense\"", "[]", "true"].map(str::to_owned)),
    }
    wrong
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|place| document.pointer(place)).unwrap_or(schema)
}

/// Bodies that no schema of the document allows, each with what is wrong.
fn hostile_bodies(document: &Value, operation: &Operation) -> Vec<(String, Vec<u8>)> {
    let example = operation.example().to_string();
    let mut bodies = vec![
        ("null".to_owned(), b"null".to_vec()),
        ("a list".to_owned(), format!("[{example}]").into_bytes()),
        ("cut".to_owned(), format!("{}, \"", &example[..example.len() - 1]).into_bytes()),
        ("not UTF-8".to_owned(), [b"{\"\xff\xfe\":1,".as_slice(), &example.as_bytes()[1..]].concat()),
        ("more behind it".to_owned(), format!("{example}{example}").into_bytes()),
        ("an unknown field".to_owned(), with(&operation.example(), "unknown", "1")),
        ("deep".to_owned(), format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000)).into_bytes()),
        ("a prototype".to_owned(), with(&operation.example(), "__proto__", "{}")),
    ];
    let schema = &operation.facts["requestBody"]["content"]["application/json"]["schema"];
    for (name, property) in resolved(document, schema)["properties"].as_object().unwrap() {
        for wrong in wrong_values(resolved(document, property)) {
            bodies.push((
                format!("{name} is {}", &wrong[..wrong.len().min(40)]),
                with(&operation.example(), name, &wrong),
            ));
        }
        let twice = format!("{{{:?}:1,{:?}:1}}", name, name);
        bodies.push((format!("{name} twice"), twice.into_bytes()));
    }
    bodies
}

/// The object with one field of this JSON text, which need not be JSON.
fn with(object: &Value, name: &str, text: &str) -> Vec<u8> {
    let fields = object.as_object().unwrap().iter().filter(|(key, _)| *key != name);
    let fields: Vec<_> = fields.map(|(key, value)| format!("{key:?}:{value},")).collect();
    format!("{{{}{name:?}:{text}}}", fields.concat()).into_bytes()
}

#[tokio::test]
async fn broken_and_hostile_bodies_are_problems_and_change_nothing() {
    let scene = Scene::new().await;
    let document = document(&scene.world).await;
    let mut tried = 0;
    for operation in operations(&document).iter().filter(|one| one.facts["requestBody"].is_object()) {
        let before = scene.changes().await;
        let who = operation.callers().first().copied().unwrap_or("none");
        let token = scene.callers().iter().find(|(name, _)| *name == who).unwrap().1.to_owned();
        let send = async |body: Vec<u8>, media: &'static str| {
            let request = Request::builder().method(&operation.method).uri(scene.path_of(operation));
            let request = request.header("content-type", media).header("authorization", format!("Bearer {token}"));
            scene.world.send(request.body(Body::from(body)).unwrap()).await
        };
        for (what, body) in hostile_bodies(&document, operation) {
            let answer = send(body, "application/json").await;
            let shown = format!("{} {what}: {} {}", operation.id(), answer.status, answer.text);
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{shown}");
            answer.problem(400, "invalid_request");
            tried += 1;
        }
        let large = format!("{{\"name\":\"{}\"}}", "n".repeat(2 << 20)).into_bytes();
        send(large, "application/json").await.problem(413, "body_too_large");
        let form = send(b"a=b".to_vec(), "application/x-www-form-urlencoded").await;
        form.problem(415, "unsupported_media_type");
        assert_eq!(scene.changes().await, before, "{} changed something", operation.id());
    }
    assert!(tried > 200, "only {tried} bodies were tried");
}

#[tokio::test]
async fn hostile_paths_queries_and_headers_are_problems() {
    let scene = Scene::new().await;
    let operations = operations(&document(&scene.world).await);
    for operation in &operations {
        let Some(who) = operation.callers().first().copied() else { continue };
        let token = scene.callers().iter().find(|(name, _)| *name == who).unwrap().1.to_owned();
        let method = || operation.method.clone();
        if !operation.parameters("path").is_empty() {
            for id in [
                "%ff",
                "%00",
                "..%2f..%2f",
                "acc_%2e",
                &"a".repeat(2000),
                "key_AAAAAAAAAAAAAAAA",
                "ses_aaaaaaaaaaaaaaaa",
            ] {
                let path = operation.path.replace("{id}", id).replace("{key_id}", id).replace("{member}", id);
                let answer = scene.world.call(&token, method(), &path, scene.body_of(operation)).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {}", answer.text);
            }
        }
        for parameter in operation.parameters("query") {
            let name = parameter["name"].as_str().unwrap();
            for value in ["%00", "%ff", "nonsense%20value", "-1", "999999999999999999999999", ""] {
                let path = format!("{}?{name}={value}", scene.path_of(operation));
                let answer = scene.world.call(&token, method(), &path, Value::Null).await;
                assert!(!answer.status.is_server_error(), "{path}: {}", answer.text);
                if value.starts_with('%') {
                    answer.problem(400, "invalid_request");
                }
            }
        }
        let long = "x".repeat(8000);
        for grant in ["", " ", "tgg_", &long] {
            let answer =
                scene.world.call_with(&token, method(), &scene.path_of(operation), json!([]), Some(grant)).await;
            assert!(!answer.status.is_server_error(), "{}: {}", operation.id(), answer.text);
        }
    }
}
