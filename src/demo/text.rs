//! Where the JSON of the HTTP interface differs from the protobuf messages: names in place of numbers, flat vectors, counters as
//! digits, null in place of absence.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::proto::{DataType, Dense, DocOp, FieldType, Floats, IndexType, Metric, Status, Vector};

/// Reads null like an absent key.
pub fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// uint64 counters are strings in JSON.
pub fn digits<S: Serializer>(count: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(count)
}

/// The metric of a collection that does not name one. (In protobuf the absent value is euclidean.)
pub fn cosine() -> i32 {
    Metric::Cosine.into()
}

/// An enumeration that is a number in protobuf and a name in JSON.
trait Named: Copy + TryFrom<i32> + Into<i32> + 'static {
    const NAMES: &'static [(Self, &'static str)];

    fn name(number: i32) -> &'static str {
        let named = Self::NAMES.iter().find(|(value, _)| (*value).into() == number);
        named.map_or("UNKNOWN", |(_, name)| name)
    }

    fn number(name: &str) -> Option<i32> {
        Self::NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(value, _)| (*value).into())
    }
}

macro_rules! named {
    ($module:ident, $kind:ident { $($value:ident = $name:literal),* $(,)? }) => {
        impl Named for $kind {
            const NAMES: &'static [(Self, &'static str)] = &[$(($kind::$value, $name)),*];
        }

        pub mod $module {
            use super::*;

            pub fn serialize<S: Serializer>(number: &i32, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(<$kind as Named>::name(*number))
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
                let name = String::deserialize(from)?;
                let unknown = || serde::de::Error::custom(format_args!("unknown {}: {name}", stringify!($module)));
                <$kind as Named>::number(&name).ok_or_else(unknown)
            }
        }
    };
}

named!(data_type, DataType { Float = "FLOAT", Int = "INT" });
named!(metric, Metric { Euclidean = "euclidean", Dotproduct = "dotproduct", Cosine = "cosine" });
named!(status, Status { Initialized = "INITIALIZED", Serving = "SERVING", Dropping = "DROPPING", Error = "ERROR" });
named!(index_type, IndexType { Invert = "INVERT", None = "NONE" });
named!(doc_op, DocOp { Insert = "insert", Update = "update", Upsert = "upsert", Delete = "delete" });
named!(
    field_type,
    FieldType {
        Bool = "BOOL",
        String = "STRING",
        Int = "INT",
        Float = "FLOAT",
        Long = "LONG",
        ArrayString = "ARRAY_STRING",
        ArrayInt = "ARRAY_INT",
        ArrayFloat = "ARRAY_FLOAT",
        ArrayLong = "ARRAY_LONG",
    }
);

macro_rules! named_map {
    ($module:ident, $kind:ident, $of:literal) => {
        pub mod $module {
            use super::*;

            #[derive(Serialize, Deserialize)]
            struct Name(#[serde(with = $of)] i32);

            pub fn serialize<S: Serializer>(map: &BTreeMap<String, i32>, to: S) -> Result<S::Ok, S::Error> {
                to.collect_map(map.iter().map(|(key, number)| (key, Name(*number))))
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, i32>, D::Error> {
                let map = Option::<BTreeMap<String, Name>>::deserialize(from)?.unwrap_or_default();
                Ok(map.into_iter().map(|(key, Name(number))| (key, number)).collect())
            }
        }
    };
}

named_map!(field_types, FieldType, "super::field_type");
named_map!(statuses, Status, "super::status");

impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.dense {
            Some(Dense::Bytes(bytes)) => to.collect_seq(bytes.iter().map(|byte| byte.cast_signed())),
            Some(Dense::Floats(floats)) => floats.serialize(to),
            None => to.collect_seq(std::iter::empty::<f32>()),
        }
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Floats::deserialize(from).map(|floats| Self { dense: Some(Dense::Floats(floats)) })
    }
}
