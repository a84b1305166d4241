//! What a node keeps: its secrets, its store, and the journal before it, opened in the order that loses nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use secrecy::ExposeSecret;
use tokio::sync::watch;

use super::AppError;
use crate::config::secret::{self, Secret32};
use crate::config::{Config, StoreKind};
use crate::control::rotation::{self, Renewal, RotationError};
use crate::control::seal::Sealer;
use crate::journal::replay::{self, AttachError};
use crate::journal::{Journal, JournalError, folder};
use crate::key::Digester;
use crate::store::embedded::{Embedded, Settings};
use crate::store::intent::Submit;
use crate::store::journaled::Journaled;
use crate::store::rotation::{Fingerprint, Rotation, SecretsMark, Versions};
use crate::store::upkeep::Upkeep;
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
    journaled: Arc<Journaled<Embedded>>,
    sealer: Sealer,
    /// A rotation that has to run.
    rotating: Option<SecretsMark>,
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
        let Secrets { digester, sealing, pepper } = Secrets::read(config)?;
        let StoreKind::Embedded { path } = &config.store.kind;
        let folder = journal_folder(config);
        check_not_empty(path, &folder)?;
        let embedded = Arc::new(Embedded::open(path, Settings::new(config.store.lease))?);
        let Some(Sealing { sealer, versions }) = sealing else {
            return Ok(Self { store: embedded, digester, control: None });
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
        let (journal, rotating) = runtime.block_on(async {
            replay::check_link(&folder, embedded.journal().await?)?;
            let (journal, history) = Journal::open(&folder, &sealer, embedded.store_id())?;
            replay::attach(&*embedded, &journal, history).await?;
            let given = SecretsMark { pepper, sealing: versions };
            let rotating = rotation::begin(&*embedded, &given).await?;
            Ok::<_, AppError>((journal, rotating))
        })?;
        let journaled = Arc::new(Journaled::new(embedded, journal));
        let store = Arc::clone(&journaled) as Arc<dyn Store>;
        Ok(Self { store, digester, control: Some(ControlKeeping { journaled, sealer, rotating }) })
    }

    pub fn sealer(&self) -> Result<&Sealer, AppError> {
        let control = self.control.as_ref();
        control
            .map(|control| &control.sealer)
            .ok_or_else(|| StoreError::Away("there is no control plane".into()).into())
    }

    pub fn upkeep(&self) -> Option<Arc<dyn Upkeep>> {
        self.control.as_ref().map(|control| Arc::clone(&control.journaled) as Arc<dyn Upkeep>)
    }

    /// Where secrets were changed: makes everything anew that was made with those before, on a thread of its own.
    pub fn renew_secrets(&self) -> Result<Option<Renewing>, AppError> {
        let Some((control, mark)) =
            self.control.as_ref().and_then(|control| Some((control, control.rotating.clone()?)))
        else {
            return Ok(None);
        };
        let store = control.journaled.store_arc() as Arc<dyn Rotation>;
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
