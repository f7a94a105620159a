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
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
pub use config::PostgresConfig;
use deadpool_postgres::{ClientWrapper, Pool};
use feast_core::{
    Error, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result, StoredTable, TableChange,
};
use hashbrown::HashMap;
use tables::{Shape, literal, refuse_shared_tables};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};
use upsert::Upsert;
use values::Micros;

use super::cells::{Wanted, WriteColumn};
use super::newest::{Recency, newest_rows};
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

impl PostgresStore {
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
