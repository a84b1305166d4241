//! The data plane.

pub mod address;
pub mod extract;
pub mod form;
pub mod headers;
pub mod route;
pub mod usage;
