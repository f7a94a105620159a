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

mod config;
mod connection;
mod tables;
#[cfg(test)]
mod tests;
mod upsert;
mod values;

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
pub use config::PostgresConfig;
use deadpool_postgres::{ClientWrapper, Manager};
use feast_core::{Error, OnlineRead, OnlineRows, OnlineTable, OnlineWrite, Result, StoredTable, TableChange};
use tables::{Shape, literal, refuse_shared_tables};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};
use upsert::Upsert;
use values::Micros;

use super::cells::{Wanted, WriteColumn};
use super::newest::{Recency, Recent as _};
use super::retry::Failure;
use super::sql::{Dialect, Seen, SqlStore};

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

/// A store in the database that the options name. Nothing is opened before the first call.
///
/// # Errors
/// `InvalidConfiguration`.
pub(super) fn connect(options: &serde_json::Value) -> Result<SqlStore<Postgres>> {
    Ok(SqlStore::new(Postgres { config: PostgresConfig::parse(options)?, shapes: Seen::default() }))
}

/// PostgreSQL in Feast's layout.
#[derive(Debug)]
pub(super) struct Postgres {
    config: PostgresConfig,
    /// Which optional columns the tables have that were written to.
    shapes: Seen<Shape>,
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PostgresConfig { host, port, database, .. } = &self.config;
        write!(f, "postgres at `{host}:{port}/{database}`, schema `{}`", self.config.schema())
    }
}

#[async_trait]
impl Dialect for Postgres {
    type Connections = Manager;

    const BATCH_ROWS: usize = MOST_CHUNK_ROWS;
    const BUSY_HINT: &'static str = "raise `online_store.max_conn`, with `conn_type: pool`";

    fn connections(&self) -> Manager {
        self.config.connections()
    }

    fn most_connections(&self) -> usize {
        self.config.n_connections()
    }

    fn connections_ahead(&self) -> usize {
        // The call that makes the pool opens one of them.
        Some(self.config.min_conn.min(self.config.n_connections())).filter(|ahead| *ahead > 1).unwrap_or_default()
    }

    fn failure(&self, doing: &str, error: tokio_postgres::Error) -> Failure {
        self.failed(doing, error)
    }

    async fn ping(&self, client: &mut ClientWrapper) -> Result<(), Failure> {
        client.simple_query("SELECT 1").await.map(drop).map_err(|error| self.failed("reach", error))
    }

    async fn read(&self, client: &mut ClientWrapper, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>, Failure> {
        let client = &*client;
        // Prepared once per connection, all together; then read all together.
        let texts: Vec<String> =
            reads.iter().map(|read| read_statement(&self.qualified(&read.wanted.table.name()))).collect();
        let mut preparing = Vec::with_capacity(reads.len());
        for text in &texts {
            preparing.push(client.prepare_typed_cached(text, &[Type::BYTEA_ARRAY, Type::TEXT_ARRAY]));
        }
        let mut queries = Vec::with_capacity(reads.len());
        for (statement, read) in futures::future::join_all(preparing).await.into_iter().zip(reads) {
            let statement = statement.map_err(|error| self.table_failure("read", &read.wanted.table, error))?;
            queries.push(read_table(client, statement, read));
        }
        let answers = futures::future::join_all(queries).await;
        let answers = answers.into_iter().zip(reads).map(|(answer, read)| {
            answer.map_err(|unread| match unread {
                Unread::Refused(error) => self.table_failure("read", &read.wanted.table, error),
                Unread::Malformed(error) => Failure::from(error),
            })
        });
        answers.collect()
    }

    fn chunks<'a>(
        &self,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &'a [usize],
    ) -> Result<Vec<&'a [usize]>> {
        Ok(chunks(write, columns, rows))
    }

    async fn write(
        &self,
        client: &mut ClientWrapper,
        write: &OnlineWrite<'_>,
        columns: &[WriteColumn<'_>],
        rows: &[usize],
    ) -> Result<(), Failure> {
        let client = &*client;
        let failed = |error| self.table_failure("write to", write.table, error);
        let shape = self.shape(client, write.table).await?;
        let name = self.qualified(&write.table.name());
        let lock = client.prepare_typed_cached(&lock_statement(&name), &[Type::INT4_ARRAY]).await.map_err(failed)?;
        let key = |row: usize| write.keys.encoded.value(row);
        let locks: BTreeSet<u32> = rows.iter().map(|row| stripe(key(*row))).collect();
        let locks: Vec<i32> = locks.into_iter().map(u32::cast_signed).collect();
        let keys: Vec<&[u8]> = rows.iter().map(|row| key(*row)).collect();
        let recencies: Vec<Recency> = rows.iter().map(|row| write.recency(*row)).collect();
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

    fn refuse_same_names(&self, changes: &[TableChange]) -> Result<()> {
        refuse_shared_tables(changes)
    }

    async fn update(&self, client: &mut ClientWrapper, changes: &[TableChange]) -> Result<(), Failure> {
        self.change(client, changes).await
    }

    async fn list(&self, client: &mut ClientWrapper, project: &str) -> Result<Vec<StoredTable>, Failure> {
        self.stored_tables(client, project).await
    }

    async fn newest(&self, client: &mut ClientWrapper, table: &OnlineTable) -> Result<Option<i64>, Failure> {
        let newest = "max(event_ts) FILTER (WHERE isfinite(event_ts))";
        let query =
            format!("SELECT (extract(epoch FROM {newest}) * 1000000)::int8 FROM {}", self.qualified(&table.name()));
        let row = client.query_one(&query, &[]).await;
        Ok(row.map_err(|error| self.table_failure("read", table, error))?.get(0))
    }
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
