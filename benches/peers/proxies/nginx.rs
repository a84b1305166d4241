//! nginx, in two ways: with Lua, as gateways built on it do (SHA-256, a shared dictionary of accounts, counters in another), and with a
//! `map` that is compiled in: no hash, no count, and a reload to change a key.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Doors, Site};
use crate::child::Running;
use crate::keys::Keys;

const MODULES: &str = "/usr/lib/nginx/modules";

/// The module for Lua, where it is installed.
pub fn lua_module() -> Option<PathBuf> {
    Some(Path::new(MODULES).join("ngx_http_lua_module.so")).filter(|path| path.exists())
}

pub fn start(site: &Site<'_>, lua: bool) -> io::Result<(Running, Doors)> {
    let (folder, doors) = (site.folder.join(if lua { "nginx-lua" } else { "nginx-static" }), Doors::free()?);
    fs::create_dir_all(&folder)?;
    let way = if lua { by_lua(site, &folder)? } else { by_map(site, &folder)? };
    let config = folder.join("nginx.conf");
    fs::write(&config, configuration(&doors, site, &folder, &way))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(&config);
    let mut process = Running::start(&mut command, &folder.join("log"))?;
    doors.open(&mut process)?;
    Ok((process, doors))
}

/// What differs between the two ways.
struct Way {
    /// Before everything.
    modules: String,
    /// In `http`.
    keys: String,
    /// In each `location`; sets `$account`, or answers 401.
    check: &'static str,
}

fn by_map(site: &Site<'_>, folder: &Path) -> io::Result<Way> {
    let mut lines = String::new();
    for (number, key) in site.keys.good.iter().enumerate() {
        writeln!(lines, "{key} {};", Keys::account(number)).map_err(io::Error::other)?;
    }
    let map = folder.join("keys.map");
    fs::write(&map, lines)?;
    let keys = format!(
        "map_hash_max_size 65536; map_hash_bucket_size 128;
    map $http_dashvector_auth_token $account {{ default ''; include {}; }}",
        map.display()
    );
    Ok(Way { modules: String::new(), keys, check: "if ($account = '') { return 401; }" })
}

fn by_lua(site: &Site<'_>, folder: &Path) -> io::Result<Way> {
    let digests = folder.join("keys.map");
    site.keys.write_digests(&digests)?;
    let modules = format!("load_module {MODULES}/ndk_http_module.so;\nload_module {MODULES}/ngx_http_lua_module.so;");
    let keys = format!(
        "lua_shared_dict accounts 16m;
    lua_shared_dict counts 16m;
    init_by_lua_block {{
        ffi = require 'ffi'
        ffi.cdef 'unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest);'
        digest_of_key = ffi.new('unsigned char[32]')
        for line in io.lines('{}') do
            local digest, account = line:match('^(%x+) (%S+)$')
            digest = digest:gsub('%x%x', function(pair) return string.char(tonumber(pair, 16)) end)
            ngx.shared.accounts:set(digest, account)
        end
    }}",
        digests.display()
    );
    Ok(Way { modules, keys, check: LUA })
}

const LUA: &str = "set $account '';
        access_by_lua_block {
            local key = ngx.var.http_dashvector_auth_token
            if not key then return ngx.exit(401) end
            ffi.C.SHA256(key, #key, digest_of_key)
            local account = ngx.shared.accounts:get(ffi.string(digest_of_key, 32))
            if not account then return ngx.exit(401) end
            ngx.shared.counts:incr(account, 1, 0)
            ngx.var.account = account
        }";

fn configuration(doors: &Doors, site: &Site<'_>, folder: &Path, way: &Way) -> String {
    let Doors { http, grpc, .. } = doors;
    let Way { modules, keys, check } = way;
    let (upstream, certificate, folder) = (site.upstream, site.certificate, folder.display());
    let (chain, key) = (certificate.chain.display(), certificate.key.display());
    let tls = doors.tls.map(|tls| format!("listen {tls} ssl;")).unwrap_or_default();
    format!(
        "{modules}
daemon off;
pid {folder}/pid;
error_log {folder}/error.log error;
worker_processes 1;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    {keys}
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    proxy_max_temp_file_size 0;
    keepalive_requests 1000000000;
    keepalive_timeout 75s;
    upstream service {{
        server {upstream};
        keepalive 512; keepalive_requests 1000000000;
    }}
    server {{
        listen {http};
        {tls}
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            {check}
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_set_header Host $http_host;
            proxy_set_header dashvector-auth-token '';
            proxy_set_header x-tollgate-account $account;
        }}
    }}
    server {{
        listen {grpc} http2;
        http2_max_concurrent_streams 256;
        location / {{
            {check}
            grpc_pass grpc://service;
            grpc_set_header dashvector-auth-token '';
            grpc_set_header x-tollgate-account $account;
        }}
    }}
}}
"
    )
}
