//! Google Cloud Datastore (Firestore in Datastore mode) in Feast's layout.
//!
//! A row is an entity with the key `Project/<project>`, `Table/<view>`, `Row/<hash of the entity key>`. It has `key` (the
//! entity key, serialized), `values` (an entity within: one blob per feature), `event_ts` and `created_ts`. The table
//! is an entity too, which says that it was applied.
//!
//! Reads: the keys of all views of a request, a thousand per call, several at the same time. Writes: transactions of
//! `write_batch_size` rows, which look at the stored times first. Calls that others were faster than begin again.
//!
//! `emulator_host` leads to an emulator; it is a key of ours, where Google's clients have a variable.

mod client;
mod messages;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::BinaryArray;
use async_trait::async_trait;
use feast_core::{
    Error, ErrorCode, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result, TableChange,
};
use feast_proto::value_codec::encode_column;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use hashbrown::{HashMap, HashSet};
use prost::Message as _;
use prost_types::Timestamp;
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use self::client::Client;
use self::messages as m;
use self::messages::ValueType as V;
use super::cells::{Grid, Wanted};
use super::entity_id::EntityId;
use super::memory::missing_table;
use super::newest::{Recency, Recent as _, newest_rows};
use super::options;
use super::per_process::PerProcess;

/// The most keys that Datastore looks up at once.
const MOST_KEYS: usize = 1000;

/// The most changes in one commit.
const MOST_CHANGES: usize = 500;

/// Calls of one read at the same time.
const READS_AT_ONCE: usize = 10;

/// How often a transaction begins again because others changed the same rows.
const MOST_RACES: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The `online_store` part of `feature_store.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatastoreConfig {
    /// `datastore`.
    #[serde(rename = "type")]
    store_type: String,
    /// The project of Google Cloud; default: that of the credentials.
    pub project_id: Option<String>,
    /// The namespace of all entities; default: the one without a name.
    pub namespace: Option<String>,
    /// The database; default: the one without a name.
    pub database: Option<String>,
    /// `host:port` of an emulator, which is asked in place of Google.
    pub emulator_host: Option<String>,
    /// Transactions of one write at the same time; default 40.
    pub write_concurrency: usize,
    /// Rows in one transaction, 500 at most; default 50.
    pub write_batch_size: usize,
}

const KEYS: &[&str] =
    &["type", "project_id", "namespace", "database", "emulator_host", "write_concurrency", "write_batch_size"];

impl Default for DatastoreConfig {
    fn default() -> Self {
        Self {
            store_type: "datastore".to_owned(),
            project_id: None,
            namespace: None,
            database: None,
            emulator_host: None,
            write_concurrency: 40,
            write_batch_size: 50,
        }
    }
}

impl DatastoreConfig {
    /// Reads the options; none are the defaults.
    ///
    /// # Errors
    /// `InvalidConfiguration` for unknown keys, listing the valid ones, and for values that are none.
    pub fn parse(given: &serde_json::Value) -> Result<Self> {
        let numbers = ["write_concurrency", "write_batch_size"];
        let config: Self = options::parse("datastore", KEYS, &[], &numbers, given)?;
        for (key, value, most) in [
            ("write_concurrency", config.write_concurrency, usize::MAX),
            ("write_batch_size", config.write_batch_size, MOST_CHANGES),
        ] {
            if value == 0 || value > most {
                let most = if most == usize::MAX { "more".to_owned() } else { most.to_string() };
                return Err(Error::invalid_configuration(format!("`online_store.{key}` is {value}"))
                    .with_hint(format!("expected 1 to {most}")));
            }
        }
        Ok(config)
    }
}

/// Entities of Datastore.
pub struct DatastoreStore {
    config: DatastoreConfig,
    emulator: Option<String>,
    client: PerProcess<OnceCell<Client>>,
}

impl DatastoreStore {
    /// A store in the project that the options name. Nothing is opened before the first call.
    ///
    /// # Errors
    /// `InvalidConfiguration`.
    pub fn connect(options: &serde_json::Value) -> Result<Self> {
        Self::at(None, options)
    }

    fn at(emulator: Option<String>, options: &serde_json::Value) -> Result<Self> {
        let config = DatastoreConfig::parse(options)?;
        let emulator = emulator.or_else(|| config.emulator_host.clone());
        Ok(Self { config, emulator, client: PerProcess::default() })
    }

    async fn with_client<'a>(&self, current: &'a Arc<(u32, OnceCell<Client>)>) -> Result<&'a Client> {
        let database = self.config.database.as_deref().unwrap_or_default();
        let made = current
            .1
            .get_or_try_init(|| Client::connect(self.emulator.as_deref(), self.config.project_id.as_deref(), database));
        made.await.map_err(|error| error.with_context("online store", self))
    }

    fn current(&self) -> Result<Arc<(u32, OnceCell<Client>)>> {
        self.client.get_or_make(|| Ok(OnceCell::new()))
    }

    fn partition(&self, client: &Client) -> m::PartitionId {
        m::PartitionId {
            project_id: client.project.clone(),
            database_id: client.database.clone(),
            namespace_id: self.config.namespace.clone().unwrap_or_default(),
        }
    }

    fn table_key(&self, client: &Client, table: &OnlineTable) -> m::Key {
        let element = |kind: &str, name: &str| m::PathElement { kind: kind.to_owned(), name: name.to_owned() };
        let path = vec![element("Project", &table.project), element("Table", &table.view)];
        m::Key { partition_id: Some(self.partition(client)), path }
    }

    fn row_key(table: &m::Key, id: EntityId) -> m::Key {
        let mut key = table.clone();
        key.path.push(m::PathElement { kind: "Row".to_owned(), name: id.to_string() });
        key
    }

    /// The entities of some keys, as far as there are any.
    async fn look_up(&self, client: &Client, keys: Vec<m::Key>, transaction: Option<&[u8]>) -> Result<Vec<m::Entity>> {
        let read_options = transaction.map(|id| m::ReadOptions { transaction: Some(id.to_vec()) });
        let mut request = m::LookupRequest {
            project_id: client.project.clone(),
            database_id: client.database.clone(),
            read_options,
            keys,
        };
        let mut entities = Vec::new();
        let mut idle = 0;
        while !request.keys.is_empty() {
            let answer: m::LookupResponse = client.call(self, "Lookup", &request).await?;
            idle = if answer.deferred.len() < request.keys.len() { 0 } else { idle + 1 };
            if idle > 5 {
                return Err(Error::unavailable("Datastore keeps putting off keys that it was asked for")
                    .with_context("online store", self)
                    .with_hint("ask for less at once"));
            }
            entities.extend(answer.found.into_iter().filter_map(|found| found.entity));
            request.keys = answer.deferred;
        }
        Ok(entities)
    }

    async fn commit(&self, client: &Client, operations: Vec<m::Operation>, transaction: Option<Vec<u8>>) -> Result<()> {
        let is_alone = transaction.is_none();
        let request = m::CommitRequest {
            project_id: client.project.clone(),
            database_id: client.database.clone(),
            mode: if is_alone { 2 } else { 1 },
            transaction,
            mutations: operations.into_iter().map(|one| m::Mutation { operation: Some(one) }).collect(),
        };
        let _committed: m::CommitResponse = match is_alone {
            true => client.call_alone(self, "Commit", &request).await?,
            false => client.call(self, "Commit", &request).await?,
        };
        Ok(())
    }

    /// Writes some rows, unless newer ones are there, in one transaction.
    async fn write_rows(&self, client: &Client, rows: &[(Recency, m::Entity)]) -> Result<()> {
        let mut races = 0;
        loop {
            match self.try_rows(client, rows).await {
                Err(error) if error.code() == ErrorCode::Conflict && races < MOST_RACES => {
                    let pause = FIRST_PAUSE * 2u32.pow(races.min(6));
                    sleep(pause.mul_f64(fastrand::f64())).await;
                    races += 1;
                }
                done => return done,
            }
        }
    }

    async fn try_rows(&self, client: &Client, rows: &[(Recency, m::Entity)]) -> Result<()> {
        let (project_id, database_id) = (client.project.clone(), client.database.clone());
        let request = m::BeginTransactionRequest { project_id: project_id.clone(), database_id: database_id.clone() };
        let begun: m::BeginTransactionResponse = client.call(self, "BeginTransaction", &request).await?;
        let transaction = begun.transaction;
        let keys = rows.iter().filter_map(|(_, entity)| entity.key.clone()).collect();
        let stored = self.look_up(client, keys, Some(&transaction)).await?;
        let stored: HashMap<&str, Recency> =
            stored.iter().filter_map(|entity| Some((row_name(entity)?, recency(entity)?))).collect();
        let wins = |(recency, entity): &&(Recency, m::Entity)| {
            row_name(entity).and_then(|name| stored.get(name)).is_none_or(|stored| stored <= recency)
        };
        let operations: Vec<m::Operation> =
            rows.iter().filter(wins).map(|(_, entity)| m::Operation::Upsert(entity.clone())).collect();
        if operations.is_empty() {
            let request = m::RollbackRequest { project_id, database_id, transaction };
            return client.call::<_, m::RollbackResponse>(self, "Rollback", &request).await.map(drop);
        }
        self.commit(client, operations, Some(transaction)).await
    }

    async fn drop_table(&self, client: &Client, table: &OnlineTable) -> Result<()> {
        let key = self.table_key(client, table);
        let named = |name: &str| Some(m::Named2 { name: name.to_owned() });
        let query = m::Query {
            projection: vec![m::Projection { property: named("__key__") }],
            kind: vec![m::Named1 { name: "Row".to_owned() }],
            filter: Some(m::Filter {
                property_filter: Some(m::PropertyFilter {
                    property: named("__key__"),
                    op: 11,
                    value: Some(value(V::Key(key.clone()), false)),
                }),
            }),
            start_cursor: Vec::new(),
            limit: Some(MOST_CHANGES as i32),
        };
        loop {
            let request = m::RunQueryRequest {
                project_id: client.project.clone(),
                database_id: client.database.clone(),
                partition_id: Some(self.partition(client)),
                query: Some(query.clone()),
            };
            let answer: m::RunQueryResponse = client.call_alone(self, "RunQuery", &request).await?;
            let found = answer.batch.map(|batch| batch.entity_results).unwrap_or_default();
            let keys: Vec<m::Key> = found.into_iter().filter_map(|found| found.entity?.key).collect();
            if keys.is_empty() {
                break;
            }
            self.commit(client, keys.into_iter().map(m::Operation::Delete).collect(), None).await?;
        }
        self.commit(client, vec![m::Operation::Delete(key)], None).await
    }
}

impl fmt::Debug for DatastoreStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatastoreStore").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Display for DatastoreStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.emulator, &self.config.project_id) {
            (Some(host), _) => write!(f, "datastore at `{host}`"),
            (None, Some(project)) => write!(f, "datastore of project `{project}`"),
            (None, None) => f.write_str("datastore"),
        }
    }
}

#[async_trait]
impl OnlineStore for DatastoreStore {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        let current = self.current()?;
        let client = self.with_client(&current).await?;
        let mut readings: Vec<Reading<'_>> = reads.iter().map(Reading::of).collect();
        let mut keys: Vec<m::Key> = Vec::new();
        let mut asked: HashSet<(String, Option<EntityId>)> = HashSet::new();
        for reading in &readings {
            let table = self.table_key(client, &reading.read.wanted.table);
            let name = reading.read.wanted.table.name();
            if asked.insert((name.clone(), None)) {
                keys.push(table.clone());
            }
            let new = reading.ids.iter().filter(|id| asked.insert((name.clone(), Some(**id))));
            keys.extend(new.map(|id| Self::row_key(&table, *id)));
        }
        let chunks: Vec<Vec<m::Key>> = keys.chunks(MOST_KEYS).map(<[m::Key]>::to_vec).collect();
        let mut answers =
            stream::iter(chunks).map(|keys| self.look_up(client, keys, None)).buffer_unordered(READS_AT_ONCE);
        while let Some(entities) = answers.try_next().await? {
            for entity in entities {
                for reading in &mut readings {
                    reading.keep(&entity).map_err(|error| error.with_context("online store", self))?;
                }
            }
        }
        readings
            .into_iter()
            .map(|reading| match reading.has_table {
                true => reading.wanted.finish(&reading.grid, Vec::as_slice),
                false => Err(missing_table(&reading.read.wanted.table, self)),
            })
            .collect()
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        let current = self.current()?;
        let client = self.with_client(&current).await?;
        let table = self.table_key(client, write.table);
        if self.look_up(client, vec![table.clone()], None).await?.is_empty() {
            return Err(missing_table(write.table, self));
        }
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let cells = columns
            .map(|(field, column)| {
                let cells = encode_column(column, field.value_type);
                Ok((field.name.as_str(), cells.map_err(|error| error.with_context("feature", &field.name))?))
            })
            .collect::<Result<Vec<(&str, BinaryArray)>>>()?;
        let key_columns = write.table.join_keys.iter().filter_map(|field| {
            let column = write.keys.columns.column_by_name(&field.name)?;
            Some(encode_column(column, field.value_type).map(|cells| (field.name.as_str(), cells)))
        });
        let key_columns = key_columns.collect::<Result<Vec<(&str, BinaryArray)>>>()?;
        let entity = |row: usize| {
            let recency = write.recency(row);
            let entity_key = m::EntityKey {
                join_keys: key_columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
                entity_values: key_columns.iter().map(|(_, cells)| cells.value(row).to_vec()).collect(),
            };
            let features = cells
                .iter()
                .map(|(name, cells)| ((*name).to_owned(), value(V::Blob(cells.value(row).to_vec()), true)))
                .collect();
            let created = recency.created.map_or(V::Null(0), |created| V::Timestamp(timestamp(created)));
            let properties = [
                ("key", value(V::Blob(entity_key.encode_to_vec()), false)),
                ("values", value(V::Entity(m::Entity { key: None, properties: features }), true)),
                ("event_ts", value(V::Timestamp(timestamp(recency.event)), true)),
                ("created_ts", value(created, true)),
            ];
            let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let key = Self::row_key(&table, EntityId::of(write.keys.encoded.value(row)));
            (recency, m::Entity { key: Some(key), properties })
        };
        let rows: Vec<(Recency, m::Entity)> = newest_rows(&write).into_iter().map(entity).collect();
        let (rows, size) = (&rows, self.config.write_batch_size);
        stream::iter((0..rows.len()).step_by(size))
            .map(|start| self.write_rows(client, &rows[start..rows.len().min(start + size)]))
            .buffer_unordered(self.config.write_concurrency)
            .try_collect()
            .await
            .map_err(|error: Error| error.with_context("feature view", &write.table.view))
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        let current = self.current()?;
        let client = self.with_client(&current).await?;
        for change in changes {
            match change {
                TableChange::Ensure(table) => {
                    let now = value(V::Timestamp(timestamp(chrono::Utc::now().timestamp_micros())), true);
                    let entity = m::Entity {
                        key: Some(self.table_key(client, table)),
                        properties: [("created_ts".to_owned(), now)].into(),
                    };
                    self.commit(client, vec![m::Operation::Upsert(entity)], None).await?;
                }
                TableChange::Drop(table) => self.drop_table(client, table).await?,
            }
        }
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let current = self.current()?;
        let client = self.with_client(&current).await?;
        let path = vec![m::PathElement { kind: "Project".to_owned(), name: "check".to_owned() }];
        let key = m::Key { partition_id: Some(self.partition(client)), path };
        self.look_up(client, vec![key], None).await.map(drop)
    }

    /// Feast has one kind per view here, whatever the configuration says.
    fn has_tables_of_versions(&self) -> bool {
        false
    }

    fn preferred_batch_rows(&self) -> usize {
        self.config.write_batch_size * self.config.write_concurrency.min(40)
    }
}

/// One read of a request, and what has been found so far.
struct Reading<'a> {
    read: &'a OnlineRead<'a>,
    wanted: Wanted<'a>,
    ids: Vec<EntityId>,
    rows: HashMap<EntityId, usize>,
    grid: Grid<Vec<u8>>,
    has_table: bool,
}

impl<'a> Reading<'a> {
    fn of(read: &'a OnlineRead<'a>) -> Self {
        let wanted = Wanted::of(read);
        let ids: Vec<EntityId> = read.keys.encoded.iter().flatten().map(EntityId::of).collect();
        let rows = ids.iter().enumerate().map(|(row, id)| (*id, row)).collect();
        let grid = wanted.grid();
        Self { read, wanted, ids, rows, grid, has_table: false }
    }

    /// Keeps an entity that belongs to this read.
    fn keep(&mut self, entity: &m::Entity) -> Result<()> {
        let path = entity.key.as_ref().map(|key| key.path.as_slice()).unwrap_or_default();
        let (table, rest) = match path {
            [project, view, rest @ ..] if project.name == self.read.wanted.table.project => (view, rest),
            _ => return Ok(()),
        };
        if table.name != self.read.wanted.table.view {
            return Ok(());
        }
        let [row] = rest else {
            self.has_table = true;
            return Ok(());
        };
        let Some(row) = EntityId::parse(&row.name).and_then(|id| self.rows.get(&id)) else { return Ok(()) };
        let event = recency(entity).ok_or_else(|| {
            Error::unavailable("an entity of Datastore has no `event_ts`")
                .with_context("feature view", &self.read.wanted.table.view)
                .with_hint("write the row again; something other than Feast wrote the entity")
        })?;
        self.wanted.keep_time(&mut self.grid, *row, event.event);
        if let Some(V::Entity(values)) = property(entity, "values") {
            for (name, value) in &values.properties {
                if let Some(V::Blob(bytes)) = &value.value_type {
                    self.wanted.keep(&mut self.grid, *row, name, event.event, bytes.clone());
                }
            }
        }
        Ok(())
    }
}

fn value(value_type: V, exclude_from_indexes: bool) -> m::Value {
    m::Value { value_type: Some(value_type), exclude_from_indexes }
}

fn property<'a>(entity: &'a m::Entity, name: &str) -> Option<&'a V> {
    entity.properties.get(name)?.value_type.as_ref()
}

fn row_name(entity: &m::Entity) -> Option<&str> {
    entity.key.as_ref()?.path.last().map(|element| element.name.as_str())
}

fn recency(entity: &m::Entity) -> Option<Recency> {
    let micros = |name: &str| match property(entity, name) {
        Some(V::Timestamp(time)) => Some(time.seconds * 1_000_000 + i64::from(time.nanos) / 1000),
        _ => None,
    };
    Some(Recency { event: micros("event_ts")?, created: micros("created_ts") })
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos: (micros.rem_euclid(1_000_000) * 1000) as i32 }
}
