//! Sealing: how keys and TOTP secrets are kept, so that the store alone shows none of them.
//!
//! A sealed value is one byte for the version of the sealing key, 24 random bytes of nonce, and the XChaCha20-Poly1305
//! ciphertext with its tag. What it belongs to is associated data, so a value moved to another row does not open.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::ExposeSecret;
use std::fmt;
use zeroize::Zeroizing;

use crate::config::secret::Secret32;
use crate::principal::{AccountId, KeyId, UserId};
use crate::store::records::Sealed;

/// What a sealed value is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An API key. `version` is the version of the sealed text, not of the key's settings: 1 as long as keys cannot change.
    Key { account_id: AccountId, key_id: KeyId, version: u64 },
    /// The TOTP secret of a user.
    Totp { account_id: AccountId, user_id: UserId },
}

/// The value was sealed with another key, for another owner, or was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value cannot be opened: it was sealed with another sealing key, moved, or changed")]
pub struct CannotOpen;

/// The sealing failed, which with a fresh nonce means that no random bytes were to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value could not be sealed")]
pub struct CannotSeal;

const NONCE: usize = 24;

/// Seals and opens with one sealing key, whose version it writes in front.
#[derive(Clone)]
pub struct Sealer {
    version: u8,
    cipher: XChaCha20Poly1305,
}

impl Sealer {
    pub fn new(version: u8, key: &Secret32) -> Self {
        Self { version, cipher: XChaCha20Poly1305::new(key.expose_secret().into()) }
    }

    pub fn seal(&self, owner: Owner, plain: &[u8]) -> Result<Sealed, CannotSeal> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| CannotSeal)?;
        let aad = associated_data(owner, self.version);
        let payload = Payload { msg: plain, aad: &aad };
        let ciphertext = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| CannotSeal)?;
        Ok(Sealed([&[self.version], nonce.as_slice(), &ciphertext].concat()))
    }

    pub fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        let (version, rest) = sealed.0.split_first().ok_or(CannotOpen)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(CannotOpen)?;
        if *version != self.version {
            return Err(CannotOpen);
        }
        let aad = associated_data(owner, *version);
        let payload = Payload { msg: ciphertext, aad: &aad };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| CannotOpen)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer(version {})", self.version)
    }
}

/// Every part has a fixed length, so no two owners have the same bytes.
fn associated_data(owner: Owner, sealing_version: u8) -> Vec<u8> {
    match owner {
        Owner::Key { account_id, key_id, version } => {
            [&[sealing_version, b'K'], account_id.0.as_slice(), &key_id.0, &version.to_be_bytes()].concat()
        }
        Owner::Totp { account_id, user_id } => [&[sealing_version, b'T'], account_id.0.as_slice(), &user_id.0].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::ID_BYTES;

    const OWNER: Owner = Owner::Key { account_id: AccountId([1; ID_BYTES]), key_id: KeyId([2; ID_BYTES]), version: 1 };

    fn sealer(version: u8) -> Sealer {
        let key = Secret32::init_with_mut(|key: &mut [u8; 32]| getrandom::fill(key).unwrap());
        Sealer::new(version, &key)
    }

    #[test]
    fn a_value_opens_for_its_owner_and_for_nobody_else() {
        let sealer = sealer(1);
        let sealed = sealer.seal(OWNER, b"the key").unwrap();
        assert_eq!(sealer.open(OWNER, &sealed).unwrap().as_slice(), b"the key");
        let others = [
            Owner::Key { account_id: AccountId([9; ID_BYTES]), key_id: KeyId([2; ID_BYTES]), version: 1 },
            Owner::Key { account_id: AccountId([1; ID_BYTES]), key_id: KeyId([9; ID_BYTES]), version: 1 },
            Owner::Key { account_id: AccountId([1; ID_BYTES]), key_id: KeyId([2; ID_BYTES]), version: 2 },
            Owner::Totp { account_id: AccountId([1; ID_BYTES]), user_id: UserId([2; ID_BYTES]) },
        ];
        for other in others {
            assert_eq!(sealer.open(other, &sealed).err(), Some(CannotOpen), "{other:?}");
        }
    }

    #[test]
    fn no_changed_byte_opens_and_no_two_sealings_look_alike() {
        let sealer = sealer(1);
        let sealed = sealer.seal(OWNER, b"the key").unwrap();
        assert_ne!(sealed, sealer.seal(OWNER, b"the key").unwrap());
        for at in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[at] ^= 1;
            assert!(sealer.open(OWNER, &changed).is_err(), "byte {at}");
            assert!(sealer.open(OWNER, &Sealed(sealed.0[..at].to_vec())).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_sealing_key_does_not_open_it() {
        let sealed = sealer(1).seal(OWNER, b"the key").unwrap();
        assert!(sealer(1).open(OWNER, &sealed).is_err());
        assert!(sealer(2).open(OWNER, &sealed).is_err());
    }
}
