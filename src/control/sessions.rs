//! The sessions of whoever is signed in: seeing them, and ending all others.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Control;
use super::accounts::Items;
use super::caller::AccountUser;
use super::error::Problem;
use crate::clock;
use crate::principal::SessionId;
use crate::store::records::SessionRecord;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionView {
    id: SessionId,
    created_at: String,
    /// To the minute.
    last_seen_at: String,
    /// Moves on with use.
    expires_at: String,
    /// Whether it is the one that asks.
    current: bool,
}

pub async fn list(
    State(control): State<Arc<Control>>,
    user: AccountUser,
) -> Result<Json<Items<SessionView, SessionId>>, Problem> {
    let sessions = control.store.sessions_of(user.session.user_id, clock::wall()).await?;
    let items = sessions.iter().map(|session| view(session, user.session.session_id)).collect();
    Ok(Json(Items { items, next: None }))
}

pub async fn close_others(State(control): State<Arc<Control>>, user: AccountUser) -> Result<StatusCode, Problem> {
    control.store.close_other_sessions(user.oneself(None), user.actor(), clock::wall()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn view(session: &SessionRecord, current: SessionId) -> SessionView {
    SessionView {
        id: session.session_id,
        created_at: session.created_at.to_string(),
        last_seen_at: session.last_seen.to_string(),
        expires_at: session.expires_at.to_string(),
        current: session.session_id == current,
    }
}
