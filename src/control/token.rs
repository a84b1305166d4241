//! Bearer tokens: 256 random bits for the caller, a SHA-256 for everybody else. No token in here can be printed.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize;

use crate::key::secrets_equal;
use crate::store::records::TokenHash;

/// The beginning of a session token; secret scanners know it by that.
pub const SESSION: &str = "tgs_";
/// The beginning of a step-up grant.
pub const GRANT: &str = "tgg_";
/// The beginning of an operator or billing token that was made by `tollgate` itself.
pub const OPERATOR: &str = "tgo_";

/// A token as text. It leaves the process once, in the answer to the request that made it.
pub struct Token(SecretString);

impl Token {
    pub fn random(prefix: &str) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let mut text = String::with_capacity(prefix.len() + 43);
        text.push_str(prefix);
        BASE64URL_NOPAD.encode_append(&bytes, &mut text);
        bytes.zeroize();
        Ok(Self(SecretString::from(text)))
    }

    /// A token that was made otherwise.
    pub(super) fn of(text: String) -> Self {
        Self(SecretString::from(text))
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn hash(&self) -> TokenHash {
        hash(self.expose().as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What is stored and looked up by. A plain hash is enough for 256 random bits.
pub fn hash(presented: &[u8]) -> TokenHash {
    TokenHash(Sha256::digest(presented).into())
}

/// In a time that does not depend on where they differ.
pub fn hashes_equal(one: &TokenHash, other: &TokenHash) -> bool {
    secrets_equal(&one.0, &other.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_random_known_by_its_hash_and_never_printed() {
        let (one, other) = (Token::random(SESSION).unwrap(), Token::random(SESSION).unwrap());
        assert_eq!(one.expose().len(), 47);
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.hash(), hash(one.expose().as_bytes()));
        assert_ne!(one.hash(), other.hash());
        assert_eq!(format!("{one:?} {:?}", one.hash()), "Token(…) TokenHash(…)");
    }
}
