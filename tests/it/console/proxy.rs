//! The console behind a proxy that ends TLS: the browser speaks https to a name of its own, the control plane plain HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};

use super::{Codes, PRESS_ENTER, cookie};
use crate::harness::browser::Browser;
use crate::harness::process::Demo;
use crate::harness::tls_provider;

/// Passes bytes on between TLS and `control`. Serves as long as the runtime lives.
fn proxy(runtime: &tokio::runtime::Runtime, control: SocketAddr) -> SocketAddr {
    tls_provider();
    let made = rcgen::generate_simple_self_signed(["console.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let mut outside = tls.accept(stream).await?;
                let mut inside = TcpStream::connect(control).await?;
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    address
}

#[test]
fn behind_a_proxy_that_ends_tls_everything_works_and_cookies_are_secure() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let demo = Demo::start();
    let mut codes = Codes::of(&demo.facts.totp_secret);
    let port = proxy(&runtime, demo.control()).port();
    let browser =
        Browser::start_with("en", &["--ignore-certificate-errors", "--host-resolver-rules=MAP console.test 127.0.0.1"]);
    browser.go(&format!("https://console.test:{port}/"));
    browser.arrives_at("/console/sign-in");
    browser.fill("#email", &demo.facts.email);
    browser.fill("#password", &demo.facts.password);
    browser.press(PRESS_ENTER);
    browser.arrives_at("/console/keys");
    assert!(browser.run("return location.origin").as_str().unwrap().starts_with("https://console.test:"));
    for (name, hidden) in [("__Host-tollgate", true), ("__Host-tollgate-csrf", false)] {
        let cookie = cookie(&browser, name);
        assert_eq!((&cookie["secure"], &cookie["sameSite"]), (&true.into(), &"Strict".into()), "{cookie}");
        assert_eq!((&cookie["httpOnly"], &cookie["domain"]), (&hidden.into(), &"console.test".into()), "{cookie}");
    }
    browser.click("[data-open=view-key]");
    browser.fill("#view-code", &codes.next());
    browser.press(PRESS_ENTER);
    browser.reads("#view-key [data-key]", demo.key());
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{complaints:#?}");
}
