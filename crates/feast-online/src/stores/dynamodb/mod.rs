//! Amazon DynamoDB in Feast's layout: one table per view, one item per entity.
//!
//! An item has `entity_id` (the key: a hash of the serialized entity key, in hexadecimal digits), `event_ts` (the event
//! time as Python writes it, in UTC) and `values` (a map from features to serialized values). Created times are not
//! kept, as in Feast.
//!
//! Reads: the distinct keys of all views of a request, 100 per `BatchGetItem`, several at the same time. Only the wanted
//! features come back. Keys that DynamoDB leaves out are asked for again.
//!
//! Writes: a `PutItem` per row, on the condition that the stored row is not newer: DynamoDB compares, so that writers at
//! the same time agree. The texts of times in UTC are in the order of their times. Where somebody wrote another zone,
//! the store compares and writes on the condition that nothing changed meanwhile. Batches have no conditions.
//!
//! Limits: names of tables are letters, digits, `_`, `-` and `.`; items have 400 KB; a read sees what was written up to
//! about a second before, unless `consistent_reads` is set.

mod client;
mod config;
mod reading;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use arrow::array::BinaryArray;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use feast_core::{
    Error, ErrorCode, OnlineRead, OnlineRows, OnlineStore, OnlineWrite, Result, StoredTable, TableChange,
};
use feast_net::AwsSigner;
use feast_proto::value_codec::encode_column;
use futures::StreamExt as _;
use futures::stream::{self, FuturesUnordered, TryStreamExt as _};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use self::client::{Client, Refusal};
pub use self::config::{DynamoConfig, RetryMode};
use self::reading::{Answer, Kept, Reading, batches, format_time, json_text, parse_time};
use super::entity_id::EntityId;
use super::memory::missing_table;
use super::newest::newest_rows;
use super::per_process::PerProcess;

/// How often in a row DynamoDB may answer without a single item of those that are left.
const MOST_IDLE_ANSWERS: u32 = 8;

/// The longest pause before keys that were left out are asked for again; it doubles while nothing comes.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// Rows in one write: each is a request of its own.
const BATCH_ROWS: usize = 500;

/// How often a row is written again because its item changed at the same moment.
const MOST_RACES: usize = 8;

type MakeSigner = fn(&DynamoConfig) -> AwsSigner;

/// Tables of DynamoDB.
pub struct DynamoStore {
    config: DynamoConfig,
    signer: MakeSigner,
    client: PerProcess<Client>,
}

impl DynamoStore {
    /// A store in the region that the options name. Nothing is opened before the first call.
    ///
    /// # Errors
    /// `InvalidConfiguration`.
    pub fn connect(options: &Value) -> Result<Self> {
        Self::with_signer(options, |config| AwsSigner::new(&config.region, "dynamodb"))
    }

    fn with_signer(options: &Value, signer: MakeSigner) -> Result<Self> {
        Ok(Self { config: DynamoConfig::parse(options)?, signer, client: PerProcess::default() })
    }

    fn client(&self) -> Result<std::sync::Arc<(u32, Client)>> {
        self.client.get_or_make(|| Client::new(&self.config, (self.signer)(&self.config)))
    }

    fn understand<'a, T: Deserialize<'a>>(&self, operation: &str, answer: &'a [u8]) -> Result<T> {
        serde_json::from_slice(answer).map_err(|error| {
            Error::unavailable(format!("the answer of DynamoDB to `{operation}` is not understood"))
                .with_context("online store", self)
                .with_source(error)
                .with_hint("check that `online_store.endpoint_url` is DynamoDB")
        })
    }

    /// Which of some tables is missing, as an error.
    async fn missing(&self, client: &Client, reads: &[OnlineRead<'_>], refusal: Refusal) -> Result<Error> {
        for read in reads {
            if !self.has_table(client, &self.config.table_name(&read.wanted.table)).await? {
                return Ok(missing_table(&read.wanted.table, self));
            }
        }
        Ok(refusal.into_error(self))
    }

    async fn read_all(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        let current = self.client()?;
        let client = &current.1;
        let tables: Vec<String> = reads.iter().map(|read| self.config.table_name(&read.wanted.table)).collect();
        let sizes: Vec<usize> = reads.iter().map(|read| read.keys.len()).collect();
        let mut readings: Vec<Reading<'_>> = reads.iter().map(Reading::of).collect();
        let mut waiting: VecDeque<Work> = VecDeque::new();
        for batch in batches(&sizes, &tables, self.config.batch_size) {
            let mut body = "{\"RequestItems\":{".to_owned();
            for (number, (read, keys)) in batch.0.iter().enumerate() {
                body.push_str(if number == 0 { "" } else { "," });
                body.push_str(&json_text(&tables[*read]));
                body.push(':');
                readings[*read].write_part(&mut body, keys, &self.config);
            }
            body.push_str("}}");
            waiting.push_back(Work {
                reads: batch.0.iter().map(|(read, _)| *read).collect(),
                body: body.into(),
                idle: 0,
            });
        }
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.config.max_read_workers
                && let Some(work) = waiting.pop_front()
            {
                running.push(async move {
                    if work.idle > 0 {
                        sleep((FIRST_PAUSE * 2u32.pow(work.idle - 1)).mul_f64(0.5 + 0.5 * fastrand::f64())).await;
                    }
                    let answer = client.call(self, "BatchGetItem", work.body.clone()).await?;
                    Ok::<_, Error>((work, answer))
                });
            }
            let Some(done) = running.next().await else { break };
            let (work, answer) = done?;
            let answer = match answer {
                Ok(answer) => answer,
                Err(refusal) if refusal.is_missing_table() => {
                    let reads: Vec<OnlineRead<'_>> = work.reads.iter().map(|read| reads[*read]).collect();
                    return Err(self.missing(client, &reads, refusal).await?);
                }
                Err(refusal) => return Err(refusal.into_error(self)),
            };
            let answer: Answer<'_> = self.understand("BatchGetItem", &answer)?;
            let mut came = 0;
            for (name, items) in &answer.tables.0 {
                let read = work.reads.iter().copied().find(|read| tables[*read] == name.as_ref());
                let Some(read) = read else { continue };
                came += items.len();
                for item in items {
                    readings[read].keep(item).map_err(|error| error.with_context("online store", self))?;
                }
            }
            if let Some(rest) = answer.rest() {
                let idle = if came > 0 { 1 } else { work.idle + 1 };
                if idle > MOST_IDLE_ANSWERS {
                    return Err(Error::unavailable("DynamoDB keeps leaving out keys that it was asked for")
                        .with_context("online store", self)
                        .with_hint("the tables are throttled: raise their capacity, or ask for less at once"));
                }
                waiting.push_back(Work { body: rest, idle, ..work });
            }
        }
        readings.into_iter().map(Reading::finish).collect()
    }

    /// Writes one row, unless a newer one is there.
    async fn put(&self, client: &Client, write: &OnlineWrite<'_>, cells: &[Cells], row: usize) -> Result<()> {
        let micros = write.event_timestamps.value(row);
        let event = format_time(micros).ok_or_else(|| {
            Error::new(ErrorCode::InvalidEventTimestamp, "an event time is outside of the years 1 to 9999")
                .with_context("feature view", &write.table.view)
                .with_hint("leave the row out, or correct its event time")
        })?;
        let mut body = "{\"TableName\":".to_owned();
        body.push_str(&json_text(&self.config.table_name(write.table)));
        body.push_str(",\"Item\":{\"entity_id\":{\"S\":\"");
        body.push_str(&EntityId::of(write.keys.encoded.value(row)).to_string());
        body.push_str("\"},\"event_ts\":{\"S\":\"");
        body.push_str(&event);
        body.push_str("\"},\"values\":{\"M\":{");
        for (number, column) in cells.iter().enumerate() {
            body.push_str(if number == 0 { "" } else { "," });
            body.push_str(&column.name);
            body.push_str(":{\"B\":\"");
            STANDARD.encode_string(column.cells.value(row), &mut body);
            body.push_str("\"}");
        }
        body.push_str("}}},\"ExpressionAttributeNames\":{\"#t\":\"event_ts\"}");
        body.push_str(",\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\",\"ConditionExpression\":");
        let mut condition = format!(
            "\"attribute_not_exists(#t) OR (#t <= :t AND contains(#t, :z))\",\
             \"ExpressionAttributeValues\":{{\":t\":{{\"S\":\"{event}\"}},\":z\":{{\"S\":\"+00:00\"}}}}}}"
        );
        for _ in 0..MOST_RACES {
            let refusal = match client.write(self, "PutItem", format!("{body}{condition}")).await? {
                Ok(_) => return Ok(()),
                Err(refusal) => refusal,
            };
            if refusal.is_missing_table() {
                return Err(missing_table(write.table, self));
            }
            if refusal.kind != "ConditionalCheckFailedException" {
                return Err(refusal.into_error(self).with_context("feature view", &write.table.view));
            }
            let kept: Kept<'_> = self.understand("PutItem", &refusal.body)?;
            // A stored time that nobody can read loses.
            let Some(stored) = kept.event_time() else { return Ok(()) };
            if parse_time(stored).is_some_and(|stored| stored > micros) {
                return Ok(());
            }
            condition =
                format!("\"#t = :t\",\"ExpressionAttributeValues\":{{\":t\":{{\"S\":{}}}}}}}", json_text(stored));
        }
        Err(Error::new(ErrorCode::Conflict, "a row was changed by others again and again while it was written")
            .with_context("online store", self)
            .with_context("feature view", &write.table.view)
            .with_hint("write the rows again"))
    }
}

/// A request that has been or will be sent.
struct Work {
    reads: Vec<usize>,
    body: Bytes,
    /// How many answers in a row had nothing.
    idle: u32,
}

/// A feature of a write: its name in JSON, and its serialized values.
struct Cells {
    name: String,
    cells: BinaryArray,
}

impl fmt::Debug for DynamoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoStore").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Display for DynamoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.config.endpoint_url {
            Some(url) => write!(f, "dynamodb at `{url}`"),
            None => write!(f, "dynamodb in `{}`", self.config.region),
        }
    }
}

#[async_trait]
impl OnlineStore for DynamoStore {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        let limit = self.config.call_timeout();
        timeout(limit, self.read_all(reads)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorCode::Timeout, format!("DynamoDB did not give all rows within {} s", limit.as_secs()))
                .with_context("online store", self)
                .with_hint("see whether the tables are throttled, or ask for less at once"))
        })
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let cells = columns.map(|(field, column)| {
            let cells = encode_column(column, field.value_type);
            let cells = cells.map_err(|error| error.with_context("feature", &field.name))?;
            Ok(Cells { name: json_text(&field.name), cells })
        });
        let cells = cells.collect::<Result<Vec<Cells>>>()?;
        let current = self.client()?;
        let (client, write, cells) = (&current.1, &write, &cells);
        stream::iter(newest_rows(write))
            .map(|row| self.put(client, write, cells, row))
            .buffer_unordered(self.config.max_pool_connections)
            .try_collect()
            .await
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        let current = self.client()?;
        let client = &current.1;
        // All are made before any is waited for, which takes DynamoDB some seconds each.
        let mut made = Vec::new();
        for change in changes {
            match change {
                TableChange::Ensure(table) => made.push((table, self.make_table(client, table).await?)),
                TableChange::Drop(table) => {
                    made.retain(|(other, _)| other.name() != table.name());
                    self.drop_table(client, table).await?;
                }
            }
        }
        for (table, was_there) in made {
            self.wait_for_table(client, table).await?;
            if was_there {
                self.label_table(client, table).await?;
            }
        }
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let current = self.client()?;
        match current.1.call(self, "ListTables", "{\"Limit\":1}").await? {
            Ok(_) => Ok(()),
            // Whoever may not list tables was let in.
            Err(refusal) if refusal.is_denied() => Ok(()),
            Err(refusal) => Err(refusal.into_error(self)),
        }
    }

    fn preferred_batch_rows(&self) -> usize {
        BATCH_ROWS
    }

    async fn stored_tables(&self, project: &str) -> Result<Option<Vec<StoredTable>>> {
        let current = self.client()?;
        self.list_tables(&current.1, project).await
    }
}
