//! The wire format: tags, numbers and lengths, written and read by hand.

use feast_core::{Error, Result, ValueType};

use super::MISSING_TIMESTAMP;

/// The tag of a field with its length on the wire.
#[derive(Clone, Copy)]
pub(super) struct Tag {
    bytes: [u8; 2],
    pub(super) len: usize,
}

impl Tag {
    pub(super) fn new(field: u32, wire: u32) -> Self {
        let tag = field << 3 | wire;
        if tag < 0x80 {
            Self { bytes: [tag as u8, 0], len: 1 }
        } else {
            Self { bytes: [(tag & 0x7f) as u8 | 0x80, (tag >> 7) as u8], len: 2 }
        }
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.len]);
    }

    pub(super) fn put_varint(self, out: &mut Vec<u8>, value: u64) {
        self.put(out);
        put_varint(out, value);
    }

    pub(super) fn put_fixed(self, out: &mut Vec<u8>, value: &[u8]) {
        self.put(out);
        out.extend_from_slice(value);
    }

    pub(super) fn put_bytes(self, out: &mut Vec<u8>, value: &[u8]) {
        self.put(out);
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }

    /// A message whose length is known only after it was written.
    pub(super) fn put_message(self, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        self.put(out);
        let start = out.len();
        body(out)?;
        let end = out.len();
        put_varint(out, (end - start) as u64);
        out[start..].rotate_left(end - start);
        Ok(())
    }
}

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const FIXED32: u32 = 5;

/// How a single value of a type travels; lists, sets and nested values are messages.
pub(super) fn wire_of(value_type: ValueType) -> u32 {
    use ValueType as T;
    match value_type {
        T::Int32 | T::Int64 | T::Bool | T::UnixTimestamp | T::Null => VARINT,
        T::Double => FIXED64,
        T::Float => FIXED32,
        _ => LENGTH,
    }
}

/// The number of a type is the number of its field in `Value`.
pub(super) fn tag_of(value_type: ValueType) -> Tag {
    Tag::new(value_type as u32, wire_of(value_type))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The payload of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Length(&'a [u8]),
}

/// Reads the fields of one message.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

pub(super) fn malformed(what: &'static str) -> Error {
    Error::invalid_request("the bytes of a value are malformed")
        .with_context("found", what)
        .with_hint("materialize the feature view again, which replaces what the online store holds")
}

impl<'a> Reader<'a> {
    pub(super) fn varint(&mut self) -> Result<u64> {
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

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("a field that ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| malformed("a field that ends too early"))
    }

    pub(super) fn raw(&mut self, wire: u32) -> Result<Raw<'a>> {
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
    pub(super) fn field(&mut self) -> Result<Option<(u32, Raw<'a>)>> {
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
#[inline]
pub(super) fn read_value(bytes: &[u8]) -> Result<Option<(ValueType, Raw<'_>)>> {
    match only_member(bytes) {
        Some(found) => Ok(Some(found)),
        None => read_members(bytes),
    }
}

/// The member of a value as nearly all are: one, with a tag of one byte, and short. `None` for any other, also for one
/// that is malformed.
#[inline]
fn only_member(bytes: &[u8]) -> Option<(ValueType, Raw<'_>)> {
    let (tag @ 8..0x80, rest) = bytes.split_first().map(|(tag, rest)| (*tag, rest))? else { return None };
    let value_type = ValueType::from_number(i32::from(tag >> 3))?;
    let raw = match u32::from(tag & 7) {
        VARINT if (1..10).contains(&rest.len()) => {
            let mut value = 0;
            for (position, byte) in rest.iter().enumerate() {
                if (byte & 0x80 == 0) != (position + 1 == rest.len()) {
                    return None;
                }
                value |= u64::from(byte & 0x7f) << (7 * position);
            }
            Raw::Varint(value)
        }
        FIXED64 => Raw::Fixed64(rest.try_into().ok()?),
        FIXED32 => Raw::Fixed32(rest.try_into().ok()?),
        LENGTH => {
            let (length, body) = rest.split_first()?;
            if *length >= 0x80 || usize::from(*length) != body.len() {
                return None;
            }
            Raw::Length(body)
        }
        _ => return None,
    };
    (wire_of(value_type) == u32::from(tag & 7)).then_some((value_type, raw))
}

fn read_members(bytes: &[u8]) -> Result<Option<(ValueType, Raw<'_>)>> {
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
pub(super) fn read_items<'a>(
    body: &'a [u8],
    item: ValueType,
    mut each: impl FnMut(Raw<'a>) -> Result<()>,
) -> Result<()> {
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

pub(super) fn mismatch(stored: ValueType, wanted: ValueType) -> Error {
    Error::invalid_request(format!("a value of type {stored} was found where {wanted} is declared"))
        .with_hint("materialize the view again after changing the type of a feature")
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| malformed("a text that is not UTF-8"))
}

/// Integers of any width, and timestamps as their seconds.
pub(super) fn integer(stored: ValueType, raw: Raw<'_>) -> Option<i64> {
    match (stored, raw) {
        (ValueType::Int32, Raw::Varint(value)) => Some(i64::from(value as i32)),
        (ValueType::Int64 | ValueType::UnixTimestamp, Raw::Varint(value)) => Some(value as i64),
        _ => None,
    }
}

pub(super) fn number(stored: ValueType, raw: Raw<'_>) -> Option<f64> {
    match (stored, raw) {
        (ValueType::Double, Raw::Fixed64(bytes)) => Some(f64::from_le_bytes(bytes)),
        (ValueType::Float, Raw::Fixed32(bytes)) => Some(f64::from(f32::from_le_bytes(bytes))),
        (ValueType::Int32 | ValueType::Int64, raw) => integer(stored, raw).map(|value| value as f64),
        _ => None,
    }
}

pub(super) fn boolean(stored: ValueType, raw: Raw<'_>) -> Option<bool> {
    match (stored, raw) {
        (ValueType::Bool, Raw::Varint(value)) => Some(value != 0),
        _ => None,
    }
}

/// Types whose values are kept as text.
pub(super) fn is_text(value_type: ValueType) -> bool {
    use ValueType as T;
    matches!(value_type, T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal)
}

pub(super) fn text<'a>(stored: ValueType, raw: Raw<'a>) -> Result<Option<&'a str>> {
    match raw {
        Raw::Length(bytes) if is_text(stored) => utf8(bytes).map(Some),
        _ => Ok(None),
    }
}

/// Microseconds; `None` for Feast's missing timestamp.
pub(super) fn micros(seconds: i64) -> Result<Option<i64>> {
    if seconds == MISSING_TIMESTAMP {
        return Ok(None);
    }
    seconds.checked_mul(1_000_000).map(Some).ok_or_else(|| malformed("a timestamp that is out of range"))
}

/// Members of `Value` and of `MapKey` that mean the same.
pub(super) const MAP_KEYS: [(ValueType, u32); 10] = [
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_only_member_is_what_the_long_way_finds(
            tag in 0u8..=0x85,
            rest in prop::collection::vec(prop_oneof![Just(0u8), 0u8..12, any::<u8>()], 0..12),
        ) {
            let bytes = [&[tag][..], &rest].concat();
            if let Some(found) = only_member(&bytes) {
                prop_assert_eq!(read_members(&bytes).unwrap(), Some(found));
            }
        }
    }

    #[test]
    fn ordinary_values_need_no_long_way() {
        let values: [&[u8]; 5] = [&[0x20, 7], &[0x20, 0xff, 1], &[0x12, 1, b'a'], &[0x12, 0], &[0x3d, 0, 0, 0, 0]];
        assert_eq!(values.map(|bytes| only_member(bytes).is_some()), [true, true, true, true, false]);
        assert!(only_member(&[0x35, 0, 0, 0, 0]).is_some() && only_member(&[0x29, 0, 0, 0, 0, 0, 0, 0, 0]).is_some());
    }
}
