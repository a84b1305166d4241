//! Rows in redb: a snapshot reads them, a transaction writes them.

use redb::{ReadTransaction, ReadableTable, TableDefinition, TableError};

use crate::store::StoreError;
use crate::store::rules::rows::{Rows, Span, Step};

pub type Raw<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// The store as it was when the snapshot was taken; writers do not wait for it and it does not wait for them.
pub struct Snapshot(pub ReadTransaction);

impl Rows for Snapshot {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.0.open_table(Raw::new(table)).map_err(broken)?;
        value_of(&rows, key)
    }

    fn scan(&self, table: &str, span: Span, visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError> {
        let rows = self.0.open_table(Raw::new(table)).map_err(broken)?;
        walk(&rows, &span, visit)
    }
}

pub fn value_of(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(rows.get(key).map_err(broken)?.map(|value| value.value().to_vec()))
}

pub fn walk(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    span: &Span,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
) -> Result<(), StoreError> {
    if span.is_empty() {
        return Ok(());
    }
    let mut range = rows.range::<&[u8]>(span.bounds()).map_err(broken)?;
    while let Some(row) = if span.is_newest_first() { range.next_back() } else { range.next() } {
        let (key, value) = row.map_err(broken)?;
        if visit(key.value(), value.value())?.is_break() {
            break;
        }
    }
    Ok(())
}

/// What an error of redb means for the caller.
pub fn broken(error: impl Into<redb::Error>) -> StoreError {
    use redb::Error as E;
    match error.into() {
        E::DatabaseAlreadyOpen => StoreError::Away("the file is in use by another process".to_owned()),
        error @ (E::Corrupted(_)
        | E::UpgradeRequired(_)
        | E::RepairAborted
        | E::TableTypeMismatch { .. }
        | E::TypeDefinitionChanged { .. }
        | E::TableIsMultimap(_)
        | E::TableDoesNotExist(_)) => StoreError::Corrupt(error.to_string()),
        error => StoreError::Away(error.to_string()),
    }
}

/// A table that is not there, as apart from one that cannot be read.
pub fn is_absent(error: &TableError) -> bool {
    matches!(error, TableError::TableDoesNotExist(_))
}
