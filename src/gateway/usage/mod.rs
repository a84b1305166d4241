//! Reading the service's own figures out of an answer while it streams by: units and code, never the body.

pub mod block;
pub mod grpc;
pub mod json;

use crate::gateway::fields::{Fields, Name};
use crate::meter::record::Units;
use grpc::GrpcReader;
use json::JsonReader;

/// What an answer said about itself, once it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Nothing is reported unless `form` is [`Form::Whole`].
    pub units: Units,
    /// The answer's own code; 0 is success. Absent where a JSON answer has none, or none that is an integer.
    pub code: Option<i64>,
    pub form: Form,
}

/// How far an answer could be read. Only a whole one says anything about units or code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One complete JSON object, or complete gRPC messages.
    Whole,
    /// The answer had no bytes.
    Empty,
    /// The service compressed the answer although it was asked not to.
    Compressed,
    /// A gRPC message is longer than allowed.
    TooLarge,
    /// Cut off, or not what its protocol says.
    Malformed,
}

impl Reading {
    const fn nothing(form: Form) -> Self {
        Self { units: Units { read: None, write: None }, code: None, form }
    }
}

/// The reader of one answer. It keeps a fixed number of bytes, however long the answer is.
#[derive(Debug)]
pub enum UsageReader {
    Json(JsonReader),
    Grpc(GrpcReader),
    /// The body says nothing that could be read.
    Opaque,
}

impl UsageReader {
    /// The reader for an HTTP answer with these headers.
    pub fn for_http(answer: &Fields) -> Self {
        let plain = answer.all(Name::ContentEncoding).all(|coding| coding.eq_ignore_ascii_case(b"identity"));
        if plain { Self::Json(JsonReader::new()) } else { Self::Opaque }
    }

    /// The reader for a gRPC answer whose messages have at most `message_bytes` bytes each, without their prefix.
    pub fn for_grpc(message_bytes: u64) -> Self {
        Self::Grpc(GrpcReader::new(message_bytes))
    }

    /// The next bytes of the body, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(reader) => reader.feed(bytes),
            Self::Grpc(reader) => reader.feed(bytes),
            Self::Opaque => {}
        }
    }

    /// What the bytes fed so far amount to, if nothing comes after them.
    pub fn finish(&self) -> Reading {
        match self {
            Self::Json(reader) => reader.finish(),
            Self::Grpc(reader) => reader.finish(),
            Self::Opaque => Reading::nothing(Form::Compressed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_http_answer_is_named_as_such() {
        let mut fields = Fields::default();
        assert!(matches!(UsageReader::for_http(&fields), UsageReader::Json(_)));
        fields.add(b"content-encoding", b"Identity");
        assert!(matches!(UsageReader::for_http(&fields), UsageReader::Json(_)));
        fields.add(b"Content-Encoding", b"gzip");
        let mut reader = UsageReader::for_http(&fields);
        reader.feed(b"\x1f\x8b");
        assert_eq!(reader.finish(), Reading::nothing(Form::Compressed));
    }

    #[test]
    fn a_reader_is_small_and_lives_on_the_stack() {
        assert!(size_of::<UsageReader>() <= 160, "{}", size_of::<UsageReader>());
    }
}
