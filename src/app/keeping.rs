//! What a node keeps: its secrets, its store, and the journal before it, opened in the order that loses nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use secrecy::ExposeSecret;
use tokio::sync::watch;

use super::AppError;
use super::reopening::Reopening;
use crate::config::secret::{self, Secret32};
use crate::config::{Config, RedisConfig, SentinelConfig, StoreKind};
use crate::control::rotation::{self, Renewal, RotationError};
use crate::control::seal::Sealer;
use crate::journal::replay::{self, AttachError};
use crate::journal::{Journal, JournalError, folder};
use crate::key::Digester;
use crate::store::embedded::{Embedded, Settings};
use crate::store::intent::Submit;
use crate::store::journaled::Journaled;
use crate::store::redis::{LedgerSettings, RedisStore, Role, SentinelNode, Sentinels, Settings as RedisSettings};
use crate::store::rotation::{Fingerprint, Rotation, SecretsMark, Versions};
use crate::store::upkeep::{Kept, Upkeep};
use crate::store::{Store, StoreError};

/// The version of the sealing key, for whoever has to find the key of an old value one day.
const SEALING_KEY: u8 = 1;

/// The secrets of a node as they are configured.
pub struct Secrets {
    pub digester: Digester,
    /// Absent on a node without a control plane.
    pub sealing: Option<Sealing>,
    pepper: Versions,
}

pub struct Sealing {
    pub sealer: Sealer,
    versions: Versions,
}

/// The store of a node, ready to be used.
pub struct Keeping {
    /// With a control plane: behind its journal.
    pub store: Arc<dyn Store>,
    pub digester: Digester,
    control: Option<ControlKeeping>,
}

struct ControlKeeping {
    upkeep: Arc<dyn Upkeep>,
    rotation: Arc<dyn Rotation>,
    sealer: Sealer,
    /// A rotation that has to run.
    rotating: Option<SecretsMark>,
    /// Looks after a store on another server.
    _reopening: Option<Reopening>,
}

/// A renewal of secrets under way. Dropping it stops it; the next start goes on.
pub struct Renewing {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// The folder of the journal of this node.
pub fn journal_folder(config: &Config) -> PathBuf {
    config.meter.dir.join("journal")
}

impl Secrets {
    pub fn read(config: &Config) -> Result<Self, AppError> {
        let files = &config.secrets;
        let (pepper, previous) = pair(&files.pepper_file, files.previous_pepper_file.as_deref())?;
        let digester = Digester::new(pepper.expose_secret());
        let digester = match &previous {
            Some(previous) => digester.with_previous(previous.expose_secret()),
            None => digester,
        };
        let sealing = config.control.is_some().then(|| Sealing::read(config)).transpose()?;
        Ok(Self { digester, sealing, pepper: versions(&pepper, previous.as_ref()) })
    }
}

impl Sealing {
    pub fn read(config: &Config) -> Result<Self, AppError> {
        let files = &config.secrets;
        let (key, previous) = pair(&files.sealing_key_file, files.previous_sealing_key_file.as_deref())?;
        let sealer = Sealer::new(SEALING_KEY, &key);
        let sealer = match &previous {
            Some(previous) => sealer.with_previous(previous),
            None => sealer,
        };
        Ok(Self { sealer, versions: versions(&key, previous.as_ref()) })
    }
}

fn pair(current: &Path, previous: Option<&Path>) -> Result<(Secret32, Option<Secret32>), AppError> {
    Ok((secret::key32(current)?, previous.map(secret::key32).transpose()?))
}

fn versions(current: &Secret32, previous: Option<&Secret32>) -> Versions {
    Versions { current: Fingerprint::of(current), previous: previous.map(Fingerprint::of) }
}

impl Keeping {
    /// Opens the store, and with a control plane its journal: both are of one store, what a crash left open is settled, and the
    /// secrets are those that the store was made with.
    pub fn open(config: &Config) -> Result<Self, AppError> {
        let secrets = Secrets::read(config)?;
        let folder = journal_folder(config);
        match &config.store.kind {
            StoreKind::Embedded { path } => {
                check_not_empty(path, &folder)?;
                let store = Arc::new(Embedded::open(path, Settings::new(config.store.lease))?);
                Self::with(store, secrets, &folder, |_, _| Ok(None))
            }
            StoreKind::Redis(at) => {
                let store = Arc::new(RedisStore::open(redis_settings(config, at, &folder)?)?);
                let looked_after = Arc::clone(&store);
                Self::with(store, secrets, &folder, |folder, sealer| {
                    Reopening::start(looked_after, folder, sealer.clone()).map(Some)
                })
            }
        }
    }

    /// `look_after` is called once the journal is attached.
    fn with<S: Kept + Store>(
        store: Arc<S>,
        secrets: Secrets,
        folder: &Path,
        look_after: impl FnOnce(&Path, &Sealer) -> Result<Option<Reopening>, AppError>,
    ) -> Result<Self, AppError> {
        let Secrets { digester, sealing, pepper } = secrets;
        let Some(Sealing { sealer, versions }) = sealing else {
            return Ok(Self { store, digester, control: None });
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
        let (journal, rotating) = runtime.block_on(async {
            replay::check_link(folder, store.journal().await?)?;
            let (journal, history) = Journal::open(folder, &sealer, store.store_id())?;
            replay::attach(&*store, &journal, history).await?;
            let given = SecretsMark { pepper, sealing: versions };
            let rotating = rotation::begin(&*store, &given).await?;
            Ok::<_, AppError>((journal, rotating))
        })?;
        let reopening = look_after(folder, &sealer)?;
        let rotation = Arc::clone(&store) as Arc<dyn Rotation>;
        let journaled = Arc::new(Journaled::new(store, journal));
        let upkeep = Arc::clone(&journaled) as Arc<dyn Upkeep>;
        let control = ControlKeeping { upkeep, rotation, sealer, rotating, _reopening: reopening };
        Ok(Self { store: journaled, digester, control: Some(control) })
    }

    pub fn sealer(&self) -> Result<&Sealer, AppError> {
        let control = self.control.as_ref();
        control
            .map(|control| &control.sealer)
            .ok_or_else(|| StoreError::Away("there is no control plane".into()).into())
    }

    pub fn upkeep(&self) -> Option<Arc<dyn Upkeep>> {
        self.control.as_ref().map(|control| Arc::clone(&control.upkeep))
    }

    /// Where secrets were changed: makes everything anew that was made with those before, on a thread of its own.
    pub fn renew_secrets(&self) -> Result<Option<Renewing>, AppError> {
        let Some((control, mark)) =
            self.control.as_ref().and_then(|control| Some((control, control.rotating.clone()?)))
        else {
            return Ok(None);
        };
        let store = Arc::clone(&control.rotation);
        let renewal = Renewal { store, digester: self.digester.clone(), sealer: control.sealer.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
        let (stop, mut stopped) = watch::channel(false);
        let run = move || {
            runtime.block_on(async move {
                tokio::select! {
                    ended = renewal.run(mark) => report(ended),
                    _ = stopped.changed() => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("rotation".into()).spawn(run).map_err(AppError::Thread)?;
        Ok(Some(Renewing { stop, thread: Some(thread) }))
    }
}

fn report(ended: Result<(), RotationError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the rotation of the secrets did not come to its end; the next start goes on with it");
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // Nothing is lost with a renewal that panicked: the next start goes on.
            let _ = thread.join();
        }
    }
}

/// How a node comes to its store on Redis.
pub(super) fn redis_settings(config: &Config, at: &RedisConfig, journal: &Path) -> Result<RedisSettings, AppError> {
    let role = match &config.control {
        Some(control) => {
            let known = folder::names_in(journal)?.map(|names| names.store_id);
            Role::Control { id: control.id.clone(), peers: control.peers.clone(), known }
        }
        None => Role::Gateway,
    };
    let settings = RedisSettings::new(&at.url.0, config.store.lease, role);
    let ledger = config.meter.ledger.as_ref();
    let ledger =
        ledger.map(|at| LedgerSettings { url: at.url.0.clone(), sentinels: at.sentinel.as_ref().map(sentinels) });
    Ok(RedisSettings { replicas: at.replicas, sentinels: at.sentinel.as_ref().map(sentinels), ledger, ..settings })
}

fn sentinels(of: &SentinelConfig) -> Sentinels {
    let nodes = of.nodes.iter().map(|node| SentinelNode(node.0.clone())).collect();
    Sentinels { master: of.master.clone(), nodes }
}

/// A store that is gone must not be replaced by an empty one beside a journal that knows better.
fn check_not_empty(store: &Path, journal: &Path) -> Result<(), AppError> {
    match folder::names_in(journal)? {
        Some(names) if !store.exists() => {
            let (path, store) = (store.to_owned(), names.store_id);
            Err(JournalError::StoreGone { path, store }.into())
        }
        _ => Ok(()),
    }
}

impl From<AttachError> for AppError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Journal(error) => error.into(),
            AttachError::Store(error) => error.into(),
        }
    }
}
