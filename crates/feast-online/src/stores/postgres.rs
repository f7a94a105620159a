//! PostgreSQL in Feast's layout: what either of the two writes, the other reads.
//!
//! One table `"<project>_<view>"` per view in the schema `db_schema`, one row per entity and feature:
//!
//! | column | content |
//! |---|---|
//! | `entity_key` BYTEA, `feature_name` TEXT | the serialized key and the name; together the primary key |
//! | `value` BYTEA | the serialized `Value`; zero bytes are null |
//! | `value_text` TEXT | texts, numbers and truth values as Python prints them, for filters; without the character NUL |
//! | `value_num` DOUBLE PRECISION | the number, where `enable_openai_compatible_store` is set |
//! | `vector_value` | lists of numbers as `[1.0, 2.0]`, where `vector_enabled` is set: a `vector` of pgvector |
//! | `event_ts`, `created_ts` TIMESTAMPTZ | instants in microseconds, whatever the time zone of the session |
//!
//! Reads: one statement per table, all of a request sent together on one connection, so that they share a round trip.
//! Tables are taken from `db_schema` alone, never from a table of the same name in `public`.
//!
//! Consistency: a row of a view is spread over as many rows of the table as it has features, and all of them have to
//! come from the same write. A transaction first takes advisory locks that belong to its keys, then compares each row
//! with the newest of what is stored for its key, and writes all of it or nothing. So two writers of one key, in whatever
//! processes, come one after the other. Each key has one of 64 locks per table, taken in order: writers do not wait for
//! each other in a circle, and a large batch takes no more than 64. The upsert has the same comparison once more, for
//! Feast's own writers, which take no lock and compare nothing. A read sees a row of before or after a write, never a
//! mixture.
//!
//! Statements are sent with the commit, so that a write takes one round trip and a client that dies in its middle leaves
//! nothing half done. A call that is cancelled or times out closes its connection; the pool opens another one.
//!
//! Plans are made once per connection and not for the keys at hand: those of a generic plan go through the index, while
//! PostgreSQL may scan the whole of a table of which it has no statistics yet.
//!
//! Limits: 2,700 bytes per key (PostgreSQL's index); 63 bytes per name of a table, where PostgreSQL cuts longer ones:
//! views whose tables would be one are refused.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type};
use async_trait::async_trait;
use bytes::BytesMut;
use deadpool_postgres::{
    ClientWrapper, Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use feast_core::{
    Error, ErrorCode, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result, StoredTable,
    TableChange, ValueType, list_names,
};
use feast_net::{TlsOptions, Verify};
use hashbrown::HashMap;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{NoTls, Row, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::cells::{Wanted, WriteColumn, python_float};
use super::memory::missing_table;
use super::newest::{Recency, newest_rows};
use super::options::{self, Secret};
use super::per_process::PerProcess;
use super::retry::{Attempts, Failure};

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read or a chunk of a write may take, with all attempts. The server ends statements after the same time.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long changing tables may take: an index is built over all rows that are there.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(600);

/// Rows in one statement, at most; and bytes of values, about.
const MOST_CHUNK_ROWS: usize = 5_000;
const MOST_CHUNK_BYTES: usize = 8 << 20;

/// Cells in one statement, about.
const MOST_CHUNK_CELLS: usize = 50_000;

/// Features in one statement: their arrays are columns, of which PostgreSQL allows 1,664.
const MOST_STATEMENT_FEATURES: usize = 300;

/// Advisory locks per table.
const LOCKS: u32 = 64;

/// What sets our advisory locks apart from those of others.
const LOCK_FAMILY: i64 = 0xFEA57;

/// The `online_store` part of `feature_store.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres`.
    #[serde(rename = "type")]
    store_type: String,
    /// Name or address of the server, or the folder of its Unix socket; several, set apart by commas, are tried in
    /// order.
    pub host: String,
    /// Default 5432.
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// Schema of the tables; default `public`. Empty is the name of the user.
    pub db_schema: String,
    /// Who connects.
    pub user: String,
    password: Secret,
    /// How much the connection is secured: `disable`, `allow`, `prefer`, `require` (the default), `verify-ca` or
    /// `verify-full`.
    sslmode: SecurityMode,
    /// Key of the client.
    pub sslkey_path: Option<PathBuf>,
    /// Certificate of the client.
    pub sslcert_path: Option<PathBuf>,
    /// Certificates of trusted authorities; default are those of the system.
    pub sslrootcert_path: Option<PathBuf>,
    /// Seconds of silence after which the system asks whether the other side is still there.
    pub keepalives_idle: Option<u32>,
    conn_type: Option<ConnectionType>,
    /// Connections opened at the first call; default 1.
    pub min_conn: usize,
    /// Connections at most; default 10. `conn_type: singleton`, where it is written down, means one.
    pub max_conn: usize,
    /// Whether lists of numbers are also kept as vectors of pgvector. Default false.
    pub vector_enabled: bool,
    /// Feast's metric of similarity search, which this product does not have yet.
    pub similarity: Option<String>,
    /// Whether numbers are also written to `value_num`. Default false.
    pub enable_openai_compatible_store: bool,
    /// Feast's limit of what it reads in one query. Here all reads of a request share a round trip anyway, and none
    /// of them is held up by another; there is nothing to limit.
    pub max_batched_result_rows: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SecurityMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ConnectionType {
    Singleton,
    Pool,
}

const KEYS: &[&str] = &[
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
    "vector_enabled",
    "similarity",
    "enable_openai_compatible_store",
    "max_batched_result_rows",
];

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            store_type: "postgres".to_owned(),
            host: String::new(),
            port: 5432,
            database: String::new(),
            db_schema: "public".to_owned(),
            user: String::new(),
            password: Secret::default(),
            sslmode: SecurityMode::Require,
            sslkey_path: None,
            sslcert_path: None,
            sslrootcert_path: None,
            keepalives_idle: None,
            conn_type: None,
            min_conn: 1,
            max_conn: 10,
            vector_enabled: false,
            similarity: None,
            enable_openai_compatible_store: false,
            max_batched_result_rows: None,
        }
    }
}

impl PostgresConfig {
    /// Reads the options.
    ///
    /// # Errors
    /// `InvalidConfiguration` for unknown keys, listing the valid ones, for missing ones, and for values that are none.
    pub fn parse(given: &serde_json::Value) -> Result<Self> {
        let required = ["host", "database", "user", "password"];
        let numbers = ["port", "keepalives_idle", "min_conn", "max_conn", "max_batched_result_rows"];
        let config: Self = options::parse("postgres", KEYS, &required, &numbers, given)?;
        if config.similarity.is_some() {
            options::without_effect("postgres", "similarity", "vectors are stored, but cannot be searched yet");
        }
        if config.max_batched_result_rows.is_some() {
            let why = "all reads of a request share one round trip, and there is nothing to limit";
            options::without_effect("postgres", "max_batched_result_rows", why);
        }
        if config.max_conn == 0 || config.min_conn > config.max_conn {
            return Err(Error::invalid_configuration(format!(
                "`online_store.max_conn` is {}, expected at least 1 and at least `min_conn`, which is {}",
                config.max_conn, config.min_conn
            )));
        }
        if config.sslkey_path.is_some() != config.sslcert_path.is_some() {
            return Err(Error::invalid_configuration(
                "`online_store` has one of `sslcert_path` and `sslkey_path`, expected both or none",
            ));
        }
        Ok(config)
    }

    fn schema(&self) -> &str {
        if self.db_schema.trim().is_empty() { &self.user } else { self.db_schema.trim() }
    }

    fn n_connections(&self) -> usize {
        if self.conn_type == Some(ConnectionType::Singleton) { 1 } else { self.max_conn }
    }

    fn server(&self) -> tokio_postgres::Config {
        let mut server = tokio_postgres::Config::new();
        for host in self.host.split(',').map(str::trim) {
            server.host(host);
        }
        server.port(self.port).dbname(&self.database).user(&self.user).password(&self.password.0);
        server.connect_timeout(CONNECT_TIMEOUT).application_name("feast");
        // What was sent and is not acknowledged for so long is lost with its connection.
        server.tcp_user_timeout(CALL_TIMEOUT);
        if let Some(seconds) = self.keepalives_idle {
            server.keepalives_idle(Duration::from_secs(u64::from(seconds)));
        }
        server
    }

    fn connector(&self) -> Connector {
        let verify = match self.sslmode {
            SecurityMode::VerifyFull => Verify::Host,
            SecurityMode::VerifyCa => Verify::Authority,
            // As in PostgreSQL's own library.
            SecurityMode::Require if self.sslrootcert_path.is_some() => Verify::Authority,
            _ => Verify::Nothing,
        };
        let identity = self.sslcert_path.clone().zip(self.sslkey_path.clone());
        let is_socket = self.host.trim_start().starts_with('/');
        let attempts: &[SslMode] = match self.sslmode {
            _ if is_socket => &[SslMode::Disable],
            SecurityMode::Disable => &[SslMode::Disable],
            SecurityMode::Allow => &[SslMode::Disable, SslMode::Require],
            SecurityMode::Prefer => &[SslMode::Prefer, SslMode::Disable],
            SecurityMode::Require | SecurityMode::VerifyCa | SecurityMode::VerifyFull => &[SslMode::Require],
        };
        let search_path = match self.schema() {
            "public" => "public".to_owned(),
            schema => format!("{}, public", quoted(schema)),
        };
        Connector {
            tls: MakeTls(Arc::new(TlsOptions { verify, authorities: self.sslrootcert_path.clone(), identity })),
            attempts,
            session: format!(
                "SET search_path TO {search_path}; SET statement_timeout TO {}; SET standard_conforming_strings TO on; \
                 SET plan_cache_mode TO force_generic_plan",
                CALL_TIMEOUT.as_millis()
            ),
        }
    }
}

/// TLS whose files are read for each connection.
#[derive(Clone)]
struct MakeTls(Arc<TlsOptions>);

impl MakeTlsConnect<Socket> for MakeTls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let mut make = MakeRustlsConnect::new(self.0.client_config()?);
        <MakeRustlsConnect as MakeTlsConnect<Socket>>::make_tls_connect(&mut make, host).map_err(Into::into)
    }
}

/// Opens connections: with or without TLS as `sslmode` says, and with the settings of our sessions.
struct Connector {
    tls: MakeTls,
    attempts: &'static [SslMode],
    session: String,
}

type Connected = Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connector {
    async fn connect_once(&self, server: &tokio_postgres::Config, mode: SslMode) -> Connected {
        let mut server = server.clone();
        server.ssl_mode(mode);
        let (client, task) = if mode == SslMode::Disable {
            let (client, connection) = server.connect(NoTls).await?;
            (client, tokio::spawn(serve(connection)))
        } else {
            let (client, connection) = server.connect(self.tls.clone()).await?;
            (client, tokio::spawn(serve(connection)))
        };
        client.batch_execute(&self.session).await?;
        Ok((client, task))
    }
}

async fn serve(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to PostgreSQL ended");
    }
}

impl Connect for Connector {
    fn connect(&self, server: &tokio_postgres::Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let server = server.clone();
        Box::pin(async move {
            let (first, others) = (self.attempts[0], &self.attempts[1..]);
            let mut connected = self.connect_once(&server, first).await;
            for mode in others {
                if connected.is_ok() {
                    break;
                }
                if let Ok(other) = self.connect_once(&server, *mode).await {
                    connected = Ok(other);
                }
            }
            connected
        })
    }
}

/// PostgreSQL in Feast's layout.
pub struct PostgresStore {
    config: PostgresConfig,
    pool: PerProcess<Pool>,
    /// Which optional columns the tables have that were written to.
    shapes: Mutex<HashMap<String, Shape>>,
}

impl PostgresStore {
    /// A store in the database that the options name. Nothing is opened before the first call.
    ///
    /// # Errors
    /// `InvalidConfiguration`.
    pub fn connect(options: &serde_json::Value) -> Result<Self> {
        let config = PostgresConfig::parse(options)?;
        Ok(Self { config, pool: PerProcess::default(), shapes: Mutex::default() })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Display for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PostgresConfig { host, port, database, .. } = &self.config;
        write!(f, "postgres at `{host}:{port}/{database}`, schema `{}`", self.config.schema())
    }
}

#[async_trait]
impl OnlineStore for PostgresStore {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let mut attempts = Attempts::within(CALL_TIMEOUT);
        loop {
            match attempts.run(self, Box::pin(self.read_once(reads))).await {
                Ok(answers) => return Ok(answers),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let mut columns =
            columns.map(|(field, array)| WriteColumn::new(field, Arc::clone(array))).collect::<Result<Vec<_>>>()?;
        // All writers lock the rows of a key in the same order.
        columns.sort_by(|a, b| a.field.name.cmp(&b.field.name));
        for rows in chunks(&write, &columns, &newest_rows(&write)) {
            let mut attempts = Attempts::within(CALL_TIMEOUT);
            // Writing rows again changes nothing, so what may have been written is written again.
            while let Err(failure) = attempts.run(self, Box::pin(self.write_once(&write, &columns, rows))).await {
                attempts.pause(failure).await?;
            }
        }
        Ok(())
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        refuse_shared_tables(changes)?;
        let mut attempts = Attempts::within(UPDATE_TIMEOUT);
        while let Err(failure) = attempts.run(self, Box::pin(self.update_once(changes))).await {
            attempts.pause(failure).await?;
        }
        self.shapes().clear();
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let mut attempts = Attempts::within(CONNECT_TIMEOUT * 2);
        loop {
            let ask = async {
                let mut lease = self.lease().await?;
                lease.client()?.simple_query("SELECT 1").await.map_err(|error| self.failure("reach", error))?;
                lease.give_back();
                Ok(())
            };
            match attempts.run(self, ask).await {
                Ok(()) => return Ok(()),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    fn preferred_batch_rows(&self) -> usize {
        MOST_CHUNK_ROWS
    }

    async fn stored_tables(&self, project: &str) -> Result<Option<Vec<StoredTable>>> {
        let mut attempts = Attempts::within(CALL_TIMEOUT);
        loop {
            match attempts.run(self, self.list_once(project)).await {
                Ok(tables) => return Ok(Some(tables)),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }

    async fn newest(&self, table: &OnlineTable) -> Result<NewestValue> {
        let mut attempts = Attempts::within(CALL_TIMEOUT);
        loop {
            match attempts.run(self, self.newest_once(table)).await {
                Ok(micros) => return Ok(NewestValue::of_micros(micros)),
                Err(failure) => attempts.pause(failure).await?,
            }
        }
    }
}

/// A connection for one call. Unless it is given back it is closed, because an answer may still be on its way.
struct Lease(Option<Object>);

impl Lease {
    fn client(&self) -> Result<&ClientWrapper> {
        self.0.as_deref().ok_or_else(|| Error::internal("a connection was used after it was given back"))
    }

    fn give_back(&mut self) {
        self.0 = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl PostgresStore {
    fn pool(&self) -> Result<Pool> {
        let current = self.pool.get_or_make(|| {
            let recycling_method = RecyclingMethod::Fast;
            let manager = Manager::from_connect(
                self.config.server(),
                self.config.connector(),
                ManagerConfig { recycling_method },
            );
            let pool = Pool::builder(manager)
                .max_size(self.config.n_connections())
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(CONNECT_TIMEOUT))
                .create_timeout(Some(CONNECT_TIMEOUT))
                .build()
                .map_err(|error| Error::internal("the pool of connections cannot be made").with_source(error))?;
            let ahead = self.config.min_conn.min(self.config.n_connections());
            if ahead > 1 {
                let pool = pool.clone();
                // Held together, so that they are different ones. What fails here fails again where it is needed.
                tokio::spawn(async move { futures::future::join_all((0..ahead).map(|_| pool.get())).await });
            }
            Ok::<_, Error>(pool)
        })?;
        Ok(current.1.clone())
    }

    async fn lease(&self) -> Result<Lease, Failure> {
        match self.pool()?.get().await {
            Ok(object) => Ok(Lease(Some(object))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                let n = self.config.n_connections();
                Err(Failure::from(
                    Error::unavailable(format!("all {n} connections to the online store are busy"))
                        .with_context("online store", self)
                        .with_hint("raise `online_store.max_conn`, with `conn_type: pool`"),
                ))
            }
            Err(PoolError::Timeout(_)) => Err(Failure {
                error: Error::unavailable("could not connect to the online store in time")
                    .with_context("online store", self)
                    .with_hint("check `host` and `port`, and that no firewall is between"),
                transient: true,
            }),
            Err(PoolError::Backend(error)) => Err(self.failure("connect to", error)),
            Err(error) => {
                Err(Failure::from(Error::internal("the pool of connections does not work").with_source(error)))
            }
        }
    }

    fn failure(&self, doing: &str, error: tokio_postgres::Error) -> Failure {
        let Some(state) = error.code().cloned() else { return self.failure_without_answer(doing, error) };
        if [SqlState::UNDEFINED_COLUMN, SqlState::FEATURE_NOT_SUPPORTED].contains(&state) {
            self.shapes().clear();
        }
        let again = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            // A table was changed under a prepared statement, or made by somebody else at the same time.
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::UNDEFINED_COLUMN,
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::UNIQUE_VIOLATION,
            SqlState::DUPLICATE_TABLE,
            SqlState::DUPLICATE_OBJECT,
            SqlState::DUPLICATE_COLUMN,
            SqlState::INTERNAL_ERROR,
        ];
        let (code, hint) = match (state.code().get(..2), &state) {
            (Some("28"), _) => {
                (ErrorCode::PermissionDenied, "check `user` and `password`, and pg_hba.conf of the server")
            }
            (_, state) if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
                (ErrorCode::PermissionDenied, "grant the user what it needs on the schema and its tables")
            }
            (_, state) if *state == SqlState::QUERY_CANCELED => {
                (ErrorCode::Timeout, "see whether the server is overloaded, or a table locked")
            }
            (_, state) if *state == SqlState::UNDEFINED_OBJECT => (
                ErrorCode::Unsupported,
                "`vector_enabled` needs pgvector: run `CREATE EXTENSION vector` in the database",
            ),
            (Some("3D"), _) => (ErrorCode::Unavailable, "create the database, or correct `online_store.database`"),
            (Some("22" | "54"), _) => (ErrorCode::InvalidRequest, "the database cannot hold a value of the rows"),
            (Some("53"), _) => (ErrorCode::Unavailable, "the server is at its limits: see its log"),
            _ => (ErrorCode::Unavailable, "see the log of the server"),
        };
        let error = Error::new(code, format!("could not {doing} the online store"))
            .with_context("online store", self)
            // Without its details, which repeat values of the rows.
            .with_source(error.as_db_error().map_or_else(String::new, |answer| answer.message().to_owned()))
            .with_hint(hint);
        Failure { error, transient: again.contains(&state) || state.code().starts_with("08") }
    }

    fn failure_without_answer(&self, doing: &str, error: tokio_postgres::Error) -> Failure {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        let about_tls = text.contains("TLS");
        let hint = match about_tls {
            true => "check `sslmode`, the certificates and the key; `sslmode: disable` is for servers without TLS",
            false => "check `host` and `port`, and that the server runs",
        };
        let error = Error::unavailable(format!("could not {doing} the online store"))
            .with_context("online store", self)
            .with_source(text)
            .with_hint(hint);
        Failure { error, transient: !about_tls }
    }

    fn table_failure(&self, doing: &str, table: &OnlineTable, error: tokio_postgres::Error) -> Failure {
        let states = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
        match error.code().is_some_and(|state| states.contains(state)) {
            true => Failure::from(missing_table(table, self)),
            false => self.failure(doing, error),
        }
    }

    fn shapes(&self) -> std::sync::MutexGuard<'_, HashMap<String, Shape>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `"schema"."name"`.
    fn qualified(&self, name: &str) -> String {
        format!("{}.{}", quoted(self.config.schema()), quoted(name))
    }

    async fn read_once(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>, Failure> {
        let mut lease = self.lease().await?;
        let answers = self.read_with(lease.client()?, reads).await;
        if !matches!(&answers, Err(failure) if failure.transient) {
            lease.give_back();
        }
        answers
    }

    async fn read_with(&self, client: &ClientWrapper, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>, Failure> {
        // Prepared once per connection, all together; then read all together.
        let texts: Vec<String> = reads.iter().map(|read| read_statement(&self.qualified(&read.table.name()))).collect();
        let mut preparing = Vec::with_capacity(reads.len());
        for text in &texts {
            preparing.push(client.prepare_typed_cached(text, &[Type::BYTEA_ARRAY, Type::TEXT_ARRAY]));
        }
        let mut queries = Vec::with_capacity(reads.len());
        for (statement, read) in futures::future::join_all(preparing).await.into_iter().zip(reads) {
            let statement = statement.map_err(|error| self.table_failure("read", read.table, error))?;
            queries.push(read_table(client, statement, read));
        }
        let answers = futures::future::join_all(queries).await;
        let answers = answers.into_iter().zip(reads).map(|(answer, read)| {
            answer.map_err(|unread| match unread {
                Unread::Refused(error) => self.table_failure("read", read.table, error),
                Unread::Malformed(error) => Failure::from(error),
            })
        });
        answers.collect()
    }

    async fn write_once(
        &self,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &[usize],
    ) -> Result<(), Failure> {
        let mut lease = self.lease().await?;
        let written = self.write_with(lease.client()?, write, columns, rows).await;
        if !matches!(&written, Err(failure) if failure.transient) {
            lease.give_back();
        }
        written
    }

    async fn write_with(
        &self,
        client: &ClientWrapper,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &[usize],
    ) -> Result<(), Failure> {
        let failed = |error| self.table_failure("write to", write.table, error);
        let shape = self.shape(client, write.table).await?;
        let name = self.qualified(&write.table.name());
        let lock = client.prepare_typed_cached(&lock_statement(&name), &[Type::INT4_ARRAY]).await.map_err(failed)?;
        let key = |row: usize| write.keys.encoded.value(row);
        let locks: BTreeSet<u32> = rows.iter().map(|row| stripe(key(*row))).collect();
        let locks: Vec<i32> = locks.into_iter().map(u32::cast_signed).collect();
        let keys: Vec<&[u8]> = rows.iter().map(|row| key(*row)).collect();
        let recencies: Vec<Recency> = rows.iter().map(|row| Recency::of(write, *row)).collect();
        let events: Vec<Micros> = recencies.iter().map(|recency| Micros(recency.event)).collect();
        let created: Vec<Option<Micros>> = recencies.iter().map(|recency| recency.created.map(Micros)).collect();
        let names: Vec<&str> = columns.iter().map(|column| column.field.name.as_str()).collect();

        let mut upserts = Vec::new();
        for group in columns.chunks(MOST_STATEMENT_FEATURES) {
            let upsert = Upsert::of(&name, group, &shape, self.config.vector_enabled);
            let statement = client.prepare_typed_cached(&upsert.text, &upsert.types).await.map_err(failed)?;
            upserts.push((statement, upsert.arrays(group, rows)));
        }
        let mut sent: Vec<futures::future::BoxFuture<'_, Result<(), tokio_postgres::Error>>> = Vec::new();
        // The comparison needs to see what was committed while this one waited for its locks.
        sent.push(Box::pin(client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")));
        sent.push(Box::pin(async { client.query(&lock, &[&locks]).await.map(drop) }));
        for (statement, arrays) in &upserts {
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&keys, &events, &created, &names];
            parameters.extend(arrays.iter().map(|array| -> &(dyn ToSql + Sync) { array.as_ref() }));
            sent.push(Box::pin(async move { client.execute(statement, &parameters).await.map(drop) }));
        }
        sent.push(Box::pin(client.batch_execute("COMMIT")));
        // After an error the server refuses what follows, and makes the commit a rollback.
        futures::future::join_all(sent).await.into_iter().collect::<Result<(), _>>().map_err(failed)
    }

    /// Which optional columns a table has.
    async fn shape(&self, client: &ClientWrapper, table: &OnlineTable) -> Result<Shape, Failure> {
        let name = table.name();
        if let Some(shape) = self.shapes().get(&name) {
            return Ok(shape.clone());
        }
        let rows = client
            .query(COLUMNS, &[&vec![self.qualified(&name)]])
            .await
            .map_err(|error| self.failure("write to", error))?;
        if rows.is_empty() {
            return Err(Failure::from(missing_table(table, self)));
        }
        let shape = Shape::of(rows.iter().map(|row| (row.get(1), row.get(2))));
        self.shapes().insert(name, shape.clone());
        Ok(shape)
    }

    async fn list_once(&self, project: &str) -> Result<Vec<StoredTable>, Failure> {
        let mut lease = self.lease().await?;
        let rows = lease
            .client()?
            .query(TABLES, &[&self.config.schema(), &format!("{project}_")])
            .await
            .map_err(|error| self.failure("read", error))?;
        lease.give_back();
        let tables = rows.iter().map(|row| {
            let columns: Vec<&str> = row.get(1);
            let missing = self.missing_columns(&columns).into_iter().map(|(name, _)| name.to_owned());
            StoredTable { name: row.get(0), missing_columns: missing.collect() }
        });
        Ok(tables.collect())
    }

    /// Reads the whole table: its index is by entity.
    async fn newest_once(&self, table: &OnlineTable) -> Result<Option<i64>, Failure> {
        let mut lease = self.lease().await?;
        let newest = "max(event_ts) FILTER (WHERE isfinite(event_ts))";
        let query =
            format!("SELECT (extract(epoch FROM {newest}) * 1000000)::int8 FROM {}", self.qualified(&table.name()));
        let row = lease.client()?.query_one(&query, &[]).await;
        let row = row.map_err(|error| self.table_failure("read", table, error))?;
        lease.give_back();
        Ok(row.get(0))
    }

    async fn update_once(&self, changes: &[TableChange]) -> Result<(), Failure> {
        let mut lease = self.lease().await?;
        let client = lease.client()?;
        let failed = |error| self.failure("update", error);
        // Those who change tables wait for each other: PostgreSQL's own `IF NOT EXISTS` does not hold against others
        // who do the same at the same moment.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout TO {}; \
             SELECT pg_advisory_xact_lock({})",
            UPDATE_TIMEOUT.as_millis(),
            LOCK_FAMILY << 8
        );
        client.batch_execute(&begin).await.map_err(failed)?;
        let statements = self.changes(client, changes).await?;
        for statement in &statements {
            client.batch_execute(statement).await.map_err(failed)?;
        }
        client.batch_execute("COMMIT").await.map_err(failed)?;
        lease.give_back();
        Ok(())
    }

    /// What is to be done, given what is there: a user who may not create anything can apply what changes nothing.
    async fn changes(&self, client: &ClientWrapper, changes: &[TableChange]) -> Result<Vec<String>, Failure> {
        let failed = |error| self.failure("update", error);
        let schema = self.config.schema();
        let mut statements = Vec::new();
        let creates = changes.iter().any(|change| matches!(change, TableChange::Ensure(_)));
        let found = client.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema]).await.map_err(failed)?;
        if creates && found.is_empty() {
            statements.push(format!(
                "CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}",
                quoted(schema),
                quoted(&self.config.user)
            ));
        }
        let ensured = |change: &TableChange| match change {
            TableChange::Ensure(table) => Some(table.name()),
            TableChange::Drop(_) => None,
        };
        let tables: Vec<String> = changes.iter().filter_map(ensured).collect();
        let wanted: Vec<String> = tables.iter().map(|table| self.qualified(table)).collect();
        let rows = client.query(COLUMNS, &[&wanted]).await.map_err(failed)?;
        let mut columns: HashMap<&str, Vec<&str>> = HashMap::new();
        for row in &rows {
            columns.entry(row.get(0)).or_default().push(row.get(1));
        }
        let indexes = tables.iter().flat_map(|table| [format!("{table}_ek"), format!("{table}_fts_idx")]);
        let indexes: Vec<String> = indexes.map(|index| self.qualified(&index)).collect();
        let rows = client
            .query("SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL", &[&indexes])
            .await
            .map_err(failed)?;
        let mut indexes: BTreeSet<&str> = rows.iter().map(|row| row.get(0)).collect();
        for change in changes {
            match change {
                TableChange::Ensure(table) => {
                    let name = table.name();
                    let qualified = self.qualified(&name);
                    match columns.get(qualified.as_str()) {
                        None => statements.push(self.create(&qualified)),
                        Some(found) => {
                            let missing = self.missing_columns(found);
                            let added = missing.iter().map(|(name, sql_type)| {
                                format!("ALTER TABLE {qualified} ADD COLUMN IF NOT EXISTS {name} {sql_type} NULL")
                            });
                            statements.extend(added);
                        }
                    }
                    let ek = format!("{name}_ek");
                    if !indexes.contains(self.qualified(&ek).as_str()) {
                        statements
                            .push(format!("CREATE INDEX IF NOT EXISTS {} ON {qualified} (entity_key)", quoted(&ek)));
                    }
                    let fts = format!("{name}_fts_idx");
                    let has_text = table.columns.iter().any(|column| column.value_type == ValueType::String);
                    if has_text && !indexes.contains(self.qualified(&fts).as_str()) {
                        statements.push(format!(
                            "CREATE INDEX IF NOT EXISTS {} ON {qualified} USING GIN (to_tsvector('english', value_text))",
                            quoted(&fts)
                        ));
                    }
                }
                TableChange::Drop(table) => {
                    let name = self.qualified(&table.name());
                    columns.remove(name.as_str());
                    for index in ["_ek", "_fts_idx"] {
                        indexes.remove(self.qualified(&format!("{}{index}", table.name())).as_str());
                    }
                    statements.push(format!("DROP TABLE IF EXISTS {name}"));
                }
            }
        }
        Ok(statements)
    }

    fn create(&self, qualified: &str) -> String {
        let number = if self.config.enable_openai_compatible_store { "value_num DOUBLE PRECISION NULL, " } else { "" };
        format!(
            "CREATE TABLE IF NOT EXISTS {qualified} (entity_key BYTEA, feature_name TEXT, value BYTEA, \
             value_text TEXT NULL, {number}vector_value {} NULL, event_ts TIMESTAMPTZ, created_ts TIMESTAMPTZ, \
             PRIMARY KEY(entity_key, feature_name))",
            self.vector_type()
        )
    }

    /// Names and types of what a table lacks.
    fn missing_columns(&self, found: &[&str]) -> Vec<(&'static str, &'static str)> {
        let mut wanted =
            vec![("value_text", "TEXT"), ("vector_value", self.vector_type()), ("created_ts", "TIMESTAMPTZ")];
        if self.config.enable_openai_compatible_store {
            wanted.push(("value_num", "DOUBLE PRECISION"));
        }
        wanted.retain(|(name, _)| !found.contains(name));
        wanted
    }

    fn vector_type(&self) -> &'static str {
        if self.config.vector_enabled { "vector" } else { "BYTEA" }
    }
}

/// Tables of a schema whose names start so and that look like ours: name, columns.
const TABLES: &str = "SELECT c.relname::text, array_agg(a.attname::text) FROM pg_class c \
                      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
                      WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1) \
                      AND c.relkind IN ('r', 'p') AND starts_with(c.relname, $2) \
                      GROUP BY c.relname HAVING array_agg(a.attname::text) @> ARRAY['entity_key', 'feature_name'] \
                      ORDER BY 1";

/// Columns of tables given by name: table, column, type.
const COLUMNS: &str = "SELECT t.name, a.attname::text, format_type(a.atttypid, NULL) \
                       FROM unnest($1::text[]) AS t(name) \
                       JOIN pg_attribute a ON a.attrelid = to_regclass(t.name) AND a.attnum > 0 AND NOT a.attisdropped";

/// Which optional columns a table has; tables written by older versions of Feast lack some.
#[derive(Debug, Clone, Default, PartialEq)]
struct Shape {
    value_text: bool,
    value_num: bool,
    /// The type of `vector_value`.
    vector_value: Option<String>,
}

impl Shape {
    fn of<'a>(columns: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut shape = Self::default();
        for (name, sql_type) in columns {
            match name {
                "value_text" => shape.value_text = true,
                "value_num" => shape.value_num = true,
                "vector_value" => shape.vector_value = Some(sql_type.to_owned()),
                _ => {}
            }
        }
        shape
    }
}

/// PostgreSQL cuts names after 63 bytes: two views could share a table without anybody noticing.
fn refuse_shared_tables(changes: &[TableChange]) -> Result<()> {
    let mut taken: HashMap<Vec<u8>, String> = HashMap::new();
    for change in changes {
        let TableChange::Ensure(table) = change else { continue };
        let name = table.name();
        let mut end = name.len().min(63);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        if let Some(other) = taken.insert(name.as_bytes()[..end].to_vec(), name.clone()).filter(|other| *other != name)
        {
            return Err(Error::invalid_definition(format!(
                "the tables of {} would be one, because PostgreSQL cuts names after 63 bytes",
                list_names([other.as_str(), name.as_str()])
            ))
            .with_hint("give one of the views a shorter name"));
        }
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The lock of a key.
fn stripe(key: &[u8]) -> u32 {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 16)) % LOCKS
}

fn lock_statement(table: &str) -> String {
    format!(
        "SELECT pg_advisory_xact_lock(({}::regclass::oid::bigint << 32) | {} | stripe) FROM unnest($1) AS stripe",
        literal(table),
        LOCK_FAMILY << 8
    )
}

/// Splits rows into what one statement carries.
fn chunks<'a>(write: &OnlineWrite<'_>, columns: &[WriteColumn<'_>], mut rows: &'a [usize]) -> Vec<&'a [usize]> {
    let most_rows = (MOST_CHUNK_CELLS / columns.len().max(1)).clamp(1, MOST_CHUNK_ROWS);
    let mut chunks = Vec::new();
    while !rows.is_empty() {
        let (mut end, mut bytes) = (0, 0);
        while end < rows.len().min(most_rows) && bytes < MOST_CHUNK_BYTES {
            let row = rows[end];
            bytes += write.keys.encoded.value(row).len();
            bytes += columns.iter().map(|column| column.cells.value(row).len()).sum::<usize>();
            end += 1;
        }
        let (chunk, rest) = rows.split_at(end);
        chunks.push(chunk);
        rows = rest;
    }
    chunks
}

/// An instant in microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Micros(i64);

/// Where PostgreSQL starts to count: 2000-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.saturating_sub(POSTGRES_EPOCH).to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?).saturating_add(POSTGRES_EPOCH)))
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }
}

/// Keys and names in, cells out: position of the key, name, value, event time.
fn read_statement(table: &str) -> String {
    format!(
        "SELECT k.n, s.feature_name, s.value, s.event_ts FROM unnest($1::bytea[]) WITH ORDINALITY AS k(key, n) \
         JOIN {table} s ON s.entity_key = k.key WHERE s.feature_name = ANY($2::text[])"
    )
}

enum Unread {
    Refused(tokio_postgres::Error),
    Malformed(Error),
}

impl From<tokio_postgres::Error> for Unread {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Refused(error)
    }
}

async fn read_table(client: &ClientWrapper, statement: Statement, read: &OnlineRead<'_>) -> Result<OnlineRows, Unread> {
    let wanted = Wanted::of(read);
    let keys: Vec<&[u8]> = read.keys.encoded.iter().map(Option::unwrap_or_default).collect();
    let rows: Vec<Row> = client.query(&statement, &[&keys, &wanted.names]).await?;
    let mut grid = wanted.grid::<&Row>();
    for row in &rows {
        let position = usize::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default().wrapping_sub(1);
        let event: Option<Micros> = row.try_get(3)?;
        wanted.keep(&mut grid, position, row.try_get(1)?, event.map_or(0, |event| event.0), row);
        // Checked here, so that taking it below cannot fail.
        row.try_get::<_, Option<&[u8]>>(2)?;
    }
    let answer = wanted.finish(&grid, |row| row.try_get::<_, Option<&[u8]>>(2).ok().flatten().unwrap_or_default());
    answer.map_err(Unread::Malformed)
}

/// Writes some features of rows, unless newer ones are stored.
struct Upsert {
    text: String,
    types: Vec<Type>,
    kept: Vec<Kept>,
}

/// What is kept of a feature beside its bytes.
#[derive(Debug, Clone, Copy)]
struct Kept {
    text: bool,
    number: bool,
    vector: bool,
}

impl Kept {
    fn of(value_type: ValueType, shape: &Shape, vector_enabled: bool) -> Self {
        use ValueType as T;
        let number = matches!(value_type, T::Int32 | T::Int64 | T::Float | T::Double | T::Bool);
        let numbers = matches!(value_type, T::Int32List | T::Int64List | T::FloatList | T::DoubleList);
        Self {
            text: shape.value_text && (number || value_type == T::String),
            number: shape.value_num && number,
            vector: vector_enabled && shape.vector_value.is_some() && numbers,
        }
    }
}

impl Upsert {
    fn of(table: &str, columns: &[WriteColumn<'_>], shape: &Shape, vector_enabled: bool) -> Self {
        let kept: Vec<Kept> =
            columns.iter().map(|column| Kept::of(column.field.value_type, shape, vector_enabled)).collect();
        let mut types = vec![Type::BYTEA_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::TEXT_ARRAY];
        let mut parameters = vec!["$1".to_owned(), "$2".to_owned(), "$3".to_owned()];
        let mut names = vec!["key".to_owned(), "event_ts".to_owned(), "created_ts".to_owned()];
        let mut cells = Vec::new();
        for (column, kept) in columns.iter().zip(&kept) {
            // An array of values becomes a column of the rows, which is given here, or null.
            let mut array = |is_kept: bool, sql_type: Type, otherwise: String| {
                if !is_kept {
                    return otherwise;
                }
                types.push(sql_type);
                parameters.push(format!("${}", types.len()));
                names.push(format!("c{}", types.len()));
                format!("i.c{}", types.len())
            };
            let mut row = vec![literal(&column.field.name), array(true, Type::BYTEA_ARRAY, String::new())];
            if shape.value_text {
                row.push(array(kept.text, Type::TEXT_ARRAY, "NULL::text".to_owned()));
            }
            if shape.value_num {
                row.push(array(kept.number, Type::FLOAT8_ARRAY, "NULL::float8".to_owned()));
            }
            if let Some(vector) = &shape.vector_value {
                let text = array(kept.vector, Type::TEXT_ARRAY, "NULL::text".to_owned());
                // A table from before pgvector was switched on keeps the text as it is, like Feast.
                row.push(match vector.as_str() {
                    "bytea" => format!("convert_to({text}, 'UTF8')"),
                    vector => format!("{text}::{vector}"),
                });
            }
            cells.push(format!("({})", row.join(", ")));
        }
        let optional = [
            (shape.value_text, "value_text"),
            (shape.value_num, "value_num"),
            (shape.vector_value.is_some(), "vector_value"),
        ];
        let optional = optional.iter().filter(|(has, _)| *has).map(|(_, name)| *name);
        let kept_columns: Vec<&str> = ["feature_name", "value"].into_iter().chain(optional).collect();
        let kept_columns = kept_columns.join(", ");
        let updates: Vec<String> = kept_columns
            .split(", ")
            .skip(1)
            .chain(["event_ts", "created_ts"])
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        let (parameters, names, cells, updates) =
            (parameters.join(", "), names.join(", "), cells.join(", "), updates.join(", "));
        let recency = |alias: &str| {
            format!("(coalesce({alias}.event_ts, '-infinity'), coalesce({alias}.created_ts, '-infinity'))")
        };
        let text = format!(
            "WITH incoming AS (\
             SELECT i.*, s.more FROM unnest({parameters}) AS i({names}) \
             CROSS JOIN LATERAL (\
             SELECT bool_or({stored} > {given}) AS newer, bool_or(s.feature_name <> ALL($4)) AS more \
             FROM {table} s WHERE s.entity_key = i.key) s \
             WHERE s.newer IS NOT TRUE\
             ), removed AS (\
             DELETE FROM {table} s USING incoming i \
             WHERE i.more AND s.entity_key = i.key AND s.feature_name <> ALL($4)\
             ) \
             INSERT INTO {table} AS s (entity_key, {kept_columns}, event_ts, created_ts) \
             SELECT i.key, f.*, i.event_ts, i.created_ts FROM incoming i \
             CROSS JOIN LATERAL (VALUES {cells}) AS f({kept_columns}) \
             ON CONFLICT (entity_key, feature_name) DO UPDATE SET {updates} WHERE {stored} <= {excluded}",
            stored = recency("s"),
            given = recency("i"),
            excluded = recency("excluded"),
        );
        Self { text, types, kept }
    }

    /// The parameters after the first four: the arrays of values, in the order of their columns.
    fn arrays<'a>(&self, columns: &'a [WriteColumn<'a>], rows: &'a [usize]) -> Vec<Box<dyn ToSql + Sync + Send + 'a>> {
        let mut arrays: Vec<Box<dyn ToSql + Sync + Send + 'a>> = Vec::with_capacity(self.types.len());
        for (column, kept) in columns.iter().zip(&self.kept) {
            arrays.push(Box::new(rows.iter().map(|row| column.cells.value(*row)).collect::<Vec<&[u8]>>()));
            if kept.text {
                let text = |row: &usize| Some(column.text(*row)?.replace('\0', ""));
                arrays.push(Box::new(rows.iter().map(text).collect::<Vec<Option<String>>>()));
            }
            if kept.number {
                arrays.push(Box::new(rows.iter().map(|row| column.number(*row)).collect::<Vec<Option<f64>>>()));
            }
            if kept.vector {
                arrays.push(Box::new(rows.iter().map(|row| vector(column, *row)).collect::<Vec<Option<String>>>()));
            }
        }
        arrays
    }
}

/// A list of numbers as Python prints it, which is how pgvector reads it. What cannot be a vector is none.
fn vector(column: &WriteColumn<'_>, row: usize) -> Option<String> {
    use fmt::Write;
    if column.array.is_null(row) {
        return None;
    }
    let items = column.array.as_list::<i32>().value(row);
    let mut text = "[".to_owned();
    for item in 0..items.len() {
        if item > 0 {
            text.push_str(", ");
        }
        let float = match column.field.value_type {
            ValueType::Int32List => {
                write!(text, "{}", items.as_primitive::<Int32Type>().value(item)).ok()?;
                continue;
            }
            ValueType::Int64List => {
                write!(text, "{}", items.as_primitive::<Int64Type>().value(item)).ok()?;
                continue;
            }
            ValueType::FloatList => f64::from(items.as_primitive::<Float32Type>().value(item)),
            _ => items.as_primitive::<Float64Type>().value(item),
        };
        python_float(&mut text, Some(float).filter(|float| float.is_finite())?).ok()?;
    }
    text.push(']');
    (!items.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray};
    use feast_core::{EntityKeyEncoder, EntityKeys, Field};
    use feast_testing::StartedStore;
    use feast_testing::services::postgres::{PASSWORD, PostgresServer, USER};
    use serde_json::{Value, json};

    use super::*;
    use crate::write::record_batch;

    fn options(server: &PostgresServer, database: &str, more: Value) -> Value {
        let mut options = json!({
            "type": "postgres", "host": server.host(), "port": server.port(), "database": database, "user": USER,
            "password": PASSWORD, "sslmode": "disable",
        });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        options
    }

    fn store(server: &PostgresServer, database: &str, more: Value) -> PostgresStore {
        PostgresStore::connect(&options(server, database, more)).unwrap()
    }

    /// An empty schema of the shared server.
    fn schema() -> (&'static PostgresServer, Value) {
        static SCHEMAS: AtomicUsize = AtomicUsize::new(0);
        let schema = format!("Schema {}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
        (PostgresServer::shared(), json!({ "db_schema": schema }))
    }

    async fn start() -> StartedStore {
        let (server, schema) = schema();
        StartedStore::new(Arc::new(store(server, "postgres", schema)))
    }

    feast_testing::online_store_conformance!(super::start);

    fn table(columns: &[(&str, ValueType)]) -> OnlineTable {
        OnlineTable {
            project: "p".to_owned(),
            view: "v".to_owned(),
            join_keys: vec![Field::new("id", ValueType::Int64)],
            columns: columns.iter().map(|(name, value_type)| Field::new(*name, *value_type)).collect(),
            tags: feast_core::Tags::new(),
        }
    }

    fn keys(ids: &[i64]) -> EntityKeys {
        let encoder = EntityKeyEncoder::new(&[Field::new("id", ValueType::Int64)], 3).unwrap();
        let ids = Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef;
        encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap()
    }

    /// Writes one row of one entity.
    async fn write(store: &PostgresStore, table: &OnlineTable, id: i64, event: i64, row: Vec<ArrayRef>) -> Result<()> {
        let write = OnlineWrite {
            table,
            keys: &keys(&[id]),
            rows: &record_batch(&table.columns, row, 1).unwrap(),
            event_timestamps: &TimestampMicrosecondArray::from(vec![event]),
            created_timestamps: None,
        };
        store.write(write).await
    }

    fn int(value: i64) -> ArrayRef {
        Arc::new(Int64Array::from(vec![value]))
    }

    async fn ensure(store: &PostgresStore, table: &OnlineTable) {
        store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
    }

    /// Event time and numbers of one entity.
    async fn read(store: &PostgresStore, table: &OnlineTable, id: i64) -> Result<(Option<i64>, Vec<Option<i64>>)> {
        let columns: Vec<usize> = (0..table.columns.len()).collect();
        let mut answers = store.read(&[OnlineRead { table, keys: &keys(&[id]), columns: &columns }]).await?;
        let answer = answers.remove(0);
        let number = |column: &ArrayRef| column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0));
        let time = answer.event_timestamps.is_valid(0).then(|| answer.event_timestamps.value(0));
        Ok((time, answer.values.columns().iter().map(number).collect()))
    }

    #[tokio::test]
    async fn tables_are_what_feast_makes() {
        let server = PostgresServer::shared();
        let text = table(&[("a", ValueType::String)]);
        let number = OnlineTable { view: "Number".to_owned(), ..table(&[("a", ValueType::Int64)]) };
        for (with, value_num) in [(false, ""), (true, "value_num DOUBLE PRECISION NULL,")] {
            let (ours, theirs) = (server.create_database(), server.create_database());
            let store = store(server, &ours, json!({"enable_openai_compatible_store": with}));
            store.update(&[TableChange::Ensure(text.clone()), TableChange::Ensure(number.clone())]).await.unwrap();
            for (name, fts) in [("p_v", true), ("p_Number", false)] {
                server.execute(
                    &theirs,
                    &format!(
                        "CREATE TABLE \"{name}\" (entity_key BYTEA, feature_name TEXT, value BYTEA, value_text TEXT NULL, \
                         {value_num} vector_value BYTEA NULL, event_ts TIMESTAMPTZ, created_ts TIMESTAMPTZ, \
                         PRIMARY KEY(entity_key, feature_name)); CREATE INDEX \"{name}_ek\" ON \"{name}\" (entity_key);"
                    ),
                );
                if fts {
                    let index = "CREATE INDEX p_v_fts_idx ON p_v USING GIN (to_tsvector('english', value_text))";
                    server.execute(&theirs, index);
                }
            }
            let described = |database: &str| {
                server.execute(
                    database,
                    "SELECT attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod), attnotnull, atthasdef \
                     FROM pg_attribute WHERE attrelid::regclass::text LIKE '%p_%' \
                     AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace) ORDER BY 1, 2; \
                     SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1; \
                     SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' ORDER BY 1",
                )
            };
            assert_eq!(described(&ours), described(&theirs));
            assert!(described(&ours).contains("p_v_fts_idx"));
        }
    }

    #[tokio::test]
    async fn cells_are_what_feast_writes() {
        let server = PostgresServer::shared();
        let database = server.create_database();
        let store = store(server, &database, json!({"enable_openai_compatible_store": true}));
        let columns =
            [("t", ValueType::String), ("f", ValueType::Float), ("b", ValueType::Bool), ("n", ValueType::Int64)];
        let table = table(&columns);
        ensure(&store, &table).await;
        let row: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["a\0é"])),
            Arc::new(arrow::array::Float32Array::from(vec![0.3])),
            Arc::new(arrow::array::BooleanArray::from(vec![true])),
            Arc::new(Int64Array::from(vec![None])),
        ];
        write(&store, &table, 1001, 1_795_176_000_000_001, row).await.unwrap();
        let found = server.execute(
            &database,
            "SELECT feature_name, value, value_text, value_num, vector_value IS NULL, event_ts AT TIME ZONE 'UTC', \
             created_ts IS NULL FROM p_v WHERE entity_key = \
             '\\x01000000020000000200000069640400000008000000e903000000000000' ORDER BY feature_name",
        );
        let at = "2026-11-20 12:00:00.000001|t";
        assert_eq!(
            found.lines().collect::<Vec<_>>(),
            [
                format!("b|\\x3801|True|1|t|{at}"),
                format!("f|\\x359a99993e|0.30000001192092896|0.30000001192092896|t|{at}"),
                format!("n|\\x|||t|{at}"),
                format!("t|\\x12046100c3a9|aé||t|{at}"),
            ]
        );
    }

    #[tokio::test]
    async fn tables_of_old_versions_are_written_and_brought_up_to_date() {
        let server = PostgresServer::shared();
        let database = server.create_database();
        server.execute(
            &database,
            "CREATE TABLE p_v (entity_key BYTEA, feature_name TEXT, value BYTEA, event_ts TIMESTAMPTZ, \
             created_ts TIMESTAMPTZ, PRIMARY KEY(entity_key, feature_name))",
        );
        let store = store(server, &database, json!({"enable_openai_compatible_store": true}));
        let table = table(&[("a", ValueType::Int64)]);
        write(&store, &table, 1, 1, vec![int(5)]).await.unwrap();
        assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
        let missing = ["value_text", "vector_value", "value_num"].map(str::to_owned).to_vec();
        let listed = StoredTable { name: "p_v".to_owned(), missing_columns: missing };
        assert_eq!(store.stored_tables("p").await.unwrap(), Some(vec![listed.clone()]));
        assert_eq!(store.stored_tables("q").await.unwrap(), Some(vec![]));
        ensure(&store, &table).await;
        let listed = StoredTable { missing_columns: vec![], ..listed };
        assert_eq!(store.stored_tables("p").await.unwrap(), Some(vec![listed]));
        write(&store, &table, 1, 1, vec![int(6)]).await.unwrap();
        assert_eq!(server.execute(&database, "SELECT value_text, value_num, vector_value FROM p_v"), "6|6|");
        // Somebody else takes a column away.
        server.execute(&database, "ALTER TABLE p_v DROP COLUMN value_num");
        write(&store, &table, 1, 1, vec![int(7)]).await.unwrap();
        assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(7)]));
    }

    #[tokio::test]
    async fn vectors_are_written_as_pgvector_reads_them() {
        let server = PostgresServer::shared();
        let database = server.create_database();
        let table = table(&[("f", ValueType::FloatList), ("i", ValueType::Int64List), ("n", ValueType::Int64)]);
        let without = store(server, &database, json!({"vector_enabled": true}));
        let error = without.update(&[TableChange::Ensure(table.clone())]).await.unwrap_err();
        assert!(error.hint().unwrap().contains("CREATE EXTENSION vector"), "{error:?}");
        // Debian has no pgvector for each release: a type that shows the text it is given.
        server.execute(&database, "CREATE DOMAIN vector AS text");
        let store = store(server, &database, json!({"vector_enabled": true}));
        ensure(&store, &table).await;
        let floats = ListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(1.0), Some(0.5)])]);
        let integers = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), Some(-2)])]);
        write(&store, &table, 1, 1, vec![Arc::new(floats), Arc::new(integers), int(7)]).await.unwrap();
        let found = server.execute(&database, "SELECT feature_name, vector_value FROM p_v ORDER BY 1");
        assert_eq!(found, "f|[1.0, 0.5]\ni|[1, -2]\nn|");
    }

    #[tokio::test]
    async fn all_features_of_a_row_decide_together() {
        let (server, schema) = schema();
        let store = store(server, "postgres", schema);
        let (narrow, wide) =
            (table(&[("a", ValueType::Int64)]), table(&[("a", ValueType::Int64), ("b", ValueType::Int64)]));
        ensure(&store, &narrow).await;
        write(&store, &narrow, 1, 10, vec![int(1)]).await.unwrap();
        // An older row must not give a value to the feature that is new.
        write(&store, &wide, 1, 9, vec![int(2), int(2)]).await.unwrap();
        assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![Some(1), None]));
        write(&store, &wide, 1, 10, vec![int(3), int(3)]).await.unwrap();
        assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![Some(3), Some(3)]));
    }

    #[tokio::test]
    async fn more_features_than_a_statement_holds_are_one_row() {
        let (server, schema) = schema();
        let store = store(server, "postgres", schema);
        let names: Vec<String> = (0..2 * MOST_STATEMENT_FEATURES + 1).map(|n| format!("f{n}")).collect();
        let table = table(&names.iter().map(|name| (name.as_str(), ValueType::Int64)).collect::<Vec<_>>());
        ensure(&store, &table).await;
        let row = |value: i64| (0..names.len()).map(|_| int(value)).collect::<Vec<_>>();
        write(&store, &table, 1, 2, row(2)).await.unwrap();
        write(&store, &table, 1, 1, row(1)).await.unwrap();
        assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(2), vec![Some(2); names.len()]));
        write(&store, &table, 1, 2, row(3)).await.unwrap();
        assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(2), vec![Some(3); names.len()]));
    }

    /// Writers that share nothing but the server, as processes do, write equally old and older rows of the same few
    /// entities; whoever reads meanwhile sees each row whole and never going back in time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn rows_are_never_torn() {
        let (server, schema) = schema();
        let names: Vec<String> = (0..8).map(|n| format!("f{n}")).collect();
        let table = table(&names.iter().map(|name| (name.as_str(), ValueType::Int64)).collect::<Vec<_>>());
        ensure(&store(server, "postgres", schema.clone()), &table).await;
        let writer = |number: i64| {
            let (store, table) = (store(server, "postgres", schema.clone()), table.clone());
            async move {
                for round in 0..40 {
                    // Half of the events are shared by all writers, so that ties are frequent.
                    let event = round / 2 * 2;
                    let ids: Vec<i64> = if number % 2 == 0 { vec![1, 2, 3] } else { vec![3, 1] };
                    let value = Arc::new(Int64Array::from(vec![round * 10 + number; ids.len()])) as ArrayRef;
                    let columns = (0..table.columns.len()).map(|_| Arc::clone(&value)).collect();
                    let write = OnlineWrite {
                        table: &table,
                        keys: &keys(&ids),
                        rows: &record_batch(&table.columns, columns, ids.len()).unwrap(),
                        event_timestamps: &TimestampMicrosecondArray::from(vec![event; ids.len()]),
                        created_timestamps: None,
                    };
                    store.write(write).await.unwrap();
                }
            }
        };
        let writers: Vec<_> = (0..6).map(|number| tokio::spawn(writer(number))).collect();
        let reader = store(server, "postgres", schema.clone());
        let mut newest = None;
        let mut seen = 0;
        while seen < 20 || !writers.iter().all(JoinHandle::is_finished) {
            let (time, values) = read(&reader, &table, 1).await.unwrap();
            assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "torn: {values:?}");
            assert!(time >= newest, "{time:?} after {newest:?}");
            assert!(values[0].is_none_or(|value| time == Some(value / 10 / 2 * 2)), "{time:?} with {values:?}");
            newest = time;
            seen += 1;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        assert_eq!(read(&reader, &table, 1).await.unwrap().0, Some(38));
    }

    #[tokio::test]
    async fn tables_may_be_made_by_many_at_once() {
        let (server, schema) = schema();
        let table = table(&[("a", ValueType::String)]);
        let update = || async {
            let store = store(server, "postgres", schema.clone());
            for _ in 0..3 {
                store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
                store.update(&[TableChange::Drop(table.clone()), TableChange::Ensure(table.clone())]).await.unwrap();
            }
        };
        futures::future::join_all((0..6).map(|_| update())).await;
        write(&store(server, "postgres", schema.clone()), &table, 1, 1, vec![Arc::new(StringArray::from(vec!["a"]))])
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_cancelled_call_returns_its_place_in_the_pool() {
        let (server, schema) = schema();
        let mut only_one = schema.clone();
        only_one["max_conn"] = json!(1);
        let store = store(server, "postgres", only_one);
        let table = table(&[("a", ValueType::Int64)]);
        ensure(&store, &table).await;
        write(&store, &table, 1, 1, vec![int(5)]).await.unwrap();
        let mut other = tokio_postgres::Config::new();
        other.host(server.host()).port(server.port()).user(USER).password(PASSWORD).dbname("postgres");
        let (mut other, connection) = other.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let lock = other.transaction().await.unwrap();
        let name = format!("\"{}\".\"p_v\"", schema["db_schema"].as_str().unwrap());
        lock.batch_execute(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")).await.unwrap();
        for _ in 0..3 {
            let read = tokio::time::timeout(Duration::from_millis(100), read(&store, &table, 1)).await;
            assert!(read.is_err(), "the table is locked");
        }
        lock.rollback().await.unwrap();
        assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
    }

    #[tokio::test]
    async fn a_restarted_server_is_found_again() {
        let server = PostgresServer::start();
        let store = store(&server, "postgres", json!({"min_conn": 3}));
        let table = table(&[("a", ValueType::Int64)]);
        ensure(&store, &table).await;
        for number in 0..3 {
            write(&store, &table, 1, number, vec![int(number)]).await.unwrap();
            let reads = futures::future::join_all((0..4).map(|_| read(&store, &table, 1))).await;
            assert!(reads.into_iter().all(|read| read.unwrap() == (Some(number), vec![Some(number)])));
            server.restart();
        }
        assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(2), vec![Some(2)]));
        store.check().await.unwrap();
        let dropped = server.execute(
            "postgres",
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                                                  WHERE application_name = 'feast'",
        );
        assert_ne!(dropped, "0");
        write(&store, &table, 1, 3, vec![int(3)]).await.unwrap();
        drop(server);
        let error = store.check().await.unwrap_err();
        assert_eq!(
            (error.code(), error.hint()),
            (ErrorCode::Unavailable, Some("check `host` and `port`, and that the server runs"))
        );
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_without_the_password() {
        let server = PostgresServer::shared();
        let table = table(&[("a", ValueType::Int64)]);
        let error_with = |more: Value| {
            let (store, table) = (store(server, "postgres", more), table.clone());
            async move {
                let error = read(&store, &table, 1).await.unwrap_err();
                let shown = format!("{store:?} {store} {error:?}");
                assert!(!shown.contains(PASSWORD) && !shown.contains("s3cret"), "{shown}");
                error
            }
        };
        let error = error_with(json!({"password": "s3cret"})).await;
        assert_eq!(error.code(), ErrorCode::PermissionDenied, "{error:?}");
        assert!(error.to_string().ends_with("password authentication failed for user \"postgres\""), "{error}");
        let error = error_with(json!({"database": "nowhere"})).await;
        assert!(error.hint().unwrap().starts_with("create the database"), "{error:?}");
        let error = error_with(json!({"sslmode": "require"})).await;
        assert!(error.hint().unwrap().contains("`sslmode: disable`"), "{error:?}");
        let error = error_with(json!({"db_schema": "nowhere"})).await;
        assert_eq!(error.code(), ErrorCode::FeatureViewNotFound);
        let error = error_with(json!({"port": 1})).await;
        assert_eq!(error.code(), ErrorCode::Unavailable);
    }

    #[tokio::test]
    async fn tls_is_as_strict_as_the_configuration_says() {
        let server = PostgresServer::start();
        let folder = server.socket_folder().display().to_string();
        let sh = |command: &str| {
            // The program reads the one row before it starts.
            let command = format!("cat >/dev/null; cd {folder} && {command}").replace('\'', "''");
            server.execute("postgres", &format!("COPY (SELECT 1) TO PROGRAM '{command}'"))
        };
        sh("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt");
        for (name, alternative) in [("server", "DNS:localhost"), ("client", "DNS:client")] {
            sh(&format!("echo subjectAltName={alternative} > {name}.ext"));
            sh(&format!("openssl req -newkey rsa:2048 -nodes -subj /CN={USER} -keyout {name}.key -out {name}.csr"));
            sh(&format!(
                "openssl x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext \
                 -out {name}.crt && chmod 600 {name}.key"
            ));
        }
        sh("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.crt");
        for (name, value) in
            [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "ca.crt")]
        {
            server.execute("postgres", &format!("ALTER SYSTEM SET {name} = '{folder}/{value}'"));
        }
        server.execute("postgres", "ALTER SYSTEM SET ssl = on");
        server.restart();
        let check = |host: &str, sslmode: &str, root: Option<&str>| {
            let root = root.map(|root| format!("{folder}/{root}"));
            let more = json!({"host": host, "sslmode": sslmode, "sslrootcert_path": root});
            let store = store(&server, "postgres", more);
            async move { store.check().await }
        };
        for mode in ["disable", "allow", "prefer", "require"] {
            check("127.0.0.1", mode, None).await.unwrap();
        }
        check("127.0.0.1", "require", Some("ca.crt")).await.unwrap();
        check("127.0.0.1", "verify-ca", Some("ca.crt")).await.unwrap();
        check("localhost", "verify-full", Some("ca.crt")).await.unwrap();
        check("localhost", "verify-full", Some("server.crt")).await.unwrap();
        let refused = [
            ("127.0.0.1", "verify-full", Some("ca.crt")),
            ("127.0.0.1", "verify-full", Some("server.crt")),
            ("localhost", "verify-ca", Some("other.crt")),
            ("localhost", "require", Some("other.crt")),
            ("localhost", "verify-full", None),
            ("localhost", "verify-full", Some("nowhere.crt")),
        ];
        for (host, mode, root) in refused {
            let error = check(host, mode, root).await.expect_err(mode);
            assert!(error.hint().unwrap().contains("`sslmode`"), "{error:?}");
        }
        // Only encrypted connections, and only of clients with a certificate.
        sh("echo 'hostssl all all all cert' > data/pg_hba.conf && echo 'local all all trust' >> data/pg_hba.conf");
        server.execute("postgres", "SELECT pg_reload_conf()");
        check("localhost", "disable", None).await.unwrap_err();
        check("localhost", "require", None).await.unwrap_err();
        for mode in ["allow", "verify-full"] {
            let more = json!({
                "host": "localhost", "sslmode": mode, "sslrootcert_path": format!("{folder}/ca.crt"),
                "sslcert_path": format!("{folder}/client.crt"), "sslkey_path": format!("{folder}/client.key"),
            });
            store(&server, "postgres", more).check().await.unwrap();
        }
        // A socket is as it is in PostgreSQL's own library: without TLS.
        store(&server, "postgres", json!({"host": folder, "sslmode": "require"})).check().await.unwrap();
    }

    #[test]
    fn options_are_those_of_feast() {
        let given = |more: Value| {
            let mut options = json!({"host": "h", "database": "d", "user": "u", "password": "p"});
            options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            PostgresConfig::parse(&options)
        };
        let config =
            given(json!({"type": "postgres", "port": "5433", "db_schema": "", "keepalives_idle": null})).unwrap();
        assert_eq!((config.port, config.schema(), config.sslmode), (5433, "u", SecurityMode::Require));
        assert_eq!(config.n_connections(), 10);
        assert_eq!(given(json!({"conn_type": "singleton", "max_conn": 5})).unwrap().n_connections(), 1);
        assert_eq!(given(json!({"conn_type": "pool", "max_conn": 5})).unwrap().n_connections(), 5);
        let error = given(json!({"hots": "h"})).unwrap_err();
        assert_eq!(error.message(), "`online_store.hots` is not a key of online store `postgres`");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with("did you mean `host`?") && hint.contains("`max_batched_result_rows`"), "{hint}");
        let error = PostgresConfig::parse(&json!({"host": "h", "user": "u"})).unwrap_err();
        assert_eq!(error.message(), "online store `postgres` lacks `database` and `password`");
        let error = given(json!({"password": 12345})).unwrap_err();
        assert_eq!(error.message(), "`online_store.password` is wrong, found a number");
        assert_eq!(error.hint(), Some("put it in quotes"));
        let error = given(json!({"sslmode": "verify"})).unwrap_err();
        assert!(error.hint().unwrap().contains("`verify-full`"), "{error:?}");
        assert!(given(json!({"max_conn": 0})).is_err());
        assert!(given(json!({"sslkey_path": "k"})).is_err());
    }

    #[test]
    fn views_with_one_table_are_refused() {
        let named = |view: String| TableChange::Ensure(OnlineTable { view, ..table(&[]) });
        let long = "é".repeat(30);
        refuse_shared_tables(&[named(format!("a{long}b")), named(format!("b{long}"))]).unwrap();
        let error = refuse_shared_tables(&[named(format!("{long}ab")), named(format!("{long}ac"))]).unwrap_err();
        assert!(error.message().contains("would be one"), "{error:?}");
    }
}
