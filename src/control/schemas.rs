//! How values of the shared vocabulary look in JSON, for the OpenAPI document.

use std::borrow::Cow;

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::accounts::Items;
use crate::principal::{
    AccountId, AccountStatus, AdjustmentId, ClusterId, Incarnation, KeyId, Revision, SessionId, UserId,
};
use crate::store::audit::{ActorKind, ChainHash};
use crate::store::records::Role;

macro_rules! ids {
    ($($id:ty),+) => {
        $(impl PartialSchema for $id {
            fn schema() -> RefOr<Schema> {
                let pattern = format!("^{}[a-z2-7]{{16}}$", <$id>::PREFIX);
                text().pattern(Some(pattern)).into()
            }
        }

        impl ToSchema for $id {})+

        /// Those that stand in paths.
        pub fn ids(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            $(schemas.push((<$id>::name().into_owned(), <$id>::schema()));)+
        }
    };
}

ids!(AccountId, KeyId, ClusterId, UserId, SessionId, Incarnation, AdjustmentId);

macro_rules! words {
    ($($kind:ty: $($word:literal),+;)+) => {
        $(impl PartialSchema for $kind {
            fn schema() -> RefOr<Schema> {
                text().enum_values(Some([$($word),+])).into()
            }
        }

        impl ToSchema for $kind {})+
    };
}

words! {
    AccountStatus: "active", "suspended";
    Role: "root", "member";
    ActorKind: "operator", "root", "member", "system";
}

/// Each list has a schema of its own: with one name for all of them, the last one written would stand for the rest.
impl<T: ToSchema, Cursor: PartialSchema> PartialSchema for Items<T, Cursor> {
    fn schema() -> RefOr<Schema> {
        let items = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
        let next = OneOfBuilder::new().item(Cursor::schema()).item(ObjectBuilder::new().schema_type(Type::Null));
        ObjectBuilder::new().property("items", items).required("items").property("next", next).into()
    }
}

impl<T: ToSchema, Cursor: PartialSchema> ToSchema for Items<T, Cursor> {
    fn name() -> Cow<'static, str> {
        format!("{}Page", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

impl PartialSchema for Revision {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).into()
    }
}

impl ToSchema for Revision {}

impl PartialSchema for ChainHash {
    fn schema() -> RefOr<Schema> {
        text().pattern(Some("^[0-9a-f]{64}$")).into()
    }
}

impl ToSchema for ChainHash {}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}
