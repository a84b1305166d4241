//! Finds the one API key of a request, and takes it out before the request goes on.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::gateway::fields::{Fields, Name};
use crate::gateway::message::RequestHead;
use crate::key::{GENERATED_LEN, PREFIX, PresentedKey};
use crate::verdict::Denial;

/// Names of query parameters whose value would be a key, lower case, with dashes where a client may write underscores.
/// The service's own queries have `ids` and `partition` only.
const KEY_PARAMETERS: [&[u8]; 10] = [
    b"dashvector-auth-token",
    b"dashvector-api-key",
    b"api-key",
    b"apikey",
    b"x-api-key",
    b"auth-token",
    b"access-token",
    b"authorization",
    b"bearer",
    b"token",
];

/// The key of a request: `dashvector-auth-token: <key>` or `Authorization: Bearer <key>`, exactly one in all.
///
/// A key in the query string is refused whatever the headers say, since that address is in somebody's log by now. Two
/// keys are refused even where they are equal: whoever reads the request next might take the other one. Other schemes
/// of `Authorization` are no keys, and do not reach the service either (see [`take_out`]).
pub fn presented(head: &RequestHead) -> Result<PresentedKey<'_>, Denial> {
    if head.uri.query().is_some_and(has_key) {
        return Err(Denial::KeyInQuery);
    }
    let tokens = head.fields.all(Name::Token);
    let bearers = head.fields.all(Name::Authorization).filter_map(bearer);
    let mut keys = tokens.chain(bearers);
    let key = keys.next().ok_or(Denial::NotValid)?;
    if keys.next().is_some() {
        return Err(Denial::TwoKeys);
    }
    PresentedKey::parse(key).map_err(|_| Denial::NotValid)
}

/// Removes every header that may hold a secret of the client.
pub fn take_out(fields: &mut Fields) {
    fields.remove(Name::Token);
    fields.remove(Name::Authorization);
}

/// Whether a browser made this call: it says so in `Origin` or `Sec-Fetch-Mode`, which no script of a page can
/// suppress.
pub fn is_browser_call(fields: &Fields) -> bool {
    fields.has(Name::Origin) || fields.has(Name::SecFetchMode)
}

/// What follows the scheme `Bearer`; `None` for any other scheme.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(b"Bearer".len())?;
    let separated = key.is_empty() || key.first() == Some(&b' ');
    (separated && scheme.eq_ignore_ascii_case(b"Bearer")).then(|| key.trim_ascii())
}

/// Whether a query string has a parameter that is named like a key, or a generated key anywhere in a value. The
/// second is recognised by its checksum, so a document id that only begins like a key is none.
fn has_key(query: &str) -> bool {
    query.split('&').any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        // What is encoded is longer than what it stands for.
        let may_have_key = value.len() >= GENERATED_LEN;
        !value.is_empty() && (is_key_parameter(&decoded(name)) || may_have_key && has_generated_key(&decoded(value)))
    })
}

/// Copies only where there is something to decode.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    percent_decode(text.as_bytes()).into()
}

fn is_key_parameter(name: &[u8]) -> bool {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    KEY_PARAMETERS.iter().any(|known| known.len() == name.len() && name.iter().map(fold).eq(known.iter().copied()))
}

fn has_generated_key(value: &[u8]) -> bool {
    memchr::memmem::find_iter(value, PREFIX.as_bytes())
        .filter_map(|at| value.get(at..at + GENERATED_LEN))
        .any(|candidate| PresentedKey::parse(candidate).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Digest, Digester, KeyText};

    fn digest(key: &[u8]) -> Digest {
        Digester::new(&[1; 32]).digest(PresentedKey::parse(key).unwrap())
    }

    fn found(uri: &str, headers: &[(&str, &str)]) -> Result<Digest, Denial> {
        presented(&RequestHead::of("GET", uri, headers)).map(|key| Digester::new(&[1; 32]).digest(key))
    }

    #[test]
    fn one_key_in_either_header_is_found() {
        let good = Ok(digest(b"k1"));
        assert_eq!(found("/", &[("dashvector-auth-token", "k1")]), good);
        for value in ["Bearer k1", "bearer k1", "BEARER   k1"] {
            assert_eq!(found("/", &[("authorization", value)]), good, "{value}");
        }
        assert_eq!(found("/", &[("dashvector-auth-token", "k1"), ("authorization", "Basic eDp5")]), good);
        assert_eq!(found("/?ids=1,z%2B%23$%25%3D@!.z&partition=default", &[("dashvector-auth-token", "k1")]), good);
    }

    #[test]
    fn no_key_and_a_malformed_key_are_not_valid() {
        let cases: [&[(&str, &str)]; 8] = [
            &[],
            &[("dashvector-auth-token", "")],
            &[("dashvector-auth-token", "two words")],
            &[("dashvector-auth-token", "dvk_tooshort")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bearerk1")],
            &[("authorization", "Basic eDp5"), ("authorization", "Digest x")],
        ];
        for headers in cases {
            assert_eq!(found("/", headers), Err(Denial::NotValid), "{headers:?}");
        }
    }

    #[test]
    fn two_keys_are_refused_even_where_they_are_equal() {
        let (token, bearer) = (("dashvector-auth-token", "k1"), ("authorization", "Bearer k1"));
        for headers in [[token, token], [bearer, bearer], [token, bearer], [("dashvector-auth-token", ""), bearer]] {
            assert_eq!(found("/", &headers), Err(Denial::TwoKeys), "{headers:?}");
        }
    }

    #[test]
    fn a_key_in_the_query_is_refused_however_it_is_spelt() {
        let key = KeyText::generate().unwrap();
        let key = key.expose();
        let queries = [
            "dashvector-auth-token=x".to_owned(),
            "a=b&API_KEY=x".to_owned(),
            "ids=1&access%5Ftoken=x".to_owned(),
            format!("ids={key}"),
            format!("ids=1,{key},2"),
            format!("note=%64vk_{}", &key[4..]),
            format!("&&x={key}{key}"),
        ];
        for query in queries {
            let uri = format!("/v1/collections/c/docs?{query}");
            assert_eq!(found(&uri, &[("dashvector-auth-token", "k1")]), Err(Denial::KeyInQuery), "{query}");
            assert_eq!(found(&uri, &[]), Err(Denial::KeyInQuery), "{query}");
        }
    }

    #[test]
    fn queries_of_the_service_are_never_taken_for_a_key() {
        let mut wrong = KeyText::generate().unwrap().expose().to_owned();
        wrong.replace_range(10..11, if &wrong[10..11] == "a" { "b" } else { "a" });
        for query in [
            "ids=dvk_1,dvk_2",
            "ids=token,api_key",
            "ids=1&partition=token",
            "page_token=x",
            "token=",
            "",
            "ids=%",
            "dvk_",
        ] {
            assert!(!has_key(query), "{query}");
        }
        assert!(!has_key(&format!("ids={wrong}")));
    }

    #[test]
    fn nothing_of_the_key_is_left_for_the_service() {
        let headers = [
            ("dashvector-auth-token", "k1"),
            ("dashvector-auth-token", "k2"),
            ("authorization", "Basic eDp5"),
            ("host", "a"),
        ];
        let mut fields = Fields::from(&headers[..]);
        take_out(&mut fields);
        assert_eq!(fields.count(), 1);
    }

    #[test]
    fn a_browser_is_known_by_its_headers() {
        let is_one = |field| is_browser_call(&Fields::from(&[field][..]));
        assert!(is_one(("origin", "null")));
        assert!(is_one(("Sec-Fetch-Mode", "cors")));
        assert!(!is_one(("user-agent", "Mozilla/5.0")));
    }
}
