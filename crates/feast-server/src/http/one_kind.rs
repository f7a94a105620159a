//! Lists of JSON straight into Arrow columns, where all values of a list are of one kind, as they nearly always are.
//!
//! Whatever else there is, an integer among numbers with fractions included, is left to who takes values one by one.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// An object of lists, each of values of one kind and not empty; at most `most_values` of them altogether.
pub(super) struct ColumnsOfOneKind {
    pub(super) most_values: usize,
    /// Whether there may be nulls among the values.
    pub(super) nulls_allowed: bool,
}

impl<'de> DeserializeSeed<'de> for ColumnsOfOneKind {
    type Value = Vec<(String, ArrayRef)>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ColumnsOfOneKind {
    type Value = Vec<(String, ArrayRef)>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of lists")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut left = self.most_values;
        let mut columns = Vec::with_capacity(8);
        while let Some(name) = members.next_key::<String>()? {
            // As a rule, columns are equally long.
            let n_rows = columns.first().map_or(0, |(_, first): &(String, ArrayRef)| first.len());
            let seed = ColumnOfOneKind { left: &mut left, nulls_allowed: self.nulls_allowed, n_rows };
            columns.push((name, members.next_value_seed(seed)?));
        }
        Ok(columns)
    }
}

struct ColumnOfOneKind<'l> {
    left: &'l mut usize,
    nulls_allowed: bool,
    n_rows: usize,
}

impl<'de> DeserializeSeed<'de> for ColumnOfOneKind<'_> {
    type Value = ArrayRef;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ColumnOfOneKind<'_> {
    type Value = ArrayRef;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values of one kind")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut column = Column { kind: Kind::Unknown, nulls_allowed: self.nulls_allowed, n_nulls: 0 };
        while items.next_element_seed(Cell { column: &mut column, n_rows: self.n_rows })?.is_some() {
            *self.left = self.left.checked_sub(1).ok_or_else(|| A::Error::custom("too many values"))?;
        }
        column.finish().ok_or_else(|| A::Error::custom("no value"))
    }
}

/// A column that grows; its kind is that of its first value.
struct Column {
    kind: Kind,
    nulls_allowed: bool,
    /// Nulls before the first value.
    n_nulls: usize,
}

enum Kind {
    Unknown,
    Integers(Int64Builder),
    Floats(Float64Builder),
    Truths(BooleanBuilder),
    Texts(StringBuilder),
}

impl Column {
    fn finish(self) -> Option<ArrayRef> {
        Some(match self.kind {
            Kind::Unknown => return None,
            Kind::Integers(mut integers) => Arc::new(integers.finish()),
            Kind::Floats(mut floats) => Arc::new(floats.finish()),
            Kind::Truths(mut truths) => Arc::new(truths.finish()),
            Kind::Texts(mut texts) => Arc::new(texts.finish()),
        })
    }
}

/// The next value of a column that may become `n_rows` long.
struct Cell<'c> {
    column: &'c mut Column,
    n_rows: usize,
}

/// Appends a value to a column of its kind.
macro_rules! append {
    ($cell:expr, $kind:ident, $new:expr, $value:expr) => {{
        let Cell { column, n_rows } = $cell;
        match &mut column.kind {
            Kind::$kind(values) => values.append_value($value),
            Kind::Unknown => {
                let mut values = $new(n_rows);
                values.append_nulls(column.n_nulls);
                values.append_value($value);
                column.kind = Kind::$kind(values);
            }
            _ => return Err(E::custom("values of several kinds")),
        }
        Ok(())
    }};
}

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Cell<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text, a truth value or null")
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        append!(self, Integers, Int64Builder::with_capacity, value)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_i64(i64::try_from(value).map_err(E::custom)?)
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        append!(self, Floats, Float64Builder::with_capacity, value)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        append!(self, Truths, BooleanBuilder::with_capacity, value)
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        append!(self, Texts, |n_rows| StringBuilder::with_capacity(n_rows, n_rows * value.len()), value)
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if !self.column.nulls_allowed {
            return Err(E::custom("a null"));
        }
        match &mut self.column.kind {
            Kind::Unknown => self.column.n_nulls += 1,
            Kind::Integers(values) => values.append_null(),
            Kind::Floats(values) => values.append_null(),
            Kind::Truths(values) => values.append_null(),
            Kind::Texts(values) => values.append_null(),
        }
        Ok(())
    }
}
