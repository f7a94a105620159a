//! MySQL and MariaDB in Feast's layout: what either of the two writes, the other reads.
//!
//! One table `<project>_<view>` per view, one row per entity and feature:
//!
//! | column | content |
//! |---|---|
//! | `entity_key` VARCHAR(512), `feature_name` VARCHAR(256) | the serialized key in hexadecimal digits, and the name; together the primary key |
//! | `value` BLOB | the serialized `Value`; zero bytes are null |
//! | `event_ts`, `created_ts` TIMESTAMP | whole seconds, UTC |
//! | `event_ts_micros`, `created_ts_micros` BIGINT | ours: microseconds since the epoch |
//!
//! Feast names the columns that it reads and writes, and so never sees the last two. They keep the order of two events
//! in one second right, and hold times that TIMESTAMP cannot: before 1970 and after 2038, where `event_ts` is null.
//! Where Feast wrote a row after us they no longer agree with the seconds and are ignored. Tables that Feast made have
//! them after the next `feast apply`; until then order is by seconds.
//!
//! Feast writes naive times in the time zone of the server; sessions here are in UTC. The two agree where the server's
//! zone is UTC.
//!
//! Reads: one statement for all tables of a request, so one round trip.
//!
//! Consistency: a row of a view is spread over as many rows of the table as it has features, and all of them have to
//! come from the same write. A transaction locks what is stored for its keys, in their order; for a key that is new it
//! first inserts an empty row of the first feature, which nobody else sees, for the next writer to wait for. Then it
//! compares each row with the newest of what is stored for its key, and writes all of it or nothing. That takes two
//! round trips. A transaction that is the victim of a deadlock is made again.
//!
//! MySQL and MariaDB differ here in nothing but their versions of the protocol; tests run against MariaDB.
//!
//! Limits: keys of 256 bytes, values of 65,535 bytes, names of tables of 61 characters; names of features that differ
//! only in case are refused, because the database takes them for the same. Changes of tables are single steps, because
//! the database commits each; all of them can be repeated. Connections are not encrypted: Feast has no key for it.

use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleResult, TimeoutType};
use feast_core::{
    Error, ErrorCode, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result, StoredTable,
    TableChange, list_names,
};
use hashbrown::HashMap;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row, Value};
use serde::Deserialize;

use super::cells::{Wanted, WriteColumn};
use super::memory::missing_table;
use super::newest::{Recency, newest_rows};
use super::options::{self, Secret};
use super::per_process::PerProcess;
use super::retry::{Attempts, Failure};

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read or a chunk of a write may take, with all attempts.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long changing tables may take: an index is built over all rows that are there.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(600);

/// Connections at most; more requests wait.
const MOST_CONNECTIONS: usize = 10;

/// Rows of the table in one transaction, about.
const MOST_CHUNK_CELLS: usize = 10_000;

/// Keys of one table in one statement, and bytes of a statement, about. Servers accept 4 MiB and more.
const MOST_KEYS: usize = 5_000;
const MOST_STATEMENT_BYTES: usize = 1 << 20;

/// The longest `value` and the longest `entity_key`, in bytes.
const MOST_VALUE_BYTES: usize = 65_535;
const MOST_KEY_BYTES: usize = 256;

/// How a recency becomes one number: the event time counts in units that no created time reaches, and a created time is
/// more than none.
const EVENT_UNIT: i128 = 18_500_000_000_000_000_000;
const CREATED_SHIFT: i128 = 9_223_372_036_854_775_809;

/// Our columns.
const MICROS: [&str; 2] = ["event_ts_micros", "created_ts_micros"];

/// Error numbers of the server.
mod number {
    pub(super) const ACCESS_DENIED: &[u16] = &[1044, 1045, 1142, 1227, 1370, 1698];
    pub(super) const UNKNOWN_DATABASE: u16 = 1049;
    pub(super) const UNKNOWN_COLUMN: u16 = 1054;
    pub(super) const BAD_NAME: &[u16] = &[1059, 1103];
    pub(super) const DUPLICATE_COLUMN: u16 = 1060;
    pub(super) const DUPLICATE_INDEX: u16 = 1061;
    pub(super) const NO_SUCH_TABLE: u16 = 1146;
    pub(super) const WRONG_VALUES: &[u16] = &[1264, 1292, 1366, 1406, 1153];
    /// Too many connections, shutting down, lock wait timeout, deadlock, changed meanwhile, killed, changed table.
    pub(super) const TRANSIENT: &[u16] = &[1040, 1053, 1205, 1213, 1020, 1927, 1412, 1203, 3024, 1969];
}

/// The `online_store` part of `feature_store.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MysqlConfig {
    /// `mysql`.
    #[serde(rename = "type")]
    store_type: String,
    /// Name or address of the server; default 127.0.0.1.
    pub host: String,
    /// Default 3306.
    pub port: u16,
    /// Who connects; default `test`.
    pub user: String,
    password: Secret,
    /// Name of the database; default `feast`.
    pub database: String,
    /// Feast's switch from one statement per value to `batch_size` values. Here writes always go in batches; the
    /// switch only decides whether `batch_size` counts.
    pub batch_write: bool,
    /// Values in one transaction, about, where `batch_write` is set.
    pub batch_size: Option<usize>,
}

const KEYS: &[&str] = &["type", "host", "port", "user", "password", "database", "batch_write", "batch_size"];

impl Default for MysqlConfig {
    fn default() -> Self {
        Self {
            store_type: "mysql".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 3306,
            user: "test".to_owned(),
            password: Secret("test".to_owned()),
            database: "feast".to_owned(),
            batch_write: false,
            batch_size: None,
        }
    }
}

impl MysqlConfig {
    /// Reads the options; none are the defaults.
    ///
    /// # Errors
    /// `InvalidConfiguration` for unknown keys, listing the valid ones, and for values that are none.
    pub fn parse(given: &serde_json::Value) -> Result<Self> {
        let config: Self = options::parse("mysql", KEYS, &[], &["port", "batch_size"], given)?;
        if config.batch_write && config.batch_size.is_none_or(|size| size < 2) {
            return Err(Error::invalid_configuration("`online_store.batch_size` is less than 2, or not given")
                .with_hint("set it to some thousands, or leave out `batch_write`"));
        }
        Ok(config)
    }

    fn cells_in_chunk(&self) -> usize {
        self.batch_size.filter(|_| self.batch_write).unwrap_or(MOST_CHUNK_CELLS)
    }
}

/// Opens connections. They go to the pool as they are; a stale one is noticed by its use.
#[derive(Debug)]
struct Connections(Opts);

impl Manager for Connections {
    type Type = Conn;
    type Error = mysql_async::Error;

    async fn create(&self) -> Result<Conn, mysql_async::Error> {
        Conn::new(self.0.clone()).await
    }

    async fn recycle(&self, _: &mut Conn, _: &Metrics) -> RecycleResult<mysql_async::Error> {
        Ok(())
    }
}

/// MySQL or MariaDB in Feast's layout.
pub struct MysqlStore {
    config: MysqlConfig,
    pool: PerProcess<Pool<Connections>>,
    /// Which tables have our columns for microseconds.
    exact: Mutex<HashMap<String, bool>>,
}

impl MysqlStore {
    /// A store in the database that the options name. Nothing is opened before the first call.
    ///
    /// # Errors
    /// `InvalidConfiguration`.
    pub fn connect(options: &serde_json::Value) -> Result<Self> {
        let config = MysqlConfig::parse(options)?;
        Ok(Self { config, pool: PerProcess::default(), exact: Mutex::default() })
    }
}

impl fmt::Debug for MysqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlStore").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Display for MysqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MysqlConfig { host, port, database, .. } = &self.config;
        write!(f, "mysql at `{host}:{port}/{database}`")
    }
}

#[async_trait]
impl OnlineStore for MysqlStore {
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
        refuse_long(&write, &columns)?;
        let rows_in_chunk = (self.config.cells_in_chunk() / columns.len().max(1)).clamp(1, MOST_KEYS);
        for rows in newest_rows(&write).chunks(rows_in_chunk) {
            let mut attempts = Attempts::within(CALL_TIMEOUT);
            // Writing rows again changes nothing, so what may have been written is written again.
            while let Err(failure) = attempts.run(self, Box::pin(self.write_once(&write, &columns, rows))).await {
                attempts.pause(failure).await?;
            }
        }
        Ok(())
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        refuse_same_features(changes)?;
        let mut attempts = Attempts::within(UPDATE_TIMEOUT);
        while let Err(failure) = attempts.run(self, Box::pin(self.update_once(changes))).await {
            attempts.pause(failure).await?;
        }
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let mut attempts = Attempts::within(CONNECT_TIMEOUT * 2);
        loop {
            let ask = async {
                let mut lease = self.lease().await?;
                lease.connection()?.query_drop("SELECT 1").await.map_err(|error| self.failure("reach", error))?;
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
        MOST_KEYS
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
struct Lease(Option<Object<Connections>>);

impl Lease {
    fn connection(&mut self) -> Result<&mut Conn> {
        self.0.as_deref_mut().ok_or_else(|| Error::internal("a connection was used after it was given back"))
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

impl MysqlStore {
    fn pool(&self) -> Result<Pool<Connections>> {
        let current = self.pool.get_or_make(|| {
            let options = OptsBuilder::default()
                .ip_or_hostname(self.config.host.clone())
                .tcp_port(self.config.port)
                .user(Some(self.config.user.clone()))
                .pass(Some(self.config.password.0.clone()))
                .db_name(Some(self.config.database.clone()))
                .prefer_socket(false)
                .setup(vec![
                    "SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES', \
                     innodb_lock_wait_timeout = 20"
                        .to_owned(),
                    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
                ]);
            Pool::builder(Connections(options.into()))
                .max_size(MOST_CONNECTIONS)
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(CONNECT_TIMEOUT))
                .create_timeout(Some(CONNECT_TIMEOUT))
                .build()
                .map_err(|error| Error::internal("the pool of connections cannot be made").with_source(error))
        })?;
        Ok(current.1.clone())
    }

    async fn lease(&self) -> Result<Lease, Failure> {
        match self.pool()?.get().await {
            Ok(object) => Ok(Lease(Some(object))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Err(Failure::from(
                Error::unavailable(format!("all {MOST_CONNECTIONS} connections to the online store are busy"))
                    .with_context("online store", self)
                    .with_hint("see whether the server is overloaded, or a table locked"),
            )),
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

    fn failure(&self, doing: &str, error: mysql_async::Error) -> Failure {
        let (code, hint, transient) = match &error {
            mysql_async::Error::Server(answer) => match answer.code {
                number if number::ACCESS_DENIED.contains(&number) => (
                    ErrorCode::PermissionDenied,
                    "check `user` and `password`, and what the user may do in the database",
                    false,
                ),
                number::UNKNOWN_DATABASE => {
                    (ErrorCode::Unavailable, "create the database, or correct `online_store.database`", false)
                }
                number::UNKNOWN_COLUMN => {
                    self.exact().clear();
                    (ErrorCode::Unavailable, "run `feast apply` to bring the table up to date", true)
                }
                number if number::BAD_NAME.contains(&number) => (
                    ErrorCode::InvalidDefinition,
                    "rename the feature view or the project: they may have 60 characters together, and end without a space",
                    false,
                ),
                number if number::WRONG_VALUES.contains(&number) => {
                    (ErrorCode::InvalidRequest, "the database cannot hold a value of the rows", false)
                }
                number => (ErrorCode::Unavailable, "see the log of the server", number::TRANSIENT.contains(&number)),
            },
            _ => {
                // The server may have been started anew: what is idle is as dead as this one.
                if let Ok(pool) = self.pool() {
                    pool.retain(|_, _| false);
                }
                (ErrorCode::Unavailable, "check `host` and `port`, and that the server runs", true)
            }
        };
        let text = match error {
            mysql_async::Error::Server(answer) => answer.message,
            other => other.to_string(),
        };
        let error = Error::new(code, format!("could not {doing} the online store"))
            .with_context("online store", self)
            .with_source(text)
            .with_hint(hint);
        Failure { error, transient }
    }

    fn table_failure(&self, doing: &str, table: &OnlineTable, error: mysql_async::Error) -> Failure {
        match &error {
            mysql_async::Error::Server(answer) if answer.code == number::NO_SUCH_TABLE => {
                self.exact().remove(&table.name());
                Failure::from(missing_table(table, self))
            }
            _ => self.failure(doing, error),
        }
    }

    fn exact(&self) -> std::sync::MutexGuard<'_, HashMap<String, bool>> {
        self.exact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a table has our columns.
    async fn is_exact(&self, connection: &mut Conn, table: &OnlineTable) -> Result<bool, Failure> {
        let name = table.name();
        if let Some(exact) = self.exact().get(&name) {
            return Ok(*exact);
        }
        let columns = columns_of(connection, &name).await.map_err(|error| self.failure("read", error))?;
        if columns.is_empty() {
            return Err(Failure::from(missing_table(table, self)));
        }
        let exact = MICROS.iter().all(|name| columns.iter().any(|has| has == name));
        self.exact().insert(name, exact);
        Ok(exact)
    }

    async fn read_once(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>, Failure> {
        let mut lease = self.lease().await?;
        let answers = self.read_with(lease.connection()?, reads).await;
        if !matches!(&answers, Err(failure) if failure.transient) {
            lease.give_back();
        }
        answers
    }

    async fn read_with(&self, connection: &mut Conn, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>, Failure> {
        let wanted: Vec<Wanted<'_>> = reads.iter().map(Wanted::of).collect();
        let keys: Vec<Vec<String>> = reads
            .iter()
            .map(|read| read.keys.encoded.iter().map(|key| hex(key.unwrap_or_default())).collect())
            .collect();
        let mut statements: Vec<String> = Vec::new();
        for (number, read) in reads.iter().enumerate() {
            let micros = micros("event_ts", self.is_exact(connection, read.table).await?);
            let table = quoted(&read.table.name());
            let names = name_list(wanted[number].names.iter().copied());
            for keys in keys[number].chunks(MOST_KEYS).filter(|_| !names.is_empty()) {
                let keys = key_list(keys.iter().map(String::as_str));
                let select = format!(
                    "SELECT {number}, t.entity_key, t.feature_name, t.value, {micros} FROM {table} t \
                     WHERE t.entity_key IN ({keys}) AND t.feature_name IN ({names})"
                );
                match statements.last_mut() {
                    Some(last) if last.len() + select.len() < MOST_STATEMENT_BYTES => {
                        last.push_str(" UNION ALL ");
                        last.push_str(&select);
                    }
                    _ => statements.push(select),
                }
            }
        }
        let mut rows: Vec<Row> = Vec::new();
        for statement in &statements {
            rows.extend(connection.query::<Row, _>(statement).await.map_err(|error| {
                // The message names the table.
                let named = |read: &&OnlineRead<'_>| error.to_string().contains(&format!(".{}'", read.table.name()));
                self.table_failure("read", reads.iter().find(named).unwrap_or(&reads[0]).table, error)
            })?);
        }
        let positions: Vec<HashMap<&[u8], usize>> = keys
            .iter()
            .map(|keys| keys.iter().enumerate().map(|(position, key)| (key.as_bytes(), position)).collect())
            .collect();
        let mut grids: Vec<_> = wanted.iter().map(|wanted| wanted.grid::<&[u8]>()).collect();
        for row in &rows {
            let number = integer(row, 0).and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX);
            let Some(position) = positions.get(number).and_then(|known| known.get(bytes(row, 1))) else { continue };
            let Ok(name) = std::str::from_utf8(bytes(row, 2)) else { continue };
            let event = integer(row, 4).unwrap_or_default();
            let event = i64::try_from(event).unwrap_or(i64::MAX);
            wanted[number].keep(&mut grids[number], *position, name, event, bytes(row, 3));
        }
        let answers = wanted.iter().zip(&grids).map(|(wanted, grid)| wanted.finish(grid, |cell| *cell));
        Ok(answers.collect::<Result<Vec<_>>>()?)
    }

    async fn write_once(
        &self,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &[usize],
    ) -> Result<(), Failure> {
        let mut lease = self.lease().await?;
        // A transaction that fails is left open, and ends with its connection.
        self.write_with(lease.connection()?, write, columns, rows).await?;
        lease.give_back();
        Ok(())
    }

    async fn write_with(
        &self,
        connection: &mut Conn,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &[usize],
    ) -> Result<(), Failure> {
        let failed = |error| self.table_failure("write to", write.table, error);
        let exact = self.is_exact(connection, write.table).await?;
        let Some(first) = columns.first() else { return Ok(()) };
        let table = quoted(&write.table.name());
        let first = name_list([first.field.name.as_str()]);
        let names = name_list(columns.iter().map(|column| column.field.name.as_str()));
        let keys: Vec<String> = rows.iter().map(|row| hex(write.keys.encoded.value(*row))).collect();
        let all_keys = key_list(keys.iter().map(String::as_str));

        let empty: Vec<String> = keys.iter().map(|key| format!("('{key}', {first})")).collect();
        let recency = format!(
            "CAST({} AS DECIMAL(40, 0)) * {EVENT_UNIT} + COALESCE(CAST({} AS DECIMAL(40, 0)) + {CREATED_SHIFT}, 0)",
            micros("event_ts", exact),
            micros("created_ts", exact)
        );
        let lock = format!(
            "START TRANSACTION; \
             INSERT INTO {table} (entity_key, feature_name) VALUES {} ON DUPLICATE KEY UPDATE entity_key = VALUES(entity_key); \
             SELECT t.entity_key, MAX({recency}), MAX(t.feature_name NOT IN ({names})) FROM {table} t \
             WHERE t.entity_key IN ({all_keys}) GROUP BY t.entity_key FOR UPDATE",
            empty.join(", ")
        );
        let mut stored: HashMap<Vec<u8>, (Option<i128>, bool)> = HashMap::new();
        let mut answer = connection.query_iter(lock).await.map_err(failed)?;
        while !answer.is_empty() {
            for row in answer.collect::<Row>().await.map_err(failed)? {
                stored
                    .insert(bytes(&row, 0).to_vec(), (integer(&row, 1), integer(&row, 2).is_some_and(|more| more > 0)));
            }
        }
        drop(answer);

        let recencies = rows.iter().map(|row| comparable(Recency::of(write, *row), exact));
        let (mut wins, mut loses, mut has_more) = (Vec::new(), Vec::new(), Vec::new());
        for ((row, key), recency) in rows.iter().zip(&keys).zip(recencies) {
            let (newest, more) = stored.get(key.as_bytes()).copied().unwrap_or_default();
            if newest.is_some_and(|newest| newest > recency) {
                loses.push(key.as_str());
                continue;
            }
            wins.push((*row, key));
            if more {
                has_more.push(key.as_str());
            }
        }
        let mut statements: Vec<Vec<u8>> = Vec::new();
        if !loses.is_empty() {
            let keys = key_list(loses.into_iter());
            // The empty rows from above.
            let empty = format!(
                "DELETE FROM {table} WHERE entity_key IN ({keys}) AND feature_name = {first} AND value IS NULL \
                 AND event_ts IS NULL"
            );
            statements.push(empty.into_bytes());
        }
        if !has_more.is_empty() {
            // Features that the view had once. They would come back with it, although they are older.
            let keys = key_list(has_more.into_iter());
            let more = format!("DELETE FROM {table} WHERE entity_key IN ({keys}) AND feature_name NOT IN ({names})");
            statements.push(more.into_bytes());
        }
        statements.extend(inserts(&table, write, columns, &wins, exact));
        statements.push(b"COMMIT".to_vec());
        // Together where they fit into one packet.
        let mut batch: Vec<u8> = Vec::new();
        for statement in statements {
            if !batch.is_empty() && batch.len() + statement.len() > MOST_STATEMENT_BYTES {
                connection.query_drop(std::mem::take(&mut batch)).await.map_err(failed)?;
            }
            if !batch.is_empty() {
                batch.extend_from_slice(b"; ");
            }
            batch.extend_from_slice(&statement);
        }
        connection.query_drop(batch).await.map_err(failed)
    }

    async fn list_once(&self, project: &str) -> Result<Vec<StoredTable>, Failure> {
        let mut lease = self.lease().await?;
        let prefix = name_list([format!("{project}_").as_str()]);
        let list = format!(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() \
             AND LEFT(table_name, CHAR_LENGTH({prefix})) = {prefix} ORDER BY table_name"
        );
        let rows: Vec<Row> = lease.connection()?.query(list).await.map_err(|error| self.failure("read", error))?;
        lease.give_back();
        let text = |row: &Row, column| String::from_utf8_lossy(bytes(row, column)).into_owned();
        let mut tables: Vec<(String, Vec<String>)> = Vec::new();
        for row in &rows {
            let (table, column) = (text(row, 0), text(row, 1).to_lowercase());
            match tables.last_mut().filter(|(last, _)| *last == table) {
                Some((_, columns)) => columns.push(column),
                None => tables.push((table, vec![column])),
            }
        }
        let has = |columns: &[String], name: &str| columns.iter().any(|column| column == name);
        tables.retain(|(_, columns)| has(columns, "entity_key") && has(columns, "feature_name"));
        let missing = |columns: &[String]| {
            MICROS.iter().filter(|name| !has(columns, name)).map(|name| (*name).to_owned()).collect()
        };
        let tables = tables.into_iter().map(|(name, columns)| StoredTable { missing_columns: missing(&columns), name });
        Ok(tables.collect())
    }

    /// Reads the whole table: its index is by entity.
    async fn newest_once(&self, table: &OnlineTable) -> Result<Option<i64>, Failure> {
        let mut lease = self.lease().await?;
        let connection = lease.connection()?;
        let micros = micros("event_ts", self.is_exact(connection, table).await?);
        let query = format!("SELECT MAX({micros}) FROM {} t", quoted(&table.name()));
        let row: Option<Row> =
            connection.query_first(query).await.map_err(|error| self.table_failure("read", table, error))?;
        lease.give_back();
        Ok(row.and_then(|row| integer(&row, 0)).and_then(|micros| i64::try_from(micros).ok()))
    }

    async fn update_once(&self, changes: &[TableChange]) -> Result<(), Failure> {
        let mut lease = self.lease().await?;
        let connection = lease.connection()?;
        let failed = |error| self.failure("update", error);
        for change in changes {
            let (TableChange::Ensure(table) | TableChange::Drop(table)) = change;
            let name = table.name();
            self.exact().remove(&name);
            let statements = match change {
                TableChange::Ensure(_) => missing(connection, &name).await.map_err(failed)?,
                TableChange::Drop(_) => vec![format!("DROP TABLE IF EXISTS {}", quoted(&name))],
            };
            for statement in statements {
                match connection.query_drop(statement).await {
                    // Somebody else was faster.
                    Err(mysql_async::Error::Server(answer))
                        if [number::DUPLICATE_COLUMN, number::DUPLICATE_INDEX].contains(&answer.code) => {}
                    done => done.map_err(failed)?,
                }
            }
        }
        lease.give_back();
        Ok(())
    }
}

async fn columns_of(connection: &mut Conn, table: &str) -> Result<Vec<String>, mysql_async::Error> {
    let columns = format!(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = {}",
        name_list([table])
    );
    let rows: Vec<Row> = connection.query(columns).await?;
    Ok(rows.iter().map(|row| String::from_utf8_lossy(bytes(row, 0)).to_lowercase()).collect())
}

/// What a table lacks.
async fn missing(connection: &mut Conn, name: &str) -> Result<Vec<String>, mysql_async::Error> {
    let columns = columns_of(connection, name).await?;
    let table = quoted(name);
    let mut statements = Vec::new();
    if columns.is_empty() {
        statements.push(format!(
            "CREATE TABLE IF NOT EXISTS {table} (entity_key VARCHAR(512), feature_name VARCHAR(256), value BLOB, \
             event_ts timestamp NULL DEFAULT NULL, created_ts timestamp NULL DEFAULT NULL, \
             event_ts_micros BIGINT NULL DEFAULT NULL, created_ts_micros BIGINT NULL DEFAULT NULL, \
             PRIMARY KEY(entity_key, feature_name))"
        ));
    }
    for column in MICROS {
        if !columns.is_empty() && !columns.iter().any(|known| known == column) {
            statements.push(format!("ALTER TABLE {table} ADD COLUMN {column} BIGINT NULL DEFAULT NULL"));
        }
    }
    let index = format!("{name}_ek");
    let indexes = format!(
        "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = {} \
         AND index_name = {}",
        name_list([name]),
        name_list([index.as_str()])
    );
    if connection.query::<Row, _>(indexes).await?.is_empty() {
        statements.push(format!("ALTER TABLE {table} ADD INDEX {} (entity_key)", quoted(&index)));
    }
    Ok(statements)
}

/// Statements that write rows whatever is stored.
fn inserts(
    table: &str,
    write: &OnlineWrite<'_>,
    columns: &[WriteColumn<'_>],
    rows: &[(usize, &String)],
    exact: bool,
) -> Vec<Vec<u8>> {
    let (micros_names, micros_updates) = match exact {
        true => (
            ", event_ts_micros, created_ts_micros",
            ", event_ts_micros = VALUES(event_ts_micros), created_ts_micros = VALUES(created_ts_micros)",
        ),
        false => ("", ""),
    };
    let start =
        format!("INSERT INTO {table} (entity_key, feature_name, value, event_ts, created_ts{micros_names}) VALUES ");
    // Also the name: the database may have it in another case.
    let end = format!(
        " ON DUPLICATE KEY UPDATE feature_name = VALUES(feature_name), value = VALUES(value), \
         event_ts = VALUES(event_ts), created_ts = VALUES(created_ts){micros_updates}"
    );
    let names: Vec<String> = columns.iter().map(|column| name_list([column.field.name.as_str()])).collect();
    let (mut statements, mut statement) = (Vec::new(), Vec::new());
    for (row, key) in rows {
        let recency = Recency::of(write, *row);
        let mut times = format!(", {}, {}", timestamp(Some(recency.event)), timestamp(recency.created));
        if exact {
            let created = recency.created.map_or_else(|| "NULL".to_owned(), |created| created.to_string());
            let _ = write!(times, ", {}, {created}", recency.event);
        }
        for (column, name) in columns.iter().zip(&names) {
            statement.extend_from_slice(if statement.is_empty() { start.as_bytes() } else { b", " });
            statement.extend_from_slice(format!("('{key}', {name}, _binary'").as_bytes());
            for byte in column.cells.value(*row) {
                statement.push(*byte);
                if *byte == b'\'' {
                    statement.push(b'\'');
                }
            }
            statement.push(b'\'');
            statement.extend_from_slice(times.as_bytes());
            statement.push(b')');
            if statement.len() > MOST_STATEMENT_BYTES {
                statement.extend_from_slice(end.as_bytes());
                statements.push(std::mem::take(&mut statement));
            }
        }
    }
    if !statement.is_empty() {
        statement.extend_from_slice(end.as_bytes());
        statements.push(statement);
    }
    statements
}

/// A time of a table in microseconds: ours, unless Feast has written the row since.
fn micros(column: &str, exact: bool) -> String {
    let seconds = format!("CAST(UNIX_TIMESTAMP(t.{column}) AS SIGNED)");
    match exact {
        true => format!(
            "CASE WHEN t.{column}_micros IS NOT NULL AND (t.{column} IS NULL OR {seconds} = \
             t.{column}_micros DIV 1000000) THEN t.{column}_micros ELSE {seconds} * 1000000 END"
        ),
        false => format!("{seconds} * 1000000"),
    }
}

/// A recency as the number that the lock statement makes of it.
fn comparable(recency: Recency, exact: bool) -> i128 {
    let round = |micros: i64| i128::from(if exact { micros } else { micros.div_euclid(1_000_000) * 1_000_000 });
    let created = recency.created.map_or(0, |created| round(created) + CREATED_SHIFT);
    round(recency.event).saturating_mul(EVENT_UNIT).saturating_add(created)
}

/// What TIMESTAMP can hold of an instant: whole seconds from 1970 to 2038.
fn timestamp(micros: Option<i64>) -> String {
    let seconds =
        micros.map(|micros| micros.div_euclid(1_000_000)).filter(|seconds| (1..=0x7fff_ffff).contains(seconds));
    let time = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    time.map_or_else(|| "NULL".to_owned(), |time| time.format("'%Y-%m-%d %H:%M:%S'").to_string())
}

fn refuse_long(write: &OnlineWrite<'_>, columns: &[WriteColumn<'_>]) -> Result<()> {
    for row in 0..write.keys.len() {
        let length = write.keys.encoded.value(row).len();
        if length > MOST_KEY_BYTES {
            return Err(Error::invalid_request(format!(
                "the key in row {row} has {length} bytes, and MySQL's table holds {MOST_KEY_BYTES}"
            ))
            .with_hint("use shorter values or names of join keys"));
        }
        if let Some(column) = columns.iter().find(|column| column.cells.value(row).len() > MOST_VALUE_BYTES) {
            return Err(Error::invalid_request(format!(
                "the value of `{}` in row {row} has {} bytes, and MySQL's table holds {MOST_VALUE_BYTES}",
                column.field.name,
                column.cells.value(row).len()
            )));
        }
    }
    Ok(())
}

/// The database takes names that differ only in case for the same.
fn refuse_same_features(changes: &[TableChange]) -> Result<()> {
    for change in changes {
        let TableChange::Ensure(table) = change else { continue };
        let mut taken: HashMap<String, &str> = HashMap::new();
        for column in &table.columns {
            if let Some(other) = taken.insert(column.name.to_lowercase(), &column.name) {
                return Err(Error::invalid_definition(format!(
                    "features {} of `{}` differ only in case, and MySQL takes them for the same",
                    list_names([other, column.name.as_str()]),
                    table.view
                ))
                .with_hint("rename one of them"));
            }
        }
    }
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Keys in hexadecimal digits, as a list of literals.
fn key_list<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = keys.map(|key| format!("'{key}'")).collect();
    quoted.join(", ")
}

/// Any names, as a list of literals.
fn name_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let literals: Vec<String> = names.into_iter().map(|name| format!("_utf8mb4 X'{}'", hex(name.as_bytes()))).collect();
    literals.join(", ")
}

/// A cell of an answer in the text protocol.
fn bytes(row: &Row, column: usize) -> &[u8] {
    match row.as_ref(column) {
        Some(Value::Bytes(bytes)) => bytes,
        _ => &[],
    }
}

fn integer(row: &Row, column: usize) -> Option<i128> {
    std::str::from_utf8(bytes(row, column)).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use arrow::array::{
        Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::Int64Type;
    use feast_core::{EntityKeyEncoder, EntityKeys, Field, ValueType};
    use feast_testing::StartedStore;
    use feast_testing::services::mysql::{MysqlServer, PASSWORD, USER};
    use serde_json::json;

    use super::*;
    use crate::write::record_batch;

    fn store(server: &MysqlServer, database: &str, more: serde_json::Value) -> MysqlStore {
        let mut options = json!({
            "type": "mysql", "host": server.host(), "port": server.port(), "database": database, "user": USER,
            "password": PASSWORD,
        });
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        MysqlStore::connect(&options).unwrap()
    }

    async fn start() -> StartedStore {
        let server = MysqlServer::shared();
        StartedStore::new(Arc::new(store(server, &server.create_database(), json!({}))))
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

    /// Writes the same row for some entities.
    async fn write(store: &MysqlStore, table: &OnlineTable, ids: &[i64], event: i64, row: &[ArrayRef]) -> Result<()> {
        let repeated = row.iter().map(|cell| {
            let positions = arrow::array::UInt32Array::from(vec![0; ids.len()]);
            arrow::compute::take(cell, &positions, None).unwrap()
        });
        let write = OnlineWrite {
            table,
            keys: &keys(ids),
            rows: &record_batch(&table.columns, repeated.collect(), ids.len()).unwrap(),
            event_timestamps: &TimestampMicrosecondArray::from(vec![event; ids.len()]),
            created_timestamps: None,
        };
        store.write(write).await
    }

    fn int(value: i64) -> ArrayRef {
        Arc::new(Int64Array::from(vec![value]))
    }

    async fn ensure(store: &MysqlStore, table: &OnlineTable) {
        store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
    }

    /// Event time and numbers of one entity.
    async fn read(store: &MysqlStore, table: &OnlineTable, id: i64) -> Result<(Option<i64>, Vec<Option<i64>>)> {
        let columns: Vec<usize> = (0..table.columns.len()).collect();
        let mut answers = store.read(&[OnlineRead { table, keys: &keys(&[id]), columns: &columns }]).await?;
        let answer = answers.remove(0);
        let number = |column: &ArrayRef| column.is_valid(0).then(|| column.as_primitive::<Int64Type>().value(0));
        let time = answer.event_timestamps.is_valid(0).then(|| answer.event_timestamps.value(0));
        Ok((time, answer.values.columns().iter().map(number).collect()))
    }

    #[tokio::test]
    async fn tables_and_cells_are_what_feast_writes_and_ours_beside() {
        let server = MysqlServer::shared();
        let database = server.create_database();
        let store = store(server, &database, json!({}));
        let table = table(&[("t", ValueType::String), ("n", ValueType::Int64)]);
        ensure(&store, &table).await;
        server.execute(
            &database,
            "CREATE TABLE theirs (entity_key VARCHAR(512), feature_name VARCHAR(256), value BLOB, \
             event_ts timestamp NULL DEFAULT NULL, created_ts timestamp NULL DEFAULT NULL, \
             PRIMARY KEY(entity_key, feature_name)); ALTER TABLE theirs ADD INDEX theirs_ek (entity_key)",
        );
        let lines = |name: &str| {
            let described = server.execute(&database, &format!("SHOW CREATE TABLE {name}")).replace(name, "table");
            let lines: Vec<String> = described.split("\\n").map(str::to_owned).collect();
            lines.into_iter().filter(|line| !line.contains("_micros")).collect::<Vec<_>>()
        };
        assert_eq!(lines("p_v"), lines("theirs"));
        assert!(lines("p_v").iter().any(|line| line.contains("KEY `table_ek`")));
        let row: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec!["it's \\ é"])), Arc::new(Int64Array::from(vec![None]))];
        write(&store, &table, &[1001], 1_795_176_000_999_999, &row).await.unwrap();
        let found = server.execute(
            &database,
            "SET time_zone = '+00:00'; SELECT feature_name, HEX(value), event_ts, created_ts, event_ts_micros FROM p_v \
             WHERE entity_key = '01000000020000000200000069640400000008000000e903000000000000' ORDER BY 1",
        );
        assert_eq!(
            found,
            "n\t\t2026-11-20 12:00:00\tNULL\t1795176000999999\n\
             t\t120969742773205C20C3A9\t2026-11-20 12:00:00\tNULL\t1795176000999999"
        );
    }

    #[tokio::test]
    async fn what_feast_wrote_meanwhile_counts() {
        let server = MysqlServer::shared();
        let database = server.create_database();
        let store = store(server, &database, json!({}));
        let table = table(&[("n", ValueType::Int64)]);
        let feasts = "(entity_key VARCHAR(512), feature_name VARCHAR(256), value BLOB, \
                      event_ts timestamp NULL DEFAULT NULL, created_ts timestamp NULL DEFAULT NULL, \
                      PRIMARY KEY(entity_key, feature_name))";
        server.execute(&database, &format!("CREATE TABLE p_v {feasts}"));
        let key = "01000000020000000200000069640400000008000000e903000000000000";
        let by_feast = |value: &str, at: &str| {
            let sql = format!(
                "SET time_zone = '+00:00'; INSERT INTO p_v (entity_key, feature_name, value, event_ts, created_ts) \
                 VALUES ('{key}', 'n', X'{value}', '{at}', NULL) ON DUPLICATE KEY UPDATE value = X'{value}', \
                 event_ts = '{at}', created_ts = NULL"
            );
            server.execute(&database, &sql)
        };
        // Before our columns are there: whole seconds count.
        by_feast("2001", "2026-11-20 12:00:00");
        let noon = 1_795_176_000_000_000;
        assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon), vec![Some(1)]));
        write(&store, &table, &[1001], noon - 1, &[int(2)]).await.unwrap();
        assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon), vec![Some(1)]));
        write(&store, &table, &[1001], noon + 5, &[int(3)]).await.unwrap();
        assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon), vec![Some(3)]));
        let listed = StoredTable { name: "p_v".to_owned(), missing_columns: MICROS.map(str::to_owned).to_vec() };
        assert_eq!(store.stored_tables("p").await.unwrap(), Some(vec![listed.clone()]));
        ensure(&store, &table).await;
        let listed = StoredTable { missing_columns: vec![], ..listed };
        assert_eq!(store.stored_tables("p").await.unwrap(), Some(vec![listed]));
        assert_eq!(store.stored_tables("q").await.unwrap(), Some(vec![]));
        write(&store, &table, &[1001], noon + 1_500_000, &[int(4)]).await.unwrap();
        assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon + 1_500_000), vec![Some(4)]));
        // Feast goes back in time, as it does.
        by_feast("2005", "2026-11-20 11:00:00");
        assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon - 3_600_000_000), vec![Some(5)]));
        write(&store, &table, &[1001], noon, &[int(6)]).await.unwrap();
        assert_eq!(read(&store, &table, 1001).await.unwrap(), (Some(noon), vec![Some(6)]));
    }

    #[tokio::test]
    async fn all_features_of_a_row_decide_together() {
        let server = MysqlServer::shared();
        let store = store(server, &server.create_database(), json!({}));
        let narrow = table(&[("b", ValueType::Int64)]);
        let wide = table(&[("a", ValueType::Int64), ("b", ValueType::Int64)]);
        ensure(&store, &narrow).await;
        write(&store, &narrow, &[1], 10, &[int(1)]).await.unwrap();
        // An older row must not give a value to the feature that is new.
        write(&store, &wide, &[1, 2], 9, &[int(2), int(2)]).await.unwrap();
        assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![None, Some(1)]));
        assert_eq!(read(&store, &wide, 2).await.unwrap(), (Some(9), vec![Some(2), Some(2)]));
        write(&store, &wide, &[1], 10, &[int(3), int(3)]).await.unwrap();
        assert_eq!(read(&store, &wide, 1).await.unwrap(), (Some(10), vec![Some(3), Some(3)]));
    }

    /// Writers that share nothing but the server, as processes do, write equally old and older rows of the same few
    /// entities; whoever reads meanwhile sees each row whole and never going back in time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn rows_are_never_torn() {
        let server = MysqlServer::shared();
        let database = server.create_database();
        let names: Vec<String> = (0..8).map(|n| format!("f{n}")).collect();
        let table = table(&names.iter().map(|name| (name.as_str(), ValueType::Int64)).collect::<Vec<_>>());
        ensure(&store(server, &database, json!({})), &table).await;
        let writer = |number: i64| {
            let (store, table) = (store(server, &database, json!({})), table.clone());
            async move {
                for round in 0..20 {
                    // Half of the events are shared by all writers, so that ties are frequent.
                    let event = round / 2 * 2;
                    let mut ids = if number % 2 == 0 { vec![1, 2, 3] } else { vec![3, 1] };
                    ids.push(100 + round);
                    let row: Vec<ArrayRef> = names_of(&table).map(|_| int(round * 10 + number)).collect();
                    write(&store, &table, &ids, event, &row).await.unwrap();
                }
            }
        };
        let writers: Vec<_> = (0..6).map(|number| tokio::spawn(writer(number))).collect();
        let reader = store(server, &database, json!({}));
        let (mut newest, mut seen) = (None, 0);
        while seen < 20 || !writers.iter().all(tokio::task::JoinHandle::is_finished) {
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
        assert_eq!(read(&reader, &table, 1).await.unwrap().0, Some(18));
        assert_eq!(server.execute(&database, "SELECT count(*) FROM p_v WHERE value IS NULL"), "0");
    }

    fn names_of(table: &OnlineTable) -> impl Iterator<Item = &str> {
        table.columns.iter().map(|column| column.name.as_str())
    }

    #[tokio::test]
    async fn tables_may_be_made_by_many_at_once() {
        let server = MysqlServer::shared();
        let database = server.create_database();
        let table = table(&[("n", ValueType::Int64)]);
        let update = || async {
            let store = store(server, &database, json!({}));
            for _ in 0..3 {
                store.update(&[TableChange::Ensure(table.clone())]).await.unwrap();
            }
        };
        futures::future::join_all((0..6).map(|_| update())).await;
        let store = store(server, &database, json!({}));
        write(&store, &table, &[1], 1, &[int(5)]).await.unwrap();
        assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
    }

    #[tokio::test]
    async fn a_cancelled_call_returns_its_place_in_the_pool() {
        let server = MysqlServer::shared();
        let database = server.create_database();
        let blocked = store(server, &database, json!({}));
        let table = table(&[("n", ValueType::Int64)]);
        ensure(&blocked, &table).await;
        write(&blocked, &table, &[1], 1, &[int(5)]).await.unwrap();
        let other = store(server, &database, json!({}));
        let mut lease = other.lease().await.unwrap_or_else(|failure| panic!("{:?}", failure.error));
        lease.connection().unwrap().query_drop("LOCK TABLES p_v WRITE").await.unwrap();
        for _ in 0..=MOST_CONNECTIONS {
            let read = tokio::time::timeout(Duration::from_millis(30), read(&blocked, &table, 1)).await;
            assert!(read.is_err(), "the table is locked");
        }
        lease.connection().unwrap().query_drop("UNLOCK TABLES").await.unwrap();
        assert_eq!(read(&blocked, &table, 1).await.unwrap(), (Some(1), vec![Some(5)]));
    }

    #[tokio::test]
    async fn a_restarted_server_is_found_again() {
        let mut server = MysqlServer::start();
        let database = server.create_database();
        let store = store(&server, &database, json!({}));
        let table = table(&[("n", ValueType::Int64)]);
        ensure(&store, &table).await;
        for number in 0..2 {
            write(&store, &table, &[1], number, &[int(number)]).await.unwrap();
            let reads = futures::future::join_all((0..6).map(|_| read(&store, &table, 1))).await;
            assert!(reads.into_iter().all(|read| read.unwrap() == (Some(number), vec![Some(number)])));
            server.restart();
        }
        assert_eq!(read(&store, &table, 1).await.unwrap(), (Some(1), vec![Some(1)]));
        store.check().await.unwrap();
        drop(server);
        let error = store.check().await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unavailable);
        assert_eq!(error.hint(), Some("check `host` and `port`, and that the server runs"));
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_without_the_password() {
        let server = MysqlServer::shared();
        let database = server.create_database();
        for (more, code) in [
            (json!({"password": "s3cret"}), ErrorCode::PermissionDenied),
            (json!({"database": "nowhere"}), ErrorCode::Unavailable),
            (json!({"port": 1}), ErrorCode::Unavailable),
        ] {
            let store = store(server, &database, more);
            let error = store.check().await.unwrap_err();
            assert_eq!(error.code(), code, "{error:?}");
            let shown = format!("{store:?} {store} {error:?}");
            assert!(!shown.contains(PASSWORD) && !shown.contains("s3cret"), "{shown}");
        }
        let store = store(server, &database, json!({}));
        let table = table(&[("b", ValueType::Bytes)]);
        ensure(&store, &table).await;
        let long = vec![7; MOST_VALUE_BYTES];
        let row: ArrayRef = Arc::new(BinaryArray::from(vec![long.as_slice()]));
        let error = write(&store, &table, &[1], 1, &[row]).await.unwrap_err();
        assert!(error.message().starts_with("the value of `b` in row 0 has 65539 bytes"), "{error:?}");
        let longest = vec![7; MOST_VALUE_BYTES - 4];
        let row: ArrayRef = Arc::new(BinaryArray::from(vec![longest.as_slice()]));
        write(&store, &table, &(0..40).collect::<Vec<_>>(), 1, &[row]).await.unwrap();
        let long = OnlineTable { view: "v".repeat(64), ..table };
        let error = store.update(&[TableChange::Ensure(long)]).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidDefinition, "{error:?}");
    }

    #[test]
    fn options_are_those_of_feast() {
        let config = MysqlConfig::parse(&json!({})).unwrap();
        assert_eq!((config.host.as_str(), config.port, config.user.as_str()), ("127.0.0.1", 3306, "test"));
        let error = MysqlConfig::parse(&json!({"hots": "h"})).unwrap_err();
        assert_eq!(error.message(), "`online_store.hots` is not a key of online store `mysql`");
        assert!(MysqlConfig::parse(&json!({"batch_write": true})).is_err());
        let config = MysqlConfig::parse(&json!({"batch_write": true, "batch_size": 100})).unwrap();
        assert_eq!(config.cells_in_chunk(), 100);
    }

    #[test]
    fn features_that_differ_in_case_are_refused() {
        let change = TableChange::Ensure(table(&[("Rate", ValueType::Int64), ("rate", ValueType::Int64)]));
        let error = refuse_same_features(&[change]).unwrap_err();
        assert!(error.message().contains("`Rate` and `rate`"), "{error:?}");
    }
}
