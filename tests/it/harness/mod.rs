//! What tests and benchmarks drive Tollgate with: the real binary as a child process, a client that writes raw bytes, and a client for
//! HTTP/2 and gRPC. Everything has a deadline; a test that hangs is a test that fails.
#![allow(dead_code, reason = "a harness offers more than the tests of one day use")]

pub mod books;
pub mod browser;
pub mod faulty;
pub mod fleet;
pub mod group;
pub mod h1;
pub mod h2;
pub mod office;
pub mod pipe;
pub mod process;
pub mod prometheus;
pub mod raw;
pub mod redis;
pub mod ring;
pub mod scripted;
pub mod stage;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Once;
use std::time::Duration;

/// How long anything may take on a busy machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The address of a URL like `http://127.0.0.1:8080`, as the demo reports them.
pub fn address(url: &str) -> SocketAddr {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.trim_end_matches('/').parse().unwrap_or_else(|_| panic!("{url} is not a URL of an IP address with a port"))
}

/// Installs the one TLS provider of this process. For tests that speak TLS themselves.
pub fn tls_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| rustls::crypto::ring::default_provider().install_default().expect("nobody else installs one"));
}
