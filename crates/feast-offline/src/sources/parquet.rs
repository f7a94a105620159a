//! Parquet files: a scan that skips row groups by time, and reading single rows by position.

use std::collections::VecDeque;
use std::iter;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use feast_core::{Error, ErrorCode, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy};

use super::file::Files;
use super::flat_column::{FlatColumn, has_dictionary};
use super::shared_file::{Identity, SharedFile, Stamp};
use super::{OnRows, Texts, Window, is_dictionary_of_texts, merge_schemas};
use crate::cast::cast_to;
use crate::parallel;
use crate::row_positions::RowPositions;
use crate::timestamps::{is_time, to_micros};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;
/// Files kept open at a time: a quarter of what processes may open by default.
const MOST_OPEN: usize = 256;
/// Footers that are remembered, and the longest file of which one is.
const MOST_FOOTERS: usize = 32;
const SMALL_FILE: u64 = 4 << 20;
/// Footers of a bucket that are read at the same time.
const FOOTERS_AT_ONCE: usize = 16;

/// Parquet files opened for reading.
#[derive(Debug)]
pub(crate) struct ParquetRows {
    files: Files,
    metadata: Vec<ArrowReaderMetadata>,
    /// The columns of each file, under the names of the source.
    schemas: Vec<SchemaRef>,
    /// The files themselves, unless there are so many that keeping them open would exhaust the process.
    open: Vec<SharedFile>,
    /// By file, to tell whether one that is opened again is still the same.
    stamps: Vec<Stamp>,
    row_groups: Vec<RowGroup>,
}

/// What is known of a file once it was opened.
struct Footer {
    metadata: ArrowReaderMetadata,
    stamp: Stamp,
    open: Option<SharedFile>,
}

#[derive(Debug)]
struct RowGroup {
    file: usize,
    index: usize,
    /// Position of the first row in the source.
    first_row: u64,
    /// Without deleted rows, which have no positions.
    n_rows: usize,
    /// Which of its rows are left, where some are deleted.
    kept: Option<RowSelection>,
}

impl RowGroup {
    /// A selection of its rows as one of those that are stored.
    fn stored(&self, selection: Option<RowSelection>) -> Option<RowSelection> {
        match (&self.kept, selection) {
            (Some(kept), Some(selection)) => Some(kept.and_then(&selection)),
            (kept, selection) => selection.or_else(|| kept.clone()),
        }
    }
}

/// What is read of a file.
struct Projection {
    file: usize,
    /// The columns wanted, of the source's types.
    schema: SchemaRef,
    /// Those of the file, in its order.
    roots: Vec<usize>,
    /// By column wanted.
    origins: Vec<Origin>,
}

impl Projection {
    /// Some of the columns of the file, for the `parquet` crate.
    fn mask(&self, footer: &ArrowReaderMetadata, wanted: impl Fn(usize) -> bool) -> ProjectionMask {
        ProjectionMask::roots(footer.parquet_schema(), self.roots.iter().copied().filter(|root| wanted(*root)))
    }
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
        let n_files = files.files.len();
        let found: Vec<OnceLock<Footer>> = iter::repeat_with(OnceLock::new).take(n_files).collect();
        // In a bucket, reading a footer is little but waiting.
        let threads = if files.bucket.is_some() { FOOTERS_AT_ONCE } else { parallel::threads() };
        parallel::for_each(threads, n_files, &|file| {
            let open = files.open(file)?;
            let metadata = load_footer(&open, &files.files[file])?;
            let footer = Footer { metadata, stamp: open.stamp(), open: Some(open).filter(|_| n_files <= MOST_OPEN) };
            found[file].get_or_init(|| footer);
            Ok(())
        })?;
        let mut rows = Self {
            files: files.clone(),
            metadata: Vec::with_capacity(n_files),
            schemas: Vec::with_capacity(n_files),
            open: Vec::new(),
            stamps: Vec::with_capacity(n_files),
            row_groups: Vec::new(),
        };
        for footer in found.into_iter().filter_map(OnceLock::into_inner) {
            rows.add(footer);
        }
        let schema = match &files.delta {
            Some(table) => Arc::clone(&table.schema),
            None => merge_schemas(rows.schemas.iter().map(AsRef::as_ref), &files.partitions, |first, _| first.clone()),
        };
        Ok((schema, rows))
    }

    /// Adds the next file.
    fn add(&mut self, footer: Footer) {
        let file = self.metadata.len();
        let mut first_row = self.row_groups.last().map_or(0, |last| last.first_row + last.n_rows as u64);
        let mut first_of_file = 0;
        for (index, row_group) in footer.metadata.metadata().row_groups().iter().enumerate() {
            let n_stored = row_group.num_rows() as usize;
            let kept = self.files.delta.as_ref().and_then(|table| table.kept(file, first_of_file, n_stored));
            let n_rows = kept.as_ref().map_or(n_stored, RowSelection::row_count);
            self.row_groups.push(RowGroup { file, index, first_row, n_rows, kept });
            first_row += n_rows as u64;
            first_of_file += n_stored as u64;
        }
        self.schemas.push(match &self.files.delta {
            Some(table) => table.renamed(footer.metadata.schema()),
            None => Arc::clone(footer.metadata.schema()),
        });
        self.stamps.push(footer.stamp);
        self.open.extend(footer.open);
        self.metadata.push(footer.metadata);
    }

    /// What the footers say under a key, with the number of the file.
    pub(crate) fn annotations<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        self.metadata.iter().enumerate().flat_map(move |(file, footer)| {
            let pairs = footer.metadata().file_metadata().key_value_metadata().into_iter().flatten();
            pairs.filter(move |pair| pair.key == key).filter_map(move |pair| Some((file, pair.value.as_deref()?)))
        })
    }

    /// As [`SourceTable::parquet_file`](super::SourceTable::parquet_file).
    pub(crate) fn file_with_footer(&self, file: usize) -> Result<(SharedFile, &ArrowReaderMetadata)> {
        Ok((self.file(file)?, &self.metadata[file]))
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
        let wanted = self.rows_inside(schema, window);
        parallel::for_each(threads, wanted.len(), &|task| {
            let (row_group, ranges) = &wanted[task];
            for range in ranges {
                let mut position = row_group.first_row + range.start as u64;
                let selection = (range.len() < row_group.n_rows)
                    .then(|| RowSelection::from_consecutive_ranges([range.clone()].into_iter(), row_group.n_rows));
                self.read(schema, columns, row_group, selection, &mut |batch| {
                    let n_rows = batch.num_rows() as u64;
                    on_rows(position, batch)?;
                    position += n_rows;
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        self.check_unchanged()
    }

    /// As [`SourceTable::fetch`](super::SourceTable::fetch).
    pub(crate) fn fetch(
        &self,
        schema: &SchemaRef,
        columns: &[usize],
        rows: &RowPositions,
        threads: usize,
        texts: Texts,
        on_rows: OnRows<'_>,
    ) -> Result<()> {
        let of = |row_group: &RowGroup| row_group.first_row..row_group.first_row + row_group.n_rows as u64;
        let has_any = |row_group: &&RowGroup| rows.rank(of(row_group).start) < rows.rank(of(row_group).end);
        let tasks: Vec<&RowGroup> = self.row_groups.iter().filter(has_any).collect();
        parallel::for_each(threads, tasks.len(), &|task| {
            let row_group = tasks[task];
            let mut rank = rows.rank(row_group.first_row) as u64;
            self.take(schema, columns, row_group, rows.within(of(row_group)), texts, &mut |batch| {
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
        if row_group.n_rows == 0 {
            return Ok(());
        }
        let selection = row_group.stored(selection);
        let projection = self.projection(schema, columns, row_group.file)?;
        let mask = projection.mask(&self.metadata[row_group.file], |_| true);
        let file = self.file_with(row_group, &mask, selection.as_ref())?;
        for batch in self.decode(file, row_group, mask, selection, BATCH_ROWS)? {
            let batch = batch.map_err(|error| malformed(self.path(row_group), error.into()))?;
            on_batch(self.batch(&projection, batch.columns(), batch.num_rows(), Texts::Whole)?)?;
        }
        Ok(())
    }

    /// Reads the rows at these positions, all in one row group, texts as wished.
    fn take(
        &self,
        schema: &SchemaRef,
        columns: &[usize],
        row_group: &RowGroup,
        positions: Vec<u64>,
        texts: Texts,
        on_batch: &mut dyn FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let mut chosen = BooleanBufferBuilder::new(row_group.n_rows);
        chosen.append_n(row_group.n_rows, false);
        for position in &positions {
            chosen.set_bit((position - row_group.first_row) as usize, true);
        }
        let selection = row_group.stored(Some(RowSelection::from_boolean_buffer(chosen.finish())));
        let rows: Vec<u32> = match &row_group.kept {
            None => positions.iter().map(|position| (position - row_group.first_row) as u32).collect(),
            Some(_) => selection.iter().flat_map(stored_rows).collect(),
        };
        drop(positions);
        let (path, metadata) = (self.path(row_group), &self.metadata[row_group.file]);
        let projection = self.projection(schema, columns, row_group.file)?;
        let mask = projection.mask(metadata, |_| true);
        let file = self.file_with(row_group, &mask, selection.as_ref())?;
        let shared = Arc::new(file.clone());
        let flat = projection.roots.iter().map(|root| FlatColumn::open(&shared, metadata, row_group.index, *root));
        let mut flat = flat.collect::<Result<Vec<_>, _>>().map_err(|error| malformed(path, error))?;
        let is_left =
            |root: usize| projection.roots.iter().zip(&flat).any(|(known, flat)| *known == root && flat.is_none());
        let mut others = match flat.iter().any(Option::is_none) {
            false => None,
            true => {
                let mask = projection.mask(metadata, is_left);
                // Rows between the chosen ones are decoded too, and all of a batch should stay in a near cache.
                let batch_rows = (2 * BATCH_ROWS * rows.len() / row_group.n_rows).clamp(BATCH_ROWS / 16, BATCH_ROWS);
                Some(self.decode(file, row_group, mask, selection, batch_rows)?)
            }
        };
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let mut decoded = Vec::new();
            let mut n_rows = rest.len().min(BATCH_ROWS / 2);
            if let Some(others) = &mut others {
                let batch = others.next().ok_or_else(|| changed(path))?;
                let batch = batch.map_err(|error| malformed(path, error.into()))?;
                n_rows = batch.num_rows();
                decoded = batch.columns().to_vec();
            }
            let mut decoded = decoded.into_iter();
            let (of_batch, behind) = rest.split_at_checked(n_rows).ok_or_else(|| changed(path))?;
            rest = behind;
            let arrays = flat.iter_mut().map(|flat| match flat {
                Some(flat) => flat.take(of_batch).map_err(|error| malformed(path, error)),
                None => decoded.next().ok_or_else(|| changed(path)),
            });
            let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
            on_batch(self.batch(&projection, &arrays, n_rows, texts)?)?;
        }
        Ok(())
    }

    fn path(&self, row_group: &RowGroup) -> &Path {
        &self.files.files[row_group.file]
    }

    /// The file of a row group, with all that a read of these columns needs at hand, where reads take long.
    fn file_with(
        &self,
        row_group: &RowGroup,
        columns: &ProjectionMask,
        selection: Option<&RowSelection>,
    ) -> Result<SharedFile> {
        let metadata = &self.metadata[row_group.file];
        self.file(row_group.file)?.prefetched(metadata, row_group.index, columns, selection)
    }

    /// Decodes columns of a row group, or of some rows of it, as they lie in the file.
    fn decode(
        &self,
        file: SharedFile,
        row_group: &RowGroup,
        columns: ProjectionMask,
        selection: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        let metadata = &self.metadata[row_group.file];
        // Of few rows, few texts have to be put together from the dictionary.
        let dictionaries = if selection.is_some() { with_dictionaries(metadata, row_group.index) } else { None };
        let metadata = dictionaries.unwrap_or_else(|| metadata.clone());
        let mut reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_row_groups(vec![row_group.index])
            .with_projection(columns)
            .with_batch_size(batch_rows);
        if let Some(selection) = selection {
            reader = reader.with_row_selection(selection);
        }
        reader.build().map_err(|error| malformed(self.path(row_group), error))
    }

    /// Decoded columns as those of the source.
    fn batch(&self, projection: &Projection, decoded: &[ArrayRef], n_rows: usize, texts: Texts) -> Result<RecordBatch> {
        let path = &self.files.files[projection.file];
        let arrays = projection.origins.iter().zip(projection.schema.fields()).map(|(origin, field)| match origin {
            Origin::File(column) => match &decoded[*column] {
                array if texts == Texts::WithDictionaries && is_dictionary_of_texts(array, field.data_type()) => {
                    Ok(Arc::clone(array))
                }
                array => {
                    let of = format!("column `{}` of `{}`", field.name(), path.display());
                    cast_to(array, field.data_type(), &of)
                }
            },
            Origin::Partition(partition) => self.files.partition_array(projection.file, *partition, n_rows),
            Origin::Missing => Ok(new_null_array(field.data_type(), n_rows)),
        });
        let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        let types = projection.schema.fields().iter().zip(&arrays);
        let fields = types.map(|(field, array)| field.as_ref().clone().with_data_type(array.data_type().clone()));
        let schema = match texts {
            Texts::Whole => Arc::clone(&projection.schema),
            Texts::WithDictionaries => Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        };
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }

    /// Where columns of the source come from in a file.
    fn projection(&self, schema: &SchemaRef, columns: &[usize], file: usize) -> Result<Projection> {
        let projected = Arc::new(schema.project(columns)?);
        if let Some(table) = &self.files.delta {
            projected.fields().iter().try_for_each(|field| table.check_readable(field))?;
        }
        let found: Vec<Option<usize>> =
            columns.iter().map(|column| self.schemas[file].index_of(schema.field(*column).name()).ok()).collect();
        // Decoded columns come in file order, each once.
        let mut roots: Vec<usize> = found.iter().flatten().copied().collect();
        roots.sort_unstable();
        roots.dedup();
        let origins = found.iter().zip(columns).map(|(root, column)| {
            let name = schema.field(*column).name();
            let partition = || self.files.partitions.iter().position(|(partition, _)| partition == name);
            match root.and_then(|root| roots.binary_search(&root).ok()) {
                Some(index) => Origin::File(index),
                None => partition().map_or(Origin::Missing, Origin::Partition),
            }
        });
        let origins = origins.collect();
        Ok(Projection { file, schema: projected, roots, origins })
    }

    /// How many of how many row groups may hold a row in the window.
    pub(crate) fn row_groups_of(&self, schema: &SchemaRef, window: Option<Window>) -> (usize, usize) {
        (self.rows_inside(schema, window).len(), self.row_groups.len())
    }

    /// As [`SourceTable::stored_size`](super::SourceTable::stored_size).
    pub(crate) fn stored_size(&self, schema: &SchemaRef, columns: &[usize], window: Option<Window>) -> usize {
        let names: Vec<&str> = columns.iter().map(|column| schema.field(*column).name().as_str()).collect();
        let of_row_group = |(row_group, ranges): &(&RowGroup, Vec<Range<usize>>)| {
            let wanted = self.chunks(row_group).filter(|(root, _)| names.contains(root));
            let size: i64 = wanted.map(|(_, column)| column.compressed_size()).sum();
            let share =
                ranges.iter().map(ExactSizeIterator::len).sum::<usize>() as f64 / row_group.n_rows.max(1) as f64;
            (size.max(0) as f64 * share) as usize
        };
        self.rows_inside(schema, window).iter().map(of_row_group).sum()
    }

    /// As [`SourceTable::newest_by_statistics`](super::SourceTable::newest_by_statistics).
    pub(crate) fn newest_by_statistics(&self, column: &str) -> (Option<i64>, bool) {
        let bounds: Vec<Bounds> = (0..self.metadata.len()).map(|file| self.time_bounds(file, column)).collect();
        let greatest = self.row_groups.iter().filter(|row_group| row_group.n_rows > 0).map(|row_group| {
            // The greatest may be deleted.
            let bound = bounds[row_group.file].get(row_group.index).filter(|_| row_group.kept.is_none());
            bound.and_then(|(_, greatest)| *greatest)
        });
        greatest.fold((None, false), |(newest, unknown), bound| (newest.max(bound), unknown || bound.is_none()))
    }

    /// The chunks of a row group, each with the name of its column.
    fn chunks<'a>(&'a self, row_group: &RowGroup) -> impl Iterator<Item = (&'a str, &'a ColumnChunkMetaData)> {
        let (metadata, schema) = (&self.metadata[row_group.file], &self.schemas[row_group.file]);
        let leaves = metadata.parquet_schema();
        let chunks = metadata.metadata().row_group(row_group.index).columns().iter().enumerate();
        chunks.map(move |(leaf, chunk)| (schema.field(leaves.get_column_root_idx(leaf)).name().as_str(), chunk))
    }

    /// Bytes that a value of a column takes once decoded, as far as the files tell.
    pub(crate) fn width(&self, name: &str) -> Option<usize> {
        let (mut size, mut n_rows) = (0, 0);
        for row_group in &self.row_groups {
            for (_, column) in self.chunks(row_group).filter(|(root, _)| *root == name) {
                // Dictionaries make what is stored smaller than what is read; not all writers tell the length of texts.
                let texts = column.unencoded_byte_array_data_bytes().unwrap_or(0);
                size += column.uncompressed_size().max(texts).max(0) as usize;
            }
            n_rows += row_group.n_rows;
        }
        /// Offset, null and what dictionaries hide.
        const OVERHEAD: usize = 16;
        size.checked_div(n_rows).map(|width| width + OVERHEAD)
    }

    /// The least and the greatest integer of a column; `None` where a row group does not tell.
    pub(crate) fn integer_bounds(&self, name: &str) -> Option<(i64, i64)> {
        let of_file = |(metadata, schema): (&ArrowReaderMetadata, &SchemaRef)| {
            let statistics = StatisticsConverter::try_new(name, schema, metadata.parquet_schema()).ok()?;
            let row_groups = metadata.metadata().row_groups();
            let integers = |array: ArrayRef| {
                let array = cast(&array, &DataType::Int64).ok()?;
                Some(array.as_primitive::<Int64Type>().clone()).filter(|array| array.null_count() == 0)
            };
            let least = integers(statistics.row_group_mins(row_groups.iter()).ok()?)?;
            let greatest = integers(statistics.row_group_maxes(row_groups.iter()).ok()?)?;
            Some((least.iter().flatten().min()?, greatest.iter().flatten().max()?))
        };
        let files = self.metadata.iter().zip(&self.schemas).map(of_file);
        let bounds: Vec<(i64, i64)> = files.collect::<Option<_>>()?;
        bounds.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// The row groups that may hold a row in the window, and which of their rows, by the statistics of row groups and
    /// pages.
    fn rows_inside(&self, schema: &SchemaRef, window: Option<Window>) -> Vec<(&RowGroup, Vec<Range<usize>>)> {
        let whole = |row_group: &RowGroup| iter::once(0..row_group.n_rows).collect();
        let Some(window) = window else {
            return self.row_groups.iter().map(|row_group| (row_group, whole(row_group))).collect();
        };
        if window.first > window.last {
            return Vec::new();
        }
        let name = schema.field(window.column).name();
        let bounds: Vec<Bounds> = (0..self.metadata.len()).map(|file| self.time_bounds(file, name)).collect();
        let inside = |row_group: &RowGroup| -> Option<Vec<Range<usize>>> {
            let (least, greatest) = bounds[row_group.file].get(row_group.index).copied().unwrap_or_default();
            if greatest.is_some_and(|greatest| greatest < window.first)
                || least.is_some_and(|least| least > window.last)
            {
                return None;
            }
            let all = greatest.is_some_and(|greatest| greatest <= window.last)
                && least.is_some_and(|least| least >= window.first);
            let pages = if all { None } else { self.pages_inside(row_group, name, window) };
            Some(pages.unwrap_or_else(|| whole(row_group))).filter(|ranges| !ranges.is_empty())
        };
        self.row_groups.iter().filter_map(|row_group| Some((row_group, inside(row_group)?))).collect()
    }

    /// Least and greatest time of each row group of a file, where known.
    fn time_bounds(&self, file: usize, column: &str) -> Bounds {
        let (metadata, n_row_groups) = (&self.metadata[file], self.metadata[file].metadata().num_row_groups());
        let of_partition = || -> Option<Bounds> {
            let partition = self.files.partitions.iter().position(|(partition, _)| partition == column)?;
            let value = self.files.partition_array(file, partition, 1).ok()?;
            // Of a text, nobody knows whether it is a time.
            let time = is_time(value.data_type()).then(|| to_micros(&value, column).ok())??;
            let bound = time.iter().next().flatten();
            Some(vec![(bound, bound); n_row_groups])
        };
        let of_statistics = || -> Option<Bounds> {
            let statistics = time_statistics(metadata, &self.schemas[file], column)?;
            let row_groups = metadata.metadata().row_groups();
            let least = to_micros(&statistics.row_group_mins(row_groups.iter()).ok()?, column).ok()?;
            let greatest = to_micros(&statistics.row_group_maxes(row_groups.iter()).ok()?, column).ok()?;
            Some(least.iter().zip(greatest.iter()).collect())
        };
        of_statistics().or_else(of_partition).unwrap_or_else(|| vec![(None, None); n_row_groups])
    }

    /// The rows of the pages of a row group that may hold a row in the window; `None` where the file does not tell.
    fn pages_inside(&self, row_group: &RowGroup, column: &str, window: Window) -> Option<Vec<Range<usize>>> {
        let file = &self.metadata[row_group.file];
        let statistics = time_statistics(file, &self.schemas[row_group.file], column)?;
        let (pages, places) = (file.metadata().column_index()?, file.metadata().offset_index()?);
        let group = [row_group.index];
        let least = to_micros(&statistics.data_page_mins(pages, places, &group).ok()?, column).ok()?;
        let greatest = to_micros(&statistics.data_page_maxes(pages, places, &group).ok()?, column).ok()?;
        let counts = statistics.data_page_row_counts(places, file.metadata().row_groups(), &group).ok()??;
        if least.len() != counts.len() || greatest.len() != counts.len() {
            return None;
        }
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        for ((least, greatest), count) in least.iter().zip(&greatest).zip(&counts) {
            let end = start + count? as usize;
            let outside =
                greatest.is_some_and(|time| time < window.first) || least.is_some_and(|time| time > window.last);
            if !outside {
                match ranges.last_mut() {
                    // Beginning to read anew costs as much as a few rows.
                    Some(last) if start - last.end <= BATCH_ROWS => last.end = end,
                    _ => ranges.push(start..end),
                }
            }
            start = end;
        }
        let n_stored = file.metadata().row_group(row_group.index).num_rows() as usize;
        if start != n_stored {
            return None;
        }
        Some(match &row_group.kept {
            Some(kept) => without_deleted(kept, &ranges),
            None => ranges,
        })
    }
}

/// The metadata of a file, made to read texts as references to their dictionaries; `None` where a row group has none.
fn with_dictionaries(file: &ArrowReaderMetadata, row_group: usize) -> Option<ArrowReaderMetadata> {
    let columns = file.metadata().row_group(row_group).columns();
    let has_dictionary = |name: &str| {
        columns
            .iter()
            .filter(|column| column.column_path().parts().first().is_some_and(|root| root == name))
            .all(has_dictionary)
    };
    let mut found = false;
    let fields = file.schema().fields().iter().map(|field| {
        if *field.data_type() != DataType::Utf8 || !has_dictionary(field.name()) {
            return Arc::clone(field);
        }
        found = true;
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        Arc::new(field.as_ref().clone().with_data_type(dictionary))
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    found.then(|| ArrowReaderMetadata::try_new(Arc::clone(file.metadata()), options).ok())?
}

/// The rows that a selection chooses.
fn stored_rows(selection: &RowSelection) -> impl Iterator<Item = u32> {
    let mut start = 0;
    selection.iter().flat_map(move |run| {
        let rows = start..start + run.row_count as u32;
        start = rows.end;
        if run.skip { 0..0 } else { rows }
    })
}

/// Ranges of stored rows as ranges of those that are left.
fn without_deleted(kept: &RowSelection, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let left_before = |row: usize| {
        let (mut stored, mut left) = (0, 0);
        for run in kept.iter() {
            let inside = run.row_count.min(row - stored);
            stored += inside;
            left += if run.skip { 0 } else { inside };
        }
        left
    };
    let ranges = ranges.iter().map(|range| left_before(range.start)..left_before(range.end));
    ranges.filter(|range| !range.is_empty()).collect()
}

/// Least and greatest time of each row group, where known.
type Bounds = Vec<(Option<i64>, Option<i64>)>;

/// What a file tells about a column of times. Text is not pruned: its order is not that of the times it spells.
fn time_statistics<'a>(
    file: &'a ArrowReaderMetadata,
    schema: &'a Schema,
    column: &'a str,
) -> Option<StatisticsConverter<'a>> {
    let data_type = schema.field_with_name(column).ok()?.data_type();
    if !is_time(data_type) {
        return None;
    }
    StatisticsConverter::try_new(column, schema, file.parquet_schema()).ok()
}

/// The footer of a Parquet file, with the page index where there is one.
pub(crate) fn read_footer(path: &Path) -> Result<ArrowReaderMetadata> {
    load_footer(&SharedFile::open(path)?, path)
}

/// The same of a file that is open. Those of small files are remembered, so that a push, which looks at its files more than
/// once, takes their footers apart once.
pub(crate) fn load_footer(file: &SharedFile, path: &Path) -> Result<ArrowReaderMetadata> {
    static KNOWN: Mutex<VecDeque<(Identity, ArrowReaderMetadata)>> = Mutex::new(VecDeque::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let identity = file.identity().filter(|(.., length, _)| *length <= SMALL_FILE);
    if let Some((_, footer)) = known().iter().find(|(known, _)| Some(*known) == identity) {
        return Ok(footer.clone());
    }
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let footer = ArrowReaderMetadata::load(file, options).map_err(|error| malformed(path, error))?;
    if let Some(identity) = identity {
        let mut known = known();
        known.truncate(MOST_FOOTERS - 1);
        known.push_front((identity, footer.clone()));
    }
    Ok(footer)
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

    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

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
        let read =
            |table: &SourceTable| table.fetch(&[0], &RowPositions::list(vec![1]), 1, Texts::Whole, &|_, _| Ok(()));
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
    fn only_pages_that_may_hold_a_time_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let times = TimestampMicrosecondArray::from_iter_values((0..100_000).map(|at| at / 50_000 * 10 + at % 50_000));
        let batch = RecordBatch::try_from_iter([("at", Arc::new(times) as ArrayRef)]).unwrap();
        let properties =
            WriterProperties::builder().set_data_page_row_count_limit(1000).set_write_batch_size(1000).build();
        let file = File::create(folder.path().join("rows.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let table = SourceTable::open_path("rows", "rows.parquet", folder.path()).unwrap();
        let read = |first, last| {
            let rows = std::sync::Mutex::new(Vec::new());
            table
                .scan(&[0], Some(Window { column: 0, first, last }), 1, &|position, batch| {
                    rows.lock().unwrap().push((position, batch.num_rows()));
                    assert_eq!(
                        batch.column(0).as_ref(),
                        all(&table).slice(position as usize, batch.num_rows()).as_ref()
                    );
                    Ok(())
                })
                .unwrap();
            rows.into_inner().unwrap()
        };
        assert_eq!(read(20_500, 20_700), [(20_000, 1000), (70_000, 1000)]);
        // Pages that lie close together are read in one go.
        assert_eq!(read(49_000, 50_100), [(49_000, 1000), (98_000, 2000)]);
        assert_eq!(read(-5, -1), []);
        assert_eq!(table.parts_inside(Some(Window { column: 0, first: -5, last: -1 })), (0, 1));
        assert!(
            table.stored_size(&[0], Some(Window { column: 0, first: 0, last: 10 }))
                < table.stored_size(&[0], None) / 10
        );
    }

    fn all(table: &SourceTable) -> ArrayRef {
        let parts = std::sync::Mutex::new(Vec::new());
        table
            .scan(&[0], None, 1, &|_, batch| {
                parts.lock().unwrap().push(Arc::clone(batch.column(0)));
                Ok(())
            })
            .unwrap();
        let parts = parts.into_inner().unwrap();
        arrow::compute::concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>()).unwrap()
    }
}
