//! Served features kept for later: each batch becomes a file of its own in the folder of the log.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::take_record_batch;
use feast_core::{Error, ErrorCode, LoggingDestination, Result, list_names};

use crate::append::{by_partition, lock};
use crate::compaction::{compact, is_part, part_stem};
use crate::dataset::{ParquetFile, Staging, failed, remove_leftovers, zstd};
use crate::sources::bucket::{Bucket, is_in_bucket};
use crate::sources::file::resolve;

/// Adds rows to a log, of which a reader sees all or none; in several partitions, folder by folder.
pub(crate) fn write(destination: &LoggingDestination, base: &Path, rows: &RecordBatch) -> Result<u64> {
    let LoggingDestination::File { path, s3_endpoint_override, partition_by } = destination else {
        return Err(Error::unsupported("served features are logged to files only, so far")
            .with_hint("use `FileLoggingDestination(path=...)`"));
    };
    let schema = rows.schema();
    if let Some(missing) = partition_by.iter().find(|name| schema.index_of(name).is_err()) {
        let names = list_names(schema.fields().iter().map(|field| field.name().as_str()));
        return Err(Error::new(
            ErrorCode::MissingColumns,
            format!("the logged rows have no column `{missing}`, by which the log is partitioned"),
        )
        .with_hint(format!("their columns are {names}")));
    }
    let in_file = (0..rows.num_columns()).filter(|column| !partition_by.contains(schema.field(*column).name()));
    let in_file = rows.project(&in_file.collect::<Vec<_>>())?;
    let parts = by_partition(partition_by.iter().map(String::as_str), rows, Path::new(path))?;
    if is_in_bucket(path) {
        let (bucket, key) = Bucket::of(path, s3_endpoint_override)?;
        for (folder, members) in parts {
            let part = take_record_batch(&in_file, &members)?;
            let target = bucket.url(&key).join(folder).join(format!("{}.parquet", part_stem()));
            let mut object = ParquetFile::upload(&bucket, &bucket.key(&target), &part.schema(), zstd())?;
            object.write(&part)?;
            object.finish()?;
        }
        return Ok(rows.num_rows() as u64);
    }
    let root = resolve(path, base)?;
    std::fs::create_dir_all(&root).map_err(|error| failed(&root, error))?;
    let _turn = lock(&root)?;
    for (folder, members) in parts {
        let folder = root.join(folder);
        let part = take_record_batch(&in_file, &members)?;
        let target = folder.join(format!("{}.parquet", part_stem()));
        remove_leftovers(&folder, &|name| is_part(Path::new(name)));
        let staging = Staging::in_turn(&target)?;
        let mut file = ParquetFile::create(&staging.path, &part.schema(), zstd())?;
        file.write(&part)?;
        file.finish()?;
        staging.publish(&target)?;
        // The rows are there; that merging failed concerns the next time only.
        if let Err(error) = compact(files_of(&folder)) {
            tracing::warn!(folder = %folder.display(), %error, "small files of logged features were not merged");
        }
    }
    Ok(rows.num_rows() as u64)
}

/// The files of a folder, in the order of their names.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_part(path)).collect();
    files.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    files.sort();
    files
}
