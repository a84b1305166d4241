//! Envoy: its filter `api_key_auth` with all keys in the configuration; it counts nothing by account.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Doors, Site};
use crate::child::Running;
use crate::keys::Keys;

pub fn start(site: &Site<'_>) -> io::Result<(Running, Doors)> {
    let (folder, doors) = (site.folder.join("envoy"), Doors::free()?);
    fs::create_dir_all(&folder)?;
    let config = folder.join("envoy.json");
    fs::write(&config, configuration(&doors, site).to_string())?;
    let program = site.envoy.as_deref().unwrap_or(Path::new("envoy"));
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"]).arg(&config);
    let mut process = Running::start(&mut command, &folder.join("log"))?;
    doors.open(&mut process)?;
    Ok((process, doors))
}

fn configuration(doors: &Doors, site: &Site<'_>) -> Value {
    let tls = doors.tls.map(|at| listener(at, "http", site, Some(secured(site))));
    let listeners: Vec<_> = [listener(doors.http, "http", site, None), listener(doors.grpc, "grpc", site, None)]
        .into_iter()
        .chain(tls)
        .collect();
    json!({"static_resources": {
        "listeners": listeners,
        "clusters": [cluster("http", json!({"http_protocol_options": {}}), site),
                     cluster("grpc", json!({"http2_protocol_options": {}}), site)],
    }})
}

fn listener(at: SocketAddr, cluster: &str, site: &Site<'_>, transport: Option<Value>) -> Value {
    let credentials = site.keys.good.iter().enumerate();
    let credentials: Vec<_> =
        credentials.map(|(number, key)| json!({"key": key, "client": Keys::account(number)})).collect();
    let manager = json!({
        "@type": typed("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": cluster,
        "codec_type": if cluster == "grpc" { "HTTP2" } else { "HTTP1" },
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "300s"}}],
        }]},
        "http_filters": [
            {"name": "envoy.filters.http.api_key_auth", "typed_config": {
                "@type": typed("filters.http.api_key_auth.v3.ApiKeyAuth"),
                "credentials": credentials,
                "key_sources": [{"header": "dashvector-auth-token"}],
                "forwarding": {"header": "x-tollgate-account", "hide_credentials": true},
            }},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": typed("filters.http.router.v3.Router")}},
        ],
    });
    let mut chain =
        json!({"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]});
    if let Some(transport) = transport {
        chain["transport_socket"] = transport;
    }
    json!({"address": address(at), "filter_chains": [chain]})
}

fn secured(site: &Site<'_>) -> Value {
    let certificate = site.certificate;
    let pair =
        json!({"certificate_chain": {"filename": certificate.chain}, "private_key": {"filename": certificate.key}});
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": typed("transport_sockets.tls.v3.DownstreamTlsContext"),
        "common_tls_context": {
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [pair],
        },
    }})
}

/// Without its limits of connections and requests, which 128 streams would not reach, but bursts of new connections might.
fn cluster(name: &str, protocol: Value, site: &Site<'_>) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let most = json!({"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000});
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(site.upstream)}}
        ]}]},
        "typed_extension_protocol_options": {OPTIONS: {"@type": typed("upstreams.http.v3.HttpProtocolOptions"), "explicit_http_config": protocol}},
    })
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

fn typed(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

/// Envoy: what is asked for, what is on the path, or what `make peers` put below `target/peers`.
pub fn find(asked: Option<PathBuf>) -> Option<PathBuf> {
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let on_path = on_path.map(|folder| folder.join("envoy"));
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/lib");
    let made = fs::read_dir(made).into_iter().flatten().flatten();
    let made = made.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    asked.into_iter().chain(made).chain(on_path).find(|path| path.is_file())
}
