//! Limits: calls per account, connections per address. What is taken is given back on drop.

pub mod account;
pub mod connection;

pub use account::{AccountLimits, Limits, Permit};
pub use connection::{ConnectionCaps, ConnectionPermit, Full};
