//! Connecting to PostgreSQL: settings under Feast's names, encryption in the modes of `libpq`, and what errors say.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use feast_core::{Error, ErrorCode, Result, did_you_mean, list_names};
use feast_net::{TlsOptions, Verify};
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

/// Keys of the configuration, as Feast has them.
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

/// Those of Feast's pool of connections.
const OF_THE_POOL: [&str; 3] = ["conn_type", "min_conn", "max_conn"];

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
        for key in OF_THE_POOL.iter().filter(|key| keys.get(**key).is_some_and(|value| !value.is_null())) {
            tracing::warn!("`offline_store.{key}` has no effect: each request opens one connection and closes it");
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
        let (mode, verify) = match text("sslmode")?.as_deref().unwrap_or("require") {
            "disable" => (SslMode::Disable, Verify::Nothing),
            "allow" | "prefer" => (SslMode::Prefer, Verify::Nothing),
            // Known authorities that are named are asked, as libpq does.
            "require" if roots.is_some() => (SslMode::Require, Verify::Authority),
            "require" => (SslMode::Require, Verify::Nothing),
            "verify-ca" => (SslMode::Require, Verify::Authority),
            "verify-full" => (SslMode::Require, Verify::Host),
            other => {
                return Err(Error::invalid_configuration(format!("there is no sslmode `{other}`"))
                    .with_hint("use `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`"));
            }
        };
        server.ssl_mode(mode);
        let path = |key: &str| text(key).map(|path| path.map(PathBuf::from));
        let identity = path("sslcert_path")?.zip(path("sslkey_path")?);
        let encrypted = mode != SslMode::Disable && !host.starts_with('/');
        let options = TlsOptions { verify, authorities: roots, identity };
        let tls = if encrypted { Some(options.client_config()?) } else { None };
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
                Error::new(ErrorCode::PermissionDenied, message).with_hint(
                    "give the user the right to do that; training sends the entity rows into a temporary table, which takes \
                     the right TEMPORARY on the database",
                )
            }
            _ if code == SqlState::READ_ONLY_SQL_TRANSACTION => Error::new(ErrorCode::PermissionDenied, message).with_hint(
                "training sends the entity rows into a temporary table: name a server that is no replica and a user whose \
                 transactions may write",
            ),
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
