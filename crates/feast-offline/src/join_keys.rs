//! Join keys of both sides brought to one type, and a number for each distinct key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Int64Type};
use arrow::row::{RowConverter, SortField};
use feast_core::{Result, timestamp_type};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher;

use crate::cast::cast_to;
use crate::timestamps::{is_text, is_time, micros_array, to_micros};

/// Stands for the key of a row that has none, because one of its join keys is null.
pub(crate) const NO_KEY: u32 = u32::MAX;

/// The type in which keys of two types are compared without loss; `None` where there is none.
pub(crate) fn common_type(left: &DataType, right: &DataType) -> Option<DataType> {
    let (left, right) = (plain(left), plain(right));
    let binary = |t: &DataType| {
        matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
    };
    let decimal = |t: &DataType| match t {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => Some(*scale),
        _ => None,
    };
    Some(match (left, right) {
        (DataType::Null, DataType::Null) => DataType::Int64,
        (DataType::Null, other) | (other, DataType::Null) => return common_type(other, other),
        (DataType::UInt64, DataType::UInt64) => DataType::UInt64,
        (l, r) if l.is_integer() && r.is_integer() => DataType::Int64,
        (l, r) if l.is_floating() && r.is_floating() => DataType::Float64,
        (l, r) if (l.is_floating() || l.is_integer()) && (r.is_floating() || r.is_integer()) => DataType::Int64,
        (l, r) if is_text(l) && is_text(r) => DataType::Utf8,
        (l, r) if binary(l) && binary(r) => DataType::Binary,
        (l, r) if is_time(l) && is_time(r) => timestamp_type(),
        (DataType::Boolean, DataType::Boolean) => DataType::Boolean,
        (l, r) => match (decimal(l), decimal(r)) {
            (Some(l), Some(r)) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, l.max(r)),
            (Some(0), None) if r.is_integer() => DataType::Int64,
            (None, Some(0)) if l.is_integer() => DataType::Int64,
            _ => return None,
        },
    })
}

/// The type of the values behind a dictionary.
fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => plain(value),
        other => other,
    }
}

/// A key column in the type of [`common_type`]. Values outside its range become null: they equal nothing.
pub(crate) fn canonical(array: &ArrayRef, target: &DataType, of: &str) -> Result<ArrayRef> {
    let from = array.data_type();
    if from == target {
        return Ok(Arc::clone(array));
    }
    if let DataType::Dictionary(_, value) = from {
        return canonical(&cast(array, value)?, target, of);
    }
    if *target == timestamp_type() {
        return to_micros(array, of).map(micros_array);
    }
    if from.is_floating() && target.is_integer() {
        return cast_to(array, target, of);
    }
    Ok(cast_with_options(array, target, &CastOptions { safe: true, ..CastOptions::default() })?)
}

/// Numbers the distinct keys it is shown: 0, 1, 2, ...
pub(crate) struct KeyTable(Kind);

enum Kind {
    /// No key columns: all rows are of one entity.
    One { seen: bool },
    /// A single integer column.
    Integer(HashMap<i64, u32>),
    /// Anything else, as rows of bytes that are equal when the keys are.
    Bytes(BytesTable),
}

struct BytesTable {
    converter: RowConverter,
    hasher: DefaultHashBuilder,
    numbers: HashTable<u32>,
    /// Key `i` is `bytes[ends[i - 1]..ends[i]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyTable {
    /// A table for key columns of these types, each from [`common_type`].
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Self(match types {
            [] => Kind::One { seen: false },
            [DataType::Int64] => Kind::Integer(HashMap::new()),
            types => Kind::Bytes(BytesTable {
                converter: RowConverter::new(types.iter().cloned().map(SortField::new).collect())?,
                hasher: DefaultHashBuilder::default(),
                numbers: HashTable::new(),
                bytes: Vec::new(),
                ends: Vec::new(),
            }),
        }))
    }

    /// How many distinct keys there are.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Kind::One { seen } => usize::from(*seen),
            Kind::Integer(numbers) => numbers.len(),
            Kind::Bytes(table) => table.ends.len(),
        }
    }

    /// Appends the number of each row's key, giving new keys new numbers.
    pub(crate) fn number(&mut self, columns: &[ArrayRef], n_rows: usize, out: &mut Vec<u32>) -> Result<()> {
        match &mut self.0 {
            Kind::One { seen } => {
                *seen = true;
                out.resize(out.len() + n_rows, 0);
            }
            Kind::Integer(numbers) => {
                let keys = columns[0].as_primitive::<Int64Type>();
                out.extend(keys.iter().map(|key| {
                    let next = numbers.len() as u32;
                    key.map_or(NO_KEY, |key| *numbers.entry(key).or_insert(next))
                }));
            }
            Kind::Bytes(table) => {
                let rows = table.converter.convert_columns(columns)?;
                for (row, key) in rows.iter().enumerate() {
                    if columns.iter().any(|column| column.is_null(row)) {
                        out.push(NO_KEY);
                        continue;
                    }
                    out.push(table.insert(key.data()));
                }
            }
        }
        Ok(())
    }

    /// Appends the number of each row's key, [`NO_KEY`] for keys that are not in the table.
    pub(crate) fn find(&self, columns: &[ArrayRef], n_rows: usize, out: &mut Vec<u32>) -> Result<()> {
        match &self.0 {
            Kind::One { seen } => out.resize(out.len() + n_rows, if *seen { 0 } else { NO_KEY }),
            Kind::Integer(numbers) => {
                let keys = columns[0].as_primitive::<Int64Type>();
                let number = |key: &i64| numbers.get(key).copied().unwrap_or(NO_KEY);
                match keys.null_count() {
                    0 => out.extend(keys.values().iter().map(number)),
                    _ => out.extend(keys.iter().map(|key| key.as_ref().map_or(NO_KEY, number))),
                }
            }
            Kind::Bytes(table) => {
                let rows = table.converter.convert_columns(columns)?;
                // A key with a null was never put in, so it is not found either.
                out.extend(rows.iter().map(|key| table.find(key.data())));
            }
        }
        Ok(())
    }
}

impl BytesTable {
    fn insert(&mut self, key: &[u8]) -> u32 {
        let (bytes, ends, hasher) = (&mut self.bytes, &mut self.ends, &self.hasher);
        let entry = self.numbers.entry(
            hasher.hash_one(key),
            |number| stored(bytes, ends, *number) == key,
            |number| hasher.hash_one(stored(bytes, ends, *number)),
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(known) => *known.get(),
            hashbrown::hash_table::Entry::Vacant(free) => {
                let number = ends.len() as u32;
                free.insert(number);
                bytes.extend_from_slice(key);
                ends.push(bytes.len());
                number
            }
        }
    }

    fn find(&self, key: &[u8]) -> u32 {
        let same = |number: &u32| stored(&self.bytes, &self.ends, *number) == key;
        self.numbers.find(self.hasher.hash_one(key), same).copied().unwrap_or(NO_KEY)
    }
}

fn stored<'a>(bytes: &'a [u8], ends: &[usize], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = if number == 0 { 0 } else { ends[number - 1] };
    &bytes[start..ends[number]]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray, UInt64Array};

    use super::*;

    #[test]
    fn integers_of_any_width_meet_and_text_does_not_meet_numbers() {
        assert_eq!(common_type(&DataType::Int32, &DataType::UInt64), Some(DataType::Int64));
        assert_eq!(common_type(&DataType::Float64, &DataType::Int64), Some(DataType::Int64));
        assert_eq!(common_type(&DataType::LargeUtf8, &DataType::Utf8View), Some(DataType::Utf8));
        assert_eq!(common_type(&DataType::Utf8, &DataType::Int64), None);
        let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1]));
        let keys = canonical(&large, &DataType::Int64, "column").unwrap();
        assert_eq!(keys.as_primitive::<Int64Type>(), &Int64Array::from(vec![None, Some(1)]));
        let fraction: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        assert!(canonical(&fraction, &DataType::Int64, "column").is_err());
    }

    #[test]
    fn equal_keys_get_equal_numbers_and_nulls_none() {
        let mut table = KeyTable::new(&[DataType::Int32, DataType::Utf8]).unwrap();
        let columns: [ArrayRef; 2] = [
            Arc::new(Int32Array::from(vec![Some(1), Some(11), Some(1), None])),
            Arc::new(StringArray::from(vec!["11", "1", "11", "11"])),
        ];
        let mut numbers = Vec::new();
        table.number(&columns, 4, &mut numbers).unwrap();
        assert_eq!(numbers, [0, 1, 0, NO_KEY]);
        let mut found = Vec::new();
        table.find(&columns, 4, &mut found).unwrap();
        assert_eq!(found, numbers);
        assert_eq!(table.len(), 2);
    }
}
