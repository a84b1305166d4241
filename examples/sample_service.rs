//! The sample vector service on its own: `cargo run --example sample_service -- 127.0.0.1:0 [CA_FILE]`.
//!
//! Prints its address once it serves, and runs until it is killed. With a file to write to it serves TLS for 127.0.0.1 and
//! localhost under a new certificate, and leaves there what clients are to trust.

use std::error::Error;
use std::future::pending;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tollgate::demo::SampleService;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(&address).await?;
    let config = arguments.next().map(|ca_file| certified(&ca_file)).transpose()?;
    println!("{}", listener.local_addr()?);
    let service = SampleService::new();
    match config {
        Some(config) => service.serve_tls(listener, Arc::new(config), pending()).await?,
        None => service.serve(listener, pending()).await?,
    }
    Ok(())
}

fn certified(ca_file: &str) -> Result<ServerConfig, Box<dyn Error>> {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    std::fs::write(ca_file, certified.cert.pem())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
