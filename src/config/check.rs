//! Mistakes that no single value shows: keys that do not fit together, addresses taken twice, files that are not there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use super::mistakes::Found;
use super::settings::{self as s, Row};
use super::{Config, ControlConfig, LimitsConfig, StoreKind, TlsConfig, secret};

pub(super) fn check(config: &Config, found: &mut Found) {
    planes(config, found);
    addresses(config, found);
    if let Some(gateway) = &config.gateway {
        tls(gateway.tls.as_ref(), &s::GATEWAY_TLS_CERT.0, &s::GATEWAY_TLS_KEY.0, found);
        limits(&gateway.limits, found);
    }
    if let Some(control) = &config.control {
        tls(control.tls.as_ref(), &s::CONTROL_TLS_CERT.0, &s::CONTROL_TLS_KEY.0, found);
        names(control, found);
    }
    ledger(config, found);
    secrets(config, found);
    folders(config, found);
}

fn planes(config: &Config, found: &mut Found) {
    if config.gateway.is_none() && config.control.is_none() {
        found.note("", "the file has neither [gateway] nor [control]; a node is at least one of them");
    }
    let served = config.gateway.is_none() || config.control.is_some() || config.health.listen.is_some();
    if !served {
        let text = "is needed on a node without [control]; add a line like listen = \"127.0.0.1:9091\" below [health]";
        found.note(s::HEALTH_LISTEN.0.path, text);
    }
}

/// Every listener with its key, and no two that cannot be bound at once.
fn addresses(config: &Config, found: &mut Found) {
    let gateway = config.gateway.as_ref().map(|gateway| gateway.listen.as_slice());
    if gateway.is_some_and(<[SocketAddr]>::is_empty) {
        found.note(s::GATEWAY_LISTEN.0.path, "is empty; name at least one address like [\"127.0.0.1:8080\"]");
    }
    let gateway = gateway.into_iter().flatten().map(|at| (s::GATEWAY_LISTEN.0.path, *at));
    let control = config.control.iter().map(|control| (s::CONTROL_LISTEN.0.path, control.listen));
    let health = config.health.listen.iter().map(|at| (s::HEALTH_LISTEN.0.path, *at));
    let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
    for (key, at) in gateway.chain(control).chain(health) {
        if let Some((other, _)) = taken.iter().find(|(_, other)| collide(*other, at)) {
            found.note(key, format!("{at} is taken already by {other}; choose another port"));
        }
        taken.push((key, at));
    }
}

/// An unspecified address (0.0.0.0, ::) takes the port of every address of its kind.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    let overlap = one.ip() == other.ip() || (everywhere && one.is_ipv4() == other.is_ipv4());
    one.port() != 0 && one.port() == other.port() && overlap
}

fn limits(limits: &LimitsConfig, found: &mut Found) {
    let pairs = [
        (limits.uri_bytes > limits.header_bytes, &s::URI_BYTES.0, "header_bytes, which contains it"),
        (limits.h2_stream_window > limits.h2_connection_window, &s::H2_STREAM_WINDOW.0, "h2_connection_window"),
        (limits.upstream_connect > limits.total, &s::UPSTREAM_CONNECT.0, "total, the time for a whole call"),
    ];
    for (_, row, other) in pairs.into_iter().filter(|(wrong, ..)| *wrong) {
        found.note(row.path, format!("is greater than {other}; lower it, or raise the other"));
    }
}

fn names(control: &ControlConfig, found: &mut Found) {
    if control.peers.contains(&control.id) {
        found.note(s::CONTROL_PEERS.0.path, "contains this control plane itself; name only the others");
    }
    if control.peers.iter().collect::<BTreeSet<_>>().len() < control.peers.len() {
        found.note(s::CONTROL_PEERS.0.path, "contains a name twice; each control plane has a name of its own");
    }
}

/// An embedded store is one file, and its usage is in it.
fn ledger(config: &Config, found: &mut Found) {
    if config.meter.ledger.is_some() && matches!(config.store.kind, StoreKind::Embedded { .. }) {
        found.note(
            s::LEDGER_URL.0.path,
            "is of no use beside an embedded store, which keeps usage itself; remove it, or use store.kind = \"redis\"",
        );
    }
}

fn tls(tls: Option<&TlsConfig>, cert: &Row, key: &Row, found: &mut Found) {
    let Some(tls) = tls else {
        return;
    };
    if !tls.cert.is_file() {
        found.note(cert.path, format!("there is no file {}; put the certificate chain there", tls.cert.display()));
    }
    if let Err(fault) = secret::private_file(&tls.key) {
        found.note(key.path, fault.to_string());
    }
}

fn secrets(config: &Config, found: &mut Found) {
    let mut note = |row: Row, read: Result<(), secret::SecretFault>| {
        if let Err(fault) = read {
            found.note(row.path, fault.to_string());
        }
    };
    note(s::PEPPER_FILE.0, secret::key32(&config.secrets.pepper_file).map(drop));
    if let Some(file) = &config.secrets.previous_pepper_file {
        note(s::PREVIOUS_PEPPER_FILE.0, secret::key32(file).map(drop));
    }
    let Some(control) = &config.control else {
        return;
    };
    note(s::SEALING_KEY_FILE.0, secret::key32(&config.secrets.sealing_key_file).map(drop));
    if let Some(file) = &config.secrets.previous_sealing_key_file {
        note(s::PREVIOUS_SEALING_KEY_FILE.0, secret::key32(file).map(drop));
    }
    note(s::OPERATOR_TOKEN_FILE.0, secret::token(&control.operator_token_file).map(drop));
    if let Some(file) = &control.billing_token_file {
        note(s::BILLING_TOKEN_FILE.0, secret::token(file).map(drop));
    }
}

/// Files are made where they are missing, and so is the last folder of a path; a missing folder above it is a mistake.
fn folders(config: &Config, found: &mut Found) {
    let path = match &config.store.kind {
        StoreKind::Embedded { path } => Some(path),
        StoreKind::Redis(_) => None,
    };
    let slab = config.meter.slab_dir.as_ref();
    let places = [(&s::STORE_PATH.0, path), (&s::METER_DIR.0, Some(&config.meter.dir)), (&s::SLAB_DIR.0, slab)];
    for (row, place) in places {
        let Some(parent) = place.and_then(|place| place.parent()) else {
            continue;
        };
        let here = parent == Path::new("");
        if !here && !parent.is_dir() {
            found.note(row.path, format!("there is no folder {}; make it, or choose another place", parent.display()));
        }
    }
}
