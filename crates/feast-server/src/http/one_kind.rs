//! Lists of JSON straight into columns, where all values of a list are of one kind, as they nearly always are.
//!
//! Whatever else there is, an integer among numbers with fractions included, is left to who takes values one by one.

use std::borrow::Cow;
use std::fmt;

use feast_online::{PlainColumn, PlainRows};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::body::Text;

/// An object of lists, each of values of one kind and not empty; at most `most_values` of them altogether.
pub(super) struct ColumnsOfOneKind {
    pub(super) most_values: usize,
    /// Whether there may be nulls among the values.
    pub(super) nulls_allowed: bool,
}

impl<'de> DeserializeSeed<'de> for ColumnsOfOneKind {
    type Value = PlainRows<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ColumnsOfOneKind {
    type Value = PlainRows<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of lists")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut left = self.most_values;
        let mut columns: Vec<(Cow<'de, str>, PlainColumn<'de>)> = Vec::with_capacity(16);
        while let Some(name) = members.next_key_seed(Text)? {
            // As a rule, columns are equally long.
            let n_rows = columns.first().map_or(1, |(_, first)| first.len());
            let seed = ColumnOfOneKind { left: &mut left, nulls_allowed: self.nulls_allowed, n_rows };
            columns.push((name, members.next_value_seed(seed)?));
        }
        Ok(PlainRows(columns))
    }
}

struct ColumnOfOneKind<'l> {
    left: &'l mut usize,
    nulls_allowed: bool,
    n_rows: usize,
}

impl<'de> DeserializeSeed<'de> for ColumnOfOneKind<'_> {
    type Value = PlainColumn<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ColumnOfOneKind<'_> {
    type Value = PlainColumn<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values of one kind")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut column = Column { values: None, nulls_allowed: self.nulls_allowed, n_nulls: 0 };
        while items.next_element_seed(Cell { column: &mut column, n_rows: self.n_rows })?.is_some() {
            *self.left = self.left.checked_sub(1).ok_or_else(|| A::Error::custom("too many values"))?;
        }
        column.values.ok_or_else(|| A::Error::custom("no value"))
    }
}

/// A column that grows; its kind is that of its first value.
struct Column<'de> {
    values: Option<PlainColumn<'de>>,
    nulls_allowed: bool,
    /// Nulls before the first value.
    n_nulls: usize,
}

/// The next value of a column that may become `n_rows` long.
struct Cell<'c, 'de> {
    column: &'c mut Column<'de>,
    n_rows: usize,
}

/// Appends a value to a column of its kind.
macro_rules! append {
    ($cell:expr, $kind:ident, $value:expr) => {{
        let Cell { column, n_rows } = $cell;
        match &mut column.values {
            Some(PlainColumn::$kind(values)) => values.push(Some($value)),
            Some(_) => return Err(E::custom("values of several kinds")),
            None => {
                let mut values = Vec::with_capacity(n_rows.max(column.n_nulls + 1));
                values.resize(column.n_nulls, None);
                values.push(Some($value));
                column.values = Some(PlainColumn::$kind(values));
            }
        }
        Ok(())
    }};
}

impl<'de> DeserializeSeed<'de> for Cell<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Cell<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text, a truth value or null")
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        append!(self, Integers, value)
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_i64(i64::try_from(value).map_err(E::custom)?)
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        append!(self, Floats, value)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        append!(self, Truths, value)
    }
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<(), E> {
        append!(self, Texts, Cow::Borrowed(value))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        append!(self, Texts, Cow::Owned(value.to_owned()))
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if !self.column.nulls_allowed {
            return Err(E::custom("a null"));
        }
        match &mut self.column.values {
            None => self.column.n_nulls += 1,
            Some(PlainColumn::Integers(values)) => values.push(None),
            Some(PlainColumn::Floats(values)) => values.push(None),
            Some(PlainColumn::Truths(values)) => values.push(None),
            Some(PlainColumn::Texts(values)) => values.push(None),
        }
        Ok(())
    }
}
