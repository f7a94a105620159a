//! From serialized messages to a column of the declared type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, ListBuilder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use feast_core::{Error, Result, ValueType};

use super::nested::check_opaque;
use super::wire::{LENGTH, Raw, boolean, integer, micros, mismatch, number, read_items, read_value, text, wire_of};
/// Turns `Value` messages of one feature into a column of its declared type.
///
/// Rows are pushed in order. After an error the decoder is of no use any more.
#[derive(Debug)]
pub struct ColumnDecoder {
    value_type: ValueType,
    column: Column,
}

#[derive(Debug)]
pub(super) enum Column {
    Bytes(BinaryBuilder),
    Text(StringBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Double(Float64Builder),
    Float(Float32Builder),
    Bool(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    BytesList(ListBuilder<BinaryBuilder>),
    TextList(ListBuilder<StringBuilder>),
    Int32List(ListBuilder<Int32Builder>),
    Int64List(ListBuilder<Int64Builder>),
    DoubleList(ListBuilder<Float64Builder>),
    FloatList(ListBuilder<Float32Builder>),
    BoolList(ListBuilder<BooleanBuilder>),
    TimestampList(ListBuilder<TimestampMicrosecondBuilder>),
    Opaque(BinaryBuilder),
}

/// The same for every kind of column.
macro_rules! for_column {
    ($column:expr, $builder:ident => $do:expr) => {
        match $column {
            Column::Bytes($builder) => $do,
            Column::Text($builder) => $do,
            Column::Int32($builder) => $do,
            Column::Int64($builder) => $do,
            Column::Double($builder) => $do,
            Column::Float($builder) => $do,
            Column::Bool($builder) => $do,
            Column::Timestamp($builder) => $do,
            Column::BytesList($builder) => $do,
            Column::TextList($builder) => $do,
            Column::Int32List($builder) => $do,
            Column::Int64List($builder) => $do,
            Column::DoubleList($builder) => $do,
            Column::FloatList($builder) => $do,
            Column::BoolList($builder) => $do,
            Column::TimestampList($builder) => $do,
            Column::Opaque($builder) => $do,
        }
    };
}

impl ColumnDecoder {
    /// A decoder for values declared as `value_type`, with room for `capacity` rows.
    pub fn new(value_type: ValueType, capacity: usize) -> Self {
        use ValueType as T;
        let micros = |capacity| TimestampMicrosecondBuilder::with_capacity(capacity).with_timezone("UTC");
        let column = match value_type {
            T::Bytes => Column::Bytes(BinaryBuilder::with_capacity(capacity, 0)),
            T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal => {
                Column::Text(StringBuilder::with_capacity(capacity, 0))
            }
            T::Int32 => Column::Int32(Int32Builder::with_capacity(capacity)),
            T::Int64 => Column::Int64(Int64Builder::with_capacity(capacity)),
            T::Double => Column::Double(Float64Builder::with_capacity(capacity)),
            T::Float => Column::Float(Float32Builder::with_capacity(capacity)),
            T::Bool => Column::Bool(BooleanBuilder::with_capacity(capacity)),
            T::UnixTimestamp => Column::Timestamp(micros(capacity)),
            _ => match value_type.item() {
                None => Column::Opaque(BinaryBuilder::with_capacity(capacity, 0)),
                Some(T::Bytes) => Column::BytesList(ListBuilder::with_capacity(BinaryBuilder::new(), capacity)),
                Some(T::Int32) => Column::Int32List(ListBuilder::with_capacity(Int32Builder::new(), capacity)),
                Some(T::Int64) => Column::Int64List(ListBuilder::with_capacity(Int64Builder::new(), capacity)),
                Some(T::Double) => Column::DoubleList(ListBuilder::with_capacity(Float64Builder::new(), capacity)),
                Some(T::Float) => Column::FloatList(ListBuilder::with_capacity(Float32Builder::new(), capacity)),
                Some(T::Bool) => Column::BoolList(ListBuilder::with_capacity(BooleanBuilder::new(), capacity)),
                Some(T::UnixTimestamp) => Column::TimestampList(ListBuilder::with_capacity(micros(0), capacity)),
                Some(_) => Column::TextList(ListBuilder::with_capacity(StringBuilder::new(), capacity)),
            },
        };
        Self { value_type, column }
    }

    /// Adds a row without a value.
    pub fn push_null(&mut self) {
        for_column!(&mut self.column, builder => builder.append_null());
    }

    /// Adds a row from a serialized `Value`; zero bytes are null.
    ///
    /// A value of another type is converted where that keeps its meaning: between widths of numbers (an integer must
    /// fit), from integers to floating point numbers, between types kept as text, between lists and sets.
    ///
    /// # Errors
    /// `InvalidRequest` when the bytes are malformed or of a type that does not convert.
    pub fn push(&mut self, cell: &[u8]) -> Result<()> {
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
                builder.append_value(cell);
            }
            Column::Bytes(builder) => match (stored, raw) {
                (ValueType::Bytes, Raw::Length(bytes)) => builder.append_value(bytes),
                _ => return Err(mismatch()),
            },
            Column::Text(builder) => builder.append_value(text(stored, raw)?.ok_or_else(mismatch)?),
            Column::Int32(builder) => {
                let value = integer(stored, raw).ok_or_else(mismatch)?;
                builder.append_value(i32::try_from(value).map_err(|_| mismatch().with_context("value", value))?);
            }
            Column::Int64(builder) => builder.append_value(integer(stored, raw).ok_or_else(mismatch)?),
            Column::Double(builder) => builder.append_value(number(stored, raw).ok_or_else(mismatch)?),
            Column::Float(builder) => builder.append_value(number(stored, raw).ok_or_else(mismatch)? as f32),
            Column::Bool(builder) => builder.append_value(boolean(stored, raw).ok_or_else(mismatch)?),
            Column::Timestamp(builder) => {
                builder.append_option(micros(integer(stored, raw).ok_or_else(mismatch)?)?);
            }
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
    pub fn finish(mut self) -> ArrayRef {
        for_column!(&mut self.column, builder => Arc::new(builder.finish()))
    }
}

pub(super) fn numbers(list: (ValueType, &[u8]), mismatch: impl Fn() -> Error) -> Result<(ValueType, &[u8])> {
    use ValueType as T;
    match list.0 {
        T::Int32 | T::Int64 | T::Float | T::Double => Ok(list),
        _ => Err(mismatch()),
    }
}
