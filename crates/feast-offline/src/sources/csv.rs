//! CSV files with a header line, plain or gzipped. Types are inferred; empty cells are null. A column with numbers that
//! begin with zeros, or look like `1e3`, is text: they are codes, and as numbers would be others.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use feast_core::{Error, ErrorCode, Result};

use super::file::Files;
use super::{OnRows, merge_schemas};
use crate::timestamps::is_time;

/// Rows looked at to infer types.
const INFERENCE_ROWS: usize = 100_000;
const BATCH_ROWS: usize = 8192;

/// CSV files opened for reading.
#[derive(Debug)]
pub(crate) struct CsvRows {
    files: Files,
    /// Column names of each file, in file order.
    headers: Vec<Vec<String>>,
}

impl CsvRows {
    /// Opens the files, reading enough of each to know its columns.
    pub(crate) fn open(files: &Files) -> Result<(SchemaRef, Self)> {
        let mut schemas = Vec::with_capacity(files.files.len());
        for (file, path) in files.files.iter().enumerate() {
            let (schema, n_rows) = Format::default()
                .with_header(true)
                .infer_schema(files.read(file)?, Some(INFERENCE_ROWS))
                .map_err(|error| malformed(path, error))?;
            if schema.fields().is_empty() {
                return Err(Error::new(ErrorCode::InvalidRequest, format!("`{}` is empty", path.display()))
                    .with_hint("the first line of a CSV file names the columns"));
            }
            // A column that was empty so far may hold anything below.
            let settled = |field: &Arc<Field>| match field.data_type() {
                DataType::Null if n_rows == INFERENCE_ROWS => field.as_ref().clone().with_data_type(DataType::Utf8),
                _ => field.as_ref().clone(),
            };
            let schema = Schema::new(schema.fields().iter().map(settled).collect::<Vec<_>>());
            let settled = codes_as_text(schema, files.read(file)?, INFERENCE_ROWS);
            schemas.push(settled.map_err(|error| malformed(path, error))?);
        }
        let schema = merge_schemas(schemas.iter(), &files.partitions, widest);
        let headers =
            schemas.iter().map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect()).collect();
        Ok((schema, Self { files: files.clone(), headers }))
    }

    /// As [`SourceTable::scan`](super::SourceTable::scan), always in source order.
    pub(crate) fn scan(&self, schema: &SchemaRef, columns: &[usize], on_rows: OnRows<'_>) -> Result<()> {
        let projected = Arc::new(schema.project(columns)?);
        let mut position = 0;
        for (file, path) in self.files.files.iter().enumerate() {
            let own = self.headers[file].iter().map(|name| schema.field_with_name(name).cloned());
            let own = Arc::new(Schema::new(own.collect::<Result<Vec<_>, _>>()?));
            let batches = ReaderBuilder::new(own)
                .with_header(true)
                .with_batch_size(BATCH_ROWS)
                .build(self.files.read(file)?)
                .map_err(|error| malformed(path, error))?;
            for batch in batches {
                let batch = batch.map_err(|error| malformed(path, error))?;
                let n_rows = batch.num_rows();
                let arrays = projected.fields().iter().map(|field| -> Result<ArrayRef> {
                    let partition = || self.files.partitions.iter().position(|(name, _)| name == field.name());
                    match (batch.column_by_name(field.name()), partition()) {
                        (Some(array), _) => Ok(Arc::clone(array)),
                        (None, Some(partition)) => self.files.partition_array(file, partition, n_rows),
                        (None, None) => Ok(new_null_array(field.data_type(), n_rows)),
                    }
                });
                let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
                let arrays = arrays.collect::<Result<_>>()?;
                let rows = RecordBatch::try_new_with_options(Arc::clone(&projected), arrays, &options)?;
                on_rows(position, rows)?;
                position += n_rows as u64;
            }
        }
        Ok(())
    }
}

/// Makes columns of numbers text where one of the numbers in the first rows is a code, which would be another as a number.
/// The text has a header line.
///
/// # Errors
/// Text that is no CSV of this schema.
pub fn codes_as_text(schema: Schema, text: impl Read, n_rows: usize) -> Result<Schema, ArrowError> {
    let is_number = |field: &Arc<Field>| matches!(field.data_type(), DataType::Int64 | DataType::Float64);
    let numbers: Vec<usize> = (0..schema.fields().len()).filter(|at| is_number(&schema.fields()[*at])).collect();
    if numbers.is_empty() {
        return Ok(schema);
    }
    let texts = schema.fields().iter().map(|field| field.as_ref().clone().with_data_type(DataType::Utf8));
    let batches = ReaderBuilder::new(Arc::new(Schema::new(texts.collect::<Vec<_>>())))
        .with_header(true)
        .with_projection(numbers.clone())
        .with_bounds(0, n_rows)
        .with_batch_size(BATCH_ROWS)
        .build(text)?;
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    for batch in batches {
        let batch = batch?;
        for (column, at) in batch.columns().iter().zip(&numbers) {
            if column.as_string::<i32>().iter().flatten().any(is_code) {
                fields[*at].set_data_type(DataType::Utf8);
            }
        }
    }
    Ok(Schema::new(fields))
}

/// Whether digits begin with a zero that means something, as in `007`, or have an `e` among them, as in `1e3`: who writes
/// numbers writes `1e+03`, `1.0e3` or `1e-3`.
pub(super) fn is_code(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let has_exponent =
        || digits.split_once(['e', 'E']).is_some_and(|(left, right)| all_digits(left) && all_digits(right));
    matches!(digits.as_bytes(), [b'0', next, ..] if next.is_ascii_digit()) || has_exponent()
}

/// The type that holds the values of both.
fn widest(left: &DataType, right: &DataType) -> DataType {
    match (left, right) {
        (left, right) if left == right => left.clone(),
        (DataType::Null, other) | (other, DataType::Null) => other.clone(),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => DataType::Float64,
        (left, right) if is_time(left) && is_time(right) => {
            DataType::Timestamp(arrow::datatypes::TimeUnit::Nanosecond, None)
        }
        _ => DataType::Utf8,
    }
}

fn malformed(path: &Path, error: ArrowError) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("`{}` is not a readable CSV file", path.display()))
        .with_source(error)
        .with_hint("the first line names the columns, and every value of a column has the type of its first values")
}
