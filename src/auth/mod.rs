//! Presented key → verdict. The fast path asks nobody; the slow one renews, loads, and looks once more.

pub mod allow;
mod entry;
pub mod keyring;
pub mod lease;
pub mod loader;

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::keyring::{Keyring, Seen};
use crate::auth::lease::{Lease, LeaseSnapshot};
use crate::fault;
use crate::key::Digest;
use crate::mutant::Mutant;
use crate::principal::{AccountId, AccountStatus, Cluster, Credential, KeyId};
use crate::time::{BootTime, WallTime};
use crate::verdict::Denial;

/// Evidence that a key, its account and the cluster it calls were checked under a good lease.
#[derive(Clone, Debug)]
pub struct Verified {
    key_id: KeyId,
    account_id: AccountId,
    cluster: Arc<Cluster>,
}

impl Verified {
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    pub fn account_id(&self) -> AccountId {
        self.account_id
    }

    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }
}

/// What one look into the keyring saw, with the lease as it stood before the look.
pub struct Glance {
    lease: LeaseSnapshot,
    seen: Seen,
    cluster: Option<Arc<Cluster>>,
}

/// What a glance comes to.
#[derive(Debug)]
pub enum Verdict {
    Admit(Verified),
    Deny(Denial),
    /// Nobody knows this digest. Not valid, unless the key is known under another one.
    Unknown,
    /// Cannot be said yet: renew, load, and look again; and if that does not help, it cannot be verified now.
    Unsure,
}

/// Looks the key, its account and its cluster up, in this order: lease, lookups; the clock is to be read afterwards.
pub fn glance(
    keyring: &Keyring,
    lease: &Lease,
    digest: &Digest,
    now: impl Fn() -> BootTime,
    cluster: impl FnOnce(&Keyring) -> Option<Arc<Cluster>>,
) -> Glance {
    let (after, lease) = (lease, lease.snapshot());
    let seen = keyring.look_up(digest, now);
    let cluster = cluster(keyring);
    fault::hold_up("key.looked_up");
    let lease = if Mutant::LeaseAfterLookup.is_on() { after.snapshot() } else { lease };
    Glance { lease, seen, cluster }
}

impl Glance {
    /// Whether the keyring knows nothing of the key, so that only the store can say more.
    pub fn is_missing(&self) -> bool {
        self.seen == Seen::Missing
    }

    /// `now` is read after the glance; `wall` is the same moment by the wall clock. The order of the checks is that
    /// of interfaces, section 3: key, account, cluster, allow-list.
    pub fn verdict(self, now: BootTime, wall: WallTime, address: IpAddr) -> Verdict {
        // A deletion is final, so it needs no lease.
        if self.seen == Seen::Deleted {
            return Verdict::Deny(Denial::NotValid);
        }
        if !self.lease.is_good_at(now) {
            return Verdict::Unsure;
        }
        let (credential, status) = match self.seen {
            Seen::Key { credential, status } => (credential, status),
            Seen::Unknown => return Verdict::Unknown,
            Seen::Deleted => return Verdict::Deny(Denial::NotValid),
            Seen::Missing => return Verdict::Unsure,
        };
        match check(credential, status, self.cluster, wall, address) {
            Ok(verified) => Verdict::Admit(verified),
            Err(denial) => Verdict::Deny(denial),
        }
    }
}

fn check(
    credential: Credential,
    status: AccountStatus,
    cluster: Option<Arc<Cluster>>,
    wall: WallTime,
    address: IpAddr,
) -> Result<Verified, Denial> {
    if credential.disabled || credential.expired || credential.expires_at.is_some_and(|at| at <= wall) {
        return Err(Denial::NotUsable);
    }
    if status == AccountStatus::Suspended {
        return Err(Denial::AccountSuspended);
    }
    let cluster = cluster.ok_or(Denial::UnknownCluster)?;
    if cluster.account_id != credential.account_id {
        return Err(Denial::NotTheOwner);
    }
    allow::allowed(address, &cluster.allow_ips)?;
    Ok(Verified { key_id: credential.key_id, account_id: credential.account_id, cluster })
}

#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod tests;
