//! What the keyring holds of one digest, packed: there may be ten million of them.

use crate::principal::{AccountId, Credential, KeyId};
use crate::time::WallTime;

/// What is known of the key with a digest, in 40 bytes.
#[derive(Clone, Copy)]
pub struct Entry {
    version: u64,
    /// [`NEVER`] where the key does not expire.
    expires_at: u64,
    key_id: KeyId,
    account_id: AccountId,
    flags: u8,
}

/// An entry as it is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// `flagged`: a push said that the key was deleted; denied until the log or a load has said more.
    Allow {
        credential: Credential,
        flagged: bool,
    },
    Tombstone,
}

const NEVER: u64 = u64::MAX;
const TOMBSTONE: u8 = 1;
const FLAGGED: u8 = 1 << 1;
const DISABLED: u8 = 1 << 2;
const EXPIRED: u8 = 1 << 3;

impl Entry {
    pub const TOMBSTONE: Self =
        Self { version: 0, expires_at: NEVER, key_id: KeyId([0; _]), account_id: AccountId([0; _]), flags: TOMBSTONE };

    pub fn allow(credential: Credential) -> Self {
        let Credential { key_id, account_id, disabled, expires_at, expired, version } = credential;
        let flags = if disabled { DISABLED } else { 0 } | if expired { EXPIRED } else { 0 };
        Self { version, expires_at: expires_at.map_or(NEVER, |at| at.0), key_id, account_id, flags }
    }

    pub fn known(&self) -> Known {
        if self.is_tombstone() {
            return Known::Tombstone;
        }
        let credential = Credential {
            key_id: self.key_id,
            account_id: self.account_id,
            disabled: self.flags & DISABLED != 0,
            expires_at: (self.expires_at != NEVER).then_some(WallTime(self.expires_at)),
            expired: self.flags & EXPIRED != 0,
            version: self.version,
        };
        Known::Allow { credential, flagged: self.flags & FLAGGED != 0 }
    }

    pub fn is_tombstone(&self) -> bool {
        self.flags & TOMBSTONE != 0
    }

    /// Of the key; nothing where it is deleted.
    pub fn version(&self) -> Option<u64> {
        (!self.is_tombstone()).then_some(self.version)
    }

    /// A push said that the key was deleted. A tombstone says so already.
    pub fn flag(&mut self) {
        if !self.is_tombstone() {
            self.flags |= FLAGGED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back() {
        assert_eq!(size_of::<Entry>(), 40);
        for (disabled, expired, expires_at) in
            [(false, false, None), (true, false, Some(WallTime(0))), (false, true, Some(WallTime(1 << 60)))]
        {
            let (key_id, account_id) = (KeyId([7; _]), AccountId([9; _]));
            let credential = Credential { key_id, account_id, disabled, expires_at, expired, version: 1 << 50 };
            let mut entry = Entry::allow(credential);
            assert_eq!(entry.known(), Known::Allow { credential, flagged: false });
            assert_eq!(entry.version(), Some(1 << 50));
            entry.flag();
            assert_eq!(entry.known(), Known::Allow { credential, flagged: true });
        }
    }

    #[test]
    fn a_tombstone_stays_one() {
        let mut entry = Entry::TOMBSTONE;
        entry.flag();
        assert_eq!((entry.known(), entry.version()), (Known::Tombstone, None));
    }
}
