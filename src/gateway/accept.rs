//! Listeners: bound before the server runs, shared by the data-plane threads, with caps on connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use tokio::sync::watch;

use crate::gateway::{Gateway, connection};

/// How long accepting pauses when the process is out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: i32 = 1024;

/// Binds an address now, so that a mistake is reported before anything runs and port 0 can be told.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Linux hands it on to every connection, which then needs no system call for it.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One data-plane thread: a pingora service with one thread of its own, so its connections, its upstream pool and its
/// shard of the slab are never shared.
pub struct Worker {
    pub name: String,
    pub gateway: Arc<Gateway>,
    pub listeners: Vec<TcpListener>,
    pub drain: Drain,
}

/// Tells connections to end, and counts those that have not.
#[derive(Clone)]
pub struct Drain {
    stop: watch::Sender<bool>,
    open: Arc<AtomicUsize>,
}

/// One open connection, counted until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Default for Drain {
    fn default() -> Self {
        Self { stop: watch::Sender::new(false), open: Arc::default() }
    }
}

impl Drain {
    /// Stops accepting and lets the calls in flight end; returns when none is left, or after `patience`.
    /// Returns the number of connections that were still open then.
    pub async fn run(&self, patience: Duration, abandoned: impl Fn() -> usize) -> usize {
        self.stop.send_replace(true);
        let give_up = tokio::time::Instant::now() + patience;
        loop {
            let left = self.open.load(Ordering::SeqCst) + abandoned();
            if left == 0 || tokio::time::Instant::now() >= give_up {
                return left;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn enter(&self) -> Open {
        self.open.fetch_add(1, Ordering::SeqCst);
        Open(Arc::clone(&self.open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Service for Worker {
    async fn start_service(&mut self, _fds: Option<ListenFds>, _shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        self.gateway.begin_thread();
        let accepting: Vec<_> = std::mem::take(&mut self.listeners)
            .into_iter()
            .map(|listener| tokio::spawn(accept(Arc::clone(&self.gateway), listener, self.drain.clone())))
            .collect();
        for task in accepting {
            let _ = task.await;
        }
        // The runtime, and with it every connection, lives as long as this: the drain decides when that is.
        std::future::pending::<()>().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

async fn accept(gateway: Arc<Gateway>, listener: TcpListener, drain: Drain) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a listener could not be used"),
    };
    let mut stop = drain.stop.subscribe();
    // Counted like a connection, so that the drain waits until nobody can come in any more.
    let _open = drain.enter();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => admit(&gateway, stream, peer, &drain),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    accept_the_last(&gateway, listener, &drain);
}

/// Serves what the kernel has accepted already, and closes the listener. It asks the kernel itself: the runtime learns
/// of connections only when it next waits.
fn accept_the_last(gateway: &Arc<Gateway>, listener: tokio::net::TcpListener, drain: &Drain) {
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            admit(gateway, stream, peer, drain);
        }
    }
}

fn admit(gateway: &Arc<Gateway>, stream: tokio::net::TcpStream, peer: SocketAddr, drain: &Drain) {
    // Closing at once is all that can be said to an address that has too many.
    let Some(slot) = gateway.connection_slot(peer.ip()) else {
        return;
    };
    let (gateway, open, stop) = (Arc::clone(gateway), drain.enter(), drain.stop.subscribe());
    tokio::spawn(async move {
        connection::serve(Arc::clone(&gateway), stream, peer.ip(), stop).await;
        gateway.metrics.connections_open.dec();
        drop((slot, open));
    });
}
