//! Cells of the stores that keep one row per entity and feature: what they keep of a value beside its bytes, and the way
//! from rows in any order to columns.

use std::borrow::Cow;
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type};
use feast_core::{Field, OnlineRead, OnlineRows, Result, ValueType};
use feast_proto::value_codec::{ColumnDecoder, encode_column};
use hashbrown::HashMap;

use crate::write::record_batch;

/// One feature of a write.
pub(super) struct WriteColumn<'a> {
    pub(super) field: &'a Field,
    pub(super) array: ArrayRef,
    pub(super) cells: BinaryArray,
    /// The values as Python prints them: texts, numbers and truth values only.
    texts: Option<StringArray>,
}

impl<'a> WriteColumn<'a> {
    pub(super) fn new(field: &'a Field, array: ArrayRef) -> Result<Self> {
        let cells =
            encode_column(&array, field.value_type).map_err(|error| error.with_context("feature", &field.name))?;
        let texts = texts(&array, field.value_type);
        Ok(Self { field, array, cells, texts })
    }

    /// The value as Python prints it.
    pub(super) fn text(&self, row: usize) -> Option<&str> {
        self.texts.as_ref().filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row))
    }

    pub(super) fn number(&self, row: usize) -> Option<f64> {
        if self.array.is_null(row) {
            return None;
        }
        match self.field.value_type {
            ValueType::Int32 => Some(f64::from(self.array.as_primitive::<Int32Type>().value(row))),
            ValueType::Int64 => Some(self.array.as_primitive::<Int64Type>().value(row) as f64),
            ValueType::Float => Some(f64::from(self.array.as_primitive::<Float32Type>().value(row))),
            ValueType::Double => Some(self.array.as_primitive::<Float64Type>().value(row)),
            ValueType::Bool => Some(f64::from(u8::from(self.array.as_boolean().value(row)))),
            _ => None,
        }
    }
}

/// The features that a read wants, each of them once.
pub(super) struct Wanted<'a> {
    read: &'a OnlineRead<'a>,
    /// Their names; the position of a name is its slot.
    pub(super) names: Vec<&'a str>,
    slots: HashMap<&'a str, usize>,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(read: &'a OnlineRead<'a>) -> Self {
        let (mut names, mut slots) = (Vec::with_capacity(read.wanted.positions.len()), HashMap::new());
        for field in read.wanted.fields() {
            let name = field.name.as_str();
            slots.entry(name).or_insert_with(|| {
                names.push(name);
                names.len() - 1
            });
        }
        Self { read, names, slots }
    }

    /// Cells for each key and slot, all empty.
    pub(super) fn grid<T>(&self) -> Grid<T> {
        let cells = self.read.keys.len() * self.names.len();
        let times = vec![None; self.read.keys.len()];
        Grid { cells: std::iter::repeat_with(|| None).take(cells).collect(), times }
    }

    /// Keeps a cell that the store has for the key at `row`. Names that are not wanted are ignored.
    pub(super) fn keep<T>(&self, grid: &mut Grid<T>, row: usize, name: &str, event_micros: i64, cell: T) {
        self.keep_time(grid, row, event_micros);
        if let Some(slot) = self.slots.get(name) {
            grid.cells[row * self.names.len() + slot] = Some(cell);
        }
    }

    /// Keeps that the store has the key at `row`, perhaps without a value.
    pub(super) fn keep_time<T>(&self, grid: &mut Grid<T>, row: usize, event_micros: i64) {
        if let Some(time) = grid.times.get_mut(row) {
            *time = (*time).max(Some(event_micros));
        }
    }

    /// The columns. `bytes` gives the serialized value of a cell.
    pub(super) fn finish<'g, T>(&self, grid: &'g Grid<T>, bytes: impl Fn(&'g T) -> &'g [u8]) -> Result<OnlineRows> {
        let n_keys = self.read.keys.len();
        let fields = self.read.wanted.fields();
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields.clone() {
            let slot = self.slots[field.name.as_str()];
            let mut column = ColumnDecoder::new(field.value_type, n_keys);
            for row in 0..n_keys {
                match &grid.cells[row * self.names.len() + slot] {
                    None => column.push_null(),
                    Some(cell) => column.push(bytes(cell)).map_err(|error| {
                        error
                            .with_context("feature", &field.name)
                            .with_context("feature view", &self.read.wanted.table.view)
                    })?,
                }
            }
            columns.push(column.finish()?);
        }
        let times = TimestampMicrosecondArray::from(grid.times.clone()).with_timezone("UTC");
        Ok(OnlineRows { values: record_batch(fields, columns, n_keys)?, event_timestamps: times })
    }
}

/// What a store has for the keys of a read.
pub(super) struct Grid<T> {
    cells: Vec<Option<T>>,
    times: Vec<Option<i64>>,
}

/// Values as Python prints them, where Feast keeps them as texts too.
fn texts(array: &ArrayRef, value_type: ValueType) -> Option<StringArray> {
    use std::fmt::Write;
    let print: &dyn Fn(&mut StringBuilder, usize) -> fmt::Result = match value_type {
        ValueType::String => return Some(array.as_string().clone()),
        ValueType::Int32 => &|out, row| write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
        ValueType::Int64 => &|out, row| write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
        ValueType::Float => &|out, row| python_float(out, f64::from(array.as_primitive::<Float32Type>().value(row))),
        ValueType::Double => &|out, row| python_float(out, array.as_primitive::<Float64Type>().value(row)),
        ValueType::Bool => &|out, row| out.write_str(if array.as_boolean().value(row) { "True" } else { "False" }),
        _ => return None,
    };
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 12);
    for row in 0..array.len() {
        // Writing to memory does not fail.
        if array.is_null(row) || print(&mut texts, row).is_err() {
            texts.append_null();
        } else {
            texts.append_value("");
        }
    }
    Some(texts.finish())
}

/// A floating point number as Python's `str` writes it.
pub(super) fn python_float(out: &mut impl fmt::Write, value: f64) -> fmt::Result {
    if value.is_nan() {
        return out.write_str("nan");
    }
    if value.is_infinite() {
        return out.write_str(if value > 0.0 { "inf" } else { "-inf" });
    }
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        return write!(out, "{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', Cow::Borrowed(exponent)),
        None => ('+', Cow::Borrowed(exponent)),
    };
    write!(out, "{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_texts_as_in_python() {
        let cases = [
            (0.5, "0.5"),
            (3.0, "3.0"),
            (-0.0, "-0.0"),
            (f64::from(0.3f32), "0.30000001192092896"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1.2e-5, "1.2e-05"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (value, expected) in cases {
            let mut text = String::new();
            assert!(python_float(&mut text, value).is_ok());
            assert_eq!(text, expected);
        }
    }
}
