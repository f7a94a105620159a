//! TLS towards servers, by rustls: what is verified, and with which certificates.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use feast_core::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// How long the certificates that the system trusts are used before they are read anew.
const SYSTEM_AUTHORITIES_AGE: Duration = Duration::from_secs(600);

/// Variables that name a file of certificates to trust in place of the system's: Feast's, and that of its HTTP library.
/// `SSL_CERT_FILE` is looked at with the system.
const BUNDLES: [&str; 2] = ["FEAST_CA_CERT_FILE_PATH", "REQUESTS_CA_BUNDLE"];

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

/// The files of a configuration. They are read for each new connection, so that renewed ones are taken; the many
/// certificates of the system are kept for ten minutes.
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
        let authorities = match (self.verify, &self.authorities) {
            (Verify::Nothing, _) => None,
            (_, Some(file)) => Some(Arc::new(Authorities::new(certificates(file)?, &provider)?)),
            (_, None) => Some(Authorities::of_the_system()?),
        };
        let verifier = Verifier { provider: Arc::clone(&provider), authorities, host: self.verify == Verify::Host };
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
}

/// The certificates that are trusted.
#[derive(Debug)]
struct Authorities {
    chain: Arc<WebPkiServerVerifier>,
    /// They are trusted as they are, too: servers with a certificate that they signed themselves have those.
    certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    fn new(certificates: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let chain = chain.map_err(|error| {
            Error::invalid_configuration("no certificate of a trusted authority was found")
                .with_source(error)
                .with_hint("name a file of certificates in PEM format")
        })?;
        Ok(Self { chain, certificates })
    }

    /// Those of the system, which are some hundred in one large file or as many small ones.
    #[expect(clippy::disallowed_methods, reason = "the tools of OpenSSL read the same variables")]
    fn of_the_system() -> Result<Arc<Self>> {
        static KNOWN: Mutex<Option<(Instant, Arc<Authorities>)>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, authorities)) = known.as_ref().filter(|(read, _)| read.elapsed() < SYSTEM_AUTHORITIES_AGE) {
            return Ok(Arc::clone(authorities));
        }
        let of = |name: &&'static str| Some((*name, std::env::var_os(name).filter(|file| !file.is_empty())?));
        let found = match BUNDLES.iter().find_map(of) {
            Some((name, file)) => {
                certificates(Path::new(&file)).map_err(|error| error.with_context("environment variable", name))?
            }
            None => rustls_native_certs::load_native_certs().certs,
        };
        let authorities = Arc::new(Self::new(found, &Arc::new(ring::default_provider()))?);
        *known = Some((Instant::now(), Arc::clone(&authorities)));
        Ok(authorities)
    }

    /// Whether this very certificate is trusted.
    fn include(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|trusted| trusted.as_ref() == certificate.as_ref())
    }
}

/// The certificates that the system trusts, in DER, for clients that set up rustls themselves.
pub fn system_authorities() -> Vec<Vec<u8>> {
    let authorities = Authorities::of_the_system();
    authorities
        .map(|known| known.certificates.iter().map(|certificate| certificate.to_vec()).collect())
        .unwrap_or_default()
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
    authorities: Option<Arc<Authorities>>,
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
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        let verified = authorities.chain.verify_server_cert(certificate, intermediates, host, ocsp_response, now);
        let Err(rustls::Error::InvalidCertificate(wrong)) = &verified else { return verified };
        match wrong {
            // The dates are looked at first, the name last.
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => verified,
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                if self.host {
                    verified
                } else {
                    Ok(ServerCertVerified::assertion())
                }
            }
            // Nobody signed it, or it may sign others and is used by a server: it is what was named as trusted.
            _ if authorities.include(certificate) => {
                if self.host {
                    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, host)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            _ => verified,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// What is said of a certificate that its owner signed and that is trusted as it is, valid from 2020 to a year.
    fn said(is_ca: IsCa, until: i32, verify: Verify, host: &'static str) -> Result<(), rustls::Error> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = is_ca;
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let authorities = Authorities::new(vec![made.der().clone()], &provider).unwrap();
        let verifier = Verifier { provider, authorities: Some(authorities.into()), host: verify == Verify::Host };
        let host = ServerName::try_from(host).unwrap();
        // 2024.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_704_067_200));
        verifier.verify_server_cert(made.der(), &[], &host, &[], now).map(drop)
    }

    #[test]
    fn a_certificate_that_is_trusted_by_itself_expires_too() {
        for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
            for verify in [Verify::Authority, Verify::Host] {
                assert_eq!(said(is_ca, 2030, verify, "localhost"), Ok(()), "{is_ca:?}");
                let expired = said(is_ca, 2022, verify, "localhost");
                let is_told = matches!(
                    expired,
                    Err(rustls::Error::InvalidCertificate(
                        CertificateError::Expired | CertificateError::ExpiredContext { .. }
                    ))
                );
                assert!(is_told, "{is_ca:?}: {expired:?}");
            }
            assert_eq!(said(is_ca, 2030, Verify::Authority, "elsewhere"), Ok(()), "{is_ca:?}");
            assert!(said(is_ca, 2030, Verify::Host, "elsewhere").is_err(), "{is_ca:?}");
        }
    }

    #[test]
    fn the_certificates_of_the_system_are_read_once() {
        let read = || Authorities::of_the_system();
        if let (Ok(first), Ok(second)) = (read(), read()) {
            assert!(Arc::ptr_eq(&first, &second));
        }
    }
}
