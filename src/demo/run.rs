//! `tollgate demo`: everything in one process, with a sample vector service and one account, to try it out.

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::SampleService;
use super::api::Api;
use super::folder::Folder;
use super::page;
use super::seed::{self, Facts, Wanted};
use crate::app::{AppError, Node, Stop};
use crate::config::Config;

/// The sample cluster's authority; the demo also serves it under its address.
pub const CLUSTER_HOST: &str = "cluster.demo.test";

/// What `tollgate demo` was asked for.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    pub gateway: SocketAddr,
    pub control: SocketAddr,
    /// Absent: a new temporary folder.
    pub data: Option<PathBuf>,
    /// One line of JSON on stdout once it serves, in place of a text for people.
    pub json: bool,
}

/// Runs the sample vector service, a gateway and a control plane in this process until told to stop.
pub fn run(options: DemoOptions) -> Result<(), AppError> {
    let (path, _temporary) = data_folder(options.data.clone())?;
    let folder = Folder::prepare(&path)?;
    let sample = bind_sample().map_err(|source| AppError::Folder { path: path.clone(), source })?;
    let upstream = sample.local_addr().map_err(AppError::Thread)?;
    let node = Node::build(config(&path, &options))?;
    let (Some(gateway), Some(control)) = (node.gateway_address(), node.control_address()) else {
        return Err(AppError::Demo("the demo needs both a gateway and a control plane".into()));
    };
    let wanted = Wanted {
        gateway: format!("http://{gateway}"),
        control: format!("http://{control}"),
        upstream: format!("http://{upstream}"),
        operator_token: folder.operator_token.clone(),
        cluster_host: CLUSTER_HOST.to_owned(),
    };
    let stop = Stop::default();
    let beside = Beside::start(sample, Api::new(control), wanted, folder, options.json, stop.clone())?;
    let ran = node.run(stop);
    let seeded = beside.finish();
    ran.and(seeded)
}

/// A folder that was not named is removed at the end.
fn data_folder(named: Option<PathBuf>) -> Result<(PathBuf, Option<tempfile::TempDir>), AppError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| AppError::Folder { path, source }
    };
    match named {
        Some(path) => {
            fs::create_dir_all(&path).map_err(failed(&path))?;
            Ok((path, None))
        }
        None => {
            let folder = tempfile::Builder::new().prefix("tollgate-demo-").tempdir();
            let folder = folder.map_err(failed(&std::env::temp_dir()))?;
            Ok((folder.path().to_owned(), Some(folder)))
        }
    }
}

fn bind_sample() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn config(folder: &Path, options: &DemoOptions) -> Config {
    let mut config = Config::defaults_in(folder);
    if let Some(gateway) = &mut config.gateway {
        gateway.listen = vec![options.gateway];
        gateway.default_cluster = Some(CLUSTER_HOST.to_owned());
    }
    if let Some(control) = &mut config.control {
        control.listen = options.control;
        "http://{gateway}".clone_into(&mut control.endpoint);
    }
    config
}

/// What runs beside the node, on a thread of its own: the sample service, and the seeding that ends with the page.
struct Beside {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Beside {
    fn start(
        sample: TcpListener,
        api: Api,
        wanted: Wanted,
        folder: Folder,
        json: bool,
        node: Stop,
    ) -> Result<Self, AppError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
        let failure = Arc::new(Mutex::new(None));
        let (stop, stopped) = oneshot::channel::<()>();
        let failed = Arc::clone(&failure);
        let run = move || {
            runtime.block_on(async move {
                let sample = match tokio::net::TcpListener::from_std(sample) {
                    Ok(sample) => sample,
                    Err(error) => return fail(&failed, &error, &node),
                };
                let seeding = tokio::spawn(async move {
                    if let Err(error) = seed_and_tell(&api, &wanted, &folder, json).await {
                        fail(&failed, &error, &node);
                    }
                });
                let ended = async {
                    let _ = stopped.await;
                };
                if let Err(error) = SampleService::new().serve(sample, ended).await {
                    tracing::error!(%error, "the sample service ended early");
                }
                seeding.abort();
            });
        };
        let thread = std::thread::Builder::new().name("demo".into()).spawn(run).map_err(AppError::Thread)?;
        Ok(Self { stop, thread, failure })
    }

    fn finish(self) -> Result<(), AppError> {
        drop(self.stop);
        let _ = self.thread.join();
        let failure = self.failure.lock().take();
        failure.map_or(Ok(()), |failure| Err(AppError::Demo(failure)))
    }
}

fn fail(failure: &Mutex<Option<String>>, error: &dyn std::fmt::Display, node: &Stop) {
    *failure.lock() = Some(format!("the demo could not be set up: {error}"));
    node.now();
}

async fn seed_and_tell(api: &Api, wanted: &Wanted, folder: &Folder, json: bool) -> Result<(), seed::SeedError> {
    let facts: Facts = seed::ensure(api, wanted, folder).await?;
    let text = if json { page::line(&facts) } else { page::text(&facts) };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(seed::SeedError::Output)
}
