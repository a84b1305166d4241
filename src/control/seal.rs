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
use crate::principal::{AccountId, JournalId, KeyId, StoreId, UserId};
use crate::store::records::Sealed;

/// What a sealed value is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An API key. `version` is the version of the sealed text, not of the key's settings: 1 as long as keys cannot change.
    Key { account_id: AccountId, key_id: KeyId, version: u64 },
    /// The TOTP secret of a user.
    Totp { account_id: AccountId, user_id: UserId },
    /// The key that a journal's entries are sealed with.
    Journal { store_id: StoreId, journal_id: JournalId },
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

/// Seals with the sealing key; opens with it, and during its rotation also with the one before it.
#[derive(Clone)]
pub struct Sealer {
    version: u8,
    current: XChaCha20Poly1305,
    previous: Option<XChaCha20Poly1305>,
}

/// What a sealed value holds.
pub struct Opened {
    pub plain: Zeroizing<Vec<u8>>,
    /// It is sealed with the present sealing key, not with the one before it.
    pub current: bool,
}

impl Sealer {
    /// `version` is written in front of what is sealed, for whoever has to find the key of an old value one day.
    pub fn new(version: u8, key: &Secret32) -> Self {
        Self { version, current: XChaCha20Poly1305::new(key.expose_secret().into()), previous: None }
    }

    /// During a rotation: what was sealed before it opens with this key.
    #[must_use]
    pub fn with_previous(self, key: &Secret32) -> Self {
        Self { previous: Some(XChaCha20Poly1305::new(key.expose_secret().into())), ..self }
    }

    pub fn seal(&self, owner: Owner, plain: &[u8]) -> Result<Sealed, CannotSeal> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| CannotSeal)?;
        let aad = associated_data(owner, self.version);
        let payload = Payload { msg: plain, aad: &aad };
        let ciphertext = self.current.encrypt(&XNonce::from(nonce), payload).map_err(|_| CannotSeal)?;
        Ok(Sealed([&[self.version], nonce.as_slice(), &ciphertext].concat()))
    }

    pub fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, CannotOpen> {
        self.open_any(owner, sealed).map(|opened| opened.plain)
    }

    /// As [`Self::open`], and says with which of the two keys.
    pub fn open_any(&self, owner: Owner, sealed: &Sealed) -> Result<Opened, CannotOpen> {
        let (version, rest) = sealed.0.split_first().ok_or(CannotOpen)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(CannotOpen)?;
        let aad = associated_data(owner, *version);
        let keys = [(true, Some(&self.current)), (false, self.previous.as_ref())];
        let mut opened = keys.into_iter().filter_map(|(current, key)| {
            let payload = Payload { msg: ciphertext, aad: &aad };
            let plain = key?.decrypt(&XNonce::from(*nonce), payload).ok()?;
            Some(Opened { plain: Zeroizing::new(plain), current })
        });
        opened.next().ok_or(CannotOpen)
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
        Owner::Journal { store_id, journal_id } => {
            [&[sealing_version, b'J'], store_id.0.as_slice(), &journal_id.0].concat()
        }
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
    fn during_a_rotation_both_keys_open_and_the_new_one_seals() {
        let key = |byte: u8| Secret32::init_with_mut(|key: &mut [u8; 32]| key.fill(byte));
        let old = Sealer::new(1, &key(1)).seal(OWNER, b"the key").unwrap();
        let rotating = Sealer::new(2, &key(2)).with_previous(&key(1));
        let opened = rotating.open_any(OWNER, &old).unwrap();
        assert_eq!((opened.plain.as_slice(), opened.current), (&b"the key"[..], false));
        let new = rotating.seal(OWNER, b"the key").unwrap();
        assert!(rotating.open_any(OWNER, &new).unwrap().current);
        let after = Sealer::new(2, &key(2));
        assert!(after.open(OWNER, &new).is_ok() && after.open(OWNER, &old).is_err());
    }

    #[test]
    fn another_sealing_key_does_not_open_it() {
        let sealed = sealer(1).seal(OWNER, b"the key").unwrap();
        assert!(sealer(1).open(OWNER, &sealed).is_err());
        assert!(sealer(2).open(OWNER, &sealed).is_err());
    }
}
