//! The configuration as written.
