//! First calls to copy, for a cluster and a key.

use maud::{Markup, html};

use crate::console::text::Lang;

/// Where the key goes. The script puts a key that was just created in its place.
pub const KEY: &str = "YOUR_API_KEY";

pub fn curl(endpoint: &str) -> String {
    format!("curl {endpoint}/v1/collections \\\n  -H 'dashvector-auth-token: {KEY}'")
}

/// The SDK speaks TLS to a host name. Without TLS, or with a port, it has to be told.
pub fn python(endpoint: &str) -> String {
    let (scheme, authority) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    let mut text = String::from("# pip install dashvector\n");
    if scheme == "http" {
        text.push_str("import os; os.environ[\"DASHVECTOR_INSECURE_MODE\"] = \"true\"\n");
    }
    text.push_str("import dashvector\n");
    if scheme == "http" || authority.contains(':') {
        text.push_str("import dashvector.util.validator as validator\nvalidator.ENDPOINT_PATTERN = \".*\"\n");
    }
    text.push_str(&format!(
        "\nclient = dashvector.Client(\n    api_key=\"{KEY}\",\n    endpoint=\"{authority}\",\n)\nprint(client.list())"
    ));
    text
}

/// Both, one at a time. `id` is unique on the page.
pub fn tabs(lang: Lang, id: &str, endpoint: &str) -> Markup {
    html! {
        div .snippets data-tabs {
            div .tablist role="tablist" aria-label=(lang.quick_start()) {
                (tab(id, "curl", "curl", true))
                (tab(id, "python", "Python", false))
            }
            (panel(lang, id, "curl", &curl(endpoint), true))
            (panel(lang, id, "python", &python(endpoint), false))
        }
    }
}

fn tab(id: &str, name: &str, title: &str, chosen: bool) -> Markup {
    html! {
        button type="button" role="tab" id={ (id) "-" (name) "-tab" } aria-controls={ (id) "-" (name) }
            aria-selected=(if chosen { "true" } else { "false" }) tabindex=(if chosen { "0" } else { "-1" }) { (title) }
    }
}

fn panel(lang: Lang, id: &str, name: &str, text: &str, chosen: bool) -> Markup {
    html! {
        div .panel role="tabpanel" id={ (id) "-" (name) } aria-labelledby={ (id) "-" (name) "-tab" } hidden[!chosen] {
            pre tabindex="0" { code data-snippet=(text) { (text) } }
            button type="button" .quiet.copy data-copy-code { (lang.copy()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_is_told_only_what_it_does_not_expect() {
        let plain = python("https://a.example.com");
        assert!(
            plain.contains("endpoint=\"a.example.com\"") && !plain.contains("INSECURE") && !plain.contains("PATTERN")
        );
        let local = python("http://127.0.0.1:8080");
        assert!(
            local.contains("endpoint=\"127.0.0.1:8080\"") && local.contains("INSECURE") && local.contains("PATTERN")
        );
        assert!(curl("https://a.example.com").starts_with("curl https://a.example.com/v1/collections"));
    }
}
