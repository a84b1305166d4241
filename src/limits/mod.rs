//! Limits: calls in all and per account, connections per address, failures per whoever failed. What is taken is given back on drop.

pub mod account;
pub mod calls;
pub mod connection;
pub mod failed_auth;
pub mod failure;

pub use account::{AccountLimits, Limits, Permit};
pub use calls::{CallCap, CallPlace};
pub use connection::{ConnectionCaps, ConnectionPermit, Full};
pub use failed_auth::{FailedAuth, ShownKeys};
pub use failure::FailureThrottle;
