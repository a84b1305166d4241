//! The certificate that all proxies have, and the client that believes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

use crate::load::HOST;
use crate::private::write_private;

/// P-256, in PEM files.
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Offers TLS 1.3 with one curve (X25519) and one cipher suite (AES-128-GCM), so that all proxies do the same; resumes nothing, as the
    /// Python SDK does not.
    pub client: Arc<ClientConfig>,
}

impl Certificate {
    pub fn new(folder: &Path) -> io::Result<Self> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([HOST.to_owned()]).map_err(io::Error::other)?;
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        fs::write(&chain, cert.pem())?;
        write_private(&key, &signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).map_err(io::Error::other)?;
        let mut provider = ring::default_provider();
        provider.kx_groups = vec![ring::kx_group::X25519];
        provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
        let client = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13]);
        let client = client.map_err(io::Error::other)?.with_root_certificates(roots);
        let mut client = client.with_no_client_auth();
        client.resumption = Resumption::disabled();
        Ok(Self { chain, key, client: Arc::new(client) })
    }
}
