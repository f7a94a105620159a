//! Columns that grow row by row. Arrow's own builders allocate twice as often, which is what a small answer costs.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, NullBufferBuilder, PrimitiveArray, StringArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer};
use feast_core::{Error, Result};

use super::wire::malformed;

/// Numbers, and times as numbers.
#[derive(Debug)]
pub(super) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), nulls: NullBufferBuilder::new(rows) }
    }

    pub(super) fn append_value(&mut self, value: T::Native) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    pub(super) fn append_null(&mut self) {
        self.values.push(T::Native::default());
        self.nulls.append_null();
    }

    pub(super) fn finish(mut self) -> PrimitiveArray<T> {
        PrimitiveArray::new(self.values.into(), self.nulls.finish())
    }
}

/// Truth values. Arrow's builder of them asks the allocator for aligned memory, which takes several times as long.
#[derive(Debug)]
pub(super) struct Booleans {
    bits: Vec<u8>,
    length: usize,
    nulls: NullBufferBuilder,
}

impl Booleans {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self { bits: Vec::with_capacity(rows.div_ceil(8)), length: 0, nulls: NullBufferBuilder::new(rows) }
    }

    fn append(&mut self, value: bool) {
        let bit = self.length % 8;
        if bit == 0 {
            self.bits.push(0);
        }
        if let Some(last) = self.bits.last_mut() {
            *last |= u8::from(value) << bit;
        }
        self.length += 1;
    }

    pub(super) fn append_value(&mut self, value: bool) {
        self.append(value);
        self.nulls.append_non_null();
    }

    pub(super) fn append_null(&mut self) {
        self.append(false);
        self.nulls.append_null();
    }

    pub(super) fn finish(mut self) -> ArrayRef {
        let values = BooleanBuffer::new(Buffer::from_vec(self.bits), 0, self.length);
        Arc::new(BooleanArray::new(values, self.nulls.finish()))
    }
}

/// Texts or bytes, one after the other.
#[derive(Debug)]
pub(super) struct Strings {
    rows: usize,
    /// Where each value starts, and the last one ends.
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Strings {
    pub(super) fn with_capacity(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { rows, offsets, bytes: Vec::new(), nulls: NullBufferBuilder::new(rows) }
    }

    pub(super) fn append_value(&mut self, value: &[u8]) -> Result<()> {
        if self.bytes.capacity() == 0 {
            // The values of a feature are about as long as each other.
            self.bytes.reserve(value.len().saturating_mul(self.rows).min(1 << 16));
        }
        self.bytes.extend_from_slice(value);
        let end = i32::try_from(self.bytes.len());
        self.offsets.push(end.map_err(|_| Error::invalid_request("the values of one feature are more than 2 GiB"))?);
        self.nulls.append_non_null();
        Ok(())
    }

    pub(super) fn append_null(&mut self) {
        self.offsets.extend_from_within(self.offsets.len() - 1..);
        self.nulls.append_null();
    }

    pub(super) fn finish_bytes(mut self) -> ArrayRef {
        let offsets = OffsetBuffer::new(self.offsets.into());
        Arc::new(BinaryArray::new(offsets, Buffer::from_vec(self.bytes), self.nulls.finish()))
    }

    /// All texts are checked at once.
    pub(super) fn finish_texts(mut self) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(self.offsets.into());
        let texts = StringArray::try_new(offsets, Buffer::from_vec(self.bytes), self.nulls.finish());
        Ok(Arc::new(texts.map_err(|_| malformed("a text that is not UTF-8"))?))
    }
}
