//! The control plane: accounts, clusters, keys, usage and health over HTTP (interfaces, sections 4 and 5).
//!
//! It writes to the store and never speaks to a gateway; what a gateway has to know it finds in the store's log.

pub mod accounts;
pub mod audit;
pub mod caller;
pub mod clusters;
pub mod confirm;
pub mod envelope;
pub mod error;
pub mod export;
pub mod health;
pub mod import;
pub mod keys;
pub mod last_used;
pub mod name;
pub mod operator_keys;
pub mod password;
mod refusal;
pub mod request;
pub mod rotation;
pub mod seal;
pub mod serve;
pub mod session;
pub mod step_up;
pub mod throttle;
pub mod token;
pub mod totp;
pub mod upkeep;
pub mod usage;
pub mod usage_record;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::{delete, get, post};

use self::error::Kind;
use self::last_used::LastUsed;
use self::password::{CannotHash, PasswordCost, Passwords};
use self::seal::Sealer;
use self::session::SignInThrottle;
use self::step_up::CodeThrottle;
use crate::config::KeysConfig;
use crate::key::Digester;
use crate::store::Store;
use crate::store::accounts::KeyLimits;
use crate::store::records::TokenHash;
use crate::store::upkeep::Upkeep;

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
    pub password_cost: PasswordCost,
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
    passwords: Passwords,
    last_used: LastUsed,
    sign_ins: SignInThrottle,
    codes: CodeThrottle,
}

impl Control {
    /// Err where the cost of a password is not one that Argon2 can have.
    pub fn new(parts: ControlParts) -> Result<Arc<Self>, CannotHash> {
        let ControlParts { store, digester, sealer, operator_token, billing_token, upkeep, keys, password_cost } =
            parts;
        let KeysConfig { active_max, daily_max, day_offset } = keys;
        let limits = KeyLimits { active_max, daily_max, day_offset };
        let passwords = Passwords::new(password_cost)?;
        Ok(Arc::new(Self {
            store,
            digester,
            sealer,
            operator_token,
            billing_token,
            upkeep,
            limits,
            passwords,
            last_used: LastUsed::default(),
            sign_ins: SignInThrottle::default(),
            codes: CodeThrottle::default(),
        }))
    }
}

/// Every route of the control listener. `extra` is merged in: the health routes where they share the listener, the console.
pub fn router(control: Arc<Control>, extra: Router) -> Router {
    let api = Router::new()
        .route("/v1/session", post(session::sign_in).delete(session::sign_out))
        .route("/v1/step-up", post(step_up::step_up))
        .route("/v1/accounts", post(accounts::create).get(accounts::list))
        .route("/v1/accounts/{id}", get(accounts::read).patch(accounts::patch))
        .route("/v1/accounts/{id}/clusters", get(clusters::list).post(clusters::create))
        .route("/v1/accounts/{id}/keys", get(operator_keys::list))
        .route("/v1/accounts/{id}/keys/import", post(import::import))
        .route("/v1/accounts/{id}/keys/{key_id}", delete(operator_keys::revoke))
        .route("/v1/clusters/{id}", get(clusters::read).patch(clusters::patch).delete(clusters::delete))
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/lookup", post(operator_keys::lookup))
        .route("/v1/keys/{id}", get(keys::read).patch(keys::patch).delete(keys::delete))
        .route("/v1/keys/{id}/view", post(keys::view))
        .route("/v1/audit", get(audit::list))
        .route("/v1/audit/verify", get(upkeep::verify_audit))
        .route("/v1/store", get(upkeep::status))
        .route("/v1/store/backup", get(upkeep::backup))
        .route("/v1/gateways", get(operator_keys::gateways))
        .route("/v1/usage/records", get(usage::records))
        .route("/metrics/usage", get(export::totals))
        .with_state(control);
    enveloped(api.merge(extra))
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
