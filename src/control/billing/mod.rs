//! What stands around the records: when an hour is final, what changed, whether gateways and ledger agree, corrections.

pub mod abandonments;
pub mod adjustments;
pub mod archivist;
pub mod attendance;
pub mod changes;
pub mod counted;
pub mod folding;
pub mod reconciliation;
pub mod standing;
pub mod windows;
