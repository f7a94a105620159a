//! The rows a caller wants features for: how they are given, and which column is their time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray, TimestampMicrosecondBuilder};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use feast_core::{Error, ErrorCode, PlannedJoinKey, Result, RetrievalPlan, Timestamp, list_names, timestamp_type};

use crate::BatchStream;
use crate::sources::SourceTable;
use crate::timestamps::{can_be_time, is_time, to_micros};

/// Name of the entity time column that wins over any other.
const EVENT_TIMESTAMP: &str = "event_timestamp";

/// Where the entity rows of a request come from.
#[derive(Debug)]
pub enum EntitySource {
    /// Rows in memory.
    Batches(SchemaRef, Vec<RecordBatch>),
    /// Rows that arrive.
    Stream(BatchStream),
    /// A Parquet or CSV file, directory or glob; relative paths start at the feature repository.
    File(PathBuf),
    /// A query over the tables of the request.
    Sql(String),
    /// None given: every key and event time the views have between two instants, both included.
    Range {
        /// Defaults to the longest ttl before the end, or 30 days where no view has one.
        start: Option<Timestamp>,
        /// Defaults to now.
        end: Option<Timestamp>,
    },
}

/// Entity rows in memory, with their times.
pub(crate) struct EntityRows {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    /// Position of the time column.
    pub(crate) time_column: usize,
    /// The time of every row.
    pub(crate) times: TimestampMicrosecondArray,
}

impl EntityRows {
    /// Finds and reads the time column.
    pub(crate) fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let time_column = time_column(&schema)?;
        let of = format!("column `{}` of the entity rows", schema.field(time_column).name());
        let n_rows = batches.iter().map(RecordBatch::num_rows).sum();
        let mut times = TimestampMicrosecondBuilder::with_capacity(n_rows).with_data_type(timestamp_type());
        for batch in &batches {
            times.append_array(&to_micros(batch.column(time_column), &of)?);
        }
        Ok(Self { schema, batches, time_column, times: times.finish() })
    }

    /// Reads a file, directory or glob.
    pub(crate) fn read(path: &Path, base: &Path) -> Result<Self> {
        let table = SourceTable::open_path("entity rows", &path.to_string_lossy(), base)?;
        let columns: Vec<usize> = (0..table.schema().fields().len()).collect();
        let batches = std::sync::Mutex::new(Vec::new());
        table.scan(&columns, None, 1, &|_, batch| {
            batches.lock().map_err(|_| Error::internal("reading entity rows stopped"))?.push(batch);
            Ok(())
        })?;
        Self::new(Arc::clone(table.schema()), batches.into_inner().unwrap_or_default())
    }

    /// Name of the time column.
    pub(crate) fn time_name(&self) -> &str {
        self.schema.field(self.time_column).name()
    }

    /// Least and greatest time.
    pub(crate) fn bounds(&self) -> Option<(i64, i64)> {
        Some((arrow::compute::min(&self.times)?, arrow::compute::max(&self.times)?))
    }

    /// The column that holds a join key: named like it, or like its entity.
    pub(crate) fn key_column(&self, plan: &RetrievalPlan, key: &PlannedJoinKey) -> Result<usize> {
        let entities = plan.entity_aliases.iter().filter(|alias| alias.join_key == key.column);
        let names = std::iter::once(key.column.as_str()).chain(entities.map(|alias| alias.entity.as_str()));
        names.into_iter().find_map(|name| self.schema.index_of(name).ok()).ok_or_else(|| {
            Error::new(
                ErrorCode::MissingJoinKey,
                format!("the entity rows have no column `{}`, which is a join key of the features", key.column),
            )
            .with_hint(format!("their columns are {}", column_names(&self.schema)))
        })
    }

    /// Checks that the inputs of on-demand views are there.
    pub(crate) fn check_request_fields(&self, plan: &RetrievalPlan) -> Result<()> {
        let missing = plan.request_fields.iter().find(|field| self.schema.index_of(&field.name).is_err());
        missing.map_or(Ok(()), |field| {
            Err(Error::new(
                ErrorCode::RequestDataNotFoundInEntityFrame,
                format!("the entity rows have no column `{}`, which an on-demand feature view needs", field.name),
            )
            .with_hint(format!("their columns are {}", column_names(&self.schema))))
        })
    }

    /// The rows again, in batches of about [`OUTPUT_ROWS`]: larger ones are sliced, runs of small ones are joined.
    pub(crate) fn into_output_batches(self) -> Result<Vec<RecordBatch>> {
        let mut output = Vec::new();
        let mut small: Vec<RecordBatch> = Vec::new();
        let mut n_small = 0;
        let flush = |small: &mut Vec<RecordBatch>, output: &mut Vec<RecordBatch>| -> Result<()> {
            if !small.is_empty() {
                output.push(concat_batches(&self.schema, small.iter())?);
                small.clear();
            }
            Ok(())
        };
        for batch in self.batches {
            let batch = RecordBatch::try_new_with_options(
                Arc::clone(&self.schema),
                batch.columns().to_vec(),
                &arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
            )?;
            if batch.num_rows() < OUTPUT_ROWS / 2 {
                n_small += batch.num_rows();
                small.push(batch);
                if n_small < OUTPUT_ROWS / 2 {
                    continue;
                }
                flush(&mut small, &mut output)?;
            } else {
                flush(&mut small, &mut output)?;
                let n_rows = batch.num_rows();
                let starts = (0..n_rows).step_by(OUTPUT_ROWS);
                output.extend(starts.map(|start| batch.slice(start, OUTPUT_ROWS.min(n_rows - start))));
            }
            n_small = 0;
        }
        flush(&mut small, &mut output)?;
        Ok(output)
    }
}

/// Rows of an output batch.
pub(crate) const OUTPUT_ROWS: usize = 65_536;

/// `event_timestamp` if it can be read as a time, else the only column of a time type.
fn time_column(schema: &SchemaRef) -> Result<usize> {
    if let Some((index, field)) = schema.column_with_name(EVENT_TIMESTAMP) {
        return if can_be_time(field.data_type()) {
            Ok(index)
        } else {
            Err(Error::new(
                ErrorCode::InvalidEventTimestamp,
                format!("column `{EVENT_TIMESTAMP}` of the entity rows has type {}, not a time", field.data_type()),
            )
            .with_hint("give it as a timestamp, a date, or text in ISO 8601"))
        };
    }
    let times: Vec<usize> =
        (0..schema.fields().len()).filter(|index| is_time(schema.field(*index).data_type())).collect();
    match times.as_slice() {
        [only] => Ok(*only),
        [] => Err(Error::new(
            ErrorCode::InvalidEventTimestamp,
            match schema.fields().is_empty() {
                true => "the entity rows have no columns".to_owned(),
                false => format!("the entity rows have no time column among {}", column_names(schema)),
            },
        )
        .with_hint(format!("add a column `{EVENT_TIMESTAMP}` with the time of each row"))),
        several => Err(Error::new(
            ErrorCode::InvalidEventTimestamp,
            format!(
                "the entity rows have several time columns: {}",
                list_names(several.iter().map(|index| schema.field(*index).name().as_str()))
            ),
        )
        .with_hint(format!("name the one that counts `{EVENT_TIMESTAMP}`"))),
    }
}

fn column_names(schema: &SchemaRef) -> String {
    list_names(schema.fields().iter().map(|field| field.name().as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
    }

    #[test]
    fn the_time_column_is_named_or_alone() {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        assert_eq!(time_column(&schema(&[("a", time.clone()), ("event_timestamp", DataType::Utf8)])).unwrap(), 1);
        assert_eq!(time_column(&schema(&[("a", DataType::Int64), ("ts", DataType::Date32)])).unwrap(), 1);
        for (columns, message) in [
            (vec![("a", time.clone()), ("b", time)], "the entity rows have several time columns: `a` and `b`"),
            (vec![("a", DataType::Utf8)], "the entity rows have no time column among `a`"),
            (
                vec![("event_timestamp", DataType::Int64)],
                "column `event_timestamp` of the entity rows has type Int64, not a time",
            ),
        ] {
            let error = time_column(&schema(&columns)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidEventTimestamp);
            assert_eq!(error.message(), message);
        }
    }

    #[test]
    fn output_batches_keep_every_row_in_order() {
        let schema = schema(&[("event_timestamp", DataType::Utf8), ("n", DataType::Int64)]);
        let batch = |from: i64, to: i64| {
            let times = StringArray::from(vec!["2024-01-01"; (to - from) as usize]);
            let numbers = Int64Array::from_iter_values(from..to);
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(times), Arc::new(numbers)]).unwrap()
        };
        let batches = vec![batch(0, 10), batch(10, 20), batch(20, 200_000), batch(200_000, 200_001)];
        let output = EntityRows::new(Arc::clone(&schema), batches).unwrap().into_output_batches().unwrap();
        assert_eq!(output.iter().map(RecordBatch::num_rows).collect::<Vec<_>>()[..2], [20, OUTPUT_ROWS]);
        let all = concat_batches(&schema, &output).unwrap();
        assert_eq!(all.column(1).as_ref(), &Int64Array::from_iter_values(0..200_001));
    }
}
