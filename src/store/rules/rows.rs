//! Typed rows: every table maps bytes to bytes, in the order of their keys, and [`Table`] knows what they mean. A row that cannot
//! be read is an error with the names of its table and key, never a panic.

use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow, RangeBounds};

use data_encoding::HEXLOWER;
use serde::{Serialize, de::DeserializeOwned};

use crate::key::Digest;
use crate::principal::{AccountId, ClusterId, Incarnation, JournalId, KeyId, SessionId, UserId};
use crate::store::StoreError;
use crate::store::records::TokenHash;

pub type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A table with keys `K` and values `V`.
pub struct Table<K: ?Sized, V> {
    pub name: &'static str,
    types: PhantomData<fn(&K) -> V>,
}

impl<K: RowKey + ?Sized, V: RowValue> Table<K, V> {
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    pub fn get(&self, rows: &dyn Rows, key: &K) -> Result<Option<V>, StoreError> {
        let key = key.row_key();
        rows.get(self.name, &key)?.map(|value| self.decode(&key, &value)).transpose()
    }

    /// The row that another row promises.
    pub fn get_promised(&self, rows: &dyn Rows, key: &K) -> Result<V, StoreError> {
        self.get(rows, key)?.ok_or_else(|| {
            let key = HEXLOWER.encode(&key.row_key());
            StoreError::Corrupt(format!("table {}: the row {key} is missing", self.name))
        })
    }

    /// Visits the rows within `span`, in the order of their keys, until `visit` breaks.
    pub fn scan(&self, rows: &dyn Rows, span: Span, mut visit: impl FnMut(&[u8], V) -> Step) -> Result<(), StoreError> {
        rows.scan(self.name, span, &mut |key, value| visit(key, self.decode(key, value)?))
    }

    /// The values within `span`, at most `limit` of them.
    pub fn list(&self, rows: &dyn Rows, span: Span, limit: usize) -> Result<Vec<V>, StoreError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.scan(rows, span, |_, value| {
            found.push(value);
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<V, StoreError> {
        V::decode(value).map_err(|why| {
            StoreError::Corrupt(format!("table {}: the row {} is not readable: {why}", self.name, HEXLOWER.encode(key)))
        })
    }
}

/// What a visit of a row says: go on, stop, or fail.
pub type Step = Result<ControlFlow<()>, StoreError>;

/// A range of keys, as bytes, and the direction to walk it.
#[derive(Clone, Debug)]
pub struct Span {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    newest_first: bool,
}

impl Span {
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded, newest_first: false }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix<K: RowKey + ?Sized>(prefix: &K) -> Self {
        let from = prefix.row_key();
        let to = end_of_prefix(&from).map_or(Bound::Unbounded, Bound::Excluded);
        Self { from: Bound::Included(from), to, newest_first: false }
    }

    #[must_use]
    pub fn after<K: RowKey + ?Sized>(self, key: &K) -> Self {
        Self { from: Bound::Excluded(key.row_key()), ..self }
    }

    #[must_use]
    pub fn before<K: RowKey + ?Sized>(self, key: &K) -> Self {
        Self { to: Bound::Excluded(key.row_key()), ..self }
    }

    #[must_use]
    pub fn from<K: RowKey + ?Sized>(self, key: &K) -> Self {
        Self { from: Bound::Included(key.row_key()), ..self }
    }

    #[must_use]
    pub fn backwards(self) -> Self {
        Self { newest_first: true, ..self }
    }

    /// What is left to walk once `key` was visited.
    #[must_use]
    pub fn beyond(self, key: &[u8]) -> Self {
        if self.newest_first { self.before(key) } else { self.after(key) }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        RangeBounds::<[u8]>::contains(&self.bounds(), key)
    }

    pub fn bounds(&self) -> Bounds<'_> {
        (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice))
    }

    pub fn is_newest_first(&self) -> bool {
        self.newest_first
    }

    /// It ends before it begins.
    pub fn is_empty(&self) -> bool {
        use Bound::{Excluded, Included};
        match (&self.from, &self.to) {
            (Included(from), Included(to)) => from > to,
            (Included(from) | Excluded(from), Excluded(to)) | (Excluded(from), Included(to)) => from >= to,
            _ => false,
        }
    }
}

fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// Reads rows: a snapshot, or a transaction that sees its own writes.
pub trait Rows {
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    fn scan(&self, table: &str, span: Span, visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), StoreError>;
}

/// The bytes of a key. Numbers are big-endian, so that the order of bytes is the order of numbers.
pub trait RowKey {
    fn row_key(&self) -> Vec<u8>;
}

macro_rules! byte_keys {
    ($($id:ty),+) => { $(impl RowKey for $id { fn row_key(&self) -> Vec<u8> { self.0.to_vec() } })+ };
}
byte_keys!(AccountId, UserId, KeyId, ClusterId, SessionId, JournalId, Incarnation, Digest, TokenHash);

impl RowKey for str {
    fn row_key(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl RowKey for [u8] {
    fn row_key(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl RowKey for u64 {
    fn row_key(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
}

impl<A: RowKey, B: RowKey> RowKey for (A, B) {
    fn row_key(&self) -> Vec<u8> {
        [self.0.row_key(), self.1.row_key()].concat()
    }
}

impl<A: RowKey, B: RowKey, C: RowKey> RowKey for (A, B, C) {
    fn row_key(&self) -> Vec<u8> {
        [self.0.row_key(), self.1.row_key(), self.2.row_key()].concat()
    }
}

/// The bytes of a value.
pub trait RowValue: Sized {
    fn encode(&self) -> Result<Vec<u8>, String>;
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

/// JSON, for everything that a person may want to look at one day.
pub trait Json: Serialize + DeserializeOwned {}

impl<T: Json> RowValue for T {
    fn encode(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        // The position is enough: the text of serde may quote what it could not read.
        serde_json::from_slice(bytes).map_err(|error| format!("JSON, line {} column {}", error.line(), error.column()))
    }
}
