//! What the ledger says of itself, and whether it may have lost what it acknowledged.
//!
//! A ledger loses from the end: whoever misses a batch misses every later one. So it has all of an hour while it knows the last
//! batch of it, and it raises what it knows only behind a batch that it still has. Then neither a retry nor an answer that got lost
//! can make a loss unseen.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::record::Flush;
use crate::principal::LedgerServer;
use crate::store::{Ledger, StoreError};

impl LedgerServer {
    /// The file of this process: it loses nothing that it acknowledged while the process lives.
    pub const EMBEDDED: Self = Self([0; crate::principal::ID_BYTES]);
}

/// What the ledger says when it has taken a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Which life of which server took it.
    pub server: LedgerServer,
    /// The last batch of this incarnation and hour that it had before, 0 where it had none.
    pub known: u64,
}

/// Who was told what by the ledger, for all tasks of one meter.
#[derive(Debug, Default)]
pub struct Witness {
    server: Mutex<Option<LedgerServer>>,
    turn: AtomicU64,
    anchors: AtomicU64,
}

/// Goes up whenever the ledger may have lost what it acknowledged until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn(u64);

/// Goes up with every batch that stands behind all that was acknowledged before it: who loses one of those loses it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Anchors(u64);

impl Witness {
    pub fn turn(&self) -> Turn {
        Turn(self.turn.load(Ordering::SeqCst))
    }

    pub fn anchors(&self) -> Anchors {
        Anchors(self.anchors.load(Ordering::SeqCst))
    }

    pub fn anchored(&self) {
        self.anchors.fetch_add(1, Ordering::SeqCst);
    }

    /// Who acknowledged last.
    pub fn server(&self) -> Option<LedgerServer> {
        *self.server.lock()
    }

    /// An acknowledgement of a batch behind the one numbered `after`.
    ///
    /// # Errors
    /// It is another server than before, or it does not have the batch `after`: nothing that was acknowledged can be relied upon.
    pub fn judge(&self, said: Acknowledged, after: u64) -> Result<(), StoreError> {
        let before = self.server.lock().replace(said.server);
        let lost = if before.is_some_and(|before| before != said.server) {
            "the ledger is on another server, or was restarted"
        } else if said.known < after {
            "the ledger has lost usage that it had acknowledged"
        } else {
            return Ok(());
        };
        self.turn.fetch_add(1, Ordering::SeqCst);
        tracing::warn!(server = %said.server, "{lost}: all usage that is still here is sent again");
        Err(StoreError::Away(format!("{lost}; all is sent again")))
    }

    /// Sends a whole hour. Returns who has it now.
    ///
    /// # Errors
    /// The ledger has not taken all of it, or may have lost the first of it by now.
    pub async fn send(&self, ledger: &dyn Ledger, hour: Vec<Flush>) -> Result<Option<LedgerServer>, StoreError> {
        let (mut after, mut server) = (0, None);
        for flush in hour {
            let sequence = flush.sequence;
            let said = ledger.merge_after(flush, after).await?;
            self.judge(said, after)?;
            (after, server) = (sequence, Some(said.server));
        }
        Ok(server)
    }

    /// Asks whether the ledger still has everything up to the batch `last`, whose number alone is meant.
    pub async fn ask(&self, ledger: &dyn Ledger, last: &Flush) -> Result<Acknowledged, StoreError> {
        let nothing = Flush { lines: Vec::new(), closing: None, ..last.clone() };
        ledger.merge_after(nothing, last.sequence).await
    }
}
