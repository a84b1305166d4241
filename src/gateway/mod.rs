//! The data plane.

pub mod usage;
