//! One value of a declared type, for who needs no column of them. `None` is any other value, null included, and one that
//! is malformed: [`ColumnDecoder`](super::ColumnDecoder) says what it is.

use feast_core::ValueType;

use super::wire::{Raw, is_text, read_value, wire_of};

/// The bytes behind the tag of a value of this type.
#[inline(always)]
fn behind_tag(value_type: ValueType, cell: &[u8]) -> Option<&[u8]> {
    let tag = (value_type as u32) << 3 | wire_of(value_type);
    match cell.split_first() {
        Some((first, rest)) if u32::from(*first) == tag && tag < 0x80 => Some(rest),
        _ => None,
    }
}

#[cold]
fn otherwise(value_type: ValueType, cell: &[u8]) -> Option<Raw<'_>> {
    read_value(cell).ok().flatten().filter(|(stored, _)| *stored == value_type).map(|(_, raw)| raw)
}

/// The number of a whole number, of a time in seconds or of a truth value.
#[inline(always)]
fn varint(value_type: ValueType, cell: &[u8]) -> Option<u64> {
    let found = behind_tag(value_type, cell).and_then(|rest| match rest {
        [byte @ ..0x80] => Some(u64::from(*byte)),
        [bytes @ .., last @ ..0x80] if bytes.len() < 9 => {
            let mut value = 0;
            for (position, byte) in bytes.iter().enumerate() {
                if *byte < 0x80 {
                    return None;
                }
                value |= u64::from(byte & 0x7f) << (7 * position);
            }
            Some(value | u64::from(*last) << (7 * bytes.len()))
        }
        _ => None,
    });
    found.or_else(|| match otherwise(value_type, cell)? {
        Raw::Varint(value) => Some(value),
        _ => None,
    })
}

/// A number of type `INT32`.
#[inline]
pub fn int32_of(cell: &[u8]) -> Option<i32> {
    varint(ValueType::Int32, cell).map(|value| value as i32)
}

/// A number of type `INT64`.
#[inline]
pub fn int64_of(cell: &[u8]) -> Option<i64> {
    varint(ValueType::Int64, cell).map(|value| value as i64)
}

/// A truth value.
#[inline]
pub fn bool_of(cell: &[u8]) -> Option<bool> {
    varint(ValueType::Bool, cell).map(|value| value != 0)
}

/// A number of type `DOUBLE`.
#[inline]
pub fn double_of(cell: &[u8]) -> Option<f64> {
    match behind_tag(ValueType::Double, cell).and_then(|rest| rest.try_into().ok()) {
        Some(bytes) => Some(f64::from_le_bytes(bytes)),
        None => match otherwise(ValueType::Double, cell)? {
            Raw::Fixed64(bytes) => Some(f64::from_le_bytes(bytes)),
            _ => None,
        },
    }
}

/// A number of type `FLOAT`.
#[inline]
pub fn float_of(cell: &[u8]) -> Option<f32> {
    match behind_tag(ValueType::Float, cell).and_then(|rest| rest.try_into().ok()) {
        Some(bytes) => Some(f32::from_le_bytes(bytes)),
        None => match otherwise(ValueType::Float, cell)? {
            Raw::Fixed32(bytes) => Some(f32::from_le_bytes(bytes)),
            _ => None,
        },
    }
}

/// A value of a type that is kept as text.
#[inline]
pub fn text_of(value_type: ValueType, cell: &[u8]) -> Option<&str> {
    if !is_text(value_type) {
        return None;
    }
    let text = match behind_tag(value_type, cell) {
        Some([length @ ..0x80, text @ ..]) if usize::from(*length) == text.len() => text,
        _ => match otherwise(value_type, cell)? {
            Raw::Length(text) => text,
            _ => return None,
        },
    };
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray,
    };
    use proptest::prelude::*;

    use super::super::encode_column;
    use super::super::wire::{boolean, integer, number, text};
    use super::*;

    fn encoded(column: impl Array + 'static, value_type: ValueType) -> BinaryArray {
        encode_column(&(Arc::new(column) as ArrayRef), value_type).unwrap()
    }

    #[test]
    fn values_come_back() {
        let integers = [0, 1, -1, 127, 128, 300, i64::MAX, i64::MIN, 1 << 62];
        let cells = encoded(Int64Array::from(integers.to_vec()), ValueType::Int64);
        assert!(integers.into_iter().eq((0..9).map(|row| int64_of(cells.value(row)).unwrap())));
        let integers = [0, -1, i32::MAX, i32::MIN];
        let cells = encoded(Int32Array::from(integers.to_vec()), ValueType::Int32);
        assert!(integers.into_iter().eq((0..4).map(|row| int32_of(cells.value(row)).unwrap())));
        let cells = encoded(BooleanArray::from(vec![true, false]), ValueType::Bool);
        assert_eq!([0, 1].map(|row| bool_of(cells.value(row))), [Some(true), Some(false)]);
        let cells = encoded(Float64Array::from(vec![0.1, -0.0]), ValueType::Double);
        assert_eq!([0, 1].map(|row| double_of(cells.value(row))), [Some(0.1), Some(-0.0)]);
        let cells = encoded(Float32Array::from(vec![0.1, 3.0]), ValueType::Float);
        assert_eq!([0, 1].map(|row| float_of(cells.value(row))), [Some(0.1), Some(3.0)]);
        let texts = ["", "a", &"é".repeat(63), &"é".repeat(64), &"x".repeat(70_000)];
        for value_type in [ValueType::String, ValueType::Json, ValueType::Uuid, ValueType::Decimal] {
            let cells = encoded(StringArray::from(texts.to_vec()), value_type);
            assert!(texts.into_iter().eq((0..5).map(|row| text_of(value_type, cells.value(row)).unwrap())));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn one_value_is_what_the_long_way_finds(
            tag in prop_oneof![Just(0x12u8), Just(0x18), Just(0x20), Just(0x29), Just(0x35), Just(0x38), any::<u8>()],
            rest in prop::collection::vec(prop_oneof![Just(0u8), 0u8..12, any::<u8>()], 0..13),
        ) {
            let cell = [&[tag][..], &rest].concat();
            let found = |value_type| read_value(&cell).ok().flatten().filter(|(stored, _)| *stored == value_type);
            let whole = |value_type| found(value_type).and_then(|(stored, raw)| integer(stored, raw));
            let part = |value_type| found(value_type).and_then(|(stored, raw)| number(stored, raw));
            prop_assert_eq!(int64_of(&cell), whole(ValueType::Int64));
            prop_assert_eq!(int32_of(&cell), whole(ValueType::Int32).map(|value| value as i32));
            prop_assert_eq!(bool_of(&cell), found(ValueType::Bool).and_then(|(stored, raw)| boolean(stored, raw)));
            prop_assert_eq!(double_of(&cell).map(f64::to_bits), part(ValueType::Double).map(f64::to_bits));
            let narrow = part(ValueType::Float).map(|value| (value as f32).is_nan() || float_of(&cell) == Some(value as f32));
            prop_assert_eq!(float_of(&cell).is_some(), narrow.is_some());
            prop_assert_ne!(narrow, Some(false));
            let long = found(ValueType::String).and_then(|(stored, raw)| text(stored, raw).ok().flatten());
            prop_assert_eq!(text_of(ValueType::String, &cell), long);
        }
    }
}
