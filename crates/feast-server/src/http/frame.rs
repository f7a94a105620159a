//! Data frames: JSON columns become Arrow columns of the types that the views declare.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use feast_core::{Error, FeatureView, Result, ValueType};
use feast_online::{EntityColumn, EntityRows, EntityValue};

use super::body::Columns;

/// Named columns of a data frame, in order.
pub(super) type Frame = Vec<(String, EntityColumn)>;

/// Columns whose values came one by one.
pub(super) fn frame(columns: Columns) -> Frame {
    columns.into_iter().map(|(name, values)| (name, EntityColumn::Values(values))).collect()
}

/// A record batch from the columns of a body; `None` when there is no column at all, which writes nothing.
///
/// A column that one of the views declares gets its declared type. Any other gets the type its values have; times stay
/// texts and are read by who needs them.
///
/// # Errors
/// `InvalidRequest` for columns of different lengths, and for values that do not fit, naming column, row and value.
pub(super) fn record_batch(frame: Frame, views: &[Arc<FeatureView>]) -> Result<Option<RecordBatch>> {
    let Some((_, first)) = frame.first() else { return Ok(None) };
    if frame.iter().any(|(_, values)| values.len() != first.len()) {
        let lengths: Vec<String> =
            frame.iter().map(|(name, values)| format!("`{name}` has {}", values.len())).collect();
        let error = Error::invalid_request(format!("the columns of `df` differ in length: {}", lengths.join(", ")));
        return Err(error.with_hint("give every column one value per row; null where there is none"));
    }
    let mut types = Vec::with_capacity(frame.len());
    let mut columns = Vec::with_capacity(frame.len());
    for (name, column) in frame {
        let value_type = match declared_type(&name, views) {
            Some(declared) => declared,
            None => match &column {
                EntityColumn::Array(array) => ValueType::from_arrow(array.data_type()).unwrap_or_default(),
                EntityColumn::Values(values) => inferred_type(&name, values)?,
            },
        };
        types.push((name.clone(), value_type));
        columns.push((name, column));
    }
    let rows = EntityRows::from_json(columns)?;
    let arrays: Result<Vec<ArrayRef>> =
        types.iter().enumerate().map(|(position, (_, value_type))| rows.column(position, *value_type)).collect();
    let fields: Vec<_> = types.iter().map(|(name, value_type)| value_type.arrow_field(name)).collect();
    Ok(Some(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays?)?))
}

/// The type that a view declares for a column of its source.
fn declared_type(column: &str, views: &[Arc<FeatureView>]) -> Option<ValueType> {
    views.iter().find_map(|view| {
        let source = view.batch_source().or(view.stream_source());
        let name = source.map_or(column, |source| source.mapped(column));
        let mut fields = view.features.iter().chain(&view.entity_columns);
        fields.find(|field| field.name == name).map(|field| field.value_type)
    })
}

/// The type of values that nobody declared.
fn inferred_type(column: &str, values: &[EntityValue]) -> Result<ValueType> {
    use ValueType as T;
    let mut found: Option<ValueType> = None;
    for (row, value) in values.iter().enumerate() {
        let Some(next) = type_of(value) else { continue };
        found = Some(match (found, next) {
            (None, next) => next,
            (Some(known), next) if known == next => known,
            (Some(T::Int64 | T::Double), T::Int64 | T::Double) => T::Double,
            (Some(T::Int64List | T::DoubleList), T::Int64List | T::DoubleList) => T::DoubleList,
            (Some(known), next) => {
                return Err(Error::invalid_request(format!(
                    "column `{column}` has a value of type {next} in row {row}, but values of type {known} before it"
                ))
                .with_hint("give all values of a column the same type"));
            }
        });
    }
    Ok(found.unwrap_or(T::String))
}

fn type_of(value: &EntityValue) -> Option<ValueType> {
    Some(match value {
        EntityValue::Null => return None,
        EntityValue::Bool(_) => ValueType::Bool,
        EntityValue::Int(_) => ValueType::Int64,
        EntityValue::Float(_) => ValueType::Double,
        EntityValue::String(_) => ValueType::String,
        EntityValue::Bytes(_) => ValueType::Bytes,
        EntityValue::TimestampMicros(_) => ValueType::UnixTimestamp,
        EntityValue::Map(_) => ValueType::Json,
        EntityValue::List(items) => {
            let mut types = items.iter().filter_map(type_of);
            let first = types.next().unwrap_or(ValueType::String);
            let item = types.try_fold(first, |known, next| match (known, next) {
                (known, next) if known == next => Some(known),
                (ValueType::Int64 | ValueType::Double, ValueType::Int64 | ValueType::Double) => Some(ValueType::Double),
                _ => None,
            });
            item.and_then(ValueType::list).unwrap_or(ValueType::Json)
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::AsArray as _;
    use arrow::datatypes::{DataType, Float32Type, Int64Type};
    use feast_core::{BatchFeatures, DataSource, FeatureViewKind, Field};
    use serde_json::{Value, json};

    use super::super::frame_body;
    use super::*;

    fn views() -> Vec<Arc<FeatureView>> {
        let mut source = DataSource::file("s", "s.parquet", "at");
        source.field_mapping = [("r".to_owned(), "rate".to_owned())].into();
        let kind = FeatureViewKind::Batch(BatchFeatures { batch_source: Some(source), ..BatchFeatures::default() });
        let mut view = FeatureView::new("v", kind);
        view.features = vec![
            Field::new("rate", ValueType::Float),
            Field::new("raw", ValueType::Bytes),
            Field::new("trips", ValueType::Int64),
        ];
        vec![Arc::new(view)]
    }

    fn batch(json: Value) -> Result<Option<RecordBatch>> {
        batch_for(&json, &views())
    }

    /// The batch of a frame, which is the same when its values come one by one and, if that is possible, by column.
    fn batch_for(json: &Value, views: &[Arc<FeatureView>]) -> Result<Option<RecordBatch>> {
        let columns = json.as_object().unwrap().iter();
        let columns = columns.map(|(name, values)| (name.clone(), serde_json::from_value(values.clone()).unwrap()));
        let one_by_one = record_batch(frame(columns.collect()), views);
        if let Some(body) = frame_body::parse(&json!({"df": json}).to_string(), 1000) {
            let by_column = record_batch(body.frame.into_columns(), views);
            match (&one_by_one, &by_column) {
                (Ok(one), Ok(other)) => assert_eq!(one, other),
                (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
                _ => panic!("{json}: {one_by_one:?} {by_column:?}"),
            }
        }
        one_by_one
    }

    #[test]
    fn columns_become_what_their_values_become_one_by_one() {
        let columns = [
            json!([1, null, -2]),
            json!([null, 0.5, 1.0]),
            json!(["1", "x", null]),
            json!(["AP/+", "1.5"]),
            json!(["2026-11-20", null]),
            json!([true, false, null]),
        ];
        for value_type in (0..100).filter_map(ValueType::from_number) {
            let mut view = FeatureView::clone(&views()[0]);
            view.features.push(Field::new("f", value_type));
            for column in &columns {
                let frame = json!({"f": column, "other": column});
                assert!(frame_body::parse(&json!({"df": frame}).to_string(), 1000).is_some());
                drop(batch_for(&frame, &[Arc::new(view.clone())]));
            }
        }
    }

    #[test]
    fn declared_columns_get_their_type_and_others_keep_theirs() {
        let typed =
            batch(json!({"r": ["0.5", 1], "raw": ["AP/+", null], "trips": ["12", 3.0], "at": ["2026-11-20", null],
                                 "n": [1, 2.5], "x": [null, null]}))
            .unwrap()
            .unwrap();
        assert_eq!(typed.column(0).as_primitive::<Float32Type>().values(), &[0.5, 1.0]);
        assert_eq!(typed.column(1).as_binary::<i32>().value(0), b"\x00\xff\xfe");
        assert_eq!(typed.column(2).as_primitive::<Int64Type>().values(), &[12, 3]);
        assert_eq!(typed.column(3).data_type(), &DataType::Utf8);
        assert_eq!(typed.column(4).data_type(), &DataType::Float64);
        assert_eq!(typed.column(5).null_count(), 2);
        assert!(batch(json!({})).unwrap().is_none());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let cases = [
            (json!({"a": [1], "b": [1, 2]}), "the columns of `df` differ in length: `a` has 1, `b` has 2"),
            (json!({"trips": [1, "x"]}), "column `trips` has `x` in row 1, which is not a value of type INT64"),
            (
                json!({"a": [1, "x"]}),
                "column `a` has a value of type STRING in row 1, but values of type INT64 before it",
            ),
            (json!({"raw": ["*"]}), "column `raw` has a text in row 0 that is not base64"),
        ];
        for (json, expected) in cases {
            let message = batch(json).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
