//! Entity keys: the distinct keys of a request or a write, and the bytes by which stores know them.
//!
//! The layout is Feast's entity key serialization, version 3: `u32` number of join keys, then for each join key in
//! order of its name `u32 2 · u32 length · name`, then for each value in the same order
//! `u32 type · u32 length · payload`. All integers are little-endian. Version 2 has neither the number of keys nor
//! the lengths of the names; versions 0 and 1 write `INT64` in four bytes on top of that.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit};

use crate::{Error, ErrorCode, Field, Result, Scalar, ValueType};

/// The serialization version written by default.
pub const ENTITY_KEY_VERSION: u8 = 3;

/// Entity keys as join key columns and as the bytes stores use; row `i` of both is key `i`.
#[derive(Debug, Clone)]
pub struct EntityKeys {
    /// One column per join key, in the order given to the encoder.
    pub columns: RecordBatch,
    /// The serialized key of each row; never null.
    pub encoded: BinaryArray,
}

impl EntityKeys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.encoded.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Serializes rows of join key columns.
#[derive(Debug, Clone)]
pub struct EntityKeyEncoder {
    join_keys: Vec<Field>,
    /// Positions of `join_keys` in order of their names.
    order: Vec<usize>,
    prefix: Vec<u8>,
    version: u8,
}

impl EntityKeyEncoder {
    /// An encoder for these join keys.
    ///
    /// # Errors
    /// `InvalidDefinition` when a join key has a type that cannot identify a row, or a name occurs twice.
    pub fn new(join_keys: &[Field], version: u8) -> Result<Self> {
        for key in join_keys {
            if type_tag(key.value_type).is_none() {
                return Err(Error::invalid_definition(format!(
                    "join key `{}` has type {}, which cannot identify an entity",
                    key.name, key.value_type
                ))
                .with_hint("use STRING, BYTES, INT32, INT64 or UNIX_TIMESTAMP"));
            }
        }
        let mut order: Vec<usize> = (0..join_keys.len()).collect();
        order.sort_by(|a, b| join_keys[*a].name.cmp(&join_keys[*b].name));
        if let Some(pair) = order.windows(2).find(|pair| join_keys[pair[0]].name == join_keys[pair[1]].name) {
            return Err(Error::invalid_definition(format!("join key `{}` occurs twice", join_keys[pair[0]].name))
                .with_hint("list each entity once, and give entities of one view different join keys"));
        }
        let names: Vec<&str> = order.iter().map(|i| join_keys[*i].name.as_str()).collect();
        Ok(Self { join_keys: join_keys.to_vec(), prefix: prefix(&names, version), order, version })
    }

    /// The join keys in the order in which [`encode`](Self::encode) expects their columns.
    pub fn join_keys(&self) -> &[Field] {
        &self.join_keys
    }

    /// What all keys start with: the names of the join keys.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Serializes every row of `columns`, which holds one column per join key in the order of
    /// [`join_keys`](Self::join_keys), of the Arrow type of its value type.
    ///
    /// # Errors
    /// `MissingJoinKey` when a value is null, `InvalidRequest` when a column has another type or a value does not fit
    /// into the version.
    pub fn encode(&self, columns: RecordBatch) -> Result<EntityKeys> {
        if columns.num_columns() != self.join_keys.len() {
            return Err(Error::internal(format!(
                "{} key columns were given for {} join keys",
                columns.num_columns(),
                self.join_keys.len()
            )));
        }
        for (key, column) in self.join_keys.iter().zip(columns.columns()) {
            if column.data_type() != &key.value_type.arrow_type() {
                return Err(Error::invalid_request(format!(
                    "join key `{}` is {}, but its column is {}",
                    key.name,
                    key.value_type,
                    column.data_type()
                ))
                .with_hint(format!("convert the column to {}", key.value_type.arrow_type())));
            }
            if let Some(row) = (column.null_count() > 0).then(|| (0..column.len()).find(|row| column.is_null(*row))) {
                return Err(Error::new(
                    ErrorCode::MissingJoinKey,
                    format!("join key `{}` is null in row {}", key.name, row.unwrap_or_default()),
                )
                .with_hint("every row needs a value for each join key"));
            }
        }
        if self.version < 2 {
            self.check_narrow(&columns)?;
        }
        let n_rows = columns.num_rows();
        let mut bytes = Vec::with_capacity(n_rows * (self.prefix.len() + 16 * self.order.len()));
        let mut ends = Vec::with_capacity(n_rows + 1);
        ends.push(0);
        for row in 0..n_rows {
            bytes.extend_from_slice(&self.prefix);
            for position in &self.order {
                let value_type = self.join_keys[*position].value_type;
                push_value(&mut bytes, columns.column(*position), value_type, row, self.version);
            }
            ends.push(i32::try_from(bytes.len()).map_err(|_| {
                Error::invalid_request("the entity keys of one batch exceed 2 GiB")
                    .with_hint("use fewer rows at a time")
            })?);
        }
        let encoded = BinaryArray::new(OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes), None);
        Ok(EntityKeys { columns, encoded })
    }

    /// Appends the key whose values are those that `value` gives for the positions of
    /// [`join_keys`](Self::join_keys), as [`encode`](Self::encode) makes it. `None` unless each is a value of its type
    /// as it is: then `encode` has to convert it, or to say what is wrong with it.
    pub fn put_key<'v>(&self, key: &mut Vec<u8>, value: impl Fn(usize) -> Option<Scalar<'v>>) -> Option<()> {
        if self.version < 2 {
            return None;
        }
        key.extend_from_slice(&self.prefix);
        for position in &self.order {
            let value_type = self.join_keys[*position].value_type;
            key.extend_from_slice(&type_tag(value_type)?.to_le_bytes());
            match (value_type, value(*position)?) {
                (ValueType::Int64, Scalar::Integer(number)) => push_payload(key, &number.to_le_bytes()),
                (ValueType::Int32, Scalar::Integer(number)) => {
                    push_payload(key, &i32::try_from(number).ok()?.to_le_bytes());
                }
                (ValueType::String, Scalar::Text(text)) => push_payload(key, text.as_bytes()),
                _ => return None,
            }
        }
        Some(())
    }

    /// Versions 0 and 1 have four bytes for an `INT64`; cutting it would make two entities one.
    fn check_narrow(&self, columns: &RecordBatch) -> Result<()> {
        for (key, column) in self.join_keys.iter().zip(columns.columns()) {
            let integers = column.as_primitive_opt::<Int64Type>();
            let wide = integers.and_then(|column| column.values().iter().find(|value| i32::try_from(**value).is_err()));
            if let Some(value) = wide {
                return Err(Error::invalid_request(format!(
                    "join key `{}` is {value}, which version {} of the entity key serialization cannot hold",
                    key.name, self.version
                ))
                .with_hint("set `entity_key_serialization_version: 3` and materialize again"));
            }
        }
        Ok(())
    }
}

/// The bytes that all keys with these join keys start with.
fn prefix(sorted_names: &[&str], version: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if version > 2 {
        push_u32(&mut bytes, sorted_names.len());
    }
    for name in sorted_names {
        push_u32(&mut bytes, ValueType::String as usize);
        if version > 2 {
            push_u32(&mut bytes, name.len());
        }
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes
}

fn push_u32(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

/// The tag of a type that can be part of a key.
fn type_tag(value_type: ValueType) -> Option<u32> {
    match value_type {
        ValueType::Bytes | ValueType::String | ValueType::Int32 | ValueType::Int64 | ValueType::UnixTimestamp => {
            Some(value_type as u32)
        }
        // Kept as text in their columns, and as text they identify a row.
        ValueType::Uuid | ValueType::TimeUuid => Some(ValueType::String as u32),
        _ => None,
    }
}

fn push_value(key: &mut Vec<u8>, column: &ArrayRef, value_type: ValueType, row: usize, version: u8) {
    key.extend_from_slice(&type_tag(value_type).unwrap_or_default().to_le_bytes());
    match column.data_type() {
        DataType::Utf8 => push_payload(key, column.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => push_payload(key, column.as_binary::<i32>().value(row)),
        DataType::Int32 => push_payload(key, &column.as_primitive::<Int32Type>().value(row).to_le_bytes()),
        DataType::Int64 => {
            let value = column.as_primitive::<Int64Type>().value(row);
            match version {
                0 | 1 => push_payload(key, &(value as i32).to_le_bytes()),
                _ => push_payload(key, &value.to_le_bytes()),
            }
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros =
                column.as_any().downcast_ref::<TimestampMicrosecondArray>().map_or(0, |array| array.value(row));
            push_payload(key, &micros.div_euclid(1_000_000).to_le_bytes());
        }
        other => unreachable!("`encode` checked the types of the key columns, found {other}"),
    }
}

fn push_payload(key: &mut Vec<u8>, payload: &[u8]) {
    push_u32(key, payload.len());
    key.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringArray};

    use super::*;

    fn encode(keys: &[(&str, ValueType, ArrayRef)], version: u8) -> Result<String> {
        let fields: Vec<Field> = keys.iter().map(|(name, value_type, _)| Field::new(*name, *value_type)).collect();
        let batch =
            RecordBatch::try_from_iter(keys.iter().map(|(name, _, column)| (*name, Arc::clone(column)))).unwrap();
        let keys = EntityKeyEncoder::new(&fields, version)?.encode(batch)?;
        Ok(keys.encoded.value(0).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    #[test]
    fn keys_are_feasts_bytes() {
        let int64 = |value| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        let string = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let cases = [
            (
                vec![("driver_id", ValueType::Int64, int64(1001))],
                "0100000002000000090000006472697665725f69640400000008000000e903000000000000",
            ),
            (
                vec![("driver_id", ValueType::Int32, Arc::new(Int32Array::from(vec![1001])) as ArrayRef)],
                "0100000002000000090000006472697665725f69640300000004000000e9030000",
            ),
            (
                vec![("zip", ValueType::String, string("94107")), ("driver_id", ValueType::Int64, int64(5))],
                "0200000002000000090000006472697665725f696402000000030000007a697004000000080000000500000000000000\
                 02000000050000003934313037",
            ),
            (
                vec![("__dummy_id", ValueType::String, string(""))],
                "01000000020000000a0000005f5f64756d6d795f69640200000000000000",
            ),
        ];
        for (keys, expected) in cases {
            assert_eq!(encode(&keys, 3).unwrap(), expected);
        }
        let old = vec![("driver_id", ValueType::Int64, int64(1001))];
        assert_eq!(encode(&old, 2).unwrap(), "020000006472697665725f69640400000008000000e903000000000000");
    }

    #[test]
    fn null_keys_and_wrong_types_are_refused() {
        let null = Arc::new(Int64Array::from(vec![None])) as ArrayRef;
        let error = encode(&[("driver_id", ValueType::Int64, null)], 3).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MissingJoinKey);
        let int = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
        assert!(encode(&[("driver_id", ValueType::String, Arc::clone(&int))], 3).is_err());
        assert!(encode(&[("driver_id", ValueType::Double, int)], 3).is_err());
        let wide = Arc::new(Int64Array::from(vec![(1 << 32) + 1])) as ArrayRef;
        assert!(encode(&[("driver_id", ValueType::Int64, Arc::clone(&wide))], 2).is_ok());
        assert!(encode(&[("driver_id", ValueType::Int64, wide)], 1).is_err());
    }
}
