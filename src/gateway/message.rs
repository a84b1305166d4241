//! The heads of a request and of its answer, whichever protocol they came by.

use std::fmt;

use bytes::Bytes;
use http::{Method, StatusCode, Uri, Version};

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

impl fmt::Debug for RequestHead {
    /// Not what follows the path: it may have a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?} {:?}", self.method, self.uri.path(), self.version, self.fields)
    }
}

#[cfg(test)]
impl RequestHead {
    /// A request that says that it came over HTTP/1.1.
    pub fn of(method: &str, uri: &str, fields: &[(&str, &str)]) -> Self {
        let (method, uri): (Method, Uri) = (method.parse().unwrap(), uri.parse().unwrap());
        Self { method, uri, version: Version::HTTP_11, fields: fields.into() }
    }
}
