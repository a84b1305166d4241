//! Reading the audit log: the operator all of it, an account's root user their own part.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::accounts::Items;
use super::caller::Caller;
use super::error::{Kind, Problem};
use super::request::QueryOf;
use crate::principal::AccountId;
use crate::store::audit::{Actor, ActorKind, AuditEntry, AuditQuery, ChainHash};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    account: Option<AccountId>,
    /// Continues behind the entry with this number.
    cursor: Option<u64>,
    limit: Option<usize>,
}

/// Who asked for a change, and from where.
#[derive(Debug, Serialize, ToSchema)]
pub struct Who {
    kind: ActorKind,
    /// A user id, or a name for who has none.
    id: String,
    /// The address the request came from; absent for what nobody asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
}

/// An entry as the store has it, with its time in RFC 3339.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct EntryView {
    seq: u64,
    at: String,
    actor: Who,
    action: String,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    previous: ChainHash,
    hash: ChainHash,
}

/// Newest first.
pub async fn list(
    State(control): State<Arc<Control>>,
    caller: Caller,
    QueryOf(query): QueryOf<Query>,
) -> Result<Json<Items<EntryView, String>>, Problem> {
    let account_id = readable(&caller, query.account)?;
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let entries = control.store.audit(AuditQuery { account_id, before: query.cursor, limit }).await?;
    let next = entries.last().filter(|last| entries.len() == limit && last.seq > 1).map(|last| last.seq.to_string());
    Ok(Json(Items { items: entries.into_iter().map(view).collect(), next }))
}

fn readable(caller: &Caller, asked: Option<AccountId>) -> Result<Option<AccountId>, Problem> {
    match caller {
        Caller::Operator(_) => Ok(asked),
        Caller::Root(root) if asked.is_none_or(|asked| asked == root.account_id()) => Ok(Some(root.account_id())),
        Caller::Member(..) => Err(Kind::RootOnly.into()),
        Caller::Root(_) => Err(Kind::Forbidden.into()),
    }
}

fn view(entry: AuditEntry) -> EntryView {
    let AuditEntry { seq, at, actor, action, subject, account_id, detail, previous, hash } = entry;
    let Actor { kind, id, from } = actor;
    let actor = Who { kind, id, from: from.map(|from| from.to_string()) };
    EntryView { seq, at: at.to_string(), actor, action, subject, account_id, detail, previous, hash }
}
