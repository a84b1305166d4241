//! One request for a page: who sends it, in which language, and what it asks for.

use std::collections::HashMap;
use std::convert::Infallible;

use axum::extract::{FromRequestParts, Query};
use http::HeaderMap;
use http::header::{ACCEPT_LANGUAGE, COOKIE, HeaderValue};
use http::request::Parts;

use super::Console;
use super::ask::Api;
use super::text::Lang;
use crate::control::caller::Source;

/// The language a visitor chose with the switch.
pub const LANGUAGE_COOKIE: &str = "tollgate-language";

#[derive(Clone)]
pub struct Visit {
    pub api: Api,
    pub lang: Lang,
    pub source: Source,
    pub cookies: Vec<HeaderValue>,
    /// Path and query, for coming back.
    pub target: String,
    /// The link was followed on a page of another site. Then the browser keeps the session's cookie to itself.
    pub from_elsewhere: bool,
    query: HashMap<String, String>,
}

impl Visit {
    /// A parameter of the query; an empty one is none.
    pub fn asked(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromRequestParts<Console> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Infallible> {
        let query = Query::try_from_uri(&parts.uri).map(|Query(query)| query).unwrap_or_default();
        let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let site = parts.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        Ok(Self {
            api: console.api.clone(),
            lang: language(&parts.headers),
            source: parts.extensions.get().copied().unwrap_or_default(),
            cookies: parts.headers.get_all(COOKIE).iter().cloned().collect(),
            target,
            from_elsewhere: site == Some(b"cross-site"),
            query,
        })
    }
}

/// The one that was chosen, or else the first of the browser's that there is.
fn language(headers: &HeaderMap) -> Lang {
    let texts = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts(COOKIE).flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let chosen = pairs.filter(|(name, _)| *name == LANGUAGE_COOKIE).find_map(|(_, value)| Lang::from_tag(value));
    let mut preferred: Vec<(f32, Lang)> =
        texts(ACCEPT_LANGUAGE).flat_map(|line| line.split(',')).filter_map(preference).collect();
    preferred.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    chosen.or(preferred.first().map(|(_, lang)| *lang)).unwrap_or(Lang::En)
}

/// One item of `Accept-Language`, like `zh-CN;q=0.8`.
fn preference(item: &str) -> Option<(f32, Lang)> {
    let (tag, parameters) = item.split_once(';').unwrap_or((item, ""));
    let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.parse().ok())?;
    Some((weight, Lang::from_tag(tag.trim())?)).filter(|(weight, _)| *weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_language_counts_and_else_the_browsers_order() {
        let of = |accept: &'static str, cookie: &'static str| {
            let headers =
                [(ACCEPT_LANGUAGE, HeaderValue::from_static(accept)), (COOKIE, HeaderValue::from_static(cookie))];
            language(&HeaderMap::from_iter(headers))
        };
        assert_eq!(of("fr, zh-CN;q=0.8, en;q=0.5", ""), Lang::Zh);
        assert_eq!(of("zh;q=0.1,en-GB", ""), Lang::En);
        assert_eq!(of("zh;q=0, de", ""), Lang::En);
        assert_eq!(of("zh", "a=b; tollgate-language=en"), Lang::En);
        assert_eq!(of("en", "tollgate-language=zh"), Lang::Zh);
        assert_eq!(of("en;q=x", "tollgate-language=xx"), Lang::En);
    }
}
