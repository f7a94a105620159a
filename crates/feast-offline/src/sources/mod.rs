//! Where feature rows rest, opened for reading.
//!
//! [`file`] finds the files behind a path; [`parquet`], [`csv`] and [`json`] read them. A [`SourceTable`] numbers its rows from 0
//! in source order, files in order of their paths, and that number is the position point-in-time rules speak of.

pub(crate) mod bucket;
pub(crate) mod csv;
pub(crate) mod delta;
pub(crate) mod file;
mod flat_column;
mod json;
pub(crate) mod parquet;
pub(crate) mod shared_file;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ArrowReaderMetadata;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use feast_core::{
    DataSource, DataSourceOptions, Error, ErrorCode, FeatureView, FileFormat, Result, ValueType, did_you_mean,
};

use csv::CsvRows;
use file::{Encoding, Files};
use json::JsonRows;
use parquet::ParquetRows;
use shared_file::SharedFile;

use crate::compaction::{REPLACES, replaced};
use crate::row_positions::RowPositions;

/// How often files that change while they are opened are looked for again.
const MOST_TRIES: usize = 5;

/// Called with the position of the first row and the rows.
pub(crate) type OnRows<'a> = &'a (dyn Fn(u64, RecordBatch) -> Result<()> + Sync);

/// How texts are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Texts {
    Whole,
    /// With the dictionary of their row group (`Dictionary(Int32, Utf8)`), where it has one for all of its rows.
    WithDictionaries,
}

/// Whether a column of texts comes with a dictionary. Dictionaries of numbers are never handed on: their buffer holds
/// places, not numbers.
pub(crate) fn is_dictionary_of_texts(array: &ArrayRef, of: &DataType) -> bool {
    *of == DataType::Utf8 && matches!(array.data_type(), DataType::Dictionary(_, value) if value.as_ref() == of)
}

/// Where a definition says that rows are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a str,
    /// Where the bucket is, if that is special.
    pub(crate) endpoint: &'a str,
    /// Whether it must be a Delta table. Other folders may be one.
    pub(crate) must_be_delta: bool,
    /// The rows that are wanted, where others need not even be found.
    pub(crate) wanted: Option<Wanted<'a>>,
}

/// Rows with a time between two instants, both included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The column with their time.
    pub(crate) column: &'a str,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl<'a> Place<'a> {
    /// A path that is not a declared data source.
    pub(crate) fn new(path: &'a str, endpoint: &'a str) -> Self {
        Self { path, endpoint, must_be_delta: false, wanted: None }
    }

    /// The place of the batch side of a data source.
    pub(crate) fn of(source: &'a DataSource) -> Result<Self> {
        let options = source.batch().map(|batch| &batch.options);
        let must_be_delta =
            matches!(options, Some(DataSourceOptions::File { format: Some(FileFormat::Delta { .. }), .. }));
        Ok(Self { path: path_of(source)?, endpoint: endpoint_of(source), must_be_delta, wanted: None })
    }
}

/// A data source opened for reading.
#[derive(Debug)]
pub(crate) struct SourceTable {
    columns: SourceColumns,
    /// The files, as found when it was opened.
    pub(crate) files: Files,
    /// Files that were found too, but whose rows others hold by now.
    pub(crate) replaced: Vec<PathBuf>,
    rows: Rows,
}

/// What is known of a data source before its rows are read.
#[derive(Debug, Clone)]
pub(crate) struct SourceColumns {
    /// Name in messages.
    pub(crate) name: String,
    schema: SchemaRef,
}

#[derive(Debug)]
enum Rows {
    Parquet(ParquetRows),
    Csv(CsvRows),
    Json(JsonRows),
    /// Parquet that is read as if it could not be read twice; both ways are tested on the same rows.
    #[cfg(test)]
    Streamed(ParquetRows),
}

/// Rows that need not be read: those whose time is outside, both ends included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Position of the time column in the schema of the source.
    pub(crate) column: usize,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl SourceTable {
    /// Opens the batch side of a data source. Reads footers and headers only, except of JSON.
    pub(crate) fn open(source: &DataSource, base: &Path) -> Result<Self> {
        Self::open_within(source, base, None)
    }

    /// The same, where only rows with an event time between two instants, both included, will be asked for: others may
    /// be missing.
    pub(crate) fn open_within(source: &DataSource, base: &Path, between: Option<(i64, i64)>) -> Result<Self> {
        let batch = source.batch().unwrap_or(source);
        let times = [batch.timestamp_field.as_str(), batch.created_timestamp_column.as_str()];
        let times: Vec<&str> = times.into_iter().flat_map(|time| [time, batch.unmapped(time)]).collect();
        let column = batch.unmapped(&batch.timestamp_field);
        let wanted = between.map(|(first, last)| Wanted { column, first, last });
        Self::find(&source.name, Place { wanted, ..Place::of(source)? }, base, &times)
            .map_err(|error| error.with_context("data source", &source.name))
    }

    /// Opens a path that is not a declared data source.
    pub(crate) fn open_path(name: &str, path: &str, base: &Path) -> Result<Self> {
        Self::find(name, Place::new(path, ""), base, &[])
    }

    /// `times` are columns that hold times, where the files do not say.
    pub(crate) fn find(name: &str, place: Place<'_>, base: &Path, times: &[&str]) -> Result<Self> {
        let mut tries = 0;
        loop {
            let files = Files::find(place, base)?;
            let found = files.files.clone();
            match Self::open_files(name, files, times) {
                // Files may be merged while we open one after the other.
                Err(_) if tries < MOST_TRIES && Files::find(place, base).is_ok_and(|now| now.files != found) => {
                    tries += 1;
                }
                opened => return opened,
            }
        }
    }

    fn open_files(name: &str, mut files: Files, times: &[&str]) -> Result<Self> {
        let mut gone = Vec::new();
        let (schema, rows) = match files.encoding {
            Encoding::Parquet => {
                let (mut schema, mut rows) = ParquetRows::open(&files)?;
                // Which files count says the log of a Delta table, and nobody else.
                if files.delta.is_none() {
                    gone = replaced(&files, rows.annotations(REPLACES))?;
                }
                if !gone.is_empty() {
                    files.remove(&gone);
                    (schema, rows) = ParquetRows::open(&files)?;
                }
                (schema, Rows::Parquet(rows))
            }
            Encoding::Csv { .. } => {
                let (schema, rows) = CsvRows::open(&files)?;
                (schema, Rows::Csv(rows))
            }
            Encoding::Json { .. } => {
                let (schema, rows) = JsonRows::open(&files, times)?;
                (schema, Rows::Json(rows))
            }
        };
        Ok(Self { columns: SourceColumns::new(name, schema), files, replaced: gone, rows })
    }

    /// Reads features that are declared as text as text where the files do not say what they are: a number such as
    /// `1.10`, read as one, would be another text. Keys stay as they are, for entity rows that a query reads here, too.
    pub(crate) fn take_texts(&mut self, view: &FeatureView, source: &DataSource) {
        if !matches!(self.rows, Rows::Csv(_)) {
            return;
        }
        let texts = view.features.iter().filter(|feature| feature.value_type == ValueType::String);
        let texts: Vec<usize> = texts.filter_map(|field| self.column(source, &field.name).ok()).collect();
        let fields = self.schema.fields().iter().enumerate().map(|(at, field)| {
            let is_partition = self.files.partitions.iter().any(|(name, _)| name == field.name());
            let field = field.as_ref().clone();
            if texts.contains(&at) && !is_partition { field.with_data_type(DataType::Utf8) } else { field }
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        self.columns = SourceColumns::new(&self.columns.name, schema);
    }

    /// A Parquet file of the source, as it was when it was opened, and its footer.
    pub(crate) fn parquet_file(&self, file: usize) -> Result<(SharedFile, &ArrowReaderMetadata)> {
        match &self.rows {
            Rows::Parquet(rows) => rows.file_with_footer(file),
            _ => Err(Error::internal(format!("data source `{}` is no Parquet", self.name))),
        }
    }

    /// Whether single rows can be read again by position, so that a first look can do without most columns.
    pub(crate) fn is_seekable(&self) -> bool {
        matches!(self.rows, Rows::Parquet(_))
    }

    /// How many of how many parts a scan of this window reads; what the parts are says [`parts_name`](Self::parts_name).
    pub(crate) fn parts_inside(&self, window: Option<Window>) -> (usize, usize) {
        match &self.rows {
            Rows::Parquet(rows) => rows.row_groups_of(&self.schema, window),
            _ => (self.files.files.len(), self.files.files.len()),
        }
    }

    /// The version of a Delta table that is read.
    pub(crate) fn version(&self) -> Option<u64> {
        self.files.delta.as_ref().map(|table| table.version)
    }

    /// What the rows of the source lie in.
    pub(crate) fn parts_name(&self) -> &'static str {
        if self.is_seekable() { "row groups" } else { "files" }
    }

    /// Bytes that a scan of these columns and this window reads, as they are stored.
    pub(crate) fn stored_size(&self, columns: &[usize], window: Option<Window>) -> usize {
        match &self.rows {
            Rows::Parquet(rows) => rows.stored_size(&self.schema, columns, window),
            _ => self.files.size(),
        }
    }

    /// Bytes that a value of a column takes in memory, about.
    pub(crate) fn width(&self, column: usize) -> usize {
        /// A text of no known length, with its offset.
        const TEXT: usize = 32;
        let fixed = self.data_type(column).primitive_width();
        match &self.rows {
            _ if fixed.is_some() => fixed.unwrap_or_default() + 1,
            Rows::Parquet(rows) => rows.width(self.schema.field(column).name()).unwrap_or(TEXT),
            _ => TEXT,
        }
    }

    /// Between which values all integers of a column lie, both included, if its files tell.
    pub(crate) fn integer_bounds(&self, column: usize) -> Option<(i64, i64)> {
        match &self.rows {
            Rows::Parquet(rows) if self.data_type(column).is_signed_integer() => {
                rows.integer_bounds(self.schema.field(column).name())
            }
            _ => None,
        }
    }

    /// The greatest time in a column as far as footers tell, and whether there may be greater ones that they do not.
    pub(crate) fn newest_by_statistics(&self, column: usize) -> (Option<i64>, bool) {
        match &self.rows {
            Rows::Parquet(rows) => rows.newest_by_statistics(self.schema.field(column).name()),
            _ => (None, true),
        }
    }

    /// Reads the given columns of all rows, in the order of `columns`. Rows outside the window may be left out.
    ///
    /// With one thread, or when the source is not seekable, batches come in source order.
    pub(crate) fn scan(
        &self,
        columns: &[usize],
        window: Option<Window>,
        threads: usize,
        on_rows: OnRows<'_>,
    ) -> Result<()> {
        match &self.rows {
            Rows::Parquet(rows) => rows.scan(&self.schema, columns, window, threads, on_rows),
            Rows::Csv(rows) => rows.scan(&self.schema, columns, on_rows),
            Rows::Json(rows) => rows.scan(&self.schema, columns, on_rows),
            #[cfg(test)]
            Rows::Streamed(rows) => rows.scan(&self.schema, columns, window, 1, on_rows),
        }
    }

    /// Reads the given columns of some rows of a seekable source. `on_rows` gets the rank of its first row.
    pub(crate) fn fetch(
        &self,
        columns: &[usize],
        rows: &RowPositions,
        threads: usize,
        texts: Texts,
        on_rows: OnRows<'_>,
    ) -> Result<()> {
        match &self.rows {
            Rows::Parquet(parquet) => parquet.fetch(&self.schema, columns, rows, threads, texts, on_rows),
            _ => Err(Error::internal(format!("rows of data source `{}` cannot be read by position", self.name))),
        }
    }

    /// The same rows, read as if they could not be read twice.
    #[cfg(test)]
    pub(crate) fn streamed(mut self) -> Self {
        if let Rows::Parquet(rows) = self.rows {
            self.rows = Rows::Streamed(rows);
        }
        self
    }
}

impl Deref for SourceTable {
    type Target = SourceColumns;

    fn deref(&self) -> &SourceColumns {
        &self.columns
    }
}

impl SourceColumns {
    /// The columns of a source.
    pub(crate) fn new(name: &str, schema: SchemaRef) -> Self {
        Self { name: name.to_owned(), schema }
    }

    /// All columns, those of hive partitions last.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Type of a column.
    pub(crate) fn data_type(&self, column: usize) -> &DataType {
        self.schema.field(column).data_type()
    }

    /// How a column is called in errors.
    pub(crate) fn describe(&self, column: usize) -> String {
        format!("column `{}` of data source `{}`", self.schema.field(column).name(), self.name)
    }

    /// The position of the column that a feature view calls `name`.
    pub(crate) fn column(&self, source: &DataSource, name: &str) -> Result<usize> {
        self.schema.index_of(source.unmapped(name)).or_else(|_| self.schema.index_of(name)).map_err(|_| {
            Error::new(
                ErrorCode::MissingColumns,
                format!("data source `{}` has no column `{}`", self.name, source.unmapped(name)),
            )
            .with_hint_opt(did_you_mean(name, self.schema.fields().iter().map(|field| field.name().as_str())))
        })
    }
}

/// The path of the files of a data source.
pub(crate) fn path_of(source: &DataSource) -> Result<&str> {
    let Some(batch) = source.batch() else {
        return Err(Error::invalid_definition(format!(
            "{} source `{}` has no batch source to read history from",
            source.kind(),
            source.name
        ))
        .with_hint("declare it with `batch_source=FileSource(...)`"));
    };
    match &batch.options {
        DataSourceOptions::File { uri, .. } => Ok(uri),
        _ => Err(Error::unsupported(format!(
            "data source `{}` is a {} source, and the file offline store reads files only",
            batch.name,
            batch.kind()
        ))
        .with_hint("use a file source, or the offline store that belongs to the source")),
    }
}

/// Where the bucket of the files of a data source is, if that is special.
fn endpoint_of(source: &DataSource) -> &str {
    match source.batch().map(|batch| &batch.options) {
        Some(DataSourceOptions::File { s3_endpoint_override, .. }) => s3_endpoint_override,
        _ => "",
    }
}

/// Joins the schemas of several files: the columns of the first, then those it lacks. Types are those seen first.
fn merge_schemas<'a>(
    schemas: impl Iterator<Item = &'a Schema>,
    partitions: &[(String, DataType)],
    joined: impl Fn(&DataType, &DataType) -> DataType,
) -> SchemaRef {
    let mut merged: Vec<Field> = Vec::new();
    let mut metadata = None;
    for schema in schemas {
        metadata.get_or_insert_with(|| schema.metadata().clone());
        for field in schema.fields() {
            match merged.iter_mut().find(|known| known.name() == field.name()) {
                None => merged.push(field.as_ref().clone()),
                Some(known) => {
                    let data_type = joined(known.data_type(), field.data_type());
                    *known = known.clone().with_data_type(data_type);
                }
            }
        }
    }
    for (name, data_type) in partitions {
        if !merged.iter().any(|known| known.name() == name) {
            merged.push(Field::new(name, data_type.clone(), true));
        }
    }
    // A file may lack a column that others have.
    let fields: Vec<Field> = merged.into_iter().map(|field| field.with_nullable(true)).collect();
    Arc::new(Schema::new_with_metadata(fields, metadata.unwrap_or_default()))
}
