//! What changes of the store have to tell in the change feed of a ledger on another server. It is written down with the change,
//! and carried over by whichever control plane comes to it: at least once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::lane::Lane;
use super::ledger_at::LedgerAt;
use super::place::Place;
use super::scripts;
use crate::store::StoreError;

/// Of other control planes, which may be gone: what they left is looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After it could not be carried over.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Places in one script.
const PLACES: usize = 500;

/// The way from the store to the ledger.
pub struct Outbox {
    store: Arc<Lane>,
    place: Arc<Place>,
    ledger: Arc<LedgerAt>,
}

impl Outbox {
    pub fn new(store: Arc<Lane>, place: Arc<Place>, ledger: Arc<LedgerAt>) -> Self {
        Self { store, place, ledger }
    }

    /// For as long as somebody holds it. `posted`: this process has put something in.
    pub async fn carry(outbox: Weak<Self>, posted: Arc<Notify>) {
        while let Some(carrying) = outbox.upgrade() {
            let carried = carrying.carry_all().await;
            drop(carrying);
            let pause = match carried {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    tracing::debug!(%error, "what changed is not in the change feed of the ledger yet");
                    TRY_AGAIN
                }
            };
            let _ = tokio::time::timeout(pause, posted.notified()).await;
        }
    }

    async fn carry_all(&self) -> Result<(), StoreError> {
        let most = PLACES.to_string();
        let mut told: Vec<Vec<u8>> = Vec::new();
        loop {
            let server = self.place.server();
            let mut arguments: Vec<&[u8]> = vec![self.place.name(), &server, most.as_bytes()];
            arguments.extend(told.iter().map(Vec::as_slice));
            let mut answer = self.place.good(self.store.call(&scripts::OUTBOX, &arguments).await?)?;
            told.clear();
            let mut places = Vec::new();
            while !answer.is_at_end() {
                let (place, number) = (answer.bytes()?, answer.bytes()?);
                places.push(place.clone());
                told.extend([place, number]);
            }
            if places.is_empty() {
                return Ok(());
            }
            self.ledger.touch(&places).await?;
        }
    }
}
