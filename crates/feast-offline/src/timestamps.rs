//! Times of any unit, with or without zone, as microseconds in UTC.
//!
//! Naive times are UTC. Nanoseconds are rounded down, so two instants within the same microsecond count as equal.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Date64Array, PrimitiveArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::compute::{cast, try_unary};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use chrono::Utc;
use feast_core::{Error, ErrorCode, Result, Timestamp, timestamp_type};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Whether a column of this type holds times as such, not as text.
pub(crate) fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// Whether a column of this type holds text.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

/// Whether [`to_micros`] reads columns of this type.
pub(crate) fn can_be_time(data_type: &DataType) -> bool {
    is_time(data_type) || is_text(data_type) || *data_type == DataType::Null
}

/// A column of times as microseconds in UTC. `of` names the column in errors.
pub(crate) fn to_micros(array: &dyn Array, of: &str) -> Result<TimestampMicrosecondArray> {
    let micros = match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().clone(),
        DataType::Timestamp(TimeUnit::Second, _) => scaled::<TimestampSecondType>(array, 1_000_000, of)?,
        DataType::Timestamp(TimeUnit::Millisecond, _) => scaled::<TimestampMillisecondType>(array, 1000, of)?,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array
                .as_primitive::<TimestampNanosecondType>()
                .unary::<_, TimestampMicrosecondType>(|nanos| nanos.div_euclid(1000))
        }
        DataType::Date32 => {
            let dates: &Date32Array = array.as_primitive::<Date32Type>();
            dates.unary::<_, TimestampMicrosecondType>(|days| i64::from(days) * MICROS_PER_DAY)
        }
        DataType::Date64 => {
            let dates: &Date64Array = array.as_primitive::<Date64Type>();
            try_unary::<_, _, TimestampMicrosecondType>(dates, |millis| checked(millis, 1000))
                .map_err(|error| out_of_range(of, error))?
        }
        DataType::Null => new_null_array(&timestamp_type(), array.len()).as_primitive().clone(),
        text if is_text(text) => {
            let text = cast(array, &DataType::Utf8)?;
            text.as_string::<i32>()
                .iter()
                .map(|text| text.map(|text| parse(text, of)).transpose())
                .collect::<Result<TimestampMicrosecondArray>>()?
        }
        other => {
            return Err(Error::new(
                ErrorCode::InvalidEventTimestamp,
                format!("{of} has type {other}, which is not a time"),
            )
            .with_hint("give it as a timestamp, a date, or text in ISO 8601"));
        }
    };
    Ok(micros.with_timezone("UTC"))
}

/// Text in ISO 8601 as microseconds since the epoch; without zone it is UTC.
fn parse(text: &str, of: &str) -> Result<i64> {
    let trimmed = text.trim();
    // `2024-01-31 08:15` is common in hand-written files and has no seconds.
    let completed = if trimmed.len() == 16 { format!("{trimmed}:00") } else { trimmed.to_owned() };
    string_to_datetime(&Utc, &completed).map(|instant| instant.timestamp_micros()).map_err(|_| {
        Error::new(ErrorCode::InvalidEventTimestamp, format!("{of} holds `{text}`, which is not a time"))
            .with_hint("write times in ISO 8601, such as `2024-01-31T08:15:00Z`")
    })
}

fn scaled<T: ArrowTimestampType>(array: &dyn Array, factor: i64, of: &str) -> Result<TimestampMicrosecondArray> {
    let array: &PrimitiveArray<T> = array.as_primitive();
    try_unary(array, |value| checked(value, factor)).map_err(|error| out_of_range(of, error))
}

fn checked(value: i64, factor: i64) -> Result<i64, ArrowError> {
    value.checked_mul(factor).ok_or_else(|| ArrowError::ArithmeticOverflow(format!("{value}")))
}

fn out_of_range(of: &str, error: ArrowError) -> Error {
    Error::new(ErrorCode::InvalidEventTimestamp, format!("{of} holds a time that does not fit into microseconds"))
        .with_source(error)
        .with_hint("check the unit of the column")
}

/// A column of microseconds as an array of [`timestamp_type`].
pub(crate) fn micros_array(micros: TimestampMicrosecondArray) -> ArrayRef {
    Arc::new(micros.with_timezone("UTC"))
}

/// An instant from microseconds since the epoch.
pub(crate) fn instant(micros: i64) -> Option<Timestamp> {
    Timestamp::from_timestamp_micros(micros)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{StringArray, TimestampNanosecondArray, TimestampSecondArray};

    use super::*;

    #[test]
    fn every_unit_and_zone_is_the_same_instant() {
        let columns: [ArrayRef; 5] = [
            Arc::new(TimestampSecondArray::from(vec![1])),
            Arc::new(TimestampNanosecondArray::from(vec![1_000_000_999]).with_timezone("America/New_York")),
            Arc::new(StringArray::from(vec!["1970-01-01T00:00:01"])),
            Arc::new(StringArray::from(vec!["1970-01-01 02:00:01+02:00"])),
            Arc::new(StringArray::from(vec!["1970-01-01T00:00:01Z"])),
        ];
        for column in columns {
            assert_eq!(to_micros(&column, "column").unwrap().value(0), 1_000_000, "{}", column.data_type());
        }
    }

    #[test]
    fn nanoseconds_before_the_epoch_round_down_too() {
        let column = TimestampNanosecondArray::from(vec![-1]);
        assert_eq!(to_micros(&column, "column").unwrap().value(0), -1);
    }

    #[test]
    fn short_forms_are_read() {
        let column = StringArray::from(vec!["1970-01-02", "1970-01-02 00:00"]);
        assert_eq!(to_micros(&column, "column").unwrap().values(), &[MICROS_PER_DAY; 2]);
    }

    #[test]
    fn what_is_no_time_is_named() {
        let error = to_micros(&StringArray::from(vec!["yesterday"]), "column `t` of the entity rows").unwrap_err();
        assert_eq!(error.message(), "column `t` of the entity rows holds `yesterday`, which is not a time");
        assert!(to_micros(&TimestampSecondArray::from(vec![i64::MAX]), "column").is_err());
    }
}
