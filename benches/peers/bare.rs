//! A forwarder on the same engine that does nothing but forward: no key, no account, no count, no deadline, no limit.
//!
//! What the gateway costs more than this is the price of its work.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

type Sender1 = http1::SendRequest<Incoming>;
type Sender2 = http2::SendRequest<Incoming>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

thread_local! {
    static IDLE: RefCell<Vec<Sender1>> = RefCell::default();
    static HTTP2: RefCell<Option<Sender2>> = RefCell::default();
}

/// Serves for ever on two addresses, which are printed: HTTP/1.1, and HTTP/2 with prior knowledge.
pub async fn serve(upstream: SocketAddr) -> io::Result<()> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    crate::child::announce(&[first.local_addr()?, second.local_addr()?])?;
    tokio::try_join!(accept_http1(first, upstream), accept_http2(second, upstream))?;
    Ok(())
}

async fn accept_http1(listener: TcpListener, upstream: SocketAddr) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(move |request| forward_http1(request, upstream));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // How a connection ends is seen by the client.
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn accept_http2(listener: TcpListener, upstream: SocketAddr) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(move |request| forward_http2(request, upstream));
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn forward_http1(request: Request<Incoming>, upstream: SocketAddr) -> Result<Response<Relayed>, Failure> {
    let mut sender = match IDLE.with_borrow_mut(Vec::pop) {
        Some(sender) => sender,
        None => connect_http1(upstream).await?,
    };
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    Ok(answer.map(|body| Relayed { body, sender: Some(sender) }))
}

async fn connect_http1(upstream: SocketAddr) -> Result<Sender1, Failure> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn forward_http2(request: Request<Incoming>, upstream: SocketAddr) -> Result<Response<Incoming>, Failure> {
    let mut sender = match HTTP2.with_borrow(Clone::clone) {
        Some(sender) => sender,
        None => connect_http2(upstream).await?,
    };
    sender.ready().await?;
    Ok(sender.send_request(request).await?)
}

async fn connect_http2(upstream: SocketAddr) -> Result<Sender2, Failure> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    HTTP2.set(Some(sender.clone()));
    Ok(sender)
}

/// The body of an answer; at its end the connection it came on can be used again.
struct Relayed {
    body: Incoming,
    sender: Option<Sender1>,
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(sender) = self.sender.take()
        {
            IDLE.with_borrow_mut(|idle| idle.push(sender));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
