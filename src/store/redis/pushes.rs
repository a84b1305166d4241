//! Messages between control planes and gateways. They only make things quicker: what is lost, late, doubled or forged changes
//! nothing that lasts.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, watch};

use super::lane::{Lane, jittered};
use super::place::Place;
use super::scripts;
use super::source::{Source, patience};
use super::watch::Watch;
use crate::key::Digest;
use crate::principal::Incarnation;
use crate::store::{Push, StoreError};

/// Between two attempts to listen, at least.
const PAUSE: Duration = Duration::from_millis(200);
/// A connection that is listened on is asked so often whether it is still there.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Every change: epoch, revision and, where a key is deleted, its digest.
pub fn changes_channel(place: &Place) -> String {
    format!("{{tg}}:changes:{}", place.store_id)
}

/// Every acknowledgement: the incarnation.
pub fn acknowledgements_channel(place: &Place) -> String {
    format!("{{tg}}:acks:{}", place.store_id)
}

pub async fn release(lane: &Lane, place: &Place, incarnation: Incarnation, renewals: &str) -> Result<(), StoreError> {
    let (incarnation, channel) = (incarnation.to_string(), acknowledgements_channel(place));
    let arguments = [place.name(), incarnation.as_bytes(), channel.as_bytes(), renewals.as_bytes()];
    place.good(lane.call(&scripts::RELEASE, &arguments).await?).map(drop)
}

/// Who listens, to what.
pub struct Listener {
    pub source: Source,
    pub changes: String,
    /// Nothing to those who await nobody.
    pub acknowledgements: Option<String>,
}

impl Listener {
    pub fn new(source: &Source, place: &Place, awaits: bool) -> Self {
        let (changes, acknowledgements) = (changes_channel(place), awaits.then(|| acknowledgements_channel(place)));
        Self { source: source.for_messages(), changes, acknowledgements }
    }
}

/// Listens until the store is gone. `listening` tells when it does.
pub async fn listen(listener: Listener, watch: Weak<Watch>, listening: watch::Sender<bool>) {
    while watch.strong_count() > 0 {
        if let Err(error) = listen_once(&listener, &watch, &listening).await {
            tracing::debug!(%error, "not listening to redis; changes come with the next renewal");
        }
        listening.send_replace(false);
        if let Some(watch) = watch.upgrade() {
            // Something may have been missed.
            watch.gateways.wake();
        }
        tokio::time::sleep(jittered(PAUSE)).await;
    }
}

async fn listen_once(
    listener: &Listener,
    watch: &Weak<Watch>,
    listening: &watch::Sender<bool>,
) -> Result<(), redis::RedisError> {
    let lost = Arc::new(Notify::new());
    let (told, to, changes) = (Arc::clone(&lost), Weak::clone(watch), listener.changes.clone());
    let take = move |info: PushInfo| {
        match info.kind {
            PushKind::Disconnection => told.notify_one(),
            PushKind::Message => take(&to, &changes, &info.data),
            _ => {}
        }
        Ok::<(), ()>(())
    };
    let mut connection: MultiplexedConnection = listener.source.connect(&patience().set_push_sender(take)).await?;
    let channels: Vec<_> = [&listener.changes].into_iter().chain(&listener.acknowledgements).collect();
    connection.subscribe(&channels[..]).await?;
    listening.send_replace(true);
    while watch.strong_count() > 0 {
        if tokio::time::timeout(ASK_EVERY, lost.notified()).await.is_ok() {
            return Ok(());
        }
        connection.send_packed_command(&redis::cmd("PING")).await?;
    }
    Ok(())
}

fn take(watch: &Weak<Watch>, changes: &str, data: &[Value]) {
    let (Some(watch), [Value::BulkString(channel), Value::BulkString(text)]) = (watch.upgrade(), data) else {
        return;
    };
    if channel == changes.as_bytes() {
        if let Some(push) = std::str::from_utf8(text).ok().and_then(read) {
            watch.gateways.push(push);
        }
    } else if let Some(incarnation) = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
        watch.heard_of(incarnation);
    }
}

/// A message of the changes channel; nothing where it is not one.
fn read(text: &str) -> Option<Push> {
    let mut words = text.split(' ');
    let (epoch, revision, deleted) = (words.next()?, words.next()?, words.next()?);
    let digest = |text: &str| {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().ok().map(Digest)
    };
    let deleted = if deleted == "-" { None } else { Some(digest(deleted)?) };
    Some(Push { epoch: epoch.parse().ok()?, revision: crate::principal::Revision(revision.parse().ok()?), deleted })
}
