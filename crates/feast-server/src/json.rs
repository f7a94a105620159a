//! JSON written straight from Arrow columns, in the spelling of Feast's server.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use feast_core::{Error, Result, RowCells, ValueType};
use feast_online::FieldStatus;
use feast_proto::value_codec::{
    ColumnDecoder, bool_of, double_of, float_of, int32_of, int64_of, text_of, value_to_json,
};

/// Appends a JSON text.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    // All bytes are looked at, without a branch for each, which is faster for texts as short as these are.
    let escapes = text.bytes().fold(false, |escapes, byte| escapes | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
    if escapes {
        // Writing to memory does not fail.
        let _written = serde_json::to_writer(out, text);
        return;
    }
    out.push(b'"');
    put_short(out, text.as_bytes());
    out.push(b'"');
}

/// Appends a text that is short, as nearly all are: pieces of a known length are copied without a call.
#[inline(always)]
fn put_short(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        4..8 => put_ends::<4>(out, text),
        8..16 => put_ends::<8>(out, text),
        16..=32 => put_ends::<16>(out, text),
        _ => out.extend_from_slice(text),
    }
}

/// Appends the first and the last bytes of a text, of which some are the same.
#[inline(always)]
fn put_ends<const N: usize>(out: &mut Vec<u8>, text: &[u8]) {
    let (Some(first), Some(last)) = (text.first_chunk::<N>(), text.last_chunk::<N>()) else { return };
    let end = out.len() + text.len();
    out.extend_from_slice(first);
    out.truncate(end - N);
    out.extend_from_slice(last);
}

/// Appends the values of a column as a JSON list.
///
/// # Errors
/// `Internal` when the column is not of the Arrow type of `value_type`.
pub(crate) fn put_values(out: &mut Vec<u8>, column: &dyn Array, value_type: ValueType) -> Result<()> {
    macro_rules! list {
        ($array:expr, |$out:ident, $row:ident| $put:expr) => {
            put_list(out, column.len(), |$out, $row| match $array.is_null($row) {
                true => $out.extend_from_slice(b"null"),
                false => $put,
            })
        };
    }
    match column.data_type() {
        DataType::Boolean => {
            let array = column.as_boolean();
            list!(array, |out, row| {
                out.extend_from_slice(if array.value(row) { b"true" } else { b"false" });
            });
        }
        DataType::Int32 => {
            let array = column.as_primitive::<Int32Type>();
            list!(array, |out, row| put_integer(out, i64::from(array.value(row))));
        }
        DataType::Int64 => {
            let array = column.as_primitive::<Int64Type>();
            list!(array, |out, row| put_integer(out, array.value(row)));
        }
        DataType::Float32 => {
            let array = column.as_primitive::<Float32Type>();
            list!(array, |out, row| put_float(out, f64::from(array.value(row))));
        }
        DataType::Float64 => {
            let array = column.as_primitive::<Float64Type>();
            list!(array, |out, row| put_float(out, array.value(row)));
        }
        DataType::Timestamp(..) => {
            let array = column.as_primitive::<TimestampMicrosecondType>();
            list!(array, |out, row| put_integer(out, array.value(row).div_euclid(1_000_000)));
        }
        DataType::Utf8 => {
            let array = column.as_string::<i32>();
            list!(array, |out, row| put_text(out, array.value(row)));
        }
        DataType::Binary if value_type.is_opaque() => {
            let array = column.as_binary::<i32>();
            let mut failed = None;
            list!(array, |out, row| {
                match value_to_json(array.value(row)) {
                    Ok(json) => out.extend_from_slice(json.to_string().as_bytes()),
                    Err(error) => failed = Some(error),
                }
            });
            if let Some(error) = failed {
                return Err(Error::internal("a stored value is malformed").with_source(error));
            }
        }
        DataType::Binary => {
            let array = column.as_binary::<i32>();
            list!(array, |out, row| {
                out.push(b'"');
                out.extend_from_slice(STANDARD.encode(array.value(row)).as_bytes());
                out.push(b'"');
            });
        }
        DataType::List(_) => {
            let array = column.as_list::<i32>();
            let item = value_type.item().unwrap_or_default();
            let mut failed = None;
            list!(array, |out, row| {
                if let Err(error) = put_values(out, &array.value(row), item) {
                    failed = Some(error);
                }
            });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        DataType::Null => put_list(out, column.len(), |out, _| out.extend_from_slice(b"null")),
        other => return Err(Error::internal(format!("a column of type {value_type} came as {other}"))),
    }
    Ok(())
}

/// Appends values that come serialized, as a JSON list: the text that [`put_values`] makes of their column.
///
/// # Errors
/// `InvalidRequest` for values that are malformed or of a type that does not convert to `value_type`.
pub(crate) fn put_stored<'a>(
    out: &mut Vec<u8>,
    cells: impl ExactSizeIterator<Item = Option<&'a [u8]>> + Clone,
    value_type: ValueType,
) -> Result<()> {
    // Nearly all values are of the declared type, and need no column.
    let start = out.len();
    out.push(b'[');
    let done = cells.clone().try_for_each(|cell| {
        put_cell(out, cell, value_type)?;
        out.push(b',');
        Some(())
    });
    if done.is_some() {
        end_list(out);
        return Ok(());
    }
    out.truncate(start);
    let mut column = ColumnDecoder::new(value_type, cells.len());
    for cell in cells {
        match cell {
            None => column.push_null(),
            Some(cell) => column.push(cell)?,
        }
    }
    put_values(out, &column.finish()?, value_type)
}

/// The lists that [`put_stored`] makes of the columns of several views, from values that lie row by row; `None` for one with
/// a value that is out of the ordinary.
///
/// A row of all views goes first: its values lie beside each other, while those of a view are far apart.
pub(crate) fn stored_lists<'a>(
    types_of_views: &[Vec<ValueType>],
    n_rows: usize,
    row_of: impl Fn(usize, usize) -> Option<RowCells<'a>>,
) -> Vec<Vec<Option<Vec<u8>>>> {
    let empty = |_: &ValueType| {
        let mut list = Vec::with_capacity(n_rows * 12);
        list.push(b'[');
        Some(list)
    };
    let mut lists: Vec<Vec<Option<Vec<u8>>>> =
        types_of_views.iter().map(|types| types.iter().map(empty).collect()).collect();
    for row in 0..n_rows {
        for (view, (types, lists)) in types_of_views.iter().zip(&mut lists).enumerate() {
            let Some(cells) = row_of(view, row).filter(|cells| cells.len() == types.len()) else {
                lists.iter_mut().flatten().for_each(|out| out.extend_from_slice(b"null,"));
                continue;
            };
            for ((value_type, list), cell) in types.iter().zip(lists).zip(cells.iter()) {
                let Some(out) = list else { continue };
                match put_cell(out, cell, *value_type) {
                    Some(()) => out.push(b','),
                    None => *list = None,
                }
            }
        }
    }
    lists.iter_mut().flatten().flatten().for_each(end_list);
    lists
}

/// Appends a serialized value, if it is of its declared type and that is an ordinary one.
#[inline(always)]
fn put_cell(out: &mut Vec<u8>, cell: Option<&[u8]>, value_type: ValueType) -> Option<()> {
    let Some(cell) = cell.filter(|cell| !cell.is_empty()) else {
        out.extend_from_slice(b"null");
        return Some(());
    };
    match value_type {
        ValueType::Int64 => put_integer(out, int64_of(cell)?),
        ValueType::Int32 => put_integer(out, i64::from(int32_of(cell)?)),
        ValueType::Double => put_float(out, double_of(cell)?),
        ValueType::Float => put_float(out, f64::from(float_of(cell)?)),
        ValueType::Bool => out.extend_from_slice(if bool_of(cell)? { b"true" } else { b"false" }),
        ValueType::String | ValueType::Json | ValueType::Uuid | ValueType::TimeUuid | ValueType::Decimal => {
            put_text(out, text_of(value_type, cell)?);
        }
        _ => return None,
    }
    Some(())
}

/// Puts the bracket behind a list in place of its last comma.
fn end_list(out: &mut Vec<u8>) {
    match out.last_mut() {
        Some(last @ b',') => *last = b']',
        _ => out.push(b']'),
    }
}

/// Appends the names of statuses as a JSON list.
pub(crate) fn put_statuses(out: &mut Vec<u8>, statuses: &[FieldStatus]) {
    out.push(b'[');
    for run in statuses.chunk_by(PartialEq::eq) {
        let start = out.len();
        out.push(b'"');
        out.extend_from_slice(run[0].name().as_bytes());
        out.extend_from_slice(b"\",");
        repeat(out, start, run.len());
    }
    if !statuses.is_empty() {
        out.pop();
    }
    out.push(b']');
}

/// Appends what is there from `start` on until it is there so many times.
fn repeat(out: &mut Vec<u8>, start: usize, times: usize) {
    let end = start + (out.len() - start) * times;
    out.reserve(end - out.len());
    while out.len() < end {
        let more = (out.len() - start).min(end - out.len());
        out.extend_from_within(start..start + more);
    }
}

/// Appends instants, in microseconds since the epoch, as a JSON list of RFC 3339 texts with 0, 3 or 6 digits of a
/// second.
pub(crate) fn put_instants(out: &mut Vec<u8>, micros: &[i64]) {
    out.push(b'[');
    // Rows that were written together have the same time, as a rule.
    for run in micros.chunk_by(PartialEq::eq) {
        let start = out.len();
        out.push(b'"');
        put_instant(out, DateTime::from_timestamp_micros(run[0]).unwrap_or(DateTime::UNIX_EPOCH));
        out.extend_from_slice(b"\",");
        repeat(out, start, run.len());
    }
    if !micros.is_empty() {
        out.pop();
    }
    out.push(b']');
}

/// By hand, because chrono takes ten times as long, and an answer has as many of these as rows.
fn put_instant(out: &mut Vec<u8>, instant: DateTime<Utc>) {
    // Each part of a time with a zone would be computed from the instant anew.
    let (date, time) = (instant.date_naive(), instant.naive_utc().time());
    let Ok(year @ 0..10_000) = u32::try_from(date.year()) else {
        return out.extend_from_slice(instant.to_rfc3339_opts(SecondsFormat::AutoSi, true).as_bytes());
    };
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, pair: u32| {
        text[at] = b'0' + (pair / 10) as u8;
        text[at + 1] = b'0' + (pair % 10) as u8;
    };
    put(0, year / 100);
    put(2, year % 100);
    put(5, date.month());
    put(8, date.day());
    put(11, time.hour());
    put(14, time.minute());
    put(17, time.second());
    out.extend_from_slice(&text);
    let micros = time.nanosecond() / 1000;
    if micros > 0 {
        let digits = micros + 1_000_000;
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(digits).as_bytes();
        out.push(b'.');
        out.extend_from_slice(if micros.is_multiple_of(1000) { &digits[1..4] } else { &digits[1..] });
    }
    out.push(b'Z');
}

fn put_list(out: &mut Vec<u8>, length: usize, mut put: impl FnMut(&mut Vec<u8>, usize)) {
    out.push(b'[');
    for row in 0..length {
        if row > 0 {
            out.push(b',');
        }
        put(out, row);
    }
    out.push(b']');
}

fn put_integer(out: &mut Vec<u8>, value: i64) {
    put_short(out, itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest digits that read back as the same number, spelled as Python spells them.
fn put_float(out: &mut Vec<u8>, value: f64) {
    let magnitude = value.abs();
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"".as_slice() } else { b"\"-Infinity\"" });
    } else if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        put_short(out, zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        out.extend_from_slice(format!("{digits}e{sign}{exponent:0>2}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
        StringArray, TimestampMicrosecondArray,
    };
    use feast_proto::value_codec::encode_column;
    use proptest::prelude::*;

    use super::*;

    fn values(array: ArrayRef, value_type: ValueType) -> String {
        let mut out = Vec::new();
        put_values(&mut out, &array, value_type).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_spelled_as_python_does() {
        let floats = [0.0, -0.0, 1.0, 1e20, 1e-7, 0.1, 1e15, 1e16, 1.5e17, 5e-324, 1e-4, 1e-5, 1.25e-5, 123456789.125];
        let expected = "[0.0,-0.0,1.0,1e+20,1e-07,0.1,1000000000000000.0,1e+16,1.5e+17,5e-324,0.0001,1e-05,1.25e-05,\
                        123456789.125]";
        assert_eq!(values(Arc::new(Float64Array::from(floats.to_vec())), ValueType::Double), expected);
        let odd = Float64Array::from(vec![Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY), None]);
        assert_eq!(values(Arc::new(odd), ValueType::Double), r#"["NaN","Infinity","-Infinity",null]"#);
        let narrow = Float32Array::from(vec![0.3, 3.0]);
        assert_eq!(values(Arc::new(narrow), ValueType::Float), "[0.30000001192092896,3.0]");
        let wide = Int64Array::from(vec![i64::MAX, -1]);
        assert_eq!(values(Arc::new(wide), ValueType::Int64), "[9223372036854775807,-1]");
    }

    proptest! {
        #[test]
        fn numbers_are_those_that_read_back(value in any::<f64>(), narrow in any::<f32>(), exponent in -4..16i32) {
            let places = value % 10.0 * 10f64.powi(exponent);
            for value in [value, f64::from(narrow), places, places.round(), (places * 1e6).round() / 1e6] {
                let mut out = Vec::new();
                put_float(&mut out, value);
                let text = String::from_utf8(out).unwrap();
                if value.is_finite() {
                    prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
                }
                if (1e-4..1e16).contains(&value.abs()) {
                    // Of two that are as short and as near, Rust writes the other one than Python does.
                    prop_assert_eq!(text.len(), format!("{value:?}").len());
                }
            }
        }

        /// Also where values are of other types, or damaged.
        #[test]
        fn stored_values_are_those_of_their_column(
            rows in prop::collection::vec((prop::option::weighted(0.9, 0..8usize), any::<i64>(), ".{0,6}"), 0..5),
            damage in prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
        ) {
            use ValueType as T;
            let types = [T::Int64, T::Int32, T::Double, T::Float, T::Bool, T::String, T::UnixTimestamp, T::Int64List];
            let mut cells: Vec<Option<Vec<u8>>> = rows.iter().map(|(kind, number, text)| {
                let column: ArrayRef = match types[(*kind)?] {
                    T::Int64 => Arc::new(Int64Array::from(vec![*number])),
                    T::Int32 => Arc::new(Int32Array::from(vec![*number as i32])),
                    T::Double => Arc::new(Float64Array::from(vec![*number as f64 / 3.0])),
                    T::Float => Arc::new(Float32Array::from(vec![*number as f32 / 3.0])),
                    T::Bool => Arc::new(BooleanArray::from(vec![*number > 0])),
                    T::String => Arc::new(StringArray::from(vec![text.as_str()])),
                    T::UnixTimestamp => Arc::new(
                        TimestampMicrosecondArray::from(vec![number % 1_000_000_000_000]).with_timezone("UTC"),
                    ),
                    _ => Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(*number)])])),
                };
                Some(encode_column(&column, types[(*kind)?]).unwrap().value(0).to_vec())
            }).collect();
            if let Some((at, byte)) = damage && let Some(cell) = cells.first_mut().and_then(Option::as_mut) {
                let at = at.index(cell.len());
                cell[at] = byte;
            }
            for value_type in types {
                let (mut stored, mut of_column) = (Vec::new(), Vec::new());
                let found = put_stored(&mut stored, cells.iter().map(Option::as_deref), value_type);
                let mut column = ColumnDecoder::new(value_type, cells.len());
                let pushed = cells.iter().try_for_each(|cell| match cell {
                    None => {
                        column.push_null();
                        Ok(())
                    }
                    Some(cell) => column.push(cell),
                });
                match pushed.and_then(|()| column.finish()) {
                    Ok(column) => {
                        put_values(&mut of_column, &column, value_type).unwrap();
                        prop_assert_eq!(found.map_err(|error| error.to_string()), Ok(()));
                        prop_assert_eq!(String::from_utf8(stored), String::from_utf8(of_column));
                    }
                    Err(error) => prop_assert_eq!(found.unwrap_err().to_string(), error.to_string()),
                }
            }
        }
    }

    #[test]
    fn statuses_are_named() {
        use FieldStatus as S;
        let text = |statuses: &[S]| {
            let mut out = Vec::new();
            put_statuses(&mut out, statuses);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&[]), "[]");
        let statuses = [S::Present, S::Present, S::Present, S::NotFound, S::Present, S::OutsideMaxAge];
        assert_eq!(text(&statuses), r#"["PRESENT","PRESENT","PRESENT","NOT_FOUND","PRESENT","OUTSIDE_MAX_AGE"]"#);
        assert_eq!(text(&[S::Invalid; 1000]), format!("[{}\"INVALID\"]", r#""INVALID","#.repeat(999)));
    }

    #[test]
    fn texts_bytes_and_lists() {
        assert_eq!(values(Arc::new(StringArray::from(vec!["a\"\n"])), ValueType::String), r#"["a\"\n"]"#);
        let bytes = BinaryArray::from(vec![Some(b"\x00\xff\xfe".as_slice()), None]);
        assert_eq!(values(Arc::new(bytes), ValueType::Bytes), r#"["AP/+",null]"#);
        let lists =
            ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), None, Some(vec![])]);
        assert_eq!(values(Arc::new(lists), ValueType::Int64List), "[[1,2],null,[]]");
    }

    #[test]
    fn instants_are_spelled_as_chrono_does() {
        let days = (-800_000..3_000_000i64).step_by(997);
        for micros in days.map(|day| day * 86_400_000_000 + day.wrapping_mul(7_919_333_111) % 86_400_000_000) {
            for micros in [micros, micros / 1000 * 1000, micros / 1_000_000 * 1_000_000] {
                let instant = DateTime::from_timestamp_micros(micros).unwrap();
                let mut out = Vec::new();
                put_instant(&mut out, instant);
                assert_eq!(String::from_utf8(out).unwrap(), instant.to_rfc3339_opts(SecondsFormat::AutoSi, true));
            }
        }
    }

    #[test]
    fn instants_have_as_many_digits_as_needed() {
        let mut out = Vec::new();
        put_instants(&mut out, &[0, 0, 1_795_176_000_000_000, 1_795_176_000_001_000, 1_795_176_000_000_001]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "[\"1970-01-01T00:00:00Z\",\"1970-01-01T00:00:00Z\",\"2026-11-20T12:00:00Z\",\"2026-11-20T12:00:00.001Z\",\
             \"2026-11-20T12:00:00.000001Z\"]"
        );
    }
}
