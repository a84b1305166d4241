//! What the control API says when it does not do what was asked: problem details (RFC 9457) from one table.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::StoreError;
use crate::time::WallTime;

/// An error answer. It names what is wrong with the request and never repeats what was in it.
///
/// As a response it travels without a body; [`super::envelope`] writes the body, because only it knows the request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: Kind,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    resets_at: Option<WallTime>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $status:ident, $code:literal, $title:literal;)+) => {
        /// Every problem there is: its status, its stable code, its title.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $kind),+ }

        impl Kind {
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status),+ }
            }

            /// The string that programs may rely on.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$kind => $code),+ }
            }

            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title),+ }
            }
        }
    };
}

kinds! {
    Invalid => BAD_REQUEST, "invalid_request", "The request is not valid.";
    Unauthenticated => UNAUTHORIZED, "unauthenticated", "Sign in, or send a valid token as Authorization: Bearer.";
    SignInFailed => UNAUTHORIZED, "sign_in_failed", "The e-mail address or the password is wrong.";
    Forbidden => FORBIDDEN, "forbidden", "This caller may not do that.";
    RootOnly => FORBIDDEN, "root_only", "Only the root user of the account may do that.";
    AccountSuspended => FORBIDDEN, "account_suspended", "The account is suspended.";
    IdentityUnverified => FORBIDDEN, "identity_unverified", "The account's identity is not verified yet.";
    NoCluster => CONFLICT, "no_cluster", "The account owns no cluster yet.";
    KeyLimit => CONFLICT, "key_limit_reached", "The account has as many active keys as it may have.";
    DailyLimit => TOO_MANY_REQUESTS, "daily_limit_reached", "The account has created as many keys today as it may.";
    StepUpRequired => UNAUTHORIZED, "step_up_required", "Confirm with a fresh code first, and send the grant as Step-Up-Grant.";
    GrantInvalid => UNAUTHORIZED, "grant_invalid", "The grant is used, expired, or was given for something else.";
    CodeInvalid => UNAUTHORIZED, "code_invalid", "The code is wrong.";
    CodeReplayed => UNAUTHORIZED, "code_replayed", "This code was used already. Wait for the next one.";
    TooManyCodes => TOO_MANY_REQUESTS, "too_many_codes", "Too many wrong codes.";
    TooManyAttempts => TOO_MANY_REQUESTS, "too_many_attempts", "Too many failed attempts to sign in.";
    PasswordWrong => FORBIDDEN, "password_wrong", "The present password is wrong.";
    CrossSite => FORBIDDEN, "cross_site", "A request with a cookie needs the CSRF token as X-CSRF-Token, and an Origin of this host.";
    NothingPending => CONFLICT, "nothing_pending", "No new authenticator is waiting for its first code in this session.";
    MemberLimit => CONFLICT, "member_limit_reached", "The account has as many members as it may have.";
    NotShowable => CONFLICT, "key_not_showable", "The key cannot be shown: it was sealed with another sealing key.";
    IdempotencyKeyTaken => CONFLICT, "idempotency_key_taken", "Another adjustment was made under this idempotency key.";
    EmailTaken => CONFLICT, "email_taken", "A user with this e-mail address exists already.";
    HostTaken => CONFLICT, "host_taken", "A host name in the list belongs to a cluster already.";
    KeyTaken => CONFLICT, "key_taken", "A key in the list is known already.";
    NotFound => NOT_FOUND, "not_found", "There is nothing here.";
    MethodNotAllowed => METHOD_NOT_ALLOWED, "method_not_allowed", "This resource has no such method.";
    BodyTimeout => REQUEST_TIMEOUT, "request_timeout", "The request body did not arrive in time.";
    BodyTooLarge => PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large.";
    NotJson => UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Send the body as application/json.";
    StoreAway => SERVICE_UNAVAILABLE, "store_away", "The store cannot be reached. Nothing was changed; try again shortly.";
    StoreFrozen => SERVICE_UNAVAILABLE, "store_frozen", "The store is frozen until an operator opens it. Nothing was changed.";
    ArchiveAway => SERVICE_UNAVAILABLE, "archive_away", "The usage of that time is in the archive, which this control plane cannot read now.";
    Overloaded => SERVICE_UNAVAILABLE, "overloaded", "Too much is asked at once. Try again shortly.";
    Pending => ACCEPTED, "pending", "The change is written down and will be made as soon as the store takes it.";
    Internal => INTERNAL_SERVER_ERROR, "internal", "Something is wrong on our side.";
}

impl Problem {
    /// `detail` is shown to the caller: it must not hold anything that came with the request.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::from(Kind::Invalid).with_detail(detail)
    }

    /// As with [`Self::invalid`], nothing that came with the request.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// When trying again makes sense: `Retry-After`, and `retry_after_s` in the body.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    #[must_use]
    pub fn resets_at(self, at: WallTime) -> Self {
        Self { resets_at: Some(at), ..self }
    }

    /// Something failed that should not. The cause goes to the log and not to the caller.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(cause = %cause, "a request of the control API failed");
        Self::from(Kind::Internal)
    }

    /// The body as RFC 9457 has it, with our members `code`, `request_id`, `retry_after_s` and `resets_at`.
    pub fn body<'a>(&'a self, request_id: &'a str) -> ProblemBody<'a> {
        ProblemBody {
            r#type: format!("urn:tollgate:problem:{}", self.kind.code()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            code: self.kind.code(),
            detail: self.detail.as_deref(),
            request_id,
            retry_after_s: self.retry_after_s(),
            resets_at: self.resets_at.map(|at| at.to_string()),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        self.retry_after.map(|wait| u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
    }

    fn challenge(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Unauthenticated | Kind::SignInFailed => Some(r#"Bearer realm="tollgate""#),
            Kind::StepUpRequired | Kind::GrantInvalid | Kind::CodeInvalid | Kind::CodeReplayed => {
                Some(STEP_UP_CHALLENGE)
            }
            _ => None,
        }
    }
}

/// RFC 9470, section 3: the session is good, but this action wants a fresh code.
const STEP_UP_CHALLENGE: &str = concat!(
    r#"Bearer realm="tollgate", error="insufficient_user_authentication", "#,
    r#"error_description="A fresh one-time code is required", acr_values="totp", max_age="120""#
);

#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<String>,
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        let retry_after = (kind.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1));
        Self { kind, detail: None, retry_after, resets_at: None }
    }
}

/// What the store says about itself is for the log; the caller learns only whether to come back.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(cause = %error, "the store refused a request of the control API");
        Self::from(match error {
            StoreError::Away(_) => Kind::StoreAway,
            StoreError::Frozen(_) => Kind::StoreFrozen,
            StoreError::Corrupt(_) => Kind::Internal,
            StoreError::Archived(_) => Kind::ArchiveAway,
        })
    }
}

impl From<getrandom::Error> for Problem {
    fn from(error: getrandom::Error) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        if let Some(seconds) = self.retry_after_s() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge() {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_a_code_of_its_own_and_its_status() {
        let codes: HashSet<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let failed = kind.status().is_client_error() || kind.status().is_server_error();
            assert_eq!(failed, *kind != Kind::Pending, "{kind:?}");
        }
    }

    #[test]
    fn a_body_holds_only_what_there_is() {
        let problem = Problem::from(Kind::CodeReplayed).retry_after(Duration::from_millis(1));
        let body = serde_json::to_value(problem.body("r-1")).unwrap();
        assert_eq!(body["code"], "code_replayed");
        assert_eq!(body["retry_after_s"], 1);
        assert_eq!(body["status"], 401);
        assert_eq!(body["request_id"], "r-1");
        assert!(body.get("detail").is_none() && body.get("resets_at").is_none());
    }

    #[test]
    fn a_store_that_is_away_is_not_an_error_of_the_caller() {
        let problem = Problem::from(StoreError::Away("at 10.0.0.1".into()));
        assert_eq!(problem.kind.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(!serde_json::to_string(&problem.body("r")).unwrap().contains("10.0.0.1"));
    }
}
