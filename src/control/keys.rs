//! API keys, as their account sees them: list, create, view, change, delete (design, section 4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Control;
use super::caller::{AccountUser, Caller, RootOnly};
use super::confirm::{AfterChange, Progress, Receipt, WaitQuery};
use super::error::{Kind, Problem};
use super::last_used::Use;
use super::name;
use super::request::{Id, JsonBody, QueryOf};
use super::seal::Owner;
use super::step_up::grant_in;
use crate::clock;
use crate::key::{KeyText, PresentedKey};
use crate::principal::{AccountId, KeyId};
use crate::store::accounts::{AccountError, Answer, Changed, DeleteBy, Expiry, KeyPatch, KeySlots, Keys, NewKey, Page};
use crate::store::records::KeyRecord;
use crate::time::WallTime;

/// What is sealed of a key never changes, so it stays at its first version.
const SEALED_VERSION: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    Active,
    Disabled,
    Expired,
    Deleted,
}

/// A key as a list shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyView {
    pub id: KeyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    masked: String,
    status: KeyStatus,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    imported: bool,
    /// Whether a browser sent it: then a page may hold it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    seen_in_browser: bool,
}

/// The keys of an account and where it stands against its limits.
#[derive(Serialize, ToSchema)]
pub struct KeyList {
    keys: Vec<KeyView>,
    active: u32,
    active_max: u32,
    created_today: u32,
    daily_max: u32,
    resets_at: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(default)]
    pub(super) deleted: bool,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = KeyCreate)]
#[serde(deny_unknown_fields)]
pub struct Create {
    #[serde(default, deserialize_with = "name::optional")]
    name: Option<String>,
}

/// The one answer that shows a new key.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyCreated)]
pub struct Created {
    id: KeyId,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    masked: String,
    created_at: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = KeyViewed)]
pub struct Viewed {
    id: KeyId,
    key: String,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = KeyPatch)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    #[serde(default, deserialize_with = "name::optional")]
    name: Option<String>,
    status: Option<Switch>,
    /// `null`: the key has no end any more.
    #[schema(value_type = Option<String>)]
    #[serde(default, deserialize_with = "given")]
    expires_at: Option<Option<jiff::Timestamp>>,
}

/// Tells `null` from what is absent.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, ToSchema)]
#[schema(as = KeySwitch)]
#[serde(rename_all = "snake_case")]
enum Switch {
    Active,
    Disabled,
}

/// A key, with the receipt once it is deleted.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum KeyFacts {
    Live(KeyView),
    Deleted {
        #[serde(flatten)]
        key: KeyView,
        #[serde(flatten)]
        receipt: Progress,
    },
}

pub async fn list(
    State(control): State<Arc<Control>>,
    user: AccountUser,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<KeyList>, Problem> {
    let keys = control.key_list(user.account_id(), query.deleted).await?;
    Ok(Json(keys))
}

pub async fn create(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    JsonBody(Create { name }): JsonBody<Create>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let key = KeyText::generate()?;
    let new = control.new_key(root.account_id(), &key, name)?;
    let changed = control.store.create_key(new, control.limits, root.actor(), clock::wall()).await?;
    let KeyRecord { credential, name, masked, created_at, .. } = changed.record;
    let (id, created_at) = (credential.key_id, created_at.to_string());
    Ok((StatusCode::CREATED, Json(Created { id, key: key.expose().to_owned(), name, masked, created_at })))
}

pub async fn read(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Id(key_id): Id<KeyId>,
) -> Result<Json<KeyFacts>, Problem> {
    let record = control.store.key(key_id).await?.ok_or(Kind::NotFound)?;
    caller.check_may_read(record.credential.account_id)?;
    let deleted = record.deleted.as_ref().map(|deletion| deletion.revision);
    let key = control.key_views(vec![record]).await?.pop().ok_or(Kind::NotFound)?;
    Ok(Json(match deleted {
        None => KeyFacts::Live(key),
        Some(revision) => {
            let receipt = control.receipt(key_id, revision, Duration::ZERO).await?.progress;
            KeyFacts::Deleted { key, receipt }
        }
    }))
}

pub async fn patch(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    Id(key_id): Id<KeyId>,
    QueryOf(wait): QueryOf<WaitQuery>,
    JsonBody(Patch { name, status, expires_at }): JsonBody<Patch>,
) -> Result<Response, Problem> {
    let end = |at: jiff::Timestamp| Expiry::At(WallTime(u64::try_from(at.as_millisecond()).unwrap_or_default()));
    let expiry = expires_at.map(|at| at.map_or(Expiry::Never, end));
    let patch = KeyPatch { name, disabled: status.map(|status| status == Switch::Disabled), expiry };
    let changed = control.store.patch_key(root.account_id(), key_id, patch, root.actor(), clock::wall()).await?;
    let confirmation = control.confirmed(changed.revision, wait).await?;
    let key = control.key_views(vec![changed.record]).await?.pop().ok_or(Kind::NotFound)?;
    Ok(AfterChange::new(key, confirmation).into_response_as(StatusCode::OK))
}

pub async fn view(
    State(control): State<Arc<Control>>,
    root: RootOnly,
    Id(key_id): Id<KeyId>,
    headers: HeaderMap,
) -> Result<Json<Viewed>, Problem> {
    let account_id = root.account_id();
    let Some(grant) = grant_in(&headers) else {
        let key = control.store.key(key_id).await?.ok_or(Kind::NotFound)?;
        root.check_owns(key.credential.account_id)?;
        return Err(Kind::StepUpRequired.into());
    };
    let (session_id, now) = (root.session.session_id, clock::wall());
    let sealed = control.store.view_key(account_id, key_id, grant, session_id, root.actor(), now).await?;
    let owner = Owner::Key { account_id, key_id, version: SEALED_VERSION };
    let plain = control.sealer.open(owner, &sealed).map_err(|_| Kind::NotShowable)?;
    let key = std::str::from_utf8(&plain).map_err(|error| Problem::internal(&error))?.to_owned();
    Ok(Json(Viewed { id: key_id, key }))
}

/// The operator may ask for the receipt of a deletion here; deleting is done under the account's own path, with a reason.
pub async fn delete(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Id(key_id): Id<KeyId>,
    QueryOf(wait): QueryOf<WaitQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    match caller {
        Caller::Root(root) => {
            let session_id = root.session.session_id;
            let by = grant_in(&headers).map_or(DeleteBy::Nothing, |hash| DeleteBy::Grant { hash, session_id });
            let deleted = control.store.delete_key(root.account_id(), key_id, by, root.actor(), clock::wall()).await;
            control.receipt_of_deletion(key_id, deleted, wait).await
        }
        Caller::Operator(_) => {
            let record = control.store.key(key_id).await?.ok_or(Kind::NotFound)?;
            let revision = record.deleted.ok_or(Kind::RootOnly)?.revision;
            Ok(control.receipt_after(key_id, revision, wait).await?.into_response())
        }
        Caller::Member(..) => Err(Kind::RootOnly.into()),
    }
}

impl Control {
    /// What became of a deletion: 200 or 202, or the refusal of the store.
    pub(super) async fn receipt_of_deletion(
        &self,
        key_id: KeyId,
        deleted: Answer<Changed<KeyRecord>>,
        wait: WaitQuery,
    ) -> Result<Response, Problem> {
        let record = match deleted {
            Ok(changed) => changed.record,
            Err(AccountError::Pending) => return Ok(Receipt::submitted(key_id).into_response()),
            Err(error) => return Err(error.into()),
        };
        let revision = record.deleted.map(|deletion| deletion.revision);
        let revision = revision.ok_or_else(|| Problem::internal(&"a deleted key has no facts of its deletion"))?;
        Ok(self.receipt_after(key_id, revision, wait).await?.into_response())
    }

    /// The key that a presented one is, under either pepper.
    pub(super) async fn key_of(&self, presented: PresentedKey<'_>) -> Result<Option<KeyRecord>, Problem> {
        let (now, before) = (self.digester.digest(presented), self.digester.previous_digest(presented));
        if let Some(found) = self.store.key_by_digest(now).await? {
            return Ok(Some(found));
        }
        Ok(match before {
            Some(digest) => self.store.key_by_digest(digest).await?,
            None => None,
        })
    }

    pub(super) fn new_key(
        &self,
        account_id: AccountId,
        key: &KeyText,
        name: Option<String>,
    ) -> Result<NewKey, Problem> {
        let key_id = KeyId::random()?;
        let owner = Owner::Key { account_id, key_id, version: SEALED_VERSION };
        let sealed = self.sealer.seal(owner, key.expose().as_bytes()).map_err(|error| Problem::internal(&error))?;
        let (digest, masked) = (self.digester.digest(key.presented()), key.masked());
        Ok(NewKey { key_id, account_id, digest, sealed, masked, name })
    }

    pub(super) async fn key_list(&self, account_id: AccountId, with_deleted: bool) -> Result<KeyList, Problem> {
        let slots = self.store.key_slots(account_id, self.limits, clock::wall()).await?;
        let KeySlots { active, active_max, created_today, daily_max, resets_at } = slots;
        let mut records = self.all_keys(account_id, Keys::Live).await?;
        if with_deleted {
            records.extend(self.all_keys(account_id, Keys::Deleted).await?);
        }
        let (keys, resets_at) = (self.key_views(records).await?, resets_at.to_string());
        Ok(KeyList { keys, active, active_max, created_today, daily_max, resets_at })
    }

    /// Page by page; a list of more than 20 000 keys is cut.
    async fn all_keys(&self, account_id: AccountId, which: Keys) -> Result<Vec<KeyRecord>, Problem> {
        const PAGE: usize = 1000;
        let mut all = Vec::new();
        for _ in 0..20 {
            let after = all.last().map(KeyRecord::key_id);
            let page = self.store.list_keys(account_id, which, Page { after, limit: PAGE }).await?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                break;
            }
        }
        Ok(all)
    }

    pub(super) async fn key_views(&self, records: Vec<KeyRecord>) -> Result<Vec<KeyView>, Problem> {
        let ids: Vec<_> = records.iter().map(KeyRecord::key_id).collect();
        let last_used = self.last_used.of(&ids, self).await?;
        let now = clock::wall();
        Ok(records.into_iter().map(|key| key_view(&last_used, key, now)).collect())
    }
}

pub(super) fn status_of(record: &KeyRecord, now: WallTime) -> KeyStatus {
    match &record.credential {
        _ if record.deleted.is_some() => KeyStatus::Deleted,
        credential if credential.disabled => KeyStatus::Disabled,
        credential if credential.expired || credential.expires_at.is_some_and(|at| at <= now) => KeyStatus::Expired,
        _ => KeyStatus::Active,
    }
}

fn key_view(last_used: &HashMap<KeyId, Use>, record: KeyRecord, now: WallTime) -> KeyView {
    let used = last_used.get(&record.key_id());
    KeyView {
        id: record.key_id(),
        status: status_of(&record, now),
        last_used_at: used.filter(|used| used.last > WallTime(0)).map(|used| used.last.to_string()),
        seen_in_browser: used.is_some_and(|used| used.seen_in_browser),
        expires_at: record.credential.expires_at.map(|at| at.to_string()),
        deleted_at: record.deleted.as_ref().map(|deletion| deletion.deleted_at.to_string()),
        created_at: record.created_at.to_string(),
        name: record.name,
        masked: record.masked,
        imported: record.imported,
    }
}
