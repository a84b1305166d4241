//! The listener of the control plane: bounded connections, deadlines, a stop that lets answers finish.

use std::convert::Infallible;
use std::future::Future;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::caller::Source;

/// Bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    pub connections: usize,
    /// Also how long a connection may stay idle.
    pub header_within: Duration,
    pub header_bytes: usize,
    /// How long a stop waits for answers that are under way.
    pub stop_within: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header_within: Duration::from_secs(30),
            header_bytes: 32 * 1024,
            stop_within: Duration::from_secs(5),
        }
    }
}

/// Serves until `stop` is done, then lets what is under way finish. Errors only where the listener cannot be used at all.
/// With `tls` every connection begins with a handshake, which has to end as soon as a header.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: ServeLimits,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let free = Arc::new(Semaphore::new(limits.connections));
    let (stopping, stopped) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        // A place first, then a connection: what there is no room for waits in the listener's queue.
        let accepted = async {
            let place = Arc::clone(&free).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (router, tls, stopped) = (router.clone(), tls.clone(), stopped.clone());
                let source = Source(Some(from.ip().to_canonical()));
                tokio::spawn(async move {
                    // Without it answers wait for acknowledgements; a connection that cannot have it works all the same.
                    let _slower_if_it_fails = stream.set_nodelay(true);
                    match tls {
                        None => connection(stream, source, router, limits, stopped).await,
                        Some(tls) => {
                            if let Some(stream) = shake_hands(&tls, stream, limits.header_within).await {
                                connection(stream, source, router, limits, stopped).await;
                            }
                        }
                    }
                    drop(place);
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
    drop((listener, stopped));
    let _nobody_may_be_left = stopping.send(());
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let ended = tokio::time::timeout(limits.stop_within, free.acquire_many(all)).await;
    tracing::debug!(in_time = ended.is_ok(), "the control listener has stopped");
    Ok(())
}

/// Most errors of accept are about the one connection that is gone; without files left it helps to wait for some.
async fn pause_after(error: &std::io::Error) {
    tracing::warn!(cause = %error, "the control listener could not accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn shake_hands(tls: &TlsAcceptor, stream: TcpStream, within: Duration) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(within, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(cause = %error, "a TLS handshake with the control listener failed");
            None
        }
        Err(_) => None,
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    source: Source,
    router: Router,
    limits: ServeLimits,
    mut stopped: watch::Receiver<()>,
) {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(source);
        let answer = hyper::service::Service::call(&service, request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let builder = builder(limits);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(cause = %error, "a connection of the control listener broke");
    }
}

fn builder(limits: ServeLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_within)
        .max_buf_size(limits.header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.header_within)
        .keep_alive_timeout(limits.header_within);
    builder
}
