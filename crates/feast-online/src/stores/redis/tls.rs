//! Encrypted connections.

use std::fmt;
use std::sync::Arc;

use feast_core::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::TlsOptions;

/// The settings of every encrypted connection.
pub(super) fn client_config(options: &TlsOptions) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let internal = |error: rustls::Error| Error::internal("TLS cannot be set up").with_source(error);
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(internal)?;
    let checked = if options.verify {
        let roots = Arc::new(authorities(options)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        Some(verifier.map_err(|error| {
            Error::invalid_configuration("there is no authority whose certificates could be trusted")
                .with_source(error)
                .with_hint("name a file of them with `ssl_ca_certs` in `online_store.connection_string`")
        })?)
    } else {
        None
    };
    let verifier = match checked {
        Some(verifier) if options.check_hostname => verifier as Arc<dyn ServerCertVerifier>,
        verifier => Arc::new(Lenient { verifier, provider }),
    };
    let builder = versions.dangerous().with_custom_certificate_verifier(verifier);
    let config = match (&options.certificate, &options.key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("ssl_keyfile", key, error))?;
            builder.with_client_auth_cert(certificates("ssl_certfile", certificate)?, key).map_err(|error| {
                Error::invalid_configuration("`ssl_certfile` and `ssl_keyfile` do not fit together").with_source(error)
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn unreadable(setting: &str, file: &str, error: impl fmt::Display) -> Error {
    Error::invalid_configuration(format!("the file of `{setting}` cannot be used: {error}"))
        .with_context("file", file)
        .with_hint("it has to be a PEM file that this user can read")
}

fn certificates(setting: &str, file: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    read.map_err(|error| unreadable(setting, file, error))
}

fn authorities(options: &TlsOptions) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match &options.authorities {
        Some(file) => {
            for certificate in certificates("ssl_ca_certs", file)? {
                roots.add(certificate).map_err(|error| unreadable("ssl_ca_certs", file, error))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(roots)
}

/// Checks less, because the configuration says so.
#[derive(Debug)]
struct Lenient {
    /// What checks the certificate, but for its name; `None` accepts any.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(ServerCertVerified::assertion()) };
        match verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
