//! What the operator does for a root user who lost the password or the authenticator.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::Control;
use super::caller::OperatorOnly;
use super::error::{Kind, Problem};
use super::name;
use super::password::Password;
use super::request::{Id, JsonBody};
use super::seal::Owner;
use super::totp::TotpSecret;
use crate::clock;
use crate::principal::AccountId;
use crate::store::records::Role;
use crate::store::users::Reset;

#[derive(Deserialize, ToSchema)]
#[schema(as = AccountReset)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    #[serde(deserialize_with = "name::reason")]
    reason: String,
}

/// Shown here and nowhere else. All sessions of the account have ended.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountRenewed)]
pub struct Renewed {
    account_id: AccountId,
    email: String,
    password: String,
    totp_secret: String,
    totp_uri: String,
}

pub async fn reset(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    Id(account_id): Id<AccountId>,
    JsonBody(Ask { reason }): JsonBody<Ask>,
) -> Result<Json<Renewed>, Problem> {
    let users = control.store.list_users(account_id).await?;
    let root = users.into_iter().find(|user| user.role == Role::Root).ok_or(Kind::NotFound)?;
    let (password, secret) = (random_password()?, TotpSecret::random()?);
    let sealed = control.sealer.seal(Owner::Totp { account_id, user_id: root.user_id }, secret.expose());
    let reset = Reset {
        user_id: root.user_id,
        password: control.passwords.hash(Password::from(password.clone())).await?,
        totp: sealed.map_err(|error| Problem::internal(&error))?,
        reason,
    };
    control.store.reset_root(account_id, reset, operator.actor(), clock::wall()).await?;
    control.codes.0.forget(&account_id);
    let (totp_secret, totp_uri) = (secret.to_base32().to_string(), secret.to_uri(&root.email).to_string());
    Ok(Json(Renewed { account_id, email: root.email, password, totp_secret, totp_uri }))
}

/// 120 random bits as 24 letters and digits.
fn random_password() -> Result<String, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; 15]);
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(BASE32_NOPAD.encode(bytes.as_slice()).to_lowercase())
}
