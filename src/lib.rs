//! Tollgate: an authentication and metering reverse proxy in front of a vector service.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read clocks for their deadlines"))]

pub mod app;
pub mod atomic;
// In the path of a call nothing may panic; a test of the tree checks that these attributes stay.
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice, clippy::unreachable))]
pub mod auth;
pub mod checksummed;
pub mod cli;
#[expect(clippy::disallowed_methods, reason = "this is the one place where clocks are read")]
pub mod clock;
pub mod config;
pub mod console;
pub mod control;
pub mod demo;
pub mod fault;
pub mod feed;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice, clippy::unreachable))]
pub mod gateway;
pub mod journal;
pub mod key;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice, clippy::unreachable))]
pub mod limits;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice, clippy::unreachable))]
pub mod meter;
pub mod mutant;
pub mod principal;
pub mod probe;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod verdict;
