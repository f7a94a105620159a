//! What callers give: columns of loosely typed values or of Arrow, brought to the types of a plan on demand.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Float64Array, Int64Array, ListArray,
    StringArray, StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::Field as ArrowField;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use feast_core::{Error, Result, ValueType, list_names};
use feast_proto::value_codec::json_to_value;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::coerce::Coercion;

/// A value as JSON or a Python object has it, before anyone said what type it should have.
#[derive(Debug, Clone, PartialEq)]
pub enum EntityValue {
    /// No value.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An instant in microseconds since the epoch, UTC.
    TimestampMicros(i64),
    /// A list.
    List(Vec<EntityValue>),
    /// Named values, in order.
    Map(Vec<(String, EntityValue)>),
}

impl EntityValue {
    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::String(value) => value.as_str().into(),
            Self::Bytes(value) => String::from_utf8_lossy(value).into(),
            Self::TimestampMicros(value) => {
                DateTime::from_timestamp_micros(*value).map(|time| time.to_rfc3339()).into()
            }
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(entries) => entries.iter().map(|(key, value)| (key.clone(), value.to_json())).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for EntityValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = EntityValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<EntityValue, E> {
                Ok(EntityValue::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<EntityValue, E> {
                Ok(EntityValue::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<EntityValue, E> {
                Ok(EntityValue::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<EntityValue, E> {
                Ok(i64::try_from(value).map_or(EntityValue::Float(value as f64), EntityValue::Int))
            }
            fn visit_f64<E>(self, value: f64) -> Result<EntityValue, E> {
                Ok(EntityValue::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<EntityValue, E> {
                Ok(EntityValue::String(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<EntityValue, E> {
                Ok(EntityValue::String(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<EntityValue, A::Error> {
                let mut list = Vec::with_capacity(items.size_hint().unwrap_or_default());
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(EntityValue::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<EntityValue, A::Error> {
                let mut map = Vec::with_capacity(entries.size_hint().unwrap_or_default());
                while let Some(entry) = entries.next_entry()? {
                    map.push(entry);
                }
                Ok(EntityValue::Map(map))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

/// One column of the caller.
#[derive(Debug, Clone, PartialEq)]
pub enum EntityColumn {
    /// Loosely typed values.
    Values(Vec<EntityValue>),
    /// An Arrow column.
    Array(ArrayRef),
}

impl EntityColumn {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Array(array) => array.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The caller's columns by name, all of the same length.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EntityRows {
    columns: Vec<(String, EntityColumn)>,
    len: usize,
    /// Whether texts stand for bytes where bytes are declared.
    is_json: bool,
}

impl EntityRows {
    /// Rows from columns.
    ///
    /// # Errors
    /// `InvalidRequest` when columns differ in length or share a name.
    pub fn new(columns: Vec<(String, EntityColumn)>) -> Result<Self> {
        let len = columns.first().map_or(0, |(_, column)| column.len());
        for (position, (name, column)) in columns.iter().enumerate() {
            if column.len() != len {
                let lengths: Vec<String> =
                    columns.iter().map(|(name, column)| format!("`{name}` has {}", column.len())).collect();
                return Err(Error::invalid_request(format!(
                    "the entity columns differ in length: {}",
                    lengths.join(", ")
                ))
                .with_hint("give each row a value in every column"));
            }
            if columns[..position].iter().any(|(other, _)| other == name) {
                return Err(Error::invalid_request(format!("the entity column `{name}` is given twice"))
                    .with_hint("give each column once"));
            }
        }
        Ok(Self { columns, len, is_json: false })
    }

    /// Rows from columns that came as JSON, where bytes are texts in base64.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_json(columns: Vec<(String, EntityColumn)>) -> Result<Self> {
        Ok(Self { is_json: true, ..Self::new(columns)? })
    }

    /// Adds a column of loosely typed values.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn push(&mut self, name: impl Into<String>, values: Vec<EntityValue>) -> Result<()> {
        let mut columns = std::mem::take(&mut self.columns);
        columns.push((name.into(), EntityColumn::Values(values)));
        *self = Self { is_json: self.is_json, ..Self::new(columns)? };
        Ok(())
    }

    /// Rows from one list of named values per row.
    ///
    /// # Errors
    /// `InvalidRequest` when rows have different names.
    pub fn from_rows(rows: Vec<Vec<(String, EntityValue)>>) -> Result<Self> {
        let Some(first) = rows.first() else { return Ok(Self::default()) };
        let mut columns: Vec<(String, Vec<EntityValue>)> =
            first.iter().map(|(name, _)| (name.clone(), Vec::with_capacity(rows.len()))).collect();
        for (number, row) in rows.into_iter().enumerate() {
            let given: Vec<String> = row.iter().map(|(name, _)| name.clone()).collect();
            for (name, value) in row {
                let Some((_, values)) =
                    columns.iter_mut().find(|(known, values)| *known == name && values.len() == number)
                else {
                    return Err(uneven(number, &given, &columns));
                };
                values.push(value);
            }
            if columns.iter().any(|(_, values)| values.len() != number + 1) {
                return Err(uneven(number, &given, &columns));
            }
        }
        Self::new(columns.into_iter().map(|(name, values)| (name, EntityColumn::Values(values))).collect())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Names of the columns, in the caller's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// Position of the column with this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(known, _)| known == name)
    }

    /// The column at `position` as an array of a declared type.
    ///
    /// # Errors
    /// `InvalidRequest` naming column, row and value when a value does not fit.
    pub fn column(&self, position: usize, value_type: ValueType) -> Result<ArrayRef> {
        let (name, column) =
            self.columns.get(position).ok_or_else(|| Error::internal(format!("there is no column {position}")))?;
        let coercion = Coercion { value_type, column: name, first_row: 0 };
        if self.is_json && value_type.item().unwrap_or(value_type) == ValueType::Bytes {
            return match column {
                EntityColumn::Array(array) => coercion.apply(&decoded_array(name, array)?),
                EntityColumn::Values(values) => {
                    let values = values.iter().enumerate().map(|(row, value)| decoded(name, row, value));
                    let values = values.collect::<Result<Vec<_>>>()?;
                    loose_column(&values.iter().collect::<Vec<_>>(), coercion)
                }
            };
        }
        match column {
            EntityColumn::Array(array) => coercion.apply(array),
            EntityColumn::Values(values) => loose_column(&values.iter().collect::<Vec<_>>(), coercion),
        }
    }
}

/// The bytes that a text stands for.
fn bytes_of(column: &str, row: usize, text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text.as_bytes()).map_err(|error| {
        Error::invalid_request(format!("column `{column}` has a text in row {row} that is not base64: {error}"))
            .with_hint(format!("`{column}` holds bytes; encode them as base64"))
    })
}

/// A value, or the values of a list, with bytes where it has texts.
fn decoded(column: &str, row: usize, value: &EntityValue) -> Result<EntityValue> {
    Ok(match value {
        EntityValue::String(text) => EntityValue::Bytes(bytes_of(column, row, text)?),
        EntityValue::List(items) => {
            EntityValue::List(items.iter().map(|item| decoded(column, row, item)).collect::<Result<_>>()?)
        }
        other => other.clone(),
    })
}

/// A column with bytes where it has texts.
fn decoded_array(column: &str, array: &ArrayRef) -> Result<ArrayRef> {
    let Some(texts) = array.as_string_opt::<i32>() else { return Ok(Arc::clone(array)) };
    let bytes = texts.iter().enumerate().map(|(row, text)| text.map(|text| bytes_of(column, row, text)).transpose());
    let bytes = bytes.collect::<Result<Vec<Option<Vec<u8>>>>>()?;
    Ok(Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>()))
}

fn uneven(number: usize, given: &[String], columns: &[(String, Vec<EntityValue>)]) -> Error {
    Error::invalid_request(format!(
        "entity row {number} has {}, but the first row has {}",
        list_names(given.iter().map(String::as_str)),
        list_names(columns.iter().map(|(name, _)| name.as_str()))
    ))
    .with_hint("give every row the same columns")
}

impl<'de> Deserialize<'de> for EntityRows {
    /// From an object of lists, such as `{"driver_id": [1001, 1002]}`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = EntityRows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a list of values per entity column")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<EntityRows, A::Error> {
                let mut columns = Vec::with_capacity(entries.size_hint().unwrap_or(4));
                while let Some((name, values)) = entries.next_entry::<String, Vec<EntityValue>>()? {
                    columns.push((name, EntityColumn::Values(values)));
                }
                EntityRows::from_json(columns).map_err(serde::de::Error::custom)
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

/// Values of one kind make an Arrow column that is then brought to its type; mixed ones are taken one by one.
fn loose_column(values: &[&EntityValue], coercion: Coercion<'_>) -> Result<ArrayRef> {
    use EntityValue as V;
    let kind = |value: &EntityValue| std::mem::discriminant(value);
    let mut present = values.iter().copied().filter(|value| **value != V::Null);
    let Some(first) = present.next() else {
        return Ok(new_null_array(&coercion.value_type.arrow_type(), values.len()));
    };
    if matches!(first, V::List(_) | V::Map(_)) || present.any(|other| kind(other) != kind(first)) {
        return mixed_column(values, coercion);
    }
    macro_rules! each {
        ($array:ty, $pattern:pat => $value:expr) => {
            values
                .iter()
                .map(|value| match value {
                    $pattern => Some($value),
                    _ => None,
                })
                .collect::<$array>()
        };
    }
    match first {
        V::Bool(_) => coercion.apply(&each!(BooleanArray, V::Bool(value) => *value)),
        V::Int(_) => coercion.apply(&each!(Int64Array, V::Int(value) => *value)),
        V::Float(_) => coercion.apply(&each!(Float64Array, V::Float(value) => *value)),
        V::String(_) => coercion.apply(&each!(StringArray, V::String(value) => value.as_str())),
        V::Bytes(_) => coercion.apply(&each!(BinaryArray, V::Bytes(value) => value.as_slice())),
        V::TimestampMicros(_) => {
            let micros = each!(TimestampMicrosecondArray, V::TimestampMicros(value) => *value);
            coercion.apply(&micros.with_timezone("UTC"))
        }
        V::Null | V::List(_) | V::Map(_) => mixed_column(values, coercion),
    }
}

/// Lists, maps and values of different kinds.
fn mixed_column(values: &[&EntityValue], coercion: Coercion<'_>) -> Result<ArrayRef> {
    let wrong = |row: usize| {
        let text: String = values[row].to_json().to_string().chars().take(80).collect();
        Error::invalid_request(format!(
            "column `{}` has `{text}` in row {}, which is not a value of type {}",
            coercion.column,
            coercion.first_row + row,
            coercion.value_type
        ))
        .with_hint(format!("give a value that {} can hold", coercion.value_type))
    };
    let nested = |value: &EntityValue| matches!(value, EntityValue::List(_) | EntityValue::Map(_));
    if coercion.value_type == ValueType::Json {
        let mut texts = StringBuilder::new();
        for value in values {
            match value {
                EntityValue::Null => texts.append_null(),
                EntityValue::String(text) => texts.append_value(text),
                other => texts.append_value(other.to_json().to_string()),
            }
        }
        return Ok(Arc::new(texts.finish()));
    }
    if coercion.value_type.is_opaque() && values.iter().all(|value| nested(value) || **value == EntityValue::Null) {
        let mut cells = BinaryBuilder::new();
        for (row, value) in values.iter().enumerate() {
            let cell =
                json_to_value(&value.to_json(), coercion.value_type).map_err(|error| wrong(row).with_source(error))?;
            cells.append_option((!cell.is_empty()).then_some(cell));
        }
        return Ok(Arc::new(cells.finish()));
    }
    if let Some(item) = coercion.value_type.item() {
        let mut items: Vec<&EntityValue> = Vec::new();
        let mut lengths = Vec::with_capacity(values.len());
        for (row, value) in values.iter().enumerate() {
            match value {
                EntityValue::Null => lengths.push(0),
                EntityValue::List(list) => {
                    items.extend(list);
                    lengths.push(list.len());
                }
                _ => return Err(wrong(row)),
            }
        }
        let nulls: NullBuffer = values.iter().map(|value| **value != EntityValue::Null).collect::<Vec<_>>().into();
        let items = loose_column(&items, Coercion { value_type: item, ..coercion })?;
        let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
        return Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), items, Some(nulls))?));
    }
    if let Some(row) = values.iter().position(|value| nested(value)) {
        return Err(wrong(row));
    }
    let rows = values
        .iter()
        .enumerate()
        .map(|(row, value)| loose_column(&[value], Coercion { first_row: coercion.first_row + row, ..coercion }));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let rows: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    Ok(arrow::compute::concat(&rows)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rows(json: &str) -> EntityRows {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn numbers_and_texts_become_keys() {
        let expected: ArrayRef = Arc::new(Int64Array::from(vec![1001, 1002, 1003]));
        for json in [r#"{"k": [1001, 1002, 1003]}"#, r#"{"k": ["1001", 1002.0, 1003]}"#] {
            assert_eq!(&rows(json).column(0, ValueType::Int64).unwrap(), &expected);
        }
        let error = rows(r#"{"k": [1, 2, "abc"]}"#).column(0, ValueType::Int64).unwrap_err();
        assert_eq!(error.to_string(), "column `k` has `abc` in row 2, which is not a value of type INT64");
    }

    #[test]
    fn lists_and_objects_become_request_data() {
        let rows = rows(r#"{"l": [[1, 2.5], null], "m": [{"a": 1}, {}], "j": [[1], "x"]}"#);
        let list = rows.column(0, ValueType::DoubleList).unwrap();
        assert_eq!((list.len(), list.null_count()), (2, 1));
        assert_eq!(rows.column(1, ValueType::Map).unwrap().null_count(), 0);
        assert_eq!(rows.column(2, ValueType::Json).unwrap().len(), 2);
        assert!(rows.column(1, ValueType::DoubleList).is_err());
    }

    #[test]
    fn ragged_columns_and_rows_are_refused() {
        let error = serde_json::from_str::<EntityRows>(r#"{"a": [1], "b": [1, 2]}"#).unwrap_err();
        assert!(error.to_string().starts_with("the entity columns differ in length: `a` has 1, `b` has 2"));
        let row =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), EntityValue::Int(1))).collect::<Vec<_>>();
        assert_eq!(EntityRows::from_rows(vec![row(&["a", "b"]), row(&["b", "a"])]).unwrap().len(), 2);
        let error = EntityRows::from_rows(vec![row(&["a"]), row(&["b"])]).unwrap_err();
        assert_eq!(error.to_string(), "entity row 1 has `b`, but the first row has `a`");
        assert!(EntityRows::from_rows(vec![row(&["a", "b"]), row(&["a"])]).is_err());
    }
}
