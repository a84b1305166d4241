//! The dialogs of the keys' page. The script fills in the key that a dialog was opened for.

use maud::{Markup, html};

use super::snippets;
use crate::console::elements::{cancel, code_field, dialog_head, failure};
use crate::console::facts::Cluster;
use crate::console::text::Lang;

pub fn all(lang: Lang, clusters: &[Cluster]) -> Markup {
    html! { (create(lang, clusters)) (view(lang)) (edit(lang)) (delete(lang)) }
}

/// Ends on the only page that shows the key without a code.
pub fn create(lang: Lang, clusters: &[Cluster]) -> Markup {
    html! {
        dialog #create-key aria-labelledby="create-key-title" {
            (dialog_head(lang, "create-key", lang.create_key()))
            form data-act="create-key" data-step="ask" method="post" {
                label for="create-name" { (lang.name()) " " span .hint { (lang.optional()) } }
                input #create-name name="name" maxlength="100" autocomplete="off" placeholder=(lang.name_example()) autofocus;
                p .hint { (lang.create_text()) }
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.create_key()) } }
            }
            div data-step="done" hidden {
                p { (lang.created_text()) }
                (shown_key(lang, lang.new_key()))
                @if let Some(cluster) = clusters.first() {
                    h3 { (lang.first_call()) }
                    (snippets::tabs(lang, "created", &cluster.endpoint))
                }
                p .banner.info { (lang.servers_only()) }
                p .actions { button .primary type="button" data-close { (lang.done()) } }
            }
        }
    }
}

fn view(lang: Lang) -> Markup {
    html! {
        dialog #view-key aria-labelledby="view-key-title" {
            (dialog_head(lang, "view-key", lang.view_title()))
            p .subject { strong data-fill="shown" {} " " code data-fill="masked" {} }
            form data-act="view-key" data-step="ask" method="post" {
                (code_field(lang, "view-code"))
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.view()) } }
            }
            div data-step="done" hidden {
                (shown_key(lang, lang.key()))
                p .hint aria-live="off" data-hides { }
                p .hint { (lang.view_once()) }
                p .actions { button .primary type="button" data-close { (lang.hide()) } }
            }
        }
    }
}

/// The key stands in a field, so that it can be selected and read by a screen reader under its label.
fn shown_key(lang: Lang, label: &str) -> Markup {
    html! {
        div .secret {
            output .key aria-label=(label) tabindex="0" data-key {}
            button type="button" .primary.copy data-copy-key { (lang.copy()) }
        }
    }
}

fn edit(lang: Lang) -> Markup {
    html! {
        dialog #edit-key aria-labelledby="edit-key-title" {
            (dialog_head(lang, "edit-key", lang.edit_title()))
            form data-act="edit-key" method="post" {
                label for="edit-name" { (lang.name()) }
                input #edit-name name="name" maxlength="100" autocomplete="off" autofocus;
                label for="edit-expires" { (lang.expires_on()) " " span .hint { (lang.optional()) } }
                input #edit-expires name="expires" type="datetime-local" aria-describedby="edit-expires-hint";
                p .hint #edit-expires-hint { (lang.expires_hint()) }
                label .check { input type="checkbox" name="disabled"; span { (lang.disable_key()) span .hint.under { (lang.disable_hint()) } } }
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.save()) } }
            }
        }
    }
}

/// What the key did comes first, then the word to type, then the code; at the end stands the receipt.
pub fn delete(lang: Lang) -> Markup {
    html! {
        dialog #delete-key aria-labelledby="delete-key-title" {
            (dialog_head(lang, "delete-key", lang.delete_title()))
            p .subject { strong data-fill="shown" {} " " code data-fill="masked" {} }
            form data-act="delete-key" data-step="ask" method="post" {
                dl .facts {
                    dt { (lang.last_used()) } dd data-fill-time="lastUsed" {}
                    dt { (lang.calls_24h()) } dd data-fill="calls" {}
                }
                p .banner.warn data-when-used hidden { (lang.still_used()) }
                p { (lang.delete_text()) }
                label for="delete-word" { (lang.type_word()) " " code data-fill="word" {} }
                input #delete-word name="word" autocomplete="off" autocapitalize="off" spellcheck="false" required autofocus;
                (code_field_later(lang))
                (failure())
                p .actions { (cancel(lang)) button .primary.danger type="submit" { (lang.delete_key()) } }
            }
            div data-step="done" hidden {
                div .receipt data-receipt role="status" {}
                p .actions { button .primary type="button" data-close { (lang.done()) } }
            }
        }
    }
}

/// As [`code_field`], but the first field of the form is another one.
fn code_field_later(lang: Lang) -> Markup {
    let id = "delete-code";
    html! {
        label for=(id) { (lang.code()) }
        input #(id) name="code" autocomplete="one-time-code" maxlength="24" required spellcheck="false" autocapitalize="off"
            placeholder="123 456" aria-describedby={ (id) "-hint" };
        p .hint id={ (id) "-hint" } { (lang.code_hint()) }
        p .hint.countdown aria-live="polite" hidden {}
    }
}
