//! Which store is meant, and what its scripts say when it is not to be had.

use parking_lot::RwLock;

use super::answer::{Answer, unexpected};
use crate::principal::StoreId;
use crate::store::StoreError;

/// The store that every script is told to look for.
pub struct Place {
    pub store_id: StoreId,
    name: String,
    /// The replid of the server on which a control plane is about to open another epoch: until then only it is answered there.
    opening: RwLock<String>,
}

impl Place {
    pub fn new(store_id: StoreId) -> Self {
        Self { store_id, name: store_id.to_string(), opening: RwLock::default() }
    }

    pub fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    pub fn opening(&self) -> Vec<u8> {
        self.opening.read().clone().into_bytes()
    }

    pub fn open_on(&self, replid: &str) {
        replid.clone_into(&mut self.opening.write());
    }

    /// The answer, if it is one of the store itself.
    pub fn judged(&self, mut answer: Answer) -> Result<Answer, StoreError> {
        let frozen = match answer.said.as_str() {
            "GONE" => format!("redis is empty, and it was the store {}; restore it", self.store_id),
            "OTHER" => format!("redis is the store {} now, and it was {}", answer.text()?, self.store_id),
            "FROZEN" => answer.text()?,
            "CLOSED" => "redis is another server now, or it was restarted: it may lack changes. It is opened once every control \
                         plane has made its changes again"
                .to_owned(),
            _ => return Ok(answer),
        };
        Err(StoreError::Frozen(frozen))
    }

    /// The answer, if it is the good one.
    pub fn good(&self, answer: Answer) -> Result<Answer, StoreError> {
        let answer = self.judged(answer)?;
        if answer.said == "OK" { Ok(answer) } else { Err(unexpected("an answer of an unknown kind")) }
    }
}
