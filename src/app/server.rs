//! The process around the parts: pingora's server with its runtimes, and how it is told to stop.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora_core::services::Service;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::control::serve::ServeLimits;
use crate::control::{self, Control};
use crate::gateway::Gateway;
use crate::gateway::accept::{Drain, Worker};

/// Ends a node from inside the process, as a signal does from outside.
#[derive(Clone, Default)]
pub struct Stop(Arc<Notify>);

impl Stop {
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// What is run.
#[derive(Default)]
pub struct Services {
    workers: Vec<Worker>,
    controls: Vec<ControlListener>,
}

impl Services {
    pub fn worker(&mut self, worker: Worker) {
        self.workers.push(worker);
    }

    pub fn control(&mut self, name: &'static str, entrance: Entrance) {
        self.controls.push(ControlListener { name, serving: Some(entrance) });
    }

    /// Runs until told to stop; returns when every runtime has ended.
    pub fn run(self, stopping: Stopping) {
        let conf = ServerConf {
            threads: 1,
            work_stealing: false,
            // pingora's own grace period is a fixed sleep; we drain before we say that we are to be stopped.
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(1),
            ..ServerConf::default()
        };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        for worker in self.workers {
            server.add_service(worker);
        }
        for control in self.controls {
            server.add_service(control);
        }
        server.run(RunArgs { shutdown_signal: Box::new(stopping) });
    }
}

/// How a stop goes: not ready, no new connections, calls in flight ended, and only then the runtimes.
pub struct Stopping {
    pub stop: Stop,
    pub drain: Drain,
    pub gateway: Option<Arc<Gateway>>,
    pub draining: Arc<AtomicBool>,
    pub patience: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Stopping {
    async fn recv(&self) -> ShutdownSignal {
        self.told_to().await;
        tracing::info!("stopping: no new connections, calls in flight are ended");
        self.draining.store(true, Ordering::SeqCst);
        let abandoned = || self.gateway.as_ref().map_or(0, |gateway| gateway.abandoned());
        let left = self.drain.run(self.patience, abandoned).await;
        match left {
            0 => tracing::info!("nothing is in flight any more"),
            left => tracing::warn!(left, "connections are cut: their calls did not end in time"),
        }
        ShutdownSignal::GracefulTerminate
    }
}

impl Stopping {
    async fn told_to(&self) {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signals cannot be received; only the process itself can stop this node");
            return self.stop.0.notified().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = self.stop.0.notified() => {}
        }
    }
}

/// A bound listener, what is behind it, and what runs beside it for as long as it serves.
pub struct Entrance {
    pub listener: TcpListener,
    pub tls: Option<TlsAcceptor>,
    pub router: Router,
    pub control: Option<Arc<Control>>,
}

/// One listener of the control plane, on a thread of its own.
struct ControlListener {
    name: &'static str,
    serving: Option<Entrance>,
}

#[async_trait]
impl Service for ControlListener {
    async fn start_service(&mut self, _fds: Option<ListenFds>, mut shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let Some(Entrance { listener, tls, router, control }) = self.serving.take() else {
            return;
        };
        let stop = async move {
            let _ = shutdown.wait_for(|stop| *stop).await;
        };
        let tending = control.map(|control| tokio::spawn(control::tend(control)));
        if let Err(error) = control::serve::serve(listener, tls, router, ServeLimits::default(), stop).await {
            tracing::error!(%error, name = self.name, "a listener could not be served");
        }
        if let Some(tending) = tending {
            tending.abort();
        }
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
