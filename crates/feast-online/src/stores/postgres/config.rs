//! The options of the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use feast_core::{Error, Result};
use feast_net::{TlsOptions, Verify};
use serde::Deserialize;
use tokio_postgres::config::SslMode;

use super::super::options::{self, Secret};
use super::super::sql::{CALL_TIMEOUT, CONNECT_TIMEOUT};
use super::connection::{Connector, MakeTls};
use super::tables::quoted;

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
    pub(super) sslmode: SecurityMode,
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
pub(super) enum SecurityMode {
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

    pub(super) fn schema(&self) -> &str {
        if self.db_schema.trim().is_empty() { &self.user } else { self.db_schema.trim() }
    }

    pub(super) fn n_connections(&self) -> usize {
        if self.conn_type == Some(ConnectionType::Singleton) { 1 } else { self.max_conn }
    }

    pub(super) fn connections(&self) -> Manager {
        // A closed connection is noticed without asking the server.
        let recycling_method = RecyclingMethod::Fast;
        Manager::from_connect(self.server(), self.connector(), ManagerConfig { recycling_method })
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
