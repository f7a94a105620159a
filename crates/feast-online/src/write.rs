//! From the columns of a push or a materialization to the rows of one table.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef, TimestampMicrosecondType};
use feast_core::{
    DUMMY_JOIN_KEY, DUMMY_JOIN_KEY_VALUE, EntityKeyEncoder, EntityKeys, Error, ErrorCode, Field, OnlineTable,
    OnlineWrite, Result, ValueType, list_names,
};

use crate::coerce_column;

/// Rows for one table, ready to be written.
#[derive(Debug, Clone)]
pub struct OwnedWrite {
    keys: EntityKeys,
    rows: RecordBatch,
    event_timestamps: TimestampMicrosecondArray,
    created_timestamps: Option<TimestampMicrosecondArray>,
}

impl OwnedWrite {
    /// The write to hand to a store; `table` is the one the rows were made for.
    pub fn as_write<'a>(&'a self, table: &'a OnlineTable) -> OnlineWrite<'a> {
        OnlineWrite {
            table,
            keys: &self.keys,
            rows: &self.rows,
            event_timestamps: &self.event_timestamps,
            created_timestamps: self.created_timestamps.as_ref(),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// Takes the rows of `table` out of a batch that has its join keys, its features and the timestamps by name.
///
/// Values are brought to their declared types as [`coerce_column`] does; other columns are ignored. A table without
/// entities gets its one key. `encoder` is one for the join keys of the table.
///
/// # Errors
/// `MissingColumns`; `MissingJoinKey` for a null key; `InvalidEventTimestamp` for a null event time; `InvalidRequest`
/// naming column, row and value when a value does not fit.
pub fn online_rows(
    table: &OnlineTable,
    encoder: &EntityKeyEncoder,
    batch: &RecordBatch,
    timestamp_field: &str,
    created_timestamp_field: Option<&str>,
) -> Result<OwnedWrite> {
    let keys = encoder.join_keys().iter().filter(|key| key.name != DUMMY_JOIN_KEY).map(|key| key.name.as_str());
    let features = table.columns.iter().map(|column| column.name.as_str());
    let wanted = keys.chain(features).chain([timestamp_field]).chain(created_timestamp_field);
    let missing: Vec<&str> = wanted.filter(|name| batch.column_by_name(name).is_none()).collect();
    if !missing.is_empty() {
        let given = batch.schema_ref().fields().iter().map(|field| field.name().as_str());
        return Err(Error::new(
            ErrorCode::MissingColumns,
            format!("the rows for `{}` lack {}", table.view, list_names(missing)),
        )
        .with_hint(format!("the columns given are {}", list_names(given))));
    }
    let column = |name: &str, value_type: ValueType| column(batch, name, value_type);
    let keys = entity_keys(encoder, batch)?;

    let event_timestamps = column(timestamp_field, ValueType::UnixTimestamp)?;
    if let Some(row) = (0..event_timestamps.len()).find(|row| event_timestamps.is_null(*row)) {
        return Err(Error::new(
            ErrorCode::InvalidEventTimestamp,
            format!("column `{timestamp_field}` is null in row {row}"),
        )
        .with_hint("every row needs the time at which it became true"));
    }
    let created_timestamps = created_timestamp_field.map(|name| column(name, ValueType::UnixTimestamp)).transpose()?;

    let columns = table.columns.iter().map(|field| column(&field.name, field.value_type));
    let rows = record_batch(&table.columns, columns.collect::<Result<_>>()?, batch.num_rows())?;
    let micros = |array: ArrayRef| array.as_primitive::<TimestampMicrosecondType>().clone();
    Ok(OwnedWrite {
        keys,
        rows,
        event_timestamps: micros(event_timestamps),
        created_timestamps: created_timestamps.map(micros),
    })
}

/// The entity keys of a batch that has the join keys by name, brought to their declared types.
///
/// # Errors
/// `MissingColumns`; `MissingJoinKey` for a null key; `InvalidRequest` when a value does not fit.
pub fn entity_keys(encoder: &EntityKeyEncoder, batch: &RecordBatch) -> Result<EntityKeys> {
    let columns = encoder.join_keys().iter().map(|key| match key.name == DUMMY_JOIN_KEY {
        true => Ok(Arc::new(StringArray::new_repeated(DUMMY_JOIN_KEY_VALUE, batch.num_rows())) as ArrayRef),
        false => column(batch, &key.name, key.value_type),
    });
    encoder.encode(record_batch(encoder.join_keys(), columns.collect::<Result<_>>()?, batch.num_rows())?)
}

fn column(batch: &RecordBatch, name: &str, value_type: ValueType) -> Result<ArrayRef> {
    let found = batch
        .column_by_name(name)
        .ok_or_else(|| Error::new(ErrorCode::MissingColumns, format!("the rows lack column `{name}`")))?;
    coerce_column(found, value_type, name)
}

/// A batch of declared columns for who knows what was declared: names and Arrow types, without marks of opaque types.
/// Unlike Arrow's own constructor also without any column.
pub(crate) fn record_batch<'a>(
    fields: impl IntoIterator<Item = &'a Field>,
    columns: Vec<ArrayRef>,
    n_rows: usize,
) -> Result<RecordBatch> {
    let plain = |(field, column): (&Field, &ArrayRef)| ArrowField::new(&field.name, column.data_type().clone(), true);
    let fields: Vec<_> = fields.into_iter().zip(&columns).map(plain).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// The schema of a [`record_batch`] whose columns have the Arrow types of their fields.
pub(crate) fn plain_schema<'a>(fields: impl IntoIterator<Item = &'a Field>) -> SchemaRef {
    let plain = |field: &Field| ArrowField::new(&field.name, field.value_type.arrow_type(), true);
    Arc::new(Schema::new(fields.into_iter().map(plain).collect::<Vec<_>>()))
}

/// [`record_batch`] for others: opaque types are marked.
pub(crate) fn marked_batch(fields: &[Field], columns: Vec<ArrayRef>, n_rows: usize) -> Result<RecordBatch> {
    let fields: Vec<_> = fields.iter().map(|field| field.value_type.arrow_field(&field.name)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Float64Array, Int64Array};
    use arrow::datatypes::Float32Type;

    use super::*;

    fn table() -> OnlineTable {
        OnlineTable {
            project: "p".to_owned(),
            view: "stats".to_owned(),
            join_keys: vec![Field::new("driver_id", ValueType::Int64)],
            columns: vec![Field::new("rate", ValueType::Float), Field::new("trips", ValueType::Int64)],
            tags: feast_core::Tags::new(),
        }
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn rows(table: &OnlineTable, batch: &RecordBatch) -> Result<OwnedWrite> {
        online_rows(table, &EntityKeyEncoder::new(&table.join_keys, 3)?, batch, "event_timestamp", None)
    }

    fn columns() -> Vec<(&'static str, ArrayRef)> {
        vec![
            ("event_timestamp", Arc::new(StringArray::from(vec!["2026-11-20T12:00:00Z"]))),
            ("trips", Arc::new(Float64Array::from(vec![20.0]))),
            ("rate", Arc::new(Float64Array::from(vec![0.5]))),
            ("driver_id", Arc::new(StringArray::from(vec!["1001"]))),
            ("other", Arc::new(Int64Array::from(vec![1]))),
        ]
    }

    #[test]
    fn columns_are_found_by_name_and_brought_to_their_types() {
        let table = table();
        let owned = rows(&table, &batch(columns())).unwrap();
        let write = owned.as_write(&table);
        assert_eq!(write.rows.column(0).as_primitive::<Float32Type>().value(0), 0.5);
        assert_eq!(write.event_timestamps.value(0), 1_795_176_000_000_000);
        assert_eq!(write.keys.encoded.value(0).last_chunk::<8>(), Some(&1001i64.to_le_bytes()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |name: &'static str, column: ArrayRef| {
            let columns = columns().into_iter().filter(|(known, _)| *known != name).chain([(name, column)]).collect();
            rows(&table(), &batch(columns)).unwrap_err()
        };
        let error = with("trips", Arc::new(Float64Array::from(vec![1.5])));
        assert_eq!(error.message(), "column `trips` has `1.5` in row 0, which is not a value of type INT64");
        let error = with("driver_id", Arc::new(Int64Array::from(vec![None])));
        assert_eq!(
            (error.code(), error.message()),
            (ErrorCode::MissingJoinKey, "join key `driver_id` is null in row 0")
        );
        let error = with("event_timestamp", Arc::new(TimestampMicrosecondArray::from(vec![None])));
        assert_eq!(error.code(), ErrorCode::InvalidEventTimestamp);
        let error = rows(&table(), &batch(columns()[..2].to_vec())).unwrap_err();
        assert_eq!(error.message(), "the rows for `stats` lack `driver_id` and `rate`");
        assert_eq!(error.hint(), Some("the columns given are `event_timestamp` and `trips`"));
    }

    #[test]
    fn tables_without_entities_get_their_key() {
        let table = OnlineTable { join_keys: vec![Field::new(DUMMY_JOIN_KEY, ValueType::String)], ..table() };
        let owned = rows(&table, &batch(columns())).unwrap();
        let hex: String = owned.keys.encoded.value(0).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01000000020000000a0000005f5f64756d6d795f69640200000000000000");
    }
}
