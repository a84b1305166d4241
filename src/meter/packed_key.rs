//! A line key in four words.

use std::hash::{Hash, Hasher};

use super::record::{LineKey, Operation};
use crate::principal::{AccountId, ClusterId, ID_BYTES, KeyId};

/// A line key as it stands in the directory; also what lines are looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedKey(pub [u64; 4]);

impl PackedKey {
    /// The first eight bytes of each id, then their last two and the operation. This is in the path of every call.
    #[inline]
    pub fn of(key: &LineKey) -> Self {
        let (account, account_end) = split(key.account_id.0);
        let (api_key, api_key_end) = split(key.key_id.0);
        let (cluster, cluster_end) = split(key.cluster_id.0);
        Self([
            account,
            api_key,
            cluster,
            account_end | api_key_end << 16 | cluster_end << 32 | (key.operation as u64) << 48,
        ])
    }

    pub fn unpack(self) -> Option<LineKey> {
        let [account, api_key, cluster, ends] = self.0;
        Some(LineKey {
            account_id: AccountId(joined(account, ends)),
            key_id: KeyId(joined(api_key, ends >> 16)),
            cluster_id: ClusterId(joined(cluster, ends >> 32)),
            operation: Operation::from_index(u8::try_from(ends >> 48).ok()?)?,
        })
    }
}

fn split([a, b, c, d, e, f, g, h, i, j]: [u8; ID_BYTES]) -> (u64, u64) {
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from(u16::from_le_bytes([i, j])))
}

fn joined(start: u64, end: u64) -> [u8; ID_BYTES] {
    let [a, b, c, d, e, f, g, h] = start.to_le_bytes();
    let [i, j, ..] = end.to_le_bytes();
    [a, b, c, d, e, f, g, h, i, j]
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_survives_its_packing(ids in any::<[[u8; ID_BYTES]; 3]>(), operation in 0..Operation::ALL.len()) {
            let [account, api_key, cluster] = ids;
            let key = LineKey {
                account_id: AccountId(account),
                key_id: KeyId(api_key),
                cluster_id: ClusterId(cluster),
                operation: Operation::ALL[operation],
            };
            prop_assert_eq!(PackedKey::of(&key).unpack(), Some(key));
        }
    }
}
