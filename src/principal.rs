//! Who calls and what they own: ids, credentials, accounts, clusters. Values only; nothing here reads a clock or a store.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, Encoding};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::LazyLock;

use crate::time::WallTime;

/// Ids are 80 random bits; their text is a prefix and 16 lower-case base32 characters.
pub const ID_BYTES: usize = 10;

static ID_TEXT: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = BASE32_NOPAD.specification();
    spec.symbols.make_ascii_lowercase();
    spec.encoding().unwrap_or(BASE32_NOPAD)
});

/// Five bits to a letter. [`ID_TEXT`] says the same and takes four times as long, which every call would pay three times.
fn letters(id: &[u8; ID_BYTES]) -> [u8; 16] {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = id.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let mut letters = [0; 16];
    for (at, letter) in letters.iter_mut().rev().enumerate() {
        *letter = LETTERS.get((bits >> (5 * at)) as usize & 31).copied().unwrap_or_default();
    }
    letters
}

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}… with 16 characters of a-z and 2-7 behind it")]
pub struct NotAnId {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; ID_BYTES]);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// As it is displayed, without what formatting costs.
            pub fn write_to(&self, to: &mut String) {
                to.push_str($prefix);
                to.push_str(std::str::from_utf8(&self.letters()).unwrap_or_default());
            }

            fn letters(&self) -> [u8; 16] {
                letters(&self.0)
            }

            /// A new id from the operating system's generator.
            pub fn random() -> Result<Self, getrandom::Error> {
                let mut bytes = [0; ID_BYTES];
                getrandom::fill(&mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&self.letters()).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let wrong = NotAnId { prefix: $prefix };
                let rest = text.strip_prefix($prefix).ok_or_else(|| wrong.clone())?;
                let bytes = ID_TEXT.decode(rest.as_bytes()).map_err(|_| wrong.clone())?;
                Ok(Self(bytes.try_into().map_err(|_| wrong)?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// An account: what is billed.
    AccountId, "acc_"
);
id!(
    /// An API key's public id. It says nothing about the key itself.
    KeyId, "key_"
);
id!(
    /// A cluster of the vector service.
    ClusterId, "clu_"
);
id!(
    /// A correction of usage.
    AdjustmentId, "adj_"
);
id!(
    /// A user of an account: its root, or a member with read-only rights.
    UserId, "usr_"
);
id!(
    /// A session of a user in the control plane. It is not the token.
    SessionId, "ses_"
);
id!(
    /// One life of one gateway process. A restart is another incarnation.
    Incarnation, "gw_"
);
id!(
    /// One store, from its set-up on; kept by a restore.
    StoreId, "sto_"
);
id!(
    /// One journal of one control plane.
    JournalId, "jrn_"
);
id!(
    /// One life of one server that keeps the ledger: a restart, or a replica in its place, is another one.
    LedgerServer, "srv_"
);
id!(
    /// New whenever the store may have lost writes.
    Epoch, "epo_"
);

/// For maps by what is random already, or a keyed hash: its first bytes are as good as any hash of it, and nobody outside can choose
/// them.
pub type RandomAlready = BuildHasherDefault<FirstBytes>;

#[derive(Clone, Copy, Debug, Default)]
pub struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length prefix that arrays are hashed with says nothing here.
    fn write_usize(&mut self, _length: usize) {}
}

/// The place of a change in the store's log: 1 for the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the data plane knows of an API key. The key itself is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    pub key_id: KeyId,
    pub account_id: AccountId,
    pub disabled: bool,
    pub expires_at: Option<WallTime>,
    /// The control plane has seen it expire: it stays so, whatever a gateway's clock says.
    #[serde(default)]
    pub expired: bool,
    /// Counts the changes of this key; the greater one wins, also when replayed.
    pub version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountStatus {
    Active,
    Suspended,
}

/// What the data plane knows of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub account_id: AccountId,
    pub status: AccountStatus,
    pub version: u64,
}

/// What the data plane knows of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    pub cluster_id: ClusterId,
    pub account_id: AccountId,
    /// Authorities, lower case, without port and trailing dot. Each belongs to one cluster.
    pub hosts: Vec<String>,
    /// `http://host:port` or `https://host:port`.
    pub upstreams: Vec<String>,
    /// Empty means open to every address.
    pub allow_ips: Vec<IpNet>,
    pub version: u64,
}

/// All clusters by authority, for the data plane.
pub type ClustersByHost = BTreeMap<String, Arc<Cluster>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_no_other_kind_reads_it() {
        let id = AccountId([7; ID_BYTES]);
        let text = id.to_string();
        assert_eq!(text.len(), 20);
        assert_eq!(text.parse(), Ok(id));
        assert!(text.parse::<KeyId>().is_err());
        assert!("acc_".parse::<AccountId>().is_err());
        assert!("acc_AAAAAAAAAAAAAAAA".parse::<AccountId>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn ids_are_written_in_base32(bytes: [u8; ID_BYTES]) {
            let text = AccountId(bytes).to_string();
            proptest::prop_assert_eq!(&text[4..], ID_TEXT.encode(&bytes));
            proptest::prop_assert_eq!(text.parse(), Ok(AccountId(bytes)));
        }
    }
}
