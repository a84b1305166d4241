//! Clusters: the operator says where they are, their owner who may reach them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::accounts::Items;
use super::caller::{Caller, OperatorOnly};
use super::confirm::{AfterChange, WaitQuery};
use super::error::{Kind, Problem};
use super::name;
use super::request::{Id, JsonBody, QueryOf, broken_rule};
use crate::clock;
use crate::principal::{AccountId, ClusterId};
use crate::store::accounts::{ClusterPatch, NewCluster};
use crate::store::audit::Actor;
use crate::store::records::ClusterRecord;

#[derive(Deserialize, ToSchema)]
#[schema(as = ClusterCreate)]
#[serde(deny_unknown_fields)]
pub struct Create {
    #[serde(deserialize_with = "hosts")]
    hosts: Vec<String>,
    #[serde(deserialize_with = "upstreams")]
    upstreams: Vec<String>,
    #[serde(default, deserialize_with = "networks")]
    #[schema(value_type = Vec<String>)]
    allow_ips: Vec<IpNet>,
    #[serde(default, deserialize_with = "name::optional")]
    name: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ClusterPatch)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    #[serde(default, deserialize_with = "some_hosts")]
    hosts: Option<Vec<String>>,
    #[serde(default, deserialize_with = "some_upstreams")]
    upstreams: Option<Vec<String>>,
    #[serde(default, deserialize_with = "some_networks")]
    #[schema(value_type = Option<Vec<String>>)]
    allow_ips: Option<Vec<IpNet>>,
    #[serde(default, deserialize_with = "name::optional")]
    name: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster)]
pub struct ClusterView {
    cluster_id: ClusterId,
    account_id: AccountId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    hosts: Vec<String>,
    /// The base URL for clients.
    endpoint: String,
    upstreams: Vec<String>,
    /// Empty means open to every address.
    #[schema(value_type = Vec<String>)]
    allow_ips: Vec<IpNet>,
    created_at: String,
}

/// The lists of one cluster are no longer than this.
const LONGEST_LIST: usize = 256;
/// A new cluster waits this long for the gateways: long enough for all that are well.
const CREATE_WAITS: Duration = Duration::from_secs(1);

pub async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Id(account_id): Id<AccountId>,
) -> Result<Json<Items<ClusterView, ClusterId>>, Problem> {
    caller.check_may_read(account_id)?;
    control.store.account(account_id).await?.ok_or(Kind::NotFound)?;
    let clusters = control.store.list_clusters(Some(account_id)).await?;
    Ok(Json(Items { items: clusters.into_iter().map(|one| view(one, &control.endpoint)).collect(), next: None }))
}

pub async fn create(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    Id(account_id): Id<AccountId>,
    JsonBody(Create { hosts, upstreams, allow_ips, name }): JsonBody<Create>,
) -> Result<(StatusCode, Json<ClusterView>), Problem> {
    let cluster_id = ClusterId::random()?;
    let new = NewCluster { cluster_id, account_id, hosts, upstreams, allow_ips, name };
    let changed = control.store.create_cluster(new, operator.actor(), clock::wall()).await?;
    if let Some(revision) = changed.revision {
        control.store.confirm(revision, CREATE_WAITS).await?;
    }
    Ok((StatusCode::CREATED, Json(view(changed.record, &control.endpoint))))
}

pub async fn read(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Id(cluster_id): Id<ClusterId>,
) -> Result<Json<ClusterView>, Problem> {
    let cluster = control.readable_cluster(&caller, cluster_id).await?;
    Ok(Json(view(cluster, &control.endpoint)))
}

pub async fn patch(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Id(cluster_id): Id<ClusterId>,
    QueryOf(wait): QueryOf<WaitQuery>,
    JsonBody(patch): JsonBody<Patch>,
) -> Result<Response, Problem> {
    control.readable_cluster(&caller, cluster_id).await?;
    let actor = may_patch(&caller, &patch)?;
    let Patch { hosts, upstreams, allow_ips, name } = patch;
    let patch = ClusterPatch { hosts, upstreams, allow_ips, name };
    let changed = control.store.patch_cluster(cluster_id, patch, actor, clock::wall()).await?;
    let confirmation = control.confirmed(changed.revision, wait).await?;
    Ok(AfterChange::new(view(changed.record, &control.endpoint), confirmation).into_response_as(StatusCode::OK))
}

pub async fn delete(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    Id(cluster_id): Id<ClusterId>,
    QueryOf(wait): QueryOf<WaitQuery>,
) -> Result<Response, Problem> {
    let changed = control.store.delete_cluster(cluster_id, operator.actor(), clock::wall()).await?;
    let confirmation = control.confirmed(changed.revision, wait).await?;
    Ok(AfterChange::new(view(changed.record, &control.endpoint), confirmation).into_response_as(StatusCode::NO_CONTENT))
}

/// The owner sets the allow-list alone: hosts and upstreams would let them reach what is not theirs.
fn may_patch(caller: &Caller, patch: &Patch) -> Result<Actor, Problem> {
    let only_allow_list = patch.hosts.is_none() && patch.upstreams.is_none() && patch.name.is_none();
    match caller {
        Caller::Operator(operator) => Ok(operator.actor()),
        Caller::Root(root) if only_allow_list => Ok(root.actor()),
        Caller::Member(..) => Err(Kind::RootOnly.into()),
        Caller::Root(_) => Err(Kind::Forbidden.into()),
    }
}

impl Control {
    async fn readable_cluster(&self, caller: &Caller, cluster_id: ClusterId) -> Result<ClusterRecord, Problem> {
        let cluster = self.store.cluster(cluster_id).await?.ok_or(Kind::NotFound)?;
        caller.check_may_read(cluster.cluster.account_id)?;
        Ok(cluster)
    }
}

fn view(record: ClusterRecord, endpoint: &str) -> ClusterView {
    let cluster = record.cluster;
    let host = cluster.hosts.first().map_or("", String::as_str);
    ClusterView {
        endpoint: endpoint.replace("{host}", host),
        cluster_id: cluster.cluster_id,
        account_id: cluster.account_id,
        name: record.name,
        hosts: cluster.hosts,
        upstreams: cluster.upstreams,
        allow_ips: cluster.allow_ips,
        created_at: record.created_at.to_string(),
    }
}

/// The store checks each host; here only how many there are.
fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    checked_list(from, "hosts are 1 to 256 names without scheme, port and path", |host| {
        (host.len() <= 253).then(|| host.to_owned())
    })
    .and_then(not_empty)
}

/// `http://host:port` or `https://host:port`; a single slash behind it is dropped.
fn upstreams<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    checked_list(from, "upstreams are 1 to 256 addresses of the form http://host:port or https://host:port", upstream)
        .and_then(not_empty)
}

fn upstream(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let known = matches!(scheme, "http" | "https") && !authority.host().is_empty();
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.as_str().contains('@');
    let port = authority.as_str().strip_prefix(authority.host())?;
    let port_fits = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok_and(|port| port > 0);
    (known && bare && port_fits).then(|| format!("{scheme}://{authority}"))
}

/// Networks such as `10.0.0.0/8`, or single addresses.
fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    checked_list(from, "allow_ips are at most 256 addresses or networks such as 10.0.0.0/8", |text| {
        text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
    })
}

fn checked_list<'de, D: Deserializer<'de>, T>(
    from: D,
    rule: &'static str,
    check: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let fits = texts.len() <= LONGEST_LIST;
    let checked: Option<Vec<T>> = texts.iter().map(|text| check(text.trim())).collect();
    checked.filter(|_| fits).ok_or_else(|| broken_rule(rule))
}

fn not_empty<T, E: serde::de::Error>(list: Vec<T>) -> Result<Vec<T>, E> {
    if list.is_empty() { Err(broken_rule("the list must not be empty")) } else { Ok(list) }
}

fn some_hosts<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    hosts(from).map(Some)
}

fn some_upstreams<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    upstreams(from).map(Some)
}

fn some_networks<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    networks(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_scheme_host_and_port_and_nothing_else() {
        assert_eq!(upstream("http://127.0.0.1:8080/").as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(upstream("https://[::1]:443").as_deref(), Some("https://[::1]:443"));
        for bad in [
            "",
            "127.0.0.1:80",
            "ftp://h",
            "http://",
            "http://u:p@h",
            "http://h/path",
            "http://h?q",
            "http://h:0",
            "http://h:99999",
        ] {
            assert_eq!(upstream(bad), None, "{bad}");
        }
    }
}
