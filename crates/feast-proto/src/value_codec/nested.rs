//! Values with everything inside them: checked to any depth, and as JSON.

use arrow::array::timezone::Tz;
use base64::Engine as _;
use chrono::{DateTime, TimeZone, Utc};
use feast_core::{Result, ValueType};

use super::wire::{
    FIXED32, FIXED64, LENGTH, MAP_KEYS, Raw, Reader, VARINT, integer, malformed, mismatch, number, read_items,
    read_value, utf8, wire_of,
};
use super::{MISSING_TIMESTAMP, MOST_NESTED};
/// A value with everything inside it, borrowing texts and bytes.
pub(super) enum Parsed<'a> {
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

pub(super) fn parse_value(bytes: &[u8], depth: u32) -> Result<Parsed<'_>> {
    match read_value(bytes)? {
        Some((stored, raw)) => parse(stored, raw, depth),
        None => Ok(Parsed::Null),
    }
}

pub(super) fn parse<'a>(stored: ValueType, raw: Raw<'a>, depth: u32) -> Result<Parsed<'a>> {
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
pub(super) fn each_message<'a>(body: &'a [u8], mut each: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
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

pub(super) fn parse_map(body: &[u8], depth: u32) -> Result<Parsed<'_>> {
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

pub(super) fn check_map_key(key: &[u8]) -> Result<()> {
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

pub(super) fn to_json(value: Parsed<'_>) -> serde_json::Value {
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
pub(super) fn zoned_text(time: DateTime<Utc>, zone: &str) -> String {
    let offset = zone.strip_prefix("UTC").or_else(|| zone.strip_prefix("GMT")).unwrap_or(zone);
    match offset.parse::<Tz>().or_else(|_| zone.parse::<Tz>()) {
        Ok(zone) => zone.from_utc_datetime(&time.naive_utc()).format("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        Err(_) => time.format("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}

pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Validates a whole message and that its type can stand for the declared one.
pub(super) fn check_opaque(cell: &[u8], wanted: ValueType) -> Result<()> {
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
