//! Whom a collector's certificate is believed from: rustls with ring, as everywhere here.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use hyper_rustls::ConfigBuilderExt as _;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::OtlpConfig;

/// Trusts the authorities of the file, or those that the machine trusts; none for plain HTTP.
pub(super) fn tls(config: &OtlpConfig) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = match &config.ca_file {
        Some(path) => builder.with_root_certificates(authorities(path)?),
        None if config.endpoint.starts_with("https:") => builder
            .with_native_roots()
            .context("flows.otlp_endpoint: the machine trusts no certificate authority")?,
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

fn authorities(path: &Path) -> Result<RootCertStore> {
    let failed = || format!("flows.otlp_ca_file: {}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).with_context(failed)? {
        roots
            .add(certificate.with_context(failed)?)
            .with_context(failed)?;
    }
    ensure!(!roots.is_empty(), "{} holds no PEM certificate", failed());
    Ok(roots)
}
