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
mod connection;
mod layout;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt;

use async_trait::async_trait;
pub use config::MysqlConfig;
use connection::{Connections, Lost};
use feast_core::{OnlineRead, OnlineRows, OnlineTable, OnlineWrite, Result, StoredTable, TableChange};
use hashbrown::HashMap;
use layout::{
    CREATED_SHIFT, EVENT_UNIT, bytes, comparable, hex, inserts, integer, key_list, micros, name_list, quoted,
    refuse_long, refuse_same_features,
};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};

use super::cells::{Wanted, WriteColumn};
use super::newest::Recent as _;
use super::retry::Failure;
use super::sql::{Dialect, Seen, SqlStore};

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

/// A store in the database that the options name. Nothing is opened before the first call.
///
/// # Errors
/// `InvalidConfiguration`.
pub(super) fn connect(options: &serde_json::Value) -> Result<SqlStore<Mysql>> {
    let config = MysqlConfig::parse(options)?;
    Ok(SqlStore::new(Mysql { config, exact: Seen::default(), lost: Lost::default() }))
}

/// MySQL or MariaDB in Feast's layout.
#[derive(Debug)]
pub(super) struct Mysql {
    config: MysqlConfig,
    /// Which tables have our columns for microseconds.
    exact: Seen<bool>,
    lost: Lost,
}

impl fmt::Display for Mysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MysqlConfig { host, port, database, .. } = &self.config;
        write!(f, "mysql at `{host}:{port}/{database}`")
    }
}

#[async_trait]
impl Dialect for Mysql {
    type Connections = Connections;

    const BATCH_ROWS: usize = MOST_KEYS;
    const BUSY_HINT: &'static str = "see whether the server is overloaded, or a table locked";

    fn connections(&self) -> Connections {
        Connections::new(&self.config, self.lost.clone())
    }

    fn most_connections(&self) -> usize {
        MOST_CONNECTIONS
    }

    fn failure(&self, doing: &str, error: mysql_async::Error) -> Failure {
        self.failed(doing, error)
    }

    async fn ping(&self, connection: &mut Conn) -> Result<(), Failure> {
        connection.query_drop("SELECT 1").await.map_err(|error| self.failed("reach", error))
    }

    async fn read(&self, connection: &mut Conn, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>, Failure> {
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

    fn chunks<'a>(
        &self,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &'a [usize],
    ) -> Result<Vec<&'a [usize]>> {
        refuse_long(write, columns)?;
        Ok(rows.chunks((self.config.cells_in_chunk() / columns.len().max(1)).clamp(1, MOST_KEYS)).collect())
    }

    async fn write(
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

        let recencies = rows.iter().map(|row| comparable(write.recency(*row), exact));
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

    fn refuse_same_names(&self, changes: &[TableChange]) -> Result<()> {
        refuse_same_features(changes)
    }

    async fn update(&self, connection: &mut Conn, changes: &[TableChange]) -> Result<(), Failure> {
        self.change(connection, changes).await
    }

    async fn list(&self, connection: &mut Conn, project: &str) -> Result<Vec<StoredTable>, Failure> {
        tables::list(connection, project).await.map_err(|error| self.failed("read", error))
    }

    async fn newest(&self, connection: &mut Conn, table: &OnlineTable) -> Result<Option<i64>, Failure> {
        let micros = micros("event_ts", self.is_exact(connection, table).await?);
        let query = format!("SELECT MAX({micros}) FROM {} t", quoted(&table.name()));
        let row: Option<Row> =
            connection.query_first(query).await.map_err(|error| self.table_failure("read", table, error))?;
        Ok(row.and_then(|row| integer(&row, 0)).and_then(|micros| i64::try_from(micros).ok()))
    }
}
