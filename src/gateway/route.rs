//! Where a call goes and what it asks for: authority to cluster, method and path to operation.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use http::Method;

use crate::gateway::fields::Name;
use crate::gateway::message::RequestHead;
use crate::meter::record::Operation;
use crate::principal::{Cluster, ClusterId, ClustersByHost};
use crate::verdict::Denial;

/// The longest name there is in DNS, with its final dot.
const LONGEST_NAME: usize = 254;

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority<'a> {
    /// Lower case, without port and trailing dot.
    Name(Cow<'a, str>),
    /// `localhost` or an IP literal: it names this machine and no cluster.
    Machine(&'a str),
}

impl Authority<'_> {
    /// The host as clusters are looked up by it.
    pub fn host(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Machine(literal) => literal,
        }
    }
}

/// The authority of a request: `:authority` or an absolute address, else `Host`.
///
/// Where there are several they must be the same host, since what comes after us may believe the other one. None, an
/// empty one, one with a user's name in it or with characters that no host has is [`Denial::Malformed`].
pub fn authority(head: &RequestHead) -> Result<Authority<'_>, Denial> {
    let mut hosts = head.fields.all(Name::Host);
    let (header, target) = (hosts.next(), head.uri.authority().map(|authority| authority.as_str()));
    if hosts.next().is_some() {
        return Err(Denial::Malformed);
    }
    // Where they are spelt alike, as by all who mean no harm, one is read.
    let header = header.filter(|header| target.is_none_or(|target| target.as_bytes() != *header));
    let target = target.map(parse).transpose()?;
    let header = match header.map(str::from_utf8) {
        None => None,
        Some(Ok(host)) => Some(parse(host)?),
        Some(Err(_)) => return Err(Denial::Malformed),
    };
    match (target, header) {
        (Some(target), Some(header)) if target != header => Err(Denial::Malformed),
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) => Err(Denial::Malformed),
    }
}

/// The cluster of an authority. One that names this machine goes to the default cluster, unless a cluster lists it as
/// its host.
///
/// `default` is a host of the default cluster, or its id; by host it is found without a search.
pub fn cluster_of<'c>(
    clusters: &'c ClustersByHost,
    authority: &Authority<'_>,
    default: Option<&str>,
) -> Result<&'c Arc<Cluster>, Denial> {
    let listed = clusters.get(authority.host());
    let found = match authority {
        Authority::Name(_) => listed,
        Authority::Machine(_) => listed.or_else(|| default_cluster(clusters, default?)),
    };
    found.ok_or(Denial::UnknownCluster)
}

fn default_cluster<'c>(clusters: &'c ClustersByHost, default: &str) -> Option<&'c Arc<Cluster>> {
    clusters.get(default).or_else(|| {
        let id: ClusterId = default.parse().ok()?;
        clusters.values().find(|cluster| cluster.cluster_id == id)
    })
}

/// What kinds of characters a text has.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kinds(u8);

impl Kinds {
    const UPPER: u8 = 1;
    /// No host that is a name has it.
    const OTHER: u8 = 2;

    fn of(text: &str) -> Self {
        let kind = |byte: u8| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => 0,
            b'A'..=b'Z' => Self::UPPER,
            _ => Self::OTHER,
        };
        Self(text.bytes().fold(0, |kinds, byte| kinds | kind(byte)))
    }

    fn has(self, kind: u8) -> bool {
        self.0 & kind != 0
    }
}

fn parse(authority: &str) -> Result<Authority<'_>, Denial> {
    let kinds = Kinds::of(authority);
    if !kinds.has(Kinds::OTHER) {
        return name(authority, kinds);
    }
    let at = |wanted: u8| authority.bytes().position(|byte| byte == wanted);
    // Both are ASCII, so there is a boundary of characters before and behind them.
    let end = at(b']').map(|end| end + 1).or_else(|| at(b':')).unwrap_or(authority.len());
    let (host, port) = authority.split_at_checked(end).unwrap_or((authority, ""));
    let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    if !has_port {
        return Err(Denial::Malformed);
    }
    if let Some(literal) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let valid = literal.parse::<Ipv6Addr>().is_ok();
        return if valid { Ok(Authority::Machine(host)) } else { Err(Denial::Malformed) };
    }
    name(host, Kinds::of(host))
}

/// Empty is a port too (RFC 3986, 3.2.3).
fn is_port(digits: &str) -> bool {
    digits.is_empty() || digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

fn name(host: &str, kinds: Kinds) -> Result<Authority<'_>, Denial> {
    let valid = host.len() <= LONGEST_NAME && !kinds.has(Kinds::OTHER);
    let host = host.strip_suffix('.').unwrap_or(host);
    if !valid || host.is_empty() || host.ends_with('.') {
        return Err(Denial::Malformed);
    }
    let is_address = host.starts_with(|first: char| first.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_ok();
    Ok(match () {
        () if is_address || host.eq_ignore_ascii_case("localhost") => Authority::Machine(host),
        () if kinds.has(Kinds::UPPER) => Authority::Name(host.to_ascii_lowercase().into()),
        () => Authority::Name(host.into()),
    })
}

/// The gRPC services whose methods have names of ours. SDKs differ in the package they put before the service.
#[derive(Clone, Debug)]
pub struct GrpcServices(Vec<Box<str>>);

impl GrpcServices {
    /// Full names such as `proxima.dashvector.proto.DashVectorService`; slashes around them do not matter.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        Self(names.into_iter().map(|name| name.as_ref().trim_matches('/').into()).collect())
    }
}

/// What a gRPC call asks for. `path` is `/<service>/<method>`; a service or method that is not known is
/// [`Operation::Other`].
pub fn grpc_operation(method: &Method, path: &str, services: &GrpcServices) -> Operation {
    let parts = path.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    match parts {
        Some((service, name)) if method == Method::POST && services.0.iter().any(|known| **known == *service) => {
            grpc_method(name)
        }
        _ => Operation::Other,
    }
}

fn grpc_method(name: &str) -> Operation {
    match name {
        "insert_doc" => Operation::Insert,
        "update_doc" => Operation::Update,
        "upsert_doc" => Operation::Upsert,
        "delete_doc" => Operation::Delete,
        "fetch_doc" => Operation::Fetch,
        "query_doc" => Operation::Query,
        "query_doc_group_by" => Operation::QueryGroupBy,
        "get_version" => Operation::GetVersion,
        "create_collection" => Operation::CreateCollection,
        "delete_collection" => Operation::DeleteCollection,
        "describe_collection" => Operation::DescribeCollection,
        "list_collections" => Operation::ListCollections,
        "stats_collection" => Operation::StatsCollection,
        "create_partition" => Operation::CreatePartition,
        "delete_partition" => Operation::DeletePartition,
        "describe_partition" => Operation::DescribePartition,
        "list_partitions" => Operation::ListPartitions,
        "stats_partition" => Operation::StatsPartition,
        _ => Operation::Other,
    }
}

/// What an HTTP call asks for. `path` is without its query. Names are case-sensitive; names of collections and
/// partitions are any segment that is not empty, as it is written.
pub fn http_operation(method: &Method, path: &str) -> Operation {
    if path == "/service_version" {
        return if method == Method::GET { Operation::GetVersion } else { Operation::Other };
    }
    let Some(rest) = path.strip_prefix("/v1/collections") else { return Operation::Other };
    let mut segments = rest.as_bytes().split(|byte| *byte == b'/');
    // Before the first slash there must be nothing: /v1/collectionsx is another path.
    if segments.next().is_none_or(|before| !before.is_empty()) {
        return Operation::Other;
    }
    let rest = [segments.next(), segments.next(), segments.next(), segments.next()];
    if segments.next().is_some() || rest.iter().flatten().any(|segment| segment.is_empty()) {
        return Operation::Other;
    }
    http_route(method.as_str(), rest)
}

fn http_route(method: &str, rest: [Option<&[u8]>; 4]) -> Operation {
    match (method, rest) {
        ("POST", [None, ..]) => Operation::CreateCollection,
        ("GET", [None, ..]) => Operation::ListCollections,
        ("GET", [_, None, ..]) => Operation::DescribeCollection,
        ("DELETE", [_, None, ..]) => Operation::DeleteCollection,
        ("GET", [_, Some(b"stats"), None, _]) => Operation::StatsCollection,
        ("POST", [_, Some(b"docs"), None, _]) => Operation::Insert,
        ("PUT", [_, Some(b"docs"), None, _]) => Operation::Update,
        ("POST", [_, Some(b"docs"), Some(b"upsert"), None]) => Operation::Upsert,
        ("DELETE", [_, Some(b"docs"), None, _]) => Operation::Delete,
        ("GET", [_, Some(b"docs"), None, _]) => Operation::Fetch,
        ("POST", [_, Some(b"query"), None, _]) => Operation::Query,
        ("POST", [_, Some(b"query_group_by"), None, _]) => Operation::QueryGroupBy,
        ("POST", [_, Some(b"partitions"), None, _]) => Operation::CreatePartition,
        ("GET", [_, Some(b"partitions"), None, _]) => Operation::ListPartitions,
        ("GET", [_, Some(b"partitions"), Some(_), None]) => Operation::DescribePartition,
        ("DELETE", [_, Some(b"partitions"), Some(_), None]) => Operation::DeletePartition,
        ("GET", [_, Some(b"partitions"), Some(_), Some(b"stats")]) => Operation::StatsPartition,
        _ => Operation::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::principal::{AccountId, ID_BYTES};

    fn head(uri: &str, hosts: &[&str]) -> RequestHead {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        RequestHead::of("GET", uri, &fields)
    }

    fn of(uri: &str, hosts: &[&str]) -> Result<String, Denial> {
        authority(&head(uri, hosts)).map(|authority| match authority {
            Authority::Name(name) => format!("name {name}"),
            Authority::Machine(literal) => format!("machine {literal}"),
        })
    }

    #[test]
    fn an_authority_is_lower_case_without_port_and_trailing_dot() {
        for host in ["dv.test", "DV.Test", "dv.test.", "dv.test:80", "dv.test.:8080", "dv.test:"] {
            assert_eq!(of("/", &[host]), Ok("name dv.test".into()), "{host}");
        }
        assert_eq!(of("http://DV.test:1/x", &[]), Ok("name dv.test".into()));
        assert_eq!(of("http://dv.test:1/x", &["DV.test."]), Ok("name dv.test".into()));
        let untouched = head("/", &["dv.test:80"]);
        assert!(matches!(authority(&untouched), Ok(Authority::Name(Cow::Borrowed(_)))), "no allocation");
    }

    #[test]
    fn machines_are_told_from_names() {
        for (host, literal) in [
            ("127.0.0.1:8080", "127.0.0.1"),
            ("LocalHost", "LocalHost"),
            ("localhost.:1", "localhost"),
            ("[::1]:8080", "[::1]"),
            ("[fe80::1]", "[fe80::1]"),
        ] {
            assert_eq!(of("/", &[host]), Ok(format!("machine {literal}")), "{host}");
        }
        for host in ["127.1", "1.2.3.4.5", "localhost.test", "256.1.1.1"] {
            assert_eq!(of("/", &[host]), Ok(format!("name {host}")), "{host}");
        }
    }

    #[test]
    fn no_or_ambiguous_authorities_are_malformed() {
        let bad = [
            "",
            ".",
            "a..",
            ":80",
            "u@a.test",
            "u:p@a.test",
            "a.test:80:80",
            "a.test:x",
            "a.test:+80",
            "a.test:65536",
            "a b",
            "a/b",
            "a?b",
            "a%2eb",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[1.2.3.4]",
            "[::1%25eth0]",
            "a,b",
            "x[::1]",
            "[]",
        ];
        for host in bad {
            assert_eq!(of("/", &[host]), Err(Denial::Malformed), "{host}");
        }
        assert_eq!(of("/", &[&"a".repeat(255)]), Err(Denial::Malformed));
        assert_eq!(of("/", &[]), Err(Denial::Malformed));
        assert_eq!(of("/", &["a.test", "b.test"]), Err(Denial::Malformed));
        assert_eq!(of("/", &["a.test", "a.test"]), Err(Denial::Malformed));
        assert_eq!(of("http://a.test/", &["b.test"]), Err(Denial::Malformed));
        assert_eq!(of("http://u@a.test/", &["a.test"]), Err(Denial::Malformed));
    }

    #[test]
    fn machines_go_to_the_default_cluster_and_names_to_their_own() {
        let cluster = |n: u8, host: &str| Cluster {
            cluster_id: ClusterId([n; ID_BYTES]),
            account_id: AccountId([n; ID_BYTES]),
            hosts: vec![host.into()],
            upstreams: vec![],
            allow_ips: vec![],
            version: 1,
        };
        let clusters: ClustersByHost = [cluster(1, "a.test"), cluster(2, "10.0.0.9")]
            .into_iter()
            .map(|cluster| (cluster.hosts[0].clone(), Arc::new(cluster)))
            .collect();
        let of = |host: &'static str, default: Option<&str>| {
            cluster_of(&clusters, &parse(host).unwrap(), default).map(|cluster| cluster.cluster_id.0[0])
        };
        let id = ClusterId([1; ID_BYTES]).to_string();
        assert_eq!(of("A.test:1", None), Ok(1));
        assert_eq!(of("b.test", Some("a.test")), Err(Denial::UnknownCluster));
        assert_eq!(of("127.0.0.1", None), Err(Denial::UnknownCluster));
        assert_eq!(of("127.0.0.1", Some("a.test")), Ok(1));
        assert_eq!(of("[::1]:80", Some(&id)), Ok(1));
        assert_eq!(of("localhost", Some("gone.test")), Err(Denial::UnknownCluster));
        assert_eq!(of("10.0.0.9", Some("a.test")), Ok(2));
    }

    #[test]
    fn every_grpc_method_has_its_operation() {
        let names = [
            "get_version",
            "create_collection",
            "delete_collection",
            "describe_collection",
            "list_collections",
            "stats_collection",
            "create_partition",
            "delete_partition",
            "describe_partition",
            "list_partitions",
            "stats_partition",
            "insert_doc",
            "update_doc",
            "upsert_doc",
            "delete_doc",
            "fetch_doc",
            "query_doc",
            "query_doc_group_by",
        ];
        let services = GrpcServices::new(["proxima.dashvector.proto.DashVectorService", "/other.Service/"]);
        let found: HashSet<_> = names
            .iter()
            .map(|name| {
                grpc_operation(&Method::POST, &format!("/proxima.dashvector.proto.DashVectorService/{name}"), &services)
            })
            .collect();
        assert_eq!(found.len(), 18);
        assert!(!found.contains(&Operation::Other));
        let of = |method: &Method, path: &str| grpc_operation(method, path, &services);
        assert_eq!(of(&Method::POST, "/other.Service/query_doc"), Operation::Query);
        for path in [
            "/x.Service/query_doc",
            "/other.Service/Query_doc",
            "/other.Service/query_doc/",
            "/query_doc",
            "other.Service/query_doc",
            "/",
            "",
        ] {
            assert_eq!(of(&Method::POST, path), Operation::Other, "{path}");
        }
        assert_eq!(of(&Method::GET, "/other.Service/query_doc"), Operation::Other);
    }

    #[test]
    fn every_http_route_has_its_operation() {
        let routes = [
            ("GET", "/service_version", "get_version"),
            ("POST", "/v1/collections", "create_collection"),
            ("GET", "/v1/collections", "list_collections"),
            ("GET", "/v1/collections/c", "describe_collection"),
            ("GET", "/v1/collections/c/stats", "stats_collection"),
            ("DELETE", "/v1/collections/c", "delete_collection"),
            ("POST", "/v1/collections/c/docs", "insert"),
            ("PUT", "/v1/collections/c/docs", "update"),
            ("POST", "/v1/collections/c/docs/upsert", "upsert"),
            ("DELETE", "/v1/collections/c/docs", "delete"),
            ("GET", "/v1/collections/c/docs", "fetch"),
            ("POST", "/v1/collections/c/query", "query"),
            ("POST", "/v1/collections/c/query_group_by", "query_group_by"),
            ("POST", "/v1/collections/c/partitions", "create_partition"),
            ("GET", "/v1/collections/c/partitions", "list_partitions"),
            ("GET", "/v1/collections/c/partitions/p", "describe_partition"),
            ("GET", "/v1/collections/c/partitions/p/stats", "stats_partition"),
            ("DELETE", "/v1/collections/c/partitions/p", "delete_partition"),
            ("GET", "/v1/collections/docs/docs", "fetch"),
            ("GET", "/v1/collections/%64/partitions/%2f", "describe_partition"),
        ];
        for (method, path, name) in routes {
            assert_eq!(http_operation(&method.parse().unwrap(), path).name(), name, "{method} {path}");
        }
        let others = [
            ("POST", "/service_version"),
            ("GET", "/v1/service_version"),
            ("GET", "/"),
            ("GET", "/v1/collectionsx"),
            ("GET", "/v1/collections/"),
            ("GET", "/V1/collections"),
            ("GET", "//v1/collections"),
            ("GET", "/v1/collections//stats"),
            ("GET", "/v1/collections/c/"),
            ("GET", "/v1/collections/c/docs/upsert"),
            ("HEAD", "/v1/collections/c"),
            ("POST", "/v1/collections/c/query/"),
            ("GET", "/v1/collections/c/partitions/p/stats/x"),
            ("PATCH", "/v1/collections/c/docs"),
            ("POST", "/v1/collections/c/Query"),
        ];
        for (method, path) in others {
            assert_eq!(http_operation(&method.parse().unwrap(), path), Operation::Other, "{method} {path}");
        }
    }
}
