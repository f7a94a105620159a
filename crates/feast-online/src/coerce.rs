//! Columns as callers have them, brought to declared types. Nothing is lost in silence: a value that does not fit is an
//! error that names the column, the row and the value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Float32Array, Float64Array, Int64Array, ListArray,
    StringArray, StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{
    DataType, Field as ArrowField, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType,
};
use arrow::util::display::array_value_to_string;
use feast_core::{Error, Result, ValueType};
use feast_proto::value_codec::{encode_column, json_to_value, value_to_json};

/// Brings a column to the Arrow type of `value_type`; `column` is its name in messages.
///
/// Integers accept floating point numbers without decimals and texts that are integers; NaN is a missing integer, as
/// data frames write it. Timestamps accept dates, ISO 8601 texts (UTC when they name no zone) and seconds since the
/// epoch. Texts accept numbers. Opaque types accept Arrow maps, structs and lists, JSON texts and serialized `Value`
/// messages.
///
/// # Errors
/// `InvalidRequest` naming column, row and value.
pub fn coerce_column(array: &dyn Array, value_type: ValueType, column: &str) -> Result<ArrayRef> {
    Coercion { value_type, column, first_row: 0 }.apply(array)
}

/// What a column becomes and how it is called in messages.
#[derive(Clone, Copy)]
pub(crate) struct Coercion<'a> {
    pub(crate) value_type: ValueType,
    pub(crate) column: &'a str,
    /// Number of the first row.
    pub(crate) first_row: usize,
}

impl Coercion<'_> {
    pub(crate) fn apply(self, array: &dyn Array) -> Result<ArrayRef> {
        use ValueType as T;
        let wanted = self.value_type.arrow_type();
        match array.data_type() {
            // Serialized messages of opaque types are validated below.
            found if *found == wanted && !self.value_type.is_opaque() => return Ok(array.slice(0, array.len())),
            DataType::Null => return Ok(new_null_array(&wanted, array.len())),
            DataType::Dictionary(_, value) => return self.apply(&cast(array, value)?),
            DataType::Utf8View | DataType::LargeUtf8 => return self.apply(&cast(array, &DataType::Utf8)?),
            DataType::BinaryView | DataType::LargeBinary => return self.apply(&cast(array, &DataType::Binary)?),
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
                if !matches!(self.value_type, T::Float | T::Double) =>
            {
                return self.apply(&cast(array, &DataType::Utf8)?);
            }
            _ => {}
        }
        match self.value_type {
            T::Int32 | T::Int64 => self.integers(array, &wanted),
            T::Float | T::Double => self.numbers(array, &wanted),
            T::Bool => self.booleans(array),
            T::UnixTimestamp => self.timestamps(array, &wanted),
            T::Bytes => match array.data_type() {
                DataType::Utf8 | DataType::FixedSizeBinary(_) => self.strict(array, &wanted),
                _ => Err(self.wrong_type(array)),
            },
            T::Uuid | T::TimeUuid => self.uuids(array),
            T::Json => self.json_texts(array),
            T::String | T::Decimal => match array.data_type() {
                found if found.is_nested() => Err(self.wrong_type(array)),
                _ => self.strict(array, &wanted),
            },
            opaque if opaque.is_opaque() => self.opaque(array),
            _ => self.lists(array),
        }
    }

    fn wrong_type(self, array: &dyn Array) -> Error {
        Error::invalid_request(format!(
            "column `{}` is {}, but {} is expected",
            self.column,
            array.data_type(),
            self.value_type
        ))
        .with_hint(format!("convert the column to {}", self.value_type.arrow_type()))
    }

    fn wrong_value(self, array: &dyn Array, row: usize) -> Error {
        let value = array_value_to_string(array, row).unwrap_or_else(|_| "?".to_owned());
        let value: String = value.chars().take(80).collect();
        Error::invalid_request(format!(
            "column `{}` has `{value}` in row {}, which is not a value of type {}",
            self.column,
            self.first_row + row,
            self.value_type
        ))
        .with_hint(format!("give a value that {} can hold", self.value_type))
    }

    /// A cast under which a value that does not fit is an error, not a null.
    fn strict(self, array: &dyn Array, wanted: &DataType) -> Result<ArrayRef> {
        let lenient = CastOptions { safe: true, ..CastOptions::default() };
        let result = cast_with_options(array, wanted, &lenient).map_err(|_| self.wrong_type(array))?;
        if result.null_count() > array.null_count()
            && let Some(row) = (0..array.len()).find(|row| result.is_null(*row) && array.is_valid(*row))
        {
            return Err(self.wrong_value(array, row));
        }
        if *wanted == DataType::Float32
            && let Some(row) = became_infinite(array, result.as_primitive::<Float32Type>())
        {
            return Err(self.wrong_value(array, row));
        }
        Ok(result)
    }

    fn integers(self, array: &dyn Array, wanted: &DataType) -> Result<ArrayRef> {
        match array.data_type() {
            found if found.is_integer() => self.strict(array, wanted),
            found if found.is_floating() => {
                let floats = cast(array, &DataType::Float64)?;
                let integers = self.whole_numbers(array, floats.as_primitive::<Float64Type>())?;
                self.strict(&integers, wanted)
            }
            DataType::Utf8 => {
                let texts = array.as_string::<i32>();
                let mut integers = Vec::with_capacity(texts.len());
                for (row, text) in texts.iter().enumerate() {
                    let integer = text.map(str::trim).map(|text| {
                        text.parse::<i64>().ok().or_else(|| text.parse::<f64>().ok().and_then(exact_integer))
                    });
                    integers.push(match integer {
                        None => None,
                        Some(Some(integer)) => Some(integer),
                        Some(None) => return Err(self.wrong_value(array, row)),
                    });
                }
                self.strict(&Int64Array::from(integers), wanted)
            }
            _ => Err(self.wrong_type(array)),
        }
    }

    fn whole_numbers(self, array: &dyn Array, floats: &Float64Array) -> Result<Int64Array> {
        let mut integers = Vec::with_capacity(floats.len());
        for (row, float) in floats.iter().enumerate() {
            integers.push(match float {
                None => None,
                Some(float) if float.is_nan() => None,
                Some(float) => Some(exact_integer(float).ok_or_else(|| self.wrong_value(array, row))?),
            });
        }
        Ok(Int64Array::from(integers))
    }

    fn numbers(self, array: &dyn Array, wanted: &DataType) -> Result<ArrayRef> {
        match array.data_type() {
            DataType::Utf8 => self.strict(array, wanted),
            found if found.is_numeric() => self.strict(array, wanted),
            _ => Err(self.wrong_type(array)),
        }
    }

    fn booleans(self, array: &dyn Array) -> Result<ArrayRef> {
        let wanted = DataType::Boolean;
        match array.data_type() {
            DataType::Utf8 => self.strict(array, &wanted),
            found if found.is_integer() || found.is_floating() => {
                let floats = cast(array, &DataType::Float64)?;
                let integers = self.whole_numbers(array, floats.as_primitive::<Float64Type>())?;
                let truths = integers.iter().enumerate().map(|(row, integer)| match integer {
                    None => Ok(None),
                    Some(0) => Ok(Some(false)),
                    Some(1) => Ok(Some(true)),
                    Some(_) => Err(self.wrong_value(array, row)),
                });
                Ok(Arc::new(truths.collect::<Result<BooleanArray>>()?))
            }
            _ => Err(self.wrong_type(array)),
        }
    }

    fn timestamps(self, array: &dyn Array, wanted: &DataType) -> Result<ArrayRef> {
        match array.data_type() {
            // Rounded down, as everywhere; a cast rounds towards zero.
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                let nanos = array.as_primitive::<TimestampNanosecondType>();
                let micros = nanos.unary::<_, TimestampMicrosecondType>(|nanos| nanos.div_euclid(1000));
                Ok(Arc::new(micros.with_timezone("UTC")))
            }
            DataType::Timestamp(unit, zone) => {
                // Without a zone it is UTC; with one it is an instant already.
                let zoned = match zone {
                    Some(_) => array.slice(0, array.len()),
                    None => cast(array, &DataType::Timestamp(*unit, Some("UTC".into())))?,
                };
                self.strict(&zoned, wanted)
            }
            DataType::Date32 | DataType::Date64 => {
                let naive = self.strict(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                self.strict(&naive, wanted)
            }
            DataType::Utf8 => self.strict(array, wanted),
            found if found.is_integer() => {
                let seconds = self.strict(array, &DataType::Int64)?;
                let seconds = seconds.as_primitive::<Int64Type>();
                let micros = seconds.iter().enumerate().map(|(row, seconds)| match seconds {
                    None => Ok(None),
                    Some(seconds) => {
                        seconds.checked_mul(1_000_000).map(Some).ok_or_else(|| self.wrong_value(array, row))
                    }
                });
                Ok(Arc::new(micros.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone("UTC")))
            }
            found if found.is_floating() => {
                let seconds = cast(array, &DataType::Float64)?;
                let seconds = seconds.as_primitive::<Float64Type>();
                let micros = seconds.iter().enumerate().map(|(row, seconds)| match seconds {
                    Some(seconds) if !seconds.is_nan() => match (seconds * 1e6).round() {
                        micros if micros.abs() < 9e18 => Ok(Some(micros as i64)),
                        _ => Err(self.wrong_value(array, row)),
                    },
                    _ => Ok(None),
                });
                Ok(Arc::new(micros.collect::<Result<TimestampMicrosecondArray>>()?.with_timezone("UTC")))
            }
            _ => Err(self.wrong_type(array)),
        }
    }

    fn uuids(self, array: &dyn Array) -> Result<ArrayRef> {
        let DataType::FixedSizeBinary(16) = array.data_type() else {
            return match array.data_type() {
                DataType::Utf8 => Ok(array.slice(0, array.len())),
                _ => Err(self.wrong_type(array)),
            };
        };
        let text = |bytes: &[u8]| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
        };
        let texts = array.as_fixed_size_binary().iter().map(|bytes| bytes.map(text));
        Ok(Arc::new(texts.collect::<StringArray>()))
    }

    /// Texts are JSON already; anything else is written as JSON.
    fn json_texts(self, array: &dyn Array) -> Result<ArrayRef> {
        if array.data_type() == &DataType::Utf8 {
            return Ok(array.slice(0, array.len()));
        }
        let value_type = ValueType::from_arrow(array.data_type()).ok_or_else(|| self.wrong_type(array))?;
        let cells = encode_column(array, value_type).map_err(|error| error.with_context("column", self.column))?;
        let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 16);
        for row in 0..array.len() {
            if array.is_null(row) {
                texts.append_null();
            } else {
                texts.append_value(value_to_json(cells.value(row))?.to_string());
            }
        }
        Ok(Arc::new(texts.finish()))
    }

    /// Serialized `Value` messages, null where there is none.
    fn opaque(self, array: &dyn Array) -> Result<ArrayRef> {
        let mut cells = BinaryBuilder::with_capacity(array.len(), array.len() * 16);
        if let Some(texts) = array.as_string_opt::<i32>() {
            for (row, text) in texts.iter().enumerate() {
                let Some(text) = text else {
                    cells.append_null();
                    continue;
                };
                // A zoned timestamp is a text, not JSON.
                let json = match self.value_type {
                    ValueType::ZonedTimestamp => serde_json::Value::from(text),
                    _ => serde_json::from_str(text).map_err(|error| self.wrong_value(array, row).with_source(error))?,
                };
                let cell = json_to_value(&json, self.value_type)
                    .map_err(|error| self.wrong_value(array, row).with_source(error))?;
                cells.append_option((!cell.is_empty()).then_some(cell));
            }
            return Ok(Arc::new(cells.finish()));
        }
        let encoded =
            encode_column(array, self.value_type).map_err(|error| error.with_context("column", self.column))?;
        for cell in encoded.iter() {
            cells.append_option(cell.filter(|cell| !cell.is_empty()));
        }
        Ok(Arc::new(cells.finish()))
    }

    fn lists(self, array: &dyn Array) -> Result<ArrayRef> {
        let item = self.value_type.item().ok_or_else(|| Error::internal(format!("{} is no list", self.value_type)))?;
        let list = match array.data_type() {
            DataType::List(_) => array.slice(0, array.len()),
            DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
                cast(array, &DataType::List(Arc::clone(inner)))?
            }
            _ => return Err(self.wrong_type(array)),
        };
        let list: &ListArray = list.as_list();
        let items = Coercion { value_type: item, ..self }.apply(list.values())?;
        let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(field, list.offsets().clone(), items, list.nulls().cloned())?))
    }
}

/// The first row whose number is too large for 32 bits, which a cast turns into infinity.
fn became_infinite(array: &dyn Array, result: &Float32Array) -> Option<usize> {
    let suspects: Vec<usize> =
        (0..result.len()).filter(|row| result.is_valid(*row) && result.value(*row).is_infinite()).collect();
    if suspects.is_empty() {
        return None;
    }
    let before = cast(array, &DataType::Float64).ok()?;
    let before = before.as_primitive::<Float64Type>();
    suspects.into_iter().find(|row| before.value(*row).is_finite())
}

/// The integer that a floating point number is, if it is one.
fn exact_integer(float: f64) -> Option<i64> {
    (float.fract() == 0.0 && float.abs() < 9.2e18).then_some(float as i64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn message(array: &dyn Array, value_type: ValueType) -> String {
        coerce_column(array, value_type, "x").unwrap_err().to_string()
    }

    #[test]
    fn integers_accept_what_is_an_integer() {
        let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(1001), None]));
        let floats = Float64Array::from(vec![1001.0, f64::NAN]);
        let texts = StringArray::from(vec![Some("1001"), None]);
        let decimals = StringArray::from(vec![Some(" 1001.0"), None]);
        let arrays: [&dyn Array; 3] = [&floats, &texts, &decimals];
        for array in arrays {
            assert_eq!(&coerce_column(array, ValueType::Int64, "x").unwrap(), &expected);
        }
        let halves = Float64Array::from(vec![1.0, 1.5]);
        assert_eq!(
            message(&halves, ValueType::Int64),
            "column `x` has `1.5` in row 1, which is not a value of type INT64"
        );
        let wide = Int64Array::from(vec![1 << 40]);
        assert!(message(&wide, ValueType::Int32).contains("`1099511627776` in row 0"));
        let large = Float64Array::from(vec![f64::INFINITY, f64::NAN, 1e300]);
        assert!(message(&large, ValueType::Float).contains("in row 2, which is not a value of type FLOAT"));
        assert!(message(&StringArray::from(vec!["abc"]), ValueType::Int64).contains("`abc`"));
        assert_eq!(
            message(&BooleanArray::from(vec![true]), ValueType::Int64),
            "column `x` is Boolean, but INT64 is expected"
        );
    }

    #[test]
    fn timestamps_accept_texts_dates_and_seconds() {
        let micros = |array: &dyn Array| {
            let result = coerce_column(array, ValueType::UnixTimestamp, "t").unwrap();
            result.as_any().downcast_ref::<TimestampMicrosecondArray>().unwrap().value(0)
        };
        let noon = 1_795_176_000_000_000;
        for text in ["2026-11-20T12:00:00Z", "2026-11-20 12:00:00", "2026-11-20T13:00:00+01:00"] {
            assert_eq!(micros(&StringArray::from(vec![text])), noon, "{text}");
        }
        assert_eq!(micros(&Int64Array::from(vec![1_795_176_000])), noon);
        assert_eq!(micros(&Float64Array::from(vec![1_795_176_000.5])), noon + 500_000);
        assert_eq!(micros(&arrow::array::Date32Array::from(vec![1])), 86_400_000_000);
        let naive = arrow::array::TimestampNanosecondArray::from(vec![noon * 1000]);
        assert_eq!(micros(&naive), noon);
        assert_eq!(micros(&arrow::array::TimestampNanosecondArray::from(vec![-1])), -1);
        let paris = TimestampMicrosecondArray::from(vec![noon]).with_timezone("+01:00");
        assert_eq!(micros(&paris), noon);
        let error = message(&StringArray::from(vec!["yesterday"]), ValueType::UnixTimestamp);
        assert_eq!(error, "column `x` has `yesterday` in row 0, which is not a value of type UNIX_TIMESTAMP");
    }

    #[test]
    fn lists_and_maps() {
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some([Some(1.0), Some(2.0)])]);
        let result = coerce_column(&list, ValueType::Int64List, "x").unwrap();
        assert_eq!(result.data_type(), &ValueType::Int64List.arrow_type());
        let cells = coerce_column(&StringArray::from(vec![r#"{"a": 1}"#]), ValueType::Map, "x").unwrap();
        assert_eq!(value_to_json(cells.as_binary::<i32>().value(0)).unwrap(), serde_json::json!({"a": 1}));
        assert!(message(&StringArray::from(vec!["{"]), ValueType::Map).contains("not a value of type MAP"));
        let json = coerce_column(&list, ValueType::Json, "x").unwrap();
        assert_eq!(json.as_string::<i32>().value(0), "[1.0,2.0]");
    }
}
