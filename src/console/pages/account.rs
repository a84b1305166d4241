//! The account: who is signed in, the password, the authenticator, recovery codes, members, sessions.

use maud::{Markup, html};

use crate::console::ask::Refused;
use crate::console::elements::{Clock, badge, cancel, code_field, copyable, dialog_head, failure, time};
use crate::console::facts::{AccountStatus, Items, Member, OpenSession, Session};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::Lang;
use crate::console::visit::Visit;

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let (api, lang) = (&visit.api, visit.lang);
    let session: Session = api.get(&visit, "/v1/session").await?;
    let open: Items<OpenSession> = api.get(&visit, "/v1/sessions").await?;
    let members = match session.is_root() {
        true => Some(api.get::<Items<Member>>(&visit, &format!("/v1/accounts/{}/members", session.account_id)).await?),
        false => None,
    };
    let content = html! {
        div .head { div { h1 { (lang.nav_account()) } } }
        (profile(lang, &session))
        (security(lang, &session))
        @if let Some(members) = &members { (member_list(lang, &members.items)) }
        (sessions(lang, &open.items))
        (password_dialog(lang, &session))
        @if session.is_root() { (authenticator_dialog(lang)) (recovery_dialog(lang)) (member_dialogs(lang, &session)) }
    };
    Ok(shell::page(&visit, &Whose::User(&session), Place::Account, lang.nav_account(), &content))
}

fn profile(lang: Lang, session: &Session) -> Markup {
    html! {
        section .card {
            h2 { (lang.profile()) }
            dl .facts {
                @if let Some(name) = &session.account_name { dt { (lang.account_name()) } dd { (name) } }
                dt { (lang.email()) } dd { (session.email) }
                dt { (lang.role()) } dd { (if session.is_root() { lang.root_user() } else { lang.member_long() }) }
                dt { (lang.account_id()) } dd { (copyable(lang, &session.account_id)) }
                dt { (lang.status()) } dd {
                    @if session.status == AccountStatus::Suspended { (badge("bad", lang.suspended())) } @else { (badge("good", lang.active())) }
                    " "
                    @if session.verified { (badge("good", lang.verified())) } @else { (badge("warn", lang.unverified())) }
                }
            }
        }
    }
}

fn security(lang: Lang, session: &Session) -> Markup {
    let line = |title: &str, says: &str, dialog: &str, button: &str| {
        html! {
            li { div { h3 { (title) } p .hint { (says) } } button type="button" data-open=(dialog) { (button) } }
        }
    };
    html! {
        section .card {
            h2 { (lang.security()) }
            ul .settings {
                (line(lang.password(), lang.password_text(), "password-dialog", lang.change_password()))
                @if session.is_root() {
                    (line(lang.authenticator(), lang.authenticator_text(), "totp-dialog", lang.replace_authenticator()))
                    (line(lang.recovery_codes(), lang.recovery_text(), "recovery-dialog", lang.new_recovery_codes()))
                }
            }
        }
    }
}

fn member_list(lang: Lang, members: &[Member]) -> Markup {
    html! {
        section .card {
            div .row { h2 { (lang.members()) } button type="button" data-open="member-dialog" { (lang.add_member()) } }
            p .hint { (lang.members_text()) }
            @if members.is_empty() { p .hint { (lang.no_members()) } } @else {
                ul .settings { @for member in members {
                    li {
                        div { h3 { (member.email) } p .hint { (lang.added()) " " (time(&member.created_at, Clock::Day)) } }
                        button type="button" .quiet.danger data-open="member-remove" data-member-id=(member.member_id) data-shown=(member.email)
                            aria-label={ (lang.remove()) ": " (member.email) } { (lang.remove()) }
                    }
                } }
            }
        }
    }
}

fn sessions(lang: Lang, open: &[OpenSession]) -> Markup {
    html! {
        section .card {
            div .row {
                h2 { (lang.sessions()) }
                @if open.len() > 1 { button type="button" data-act="end-other-sessions" { (lang.end_others()) } }
            }
            ul .settings { @for one in open {
                li {
                    div {
                        h3 { code { (one.id) } @if one.current { " " (badge("good", lang.this_session())) } }
                        p .hint {
                            (lang.signed_in()) " " (time(&one.created_at, Clock::Minute)) " · " (lang.last_seen()) " " (time(&one.last_seen_at, Clock::Ago))
                            " · " (lang.ends()) " " (time(&one.expires_at, Clock::Minute))
                        }
                    }
                }
            } }
        }
    }
}

fn password_dialog(lang: Lang, session: &Session) -> Markup {
    html! {
        dialog #password-dialog aria-labelledby="password-dialog-title" {
            (dialog_head(lang, "password-dialog", lang.change_password()))
            form data-act="change-password" data-step="ask" method="post" {
                input type="text" name="username" autocomplete="username" value=(session.email) hidden;
                label for="old-password" { (lang.present_password()) }
                input #old-password name="password" type="password" autocomplete="current-password" required autofocus maxlength="1024";
                label for="new-password" { (lang.new_password()) }
                input #new-password name="new_password" type="password" autocomplete="new-password" required minlength="8" maxlength="1024";
                label for="repeat-password" { (lang.repeat_password()) }
                input #repeat-password name="repeat" type="password" autocomplete="new-password" required minlength="8" maxlength="1024";
                @if session.is_root() { (code_field(lang, "password-code")) }
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.change_password()) } }
            }
            (done(lang, lang.password_changed()))
        }
    }
}

fn done(lang: Lang, says: &str) -> Markup {
    html! {
        div data-step="done" hidden {
            p .banner.good { (says) }
            p .actions { button .primary type="button" data-close { (lang.done()) } }
        }
    }
}

/// A code of the old authenticator, the new secret as a picture, a code of the new one.
fn authenticator_dialog(lang: Lang) -> Markup {
    html! {
        dialog #totp-dialog aria-labelledby="totp-dialog-title" {
            (dialog_head(lang, "totp-dialog", lang.replace_authenticator()))
            form data-act="totp-begin" data-step="ask" method="post" {
                p { (lang.totp_begin_text()) }
                (code_field(lang, "totp-code"))
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.proceed()) } }
            }
            form data-act="totp-confirm" data-step="scan" method="post" hidden {
                p { (lang.totp_scan_text()) }
                img .qr data-qr width="220" height="220" alt=(lang.qr_label());
                p .hint { (lang.totp_by_hand()) }
                p { code .secret-text data-secret {} }
                label for="totp-new-code" { (lang.totp_new_code()) }
                input #totp-new-code name="code" autocomplete="one-time-code" inputmode="numeric" maxlength="6" required placeholder="123456";
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.replace_authenticator()) } }
            }
            (done(lang, lang.totp_replaced()))
        }
    }
}

fn recovery_dialog(lang: Lang) -> Markup {
    html! {
        dialog #recovery-dialog aria-labelledby="recovery-dialog-title" {
            (dialog_head(lang, "recovery-dialog", lang.recovery_codes()))
            form data-act="recovery-codes" data-step="ask" method="post" {
                p { (lang.recovery_begin_text()) }
                (code_field(lang, "recovery-code"))
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.new_recovery_codes()) } }
            }
            div data-step="done" hidden {
                p { (lang.recovery_once()) }
                ol .codes data-codes {}
                p .actions { button type="button" .copy data-copy-codes { (lang.copy_all()) } button .primary type="button" data-close { (lang.done()) } }
            }
        }
    }
}

fn member_dialogs(lang: Lang, session: &Session) -> Markup {
    html! {
        dialog #member-dialog aria-labelledby="member-dialog-title" {
            (dialog_head(lang, "member-dialog", lang.add_member()))
            form data-act="member-add" data-account-id=(session.account_id) method="post" {
                label for="member-email" { (lang.email()) }
                input #member-email name="email" type="email" autocomplete="off" required autofocus maxlength="254";
                label for="member-password" { (lang.first_password()) }
                input #member-password name="password" type="password" autocomplete="new-password" required minlength="8" maxlength="1024" aria-describedby="member-password-hint";
                p .hint #member-password-hint { (lang.first_password_hint()) }
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.add_member()) } }
            }
        }
        dialog #member-remove aria-labelledby="member-remove-title" {
            (dialog_head(lang, "member-remove", lang.remove_member()))
            form data-act="member-remove" data-account-id=(session.account_id) method="post" {
                p { strong data-fill="shown" {} " " (lang.remove_member_text()) }
                (failure())
                p .actions { (cancel(lang)) button .primary.danger type="submit" { (lang.remove()) } }
            }
        }
    }
}
