//! PostgreSQL. The tables are those that the user's `search_path` leads to.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use feast_core::{Error, Result};
use feast_net::{TlsOptions, Verify};
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::database::{Database, Dialect, Refusal, Row, Session, Value, refused};
use super::options::{DatabaseUrl, seconds, unknown_option};

const DIALECT: Dialect = Dialect {
    bytes: "BYTEA",
    integer: "BIGINT",
    length: "octet_length",
    begin_read: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    begin_write: "BEGIN ISOLATION LEVEL READ COMMITTED",
    for_update: " FOR UPDATE",
    inline_index: false,
    list_tables: "SELECT tablename::text FROM pg_catalog.pg_tables WHERE schemaname = ANY (current_schemas(false))",
    hidden_tables: Some(
        "SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relname = 'feature_views' AND position(n.nspname::text IN current_setting('search_path')) > 0 \
         AND NOT has_schema_privilege(n.oid, 'USAGE')",
    ),
    on_duplicate_key: false,
    most_parameters: 60_000,
};

/// How long opening a connection may take, unless `connect_timeout` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

const OPTIONS: &[&str] =
    &["sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name", "options", "host", "port"];

pub(super) struct PostgresServer {
    config: Config,
    tls: Option<TlsOptions>,
    connect_timeout: Duration,
    name: String,
}

/// The configuration has the password.
impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PostgresServer {
    pub(super) fn new(url: &DatabaseUrl) -> Result<Self> {
        let mut config = Config::new();
        let mut tls = TlsOptions { verify: Verify::Nothing, authorities: None, identity: None };
        let mut connect_timeout = CONNECT_TIMEOUT;
        let (mut certificate, mut key) = (None, None);
        let (mut mode, mut host, mut port) = ("prefer", url.host.clone(), url.port);
        config.application_name("feast");
        for (name, value) in &url.options {
            match name.as_str() {
                "sslmode" => mode = value,
                "sslrootcert" => tls.authorities = Some(PathBuf::from(value)),
                "sslcert" => certificate = Some(PathBuf::from(value)),
                "sslkey" => key = Some(PathBuf::from(value)),
                "connect_timeout" => connect_timeout = seconds(name, value)?,
                "application_name" => drop(config.application_name(value)),
                "options" => drop(config.options(value)),
                "host" => host.clone_from(value),
                "port" => port = Some(value.parse().map_err(|_| unknown_option("port", &["a number up to 65535"]))?),
                other => return Err(unknown_option(other, OPTIONS)),
            }
        }
        tls.identity = certificate.zip(key);
        let ssl_mode = match mode {
            "disable" | "allow" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" | "verify-ca" | "verify-full" => SslMode::Require,
            _ => {
                return Err(Error::invalid_configuration(
                    "the option `sslmode` of the SQL registry's connection is none",
                )
                .with_hint("use `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`"));
            }
        };
        tls.verify = match mode {
            "verify-full" => Verify::Host,
            "verify-ca" => Verify::Authority,
            // As in PostgreSQL's own library.
            "require" if tls.authorities.is_some() => Verify::Authority,
            _ => Verify::Nothing,
        };
        let host = if host.is_empty() { "localhost" } else { &host };
        config.host(host).port(port.unwrap_or(5432)).ssl_mode(ssl_mode).connect_timeout(connect_timeout);
        // What was sent and is not acknowledged for so long is lost with its connection.
        config.tcp_user_timeout(CALL_TIMEOUT).dbname(&url.database);
        if let Some(user) = &url.user {
            config.user(user);
        }
        if let Some(password) = &url.password {
            config.password(password);
        }
        // Sockets need no protection, and the library none for them.
        let tls = (ssl_mode != SslMode::Disable && !host.starts_with('/')).then_some(tls);
        Ok(Self { config, tls, connect_timeout, name: url.to_string() })
    }
}

#[async_trait]
impl Database for PostgresServer {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn connect(&self) -> Result<Box<dyn Session>> {
        let connect = async {
            let client = match &self.tls {
                Some(tls) => {
                    let tls = MakeRustlsConnect::new(tls.client_config()?);
                    let (client, connection) = self
                        .config
                        .connect(tls)
                        .await
                        .map_err(|error| translated(&self.name, Refusal::MayNotRead, error))?;
                    tokio::spawn(connection);
                    client
                }
                None => {
                    let (client, connection) = self
                        .config
                        .connect(NoTls)
                        .await
                        .map_err(|error| translated(&self.name, Refusal::MayNotRead, error))?;
                    tokio::spawn(connection);
                    client
                }
            };
            Ok(Box::new(PostgresSession { client, what: self.name.clone() }) as Box<dyn Session>)
        };
        timeout(self.connect_timeout, connect).await.unwrap_or_else(|_| Err(refused(&self.name, Refusal::Unreachable)))
    }
}

struct PostgresSession {
    client: Client,
    what: String,
}

impl PostgresSession {
    /// The server names no right that is missing: `denied` is what that means for this statement.
    async fn within<T>(
        &self,
        denied: Refusal,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match timeout(CALL_TIMEOUT, call).await {
            Ok(done) => done.map_err(|error| translated(&self.what, denied, error)),
            Err(_) => Err(refused(&self.what, Refusal::Late)),
        }
    }
}

#[async_trait]
impl Session for PostgresSession {
    async fn query(&mut self, sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>> {
        let sql = numbered(sql);
        let parameters = as_parameters(&parameters);
        // Rows are locked for those who write.
        let denied = if sql.ends_with(DIALECT.for_update) { Refusal::ReadOnly } else { Refusal::MayNotRead };
        let rows = self.within(denied, self.client.query(&sql, &parameters)).await?;
        let value = |row: &tokio_postgres::Row, column| {
            row.try_get::<_, Received>(column)
                .map(|received| received.0)
                .map_err(|error| translated(&self.what, denied, error))
        };
        rows.iter()
            .map(|row| Ok(Row::new((0..row.len()).map(|column| value(row, column)).collect::<Result<_>>()?)))
            .collect()
    }

    async fn execute(&mut self, sql: &str, parameters: Vec<Value>) -> Result<u64> {
        let sql = numbered(sql);
        if parameters.is_empty() {
            // Without parameters nothing has to be prepared.
            return self.within(Refusal::ReadOnly, self.client.batch_execute(&sql)).await.map(|()| 0);
        }
        let parameters = as_parameters(&parameters);
        self.within(Refusal::ReadOnly, self.client.execute(&sql, &parameters)).await
    }

    async fn is_alive(&mut self) -> bool {
        !self.client.is_closed() && self.within(Refusal::Failed, self.client.batch_execute("")).await.is_ok()
    }
}

fn as_parameters(values: &[Value]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// `?` as `$1`, `$2`, …
fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let mut numbered = parts.next().unwrap_or_default().to_owned();
    for (number, part) in parts.enumerate() {
        numbered.push_str(&format!("${}{part}", number + 1));
    }
    numbered
}

impl ToSql for Value {
    fn to_sql(&self, wanted: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) if *wanted == Type::INT4 => i32::try_from(*number)?.to_sql(wanted, out),
            Self::Integer(number) => number.to_sql(wanted, out),
            Self::Text(text) => text.to_sql(wanted, out),
            Self::Bytes(bytes) => bytes.to_sql(wanted, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

struct Received(Value);

impl<'a> FromSql<'a> for Received {
    fn from_sql(sent: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(match *sent {
            Type::INT8 => Value::Integer(i64::from_sql(sent, raw)?),
            Type::INT4 => Value::Integer(i32::from_sql(sent, raw)?.into()),
            Type::BYTEA => Value::Bytes(raw.to_vec()),
            _ => Value::Text(String::from_sql(sent, raw)?),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Value::Null))
    }

    fn accepts(sent: &Type) -> bool {
        matches!(*sent, Type::INT8 | Type::INT4 | Type::BYTEA) || <String as FromSql>::accepts(sent)
    }
}

fn translated(what: &str, denied: Refusal, error: tokio_postgres::Error) -> Error {
    let refusal = match error.code() {
        // Also what two creations of a table at the same time may say.
        Some(code)
            if [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_TABLE, SqlState::DUPLICATE_OBJECT].contains(code) =>
        {
            Refusal::Conflict
        }
        Some(code) if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) => {
            Refusal::Conflict
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => denied,
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Refusal::ReadOnly,
        Some(code) if code.code().starts_with("28") => Refusal::UnknownUser,
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => Refusal::UnknownDatabase,
        Some(code) if code.code().starts_with("57P") || code.code().starts_with("53") => Refusal::Unreachable,
        Some(_) => Refusal::Failed,
        None if error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>()) => {
            Refusal::Unreachable
        }
        None => Refusal::Failed,
    };
    // The library's own text is just `db error`.
    match error.as_db_error() {
        Some(told) => refused(&what, refusal).with_source(format!("{} ({})", told.message(), told.code().code())),
        None => refused(&what, refusal).with_source(error),
    }
}
