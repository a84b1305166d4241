//! Reading the audit log and following its chain.

use std::ops::ControlFlow;

use super::rows::{Rows, Span};
use super::tables::{AUDIT, AUDIT_HEAD, META_AUDIT};
use crate::store::StoreError;
use crate::store::audit::{AuditEntry, AuditQuery, AuditVerdict, GENESIS, Verifier};

pub fn list(rows: &impl Rows, query: AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
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

pub fn verify(rows: &impl Rows) -> Result<AuditVerdict, StoreError> {
    let head = META_AUDIT.get(rows, AUDIT_HEAD)?.map_or((0, GENESIS), |head| (head.seq, head.hash));
    let mut verifier = Verifier::default();
    let mut broken = None;
    AUDIT.scan(rows, Span::all(), |_, entry| {
        broken = verifier.take(&entry).err();
        Ok(if broken.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(broken.map_or_else(|| verifier.finish(head), |seq| AuditVerdict::Broken { seq }))
}
