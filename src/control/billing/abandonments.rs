//! `POST /v1/usage/abandonments`: a gateway whose machine is gone, with the usage that only it had. Without this word of the
//! operator its hours would wait for it for ever.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock;
use crate::control::Control;
use crate::control::caller::OperatorOnly;
use crate::control::error::{Kind, Problem};
use crate::control::name;
use crate::control::request::JsonBody;
use crate::principal::Incarnation;
use crate::time::Hour;

#[derive(Deserialize, ToSchema)]
#[schema(as = GatewayAbandon)]
#[serde(deny_unknown_fields)]
pub struct Abandon {
    incarnation: Incarnation,
    #[serde(deserialize_with = "name::reason")]
    reason: String,
}

/// A gateway that nobody waits for any more.
#[derive(Serialize, ToSchema)]
#[schema(as = GatewayAbandoned)]
pub struct Abandoned {
    incarnation: Incarnation,
    reason: String,
    #[schema(format = DateTime)]
    created_at: String,
}

/// Refused while the gateway lives. Should its usage come after all, it is taken, and makes new revisions of the records.
pub async fn create(
    State(control): State<Arc<Control>>,
    operator: OperatorOnly,
    JsonBody(Abandon { incarnation, reason }): JsonBody<Abandon>,
) -> Result<(StatusCode, Json<Abandoned>), Problem> {
    let lives = control.store.gateways().await?.iter().any(|one| one.incarnation == incarnation && one.leased);
    if lives {
        return Err(Problem::invalid("The gateway has a lease: it lives, and will deliver its usage."));
    }
    let marks = control.store.marks(Hour(0), Hour(u32::MAX)).await?;
    if !marks.iter().any(|mark| mark.incarnation == incarnation) {
        return Err(Kind::NotFound.into());
    }
    let made = control.store.abandon(incarnation, reason, operator.actor(), clock::wall()).await?;
    let created_at = made.at.to_string();
    Ok((StatusCode::CREATED, Json(Abandoned { incarnation, reason: made.reason, created_at })))
}
