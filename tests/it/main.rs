//! All integration tests in one binary: it is linked once, and its tests run side by side.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test fails by panicking, and reads clocks for its deadlines"
)]

mod accounts;
mod bad_keys;
mod billing;
mod bodies;
mod canary;
mod commands;
mod config;
mod conformance;
mod console;
mod cost;
mod demo;
mod denials;
mod deploy;
mod drain;
mod failover;
mod full;
mod harness;
mod journal;
mod kept;
mod kill;
mod ledger;
mod many;
mod oracle;
mod outcomes;
mod probe;
mod recovery;
mod resent;
mod revoke;
mod rotation;
mod scrape;
mod sdk;
mod secured;
mod series;
mod slow;
mod supply;
mod tidy;
mod upstreams;
mod works;
mod world;
