//! Signing in and out. A session is a random token; the second factor is asked for by [`super::step_up`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::caller::{AccountUser, Carrier, Source};
use super::cookie;
use super::error::{Kind, Problem};
use super::name;
use super::password::{Lane, Password};
use super::request::JsonBody;
use super::token::{SESSION, Token};
use crate::clock;
use crate::limits::FailureThrottle;
use crate::principal::{AccountId, AccountStatus, SessionId};
use crate::store::audit::{Actor, ActorKind};
use crate::store::records::{Role, SessionRecord, UserRecord};
use crate::time::WallTime;

/// However much it is used, a session ends then.
pub const LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// A session that is not used ends after this.
pub const IDLE: Duration = Duration::from_secs(60 * 60);
/// A use is written down only when the last one that was is this old, so that reading costs no write.
const TOUCH_AFTER: Duration = Duration::from_secs(60);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    #[serde(deserialize_with = "name::email")]
    email: String,
    #[schema(value_type = String)]
    password: Password,
    /// For browsers: the token comes as a cookie that no script can read, and requests need the CSRF token.
    #[serde(default)]
    cookie: bool,
}

#[derive(Serialize, ToSchema)]
pub struct SignedIn {
    /// Absent where it was asked for as a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// Only with a cookie: to be sent as `X-CSRF-Token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
    expires_at: String,
    /// Without any request for so long the session ends before that.
    idle_s: u64,
    role: Role,
    account_id: AccountId,
}

/// Failures by who was tried from where, and by address.
///
/// The password is always verified, so a right one is never refused for the failures of others. The bucket of the pair
/// decides only in which lane that happens, and both decide what a wrong one is answered.
pub struct SignInThrottle {
    pairs: FailureThrottle<(String, Option<IpAddr>)>,
    addresses: FailureThrottle<Option<IpAddr>>,
}

impl Default for SignInThrottle {
    fn default() -> Self {
        Self {
            pairs: FailureThrottle::new(10, Duration::from_secs(30), 8192),
            addresses: FailureThrottle::new(50, Duration::from_secs(5), 8192),
        }
    }
}

pub async fn sign_in(
    State(control): State<Arc<Control>>,
    source: Source,
    head: http::request::Parts,
    JsonBody(SignIn { email, password, cookie }): JsonBody<SignIn>,
) -> Result<Response, Problem> {
    if cookie {
        cookie::check_origin(&head)?;
    }
    let pair = (email, source.0);
    let user = control.store.user_by_email(&pair.0).await?;
    let suspect = control.sign_ins.pairs.check(&pair, clock::boot()).is_err();
    let lane = if suspect { Lane::Suspect } else { Lane::Usual };
    let stored = user.as_ref().map(|user| user.password.clone());
    let good = control.passwords.verify(password, stored, lane).await?;
    match user {
        Some(user) if good => {
            control.sign_ins.pairs.forget(&pair);
            let (token, signed_in) = control.open_session(user, source).await?;
            Ok(answer(&token, signed_in, cookie))
        }
        _ => Err(control.sign_ins.failed(pair)),
    }
}

fn answer(token: &Token, signed_in: SignedIn, cookie: bool) -> Response {
    if !cookie {
        let token = Some(token.expose().to_owned());
        return (StatusCode::CREATED, Json(SignedIn { token, ..signed_in })).into_response();
    }
    let csrf_token = Some(cookie::csrf_token(token.expose()));
    let mut response = (StatusCode::CREATED, Json(SignedIn { csrf_token, ..signed_in })).into_response();
    cookie::set(&mut response, token, LASTS);
    response
}

/// Who is signed in, and how their account stands.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionFacts)]
pub struct Facts {
    role: Role,
    email: String,
    account_id: AccountId,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_name: Option<String>,
    verified: bool,
    status: AccountStatus,
    expires_at: String,
    /// The zone of the account, as `+08:00`: its days, those of the limits and of the bill, are days there.
    utc_offset: String,
}

pub async fn read(State(control): State<Arc<Control>>, user: AccountUser) -> Result<Json<Facts>, Problem> {
    let known = control.store.user(user.session.user_id).await?.ok_or(Kind::Unauthenticated)?;
    let account = control.store.account(user.account_id()).await?.ok_or(Kind::Unauthenticated)?;
    Ok(Json(Facts {
        role: known.role,
        email: known.email,
        account_id: known.account_id,
        account_name: account.name,
        verified: account.verified,
        status: account.account.status,
        expires_at: user.session.expires_at.to_string(),
        utc_offset: written_offset(control.limits.day_offset),
    }))
}

/// Seconds east of UTC as `+HH:MM` or `-HH:MM`.
fn written_offset(seconds: i32) -> String {
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs() / 60);
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

pub async fn sign_out(State(control): State<Arc<Control>>, user: AccountUser) -> Result<Response, Problem> {
    control.store.close_session(user.session.token, user.actor(), clock::wall()).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if user.by == Carrier::Cookie {
        cookie::clear(&mut response);
    }
    Ok(response)
}

impl SignInThrottle {
    fn failed(&self, pair: (String, Option<IpAddr>)) -> Problem {
        let (now, address) = (clock::boot(), pair.1);
        let waits = [self.pairs.check(&pair, now).err(), self.addresses.check(&address, now).err()];
        self.pairs.count_failure(pair, now);
        self.addresses.count_failure(address, now);
        match waits.into_iter().flatten().max() {
            Some(wait) => Problem::from(Kind::TooManyAttempts).retry_after(wait),
            None => Kind::SignInFailed.into(),
        }
    }
}

impl Control {
    pub(super) async fn open_session(&self, user: UserRecord, source: Source) -> Result<(Token, SignedIn), Problem> {
        let (token, now) = (Token::random(SESSION)?, clock::wall());
        let UserRecord { user_id, account_id, role, password, .. } = user;
        let session = SessionRecord {
            session_id: SessionId::random()?,
            token: token.hash(),
            user_id,
            account_id,
            role,
            created_at: now,
            last_seen: now,
            expires_at: now.plus(IDLE),
        };
        let expires_at = now.plus(LASTS).to_string();
        let kind = if role == Role::Root { ActorKind::Root } else { ActorKind::Member };
        let actor = Actor { kind, id: user_id.to_string(), from: source.0 };
        self.store.open_session(session, actor.clone(), now).await?;
        // A password that was replaced while this one was being checked ended all sessions, and must end this one too.
        if self.store.user(user_id).await?.is_none_or(|user| user.password != password) {
            self.store.close_session(token.hash(), actor, now).await?;
            return Err(Kind::SignInFailed.into());
        }
        let idle_s = IDLE.as_secs();
        Ok((token, SignedIn { token: None, csrf_token: None, expires_at, idle_s, role, account_id }))
    }

    /// Moves the end of an idle session on, up to its absolute end.
    pub(super) async fn keep_alive(&self, session: &SessionRecord, now: WallTime) {
        if now.since(session.last_seen) < TOUCH_AFTER {
            return;
        }
        let expires_at = now.plus(IDLE).min(session.created_at.plus(LASTS));
        // The request itself need not fail for it: the next one tries again.
        if let Err(error) = self.store.touch_session(session.token, now, expires_at).await {
            tracing::warn!(%error, "the use of a session could not be written down");
        }
    }
}
