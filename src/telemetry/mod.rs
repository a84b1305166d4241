//! What an operator sees: the log, and the operational metrics. Neither ever holds a key, a token or an account id.

pub mod log;
pub mod metrics;
