//! Which store is meant, and what its scripts say when it is not to be had.

use parking_lot::RwLock;

use super::answer::{Answer, unexpected};
use crate::principal::StoreId;
use crate::store::StoreError;

/// The store that every script is told to look for.
pub struct Place {
    pub store_id: StoreId,
    name: String,
    server: RwLock<Server>,
}

/// The server that a control plane means, of several that may call themselves the master: a change goes nowhere else.
struct Server {
    /// Empty where none is meant in particular, as by a gateway.
    replid: String,
    /// Whether this control plane has made its changes again there, and the epoch is open.
    is_open: bool,
}

impl Place {
    pub fn new(store_id: StoreId) -> Self {
        Self {
            store_id,
            name: store_id.to_string(),
            server: RwLock::new(Server { replid: String::new(), is_open: true }),
        }
    }

    pub fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    pub fn server(&self) -> Vec<u8> {
        self.server.read().replid.clone().into_bytes()
    }

    pub fn is_open(&self) -> bool {
        self.server.read().is_open
    }

    /// Whether this is the server that is meant, and changes were made again there.
    pub fn is_open_on(&self, replid: &str) -> bool {
        let server = self.server.read();
        server.is_open && server.replid == replid
    }

    /// Means this server from now on. What was made elsewhere until then is in the journal.
    pub fn mean(&self, replid: &str, is_open: bool) {
        *self.server.write() = Server { replid: replid.to_owned(), is_open };
    }

    /// The epoch is open on the server that is meant, if that is still this one.
    pub fn opened(&self, replid: &[u8]) {
        let mut server = self.server.write();
        server.is_open |= server.replid.as_bytes() == replid;
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
