//! The control plane: accounts, clusters, keys, usage and health over HTTP (interfaces, sections 4 and 5).
//!
//! It writes to the store and never speaks to a gateway; what a gateway has to know it finds in the store's log.

mod accept;
pub mod accounts;
mod api;
pub mod audit;
pub mod authenticator;
pub mod billing;
pub mod caller;
mod cloud_events;
pub mod clusters;
pub mod confirm;
pub mod cookie;
pub mod envelope;
pub mod error;
pub mod expiry;
pub mod export;
pub mod health;
pub mod import;
pub mod keys;
pub mod last_used;
pub mod members;
pub mod name;
pub mod openapi;
pub mod operator_keys;
pub mod operator_session;
pub mod password;
pub mod recovery;
mod refusal;
pub mod request;
pub mod reset;
pub mod rotation;
mod schemas;
pub mod seal;
pub mod serve;
pub mod session;
pub mod sessions;
pub mod step_up;
pub mod token;
pub mod totp;
pub mod upkeep;
pub mod usage;
mod usage_csv;
mod usage_format;
pub mod usage_record;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::middleware::from_fn;
use axum::routing::get;
use http::header::CONTENT_TYPE;

use self::authenticator::PasswordThrottle;
use self::error::Kind;
use self::last_used::LastUsed;
use self::password::{CannotHash, PasswordCost, Passwords};
use self::seal::Sealer;
use self::session::SignInThrottle;
use self::step_up::CodeThrottle;
use crate::archive::Archive;
use crate::config::KeysConfig;
use crate::key::Digester;
use crate::store::Store;
use crate::store::accounts::KeyLimits;
use crate::store::records::TokenHash;
use crate::store::upkeep::Upkeep;
use crate::telemetry::metrics::Metrics;

/// What the control plane is made of. The composition root has read the files and opened the store.
pub struct ControlParts {
    pub store: Arc<dyn Store>,
    pub digester: Digester,
    pub sealer: Sealer,
    pub operator_token: TokenHash,
    pub billing_token: Option<TokenHash>,
    /// Absent where the store looks after itself.
    pub upkeep: Option<Arc<dyn Upkeep>>,
    pub keys: KeysConfig,
    /// How clients reach a cluster; `{host}` stands for its first host name.
    pub endpoint: String,
    pub password_cost: PasswordCost,
    pub metrics: Arc<Metrics>,
    /// Where final hours go; absent where nobody keeps them.
    pub archive: Option<Archive>,
    /// How long an hour that is in the archive stays in the ledger too; absent where that is for ever.
    pub retention: Option<Duration>,
}

/// The control plane as its handlers see it.
pub struct Control {
    store: Arc<dyn Store>,
    digester: Digester,
    sealer: Sealer,
    operator_token: TokenHash,
    billing_token: Option<TokenHash>,
    upkeep: Option<Arc<dyn Upkeep>>,
    limits: KeyLimits,
    endpoint: String,
    passwords: Passwords,
    last_used: LastUsed,
    sign_ins: SignInThrottle,
    codes: CodeThrottle,
    own_passwords: PasswordThrottle,
    metrics: Arc<Metrics>,
    archive: Option<Archive>,
    retention: Option<Duration>,
}

impl Control {
    /// Err where the cost of a password is not one that Argon2 can have.
    pub fn new(parts: ControlParts) -> Result<Arc<Self>, CannotHash> {
        let ControlParts {
            store,
            digester,
            sealer,
            operator_token,
            billing_token,
            upkeep,
            keys,
            endpoint,
            password_cost,
            metrics,
            archive,
            retention,
        } = parts;
        let KeysConfig { active_max, daily_max, day_offset } = keys;
        let limits = KeyLimits { active_max, daily_max, day_offset };
        let passwords = Passwords::new(password_cost)?;
        Ok(Arc::new(Self {
            store,
            metrics,
            archive,
            retention,
            digester,
            sealer,
            operator_token,
            billing_token,
            upkeep,
            limits,
            endpoint,
            passwords,
            last_used: LastUsed::default(),
            sign_ins: SignInThrottle::default(),
            codes: CodeThrottle::default(),
            own_passwords: PasswordThrottle::default(),
        }))
    }
}

/// Every route of the control listener. `extra` is merged in: the health routes where they share the listener.
pub fn router(control: Arc<Control>, extra: Router) -> Router {
    enveloped(api(control).merge(extra))
}

/// What a control plane does beside answering, until it is dropped.
pub async fn tend(control: Arc<Control>) {
    let (expiry, windows) = (expiry::run(Arc::clone(&control)), billing::windows::run(Arc::clone(&control)));
    tokio::join!(expiry, windows, billing::archivist::run(control));
}

/// The API and its document, as the console asks it from inside.
pub fn api(control: Arc<Control>) -> Router {
    let (api, document) = api::routes().finish();
    let document = Bytes::from(document.to_string());
    let served = get(move || std::future::ready(([(CONTENT_TYPE, "application/json")], document.clone())));
    api.with_state(control).route("/openapi.json", served)
}

/// What every router of this process gets: problems for unknown paths and methods, request ids, security headers.
pub fn enveloped(router: Router) -> Router {
    router
        .fallback(|| async { error::Problem::from(Kind::NotFound) })
        .method_not_allowed_fallback(|| async { error::Problem::from(Kind::MethodNotAllowed) })
        .layer(from_fn(envelope::wrap))
}

#[cfg(test)]
mod tests;
