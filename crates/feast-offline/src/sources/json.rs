//! Files of JSON lines: one object per line, plain or gzipped. Types are inferred; what a line lacks is null.
//!
//! Times of a data source are text in ISO 8601 or numbers since the epoch. What a number counts shows in its size:
//! seconds below 10^11 (until the year 5138), then milliseconds, microseconds and nanoseconds, each a thousand times
//! larger; so milliseconds and finer units begin in March 1973.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::{ValueIter, infer_json_schema_from_iterator};
use feast_core::{Error, ErrorCode, Result, timestamp_type};

use super::file::Files;
use super::{OnRows, merge_schemas};
use crate::timestamps::micros_array;

/// Lines of a file looked at to infer types.
const INFERENCE_ROWS: usize = 100_000;
const BATCH_ROWS: usize = 8192;

/// Files of JSON lines opened for reading.
#[derive(Debug)]
pub(crate) struct JsonRows {
    files: Files,
    /// The columns as the lines have them, before numbers became times.
    inferred: Schema,
}

impl JsonRows {
    /// Opens the files, reading enough of each to know its columns. `times` are columns whose numbers are times.
    pub(crate) fn open(files: &Files, times: &[&str]) -> Result<(SchemaRef, Self)> {
        // All at once, so that a column has one type in all files.
        let values = files.files.iter().enumerate().flat_map(|(file, path)| {
            let lines: Box<dyn Iterator<Item = Result<_, (&Path, ArrowError)>>> = match files.read(file) {
                Ok(lines) => Box::new(
                    ValueIter::new(BufReader::new(lines), Some(INFERENCE_ROWS))
                        .map(|value| value.map_err(|error| (path.as_path(), error))),
                ),
                Err(error) => {
                    Box::new(std::iter::once(Err((path.as_path(), ArrowError::ExternalError(Box::new(error))))))
                }
            };
            lines
        });
        let mut failed = None;
        let values = values.map_while(|value| value.map_err(|failure| failed = Some(failure)).ok()).map(Ok);
        let outcome = infer_json_schema_from_iterator(values);
        if let Some((path, error)) = failed {
            return Err(malformed(path, error));
        }
        let inferred = outcome.map_err(|error| malformed(&files.root, error))?;
        if inferred.fields().is_empty() {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("`{}` is empty", files.root.display()))
                .with_hint("write one JSON object per line"));
        }
        // A column that was null so far may hold anything below.
        let settled = inferred.fields().iter().map(|field| match field.data_type() {
            DataType::Null => field.as_ref().clone().with_data_type(DataType::Utf8),
            _ => field.as_ref().clone(),
        });
        let inferred = Schema::new(settled.collect::<Vec<Field>>());
        let typed = inferred.fields().iter().map(|field| match field.data_type() {
            DataType::Int64 | DataType::Float64 if times.contains(&field.name().as_str()) => {
                field.as_ref().clone().with_data_type(timestamp_type())
            }
            _ => field.as_ref().clone(),
        });
        let typed = Schema::new(typed.collect::<Vec<Field>>());
        let schema = merge_schemas(std::iter::once(&typed), &files.partitions, |first, _| first.clone());
        Ok((schema, Self { files: files.clone(), inferred }))
    }

    /// As [`SourceTable::scan`](super::SourceTable::scan), always in source order.
    pub(crate) fn scan(&self, schema: &SchemaRef, columns: &[usize], on_rows: OnRows<'_>) -> Result<()> {
        let projected = Arc::new(schema.project(columns)?);
        let names = projected.fields().iter().map(|field| field.name());
        let mut wanted: Vec<Field> =
            names.filter_map(|name| self.inferred.field_with_name(name).ok()).cloned().collect();
        if wanted.is_empty() {
            // Rows are counted by some column.
            wanted.extend(self.inferred.fields().first().map(|field| field.as_ref().clone()));
        }
        let wanted = Arc::new(Schema::new(wanted));
        let mut position = 0;
        for (file, path) in self.files.files.iter().enumerate() {
            let batches = ReaderBuilder::new(Arc::clone(&wanted))
                .with_batch_size(BATCH_ROWS)
                .with_coerce_primitive(true)
                .build(BufReader::new(self.files.read(file)?))
                .map_err(|error| malformed(path, error))?;
            for batch in batches {
                let batch = batch.map_err(|error| malformed(path, error))?;
                let n_rows = batch.num_rows();
                let arrays = projected.fields().iter().map(|field| -> Result<ArrayRef> {
                    let partition = || self.files.partitions.iter().position(|(name, _)| name == field.name());
                    match (batch.column_by_name(field.name()), partition()) {
                        (Some(array), _) if *field.data_type() == timestamp_type() => Ok(epoch_times(array)),
                        (Some(array), _) => Ok(Arc::clone(array)),
                        (None, Some(partition)) => self.files.partition_array(file, partition, n_rows),
                        (None, None) => Err(Error::internal("a column of JSON lines was not read")),
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

/// Numbers since the epoch as times. Numbers beyond the range of times are null.
fn epoch_times(numbers: &ArrayRef) -> ArrayRef {
    let times: TimestampMicrosecondArray = match numbers.data_type() {
        DataType::Int64 => numbers.as_primitive::<Int64Type>().iter().map(|number| epoch_micros(number?)).collect(),
        DataType::Float64 => {
            numbers.as_primitive::<Float64Type>().iter().map(|number| epoch_micros_of_float(number?)).collect()
        }
        _ => return Arc::clone(numbers),
    };
    micros_array(times.with_timezone("UTC"))
}

fn epoch_micros(number: i64) -> Option<i64> {
    match number.unsigned_abs() {
        0..100_000_000_000 => number.checked_mul(1_000_000),
        100_000_000_000..100_000_000_000_000 => number.checked_mul(1000),
        100_000_000_000_000..100_000_000_000_000_000 => Some(number),
        _ => Some(number.div_euclid(1000)),
    }
}

fn epoch_micros_of_float(number: f64) -> Option<i64> {
    if number.fract() == 0.0 && number.abs() < 9e18 {
        return epoch_micros(number as i64);
    }
    let micros = match number.abs() {
        size if size < 1e11 => number * 1e6,
        size if size < 1e14 => number * 1e3,
        _ => number,
    };
    (micros.abs() < 9e18).then_some(micros.round() as i64)
}

fn malformed(path: &Path, error: ArrowError) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("`{}` is not readable as JSON lines", path.display()))
        .with_source(error)
        .with_hint("write one JSON object per line, with values of one type in each column")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        let micros = 1_700_000_000_000_000;
        for number in [1_700_000_000, 1_700_000_000_000, micros, 1_700_000_000_000_000_000] {
            assert_eq!(epoch_micros(number), Some(micros), "{number}");
        }
        assert_eq!(epoch_micros(-1), Some(-1_000_000));
        assert_eq!(epoch_micros_of_float(1.5), Some(1_500_000));
        assert_eq!(epoch_micros_of_float(1_700_000_000_000.0), Some(micros));
        assert_eq!(epoch_micros_of_float(f64::NAN), None);
    }
}
