//! TLS: the certificate and its key, read anew when their files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use feast_core::{Error, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The files and what was read from them last.
#[derive(Debug)]
pub(crate) struct Tls {
    key: PathBuf,
    certificate: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// When the files that were read last had been written, readable or not.
    written: Written,
    looked: Instant,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("written", &self.written).finish_non_exhaustive()
    }
}

type Written = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads the files, in PEM.
    ///
    /// # Errors
    /// `InvalidConfiguration` naming the file.
    pub(crate) fn load(key: &Path, certificate: &Path) -> Result<Self> {
        let written = written(key, certificate);
        let current = Current { config: config(key, certificate)?, written, looked: Instant::now() };
        Ok(Self { key: key.to_owned(), certificate: certificate.to_owned(), current: Mutex::new(current) })
    }

    /// For the next connection: with new files if there are any. Files that do not fit together, as halfway through
    /// their replacement, leave the old ones in use.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_AGAIN {
            current.looked = Instant::now();
            let written = written(&self.key, &self.certificate);
            if written != current.written {
                match config(&self.key, &self.certificate) {
                    Ok(config) => {
                        current.config = config;
                        tracing::info!(certificate = %self.certificate.display(), "the certificate was replaced");
                    }
                    Err(error) => tracing::warn!(%error, "the new certificate cannot be used; the old one stays"),
                }
                current.written = written;
            }
        }
        TlsAcceptor::from(Arc::clone(&current.config))
    }
}

fn written(key: &Path, certificate: &Path) -> Written {
    [key, certificate].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn config(key: &Path, certificate: &Path) -> Result<Arc<ServerConfig>> {
    let unreadable = |path: &Path, error: rustls::pki_types::pem::Error| {
        Error::invalid_configuration(format!("`{}` cannot be read as PEM", path.display()))
            .with_source(error)
            .with_hint("`--key` names a private key and `--cert` a certificate with its chain, both in PEM")
    };
    let chain: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).and_then(|certificates| certificates.collect());
    let chain = chain.map_err(|error| unreadable(certificate, error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
    let unusable = |error: rustls::Error| {
        Error::invalid_configuration("the certificate and its key cannot be used together")
            .with_context("certificate", certificate.display())
            .with_context("key", key.display())
            .with_source(error)
            .with_hint("`--cert` starts with the certificate of the key in `--key`")
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
