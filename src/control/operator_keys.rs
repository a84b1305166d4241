//! What the operator may do with keys: see them masked, revoke one in an emergency, find whose a leaked one is. Also who serves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::caller::OperatorOnly;
use super::confirm::WaitQuery;
use super::error::{Kind, Problem};
use super::keys::{KeyList, KeyStatus, ListQuery, status_of};
use super::name;
use super::request::{Id, Ids, JsonBody, QueryOf};
use crate::clock;
use crate::key::PresentedKey;
use crate::principal::{AccountId, Incarnation, KeyId, Revision};
use crate::store::accounts::DeleteBy;

#[derive(Deserialize, ToSchema)]
#[schema(as = KeyRevoke)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    #[serde(deserialize_with = "name::reason")]
    reason: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = KeyLookup)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    #[serde(deserialize_with = "secret")]
    #[schema(value_type = String)]
    key: SecretString,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::from)
}

#[derive(Serialize, ToSchema)]
pub struct FoundKey {
    id: KeyId,
    account_id: AccountId,
    status: KeyStatus,
}

#[derive(Serialize, ToSchema)]
pub struct Gateway {
    id: Incarnation,
    lease: Lease,
    applied_revision: Revision,
    /// Changes of the log that it has not applied yet.
    lag: u64,
    silent_ms: u64,
    /// Of its program.
    version: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GatewayLease)]
#[serde(rename_all = "snake_case")]
enum Lease {
    Good,
    Lapsed,
}

pub async fn list(
    State(control): State<Arc<Control>>,
    _: OperatorOnly,
    Id(account_id): Id<AccountId>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<KeyList>, Problem> {
    let keys = control.key_list(account_id, query.deleted).await?;
    Ok(Json(keys))
}

pub async fn revoke(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    Ids(account_id, key_id): Ids<AccountId, KeyId>,
    QueryOf(wait): QueryOf<WaitQuery>,
    JsonBody(Revoke { reason }): JsonBody<Revoke>,
) -> Result<Response, Problem> {
    let by = DeleteBy::Operator { reason };
    let deleted = control.store.delete_key(account_id, key_id, by, operator.actor(), clock::wall()).await;
    control.receipt_of_deletion(key_id, deleted, wait).await
}

/// What cannot be a key is simply not found.
pub async fn lookup(
    State(control): State<Arc<Control>>,
    _: OperatorOnly,
    JsonBody(Lookup { key }): JsonBody<Lookup>,
) -> Result<Json<FoundKey>, Problem> {
    let presented = PresentedKey::parse(key.expose_secret().as_bytes()).map_err(|_| Kind::NotFound)?;
    let record = control.key_of(presented).await?.ok_or(Kind::NotFound)?;
    let (id, account_id) = (record.key_id(), record.credential.account_id);
    Ok(Json(FoundKey { id, account_id, status: status_of(&record, clock::wall()) }))
}

pub async fn gateways(State(control): State<Arc<Control>>, _: OperatorOnly) -> Result<Json<Vec<Gateway>>, Problem> {
    let revision = control.store.clusters().await?.revision;
    let gateways = control.store.gateways().await?.into_iter().map(|gateway| Gateway {
        id: gateway.incarnation,
        lease: if gateway.leased { Lease::Good } else { Lease::Lapsed },
        applied_revision: gateway.applied,
        lag: revision.0.saturating_sub(gateway.applied.0),
        silent_ms: u64::try_from(gateway.silent_for.as_millis()).unwrap_or(u64::MAX),
        version: gateway.version,
    });
    Ok(Json(gateways.collect()))
}
