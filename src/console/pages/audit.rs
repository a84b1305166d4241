//! The audit log of the account: who did what, when, from where.

use maud::{Markup, html};

use super::keys::named;
use crate::console::ask::Refused;
use crate::console::elements::{Clock, escaped, time};
use crate::console::facts::{AuditEntry, Items, Key, KeyList, Session};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::Lang;
use crate::console::visit::Visit;

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let session: Session = visit.api.get(&visit, "/v1/session").await?;
    let entries = entries(&visit).await?;
    let list: KeyList = visit.api.get(&visit, "/v1/keys?deleted=true").await?;
    let content = html! {
        div .head { div { h1 { (lang.nav_audit()) } p .hint { (lang.audit_text()) } } }
        (table(lang, &entries, Some(&list.keys), "/console/audit", visit.asked("cursor").is_some()))
    };
    Ok(shell::page(&visit, &Whose::User(&session), Place::Audit, lang.nav_audit(), &content))
}

pub async fn entries(visit: &Visit) -> Result<Items<AuditEntry>, Refused> {
    let cursor = visit.asked("cursor").map(|cursor| format!("&cursor={}", escaped(cursor))).unwrap_or_default();
    visit.api.get(visit, &format!("/v1/audit?limit=50{cursor}")).await
}

/// The entries, newest first. `keys`: those of the one account, for their names, or else the entries are of all accounts.
/// `later`: not the first page.
pub fn table(lang: Lang, entries: &Items<AuditEntry>, keys: Option<&[Key]>, page: &str, later: bool) -> Markup {
    html! {
        div .card.list {
            table .stacked {
                caption .visually-hidden { (lang.nav_audit()) }
                thead { tr {
                    th scope="col" { (lang.when()) } th scope="col" { (lang.what()) } th scope="col" { (lang.subject()) }
                    th scope="col" { (lang.who()) } th scope="col" { (lang.origin()) }
                } }
                tbody { @for entry in &entries.items { (row(lang, entry, keys)) } }
            }
        }
        p .pager {
            @if later { a .button href=(page) { (lang.newest()) } }
            @if let Some(next) = &entries.next { a .button href={ (page) "?cursor=" (next) } { (lang.older()) } }
        }
    }
}

fn row(lang: Lang, entry: &AuditEntry, keys: Option<&[Key]>) -> Markup {
    let says = lang.action(&entry.action).unwrap_or(&entry.action);
    let key = keys.and_then(|keys| keys.iter().find(|key| key.id == entry.subject));
    html! {
        tr {
            td data-label=(lang.when()) { (time(&entry.at, Clock::Minute)) }
            th scope="row" { span .name { (says) } @if let Some(detail) = &entry.detail { code .hint.under { (detail) } } }
            td data-label=(lang.subject()) {
                @if let Some(key) = key { span .subject-name { (named(lang, key)) } }
                code { (entry.subject) }
                @if keys.is_none() { @if let Some(account) = &entry.account_id { span .hint.under { (account) } } }
            }
            td data-label=(lang.who()) { (lang.script_text(&entry.actor.kind).unwrap_or(&entry.actor.kind)) @if entry.actor.kind == "member" { span .hint.under { (entry.actor.id) } } }
            td data-label=(lang.origin()) { @if let Some(from) = &entry.actor.from { code { (from) } } @else { "—" } }
        }
    }
}
