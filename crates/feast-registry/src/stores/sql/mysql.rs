//! MySQL and MariaDB.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use feast_core::{Error, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, Opts, OptsBuilder, Params, SslOpts};
use tokio::time::timeout;

use super::database::{Database, Dialect, Refusal, Row, Session, Value, refused};
use super::options::{DatabaseUrl, seconds, unknown_option};

const DIALECT: Dialect = Dialect {
    bytes: "LONGBLOB",
    integer: "SIGNED",
    length: "LENGTH",
    begin_read: "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    begin_write: "START TRANSACTION",
    for_update: " FOR UPDATE",
    inline_index: true,
    list_tables: "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
    hidden_tables: None,
    on_duplicate_key: true,
    most_parameters: 30_000,
};

/// How long opening a connection may take, unless `connect_timeout` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a statement may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

const OPTIONS: &[&str] = &[
    "charset",
    "connect_timeout",
    "unix_socket",
    "ssl_ca",
    "ssl_cert",
    "ssl_key",
    "ssl_verify_cert",
    "ssl_check_hostname",
];

pub(super) struct MySqlServer {
    options: Opts,
    connect_timeout: Duration,
    name: String,
}

/// The options have the password.
impl fmt::Debug for MySqlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlServer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for MySqlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl MySqlServer {
    pub(super) fn new(url: &DatabaseUrl) -> Result<Self> {
        let mut options = OptsBuilder::default()
            .ip_or_hostname(if url.host.is_empty() { "localhost" } else { &url.host })
            .tcp_port(url.port.unwrap_or(3306))
            .user(url.user.as_deref())
            .pass(url.password.as_deref())
            .db_name(Some(url.database.as_str()))
            .prefer_socket(false)
            // Updates that leave a row as it is count as well.
            .client_found_rows(true)
            // A refresh sees one state; waiting for the locks of others has an end.
            .init(vec![
                "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "SET SESSION innodb_lock_wait_timeout = 30",
            ]);
        let mut connect_timeout = CONNECT_TIMEOUT;
        let (mut certificate, mut key) = (None, None);
        let mut tls: Option<SslOpts> = None;
        for (name, value) in &url.options {
            let no = || matches!(value.to_lowercase().as_str(), "false" | "0" | "no");
            match name.as_str() {
                // Texts always travel in UTF-8.
                "charset" => {}
                "connect_timeout" => connect_timeout = seconds(name, value)?,
                "unix_socket" => options = options.socket(Some(value.as_str())).prefer_socket(true),
                "ssl_ca" => {
                    let roots = vec![PathBuf::from(value).into()];
                    tls = Some(tls.unwrap_or_default().with_root_certs(roots));
                }
                "ssl_cert" => certificate = Some(PathBuf::from(value)),
                "ssl_key" => key = Some(PathBuf::from(value)),
                "ssl_verify_cert" => tls = Some(tls.unwrap_or_default().with_danger_accept_invalid_certs(no())),
                "ssl_check_hostname" => tls = Some(tls.unwrap_or_default().with_danger_skip_domain_validation(no())),
                other => return Err(unknown_option(other, OPTIONS)),
            }
        }
        if let Some((certificate, key)) = certificate.zip(key) {
            let identity = ClientIdentity::new(certificate.into(), key.into());
            tls = Some(tls.unwrap_or_default().with_client_identity(Some(identity)));
        }
        Ok(Self { options: options.ssl_opts(tls).into(), connect_timeout, name: url.to_string() })
    }
}

#[async_trait]
impl Database for MySqlServer {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn connect(&self) -> Result<Box<dyn Session>> {
        match timeout(self.connect_timeout, Conn::new(self.options.clone())).await {
            Ok(Ok(connection)) => Ok(Box::new(MySqlSession { connection, what: self.name.clone() })),
            Ok(Err(error)) => Err(translated(&self.name, error)),
            Err(_) => Err(refused(&self.name, Refusal::Unreachable)),
        }
    }
}

struct MySqlSession {
    connection: Conn,
    what: String,
}

async fn within<T>(what: &str, call: impl Future<Output = mysql_async::Result<T>>) -> Result<T> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(done) => done.map_err(|error| translated(what, error)),
        Err(_) => Err(refused(&what, Refusal::Late)),
    }
}

#[async_trait]
impl Session for MySqlSession {
    async fn query(&mut self, sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>> {
        let rows: Vec<mysql_async::Row> = if parameters.is_empty() {
            within(&self.what, self.connection.query(sql)).await?
        } else {
            within(&self.what, self.connection.exec(sql, as_parameters(parameters))).await?
        };
        let integers = |row: &mysql_async::Row| -> Vec<bool> {
            row.columns_ref().iter().map(|column| column.column_type().is_numeric_type()).collect()
        };
        Ok(rows
            .into_iter()
            .map(|row| {
                let integers = integers(&row);
                Row::new(
                    row.unwrap().into_iter().zip(integers).map(|(value, integer)| value_of(value, integer)).collect(),
                )
            })
            .collect())
    }

    async fn execute(&mut self, sql: &str, parameters: Vec<Value>) -> Result<u64> {
        if parameters.is_empty() {
            within(&self.what, self.connection.query_drop(sql)).await?;
        } else {
            within(&self.what, self.connection.exec_drop(sql, as_parameters(parameters))).await?;
        }
        Ok(self.connection.affected_rows())
    }

    async fn is_alive(&mut self) -> bool {
        within(&self.what, self.connection.ping()).await.is_ok()
    }
}

fn as_parameters(values: Vec<Value>) -> Params {
    let value = |value| match value {
        Value::Null => mysql_async::Value::NULL,
        Value::Integer(number) => mysql_async::Value::Int(number),
        Value::Text(text) => mysql_async::Value::Bytes(text.into_bytes()),
        Value::Bytes(bytes) => mysql_async::Value::Bytes(bytes),
    };
    Params::Positional(values.into_iter().map(value).collect())
}

/// Answers without parameters come as text, numbers included.
fn value_of(value: mysql_async::Value, integer: bool) -> Value {
    match value {
        mysql_async::Value::Bytes(bytes) if integer => {
            std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()).map_or(Value::Null, Value::Integer)
        }
        mysql_async::Value::Bytes(bytes) => Value::Bytes(bytes),
        mysql_async::Value::Int(number) => Value::Integer(number),
        mysql_async::Value::UInt(number) => Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)),
        _ => Value::Null,
    }
}

fn translated(what: &str, error: mysql_async::Error) -> Error {
    let refusal = match &error {
        mysql_async::Error::Server(server) => match server.code {
            // Duplicate key, lock wait timeout, deadlock, row changed since it was read.
            1062 | 1205 | 1213 | 1020 => Refusal::Conflict,
            // The right that is missing is named first.
            1142 | 1143 if server.message.starts_with("SELECT command") => Refusal::MayNotRead,
            1142 | 1143 | 1290 | 1792 | 1836 => Refusal::ReadOnly,
            1044 | 1045 | 1698 => Refusal::UnknownUser,
            1049 => Refusal::UnknownDatabase,
            1040 | 1053 | 1317 | 3024 => Refusal::Unreachable,
            _ => Refusal::Failed,
        },
        mysql_async::Error::Io(_) | mysql_async::Error::Driver(mysql_async::DriverError::ConnectionClosed) => {
            Refusal::Unreachable
        }
        _ => Refusal::Failed,
    };
    refused(&what, refusal).with_source(error)
}
