//! The demo's account, cluster and key: made through the control API at the first start, found again at later ones.

use std::io;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Api, ApiError};
use super::folder::Folder;

const EMAIL: &str = "owner@demo.test";
const READY_WITHIN: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What the demo tells (interfaces, section 1). Kept in `demo.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub gateway: String,
    pub control: String,
    pub operator_token: String,
    pub account_id: String,
    pub cluster_id: String,
    pub email: String,
    pub password: String,
    pub totp_secret: String,
    pub cluster_host: String,
    /// Absent once the key is deleted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub api_key: Option<String>,
    pub upstream: String,
}

/// What a start decides by itself.
pub struct Wanted {
    pub gateway: String,
    pub control: String,
    pub upstream: String,
    pub operator_token: String,
    pub cluster_host: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("demo.json cannot be used: {0}")]
    Facts(io::Error),
    #[error("the answer to {0} lacks a field")]
    Answer(&'static str),
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(#[from] getrandom::Error),
    #[error("the node did not become ready within {READY_WITHIN:?}")]
    NotReady,
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
}

/// Makes or finds the account, points its cluster at this start's sample service, and waits until the node is ready.
pub async fn ensure(api: &Api, wanted: &Wanted, folder: &Folder) -> Result<Facts, SeedError> {
    let facts = match folder.facts().map_err(SeedError::Facts)? {
        Some(facts) => found_again(api, wanted, facts).await?,
        None => made(api, wanted).await?,
    };
    folder.keep(&facts).map_err(SeedError::Facts)?;
    ready(api).await?;
    Ok(facts)
}

async fn made(api: &Api, wanted: &Wanted) -> Result<Facts, SeedError> {
    let operator = wanted.operator_token.as_str();
    let password = password()?;
    let new = json!({"email": EMAIL, "password": password, "name": "Demo", "verified": true});
    let account = api.call(Method::POST, "/v1/accounts", operator, &new).await?;
    let account_id = text(&account, "account_id", "POST /v1/accounts")?;
    let new = json!({"name": "demo", "hosts": [wanted.cluster_host], "upstreams": [wanted.upstream], "allow_ips": []});
    let clusters = format!("/v1/accounts/{account_id}/clusters");
    let cluster = api.call(Method::POST, &clusters, operator, &new).await?;
    let session = json!({"email": EMAIL, "password": password});
    let session = api.call(Method::POST, "/v1/session", "", &session).await?;
    let session = text(&session, "token", "POST /v1/session")?;
    let key = api.call(Method::POST, "/v1/keys", &session, &json!({"name": "demo"})).await?;
    api.call(Method::DELETE, "/v1/session", &session, &Value::Null).await?;
    Ok(Facts {
        gateway: wanted.gateway.clone(),
        control: wanted.control.clone(),
        operator_token: wanted.operator_token.clone(),
        account_id,
        cluster_id: text(&cluster, "cluster_id", "POST …/clusters")?,
        email: EMAIL.to_owned(),
        password,
        totp_secret: text(&account, "totp_secret", "POST /v1/accounts")?,
        cluster_host: wanted.cluster_host.clone(),
        api_key: Some(text(&key, "key", "POST /v1/keys")?),
        upstream: wanted.upstream.clone(),
    })
}

async fn found_again(api: &Api, wanted: &Wanted, facts: Facts) -> Result<Facts, SeedError> {
    let operator = wanted.operator_token.as_str();
    let cluster = format!("/v1/clusters/{}", facts.cluster_id);
    api.call(Method::PATCH, &cluster, operator, &json!({"upstreams": [wanted.upstream]})).await?;
    let api_key = match facts.api_key {
        Some(key) if is_there(api, operator, &key).await? => Some(key),
        _ => None,
    };
    let (gateway, control, upstream) = (wanted.gateway.clone(), wanted.control.clone(), wanted.upstream.clone());
    Ok(Facts { gateway, control, upstream, api_key, ..facts })
}

async fn is_there(api: &Api, operator: &str, key: &str) -> Result<bool, SeedError> {
    match api.call(Method::POST, "/v1/keys/lookup", operator, &json!({"key": key})).await {
        Ok(found) => Ok(found.get("status").and_then(Value::as_str) != Some("deleted")),
        Err(ApiError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn ready(api: &Api) -> Result<(), SeedError> {
    let asking = async {
        while api.call(Method::GET, "/readyz", "", &Value::Null).await.is_err() {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, asking).await.map_err(|_| SeedError::NotReady)
}

fn text(answer: &Value, field: &str, of: &'static str) -> Result<String, SeedError> {
    answer.get(field).and_then(Value::as_str).map(str::to_owned).ok_or(SeedError::Answer(of))
}

fn password() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 15];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}
