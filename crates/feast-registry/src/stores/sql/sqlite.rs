//! SQLite: a file. Its sessions are kept while the file is the one that they opened, and hold no lock between two
//! transactions: nothing is carried into a forked child. With a write-ahead log that does not hold, so there each session
//! opens the file anew.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use feast_core::{Error, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};

use super::database::{Database, Dialect, Refusal, Row, Seen, Session, Value, refused};
use super::options::{DatabaseUrl, seconds, unknown_option};

const DIALECT: Dialect = Dialect {
    bytes: "BLOB",
    integer: "INTEGER",
    length: "length",
    begin_read: "BEGIN",
    begin_write: "BEGIN IMMEDIATE",
    for_update: "",
    inline_index: false,
    list_tables: "SELECT name FROM sqlite_master WHERE type = 'table'",
    hidden_tables: None,
    on_duplicate_key: false,
    most_parameters: 30_000,
};

/// How long a session waits for others to end their commits.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct SqliteFile {
    path: PathBuf,
    lock_timeout: Duration,
}

impl SqliteFile {
    pub(super) fn new(url: &DatabaseUrl, repo_path: &Path) -> Result<Self> {
        let mut lock_timeout = LOCK_TIMEOUT;
        for (key, value) in &url.options {
            match key.as_str() {
                "timeout" => lock_timeout = seconds(key, value)?,
                // About threads of Python, of which there are none here.
                "check_same_thread" => {}
                other => return Err(unknown_option(other, &["timeout", "check_same_thread"])),
            }
        }
        Ok(Self { path: url.file(repo_path)?, lock_timeout })
    }
}

impl fmt::Display for SqliteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SQL registry `sqlite:///{}`", self.path.display())
    }
}

#[async_trait]
impl Database for SqliteFile {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn connect(&self) -> Result<Box<dyn Session>> {
        let what = self.to_string();
        let (path, lock_timeout) = (self.path.clone(), self.lock_timeout);
        let opened = blocking(move || open(&path, lock_timeout)).await?;
        let (connection, file) = opened.map_err(|error| translated(&what, error))?;
        let (path, name) = (self.path.clone(), Arc::default());
        Ok(Box::new(SqliteSession { connection: Some(connection), what, path, file, name }))
    }

    async fn prepare_write(&self) -> Result<()> {
        let path = self.path.clone();
        let made = blocking(move || create(&path)).await?;
        made.map_err(|error| {
            let refusal = match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Refusal::ReadOnly,
                _ => Refusal::Failed,
            };
            refused(self, refusal).with_source(error)
        })
    }
}

/// Opens the file; tells which one it was when the session may be kept. One that does not exist is an empty database that
/// is not written: only a commit makes the file.
fn open(path: &Path, lock_timeout: Duration) -> rusqlite::Result<(Connection, Option<FileId>)> {
    // Before it is opened: another file that takes its place meanwhile must not be taken for it.
    let file = file_id(path);
    if !path.exists() {
        return Ok((Connection::open_in_memory()?, None));
    }
    let writable = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, writable)?;
    connection.busy_timeout(lock_timeout)?;
    Ok((connection, file))
}

/// Device and number of a file.
type FileId = (u64, u64);

/// Which file this is; `None` when there is none, or one with a write-ahead log.
#[cfg(unix)]
fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;

    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let metadata = std::fs::metadata(path).ok().filter(|_| !Path::new(&log).exists())?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_id(_: &Path) -> Option<FileId> {
    None
}

/// Makes the file and its folder, where they are missing.
fn create(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::OpenOptions::new().append(true).create(true).open(path).map(drop)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("working with the registry's file failed").with_source(error))
}

struct SqliteSession {
    /// `None` after a call that was given up.
    connection: Option<Connection>,
    what: String,
    path: PathBuf,
    /// What it opened; `None` for a session that is not kept.
    file: Option<FileId>,
    name: Arc<()>,
}

impl SqliteSession {
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = self.connection.take().ok_or_else(|| refused(&self.what, Refusal::Failed))?;
        let (connection, done) = blocking(move || {
            let done = work(&connection);
            (connection, done)
        })
        .await?;
        self.connection = Some(connection);
        done.map_err(|error| translated(&self.what, error))
    }
}

#[async_trait]
impl Session for SqliteSession {
    async fn query(&mut self, sql: &str, parameters: Vec<Value>) -> Result<Vec<Row>> {
        let sql = sql.to_owned();
        self.with(move |connection| {
            let mut statement = connection.prepare(&sql)?;
            let n_columns = statement.column_count();
            let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let values = (0..n_columns).map(|column| row.get_ref(column).map(value_of));
                found.push(Row::new(values.collect::<rusqlite::Result<_>>()?));
            }
            Ok(found)
        })
        .await
    }

    async fn execute(&mut self, sql: &str, parameters: Vec<Value>) -> Result<u64> {
        let sql = sql.to_owned();
        let execute = move |connection: &Connection| {
            connection.execute(&sql, rusqlite::params_from_iter(parameters)).map(|n_rows| n_rows as u64)
        };
        self.with(execute).await
    }

    async fn is_alive(&mut self) -> bool {
        self.connection.is_some() && self.may_be_kept()
    }

    fn may_be_kept(&self) -> bool {
        self.file.is_some() && self.file == file_id(&self.path)
    }

    /// Files come and go.
    fn tables_stay(&self) -> bool {
        false
    }

    async fn seen(&mut self) -> Result<Option<Seen>> {
        let number =
            self.with(|connection| connection.pragma_query_value(None, "data_version", |row| row.get(0))).await?;
        Ok(Some(Seen { session: Arc::clone(&self.name), number }))
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn value_of(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Integer(number as i64),
        ValueRef::Text(text) => Value::Bytes(text.to_vec()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}

fn translated(what: &str, error: rusqlite::Error) -> Error {
    let refusal = match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Refusal::Conflict,
        Some(ErrorCode::ReadOnly) => Refusal::ReadOnly,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Refusal::Late,
        Some(ErrorCode::PermissionDenied) => Refusal::MayNotRead,
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            return Error::new(
                feast_core::ErrorCode::CorruptRegistry,
                format!("{what} is not a SQLite database, or it is damaged"),
            )
            .with_hint("correct `path` below `registry` in feature_store.yaml, or restore the file from a backup")
            .with_source(error);
        }
        Some(ErrorCode::CannotOpen) => Refusal::Unreachable,
        _ => Refusal::Failed,
    };
    refused(&what, refusal).with_source(error)
}
