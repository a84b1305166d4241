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

use super::sample::SampleService;

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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::{Bytes, BytesMut};
    use http::{HeaderMap, HeaderValue, Request, StatusCode};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Frame;
    use prost::Message;
    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::demo::proto::request::{CreateCollection, Named, WriteDocs};
    use crate::demo::proto::{Dense, Doc, Floats, Units, Vector, response};

    const DEADLINE: Duration = Duration::from_secs(20);

    struct Answered {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        trailers: HeaderMap,
    }

    async fn start() -> (SampleService, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = SampleService::new();
        let serving = service.clone();
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
        (service, address)
    }

    /// One request on a connection of its own.
    async fn send<B>(address: SocketAddr, http2: bool, request: Request<B>) -> Result<Answered, hyper::Error>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
        B: Send + Unpin + 'static,
    {
        let exchange = async {
            let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
            let response = if http2 {
                let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                sender.send_request(request).await?
            } else {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                tokio::spawn(connection);
                sender.send_request(request).await?
            };
            let (head, body) = response.into_parts();
            let collected = body.collect().await?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            Ok(Answered { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers })
        };
        timeout(DEADLINE, exchange).await.expect("an answer in time")
    }

    fn request(
        method: &str,
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let builder = Request::builder().method(method).uri(format!("http://{address}{path}"));
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(Full::new(body)).unwrap()
    }

    async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Answered, hyper::Error> {
        send(address, false, request("GET", address, path, headers, Bytes::new())).await
    }

    async fn rpc(
        address: SocketAddr,
        method: &str,
        headers: &[(&str, &str)],
        message: &impl Message,
    ) -> Result<Answered, hyper::Error> {
        let mut body = BytesMut::from(&[0][..]);
        let message = message.encode_to_vec();
        body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&message);
        let path = format!("/proxima.dashvector.proto.DashVectorService/{method}");
        let mut request = request("POST", address, &path, headers, body.freeze());
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        send(address, true, request).await
    }

    fn json_of(answered: &Answered) -> Value {
        serde_json::from_slice(&answered.body).unwrap()
    }

    async fn with_collection(address: SocketAddr) {
        let create = json!({"name": "books", "dimension": 2}).to_string();
        let answered =
            send(address, false, request("POST", address, "/v1/collections", &[], create.into())).await.unwrap();
        assert_eq!(json_of(&answered)["code"], 0);
    }

    #[tokio::test]
    async fn both_protocols_see_the_same_documents_and_are_counted_by_account() {
        let (service, address) = start().await;
        let create = CreateCollection { name: "books".into(), dimension: 2, ..Default::default() };
        rpc(address, "create_collection", &[], &create).await.unwrap();
        let floats = Dense::Floats(Floats { values: vec![1.0, 0.0] });
        let doc = Doc { id: "a".into(), vector: Some(Vector { dense: Some(floats) }), ..Default::default() };
        let write = WriteDocs { docs: vec![doc], partition: String::new() };
        let metadata = [("collection-name", "books"), ("x-tollgate-account", "acc_1")];
        let answered = rpc(address, "insert_doc", &metadata, &write).await.unwrap();
        assert_eq!(answered.trailers["grpc-status"], "0");
        let written = response::Written::decode(&answered.body[5..]).unwrap();
        assert_eq!(written.usage.unwrap().units, Some(Units::Write(1)));

        let account = [("x-tollgate-account", "acc_2")];
        let fetched = get(address, "/v1/collections/books/docs?ids=a%2Cb&partition=default", &account).await.unwrap();
        let output = json!({"a": {"id": "a", "vector": [1.0, 0.0], "fields": {}, "score": 0.0}});
        assert_eq!(json_of(&fetched)["output"], output);
        assert_eq!(json_of(&fetched)["usage"], json!({"read_units": 2}));

        let counts = service.counts();
        assert_eq!((counts.total.calls, counts.total.completed), (3, 3));
        assert_eq!((counts.total.read_units, counts.total.completed_write_units), (2, 1));
        assert_eq!(counts.accounts["acc_1"].completed_write_units, 1);
        assert_eq!(counts.accounts["acc_2"].calls, 1);
    }

    #[tokio::test]
    async fn an_answer_is_late_failed_or_bare_when_the_request_asks_for_it() {
        let (_, address) = start().await;
        let path = "/service_version";
        let before = std::time::Instant::now();
        get(address, path, &[("x-sample-delay-ms", "60")]).await.unwrap();
        assert!(before.elapsed() >= Duration::from_millis(60));
        let failed = get(address, path, &[("x-sample-status", "503"), ("x-sample-code", "-7")]).await.unwrap();
        assert_eq!((failed.status.as_u16(), json_of(&failed)["code"].clone()), (503, json!(-7)));
        let refused = get(address, path, &[("x-sample-code", "-2034")]).await.unwrap();
        assert_eq!((refused.status.as_u16(), json_of(&refused)["code"].clone()), (200, json!(-2034)));
        assert_eq!(get(address, "/nowhere", &[]).await.unwrap().status, StatusCode::NOT_FOUND);

        with_collection(address).await;
        let fetch =
            |headers| async move { json_of(&get(address, "/v1/collections/books/docs?ids=a", headers).await.unwrap()) };
        assert_eq!(fetch(&[]).await["usage"], json!({"read_units": 1}));
        assert_eq!(fetch(&[("x-sample-no-usage", "1")]).await.get("usage"), None);
        assert_eq!(fetch(&[("x-sample-units", "300")]).await["usage"], json!({"read_units": 300}));
    }

    #[tokio::test]
    async fn a_grpc_call_fails_in_one_block_of_headers() {
        let (_, address) = start().await;
        let asked = [("x-sample-status", "8"), ("x-sample-code", "-2034"), ("x-request-id", "req-1")];
        let failed = rpc(address, "get_version", &asked, &Named::default()).await.unwrap();
        assert_eq!((failed.status.as_u16(), &failed.headers["grpc-status"]), (200, &HeaderValue::from_static("8")));
        assert_eq!((&failed.headers["extra-code"], failed.body.len()), (&HeaderValue::from_static("-2034"), 0));
        assert_eq!(failed.headers["request-id"], "req-1");
        let unknown = rpc(address, "fly", &[], &Named::default()).await.unwrap();
        assert_eq!(unknown.headers["grpc-status"], "12");
        let bare = rpc(address, "get_version", &[("x-sample-status", "429")], &Named::default()).await.unwrap();
        assert_eq!((bare.status.as_u16(), bare.headers.get("grpc-status")), (429, None));
    }

    #[tokio::test]
    async fn a_broken_answer_breaks_and_is_not_counted_as_completed() {
        let (service, address) = start().await;
        for reset in ["head", "0", "10", "100000"] {
            let headers = [("x-sample-reset", reset)];
            assert!(get(address, "/service_version", &headers).await.is_err(), "HTTP/1.1, {reset}");
            assert!(rpc(address, "get_version", &headers, &Named::default()).await.is_err(), "HTTP/2, {reset}");
        }
        let counts = service.counts();
        assert_eq!((counts.total.calls, counts.total.completed), (8, 0));
    }

    #[tokio::test]
    async fn a_refused_request_is_not_seen_until_it_is_sent_again() {
        let (service, address) = start().await;
        let headers = [("x-sample-refuse", "once")];
        let error = rpc(address, "get_version", &headers, &Named::default()).await.err().unwrap();
        let reason = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<h2::Error>()).unwrap();
        assert_eq!(reason.reason(), Some(h2::Reason::REFUSED_STREAM));
        rpc(address, "get_version", &headers, &Named::default()).await.unwrap();
        let counts = service.counts();
        assert_eq!((counts.refused, counts.total.calls), (1, 1));
    }

    #[tokio::test]
    async fn filler_and_pieces_leave_the_answer_readable() {
        let (_, address) = start().await;
        let headers = [("x-sample-bytes", "300000"), ("x-sample-chunk", "1000")];
        let answered = get(address, "/service_version", &headers).await.unwrap();
        assert_eq!(answered.headers.get("content-length"), None);
        assert_eq!(json_of(&answered)["filler"].as_str().map(str::len), Some(300_000));
        assert_eq!(json_of(&answered)["version"], "1.0.0");
        let answered = rpc(address, "get_version", &headers, &Named::default()).await.unwrap();
        let length = u32::from_be_bytes(answered.body[1..5].try_into().unwrap());
        assert_eq!(length as usize, answered.body.len() - 5);
        assert_eq!(response::Version::decode(&answered.body[5..]).unwrap().version, "1.0.0");
        assert!(answered.body.len() > 300_000);
    }

    #[tokio::test]
    async fn a_body_comes_back_with_its_trailers() {
        let (service, address) = start().await;
        let trailers = HeaderMap::from_iter([("x-end".parse().unwrap(), HeaderValue::from_static("yes"))]);
        let frames = [
            Frame::data(Bytes::from_static(b"abc")),
            Frame::data(Bytes::from_static(b"de")),
            Frame::trailers(trailers),
        ];
        let body = Frames(frames.into());
        let request = Request::post(format!("http://{address}/echo/body")).body(body).unwrap();
        let answered = send(address, true, request).await.unwrap();
        assert_eq!(
            (&answered.body[..], &answered.trailers["x-end"]),
            (&b"abcde"[..], &HeaderValue::from_static("yes"))
        );
        assert_eq!(service.counts().total.completed, 1);
    }

    #[tokio::test]
    async fn what_was_sent_can_be_looked_up_afterwards() {
        let (_, address) = start().await;
        let echoed = send(address, false, request("PUT", address, "/echo?q=%20x", &[("x-a", "1")], "hello".into()));
        let echoed = json_of(&echoed.await.unwrap());
        assert_eq!(
            (&echoed["method"], &echoed["target"], &echoed["body_bytes"]),
            (&json!("PUT"), &json!("/echo?q=%20x"), &json!(5))
        );
        let counts = json_of(&get(address, "/sample/counts", &[]).await.unwrap());
        assert_eq!((&counts["calls"], &counts["operations"]["other"]), (&json!(1), &json!(1)));
        let last = &counts["last"];
        assert_eq!(
            (&last["target"], &last["content_length"], &last["body_bytes"]),
            (&json!("/echo?q=%20x"), &json!("5"), &json!(5))
        );
        assert!(last["headers"].as_array().unwrap().contains(&json!(["x-a", "1"])));
        let recent = json_of(&get(address, "/sample/requests", &[]).await.unwrap());
        assert_eq!(recent.as_array().unwrap().len(), 1);
    }

    /// Frames that are ready.
    struct Frames(std::collections::VecDeque<Frame<Bytes>>);

    impl hyper::body::Body for Frames {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(self.0.pop_front().map(Ok))
        }
    }
}
