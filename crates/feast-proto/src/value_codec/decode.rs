//! From serialized messages to a column of the declared type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, ListBuilder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use feast_core::{Error, Result, ValueType, timestamp_type};

use super::columns::{Booleans, Numbers, Strings};
use super::nested::check_opaque;
use super::one::{bool_of, double_of, float_of, int32_of, int64_of};
use super::wire::{
    LENGTH, Raw, boolean, integer, is_text, micros, mismatch, number, read_items, read_value, text, wire_of,
};

/// Turns `Value` messages of one feature into a column of its declared type.
///
/// Rows are pushed in order. After an error the decoder is of no use any more.
#[derive(Debug)]
pub struct ColumnDecoder {
    value_type: ValueType,
    column: Column,
}

/// Columns are moved a few times, lists are rare, and large without their boxes.
#[derive(Debug)]
pub(super) enum Column {
    Bytes(Strings),
    Text(Strings),
    Int32(Numbers<Int32Type>),
    Int64(Numbers<Int64Type>),
    Double(Numbers<Float64Type>),
    Float(Numbers<Float32Type>),
    Bool(Booleans),
    Timestamp(Numbers<TimestampMicrosecondType>),
    BytesList(Box<ListBuilder<BinaryBuilder>>),
    TextList(Box<ListBuilder<StringBuilder>>),
    Int32List(Box<ListBuilder<Int32Builder>>),
    Int64List(Box<ListBuilder<Int64Builder>>),
    DoubleList(Box<ListBuilder<Float64Builder>>),
    FloatList(Box<ListBuilder<Float32Builder>>),
    BoolList(Box<ListBuilder<BooleanBuilder>>),
    TimestampList(Box<ListBuilder<TimestampMicrosecondBuilder>>),
    Opaque(Strings),
}

impl ColumnDecoder {
    /// A decoder for values declared as `value_type`, with room for `capacity` rows.
    pub fn new(value_type: ValueType, capacity: usize) -> Self {
        use ValueType as T;
        let micros = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        let column = match value_type {
            T::Bytes => Column::Bytes(Strings::with_capacity(capacity)),
            T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal => Column::Text(Strings::with_capacity(capacity)),
            T::Int32 => Column::Int32(Numbers::with_capacity(capacity)),
            T::Int64 => Column::Int64(Numbers::with_capacity(capacity)),
            T::Double => Column::Double(Numbers::with_capacity(capacity)),
            T::Float => Column::Float(Numbers::with_capacity(capacity)),
            T::Bool => Column::Bool(Booleans::with_capacity(capacity)),
            T::UnixTimestamp => Column::Timestamp(Numbers::with_capacity(capacity)),
            _ => match value_type.item() {
                None => Column::Opaque(Strings::with_capacity(capacity)),
                Some(T::Bytes) => {
                    Column::BytesList(Box::new(ListBuilder::with_capacity(BinaryBuilder::new(), capacity)))
                }
                Some(T::Int32) => {
                    Column::Int32List(Box::new(ListBuilder::with_capacity(Int32Builder::new(), capacity)))
                }
                Some(T::Int64) => {
                    Column::Int64List(Box::new(ListBuilder::with_capacity(Int64Builder::new(), capacity)))
                }
                Some(T::Double) => {
                    Column::DoubleList(Box::new(ListBuilder::with_capacity(Float64Builder::new(), capacity)))
                }
                Some(T::Float) => {
                    Column::FloatList(Box::new(ListBuilder::with_capacity(Float32Builder::new(), capacity)))
                }
                Some(T::Bool) => {
                    Column::BoolList(Box::new(ListBuilder::with_capacity(BooleanBuilder::new(), capacity)))
                }
                Some(T::UnixTimestamp) => {
                    Column::TimestampList(Box::new(ListBuilder::with_capacity(micros(), capacity)))
                }
                Some(_) => Column::TextList(Box::new(ListBuilder::with_capacity(StringBuilder::new(), capacity))),
            },
        };
        Self { value_type, column }
    }

    /// Adds a row without a value.
    pub fn push_null(&mut self) {
        match &mut self.column {
            Column::Bytes(column) | Column::Text(column) | Column::Opaque(column) => column.append_null(),
            Column::Int32(column) => column.append_null(),
            Column::Int64(column) => column.append_null(),
            Column::Double(column) => column.append_null(),
            Column::Float(column) => column.append_null(),
            Column::Bool(column) => column.append_null(),
            Column::Timestamp(column) => column.append_null(),
            Column::BytesList(column) => column.append_null(),
            Column::TextList(column) => column.append_null(),
            Column::Int32List(column) => column.append_null(),
            Column::Int64List(column) => column.append_null(),
            Column::DoubleList(column) => column.append_null(),
            Column::FloatList(column) => column.append_null(),
            Column::BoolList(column) => column.append_null(),
            Column::TimestampList(column) => column.append_null(),
        }
    }

    /// Adds a row from a serialized `Value`; zero bytes are null.
    ///
    /// A value of another type is converted where that keeps its meaning: between widths of numbers (an integer must
    /// fit), from integers to floating point numbers, between types kept as text, between lists and sets.
    ///
    /// # Errors
    /// `InvalidRequest` when the bytes are malformed or of a type that does not convert.
    pub fn push(&mut self, cell: &[u8]) -> Result<()> {
        // Nearly all values are of the declared type.
        macro_rules! append {
            ($column:ident, $value:expr) => {
                if let Some(value) = $value {
                    $column.append_value(value);
                    return Ok(());
                }
            };
        }
        match &mut self.column {
            Column::Int64(column) => append!(column, int64_of(cell)),
            Column::Int32(column) => append!(column, int32_of(cell)),
            Column::Double(column) => append!(column, double_of(cell)),
            Column::Float(column) => append!(column, float_of(cell)),
            Column::Bool(column) => append!(column, bool_of(cell)),
            _ => {}
        }
        let Some((stored, raw)) = read_value(cell)? else {
            self.push_null();
            return Ok(());
        };
        let wanted = self.value_type;
        let mismatch = || mismatch(stored, wanted);
        // The body and the element type of a stored list.
        let list = || match (stored.item(), raw) {
            (Some(item), Raw::Length(body)) => Ok((item, body)),
            _ => Err(mismatch()),
        };
        match &mut self.column {
            Column::Opaque(builder) => {
                check_opaque(cell, wanted)?;
                builder.append_value(cell)?;
            }
            Column::Bytes(builder) => match (stored, raw) {
                (ValueType::Bytes, Raw::Length(bytes)) => builder.append_value(bytes)?,
                _ => return Err(mismatch()),
            },
            Column::Text(builder) => match raw {
                Raw::Length(bytes) if is_text(stored) => builder.append_value(bytes)?,
                _ => return Err(mismatch()),
            },
            Column::Int32(builder) => {
                let value = integer(stored, raw).ok_or_else(mismatch)?;
                builder.append_value(i32::try_from(value).map_err(|_| mismatch().with_context("value", value))?);
            }
            Column::Int64(builder) => builder.append_value(integer(stored, raw).ok_or_else(mismatch)?),
            Column::Double(builder) => builder.append_value(number(stored, raw).ok_or_else(mismatch)?),
            Column::Float(builder) => builder.append_value(number(stored, raw).ok_or_else(mismatch)? as f32),
            Column::Bool(builder) => builder.append_value(boolean(stored, raw).ok_or_else(mismatch)?),
            Column::Timestamp(builder) => match micros(integer(stored, raw).ok_or_else(mismatch)?)? {
                Some(micros) => builder.append_value(micros),
                None => builder.append_null(),
            },
            Column::BytesList(builder) => {
                let (item, body) = list()?;
                read_items(body, item, |raw| match (item, raw) {
                    (ValueType::Bytes, Raw::Length(bytes)) => {
                        builder.values().append_value(bytes);
                        Ok(())
                    }
                    _ => Err(mismatch()),
                })?;
                // An empty list of another type has no element to complain about.
                if item != ValueType::Bytes {
                    return Err(mismatch());
                }
                builder.append(true);
            }
            Column::TextList(builder) => {
                let (item, body) = list()?;
                if wire_of(item) != LENGTH || item == ValueType::Bytes {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    builder.values().append_value(text(item, raw)?.ok_or_else(mismatch)?);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::Int32List(builder) => {
                let (item, body) = list()?;
                if !matches!(item, ValueType::Int32 | ValueType::Int64 | ValueType::UnixTimestamp) {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    let value = integer(item, raw).ok_or_else(mismatch)?;
                    let value = i32::try_from(value).map_err(|_| mismatch().with_context("value", value))?;
                    builder.values().append_value(value);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::Int64List(builder) => {
                let (item, body) = list()?;
                if !matches!(item, ValueType::Int32 | ValueType::Int64 | ValueType::UnixTimestamp) {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    builder.values().append_value(integer(item, raw).ok_or_else(mismatch)?);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::DoubleList(builder) => {
                let (item, body) = numbers(list()?, mismatch)?;
                read_items(body, item, |raw| {
                    builder.values().append_value(number(item, raw).ok_or_else(mismatch)?);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::FloatList(builder) => {
                let (item, body) = numbers(list()?, mismatch)?;
                read_items(body, item, |raw| {
                    builder.values().append_value(number(item, raw).ok_or_else(mismatch)? as f32);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::BoolList(builder) => {
                let (item, body) = list()?;
                if item != ValueType::Bool {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    builder.values().append_value(boolean(item, raw).ok_or_else(mismatch)?);
                    Ok(())
                })?;
                builder.append(true);
            }
            Column::TimestampList(builder) => {
                let (item, body) = list()?;
                if !matches!(item, ValueType::Int32 | ValueType::Int64 | ValueType::UnixTimestamp) {
                    return Err(mismatch());
                }
                read_items(body, item, |raw| {
                    builder.values().append_option(micros(integer(item, raw).ok_or_else(mismatch)?)?);
                    Ok(())
                })?;
                builder.append(true);
            }
        }
        Ok(())
    }

    /// The column, of the Arrow type of the declared value type.
    ///
    /// # Errors
    /// `InvalidRequest` for a text that is not UTF-8.
    pub fn finish(self) -> Result<ArrayRef> {
        Ok(match self.column {
            Column::Bytes(bytes) | Column::Opaque(bytes) => bytes.finish_bytes(),
            Column::Text(texts) => texts.finish_texts()?,
            Column::Int32(numbers) => Arc::new(numbers.finish()),
            Column::Int64(numbers) => Arc::new(numbers.finish()),
            Column::Double(numbers) => Arc::new(numbers.finish()),
            Column::Float(numbers) => Arc::new(numbers.finish()),
            Column::Bool(truths) => truths.finish(),
            Column::Timestamp(micros) => Arc::new(micros.finish().with_data_type(timestamp_type())),
            Column::BytesList(mut lists) => Arc::new(lists.finish()),
            Column::TextList(mut lists) => Arc::new(lists.finish()),
            Column::Int32List(mut lists) => Arc::new(lists.finish()),
            Column::Int64List(mut lists) => Arc::new(lists.finish()),
            Column::DoubleList(mut lists) => Arc::new(lists.finish()),
            Column::FloatList(mut lists) => Arc::new(lists.finish()),
            Column::BoolList(mut lists) => Arc::new(lists.finish()),
            Column::TimestampList(mut lists) => Arc::new(lists.finish()),
        })
    }
}

pub(super) fn numbers(list: (ValueType, &[u8]), mismatch: impl Fn() -> Error) -> Result<(ValueType, &[u8])> {
    use ValueType as T;
    match list.0 {
        T::Int32 | T::Int64 | T::Float | T::Double => Ok(list),
        _ => Err(mismatch()),
    }
}
