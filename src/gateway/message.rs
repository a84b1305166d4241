//! The heads of a request and of its answer, whichever protocol they came by.

use std::fmt;

use bytes::Bytes;
use http::{Method, Response, StatusCode, Uri, Version, response};

use crate::gateway::body::Outgoing;
use crate::gateway::fields::Fields;

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

impl From<response::Parts> for AnswerHead {
    fn from(parts: response::Parts) -> Self {
        let response::Parts { status, headers, .. } = parts;
        Self { status, reason: None, fields: headers.into() }
    }
}

impl From<Response<Outgoing>> for Answer {
    fn from(answer: Response<Outgoing>) -> Self {
        let (parts, body) = answer.into_parts();
        Self { head: parts.into(), body }
    }
}

impl fmt::Debug for RequestHead {
    /// Not what follows the path: it may have a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?} {:?}", self.method, self.uri.path(), self.version, self.fields)
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
