//! Reading requests: bodies, queries and path ids. What does not fit becomes a problem that repeats nothing of it.

use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::error::{Kind, Problem};

/// A JSON body of at most `MOST` bytes. An empty one reads like `{}`.
pub struct JsonBody<T, const MOST: usize = { 64 * 1024 }>(pub T);

/// How long a body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

impl<S: Send + Sync, T: DeserializeOwned, const MOST: usize> FromRequest<S> for JsonBody<T, MOST> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let body = read(request.into_body(), MOST).await?;
        if body.is_empty() {
            return parse(b"{}").map(Self);
        }
        if !is_json {
            return Err(Kind::NotJson.into());
        }
        parse(&body).map(Self)
    }
}

/// No content type is taken for JSON; another one is not, which also keeps HTML forms out.
fn is_json(headers: &http::HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return true;
    };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

async fn read(body: Body, most: usize) -> Result<Bytes, Problem> {
    let whole = tokio::time::timeout(ARRIVES_WITHIN, Limited::new(body, most).collect());
    match whole.await {
        Err(_) => Err(Kind::BodyTimeout.into()),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if is_length_limit(error.as_ref()) => Err(Kind::BodyTooLarge.into()),
        Ok(Err(_)) => Err(Problem::invalid("The body could not be read to its end.")),
    }
}

fn is_length_limit(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.is::<LengthLimitError>()
}

/// Every body is an object. serde would take a list for one as well, with its items as the fields in order.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::invalid("The body is not a JSON object."));
    }
    serde_json::from_slice(body).map_err(|error| Problem::invalid(said_safely(&error)))
}

/// serde_json's messages quote what was sent, and that may be a password; only its own words are passed on.
fn said_safely(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let (line, column) = (error.line(), error.column());
    let what = match error.classify() {
        Category::Data => fitting(&error.to_string()),
        Category::Syntax => "this is not JSON".to_owned(),
        Category::Eof => "the JSON ends too early".to_owned(),
        Category::Io => "the body could not be read".to_owned(),
    };
    format!("The body is not as expected: {what} (line {line}, column {column}).")
}

/// Our own words about a value, for a `deserialize_with`. They are told apart from serde's by how they begin, since serde
/// quotes a value only behind words of its own.
pub fn broken_rule<E: serde::de::Error>(rule: &'static str) -> E {
    E::custom(format_args!("{RULE}{rule}"))
}

const RULE: &str = "rule: ";

fn fitting(message: &str) -> String {
    let own = message.rsplit_once(" at line ").map_or(message, |(own, _)| own);
    if let Some(rule) = own.strip_prefix(RULE) {
        return rule.to_owned();
    }
    if own.starts_with("missing field `") {
        return own.to_owned();
    }
    match own.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => "a value does not have the right form".to_owned(),
    }
}

/// A query string without unknown parameters.
pub struct QueryOf<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(value) = Query::try_from_uri(&parts.uri)
            .map_err(|_| Problem::invalid("A parameter in the query string is unknown, or its value is not valid."))?;
        Ok(Self(value))
    }
}

/// An id in the path. What cannot be an id names nothing, so it is not found.
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| Kind::NotFound)?;
        text.parse().map(Self).map_err(|_| Kind::NotFound.into())
    }
}

/// Two ids in the path, in its order.
pub struct Ids<A, B>(pub A, pub B);

impl<S: Send + Sync, A: FromStr, B: FromStr> FromRequestParts<S> for Ids<A, B> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path((one, two)) =
            Path::<(String, String)>::from_request_parts(parts, state).await.map_err(|_| Kind::NotFound)?;
        let one = one.parse().map_err(|_| Kind::NotFound)?;
        let two = two.parse().map_err(|_| Kind::NotFound)?;
        Ok(Self(one, two))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Login {
        #[allow(dead_code, reason = "only its errors are looked at")]
        password: String,
    }

    #[test]
    fn an_error_names_the_place_and_repeats_nothing_that_was_sent() {
        for hostile in [
            r#"{"password": 12345678}"#,
            r#"{"12345678": "x"}"#,
            r#"{"password": ["12345678"]}"#,
            r#"{"password": "12345678"#,
            r#""12345678""#,
            r#"{"password":"12345678","password":"12345678"}"#,
            r#"{"rule: 12345678": 1}"#,
            r#"{"password": {"rule: 12345678": 1}}"#,
        ] {
            let problem = parse::<Login>(hostile.as_bytes()).unwrap_err();
            assert!(!format!("{problem:?}").contains("12345678"), "{problem:?}");
        }
        let missing = parse::<Login>(b"{}").unwrap_err();
        assert!(format!("{missing:?}").contains("missing field `password`"), "{missing:?}");
    }

    #[test]
    fn only_json_is_read_as_json() {
        let with =
            |value: &'static str| http::HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(value))]);
        assert!(is_json(&http::HeaderMap::new()));
        assert!(is_json(&with("Application/JSON; charset=utf-8")));
        assert!(!is_json(&with("application/x-www-form-urlencoded")));
        assert!(!is_json(&with("application/json-seq")));
    }
}
