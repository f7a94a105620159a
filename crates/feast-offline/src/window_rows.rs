//! All rows of a source in a window of time, under the names that a feature view uses: the input of computed views.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{Field, Schema};
use feast_core::{DataSource, Error, Result, Timestamp};

use crate::batch_stream::BatchStream;
use crate::sources::{SourceTable, Window};
use crate::timestamps::{can_be_time, to_micros};

/// Rows that can be read, also several times.
#[derive(Debug, Clone)]
pub(crate) struct WindowRows {
    table: Arc<SourceTable>,
    schema: Arc<Schema>,
    window: Window,
}

impl WindowRows {
    /// Finds the event time of the source; both ends of the window belong to it.
    pub(crate) fn new(table: SourceTable, source: &DataSource, start: Timestamp, end: Timestamp) -> Result<Self> {
        let column = table.column(source, &source.timestamp_field)?;
        if !can_be_time(table.data_type(column)) {
            return Err(Error::invalid_definition(format!(
                "{} has type {}, which is not a time",
                table.describe(column),
                table.data_type(column)
            ))
            .with_hint("name another column as timestamp, or store it as a timestamp or text in ISO 8601"));
        }
        let renamed = |field: &Arc<Field>| match source.field_mapping.get(field.name()) {
            Some(name) => Arc::new(field.as_ref().clone().with_name(name)),
            None => Arc::clone(field),
        };
        let schema = Arc::new(Schema::new(table.schema().fields().iter().map(renamed).collect::<Vec<_>>()));
        let window = Window { column, first: start.timestamp_micros(), last: end.timestamp_micros() };
        Ok(Self { table: Arc::new(table), schema, window })
    }

    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Reads the rows, in the order of the source.
    pub(crate) fn read(&self) -> BatchStream {
        let Self { table, schema, window } = self.clone();
        BatchStream::from_blocking(Arc::clone(&schema), move |sender| {
            let columns: Vec<usize> = (0..schema.fields().len()).collect();
            table.scan(&columns, Some(window), 1, &|_, batch| {
                sender.check()?;
                let times = to_micros(batch.column(window.column), &table.describe(window.column))?;
                let is_inside =
                    |time: Option<i64>| time.is_some_and(|time| (window.first..=window.last).contains(&time));
                let inside: BooleanArray = times.iter().map(|time| Some(is_inside(time))).collect();
                let batch = filter_record_batch(&batch, &inside)?;
                if batch.num_rows() == 0 {
                    return Ok(());
                }
                // The items of lists and the like have metadata in files, which is no part of the schema.
                let columns = batch.columns().iter().zip(schema.fields());
                let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
                    true => Ok(Arc::clone(column)),
                    false => cast(column, field.data_type()),
                });
                sender.send(RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)?)
            })
        })
    }
}
