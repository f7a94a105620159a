//! TLS towards servers, by rustls: what is verified, and with which certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use feast_core::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// How much a server has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Nothing: the connection is encrypted, and may end anywhere.
    Nothing,
    /// That an authority that is trusted has signed its certificate.
    Authority,
    /// Also that the certificate is for the host that was asked for.
    Host,
}

/// The files of a configuration. They are read for each new connection, so that renewed ones are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// How much the server has to prove.
    pub verify: Verify,
    /// Certificates of trusted authorities; none are those of the system.
    pub authorities: Option<PathBuf>,
    /// Certificate and key by which the client proves who it is.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsOptions {
    /// What rustls needs for one connection.
    ///
    /// # Errors
    /// `InvalidConfiguration` for files that cannot be read or hold something else.
    pub fn client_config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let verifier = match self.verify {
            Verify::Nothing => {
                Verifier { provider: Arc::clone(&provider), chain: None, trusted: Vec::new(), host: false }
            }
            Verify::Authority | Verify::Host => {
                let trusted = self.trusted()?;
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(trusted.iter().cloned());
                let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
                let chain = chain.map_err(|error| {
                    Error::invalid_configuration("no certificate of a trusted authority was found")
                        .with_source(error)
                        .with_hint("name a file of certificates in PEM format")
                })?;
                let host = self.verify == Verify::Host;
                Verifier { provider: Arc::clone(&provider), chain: Some(chain), trusted, host }
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("the TLS library lacks a protocol version").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let Some((certificate, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
        builder.with_client_auth_cert(certificates(certificate)?, private_key).map_err(|error| {
            Error::invalid_configuration("the certificate and the key do not belong together")
                .with_context("certificate", certificate.display())
                .with_context("key", key.display())
                .with_source(error)
        })
    }

    fn trusted(&self) -> Result<Vec<CertificateDer<'static>>> {
        match &self.authorities {
            Some(file) => certificates(file),
            None => Ok(rustls_native_certs::load_native_certs().certs),
        }
    }
}

/// The certificates that the system trusts, in DER, for clients that set up rustls themselves.
pub fn system_authorities() -> Vec<Vec<u8>> {
    rustls_native_certs::load_native_certs().certs.iter().map(|certificate| certificate.to_vec()).collect()
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| unreadable(file, error))?;
    if found.is_empty() {
        return Err(Error::invalid_configuration("the file holds no certificate")
            .with_context("file", file.display())
            .with_hint("name a file of certificates in PEM format"));
    }
    Ok(found)
}

fn unreadable(file: &Path, error: rustls::pki_types::pem::Error) -> Error {
    Error::invalid_configuration("a certificate or key cannot be read")
        .with_context("file", file.display())
        .with_source(error)
        .with_hint("name a file in PEM format that this user may read")
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None` accepts every certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that are trusted as they are: servers with a certificate that they signed themselves have those.
    trusted: Vec<CertificateDer<'static>>,
    host: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError as C;
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.trusted.iter().any(|trusted| trusted.as_ref() == certificate.as_ref()) {
            if self.host {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, host)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(certificate, intermediates, host, ocsp_response, now) {
            // The name is what is looked at last.
            Err(rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }))
                if !self.host =>
            {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
