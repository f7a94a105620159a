//! The file and its connections: one that writes, a few that read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use feast_core::{Error, ErrorCode, Result, Turns};
use hashbrown::HashMap;
use rusqlite::{Connection, ErrorCode as SqliteCode, OpenFlags};
use tokio::sync::Semaphore;

use super::super::forking::CloseIdle;
use super::SqliteConfig;
use super::writing::OwnedRows;

/// How long a call waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The file and its connections: one that writes, a few that read.
pub(super) struct Database {
    pub(super) file: PathBuf,
    pub(super) config: SqliteConfig,
    pub(super) writer: Mutex<Option<Opened>>,
    /// Small writes, which are written together.
    pub(super) writes: Turns<OwnedRows, Result<()>>,
    pub(super) readers: Mutex<Vec<Opened>>,
    pub(super) read_permits: Semaphore,
}

/// A connection, and the file it was opened on: a file that was removed or replaced meanwhile is another one.
pub(super) struct Opened {
    pub(super) connection: Connection,
    identity: Option<FileIdentity>,
    /// Which tables have our columns for parts of seconds, and since when that is known.
    pub(super) exact: HashMap<String, (bool, Instant)>,
    /// When the file was last changed, for a connection that counts on no further change.
    unchanging: Option<SystemTime>,
}

type FileIdentity = (u64, u64);

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Read,
    Write,
    /// Writing, also where there is no file yet.
    Create,
}

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
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CloseIdle for Database {
    fn close_idle(&self) {
        *lock(&self.writer) = None;
        lock(&self.readers).clear();
    }
}

impl Database {
    pub(super) fn failed(&self, doing: &str, error: rusqlite::Error) -> Error {
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

    fn open(&self, purpose: Purpose) -> Result<Option<Opened>> {
        let create = purpose == Purpose::Create;
        let (cache_kib, mapped_bytes) = match purpose {
            Purpose::Read => (16_384, 1 << 28),
            // Not mapped: what is mapped counts as memory of the process, and a large write touches all of the file.
            Purpose::Write | Purpose::Create => (65_536, 0),
        };
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
        let creating = if create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | creating;
        let open = |file: &Path, flags: OpenFlags| -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(file, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(256);
            connection.execute_batch(&format!(
                "PRAGMA cache_size = -{cache_kib}; PRAGMA mmap_size = {mapped_bytes}; PRAGMA temp_store = MEMORY;"
            ))?;
            Ok(connection)
        };
        let (mut unchanging, mut opened) = (None, open(&self.file, flags));
        if let Err(error) = &opened
            && purpose == Purpose::Read
            && matches!(error.sqlite_error_code(), Some(SqliteCode::ReadOnly | SqliteCode::CannotOpen))
        {
            // A file in write-ahead mode in a folder that may not be written to: SQLite wants to make its log there, unless
            // it is told that nobody writes. Where there is a log, somebody does.
            unchanging = self.last_change();
            if unchanging.is_some() {
                let flags =
                    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
                opened = open(&self.immutable(), flags);
            }
        }
        let connection = opened.map_err(|error| self.failed("open", error))?;
        Ok(Some(Opened { connection, identity: identity(&self.file), exact: HashMap::new(), unchanging }))
    }

    /// When the file was last changed; `None` where a log beside it may have younger rows.
    fn last_change(&self) -> Option<SystemTime> {
        let mut log = self.file.clone().into_os_string();
        log.push("-wal");
        let has_log = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
        std::fs::metadata(&self.file).and_then(|file| file.modified()).ok().filter(|_| !has_log)
    }

    /// The file as a URI that says so that it does not change.
    fn immutable(&self) -> PathBuf {
        let path = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        format!("file:{path}?immutable=1").into()
    }

    /// A connection to read with; `None` when there is no file.
    pub(super) fn reader(&self) -> Result<Option<Opened>> {
        let current = identity(&self.file);
        while let Some(reader) = lock(&self.readers).pop() {
            let changed = reader.unchanging.is_some() && reader.unchanging != self.last_change();
            if reader.identity == current && current.is_some() && !changed {
                return Ok(Some(reader));
            }
        }
        self.open(Purpose::Read)
    }

    pub(super) fn give_back(&self, reader: Opened) {
        lock(&self.readers).push(reader);
    }

    /// Runs a write with the one writing connection; `None` when there is no file and none is to be created.
    pub(super) fn with_writer<T>(
        &self,
        create: bool,
        call: impl FnOnce(&mut Connection) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut writer = lock(&self.writer);
        if writer.as_ref().is_some_and(|writer| writer.identity.is_none() || writer.identity != identity(&self.file)) {
            *writer = None;
        }
        if writer.is_none() {
            let purpose = if create { Purpose::Create } else { Purpose::Write };
            let Some(opened) = self.open(purpose)? else { return Ok(None) };
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
}
