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
    };
    let world = World { router: enveloped(health::routes(health)), ..World::new() };
    let answer = world.get("", "/readyz").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let expected = json!({"ready": false, "not_ready": [{"name": "lease", "reason": "no lease yet"}]});
    assert_eq!(answer.ok(503), expected);
    world.get("", "/livez").await.ok(200);
    world.get("", "/v1/keys").await.problem(404, "not_found");
}
