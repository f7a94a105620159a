//! From columns and JSON to serialized messages.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, ListArray, StringArray, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit};
use chrono::DateTime;
use feast_core::{Error, Result, ValueType};

use super::MISSING_TIMESTAMP;
use super::nested::{check_opaque, shorten};
use super::wire::{LENGTH, MAP_KEYS, Tag, VARINT, put_varint, tag_of, wire_of};
/// Serializes each row of a column as one `Value` message; a null becomes zero bytes.
///
/// The column has the Arrow type of `value_type`, or one that converts to it without loss. For `MAP`, `STRUCT`, their
/// lists, `VALUE_LIST`, `SCALAR_MAP` and `ZONED_TIMESTAMP` it is either a column of serialized messages, which are
/// validated, or an Arrow map, struct, list or timestamp column, whose children say the types of the inner values.
///
/// # Errors
/// `InvalidRequest` when the column has another type, a message is malformed, or a list holds a null that the message
/// cannot express (lists of numbers with decimals hold NaN instead, lists of timestamps Feast's missing timestamp).
pub fn encode_column(array: &dyn Array, value_type: ValueType) -> Result<BinaryArray> {
    use ValueType as T;
    if array.data_type() == &DataType::Null {
        return Ok(BinaryArray::new_repeated(b"", array.len()));
    }
    if value_type.is_opaque() && array.data_type() != &DataType::Binary {
        return encode_nested(array, value_type);
    }
    let array = normalize(array, value_type)?;
    let tag = tag_of(value_type);
    match value_type {
        T::Bytes => {
            let column = array.as_binary::<i32>();
            cells(&array, column.value_data().len(), |row, out| tag.put_bytes(out, column.value(row)))
        }
        T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal => {
            let column = array.as_string::<i32>();
            cells(&array, column.value_data().len(), |row, out| tag.put_bytes(out, column.value(row).as_bytes()))
        }
        T::Int32 => {
            let column = array.as_primitive::<Int32Type>();
            cells(&array, 0, |row, out| tag.put_varint(out, i64::from(column.value(row)) as u64))
        }
        T::Int64 => {
            let column = array.as_primitive::<Int64Type>();
            cells(&array, 0, |row, out| tag.put_varint(out, column.value(row) as u64))
        }
        T::Double => {
            let column = array.as_primitive::<Float64Type>();
            cells(&array, 0, |row, out| tag.put_fixed(out, &column.value(row).to_le_bytes()))
        }
        T::Float => {
            let column = array.as_primitive::<Float32Type>();
            cells(&array, 0, |row, out| tag.put_fixed(out, &column.value(row).to_le_bytes()))
        }
        T::Bool => {
            let column = array.as_boolean();
            cells(&array, 0, |row, out| tag.put_varint(out, u64::from(column.value(row))))
        }
        T::UnixTimestamp => {
            let column = timestamps(&array)?;
            cells(&array, 0, |row, out| tag.put_varint(out, column.value(row).div_euclid(1_000_000) as u64))
        }
        opaque if opaque.is_opaque() => {
            let column = array.as_binary::<i32>();
            try_cells(&array, column.value_data().len(), |row, out| {
                let cell = column.value(row);
                check_opaque(cell, value_type).map_err(|error| error.with_context("row", row))?;
                out.extend_from_slice(cell);
                Ok(())
            })
        }
        _ => encode_list(array.as_list::<i32>(), value_type, tag),
    }
}

/// Brings a column to the Arrow type of its value type, where that loses nothing.
pub(super) fn normalize(array: &dyn Array, value_type: ValueType) -> Result<ArrayRef> {
    use ValueType as T;
    let wanted = value_type.arrow_type();
    if array.data_type() == &wanted {
        return Ok(array.slice(0, array.len()));
    }
    let found = ValueType::from_arrow(array.data_type());
    let scalar = |found: T, wanted: T| {
        found == wanted
            || matches!(
                (found, wanted),
                (T::Int32, T::Int64)
                    | (T::Float, T::Double)
                    | (T::String | T::Decimal, T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal)
            )
    };
    let fits = found.is_some_and(|found| match (found.item(), value_type.item()) {
        (Some(found), Some(wanted)) => scalar(found, wanted),
        (None, None) => scalar(found, value_type),
        _ => false,
    });
    let empty_list = matches!(array.data_type(), DataType::List(item) if item.data_type() == &DataType::Null)
        && value_type.item().is_some();
    if fits || empty_list {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        return cast_with_options(array, &wanted, &strict)
            .map_err(|error| wrong_column(array.data_type(), value_type).with_source(error));
    }
    Err(wrong_column(array.data_type(), value_type))
}

pub(super) fn wrong_column(found: &DataType, value_type: ValueType) -> Error {
    Error::invalid_request(format!("a column of type {found} cannot hold values of type {value_type}"))
        .with_hint(format!("convert the column to {}", value_type.arrow_type()))
}

pub(super) fn timestamps(array: &ArrayRef) -> Result<&TimestampMicrosecondArray> {
    array.as_any().downcast_ref().ok_or_else(|| Error::internal("a timestamp column is not in microseconds"))
}

pub(super) fn cells(
    array: &dyn Array,
    payload: usize,
    mut put: impl FnMut(usize, &mut Vec<u8>),
) -> Result<BinaryArray> {
    try_cells(array, payload, |row, out| {
        put(row, out);
        Ok(())
    })
}

/// One cell per row; `put` is called for the rows that are not null.
pub(super) fn try_cells(
    array: &dyn Array,
    payload: usize,
    mut put: impl FnMut(usize, &mut Vec<u8>) -> Result<()>,
) -> Result<BinaryArray> {
    let mut values = Vec::with_capacity(payload + array.len() * 6);
    let mut offsets = Vec::with_capacity(array.len() + 1);
    offsets.push(0i32);
    for row in 0..array.len() {
        if array.is_valid(row) {
            put(row, &mut values)?;
        }
        let end = i32::try_from(values.len()).map_err(|_| {
            Error::invalid_request("the values of one batch exceed 2 GiB").with_hint("write fewer rows at a time")
        })?;
        offsets.push(end);
    }
    Ok(BinaryArray::new(OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(values), None))
}

pub(super) fn encode_list(list: &ListArray, value_type: ValueType, tag: Tag) -> Result<BinaryArray> {
    use ValueType as T;
    let item = value_type.item().ok_or_else(|| Error::internal(format!("{value_type} is not a list")))?;
    let items = list.values();
    let offsets = list.value_offsets();
    let range = |row: usize| offsets[row] as usize..offsets[row + 1] as usize;
    // What a null inside the list becomes is known to floats and timestamps only.
    if items.null_count() > 0 && !matches!(item, T::Float | T::Double | T::UnixTimestamp) {
        let holds_null = |row: &usize| list.is_valid(*row) && range(*row).any(|i| items.is_null(i));
        if let Some(row) = (0..list.len()).find(holds_null) {
            return Err(Error::invalid_request(format!("the list in row {row} holds a null"))
                .with_hint(format!("values of type {value_type} cannot hold nulls; remove or replace them")));
        }
    }
    let packed = Tag::new(1, LENGTH);
    let payload = items.len() * 4;
    match item {
        T::Bytes => {
            let items = items.as_binary::<i32>();
            try_cells(list, payload, |row, out| {
                tag.put_message(out, |out| {
                    range(row).for_each(|i| packed.put_bytes(out, items.value(i)));
                    Ok(())
                })
            })
        }
        T::Int32 => {
            let items = items.as_primitive::<Int32Type>();
            packed_cells(list, tag, range, |i, out| put_varint(out, i64::from(items.value(i)) as u64))
        }
        T::Int64 => {
            let items = items.as_primitive::<Int64Type>();
            packed_cells(list, tag, range, |i, out| put_varint(out, items.value(i) as u64))
        }
        T::Double => {
            let items = items.as_primitive::<Float64Type>();
            packed_cells(list, tag, range, |i, out| {
                let value = if items.is_null(i) { f64::NAN } else { items.value(i) };
                out.extend_from_slice(&value.to_le_bytes());
            })
        }
        T::Float => {
            let items = items.as_primitive::<Float32Type>();
            packed_cells(list, tag, range, |i, out| {
                let value = if items.is_null(i) { f32::NAN } else { items.value(i) };
                out.extend_from_slice(&value.to_le_bytes());
            })
        }
        T::Bool => {
            let items = items.as_boolean();
            packed_cells(list, tag, range, |i, out| out.push(u8::from(items.value(i))))
        }
        T::UnixTimestamp => {
            let items = timestamps(items)?;
            packed_cells(list, tag, range, |i, out| {
                let missing = items.is_null(i);
                let seconds = if missing { MISSING_TIMESTAMP } else { items.value(i).div_euclid(1_000_000) };
                put_varint(out, seconds as u64);
            })
        }
        _ => {
            let items = items.as_string::<i32>();
            try_cells(list, payload, |row, out| {
                tag.put_message(out, |out| {
                    range(row).for_each(|i| packed.put_bytes(out, items.value(i).as_bytes()));
                    Ok(())
                })
            })
        }
    }
}

pub(super) fn packed_cells(
    list: &ListArray,
    tag: Tag,
    range: impl Fn(usize) -> std::ops::Range<usize>,
    put: impl Fn(usize, &mut Vec<u8>),
) -> Result<BinaryArray> {
    try_cells(list, list.values().len() * 4, |row, out| {
        let range = range(row);
        tag.put_message(out, |out| {
            if range.is_empty() {
                return Ok(());
            }
            Tag::new(1, LENGTH).put_message(out, |out| {
                range.for_each(|i| put(i, out));
                Ok(())
            })
        })
    })
}

/// Values whose inner types follow from the children of an Arrow column.
pub(super) fn encode_nested(array: &dyn Array, value_type: ValueType) -> Result<BinaryArray> {
    use ValueType as T;
    let tag = tag_of(value_type);
    match value_type {
        T::Invalid => encode_inferred(array),
        T::Map | T::Struct => {
            let maps = map_bodies(array, value_type)?;
            cells(array, maps.value_data().len(), |row, out| tag.put_bytes(out, maps.value(row)))
        }
        T::MapList | T::StructList => {
            let list = as_list(array, value_type)?;
            let maps = map_bodies(list.values(), value_type)?;
            list_of_messages(&list, tag, &maps)
        }
        T::ValueList | T::ValueSet => {
            let list = as_list(array, value_type)?;
            list_of_messages(&list, tag, &encode_inferred(list.values())?)
        }
        T::ScalarMap => {
            let DataType::Map(..) = array.data_type() else { return Err(wrong_column(array.data_type(), value_type)) };
            let map = array.as_map();
            let keys = map_keys(map.keys())?;
            let values = encode_inferred(map.values())?;
            try_cells(array, values.value_data().len(), |row, out| {
                tag.put_message(out, |out| {
                    let offsets = map.value_offsets();
                    for entry in offsets[row] as usize..offsets[row + 1] as usize {
                        Tag::new(1, LENGTH).put_message(out, |out| {
                            Tag::new(1, LENGTH).put_bytes(out, keys.value(entry));
                            Tag::new(2, LENGTH).put_bytes(out, values.value(entry));
                            Ok(())
                        })?;
                    }
                    Ok(())
                })
            })
        }
        T::ZonedTimestamp => {
            let DataType::Timestamp(_, zone) = array.data_type() else {
                return Err(wrong_column(array.data_type(), value_type));
            };
            let zone: Arc<str> = zone.clone().unwrap_or_else(|| "UTC".into());
            let micros = arrow::compute::cast(array, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
            let micros = timestamps(&micros)?;
            cells(array, 0, |row, out| put_zoned(out, micros.value(row).div_euclid(1_000_000), &zone))
        }
        _ => Err(wrong_column(array.data_type(), value_type)),
    }
}

pub(super) fn put_zoned(out: &mut Vec<u8>, seconds: i64, zone: &str) {
    let mut body = Vec::with_capacity(zone.len() + 12);
    if seconds != 0 {
        Tag::new(1, VARINT).put_varint(&mut body, seconds as u64);
    }
    if !zone.is_empty() {
        Tag::new(2, LENGTH).put_bytes(&mut body, zone.as_bytes());
    }
    tag_of(ValueType::ZonedTimestamp).put_bytes(out, &body);
}

/// Values inside maps and lists: a struct is a map there.
pub(super) fn encode_inferred(array: &dyn Array) -> Result<BinaryArray> {
    let value_type = match ValueType::from_arrow(array.data_type()) {
        Some(ValueType::Struct) => ValueType::Map,
        Some(ValueType::StructList) => ValueType::MapList,
        Some(value_type) => value_type,
        None => {
            return Err(Error::invalid_request(format!("a value of type {} cannot be stored", array.data_type()))
                .with_hint("use numbers, texts, bytes, booleans, times, and lists, sets or maps of them"));
        }
    };
    encode_column(array, value_type)
}

pub(super) fn as_list(array: &dyn Array, value_type: ValueType) -> Result<ListArray> {
    let item = match array.data_type() {
        DataType::List(_) => return Ok(array.as_list::<i32>().clone()),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Arc::clone(item),
        other => return Err(wrong_column(other, value_type)),
    };
    Ok(arrow::compute::cast(array, &DataType::List(item))?.as_list::<i32>().clone())
}

pub(super) fn list_of_messages(list: &ListArray, tag: Tag, items: &BinaryArray) -> Result<BinaryArray> {
    try_cells(list, items.value_data().len(), |row, out| {
        tag.put_message(out, |out| {
            let offsets = list.value_offsets();
            for item in offsets[row] as usize..offsets[row + 1] as usize {
                Tag::new(1, LENGTH).put_bytes(out, items.value(item));
            }
            Ok(())
        })
    })
}

/// One `Map` message per row of a map or struct column.
pub(super) fn map_bodies(array: &dyn Array, value_type: ValueType) -> Result<BinaryArray> {
    let put_entry = |out: &mut Vec<u8>, key: &str, value: &[u8]| {
        Tag::new(1, LENGTH).put_message(out, |out| {
            Tag::new(1, LENGTH).put_bytes(out, key.as_bytes());
            Tag::new(2, LENGTH).put_bytes(out, value);
            Ok(())
        })
    };
    match array.data_type() {
        DataType::Map(..) => {
            let map = array.as_map();
            let keys = match map.keys().data_type() {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
                    arrow::compute::cast(map.keys(), &DataType::Utf8)?
                }
                other => {
                    return Err(Error::invalid_request(format!("the keys of a {value_type} are texts, found {other}"))
                        .with_hint("declare the feature as SCALAR_MAP"));
                }
            };
            let keys: &StringArray = keys.as_string();
            let values = encode_inferred(map.values())?;
            try_cells(array, values.value_data().len(), |row, out| {
                let offsets = map.value_offsets();
                (offsets[row] as usize..offsets[row + 1] as usize)
                    .try_for_each(|entry| put_entry(out, keys.value(entry), values.value(entry)))
            })
        }
        DataType::Struct(fields) => {
            let children = array.as_struct();
            let values: Vec<BinaryArray> =
                children.columns().iter().map(|child| encode_inferred(child)).collect::<Result<_>>()?;
            try_cells(array, 0, |row, out| {
                fields
                    .iter()
                    .zip(&values)
                    .try_for_each(|(field, values)| put_entry(out, field.name(), values.value(row)))
            })
        }
        other => Err(wrong_column(other, value_type)),
    }
}

/// `MapKey` messages: those of `Value` under another tag.
pub(super) fn map_keys(keys: &dyn Array) -> Result<BinaryArray> {
    let key_type = ValueType::from_arrow(keys.data_type());
    let Some((key_type, field)) = MAP_KEYS.into_iter().find(|(known, _)| Some(*known) == key_type) else {
        return Err(Error::invalid_request(format!("the keys of a SCALAR_MAP cannot be {}", keys.data_type()))
            .with_hint("declare maps with text keys as MAP"));
    };
    let values = encode_column(keys, key_type)?;
    let skip = tag_of(key_type).len;
    cells(keys, values.value_data().len(), |row, out| {
        Tag::new(field, wire_of(key_type)).put_fixed(out, &values.value(row)[skip..]);
    })
}

/// Serializes JSON as a value of an opaque type; inner values get the types that Feast infers for Python's: integers
/// are `INT64`, other numbers `DOUBLE`, objects `MAP`.
///
/// # Errors
/// `InvalidRequest` when the JSON has another shape than the type.
pub fn json_to_value(json: &serde_json::Value, value_type: ValueType) -> Result<Vec<u8>> {
    use ValueType as T;
    use serde_json::Value as Json;
    let wrong = || {
        Error::invalid_request(format!("{} is not a value of type {value_type}", shorten(&json.to_string())))
            .with_hint(format!("give a value that {value_type} can hold"))
    };
    let tag = tag_of(value_type);
    let mut out = Vec::new();
    match (value_type, json) {
        (_, Json::Null) => {}
        (T::Invalid, any) => put_json(&mut out, any)?,
        (T::Map | T::Struct, Json::Object(object)) => tag.put_message(&mut out, |out| put_json_map(out, object))?,
        (T::MapList | T::StructList, Json::Array(items)) => tag.put_message(&mut out, |out| {
            items.iter().try_for_each(|item| {
                let object = item.as_object().ok_or_else(wrong)?;
                Tag::new(1, LENGTH).put_message(out, |out| put_json_map(out, object))
            })
        })?,
        (T::ValueList | T::ValueSet, Json::Array(items)) => tag.put_message(&mut out, |out| {
            items.iter().try_for_each(|item| Tag::new(1, LENGTH).put_message(out, |out| put_json(out, item)))
        })?,
        (T::ZonedTimestamp, Json::String(text)) => {
            let time = DateTime::parse_from_rfc3339(text).map_err(|error| wrong().with_source(error))?;
            let zone =
                if time.offset().local_minus_utc() == 0 { "UTC".to_owned() } else { format!("UTC{}", time.offset()) };
            put_zoned(&mut out, time.timestamp(), &zone);
        }
        _ => return Err(wrong()),
    }
    Ok(out)
}

pub(super) fn put_json_map(out: &mut Vec<u8>, object: &serde_json::Map<String, serde_json::Value>) -> Result<()> {
    object.iter().try_for_each(|(key, value)| {
        Tag::new(1, LENGTH).put_message(out, |out| {
            Tag::new(1, LENGTH).put_bytes(out, key.as_bytes());
            Tag::new(2, LENGTH).put_message(out, |out| put_json(out, value))
        })
    })
}

pub(super) fn put_json(out: &mut Vec<u8>, json: &serde_json::Value) -> Result<()> {
    use ValueType as T;
    use serde_json::Value as Json;
    let inner = Tag::new(1, LENGTH);
    match json {
        Json::Null => {}
        Json::Bool(value) => tag_of(T::Bool).put_varint(out, u64::from(*value)),
        Json::Number(number) => match number.as_i64() {
            Some(value) => tag_of(T::Int64).put_varint(out, value as u64),
            None => tag_of(T::Double).put_fixed(out, &number.as_f64().unwrap_or(f64::NAN).to_le_bytes()),
        },
        Json::String(text) => tag_of(T::String).put_bytes(out, text.as_bytes()),
        Json::Object(object) => tag_of(T::Map).put_message(out, |out| put_json_map(out, object))?,
        Json::Array(items) if !items.is_empty() && items.iter().all(Json::is_object) => {
            out.extend_from_slice(&json_to_value(json, T::MapList)?);
        }
        Json::Array(items) if !items.is_empty() && items.iter().all(Json::is_i64) => {
            tag_of(T::Int64List).put_message(out, |out| {
                inner.put_message(out, |out| {
                    items.iter().for_each(|item| put_varint(out, item.as_i64().unwrap_or_default() as u64));
                    Ok(())
                })
            })?;
        }
        Json::Array(items) if !items.is_empty() && items.iter().all(Json::is_number) => {
            tag_of(T::DoubleList).put_message(out, |out| {
                inner.put_message(out, |out| {
                    let number = |item: &Json| item.as_f64().unwrap_or(f64::NAN).to_le_bytes();
                    items.iter().for_each(|item| out.extend_from_slice(&number(item)));
                    Ok(())
                })
            })?;
        }
        Json::Array(items) if !items.is_empty() && items.iter().all(Json::is_boolean) => {
            tag_of(T::BoolList).put_message(out, |out| {
                inner.put_message(out, |out| {
                    out.extend(items.iter().map(|item| u8::from(item.as_bool().unwrap_or_default())));
                    Ok(())
                })
            })?;
        }
        Json::Array(items) if !items.is_empty() && items.iter().all(Json::is_string) => {
            tag_of(T::StringList).put_message(out, |out| {
                items.iter().for_each(|item| inner.put_bytes(out, item.as_str().unwrap_or_default().as_bytes()));
                Ok(())
            })?;
        }
        Json::Array(_) => out.extend_from_slice(&json_to_value(json, T::ValueList)?),
    }
    Ok(())
}
