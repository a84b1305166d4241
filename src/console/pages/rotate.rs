//! Rotating a key as a guided path: create, see the first call with the new one, see the old one go quiet, delete.

use maud::{Markup, html};

use super::key_dialogs;
use super::keys::named;
use crate::clock;
use crate::console::ask::Refused;
use crate::console::chart::spark;
use crate::console::elements::{Clock, count, escaped, time};
use crate::console::facts::{Cluster, Items, Key, KeyList, KeyStatus, Session};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::{Lang, fill};
use crate::console::usage::{Record, Span, Sum, instant};
use crate::console::visit::Visit;

/// An old key is quiet when its last call is so long ago.
const QUIET_SECONDS: i64 = 60;

struct Rotation {
    old: Option<Key>,
    new: Option<Key>,
    records: Vec<Record>,
    span: Span,
}

/// How far a step is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    Now,
    Later,
}

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let (api, lang) = (&visit.api, visit.lang);
    let session: Session = api.get(&visit, "/v1/session").await?;
    let list: KeyList = api.get(&visit, "/v1/keys?deleted=true").await?;
    let clusters: Items<Cluster> = api.get(&visit, &format!("/v1/accounts/{}/clusters", session.account_id)).await?;
    let span = Span::until(i64::from(clock::wall().hour().0), 24, 1, 0);
    let target = format!("/v1/usage/records?by=key&limit=100000&from={}", escaped(&instant(span.from)));
    let records = api.lines(&visit, &target).await?;
    let full = list.active >= list.active_max;
    let mut keys = list.keys;
    let mut take = |name: &str| {
        let at = keys.iter().position(|key| Some(key.id.as_str()) == visit.asked(name))?;
        Some(keys.swap_remove(at))
    };
    let rotation = Rotation { old: take("old"), new: take("new"), records, span };
    let content = html! {
        div .head { div { h1 { (lang.rotate_title()) } p .hint { (lang.rotate_text()) } } }
        @match &rotation.old {
            None => p .banner.info { (lang.rotate_gone()) " " a href="/console/keys" { (lang.to_start()) } },
            Some(old) => div .card data-refresh="3" { (steps(lang, old, &rotation, full)) },
        }
        @if session.is_root() { (key_dialogs::create(lang, &clusters.items)) (key_dialogs::delete(lang)) }
    };
    Ok(shell::page(&visit, &Whose::User(&session), Place::Keys, lang.rotate_title(), &content))
}

fn steps(lang: Lang, old: &Key, rotation: &Rotation, full: bool) -> Markup {
    let new = rotation.new.as_ref();
    let called = new.is_some_and(|new| new.last_used_at.is_some());
    let deleted = old.status == KeyStatus::Deleted;
    let quiet = called && is_quiet(old);
    let after = |ready: bool, done: bool| match (done, ready) {
        (true, _) => Step::Done,
        (false, true) => Step::Now,
        (false, false) => Step::Later,
    };
    html! {
        ol .steps {
            (step(after(true, new.is_some()), lang.rotate_create(), &created(lang, old, new, full)))
            (step(after(new.is_some(), called), lang.rotate_first_call(), &traffic(lang, new, rotation, (!called).then(|| lang.rotate_waiting()))))
            (step(after(called, quiet || deleted), lang.rotate_quiet(), &traffic(lang, Some(old), rotation, (!quiet).then(|| lang.rotate_still()))))
            (step(after(quiet, deleted), lang.rotate_delete(), &last(lang, old, rotation)))
        }
    }
}

fn step(state: Step, title: &str, content: &Markup) -> Markup {
    let class = match state {
        Step::Done => "done",
        Step::Now => "now",
        Step::Later => "later",
    };
    html! { li class=(class) aria-current=[(state == Step::Now).then_some("step")] { h2 { (title) } @if state != Step::Later { (content) } } }
}

fn created(lang: Lang, old: &Key, new: Option<&Key>, full: bool) -> Markup {
    html! {
        @match new {
            Some(new) => p { strong { (named(lang, new)) } " " code { (new.masked) } " · " (time(&new.created_at, Clock::Minute)) },
            None => {
                p { (lang.rotate_create_text()) " " strong { (named(lang, old)) } " " code { (old.masked) } }
                @if full { p .banner.warn { (lang.rotate_full()) } }
                button type="button" .primary data-open="create-key" data-then={ "/console/rotate?old=" (old.id) "&new=" } disabled[full] { (lang.create_key()) }
            }
        }
    }
}

fn traffic(lang: Lang, key: Option<&Key>, rotation: &Rotation, hint: Option<&str>) -> Markup {
    let Some(key) = key else { return html! {} };
    let own = rotation.records.iter().filter(|record| record.key_id == key.id);
    let calls: Vec<u64> = rotation.span.sums(own).iter().map(Sum::calls).collect();
    let total: u64 = calls.iter().sum();
    html! {
        p { strong { (named(lang, key)) } " " code { (key.masked) } }
        p .traffic {
            span .figure { (count(total)) } (spark(&calls, &fill(lang.spark_label(), &[&count(total)])))
            @if let Some(at) = &key.last_used_at { span { (lang.last_used()) " " (time(at, Clock::Ago)) } } @else { span { (lang.never()) } }
        }
        @if let Some(hint) = hint { p .hint { (hint) } }
    }
}

fn last(lang: Lang, old: &Key, rotation: &Rotation) -> Markup {
    if old.status == KeyStatus::Deleted {
        return html! { p { (lang.rotate_done()) " " a href="/console/keys" { (lang.to_start()) } } };
    }
    let calls: u64 =
        rotation.records.iter().filter(|record| record.key_id == old.id).map(|record| record.sum().calls()).sum();
    html! {
        p { (lang.rotate_delete_text()) }
        button type="button" .danger data-open="delete-key" data-key-id=(old.id) data-name=(old.name.as_deref().unwrap_or_default())
            data-shown=(named(lang, old)) data-masked=(old.masked) data-calls=(count(calls))
            data-last-used=(old.last_used_at.as_deref().unwrap_or_default()) { (lang.delete()) }
    }
}

fn is_quiet(old: &Key) -> bool {
    let Some(used) = &old.last_used_at else { return true };
    let now = i64::try_from(clock::wall().unix_seconds()).unwrap_or(i64::MAX);
    used.parse::<jiff::Timestamp>().is_ok_and(|used| now - used.as_second() > QUIET_SECONDS)
}
