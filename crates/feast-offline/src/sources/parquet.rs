//! Parquet files: a scan that skips row groups by time, and reading single rows by position.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use feast_core::{Error, ErrorCode, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;

use super::file::Files;
use super::shared_file::{SharedFile, Stamp};
use super::{OnRows, Window, merge_schemas};
use crate::cast::cast_to;
use crate::parallel;
use crate::timestamps::to_micros;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;
/// Files kept open at a time: a quarter of what processes may open by default.
const MOST_OPEN: usize = 256;

/// Parquet files opened for reading.
#[derive(Debug)]
pub(crate) struct ParquetRows {
    files: Files,
    metadata: Vec<ArrowReaderMetadata>,
    /// The files themselves, unless there are so many that keeping them open would exhaust the process.
    open: Vec<SharedFile>,
    /// By file, to tell whether one that is opened again is still the same.
    stamps: Vec<Stamp>,
    row_groups: Vec<RowGroup>,
}

#[derive(Debug)]
struct RowGroup {
    file: usize,
    index: usize,
    /// Position of the first row in the source.
    first_row: u64,
    n_rows: usize,
}

/// Where a column of the source comes from in one file.
enum Origin {
    /// Position among the decoded columns.
    File(usize),
    Partition(usize),
    Missing,
}

impl ParquetRows {
    /// Opens the files, reading their footers.
    pub(crate) fn open(files: &Files) -> Result<(SchemaRef, Self)> {
        let mut metadata = Vec::with_capacity(files.files.len());
        let mut row_groups = Vec::new();
        let mut open = Vec::new();
        let mut stamps = Vec::with_capacity(files.files.len());
        let mut first_row = 0;
        for (file, path) in files.files.iter().enumerate() {
            let shared = files.open(file)?;
            let footer = load_footer(&shared, path)?;
            stamps.push(shared.stamp());
            if files.files.len() <= MOST_OPEN {
                open.push(shared);
            }
            for (index, row_group) in footer.metadata().row_groups().iter().enumerate() {
                let n_rows = row_group.num_rows() as usize;
                row_groups.push(RowGroup { file, index, first_row, n_rows });
                first_row += n_rows as u64;
            }
            metadata.push(footer);
        }
        let schemas = metadata.iter().map(|footer| footer.schema().as_ref());
        let schema = merge_schemas(schemas, &files.partitions, |first, _| first.clone());
        Ok((schema, Self { files: files.clone(), metadata, open, stamps, row_groups }))
    }

    /// What the footers say under a key, with the number of the file.
    pub(crate) fn annotations<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        self.metadata.iter().enumerate().flat_map(move |(file, footer)| {
            let pairs = footer.metadata().file_metadata().key_value_metadata().into_iter().flatten();
            pairs.filter(move |pair| pair.key == key).filter_map(move |pair| Some((file, pair.value.as_deref()?)))
        })
    }

    /// As [`SourceTable::scan`](super::SourceTable::scan).
    pub(crate) fn scan(
        &self,
        schema: &SchemaRef,
        columns: &[usize],
        window: Option<Window>,
        threads: usize,
        on_rows: OnRows<'_>,
    ) -> Result<()> {
        let wanted: Vec<&RowGroup> = match window {
            Some(window) => self.row_groups_inside(schema, window),
            None => self.row_groups.iter().collect(),
        };
        parallel::for_each(threads, wanted.len(), &|task| {
            let row_group = wanted[task];
            let mut position = row_group.first_row;
            self.read(schema, columns, row_group, None, &mut |batch| {
                let n_rows = batch.num_rows() as u64;
                on_rows(position, batch)?;
                position += n_rows;
                Ok(())
            })
        })?;
        self.check_unchanged()
    }

    /// As [`SourceTable::fetch`](super::SourceTable::fetch).
    pub(crate) fn fetch(
        &self,
        schema: &SchemaRef,
        columns: &[usize],
        positions: &[u64],
        threads: usize,
        on_rows: OnRows<'_>,
    ) -> Result<()> {
        let mut tasks: Vec<(&RowGroup, Range<usize>)> = Vec::new();
        let mut start = 0;
        for row_group in &self.row_groups {
            let past = row_group.first_row + row_group.n_rows as u64;
            let end = start + positions[start..].partition_point(|position| *position < past);
            if end > start {
                tasks.push((row_group, start..end));
            }
            start = end;
        }
        parallel::for_each(threads, tasks.len(), &|task| {
            let (row_group, range) = &tasks[task];
            let rows = positions[range.clone()].iter().map(|position| (position - row_group.first_row) as usize);
            let selection = RowSelection::from_consecutive_ranges(runs(rows), row_group.n_rows);
            let mut rank = range.start as u64;
            self.read(schema, columns, row_group, Some(selection), &mut |batch| {
                let n_rows = batch.num_rows() as u64;
                on_rows(rank, batch)?;
                rank += n_rows;
                Ok(())
            })
        })?;
        self.check_unchanged()
    }

    /// Rows are known by their positions, which mean nothing once somebody has written into a file.
    fn check_unchanged(&self) -> Result<()> {
        match self.open.iter().position(|file| !file.is_unchanged()) {
            Some(file) => Err(changed(&self.files.files[file])),
            None => Ok(()),
        }
    }

    fn file(&self, file: usize) -> Result<SharedFile> {
        if let Some(open) = self.open.get(file) {
            return Ok(open.clone());
        }
        let again = self.files.open(file)?;
        if again.stamp() == self.stamps[file] { Ok(again) } else { Err(changed(&self.files.files[file])) }
    }

    /// Reads a row group, or some rows of it, as columns of the source's types.
    fn read(
        &self,
        schema: &SchemaRef,
        columns: &[usize],
        row_group: &RowGroup,
        selection: Option<RowSelection>,
        on_batch: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let path = &self.files.files[row_group.file];
        let metadata = &self.metadata[row_group.file];
        let (mask, origins) = self.origins(schema, columns, row_group.file);
        let projected = Arc::new(schema.project(columns)?);
        let file = self.file(row_group.file)?.prefetched(metadata, row_group.index, &mask, selection.as_ref())?;
        let mut reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
            .with_row_groups(vec![row_group.index])
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS);
        if let Some(selection) = selection {
            reader = reader.with_row_selection(selection);
        }
        for batch in reader.build().map_err(|error| malformed(path, error))? {
            let batch = batch.map_err(|error| malformed(path, error.into()))?;
            let n_rows = batch.num_rows();
            let arrays = origins.iter().zip(projected.fields()).map(|(origin, field)| match origin {
                Origin::File(column) => cast_to(
                    batch.column(*column),
                    field.data_type(),
                    &format!("column `{}` of `{}`", field.name(), path.display()),
                ),
                Origin::Partition(partition) => Ok(self.files.partition_array(row_group.file, *partition, n_rows)),
                Origin::Missing => Ok(new_null_array(field.data_type(), n_rows)),
            });
            let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
            let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
            on_batch(RecordBatch::try_new_with_options(Arc::clone(&projected), arrays, &options)?)?;
        }
        Ok(())
    }

    fn origins(&self, schema: &SchemaRef, columns: &[usize], file: usize) -> (ProjectionMask, Vec<Origin>) {
        let metadata = &self.metadata[file];
        let roots: Vec<Option<usize>> =
            columns.iter().map(|column| metadata.schema().index_of(schema.field(*column).name()).ok()).collect();
        // Decoded columns come in file order, each once.
        let mut decoded: Vec<usize> = roots.iter().flatten().copied().collect();
        decoded.sort_unstable();
        decoded.dedup();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), decoded.iter().copied());
        let origins = roots.iter().zip(columns).map(|(root, column)| {
            let name = schema.field(*column).name();
            let partition = || self.files.partitions.iter().position(|(partition, _)| partition == name);
            match root.and_then(|root| decoded.binary_search(&root).ok()) {
                Some(index) => Origin::File(index),
                None => partition().map_or(Origin::Missing, Origin::Partition),
            }
        });
        (mask, origins.collect())
    }

    /// The row groups that may hold a row in the window, by their statistics.
    fn row_groups_inside(&self, schema: &SchemaRef, window: Window) -> Vec<&RowGroup> {
        if window.first > window.last {
            return Vec::new();
        }
        let bounds: Vec<Bounds> =
            self.metadata.iter().map(|file| time_bounds(file, schema.field(window.column).name())).collect();
        self.row_groups
            .iter()
            .filter(|row_group| {
                let (least, greatest) = bounds[row_group.file].get(row_group.index).copied().unwrap_or_default();
                greatest.is_none_or(|greatest| greatest >= window.first)
                    && least.is_none_or(|least| least <= window.last)
            })
            .collect()
    }
}

/// Least and greatest time of each row group, where known.
type Bounds = Vec<(Option<i64>, Option<i64>)>;

fn time_bounds(file: &ArrowReaderMetadata, column: &str) -> Bounds {
    let row_groups = file.metadata().row_groups();
    let read = || -> Option<Bounds> {
        // Text is not pruned: its order is not that of the times it spells.
        let data_type = file.schema().field_with_name(column).ok()?.data_type();
        if !crate::timestamps::is_time(data_type) {
            return None;
        }
        let statistics = StatisticsConverter::try_new(column, file.schema(), file.parquet_schema()).ok()?;
        let least = to_micros(&statistics.row_group_mins(row_groups.iter()).ok()?, column).ok()?;
        let greatest = to_micros(&statistics.row_group_maxes(row_groups.iter()).ok()?, column).ok()?;
        Some(least.iter().zip(greatest.iter()).collect())
    };
    read().unwrap_or_else(|| vec![(None, None); row_groups.len()])
}

/// Runs of consecutive numbers among ascending ones.
fn runs(rows: impl Iterator<Item = usize>) -> impl Iterator<Item = Range<usize>> {
    let mut rows = rows.peekable();
    std::iter::from_fn(move || {
        let start = rows.next()?;
        let mut end = start + 1;
        while rows.next_if_eq(&end).is_some() {
            end += 1;
        }
        Some(start..end)
    })
}

/// The footer of a Parquet file, with the page index where there is one.
pub(crate) fn read_footer(path: &Path) -> Result<ArrowReaderMetadata> {
    load_footer(&SharedFile::open(path)?, path)
}

/// The same of a file that is open.
pub(crate) fn load_footer(file: &SharedFile, path: &Path) -> Result<ArrowReaderMetadata> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    ArrowReaderMetadata::load(file, options).map_err(|error| malformed(path, error))
}

fn changed(path: &Path) -> Error {
    Error::unavailable(format!("`{}` changed while it was read", path.display()))
        .with_hint("run the request again; write a new file and rename it over the old one instead of changing it")
}

/// The error for a file that is not the Parquet file it should be.
pub(crate) fn malformed(path: &Path, error: ParquetError) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("`{}` is not a readable Parquet file", path.display()))
        .with_source(error)
        .with_hint("check that the file is complete and was written as Parquet")
}

/// Reads whole files one batch after the other.
pub(crate) fn read_file(path: &Path, on_batch: &mut dyn FnMut(RecordBatch) -> Result<()>) -> Result<()> {
    let file = SharedFile::open(path)?;
    let footer = load_footer(&file, path)?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| malformed(path, error))?;
    for batch in reader {
        on_batch(batch.map_err(|error| malformed(path, error.into()))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs::File;

    use arrow::array::Int64Array;
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::sources::SourceTable;

    #[test]
    fn a_file_that_is_written_over_while_it_is_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        let write = |path: &Path, numbers: Vec<i64>| {
            let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(numbers)) as ArrayRef)]).unwrap();
            let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
        };
        let read = |table: &SourceTable| table.fetch(&[0], &[1], 1, &|_, _| Ok(()));
        write(&path, vec![1, 2, 3]);
        let table = SourceTable::open_path("rows", "rows.parquet", folder.path()).unwrap();
        read(&table).unwrap();
        // Another file under the same name is none of our concern.
        write(&folder.path().join("new"), vec![4, 5, 6]);
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        read(&table).unwrap();
        let table = SourceTable::open_path("rows", "rows.parquet", folder.path()).unwrap();
        write(&path, vec![7, 8, 9, 10]);
        assert!(read(&table).is_err());
    }

    #[test]
    fn neighbouring_rows_are_one_run() {
        let runs: Vec<_> = runs([1, 2, 3, 7, 9, 10].into_iter()).collect();
        assert_eq!(runs, [1..4, 7..8, 9..11]);
    }
}
