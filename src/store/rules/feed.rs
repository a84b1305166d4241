//! What a gateway asks: the log after a place in it, one key with its account, all clusters.

use std::ops::ControlFlow;

use super::rows::{Rows, Span};
use super::tables::{ACCOUNTS, CLUSTERS, KEYS, KEYS_BY_DIGEST, LOG, META_NUMBERS, REVISION};
use crate::key::Digest;
use crate::principal::{Cluster, Epoch, Revision};
use crate::store::{Found, LogTail, Renew, StoreError};

pub fn revision(rows: &dyn Rows) -> Result<Revision, StoreError> {
    META_NUMBERS.get_promised(rows, REVISION).map(Revision)
}

/// The log behind `renew.applied`, in the epoch that is in force. A gateway without an epoch starts at 0.
pub fn tail(rows: &dyn Rows, epoch: Epoch, renew: &Renew) -> Result<LogTail, StoreError> {
    let newest = revision(rows)?;
    let applied = match renew.epoch {
        Some(theirs) if theirs != epoch => return Ok(LogTail::Trimmed),
        Some(_) => renew.applied,
        None => Revision(0),
    };
    if applied > newest {
        return Ok(LogTail::Trimmed);
    }
    let entries = LOG.list(rows, Span::all().after(&applied.0), LogTail::MOST)?;
    let wanted = (applied < newest).then_some(Revision(applied.0 + 1));
    let reaches = entries.first().map(|entry| entry.revision) == wanted;
    Ok(if reaches { LogTail::Entries(entries) } else { LogTail::Trimmed })
}

pub fn find(rows: &dyn Rows, digest: Digest) -> Result<Found, StoreError> {
    let Some(key_id) = KEYS_BY_DIGEST.get(rows, &digest)? else {
        return Ok(Found::Unknown);
    };
    let key = KEYS.get_promised(rows, &key_id)?;
    if key.deleted.is_some() {
        return Ok(Found::Deleted);
    }
    let account = ACCOUNTS.get_promised(rows, &key.credential.account_id)?.account;
    Ok(Found::Key { credential: key.credential, account })
}

pub fn clusters(rows: &dyn Rows) -> Result<Vec<Cluster>, StoreError> {
    let mut clusters = Vec::new();
    CLUSTERS.scan(rows, Span::all(), |_, record| {
        clusters.push(record.cluster);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(clusters)
}
