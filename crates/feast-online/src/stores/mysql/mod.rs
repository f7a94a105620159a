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

mod config;
mod layout;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
pub use config::MysqlConfig;
use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleResult, TimeoutType};
use feast_core::{
    Error, ErrorCode, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result, StoredTable,
    TableChange,
};
use hashbrown::HashMap;
use layout::{
    CREATED_SHIFT, EVENT_UNIT, MICROS, bytes, comparable, hex, inserts, integer, key_list, micros, name_list, quoted,
    refuse_long, refuse_same_features,
};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};

use super::cells::{Wanted, WriteColumn};
use super::memory::missing_table;
use super::newest::{Recency, newest_rows};
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
            let micros = micros("event_ts", self.is_exact(connection, &read.wanted.table).await?);
            let table = quoted(&read.wanted.table.name());
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
                let named =
                    |read: &&OnlineRead<'_>| error.to_string().contains(&format!(".{}'", read.wanted.table.name()));
                self.table_failure("read", &reads.iter().find(named).unwrap_or(&reads[0]).wanted.table, error)
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
