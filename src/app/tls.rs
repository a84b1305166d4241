//! TLS configurations from files: ours toward clients, and the system's trust toward upstreams.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::TlsConfig;

/// Both protocols on one port; gRPC clients ask for the first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {source}; a PEM file is expected", path = .path.display())]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("the certificate in {path} cannot be used: {source}", path = .path.display())]
    Unusable { path: PathBuf, source: rustls::Error },
}

/// What the listener presents. Sessions can be resumed by ticket, since the SDK connects anew for every HTTP call.
pub fn server(files: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let pem = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsError::Pem { path, source }
    };
    let certs = CertificateDer::pem_file_iter(&files.cert).map_err(pem(&files.cert))?;
    let certs = certs.collect::<Result<Vec<_>, _>>().map_err(pem(&files.cert))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem(&files.key))?;
    let unusable = |source| TlsError::Unusable { path: files.cert.clone(), source };
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certs, key).map_err(unusable)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(unusable)?;
    Ok(Arc::new(config))
}

/// Whom upstream connections trust: the system's roots, or those that `SSL_CERT_FILE` names.
pub fn client() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "some of the system's root certificates cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Arc::new(config)
}
