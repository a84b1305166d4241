//! Coming to a store on Redis: finding it, or setting it up where there is none, and opening another epoch on a server that may
//! have lost something.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch as flag};

use super::answer::unexpected;
use super::lane::{Lane, jittered};
use super::ledger::Sums;
use super::ledger_at::{LedgerAt, LedgerSettings};
use super::outbox::Outbox;
use super::place::Place;
use super::pushes::Listener;
use super::source::{Sentinels, Source};
use super::watch::Watch;
use super::writer::{self, Writer};
use super::{Engine, RedisStore, by_hand, keep_sums, pushes, scripts};
use crate::clock;
use crate::principal::{Epoch, Revision, StoreId};
use crate::store::StoreError;
use crate::store::gateways::Gateways;
use crate::store::rules::queue::Queue;
use crate::store::rules::rows::RowValue;
use crate::store::rules::tables::{Identity, JOURNAL, SCHEMA_VERSION};

/// Entries of the change log that are kept; a gateway further behind starts again.
const LOG_KEEP: u64 = 100_000;
/// A store that is not there yet may be set up by somebody else meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// To be listening before the first change is made; nothing is lost without.
const LISTENING: Duration = Duration::from_secs(1);

/// How a store on Redis is come to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `redis://` or `rediss://`, with user and password and the number of a database.
    pub url: String,
    /// Asked where the master is, which is then not looked for where `url` says.
    pub sentinels: Option<Sentinels>,
    /// Proposed by control planes.
    pub lease: Duration,
    pub log_keep: u64,
    /// Where usage is kept, if not in the store.
    pub ledger: Option<LedgerSettings>,
    /// Replicas that must have a change before it is answered.
    pub replicas: usize,
    /// How long to wait for a store to be there.
    pub patience: Duration,
    pub role: Role,
}

#[derive(Clone, Debug)]
pub enum Role {
    Gateway,
    Control {
        id: String,
        /// The ids of the other control planes.
        peers: Vec<String>,
        /// The store that this control plane's journal is of.
        known: Option<StoreId>,
    },
}

/// Whether a store can be used as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Everybody may go on.
    Open,
    /// Others have still to make their changes again.
    Waiting,
}

impl Settings {
    pub fn new(url: &str, lease: Duration, role: Role) -> Self {
        Self {
            url: url.to_owned(),
            sentinels: None,
            lease,
            log_keep: LOG_KEEP,
            ledger: None,
            replicas: 0,
            patience: PATIENCE,
            role,
        }
    }
}

impl Role {
    pub fn is_control(&self) -> bool {
        matches!(self, Self::Control { .. })
    }
}

/// What a store says of itself.
struct Found {
    identity: Identity,
    most: Duration,
    replid: String,
    is_closed: bool,
    /// Replicas that it goes on without.
    dropped: usize,
}

impl RedisStore {
    /// Comes to the store. It blocks, from any thread.
    ///
    /// Errors: `Away` where Redis cannot be reached or has no store yet; `Frozen` where it had one that is gone; `Corrupt` where
    /// it is of another schema version.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        // A thread of its own, since the caller's may be one that runs tasks and must not block on others.
        let opening = std::thread::Builder::new().name("store-open".to_owned()).spawn(move || open(settings));
        let opening = opening.map_err(|error| StoreError::Away(format!("no thread to open the store: {error}")))?;
        opening.join().unwrap_or_else(|_| Err(StoreError::Away("opening the store came to nothing".to_owned())))
    }

    /// True while this server is not the one on which the epoch was opened, and it is answered only to make changes again.
    pub fn is_closed(&self) -> bool {
        !self.place.is_open()
    }

    /// Looks whether the server is another one than before, and names it; then changes of this control plane's journal are to be
    /// made again, and after them [`Self::open_epoch`] is to be called. A store that is gone is marked as such, so that nobody sets
    /// another one up in its place.
    pub async fn look_for_another_server(&self) -> Result<Option<String>, StoreError> {
        let Some(found) = describe(&self.calls).await? else {
            if let Role::Control { id, .. } = &self.settings.role {
                freeze(&self.calls, id, self.place.store_id).await?;
            }
            return Err(gone(self.place.store_id));
        };
        if found.identity.store_id != self.place.store_id {
            return Err(StoreError::Frozen(format!("redis is another store now: {}", found.identity.store_id)));
        }
        self.watch.goes_on_without(found.dropped);
        // One that others have opened, or that was left for another one meanwhile, may lack changes too.
        if !found.is_closed && self.place.is_open_on(&found.replid) {
            return Ok(None);
        }
        self.place.mean(&found.replid, false);
        Ok(Some(found.replid))
    }

    /// This control plane has made its changes again on the server it found. Once all have, another epoch begins.
    pub async fn open_epoch(&self) -> Result<Opened, StoreError> {
        let Role::Control { id, peers, .. } = &self.settings.role else {
            return Err(StoreError::Frozen("a gateway opens no epoch".to_owned()));
        };
        if self.place.is_open() {
            return Ok(Opened::Open);
        }
        let server = self.place.server();
        let epoch = Epoch::random().map_err(no_ids)?;
        let identity = identity_row(self.place.store_id, epoch, self.watch.lease())?;
        let (epoch, leap) = (epoch.to_string(), leap()?.to_string());
        let mut arguments: Vec<&[u8]> = vec![self.place.name(), &server, epoch.as_bytes(), &identity, id.as_bytes()];
        arguments.push(leap.as_bytes());
        arguments.extend(peers.iter().map(String::as_bytes));
        let mut answer = self.place.judged(self.calls.call(&scripts::OPEN_EPOCH, &arguments).await?)?;
        if answer.said == "WAITING" {
            tracing::warn!(control = answer.text()?, "another control plane has still to make its changes again");
            return Ok(Opened::Waiting);
        }
        tracing::warn!(epoch = answer.text()?, "another epoch was opened");
        self.place.opened(&server);
        Ok(Opened::Open)
    }
}

/// Far enough that no commit gets a number that one of before had.
pub(super) fn leap() -> Result<u32, StoreError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(no_ids)?;
    Ok(u32::from_le_bytes(bytes) | 1 << 20)
}

pub(super) fn no_ids(error: getrandom::Error) -> StoreError {
    StoreError::Away(format!("no random numbers: {error}"))
}

fn gone(store_id: StoreId) -> StoreError {
    StoreError::Frozen(format!("redis is empty, and it was the store {store_id}; restore it"))
}

pub(super) fn identity_row(store_id: StoreId, epoch: Epoch, lease: Duration) -> Result<Vec<u8>, StoreError> {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    Identity { store_id, epoch, lease_ms }.encode().map_err(StoreError::Corrupt)
}

fn open(settings: Settings) -> Result<RedisStore, StoreError> {
    let engine = Engine::start()?;
    let source = Source::new(&settings.url, settings.sentinels.as_ref())?;
    let lane = || Lane::new(source.clone(), engine.handle.clone());
    let (calls, reads) = (Arc::new(lane()), Arc::new(lane()));
    let found = engine.handle.block_on(find(&calls, &settings))?;
    engine.handle.block_on(say_what_is_weak(&calls, "the store", settings.replicas));
    let place = Arc::new(Place::new(found.identity.store_id));
    let usage = Arc::new(match &settings.ledger {
        Some(ledger) => LedgerAt::apart(ledger, &engine, place.store_id)?,
        None => LedgerAt::in_store(lane(), Arc::clone(&place)),
    });
    engine.handle.block_on(usage.come_to(&calls, &place))?;
    if settings.role.is_control() {
        place.mean(&found.replid, !found.is_closed);
    }
    let gateways = Gateways::new(found.identity.epoch, found.most, Revision(0), clock::boot());
    let lease = Duration::from_millis(found.identity.lease_ms);
    let watch = Arc::new(Watch::new(gateways, lane(), Arc::clone(&place), lease));
    watch.goes_on_without(found.dropped);
    let (heard, mut listening) = flag::channel(false);
    let listener = Listener::new(&source, &place, settings.role.is_control());
    engine.handle.spawn(pushes::listen(listener, Arc::downgrade(&watch), heard));
    let sums = Arc::new(Sums::default());
    let mut journal_row = JOURNAL.to_owned();
    if let Role::Control { id, .. } = &settings.role {
        journal_row = by_hand::journal_row(id);
        engine.handle.block_on(async {
            propose(&calls, &place, &watch, settings.lease).await?;
            let may_wait = found.is_closed || usage.is_apart();
            sums.catch_up(&usage).await.or_else(|error| if may_wait { Ok(()) } else { Err(error) })
        })?;
        engine.handle.spawn(keep_sums(Arc::downgrade(&sums), Arc::clone(&usage)));
        engine.handle.spawn(Watch::tidy(Arc::downgrade(&watch)));
    }
    let posted = (settings.role.is_control() && usage.is_apart()).then(|| Arc::new(Notify::new()));
    let outbox = posted.as_ref().map(|posted| {
        let outbox = Arc::new(Outbox::new(Arc::clone(&calls), Arc::clone(&place), Arc::clone(&usage)));
        engine.handle.spawn(Outbox::carry(Arc::downgrade(&outbox), Arc::clone(posted)));
        outbox
    });
    let options = writer::Options { log_keep: settings.log_keep.max(1), replicas: settings.replicas, posted };
    let mut writer = Writer::new(lane(), Arc::clone(&place), Arc::clone(&watch), options)?;
    let queue = Queue::start(move |batch| writer.settle(batch))?;
    // Whoever is not listening yet only hears of changes a little later.
    let listening = async { tokio::time::timeout(LISTENING, listening.wait_for(|listening| *listening)).await.is_ok() };
    let _ = engine.handle.block_on(listening);
    Ok(RedisStore {
        journal_row,
        place,
        watch,
        sums,
        renewals: OnceLock::new(),
        source,
        calls,
        usage,
        reads,
        queue,
        settings,
        _outbox: outbox,
        _threads: engine,
    })
}

/// Settings of the server with which it may lose what it said it has. Where they may not be read, nothing is said.
pub(super) async fn say_what_is_weak(lane: &Lane, what: &str, replicas: usize) {
    let setting = async |name: &str| {
        let read = lane.command(redis::cmd("CONFIG").arg("GET").arg(name)).await.ok()?;
        redis::from_redis_value::<Vec<String>>(read).ok()?.into_iter().nth(1)
    };
    if replicas == 0 && setting("appendonly").await.is_some_and(|value| value != "yes") {
        tracing::warn!("redis keeps nothing over a restart: set appendonly yes, or {what} is lost with it");
    } else if replicas == 0 && setting("appendfsync").await.is_some_and(|value| value != "always") {
        tracing::warn!(of = what, "redis may lose its last second with the power: set appendfsync always");
    }
    if setting("maxmemory-policy").await.is_some_and(|value| value != "noeviction") {
        tracing::warn!("redis may throw rows of {what} away: set maxmemory-policy noeviction");
    }
}

/// The store that is there, or is made now.
async fn find(lane: &Lane, settings: &Settings) -> Result<Found, StoreError> {
    let give_up = clock::boot().plus(settings.patience);
    loop {
        let tried = match describe(lane).await {
            Ok(Some(found)) => {
                settings.check(&found)?;
                return Ok(found);
            }
            Ok(None) => set_up(lane, settings).await,
            Err(StoreError::Away(why)) => Err(StoreError::Away(why)),
            Err(error) => return Err(error),
        };
        match tried {
            Ok(()) => {}
            Err(StoreError::Away(why)) if clock::boot() < give_up => {
                tracing::warn!(why, "the store is not there yet");
                tokio::time::sleep(jittered(ASK_AGAIN)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Settings {
    fn check(&self, found: &Found) -> Result<(), StoreError> {
        match &self.role {
            Role::Control { known: Some(known), .. } if *known != found.identity.store_id => {
                let found = found.identity.store_id;
                Err(StoreError::Frozen(format!(
                    "redis is the store {found}, and the journal here is of the store {known}"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Absent where there is no store.
async fn describe(lane: &Lane) -> Result<Option<Found>, StoreError> {
    let mut answer = lane.call(&scripts::DESCRIBE, &[]).await?;
    let (frozen, replid) = (answer.text()?, answer.text()?);
    if !frozen.is_empty() {
        return Err(StoreError::Frozen(frozen));
    }
    let mut head = HashMap::new();
    while !answer.is_at_end() {
        head.insert(answer.text()?, answer.text()?);
    }
    if head.is_empty() {
        return Ok(None);
    }
    let part = |name: &str| head.get(name).ok_or_else(|| unexpected("a store that does not say what it is"));
    let schema = part("schema")?;
    if *schema != SCHEMA_VERSION.to_string() {
        let known = format!("it has schema version {schema}, and this program knows version {SCHEMA_VERSION} only");
        return Err(StoreError::Corrupt(known));
    }
    fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, StoreError> {
        text.parse().map_err(|_| unexpected("a store that says of itself what cannot be read"))
    }
    let dropped = head.get("dropped").map_or(Ok(0), |dropped| parsed(dropped))?;
    let lease_ms = parsed(part("lease_ms")?)?;
    let identity = Identity { store_id: parsed(part("store_id")?)?, epoch: parsed(part("epoch")?)?, lease_ms };
    let is_closed = *part("replid")? != replid;
    Ok(Some(Found {
        identity,
        most: Duration::from_millis(parsed(part("lease_most_ms")?)?),
        replid,
        is_closed,
        dropped,
    }))
}

async fn set_up(lane: &Lane, settings: &Settings) -> Result<(), StoreError> {
    let Role::Control { id, peers, known } = &settings.role else {
        return Err(StoreError::Away("redis has no store yet; a control plane sets it up".to_owned()));
    };
    if let Some(known) = known {
        freeze(lane, id, *known).await?;
        return Err(gone(*known));
    }
    let (store_id, epoch) = (StoreId::random().map_err(no_ids)?, Epoch::random().map_err(no_ids)?);
    let identity = identity_row(store_id, epoch, settings.lease)?;
    let texts =
        [store_id.to_string(), SCHEMA_VERSION.to_string(), epoch.to_string(), settings.lease.as_millis().to_string()];
    let mut arguments: Vec<&[u8]> = texts.iter().map(String::as_bytes).collect();
    arguments.extend([&identity[..], id.as_bytes()]);
    arguments.extend(peers.iter().map(String::as_bytes));
    let mut answer = lane.call(&scripts::SET_UP, &arguments).await?;
    match answer.said.as_str() {
        "WAITING" => Err(StoreError::Away(format!("the control plane {} has not come yet", answer.text()?))),
        "FROZEN" => Err(StoreError::Frozen(answer.text()?)),
        _ => Ok(()),
    }
}

async fn freeze(lane: &Lane, id: &str, known: StoreId) -> Result<(), StoreError> {
    let why = format!("redis is empty, and the control plane {id} knows of the store {known}; restore it");
    lane.call(&scripts::FREEZE, &[why.as_bytes()]).await.map(drop)
}

/// Puts the lease of this control plane in force.
async fn propose(lane: &Lane, place: &Place, watch: &Watch, lease: Duration) -> Result<(), StoreError> {
    if watch.lease() == lease {
        return Ok(());
    }
    let lease_ms = lease.as_millis().to_string();
    let identity = identity_row(place.store_id, watch.gateways.epoch(), lease)?;
    place.good(lane.call(&scripts::PROPOSE, &[place.name(), lease_ms.as_bytes(), &identity]).await?)?;
    watch.lease_is(lease);
    Ok(())
}
