//! The atomics of files that `tests/interleavings` compiles a second time, with loom's in this place.

pub use std::sync::atomic::{AtomicU64, Ordering};
