//! What is around every page: head, navigation, language, and the texts of the script.

use maud::{DOCTYPE, Markup, html};

use super::ask::Refused;
use super::assets::{ICON, SCRIPT, STYLE};
use super::elements::{escaped, icon};
use super::facts::Session;
use super::text::Lang;
use super::visit::Visit;

/// Where a page stands in the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Keys,
    Usage,
    Clusters,
    Audit,
    Account,
    Accounts,
    Gateways,
    Billing,
    WholeAudit,
}

/// Who the navigation is for.
pub enum Whose<'a> {
    Nobody,
    User(&'a Session),
    Operator,
}

type Link = (Place, &'static str, fn(Lang) -> &'static str);

const OF_USERS: [Link; 5] = [
    (Place::Keys, "/console/keys", Lang::nav_keys),
    (Place::Usage, "/console/usage", Lang::nav_usage),
    (Place::Clusters, "/console/clusters", Lang::nav_clusters),
    (Place::Audit, "/console/audit", Lang::nav_audit),
    (Place::Account, "/console/account", Lang::nav_account),
];
const OF_THE_OPERATOR: [Link; 4] = [
    (Place::Accounts, "/console/operator", Lang::nav_accounts),
    (Place::Gateways, "/console/operator/gateways", Lang::nav_gateways),
    (Place::Billing, "/console/operator/billing", Lang::nav_billing),
    (Place::WholeAudit, "/console/operator/audit", Lang::nav_audit),
];

/// A whole page of somebody who is signed in.
pub fn page(visit: &Visit, whose: &Whose<'_>, place: Place, title: &str, content: &Markup) -> Markup {
    let lang = visit.lang;
    let inner = html! {
        (top(visit, whose))
        nav .tabs aria-label=(lang.navigation()) {
            ul { @for (at, to, name) in links(whose) {
                li { a href=(to) aria-current=[(at == place).then_some("page")] { (name(lang)) } }
            } }
        }
        main #main tabindex="-1" { (content) }
        (bottom(lang, zone_of(whose).as_deref()))
    };
    document(visit, title, whose, &inner)
}

/// A page with one card in its middle.
pub fn card(visit: &Visit, title: &str, content: &Markup) -> Markup {
    let inner = html! {
        (top(visit, &Whose::Nobody))
        main #main .narrow tabindex="-1" { div .card { (content) } }
        (bottom(visit.lang, None))
    };
    document(visit, title, &Whose::Nobody, &inner)
}

/// The API said no, or could not say anything.
pub fn refused(visit: &Visit, refused: &Refused) -> Markup {
    let lang = visit.lang;
    let title = if refused.status.is_server_error() { lang.failed_title() } else { lang.refused_title() };
    let says = match refused.code.as_str() {
        // Nobody filled in a form: it is the query that is wrong.
        "invalid_request" => lang.bad_link(),
        code => lang.script_text(code).unwrap_or_else(|| lang.failed_text()),
    };
    card(
        visit,
        title,
        &html! {
            h1 { (title) }
            p { (says) }
            p .hint { (lang.failed_code()) " " code { (refused.code) } }
            p .actions { a .button href=(visit.target) { (lang.try_again()) } a .button.quiet href="/console/keys" { (lang.to_start()) } }
        },
    )
}

/// Comes again by itself, this time from a page of ours.
pub fn once_more(visit: &Visit) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(visit.lang.tag()) {
            head { meta charset="utf-8"; title { "Tollgate" } link rel="icon" href=(ICON.path()); meta http-equiv="refresh" content={ "0;url=" (visit.target) }; }
            body { a href=(visit.target) { (visit.lang.try_again()) } }
        }
    }
}

fn document(visit: &Visit, title: &str, whose: &Whose<'_>, inner: &Markup) -> Markup {
    let lang = visit.lang;
    let (kind, zone) = match whose {
        Whose::Nobody => ("outside", None),
        Whose::Operator => ("inside", None),
        Whose::User(session) => ("inside", Some(&session.utc_offset)),
    };
    html! {
        (DOCTYPE)
        html lang=(lang.tag()) {
            head {
                meta charset="utf-8";
                title { (title) " · Tollgate" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href=(ICON.path());
                link rel="stylesheet" href=(STYLE.path());
                script src=(SCRIPT.path()) defer {}
            }
            body class=(kind) data-zone=[zone] data-texts=(lang.script_texts()) {
                a .skip href="#main" { (lang.skip()) }
                noscript { p .banner.warn { (lang.needs_script()) } }
                (inner)
                div #said .visually-hidden role="status" {}
            }
        }
    }
}

fn links(whose: &Whose<'_>) -> Vec<Link> {
    match whose {
        Whose::Nobody => Vec::new(),
        Whose::Operator => OF_THE_OPERATOR.to_vec(),
        // Members may not read the audit log.
        Whose::User(session) => {
            OF_USERS.into_iter().filter(|(place, ..)| *place != Place::Audit || session.is_root()).collect()
        }
    }
}

fn top(visit: &Visit, whose: &Whose<'_>) -> Markup {
    let lang = visit.lang;
    let other = lang.other();
    let back = escaped(&visit.target);
    html! {
        header .top {
            a .brand href="/" { img src=(ICON.path()) alt="" width="28" height="28"; span { "Tollgate" } }
            div .who {
                @match whose {
                    Whose::Nobody => {}
                    Whose::Operator => span .name { (lang.operator()) }
                    Whose::User(session) => {
                        span .name title=(session.email) { (session.account_name.as_deref().unwrap_or(&session.email)) }
                        @if !session.is_root() { span .badge.neutral { (lang.member()) } }
                    }
                }
                a .quiet.button href={ "/console/language?to=" (other.tag()) "&back=" (back) } lang=(other.tag()) hreflang=(other.tag()) {
                    (icon("M8 1.500a6.500 6.500 0 1 0 0 13a6.500 6.500 0 1 0 0-13M1.500 8h13M8 1.500c4 4 4 9 0 13M8 1.500c-4 4-4 9 0 13"))
                    (other.own_name())
                }
                @match whose {
                    Whose::Nobody => {}
                    Whose::Operator => button type="button" .quiet data-act="operator-sign-out" { (lang.sign_out()) }
                    Whose::User(_) => button type="button" .quiet data-act="sign-out" { (lang.sign_out()) }
                }
            }
        }
    }
}

fn zone_of(whose: &Whose<'_>) -> Option<String> {
    match whose {
        Whose::User(session) => Some(session.zone()),
        Whose::Nobody | Whose::Operator => None,
    }
}

fn bottom(lang: Lang, zone: Option<&str>) -> Markup {
    html! {
        footer .bottom {
            span { "Tollgate " (env!("CARGO_PKG_VERSION")) }
            a href="/openapi.json" { (lang.api_reference()) }
            @if let Some(zone) = zone { span .zone { (lang.times_in()) " " (zone) } }
        }
    }
}
