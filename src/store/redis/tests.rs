//! What only a store on another server can get wrong: two control planes, lost connections and servers, a store that is gone.

use std::sync::Arc;
use std::time::Duration;

use super::server::Server;
use super::{RedisStore, Role, Settings};
use crate::principal::{Incarnation, Revision};
use crate::store::accounts::{AccountError, Refusal};
use crate::store::audit::AuditVerdict;
use crate::store::contract::{self, LEASE, LIMITS, NOW, Scene, actor, at_once, contract_tests, refusal};
use crate::store::{Found, LogTail, Renew, Store, StoreError};

contract_tests!(fresh_store);

fn fresh_store() -> (Arc<Server>, Arc<dyn Store>) {
    let server = Server::shared();
    let store = control(&server.fresh(), "control-1").unwrap();
    (server, Arc::new(store))
}

fn settings(url: &str, id: &str) -> Settings {
    let role = Role::Control { id: id.to_owned(), peers: Vec::new(), known: None };
    Settings { patience: Duration::from_secs(3), ..Settings::new(url, LEASE, role) }
}

fn control(url: &str, id: &str) -> Result<RedisStore, StoreError> {
    RedisStore::open(settings(url, id))
}
