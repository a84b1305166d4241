//! The control plane against the embedded store behind its journal, request by request.

mod access;
mod billing;
mod document;
mod folding;
mod hostile;
mod keys;
mod listener;
mod model;
mod operation;
mod own;
mod racing;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::health::{Health, WriteProbe};
use super::password::PasswordCost;
use super::seal::Sealer;
use super::token::{OPERATOR, Token};
use super::totp::TotpSecret;
use super::{Control, ControlParts, health, router};
use crate::archive::Archive;
use crate::clock;
use crate::config::KeysConfig;
use crate::config::secret::Secret32;
use crate::journal::Journal;
use crate::key::Digester;
use crate::principal::{AccountId, Incarnation, Revision};
use crate::store::embedded::{Embedded, Settings};
use crate::store::journaled::Journaled;
use crate::store::upkeep::Upkeep;
use crate::store::{FeedStore, Renew, Store};

const PASSWORD: &str = "canary-password-4711";
const LEASE: Duration = Duration::from_secs(5);

/// A control plane of its own with an empty store.
struct World {
    router: Router,
    control: Arc<Control>,
    store: Arc<Journaled<Embedded>>,
    operator: String,
    billing: String,
    ground: Ground,
}

/// What outlives a control plane: its files and secrets.
struct Ground {
    folder: TempDir,
    sealing: Secret32,
    operator: Token,
    billing: Token,
}

impl Ground {
    fn new(folder: TempDir) -> Self {
        let sealing = Secret32::init_with_mut(|key: &mut [u8; 32]| getrandom::fill(key).unwrap());
        Self { folder, sealing, operator: Token::random(OPERATOR).unwrap(), billing: Token::random(OPERATOR).unwrap() }
    }
}

/// An account with its root signed in.
struct Owner {
    account_id: AccountId,
    token: String,
    totp: TotpSecret,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    #[track_caller]
    fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Checks that this is a whole problem, and gives its body.
    #[track_caller]
    fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        assert_eq!(body["request_id"], self.headers["x-request-id"].to_str().unwrap());
        body
    }
}

impl World {
    fn new() -> Self {
        Self::with(KeysConfig { active_max: 3, daily_max: 10, day_offset: 8 * 3600 })
    }

    fn with(keys: KeysConfig) -> Self {
        Self::open(Ground::new(tempfile::tempdir().unwrap()), keys)
    }

    fn open(ground: Ground, keys: KeysConfig) -> Self {
        let Ground { folder, sealing, operator, billing } = &ground;
        let sealer = Sealer::new(1, sealing);
        let embedded = Embedded::open(&folder.path().join("store"), Settings::new(LEASE)).unwrap();
        let (journal, _) = Journal::open(&folder.path().join("journal"), &sealer, embedded.store_id()).unwrap();
        let store = Arc::new(Journaled::new(Arc::new(embedded), journal));
        let metrics = crate::telemetry::metrics::Metrics::new(prometheus::Registry::new(), crate::time::WallTime(0));
        let metrics = Arc::new(metrics.unwrap());
        let parts = ControlParts {
            metrics: Arc::clone(&metrics),
            archive: Some(Archive::in_folder(&folder.path().join("archive")).unwrap()),
            retention: Some(Duration::from_secs(7 * 24 * 3600)),
            store: Arc::clone(&store) as Arc<dyn Store>,
            digester: Digester::new(&[7; 32]),
            sealer,
            operator_token: operator.hash(),
            billing_token: Some(billing.hash()),
            upkeep: Some(Arc::clone(&store) as Arc<dyn Upkeep>),
            keys,
            endpoint: "https://{host}".to_owned(),
            password_cost: PasswordCost { memory_kib: 64, passes: 1, lanes: 1 },
        };
        let health = Health { metrics, checks: Vec::new(), store: Some(WriteProbe::new(store.clone())), ledger: None };
        let control = Control::new(parts).unwrap();
        let router = router(Arc::clone(&control), health::routes(health));
        let (operator, billing) = (operator.expose().to_owned(), billing.expose().to_owned());
        Self { router, control, store, operator, billing, ground }
    }

    /// The control plane ends and starts again with what it left.
    fn restart(self, keys: KeysConfig) -> Self {
        let Self { router, control, store, ground, .. } = self;
        drop((router, control));
        // The file and the journal open again only once the last handle is gone.
        drop(Arc::into_inner(store).unwrap());
        Self::open(ground, keys)
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let service = TowerToHyperService::new(self.router.clone());
        let response = service.call(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    async fn call(&self, token: &str, method: Method, path: &str, body: Value) -> Answer {
        self.call_with(token, method, path, body, None).await
    }

    async fn call_with(&self, token: &str, method: Method, path: &str, body: Value, grant: Option<&str>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(grant) = grant {
            request = request.header("step-up-grant", grant);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        };
        self.send(request.body(body).unwrap()).await
    }

    async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, Method::GET, path, Value::Null).await
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(token, Method::POST, path, body).await
    }

    async fn patch(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(token, Method::PATCH, path, body).await
    }

    async fn sign_in(&self, email: &str, password: &str) -> Answer {
        self.post("", "/v1/session", json!({"email": email, "password": password})).await
    }

    /// A verified account with a cluster, and its root signed in.
    async fn owner(&self, email: &str) -> Owner {
        let owner = self.bare_owner(email).await;
        let path = format!("/v1/accounts/{}", owner.account_id);
        self.patch(&self.operator, &path, json!({"verified": true})).await.ok(200);
        let host = format!("{}.example.com", email.replace('@', "-"));
        let cluster = json!({"hosts": [host], "upstreams": ["http://127.0.0.1:1"]});
        self.post(&self.operator, &format!("{path}/clusters"), cluster).await.ok(201);
        owner
    }

    async fn bare_owner(&self, email: &str) -> Owner {
        let new = json!({"email": email, "password": PASSWORD, "name": "an account"});
        let made = self.post(&self.operator, "/v1/accounts", new).await.ok(201);
        let session = self.sign_in(email, PASSWORD).await.ok(201);
        assert_eq!((session["role"].as_str(), &session["account_id"]), (Some("root"), &made["account_id"]));
        Owner {
            account_id: made["account_id"].as_str().unwrap().parse().unwrap(),
            token: session["token"].as_str().unwrap().to_owned(),
            totp: TotpSecret::from_base32(made["totp_secret"].as_str().unwrap()).unwrap(),
        }
    }

    async fn key(&self, owner: &Owner) -> (String, String) {
        let key = self.post(&owner.token, "/v1/keys", json!({"name": "ci"})).await.ok(201);
        (key["id"].as_str().unwrap().to_owned(), key["key"].as_str().unwrap().to_owned())
    }

    /// A grant, for the code of the step that is `ahead` of now: 0, then 1, since a used step cannot be used again.
    async fn grant(&self, owner: &Owner, action: &str, key_id: &str, ahead: u64) -> String {
        let code = owner.totp.code_at(clock::wall().plus(Duration::from_secs(30 * ahead)));
        let ask = json!({"action": action, "key_id": key_id, "code": code.as_str()});
        let granted = self.post(&owner.token, "/v1/step-up", ask).await.ok(201);
        assert_eq!(granted["expires_in"], 120);
        granted["grant"].as_str().unwrap().to_owned()
    }

    /// A gateway that says it has applied everything up to `applied`.
    async fn renew(&self, incarnation: Incarnation, applied: Revision) -> Revision {
        let epoch = Some(self.store.store().epoch());
        self.store.renew(Renew { incarnation, epoch, applied, version: "1" }).await.unwrap().revision
    }
}
