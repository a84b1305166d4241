//! Tollgate: an authentication and metering reverse proxy in front of a vector service.

pub mod auth;
pub mod clock;
pub mod config;
pub mod feed;
pub mod gateway;
pub mod key;
pub mod limits;
pub mod meter;
pub mod principal;
pub mod store;
pub mod time;
pub mod verdict;
