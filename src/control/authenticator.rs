//! What signed-in users change of their own: the password, and the authenticator in two steps.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use qrcode::render::svg;
use qrcode::types::QrError;
use qrcode::{EcLevel, QrCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::caller::{AccountUser, RootOnly};
use super::error::{Kind, Problem};
use super::password::{Lane, Password};
use super::request::JsonBody;
use super::seal::Owner;
use super::step_up::{Code, grant_in};
use super::totp::TotpSecret;
use crate::clock;
use crate::limits::FailureThrottle;
use crate::principal::UserId;
use crate::store::accounts::{AccountError, Refusal};
use crate::store::records::{Role, UserRecord};

/// A new secret waits for its first code no longer than this.
const PENDING_LASTS: Duration = Duration::from_secs(600);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    #[schema(value_type = String)]
    password: Password,
    #[schema(value_type = String)]
    new_password: Password,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceTotp {
    /// Absent: begin, with a grant. Present: a code of the new secret puts it in force.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    code: Option<Code>,
}

/// A secret that is in force once a code of it was shown.
#[derive(Serialize, ToSchema)]
pub struct NewTotp {
    totp_secret: String,
    totp_uri: String,
    /// The URI as a QR code, a whole SVG image.
    totp_qr_svg: String,
    expires_in: u64,
}

/// Wrong present passwords per user. Unlike at sign-in a full bucket refuses: only somebody who is signed in gets here.
pub struct PasswordThrottle(FailureThrottle<UserId>);

impl Default for PasswordThrottle {
    fn default() -> Self {
        Self(FailureThrottle::new(5, Duration::from_secs(60), 8192))
    }
}

pub async fn change_password(
    State(control): State<Arc<Control>>,
    user: AccountUser,
    headers: HeaderMap,
    JsonBody(ChangePassword { password, new_password }): JsonBody<ChangePassword>,
) -> Result<StatusCode, Problem> {
    new_password.check_new()?;
    let by = user.oneself(grant_in(&headers));
    if by.grant.is_none() && user.session.role == Role::Root {
        return Err(Kind::StepUpRequired.into());
    }
    let known = control.store.user(by.user_id).await?.ok_or(Kind::Unauthenticated)?;
    control.check_own_password(&known, password).await?;
    let hash = control.passwords.hash(new_password).await?;
    control.store.set_password(by, hash, user.actor(), clock::wall()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn replace_totp(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    headers: HeaderMap,
    JsonBody(ReplaceTotp { code }): JsonBody<ReplaceTotp>,
) -> Result<Response, Problem> {
    match code {
        None => control.begin_totp(&root, &headers).await.map(|new| Json(new).into_response()),
        Some(code) => control.confirm_totp(&root, &code).await.map(|()| StatusCode::NO_CONTENT.into_response()),
    }
}

/// Black on white with the quiet zone, whatever the page around it looks like.
fn qr_svg(uri: &str) -> Result<String, QrError> {
    let code = QrCode::with_error_correction_level(uri, EcLevel::M)?;
    Ok(code.render::<svg::Color<'_>>().min_dimensions(200, 200).build())
}

impl Control {
    async fn check_own_password(&self, known: &UserRecord, password: Password) -> Result<(), Problem> {
        let full = self.own_passwords.0.check(&known.user_id, clock::boot());
        full.map_err(|wait| Problem::from(Kind::TooManyAttempts).retry_after(wait))?;
        // Counted before the work, and forgiven after it: guesses at once do not slip past.
        self.own_passwords.0.count_failure(known.user_id, clock::boot());
        if !self.passwords.verify(password, Some(known.password.clone()), Lane::Usual).await? {
            return Err(Kind::PasswordWrong.into());
        }
        self.own_passwords.0.forget(&known.user_id);
        Ok(())
    }

    async fn begin_totp(&self, root: &RootOnly, headers: &HeaderMap) -> Result<NewTotp, Problem> {
        let by = root.oneself(grant_in(headers));
        let user = self.store.user(by.user_id).await?.ok_or(Kind::Unauthenticated)?;
        let (secret, now) = (TotpSecret::random()?, clock::wall());
        let owner = Owner::Totp { account_id: root.account_id(), user_id: by.user_id };
        let sealed = self.sealer.seal(owner, secret.expose()).map_err(|error| Problem::internal(&error))?;
        self.store.begin_totp(by, sealed, now.plus(PENDING_LASTS), root.actor(), now).await?;
        let (totp_secret, totp_uri) = (secret.to_base32().to_string(), secret.to_uri(&user.email).to_string());
        let totp_qr_svg = qr_svg(&totp_uri).map_err(|error| Problem::internal(&error))?;
        Ok(NewTotp { totp_secret, totp_uri, totp_qr_svg, expires_in: PENDING_LASTS.as_secs() })
    }

    async fn confirm_totp(&self, root: &RootOnly, code: &Code) -> Result<(), Problem> {
        let (by, now) = (root.oneself(None), clock::wall());
        let user = self.store.user(by.user_id).await?.ok_or(Kind::Unauthenticated)?;
        let pending = user.pending_totp.ok_or(Kind::NothingPending)?;
        let secret = self.totp_secret(&root.session, &pending.secret)?;
        let step = self.verified_step(root.account_id(), &secret, code)?;
        let confirmed = self.store.confirm_totp(by, pending.secret, step.0, root.actor(), now).await;
        match confirmed {
            Err(AccountError::Refused(Refusal::NotFound)) => Err(Kind::NothingPending.into()),
            other => Ok(other?),
        }
    }
}
