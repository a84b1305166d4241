//! Signing in and out. A session is a random token; the second factor is asked for by [`super::step_up`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Control;
use super::caller::{AccountUser, Source};
use super::error::{Kind, Problem};
use super::name;
use super::password::{Lane, Password};
use super::request::JsonBody;
use super::throttle::FailureThrottle;
use super::token::{SESSION, Token};
use crate::clock;
use crate::principal::{AccountId, SessionId};
use crate::store::audit::{Actor, ActorKind};
use crate::store::records::{Role, SessionRecord, UserRecord};

/// However much it is used, a session ends then.
const LASTS: Duration = Duration::from_secs(12 * 60 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    #[serde(deserialize_with = "name::email")]
    email: String,
    password: Password,
}

#[derive(Serialize)]
pub struct SignedIn {
    token: String,
    expires_at: String,
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
    JsonBody(SignIn { email, password }): JsonBody<SignIn>,
) -> Result<(StatusCode, Json<SignedIn>), Problem> {
    let pair = (email, source.0);
    let user = control.store.user_by_email(&pair.0).await?;
    let suspect = control.sign_ins.pairs.check(&pair, clock::boot()).is_err();
    let lane = if suspect { Lane::Suspect } else { Lane::Usual };
    let stored = user.as_ref().map(|user| user.password.clone());
    let good = control.passwords.verify(password, stored, lane).await?;
    match user {
        Some(user) if good => {
            control.sign_ins.pairs.forget(&pair);
            let signed_in = control.open_session(user, source).await?;
            Ok((StatusCode::CREATED, Json(signed_in)))
        }
        _ => Err(control.sign_ins.failed(pair)),
    }
}

pub async fn sign_out(State(control): State<Arc<Control>>, user: AccountUser) -> Result<StatusCode, Problem> {
    control.store.close_session(user.session.token, user.actor(), clock::wall()).await?;
    Ok(StatusCode::NO_CONTENT)
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
    async fn open_session(&self, user: UserRecord, source: Source) -> Result<SignedIn, Problem> {
        let (token, now) = (Token::random(SESSION)?, clock::wall());
        let UserRecord { user_id, account_id, role, .. } = user;
        let session = SessionRecord {
            session_id: SessionId::random()?,
            token: token.hash(),
            user_id,
            account_id,
            role,
            created_at: now,
            last_seen: now,
            expires_at: now.plus(LASTS),
        };
        let expires_at = session.expires_at.to_string();
        let kind = if role == Role::Root { ActorKind::Root } else { ActorKind::Member };
        let actor = Actor { kind, id: user_id.to_string(), from: source.0 };
        self.store.open_session(session, actor, now).await?;
        Ok(SignedIn { token: token.expose().to_owned(), expires_at, role, account_id })
    }
}
