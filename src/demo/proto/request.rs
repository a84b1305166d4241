//! What a client sends. Twelve shapes serve all eighteen operations.

use std::collections::BTreeMap;

use prost::Message;
use serde::Deserialize;

use super::{Doc, FieldsSchema, Index, SparseMap, SparseVector, Vector, VectorParam};
use crate::demo::text;

/// The requests without any field: list, version, statistics of a collection.
#[derive(Clone, PartialEq, Message)]
pub struct Nothing {}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct CreateCollection {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub dimension: u32,
    #[prost(enumeration = "super::DataType", tag = "3")]
    #[serde(with = "text::data_type")]
    pub dtype: i32,
    #[prost(enumeration = "super::Metric", tag = "4")]
    #[serde(with = "text::metric", default = "text::cosine")]
    pub metric: i32,
    #[prost(btree_map = "string, enumeration(super::FieldType)", tag = "5")]
    #[serde(with = "text::field_types")]
    pub fields_schema: FieldsSchema,
    #[prost(btree_map = "string, string", tag = "6")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub extra_params: BTreeMap<String, String>,
    #[prost(btree_map = "string, message", tag = "8")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub vectors_schema: BTreeMap<String, VectorParam>,
    #[prost(btree_map = "string, message", tag = "9")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub sparse_vectors_schema: BTreeMap<String, VectorParam>,
    #[prost(btree_map = "string, message", tag = "10")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub indexes: BTreeMap<String, Index>,
}

/// Field 1 names the collection in `delete_collection` and `describe_collection`, else the partition.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Insert, update, upsert.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct WriteDocs {
    #[prost(message, repeated, tag = "1")]
    pub docs: Vec<Doc>,
    #[prost(string, tag = "2")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub partition: String,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct DeleteDocs {
    #[prost(string, repeated, tag = "1")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub ids: Vec<String>,
    #[prost(bool, tag = "2")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub delete_all: bool,
    #[prost(string, tag = "3")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub filter: String,
    #[prost(string, tag = "4")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub partition: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct FetchDocs {
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
    #[prost(string, tag = "2")]
    pub partition: String,
    #[prost(string, repeated, tag = "3")]
    pub output_fields: Vec<String>,
    /// Not evaluated: neither the SDK nor the HTTP route sends it, and both expect the vector.
    #[prost(bool, tag = "4")]
    pub include_vector: bool,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct QueryParam {
    #[prost(int32, tag = "1")]
    pub num_candidates: i32,
    /// 0 is none. Cosine and euclidean scores must not be above it, dot products not below.
    #[prost(float, tag = "2")]
    pub radius: f32,
    #[prost(bool, tag = "3")]
    pub is_linear: bool,
    #[prost(uint32, tag = "4")]
    pub ef: u32,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct VectorQuery {
    #[prost(message, optional, tag = "1")]
    pub vector: Option<Vector>,
    #[prost(message, optional, tag = "2")]
    pub param: Option<QueryParam>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct SparseVectorQuery {
    #[prost(message, optional, tag = "1")]
    pub sparse_vector: Option<SparseVector>,
    #[prost(message, optional, tag = "2")]
    pub param: Option<QueryParam>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct Ranker {
    #[prost(string, tag = "1")]
    pub ranker_name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub ranker_params: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct OrderByField {
    #[prost(string, tag = "1")]
    pub field: String,
    #[prost(bool, tag = "2")]
    pub desc: bool,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct QueryDocs {
    #[prost(message, optional, tag = "1")]
    pub vector: Option<Vector>,
    #[prost(int32, tag = "2")]
    pub topk: i32,
    #[prost(string, tag = "3")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub filter: String,
    #[prost(bool, tag = "4")]
    pub include_vector: bool,
    #[prost(string, tag = "5")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub partition: String,
    #[prost(string, repeated, tag = "6")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub output_fields: Vec<String>,
    #[prost(btree_map = "uint32, float", tag = "7")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub sparse_vector: SparseMap,
    #[prost(string, tag = "8")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub id: String,
    #[prost(btree_map = "string, message", tag = "9")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub vectors: BTreeMap<String, VectorQuery>,
    #[prost(message, optional, tag = "10")]
    pub rerank: Option<Ranker>,
    #[prost(btree_map = "string, message", tag = "11")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub sparse_vectors: BTreeMap<String, SparseVectorQuery>,
    #[prost(message, repeated, tag = "12")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub order_by_fields: Vec<OrderByField>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub struct QueryGroups {
    #[prost(message, optional, tag = "1")]
    pub vector: Option<Vector>,
    #[prost(string, tag = "2")]
    pub group_by_field: String,
    #[prost(int32, tag = "3")]
    pub group_count: i32,
    #[prost(int32, tag = "4")]
    pub group_topk: i32,
    #[prost(string, tag = "5")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub filter: String,
    #[prost(bool, tag = "6")]
    pub include_vector: bool,
    #[prost(string, tag = "7")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub partition: String,
    #[prost(string, repeated, tag = "8")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub output_fields: Vec<String>,
    #[prost(btree_map = "uint32, float", tag = "9")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub sparse_vector: SparseMap,
    #[prost(string, tag = "10")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub id: String,
    #[prost(string, tag = "11")]
    #[serde(deserialize_with = "text::null_is_default")]
    pub vector_field: String,
}
