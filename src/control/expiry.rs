//! Turns the expiry of a key into an entry of the change log, so that every gateway holds it whatever its own clock says.

use std::sync::Arc;
use std::time::Duration;

use super::Control;
use crate::clock;

const EVERY: Duration = Duration::from_secs(1);
/// Keys in one step; more follow at once.
const AT_ONCE: usize = 256;

/// Runs until it is dropped. Several control planes may do it at once: a key expires once.
pub async fn run(control: Arc<Control>) {
    loop {
        match control.store.expire_keys(AT_ONCE, clock::wall()).await {
            Ok(expired) if expired.len() == AT_ONCE => continue,
            Ok(expired) if expired.is_empty() => {}
            Ok(expired) => tracing::info!(keys = expired.len(), "keys have expired"),
            Err(error) => tracing::warn!(%error, "expired keys could not be looked for"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
