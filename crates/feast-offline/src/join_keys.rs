//! Join keys of both sides brought to one type, and a number for each distinct key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast, cast_with_options, max, min};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Int64Type};
use arrow::row::{RowConverter, SortField};
use feast_core::{Result, timestamp_type};
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use crate::cast::cast_to;
use crate::timestamps::{is_text, is_time, micros_array, to_micros};

/// Stands for the key of a row that has none, because one of its join keys is null.
pub(crate) const NO_KEY: u32 = u32::MAX;
/// Numbers for each row at most, where integers are their own numbers: about what a hash table would take.
const MOST_SPREAD: usize = 4;

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
    Integer(IntegerTable),
    /// A single column of texts.
    Text(BytesTable),
    /// Anything else, as rows of bytes that are equal when the keys are.
    Rows(RowConverter, BytesTable),
}

impl KeyTable {
    /// A table for key columns of these types, each from [`common_type`].
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Self(match types {
            [] => Kind::One { seen: false },
            [DataType::Int64] => Kind::Integer(IntegerTable::default()),
            [DataType::Utf8] => Kind::Text(BytesTable::default()),
            types => {
                let fields = types.iter().cloned().map(SortField::new).collect();
                Kind::Rows(RowConverter::new(fields)?, BytesTable::default())
            }
        }))
    }

    /// How many distinct keys there are.
    pub(crate) fn len(&self) -> usize {
        match &self.0 {
            Kind::One { seen } => usize::from(*seen),
            Kind::Integer(table) => table.n_keys as usize,
            Kind::Text(table) | Kind::Rows(_, table) => table.ends.len(),
        }
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        match &self.0 {
            Kind::One { .. } => 0,
            Kind::Integer(table) => table.buckets.capacity() * size_of::<Bucket>(),
            Kind::Text(table) | Kind::Rows(_, table) => table.size(),
        }
    }

    /// Appends a hash of each row's key, the same for the same key as long as the table lives.
    pub(crate) fn hash(&self, columns: &[ArrayRef], n_rows: usize, out: &mut Vec<u32>) -> Result<()> {
        match &self.0 {
            Kind::One { .. } => out.resize(out.len() + n_rows, 0),
            Kind::Integer(_) => {
                out.extend(columns[0].as_primitive::<Int64Type>().values().iter().map(|key| upper(*key)))
            }
            Kind::Text(table) => {
                let keys = columns[0].as_string::<i32>();
                out.extend(keys.iter().map(|key| table.hash(key.unwrap_or_default().as_bytes())));
            }
            Kind::Rows(converter, table) => {
                out.extend(converter.convert_columns(columns)?.iter().map(|key| table.hash(key.data())));
            }
        }
        Ok(())
    }

    /// Drops all keys but those of the hashes wanted, and numbers the rest anew: returns their former numbers.
    pub(crate) fn retain(&mut self, wanted: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut kept = Vec::new();
        match &mut self.0 {
            Kind::One { .. } => kept.extend(0..self.len() as u32),
            Kind::Integer(table) => {
                for bucket in std::mem::take(table).buckets.into_iter().filter(|bucket| bucket.number != NO_KEY) {
                    if wanted(upper(bucket.key)) {
                        table.insert(bucket.key);
                        kept.push(bucket.number);
                    }
                }
            }
            Kind::Text(table) | Kind::Rows(_, table) => {
                let empty = BytesTable { hasher: table.hasher.clone(), ..BytesTable::default() };
                let former = std::mem::replace(table, empty);
                for number in 0..former.ends.len() as u32 {
                    let key = stored(&former.bytes, &former.ends, number);
                    if wanted(table.hash(key)) {
                        table.insert(key);
                        kept.push(number);
                    }
                }
            }
        }
        kept
    }

    /// Appends the number of each row's key, giving new keys new numbers.
    pub(crate) fn number(&mut self, columns: &[ArrayRef], n_rows: usize, out: &mut Vec<u32>) -> Result<()> {
        match &mut self.0 {
            Kind::One { seen } => {
                *seen |= n_rows > 0;
                out.resize(out.len() + n_rows, 0);
            }
            Kind::Integer(table) => {
                let keys = columns[0].as_primitive::<Int64Type>();
                match keys.null_count() {
                    0 => out.extend(keys.values().iter().map(|key| table.insert(*key))),
                    _ => out.extend(keys.iter().map(|key| key.map_or(NO_KEY, |key| table.insert(key)))),
                }
            }
            Kind::Text(table) => {
                let keys = columns[0].as_string::<i32>();
                out.extend(keys.iter().map(|key| key.map_or(NO_KEY, |key| table.insert(key.as_bytes()))));
            }
            Kind::Rows(converter, table) => {
                let rows = converter.convert_columns(columns)?;
                for (row, key) in rows.iter().enumerate() {
                    let is_null = columns.iter().any(|column| column.is_null(row));
                    out.push(if is_null { NO_KEY } else { table.insert(key.data()) });
                }
            }
        }
        Ok(())
    }

    /// Appends the number of each row's key, [`NO_KEY`] for keys that are not in the table.
    fn find(&self, columns: &[ArrayRef], n_rows: usize, out: &mut Vec<u32>) -> Result<()> {
        match &self.0 {
            Kind::One { seen } => out.resize(out.len() + n_rows, if *seen { 0 } else { NO_KEY }),
            Kind::Integer(table) => {
                let keys = columns[0].as_primitive::<Int64Type>();
                match keys.null_count() {
                    0 => out.extend(keys.values().iter().map(|key| table.find(*key))),
                    _ => out.extend(keys.iter().map(|key| key.map_or(NO_KEY, |key| table.find(key)))),
                }
            }
            Kind::Text(table) => {
                let keys = columns[0].as_string::<i32>();
                out.extend(keys.iter().map(|key| key.map_or(NO_KEY, |key| table.find(key.as_bytes()))));
            }
            Kind::Rows(converter, table) => {
                let rows = converter.convert_columns(columns)?;
                // A key with a null was never put in, so it is not found either.
                out.extend(rows.iter().map(|key| table.find(key.data())));
            }
        }
        Ok(())
    }
}

/// Numbers keys that are all there from the beginning, and finds them again.
pub(crate) enum KeyIndex {
    /// Integers so dense that their distance from the least of them is their number. Some numbers have no key.
    Dense {
        least: i64,
        n_keys: u32,
    },
    Table(KeyTable),
}

impl KeyIndex {
    /// The index of the keys in these batches, and the number of each row's key, one after the other.
    ///
    /// `batches` holds the key columns batch by batch with their rows, in the types given, each from [`common_type`].
    pub(crate) fn new(types: &[DataType], batches: &[(usize, Vec<ArrayRef>)]) -> Result<(Self, Vec<u32>)> {
        let mut numbers = Vec::with_capacity(batches.iter().map(|(n_rows, _)| n_rows).sum());
        if let Some(index) = Self::dense(types, batches) {
            for (n_rows, columns) in batches {
                index.find(columns, *n_rows, &mut numbers)?;
            }
            return Ok((index, numbers));
        }
        let mut table = KeyTable::new(types)?;
        for (n_rows, columns) in batches {
            table.number(columns, *n_rows, &mut numbers)?;
        }
        Ok((Self::Table(table), numbers))
    }

    fn dense(types: &[DataType], batches: &[(usize, Vec<ArrayRef>)]) -> Option<Self> {
        let [DataType::Int64] = types else { return None };
        let keys = || batches.iter().map(|(_, columns)| columns[0].as_primitive::<Int64Type>());
        let least = keys().filter_map(min).min()?;
        let n_keys = keys().filter_map(max).max()?.abs_diff(least).checked_add(1)?;
        let n_rows: usize = batches.iter().map(|(n_rows, _)| n_rows).sum();
        let n_keys =
            u32::try_from(n_keys).ok().filter(|n_keys| *n_keys as usize <= n_rows.saturating_mul(MOST_SPREAD))?;
        Some(Self::Dense { least, n_keys }).filter(|_| n_keys < NO_KEY)
    }

    /// All numbers are less.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Dense { n_keys, .. } => *n_keys as usize,
            Self::Table(table) => table.len(),
        }
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Dense { .. } => 0,
            Self::Table(table) => table.size(),
        }
    }

    /// Appends the number of each row's key, [`NO_KEY`] for keys that are not in the index.
    pub(crate) fn find(&self, columns: &[ArrayRef], n_rows: usize, out: &mut Vec<u32>) -> Result<()> {
        let (least, n_keys) = match self {
            Self::Dense { least, n_keys } => (*least, u64::from(*n_keys)),
            Self::Table(table) => return table.find(columns, n_rows, out),
        };
        let find = |key: i64| {
            // What is less than the least wraps around to far away.
            let distance = key.wrapping_sub(least) as u64;
            if distance < n_keys { distance as u32 } else { NO_KEY }
        };
        let keys = columns[0].as_primitive::<Int64Type>();
        match keys.null_count() {
            0 => out.extend(keys.values().iter().map(|key| find(*key))),
            _ => out.extend(keys.iter().map(|key| key.map_or(NO_KEY, find))),
        }
        Ok(())
    }
}

/// Integers by open addressing: a key and its number lie side by side, so that a look-up touches one place in memory.
#[derive(Default)]
struct IntegerTable {
    /// A power of two, at least twice as many as there are keys; none before the first key.
    buckets: Vec<Bucket>,
    n_keys: u32,
}

#[derive(Clone, Copy)]
struct Bucket {
    key: i64,
    /// [`NO_KEY`] where nothing is.
    number: u32,
}

impl IntegerTable {
    const LEAST_BUCKETS: usize = 16;

    #[inline]
    fn insert(&mut self, key: i64) -> u32 {
        if self.buckets.len() < 2 * (self.n_keys as usize + 1) {
            self.grow();
        }
        let at = self.place(key);
        let bucket = &mut self.buckets[at];
        if bucket.number == NO_KEY {
            *bucket = Bucket { key, number: self.n_keys };
            self.n_keys += 1;
        }
        bucket.number
    }

    #[inline]
    fn find(&self, key: i64) -> u32 {
        if self.buckets.is_empty() { NO_KEY } else { self.buckets[self.place(key)].number }
    }

    /// The bucket of a key, or the free one where it belongs.
    #[inline]
    fn place(&self, key: i64) -> usize {
        let mask = self.buckets.len() - 1;
        let mut at = spread(key) & mask;
        loop {
            let bucket = &self.buckets[at];
            if bucket.key == key || bucket.number == NO_KEY {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let n_buckets = (2 * self.buckets.len()).max(Self::LEAST_BUCKETS);
        // A free bucket may hold any key: its number says that it is free.
        let free = vec![Bucket { key: 0, number: NO_KEY }; n_buckets];
        for bucket in std::mem::replace(&mut self.buckets, free).into_iter().filter(|bucket| bucket.number != NO_KEY) {
            let at = self.place(bucket.key);
            self.buckets[at] = bucket;
        }
    }
}

/// Spreads keys over all bits; keys of real data are dense, or multiples of something.
#[inline]
fn spread(key: i64) -> usize {
    let product = u128::from(key as u64 ^ 0x9E37_79B9_7F4A_7C15) * 0xD1B5_4A32_D192_ED03;
    (product as u64 ^ (product >> 64) as u64) as usize
}

/// The upper half of the hash of a key; buckets are told apart by the lower half.
fn upper(key: i64) -> u32 {
    (spread(key) as u64 >> 32) as u32
}

/// Keys of any length.
#[derive(Default)]
struct BytesTable {
    hasher: DefaultHashBuilder,
    numbers: HashTable<u32>,
    /// Key `i` is `bytes[ends[i - 1]..ends[i]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
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

    fn hash(&self, key: &[u8]) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }

    fn size(&self) -> usize {
        self.numbers.allocation_size() + self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
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

    #[test]
    fn dense_integers_are_their_own_numbers_and_others_are_not() {
        let keys = |keys: Vec<Option<i64>>| -> Vec<ArrayRef> { vec![Arc::new(Int64Array::from(keys))] };
        let index = |batches: &[Vec<Option<i64>>]| {
            let batches: Vec<_> = batches.iter().map(|batch| (batch.len(), keys(batch.clone()))).collect();
            KeyIndex::new(&[DataType::Int64], &batches).unwrap()
        };
        let found = |index: &KeyIndex, sought: Vec<Option<i64>>| {
            let mut numbers = Vec::new();
            index.find(&keys(sought.clone()), sought.len(), &mut numbers).unwrap();
            numbers
        };
        let (dense, numbers) = index(&[vec![Some(-3), None, Some(4)], vec![Some(-2), Some(-3)]]);
        assert!(matches!(dense, KeyIndex::Dense { least: -3, n_keys: 8 }));
        assert_eq!(numbers, [0, NO_KEY, 7, 1, 0]);
        let sought = vec![Some(4), Some(5), Some(-4), None, Some(i64::MIN), Some(i64::MAX)];
        assert_eq!(found(&dense, sought), [7, NO_KEY, NO_KEY, NO_KEY, NO_KEY, NO_KEY]);
        let (sparse, numbers) = index(&[vec![Some(i64::MIN), Some(i64::MAX), None], vec![Some(0)]]);
        assert!(matches!(sparse, KeyIndex::Table(_)));
        assert_eq!(numbers, [0, 1, NO_KEY, 2]);
        assert_eq!(found(&sparse, vec![Some(0), Some(1), None]), [2, NO_KEY, NO_KEY]);
        let (none, numbers) = index(&[vec![None]]);
        assert_eq!((none.len(), numbers), (0, vec![NO_KEY]));
    }

    #[test]
    fn integers_keep_their_numbers_while_the_table_grows() {
        let mut table = KeyTable::new(&[DataType::Int64]).unwrap();
        let keys: ArrayRef =
            Arc::new(Int64Array::from_iter_values((0..5000).map(|key| (key - 2500) << 40).chain([0, i64::MIN])));
        let (mut numbers, mut found) = (Vec::new(), Vec::new());
        table.find(&[Arc::clone(&keys)], 5002, &mut found).unwrap();
        assert!(found.iter().all(|number| *number == NO_KEY));
        table.number(&[Arc::clone(&keys)], 5002, &mut numbers).unwrap();
        assert_eq!(numbers[..5000], (0..5000).collect::<Vec<u32>>());
        assert_eq!(numbers[5000..], [2500, 5000]);
        found.clear();
        table.find(&[keys], 5002, &mut found).unwrap();
        assert_eq!((found, table.len()), (numbers, 5001));
    }
}
