//! Rows added to a file source: a reader sees all of a batch or nothing of it.
//!
//! A single file is written anew beside the old one, new rows last, and renamed over it; a directory gets one more
//! file. Writers of one place take turns by a lock on its directory. In a directory with hive partitions each partition
//! appears at once, one after the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use chrono::Utc;
use feast_core::{DataSource, Error, ErrorCode, Result, list_names};
use parquet::basic::Compression;

use crate::cast::cast_to;
use crate::dataset::{ParquetFile, Staging, failed, zstd};
use crate::sources::SourceTable;
use crate::sources::file::{Encoding, Shape};
use crate::sources::parquet::{read_file, read_footer};
use crate::view_columns::record_batch;

/// Adds rows to the files of a source and returns how many.
pub(crate) fn append(source: &DataSource, base: &Path, rows: &RecordBatch) -> Result<u64> {
    let table = SourceTable::open(source, base)?;
    let refused = |what: &str| {
        Error::unsupported(format!("data source `{}` is {what}, to which rows cannot be added", table.name))
            .with_hint("add rows to a Parquet file or to a directory of Parquet files")
    };
    match (table.files.encoding, table.files.shape) {
        (Encoding::Csv { .. }, _) => return Err(refused("CSV")),
        (_, Shape::Glob) => return Err(refused("a pattern of paths")),
        (Encoding::Parquet, _) => {}
    }
    let rows = conform(&table, rows)?;
    // A link stays a link: the file it names is extended, and whoever writes to it by another name waits.
    let root = &std::fs::canonicalize(&table.files.root).map_err(|error| failed(&table.files.root, error))?;
    let directory = if table.files.shape == Shape::Directory { Some(root.as_path()) } else { root.parent() };
    let _turn = lock(directory.unwrap_or(Path::new("/")))?;
    match table.files.shape {
        Shape::Directory => add_files(&table, &rows)?,
        _ => extend_file(root, &rows)?,
    }
    Ok(rows.num_rows() as u64)
}

/// The rows with exactly the columns of the source, in its order and of its types.
fn conform(table: &SourceTable, rows: &RecordBatch) -> Result<RecordBatch> {
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

/// Writes old and new rows beside the file, then takes its name.
fn extend_file(path: &Path, rows: &RecordBatch) -> Result<()> {
    // Read under the lock: the file may have grown since it was opened.
    let footer = read_footer(path)?;
    let schema = Arc::clone(footer.schema());
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
    let rows = record_batch(&schema, columns.collect::<Result<_>>()?, rows.num_rows())?;
    let staging = Staging::new(path)?;
    let mut file = ParquetFile::create(&staging.path, &schema, compression_of(&footer))?;
    read_file(path, &mut |batch| file.write(&batch))?;
    file.write(&rows)?;
    file.finish()?;
    // The new file is read by those who could read the old one.
    if let Ok(metadata) = std::fs::metadata(path) {
        drop(std::fs::set_permissions(&staging.path, metadata.permissions()));
    }
    staging.publish(path)
}

/// Adds one file, or one per hive partition.
fn add_files(table: &SourceTable, rows: &RecordBatch) -> Result<()> {
    let files = &table.files;
    let last = files.files.last().ok_or_else(|| changed(&files.root))?;
    let compression = compression_of(&read_footer(last)?);
    let name = format!("rows-{:020}-{}.parquet", Utc::now().timestamp_micros(), uuid::Uuid::new_v4().simple());
    let own = read_footer(last)?;
    let in_file: Vec<usize> = (0..rows.num_columns())
        .filter(|column| {
            let name = rows.schema_ref().field(*column).name();
            own.schema().index_of(name).is_ok() || !files.partitions.iter().any(|(partition, _)| partition == name)
        })
        .collect();
    for (folder, members) in by_partition(table, rows)? {
        let folder = files.root.join(folder);
        let newest = files.files.iter().rev().find_map(|file| file.strip_prefix(&folder).ok()?.components().next());
        let target = folder.join(name_after(newest.map(|part| part.as_os_str().to_string_lossy()), &name));
        let part = take_record_batch(&rows.project(&in_file)?, &members)?;
        let staging = Staging::new(&target)?;
        let mut file = ParquetFile::create(&staging.path, &part.schema(), compression)?;
        file.write(&part)?;
        file.finish()?;
        staging.publish(&target)?;
    }
    Ok(())
}

/// A name that comes after the newest file in source order, so that a correction wins over what it corrects.
fn name_after(newest: Option<Cow<'_, str>>, name: &str) -> String {
    match newest {
        Some(newest) if *newest > *name => format!("{}~{name}", newest.split('~').next().unwrap_or_default()),
        _ => name.to_owned(),
    }
}

/// The rows of each `key=value` folder; the directory itself without partitions.
fn by_partition(table: &SourceTable, rows: &RecordBatch) -> Result<BTreeMap<PathBuf, UInt32Array>> {
    let mut members: BTreeMap<PathBuf, Vec<u32>> = BTreeMap::new();
    let values = table.files.partitions.iter().map(|(name, _)| {
        let column = rows.column_by_name(name).ok_or_else(|| changed(&table.files.root))?;
        Ok((name.as_str(), cast(column, &DataType::Utf8)?))
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

fn compression_of(footer: &parquet::arrow::arrow_reader::ArrowReaderMetadata) -> Compression {
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
fn lock(directory: &Path) -> Result<File> {
    // The directory itself is locked, so that no lock file lies among the data.
    let handle = File::open(directory).map_err(|error| failed(directory, error))?;
    handle.lock().map_err(|error| failed(directory, error))?;
    Ok(handle)
}

#[cfg(not(unix))]
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(".feast.lock");
    let handle = File::create(&path).map_err(|error| failed(&path, error))?;
    handle.lock().map_err(|error| failed(&path, error))?;
    Ok(handle)
}
