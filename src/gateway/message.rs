//! The heads of a request and of its answer, whichever protocol they came by.

use bytes::Bytes;
use http::{Method, Response, StatusCode, Uri, Version, request, response};

use crate::gateway::body::Outgoing;
use crate::gateway::fields::Fields;

#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub fields: Fields,
}

#[derive(Debug)]
pub struct AnswerHead {
    pub status: StatusCode,
    /// The words after the status, where they are not the usual ones. Only HTTP/1.1 has them.
    pub reason: Option<Bytes>,
    pub fields: Fields,
}

/// What a client gets.
pub struct Answer {
    pub head: AnswerHead,
    pub body: Outgoing,
}

impl From<request::Parts> for RequestHead {
    fn from(parts: request::Parts) -> Self {
        let request::Parts { method, uri, version, headers, .. } = parts;
        Self { method, uri, version, fields: headers.into() }
    }
}

impl From<response::Parts> for AnswerHead {
    fn from(parts: response::Parts) -> Self {
        let response::Parts { status, headers, .. } = parts;
        Self { status, reason: None, fields: headers.into() }
    }
}

impl From<AnswerHead> for Response<()> {
    fn from(head: AnswerHead) -> Self {
        let mut answer = Self::new(());
        (*answer.status_mut(), *answer.headers_mut()) = (head.status, head.fields.into_map());
        answer
    }
}

impl From<Response<Outgoing>> for Answer {
    fn from(answer: Response<Outgoing>) -> Self {
        let (parts, body) = answer.into_parts();
        Self { head: parts.into(), body }
    }
}

#[cfg(test)]
impl RequestHead {
    /// The same request with its fields in both forms. It says that it came over HTTP/1.1.
    pub fn both(method: &str, uri: &str, fields: &[(&str, &str)]) -> [Self; 2] {
        let (method, uri): (Method, Uri) = (method.parse().unwrap(), uri.parse().unwrap());
        Fields::both(fields).map(|fields| {
            let (method, uri) = (method.clone(), uri.clone());
            Self { method, uri, version: Version::HTTP_11, fields }
        })
    }

    /// What both forms give, which is the same.
    pub fn of_both<T: PartialEq + std::fmt::Debug>(heads: [Self; 2], get: impl Fn(&Self) -> T) -> T {
        let [lines, map] = heads.map(|head| get(&head));
        assert_eq!(lines, map);
        lines
    }
}
