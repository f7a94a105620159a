//! Connecting to PostgreSQL: settings under Feast's names, encryption in the modes of `libpq`, and what errors say.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use feast_core::{Error, ErrorCode, Result, did_you_mean, list_names};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection whose other end does not answer for so long is broken.
const UNANSWERED: Duration = Duration::from_secs(60);
const MOST_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Keys of the configuration, as Feast has them. Those of its pool are accepted: a request has one connection here.
const KEYS: [&str; 16] = [
    "type",
    "host",
    "port",
    "database",
    "db_schema",
    "user",
    "password",
    "sslmode",
    "sslkey_path",
    "sslcert_path",
    "sslrootcert_path",
    "keepalives_idle",
    "conn_type",
    "min_conn",
    "max_conn",
    "entity_select_mode",
];

/// Where a server is and how to connect to it.
#[derive(Clone)]
pub(super) struct Server {
    config: Config,
    /// For messages.
    name: String,
    db_schema: String,
    tls: Option<MakeRustlsConnect>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.name).finish()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How a certificate of the server is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Any,
    KnownAuthority,
    KnownAuthorityAndName,
}

impl Server {
    /// Reads the configuration.
    pub(super) fn new(config: &Value) -> Result<Self> {
        let empty = serde_json::Map::new();
        let keys = config.as_object().unwrap_or(&empty);
        if let Some(unknown) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let close = did_you_mean(unknown, KEYS).filter(|hint| hint.starts_with("did you mean"));
            return Err(Error::invalid_configuration(format!("the postgres offline store has no key `{unknown}`"))
                .with_hint(format!("valid keys are {}", list_names(KEYS)))
                .with_hint_opt(close));
        }
        let text = |key: &str| -> Result<Option<String>> {
            match keys.get(key) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(Value::Number(number)) => Ok(Some(number.to_string())),
                // The value is not shown: it may be a password.
                Some(_) => Err(Error::invalid_configuration(format!("`{key}` of the offline store is not a text"))
                    .with_hint("correct it, or leave it out")),
            }
        };
        let needed = |key: &str| {
            text(key)?.filter(|text| !text.is_empty()).ok_or_else(|| {
                Error::invalid_configuration(format!("the postgres offline store needs `{key}`"))
                    .with_hint("add it to `offline_store` in feature_store.yaml")
            })
        };
        let number = |key: &str, default: u64| -> Result<u64> {
            let Some(text) = text(key)? else { return Ok(default) };
            text.parse().map_err(|_| {
                Error::invalid_configuration(format!("`{key}` of the offline store is `{text}`, which is not a number"))
                    .with_hint("correct it, or leave it out")
            })
        };
        let (host, database) = (text("host")?.unwrap_or_else(|| "localhost".to_owned()), needed("database")?);
        let port = u16::try_from(number("port", 5432)?).map_err(|_| {
            Error::invalid_configuration("`port` of the offline store is no port").with_hint("ports end at 65535")
        })?;
        let mut server = Config::new();
        server
            .host(&host)
            .port(port)
            .dbname(&database)
            .user(needed("user")?)
            .application_name("feast-rs")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(UNANSWERED);
        if let Some(password) = text("password")? {
            server.password(password);
        }
        if let Some(idle) = text("keepalives_idle")?.and_then(|idle| idle.parse::<u64>().ok()).filter(|idle| *idle > 0)
        {
            server.keepalives_idle(Duration::from_secs(idle));
        }
        let roots = text("sslrootcert_path")?.map(PathBuf::from);
        let (mode, trust) = match text("sslmode")?.as_deref().unwrap_or("require") {
            "disable" => (SslMode::Disable, Trust::Any),
            "allow" | "prefer" => (SslMode::Prefer, Trust::Any),
            // Known authorities that are named are asked, as libpq does.
            "require" if roots.is_some() => (SslMode::Require, Trust::KnownAuthority),
            "require" => (SslMode::Require, Trust::Any),
            "verify-ca" => (SslMode::Require, Trust::KnownAuthority),
            "verify-full" => (SslMode::Require, Trust::KnownAuthorityAndName),
            other => {
                return Err(Error::invalid_configuration(format!("there is no sslmode `{other}`"))
                    .with_hint("use `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`"));
            }
        };
        server.ssl_mode(mode);
        let own = match (text("sslcert_path")?, text("sslkey_path")?) {
            (Some(certificate), Some(key)) => Some((PathBuf::from(certificate), PathBuf::from(key))),
            _ => None,
        };
        let encrypted = mode != SslMode::Disable && !host.starts_with('/');
        let tls = if encrypted { Some(tls_config(trust, roots, own)?) } else { None };
        Ok(Self {
            config: server,
            name: format!("PostgreSQL database `{database}` at {host}:{port}"),
            db_schema: text("db_schema")?.unwrap_or_else(|| "public".to_owned()),
            tls: tls.map(MakeRustlsConnect::new),
        })
    }

    /// A connection of its own, with times in UTC and the schema first on the path.
    pub(super) async fn connect(&self) -> Result<Session> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        let client = loop {
            match self.try_connect().await {
                Ok(client) => break client,
                Err(error) if tries < MOST_TRIES && is_passing(&error) => {
                    // Those who were refused together do not come back together.
                    let jitter = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
                    tokio::time::sleep(pause.mul_f64(0.5 + jitter)).await;
                    (pause, tries) = (pause * 2, tries + 1);
                }
                Err(error) => return Err(self.refused("connecting", error)),
            }
        };
        let schema = quoted(&self.db_schema);
        let path = if self.db_schema == "public" { schema } else { format!("{schema}, public") };
        let settings = format!("SET TIME ZONE 'UTC'; SET search_path TO {path}; SET extra_float_digits TO 1");
        client.batch_execute(&settings).await.map_err(|error| self.refused("connecting", error))?;
        let cancel = Cancel { token: client.cancel_token(), tls: self.tls.clone(), busy: true };
        Ok(Session { client, cancel, server: self.clone() })
    }

    async fn try_connect(&self) -> std::result::Result<Client, tokio_postgres::Error> {
        // The connection ends when the client is dropped; what breaks it before, the client is told.
        Ok(match &self.tls {
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                tokio::spawn(async move { drop(connection.await) });
                client
            }
            None => {
                let (client, connection) = self.config.connect(tokio_postgres::NoTls).await?;
                tokio::spawn(async move { drop(connection.await) });
                client
            }
        })
    }

    /// What the database has against a statement, and what that means to the caller.
    pub(super) fn refused(&self, doing: &str, error: tokio_postgres::Error) -> Error {
        let Some(database) = error.as_db_error() else {
            let message = format!("{self} could not be reached while {doing}");
            let certificate = std::error::Error::source(&error).is_some_and(|source| {
                let text = source.to_string();
                text.contains("certificate") || text.contains("TLS")
            });
            let hint = if certificate {
                "check `sslmode` and `sslrootcert_path`"
            } else {
                "check `host`, `port` and `sslmode`, and that the server runs"
            };
            return Error::unavailable(message).with_source(error).with_hint(hint);
        };
        let code = database.code().clone();
        let class = &code.code()[..2];
        let message = format!("{doing}: {}", database.message());
        let refused = match class {
            "28" => Error::new(ErrorCode::PermissionDenied, format!("{self} refused the user"))
                .with_hint("check `user` and `password`"),
            "08" | "53" | "57" | "58" => Error::unavailable(message).with_hint("run it again"),
            "40" => Error::new(ErrorCode::Conflict, message).with_hint("run it again"),
            _ if code == SqlState::INSUFFICIENT_PRIVILEGE => {
                Error::new(ErrorCode::PermissionDenied, message).with_hint("give the user the right to do that")
            }
            _ if code == SqlState::UNDEFINED_TABLE => {
                Error::new(ErrorCode::FileNotFound, message).with_hint("check the table of the source, and `db_schema`")
            }
            _ => Error::invalid_request(message).with_hint_opt(database.hint().map(str::to_owned)),
        };
        refused.with_context("offline store", self)
    }
}

/// Failures of a server that starts, or has no room just now.
fn is_passing(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::CANNOT_CONNECT_NOW || *code == SqlState::TOO_MANY_CONNECTIONS,
        None => std::error::Error::source(error).is_some_and(|source| {
            source.downcast_ref::<std::io::Error>().is_some_and(|error| {
                use std::io::ErrorKind as Kind;
                matches!(error.kind(), Kind::ConnectionRefused | Kind::ConnectionReset | Kind::TimedOut)
            })
        }),
    }
}

/// A connection that is used by one request. Dropped before [`done`](Self::done), it stops what the server does for it.
pub(super) struct Session {
    pub(super) client: Client,
    cancel: Cancel,
    server: Server,
}

impl Session {
    /// Runs statements that give no rows.
    pub(super) async fn run(&self, doing: &str, statements: &str) -> Result<()> {
        self.client.batch_execute(statements).await.map_err(|error| self.server.refused(doing, error))
    }

    /// An error of this connection.
    pub(super) fn refused(&self, doing: &str, error: tokio_postgres::Error) -> Error {
        self.server.refused(doing, error)
    }

    /// All answers have arrived.
    pub(super) fn done(&mut self) {
        self.cancel.busy = false;
    }
}

struct Cancel {
    token: CancelToken,
    tls: Option<MakeRustlsConnect>,
    busy: bool,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.busy {
            let (token, tls) = (self.token.clone(), self.tls.clone());
            runtime.spawn(async move {
                drop(match tls {
                    Some(tls) => token.cancel_query(tls).await,
                    None => token.cancel_query(tokio_postgres::NoTls).await,
                });
            });
        }
    }
}

/// A name as an identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn tls_config(trust: Trust, roots: Option<PathBuf>, own: Option<(PathBuf, PathBuf)>) -> Result<ClientConfig> {
    let unreadable = |path: &PathBuf, error: &dyn fmt::Display| {
        Error::invalid_configuration(format!("`{}` holds no certificate or key: {error}", path.display()))
            .with_hint("name a file in PEM format")
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .dangerous();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Any => Arc::new(AnyServer { provider }),
        _ => {
            let mut store = RootCertStore::empty();
            match &roots {
                Some(path) => {
                    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, &error))? {
                        let certificate = certificate.map_err(|error| unreadable(path, &error))?;
                        store.add(certificate).map_err(|error| unreadable(path, &error))?;
                    }
                }
                None => drop(store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
            let verifier = verifier.map_err(|error| {
                Error::invalid_configuration("there are no known certificate authorities")
                    .with_source(error)
                    .with_hint("name a file of certificates with `sslrootcert_path`")
            })?;
            if trust == Trust::KnownAuthority { Arc::new(AnyName { verifier }) } else { verifier }
        }
    };
    let builder = builder.with_custom_certificate_verifier(verifier);
    let Some((certificate_path, key_path)) = own else { return Ok(builder.with_no_client_auth()) };
    let chain: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&certificate_path).and_then(|certificates| certificates.collect());
    let chain = chain.map_err(|error| unreadable(&certificate_path, &error))?;
    let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| unreadable(&key_path, &error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unreadable(&key_path, &error))
}

/// Encrypts without knowing to whom, as `sslmode=require` says.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Wants a known authority, whatever the name of the server: `sslmode=verify-ca`.
#[derive(Debug)]
struct AnyName {
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        match self.verifier.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
