//! Every row of the table of denials (interfaces, section 3) on a real socket, in each of its forms: HTTP/1.1, HTTP/2 and gRPC.

pub mod ask;
mod bodies;
mod forms;
mod identity;
mod limits;
pub mod unknowable;
mod upstream;
