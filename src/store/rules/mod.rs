//! The rules of the store: what a change needs, what it changes, what it writes down beside it. They are rules over rows, and
//! say nothing of where the rows are kept: each [`Backend`] runs the same ones.

pub mod accounts;
pub mod audit;
pub mod clusters;
mod control;
pub mod feed;
pub mod folds;
pub mod keys;
pub mod ledger;
pub mod queue;
mod rotation;
pub mod rows;
pub mod sessions;
mod submit;
pub mod tables;
pub mod usage;
pub mod users;

use std::ops::ControlFlow;
use std::time::Duration;

use self::rows::{RowKey, RowValue, Rows, Span, Table};
use self::tables::{
    AUDIT, AUDIT_HEAD, IDENTITY, Identity, LOG, META_AUDIT, META_IDENTITY, META_NUMBERS, META_SECRETS, REVISION,
    SCHEMA, SECRETS, WRITABLE,
};
use crate::key::Digest;
use crate::meter::record::{Counters, Operation};
use crate::principal::{AccountId, ClusterId, Revision};
use crate::store::audit::{AuditEntry, AuditEvent, GENESIS};
use crate::store::confirm::{Confirmation, GatewayState};
use crate::store::intent::AuditHead;
use crate::store::upkeep::StoreStatus;
use crate::store::{Change, LogEntry, StoreError};

/// Where rows are kept. Whoever has rows and can change them in transactions has a store.
pub trait Backend: Send + Sync + 'static {
    /// Runs `change` in a transaction and answers once it is durable. `change` may run more than once, each time on a fresh
    /// transaction; where it answers an error, nothing it wrote stays.
    fn write<T, E, F>(&self, change: F) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut dyn Changes) -> Result<T, E> + Send + 'static;

    /// Reads a few rows, all as they were at one instant. `read` may run more than once.
    fn read<T, E, F>(&self, read: F) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&dyn Rows) -> Result<T, E> + Send + 'static;

    /// The same where it may be many rows.
    fn read_long<T, E, F>(&self, read: F) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&dyn Rows) -> Result<T, E> + Send + 'static;

    fn confirm(
        &self,
        revision: Revision,
        wait: Duration,
    ) -> impl Future<Output = Result<Confirmation, StoreError>> + Send;

    fn gateways(&self) -> impl Future<Output = Result<Vec<GatewayState>, StoreError>> + Send;

    /// `Frozen` while only changes of before are made again, and no new ones.
    fn check_open(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Fails where a change could not be made durable now.
    fn check_writable(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        self.write(|tx| tx.put(&META_NUMBERS, WRITABLE, &1))
    }

    /// The row of `meta` that names the journal of this control plane.
    fn journal_row(&self) -> &str;
}

/// How a store stands, but for its journal.
pub fn status(rows: &dyn Rows) -> Result<StoreStatus, StoreError> {
    let Identity { store_id, epoch, .. } = META_IDENTITY.get_promised(rows, IDENTITY)?;
    let (schema, revision) = (META_NUMBERS.get_promised(rows, SCHEMA)?, feed::revision(rows)?);
    Ok(StoreStatus { store_id, epoch, schema, revision, secrets: META_SECRETS.get(rows, SECRETS)?, journal: None })
}

/// A transaction: it reads its own writes, and they become visible all together or not at all.
pub trait Changes: Rows {
    fn put_row(&mut self, table: &'static str, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError>;
    fn remove_row(&mut self, table: &'static str, key: Vec<u8>) -> Result<(), StoreError>;
    fn effects(&mut self) -> &mut Effects;
    /// A place in the ledger has changed: it gets the next number of the change feed.
    fn touch(&mut self, place: Vec<u8>) -> Result<(), StoreError>;
}

/// What becomes visible outside the rows once a transaction is durable.
#[derive(Default)]
pub struct Effects {
    /// Entries of the change log; with the digest where one denies a key for good.
    pub changes: Vec<(Revision, Option<Digest>)>,
    /// What the totals of usage grow by.
    pub usage: Vec<((AccountId, ClusterId, Operation), Counters)>,
    /// Places in the ledger that are to be numbered, where the change feed is not kept in rows.
    pub touched: Vec<Vec<u8>>,
}

impl dyn Changes + '_ {
    pub fn put<K: RowKey + ?Sized, V: RowValue>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), StoreError> {
        let encoded = value.encode().map_err(|why| StoreError::Corrupt(format!("table {}: {why}", table.name)))?;
        self.put_row(table.name, key.row_key(), encoded)
    }

    pub fn remove<K: RowKey + ?Sized, V: RowValue>(&mut self, table: &Table<K, V>, key: &K) -> Result<(), StoreError> {
        self.remove_row(table.name, key.row_key())
    }

    /// Removes every row within `span`.
    pub fn remove_all<K: RowKey + ?Sized, V: RowValue>(
        &mut self,
        table: &Table<K, V>,
        span: Span,
    ) -> Result<(), StoreError> {
        let mut keys = Vec::new();
        self.scan(table.name, span, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        keys.into_iter().try_for_each(|key| self.remove_row(table.name, key))
    }

    /// The revision that the next change of the log will have.
    pub fn next_revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(META_NUMBERS.get_promised(self, REVISION)? + 1))
    }

    /// Appends to the change log. What is too old to be kept there is removed by whoever commits the transaction.
    pub fn log(&mut self, change: Change) -> Result<Revision, StoreError> {
        let revision = self.next_revision()?;
        let deleted = match &change {
            Change::KeyDeleted { digest, .. } => Some(*digest),
            _ => None,
        };
        self.put(&META_NUMBERS, REVISION, &revision.0)?;
        self.put(&LOG, &revision.0, &LogEntry { revision, change })?;
        self.effects().changes.push((revision, deleted));
        Ok(revision)
    }

    /// Appends to the audit log.
    pub fn audit(&mut self, event: AuditEvent) -> Result<(), StoreError> {
        let head = META_AUDIT.get(self, AUDIT_HEAD)?;
        let entry = AuditEntry::chain(event, head.map_or((0, GENESIS), |head| (head.seq, head.hash)));
        self.put(&META_AUDIT, AUDIT_HEAD, &AuditHead { seq: entry.seq, hash: entry.hash })?;
        self.put(&AUDIT, &entry.seq, &entry)
    }

    /// Usage that this transaction adds to the totals.
    pub fn used(&mut self, whose: (AccountId, ClusterId, Operation), grown: Counters) {
        self.effects().usage.push((whose, grown));
    }
}
