//! The console: the pages of an account's owner and of the operator, written by the binary itself.
//!
//! It is a client of the API and nothing else. A page is made of what the API answers to the visitor's own cookie; what a
//! visitor does goes from the page's script straight to the API, with the cookie and its CSRF token.

mod ask;
mod assets;
mod chart;
mod elements;
mod facts;
mod pages;
mod shell;
mod text;
mod usage;
mod visit;

use std::future::Future;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, SET_COOKIE};
use http::{HeaderName, StatusCode};
use maud::Markup;

use self::ask::{Api, Refused};
use self::pages::{account, audit, billing, clusters, keys, operator, rotate, sign_in, usage as usage_page};
use self::text::Lang;
use self::visit::{LANGUAGE_COOKIE, Visit};

/// Nothing but our own files; no script and no style inside a page. `data:` is for the QR code of an authenticator.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

const KEYS: &str = "/console/keys";
const SIGN_IN: &str = "/console/sign-in";
const OPERATOR_SIGN_IN: &str = "/console/operator/sign-in";

#[derive(Clone)]
struct Console {
    api: Api,
}

/// The pages, to be merged into the routes of the control listener. `api` is what they ask.
pub fn routes(api: Router) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to(KEYS) }))
        .route("/console", get(|| async { Redirect::to(KEYS) }))
        .route(SIGN_IN, get(|visit: Visit| shown(visit, sign_in::page)))
        .route(KEYS, get(|visit: Visit| shown(visit, keys::page)))
        .route("/console/rotate", get(|visit: Visit| shown(visit, rotate::page)))
        .route("/console/usage", get(|visit: Visit| shown(visit, usage_page::page)))
        .route("/console/clusters", get(|visit: Visit| shown(visit, clusters::page)))
        .route("/console/audit", get(|visit: Visit| shown(visit, audit::page)))
        .route("/console/account", get(|visit: Visit| shown(visit, account::page)))
        .route("/console/operator", get(|visit: Visit| shown(visit, operator::accounts)))
        .route(OPERATOR_SIGN_IN, get(|visit: Visit| shown(visit, sign_in::operator_page)))
        .route("/console/operator/gateways", get(|visit: Visit| shown(visit, operator::gateways)))
        .route("/console/operator/billing", get(|visit: Visit| shown(visit, billing::page)))
        .route("/console/operator/audit", get(|visit: Visit| shown(visit, operator::audit)))
        .route("/console/language", get(language))
        .route(&format!("{}{{name}}", assets::FOLDER), get(assets::serve))
        .with_state(Console { api: Api::new(api) })
}

/// A page, or what is shown in its place.
async fn shown<F, Made>(visit: Visit, page: F) -> Response
where
    F: FnOnce(Visit) -> Made,
    Made: Future<Output = Result<Markup, Refused>>,
{
    match page(visit.clone()).await {
        Ok(page) => answer(StatusCode::OK, page),
        // The link came from another site, so the browser kept the cookie to itself. Asked again by our own page it sends it.
        Err(refused) if refused.is_stranger() && visit.from_elsewhere => {
            answer(StatusCode::OK, shell::once_more(&visit))
        }
        Err(refused) if refused.is_stranger() => to_sign_in(&visit),
        Err(refused) => answer(refused.status, shell::refused(&visit, &refused)),
    }
}

fn answer(status: StatusCode, page: Markup) -> Response {
    let mut response = (status, page.into_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(PERMISSIONS, HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=()"));
    headers.insert(OPENER, HeaderValue::from_static("same-origin"));
    response
}

/// After signing in the visitor comes back to the page that was asked for.
fn to_sign_in(visit: &Visit) -> Response {
    let operator = visit.target.starts_with("/console/operator");
    let page = if operator { OPERATOR_SIGN_IN } else { SIGN_IN };
    Redirect::to(&format!("{page}?next={}", elements::escaped(&visit.target))).into_response()
}

/// Remembers the chosen language, and goes back to the page where the switch is.
async fn language(State(_): State<Console>, visit: Visit) -> Response {
    let lang = visit.asked("to").and_then(Lang::from_tag).unwrap_or(Lang::En);
    let back = elements::own_page(visit.asked("back")).unwrap_or(KEYS);
    let cookie = format!("{LANGUAGE_COOKIE}={}; Path=/console; Max-Age=31536000; SameSite=Lax; HttpOnly", lang.tag());
    let mut response = StatusCode::SEE_OTHER.into_response();
    for (name, value) in [(LOCATION, back.to_owned()), (SET_COOKIE, cookie)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests;
