//! Columns of files as the types that features declare.
//!
//! A value that the declared type cannot hold is an error that names the column; nothing is cut or wrapped in silence.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, ListArray, StringArray};
use arrow::compute::{CastOptions, can_cast_types, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use feast_core::{Error, ErrorCode, Result, ValueType, timestamp_type};

use crate::timestamps::{can_be_time, is_time, micros_array, to_micros};

/// A column with the type its feature declares. Opaque types keep the type of the source. `of` names the column.
pub(crate) fn to_declared(array: &ArrayRef, declared: ValueType, of: &str) -> Result<ArrayRef> {
    if declared.is_opaque() {
        return Ok(Arc::clone(array));
    }
    let target = declared.arrow_type();
    if *array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    if let DataType::Dictionary(_, value) = array.data_type() {
        return to_declared(&cast(array, value)?, declared, of);
    }
    if let Some(item) = declared.item() {
        return list_to_declared(array, item, of, declared);
    }
    match (array.data_type(), declared) {
        (DataType::FixedSizeBinary(16), ValueType::Uuid | ValueType::TimeUuid) => {
            let bytes = array.as_fixed_size_binary().iter();
            let text = bytes.map(|bytes| bytes.and_then(|b| uuid::Uuid::from_slice(b).ok()).map(|id| id.to_string()));
            Ok(Arc::new(text.collect::<StringArray>()))
        }
        // Numbers that stand for times count seconds, as in Feast.
        (from, ValueType::UnixTimestamp) if from.is_integer() || from.is_floating() => {
            let seconds = cast_to(array, &DataType::Int64, of)?;
            let seconds: &Int64Array = seconds.as_primitive::<Int64Type>();
            to_micros(&seconds.reinterpret_cast::<arrow::datatypes::TimestampSecondType>(), of).map(micros_array)
        }
        _ => cast_to(array, &target, of).map_err(|error| {
            if error.code() == ErrorCode::InvalidDefinition {
                return incompatible(array.data_type(), declared, of);
            }
            error
        }),
    }
}

/// A column as another Arrow type, where no value changes its meaning.
pub(crate) fn cast_to(array: &ArrayRef, target: &DataType, of: &str) -> Result<ArrayRef> {
    let from = array.data_type();
    if from == target {
        return Ok(Arc::clone(array));
    }
    if let DataType::Dictionary(_, value) = from
        && value.as_ref() != target
    {
        return cast_to(&cast(array, value)?, target, of);
    }
    if *target == timestamp_type() && can_be_time(from) {
        return to_micros(array, of).map(micros_array);
    }
    if is_time(target) && can_be_time(from) && !is_time(from) {
        return Ok(cast(&to_micros(array, of)?, target)?);
    }
    if let (DataType::Timestamp(unit, zone), DataType::Timestamp(..)) = (from, target)
        && zone.as_deref() != Some("UTC")
    {
        // Arrow reads naive times as local to the zone they are cast to; ours are UTC.
        let utc = cast(array, &DataType::Timestamp(*unit, Some("UTC".into())))?;
        return cast_to(&utc, target, of);
    }
    if from.is_floating() && target.is_integer() {
        return whole_numbers(array, target, of);
    }
    if *from == DataType::Float64 && *target == DataType::Float32 {
        return single_precision(array, of);
    }
    if !can_cast_types(from, target) {
        return Err(Error::new(ErrorCode::InvalidDefinition, format!("{of} holds {from}, which is not {target}"))
            .with_hint("change the declared type or the source"));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, target, &options).map_err(|error| {
        Error::invalid_request(format!("{of} holds a value that does not fit {target}"))
            .with_source(error)
            .with_hint("change the declared type or correct the value")
    })
}

/// Floating numbers as integers: pandas stores integers with gaps that way. NaN is null, fractions are errors.
fn whole_numbers(array: &ArrayRef, target: &DataType, of: &str) -> Result<ArrayRef> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let floats = cast(array, &DataType::Float64)?;
    let floats: &Float64Array = floats.as_primitive::<Float64Type>();
    let whole = |value: f64| -> Result<Option<i64>> {
        if value.is_nan() {
            return Ok(None);
        }
        if value.fract() != 0.0 || !(-LIMIT..LIMIT).contains(&value) {
            return Err(Error::invalid_request(format!("{of} holds {value}, which is not {target}"))
                .with_hint("correct the value, or declare a type that holds it"));
        }
        Ok(Some(value as i64))
    };
    let integers = floats.iter().map(|value| value.map_or(Ok(None), whole)).collect::<Result<Int64Array>>()?;
    cast_to(&(Arc::new(integers) as ArrayRef), target, of)
}

/// Doubles as floats, rounded; a value beyond the largest float is an error, an infinite one stays infinite.
fn single_precision(array: &ArrayRef, of: &str) -> Result<ArrayRef> {
    let doubles: &Float64Array = array.as_primitive::<Float64Type>();
    let floats: Float32Array = doubles.unary(|value| value as f32);
    let lost = floats
        .iter()
        .zip(doubles)
        .find_map(|(float, double)| double.filter(|double| double.is_finite() && float.is_some_and(f32::is_infinite)));
    match lost {
        None => Ok(Arc::new(floats)),
        Some(value) => Err(Error::invalid_request(format!("{of} holds {value:e}, which is too large for Float32"))
            .with_hint("declare the feature as `Float64`, or correct the value")),
    }
}

fn list_to_declared(array: &ArrayRef, item: ValueType, of: &str, declared: ValueType) -> Result<ArrayRef> {
    let from = match array.data_type() {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => Arc::clone(field),
        DataType::Null => return Ok(cast(array, &declared.arrow_type())?),
        other => return Err(incompatible(other, declared, of)),
    };
    let lists = cast(array, &DataType::List(from))?;
    let lists: &ListArray = lists.as_list();
    // Values before the first and after the last list belong to nobody.
    let offsets = lists.value_offsets();
    let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
    let values = to_declared(&lists.values().slice(first, last - first), item, of)?;
    let offsets: Vec<i32> = offsets.iter().map(|offset| offset - offsets[0]).collect();
    let field = Arc::new(Field::new("item", item.arrow_type(), true));
    let lists =
        ListArray::try_new(field, arrow::buffer::OffsetBuffer::new(offsets.into()), values, lists.nulls().cloned())?;
    Ok(Arc::new(lists))
}

fn incompatible(from: &DataType, declared: ValueType, of: &str) -> Error {
    Error::new(
        ErrorCode::InvalidDefinition,
        format!("{of} holds {from}, which cannot be read as the declared type {declared}"),
    )
    .with_hint("change the declared type of the feature or the type of the column")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{BinaryArray, Int32Array, LargeListArray, TimestampNanosecondArray};
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn declared(array: impl Array + 'static, value_type: ValueType) -> Result<ArrayRef> {
        let array: ArrayRef = Arc::new(array);
        to_declared(&array, value_type, "column `c` of data source `s`")
    }

    #[test]
    fn integers_with_gaps_come_back_as_integers() {
        let floats = Float64Array::from(vec![Some(1.0), None, Some(f64::NAN)]);
        let integers = declared(floats, ValueType::Int64).unwrap();
        assert_eq!(integers.as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(1), None, None]));
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        let error = declared(Float64Array::from(vec![1.5]), ValueType::Int32).unwrap_err();
        assert_eq!(error.message(), "column `c` of data source `s` holds 1.5, which is not Int32");
        assert!(declared(Int64Array::from(vec![3_000_000_000]), ValueType::Int32).is_err());
        assert!(declared(BinaryArray::from(vec![&b"x"[..]]), ValueType::Float).is_err());
    }

    #[test]
    fn a_double_beyond_the_floats_is_named_and_an_infinite_one_stays() {
        let fits = vec![Some(0.1), None, Some(f64::INFINITY), Some(f64::NAN), Some(3.4e38), Some(1e-60)];
        let floats = declared(Float64Array::from(fits), ValueType::Float).unwrap();
        let floats = floats.as_primitive::<arrow::datatypes::Float32Type>();
        assert_eq!((floats.value(0), floats.is_null(1), floats.value(2)), (0.1, true, f32::INFINITY));
        let error = declared(Float64Array::from(vec![Some(1.0), Some(-3.5e38)]), ValueType::Float).unwrap_err();
        assert_eq!(error.message(), "column `c` of data source `s` holds -3.5e38, which is too large for Float32");
        // What an array carries where it is null is no value.
        let hidden = Float64Array::new(vec![1e300].into(), Some(vec![false].into()));
        assert!(declared(hidden, ValueType::Float).unwrap().is_null(0));
    }

    #[test]
    fn numbers_as_times_count_seconds() {
        let times = declared(Int32Array::from(vec![1]), ValueType::UnixTimestamp).unwrap();
        assert_eq!(*times.data_type(), timestamp_type());
        assert_eq!(times.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0), 1_000_000);
        let nanos = TimestampNanosecondArray::from(vec![1500]);
        let times = declared(nanos, ValueType::UnixTimestamp).unwrap();
        assert_eq!(times.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0), 1);
    }

    #[test]
    fn naive_times_are_utc_in_every_zone() {
        let naive: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000]));
        for zone in [Some("America/New_York".into()), Some("UTC".into()), None] {
            let times = cast_to(&naive, &DataType::Timestamp(TimeUnit::Millisecond, zone), "column").unwrap();
            assert_eq!(times.as_primitive::<arrow::datatypes::TimestampMillisecondType>().value(0), 1500);
        }
    }

    #[test]
    fn lists_take_the_declared_item_type() {
        let lists = LargeListArray::from_iter_primitive::<arrow::datatypes::Float64Type, _, _>(vec![
            Some(vec![Some(0.5)]),
            None,
            Some(vec![Some(1.5), None]),
        ]);
        let cast = declared(lists.slice(1, 2), ValueType::FloatList).unwrap();
        assert_eq!(*cast.data_type(), ValueType::FloatList.arrow_type());
        assert_eq!(cast.as_list::<i32>().value(1).len(), 2);
        assert!(cast.is_null(0));
    }

    #[test]
    fn opaque_types_keep_the_type_of_the_source() {
        let kept = declared(StringArray::from(vec!["{}"]), ValueType::Map).unwrap();
        assert_eq!(*kept.data_type(), DataType::Utf8);
    }
}
