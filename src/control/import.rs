//! Bringing in keys that were made elsewhere, so that a service can move behind the gateway without new keys.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::caller::OperatorOnly;
use super::confirm::{AfterChange, WaitQuery};
use super::error::Problem;
use super::keys::KeyView;
use super::name;
use super::request::{Id, JsonBody, QueryOf, broken_rule};
use crate::clock;
use crate::key::KeyText;
use crate::principal::AccountId;
use crate::store::accounts::{AccountError, Refusal};

#[derive(Deserialize, ToSchema)]
#[schema(as = KeyImport)]
#[serde(deny_unknown_fields)]
pub struct Import {
    keys: Vec<ImportedKey>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = KeyToImport)]
#[serde(deny_unknown_fields)]
struct ImportedKey {
    #[serde(deserialize_with = "key_text")]
    #[schema(value_type = String)]
    key: KeyText,
    #[serde(default, deserialize_with = "name::optional")]
    name: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = KeysImported)]
pub struct Imported {
    keys: Vec<KeyView>,
}

/// The size of the body bounds the number of keys.
const MOST: usize = 1024 * 1024;

/// All or none. A gateway may have heard of such a key and remember it as unknown, so the answer waits.
pub async fn import(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    Id(account_id): Id<AccountId>,
    QueryOf(wait): QueryOf<WaitQuery>,
    JsonBody(Import { keys }): JsonBody<Import, MOST>,
) -> Result<Response, Problem> {
    if keys.is_empty() {
        return Err(Problem::invalid("There is no key in the list."));
    }
    control.check_unknown_before(&keys).await?;
    let new = keys.into_iter().map(|imported| control.new_key(account_id, &imported.key, imported.name));
    let new = new.collect::<Result<Vec<_>, _>>()?;
    let changed = control.store.import_keys(account_id, new, operator.actor(), clock::wall()).await?;
    let confirmation = control.confirmed(changed.revision, wait).await?;
    let keys = control.key_views(changed.record).await?;
    Ok(AfterChange::new(Imported { keys }, confirmation).into_response_as(StatusCode::CREATED))
}

impl Control {
    /// While the pepper is rotated, a key may be known under its previous digest only. No key gets a new one of those any more,
    /// so this may come before the step that looks at the present ones.
    async fn check_unknown_before(&self, keys: &[ImportedKey]) -> Result<(), Problem> {
        for (index, imported) in keys.iter().enumerate() {
            let Some(digest) = self.digester.previous_digest(imported.key.presented()) else {
                return Ok(());
            };
            if self.store.key_by_digest(digest).await?.is_some() {
                return Err(AccountError::from(Refusal::DigestTaken { index }).into());
            }
        }
        Ok(())
    }
}

fn key_text<'de, D: Deserializer<'de>>(from: D) -> Result<KeyText, D::Error> {
    KeyText::import(String::deserialize(from)?)
        .map_err(|_| broken_rule("a key is 1 to 256 visible ASCII characters, and a dvk_ key is complete"))
}
