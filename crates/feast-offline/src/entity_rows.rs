//! The rows a caller wants features for: how they are given, and which column is their time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use feast_core::{Error, ErrorCode, PlannedJoinKey, Result, RetrievalPlan, Timestamp, list_names};

use crate::BatchStream;
use crate::sources::SourceTable;
use crate::spill::{Spill, SpillWriter};
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

/// Entity rows: in memory or, where memory is limited, in a temporary file.
pub(crate) struct EntityRows {
    pub(crate) schema: SchemaRef,
    /// Position of the time column.
    time_column: usize,
    n_rows: usize,
    /// Least and greatest time.
    bounds: Option<(i64, i64)>,
    held: usize,
    rows: Rows,
}

enum Rows {
    Memory(Vec<RecordBatch>),
    Spilled(Spill),
}

/// Some entity rows that follow each other.
pub(crate) struct EntityPart {
    pub(crate) batches: Vec<RecordBatch>,
    time_column: usize,
}

impl EntityPart {
    /// How many rows there are.
    pub(crate) fn n_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The times of the rows, batch by batch.
    pub(crate) fn times(&self) -> Result<Vec<TimestampMicrosecondArray>> {
        self.batches.iter().map(|batch| times_of(batch, self.time_column)).collect()
    }

    /// The rows again, in batches of about [`OUTPUT_ROWS`]: larger ones are sliced, runs of small ones are joined.
    pub(crate) fn into_output_batches(self, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let mut output = Vec::new();
        let mut small: Vec<RecordBatch> = Vec::new();
        let mut n_small = 0;
        let flush = |small: &mut Vec<RecordBatch>, output: &mut Vec<RecordBatch>| -> Result<()> {
            if !small.is_empty() {
                output.push(concat_batches(schema, small.iter())?);
                small.clear();
            }
            Ok(())
        };
        for batch in self.batches {
            let batch = RecordBatch::try_new_with_options(
                Arc::clone(schema),
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

fn times_of(batch: &RecordBatch, time_column: usize) -> Result<TimestampMicrosecondArray> {
    let of = format!("column `{}` of the entity rows", batch.schema_ref().field(time_column).name());
    to_micros(batch.column(time_column), &of)
}

/// Entity rows while they arrive.
pub(crate) struct EntityRowsBuilder {
    rows: EntityRows,
    size: usize,
    /// Bytes above which rows go to a file.
    limit: usize,
    spill: Option<SpillWriter>,
}

impl EntityRowsBuilder {
    /// Finds the time column. Rows of more than `limit` bytes are kept in a temporary file.
    pub(crate) fn new(schema: SchemaRef, limit: usize) -> Result<Self> {
        let time_column = time_column(&schema)?;
        let rows = EntityRows { schema, time_column, n_rows: 0, bounds: None, held: 0, rows: Rows::Memory(Vec::new()) };
        Ok(Self { rows, size: 0, limit, spill: None })
    }

    pub(crate) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let times = times_of(&batch, self.rows.time_column)?;
        let bounds = arrow::compute::min(&times).zip(arrow::compute::max(&times));
        self.rows.bounds = match (self.rows.bounds, bounds) {
            (Some(known), Some(new)) => Some((known.0.min(new.0), known.1.max(new.1))),
            (known, new) => known.or(new),
        };
        self.rows.n_rows += batch.num_rows();
        self.size += batch.get_array_memory_size();
        let Rows::Memory(batches) = &mut self.rows.rows else {
            return Err(Error::internal("entity rows arrived after the last"));
        };
        batches.push(batch);
        if self.spill.is_none() && self.size > self.limit {
            self.spill = Some(SpillWriter::new(&self.rows.schema)?);
        }
        if let Some(spill) = &mut self.spill {
            for batch in batches.drain(..) {
                for start in (0..batch.num_rows()).step_by(OUTPUT_ROWS) {
                    spill.write(&batch.slice(start, OUTPUT_ROWS.min(batch.num_rows() - start)))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<EntityRows> {
        match self.spill {
            Some(spill) => self.rows.rows = Rows::Spilled(spill.finish()?),
            None => self.rows.held = self.size,
        }
        Ok(self.rows)
    }
}

impl EntityRows {
    /// Finds and checks the time column of rows that are in memory already.
    pub(crate) fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let mut builder = EntityRowsBuilder::new(schema, usize::MAX)?;
        batches.into_iter().try_for_each(|batch| builder.push(batch))?;
        // They are the caller's.
        builder.size = 0;
        builder.finish()
    }

    /// Reads a file, directory or glob. Rows of more than `limit` bytes are kept in a temporary file.
    pub(crate) fn read(path: &Path, base: &Path, limit: usize) -> Result<Self> {
        let table = SourceTable::open_path("entity rows", &path.to_string_lossy(), base)?;
        let columns: Vec<usize> = (0..table.schema().fields().len()).collect();
        let stopped = || Error::internal("reading entity rows stopped");
        let builder = std::sync::Mutex::new(EntityRowsBuilder::new(Arc::clone(table.schema()), limit)?);
        table.scan(&columns, None, 1, &|_, batch| builder.lock().map_err(|_| stopped())?.push(batch))?;
        builder.into_inner().map_err(|_| stopped())?.finish()
    }

    /// Bytes of rows that are in memory and not the caller's.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Bytes of a row as it lies in memory, where the rows wait in a file.
    pub(crate) fn spilled_row_size(&self) -> usize {
        match &self.rows {
            Rows::Memory(_) => 0,
            Rows::Spilled(spill) => spill.size() / self.n_rows.max(1),
        }
    }

    /// The rows in order, `most` at a time.
    pub(crate) fn into_parts(self, most: usize) -> Result<impl Iterator<Item = Result<EntityPart>>> {
        let time_column = self.time_column;
        let batches: Box<dyn Iterator<Item = Result<RecordBatch>>> = match self.rows {
            Rows::Memory(batches) => Box::new(batches.into_iter().map(Ok)),
            Rows::Spilled(spill) => Box::new(spill.read()?),
        };
        let mut batches = batches.fuse();
        let mut rest: Option<RecordBatch> = None;
        Ok(std::iter::from_fn(move || {
            let mut part = Vec::new();
            let mut room = most;
            while room > 0 {
                let batch = match rest.take().map(Ok).or_else(|| batches.next()) {
                    None => break,
                    Some(Err(error)) => return Some(Err(error)),
                    Some(Ok(batch)) => batch,
                };
                let taken = batch.num_rows().min(room);
                if taken < batch.num_rows() {
                    rest = Some(batch.slice(taken, batch.num_rows() - taken));
                }
                room -= taken;
                part.push(batch.slice(0, taken));
            }
            (!part.is_empty()).then(|| Ok(EntityPart { batches: part, time_column }))
        }))
    }

    /// The different times, unless there are more than `most`.
    pub(crate) fn distinct_times(&self, most: usize) -> Result<Option<Vec<i64>>> {
        let batches: Box<dyn Iterator<Item = Result<RecordBatch>>> = match &self.rows {
            Rows::Memory(batches) => Box::new(batches.iter().cloned().map(Ok)),
            Rows::Spilled(spill) => Box::new(spill.read()?),
        };
        let mut times = BTreeSet::new();
        for batch in batches {
            for time in times_of(&batch?, self.time_column)?.iter().flatten() {
                times.insert(time);
                if times.len() > most {
                    return Ok(None);
                }
            }
        }
        Ok(Some(times.into_iter().collect()))
    }

    /// Name of the time column.
    pub(crate) fn time_name(&self) -> &str {
        self.schema.field(self.time_column).name()
    }

    /// Least and greatest time.
    pub(crate) fn bounds(&self) -> Option<(i64, i64)> {
        self.bounds
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
        let rows = EntityRows::new(Arc::clone(&schema), batches).unwrap();
        let part = rows.into_parts(usize::MAX).unwrap().next().unwrap().unwrap();
        let output = part.into_output_batches(&schema).unwrap();
        assert_eq!(output.iter().map(RecordBatch::num_rows).collect::<Vec<_>>()[..2], [20, OUTPUT_ROWS]);
        let all = concat_batches(&schema, &output).unwrap();
        assert_eq!(all.column(1).as_ref(), &Int64Array::from_iter_values(0..200_001));
    }

    #[test]
    fn rows_beyond_the_limit_wait_in_a_file_and_come_back_in_parts() {
        let schema = schema(&[("at", DataType::Date32), ("name", DataType::Utf8)]);
        let batch = |from: i32, to: i32| {
            let names = StringArray::from_iter_values((from..to).map(|number| number.to_string()));
            let times = arrow::array::Date32Array::from_iter_values(from..to);
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(times), Arc::new(names)]).unwrap()
        };
        let mut builder = EntityRowsBuilder::new(Arc::clone(&schema), 1000).unwrap();
        let batches = [batch(0, 7), batch(7, 7), batch(7, 500), batch(500, 502), batch(502, 1000)];
        batches.into_iter().for_each(|batch| builder.push(batch).unwrap());
        let rows = builder.finish().unwrap();
        assert!(matches!(rows.rows, Rows::Spilled(_)));
        assert_eq!((rows.n_rows, rows.bounds()), (1000, Some((0, 999 * 86_400_000_000))));
        let parts: Vec<EntityPart> = rows.into_parts(300).unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(parts.iter().map(EntityPart::n_rows).collect::<Vec<_>>(), [300, 300, 300, 100]);
        let batches: Vec<RecordBatch> = parts.into_iter().flat_map(|part| part.batches).collect();
        assert_eq!(concat_batches(&schema, &batches).unwrap(), batch(0, 1000));
    }
}
