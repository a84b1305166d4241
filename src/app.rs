//! The composition root: builds the parts of a node, runs them, drains them, and flushes what is left.

pub mod keeping;
mod metering;
mod reopening;
pub mod restore;
mod server;
pub mod tls;
pub mod upkeep;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use prometheus::Registry;
use secrecy::ExposeSecret;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use self::keeping::Keeping;
use self::metering::Metering;
use self::server::Entrance;
pub use self::server::Stop;
use crate::archive::{Archive, ArchiveError};
use crate::auth::keyring::Keyring;
use crate::auth::lease::Lease;
use crate::auth::loader::Loader;
use crate::clock;
use crate::config::secret::{self, SecretFault};
use crate::config::{Config, ControlConfig, GatewayConfig};
use crate::console;
use crate::control::health::{self, Health, ReadinessCheck, WriteProbe};
use crate::control::rotation::RotationError;
use crate::control::{self, Control, ControlParts, token};
use crate::fault;
use crate::feed::{Feed, Followed};
use crate::gateway::accept::{self, Drain, Worker};
use crate::gateway::{Connector, Gateway, GatewayParts, Protocols, Verifier};
use crate::journal::JournalError;
use crate::key::Digester;
use crate::limits::{AccountLimits, ConnectionCaps, FailedAuth, Limits};
use crate::meter::{Meter, MeterError, MeterOptions};
use crate::principal::Incarnation;
use crate::store::{FeedStore, Ledger, Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// Why a node could not start, or ended other than by a graceful stop. Said to a person.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("{what} cannot listen on {address}: {source}; free the address or choose another one")]
    Listen { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Secret(#[from] SecretFault),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Rotation(#[from] RotationError),
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error("{0}")]
    Meter(#[from] MeterError),
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(#[from] getrandom::Error),
    #[error("passwords cannot be hashed: {0}")]
    Passwords(#[from] control::password::CannotHash),
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("{path}: {source}", path = .path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
    #[error("the last usage could not be written: {0}; it is kept in the slab and recovered at the next start")]
    LastFlush(StoreError),
    #[error("{0}")]
    Demo(String),
}

/// Runs a node until it is told to stop.
pub fn serve(config: Config) -> Result<(), AppError> {
    Node::build(config)?.run(Stop::default())
}

/// A node that is bound and ready to run.
pub struct Node {
    config: Config,
    keeping: Keeping,
    data_plane: Option<DataPlane>,
    control: Option<Entrance>,
    health: Option<Entrance>,
    draining: Arc<AtomicBool>,
}

struct DataPlane {
    gateway: Arc<Gateway>,
    meter: Arc<Meter>,
    feed: Arc<Feed>,
    /// Lets the feed take a lease, once the ledger knows of this incarnation.
    enrolled: Option<oneshot::Sender<()>>,
    listeners: Vec<TcpListener>,
}

impl Node {
    /// Reads the secrets, opens the store and the meter, and binds every address, so that what is wrong is said at once.
    pub fn build(config: Config) -> Result<Self, AppError> {
        let metrics = Arc::new(Metrics::new(Registry::new(), clock::wall())?);
        let keeping = Keeping::open(&config)?;
        let (store, digester) = (Arc::clone(&keeping.store), keeping.digester.clone());
        let draining = Arc::new(AtomicBool::new(false));
        let mut checks = vec![not_draining(&draining)];
        let data_plane = match &config.gateway {
            Some(gateway) => {
                let built = DataPlane::build(&config, gateway, &store, digester.clone(), &metrics)?;
                checks.extend(built.checks());
                Some(built)
            }
            None => None,
        };
        let writable = config.control.is_some().then(|| WriteProbe::new(Arc::clone(&store)));
        // A gateway goes on without: its usage waits on the disk.
        let apart = config.meter.ledger.is_some() && config.gateway.is_none();
        let ledger = apart.then(|| WriteProbe::of_ledger(Arc::clone(&store)));
        let health = Health { metrics: Arc::clone(&metrics), checks, store: writable, ledger };
        let health = health::routes(health);
        let (shared, own) = match config.health.listen {
            Some(address) => {
                let (listener, router) = (bind("[health]", address)?, control::enveloped(health));
                (Router::new(), Some(Entrance { listener, tls: None, router, control: None }))
            }
            None => (health, None),
        };
        let control = match &config.control {
            Some(control) => {
                let gateway = data_plane.as_ref().and_then(DataPlane::address);
                Some(control_plane(&config, control, gateway, &keeping, &metrics, shared)?)
            }
            None => None,
        };
        Ok(Self { config, keeping, data_plane, control, health: own, draining })
    }

    /// Where the gateway listens: the first of its addresses.
    pub fn gateway_address(&self) -> Option<SocketAddr> {
        self.data_plane.as_ref()?.address()
    }

    pub fn control_address(&self) -> Option<SocketAddr> {
        self.control.as_ref()?.listener.local_addr().ok()
    }

    /// Runs until `stop` or a signal; returns once nothing is in flight any more and all usage is in the ledger.
    pub fn run(self, stop: Stop) -> Result<(), AppError> {
        let Self { config, keeping, mut data_plane, control, health, draining } = self;
        let ledger: Arc<dyn Ledger> = Arc::clone(&keeping.store) as Arc<dyn Ledger>;
        let renewing = keeping.renew_secrets()?;
        let metering = data_plane.as_mut().map(|plane| Metering::start(plane, ledger, config.meter.flush));
        let metering = metering.transpose()?;
        let drain = Drain::default();
        let mut services = server::Services::default();
        for (name, entrance) in [("control", control), ("health", health)].into_iter().filter_map(named) {
            announce(name, &entrance.listener);
            services.control(name, entrance);
        }
        let mut patience = Duration::ZERO;
        let mut gateway = None;
        if let (Some(plane), Some(of)) = (&mut data_plane, &config.gateway) {
            plane.listeners.iter().for_each(|listener| announce("gateway", listener));
            for worker in plane.workers(of.threads, &drain)? {
                services.worker(worker);
            }
            patience = of.limits.shutdown;
            gateway = Some(Arc::clone(&plane.gateway));
        }
        fault::serving();
        services.run(server::Stopping { stop, drain, gateway, draining, patience });
        drop(renewing);
        let flushed = metering.map_or(Ok(()), Metering::finish);
        // The lease is given back last: until the last flush this gateway is not gone.
        drop(data_plane);
        flushed
    }
}

impl DataPlane {
    fn address(&self) -> Option<SocketAddr> {
        self.listeners.first()?.local_addr().ok()
    }

    fn build(
        config: &Config,
        of: &GatewayConfig,
        store: &Arc<dyn Store>,
        digester: Digester,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AppError> {
        let incarnation = Incarnation::random()?;
        let listeners = of.listen.iter().map(|address| bind("the gateway", *address)).collect::<Result<_, _>>()?;
        let meter = Meter::open(MeterOptions {
            slab_dir: config.meter.slab_dir.clone(),
            spool_dir: config.meter.dir.clone(),
            store_id: store.store_id(),
            incarnation,
            now: clock::wall(),
        })?;
        let (keyring, lease) = (Arc::new(Keyring::default()), Arc::new(Lease::default()));
        let followed = Followed {
            incarnation,
            store_id: store.store_id(),
            keyring: Arc::clone(&keyring),
            lease: Arc::clone(&lease),
            metrics: Arc::clone(metrics),
        };
        let feed_store: Arc<dyn FeedStore> = Arc::clone(store) as Arc<dyn FeedStore>;
        let (enrolled, begin) = oneshot::channel();
        let feed = Feed::start_after(begin, Arc::clone(&feed_store), followed).map_err(AppError::Thread)?;
        let (feed, enrolled) = (Arc::new(feed), Some(enrolled));
        let loader = Loader::new(Arc::clone(&keyring), feed_store, Arc::clone(metrics));
        let default_cluster = of.default_cluster.clone();
        let failed_auth = FailedAuth::from(&of.limits);
        let verifier = Verifier {
            digester,
            keyring: Arc::clone(&keyring),
            lease,
            loader,
            feed: Arc::clone(&feed),
            failed_auth,
            default_cluster,
        };
        let tls = of.tls.as_ref().map(tls::server).transpose()?.map(TlsAcceptor::from);
        let gateway = Gateway::new(GatewayParts {
            protocols: Protocols::new(&of.limits, tls),
            verifier,
            limits: Limits::new(AccountLimits::from(&of.limits)),
            caps: connection_caps(of),
            meter: Arc::clone(&meter),
            connector: Connector {
                tls: tls::client(),
                patience: of.limits.upstream_connect,
                metrics: Arc::clone(metrics),
            },
            metrics: Arc::clone(metrics),
            config: of.clone(),
        });
        Ok(Self { gateway: Arc::new(gateway), meter, feed, enrolled, listeners })
    }

    fn checks(&self) -> Vec<ReadinessCheck> {
        let (gateway, feed, meter) = (Arc::clone(&self.gateway), Arc::clone(&self.feed), Arc::clone(&self.meter));
        let serves_unmetered = gateway.config.serve_unmetered;
        let lease = ReadinessCheck::new("lease", move || {
            let good = gateway.has_lease() && feed.attempts().last_succeeded;
            if good { Ok(()) } else { Err("the store has not renewed this gateway's lease".to_owned()) }
        });
        let slab = ReadinessCheck::new("slab", move || {
            // A gateway that serves all the same is not to be taken out of service.
            let serves = meter.is_writable() || serves_unmetered;
            if serves { Ok(()) } else { Err("there is no room for usage counters".to_owned()) }
        });
        vec![lease, slab]
    }

    /// One for each thread, all accepting from the same sockets. The sockets are theirs then: they close when the last
    /// worker lets go of them.
    fn workers(&mut self, threads: usize, drain: &Drain) -> Result<Vec<Worker>, AppError> {
        let shared = std::mem::take(&mut self.listeners);
        (0..threads.max(1))
            .map(|number| {
                let listeners = shared.iter().map(TcpListener::try_clone).collect::<Result<_, _>>();
                let listeners = listeners.map_err(AppError::Thread)?;
                let (name, gateway, drain) = (format!("gateway-{number}"), Arc::clone(&self.gateway), drain.clone());
                Ok(Worker { name, gateway, listeners, drain })
            })
            .collect()
    }
}

fn control_plane(
    config: &Config,
    of: &ControlConfig,
    gateway: Option<SocketAddr>,
    keeping: &Keeping,
    metrics: &Arc<Metrics>,
    extra: Router,
) -> Result<Entrance, AppError> {
    let listener = bind("the control plane", of.listen)?;
    let token = |path: &PathBuf| secret::token(path).map(|token| token::hash(token.expose_secret().as_bytes()));
    let control = Control::new(ControlParts {
        store: Arc::clone(&keeping.store),
        digester: keeping.digester.clone(),
        sealer: keeping.sealer()?.clone(),
        operator_token: token(&of.operator_token_file)?,
        billing_token: of.billing_token_file.as_ref().map(token).transpose()?,
        upkeep: keeping.upkeep(),
        keys: config.keys,
        endpoint: of.endpoint.replace("{gateway}", &gateway.map(|at| at.to_string()).unwrap_or_default()),
        password_cost: control::password::PasswordCost::default(),
        metrics: Arc::clone(metrics),
        archive: Some(Archive::in_folder(&config.meter.archive)?.of(keeping.store.store_id())),
        retention: config.meter.retention,
    })?;
    let tls = of.tls.as_ref().map(tls::server).transpose()?.map(TlsAcceptor::from);
    let pages = console::routes(control::enveloped(control::api(Arc::clone(&control))));
    let router = control::router(Arc::clone(&control), extra.merge(pages));
    Ok(Entrance { listener, tls, router, control: Some(control) })
}

/// Half of the files the process may open: each call may need a connection on either side.
fn connection_caps(of: &GatewayConfig) -> ConnectionCaps {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = match of.limits.connections {
        0 => usize::try_from(files / 2).unwrap_or(usize::MAX),
        most => most,
    };
    ConnectionCaps::new(of.limits.connections_per_address, most, of.trusted_proxies.clone())
}

fn not_draining(draining: &Arc<AtomicBool>) -> ReadinessCheck {
    let draining = Arc::clone(draining);
    ReadinessCheck::new("draining", move || {
        if draining.load(Ordering::SeqCst) { Err("the node is shutting down".to_owned()) } else { Ok(()) }
    })
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, AppError> {
    accept::bind(address).map_err(|source| AppError::Listen { what, address, source })
}

fn named<T>((name, part): (&'static str, Option<T>)) -> Option<(&'static str, T)> {
    part.map(|part| (name, part))
}

fn announce(role: &'static str, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(role, %address, "listening");
    }
}
