//! Sessions of browsers: the token in a cookie that no script can read, and a second token against forged requests.
//!
//! Both cookies carry the `__Host-` prefix, so they belong to this host alone and travel over TLS only (browsers make an
//! exception for localhost). The CSRF token follows from the session's; a script of our own pages reads it from its cookie and
//! sends it as a header, which a page of another site can do neither of.

use std::time::Duration;

use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use http::HeaderMap;
use http::header::{COOKIE, HOST, HeaderName, HeaderValue, ORIGIN, SET_COOKIE};
use http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::error::{Kind, Problem};
use super::token::Token;
use crate::key::secrets_equal;

/// The session's token.
pub const SESSION_COOKIE: &str = "__Host-tollgate";
/// The CSRF token, for scripts of our pages.
pub const CSRF_COOKIE: &str = "__Host-tollgate-csrf";
pub const CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");

/// The token in the cookie. Requests that may change something have to show that they come from our own pages.
pub fn same_site_token(parts: &Parts) -> Result<&str, Problem> {
    let token = session_in(&parts.headers).ok_or(Kind::Unauthenticated)?;
    if !parts.method.is_safe() {
        require_origin(parts)?;
        let shown = parts.headers.get(CSRF_TOKEN).map(HeaderValue::as_bytes).unwrap_or_default();
        if !secrets_equal(shown, csrf_token(token).as_bytes()) {
            return Err(Kind::CrossSite.into());
        }
    }
    Ok(token)
}

/// For a sign-in that sets a cookie: a page of another site must not sign its visitor in as somebody else.
pub fn check_origin(parts: &Parts) -> Result<(), Problem> {
    if parts.headers.contains_key(ORIGIN) { require_origin(parts) } else { Ok(()) }
}

/// The one `Origin` is the host that was asked. Only the authority is compared: TLS may end in front of us.
fn require_origin(parts: &Parts) -> Result<(), Problem> {
    let mut origins = parts.headers.get_all(ORIGIN).iter();
    let (origin, more) = (origins.next().and_then(|value| value.to_str().ok()), origins.next());
    let authority = origin.and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = parts.headers.get(HOST).and_then(|value| value.to_str().ok());
    let asked = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str));
    let same = authority.zip(asked).is_some_and(|(from, to)| from.eq_ignore_ascii_case(to));
    if same && more.is_none() { Ok(()) } else { Err(Kind::CrossSite.into()) }
}

/// Exactly one cookie of the name, or none: of two it would be open which one counts.
fn session_in(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(name, _)| *name == SESSION_COOKIE).map(|(_, value)| value);
    let (token, more) = (found.next()?, found.next());
    (more.is_none() && !token.is_empty()).then_some(token)
}

pub fn csrf_token(session_token: &str) -> String {
    let hash = Sha256::new().chain_update(b"tollgate csrf\0").chain_update(session_token.as_bytes()).finalize();
    BASE64URL_NOPAD.encode(&hash)
}

pub fn set(response: &mut Response, token: &Token, lasts: Duration) {
    let seconds = lasts.as_secs();
    append(
        response,
        format!("{SESSION_COOKIE}={}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict", token.expose()),
    );
    let csrf = csrf_token(token.expose());
    append(response, format!("{CSRF_COOKIE}={csrf}; Path=/; Max-Age={seconds}; Secure; SameSite=Strict"));
}

pub fn clear(response: &mut Response) {
    append(response, format!("{SESSION_COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict"));
    append(response, format!("{CSRF_COOKIE}=; Path=/; Max-Age=0; Secure; SameSite=Strict"));
}

fn append(response: &mut Response, cookie: String) {
    if let Ok(mut value) = HeaderValue::from_str(&cookie) {
        value.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::*;

    fn parts(method: Method, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/v1/keys");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_changing_request_needs_the_origin_and_the_csrf_token() {
        let (cookie, csrf) = (format!("a=b; {SESSION_COOKIE}=tgs_x"), csrf_token("tgs_x"));
        let other = csrf_token("tgs_y");
        let good = [("cookie", cookie.as_str()), ("host", "h:1"), ("origin", "https://h:1"), ("x-csrf-token", &csrf)];
        assert_eq!(same_site_token(&parts(Method::POST, &good)), Ok("tgs_x"));
        assert_eq!(same_site_token(&parts(Method::GET, &good[..1])), Ok("tgs_x"));
        for (at, bad) in [
            (2, ("origin", "https://h:2")),
            (2, ("origin", "null")),
            (2, ("origin", "https://h:1.evil.example")),
            (2, ("x", "no origin")),
            (3, ("x-csrf-token", other.as_str())),
            (3, ("x-csrf-token", "")),
            (3, ("x", "no token")),
        ] {
            let mut headers = good;
            headers[at] = bad;
            assert_eq!(same_site_token(&parts(Method::POST, &headers)), Err(Kind::CrossSite.into()), "{bad:?}");
        }
    }

    #[test]
    fn only_exactly_one_session_cookie_is_read() {
        let of = |lines: &[&str]| {
            let headers: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            session_in(&parts(Method::GET, &headers).headers).map(str::to_owned)
        };
        assert_eq!(of(&["x=1; __Host-tollgate=abc;y=2"]), Some("abc".to_owned()));
        for bad in [&["x=1"][..], &["__Host-tollgate="], &["__Host-tollgate=a; __Host-tollgate=a"], &["tollgate=a"]] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(of(&["__Host-tollgate=a", "__Host-tollgate=b"]), None);
    }
}
