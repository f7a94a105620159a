//! The offline store: its configuration and its verbs, on files or on a database.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use feast_core::{
    DataSource, DataSourceOptions, Error, ErrorCode, LoggingDestination, NewestValue, Result, RetrievalPlan, Timestamp,
    did_you_mean, list_names,
};
use futures::TryStreamExt;
use serde_json::Value;

use crate::append_turns::AppendTurns;
use crate::entity_range::asked_range;
use crate::entity_rows::{EntityRows, EntityRowsBuilder, EntitySource};
use crate::historical::{Historical, JoinOptions, OpenPlan};
use crate::latest::Latest;
use crate::parallel::blocking;
use crate::sources::SourceTable;
use crate::view_columns::batch_source;
use crate::warehouses::postgres::{Postgres, Taken, not_a_table, relation_of};
use crate::window_rows::WindowRows;
use crate::{
    BatchStream, HistoricalRequest, HistoricalStream, LatestRequest, LeakReport, NewestRead, NewestRow, WriteOptions,
    append, dataset, logs, newest, sql,
};

/// Names in `feature_store.yaml` that mean this store. Feast's `dask` and `duckdb` read files too.
const NAMES: [&str; 3] = ["file", "dask", "duckdb"];

/// The name of PostgreSQL.
const POSTGRES: &str = "postgres";

/// Offline stores of Feast that are not here yet.
const OTHER_STORES: [&str; 14] = [
    "athena",
    "bigquery",
    "chronon",
    "clickhouse",
    "couchbase.offline",
    "hybrid",
    "mssql",
    "oracle",
    "ray",
    "redshift",
    "remote",
    "snowflake.offline",
    "spark",
    "trino",
];

/// Keys of the configuration. `staging_location` and its companion belong to Feast's `duckdb` store.
const KEYS: [&str; 4] = ["type", "memory_limit", "staging_location", "staging_location_endpoint_override"];

/// Rows that are compared with what a source takes in no time.
const FEW_ROWS: usize = 1_000;

const A_SIZE: &str = "a size such as `512MiB`";

/// Reads and writes feature rows in files.
#[derive(Debug, Clone)]
pub struct OfflineStore {
    base: PathBuf,
    memory_limit: Option<usize>,
    staging_location: Option<String>,
    staging_endpoint: String,
    /// The database that holds the rows, if it is not files.
    warehouse: Option<Postgres>,
    /// Who adds rows to files next.
    turns: AppendTurns,
}

/// Rows that a source takes. Without [`commit`](Self::commit) they are not added.
pub struct Append(Prepared);

enum Prepared {
    /// Rows that files take as they are at this moment.
    Files { turns: AppendTurns, source: Box<DataSource>, base: PathBuf, rows: RecordBatch },
    /// Rows in a transaction.
    Table(Box<Taken>),
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Append")
    }
}

impl Append {
    /// Adds the rows and returns how many. A reader sees all of them or none.
    ///
    /// # Errors
    /// As [`OfflineStore::append`].
    pub async fn commit(self) -> Result<u64> {
        match self.0 {
            Prepared::Files { turns, source, base, rows } => {
                blocking(move || append::append(&turns, &source, &base, rows)).await
            }
            Prepared::Table(taken) => Box::pin(taken.commit()).await,
        }
    }
}

impl fmt::Display for OfflineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.warehouse {
            Some(warehouse) => warehouse.fmt(f),
            None => write!(f, "files under {}", self.base.display()),
        }
    }
}

impl OfflineStore {
    /// A store from the `offline_store` part of `feature_store.yaml`: an object, the bare name, or null.
    ///
    /// Relative paths of data sources start at `repo_path`. `memory_limit` is a number of bytes or a text such as
    /// `512MiB`: what training data, materialization and entity queries use beside rows that the caller holds. Work
    /// that needs more takes several passes.
    ///
    /// # Errors
    /// `UnknownOfflineStore`, `Unsupported` for the stores of Feast that are not here yet, and
    /// `InvalidConfiguration` for unknown keys and malformed values.
    pub fn connect(config: &Value, repo_path: &Path) -> Result<Self> {
        let base = std::path::absolute(repo_path).map_err(|error| {
            Error::invalid_configuration("the path of the feature repository is not valid")
                .with_source(error)
                .with_hint("name an existing folder")
        })?;
        if config.get("type").unwrap_or(config) == POSTGRES {
            return Ok(Self {
                base,
                memory_limit: None,
                staging_location: None,
                staging_endpoint: String::new(),
                warehouse: Some(Postgres::new(config)?),
                turns: AppendTurns::default(),
            });
        }
        let name = match config {
            Value::Null => "file",
            Value::String(name) => name,
            Value::Object(keys) => {
                if let Some(Value::String(name)) = keys.get("type") {
                    check_name(name)?;
                }
                if let Some(unknown) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
                    return Err(Error::invalid_configuration(format!("the file offline store has no key `{unknown}`"))
                        .with_hint(format!("valid keys are {}", list_names(KEYS)))
                        .with_hint_opt(close_name(unknown, &KEYS)));
                }
                match keys.get("type") {
                    None => "file",
                    Some(Value::String(name)) => name,
                    Some(other) => return Err(malformed("type", other, "the name of an offline store")),
                }
            }
            other => return Err(malformed("offline_store", other, "a name or a mapping")),
        };
        check_name(name)?;
        let memory_limit = match config.get("memory_limit") {
            None | Some(Value::Null) => None,
            Some(limit) => Some(parse_bytes(limit).ok_or_else(|| malformed("memory_limit", limit, A_SIZE))?),
        };
        let staging_location = match config.get("staging_location") {
            None | Some(Value::Null) => None,
            Some(Value::String(path)) => Some(path.clone()),
            Some(other) => return Err(malformed("staging_location", other, "a path")),
        };
        let staging_endpoint = match config.get("staging_location_endpoint_override") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(endpoint)) => endpoint.clone(),
            Some(other) => return Err(malformed("staging_location_endpoint_override", other, "a URL")),
        };
        Ok(Self {
            base,
            memory_limit,
            staging_location,
            staging_endpoint,
            warehouse: None,
            turns: AppendTurns::default(),
        })
    }

    /// The same store with another memory limit, in bytes or with a unit; see [`connect`](Self::connect).
    ///
    /// # Errors
    /// `InvalidConfiguration` for a text that is no size.
    pub fn with_memory_limit(mut self, limit: &str) -> Result<Self> {
        let value = Value::from(limit);
        self.memory_limit = Some(parse_bytes(&value).ok_or_else(|| malformed("memory_limit", &value, A_SIZE))?);
        Ok(self)
    }

    /// Bytes that one request may plan with: allocators keep some to themselves.
    fn memory(&self) -> usize {
        self.memory_limit.map_or(usize::MAX, |limit| limit - limit / 8)
    }

    /// Where `to_remote_storage` writes, when configured.
    pub fn staging_location(&self) -> Option<&str> {
        self.staging_location.as_deref()
    }

    /// The endpoint of the bucket that a path is in, where the configuration names one.
    fn endpoint_of(&self, path: &str) -> &str {
        let staged = self.staging_location.as_deref().is_some_and(|location| path.starts_with(location));
        if staged { &self.staging_endpoint } else { "" }
    }

    /// The columns of a data source, as they are in its files and before any field mapping; hive partitions last.
    /// Reads file footers only.
    ///
    /// # Errors
    /// `FileNotFound`; `Unsupported` for sources that are not files.
    pub async fn schema(&self, source: &DataSource) -> Result<SchemaRef> {
        if let Some(warehouse) = &self.warehouse {
            return warehouse.schema(source).await;
        }
        let (source, base) = (source.clone(), self.base.clone());
        blocking(move || Ok(Arc::clone(SourceTable::open(&source, &base)?.schema()))).await
    }

    /// The newest row of a source, by its event time. With `statistics_only` nothing is told where that would mean to
    /// read rows, or to run a statement.
    ///
    /// # Errors
    /// `FileNotFound`, `MissingColumns`; those of the database.
    pub async fn newest(&self, source: &DataSource, statistics_only: bool) -> Result<NewestRow> {
        if let Some(warehouse) = &self.warehouse {
            if statistics_only {
                return Ok(NewestRow { time: NewestValue::NotTold, read: NewestRead::Statement });
            }
            return Box::pin(warehouse.newest(source)).await;
        }
        let (source, base) = (source.clone(), self.base.clone());
        blocking(move || newest::newest(&SourceTable::open(&source, &base)?, &source, statistics_only)).await
    }

    /// Training data: one output row per entity row, in order, with the features true at its time.
    ///
    /// Features are of their declared types, null where nothing matches. All sources are opened and all columns checked
    /// before this returns; rows are read as the stream is.
    ///
    /// # Errors
    /// `InvalidEventTimestamp`, `MissingJoinKey`, `FeatureNameCollision`, `RequestDataNotFoundInEntityFrame` for entity
    /// rows that do not fit the plan, `InvalidRequest` for queries that cannot be run, `FileNotFound` and
    /// `MissingColumns` for sources.
    pub async fn historical(&self, request: HistoricalRequest) -> Result<HistoricalStream> {
        if let Some(warehouse) = &self.warehouse {
            return Box::pin(warehouse.historical(request, &self.base)).await;
        }
        Ok(self.prepare(request).await?.start())
    }

    /// How often features would have other values had the sources been asked today: compares what was known at the
    /// time of each entity row, or at `as_of` where it is given, with what is known now.
    ///
    /// # Errors
    /// As [`historical`](Self::historical), and those of its stream.
    pub async fn leaks(&self, request: HistoricalRequest) -> Result<LeakReport> {
        if let Some(warehouse) = &self.warehouse {
            return Box::pin(warehouse.leaks(request, &self.base)).await;
        }
        let ready = self.prepare(request).await?;
        blocking(move || ready.leaks()).await
    }

    async fn prepare(&self, request: HistoricalRequest) -> Result<Historical> {
        let HistoricalRequest { plan, entity, tables, filter_by_created_timestamp, as_of } = request;
        let entity = self.entity(entity, &tables, &plan).await?;
        self.open(plan, entity, filter_by_created_timestamp, as_of).await
    }

    /// The entity rows of a request, in memory or, where memory is limited, in a temporary file.
    pub(crate) async fn entity(
        &self,
        entity: EntitySource,
        tables: &[Arc<DataSource>],
        plan: &RetrievalPlan,
    ) -> Result<Entity> {
        let (base, kept) = (self.base.clone(), self.kept_entity_rows());
        Ok(Entity::Rows(match entity {
            EntitySource::Batches(schema, batches) => EntityRows::new(schema, batches)?,
            EntitySource::Stream(stream) => {
                let mut rows = EntityRowsBuilder::new(Arc::clone(stream.schema()), kept)?;
                let mut stream = stream;
                while let Some(batch) = stream.try_next().await? {
                    rows = blocking(move || rows.push(batch).map(|()| rows)).await?;
                }
                rows.finish()?
            }
            EntitySource::Sql(query) => {
                Box::pin(sql::entity_rows(&query, tables, &base, self.memory_limit, kept)).await?
            }
            EntitySource::File(path) => blocking(move || EntityRows::read(&path, &base, kept)).await?,
            EntitySource::Range { start, end } => {
                let (start, end) = asked_range(plan, start, end)?;
                return Ok(Entity::Range(start, end));
            }
        }))
    }

    /// Opens the sources of a plan and checks the entity rows against them.
    pub(crate) async fn open(
        &self,
        plan: Arc<RetrievalPlan>,
        entity: Entity,
        known_at_entity_time: bool,
        as_of: Option<Timestamp>,
    ) -> Result<Historical> {
        let (base, memory, kept) = (self.base.clone(), self.memory(), self.kept_entity_rows());
        let known_until = as_of.map(|as_of| as_of.timestamp_micros());
        blocking(move || {
            let bounds = match &entity {
                Entity::Rows(rows) => rows.bounds(),
                Entity::Range(start, end) => Some((start.timestamp_micros(), end.timestamp_micros())),
            };
            let open = OpenPlan::new(plan, &base, bounds)?;
            let entity = match entity {
                Entity::Rows(rows) => rows,
                Entity::Range(start, end) => open.range((start, end), kept)?,
            };
            open.with_entity_rows(entity, JoinOptions { known_at_entity_time, known_until, memory })
        })
        .await
    }

    /// Bytes of entity rows beyond which they wait in a file.
    fn kept_entity_rows(&self) -> usize {
        self.memory() / 4
    }

    /// The store of the files of this process, for rows on their way.
    pub(crate) fn on_files(&self) -> Self {
        Self { warehouse: None, ..self.clone() }
    }

    /// Whether the rows are in a database, which computes with them itself.
    pub(crate) fn is_a_database(&self) -> bool {
        self.warehouse.is_some()
    }

    /// The latest row of each key with an event time in the window, both ends included.
    ///
    /// Columns: the join keys (for entity-less views the dummy key) and the features of the view, of their declared
    /// types; then [`EVENT_TIMESTAMP_COLUMN`](crate::EVENT_TIMESTAMP_COLUMN) and
    /// [`CREATED_TIMESTAMP_COLUMN`](crate::CREATED_TIMESTAMP_COLUMN), null where the source has none. At equal event
    /// times the greatest created time wins, then the later row. Rows with a null key are left out. The order of rows
    /// is not promised; each key occurs once.
    ///
    /// # Errors
    /// `FileNotFound` and `MissingColumns`; values that do not fit their declared type, on the stream.
    pub async fn latest(&self, request: LatestRequest) -> Result<BatchStream> {
        if let Some(warehouse) = &self.warehouse {
            return Box::pin(warehouse.latest(request)).await;
        }
        let (base, memory) = (self.base.clone(), self.memory());
        let latest = blocking(move || {
            let source = batch_source(&request.view)?.clone();
            let within = Some((request.start.timestamp_micros(), request.end.timestamp_micros()));
            let view = Arc::clone(&request.view);
            Latest::new(request, memory / 2, || {
                let mut table = SourceTable::open_within(&source, &base, within)?;
                table.take_texts(&view, &source);
                Ok(table)
            })
        });
        Ok(latest.await?.start())
    }

    /// All rows of a source with an event time in a window, both ends included, in the order of the source: all columns,
    /// of the types that they have there, under the names that feature views use.
    ///
    /// # Errors
    /// `FileNotFound` and `MissingColumns`.
    pub async fn rows(&self, source: &DataSource, start: Timestamp, end: Timestamp) -> Result<BatchStream> {
        if let Some(warehouse) = &self.warehouse {
            return Box::pin(warehouse.window(source, start, end)).await;
        }
        Ok(self.window_rows(source, start, end).await?.read())
    }

    pub(crate) async fn window_rows(
        &self,
        source: &DataSource,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<WindowRows> {
        let (source, base) = (source.clone(), self.base.clone());
        blocking(move || {
            let within = Some((start.timestamp_micros(), end.timestamp_micros()));
            WindowRows::new(SourceTable::open_within(&source, &base, within)?, &source, start, end)
        })
        .await
    }

    /// A session of DataFusion within the memory limit.
    pub(crate) fn session(&self) -> Result<datafusion::prelude::SessionContext> {
        sql::session(self.memory_limit)
            .map_err(|error| Error::internal("DataFusion could not be started").with_source(error))
    }

    /// Adds rows to the files of a source and returns how many. A reader sees all of them or none.
    ///
    /// The rows must have exactly the columns of the source, in any order; values are cast to its types.
    ///
    /// # Errors
    /// `MissingColumns` when the columns differ; nothing was added when the call fails, except that of several hive
    /// partitions the first ones may have been.
    pub async fn append(&self, source: &DataSource, rows: RecordBatch) -> Result<u64> {
        if let Some(warehouse) = &self.warehouse {
            return Box::pin(warehouse.take(source, &rows)).await?.commit().await;
        }
        let (turns, source, base) = (self.turns.clone(), source.clone(), self.base.clone());
        blocking(move || append::append(&turns, &source, &base, rows)).await
    }

    /// The same in two steps: what a source refuses it refuses now, and nobody sees the rows before
    /// [`Append::commit`].
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn prepare_append(&self, source: &DataSource, rows: RecordBatch) -> Result<Append> {
        if let Some(warehouse) = &self.warehouse {
            return Ok(Append(Prepared::Table(Box::new(Box::pin(warehouse.take(source, &rows)).await?))));
        }
        // No file is opened, and few rows are looked at: to hand that to another thread would take longer.
        let is_quick = rows.num_rows() <= FEW_ROWS && self.turns.known(source).is_some();
        let (turns, source, base) = (self.turns.clone(), source.clone(), self.base.clone());
        let checked = move || {
            append::check(&turns, &source, &base, &rows)?;
            Ok(Append(Prepared::Files { turns, source: Box::new(source), base, rows }))
        };
        if is_quick { checked() } else { blocking(checked).await }
    }

    /// Adds rows to the log of a feature service and returns how many. A reader sees all of them or none; in several
    /// partitions, folder by folder.
    ///
    /// # Errors
    /// `Unsupported` for other destinations than files; `MissingColumns` when the column of a partition is missing.
    pub async fn write_log(&self, destination: &LoggingDestination, rows: RecordBatch) -> Result<u64> {
        let (destination, base) = (destination.clone(), self.base.clone());
        blocking(move || logs::write(&destination, &base, &rows)).await
    }

    /// Writes rows as Parquet and returns the files: one if the path ends in `.parquet`, else those of a directory.
    ///
    /// # Errors
    /// `SavedDatasetLocationExists` unless overwriting is allowed. Nothing is left behind when the call fails.
    pub async fn write_dataset(
        &self,
        path: &str,
        rows: BatchStream,
        mut options: WriteOptions,
    ) -> Result<Vec<PathBuf>> {
        if options.endpoint.is_empty() {
            self.endpoint_of(path).clone_into(&mut options.endpoint);
        }
        // What `memory` leaves of the limit.
        let left = self.memory_limit.map_or(usize::MAX, |limit| limit - self.memory());
        options.row_group_bytes = options.row_group_bytes.min(left);
        dataset::write(path, &self.base, rows, options).await
    }

    /// Writes rows to the storage of a saved dataset: files, or a table of the database that is the offline store.
    ///
    /// # Errors
    /// `SavedDatasetLocationExists` unless overwriting is allowed; `Unsupported` for storages of other stores.
    pub async fn write_storage(
        &self,
        storage: &DataSourceOptions,
        rows: BatchStream,
        mut options: WriteOptions,
    ) -> Result<Vec<PathBuf>> {
        match (storage, &self.warehouse) {
            (DataSourceOptions::File { uri, s3_endpoint_override, .. }, _) => {
                s3_endpoint_override.clone_into(&mut options.endpoint);
                self.write_dataset(uri, rows, options).await
            }
            (_, Some(warehouse)) => match relation_of(storage) {
                Some((table, _)) if !table.is_empty() => {
                    Box::pin(warehouse.write_table(&table, rows, options.overwrite)).await?;
                    Ok(Vec::new())
                }
                _ => Err(not_a_table("saved datasets")),
            },
            (_, None) => Err(Error::unsupported("the file offline store keeps saved datasets in files only")
                .with_hint("use `SavedDatasetFileStorage(path=...)`")),
        }
    }

    /// Reads the storage of a saved dataset.
    ///
    /// # Errors
    /// `FileNotFound`; `Unsupported` for storages of other stores.
    pub async fn read_storage(&self, storage: &DataSourceOptions) -> Result<BatchStream> {
        match (storage, &self.warehouse) {
            (DataSourceOptions::File { uri, s3_endpoint_override, .. }, _) => {
                let own = s3_endpoint_override.as_str();
                let endpoint = if own.is_empty() { self.endpoint_of(uri) } else { own };
                dataset::read(uri, endpoint, &self.base).await
            }
            (_, Some(warehouse)) if relation_of(storage).is_some() => Box::pin(warehouse.read(storage)).await,
            (_, Some(_)) => Err(not_a_table("saved datasets")),
            (_, None) => Err(Error::unsupported("the file offline store keeps saved datasets in files only")
                .with_hint("save it with `SavedDatasetFileStorage`")),
        }
    }

    /// Reads the rows of a file, directory or glob, in order.
    ///
    /// # Errors
    /// `FileNotFound`.
    pub async fn read_dataset(&self, path: &str) -> Result<BatchStream> {
        dataset::read(path, self.endpoint_of(path), &self.base).await
    }
}

/// What features are asked for.
pub(crate) enum Entity {
    /// Rows.
    Rows(EntityRows),
    /// All keys and event times between two instants.
    Range(Timestamp, Timestamp),
}

fn check_name(name: &str) -> Result<()> {
    if NAMES.contains(&name) {
        return Ok(());
    }
    if OTHER_STORES.contains(&name) {
        return Err(Error::unsupported(format!("the offline store `{name}` is not available yet"))
            .with_hint("set `offline_store: file` to use Parquet and CSV files"));
    }
    Err(Error::new(ErrorCode::UnknownOfflineStore, format!("there is no offline store `{name}`"))
        .with_hint_opt(did_you_mean(name, NAMES.into_iter().chain([POSTGRES]).chain(OTHER_STORES))))
}

/// A did-you-mean only where one name is close; otherwise the caller lists all.
fn close_name(wrong: &str, valid: &[&str]) -> Option<String> {
    did_you_mean(wrong, valid.iter().copied()).filter(|hint| hint.starts_with("did you mean"))
}

fn malformed(key: &str, found: &Value, expected: &str) -> Error {
    Error::invalid_configuration(format!("`{key}` of the offline store is {found}, but should be {expected}"))
        .with_hint("correct it, or leave it out")
}

/// A number of bytes, plain or with a unit: `512MB`, `1.5 GiB`. Who writes `512` has forgotten the unit.
fn parse_bytes(value: &Value) -> Option<usize> {
    const LEAST: usize = 1024;
    let text = match value {
        Value::Number(number) => {
            return number.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n >= LEAST);
        }
        Value::String(text) => text.trim(),
        _ => return None,
    };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes >= LEAST as f64 && bytes < usize::MAX as f64).then_some(bytes as usize)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn connect(config: Value) -> Result<OfflineStore> {
        OfflineStore::connect(&config, Path::new("/repo"))
    }

    #[test]
    fn the_names_of_file_stores_connect() {
        for config in [json!(null), json!("dask"), json!({"type": "duckdb", "staging_location": "s"}), json!({})] {
            assert!(connect(config).is_ok());
        }
        let limit = |text: &str| connect(json!({"memory_limit": text})).unwrap().memory_limit;
        assert_eq!(limit("512MiB"), Some(512 << 20));
        assert_eq!(limit("1.5 GB"), Some(1_500_000_000));
        for forgotten in [json!("512"), json!(512), json!("1B")] {
            let error = connect(json!({"memory_limit": forgotten})).unwrap_err();
            assert!(error.message().ends_with("but should be a size such as `512MiB`"), "{error}");
        }
    }

    #[test]
    fn other_names_and_keys_are_explained() {
        let error = connect(json!("bigquery")).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unsupported);
        assert_eq!(error.message(), "the offline store `bigquery` is not available yet");
        let error = connect(json!({"type": "duck"})).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnknownOfflineStore);
        assert_eq!(error.hint(), Some("did you mean `dask`?"));
        let error = connect(json!({"memory_limt": 1})).unwrap_err();
        assert_eq!(error.hint(), Some("did you mean `memory_limit`?"));
        let error = connect(json!({"threads": 1})).unwrap_err();
        assert!(error.hint().unwrap().starts_with("valid keys are `type`, `memory_limit`"));
        assert!(connect(json!({"memory_limit": "lots"})).is_err());
    }
}
