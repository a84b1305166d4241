//! The messages of the DashVector protocol, written by hand for prost, so that no protoc is needed. The same types read and
//! write the JSON of the HTTP interface: the field names agree, and what differs is in [`super::text`].
//!
//! Every response begins with 1 `request_id`, 2 `code`, 3 `message`; 4 is the output and 5 the usage, where there are any.

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};
use serde::{Deserialize, Serialize};

use super::text;

pub mod request;
pub mod response;

pub type SparseMap = BTreeMap<u32, f32>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DataType {
    Float = 0,
    Int = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Metric {
    Euclidean = 0,
    Dotproduct = 1,
    Cosine = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Status {
    Initialized = 0,
    Serving = 1,
    Dropping = 2,
    Error = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum FieldType {
    Bool = 0,
    String = 1,
    Int = 2,
    Float = 3,
    Long = 4,
    ArrayString = 11,
    ArrayInt = 12,
    ArrayFloat = 13,
    ArrayLong = 14,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum IndexType {
    Invert = 0,
    None = 15,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DocOp {
    Insert = 0,
    Update = 1,
    Upsert = 2,
    Delete = 3,
}

/// A dense vector. In JSON it is a flat array.
#[derive(Clone, PartialEq, Message)]
pub struct Vector {
    #[prost(oneof = "Dense", tags = "1, 2")]
    pub dense: Option<Dense>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Dense {
    /// One signed byte per dimension.
    #[prost(bytes = "vec", tag = "1")]
    Bytes(Vec<u8>),
    #[prost(message, tag = "2")]
    Floats(Floats),
}

macro_rules! list {
    ($name:ident, $kind:ident, $element:ty) => {
        #[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name {
            #[prost($kind, repeated, tag = "1")]
            pub values: Vec<$element>,
        }
    };
}

list!(Strings, string, String);
list!(Ints, int32, i32);
list!(Longs, int64, i64);
list!(Floats, float, f32);

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SparseVector {
    #[prost(btree_map = "uint32, float", tag = "1")]
    pub values: SparseMap,
}

/// The value of a document's field; `None` is null.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5, 11, 12, 13, 14")]
    pub value: Option<Value>,
}

/// In the order in which JSON is tried: the narrowest type that fits is taken.
#[derive(Clone, PartialEq, Oneof, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(string, tag = "2")]
    String(String),
    #[prost(int32, tag = "3")]
    Int(i32),
    #[prost(int64, tag = "5")]
    Long(i64),
    #[prost(float, tag = "4")]
    Float(f32),
    #[prost(message, tag = "11")]
    Strings(Strings),
    #[prost(message, tag = "12")]
    Ints(Ints),
    #[prost(message, tag = "14")]
    Longs(Longs),
    #[prost(message, tag = "13")]
    Floats(Floats),
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Doc {
    #[prost(string, tag = "1")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vector>,
    #[prost(btree_map = "string, message", tag = "3")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub fields: BTreeMap<String, FieldValue>,
    #[prost(float, tag = "4")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub score: f32,
    #[prost(btree_map = "uint32, float", tag = "5")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "text::null_is_default")]
    pub sparse_vector: SparseMap,
    #[prost(btree_map = "string, message", tag = "6")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "text::null_is_default")]
    pub vectors: BTreeMap<String, Vector>,
    #[prost(btree_map = "string, message", tag = "7")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "text::null_is_default")]
    pub sparse_vectors: BTreeMap<String, SparseVector>,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct VectorParam {
    #[prost(uint32, tag = "1")]
    pub dimension: u32,
    #[prost(enumeration = "DataType", tag = "2")]
    #[serde(with = "text::data_type")]
    pub dtype: i32,
    #[prost(enumeration = "Metric", tag = "3")]
    #[serde(with = "text::metric", default = "text::cosine")]
    pub metric: i32,
    #[prost(string, tag = "4")]
    pub quantize_type: String,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Index {
    #[prost(enumeration = "IndexType", tag = "1")]
    #[serde(with = "text::index_type")]
    pub index_type: i32,
}

/// A map from field names to the numbers of [`FieldType`].
pub type FieldsSchema = BTreeMap<String, i32>;

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectionInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub dimension: u32,
    #[prost(enumeration = "DataType", tag = "3")]
    #[serde(with = "text::data_type")]
    pub dtype: i32,
    #[prost(enumeration = "Metric", tag = "4")]
    #[serde(with = "text::metric")]
    pub metric: i32,
    #[prost(btree_map = "string, enumeration(FieldType)", tag = "5")]
    #[serde(with = "text::field_types")]
    pub fields_schema: FieldsSchema,
    #[prost(enumeration = "Status", tag = "6")]
    #[serde(with = "text::status")]
    pub status: i32,
    #[prost(btree_map = "string, enumeration(Status)", tag = "7")]
    #[serde(with = "text::statuses")]
    pub partitions: BTreeMap<String, i32>,
    #[prost(btree_map = "string, message", tag = "8")]
    pub vectors_schema: BTreeMap<String, VectorParam>,
    #[prost(btree_map = "string, message", tag = "9")]
    pub sparse_vectors_schema: BTreeMap<String, VectorParam>,
    #[prost(btree_map = "string, message", tag = "10")]
    pub indexes: BTreeMap<String, Index>,
}

#[derive(Clone, PartialEq, Message, Serialize)]
pub struct PartitionStats {
    #[prost(uint64, tag = "1")]
    #[serde(serialize_with = "text::digits")]
    pub total_doc_count: u64,
}

#[derive(Clone, PartialEq, Message, Serialize)]
pub struct CollectionStats {
    #[prost(uint64, tag = "1")]
    #[serde(serialize_with = "text::digits")]
    pub total_doc_count: u64,
    #[prost(float, tag = "2")]
    pub index_completeness: f32,
    #[prost(btree_map = "string, message", tag = "3")]
    pub partitions: BTreeMap<String, PartitionStats>,
}

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct DocOpResult {
    #[prost(enumeration = "DocOp", tag = "1")]
    #[serde(with = "text::doc_op")]
    pub doc_op: i32,
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(int32, tag = "3")]
    pub code: i32,
    #[prost(string, tag = "4")]
    pub message: String,
}

#[derive(Clone, PartialEq, Message, Serialize)]
pub struct GroupResult {
    #[prost(string, tag = "1")]
    pub group_id: String,
    #[prost(message, repeated, tag = "2")]
    pub docs: Vec<Doc>,
}

#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(transparent)]
pub struct RequestUsage {
    #[prost(oneof = "Units", tags = "1, 2")]
    pub units: Option<Units>,
}

/// Never both. Zero is said, too: present and 0 is not the same as absent.
#[derive(Clone, Copy, PartialEq, Eq, Oneof, Serialize)]
pub enum Units {
    #[prost(uint32, tag = "1")]
    #[serde(rename = "write_units")]
    Write(u32),
    #[prost(uint32, tag = "2")]
    #[serde(rename = "read_units")]
    Read(u32),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::request::QueryDocs;
    use super::*;

    fn usage(units: Units) -> Option<RequestUsage> {
        Some(RequestUsage { units: Some(units) })
    }

    fn hex(message: &impl Message) -> String {
        data_encoding::HEXLOWER.encode(&message.encode_to_vec())
    }

    #[test]
    fn an_answer_has_the_bytes_that_the_official_client_expects() {
        let written = response::Written { request_id: "r".into(), usage: usage(Units::Write(4)), ..Default::default() };
        assert_eq!(hex(&written), "0a01722a020804");
        let found = response::Docs { usage: usage(Units::Read(300)), ..Default::default() };
        assert_eq!(hex(&found), "2a0310ac02");
        let nothing = response::Docs { usage: usage(Units::Read(0)), ..Default::default() };
        assert_eq!(hex(&nothing), "2a021000", "zero units are said");
        let refused = response::Bare { code: -2034, ..Default::default() };
        assert_eq!(hex(&refused), "108ef0ffffffffffffff01", "a negative code has ten bytes");
    }

    #[test]
    fn a_document_reads_the_same_from_json_and_from_bytes() {
        let json = r#"{"id":"a","fields":{"b":true,"f":1.5,"i":7,"l":5000000000,"n":null,"s":"x","ss":["y"]},"score":0.1,
            "sparse_vector":{"3":0.5},"vector":[0.1,-2.0]}"#;
        let doc: Doc = serde_json::from_str(json).unwrap();
        assert_eq!(doc.fields["i"].value, Some(Value::Int(7)));
        assert_eq!(doc.fields["l"].value, Some(Value::Long(5_000_000_000)));
        assert_eq!(doc.fields["f"].value, Some(Value::Float(1.5)));
        assert_eq!(Doc::decode(&*doc.encode_to_vec()).unwrap(), doc);
        let again = serde_json::to_string(&doc).unwrap();
        assert_eq!(serde_json::from_str::<Doc>(&again).unwrap(), doc);
        assert!(again.contains("[0.1,-2.0]"), "a float stays one, and short: {again}");
    }

    #[test]
    fn a_vector_of_bytes_is_shown_as_signed_numbers() {
        let vector = Vector { dense: Some(Dense::Bytes(vec![1, 0xff, 0x80])) };
        assert_eq!(serde_json::to_string(&vector).unwrap(), "[1,-1,-128]");
        assert_eq!(hex(&vector), "0a0301ff80");
    }

    #[test]
    fn nulls_are_read_as_absent() {
        let json = r#"{"id":null,"filter":null,"partition":null,"output_fields":null,"vector":null,"rerank":null}"#;
        assert_eq!(serde_json::from_str::<QueryDocs>(json).unwrap(), QueryDocs::default());
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = QueryDocs::decode(&*bytes);
            let _ = response::Fetched::decode(&*bytes);
        }
    }
}
