//! How values of the shared vocabulary look in JSON, for the OpenAPI document.

use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::principal::{AccountId, AccountStatus, ClusterId, Incarnation, KeyId, Revision, SessionId, UserId};
use crate::store::audit::{Actor, ActorKind, ChainHash};
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

ids!(AccountId, KeyId, ClusterId, UserId, SessionId, Incarnation);

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

impl PartialSchema for Actor {
    fn schema() -> RefOr<Schema> {
        let from = text().description(Some("The address the request came from."));
        let object = ObjectBuilder::new().property("kind", ActorKind::schema()).property("id", text());
        object.property("from", from).required("kind").required("id").into()
    }
}

impl ToSchema for Actor {}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String))
}
