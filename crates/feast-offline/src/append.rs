//! Rows added to a file source: a reader sees all of a batch or nothing of it.
//!
//! A directory or glob gets one more file; small ones are merged now and then (`compaction`). A single file must stay
//! one: its encoded row groups are copied as they are, the new rows follow, and the copy is renamed over it. Writers of
//! one place take turns by a lock on its directory. In a directory with hive partitions each partition appears at once,
//! one after the other. Batches that wait for the same turn in one process are added together (`append_turns`). In a bucket each batch is an object of its own; small ones are not merged there. A single object
//! is replaced, if it is still the one that was read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use feast_core::{DataSource, Error, ErrorCode, Result, list_names};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, parquet_to_arrow_schema};
use parquet::basic::{Compression, Type as PhysicalType};
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::Length;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{SchemaDescriptor, Type as SchemaType};

use crate::append_turns::AppendTurns;
use crate::cast::cast_to;
use crate::compaction::{compact, is_part, name_after, part_stem, remove};
use crate::dataset::{ParquetFile, ROW_GROUP_ROWS, Staging, failed, remove_leftovers, unwritable, zstd};
use crate::sources::delta::read_only;
use crate::sources::file::{Encoding, Files, Shape};
use crate::sources::parquet::read_file;
use crate::sources::shared_file::SharedFile;
use crate::sources::{SourceColumns, SourceTable};
use crate::view_columns::record_batch;

/// A single object is written anew in memory, so it must not be large.
const MOST_OF_AN_OBJECT: u64 = 256 << 20;
/// How often an object that somebody else wrote at the same time is extended again.
const MOST_TRIES: usize = 20;
/// Files of so many bytes are made in memory and written by one call.
const WRITTEN_AT_ONCE: u64 = 1 << 20;
/// Rows of a row group from which a dictionary of numbers is worth its making.
const MANY_ROWS: usize = 4096;

/// What the files of a source ask of rows.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    columns: SourceColumns,
    /// A single file, and its own schema.
    file: Option<(PathBuf, SchemaRef)>,
}

impl Taken {
    fn of(table: &SourceTable) -> Result<Self> {
        let file = match table.files.shape {
            Shape::File => {
                let schema = Arc::clone(table.parquet_file(0)?.1.schema());
                Some((table.files.root.clone(), schema))
            }
            _ => None,
        };
        Ok(Self { columns: SourceColumns::clone(table), file })
    }

    /// The rows as the files have them.
    fn fitted(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let rows = conform(&self.columns, rows)?;
        match &self.file {
            Some((path, schema)) => as_in_file(path, schema, &rows),
            None => Ok(rows),
        }
    }
}

/// Whether the files of a source take these rows, as they are now or were a moment ago.
pub(crate) fn check(turns: &AppendTurns, source: &DataSource, base: &Path, rows: &RecordBatch) -> Result<()> {
    // What files refused a moment ago they may take now.
    if turns.known(source).is_some_and(|known| known.fitted(rows).is_ok()) {
        return Ok(());
    }
    let table = SourceTable::open(source, base)?;
    check_kind(source, &table.files)?;
    let taken = Taken::of(&table)?;
    taken.fitted(rows)?;
    turns.know(source, taken);
    Ok(())
}

/// Adds rows to the files of a source and returns how many. Those of others in this process who wait for the same turn
/// are added along.
pub(crate) fn append(turns: &AppendTurns, source: &DataSource, base: &Path, rows: RecordBatch) -> Result<u64> {
    let files = Files::of(source, base)?;
    check_kind(source, &files)?;
    if files.bucket.is_none() {
        return turns.append(source, rows, |batches| add(turns, source, base, &files, batches));
    }
    if files.shape == Shape::File {
        return extend_object(source, base, &rows);
    }
    // Nobody waits for anybody: each batch is an object of its own.
    let table = SourceTable::open(source, base)?;
    let rows = conform(&table, &rows)?;
    add_files(&table, &rows)?;
    Ok(rows.num_rows() as u64)
}

/// Adds batches to the files of a source at once. What is wrong with one of them is no matter of the others.
fn add(
    turns: &AppendTurns,
    source: &DataSource,
    base: &Path,
    files: &Files,
    batches: &[RecordBatch],
) -> Result<Vec<Result<u64>>> {
    // A link stays a link: the file it names is extended, and whoever writes to it by another name waits.
    let root = match files.shape {
        Shape::Glob => files.files.last().and_then(|file| file.parent()).unwrap_or(&files.root),
        _ => &files.root,
    };
    let root = &fs::canonicalize(root).map_err(|error| failed(root, error))?;
    let directory = if files.shape == Shape::File { root.parent() } else { Some(root.as_path()) };
    let directory = directory.unwrap_or(Path::new("/"));
    let _turn = lock(directory)?;
    // As it is now that it is our turn.
    let table = SourceTable::open(source, base)?;
    let is_file = table.files.shape == Shape::File;
    let taken = Taken::of(&table)?;
    let checked: Vec<Result<RecordBatch>> = batches.iter().map(|rows| taken.fitted(rows)).collect();
    turns.know(source, taken);
    let fit: Vec<&RecordBatch> = checked.iter().flatten().collect();
    let joined;
    let rows = match fit.as_slice() {
        [] => None,
        [rows] => Some(*rows),
        [first, ..] => {
            joined = concat_batches(first.schema_ref(), fit.iter().copied())?;
            Some(&joined)
        }
    };
    if let Some(rows) = rows {
        if is_file {
            remove_leftovers(directory, &|name| root.file_name() == Some(name));
            extend_file(root, &table, rows)?;
        } else {
            remove(&table.replaced);
            add_files(&table, rows)?;
        }
    }
    Ok(checked.into_iter().map(|rows| Ok(rows?.num_rows() as u64)).collect())
}

/// Refuses files to which rows cannot be added.
fn check_kind(source: &DataSource, files: &Files) -> Result<()> {
    if files.delta.is_some() {
        return Err(read_only(&source.name));
    }
    if let Some(what) = match files.encoding {
        Encoding::Csv { .. } => Some("CSV"),
        Encoding::Json { .. } => Some("JSON lines"),
        Encoding::Parquet => None,
    } {
        return Err(Error::unsupported(format!(
            "data source `{}` is {what}, to which rows cannot be added",
            source.name
        ))
        .with_hint("add rows to a Parquet file or to a directory of Parquet files"));
    }
    Ok(())
}

/// The rows with exactly the columns of the source, in its order and of its types.
pub(crate) fn conform(table: &SourceColumns, rows: &RecordBatch) -> Result<RecordBatch> {
    let (expected, found) = (table.schema(), rows.schema());
    let absent = |from: &SchemaRef, of: &SchemaRef| -> Vec<String> {
        let names = of.fields().iter().map(|field| field.name());
        names.filter(|name| from.index_of(name).is_err()).cloned().collect()
    };
    let (mut missing, unexpected) = (absent(&found, expected), absent(expected, &found));
    // The index that pandas wrote along is no column of the table.
    missing.retain(|name| !name.starts_with("__index_level_"));
    if !missing.is_empty() || !unexpected.is_empty() {
        let part = |what: &str, names: &[String]| {
            (!names.is_empty()).then(|| format!("{what} {}", list_names(names.iter().map(String::as_str))))
        };
        let parts: Vec<String> =
            [part("missing", &missing), part("unexpected", &unexpected)].into_iter().flatten().collect();
        return Err(Error::new(
            ErrorCode::MissingColumns,
            format!("the rows do not have the columns of data source `{}`: {}", table.name, parts.join(", ")),
        )
        .with_hint("send every column of the source, timestamps included, and no other"));
    }
    let columns = expected.fields().iter().map(|field| {
        let Ok(column) = found.index_of(field.name()) else {
            return Ok(new_null_array(field.data_type(), rows.num_rows()));
        };
        cast_to(rows.column(column), field.data_type(), &format!("column `{}` of the rows", field.name()))
    });
    record_batch(expected, columns.collect::<Result<Vec<ArrayRef>>>()?, rows.num_rows())
}

/// Writes an object anew with rows behind those it has, unless somebody else wrote it meanwhile: then once more.
fn extend_object(source: &DataSource, base: &Path, rows: &RecordBatch) -> Result<u64> {
    let mut tries = 0;
    loop {
        match try_to_extend_object(source, base, rows) {
            Err(error) if error.code() == ErrorCode::Conflict && tries < MOST_TRIES => {
                tries += 1;
                // Those who met do not come back together.
                let jitter = u64::from(uuid::Uuid::new_v4().as_fields().0) % 100;
                std::thread::sleep(Duration::from_millis(jitter));
            }
            extended => return extended,
        }
    }
}

fn try_to_extend_object(source: &DataSource, base: &Path, rows: &RecordBatch) -> Result<u64> {
    let table = SourceTable::open(source, base)?;
    let rows = conform(&table, rows)?;
    let files = &table.files;
    let (path, Some((bucket, objects))) = (&files.files[0], &files.bucket) else {
        return Err(changed(&files.root));
    };
    let refused = |why: &str| {
        Error::unsupported(format!("`{}` is {why}, to which rows cannot be added", path.display()))
            .with_hint("name a folder of Parquet files in the bucket")
    };
    if objects[0].size > MOST_OF_AN_OBJECT {
        return Err(refused("a large object"));
    }
    let (file, footer) = table.parquet_file(0)?;
    if !writes_alike(footer) {
        return Err(refused("of an old kind of Parquet"));
    }
    let rows = as_in_file(path, footer.schema(), &rows)?;
    let file = file.at_hand().map_err(|error| unwritable(path, error))?;
    let extended = copy_and_add(&file, footer, Vec::new(), &rows).map_err(|error| unwritable(path, error))?;
    bucket.replace(&objects[0], extended)?;
    Ok(rows.num_rows() as u64)
}

/// Writes old and new rows beside the file, then takes its name. The caller has the turn, and has had it since the table
/// was opened; the rows have the columns of the file.
fn extend_file(path: &Path, table: &SourceTable, rows: &RecordBatch) -> Result<()> {
    let (file, footer) = table.parquet_file(0)?;
    let staging = Staging::in_turn(path)?;
    if writes_alike(footer) {
        let file = file.at_hand().map_err(|error| unwritable(path, error))?;
        let mut extended = File::create(&staging.path).map_err(|error| failed(&staging.path, error))?;
        if file.len() <= WRITTEN_AT_ONCE {
            let bytes = Vec::with_capacity(file.len() as usize + rows.get_array_memory_size());
            let bytes = copy_and_add(&file, footer, bytes, rows).map_err(|error| unwritable(path, error))?;
            extended.write_all(&bytes).map_err(|error| failed(&staging.path, error))?;
        } else {
            extended = copy_and_add(&file, footer, extended, rows).map_err(|error| unwritable(path, error))?;
        }
        extended.sync_all().map_err(|error| failed(&staging.path, error))?;
    } else {
        let mut extended = ParquetFile::create(&staging.path, rows.schema_ref(), compression_of(footer))?;
        read_file(path, &mut |batch| extended.write(&batch))?;
        extended.write(rows)?;
        extended.finish()?;
    }
    // The new file is read by those who could read the old one.
    if let Ok(metadata) = fs::metadata(path) {
        drop(fs::set_permissions(&staging.path, metadata.permissions()));
    }
    staging.publish(path)
}

/// The rows with the columns of a file.
fn as_in_file(path: &Path, schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let array = rows.column_by_name(field.name()).ok_or_else(|| changed(path))?;
        if !field.is_nullable() && array.logical_null_count() > 0 {
            return Err(Error::invalid_request(format!(
                "column `{}` of the rows has nulls, which `{}` does not allow",
                field.name(),
                path.display()
            ))
            .with_hint("give every row a value in that column"));
        }
        cast_to(array, field.data_type(), &format!("column `{}` of the rows", field.name()))
    });
    record_batch(schema, columns.collect::<Result<_>>()?, rows.num_rows())
}

/// Whether new row groups look like those of the file. Times of old writers (`INT96`), for one, are not written any
/// more; such a file is written anew.
fn writes_alike(footer: &ArrowReaderMetadata) -> bool {
    // A dictionary offset of 0 is how some writers say that there is none; copying would take it at its word.
    let chunks = footer.metadata().row_groups().iter().flat_map(|row_group| row_group.columns());
    let placed = |chunk: &parquet::file::metadata::ColumnChunkMetaData| {
        chunk.byte_range().0 == chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset()) as u64
    };
    chunks.into_iter().all(placed) && is_written_alike(footer.schema(), footer.parquet_schema())
}

/// Whether columns of these types are written as this schema has them; remembered for the last file.
fn is_written_alike(schema: &SchemaRef, theirs: &SchemaDescriptor) -> bool {
    static LAST: Mutex<Option<(SchemaRef, Arc<SchemaType>, bool)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, root, alike)) = &*last
        && known == schema
        && **root == *theirs.root_schema()
    {
        return *alike;
    }
    let alike = compare_schemas(schema, theirs);
    *last = Some((Arc::clone(schema), theirs.root_schema_ptr(), alike));
    alike
}

fn compare_schemas(schema: &SchemaRef, theirs: &SchemaDescriptor) -> bool {
    let ours = ArrowSchemaConverter::new().convert(schema);
    let alike = |ours: &SchemaDescriptor| {
        let (plain, other) = (parquet_to_arrow_schema(theirs, None)?, parquet_to_arrow_schema(ours, None)?);
        let types = |schema: &arrow::datatypes::Schema| -> Vec<DataType> {
            schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        let physical = theirs.columns().iter().zip(ours.columns()).all(|(theirs, ours)| {
            theirs.physical_type() == ours.physical_type()
                && theirs.type_length() == ours.type_length()
                && theirs.max_def_level() == ours.max_def_level()
                && theirs.max_rep_level() == ours.max_rep_level()
        });
        Ok::<bool, ParquetError>(
            physical && theirs.num_columns() == ours.num_columns() && types(&plain) == types(&other),
        )
    };
    ours.is_ok_and(|ours| alike(&ours).unwrap_or(false))
}

/// Copies the row groups of a file without decoding them and adds rows. Small row groups at the end become one with the
/// new rows, so that many small batches do not make many row groups; each row is encoded again a few times at most.
fn copy_and_add<W: Write + Send>(
    file: &SharedFile,
    footer: &ArrowReaderMetadata,
    extended: W,
    rows: &RecordBatch,
) -> ParquetResult<W> {
    let metadata = footer.metadata();
    let mut properties = WriterProperties::builder()
        .set_compression(compression_of(footer))
        .set_key_value_metadata(metadata.file_metadata().key_value_metadata().cloned());
    if metadata.offset_index().is_none() {
        // A file has an index of its pages for all row groups or for none.
        properties = properties.set_offset_index_disabled(true).set_statistics_enabled(EnabledStatistics::Chunk);
    }
    let n_kept = kept_row_groups(metadata, rows.num_rows());
    let n_encoded = metadata.row_groups()[n_kept..].iter().map(|group| group.num_rows() as usize).sum::<usize>();
    if n_encoded + rows.num_rows() < MANY_ROWS {
        for column in metadata.file_metadata().schema_descr().columns() {
            if !matches!(column.physical_type(), PhysicalType::BYTE_ARRAY) {
                properties = properties.set_column_dictionary_enabled(column.path().clone(), false);
            }
        }
    }
    let properties = properties.build();
    let root = metadata.file_metadata().schema_descr().root_schema_ptr();
    let mut writer = SerializedFileWriter::new(extended, root, Arc::new(properties))?;
    for index in 0..n_kept {
        copy_row_group(&mut writer, file, metadata, index)?;
    }
    let factory = ArrowRowGroupWriterFactory::new(&writer, Arc::clone(rows.schema_ref()));
    let mut start = 0;
    for index in n_kept.. {
        let mut columns = factory.create_column_writers(index)?;
        let mut encode = |batch: &RecordBatch| -> ParquetResult<()> {
            let mut columns = columns.iter_mut();
            for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                for leaf in compute_leaves(field, array)? {
                    let column = columns.next().ok_or_else(|| ParquetError::General("a column is missing".into()))?;
                    column.write(&leaf)?;
                }
            }
            Ok(())
        };
        if start == 0 && n_kept < metadata.num_row_groups() {
            let small = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), footer.clone())
                .with_row_groups((n_kept..metadata.num_row_groups()).collect())
                .build()?;
            for batch in small {
                encode(&batch?)?;
            }
        }
        let n_rows = (rows.num_rows() - start).min(ROW_GROUP_ROWS);
        encode(&rows.slice(start, n_rows))?;
        start += n_rows;
        let mut row_group = writer.next_row_group()?;
        for column in columns {
            column.close()?.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
        if start == rows.num_rows() {
            break;
        }
    }
    writer.into_inner()
}

/// How many row groups are copied as they are when so many rows are added.
fn kept_row_groups(metadata: &ParquetMetaData, n_rows: usize) -> usize {
    let mut n_rows = n_rows;
    let mut n_kept = metadata.num_row_groups();
    while let Some(last) = n_kept.checked_sub(1).map(|last| metadata.row_group(last).num_rows() as usize) {
        // Ever larger ones are taken in, so that their number grows with the logarithm of the rows.
        if last > 2 * n_rows || last + n_rows > ROW_GROUP_ROWS {
            break;
        }
        n_rows += last;
        n_kept -= 1;
    }
    n_kept
}

fn copy_row_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    file: &SharedFile,
    metadata: &ParquetMetaData,
    index: usize,
) -> ParquetResult<()> {
    let row_group = metadata.row_group(index);
    let mut copy = writer.next_row_group()?;
    for (column, chunk) in row_group.columns().iter().enumerate() {
        let column_index = metadata.column_index().map(|indexes| indexes[index][column].clone());
        copy.append_column(
            file,
            ColumnCloseResult {
                bytes_written: chunk.compressed_size() as u64,
                rows_written: row_group.num_rows() as u64,
                metadata: chunk.clone(),
                bloom_filter: Sbbf::read_from_column_chunk(chunk, file)?,
                column_index: column_index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
                offset_index: metadata.offset_index().map(|indexes| indexes[index][column].clone()),
            },
        )?;
    }
    copy.close().map(drop)
}

/// Adds one file, or one per hive partition.
fn add_files(table: &SourceTable, rows: &RecordBatch) -> Result<()> {
    let files = &table.files;
    let last = files.files.last().ok_or_else(|| changed(&files.root))?;
    let (_, own) = table.parquet_file(files.files.len() - 1)?;
    let compression = compression_of(own);
    let in_file: Vec<usize> = (0..rows.num_columns())
        .filter(|column| {
            let name = rows.schema_ref().field(*column).name();
            own.schema().index_of(name).is_ok() || !files.partitions.iter().any(|(partition, _)| partition == name)
        })
        .collect();
    for (folder, members) in by_partition(files.partitions.iter().map(|(name, _)| name.as_str()), rows, &files.root)? {
        let folder = match files.shape {
            Shape::Glob => last.parent().unwrap_or(&files.root).to_path_buf(),
            _ => files.root.join(folder),
        };
        if files.bucket.is_none() {
            remove_leftovers(&folder, &|name| is_part(Path::new(name)));
        }
        let newest = files.files.iter().rev().find_map(|file| file.strip_prefix(&folder).ok()?.components().next());
        let newest = newest.map(|part| part.as_os_str().to_string_lossy());
        let name = match files.shape {
            Shape::Glob => files.name_like(newest.as_deref().unwrap_or_default(), &part_stem())?,
            _ => name_after(newest, &format!("{}.parquet", part_stem())),
        };
        let target = folder.join(name);
        let part = take_record_batch(&rows.project(&in_file)?, &members)?;
        if let Some((bucket, _)) = &files.bucket {
            let mut object = ParquetFile::upload(bucket, &bucket.key(&target), &part.schema(), compression)?;
            object.write(&part)?;
            object.finish()?;
            continue;
        }
        let staging = Staging::in_turn(&target)?;
        let mut file = ParquetFile::create(&staging.path, &part.schema(), compression)?;
        file.write(&part)?;
        file.finish()?;
        staging.publish(&target)?;
        let beside = files.files.iter().filter(|file| file.parent() == Some(&folder)).cloned();
        // The rows are there; that merging failed concerns the next time only.
        drop(compact(beside.chain([target]).collect()));
    }
    Ok(())
}

/// The rows of each `key=value` folder; the directory itself without partitions.
pub(crate) fn by_partition<'a>(
    partitions: impl Iterator<Item = &'a str>,
    rows: &RecordBatch,
    root: &Path,
) -> Result<BTreeMap<PathBuf, UInt32Array>> {
    let mut members: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
    let values = partitions.map(|name| {
        let column = rows.column_by_name(name).ok_or_else(|| changed(root))?;
        Ok((name, cast(column, &DataType::Utf8)?))
    });
    let values: Vec<(&str, ArrayRef)> = values.collect::<Result<_>>()?;
    for row in 0..rows.num_rows() {
        let mut folder = PathBuf::new();
        for (name, column) in &values {
            let text = column.as_string::<i32>();
            let value =
                if text.is_null(row) { "__HIVE_DEFAULT_PARTITION__".to_owned() } else { escaped(text.value(row)) };
            folder.push(format!("{name}={value}"));
        }
        members.entry(folder).or_default().push(row as u32);
    }
    Ok(members.into_iter().map(|(folder, rows)| (folder, UInt32Array::from(rows))).collect())
}

/// A partition value as the name of a folder: what a path cannot hold is percent-encoded, as Hive does.
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for character in value.chars() {
        if character.is_ascii_control() || "/\\:*?\"<>|%=#".contains(character) {
            escaped.push_str(&format!("%{:02X}", character as u32));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The codec of a file, for rows that join it.
pub(crate) fn compression_of(footer: &ArrowReaderMetadata) -> Compression {
    let first = footer.metadata().row_groups().first().and_then(|row_group| row_group.columns().first());
    match first.map(|column| column.compression()) {
        None => zstd(),
        // Codecs that this build writes.
        Some(
            codec @ (Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_)),
        ) => codec,
        Some(_) => Compression::SNAPPY,
    }
}

fn changed(path: &Path) -> Error {
    Error::new(ErrorCode::Conflict, format!("`{}` changed while rows were added", path.display()))
        .with_hint("send the rows again")
}

/// Waits for the turn of this process on a directory; the lock goes with the returned file.
#[cfg(unix)]
pub(crate) fn lock(directory: &Path) -> Result<File> {
    // The directory itself is locked, so that no lock file lies among the data.
    let handle = File::open(directory).map_err(|error| failed(directory, error))?;
    handle.lock().map_err(|error| failed(directory, error))?;
    Ok(handle)
}

#[cfg(not(unix))]
pub(crate) fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(".feast.lock");
    let handle = File::create(&path).map_err(|error| failed(&path, error))?;
    handle.lock().map_err(|error| failed(&path, error))?;
    Ok(handle)
}
