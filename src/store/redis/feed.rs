//! What a gateway asks: a renewal, one key with its account, all clusters. Each is one script that begins with a write.

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::answer::Answer;
use super::{RedisStore, pushes, scripts};
use crate::key::Digest;
use crate::principal::{Cluster, ID_BYTES, Incarnation, Revision};
use crate::store::records::{AccountRecord, ClusterRecord, KeyRecord};
use crate::store::rules::rows::RowValue;
use crate::store::{ClustersRead, FeedStore, Found, Loaded, LogTail, Push, Renew, Renewal, StoreError};

#[async_trait]
impl FeedStore for RedisStore {
    async fn renew(&self, renew: Renew) -> Result<Renewal, StoreError> {
        let (incarnation, applied) = (renew.incarnation.to_string(), renew.applied.0.to_string());
        let epoch = renew.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        let (channel, most) = (pushes::acknowledgements_channel(&self.place), LogTail::MOST.to_string());
        let arguments = [
            self.place.name(),
            incarnation.as_bytes(),
            epoch.as_bytes(),
            applied.as_bytes(),
            channel.as_bytes(),
            most.as_bytes(),
            renew.version.as_bytes(),
        ];
        let mut answer = self.place.judged(self.renewals().call(&scripts::RENEW, &arguments).await?)?;
        let epoch = answer.parsed()?;
        self.watch.renewed_in(epoch);
        let lease = std::time::Duration::from_millis(answer.parsed()?);
        let revision = Revision(answer.parsed()?);
        self.watch.lease_is(lease);
        let log = if answer.said == "OK" { tail(&mut answer) } else { LogTail::Trimmed };
        Ok(Renewal { store_id: self.place.store_id, epoch, lease, revision, log })
    }

    async fn load(&self, digest: Digest) -> Result<Loaded, StoreError> {
        let length = ID_BYTES.to_string();
        let arguments = [self.place.name(), &digest.0, length.as_bytes()];
        let mut answer = self.place.good(self.calls.call(&scripts::LOAD, &arguments).await?)?;
        let (epoch, revision) = (answer.parsed()?, Revision(answer.parsed()?));
        Ok(Loaded { epoch, revision, found: found(&mut answer)? })
    }

    async fn clusters(&self) -> Result<ClustersRead, StoreError> {
        let mut answer = self.place.good(self.calls.call(&scripts::CLUSTERS, &[self.place.name()]).await?)?;
        let (epoch, revision) = (answer.parsed()?, Revision(answer.parsed()?));
        let mut clusters = Vec::new();
        while !answer.is_at_end() {
            clusters.extend(cluster(&answer.bytes()?));
        }
        Ok(ClustersRead { epoch, revision, clusters })
    }

    async fn release(&self, incarnation: Incarnation) -> Result<(), StoreError> {
        pushes::release(self.renewals(), &self.place, incarnation, "").await
    }

    fn pushes(&self) -> broadcast::Receiver<Push> {
        self.watch.gateways.pushes()
    }
}

/// What cannot be read must not be passed over, since it may be a deletion: the gateway forgets all it knows, and goes on from
/// the revision of the answer.
fn tail(answer: &mut Answer) -> LogTail {
    let mut entries = Vec::new();
    while !answer.is_at_end() {
        match answer.bytes().and_then(|bytes| row("log", &bytes)) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::error!(%error, "an entry of the change log");
                return LogTail::Trimmed;
            }
        }
    }
    LogTail::Entries(entries)
}

fn found(answer: &mut Answer) -> Result<Found, StoreError> {
    if answer.is_at_end() {
        return Ok(Found::Unknown);
    }
    let promised = |table: &str| StoreError::Corrupt(format!("table {table}: a row that another promises is missing"));
    let key: KeyRecord = row("keys", &answer.maybe_bytes()?.ok_or_else(|| promised("keys"))?)?;
    if key.deleted.is_some() {
        return Ok(Found::Deleted);
    }
    let account: AccountRecord = row("accounts", &answer.maybe_bytes()?.ok_or_else(|| promised("accounts"))?)?;
    Ok(Found::Key { credential: key.credential, account: account.account })
}

/// One bad cluster must not take the others away.
fn cluster(bytes: &[u8]) -> Option<Cluster> {
    match row::<ClusterRecord>("clusters", bytes) {
        Ok(record) => Some(record.cluster),
        Err(error) => {
            tracing::error!(%error, "a cluster is left out");
            None
        }
    }
}

fn row<V: RowValue>(table: &str, bytes: &[u8]) -> Result<V, StoreError> {
    V::decode(bytes).map_err(|why| StoreError::Corrupt(format!("table {table}: a row is not readable: {why}")))
}
