//! Connections: how they are opened and secured, and what their errors mean.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::Connect;
use feast_core::{Error, ErrorCode, OnlineTable, Result};
use feast_net::TlsOptions;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::memory::missing_table;
use super::super::retry::Failure;
use super::Postgres;

/// TLS whose files are read for each connection.
#[derive(Clone)]
pub(super) struct MakeTls(pub(super) Arc<TlsOptions>);

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
pub(super) struct Connector {
    pub(super) tls: MakeTls,
    pub(super) attempts: &'static [SslMode],
    pub(super) session: String,
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

impl Postgres {
    pub(super) fn failed(&self, doing: &str, error: tokio_postgres::Error) -> Failure {
        let Some(state) = error.code().cloned() else { return self.failure_without_answer(doing, error) };
        if [SqlState::UNDEFINED_COLUMN, SqlState::FEATURE_NOT_SUPPORTED].contains(&state) {
            self.shapes.forget_all();
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

    pub(super) fn table_failure(&self, doing: &str, table: &OnlineTable, error: tokio_postgres::Error) -> Failure {
        let states = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
        match error.code().is_some_and(|state| states.contains(state)) {
            true => Failure::from(missing_table(table, self)),
            false => self.failed(doing, error),
        }
    }
}
