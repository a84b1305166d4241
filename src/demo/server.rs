//! The sample service on a socket: HTTP/1.1 and HTTP/2 with prior knowledge on one port, in clear or under TLS.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::service::SampleService;

const MAX_CONNECTIONS: usize = 16_384;
const MAX_STREAMS: u32 = 1024;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const MAX_HEADERS: u32 = 64 << 10;

/// The pause after a failed accept, which mostly means that there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

impl SampleService {
    /// Serves until `shutdown` is ready, and then drops every connection as it stands.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let service = self.clone();
        accept(listener, shutdown, move |stream| connection(service.clone(), stream)).await
    }

    /// Like [`Self::serve`], under TLS. `config` names the protocols of ALPN, or none for HTTP/1.1 and prior knowledge.
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        config: Arc<rustls::ServerConfig>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> io::Result<()> {
        let (service, acceptor) = (self.clone(), TlsAcceptor::from(config));
        let secured = move |stream| {
            let (service, acceptor) = (service.clone(), acceptor.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    connection(service, stream).await;
                }
            }
        };
        accept(listener, shutdown, secured).await
    }
}

async fn accept<F>(
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
    serve: impl Fn(TcpStream) -> F,
) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if connections.len() < MAX_CONNECTIONS && stream.set_nodelay(true).is_ok() {
            connections.spawn(serve(stream));
        }
    }
}

async fn connection(service: SampleService, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS);
    let answer = service_fn(move |request| {
        let service = service.clone();
        async move { service.handle(request).await }
    });
    // A connection ends with an error whenever a switch breaks it, and whenever a client goes away: nothing to report.
    drop(builder.serve_connection(TokioIo::new(stream), answer).await);
}
