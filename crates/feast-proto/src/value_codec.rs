//! Columns as serialized `feast.types.Value` messages and back: the bytes that online stores keep per cell.
//!
//! The wire format is written and read by hand, because this is the hot path of every online read and write: a message
//! struct per cell would allocate for each text and list. A null is the message without a member, zero bytes.
//! Timestamps are whole seconds, rounded towards the past. Sets are lists. Types without an Arrow type of their own
//! ([`ValueType::is_opaque`]) stay serialized messages and are validated when they come in.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder,
    Int64Builder, ListArray, ListBuilder, StringArray, StringBuilder, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit};
use base64::Engine as _;
use chrono::{DateTime, TimeZone, Utc};
use feast_core::{Error, Result, ValueType};

/// What Feast writes for a missing timestamp inside a value.
const MISSING_TIMESTAMP: i64 = i64::MIN;

/// How many messages may be nested in each other, as in the protobuf libraries.
const MOST_NESTED: u32 = 100;

// ---------------------------------------------------------------------------------------------------------- encoding

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
fn normalize(array: &dyn Array, value_type: ValueType) -> Result<ArrayRef> {
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

fn wrong_column(found: &DataType, value_type: ValueType) -> Error {
    Error::invalid_request(format!("a column of type {found} cannot hold values of type {value_type}"))
        .with_hint(format!("convert the column to {}", value_type.arrow_type()))
}

fn timestamps(array: &ArrayRef) -> Result<&TimestampMicrosecondArray> {
    array.as_any().downcast_ref().ok_or_else(|| Error::internal("a timestamp column is not in microseconds"))
}

/// The tag of a field with its length on the wire.
#[derive(Clone, Copy)]
struct Tag {
    bytes: [u8; 2],
    len: usize,
}

impl Tag {
    fn new(field: u32, wire: u32) -> Self {
        let tag = field << 3 | wire;
        if tag < 0x80 {
            Self { bytes: [tag as u8, 0], len: 1 }
        } else {
            Self { bytes: [(tag & 0x7f) as u8 | 0x80, (tag >> 7) as u8], len: 2 }
        }
    }

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.len]);
    }

    fn put_varint(self, out: &mut Vec<u8>, value: u64) {
        self.put(out);
        put_varint(out, value);
    }

    fn put_fixed(self, out: &mut Vec<u8>, value: &[u8]) {
        self.put(out);
        out.extend_from_slice(value);
    }

    fn put_bytes(self, out: &mut Vec<u8>, value: &[u8]) {
        self.put(out);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }

    /// A message whose length is known only after it was written.
    fn put_message(self, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        self.put(out);
        let start = out.len();
        body(out)?;
        let end = out.len();
        put_varint(out, (end - start) as u64);
        out[start..].rotate_left(end - start);
        Ok(())
    }
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

/// How a single value of a type travels; lists, sets and nested values are messages.
fn wire_of(value_type: ValueType) -> u32 {
    use ValueType as T;
    match value_type {
        T::Int32 | T::Int64 | T::Bool | T::UnixTimestamp | T::Null => VARINT,
        T::Double => FIXED64,
        T::Float => FIXED32,
        _ => LENGTH,
    }
}

/// The number of a type is the number of its field in `Value`.
fn tag_of(value_type: ValueType) -> Tag {
    Tag::new(value_type as u32, wire_of(value_type))
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn cells(array: &dyn Array, payload: usize, mut put: impl FnMut(usize, &mut Vec<u8>)) -> Result<BinaryArray> {
    try_cells(array, payload, |row, out| {
        put(row, out);
        Ok(())
    })
}

/// One cell per row; `put` is called for the rows that are not null.
fn try_cells(
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

fn encode_list(list: &ListArray, value_type: ValueType, tag: Tag) -> Result<BinaryArray> {
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

fn packed_cells(
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
fn encode_nested(array: &dyn Array, value_type: ValueType) -> Result<BinaryArray> {
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

fn put_zoned(out: &mut Vec<u8>, seconds: i64, zone: &str) {
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
fn encode_inferred(array: &dyn Array) -> Result<BinaryArray> {
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

fn as_list(array: &dyn Array, value_type: ValueType) -> Result<ListArray> {
    let item = match array.data_type() {
        DataType::List(_) => return Ok(array.as_list::<i32>().clone()),
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Arc::clone(item),
        other => return Err(wrong_column(other, value_type)),
    };
    Ok(arrow::compute::cast(array, &DataType::List(item))?.as_list::<i32>().clone())
}

fn list_of_messages(list: &ListArray, tag: Tag, items: &BinaryArray) -> Result<BinaryArray> {
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
fn map_bodies(array: &dyn Array, value_type: ValueType) -> Result<BinaryArray> {
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

/// Members of `Value` and of `MapKey` that mean the same.
const MAP_KEYS: [(ValueType, u32); 10] = [
    (ValueType::Int32, 1),
    (ValueType::Int64, 2),
    (ValueType::Float, 3),
    (ValueType::Double, 4),
    (ValueType::Bool, 5),
    (ValueType::UnixTimestamp, 6),
    (ValueType::Bytes, 7),
    (ValueType::Uuid, 8),
    (ValueType::TimeUuid, 9),
    (ValueType::Decimal, 10),
];

/// `MapKey` messages: those of `Value` under another tag.
fn map_keys(keys: &dyn Array) -> Result<BinaryArray> {
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

fn put_json_map(out: &mut Vec<u8>, object: &serde_json::Map<String, serde_json::Value>) -> Result<()> {
    object.iter().try_for_each(|(key, value)| {
        Tag::new(1, LENGTH).put_message(out, |out| {
            Tag::new(1, LENGTH).put_bytes(out, key.as_bytes());
            Tag::new(2, LENGTH).put_message(out, |out| put_json(out, value))
        })
    })
}

fn put_json(out: &mut Vec<u8>, json: &serde_json::Value) -> Result<()> {
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

// ---------------------------------------------------------------------------------------------------------- decoding

/// The payload of one field.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Length(&'a [u8]),
}

/// Reads the fields of one message.
struct Reader<'a>(&'a [u8]);

fn malformed(what: &'static str) -> Error {
    Error::invalid_request("the bytes of a value are malformed")
        .with_context("found", what)
        .with_hint("materialize the feature view again, which replaces what the online store holds")
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for (position, byte) in self.0.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if position == 9 && bits > 1 {
                return Err(malformed("a number of more than 64 bits"));
            }
            value |= bits << (7 * position);
            if byte & 0x80 == 0 {
                self.0 = &self.0[position + 1..];
                return Ok(value);
            }
        }
        Err(malformed("an unfinished number"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("a field that ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| malformed("a field that ends too early"))
    }

    fn raw(&mut self, wire: u32) -> Result<Raw<'a>> {
        Ok(match wire {
            VARINT => Raw::Varint(self.varint()?),
            FIXED64 => Raw::Fixed64(self.array()?),
            FIXED32 => Raw::Fixed32(self.array()?),
            LENGTH => {
                let length = usize::try_from(self.varint()?).map_err(|_| malformed("a length that is too large"))?;
                Raw::Length(self.take(length)?)
            }
            _ => return Err(malformed("an unknown wire type")),
        })
    }

    /// Number and payload of the next field; `None` at the end.
    fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(self.varint()?).map_err(|_| malformed("a field number that is too large"))?;
        if tag >> 3 == 0 {
            return Err(malformed("field number 0"));
        }
        Ok(Some((tag >> 3, self.raw(tag & 7)?)))
    }
}

/// The member of a `Value` that is set; of several the last. Fields that this version does not know are skipped.
fn read_value(bytes: &[u8]) -> Result<Option<(ValueType, Raw<'_>)>> {
    let mut reader = Reader(bytes);
    let mut found = None;
    while let Some((field, raw)) = reader.field()? {
        let known = i32::try_from(field).ok().and_then(ValueType::from_number);
        if let Some(value_type) = known {
            let fits = matches!(
                (wire_of(value_type), raw),
                (VARINT, Raw::Varint(_))
                    | (FIXED64, Raw::Fixed64(_))
                    | (FIXED32, Raw::Fixed32(_))
                    | (LENGTH, Raw::Length(_))
            );
            if !fits {
                return Err(malformed("a member with the wire type of another"));
            }
            found = Some((value_type, raw));
        }
    }
    Ok(found.filter(|(value_type, _)| *value_type != ValueType::Null))
}

/// Calls `each` for every element of a list message, packed or not.
fn read_items<'a>(body: &'a [u8], item: ValueType, mut each: impl FnMut(Raw<'a>) -> Result<()>) -> Result<()> {
    let mut reader = Reader(body);
    let wire = wire_of(item);
    while let Some((field, raw)) = reader.field()? {
        match (field, raw) {
            (1, Raw::Length(packed)) if wire != LENGTH => {
                let mut packed = Reader(packed);
                while !packed.0.is_empty() {
                    each(packed.raw(wire)?)?;
                }
            }
            (1, Raw::Varint(_)) if wire == VARINT => each(raw)?,
            (1, Raw::Fixed64(_)) if wire == FIXED64 => each(raw)?,
            (1, Raw::Fixed32(_)) if wire == FIXED32 => each(raw)?,
            (1, Raw::Length(_)) => each(raw)?,
            (1, _) => return Err(malformed("a list element with the wire type of another type")),
            _ => {}
        }
    }
    Ok(())
}

fn mismatch(stored: ValueType, wanted: ValueType) -> Error {
    Error::invalid_request(format!("a value of type {stored} was found where {wanted} is declared"))
        .with_hint("materialize the view again after changing the type of a feature")
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| malformed("a text that is not UTF-8"))
}

/// Integers of any width, and timestamps as their seconds.
fn integer(stored: ValueType, raw: Raw<'_>) -> Option<i64> {
    match (stored, raw) {
        (ValueType::Int32, Raw::Varint(value)) => Some(i64::from(value as i32)),
        (ValueType::Int64 | ValueType::UnixTimestamp, Raw::Varint(value)) => Some(value as i64),
        _ => None,
    }
}

fn number(stored: ValueType, raw: Raw<'_>) -> Option<f64> {
    match (stored, raw) {
        (ValueType::Double, Raw::Fixed64(bytes)) => Some(f64::from_le_bytes(bytes)),
        (ValueType::Float, Raw::Fixed32(bytes)) => Some(f64::from(f32::from_le_bytes(bytes))),
        (ValueType::Int32 | ValueType::Int64, raw) => integer(stored, raw).map(|value| value as f64),
        _ => None,
    }
}

fn boolean(stored: ValueType, raw: Raw<'_>) -> Option<bool> {
    match (stored, raw) {
        (ValueType::Bool, Raw::Varint(value)) => Some(value != 0),
        _ => None,
    }
}

fn text<'a>(stored: ValueType, raw: Raw<'a>) -> Result<Option<&'a str>> {
    use ValueType as T;
    match (stored, raw) {
        (T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal, Raw::Length(bytes)) => utf8(bytes).map(Some),
        _ => Ok(None),
    }
}

/// Microseconds; `None` for Feast's missing timestamp.
fn micros(seconds: i64) -> Result<Option<i64>> {
    if seconds == MISSING_TIMESTAMP {
        return Ok(None);
    }
    seconds.checked_mul(1_000_000).map(Some).ok_or_else(|| malformed("a timestamp that is out of range"))
}

/// Turns `Value` messages of one feature into a column of its declared type.
///
/// Rows are pushed in order. After an error the decoder is of no use any more.
#[derive(Debug)]
pub struct ColumnDecoder {
    value_type: ValueType,
    column: Column,
}

#[derive(Debug)]
enum Column {
    Bytes(BinaryBuilder),
    Text(StringBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Double(Float64Builder),
    Float(Float32Builder),
    Bool(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    BytesList(ListBuilder<BinaryBuilder>),
    TextList(ListBuilder<StringBuilder>),
    Int32List(ListBuilder<Int32Builder>),
    Int64List(ListBuilder<Int64Builder>),
    DoubleList(ListBuilder<Float64Builder>),
    FloatList(ListBuilder<Float32Builder>),
    BoolList(ListBuilder<BooleanBuilder>),
    TimestampList(ListBuilder<TimestampMicrosecondBuilder>),
    Opaque(BinaryBuilder),
}

/// The same for every kind of column.
macro_rules! for_column {
    ($column:expr, $builder:ident => $do:expr) => {
        match $column {
            Column::Bytes($builder) => $do,
            Column::Text($builder) => $do,
            Column::Int32($builder) => $do,
            Column::Int64($builder) => $do,
            Column::Double($builder) => $do,
            Column::Float($builder) => $do,
            Column::Bool($builder) => $do,
            Column::Timestamp($builder) => $do,
            Column::BytesList($builder) => $do,
            Column::TextList($builder) => $do,
            Column::Int32List($builder) => $do,
            Column::Int64List($builder) => $do,
            Column::DoubleList($builder) => $do,
            Column::FloatList($builder) => $do,
            Column::BoolList($builder) => $do,
            Column::TimestampList($builder) => $do,
            Column::Opaque($builder) => $do,
        }
    };
}

impl ColumnDecoder {
    /// A decoder for values declared as `value_type`, with room for `capacity` rows.
    pub fn new(value_type: ValueType, capacity: usize) -> Self {
        use ValueType as T;
        let micros = |capacity| TimestampMicrosecondBuilder::with_capacity(capacity).with_timezone("UTC");
        let column = match value_type {
            T::Bytes => Column::Bytes(BinaryBuilder::with_capacity(capacity, 0)),
            T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal => {
                Column::Text(StringBuilder::with_capacity(capacity, 0))
            }
            T::Int32 => Column::Int32(Int32Builder::with_capacity(capacity)),
            T::Int64 => Column::Int64(Int64Builder::with_capacity(capacity)),
            T::Double => Column::Double(Float64Builder::with_capacity(capacity)),
            T::Float => Column::Float(Float32Builder::with_capacity(capacity)),
            T::Bool => Column::Bool(BooleanBuilder::with_capacity(capacity)),
            T::UnixTimestamp => Column::Timestamp(micros(capacity)),
            _ => match value_type.item() {
                None => Column::Opaque(BinaryBuilder::with_capacity(capacity, 0)),
                Some(T::Bytes) => Column::BytesList(ListBuilder::with_capacity(BinaryBuilder::new(), capacity)),
                Some(T::Int32) => Column::Int32List(ListBuilder::with_capacity(Int32Builder::new(), capacity)),
                Some(T::Int64) => Column::Int64List(ListBuilder::with_capacity(Int64Builder::new(), capacity)),
                Some(T::Double) => Column::DoubleList(ListBuilder::with_capacity(Float64Builder::new(), capacity)),
                Some(T::Float) => Column::FloatList(ListBuilder::with_capacity(Float32Builder::new(), capacity)),
                Some(T::Bool) => Column::BoolList(ListBuilder::with_capacity(BooleanBuilder::new(), capacity)),
                Some(T::UnixTimestamp) => Column::TimestampList(ListBuilder::with_capacity(micros(0), capacity)),
                Some(_) => Column::TextList(ListBuilder::with_capacity(StringBuilder::new(), capacity)),
            },
        };
        Self { value_type, column }
    }

    /// Adds a row without a value.
    pub fn push_null(&mut self) {
        for_column!(&mut self.column, builder => builder.append_null());
    }

    /// Adds a row from a serialized `Value`; zero bytes are null.
    ///
    /// A value of another type is converted where that keeps its meaning: between widths of numbers (an integer must
    /// fit), from integers to floating point numbers, between types kept as text, between lists and sets.
    ///
    /// # Errors
    /// `InvalidRequest` when the bytes are malformed or of a type that does not convert.
    pub fn push(&mut self, cell: &[u8]) -> Result<()> {
        let Some((stored, raw)) = read_value(cell)? else {
            self.push_null();
            return Ok(());
        };
        let wanted = self.value_type;
        let mismatch = || mismatch(stored, wanted);
        // The body and the element type of a stored list.
        let list = || match (stored.item(), raw) {
            (Some(item), Raw::Length(body)) => Ok((item, body)),
            _ => Err(mismatch()),
        };
        match &mut self.column {
            Column::Opaque(builder) => {
                check_opaque(cell, wanted)?;
                builder.append_value(cell);
            }
            Column::Bytes(builder) => match (stored, raw) {
                (ValueType::Bytes, Raw::Length(bytes)) => builder.append_value(bytes),
                _ => return Err(mismatch()),
            },
            Column::Text(builder) => builder.append_value(text(stored, raw)?.ok_or_else(mismatch)?),
            Column::Int32(builder) => {
                let value = integer(stored, raw).ok_or_else(mismatch)?;
                builder.append_value(i32::try_from(value).map_err(|_| mismatch().with_context("value", value))?);
            }
            Column::Int64(builder) => builder.append_value(integer(stored, raw).ok_or_else(mismatch)?),
            Column::Double(builder) => builder.append_value(number(stored, raw).ok_or_else(mismatch)?),
            Column::Float(builder) => builder.append_value(number(stored, raw).ok_or_else(mismatch)? as f32),
            Column::Bool(builder) => builder.append_value(boolean(stored, raw).ok_or_else(mismatch)?),
            Column::Timestamp(builder) => {
                builder.append_option(micros(integer(stored, raw).ok_or_else(mismatch)?)?);
            }
            Column::BytesList(builder) => {
                let (item, body) = list()?;
                read_items(body, item, |raw| match (item, raw) {
                    (ValueType::Bytes, Raw::Length(bytes)) => {
                        builder.values().append_value(bytes);
                        Ok(())
                    }
                    _ => Err(mismatch()),
                })?;
                // An empty list of another type has no element to complain about.
                if item != ValueType::Bytes {
                    return Err(mismatch());
                }
                builder.append(true);
            }
            Column::TextList(builder) => {
                let (item, body) = list()?;
                if wire_of(item) != LENGTH || item == ValueType::Bytes {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    builder.values().append_value(text(item, raw)?.ok_or_else(mismatch)?);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::Int32List(builder) => {
                let (item, body) = list()?;
                if !matches!(item, ValueType::Int32 | ValueType::Int64 | ValueType::UnixTimestamp) {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    let value = integer(item, raw).ok_or_else(mismatch)?;
                    let value = i32::try_from(value).map_err(|_| mismatch().with_context("value", value))?;
                    builder.values().append_value(value);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::Int64List(builder) => {
                let (item, body) = list()?;
                if !matches!(item, ValueType::Int32 | ValueType::Int64 | ValueType::UnixTimestamp) {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    builder.values().append_value(integer(item, raw).ok_or_else(mismatch)?);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::DoubleList(builder) => {
                let (item, body) = numbers(list()?, mismatch)?;
                read_items(body, item, |raw| {
                    builder.values().append_value(number(item, raw).ok_or_else(mismatch)?);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::FloatList(builder) => {
                let (item, body) = numbers(list()?, mismatch)?;
                read_items(body, item, |raw| {
                    builder.values().append_value(number(item, raw).ok_or_else(mismatch)? as f32);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::BoolList(builder) => {
                let (item, body) = list()?;
                if item != ValueType::Bool {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    builder.values().append_value(boolean(item, raw).ok_or_else(mismatch)?);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::TimestampList(builder) => {
                let (item, body) = list()?;
                if !matches!(item, ValueType::Int32 | ValueType::Int64 | ValueType::UnixTimestamp) {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    builder.values().append_option(micros(integer(item, raw).ok_or_else(mismatch)?)?);
                    Ok(())
                })?;
                builder.append(true);
            }
        }
        Ok(())
    }

    /// The column, of the Arrow type of the declared value type.
    pub fn finish(mut self) -> ArrayRef {
        for_column!(&mut self.column, builder => Arc::new(builder.finish()))
    }
}

fn numbers(list: (ValueType, &[u8]), mismatch: impl Fn() -> Error) -> Result<(ValueType, &[u8])> {
    use ValueType as T;
    match list.0 {
        T::Int32 | T::Int64 | T::Float | T::Double => Ok(list),
        _ => Err(mismatch()),
    }
}

/// Validates a whole message and that its type can stand for the declared one.
fn check_opaque(cell: &[u8], wanted: ValueType) -> Result<()> {
    use ValueType as T;
    let Some((stored, raw)) = read_value(cell)? else { return Ok(()) };
    let fits = stored == wanted
        || matches!(
            (stored, wanted),
            (_, T::Invalid)
                | (T::Map | T::Struct, T::Map | T::Struct)
                | (T::MapList | T::StructList, T::MapList | T::StructList)
                | (T::ValueList | T::ValueSet, T::ValueList | T::ValueSet)
        )
        // A list of plain lists may have been written where nested lists are declared.
        || (matches!(wanted, T::ValueList | T::ValueSet) && stored.item().is_some());
    if !fits {
        return Err(mismatch(stored, wanted));
    }
    parse(stored, raw, 1).map(drop)
}

// ------------------------------------------------------------------------------------------------------ nested values

/// A value with everything inside it, borrowing texts and bytes.
enum Parsed<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(&'a [u8]),
    Text(&'a str),
    List(Vec<Parsed<'a>>),
    Map(Vec<(&'a str, Parsed<'a>)>),
    ScalarMap,
    Zoned(i64, &'a str),
}

fn parse_value(bytes: &[u8], depth: u32) -> Result<Parsed<'_>> {
    match read_value(bytes)? {
        Some((stored, raw)) => parse(stored, raw, depth),
        None => Ok(Parsed::Null),
    }
}

fn parse<'a>(stored: ValueType, raw: Raw<'a>, depth: u32) -> Result<Parsed<'a>> {
    use ValueType as T;
    if depth > MOST_NESTED {
        return Err(malformed("values nested too deeply"));
    }
    if let Some(item) = stored.item() {
        let Raw::Length(body) = raw else { return Err(malformed("a list that is not a message")) };
        let mut items = Vec::new();
        read_items(body, item, |raw| {
            items.push(parse(item, raw, depth + 1)?);
            Ok(())
        })?;
        return Ok(Parsed::List(items));
    }
    Ok(match (stored, raw) {
        (T::Bytes, Raw::Length(bytes)) => Parsed::Bytes(bytes),
        (T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal, Raw::Length(bytes)) => Parsed::Text(utf8(bytes)?),
        (T::UnixTimestamp, Raw::Varint(value)) if value as i64 == MISSING_TIMESTAMP => Parsed::Null,
        (T::Int32 | T::Int64 | T::UnixTimestamp, raw) => integer(stored, raw).map_or(Parsed::Null, Parsed::Int),
        (T::Double | T::Float, raw) => number(stored, raw).map_or(Parsed::Null, Parsed::Float),
        (T::Bool, Raw::Varint(value)) => Parsed::Bool(value != 0),
        (T::Map | T::Struct, Raw::Length(body)) => parse_map(body, depth + 1)?,
        (T::MapList | T::StructList, Raw::Length(body)) => {
            let mut items = Vec::new();
            each_message(body, |item| {
                items.push(parse_map(item, depth + 2)?);
                Ok(())
            })?;
            Parsed::List(items)
        }
        (T::ValueList | T::ValueSet, Raw::Length(body)) => {
            let mut items = Vec::new();
            each_message(body, |item| {
                items.push(parse_value(item, depth + 2)?);
                Ok(())
            })?;
            Parsed::List(items)
        }
        (T::ScalarMap, Raw::Length(body)) => {
            each_message(body, |entry| {
                let mut reader = Reader(entry);
                while let Some((field, raw)) = reader.field()? {
                    match (field, raw) {
                        (1, Raw::Length(key)) => check_map_key(key)?,
                        (2, Raw::Length(value)) => drop(parse_value(value, depth + 3)?),
                        (1 | 2, _) => return Err(malformed("a map entry that is not a message")),
                        _ => {}
                    }
                }
                Ok(())
            })?;
            Parsed::ScalarMap
        }
        (T::ZonedTimestamp, Raw::Length(body)) => {
            let (mut seconds, mut zone) = (0, "");
            let mut reader = Reader(body);
            while let Some((field, raw)) = reader.field()? {
                match (field, raw) {
                    (1, Raw::Varint(value)) => seconds = value as i64,
                    (2, Raw::Length(text)) => zone = utf8(text)?,
                    (1 | 2, _) => return Err(malformed("a zoned timestamp with another wire type")),
                    _ => {}
                }
            }
            Parsed::Zoned(seconds, zone)
        }
        _ => return Err(malformed("a member with the wire type of another")),
    })
}

/// Calls `each` for every message in the repeated field 1.
fn each_message<'a>(body: &'a [u8], mut each: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
    let mut reader = Reader(body);
    while let Some((field, raw)) = reader.field()? {
        match (field, raw) {
            (1, Raw::Length(message)) => each(message)?,
            (1, _) => return Err(malformed("a list element that is not a message")),
            _ => {}
        }
    }
    Ok(())
}

fn parse_map(body: &[u8], depth: u32) -> Result<Parsed<'_>> {
    if depth > MOST_NESTED {
        return Err(malformed("values nested too deeply"));
    }
    let mut entries: Vec<(&str, Parsed<'_>)> = Vec::new();
    each_message(body, |entry| {
        let (mut key, mut value) = ("", Parsed::Null);
        let mut reader = Reader(entry);
        while let Some((field, raw)) = reader.field()? {
            match (field, raw) {
                (1, Raw::Length(text)) => key = utf8(text)?,
                (2, Raw::Length(bytes)) => value = parse_value(bytes, depth + 2)?,
                (1 | 2, _) => return Err(malformed("a map entry with another wire type")),
                _ => {}
            }
        }
        entries.push((key, value));
        Ok(())
    })?;
    Ok(Parsed::Map(entries))
}

fn check_map_key(key: &[u8]) -> Result<()> {
    let mut reader = Reader(key);
    while let Some((field, raw)) = reader.field()? {
        let Some((key_type, _)) = MAP_KEYS.into_iter().find(|(_, known)| *known == field) else { continue };
        match (wire_of(key_type), raw) {
            (VARINT, Raw::Varint(_)) | (FIXED32, Raw::Fixed32(_)) | (FIXED64, Raw::Fixed64(_)) => {}
            (LENGTH, Raw::Length(bytes)) if key_type != ValueType::Bytes => drop(utf8(bytes)?),
            (LENGTH, Raw::Length(_)) => {}
            _ => return Err(malformed("a map key with another wire type")),
        }
    }
    Ok(())
}

/// A serialized `Value` as JSON, as Feast's HTTP server answers it: maps and structs are objects, bytes base64,
/// timestamps seconds, zoned timestamps ISO 8601 in their zone, NaN and infinities texts, scalar maps null.
///
/// # Errors
/// `InvalidRequest` when the bytes are malformed.
pub fn value_to_json(cell: &[u8]) -> Result<serde_json::Value> {
    parse_value(cell, 1).map(to_json)
}

fn to_json(value: Parsed<'_>) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Parsed::Null | Parsed::ScalarMap => Json::Null,
        Parsed::Bool(value) => Json::Bool(value),
        Parsed::Int(value) => value.into(),
        Parsed::Float(value) => float_to_json(value),
        Parsed::Bytes(value) => base64::engine::general_purpose::STANDARD.encode(value).into(),
        Parsed::Text(value) => value.into(),
        Parsed::List(items) => items.into_iter().map(to_json).collect(),
        Parsed::Map(entries) => entries.into_iter().map(|(key, value)| (key.to_owned(), to_json(value))).collect(),
        Parsed::Zoned(MISSING_TIMESTAMP, _) => Json::Null,
        Parsed::Zoned(seconds, zone) => {
            DateTime::from_timestamp(seconds, 0).map_or(Json::Null, |time| zoned_text(time, zone).into())
        }
    }
}

/// A floating point number as protobuf's JSON has it: texts for what JSON has no number for.
pub fn float_to_json(value: f64) -> serde_json::Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// ISO 8601 in the zone, which is a name, an offset, or an offset behind `UTC`; anything else is UTC.
fn zoned_text(time: DateTime<Utc>, zone: &str) -> String {
    let offset = zone.strip_prefix("UTC").or_else(|| zone.strip_prefix("GMT")).unwrap_or(zone);
    match offset.parse::<Tz>().or_else(|_| zone.parse::<Tz>()) {
        Ok(zone) => zone.from_utc_datetime(&time.naive_utc()).format("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        Err(_) => time.format("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Float32Array, Int32Array, Int64Array, MapBuilder, StructArray};
    use arrow::datatypes::Field as ArrowField;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The column of a `Value` per row.
    fn decode_column(cells: &BinaryArray, value_type: ValueType) -> Result<ArrayRef> {
        let mut decoder = ColumnDecoder::new(value_type, cells.len());
        for row in 0..cells.len() {
            if cells.is_null(row) {
                decoder.push_null();
            } else {
                decoder.push(cells.value(row)).map_err(|error| error.with_context("row", row))?;
            }
        }
        Ok(decoder.finish())
    }

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(cell: &[u8], value_type: ValueType) -> Result<ArrayRef> {
        decode_column(&BinaryArray::from(vec![cell]), value_type)
    }

    /// Feast's bytes decode to a column that encodes to the same bytes, and their JSON is that of its server.
    #[test]
    fn values_are_feasts_bytes() {
        let mut seen = std::collections::HashSet::new();
        for line in include_str!("../../../tests/formats/values/values.tsv").lines() {
            let [name, bytes, json] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let value_type: ValueType = name.parse().unwrap();
            let column = decode(&unhex(bytes), value_type).unwrap();
            assert_eq!(column.data_type(), &value_type.arrow_type());
            assert_eq!(hex(encode_column(&column, value_type).unwrap().value(0)), bytes, "{line}");
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(value_to_json(&unhex(bytes)).unwrap(), json, "{line}");
            seen.insert(value_type);
        }
        let without_values = [ValueType::Invalid, ValueType::Null];
        assert_eq!(seen.len() + without_values.len(), ValueType::ALL.len());
    }

    #[test]
    fn nulls_are_zero_bytes() {
        let cells = encode_column(&Int64Array::from(vec![Some(7), None]), ValueType::Int64).unwrap();
        assert_eq!((cells.value(0), cells.value(1), cells.null_count()), (&[0x20, 7][..], &[][..], 0));
        assert_eq!(decode_column(&cells, ValueType::Int64).unwrap().null_count(), 1);
        assert!(decode(&unhex("980100"), ValueType::Int64).unwrap().is_null(0), "the explicit null");
    }

    #[test]
    fn arrow_maps_and_structs_become_maps() {
        let structs = StructArray::from(vec![(
            Arc::new(ArrowField::new("a", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![1])) as ArrayRef,
        )]);
        let as_type = |value_type| hex(encode_column(&structs, value_type).unwrap().value(0));
        assert_eq!(as_type(ValueType::Struct), "9202090a070a016112022001");
        assert_eq!(as_type(ValueType::Map), "a201090a070a016112022001");

        let mut builder = MapBuilder::new(None, StringBuilder::new(), ListBuilder::new(Int64Builder::new()));
        builder.keys().append_value("l");
        builder.values().append_value([Some(1), Some(2)]);
        builder.append(true).unwrap();
        let cells = encode_column(&builder.finish(), ValueType::Map).unwrap();
        assert_eq!(hex(cells.value(0)), "a2010d0a0b0a016c120672040a020102");

        let item = Arc::new(ArrowField::new("item", DataType::Struct(structs.fields().clone()), true));
        let twice = arrow::compute::concat(&[&structs, &structs]).unwrap();
        let list = ListArray::new(item, OffsetBuffer::from_lengths([2]), twice, None);
        let cells = encode_column(&list, ValueType::StructList).unwrap();
        assert_eq!(value_to_json(cells.value(0)).unwrap(), json!([{"a": 1}, {"a": 1}]));
    }

    #[test]
    fn arrow_maps_with_other_keys_and_nested_lists() {
        let mut builder = MapBuilder::new(None, Int64Builder::new(), StringBuilder::new());
        builder.keys().append_value(1);
        builder.values().append_value("a");
        builder.append(true).unwrap();
        let map = builder.finish();
        let cells = encode_column(&map, ValueType::ScalarMap).unwrap();
        assert_eq!(hex(cells.value(0)), "fa020b0a090a0210011203120161");
        assert!(encode_column(&map, ValueType::Map).is_err());

        let mut builder = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
        builder.values().append_value([Some(1), Some(2)]);
        builder.values().append_value([Some(3)]);
        builder.append(true);
        let cells = encode_column(&builder.finish(), ValueType::ValueList).unwrap();
        assert_eq!(hex(cells.value(0)), "d2020f0a0672040a0201020a0572030a0103");
    }

    #[test]
    fn zoned_timestamps_keep_their_zone() {
        let paris = TimestampMicrosecondArray::from(vec![1_795_176_000_000_000]).with_timezone("Europe/Paris");
        let cells = encode_column(&paris, ValueType::ZonedTimestamp).unwrap();
        assert_eq!(hex(cells.value(0)), "82031408c0ec80d806120c4575726f70652f5061726973");
    }

    #[test]
    fn json_becomes_the_value_feast_makes_of_it() {
        let cases = [
            (ValueType::Map, json!({"a": 1}), "a201090a070a016112022001"),
            (ValueType::Map, json!({"n": {"x": "y"}}), "a201140a120a016e120da2010a0a080a01781203120179"),
            (
                ValueType::Map,
                json!({"d": [{"k": 0.5}]}),
                "a2011c0a1a0a01641215aa01120a100a0e0a016b120929000000000000e03f",
            ),
            (ValueType::Map, json!({"z": null}), "a201070a050a017a1200"),
            (ValueType::StructList, json!([{"a": 1}, {"a": 2}]), "9a02160a090a070a0161120220010a090a070a016112022002"),
            (ValueType::ValueList, json!([[1, 2], [3]]), "d2020f0a0672040a0201020a0572030a0103"),
            (ValueType::ZonedTimestamp, json!("2026-11-20T17:30:00+05:30"), "82031108c0ec80d80612095554432b30353a3330"),
        ];
        for (value_type, json, bytes) in cases {
            assert_eq!(hex(&json_to_value(&json, value_type).unwrap()), bytes, "{json}");
        }
        let error = json_to_value(&json!([1]), ValueType::Map).unwrap_err();
        assert_eq!(error.to_string(), "[1] is not a value of type MAP");
    }

    #[test]
    fn related_types_convert_and_others_do_not() {
        let int32 = encode_column(&Int32Array::from(vec![-5]), ValueType::Int32).unwrap();
        let as_int64 = decode(int32.value(0), ValueType::Int64).unwrap();
        assert_eq!(as_int64.as_primitive::<Int64Type>().value(0), -5);
        let as_double = decode(int32.value(0), ValueType::Double).unwrap();
        assert_eq!(as_double.as_primitive::<Float64Type>().value(0), -5.0);
        let float = encode_column(&Float32Array::from(vec![0.5]), ValueType::Float).unwrap();
        let as_double = decode(float.value(0), ValueType::Double).unwrap();
        assert_eq!(as_double.as_primitive::<Float64Type>().value(0), 0.5);
        let error = decode(float.value(0), ValueType::String).unwrap_err();
        assert_eq!(error.message(), "a value of type FLOAT was found where STRING is declared");
        assert!(decode(&unhex("20ffffffffffffffff7f"), ValueType::Int32).is_err(), "does not fit");
        let set = decode(&unhex("ca01040a02ac02"), ValueType::Int64List).unwrap();
        assert_eq!(set.as_list::<i32>().value(0).as_primitive::<Int64Type>().value(0), 300);
        assert!(decode(&unhex("72050a0301ac02"), ValueType::Int32List).is_ok());
    }

    #[test]
    fn hostile_bytes_are_errors() {
        // A text that is not UTF-8, a length beyond the end, an unfinished number, a wire type of another member.
        for bytes in ["1201ff", "12ffffffff0f61", "20ff", "2101", "6205", "620301ff", "00"] {
            assert!(decode(&unhex(bytes), ValueType::String).is_err(), "{bytes}");
            assert!(value_to_json(&unhex(bytes)).is_err(), "{bytes}");
        }
        let mut deep = Vec::new();
        for _ in 0..200 {
            let inner = deep;
            deep = Vec::new();
            let list = |out: &mut Vec<u8>| {
                Tag::new(1, LENGTH).put_bytes(out, &inner);
                Ok(())
            };
            tag_of(ValueType::ValueList).put_message(&mut deep, list).unwrap();
        }
        assert!(decode(&deep, ValueType::ValueList).is_err());
    }

    #[test]
    fn nulls_in_lists() {
        let list = |items: ArrayRef| {
            let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
            ListArray::new(field, OffsetBuffer::from_lengths([items.len()]), items, None)
        };
        let floats = list(Arc::new(Float32Array::from(vec![Some(1.0), None])));
        assert!(encode_column(&floats, ValueType::FloatList).is_ok());
        let ints = list(Arc::new(Int64Array::from(vec![Some(1), None])));
        assert_eq!(encode_column(&ints, ValueType::Int64List).unwrap_err().message(), "the list in row 0 holds a null");
        let times = TimestampMicrosecondArray::from(vec![Some(5_000_000), None]).with_timezone("UTC");
        let cells = encode_column(&list(Arc::new(times)), ValueType::UnixTimestampList).unwrap();
        let back = decode_column(&cells, ValueType::UnixTimestampList).unwrap();
        assert!(back.as_list::<i32>().value(0).is_null(1));
        let empty = ArrowField::new("item", DataType::Null, true);
        let none = arrow::array::new_empty_array(&DataType::Null);
        let empty = ListArray::new(Arc::new(empty), OffsetBuffer::from_lengths([0]), none, None);
        assert_eq!(encode_column(&empty, ValueType::Int64List).unwrap().value(0), [0x72, 0]);
        let wrong = encode_column(&StructArray::new_empty_fields(1, None), ValueType::Int64).unwrap_err();
        assert!(wrong.message().contains("cannot hold values of type INT64"), "{wrong}");
    }

    fn column(value_type: ValueType) -> BoxedStrategy<ArrayRef> {
        use ValueType as T;
        let rows = 0..6usize;
        let seconds = -1_000_000_000i64..1_000_000_000;
        match value_type {
            T::Bytes => prop::collection::vec(any::<Option<Vec<u8>>>(), rows)
                .prop_map(|rows| Arc::new(rows.iter().map(Option::as_deref).collect::<BinaryArray>()) as ArrayRef)
                .boxed(),
            T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal => {
                prop::collection::vec(any::<Option<String>>(), rows)
                    .prop_map(|rows| Arc::new(StringArray::from(rows)) as ArrayRef)
                    .boxed()
            }
            T::Int32 => prop::collection::vec(any::<Option<i32>>(), rows)
                .prop_map(|rows| Arc::new(Int32Array::from(rows)) as ArrayRef)
                .boxed(),
            T::Int64 => prop::collection::vec(any::<Option<i64>>(), rows)
                .prop_map(|rows| Arc::new(Int64Array::from(rows)) as ArrayRef)
                .boxed(),
            T::Double => prop::collection::vec(any::<Option<f64>>(), rows)
                .prop_map(|rows| Arc::new(arrow::array::Float64Array::from(rows)) as ArrayRef)
                .boxed(),
            T::Float => prop::collection::vec(any::<Option<f32>>(), rows)
                .prop_map(|rows| Arc::new(Float32Array::from(rows)) as ArrayRef)
                .boxed(),
            T::Bool => prop::collection::vec(any::<Option<bool>>(), rows)
                .prop_map(|rows| Arc::new(arrow::array::BooleanArray::from(rows)) as ArrayRef)
                .boxed(),
            T::UnixTimestamp => prop::collection::vec(prop::option::of(seconds), rows)
                .prop_map(|rows| {
                    let micros = rows.into_iter().map(|row| row.map(|seconds| seconds * 1_000_000));
                    let micros: TimestampMicrosecondArray = micros.collect();
                    Arc::new(micros.with_timezone("UTC")) as ArrayRef
                })
                .boxed(),
            _ => match value_type.item() {
                Some(item) => (column(item), prop::collection::vec((0..4usize, any::<bool>()), rows))
                    .prop_map(|(items, rows)| {
                        // Lists hold no nulls: keep the items that are there, then deal them out.
                        let kept: Vec<u32> = (0..items.len() as u32).filter(|i| items.is_valid(*i as usize)).collect();
                        let items = arrow::compute::take(&items, &arrow::array::UInt32Array::from(kept), None).unwrap();
                        let mut left = items.len();
                        let lengths: Vec<usize> = rows
                            .iter()
                            .map(|(length, valid)| {
                                let length = if *valid { (*length).min(left) } else { 0 };
                                left -= length;
                                length
                            })
                            .collect();
                        let items = items.slice(0, items.len() - left);
                        let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
                        let valid: Vec<bool> = rows.into_iter().map(|(_, valid)| valid).collect();
                        let nulls = Some(arrow::buffer::NullBuffer::from(valid));
                        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), items, nulls)) as ArrayRef
                    })
                    .boxed(),
                None => unreachable!("opaque types are in the table of Feast's bytes"),
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn columns_survive(
            (value_type, column) in prop::sample::select(ValueType::ALL)
                .prop_filter("has a column type", |value_type| !value_type.is_opaque())
                .prop_flat_map(|value_type| (Just(value_type), column(value_type)))
        ) {
            let cells = encode_column(&column, value_type).unwrap();
            prop_assert_eq!(&decode_column(&cells, value_type).unwrap(), &column);
            for cell in cells.iter().flatten() {
                value_to_json(cell).unwrap();
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, value_type in prop::sample::select(ValueType::ALL)) {
            let _ = decode(&bytes, value_type);
            let _ = value_to_json(&bytes);
        }

        #[test]
        fn damaged_values_never_panic(
            line in prop::sample::select(include_str!("../../../tests/formats/values/values.tsv").lines().collect::<Vec<_>>()),
            position: prop::sample::Index,
            byte: u8,
        ) {
            let mut fields = line.split('\t');
            let value_type: ValueType = fields.next().unwrap().parse().unwrap();
            let mut bytes = unhex(fields.next().unwrap());
            if !bytes.is_empty() {
                let position = position.index(bytes.len());
                bytes[position] = byte;
            }
            let _ = decode(&bytes, value_type);
            let _ = value_to_json(&bytes);
        }
    }
}
