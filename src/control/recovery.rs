//! Recovery codes: what a root user types at a step-up when the authenticator is lost. Ten at a time, each good once, kept as hashes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use data_encoding::BASE32_NOPAD;
use http::HeaderMap;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::Control;
use super::caller::RootOnly;
use super::error::Problem;
use super::step_up::grant_in;
use crate::clock;
use crate::principal::UserId;
use crate::store::records::TokenHash;

const HOW_MANY: usize = 10;
/// 80 random bits in base32: too many to be guessed, also by somebody who has the hashes.
const BYTES: usize = 10;
const LETTERS: usize = 16;

/// Shown here and nowhere else.
#[derive(Serialize, ToSchema)]
pub struct RecoveryCodes {
    codes: Vec<String>,
}

/// New ones in place of those there were.
pub async fn replace(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    headers: HeaderMap,
) -> Result<Json<RecoveryCodes>, Problem> {
    let by = root.oneself(grant_in(&headers));
    let codes = (0..HOW_MANY).map(|_| random()).collect::<Result<Vec<_>, _>>()?;
    let hashes = codes.iter().filter_map(|code| hash_of(by.user_id, code)).collect();
    control.store.set_recovery_codes(by, hashes, root.actor(), clock::wall()).await?;
    Ok(Json(RecoveryCodes { codes }))
}

/// Four groups of four letters.
fn random() -> Result<String, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    getrandom::fill(bytes.as_mut_slice())?;
    let letters = Zeroizing::new(BASE32_NOPAD.encode(bytes.as_slice()).to_lowercase());
    let mut code = String::with_capacity(LETTERS + 3);
    for (at, letter) in letters.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            code.push('-');
        }
        code.push(letter);
    }
    Ok(code)
}

/// What is stored of a code of this user. None where the text cannot be a recovery code; spaces, hyphens and case do not matter.
pub fn hash_of(user_id: UserId, code: &str) -> Option<TokenHash> {
    let kept = code.chars().filter(|letter| !matches!(letter, ' ' | '-')).take(LETTERS + 1);
    let letters = Zeroizing::new(kept.map(|letter| letter.to_ascii_uppercase()).collect::<String>());
    let well_formed = letters.len() == LETTERS && BASE32_NOPAD.decode(letters.as_bytes()).is_ok();
    let hash = Sha256::new().chain_update(b"tollgate recovery\0").chain_update(user_id.0).chain_update(&*letters);
    well_formed.then(|| TokenHash(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_known_however_it_is_typed_and_belongs_to_one_user() {
        let (one, other) = (UserId([1; 10]), UserId([2; 10]));
        let code = random().unwrap();
        assert_eq!(code.len(), LETTERS + 3, "{code}");
        let hash = hash_of(one, &code);
        assert!(hash.is_some() && hash != hash_of(other, &code));
        assert_eq!(hash, hash_of(one, &code.to_uppercase().replace('-', " ")));
        for bad in ["123456", "", "aaaa-aaaa-aaaa-aaa", "aaaa-aaaa-aaaa-aaaaa", "aaaa-aaaa-aaaa-aaa1", "ääää-aaaa-aaaa"]
        {
            assert_eq!(hash_of(one, bad), None, "{bad}");
        }
    }
}
