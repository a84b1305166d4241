//! Tollgate: an authentication and metering reverse proxy in front of a vector service.

pub mod clock;
pub mod config;
pub mod demo;
pub mod key;
pub mod meter;
pub mod principal;
pub mod store;
pub mod time;
pub mod verdict;
