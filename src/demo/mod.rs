//! A sample vector service that speaks enough of DashVector, over HTTP/1.1 and gRPC, for the official SDK: the upstream of
//! `tollgate demo` and of the tests. Everything is kept in memory, and searched exactly.
//!
//! It gives out `write_units` = documents written or removed, and `read_units` = 1 + documents in the answer. What real units
//! are computed from is not public. Requests can ask for slow and broken answers ([`switches`]), and tests read at
//! `/sample/counts` and `/sample/requests` what the service saw ([`counts`]).

mod answer;
mod api;
pub mod call;
pub mod counts;
mod engine;
mod filter;
mod folder;
mod grpc;
mod page;
pub mod proto;
mod rest;
pub mod run;
mod sample;
mod schema;
mod search;
mod seed;
mod server;
pub mod switches;
mod text;

pub use sample::SampleService;
