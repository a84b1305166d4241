//! Who is asking. A handler takes one of these types as an argument; having one is the proof that the caller may.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::Control;
use super::cookie;
use super::error::{Kind, Problem};
use super::operator_session;
use super::token::{self, hashes_equal};
use crate::clock;
use crate::principal::AccountId;
use crate::store::audit::{Actor, ActorKind};
use crate::store::records::{Role, SessionRecord, TokenHash};
use crate::store::users::Oneself;

/// The operator, or somebody of an account.
#[derive(Clone, Debug)]
pub enum Caller {
    Operator(OperatorOnly),
    Root(RootOnly),
    Member(AccountUser),
}

/// Anybody with a credential that is good now. Billing reads usage and nothing else, so most handlers never see it.
enum Known {
    Billing,
    Caller(Caller),
}

/// The operator, by its token.
#[derive(Clone, Copy, Debug)]
pub struct OperatorOnly {
    source: Source,
}

/// The root user of an account, signed in.
#[derive(Clone, Debug)]
pub struct RootOnly {
    pub session: SessionRecord,
    /// How the session's token came.
    pub by: Carrier,
    source: Source,
}

/// The root user or a member, signed in.
#[derive(Clone, Debug)]
pub struct AccountUser {
    pub session: SessionRecord,
    pub by: Carrier,
    source: Source,
}

/// Programs send a session's token as `Authorization: Bearer`, browsers as a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Bearer,
    Cookie,
}

/// Who may read usage: all of it, or that of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageReader {
    All,
    Of(AccountId),
}

impl UsageReader {
    /// The one account that may be read; absent where all may.
    pub fn account_id(self) -> Option<AccountId> {
        match self {
            Self::All => None,
            Self::Of(own) => Some(own),
        }
    }
}

/// The operator or the billing pipeline.
#[derive(Clone, Copy, Debug)]
pub struct MeterReader;

/// The address a request came from, as the listener saw it. Absent where there is no listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source(pub Option<IpAddr>);

impl OperatorOnly {
    pub fn actor(&self) -> Actor {
        Actor { kind: ActorKind::Operator, id: "operator".to_owned(), from: self.source.0 }
    }
}

impl RootOnly {
    pub fn account_id(&self) -> AccountId {
        self.session.account_id
    }

    /// Of another account's things not even the existence is told.
    pub fn check_owns(&self, account_id: AccountId) -> Result<(), Problem> {
        if self.account_id() == account_id { Ok(()) } else { Err(Kind::NotFound.into()) }
    }

    pub fn actor(&self) -> Actor {
        actor_of(&self.session, self.source)
    }

    pub fn oneself(&self, grant: Option<TokenHash>) -> Oneself {
        oneself(&self.session, grant)
    }
}

impl AccountUser {
    pub fn account_id(&self) -> AccountId {
        self.session.account_id
    }

    pub fn actor(&self) -> Actor {
        actor_of(&self.session, self.source)
    }

    pub fn oneself(&self, grant: Option<TokenHash>) -> Oneself {
        oneself(&self.session, grant)
    }
}

fn oneself(session: &SessionRecord, grant: Option<TokenHash>) -> Oneself {
    Oneself { user_id: session.user_id, session_id: session.session_id, grant }
}

fn actor_of(session: &SessionRecord, source: Source) -> Actor {
    let kind = match session.role {
        Role::Root => ActorKind::Root,
        Role::Member => ActorKind::Member,
    };
    Actor { kind, id: session.user_id.to_string(), from: source.0 }
}

impl Caller {
    /// The account this caller belongs to; none for the operator.
    pub fn account_id(&self) -> Option<AccountId> {
        match self {
            Self::Root(root) => Some(root.account_id()),
            Self::Member(member) => Some(member.account_id()),
            Self::Operator(_) => None,
        }
    }

    /// The operator reads every account, a user their own. Of another account's things not even the existence is told.
    pub fn check_may_read(&self, account_id: AccountId) -> Result<(), Problem> {
        match self {
            Self::Operator(_) => Ok(()),
            _ if self.account_id() == Some(account_id) => Ok(()),
            _ => Err(Kind::NotFound.into()),
        }
    }
}

impl FromRequestParts<Arc<Control>> for Source {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Control>) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

impl FromRequestParts<Arc<Control>> for Known {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let source = Source::from_request_parts(parts, control).await?;
        if !parts.headers.contains_key(AUTHORIZATION) {
            let token = cookie::same_site_token(parts)?;
            if operator_session::is_good(&control.operator_token, token, clock::wall()) {
                return Ok(Self::Caller(Caller::Operator(OperatorOnly { source })));
            }
            let token = token::hash(token.as_bytes());
            return control.signed_in(token, Carrier::Cookie, source).await.map(Self::Caller);
        }
        let presented = bearer(&parts.headers).ok_or(Kind::Unauthenticated)?;
        if hashes_equal(&presented, &control.operator_token) {
            return Ok(Self::Caller(Caller::Operator(OperatorOnly { source })));
        }
        if control.billing_token.is_some_and(|billing| hashes_equal(&presented, &billing)) {
            return Ok(Self::Billing);
        }
        control.signed_in(presented, Carrier::Bearer, source).await.map(Self::Caller)
    }
}

impl Control {
    async fn signed_in(&self, token: TokenHash, by: Carrier, source: Source) -> Result<Caller, Problem> {
        let now = clock::wall();
        let session = self.store.session(token, now).await?.ok_or(Kind::Unauthenticated)?;
        self.keep_alive(&session, now).await;
        Ok(match session.role {
            Role::Root => Caller::Root(RootOnly { session, by, source }),
            Role::Member => Caller::Member(AccountUser { session, by, source }),
        })
    }
}

impl FromRequestParts<Arc<Control>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        match Known::from_request_parts(parts, control).await? {
            Known::Caller(caller) => Ok(caller),
            Known::Billing => Err(Kind::Forbidden.into()),
        }
    }
}

/// Exactly one `Authorization: Bearer`, as its hash.
fn bearer(headers: &HeaderMap) -> Option<TokenHash> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, more) = (values.next()?, values.next());
    let (scheme, presented) = value.to_str().ok()?.split_once(' ')?;
    let good = more.is_none() && scheme.eq_ignore_ascii_case("bearer") && !presented.trim().is_empty();
    good.then(|| token::hash(presented.trim().as_bytes()))
}

macro_rules! from_caller {
    ($evidence:ty, $known:ident => $found:expr) => {
        impl FromRequestParts<Arc<Control>> for $evidence {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Problem> {
                let $known = Known::from_request_parts(parts, control).await?;
                $found.map_err(Problem::from)
            }
        }
    };
}

from_caller!(OperatorOnly, known => match known {
    Known::Caller(Caller::Operator(operator)) => Ok(operator),
    _ => Err(Kind::Forbidden),
});

from_caller!(RootOnly, known => match known {
    Known::Caller(Caller::Root(root)) => Ok(root),
    _ => Err(Kind::RootOnly),
});

from_caller!(AccountUser, known => match known {
    Known::Caller(Caller::Root(RootOnly { session, by, source })) => Ok(Self { session, by, source }),
    Known::Caller(Caller::Member(member)) => Ok(member),
    _ => Err(Kind::Forbidden),
});

from_caller!(UsageReader, known => Ok::<_, Kind>(match known {
    Known::Billing => Self::All,
    Known::Caller(caller) => caller.account_id().map_or(Self::All, Self::Of),
}));

from_caller!(MeterReader, known => match known {
    Known::Billing | Known::Caller(Caller::Operator(_)) => Ok(Self),
    _ => Err(Kind::Forbidden),
});

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_exactly_one_bearer_token_is_read() {
        let headers = |values: &[&'static str]| {
            HeaderMap::from_iter(values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))))
        };
        assert_eq!(bearer(&headers(&["bearer  abc "])), Some(token::hash(b"abc")));
        for bad in [&[][..], &["abc"], &["Bearer"], &["Bearer "], &["Basic abc"], &["Bearer a", "Bearer a"]] {
            assert_eq!(bearer(&headers(bad)), None, "{bad:?}");
        }
    }
}
