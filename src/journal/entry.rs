//! What stands in a journal: a change before it is asked for, and what became of it.

use serde::{Deserialize, Serialize};

use crate::store::intent::{AuditHead, Intent, Noted};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The store is about to be asked.
    Intent(Intent),
    /// The store has made it.
    Done { no: u64, noted: Noted },
    /// The store answered no. It is never asked for again.
    Refused { no: u64 },
    /// How long the audit log is now: at a start, and after a restore, which writes part of it anew.
    Audited(AuditHead),
}
