//! The operator's view: accounts, gateways with their leases and revisions, the whole audit log.

use maud::{Markup, html};

use super::audit;
use crate::console::ask::Refused;
use crate::console::elements::{Clock, badge, cancel, count, dialog_head, escaped, failure, time};
use crate::console::facts::{Account, AccountStatus, Gateway, Items};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::Lang;
use crate::console::visit::Visit;

pub async fn accounts(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let cursor = visit.asked("cursor").map(|cursor| format!("&cursor={}", escaped(cursor))).unwrap_or_default();
    let accounts: Items<Account> = operator(visit.api.get(&visit, &format!("/v1/accounts?limit=100{cursor}")).await)?;
    let content = html! {
        div .head { div { h1 { (lang.nav_accounts()) } p .hint { (lang.accounts_text()) } } }
        @if accounts.items.is_empty() { div .empty.card { h2 { (lang.no_accounts()) } } } @else {
            div .card.list { table .stacked {
                caption .visually-hidden { (lang.nav_accounts()) }
                thead { tr {
                    th scope="col" { (lang.account()) } th scope="col" { (lang.created()) } th scope="col" { (lang.limits()) }
                    th scope="col" { (lang.status()) } th scope="col" { span .visually-hidden { (lang.actions()) } }
                } }
                tbody { @for account in &accounts.items { (account_row(lang, account)) } }
            } }
        }
        p .pager { @if let Some(next) = &accounts.next { a .button href={ "/console/operator?cursor=" (next) } { (lang.more()) } } }
        (limits_dialog(lang)) (change_dialog(lang))
    };
    Ok(shell::page(&visit, &Whose::Operator, Place::Accounts, lang.nav_accounts(), &content))
}

/// Who is signed in as somebody of an account has to sign in anew here, as the operator.
pub fn operator<T>(asked: Result<T, Refused>) -> Result<T, Refused> {
    asked.map_err(|refused| match refused.code.as_str() {
        "forbidden" => Refused { code: "unauthenticated".to_owned(), ..refused },
        _ => refused,
    })
}

fn account_row(lang: Lang, account: &Account) -> Markup {
    let name = account.name.as_deref().or(account.email.as_deref()).unwrap_or(&account.account_id);
    let suspended = account.status == AccountStatus::Suspended;
    let change = |says: &str, class: &str, field: &str, value: &str, warns: &str| {
        html! {
            button type="button" class=(class) data-open="change-account" data-account-id=(account.account_id) data-shown=(name)
                data-field=(field) data-value=(value) data-says=(says) data-warns=(warns) aria-label={ (says) ": " (name) } { (says) }
        }
    };
    html! {
        tr id=(account.account_id) {
            th scope="row" {
                span .name { (name) }
                @if let Some(email) = &account.email { span .hint.under { (email) } }
                code .masked { (account.account_id) }
            }
            td data-label=(lang.created()) { (time(&account.created_at, Clock::Day)) }
            td data-label=(lang.limits()) { (account.active_max) " " (lang.active_keys()) span .hint.under { (account.daily_max) " " (lang.per_day()) } }
            td data-label=(lang.status()) { span .tags {
                @if suspended { (badge("bad", lang.suspended())) } @else { (badge("good", lang.active())) }
                " "
                @if account.verified { (badge("good", lang.verified())) } @else { (badge("warn", lang.unverified())) }
            } }
            td .row-actions {
                @if account.verified { (change(lang.unverify(), "quiet", "verified", "false", lang.unverify_text())) }
                @else { (change(lang.verify(), "", "verified", "true", lang.verify_text())) }
                button type="button" .quiet data-open="limits" data-account-id=(account.account_id) data-shown=(name)
                    data-active-max=(account.active_max) data-daily-max=(account.daily_max) aria-label={ (lang.limits()) ": " (name) } { (lang.limits()) }
                @if suspended { (change(lang.resume(), "", "status", "active", lang.resume_text())) }
                @else { (change(lang.suspend(), "quiet danger", "status", "suspended", lang.suspend_text())) }
            }
        }
    }
}

fn change_dialog(lang: Lang) -> Markup {
    html! {
        dialog #change-account aria-labelledby="change-account-title" {
            (dialog_head(lang, "change-account", lang.change_account()))
            form data-act="change-account" method="post" {
                p .subject { strong data-fill="shown" {} }
                p data-fill="warns" {}
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" data-fill="says" {} }
            }
        }
    }
}

fn limits_dialog(lang: Lang) -> Markup {
    html! {
        dialog #limits aria-labelledby="limits-title" {
            (dialog_head(lang, "limits", lang.limits()))
            form data-act="account-limits" method="post" {
                p .subject { strong data-fill="shown" {} }
                label for="active-max" { (lang.active_keys()) }
                input #active-max name="active_max" type="number" min="0" max="1000" required autofocus;
                label for="daily-max" { (lang.per_day()) }
                input #daily-max name="daily_max" type="number" min="0" max="1000" required;
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.save()) } }
            }
        }
    }
}

pub async fn gateways(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let gateways: Vec<Gateway> = operator(visit.api.get(&visit, "/v1/gateways").await)?;
    let content = html! {
        div .head { div { h1 { (lang.nav_gateways()) } p .hint { (lang.gateways_text()) } } }
        div data-refresh="2" { (health(lang, &gateways)) (gateway_table(lang, &gateways)) }
    };
    Ok(shell::page(&visit, &Whose::Operator, Place::Gateways, lang.nav_gateways(), &content))
}

/// In one sentence: does every gateway know of every change?
fn health(lang: Lang, gateways: &[Gateway]) -> Markup {
    let behind = gateways.iter().filter(|gateway| gateway.lag > 0 || gateway.lease != "good").count();
    html! {
        @if gateways.is_empty() { p .banner.warn { (lang.no_gateways()) } }
        @else if behind == 0 { p .banner.good { (lang.all_current()) } }
        @else { p .banner.warn { (crate::console::text::fill(lang.some_behind(), &[&behind, &gateways.len()])) } }
    }
}

fn gateway_table(lang: Lang, gateways: &[Gateway]) -> Markup {
    html! {
        div .card.list { table .stacked {
            caption .visually-hidden { (lang.nav_gateways()) }
            thead { tr {
                th scope="col" { (lang.gateway()) } th scope="col" { (lang.lease()) } th scope="col" { (lang.revision()) }
                th scope="col" { (lang.behind()) } th scope="col" { (lang.heard()) } th scope="col" { (lang.version()) }
            } }
            tbody { @for gateway in gateways { tr {
                th scope="row" { code { (gateway.id) } }
                td data-label=(lang.lease()) { @if gateway.lease == "good" { (badge("good", lang.lease_good())) } @else { (badge("bad", lang.lease_lapsed())) } }
                td data-label=(lang.revision()) { (count(gateway.applied_revision)) }
                td data-label=(lang.behind()) { (count(gateway.lag)) }
                td data-label=(lang.heard()) { (gateway.silent_ms) " ms" }
                td data-label=(lang.version()) { (gateway.version) }
            } } }
        } }
    }
}

pub async fn audit(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let entries = operator(audit::entries(&visit).await)?;
    let later = visit.asked("cursor").is_some();
    let content = html! {
        div .head { div { h1 { (lang.nav_audit()) } p .hint { (lang.whole_audit_text()) } } }
        (audit::table(lang, &entries, None, "/console/operator/audit", later))
    };
    Ok(shell::page(&visit, &Whose::Operator, Place::WholeAudit, lang.nav_audit(), &content))
}
