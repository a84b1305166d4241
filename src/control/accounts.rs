//! Accounts, as the operator sees and sets them up.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::caller::OperatorOnly;
use super::confirm::{AfterChange, WaitQuery};
use super::error::{Kind, Problem};
use super::name;
use super::password::Password;
use super::request::{Id, JsonBody, QueryOf};
use super::seal::Owner;
use super::totp::TotpSecret;
use crate::clock;
use crate::principal::{AccountId, AccountStatus, UserId};
use crate::store::accounts::{AccountPatch, NewAccount, NewUser, Page};
use crate::store::records::{AccountRecord, Role};

#[derive(Deserialize, ToSchema)]
#[schema(as = AccountCreate)]
#[serde(deny_unknown_fields)]
pub struct Create {
    #[serde(deserialize_with = "name::email")]
    email: String,
    #[schema(value_type = String)]
    password: Password,
    #[serde(default, deserialize_with = "name::optional")]
    name: Option<String>,
    #[serde(default)]
    verified: bool,
}

/// The TOTP secret is shown here and nowhere else.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountCreated)]
pub struct Created {
    account_id: AccountId,
    totp_secret: String,
    totp_uri: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = AccountPatch)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    verified: Option<bool>,
    status: Option<AccountStatus>,
    active_max: Option<u32>,
    daily_max: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    account_id: AccountId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of the root user.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    verified: bool,
    status: AccountStatus,
    active_max: u32,
    daily_max: u32,
    created_at: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    cursor: Option<AccountId>,
    limit: Option<usize>,
}

/// A page of a list, and where the next one begins.
#[derive(Debug, Serialize)]
pub struct Items<T, Cursor> {
    pub items: Vec<T>,
    pub next: Option<Cursor>,
}

pub async fn create(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    JsonBody(Create { email, password, name, verified }): JsonBody<Create>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    password.check_new()?;
    let (account_id, user_id, secret) = (AccountId::random()?, UserId::random()?, TotpSecret::random()?);
    let totp = control.sealer.seal(Owner::Totp { account_id, user_id }, secret.expose());
    let totp = totp.map_err(|error| Problem::internal(&error))?;
    let (totp_secret, totp_uri) = (secret.to_base32().to_string(), secret.to_uri(&email).to_string());
    let root = NewUser { user_id, email, password: control.passwords.hash(password).await? };
    let new = NewAccount { account_id, name, verified, root, totp };
    control.store.create_account(new, operator.actor(), clock::wall()).await?;
    Ok((StatusCode::CREATED, Json(Created { account_id, totp_secret, totp_uri })))
}

pub async fn list(
    State(control): State<Arc<Control>>,
    _: OperatorOnly,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<Items<AccountView, AccountId>>, Problem> {
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let accounts = control.store.list_accounts(Page { after: query.cursor, limit }).await?;
    let full = accounts.len() == limit;
    let next = accounts.last().filter(|_| full).map(|last| last.account.account_id);
    let mut items = Vec::with_capacity(accounts.len());
    for account in accounts {
        items.push(control.account_view(account).await?);
    }
    Ok(Json(Items { items, next }))
}

pub async fn read(
    State(control): State<Arc<Control>>,
    _: OperatorOnly,
    Id(account_id): Id<AccountId>,
) -> Result<Json<AccountView>, Problem> {
    let account = control.store.account(account_id).await?.ok_or(Kind::NotFound)?;
    Ok(Json(control.account_view(account).await?))
}

pub async fn patch(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    Id(account_id): Id<AccountId>,
    QueryOf(wait): QueryOf<WaitQuery>,
    JsonBody(Patch { verified, status, active_max, daily_max }): JsonBody<Patch>,
) -> Result<Response, Problem> {
    let patch = AccountPatch { verified, status, active_max, daily_max };
    let changed = control.store.patch_account(account_id, patch, operator.actor(), clock::wall()).await?;
    let confirmation = control.confirmed(changed.revision, wait).await?;
    let account = control.account_view(changed.record).await?;
    Ok(AfterChange::new(account, confirmation).into_response_as(StatusCode::OK))
}

impl Control {
    async fn account_view(&self, record: AccountRecord) -> Result<AccountView, Problem> {
        let account_id = record.account.account_id;
        let users = self.store.list_users(account_id).await?;
        let root = users.into_iter().find(|user| user.role == Role::Root);
        Ok(AccountView {
            account_id,
            name: record.name,
            email: root.map(|root| root.email),
            verified: record.verified,
            status: record.account.status,
            active_max: record.active_max.unwrap_or(self.limits.active_max),
            daily_max: record.daily_max.unwrap_or(self.limits.daily_max),
            created_at: record.created_at.to_string(),
        })
    }
}
