//! Clusters and their hosts, within a transaction.

use super::Changes;
use super::rows::{Rows, Span};
use super::tables::{ACCOUNTS, CLUSTERS, CLUSTERS_BY_ACCOUNT, CLUSTERS_BY_HOST};
use crate::principal::{AccountId, Cluster, ClusterId};
use crate::store::accounts::{Answer, Changed, ClusterPatch, NewCluster, Refusal};
use crate::store::audit::{Actor, AuditEvent};
use crate::store::records::ClusterRecord;
use crate::store::{Change, StoreError};
use crate::time::WallTime;

/// The longest name in the DNS, in bytes.
const HOST_MAX: usize = 253;

pub fn create(tx: &mut dyn Changes, new: &NewCluster, actor: &Actor, now: WallTime) -> Answer<Changed<ClusterRecord>> {
    ACCOUNTS.get(tx, &new.account_id)?.ok_or(Refusal::NotFound)?;
    if CLUSTERS.get(tx, &new.cluster_id)?.is_some() {
        return Err(Refusal::IdTaken.into());
    }
    let cluster = Cluster {
        cluster_id: new.cluster_id,
        account_id: new.account_id,
        hosts: free_hosts(tx, &new.hosts, new.cluster_id)?,
        upstreams: new.upstreams.clone(),
        allow_ips: new.allow_ips.clone(),
        version: 1,
    };
    put_hosts(tx, &cluster)?;
    tx.put(&CLUSTERS_BY_ACCOUNT, &(new.account_id, new.cluster_id), &new.cluster_id)?;
    let record = ClusterRecord { cluster, name: new.name.clone(), created_at: now };
    tx.put(&CLUSTERS, &new.cluster_id, &record)?;
    let revision = tx.log(Change::ClusterPut(record.cluster.clone()))?;
    tx.audit(event("cluster.create", &record, actor, now))?;
    Ok(Changed { record, revision: Some(revision) })
}

pub fn patch(
    tx: &mut dyn Changes,
    cluster_id: ClusterId,
    patch: &ClusterPatch,
    actor: &Actor,
    now: WallTime,
) -> Answer<Changed<ClusterRecord>> {
    let mut record = CLUSTERS.get(tx, &cluster_id)?.ok_or(Refusal::NotFound)?;
    let cluster = &mut record.cluster;
    if let Some(hosts) = &patch.hosts {
        let hosts = free_hosts(tx, hosts, cluster_id)?;
        for host in std::mem::replace(&mut cluster.hosts, hosts) {
            tx.remove(&CLUSTERS_BY_HOST, &host)?;
        }
        put_hosts(tx, cluster)?;
    }
    cluster.upstreams = patch.upstreams.clone().unwrap_or_else(|| std::mem::take(&mut cluster.upstreams));
    cluster.allow_ips = patch.allow_ips.clone().unwrap_or_else(|| std::mem::take(&mut cluster.allow_ips));
    let matters = patch.hosts.is_some() || patch.upstreams.is_some() || patch.allow_ips.is_some();
    let revision = if matters {
        cluster.version += 1;
        Some(tx.log(Change::ClusterPut(cluster.clone()))?)
    } else {
        None
    };
    record.name = patch.name.clone().or(record.name);
    tx.put(&CLUSTERS, &cluster_id, &record)?;
    tx.audit(event("cluster.patch", &record, actor, now))?;
    Ok(Changed { record, revision })
}

pub fn delete(
    tx: &mut dyn Changes,
    cluster_id: ClusterId,
    actor: &Actor,
    now: WallTime,
) -> Answer<Changed<ClusterRecord>> {
    let record = CLUSTERS.get(tx, &cluster_id)?.ok_or(Refusal::NotFound)?;
    for host in &record.cluster.hosts {
        tx.remove(&CLUSTERS_BY_HOST, host)?;
    }
    tx.remove(&CLUSTERS_BY_ACCOUNT, &(record.cluster.account_id, cluster_id))?;
    tx.remove(&CLUSTERS, &cluster_id)?;
    let revision = tx.log(Change::ClusterDeleted { cluster_id })?;
    tx.audit(event("cluster.delete", &record, actor, now))?;
    Ok(Changed { record, revision: Some(revision) })
}

pub fn list(rows: &dyn Rows, account_id: Option<AccountId>) -> Result<Vec<ClusterRecord>, StoreError> {
    let Some(account_id) = account_id else {
        return CLUSTERS.list(rows, Span::all(), usize::MAX);
    };
    let ids = CLUSTERS_BY_ACCOUNT.list(rows, Span::prefix(&account_id), usize::MAX)?;
    ids.iter().map(|cluster_id| CLUSTERS.get_promised(rows, cluster_id)).collect()
}

pub fn owns_any(rows: &dyn Rows, account_id: AccountId) -> Result<bool, StoreError> {
    Ok(!CLUSTERS_BY_ACCOUNT.list(rows, Span::prefix(&account_id), 1)?.is_empty())
}

/// The hosts in the form in which they are compared, if none of them belongs to another cluster.
fn free_hosts(rows: &dyn Rows, hosts: &[String], cluster_id: ClusterId) -> Answer<Vec<String>> {
    let mut free = Vec::new();
    for host in hosts {
        let host = folded(host)?;
        match CLUSTERS_BY_HOST.get(rows, &host)? {
            Some(owner) if owner != cluster_id => return Err(Refusal::HostTaken { host }.into()),
            _ if free.contains(&host) => {}
            _ => free.push(host),
        }
    }
    if free.is_empty() { Err(Refusal::NoHost.into()) } else { Ok(free) }
}

/// Lower case, without a trailing dot; whatever cannot be the host of an authority is refused.
fn folded(host: &str) -> Result<String, Refusal> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = !name.is_empty() && name.len() <= HOST_MAX && name.bytes().all(allowed);
    if fits { Ok(name) } else { Err(Refusal::HostMalformed { host: host.to_owned() }) }
}

fn put_hosts(tx: &mut dyn Changes, cluster: &Cluster) -> Result<(), StoreError> {
    cluster.hosts.iter().try_for_each(|host| tx.put(&CLUSTERS_BY_HOST, host, &cluster.cluster_id))
}

fn event(action: &str, record: &ClusterRecord, actor: &Actor, now: WallTime) -> AuditEvent {
    let Cluster { cluster_id, account_id, hosts, upstreams, allow_ips, .. } = &record.cluster;
    AuditEvent {
        at: now,
        actor: actor.clone(),
        action: action.to_owned(),
        subject: cluster_id.to_string(),
        account_id: Some(*account_id),
        detail: Some(format!("hosts {hosts:?} upstreams {upstreams:?} allow_ips {allow_ips:?}")),
    }
}
