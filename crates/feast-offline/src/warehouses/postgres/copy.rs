//! Columns of PostgreSQL as Arrow columns, and rows in the binary format of `COPY` there and back.
//!
//! What the format holds as such is read as such; all other types travel as text, `numeric` as a double.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Date32Builder, ListArray, NullBufferBuilder,
    PrimitiveBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use bytes::{Buf, BufMut, BytesMut};
use feast_core::{Error, Result, timestamp_type};
use tokio_postgres::types::{Kind as Shape, Type};

use super::connection::quoted;

/// From 1970 to 2000, where PostgreSQL's times begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const HEADER: usize = SIGNATURE.len() + 8;

/// What a cell holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Text,
    Bytes,
    /// Without zone; counts as UTC.
    Timestamp,
    TimestampTz,
    Date,
    List(Box<Kind>),
}

impl Kind {
    /// The kind of a type, and the type to which its values are cast to be of that kind.
    pub(super) fn of(found: &Type) -> (Self, Option<String>) {
        if let Shape::Array(item) = found.kind() {
            let (item, cast) = Self::of(item);
            return (Self::List(Box::new(item)), cast.map(|cast| format!("{cast}[]")));
        }
        let plain = match *found {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::UNKNOWN => Self::Text,
            Type::BYTEA => Self::Bytes,
            Type::TIMESTAMP => Self::Timestamp,
            Type::TIMESTAMPTZ => Self::TimestampTz,
            Type::DATE => Self::Date,
            Type::NUMERIC => return (Self::Float8, Some("float8".to_owned())),
            Type::OID => return (Self::Int8, Some("int8".to_owned())),
            _ => return (Self::Text, Some("text".to_owned())),
        };
        (plain, None)
    }

    /// The kind that holds the values of an Arrow type.
    pub(super) fn for_arrow(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => Self::Int2,
            DataType::Int32 | DataType::UInt16 => Self::Int4,
            DataType::Int64 | DataType::UInt32 => Self::Int8,
            DataType::Float16 | DataType::Float32 => Self::Float4,
            DataType::Float64 => Self::Float8,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Self::Text,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes
            }
            DataType::Timestamp(_, None) => Self::Timestamp,
            DataType::Timestamp(_, Some(_)) => Self::TimestampTz,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                Self::List(Box::new(Self::for_arrow(item.data_type())?))
            }
            DataType::Dictionary(_, value) => Self::for_arrow(value)?,
            _ => return None,
        })
    }

    /// The Arrow type of such a column.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => timestamp_type(),
            Self::Date => DataType::Date32,
            Self::List(item) => DataType::List(Arc::new(Field::new_list_field(item.data_type(), true))),
        }
    }

    /// The name of the type in PostgreSQL.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::Date => "date",
            Self::List(item) => return format!("{}[]", item.name()),
        }
        .to_owned()
    }

    fn oid(&self) -> u32 {
        match self {
            Self::Bool => Type::BOOL,
            Self::Int2 => Type::INT2,
            Self::Int4 => Type::INT4,
            Self::Int8 => Type::INT8,
            Self::Float4 => Type::FLOAT4,
            Self::Float8 => Type::FLOAT8,
            Self::Text | Self::List(_) => Type::TEXT,
            Self::Bytes => Type::BYTEA,
            Self::Timestamp => Type::TIMESTAMP,
            Self::TimestampTz => Type::TIMESTAMPTZ,
            Self::Date => Type::DATE,
        }
        .oid()
    }
}

/// A column of a relation.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) cast: Option<String>,
    /// The type itself.
    pub(super) found: Type,
}

impl Column {
    /// A column of a prepared statement.
    pub(super) fn new(name: &str, found: &Type) -> Self {
        let (kind, cast) = Kind::of(found);
        Self { name: name.to_owned(), kind, cast, found: found.clone() }
    }

    /// The column of a relation, as a value of its kind.
    pub(super) fn expression(&self, relation: &str) -> String {
        let column = format!("{relation}.{}", quoted(&self.name));
        match &self.cast {
            None => column,
            Some(cast) => format!("{column}::{cast}"),
        }
    }

    /// The field in Arrow.
    pub(super) fn field(&self) -> Field {
        Field::new(&self.name, self.kind.data_type(), true)
    }
}

/// Rows that arrive in the binary format.
pub(super) struct Decoder {
    columns: Vec<Cells>,
    buffer: BytesMut,
    began: bool,
    n_rows: usize,
}

impl Decoder {
    /// Expects rows of these kinds.
    pub(super) fn new<'a>(kinds: impl Iterator<Item = &'a Kind>) -> Self {
        Self { columns: kinds.map(Cells::new).collect(), buffer: BytesMut::new(), began: false, n_rows: 0 }
    }

    /// Takes what arrived.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Reads complete rows, until there are `most`; gives how many there are.
    pub(super) fn decode(&mut self, most: usize) -> Result<usize> {
        let malformed = || Error::internal("PostgreSQL sent rows in an unknown format");
        let mut at = 0;
        if !self.began {
            if self.buffer.len() < HEADER {
                return Ok(0);
            }
            let extension = number(&self.buffer, HEADER - 4).ok_or_else(malformed)?;
            at = HEADER + usize::try_from(extension).map_err(|_| malformed())?;
            self.began = true;
        }
        while self.n_rows < most {
            let Some(count) = self.buffer.get(at..at + 2) else { break };
            // What follows the last row is -1 instead of a number of cells.
            if count == [255, 255] {
                break;
            }
            if usize::from(u16::from_be_bytes([count[0], count[1]])) != self.columns.len() {
                return Err(malformed());
            }
            let Some(end) = row_end(&self.buffer, at + 2, self.columns.len()) else { break };
            let mut cell = at + 2;
            for column in &mut self.columns {
                let length = number(&self.buffer, cell).ok_or_else(malformed)?;
                cell += 4;
                match usize::try_from(length) {
                    Err(_) => column.push(None)?,
                    Ok(length) => {
                        column.push(Some(self.buffer.get(cell..cell + length).ok_or_else(malformed)?))?;
                        cell += length;
                    }
                }
            }
            at = end;
            self.n_rows += 1;
        }
        let read = at.min(self.buffer.len());
        self.buffer.advance(read);
        Ok(self.n_rows)
    }

    /// The rows read so far, as columns.
    pub(super) fn take(&mut self) -> Result<Vec<ArrayRef>> {
        self.n_rows = 0;
        self.columns.iter_mut().map(Cells::finish).collect()
    }
}

fn number(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes)
}

/// Where a row ends, if all of it is there.
fn row_end(bytes: &[u8], mut at: usize, n_cells: usize) -> Option<usize> {
    for _ in 0..n_cells {
        let length = number(bytes, at)?;
        at += 4 + usize::try_from(length).unwrap_or(0);
    }
    (at <= bytes.len()).then_some(at)
}

/// The cells of a column so far.
enum Cells {
    Bool(BooleanBuilder),
    Int2(PrimitiveBuilder<Int16Type>),
    Int4(PrimitiveBuilder<Int32Type>),
    Int8(PrimitiveBuilder<Int64Type>),
    Float4(PrimitiveBuilder<Float32Type>),
    Float8(PrimitiveBuilder<Float64Type>),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Times(TimestampMicrosecondBuilder, DataType),
    Date(Date32Builder),
    List { items: Box<Cells>, item_type: DataType, lengths: Vec<usize>, valid: NullBufferBuilder },
}

impl Cells {
    fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Bool => Self::Bool(BooleanBuilder::new()),
            Kind::Int2 => Self::Int2(PrimitiveBuilder::new()),
            Kind::Int4 => Self::Int4(PrimitiveBuilder::new()),
            Kind::Int8 => Self::Int8(PrimitiveBuilder::new()),
            Kind::Float4 => Self::Float4(PrimitiveBuilder::new()),
            Kind::Float8 => Self::Float8(PrimitiveBuilder::new()),
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::Bytes => Self::Bytes(BinaryBuilder::new()),
            Kind::Timestamp | Kind::TimestampTz => {
                let times = TimestampMicrosecondBuilder::new().with_data_type(kind.data_type());
                Self::Times(times, kind.data_type())
            }
            Kind::Date => Self::Date(Date32Builder::new()),
            Kind::List(item) => Self::List {
                items: Box::new(Self::new(item)),
                item_type: item.data_type(),
                lengths: Vec::new(),
                valid: NullBufferBuilder::new(0),
            },
        }
    }

    fn push(&mut self, cell: Option<&[u8]>) -> Result<()> {
        fn exact<const N: usize>(cell: Option<&[u8]>) -> Result<Option<[u8; N]>> {
            let exact = cell.map(|cell| cell.try_into()).transpose();
            exact.map_err(|_| Error::internal("PostgreSQL sent a value of unexpected length"))
        }
        match self {
            Self::Bool(cells) => cells.append_option(exact::<1>(cell)?.map(|[byte]| byte != 0)),
            Self::Int2(cells) => cells.append_option(exact(cell)?.map(i16::from_be_bytes)),
            Self::Int4(cells) => cells.append_option(exact(cell)?.map(i32::from_be_bytes)),
            Self::Int8(cells) => cells.append_option(exact(cell)?.map(i64::from_be_bytes)),
            Self::Float4(cells) => cells.append_option(exact(cell)?.map(f32::from_be_bytes)),
            Self::Float8(cells) => cells.append_option(exact(cell)?.map(f64::from_be_bytes)),
            Self::Text(cells) => {
                let text = cell.map(std::str::from_utf8).transpose();
                cells.append_option(text.map_err(|_| Error::internal("PostgreSQL sent text that is not UTF-8"))?);
            }
            Self::Bytes(cells) => cells.append_option(cell),
            // Infinite times become the first and the last there are.
            Self::Times(cells, _) => {
                cells.append_option(exact(cell)?.map(|time| i64::from_be_bytes(time).saturating_add(EPOCH_MICROS)));
            }
            Self::Date(cells) => {
                cells.append_option(exact(cell)?.map(|day| i32::from_be_bytes(day).saturating_add(EPOCH_DAYS)));
            }
            Self::List { items, lengths, valid, .. } => {
                valid.append(cell.is_some());
                lengths.push(cell.map_or(Ok(0), |cell| push_items(items, cell))?);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match self {
            Self::Bool(cells) => Arc::new(cells.finish()),
            Self::Int2(cells) => Arc::new(cells.finish()),
            Self::Int4(cells) => Arc::new(cells.finish()),
            Self::Int8(cells) => Arc::new(cells.finish()),
            Self::Float4(cells) => Arc::new(cells.finish()),
            Self::Float8(cells) => Arc::new(cells.finish()),
            Self::Text(cells) => Arc::new(cells.finish()),
            Self::Bytes(cells) => Arc::new(cells.finish()),
            Self::Times(cells, data_type) => {
                let times = cells.finish();
                *cells = TimestampMicrosecondBuilder::new().with_data_type(data_type.clone());
                Arc::new(times)
            }
            Self::Date(cells) => Arc::new(cells.finish()),
            Self::List { items, item_type, lengths, valid } => {
                let field = Arc::new(Field::new_list_field(item_type.clone(), true));
                let offsets = OffsetBuffer::from_lengths(std::mem::take(lengths));
                Arc::new(ListArray::try_new(field, offsets, items.finish()?, valid.finish())?)
            }
        })
    }
}

/// Adds the items of an array of any number of dimensions; gives how many.
fn push_items(items: &mut Cells, cell: &[u8]) -> Result<usize> {
    let read = |at: usize| number(cell, at).ok_or_else(|| Error::internal("PostgreSQL sent a torn array"));
    let n_dimensions = read(0)?;
    let (mut at, mut n_items) = (12, usize::from(n_dimensions > 0));
    for _ in 0..n_dimensions {
        n_items *= usize::try_from(read(at)?).unwrap_or(0);
        at += 8;
    }
    for _ in 0..n_items {
        let length = read(at)?;
        at += 4;
        match usize::try_from(length) {
            Err(_) => items.push(None)?,
            Ok(length) => {
                let item = cell.get(at..at + length);
                items.push(Some(item.ok_or_else(|| Error::internal("PostgreSQL sent a torn array"))?))?;
                at += length;
            }
        }
    }
    Ok(n_items)
}

/// Rows on their way to PostgreSQL, in the binary format.
pub(super) struct Encoder {
    kinds: Vec<Kind>,
    began: bool,
}

impl Encoder {
    /// Rows of these kinds.
    pub(super) fn new(kinds: Vec<Kind>) -> Self {
        Self { kinds, began: false }
    }

    /// The rows of columns that have the Arrow types of the kinds.
    pub(super) fn encode(&mut self, columns: &[ArrayRef], n_rows: usize) -> BytesMut {
        let mut out = BytesMut::new();
        self.begin(&mut out);
        for row in 0..n_rows {
            out.put_i16(columns.len() as i16);
            for (kind, column) in self.kinds.iter().zip(columns) {
                put_cell(&mut out, kind, column, row);
            }
        }
        out
    }

    /// What ends the rows.
    pub(super) fn end(&mut self) -> BytesMut {
        let mut out = BytesMut::new();
        self.begin(&mut out);
        out.put_i16(-1);
        out
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if !self.began {
            out.extend_from_slice(SIGNATURE);
            out.put_i64(0);
            self.began = true;
        }
    }
}

fn put_cell(out: &mut BytesMut, kind: &Kind, array: &ArrayRef, row: usize) {
    if array.is_null(row) {
        return out.put_i32(-1);
    }
    // The length is known once the value is written.
    let start = out.len();
    out.put_i32(0);
    match kind {
        Kind::Bool => out.put_u8(array.as_boolean().value(row).into()),
        Kind::Int2 => out.put_i16(array.as_primitive::<Int16Type>().value(row)),
        Kind::Int4 => out.put_i32(array.as_primitive::<Int32Type>().value(row)),
        Kind::Int8 => out.put_i64(array.as_primitive::<Int64Type>().value(row)),
        Kind::Float4 => out.put_f32(array.as_primitive::<Float32Type>().value(row)),
        Kind::Float8 => out.put_f64(array.as_primitive::<Float64Type>().value(row)),
        Kind::Text => out.put_slice(array.as_string::<i32>().value(row).as_bytes()),
        Kind::Bytes => out.put_slice(array.as_binary::<i32>().value(row)),
        Kind::Timestamp | Kind::TimestampTz => {
            out.put_i64(array.as_primitive::<TimestampMicrosecondType>().value(row).saturating_sub(EPOCH_MICROS));
        }
        Kind::Date => out.put_i32(array.as_primitive::<Date32Type>().value(row).saturating_sub(EPOCH_DAYS)),
        Kind::List(item) => {
            let items = array.as_list::<i32>().value(row);
            out.put_i32(i32::from(!items.is_empty()));
            out.put_i32(i32::from(items.null_count() > 0));
            out.put_u32(item.oid());
            if !items.is_empty() {
                out.put_i32(items.len() as i32);
                out.put_i32(1);
            }
            for index in 0..items.len() {
                put_cell(out, item, &items, index);
            }
        }
    }
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn rows_survive_the_format_however_they_are_cut() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(7)])),
            Arc::new(Float64Array::from(vec![Some(-0.5), Some(f64::INFINITY), None])),
            Arc::new(StringArray::from(vec![Some(""), Some("größer"), None])),
            Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\0\xff"), None, Some(b"")])),
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(-1), Some(1_700_000_000_000_001), None]).with_timezone("UTC"),
            ),
            Arc::new(lists),
        ];
        let kinds: Vec<Kind> = columns.iter().map(|column| Kind::for_arrow(column.data_type()).unwrap()).collect();
        let mut encoder = Encoder::new(kinds.clone());
        let mut bytes = encoder.encode(&columns, 3);
        bytes.extend_from_slice(&encoder.end());
        for cut in [1, 7, bytes.len()] {
            let mut decoder = Decoder::new(kinds.iter());
            for part in bytes.chunks(cut) {
                decoder.feed(part);
                decoder.decode(usize::MAX).unwrap();
            }
            assert_eq!(decoder.decode(usize::MAX).unwrap(), 3);
            assert_eq!(decoder.take().unwrap(), columns);
        }
    }
}
