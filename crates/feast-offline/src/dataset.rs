//! Rows kept as Parquet files, and read back.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use feast_core::{Error, ErrorCode, Result};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::BatchStream;
use crate::parallel::blocking;
use crate::sources::SourceTable;
use crate::sources::file::resolve;

/// How rows are written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Replace what is there. A directory is replaced only when it holds nothing but Parquet files, and is away for a
    /// moment: a process that is killed then leaves the old one under a hidden name beside it.
    pub overwrite: bool,
    /// Rows of one file of a directory.
    pub rows_per_file: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { overwrite: false, rows_per_file: 5_000_000 }
    }
}

/// Writes a stream to one file, if the path ends in `.parquet`, else to a directory of files.
///
/// Rows are visible all at once or, when anything fails, not at all.
pub(crate) async fn write(
    path: &str,
    base: &Path,
    mut rows: BatchStream,
    options: WriteOptions,
) -> Result<Vec<PathBuf>> {
    let target = resolve(path, base)?;
    let single = target.extension().is_some_and(|extension| extension == "parquet");
    check_target(&target, options.overwrite)?;
    let schema = Arc::clone(rows.schema());
    let staging = Staging::new(&target)?;
    let files_path = staging.path.clone();
    let per_file = if single { usize::MAX } else { options.rows_per_file.max(1) };
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<RecordBatch>(2);
    let writing = tokio::spawn(blocking(move || {
        let mut parts = Parts::new(&files_path, single, per_file, schema)?;
        while let Some(batch) = receiver.blocking_recv() {
            parts.write(&batch)?;
        }
        parts.finish()
    }));
    let mut failure = None;
    while let Some(batch) = rows.next().await {
        match batch {
            // A writer that stopped says why below.
            Ok(batch) => {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let written = writing.await.map_err(|_| Error::internal("writing rows stopped unexpectedly"))?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let names = written?;
    blocking(move || {
        // Somebody may have come first while we wrote.
        check_target(&target, options.overwrite)?;
        staging.publish(&target)?;
        Ok(if single { vec![target] } else { names.into_iter().map(|name| target.join(name)).collect() })
    })
    .await
}

/// Reads what [`write`] wrote, or any file, directory or glob of a file source.
pub(crate) async fn read(path: &str, base: &Path) -> Result<BatchStream> {
    let (name, base) = (path.to_owned(), base.to_path_buf());
    let table = blocking(move || SourceTable::open_path(&name, &name, &base)).await?;
    Ok(BatchStream::from_blocking(Arc::clone(table.schema()), move |sender| {
        let columns: Vec<usize> = (0..table.schema().fields().len()).collect();
        // One thread, so that rows come in the order in which they were written.
        table.scan(&columns, None, 1, &|_, batch| sender.send(batch))
    }))
}

/// Refuses to write over what is there, unless told to, and never over what is not ours to replace.
fn check_target(target: &Path, overwrite: bool) -> Result<()> {
    if !target.exists() {
        return Ok(());
    }
    if !overwrite {
        return Err(Error::new(
            ErrorCode::SavedDatasetLocationExists,
            format!("there is something at `{}` already", target.display()),
        )
        .with_hint("choose another path, or allow overwriting"));
    }
    if target.is_dir() {
        let entries = fs::read_dir(target).map_err(|error| failed(target, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(target, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".parquet") || entry.path().is_dir() {
                return Err(Error::new(
                    ErrorCode::SavedDatasetLocationExists,
                    format!("`{}` holds `{name}`, which is not a Parquet file", target.display()),
                )
                .with_hint("choose a directory that holds nothing else"));
            }
        }
    }
    Ok(())
}

/// A hidden place next to the target, on the same file system, removed unless published.
pub(crate) struct Staging {
    pub(crate) path: PathBuf,
}

impl Staging {
    /// A place for a file or directory that will be called `target`.
    pub(crate) fn new(target: &Path) -> Result<Self> {
        Self::with_ending(target, "tmp")
    }

    /// A place for a file of somebody whose turn it is; what a killed process left there is removed by the next.
    pub(crate) fn in_turn(target: &Path) -> Result<Self> {
        Self::with_ending(target, "append")
    }

    fn with_ending(target: &Path, ending: &str) -> Result<Self> {
        let parent = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(|error| failed(parent, error))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self { path: parent.join(format!(".{name}.{}.{ending}", uuid::Uuid::new_v4().simple())) })
    }

    /// Gives the finished file or directory its name, replacing what has it.
    pub(crate) fn publish(self, target: &Path) -> Result<()> {
        let replaced = if target.is_dir() {
            // A directory cannot be renamed over another.
            let aside = Self::new(target)?;
            fs::rename(target, &aside.path).map_err(|error| failed(target, error))?;
            Some(aside)
        } else {
            None
        };
        if let Err(error) = fs::rename(&self.path, target) {
            if let Some(aside) = &replaced {
                drop(fs::rename(&aside.path, target));
            }
            return Err(failed(target, error));
        }
        if let Some(parent) = target.parent() {
            sync_directory(parent);
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing there is nothing here, or what was replaced.
        if self.path.is_dir() {
            drop(fs::remove_dir_all(&self.path));
        } else if self.path.exists() {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Removes what a killed process left of its copies of files with certain names. The caller has the turn.
pub(crate) fn remove_leftovers(directory: &Path, of: &dyn Fn(&OsStr) -> bool) {
    let is_leftover = |found: &str| {
        let name = found.strip_prefix('.').and_then(|rest| rest.strip_suffix(".append")).and_then(|rest| {
            let (name, id) = rest.rsplit_once('.')?;
            (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
        });
        name.is_some_and(|name| of(OsStr::new(name)))
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if is_leftover(&entry.file_name().to_string_lossy()) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

/// Makes a rename survive a crash, where the system can.
pub(crate) fn sync_directory(directory: &Path) {
    if let Ok(directory) = File::open(directory) {
        drop(directory.sync_all());
    }
}

/// One file, or the numbered files of a directory.
struct Parts<'a> {
    root: &'a Path,
    single: bool,
    rows_per_file: usize,
    schema: SchemaRef,
    current: Option<(ParquetFile, usize)>,
    names: Vec<String>,
}

impl<'a> Parts<'a> {
    fn new(root: &'a Path, single: bool, rows_per_file: usize, schema: SchemaRef) -> Result<Self> {
        if !single {
            fs::create_dir_all(root).map_err(|error| failed(root, error))?;
        }
        Ok(Self { root, single, rows_per_file, schema, current: None, names: Vec::new() })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut start = 0;
        while start < batch.num_rows() {
            let (mut file, n_rows) = match self.current.take() {
                Some(current) => current,
                None => self.next_file()?,
            };
            let taken = (self.rows_per_file - n_rows).min(batch.num_rows() - start);
            file.write(&batch.slice(start, taken))?;
            start += taken;
            if n_rows + taken == self.rows_per_file {
                file.finish()?;
            } else {
                self.current = Some((file, n_rows + taken));
            }
        }
        Ok(())
    }

    fn next_file(&mut self) -> Result<(ParquetFile, usize)> {
        let name = format!("part-{:05}.parquet", self.names.len());
        let path = if self.single { self.root.to_path_buf() } else { self.root.join(&name) };
        self.names.push(name);
        Ok((ParquetFile::create(&path, &self.schema, zstd())?, 0))
    }

    /// Names of the files. Without rows there is one file, so that the columns are kept.
    fn finish(mut self) -> Result<Vec<String>> {
        if self.names.is_empty() {
            self.current = Some(self.next_file()?);
        }
        if let Some((file, _)) = self.current.take() {
            file.finish()?;
        }
        Ok(self.names)
    }
}

/// The compression of files that are ours to choose.
pub(crate) fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

/// A Parquet file being written.
pub(crate) struct ParquetFile {
    path: PathBuf,
    writer: ArrowWriter<File>,
}

impl ParquetFile {
    /// Creates the file.
    pub(crate) fn create(path: &Path, schema: &SchemaRef, compression: Compression) -> Result<Self> {
        let file = File::create(path).map_err(|error| failed(path, error))?;
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties))
            .map_err(|error| unwritable(path, error))?;
        Ok(Self { path: path.to_path_buf(), writer })
    }

    /// Adds rows.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|error| unwritable(&self.path, error))
    }

    /// Writes a word into the footer.
    pub(crate) fn annotate(&mut self, key: &str, value: String) {
        self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
    }

    /// Completes the file and makes it durable.
    pub(crate) fn finish(self) -> Result<()> {
        let file = self.writer.into_inner().map_err(|error| unwritable(&self.path, error))?;
        file.sync_all().map_err(|error| failed(&self.path, error))
    }
}

/// The error for a place that the system does not let us write.
pub(crate) fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!("could not write `{}`", path.display()))
        .with_source(error)
        .with_hint("check that the folder exists, that this user may write to it, and that the disk has room")
}

/// The error for rows that could not be encoded.
pub(crate) fn unwritable(path: &Path, error: parquet::errors::ParquetError) -> Error {
    Error::unavailable(format!("could not write Parquet to `{}`", path.display()))
        .with_source(error)
        .with_hint("check the types of the columns, and that the disk has room")
}
