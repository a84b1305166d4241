//! What a client is answered.

use std::collections::BTreeMap;

use prost::Message;

use super::{CollectionInfo, CollectionStats, Doc, DocOpResult, GroupResult, PartitionStats, RequestUsage};

macro_rules! response {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Message)]
        pub struct $name {
            #[prost(string, tag = "1")]
            pub request_id: String,
            #[prost(int32, tag = "2")]
            pub code: i32,
            #[prost(string, tag = "3")]
            pub message: String,
            $($(#[$attribute])* pub $field: $kind,)*
        }
    };
}

response! {
    /// Create and delete, of collections and partitions; also every refusal.
    Bare {}
}

response! {
    Version {
        #[prost(string, tag = "4")]
        version: String,
    }
}

response! {
    Names {
        #[prost(string, repeated, tag = "4")]
        output: Vec<String>,
    }
}

response! {
    Collection {
        #[prost(message, optional, tag = "4")]
        output: Option<CollectionInfo>,
    }
}

response! {
    Stats {
        #[prost(message, optional, tag = "4")]
        output: Option<CollectionStats>,
    }
}

response! {
    Partition {
        #[prost(enumeration = "super::Status", tag = "4")]
        output: i32,
    }
}

response! {
    StatsOfPartition {
        #[prost(message, optional, tag = "4")]
        output: Option<PartitionStats>,
    }
}

response! {
    Written {
        #[prost(message, repeated, tag = "4")]
        output: Vec<DocOpResult>,
        #[prost(message, optional, tag = "5")]
        usage: Option<RequestUsage>,
    }
}

response! {
    Docs {
        #[prost(message, repeated, tag = "4")]
        output: Vec<Doc>,
        #[prost(message, optional, tag = "5")]
        usage: Option<RequestUsage>,
    }
}

response! {
    Fetched {
        #[prost(btree_map = "string, message", tag = "4")]
        output: BTreeMap<String, Doc>,
        #[prost(message, optional, tag = "5")]
        usage: Option<RequestUsage>,
    }
}

response! {
    /// The one document operation whose answer has no usage.
    Groups {
        #[prost(message, repeated, tag = "4")]
        output: Vec<GroupResult>,
    }
}
