//! The listener and the health routes.

use std::net::TcpListener;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::control::enveloped;
use crate::control::health::ReadinessCheck;
use crate::control::serve::{ServeLimits, serve};

struct Served {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

fn start(router: Router, limits: ServeLimits) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let ended = tokio::spawn(serve(listener, None, router, limits, stopped));
    Served { address, stop, ended }
}

async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(5), reading).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_address_of_a_caller_is_in_the_audit_log() {
    let world = World::new();
    world.bare_owner("one@example.com").await;
    let served = start(world.router.clone(), ServeLimits::default());
    let body = json!({"email": "one@example.com", "password": PASSWORD}).to_string();
    let head = "POST /v1/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let answer = ask(&mut TcpStream::connect(served.address).await.unwrap(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let audit = world.get(&world.operator, "/v1/audit?limit=1").await.ok(200);
    assert_eq!(audit["items"][0]["actor"]["from"], "127.0.0.1", "{audit}");
    drop(served.stop);
    tokio::time::timeout(Duration::from_secs(5), served.ended).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_slow_header_is_cut_and_idle_connections_do_not_hold_up_a_stop() {
    let limits = ServeLimits { header_within: Duration::from_millis(100), ..ServeLimits::default() };
    let served = start(enveloped(Router::new()), limits);
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    let answer = ask(&mut slow, "GET / HTTP/1.1\r\nhost:").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let idle = TcpStream::connect(served.address).await.unwrap();
    drop(served.stop);
    tokio::time::timeout(Duration::from_secs(4), served.ended).await.unwrap().unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_node_that_is_not_ready_says_what_is_not() {
    let check = |name, result: Result<(), &str>| {
        let result = result.map_err(str::to_owned);
        ReadinessCheck::new(name, move || result.clone())
    };
    let checks = vec![check("lease", Err("no lease yet")), check("slab", Ok(()))];
    let health = Health {
        metrics: Arc::new(
            crate::telemetry::metrics::Metrics::new(prometheus::Registry::new(), crate::time::WallTime(0)).unwrap(),
        ),
        checks,
        store: None,
        ledger: None,
    };
    let world = World { router: enveloped(health::routes(health)), ..World::new() };
    let answer = world.get("", "/readyz").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let expected = json!({"ready": false, "not_ready": [{"name": "lease", "reason": "no lease yet"}]});
    assert_eq!(answer.ok(503), expected);
    world.get("", "/livez").await.ok(200);
    world.get("", "/v1/keys").await.problem(404, "not_found");
}

/// A certificate for `localhost`, what the listener presents and what a client trusts.
fn certified() -> (tokio_rustls::TlsAcceptor, rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), roots)
}

#[tokio::test]
async fn over_tls_both_protocols_are_spoken_and_cleartext_is_not() {
    let world = World::new();
    let (tls, roots) = certified();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let router = world.router.clone();
    tokio::spawn(serve(listener, Some(tls), router, ServeLimits::default(), stopped));
    for protocol in ["h2", "http/1.1"] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots.clone()).with_no_client_auth();
        client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let stream = hyper_util::rt::TokioIo::new(stream);
        let request = Request::get("/livez").header("host", "localhost");
        let answer = if protocol == "h2" {
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://localhost/livez");
            sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request.body(Body::empty()).unwrap()).await.unwrap()
        };
        assert_eq!(answer.status(), StatusCode::OK, "{protocol}");
    }
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(5), plain.read_to_end(&mut answer));
    let _ = reading.await.unwrap();
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
}
