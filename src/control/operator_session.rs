//! The operator's session in a browser: the operator's token is shown once, and a cookie stands for it from then on.
//!
//! What the cookie holds is sealed with the token itself, so nothing is stored, every control plane knows it, and a new
//! operator's token ends all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::Sha256;
use utoipa::ToSchema;

use super::Control;
use super::caller::OperatorOnly;
use super::cookie;
use super::error::{Kind, Problem};
use super::request::JsonBody;
use super::token::{self, Token, hashes_equal};
use crate::clock;
use crate::key::secrets_equal;
use crate::store::records::TokenHash;
use crate::time::WallTime;

/// The beginning of a token of such a session.
const PREFIX: &str = "tgp_";
/// It is not renewed: the operator shows the token again.
const LASTS: Duration = Duration::from_secs(2 * 60 * 60);
const MAC: usize = 32;

#[derive(Deserialize, ToSchema)]
#[schema(as = OperatorSignIn)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    #[serde(deserialize_with = "secret")]
    #[schema(value_type = String)]
    token: SecretString,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::from)
}

#[derive(Serialize, ToSchema)]
#[schema(as = OperatorSignedIn)]
pub struct SignedIn {
    /// To be sent as `X-CSRF-Token`.
    csrf_token: String,
    expires_at: String,
}

pub async fn sign_in(
    State(control): State<Arc<Control>>,
    head: http::request::Parts,
    JsonBody(SignIn { token }): JsonBody<SignIn>,
) -> Result<Response, Problem> {
    cookie::check_origin(&head)?;
    if !hashes_equal(&token::hash(token.expose_secret().as_bytes()), &control.operator_token) {
        return Err(Kind::SignInFailed.into());
    }
    let expires_at = clock::wall().plus(LASTS);
    let token = seal(&control.operator_token, expires_at)?;
    let signed_in = SignedIn { csrf_token: cookie::csrf_token(token.expose()), expires_at: expires_at.to_string() };
    let mut response = (StatusCode::CREATED, Json(signed_in)).into_response();
    cookie::set(&mut response, &token, LASTS);
    Ok(response)
}

/// Takes the cookie away. Who only has the operator's token has nothing to end.
pub async fn sign_out(_: OperatorOnly) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    cookie::clear(&mut response);
    response
}

/// Whether `text` is the token of a session that was opened with this operator's token and is not over.
pub fn is_good(operator: &TokenHash, text: &str, now: WallTime) -> bool {
    opened(operator, text).is_some_and(|expires_at| now < expires_at)
}

/// The end, 16 random bytes, and a MAC over both.
fn seal(operator: &TokenHash, expires_at: WallTime) -> Result<Token, getrandom::Error> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)?;
    let said = [expires_at.0.to_be_bytes().as_slice(), &nonce].concat();
    let sealed = [said.as_slice(), &mac(operator, &said)].concat();
    Ok(Token::of(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&sealed))))
}

fn opened(operator: &TokenHash, text: &str) -> Option<WallTime> {
    let sealed = BASE64URL_NOPAD.decode(text.strip_prefix(PREFIX)?.as_bytes()).ok()?;
    let (said, shown) = sealed.split_last_chunk::<MAC>()?;
    let (expires_at, _nonce) = said.split_first_chunk::<8>()?;
    secrets_equal(shown, &mac(operator, said)).then(|| WallTime(u64::from_be_bytes(*expires_at)))
}

fn mac(operator: &TokenHash, said: &[u8]) -> [u8; MAC] {
    let keyed = <Hmac<Sha256> as KeyInit>::new(&block(operator));
    keyed.chain_update(b"tollgate operator session\0").chain_update(said).finalize().into_bytes().into()
}

/// The key as HMAC pads it: a block of SHA-256.
fn block(operator: &TokenHash) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(operator.0) {
        *to = from;
    }
    block.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_good_until_its_end_for_its_operator_and_as_it_was_given() {
        let (one, other) = (token::hash(b"one"), token::hash(b"other"));
        let sealed = seal(&one, WallTime(1000)).unwrap();
        let text = sealed.expose();
        assert!(is_good(&one, text, WallTime(999)));
        assert!(!is_good(&one, text, WallTime(1000)));
        assert!(!is_good(&other, text, WallTime(999)));
        for at in PREFIX.len()..text.len() {
            let mut forged = text.to_owned().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert!(!is_good(&one, std::str::from_utf8(&forged).unwrap(), WallTime(999)), "at {at}");
        }
        for bad in ["", PREFIX, "tgp_AAAA", "tgs_x"] {
            assert!(!is_good(&one, bad, WallTime(0)), "{bad}");
        }
    }
}
