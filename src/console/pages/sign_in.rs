//! Signing in: an account's user with e-mail and password, the operator with the token.

use maud::{Markup, html};

use crate::console::ask::Refused;
use crate::console::elements::{failure, own_page};
use crate::console::shell;
use crate::console::visit::Visit;

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let next = own_page(visit.asked("next")).unwrap_or("/console/keys");
    Ok(shell::card(
        &visit,
        lang.sign_in(),
        &html! {
            h1 { (lang.sign_in()) }
            p .hint { (lang.sign_in_text()) }
            form data-act="sign-in" data-next=(next) method="post" {
                label for="email" { (lang.email()) }
                input #email name="email" type="email" autocomplete="username" required autofocus maxlength="254";
                label for="password" { (lang.password()) }
                input #password name="password" type="password" autocomplete="current-password" required maxlength="1024";
                (failure())
                button .primary.wide type="submit" { (lang.sign_in()) }
            }
            p .hint.foot { (lang.lost_access()) }
            p .hint.foot { a href="/console/operator/sign-in" { (lang.operator_sign_in()) } }
        },
    ))
}

pub async fn operator_page(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let next = own_page(visit.asked("next")).unwrap_or("/console/operator");
    Ok(shell::card(
        &visit,
        lang.operator_sign_in(),
        &html! {
            h1 { (lang.operator_sign_in()) }
            p .hint { (lang.operator_sign_in_text()) }
            form data-act="operator-sign-in" data-next=(next) method="post" {
                label for="token" { (lang.operator_token()) }
                input #token name="token" type="password" autocomplete="off" required autofocus maxlength="256";
                (failure())
                button .primary.wide type="submit" { (lang.sign_in()) }
            }
            p .hint.foot { a href="/console/sign-in" { (lang.sign_in_as_user()) } }
        },
    ))
}
