//! Rows kept as Parquet files, and read back.
//!
//! Columns are encoded on several threads. In a bucket there is no renaming: the files of a folder appear one by one
//! there, and those that were written go away again when anything fails.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use feast_core::{Error, ErrorCode, Result};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use tokio::sync::mpsc;

use crate::BatchStream;
use crate::parallel::{self, blocking};
use crate::sources::bucket::{Bucket, Upload, is_in_bucket};
use crate::sources::file::resolve;
use crate::sources::{self, SourceTable};

/// How rows are written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Replace what is there. A directory is replaced only when it holds nothing but Parquet files, and is away for a
    /// moment: a process that is killed then leaves the old one under a hidden name beside it.
    pub overwrite: bool,
    /// Rows of one file of a directory.
    pub rows_per_file: usize,
    /// Encoded bytes of a row group at most, about: what a writer holds in memory.
    pub row_group_bytes: usize,
    /// Where the bucket is, if the path is in one and its endpoint is special.
    pub endpoint: String,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { overwrite: false, rows_per_file: 5_000_000, row_group_bytes: ROW_GROUP_BYTES, endpoint: String::new() }
    }
}

/// Writes a stream to one file, if the path ends in `.parquet`, else to a directory of files.
///
/// Rows are visible all at once or, when anything fails, not at all; in a bucket, file by file.
pub(crate) async fn write(path: &str, base: &Path, rows: BatchStream, options: WriteOptions) -> Result<Vec<PathBuf>> {
    let (path, base) = (path.to_owned(), base.to_path_buf());
    let schema = Arc::clone(rows.schema());
    // Told when all rows have arrived; files that are dropped before that vanish.
    let (sender, receiver) = mpsc::channel::<Option<RecordBatch>>(2);
    let writing = tokio::spawn(blocking(move || {
        if is_in_bucket(&path) {
            write_objects(&path, receiver, schema, &options)
        } else {
            write_files(&resolve(&path, &base)?, receiver, schema, &options)
        }
    }));
    let failure = hand_over(rows, &sender).await.err();
    drop(sender);
    let written = writing.await.map_err(|_| Error::internal("writing rows stopped unexpectedly"))?;
    failure.map_or(written, Err)
}

/// Sends all batches and then `None`. A writer that stopped says itself why.
async fn hand_over(mut rows: BatchStream, sender: &mpsc::Sender<Option<RecordBatch>>) -> Result<()> {
    while let Some(batch) = rows.next().await {
        if sender.send(Some(batch?)).await.is_err() {
            return Ok(());
        }
    }
    drop(sender.send(None).await);
    Ok(())
}

/// Writes what arrives into the parts; an error when it ends too early, which the sender explains.
fn write_parts(mut receiver: mpsc::Receiver<Option<RecordBatch>>, parts: &mut Parts) -> Result<()> {
    loop {
        match receiver.blocking_recv() {
            Some(Some(batch)) => parts.write(&batch)?,
            Some(None) => return parts.finish(),
            None => return Err(Error::internal("the rows to write ended early")),
        }
    }
}

fn write_files(
    target: &Path,
    receiver: mpsc::Receiver<Option<RecordBatch>>,
    schema: SchemaRef,
    options: &WriteOptions,
) -> Result<Vec<PathBuf>> {
    let single = is_single(target);
    check_target(target, options.overwrite)?;
    let staging = Staging::new(target)?;
    let mut parts = Parts {
        place: Place::Local(staging.path.clone()),
        prefix: "part".to_owned(),
        single,
        rows_per_file: if single { usize::MAX } else { options.rows_per_file.max(1) },
        row_group_bytes: options.row_group_bytes,
        schema,
        current: None,
        names: Vec::new(),
    };
    if !single {
        fs::create_dir_all(&staging.path).map_err(|error| failed(&staging.path, error))?;
    }
    write_parts(receiver, &mut parts)?;
    // Somebody may have come first while we wrote.
    check_target(target, options.overwrite)?;
    staging.publish(target)?;
    Ok(if single { vec![target.to_path_buf()] } else { parts.names.iter().map(|name| target.join(name)).collect() })
}

fn write_objects(
    path: &str,
    receiver: mpsc::Receiver<Option<RecordBatch>>,
    schema: SchemaRef,
    options: &WriteOptions,
) -> Result<Vec<PathBuf>> {
    let (bucket, key) = Bucket::of(path, &options.endpoint)?;
    let single = is_single(Path::new(&key));
    let exists = || -> Result<Vec<String>> {
        if single {
            return Ok(bucket.head(&key)?.map(|_| key.clone()).into_iter().collect());
        }
        Ok(bucket.list(&key)?.into_iter().map(|object| object.location.to_string()).collect())
    };
    let found = exists()?;
    if !found.is_empty() && !options.overwrite {
        return Err(taken(path));
    }
    if let Some(other) = found.iter().find(|key| !key.ends_with(".parquet")) {
        return Err(not_ours(path, other));
    }
    let mut parts = Parts {
        place: Place::Bucket(bucket.clone(), key.clone()),
        // Files of a dataset that is replaced must not be written over while it is read.
        prefix: format!("part-{}", uuid::Uuid::new_v4().simple()),
        single,
        rows_per_file: if single { usize::MAX } else { options.rows_per_file.max(1) },
        row_group_bytes: options.row_group_bytes,
        schema,
        current: None,
        names: Vec::new(),
    };
    let written = write_parts(receiver, &mut parts);
    let keys = parts.names.iter().map(|name| if single { key.clone() } else { format!("{key}/{name}") });
    let keys: Vec<String> = keys.collect();
    if let Err(error) = written {
        drop(parts);
        if !single {
            drop(bucket.delete(&keys));
        }
        return Err(error);
    }
    if !single {
        bucket.delete(&found)?;
    }
    Ok(keys.iter().map(|key| bucket.url(key)).collect())
}

fn is_single(target: &Path) -> bool {
    target.extension().is_some_and(|extension| extension == "parquet")
}

/// Reads what [`write`] wrote, or any file, directory or glob of a file source.
pub(crate) async fn read(path: &str, endpoint: &str, base: &Path) -> Result<BatchStream> {
    let (name, endpoint, base) = (path.to_owned(), endpoint.to_owned(), base.to_path_buf());
    let table = blocking(move || SourceTable::find(&name, sources::Place::new(&name, &endpoint), &base, &[])).await?;
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
        return Err(taken(&target.to_string_lossy()));
    }
    if target.is_dir() {
        let entries = fs::read_dir(target).map_err(|error| failed(target, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(target, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".parquet") || entry.path().is_dir() {
                return Err(not_ours(&target.to_string_lossy(), &name));
            }
        }
    }
    Ok(())
}

fn taken(path: &str) -> Error {
    Error::new(ErrorCode::SavedDatasetLocationExists, format!("there is something at `{path}` already"))
        .with_hint("choose another path, or allow overwriting")
}

fn not_ours(path: &str, name: &str) -> Error {
    Error::new(ErrorCode::SavedDatasetLocationExists, format!("`{path}` holds `{name}`, which is not a Parquet file"))
        .with_hint("choose a directory that holds nothing else")
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

/// Where parts go.
enum Place {
    Local(PathBuf),
    /// A bucket, and the key of the folder or of the one object.
    Bucket(Bucket, String),
}

/// One file, or the numbered files of a directory.
struct Parts {
    place: Place,
    prefix: String,
    single: bool,
    rows_per_file: usize,
    row_group_bytes: usize,
    schema: SchemaRef,
    current: Option<(ParquetFile, usize)>,
    /// Names of the files so far.
    names: Vec<String>,
}

impl Parts {
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
        let name = format!("{}-{:05}.parquet", self.prefix, self.names.len());
        let file = match &self.place {
            Place::Local(root) if self.single => ParquetFile::create(root, &self.schema, zstd())?,
            Place::Local(root) => ParquetFile::create(&root.join(&name), &self.schema, zstd())?,
            Place::Bucket(bucket, key) => {
                let key = if self.single { key.clone() } else { format!("{key}/{name}") };
                ParquetFile::upload(bucket, &key, &self.schema, zstd())?
            }
        };
        self.names.push(name);
        Ok((file.with_row_groups_of(self.row_group_bytes), 0))
    }

    /// Completes the last file. Without rows there is one file, so that the columns are kept.
    fn finish(&mut self) -> Result<()> {
        if self.names.is_empty() {
            self.current = Some(self.next_file()?);
        }
        self.current.take().map_or(Ok(()), |(file, _)| file.finish())
    }
}

/// The compression of files that are ours to choose.
pub(crate) fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

/// Rows of a row group at most: what writers of Parquet choose as a rule.
pub(crate) const ROW_GROUP_ROWS: usize = 1 << 20;
/// Encoded bytes of a row group, unless memory is limited: writers of wide tables need bounded memory.
const ROW_GROUP_BYTES: usize = 128 << 20;

/// A Parquet file being written, its columns on several threads.
pub(crate) struct ParquetFile {
    path: PathBuf,
    schema: SchemaRef,
    writer: SerializedFileWriter<Sink>,
    factory: ArrowRowGroupWriterFactory,
    /// Of the row group being written, by leaf column.
    columns: Vec<Mutex<ArrowColumnWriter>>,
    /// The first leaf of each column.
    first_leaves: Vec<usize>,
    n_rows: usize,
    n_row_groups: usize,
    row_group_bytes: usize,
}

enum Sink {
    File(File),
    Upload(Box<Upload>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Upload(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Upload(upload) => upload.flush(),
        }
    }
}

impl ParquetFile {
    /// Creates the file.
    pub(crate) fn create(path: &Path, schema: &SchemaRef, compression: Compression) -> Result<Self> {
        let file = File::create(path).map_err(|error| failed(path, error))?;
        Self::new(path, Sink::File(file), schema, compression)
    }

    /// Creates an object, which appears when it is finished.
    pub(crate) fn upload(bucket: &Bucket, key: &str, schema: &SchemaRef, compression: Compression) -> Result<Self> {
        Self::new(&bucket.url(key), Sink::Upload(Box::new(bucket.upload(key)?)), schema, compression)
    }

    fn new(path: &Path, sink: Sink, schema: &SchemaRef, compression: Compression) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(compression).build();
        let opened = ArrowWriter::try_new(sink, Arc::clone(schema), Some(properties))
            .and_then(|writer| writer.into_serialized_writer());
        let (writer, factory) = opened.map_err(|error| unwritable(path, error))?;
        let leaves = writer.schema_descr();
        let first_leaves = (0..schema.fields().len()).map(|column| {
            (0..leaves.num_columns()).position(|leaf| leaves.get_column_root_idx(leaf) == column).unwrap_or_default()
        });
        Ok(Self {
            path: path.to_path_buf(),
            schema: Arc::clone(schema),
            first_leaves: first_leaves.collect(),
            writer,
            factory,
            columns: Vec::new(),
            n_rows: 0,
            n_row_groups: 0,
            row_group_bytes: ROW_GROUP_BYTES,
        })
    }

    /// The same file with row groups of at most so many encoded bytes, about.
    fn with_row_groups_of(mut self, bytes: usize) -> Self {
        self.row_group_bytes = bytes;
        self
    }

    /// Adds rows.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut start = 0;
        while start < batch.num_rows() {
            let taken = (batch.num_rows() - start).min(ROW_GROUP_ROWS - self.n_rows);
            self.encode(&batch.slice(start, taken))?;
            start += taken;
            self.n_rows += taken;
            let size = || self.columns.iter().map(|column| column.lock().map_or(0, |column| column.memory_size()));
            if self.n_rows == ROW_GROUP_ROWS || size().sum::<usize>() > self.row_group_bytes {
                self.end_row_group()?;
            }
        }
        Ok(())
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.columns.is_empty() {
            let columns = self.factory.create_column_writers(self.n_row_groups);
            let columns = columns.map_err(|error| unwritable(&self.path, error))?;
            self.columns = columns.into_iter().map(Mutex::new).collect();
        }
        parallel::for_each(parallel::threads(), batch.num_columns(), &|column| {
            let encode = || -> parquet::errors::Result<()> {
                let leaves = compute_leaves(self.schema.field(column), batch.column(column))?;
                for (leaf, array) in (self.first_leaves[column]..).zip(&leaves) {
                    let mut writer = self.columns[leaf].lock().map_err(|_| ParquetError::General("a thread".into()))?;
                    writer.write(array)?;
                }
                Ok(())
            };
            encode().map_err(|error| unwritable(&self.path, error))
        })
    }

    fn end_row_group(&mut self) -> Result<()> {
        let columns = std::mem::take(&mut self.columns);
        let write = || -> parquet::errors::Result<()> {
            let mut row_group = self.writer.next_row_group()?;
            for column in columns {
                let column = column.into_inner().map_err(|_| ParquetError::General("a thread failed".into()))?;
                column.close()?.append_to_row_group(&mut row_group)?;
            }
            row_group.close().map(drop)
        };
        write().map_err(|error| unwritable(&self.path, error))?;
        self.n_rows = 0;
        self.n_row_groups += 1;
        Ok(())
    }

    /// Writes a word into the footer.
    pub(crate) fn annotate(&mut self, key: &str, value: String) {
        self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
    }

    /// Completes the file and makes it durable.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.n_rows > 0 {
            self.end_row_group()?;
        }
        match self.writer.into_inner().map_err(|error| unwritable(&self.path, error))? {
            Sink::File(file) => file.sync_all().map_err(|error| failed(&self.path, error)),
            Sink::Upload(upload) => upload.finish(),
        }
    }
}

/// The error for a place that the system does not let us write.
pub(crate) fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!("could not write `{}`", path.display()))
        .with_source(error)
        .with_hint("check that the folder exists, that this user may write to it, and that the disk has room")
}

/// The error for rows that could not be encoded; one of ours that passed through Parquet stays what it was.
pub(crate) fn unwritable(path: &Path, error: ParquetError) -> Error {
    let error = match error {
        ParquetError::External(error) => match error.downcast::<Error>() {
            Ok(ours) => return *ours,
            Err(other) => ParquetError::External(other),
        },
        error => error,
    };
    Error::unavailable(format!("could not write Parquet to `{}`", path.display()))
        .with_source(error)
        .with_hint("check the types of the columns, and that the disk has room")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringArray, StructArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    #[test]
    fn columns_of_any_shape_are_written_in_row_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        let batch = |from: i64, to: i64| {
            let n_rows = (to - from) as usize;
            let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(
                (0..n_rows).map(|row| (row % 3 > 0).then(|| vec![Some(row as i32), None])),
            );
            let fields = vec![
                Arc::new(Field::new("x", DataType::Int64, false)),
                Arc::new(Field::new("list", lists.data_type().clone(), true)),
            ];
            let columns = vec![Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef, Arc::new(lists)];
            let texts = StringArray::from_iter((from..to).map(|row| (row % 2 == 0).then(|| format!("{row}"))));
            RecordBatch::try_from_iter_with_nullable([
                ("both", Arc::new(StructArray::new(fields.into(), columns, None)) as ArrayRef, true),
                ("text", Arc::new(texts), true),
                ("number", Arc::new(Int64Array::from_iter_values(from..to)), true),
            ])
            .unwrap()
        };
        let n_rows = ROW_GROUP_ROWS as i64 + 5;
        let batches = [batch(0, 3), batch(3, 3), batch(3, n_rows)];
        let mut file = ParquetFile::create(&path, &batches[0].schema(), zstd()).unwrap();
        batches.iter().for_each(|batch| file.write(batch).unwrap());
        file.annotate("who", "me".to_owned());
        file.finish().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let metadata = Arc::clone(reader.metadata());
        assert_eq!(metadata.row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>(), [1 << 20, 5]);
        let pairs = metadata.file_metadata().key_value_metadata().unwrap();
        assert!(pairs.iter().any(|pair| pair.key == "who" && pair.value.as_deref() == Some("me")));
        let read: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
        let read = concat_batches(&batches[0].schema(), &read).unwrap();
        assert_eq!(read, concat_batches(&batches[0].schema(), &batches).unwrap());
        assert_eq!(read.column(2).as_primitive::<Int64Type>().value(ROW_GROUP_ROWS), ROW_GROUP_ROWS as i64);
    }
}
