//! API Key Management: the keys of the account, what they do, and how many more there may be.

use maud::{Markup, html};

use super::key_dialogs;
use crate::clock;
use crate::console::ask::Refused;
use crate::console::chart::spark;
use crate::console::elements::{Clock, badge, count, escaped, icon, time};
use crate::console::facts::{AccountStatus, Cluster, Items, Key, KeyList, KeyStatus, Session};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::{Lang, fill};
use crate::console::usage::{Record, Span, hour_of, instant};
use crate::console::visit::Visit;

/// A key that nobody used for so long is worth a question.
const UNUSED_HOURS: i64 = 90 * 24;

/// A key with its calls in each of the last 24 hours.
struct Row {
    key: Key,
    calls: Vec<u64>,
}

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let (api, lang) = (&visit.api, visit.lang);
    let session: Session = api.get(&visit, "/v1/session").await?;
    let with_deleted = visit.asked("deleted").is_some();
    let list: KeyList = api.get(&visit, if with_deleted { "/v1/keys?deleted=true" } else { "/v1/keys" }).await?;
    let clusters: Items<Cluster> = api.get(&visit, &format!("/v1/accounts/{}/clusters", session.account_id)).await?;
    let now = i64::from(clock::wall().hour().0);
    let span = Span::until(now, 24, 1, 0);
    let target = format!("/v1/usage/records?by=key&limit=100000&from={}", escaped(&instant(span.from)));
    let records: Vec<Record> = api.lines(&visit, &target).await?;
    let KeyList { keys, .. } = list;
    let list = KeyList { keys: Vec::new(), ..list };
    let (deleted, live): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.status == KeyStatus::Deleted);
    let rows: Vec<Row> = live.into_iter().map(|key| row(key, span, &records)).collect();
    let obstacle = obstacle(lang, &session, &list, !clusters.items.is_empty());
    let content = html! {
        (head(lang, &session, &list, obstacle.as_ref()))
        @for row in &rows { (warnings(lang, row, now)) }
        @if rows.is_empty() { (nothing_yet(lang, &session)) } @else { (table(lang, &session, &rows)) }
        (deleted_keys(lang, with_deleted, &deleted))
        @if session.is_root() { (key_dialogs::all(lang, &clusters.items)) }
    };
    Ok(shell::page(&visit, &Whose::User(&session), Place::Keys, lang.nav_keys(), &content))
}

fn row(key: Key, span: Span, records: &[Record]) -> Row {
    let own = records.iter().filter(|record| record.key_id == key.id);
    let calls = span.sums(own).iter().map(super::super::usage::Sum::calls).collect();
    Row { key, calls }
}

/// Why no key can be created now.
fn obstacle(lang: Lang, session: &Session, list: &KeyList, has_cluster: bool) -> Option<Markup> {
    if session.status == AccountStatus::Suspended {
        return Some(html! { (lang.cannot_suspended()) });
    }
    if !session.verified {
        return Some(html! { (lang.cannot_unverified()) });
    }
    if !has_cluster {
        return Some(html! { (lang.cannot_no_cluster()) });
    }
    if list.active >= list.active_max {
        return Some(html! { (fill(lang.cannot_active(), &[&list.active, &list.active_max])) });
    }
    if list.created_today >= list.daily_max {
        let says = fill(lang.cannot_today(), &[&list.created_today, &list.daily_max]);
        return Some(html! { (says) " " (time(&list.resets_at, Clock::Minute)) (lang.full_stop()) });
    }
    None
}

fn head(lang: Lang, session: &Session, list: &KeyList, obstacle: Option<&Markup>) -> Markup {
    let active = fill(lang.active_of(), &[&list.active, &list.active_max]);
    let today = fill(lang.created_of(), &[&list.created_today, &list.daily_max]);
    html! {
        div .head {
            div {
                h1 { (lang.keys_title()) }
                p .hint { (lang.keys_text()) }
                p .quota #quota {
                    span .pips aria-hidden="true" { @for at in 0..list.active_max.min(10) { i .full[at < list.active] {} } }
                    (active) " · " (today)
                }
            }
            @if session.is_root() {
                div .action {
                    button type="button" .primary #create data-open="create-key" disabled[obstacle.is_some()]
                        aria-describedby=[obstacle.map(|_| "create-why")] { (icon("M8 3v10M3 8h10")) (lang.create_key()) }
                    @if let Some(why) = obstacle { p .hint #create-why { (why) } }
                }
            }
        }
        @if !session.is_root() { p .banner.info { (lang.read_only()) } }
    }
}

fn nothing_yet(lang: Lang, session: &Session) -> Markup {
    html! {
        div .empty.card {
            (icon("M10.500 2.500a3 3 0 1 0 0 6a3 3 0 1 0 0-6M8.400 7.600L2.500 13.500M4.500 11.500l1.500 1.500"))
            h2 { (lang.no_keys()) }
            @if session.is_root() { p .hint { (lang.no_keys_text()) } }
        }
    }
}

fn warnings(lang: Lang, row: &Row, now: i64) -> Markup {
    let key = &row.key;
    let name = named(lang, key);
    let old = hour_of(&key.created_at).is_some_and(|created| now - created > UNUSED_HOURS);
    let unused = key.last_used_at.as_deref().and_then(hour_of).is_none_or(|used| now - used > UNUSED_HOURS);
    html! {
        @if key.seen_in_browser {
            p .banner.warn { strong { (name) } " " (lang.seen_in_browser()) " " a href=(rotation(&key.id)) { (lang.rotate_it()) } }
        }
        @if old && unused { p .banner.info { strong { (name) } " " (lang.unused_long()) } }
    }
}

fn table(lang: Lang, session: &Session, rows: &[Row]) -> Markup {
    html! {
        div .card.list {
            table .keys {
                caption .visually-hidden { (lang.nav_keys()) }
                thead { tr {
                    th scope="col" { (lang.key()) }
                    th scope="col" { (lang.created()) }
                    th scope="col" { (lang.last_used()) }
                    th scope="col" { (lang.calls_24h()) }
                    th scope="col" { (lang.status()) }
                    @if session.is_root() { th scope="col" { span .visually-hidden { (lang.actions()) } } }
                } }
                tbody { @for row in rows { (table_row(lang, session, row)) } }
            }
        }
    }
}

fn table_row(lang: Lang, session: &Session, row: &Row) -> Markup {
    let key = &row.key;
    let calls: u64 = row.calls.iter().sum();
    html! {
        tr id=(key.id) {
            th scope="row" { span .name { (named(lang, key)) } code .masked { (key.masked) } }
            td data-label=(lang.created()) { (time(&key.created_at, Clock::Day)) }
            td data-label=(lang.last_used()) { (last_used(lang, key)) }
            td data-label=(lang.calls_24h()) {
                span .traffic { span .figure { (count(calls)) } (spark(&row.calls, &fill(lang.spark_label(), &[&count(calls)]))) }
            }
            td data-label=(lang.status()) { (status(lang, key)) }
            @if session.is_root() { td .row-actions { (actions(lang, key, calls)) } }
        }
    }
}

fn last_used(lang: Lang, key: &Key) -> Markup {
    match &key.last_used_at {
        Some(at) => time(at, Clock::Ago),
        None => html! { span .hint { (lang.never()) } },
    }
}

fn status(lang: Lang, key: &Key) -> Markup {
    let (class, says) = match key.status {
        KeyStatus::Active => ("good", lang.active()),
        KeyStatus::Disabled => ("neutral", lang.disabled()),
        KeyStatus::Expired => ("bad", lang.expired()),
        KeyStatus::Deleted => ("bad", lang.deleted()),
    };
    html! {
        (badge(class, says))
        @if let Some(at) = &key.expires_at { span .hint.under { (lang.expires()) " " (time(at, Clock::Day)) } }
    }
}

/// What the dialogs need to know of a key travels with the buttons that open them.
fn actions(lang: Lang, key: &Key, calls: u64) -> Markup {
    let name = named(lang, key);
    let button = |dialog: &str, class: &str, says: &str, path: &str| {
        html! {
            button type="button" class=(class) data-open=(dialog) aria-label={ (says) ": " (name) }
                data-key-id=(key.id) data-name=(key.name.as_deref().unwrap_or_default()) data-shown=(name) data-masked=(key.masked)
                data-last-used=(key.last_used_at.as_deref().unwrap_or_default()) data-calls=(count(calls))
                data-disabled=(key.status == KeyStatus::Disabled) data-expires-at=(key.expires_at.as_deref().unwrap_or_default()) {
                (icon(path)) span { (says) }
            }
        }
    };
    html! {
        (button("view-key", "quiet", lang.view(), "M1.500 8S4 3.500 8 3.500 14.500 8 14.500 8 12 12.500 8 12.500 1.500 8 1.500 8M6.500 8a1.500 1.500 0 1 0 3 0a1.500 1.500 0 1 0-3 0"))
        (button("edit-key", "quiet", lang.edit(), "M11 2.500l2.500 2.500L6 12.500 3 13l.500-3z"))
        a .button.quiet href=(rotation(&key.id)) aria-label={ (lang.rotate()) ": " (name) } { (icon("M13 8a5 5 0 0 1-9 3M3 8a5 5 0 0 1 9-3M12 2v3H9M4 14v-3h3")) span { (lang.rotate()) } }
        (button("delete-key", "quiet danger", lang.delete(), "M3 4.500h10M6.500 4.500v-2h3v2M4.500 4.500l.500 9h6l.500-9"))
    }
}

fn deleted_keys(lang: Lang, shown: bool, keys: &[Key]) -> Markup {
    html! {
        @if shown {
            h2 #deleted { (lang.deleted_keys()) }
            @if keys.is_empty() { p .hint { (lang.none_deleted()) } } @else {
                div .card.list { table .keys {
                    thead { tr { th scope="col" { (lang.key()) } th scope="col" { (lang.created()) } th scope="col" { (lang.last_used()) } th scope="col" { (lang.deleted()) } } }
                    tbody { @for key in keys.iter().rev().take(100) { tr {
                        th scope="row" { span .name { (named(lang, key)) } code .masked { (key.masked) } }
                        td data-label=(lang.created()) { (time(&key.created_at, Clock::Day)) }
                        td data-label=(lang.last_used()) { (last_used(lang, key)) }
                        td data-label=(lang.deleted()) { @if let Some(at) = &key.deleted_at { (time(at, Clock::Minute)) } }
                    } } }
                } }
            }
            p { a href="/console/keys" { (lang.hide_deleted()) } }
        } @else { p { a .hint href="/console/keys?deleted=1#deleted" { (lang.show_deleted()) } } }
    }
}

pub fn named(lang: Lang, key: &Key) -> &str {
    key.name.as_deref().unwrap_or_else(|| lang.unnamed())
}

fn rotation(key_id: &str) -> String {
    format!("/console/rotate?old={key_id}")
}
