//! Security authentication: a fresh one-time code becomes a grant for one action on one key, once, for two minutes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::caller::{Carrier, RootOnly};
use super::cookie;
use super::error::{Kind, Problem};
use super::recovery;
use super::request::JsonBody;
use super::seal::Owner;
use super::session;
use super::token::{self, GRANT, SESSION, Token};
use super::totp::{Step, TotpSecret};
use crate::clock;
use crate::limits::FailureThrottle;
use crate::principal::{AccountId, KeyId};
use crate::store::accounts::{AccountError, Answer, Proof, Refusal, StepUp};
use crate::store::records::{Grant, GrantFor, Sealed, SessionRecord, TokenHash};
use crate::time::BootTime;

const GRANT_LASTS: Duration = Duration::from_secs(120);

/// The header that carries a grant.
pub const STEP_UP_GRANT: &str = "step-up-grant";

#[derive(Deserialize, ToSchema)]
#[schema(as = StepUpAsk)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    action: Action,
    #[serde(default)]
    key_id: Option<KeyId>,
    #[schema(value_type = String)]
    code: Code,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[schema(as = StepUpAction)]
#[serde(rename_all = "snake_case")]
enum Action {
    View,
    Delete,
    Account,
}

/// Without Debug: a code that was not used yet is as good as the secret for half a minute.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Code(String);

#[derive(Serialize, ToSchema)]
pub struct Granted {
    grant: String,
    expires_in: u64,
    /// Only with a cookie, whose secret was just replaced: the CSRF token that goes with the new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
}

/// Wrong codes per account. Unlike with passwords a full bucket refuses every code, or six digits would be guessed;
/// only somebody who is signed in to the account gets here.
pub struct CodeThrottle(pub(super) FailureThrottle<AccountId>);

impl Default for CodeThrottle {
    fn default() -> Self {
        Self(FailureThrottle::new(5, Duration::from_secs(60), 8192))
    }
}

pub async fn step_up(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    JsonBody(ask): JsonBody<Ask>,
) -> Result<Response, Problem> {
    let action = control.action_of(&root, &ask).await?;
    let proof = control.proof_of(&root.session, &ask.code).await?;
    let (token, now) = (Token::random(GRANT)?, clock::wall());
    let grant =
        Grant { hash: token.hash(), session_id: root.session.session_id, action, expires_at: now.plus(GRANT_LASTS) };
    let rotated = if root.by == Carrier::Cookie { Some(Token::random(SESSION)?) } else { None };
    let rotate = rotated.as_ref().map(Token::hash);
    let step_up = StepUp { account_id: root.account_id(), proof, grant, rotate };
    let stepped_up = control.store.step_up(step_up, root.actor(), now).await;
    control.count_code(root.account_id(), &stepped_up);
    stepped_up?;
    let csrf_token = rotated.as_ref().map(|token| cookie::csrf_token(token.expose()));
    let granted = Granted { grant: token.expose().to_owned(), expires_in: GRANT_LASTS.as_secs(), csrf_token };
    let mut response = (StatusCode::CREATED, Json(granted)).into_response();
    if let Some(token) = rotated {
        cookie::set(&mut response, &token, session::LASTS);
    }
    Ok(response)
}

/// The grant that came with a request, as its hash.
pub fn grant_in(headers: &HeaderMap) -> Option<TokenHash> {
    headers.get(STEP_UP_GRANT).map(|value| token::hash(value.as_bytes().trim_ascii()))
}

impl Control {
    /// Looks at the key first, so that a mistake in its id does not cost a code.
    async fn action_of(&self, root: &RootOnly, ask: &Ask) -> Result<GrantFor, Problem> {
        let (key_id, to_grant): (_, fn(KeyId) -> GrantFor) = match (ask.action, ask.key_id) {
            (Action::View, Some(key_id)) => (key_id, GrantFor::View),
            (Action::Delete, Some(key_id)) => (key_id, GrantFor::Delete),
            (Action::Account, None) => return Ok(GrantFor::Account),
            (Action::View | Action::Delete, None) => return Err(Problem::invalid("missing field `key_id`")),
            (Action::Account, Some(_)) => return Err(Problem::invalid("the action `account` has no `key_id`")),
        };
        let key = self.store.key(key_id).await?;
        let live = key.is_some_and(|key| key.credential.account_id == root.account_id() && key.deleted.is_none());
        if live { Ok(to_grant(key_id)) } else { Err(Kind::NotFound.into()) }
    }

    /// What a code proves: a step of the authenticator, or, by its form, perhaps a recovery code, which only the store knows.
    async fn proof_of(&self, session: &SessionRecord, code: &Code) -> Result<Proof, Problem> {
        let user = self.store.user(session.user_id).await?.ok_or(Kind::Unauthenticated)?;
        let sealed = user.totp.ok_or_else(|| Problem::internal(&"a root user has no TOTP secret"))?;
        let secret = self.totp_secret(session, &sealed)?;
        match recovery::hash_of(user.user_id, &code.0) {
            Some(hash) => {
                self.check_codes(session.account_id, clock::boot())?;
                Ok(Proof::Recovery(hash))
            }
            None => self.verified_step(session.account_id, &secret, code).map(|step| Proof::Step(step.0)),
        }
    }

    /// No await between the check and the count, so that guesses at once do not slip past.
    pub(super) fn verified_step(
        &self,
        account_id: AccountId,
        secret: &TotpSecret,
        code: &Code,
    ) -> Result<Step, Problem> {
        let now = clock::boot();
        self.check_codes(account_id, now)?;
        match secret.step_of(&code.0, clock::wall()) {
            Some(step) => Ok(step),
            None => {
                self.codes.0.count_failure(account_id, now);
                Err(Kind::CodeInvalid.into())
            }
        }
    }

    fn check_codes(&self, account_id: AccountId, now: BootTime) -> Result<(), Problem> {
        let throttled = self.codes.0.check(&account_id, now);
        throttled.map_err(|wait| Problem::from(Kind::TooManyCodes).retry_after(wait))
    }

    /// A code that was taken forgives the wrong ones before it; a wrong recovery code counts like a wrong code.
    fn count_code(&self, account_id: AccountId, answer: &Answer<()>) {
        match answer {
            Ok(()) => self.codes.0.forget(&account_id),
            Err(AccountError::Refused(Refusal::RecoveryCodeInvalid)) => {
                self.codes.0.count_failure(account_id, clock::boot());
            }
            Err(_) => {}
        }
    }

    pub(super) fn totp_secret(&self, session: &SessionRecord, sealed: &Sealed) -> Result<TotpSecret, Problem> {
        let SessionRecord { user_id, account_id, .. } = *session;
        let plain = self.sealer.open(Owner::Totp { account_id, user_id }, sealed);
        let plain = plain.map_err(|error| Problem::internal(&error))?;
        TotpSecret::from_bytes(&plain).ok_or_else(|| Problem::internal(&"a TOTP secret has the wrong length"))
    }
}
