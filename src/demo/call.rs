//! One operation of the vector service, whichever protocol carried it, and what it answers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::proto::request::{CreateCollection, DeleteDocs, FetchDocs, Named, QueryDocs, QueryGroups, WriteDocs};
use super::proto::{CollectionInfo, CollectionStats, Doc, DocOp, DocOpResult, GroupResult, PartitionStats, Units};

/// The version the service claims to be.
pub const VERSION: &str = "1.0.0";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    GetVersion,
    CreateCollection,
    DeleteCollection,
    DescribeCollection,
    ListCollections,
    StatsCollection,
    CreatePartition,
    DeletePartition,
    DescribePartition,
    ListPartitions,
    StatsPartition,
    Insert,
    Update,
    Upsert,
    Delete,
    Query,
    QueryGroupBy,
    Fetch,
    /// Everything that is not DashVector, such as the echo paths.
    Other,
}

/// A decoded request. `collection` comes from the path or the `collection-name` metadata.
#[derive(Clone, Debug)]
pub struct Call {
    pub collection: String,
    pub request: Request,
}

#[derive(Clone, Debug)]
pub enum Request {
    GetVersion,
    CreateCollection(CreateCollection),
    DeleteCollection,
    DescribeCollection,
    ListCollections,
    StatsCollection,
    CreatePartition(Named),
    DeletePartition(Named),
    DescribePartition(Named),
    ListPartitions,
    StatsPartition(Named),
    Write(DocOp, WriteDocs),
    Delete(DeleteDocs),
    Query(QueryDocs),
    QueryGroupBy(QueryGroups),
    Fetch(FetchDocs),
}

/// A good answer.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub output: Output,
    pub units: Option<Units>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Output {
    Nothing,
    Version(String),
    Names(Vec<String>),
    Collection(CollectionInfo),
    Stats(CollectionStats),
    #[serde(with = "super::text::status")]
    Status(i32),
    PartitionStats(PartitionStats),
    Written(Vec<DocOpResult>),
    Docs(Vec<Doc>),
    Fetched(BTreeMap<String, Doc>),
    Groups(Vec<GroupResult>),
}

/// The service refuses; said in the body with a status that is success, as DashVector does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: i32,
    pub message: String,
}

/// The codes of DashVector's table that this service uses.
pub mod code {
    pub const INVALID_VECTOR_FORMAT: i32 = -2011;
    pub const INVALID_FILTER: i32 = -2015;
    pub const MISMATCHED_DIMENSION: i32 = -2019;
    pub const INEXISTENT_COLLECTION: i32 = -2021;
    pub const INEXISTENT_PARTITION: i32 = -2022;
    pub const INEXISTENT_COLUMN: i32 = -2023;
    pub const INEXISTENT_KEY: i32 = -2024;
    pub const DUPLICATE_COLLECTION: i32 = -2025;
    pub const DUPLICATE_PARTITION: i32 = -2026;
    pub const DUPLICATE_KEY: i32 = -2027;
    pub const UNSUPPORTED_CONDITION: i32 = -2031;
    pub const INVALID_DIMENSION: i32 = -2037;
    pub const INVALID_TOPK: i32 = -2041;
    pub const INVALID_COLLECTION_NAME: i32 = -2042;
    pub const INVALID_PARTITION_NAME: i32 = -2043;
    pub const INVALID_JSON: i32 = -2047;
    pub const INVALID_GROUP_BY: i32 = -2053;
    pub const INVALID_ARGUMENT: i32 = -2999;
}

impl Refusal {
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Outcome {
    /// An answer that costs nothing.
    pub fn free(output: Output) -> Self {
        Self { output, units: None }
    }

    /// One write unit for every document that was written or removed.
    pub fn written(results: Vec<DocOpResult>) -> Self {
        let written = results.iter().filter(|result| result.code == 0).count();
        Self { output: Output::Written(results), units: Some(Units::Write(count(written))) }
    }

    /// One read unit for the call and one for every document in the answer.
    pub fn read(output: Output, documents: usize) -> Self {
        Self { output, units: Some(Units::Read(count(documents).saturating_add(1))) }
    }
}

fn count(documents: usize) -> u32 {
    u32::try_from(documents).unwrap_or(u32::MAX)
}
