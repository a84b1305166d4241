//! Reading the audit log and following its chain.

use std::ops::ControlFlow;

use super::rows::{Rows, Span};
use super::tables::{AUDIT, AUDIT_HEAD, META_AUDIT};
use crate::store::StoreError;
use crate::store::audit::{AuditEntry, AuditQuery, AuditVerdict, GENESIS, Verifier};
use crate::store::intent::AuditHead;

pub fn list(rows: &dyn Rows, query: AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
    let span = query.before.map_or_else(Span::all, |before| Span::all().before(&before)).backwards();
    let mut found = Vec::new();
    if query.limit == 0 {
        return Ok(found);
    }
    AUDIT.scan(rows, span, |_, entry| {
        if query.account_id.is_none_or(|account_id| entry.account_id == Some(account_id)) {
            found.push(entry);
        }
        Ok(if found.len() < query.limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// `known` is an entry that somebody else remembers: it must be there and be the same.
pub fn verify(rows: &dyn Rows, known: Option<AuditHead>) -> Result<AuditVerdict, StoreError> {
    let head = META_AUDIT.get(rows, AUDIT_HEAD)?.unwrap_or(AuditHead { seq: 0, hash: GENESIS });
    let mut verifier = Verifier::default();
    let mut broken = None;
    let scanned = AUDIT.scan(rows, Span::all(), |_, entry| {
        let rewritten = known.filter(|known| known.seq == entry.seq && known.hash != entry.hash);
        broken = verifier.take(&entry).err().or(rewritten.map(|known| known.seq));
        Ok(if broken.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    match scanned {
        // An entry that cannot be read at all is a bad entry too.
        Err(StoreError::Corrupt(_)) => return Ok(AuditVerdict::Broken { seq: verifier.next() }),
        scanned => scanned?,
    }
    let cut = known.filter(|known| known.seq >= verifier.next()).map(|_| verifier.next());
    Ok(match broken.or(cut) {
        Some(seq) => AuditVerdict::Broken { seq },
        None => verifier.finish((head.seq, head.hash)),
    })
}
