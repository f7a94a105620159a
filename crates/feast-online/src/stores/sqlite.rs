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

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder, UInt64Array,
};
use arrow::compute::take;
use arrow::datatypes::{Float32Type, Int32Type, Int64Type, SchemaRef};
use async_trait::async_trait;
use feast_core::{
    EntityKeys, Error, ErrorCode, Field, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite,
    Result, StoredTable, TableChange, ValueType, did_you_mean,
};
use feast_proto::value_codec::ColumnDecoder;
use hashbrown::{HashMap, HashSet};
use rusqlite::types::{ToSql, ToSqlOutput, Value as SqlValue, ValueRef};
use rusqlite::{Connection, ErrorCode as SqliteCode, OpenFlags, OptionalExtension, TransactionBehavior};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::cells::WriteColumn;
use super::forking::{self, CloseIdle};
use super::memory::missing_table;
use super::newest::{Recency, newest_rows};
use super::options;
use crate::write::plain_schema;

/// How long a call waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How soon it shows that another process has added our columns to a table of Feast's.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Requests that read at the same time; more of them wait.
const MOST_READERS: usize = 8;

/// Rows of one transaction: many enough to be fast, and few enough that others who write wait for a moment only.
const TRANSACTION_ROWS: usize = 20_000;

/// Features that one statement inserts.
const STATEMENT_FEATURES: usize = 64;

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

/// A read that can move to another thread.
struct OwnedRead {
    wanted: Arc<Wanted>,
    keys: BinaryArray,
}

/// What is read of a table, which is the same for every request with the same plan.
struct Wanted {
    /// The table, without what reading does not need.
    table: OnlineTable,
    /// Its name in the database.
    name: String,
    fields: Vec<Field>,
    /// Where each feature is among the fields.
    positions: HashMap<Vec<u8>, usize>,
    schema: SchemaRef,
    /// The statement that reads one entity: with our column for parts of seconds, and without.
    exact: String,
    whole_seconds: String,
    /// Whether every feature of the table is wanted, so that the statement names none.
    all: bool,
}

impl OwnedRead {
    fn of(read: &OnlineRead<'_>) -> Result<Self> {
        let wanted = read.wanted.memo.get(|| Ok::<_, Error>(Wanted::of(read)))?;
        Ok(Self { wanted, keys: read.keys.encoded.clone() })
    }
}

impl Wanted {
    fn of(read: &OnlineRead<'_>) -> Self {
        let table = OnlineTable {
            project: read.wanted.table.project.clone(),
            view: read.wanted.table.view.clone(),
            join_keys: Vec::new(),
            columns: Vec::new(),
            tags: feast_core::Tags::new(),
        };
        let wanted = read.wanted.fields().map(|field| Field::new(&field.name, field.value_type));
        let fields: Vec<Field> = wanted.collect();
        let name = table.name();
        let all = fields.len() == read.wanted.table.columns.len();
        let filter = match all {
            true => String::new(),
            false => format!(" AND feature_name IN ({})", vec!["?"; fields.len()].join(", ")),
        };
        let select = |fraction: &str| {
            let table = quoted(&name);
            format!("SELECT feature_name, value, event_ts, {fraction} FROM {table} WHERE entity_key = ?{filter}")
        };
        let positions = fields.iter().enumerate().map(|(position, field)| (field.name.clone().into_bytes(), position));
        Self {
            positions: positions.collect(),
            schema: plain_schema(&fields),
            exact: select("event_ts_micros"),
            whole_seconds: select("NULL"),
            table,
            name,
            fields,
            all,
        }
    }
}

/// All that is read sees the file as of one moment.
struct Moment<'c>(&'c Connection);

impl<'c> Moment<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(connection))
    }
}

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        let ended = self.0.prepare_cached("ROLLBACK").and_then(|mut rollback| rollback.execute([]));
        if let Err(error) = ended {
            tracing::debug!(%error, "the end of a read transaction");
        }
    }
}

struct OwnedRows {
    table: OnlineTable,
    keys: EntityKeys,
    rows: RecordBatch,
    event_timestamps: TimestampMicrosecondArray,
    created_timestamps: Option<TimestampMicrosecondArray>,
}

impl OwnedRows {
    fn as_write(&self) -> OnlineWrite<'_> {
        OnlineWrite {
            table: &self.table,
            keys: &self.keys,
            rows: &self.rows,
            event_timestamps: &self.event_timestamps,
            created_timestamps: self.created_timestamps.as_ref(),
        }
    }
}

/// The file and its connections: one that writes, a few that read.
struct Database {
    file: PathBuf,
    config: SqliteConfig,
    writer: Mutex<Option<Opened>>,
    readers: Mutex<Vec<Opened>>,
    read_permits: Semaphore,
}

/// A connection, and the file it was opened on: a file that was removed or replaced meanwhile is another one.
struct Opened {
    connection: Connection,
    identity: Option<FileIdentity>,
    /// Which tables have our columns for parts of seconds, and since when that is known.
    exact: HashMap<String, (bool, Instant)>,
}

type FileIdentity = (u64, u64);

#[cfg(unix)]
fn identity(file: &Path) -> Option<FileIdentity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(file: &Path) -> Option<FileIdentity> {
    file.exists().then_some((0, 0))
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite at `{}`", self.file.display())
    }
}

/// A lock is only ever held across calls that leave the value whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CloseIdle for Database {
    fn close_idle(&self) {
        *lock(&self.writer) = None;
        lock(&self.readers).clear();
    }
}

impl Database {
    fn failed(&self, doing: &str, error: rusqlite::Error) -> Error {
        let code = match error.sqlite_error_code() {
            Some(SqliteCode::DatabaseBusy | SqliteCode::DatabaseLocked) => ErrorCode::Unavailable,
            Some(SqliteCode::ReadOnly | SqliteCode::PermissionDenied | SqliteCode::AuthorizationForStatementDenied) => {
                ErrorCode::PermissionDenied
            }
            _ => ErrorCode::Unavailable,
        };
        let hint = match error.sqlite_error_code() {
            Some(SqliteCode::DatabaseBusy | SqliteCode::DatabaseLocked) => {
                "another process has been writing to the file for too long: end it, or try again later"
            }
            Some(SqliteCode::NotADatabase | SqliteCode::DatabaseCorrupt) => {
                "the file is not a whole SQLite database: restore it from a backup, or move it away, run `feast apply` \
                 and materialize again"
            }
            Some(SqliteCode::ReadOnly | SqliteCode::PermissionDenied) => {
                "make the file and its folder writable for this user"
            }
            Some(SqliteCode::CannotOpen) => {
                "`online_store.path` in feature_store.yaml names a file in a folder that this user may write to"
            }
            Some(SqliteCode::DiskFull) => "make room on the disk",
            _ => "check that the file is the online store of this project and was not changed by other programs",
        };
        Error::new(code, format!("could not {doing} the online store"))
            .with_context("file", self.file.display())
            .with_source(error)
            .with_hint(hint)
    }

    fn open(&self, create: bool, cache_kib: u32, mapped_bytes: u32) -> Result<Option<Opened>> {
        if create {
            if let Some(folder) = self.file.parent() {
                std::fs::create_dir_all(folder).map_err(|error| {
                    Error::unavailable("could not create the folder of the online store")
                        .with_hint("correct `online_store.path` in feature_store.yaml, or make the folder yourself")
                        .with_context("folder", folder.display())
                        .with_source(error)
                })?;
            }
        } else if !self.file.exists() {
            return Ok(None);
        }
        let create = if create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
        let open = || {
            let connection = Connection::open_with_flags(&self.file, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(256);
            connection.execute_batch(&format!(
                "PRAGMA cache_size = -{cache_kib}; PRAGMA mmap_size = {mapped_bytes}; PRAGMA temp_store = MEMORY;"
            ))?;
            Ok(connection)
        };
        let connection = open().map_err(|error| self.failed("open", error))?;
        Ok(Some(Opened { connection, identity: identity(&self.file), exact: HashMap::new() }))
    }

    /// A connection to read with; `None` when there is no file.
    fn reader(&self) -> Result<Option<Opened>> {
        let current = identity(&self.file);
        while let Some(reader) = lock(&self.readers).pop() {
            if reader.identity == current && current.is_some() {
                return Ok(Some(reader));
            }
        }
        self.open(false, 16_384, 1 << 28)
    }

    fn give_back(&self, reader: Opened) {
        lock(&self.readers).push(reader);
    }

    /// Runs a write with the one writing connection; `None` when there is no file and none is to be created.
    fn with_writer<T>(&self, create: bool, call: impl FnOnce(&mut Connection) -> Result<T>) -> Result<Option<T>> {
        let mut writer = lock(&self.writer);
        if writer.as_ref().is_some_and(|writer| writer.identity.is_none() || writer.identity != identity(&self.file)) {
            *writer = None;
        }
        if writer.is_none() {
            // Not mapped: what is mapped counts as memory of the process, and a large write touches all of the file.
            let Some(opened) = self.open(create, 65_536, 0)? else { return Ok(None) };
            let settings = "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_mode = WAL;";
            // Where write-ahead mode is not to be had, the default mode does.
            if let Err(error) = opened.connection.execute_batch(settings) {
                tracing::debug!(%error, file = %self.file.display(), "no write-ahead log");
            }
            *writer = Some(Opened { identity: identity(&self.file), ..opened });
        }
        let opened = writer.as_mut().ok_or_else(|| Error::internal("the writing connection is gone"))?;
        call(&mut opened.connection).map(Some)
    }

    fn read(&self, reads: &[OwnedRead]) -> Result<Vec<OnlineRows>> {
        let Some(mut reader) = self.reader()? else {
            return match reads.first() {
                Some(read) => Err(missing_table(&read.wanted.table, self)),
                None => Ok(Vec::new()),
            };
        };
        let mut answer = self.read_with(&mut reader, reads);
        if answer.is_err() && !reader.exact.is_empty() {
            // Another program may have made a table anew, without our columns.
            reader.exact.clear();
            answer = self.read_with(&mut reader, reads);
        }
        self.give_back(reader);
        answer
    }

    fn read_with(&self, reader: &mut Opened, reads: &[OwnedRead]) -> Result<Vec<OnlineRows>> {
        // One transaction: all tables as of one moment.
        let moment = Moment::begin(&reader.connection).map_err(|error| self.failed("read", error))?;
        let mut answers = Vec::with_capacity(reads.len());
        for read in reads {
            let name = &read.wanted.name;
            let exact = match reader.exact.get(name) {
                Some((exact, known)) if *exact || known.elapsed() < LOOK_AGAIN => *exact,
                _ => {
                    let shape = Shape::of(moment.0, name)
                        .map_err(|error| self.failed("read", error))?
                        .ok_or_else(|| missing_table(&read.wanted.table, self))?;
                    reader.exact.insert(name.clone(), (shape.exact, Instant::now()));
                    shape.exact
                }
            };
            answers.push(self.read_table(moment.0, exact, read)?);
        }
        Ok(answers)
    }

    fn read_table(&self, connection: &Connection, exact: bool, read: &OwnedRead) -> Result<OnlineRows> {
        let Wanted { table, fields, .. } = &*read.wanted;
        let failed = |error: rusqlite::Error| match &error {
            rusqlite::Error::SqliteFailure(_, Some(message)) if message.starts_with("no such table") => {
                missing_table(table, self)
            }
            _ => self.failed("read", error),
        };
        let sql = if exact { &read.wanted.exact } else { &read.wanted.whole_seconds };
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        if !read.wanted.all {
            for (position, column) in fields.iter().enumerate() {
                statement.raw_bind_parameter(position + 2, column.name.as_str()).map_err(failed)?;
            }
        }
        let mut columns: Vec<ColumnDecoder> =
            fields.iter().map(|column| ColumnDecoder::new(column.value_type, read.keys.len())).collect();
        let mut times = TimestampMicrosecondBuilder::with_capacity(read.keys.len()).with_timezone("UTC");
        let mut found = vec![false; fields.len()];
        for key in read.keys.iter() {
            statement.raw_bind_parameter(1, key.unwrap_or_default()).map_err(failed)?;
            let mut newest: Option<i64> = None;
            found.fill(false);
            let mut rows = statement.raw_query();
            while let Some(row) = rows.next().map_err(failed)? {
                let seconds = seconds(row.get_ref(2).map_err(failed)?);
                let micros = with_fraction(seconds, row.get_ref(3).map_err(failed)?);
                newest = newest.max(Some(micros));
                let name = row.get_ref(0).map_err(failed)?.as_bytes().unwrap_or_default();
                let Some(position) = read.wanted.positions.get(name) else { continue };
                let cell = match row.get_ref(1).map_err(failed)? {
                    ValueRef::Blob(cell) => cell,
                    _ => &[],
                };
                columns[*position].push(cell).map_err(|error| {
                    error.with_context("feature", &fields[*position].name).with_context("feature view", &table.view)
                })?;
                found[*position] = true;
            }
            drop(rows);
            for (column, _) in columns.iter_mut().zip(&found).filter(|(_, found)| !**found) {
                column.push_null();
            }
            times.append_option(newest);
        }
        let values = columns.into_iter().map(ColumnDecoder::finish).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(read.keys.len()));
        let values = RecordBatch::try_new_with_options(Arc::clone(&read.wanted.schema), values, &options)?;
        Ok(OnlineRows { values, event_timestamps: times.finish() })
    }

    fn write(&self, rows: OwnedRows) -> Result<()> {
        let write = rows.as_write();
        let newest = newest_rows(&write);
        // Even nothing is not written to a table that does not exist.
        let parts = newest.chunks(TRANSACTION_ROWS).chain(newest.is_empty().then_some(newest.as_slice()));
        for part in parts {
            // Made without the lock, so that another write can go on meanwhile.
            let part = Part::new(&write, part)?;
            let written = self.with_writer(false, |connection| {
                let begin = connection.transaction_with_behavior(TransactionBehavior::Immediate);
                let transaction = begin.map_err(|error| self.failed("write to", error))?;
                let name = write.table.name();
                let shape = Shape::of(&transaction, &name)
                    .map_err(|error| self.failed("write to", error))?
                    .ok_or_else(|| missing_table(write.table, self))?;
                self.upsert(&transaction, &name, shape, &part)
                    .and_then(|()| transaction.commit())
                    .map_err(|error| self.failed("write to", error))
            })?;
            written.ok_or_else(|| missing_table(write.table, self))?;
        }
        Ok(())
    }

    fn upsert(&self, connection: &Connection, name: &str, shape: Shape, part: &Part<'_>) -> rusqlite::Result<()> {
        let cells = Cells {
            value_text: shape.value_text,
            value_num: shape.value_num && self.config.enable_openai_compatible_store,
            vector_value: shape.vector_value && self.config.vector_enabled,
            exact: shape.exact,
        };
        let table = quoted(name);
        // The features of a key are inserted by one statement, unless they are very many.
        let mut upserts = Vec::new();
        for features in part.columns.chunks(STATEMENT_FEATURES) {
            let mut upsert = connection.prepare_cached(&cells.upsert(&table, features.len()))?;
            for (at, column) in features.iter().enumerate() {
                upsert.raw_bind_parameter(cells.parameter(at), column.field.name.as_str())?;
            }
            upserts.push((upsert, features));
        }
        let fractions = if shape.exact { "event_ts_micros, created_ts_micros" } else { "NULL, NULL" };
        let mut stored = connection.prepare_cached(&format!(
            "SELECT event_ts, created_ts, {fractions}, feature_name FROM {table} WHERE entity_key = ?"
        ))?;
        let mut remove = connection.prepare_cached(&format!("DELETE FROM {table} WHERE entity_key = ?"))?;
        let features: HashSet<&[u8]> = part.columns.iter().map(|column| column.field.name.as_bytes()).collect();
        let is_empty =
            connection.query_row(&format!("SELECT 1 FROM {table} LIMIT 1"), [], |_| Ok(())).optional()?.is_none();
        for (row, recency) in part.recencies.iter().enumerate() {
            let key = part.keys.value(row);
            if !is_empty {
                let stored = StoredRow::of(&mut stored, key, &features)?;
                if stored.newest.is_some_and(|stored| stored > self.rounded(*recency, shape)) {
                    continue;
                }
                if stored.has_more {
                    remove.execute([key])?;
                }
            }
            for (upsert, features) in &mut upserts {
                cells.bind_row(upsert, key, *recency)?;
                for (at, column) in features.iter().enumerate() {
                    cells.bind_feature(upsert, cells.parameter(at) + 1, column, row)?;
                }
                upsert.raw_execute()?;
            }
        }
        Ok(())
    }

    /// What of a recency a table can keep.
    fn rounded(&self, recency: Recency, shape: Shape) -> Recency {
        let round = |micros: i64| if shape.exact { micros } else { micros.div_euclid(1_000_000) * 1_000_000 };
        Recency { event: round(recency.event), created: recency.created.map(round) }
    }

    fn update(&self, changes: &[TableChange]) -> Result<()> {
        let create = changes.iter().any(|change| matches!(change, TableChange::Ensure(_)));
        self.with_writer(create, |connection| {
            let begin = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let apply = |transaction: &Connection| {
                changes.iter().try_for_each(|change| match change {
                    TableChange::Ensure(table) => self.ensure(transaction, &table.name()),
                    TableChange::Drop(table) => {
                        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", quoted(&table.name())))
                    }
                })
            };
            begin
                .and_then(|transaction| apply(&transaction).and_then(|()| transaction.commit()))
                .map_err(|error| self.failed("update", error))
        })?;
        for reader in lock(&self.readers).iter_mut() {
            reader.exact.clear();
        }
        Ok(())
    }

    fn stored_tables(&self, prefix: &str) -> Result<Vec<StoredTable>> {
        let Some(reader) = self.reader()? else { return Ok(Vec::new()) };
        let list = || {
            let connection = &reader.connection;
            let sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1";
            let mut statement = connection.prepare(sql)?;
            let names = statement.query_map([prefix], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            let mut tables = Vec::with_capacity(names.len());
            for name in names {
                let shape = Shape::of(connection, &name)?.unwrap_or_default();
                let missing = self.missing_columns(shape).map(|column| column.name.to_owned());
                tables.push(StoredTable { missing_columns: missing.collect(), name });
            }
            Ok(tables)
        };
        let tables = list().map_err(|error| self.failed("read", error));
        self.give_back(reader);
        tables
    }

    /// Reads the whole table: its index is by entity.
    fn newest(&self, table: &OnlineTable) -> Result<NewestValue> {
        let reader = self.reader()?.ok_or_else(|| missing_table(table, self))?;
        let name = table.name();
        let read = || {
            let Some(shape) = Shape::of(&reader.connection, &name)? else { return Ok(None) };
            let fraction = if shape.event_ts_micros { "event_ts_micros" } else { "NULL" };
            let sql = format!(
                "SELECT event_ts, {fraction} FROM {} WHERE event_ts IS NOT NULL ORDER BY 1 DESC, 2 DESC LIMIT 1",
                quoted(&name)
            );
            let micros = |row: &rusqlite::Row<'_>| Ok(with_fraction(seconds(row.get_ref(0)?), row.get_ref(1)?));
            reader.connection.query_row(&sql, [], micros).optional().map(Some)
        };
        let newest = read().map_err(|error| self.failed("read", error));
        self.give_back(reader);
        newest?.map(NewestValue::of_micros).ok_or_else(|| missing_table(table, self))
    }

    /// What a table lacks, in order.
    fn missing_columns(&self, shape: Shape) -> impl Iterator<Item = Column> {
        let number = self.config.enable_openai_compatible_store;
        [
            (shape.value_text, Column { name: "value_text", sql_type: "TEXT" }),
            (shape.value_num || !number, Column { name: "value_num", sql_type: "REAL" }),
            (shape.vector_value, Column { name: "vector_value", sql_type: "BLOB" }),
            (shape.event_ts_micros, Column { name: "event_ts_micros", sql_type: "INTEGER" }),
            (shape.created_ts_micros, Column { name: "created_ts_micros", sql_type: "INTEGER" }),
        ]
        .into_iter()
        .filter(|(has, _)| !has)
        .map(|(_, column)| column)
    }

    fn ensure(&self, connection: &Connection, name: &str) -> rusqlite::Result<()> {
        let table = quoted(name);
        let value_num = if self.config.enable_openai_compatible_store { " value_num REAL," } else { "" };
        // Feast also indexes `entity_key`; the index of the primary key starts with it and does the same.
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT,{value_num} \
             vector_value BLOB, event_ts timestamp, created_ts timestamp, event_ts_micros INTEGER, \
             created_ts_micros INTEGER, PRIMARY KEY(entity_key, feature_name))"
        ))?;
        let Some(shape) = Shape::of(connection, name)? else { return Ok(()) };
        for Column { name, sql_type } in self.missing_columns(shape) {
            connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {name} {sql_type}"))?;
        }
        Ok(())
    }
}

/// A column that tables have today.
struct Column {
    name: &'static str,
    sql_type: &'static str,
}

/// Which optional columns a table has; tables written by older versions of Feast lack some.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    value_text: bool,
    value_num: bool,
    vector_value: bool,
    event_ts_micros: bool,
    created_ts_micros: bool,
    /// Both columns for parts of seconds.
    exact: bool,
}

impl Shape {
    /// `None` when there is no such table.
    fn of(connection: &Connection, table: &str) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached("SELECT name FROM pragma_table_info(?)")?;
        let mut rows = statement.query([table])?;
        let mut shape = Self::default();
        let mut exists = false;
        while let Some(row) = rows.next()? {
            exists = true;
            match row.get_ref(0)?.as_str()? {
                "value_text" => shape.value_text = true,
                "value_num" => shape.value_num = true,
                "vector_value" => shape.vector_value = true,
                "event_ts_micros" => shape.event_ts_micros = true,
                "created_ts_micros" => shape.created_ts_micros = true,
                _ => {}
            }
        }
        shape.exact = shape.event_ts_micros && shape.created_ts_micros;
        Ok(exists.then_some(shape))
    }
}

/// What is stored for a key.
#[derive(Default)]
struct StoredRow {
    /// The most recent of its features.
    newest: Option<Recency>,
    /// Whether there are features that the view had once. They would come back with it, although they are older.
    has_more: bool,
}

impl StoredRow {
    fn of(
        statement: &mut rusqlite::CachedStatement<'_>,
        key: &[u8],
        features: &HashSet<&[u8]>,
    ) -> rusqlite::Result<Self> {
        let mut rows = statement.query([key])?;
        let mut stored = Self::default();
        while let Some(row) = rows.next()? {
            let created = match row.get_ref(1)? {
                ValueRef::Null => None,
                value => Some(with_fraction(seconds(value), row.get_ref(3)?)),
            };
            let event = with_fraction(seconds(row.get_ref(0)?), row.get_ref(2)?);
            stored.newest = stored.newest.max(Some(Recency { event, created }));
            stored.has_more |= !row.get_ref(4)?.as_bytes().is_ok_and(|name| features.contains(name));
        }
        Ok(stored)
    }
}

/// A stored time: whole seconds, or the ISO 8601 text that old versions of Feast wrote.
fn seconds(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(seconds) => seconds,
        ValueRef::Real(seconds) => seconds as i64,
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text).replace(' ', "T");
            let naive =
                || chrono::NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc());
            let zoned = chrono::DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc());
            zoned.or_else(|_| naive()).map_or(0, |time| time.timestamp())
        }
        ValueRef::Null | ValueRef::Blob(_) => 0,
    }
}

fn with_fraction(seconds: i64, fraction: ValueRef<'_>) -> i64 {
    let micros = match fraction {
        ValueRef::Integer(micros @ 0..1_000_000) => micros,
        _ => 0,
    };
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Rows of one transaction: each key once, in order of the keys.
struct Part<'a> {
    keys: BinaryArray,
    recencies: Vec<Recency>,
    columns: Vec<WriteColumn<'a>>,
}

impl<'a> Part<'a> {
    fn new(write: &OnlineWrite<'a>, rows: &[usize]) -> Result<Self> {
        let indices = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        let columns = write.table.columns.iter().zip(write.rows.columns());
        let column = |(field, array): (&'a Field, &ArrayRef)| WriteColumn::new(field, take(array, &indices, None)?);
        Ok(Self {
            keys: take(&write.keys.encoded, &indices, None)?.as_binary().clone(),
            recencies: rows.iter().map(|row| Recency::of(write, *row)).collect(),
            columns: columns.map(column).collect::<Result<_>>()?,
        })
    }
}

/// Which columns are written, and where their values are among the parameters of a statement: first what all features
/// of a row share, then name and cells of each feature.
#[derive(Clone, Copy)]
struct Cells {
    value_text: bool,
    value_num: bool,
    vector_value: bool,
    exact: bool,
}

impl Cells {
    /// Key, event time and created time, each time with its fraction.
    const SHARED: usize = 5;

    fn per_feature(self) -> usize {
        2 + usize::from(self.value_text) + usize::from(self.value_num) + usize::from(self.vector_value)
    }

    /// The number of the first parameter of a feature.
    fn parameter(self, feature: usize) -> usize {
        Self::SHARED + 1 + feature * self.per_feature()
    }

    fn upsert(self, table: &str, n_features: usize) -> String {
        let optional =
            [(self.value_text, "value_text"), (self.value_num, "value_num"), (self.vector_value, "vector_value")];
        let of_feature = ["feature_name", "value"]
            .into_iter()
            .chain(optional.into_iter().filter_map(|(has, name)| has.then_some(name)));
        let of_row = ["entity_key", "event_ts", "created_ts"].into_iter();
        let fractions = ["event_ts_micros", "created_ts_micros"].into_iter().filter(|_| self.exact);
        let names: Vec<&str> = of_row.chain(fractions).chain(of_feature).collect();
        let shared = if self.exact { "?1, ?2, ?3, ?4, ?5" } else { "?1, ?2, ?3" };
        let tuples: Vec<String> = (0..n_features)
            .map(|feature| {
                let first = self.parameter(feature);
                let own: Vec<String> = (first..first + self.per_feature()).map(|number| format!("?{number}")).collect();
                format!("({shared}, {})", own.join(", "))
            })
            .collect();
        let is_value = |name: &&&str| !["entity_key", "feature_name"].contains(*name);
        let updates: Vec<String> =
            names.iter().filter(is_value).map(|name| format!("{name} = excluded.{name}")).collect();
        format!(
            "INSERT INTO {table} ({}) VALUES {} ON CONFLICT (entity_key, feature_name) DO UPDATE SET {}",
            names.join(", "),
            tuples.join(", "),
            updates.join(", ")
        )
    }

    fn bind_row(self, upsert: &mut rusqlite::Statement<'_>, key: &[u8], recency: Recency) -> rusqlite::Result<()> {
        upsert.raw_bind_parameter(1, key)?;
        upsert.raw_bind_parameter(2, recency.event.div_euclid(1_000_000))?;
        upsert.raw_bind_parameter(3, recency.created.map(|created| created.div_euclid(1_000_000)))?;
        if self.exact {
            let fraction = |micros: i64| Some(micros.rem_euclid(1_000_000)).filter(|micros| *micros > 0);
            upsert.raw_bind_parameter(4, fraction(recency.event))?;
            upsert.raw_bind_parameter(5, recency.created.and_then(fraction))?;
        }
        Ok(())
    }

    fn bind_feature(
        self,
        upsert: &mut rusqlite::Statement<'_>,
        first: usize,
        column: &WriteColumn<'_>,
        row: usize,
    ) -> rusqlite::Result<()> {
        upsert.raw_bind_parameter(first, column.cells.value(row))?;
        let mut parameter = first;
        if self.value_text {
            parameter += 1;
            upsert.raw_bind_parameter(parameter, column.text(row))?;
        }
        if self.value_num {
            parameter += 1;
            upsert.raw_bind_parameter(parameter, column.number(row))?;
        }
        if self.vector_value {
            upsert.raw_bind_parameter(parameter + 1, vector(column, row))?;
        }
        Ok(())
    }
}

/// What Feast keeps for its vector search: vectors as 32 bit floats, plain values as they are.
fn vector<'a>(column: &'a WriteColumn<'_>, row: usize) -> SqlCell<'a> {
    if column.array.is_null(row) {
        return SqlCell(ToSqlOutput::Owned(SqlValue::Null));
    }
    let cell = match column.field.value_type {
        ValueType::FloatList => {
            let items = column.array.as_list::<i32>().value(row);
            let floats = items.as_primitive::<Float32Type>().values().iter();
            SqlValue::Blob(floats.flat_map(|float| float.to_le_bytes()).collect())
        }
        ValueType::String => {
            return SqlCell(ToSqlOutput::Borrowed(column.array.as_string::<i32>().value(row).into()));
        }
        ValueType::Bytes => {
            return SqlCell(ToSqlOutput::Borrowed(ValueRef::Blob(column.array.as_binary::<i32>().value(row))));
        }
        ValueType::Int32 => SqlValue::Integer(i64::from(column.array.as_primitive::<Int32Type>().value(row))),
        ValueType::Int64 => SqlValue::Integer(column.array.as_primitive::<Int64Type>().value(row)),
        ValueType::Bool => SqlValue::Integer(i64::from(column.array.as_boolean().value(row))),
        ValueType::Float | ValueType::Double => column.number(row).map_or(SqlValue::Null, SqlValue::Real),
        _ => SqlValue::Null,
    };
    SqlCell(ToSqlOutput::Owned(cell))
}

struct SqlCell<'a>(ToSqlOutput<'a>);

impl ToSql for SqlCell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use feast_testing::StartedStore;
    use serde_json::json;

    use super::*;

    async fn start() -> StartedStore {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::connect(&json!({"type": "sqlite"}), folder.path()).unwrap();
        StartedStore::with_guard(Arc::new(store), folder)
    }

    feast_testing::online_store_conformance!(super::start);

    #[test]
    fn unknown_options_are_named() {
        let error = SqliteConfig::parse(&json!({"type": "sqlite", "pth": "x"})).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfiguration);
        assert_eq!(error.message(), "`online_store.pth` is not a key of online store `sqlite`");
        assert_eq!(error.hint(), Some("did you mean `path`?"));
        let error = SqliteConfig::parse(&json!({"path": 5})).unwrap_err();
        assert!(error.to_string().starts_with("`online_store.path` is wrong: invalid type"), "{error}");
    }

    /// A vector of driver 1.
    async fn write(store: &SqliteStore, table: &OnlineTable, event: i64, vector: &[f32]) {
        let ids = Arc::new(arrow::array::Int64Array::from(vec![1])) as ArrayRef;
        let encoder = feast_core::EntityKeyEncoder::new(&table.join_keys, 3).unwrap();
        let keys = encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap();
        let vector = [Some(vector.iter().copied().map(Some))];
        let vector = Arc::new(arrow::array::ListArray::from_iter_primitive::<Float32Type, _, _>(vector)) as ArrayRef;
        let number = Arc::new(arrow::array::Int64Array::from(vec![7])) as ArrayRef;
        let rows = crate::write::record_batch(&table.columns, vec![vector, number], 1).unwrap();
        let event_timestamps = TimestampMicrosecondArray::from(vec![event]);
        let write = OnlineWrite {
            table,
            keys: &keys,
            rows: &rows,
            event_timestamps: &event_timestamps,
            created_timestamps: None,
        };
        store.write(write).await.unwrap();
    }

    fn vectors() -> OnlineTable {
        OnlineTable {
            project: "p".to_owned(),
            view: "vectors".to_owned(),
            join_keys: vec![Field::new("id", ValueType::Int64)],
            columns: vec![Field::new("v", ValueType::FloatList), Field::new("n", ValueType::Int64)],
            tags: feast_core::Tags::new(),
        }
    }

    #[tokio::test]
    async fn vectors_and_numbers_have_columns_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let plain = SqliteStore::connect(&json!({}), folder.path()).unwrap();
        plain.update(&[TableChange::Ensure(vectors())]).await.unwrap();
        // Switched on later: the table is brought up to date.
        let options = json!({"vector_enabled": true, "enable_openai_compatible_store": true});
        let store = SqliteStore::connect(&options, folder.path()).unwrap();
        store.update(&[TableChange::Ensure(vectors())]).await.unwrap();
        write(&store, &vectors(), 0, &[1.0, 0.5]).await;
        let connection = Connection::open(folder.path().join("data/online.db")).unwrap();
        let row = |feature: &str| -> (SqlValue, Option<f64>) {
            let sql = "SELECT vector_value, value_num FROM p_vectors WHERE feature_name = ?";
            connection.query_row(sql, [feature], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        assert_eq!(row("v"), (SqlValue::Blob(vec![0, 0, 128, 63, 0, 0, 0, 63]), None));
        assert_eq!(row("n"), (SqlValue::Integer(7), Some(7.0)));
    }

    #[tokio::test]
    async fn a_removed_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::connect(&json!({}), folder.path()).unwrap();
        for _ in 0..2 {
            assert!(store.check().await.unwrap_err().hint().unwrap().contains("feast apply"));
            store.update(&[TableChange::Ensure(vectors())]).await.unwrap();
            write(&store, &vectors(), 0, &[1.0]).await;
            store.check().await.unwrap();
            std::fs::remove_dir_all(folder.path().join("data")).unwrap();
        }
    }

    #[tokio::test]
    async fn a_table_that_feast_makes_anew_is_read_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::connect(&json!({}), folder.path()).unwrap();
        store.update(&[TableChange::Ensure(vectors())]).await.unwrap();
        write(&store, &vectors(), 1, &[1.0]).await;
        let ids = Arc::new(arrow::array::Int64Array::from(vec![1])) as ArrayRef;
        let encoder = feast_core::EntityKeyEncoder::new(&vectors().join_keys, 3).unwrap();
        let keys = encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap();
        let table = vectors();
        let reads = [OnlineRead { wanted: &table.clone().wanted([1]), keys: &keys }];
        assert_eq!(store.read(&reads).await.unwrap()[0].event_timestamps.value(0), 1);
        let connection = Connection::open(folder.path().join("data/online.db")).unwrap();
        let narrow = "DROP TABLE p_vectors; CREATE TABLE p_vectors (entity_key BLOB, feature_name TEXT, value BLOB, \
                      value_text TEXT, vector_value BLOB, event_ts timestamp, created_ts timestamp, \
                      PRIMARY KEY(entity_key, feature_name))";
        connection.execute_batch(narrow).unwrap();
        assert!(store.read(&reads).await.unwrap()[0].event_timestamps.is_null(0));
        let listed = store.stored_tables("p").await.unwrap().unwrap();
        assert_eq!(listed[0].name, "p_vectors");
        assert_eq!(listed[0].missing_columns, ["event_ts_micros", "created_ts_micros"]);
        write(&store, &vectors(), 2_000_001, &[1.0]).await;
        assert_eq!(store.read(&reads).await.unwrap()[0].event_timestamps.value(0), 2_000_000);
    }

    #[tokio::test]
    async fn several_processes_may_share_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let table = vectors();
        // Separate stores share no connection and no lock of ours, as separate processes do not.
        let stores = || SqliteStore::connect(&json!({}), folder.path()).unwrap();
        let ensure = || async { stores().update(&[TableChange::Ensure(vectors())]).await.unwrap() };
        futures::future::join_all((0..4).map(|_| ensure())).await;
        futures::future::join_all((0..8u8).map(|number| {
            let (store, table) = (stores(), &table);
            async move {
                write(&store, table, i64::from(number), &[f32::from(number)]).await;
            }
        }))
        .await;
        let connection = Connection::open(folder.path().join("data/online.db")).unwrap();
        let sql = "SELECT event_ts_micros, (SELECT count(*) FROM p_vectors) FROM p_vectors WHERE feature_name = 'v'";
        let found: (i64, i64) = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(found, (7, 2));
    }
}
