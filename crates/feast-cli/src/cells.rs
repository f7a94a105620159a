//! Rows of Arrow columns as JSON.

use std::io::Cursor;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::WriterBuilder;
use arrow::json::writer::LineDelimited;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use feast_core::{Error, OPAQUE_VALUE_KEY, Result, ValueType};
use serde_json::{Map, Value};

/// One JSON object per row, columns in order, nulls written out.
pub(crate) fn records(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>> {
    let schema = batch.schema();
    // Arrow writes plain columns; those whose bytes mean something are written here.
    let (own, plain): (Vec<usize>, Vec<usize>) = (0..batch.num_columns()).partition(|at| is_own(schema.field(*at)));
    let mut rows = plain_records(&batch.project(&plain)?)?;
    for (at_row, row) in rows.iter_mut().enumerate() {
        let mut plain = std::mem::take(row);
        for (at, field) in schema.fields().iter().enumerate() {
            let value = if own.contains(&at) {
                own_value(batch.column(at), field, at_row)?
            } else {
                plain.remove(field.name()).unwrap_or(Value::Null)
            };
            row.insert(field.name().clone(), value);
        }
    }
    Ok(rows)
}

fn plain_records(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>> {
    let mut lines = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut lines);
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    let rows = serde_json::Deserializer::from_reader(Cursor::new(lines)).into_iter().collect::<Result<Vec<_>, _>>();
    let mut rows: Vec<Map<String, Value>> =
        rows.map_err(|error| Error::internal("a row cannot be written as JSON").with_source(error))?;
    rows.resize_with(batch.num_rows(), Map::new);
    Ok(rows)
}

fn value_type(field: &Field) -> Option<ValueType> {
    field.metadata().get(OPAQUE_VALUE_KEY).and_then(|name| name.parse().ok())
}

fn is_own(field: &Field) -> bool {
    value_type(field) == Some(ValueType::Json) || *field.data_type() == DataType::Binary
}

fn own_value(column: &ArrayRef, field: &Field, row: usize) -> Result<Value> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    match (value_type(field), column.data_type()) {
        (Some(ValueType::Json), DataType::Utf8) => {
            let text = column.as_string::<i32>().value(row);
            Ok(serde_json::from_str(text).unwrap_or_else(|_| text.into()))
        }
        (Some(opaque), DataType::Binary) if opaque.is_opaque() => {
            feast_proto::value_codec::value_to_json(column.as_binary::<i32>().value(row))
        }
        (_, DataType::Binary) => Ok(BASE64.encode(column.as_binary::<i32>().value(row)).into()),
        _ => Ok(Value::Null),
    }
}

/// Columns of one answer under their names.
pub(crate) fn batch(columns: Vec<(Field, ArrayRef)>) -> Result<RecordBatch> {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    Ok(RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), arrays)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Float32Array, StringArray, TimestampMicrosecondArray};
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_keep_the_order_of_columns_and_their_nulls() {
        let time = TimestampMicrosecondArray::from(vec![0, 1_500_000]).with_timezone("UTC");
        let rows = records(
            &batch(vec![
                (Field::new("bytes", DataType::Binary, true), Arc::new(BinaryArray::from(vec![b"ab".as_slice(), b""]))),
                (Field::new("at", feast_core::timestamp_type(), true), Arc::new(time)),
                (Field::new("rate", DataType::Float32, true), Arc::new(Float32Array::from(vec![Some(0.3), None]))),
                (ValueType::Json.arrow_field("json"), Arc::new(StringArray::from(vec![r#"{"a":[1]}"#, "no json"]))),
            ])
            .unwrap(),
        )
        .unwrap();
        let names: Vec<&String> = rows[0].keys().collect();
        assert_eq!(names, ["bytes", "at", "rate", "json"]);
        assert_eq!(
            Value::from(rows),
            json!([
                {"bytes": "YWI=", "at": "1970-01-01T00:00:00Z", "rate": 0.3, "json": {"a": [1]}},
                {"bytes": "", "at": "1970-01-01T00:00:01.500Z", "rate": null, "json": "no json"},
            ])
        );
    }
}
