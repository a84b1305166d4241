//! Members of an account: users who may see its keys masked, and its usage, and nothing more.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::accounts::Items;
use super::caller::RootOnly;
use super::error::Problem;
use super::name;
use super::password::Password;
use super::request::{Id, Ids, JsonBody};
use crate::clock;
use crate::principal::{AccountId, UserId};
use crate::store::accounts::NewUser;
use crate::store::records::{Role, UserRecord};

#[derive(Deserialize, ToSchema)]
#[schema(as = MemberCreate)]
#[serde(deny_unknown_fields)]
pub struct Create {
    #[serde(deserialize_with = "name::email")]
    email: String,
    #[schema(value_type = String)]
    password: Password,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberView {
    member_id: UserId,
    email: String,
    created_at: String,
}

pub async fn list(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    Id(account_id): Id<AccountId>,
) -> Result<Json<Items<MemberView, UserId>>, Problem> {
    root.check_owns(account_id)?;
    let mut users = control.store.list_users(account_id).await?;
    users.retain(|user| user.role == Role::Member);
    users.sort_by_key(|user| user.created_at);
    Ok(Json(Items { items: users.into_iter().map(view).collect(), next: None }))
}

pub async fn create(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    Id(account_id): Id<AccountId>,
    JsonBody(Create { email, password }): JsonBody<Create>,
) -> Result<(StatusCode, Json<MemberView>), Problem> {
    root.check_owns(account_id)?;
    password.check_new()?;
    let new = NewUser { user_id: UserId::random()?, email, password: control.passwords.hash(password).await? };
    let member = control.store.create_member(account_id, new, root.actor(), clock::wall()).await?;
    Ok((StatusCode::CREATED, Json(view(member))))
}

pub async fn delete(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    Ids(account_id, user_id): Ids<AccountId, UserId>,
) -> Result<StatusCode, Problem> {
    root.check_owns(account_id)?;
    control.store.delete_member(account_id, user_id, root.actor(), clock::wall()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(user: UserRecord) -> MemberView {
    MemberView { member_id: user.user_id, email: user.email, created_at: user.created_at.to_string() }
}
