//! A SQLite file in Feast's layout: what either of the two writes, the other reads.
//!
//! One table per view, one row per entity and feature:
//!
//! | column | content |
//! |---|---|
//! | `entity_key`, `feature_name` | the serialized key and the name; together the primary key |
//! | `value` | the serialized `Value`; zero bytes are null |
//! | `value_text` | texts, numbers and truth values as Python prints them, for filters |
//! | `value_num` | the number, where `enable_openai_compatible_store` is set |
//! | `vector_value` | the vector as 32 bit floats, where `vector_enabled` is set |
//! | `event_ts`, `created_ts` | whole seconds since the epoch, UTC |
//! | `event_ts_micros`, `created_ts_micros` | ours: the microseconds within that second; null is zero |
//!
//! Feast keeps whole seconds, names the columns it reads and writes, and so never sees the last two. They keep the order
//! of two events in one second right. Where Feast wrote a row after us they may be stale, by less than a second.
//! Tables that Feast made have them after the next `feast apply`; until then order is by seconds.
//!
//! Consistency: the rows of an entity are replaced together or not at all, judged by the newest of what is stored for
//! it. A batch is one transaction, or several when it is large. The file is in write-ahead mode, so that readers, also in other processes, go on
//! during a write; writers wait for each other. A request reads all its tables from one snapshot.
//!
//! Limits: one machine, and a file system with locks.

mod file;
mod reading;
mod tables;
mod writing;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use feast_core::{
    Error, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Result, StoredTable,
    TableChange, Turns, did_you_mean,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::file::Database;
use self::reading::OwnedRead;
use self::writing::{OwnedRows, TRANSACTION_ROWS};
use super::forking::{self, CloseIdle};
use super::options;

/// Requests that read at the same time; more of them wait.
const MOST_READERS: usize = 8;

/// The `online_store` part of `feature_store.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteConfig {
    /// `sqlite`.
    #[serde(rename = "type")]
    store_type: String,
    /// Database file; relative paths start at the folder of `feature_store.yaml`. Default `data/online.db`.
    pub path: String,
    /// Whether vectors are also written to `vector_value`. Default false.
    pub vector_enabled: bool,
    /// Feast's metric of similarity search, which this product does not have yet.
    pub similarity: Option<String>,
    /// Feast's text search, which this product does not have yet.
    pub text_search_enabled: bool,
    /// Whether numbers are also written to `value_num`. Default false.
    pub enable_openai_compatible_store: bool,
}

const KEYS: &[&str] =
    &["type", "path", "vector_enabled", "similarity", "text_search_enabled", "enable_openai_compatible_store"];

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            store_type: "sqlite".to_owned(),
            path: "data/online.db".to_owned(),
            vector_enabled: false,
            similarity: None,
            text_search_enabled: false,
            enable_openai_compatible_store: false,
        }
    }
}

impl SqliteConfig {
    /// Reads the options; none are the defaults.
    ///
    /// # Errors
    /// `InvalidConfiguration` for unknown keys, listing the valid ones, and for values of another type.
    pub fn parse(options: &serde_json::Value) -> Result<Self> {
        if options.is_null() {
            return Ok(Self::default());
        }
        let Some(given) = options.as_object() else {
            return Err(Error::invalid_configuration("the options of online store `sqlite` are not a mapping")
                .with_hint("write `online_store: {type: sqlite, path: data/online.db}`"));
        };
        if let Some(key) = given.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(Error::invalid_configuration(format!(
                "`online_store.{key}` is not a key of online store `sqlite`"
            ))
            .with_hint_opt(did_you_mean(key, KEYS.iter().copied())));
        }
        // Null is "not given", as in Feast.
        let given: serde_json::Map<_, _> = given.clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
        for (key, value) in &given {
            // One key at a time, because an error does not name the key.
            let alone = serde_json::json!({ (key.as_str()): value });
            if let Err(error) = Self::deserialize(alone) {
                return Err(Error::invalid_configuration(format!("`online_store.{key}` is wrong"))
                    .with_source(error)
                    .with_hint(if key == "path" { "put the path in quotes" } else { "correct it, or leave it out" }));
            }
        }
        let config = Self::deserialize(serde_json::Value::Object(given))
            .map_err(|error| Error::internal("options that are right one by one are wrong").with_source(error))?;
        if config.similarity.is_some() {
            options::without_effect("sqlite", "similarity", "vectors are stored, but cannot be searched yet");
        }
        if config.text_search_enabled {
            options::without_effect("sqlite", "text_search_enabled", "texts are stored, but cannot be searched yet");
        }
        if config.path.is_empty() {
            return Err(Error::invalid_configuration("`online_store.path` is empty, expected the path of a file")
                .with_hint("write `path: data/online.db`, or leave it out"));
        }
        Ok(config)
    }

    /// The database file.
    pub fn file(&self, base: &Path) -> PathBuf {
        base.join(&self.path)
    }
}

/// A SQLite file in Feast's layout.
#[derive(Clone)]
pub struct SqliteStore {
    database: Arc<Database>,
}

impl SqliteStore {
    /// A store over the file that the options name. Nothing is opened before the first call.
    ///
    /// # Errors
    /// `InvalidConfiguration`.
    pub fn connect(options: &serde_json::Value, base: &Path) -> Result<Self> {
        let config = SqliteConfig::parse(options)?;
        let database = Arc::new(Database {
            file: config.file(base),
            config,
            writer: Mutex::default(),
            writes: Turns::new(TRANSACTION_ROWS),
            readers: Mutex::default(),
            read_permits: Semaphore::new(MOST_READERS),
        });
        let watched: Arc<dyn CloseIdle> = Arc::clone(&database) as _;
        forking::register(Arc::downgrade(&watched));
        Ok(Self { database })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let database = Arc::clone(&self.database);
        let work = move || {
            let _working = forking::working();
            // Dropped before the work ends: this may be what closes the connections.
            let database = database;
            call(&database)
        };
        // Outside of a task, this thread belongs to somebody who waits for this call and nothing else.
        if tokio::task::try_id().is_none() {
            return work();
        }
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::internal("a call to SQLite panicked").with_source(error))?
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("file", &self.database.file).finish_non_exhaustive()
    }
}

impl fmt::Display for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.database)
    }
}

#[async_trait]
impl OnlineStore for SqliteStore {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        let reads: Vec<OwnedRead> = reads.iter().map(OwnedRead::of).collect::<Result<_>>()?;
        let _permit = self.database.read_permits.acquire().await.map_err(|_| Error::internal("the store is closed"))?;
        self.blocking(move |database| database.read(&reads)).await
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        // Arrow columns are shared, not copied.
        let (table, keys, rows) = (write.table.clone(), write.keys.clone(), write.rows.clone());
        let event_timestamps = write.event_timestamps.clone();
        let created_timestamps = write.created_timestamps.cloned();
        self.blocking(move |database| {
            database.write(OwnedRows { table, keys, rows, event_timestamps, created_timestamps })
        })
        .await
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        let changes = changes.to_vec();
        self.blocking(move |database| database.update(&changes)).await
    }

    async fn check(&self) -> Result<()> {
        self.blocking(|database| {
            let Some(reader) = database.reader()? else {
                return Err(Error::unavailable("the online store does not exist yet")
                    .with_context("file", database.file.display())
                    .with_hint("run `feast apply` to create it"));
            };
            let version =
                reader.connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0));
            version.map_err(|error| database.failed("open", error))?;
            database.give_back(reader);
            Ok(())
        })
        .await
    }

    /// More than a transaction holds: the rows are sorted, and the more there are, the fewer pages of the file change.
    fn preferred_batch_rows(&self) -> usize {
        250_000
    }

    async fn stored_tables(&self, project: &str) -> Result<Option<Vec<StoredTable>>> {
        let prefix = format!("{project}_");
        self.blocking(move |database| database.stored_tables(&prefix).map(Some)).await
    }

    async fn newest(&self, table: &OnlineTable) -> Result<NewestValue> {
        let table = table.clone();
        self.blocking(move |database| database.newest(&table)).await
    }
}

#[cfg(test)]
mod tests;
