//! TLS of the TCP listeners: rustls with ring, certificates that follow their files.
//!
//! The only user of tokio-rustls. HTTP/1.1 alone is offered: every client of the API speaks it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{DEFAULT_VERSIONS, ServerConfig};

use super::reloaded::Reloaded;

/// The server's certificate chain and key, and what is made of them.
#[derive(Debug)]
pub(super) struct Certificate(Reloaded<ServerConfig>);

impl Certificate {
    /// Reads chain and key, both PEM.
    pub(super) fn open(chain: PathBuf, key: PathBuf) -> Result<Self, String> {
        let read = |files: &[PathBuf]| match files {
            [chain, key] => server_config(chain, key),
            _ => Err("a certificate takes two files".to_owned()),
        };
        Reloaded::open(vec![chain, key], read).map(Self)
    }

    /// Returns what takes the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.get())
    }
}

fn server_config(chain: &Path, key: &Path) -> Result<ServerConfig, String> {
    let of = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| of(chain, &error))?;
    if certificates.is_empty() {
        return Err(of(chain, &"holds no PEM certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(DEFAULT_VERSIONS)
        .map_err(|error| of(chain, &error))?
        .with_no_client_auth()
        // Refuses a key that is not the certificate's.
        .with_single_cert(certificates, private)
        .map_err(|error| format!("{} with {}: {error}", chain.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
