//! A line key in four words.

use std::hash::{Hash, Hasher};

use super::record::{LineKey, Operation};
use super::words::{WORD, from_bytes};
use crate::principal::{AccountId, ClusterId, ID_BYTES, KeyId};

/// A line key as it stands in the directory; also what lines are looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedKey(pub [u64; 4]);

impl PackedKey {
    pub fn of(key: &LineKey) -> Self {
        let mut bytes = [0; 4 * WORD];
        let parts = key.account_id.0.iter().chain(&key.key_id.0).chain(&key.cluster_id.0).copied();
        for (to, from) in bytes.iter_mut().zip(parts.chain([key.operation as u8])) {
            *to = from;
        }
        Self(from_bytes(&bytes))
    }

    pub fn unpack(self) -> Option<LineKey> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (account_id, rest) = bytes.split_first_chunk::<ID_BYTES>()?;
        let (key_id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        let (cluster_id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
        Some(LineKey {
            account_id: AccountId(*account_id),
            key_id: KeyId(*key_id),
            cluster_id: ClusterId(*cluster_id),
            operation: Operation::from_index(*rest.first()?)?,
        })
    }
}

/// Ids are random bits of our own making, so nobody can choose keys that collide, and two folded products mix them well enough.
impl Hash for PackedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d] = self.0;
        let once = folded(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xc2b2_ae3d_27d4_eb4f);
        state.write_u64(folded(once ^ c, d ^ 0x1656_67b1_9e37_79f9 ^ once.rotate_left(32)));
    }
}

fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}
