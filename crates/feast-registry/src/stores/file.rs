//! The registry as one local file in Feast's layout: a serialized `feast.core.Registry`.
//!
//! Readers need no lock: a commit writes a new file beside the old one and renames it, so that a reader sees either
//! the old or the new registry. Commits exclude each other by an operating system lock on `<file>.lock`, which a
//! process that dies gives up, and compare the stored version before they write. Feast itself neither locks nor
//! renames; what it may leave for a moment (an empty or partial file) is read again before it is called corrupt.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use feast_core::{
    CommitRecord, Error, ErrorCode, RegistryChanges, RegistryHistory, RegistrySnapshot, RegistryStore, RegistryVersion,
    Result,
};

use super::RegistrySettings;
use super::whole::{Memo, Next, Stored};
use super::{bucket, history};

/// How long a commit waits for others.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a file that cannot be read is read again, and the pause between: Feast may be writing it.
const READ_ATTEMPTS: usize = 5;
const READ_PAUSE: Duration = Duration::from_millis(20);

/// A file that has not changed for this long is known by its size and times; before, the clock of the file system
/// may be too coarse to tell two writes apart.
const SETTLED: Duration = Duration::from_secs(2);

/// A registry in one local file.
#[derive(Debug)]
pub struct FileRegistry {
    path: PathBuf,
    author: String,
    known: Arc<Mutex<Option<(Stamp, RegistryVersion)>>>,
    memo: Arc<Memo>,
}

/// Connects the file that the configuration names.
pub(super) fn connect(settings: &RegistrySettings<'_>) -> Result<Arc<dyn RegistryStore>> {
    let path = settings.path;
    let path = match path.split_once("://") {
        Some(("file", local)) => local,
        Some(("s3" | "gs", _)) => return bucket::connect(settings),
        Some((scheme, _)) => {
            return Err(Error::unsupported(format!("there are no registry files in `{scheme}://`")).with_hint(
                "use a path on this machine, `s3://bucket/registry.db` or `gs://bucket/registry.db`; a database needs \
                 `registry_type: sql`",
            ));
        }
        None => path,
    };
    Ok(Arc::new(FileRegistry::new(settings.repo_path.join(path)).with_author(settings.author)))
}

impl FileRegistry {
    /// The registry at a path. The file and its folder may not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), author: String::new(), known: Arc::default(), memo: Arc::default() }
    }

    /// Names who commits, for the history.
    #[must_use]
    pub fn with_author(self, author: &str) -> Self {
        Self { author: author.to_owned(), ..self }
    }

    /// Runs file operations where they may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || work(&path))
            .await
            .map_err(|error| Error::internal("reading or writing the registry file failed").with_source(error))?
    }
}

impl fmt::Display for FileRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry file `{}`", self.path.display())
    }
}

#[async_trait]
impl RegistryStore for FileRegistry {
    async fn load(&self) -> Result<RegistrySnapshot> {
        let memo = Arc::clone(&self.memo);
        self.blocking(move |path| {
            let Some(stored) = read(path)? else { return Ok(RegistrySnapshot::default()) };
            stored.snapshot(&memo, &path.display())
        })
        .await
    }

    async fn commit(&self, base: Option<&RegistryVersion>, changes: &RegistryChanges) -> Result<RegistryVersion> {
        let base = base.cloned();
        let changes = changes.clone();
        let author = changes.author_or(&self.author).to_owned();
        self.blocking(move |path| commit(path, &author, base.as_ref(), &changes)).await
    }

    async fn version(&self) -> Result<Option<RegistryVersion>> {
        let known = Arc::clone(&self.known);
        self.blocking(move |path| version(path, &known)).await
    }

    async fn check_writable(&self) -> Result<()> {
        self.blocking(|path| {
            let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            match fs::metadata(path) {
                Ok(metadata) if metadata.permissions().readonly() => Err(read_only(path)),
                Ok(_) => lock(path).map(drop),
                Err(_) => Ok(()),
            }
        })
        .await
    }

    async fn teardown(&self) -> Result<()> {
        self.blocking(teardown).await
    }

    fn history(&self) -> Option<&dyn RegistryHistory> {
        Some(self)
    }
}

#[async_trait]
impl RegistryHistory for FileRegistry {
    async fn commits(&self, project: &str, after: u64, most: usize) -> Result<Vec<CommitRecord>> {
        let project = project.to_owned();
        self.blocking(move |path| {
            history::read(&fs::canonicalize(path).unwrap_or(path.to_owned()), &project, after, most)
        })
        .await
    }
}

/// Reads the file; `None` when there is none.
fn read(path: &Path) -> Result<Option<Stored>> {
    let mut attempt = 1;
    loop {
        let bytes = match fs::read(path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(inaccessible("read", path, error)),
        };
        match Stored::parse(bytes, &path.display()) {
            Ok(stored) => return Ok(Some(stored)),
            Err(error) if attempt == READ_ATTEMPTS || !is_being_written(path) => return Err(error),
            Err(_) => std::thread::sleep(READ_PAUSE),
        }
        attempt += 1;
    }
}

/// Whether somebody may be in the middle of writing the file; one that lay there for longer stays what it is.
fn is_being_written(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age < SETTLED))
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: SystemTime,
    identity: Option<(u64, u64)>,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { length: metadata.len(), modified: metadata.modified().ok()?, identity: identity(&metadata) })
    }
}

/// Device and number of a file, where the system has them.
#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Option<(u64, u64)> {
    None
}

fn version(path: &Path, known: &Mutex<Option<(Stamp, RegistryVersion)>>) -> Result<Option<RegistryVersion>> {
    let stamp = Stamp::of(path);
    let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let (Some(stamp), Some((known, version))) = (&stamp, known.as_ref())
        && stamp == known
    {
        return Ok(Some(version.clone()));
    }
    let Some(stored) = read(path)? else {
        *known = None;
        return Ok(None);
    };
    let version = stored.version();
    let settled = |stamp: &Stamp| SystemTime::now().duration_since(stamp.modified).is_ok_and(|age| age > SETTLED);
    *known = stamp.filter(settled).map(|stamp| (stamp, version.clone()));
    Ok(Some(version))
}

fn commit(
    path: &Path,
    author: &str,
    base: Option<&RegistryVersion>,
    changes: &RegistryChanges,
) -> Result<RegistryVersion> {
    // A link stays a link: the file it names is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| not_written(path, error))?;
    let permissions = match fs::metadata(path) {
        Ok(metadata) if metadata.permissions().readonly() => return Err(read_only(path)),
        Ok(metadata) => Some(metadata.permissions()),
        Err(_) => None,
    };
    let _lock = lock(path)?;
    let stored = read(path)?;
    let next = Next::make(stored.as_ref(), base, changes, &path.display())?;
    replace(path, folder, next.stored.bytes(), permissions).map_err(|error| not_written(path, error))?;
    // The commit stands, whatever becomes of its history.
    if let Err(error) = history::append(path, &changes.project, author, &next.revisions) {
        tracing::warn!(registry = %path.display(), %error, "a commit is missing in the history");
    }
    Ok(next.version)
}

/// Writes a new file beside the old one and puts it in its place. Called under the lock: a temporary file that is
/// already there was left by a process that died.
fn replace(path: &Path, folder: &Path, bytes: &[u8], permissions: Option<fs::Permissions>) -> io::Result<()> {
    let temporary = beside(path, ".", ".tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        // The registry is untouched; a leftover would only take space.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // Makes the rename itself durable. Systems that cannot open folders have no such step.
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn teardown(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let lock = lock(path)?;
    fs::remove_file(path).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(not_written(path, error)),
    })?;
    // Whoever waits for the lock notices that its file is gone and makes a new one.
    if cfg!(unix) {
        let _ = fs::remove_file(lock_path(path));
    }
    let _ = fs::remove_file(history::path_of(path));
    drop(lock);
    Ok(())
}

/// The lock of commits.
struct CommitLock(File);

impl Drop for CommitLock {
    fn drop(&mut self) {
        // Closing would not be enough: a child forked meanwhile has the file open too.
        let _ = self.0.unlock();
    }
}

/// Waits for the lock of commits. It ends with the returned value, or with the process.
fn lock(path: &Path) -> Result<CommitLock> {
    let lock_path = lock_path(path);
    let started = Instant::now();
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| not_written(path, error))?;
        match file.try_lock() {
            Ok(()) => {
                // A teardown may have removed the file between opening and locking it; then others lock a new one.
                let same = match (file.metadata(), fs::metadata(&lock_path)) {
                    (Ok(ours), Ok(theirs)) => identity(&ours) == identity(&theirs),
                    _ => false,
                };
                if same {
                    return Ok(CommitLock(file));
                }
            }
            Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_TIMEOUT => {
                return Err(Error::unavailable(format!(
                    "registry file `{}` has been locked by another process for {} seconds",
                    path.display(),
                    LOCK_TIMEOUT.as_secs()
                ))
                .with_hint(format!("find the process that holds `{}` and end it", lock_path.display())));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::Error(error)) => {
                return Err(Error::unavailable(format!("`{}` cannot be locked", lock_path.display()))
                    .with_hint("keep the registry on a file system with locks")
                    .with_source(error));
            }
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    beside(path, "", ".lock")
}

/// A file in the same folder, named after this one.
fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{before}{name}{after}"))
}

fn read_only(path: &Path) -> Error {
    Error::new(ErrorCode::ReadOnlyRegistry, format!("registry file `{}` is read-only", path.display()))
        .with_hint("make the file and its folder writable, or run the command where they are")
}

fn not_written(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => read_only(path).with_source(error),
        _ => inaccessible("written", path, error),
    }
}

fn inaccessible(what: &str, path: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        ErrorKind::IsADirectory | ErrorKind::NotADirectory | ErrorKind::NotFound | ErrorKind::InvalidInput => {
            ErrorCode::InvalidConfiguration
        }
        _ => ErrorCode::Unavailable,
    };
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => "give this user the right to the file and its folder",
        ErrorKind::IsADirectory => {
            "`registry` in feature_store.yaml names a file, such as `data/registry.db`, not a folder"
        }
        ErrorKind::NotADirectory | ErrorKind::NotFound | ErrorKind::InvalidInput => {
            "correct `registry` in feature_store.yaml: it names a file in a folder that exists or can be made"
        }
        ErrorKind::StorageFull => "make room on the disk",
        _ => "check `registry` in feature_store.yaml, and the disk the file is on",
    };
    Error::new(code, format!("registry file `{}` cannot be {what}", path.display())).with_hint(hint).with_source(error)
}
