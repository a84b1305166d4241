//! From a presented key to a verdict that stands: the fast path asks nobody, the slow one asks once and looks again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::keyring::Keyring;
use crate::auth::lease::Lease;
use crate::auth::loader::{Lane, Loader, NotLoaded};
use crate::auth::{Verdict, Verified, glance};
use crate::clock;
use crate::feed::Feed;
use crate::key::{Digest, Digester, PresentedKey};
use crate::limits::FailedAuth;
use crate::principal::Cluster;
use crate::time::{BootTime, WallTime};
use crate::verdict::Denial;

/// How long a caller among too many with bad keys is asked to wait.
const LANE_RETRY: Duration = Duration::from_secs(1);

/// What verifying a key needs.
pub struct Verifier {
    pub digester: Digester,
    pub keyring: Arc<Keyring>,
    pub lease: Arc<Lease>,
    pub loader: Loader,
    pub feed: Arc<Feed>,
    pub failed_auth: FailedAuth,
    /// The cluster for authorities that are an IP literal or `localhost`.
    pub default_cluster: Option<String>,
}

/// Where a call wants to go.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    Host(&'a str),
    /// An IP literal or `localhost`.
    Default,
}

/// A verified call, and when it was admitted.
pub struct Admission {
    pub verified: Verified,
    pub at: BootTime,
    pub wall: WallTime,
}

/// Why one digest of a key was not admitted.
enum NotAdmitted {
    /// Nobody knows it.
    Unknown,
    /// The store has to be asked first.
    Unsure {
        is_missing: bool,
        at: BootTime,
    },
    Denied(Denial),
}

impl From<Denial> for NotAdmitted {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl Verifier {
    /// The fast path: no waiting, no allocation, one look at the clock. While the pepper is rotated, a key that is unknown under
    /// the present one is looked for under the one before; a deleted key is known, and denied, under either.
    pub async fn verify(&self, key: PresentedKey<'_>, to: Destination<'_>, from: IpAddr) -> Result<Admission, Denial> {
        let digest = self.digester.digest(key);
        let why = match self.look(&digest, to, from) {
            Ok(admission) => return Ok(admission),
            // Also a deleted key: that is a client that was not told, and no guess.
            Err(NotAdmitted::Denied(denial)) => return Err(denial),
            Err(why) => why,
        };
        // Boxed: it is seldom, and large, and every call would carry the room for it.
        Box::pin(self.verify_slowly(key, digest, why, to, from)).await
    }

    async fn verify_slowly(
        &self,
        key: PresentedKey<'_>,
        digest: Digest,
        why: NotAdmitted,
        to: Destination<'_>,
        from: IpAddr,
    ) -> Result<Admission, Denial> {
        let mut admitted = self.ask_and_look(digest, why, to, from).await;
        if let Err(NotAdmitted::Unknown) = admitted
            && let Some(digest) = self.digester.previous_digest(key)
        {
            admitted = match self.look(&digest, to, from) {
                Err(why) => self.ask_and_look(digest, why, to, from).await,
                admitted => admitted,
            };
        }
        admitted.map_err(|why| match why {
            NotAdmitted::Unknown => self.denial(Denial::NotValid, from, clock::boot()),
            NotAdmitted::Unsure { .. } => Denial::CannotVerify,
            NotAdmitted::Denied(denial) => denial,
        })
    }

    /// Where the keyring could not tell, the store is asked and the keyring once more.
    async fn ask_and_look(
        &self,
        digest: Digest,
        why: NotAdmitted,
        to: Destination<'_>,
        from: IpAddr,
    ) -> Result<Admission, NotAdmitted> {
        let NotAdmitted::Unsure { is_missing, at } = why else { return Err(why) };
        let suspect = is_missing && self.failed_auth.is_over_its_rate(from, at);
        self.ask(digest, at, if suspect { Lane::Suspect } else { Lane::Usual }).await?;
        self.look(&digest, to, from)
    }

    /// What the keyring says at this moment.
    fn look(&self, digest: &Digest, to: Destination<'_>, from: IpAddr) -> Result<Admission, NotAdmitted> {
        let seen = glance(&self.keyring, &self.lease, digest, clock::boot, |keyring| self.cluster(keyring, to));
        let at = clock::boot();
        let wall = clock::wall_at(at);
        let is_missing = seen.is_missing();
        match seen.verdict(at, wall, from) {
            Verdict::Admit(verified) => Ok(Admission { verified, at, wall }),
            Verdict::Deny(denial) => Err(NotAdmitted::Denied(denial)),
            Verdict::Unknown => Err(NotAdmitted::Unknown),
            Verdict::Unsure => Err(NotAdmitted::Unsure { is_missing, at }),
        }
    }

    /// What a denial becomes for an address that shows too many bad keys.
    pub fn denial(&self, denial: Denial, from: IpAddr, now: BootTime) -> Denial {
        if denial == Denial::NotValid { self.failed_auth.denial(from, now) } else { denial }
    }

    /// Without a lease a renewal first. Where the last one failed no call waits for another: the feed tries on its own.
    async fn ask(&self, digest: Digest, at: BootTime, lane: Lane) -> Result<(), Denial> {
        if !self.lease.snapshot().is_good_at(at) {
            let attempts = self.feed.attempts();
            if attempts.ended > 0 && !attempts.last_succeeded {
                return Err(Denial::CannotVerify);
            }
            self.feed.renew().await;
        }
        self.loader.load(digest, lane).await.map_err(|why| match why {
            NotLoaded::CannotLoad => Denial::CannotVerify,
            NotLoaded::LaneFull => Denial::Limited { retry_after: LANE_RETRY },
        })
    }

    fn cluster(&self, keyring: &Keyring, to: Destination<'_>) -> Option<Arc<Cluster>> {
        match to {
            Destination::Host(host) => keyring.cluster_of(host),
            Destination::Default => self.default_cluster.as_deref().and_then(|name| keyring.cluster(name)),
        }
    }
}
