//! HAProxy: SHA-256 of the key, a map file from digests to accounts, counters by account in a stick table.

use std::fs;
use std::io;
use std::process::Command;

use super::{Doors, Site};
use crate::child::Running;

pub fn start(site: &Site<'_>) -> io::Result<(Running, Doors)> {
    let (folder, doors) = (site.folder.join("haproxy"), Doors::free()?);
    fs::create_dir_all(&folder)?;
    site.keys.write_digests(&folder.join("keys.map"))?;
    // It wants chain and key in one file.
    let pem = folder.join("both.pem");
    fs::write(&pem, [fs::read(&site.certificate.chain)?, fs::read(&site.certificate.key)?].concat())?;
    let config = folder.join("haproxy.cfg");
    let (map, pem) = (folder.join("keys.map"), pem.display());
    fs::write(&config, configuration(&doors, site, &map.display().to_string(), &pem.to_string()))?;
    let mut process = Running::start(Command::new("haproxy").arg("-db").arg("-f").arg(&config), &folder.join("log"))?;
    doors.open(&mut process)?;
    Ok((process, doors))
}

fn configuration(doors: &Doors, site: &Site<'_>, map: &str, pem: &str) -> String {
    let Doors { http, grpc, .. } = doors;
    let tls = doors.tls.map(|tls| format!("bind {tls} ssl crt {pem} alpn http/1.1")).unwrap_or_default();
    let upstream = site.upstream;
    format!(
        "global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    option http-keep-alive
    http-reuse always
frontend calls
    bind {http}
    bind {grpc} proto h2
    {tls}
    http-request set-var(txn.account) req.hdr(dashvector-auth-token),sha2(256),hex,map_str({map})
    http-request return status 401 content-type application/json string '{{\"code\":-2999}}' unless {{ var(txn.account) -m found }}
    http-request track-sc0 var(txn.account) table accounts
    http-request del-header dashvector-auth-token
    http-request set-header x-tollgate-account %[var(txn.account)]
    use_backend grpc if {{ req.hdr(content-type) -m beg application/grpc }}
    default_backend http
backend accounts
    stick-table type string len 32 size 32k expire 1h store http_req_cnt,bytes_in_cnt,bytes_out_cnt
backend http
    server service {upstream} pool-max-conn -1
backend grpc
    server service {upstream} proto h2 pool-max-conn -1
"
    )
}
