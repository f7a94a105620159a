//! The columns of an answer, out of packed rows.

use std::hint;
use std::slice::ChunksExact;
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, BinaryArray, BooleanArray, StringArray, UInt32Array, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use feast_core::{Error, Result};

use super::{BLOCK, Form, MOST_DISTANCE, PackedRows, WORD, part};

/// What is taken from the rows for a column, a value after the other.
enum Taken {
    Numbers(Numbers),
    Truths(Vec<bool>),
    Places(Vec<u32>),
}

impl Taken {
    fn new(form: Form, n_rows: usize) -> Self {
        match form {
            Form::Number(wide) | Form::Distance { wide, .. } => Self::Numbers(Numbers::new(wide, n_rows)),
            Form::Truth => Self::Truths(Vec::with_capacity(n_rows)),
            Form::Place => Self::Places(Vec::with_capacity(n_rows)),
        }
    }

    fn take(&mut self, form: Form, rows: ChunksExact<'_, u8>, offset: usize) {
        match self {
            Self::Numbers(numbers) => match form {
                Form::Distance { width: 1, least, .. } => numbers.take_distances::<1>(rows, offset, least),
                Form::Distance { width: 2, least, .. } => numbers.take_distances::<2>(rows, offset, least),
                Form::Distance { width: 3, least, .. } => numbers.take_distances::<3>(rows, offset, least),
                Form::Distance { least, .. } => numbers.take_distances::<MOST_DISTANCE>(rows, offset, least),
                _ => numbers.take(rows, offset),
            },
            Self::Truths(truths) => truths.extend(rows.map(|row| part::<1>(row, offset)[0] != 0)),
            Self::Places(places) => places.extend(rows.map(|row| u32::from_ne_bytes(part(row, offset)))),
        }
    }
}

/// Numbers as they lie in Arrow's buffers. Nothing is cleared before it is written.
enum Numbers {
    One(Vec<[u8; 1]>),
    Two(Vec<[u8; 2]>),
    Four(Vec<[u8; 4]>),
    Eight(Vec<[u8; 8]>),
    Sixteen(Vec<[u8; 16]>),
}

impl Numbers {
    fn new(wide: usize, n_rows: usize) -> Self {
        match wide {
            1 => Self::One(Vec::with_capacity(n_rows)),
            2 => Self::Two(Vec::with_capacity(n_rows)),
            4 => Self::Four(Vec::with_capacity(n_rows)),
            8 => Self::Eight(Vec::with_capacity(n_rows)),
            _ => Self::Sixteen(Vec::with_capacity(n_rows)),
        }
    }

    fn take(&mut self, rows: ChunksExact<'_, u8>, offset: usize) {
        match self {
            Self::One(numbers) => numbers.extend(rows.map(|row| part::<1>(row, offset))),
            Self::Two(numbers) => numbers.extend(rows.map(|row| part::<2>(row, offset))),
            Self::Four(numbers) => numbers.extend(rows.map(|row| part::<4>(row, offset))),
            Self::Eight(numbers) => numbers.extend(rows.map(|row| part::<8>(row, offset))),
            Self::Sixteen(numbers) => numbers.extend(rows.map(|row| part::<16>(row, offset))),
        }
    }

    /// The integers that are so far from the least of them.
    fn take_distances<const W: usize>(&mut self, rows: ChunksExact<'_, u8>, offset: usize, least: i64) {
        let integers = rows.map(|row| {
            let mut distance = [0; size_of::<u64>()];
            distance[..W].copy_from_slice(&part::<W>(row, offset));
            i64::from_le_bytes(distance).wrapping_add(least)
        });
        match self {
            Self::Four(numbers) => numbers.extend(integers.map(|integer| (integer as i32).to_ne_bytes())),
            Self::Eight(numbers) => numbers.extend(integers.map(i64::to_ne_bytes)),
            // Other integers are never kept as distances.
            Self::One(_) | Self::Two(_) | Self::Sixteen(_) => (),
        }
    }

    fn into_buffer(self) -> Buffer {
        Buffer::from_vec(match self {
            Self::One(numbers) => numbers.into_flattened(),
            Self::Two(numbers) => numbers.into_flattened(),
            Self::Four(numbers) => numbers.into_flattened(),
            Self::Eight(numbers) => numbers.into_flattened(),
            Self::Sixteen(numbers) => numbers.into_flattened(),
        })
    }
}

impl PackedRows {
    /// The columns of the rows at these ranks, null where there is none.
    pub(crate) fn gather(&self, ranks: &[u32]) -> Result<Vec<ArrayRef>> {
        let (layout, n_rows) = (&self.layout, ranks.len());
        let mut taken: Vec<Taken> = layout.forms.iter().map(|form| Taken::new(*form, n_rows)).collect();
        let words_of_column = || Vec::with_capacity(n_rows / WORD + 1);
        let mut present: Vec<Vec<u64>> = layout.fields.iter().map(|_| words_of_column()).collect();
        let mut rows = vec![0u8; BLOCK * layout.stride];
        let mut words: Vec<u64> = Vec::with_capacity(BLOCK);
        let chunks: Vec<&[u8]> = self.chunks.iter().map(|chunk| &**chunk).collect();
        let mut found: Vec<&[u8]> = Vec::with_capacity(BLOCK);
        for ranks in ranks.chunks(BLOCK) {
            if layout.stride == 0 {
                break;
            }
            // Nothing else waits for memory: all that follows is in the nearest cache. Rows lie far from each other; where
            // they are is known before the first is looked at, so that the processor fetches as many as it can at once.
            found.clear();
            found.extend(ranks.iter().map(|rank| self.row(&chunks, *rank)));
            let looked_at = found.iter().fold(0, |seen, row| {
                seen ^ row.first().copied().unwrap_or_default() ^ row.last().copied().unwrap_or_default()
            });
            hint::black_box(looked_at);
            for (row, found) in rows.chunks_exact_mut(layout.stride).zip(&found) {
                row.copy_from_slice(found);
            }
            let rows = rows[..ranks.len() * layout.stride].chunks_exact(layout.stride);
            for (word, present) in present.chunks_mut(WORD).enumerate() {
                words.clear();
                words.extend(rows.clone().map(|row| u64::from_le_bytes(part(row, word * size_of::<u64>()))));
                for (column, present) in present.iter_mut().enumerate() {
                    present.extend(
                        words.chunks(WORD).map(|words| {
                            (0..).zip(words).fold(0, |bits, (at, word)| bits | ((word >> column) & 1) << at)
                        }),
                    );
                }
            }
            for ((taken, form), offset) in taken.iter_mut().zip(&layout.forms).zip(&layout.offsets) {
                taken.take(*form, rows.clone(), *offset);
            }
        }
        let columns = taken.into_iter().zip(present).enumerate();
        columns.map(|(column, (taken, present))| self.array(column, taken, nulls(present, n_rows), n_rows)).collect()
    }

    /// What was taken for a column, as an array.
    fn array(&self, column: usize, taken: Taken, nulls: Option<NullBuffer>, n_rows: usize) -> Result<ArrayRef> {
        let field = &self.layout.fields[column];
        Ok(match taken {
            Taken::Numbers(numbers) => {
                let data = ArrayData::builder(field.data_type().clone()).len(n_rows).nulls(nulls);
                make_array(data.add_buffer(numbers.into_buffer()).align_buffers(true).build()?)
            }
            Taken::Truths(truths) => Arc::new(BooleanArray::new(BooleanBuffer::from(truths), nulls)),
            Taken::Places(places) => match self.values[column].texts() {
                Some(texts) => {
                    let name = field.name();
                    let (offsets, bytes) = put_together(&places, nulls.as_ref(), texts).ok_or_else(|| {
                        Error::unsupported(format!("more than 2 GiB of text `{name}` in {n_rows} rows"))
                    })?;
                    match field.data_type() {
                        // Whole texts put one after the other are text.
                        DataType::Utf8 => Arc::new(StringArray::try_new(offsets, bytes, nulls)?),
                        _ => Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?),
                    }
                }
                None => self.values[column].gather(&UInt32Array::new(places.into(), nulls))?,
            },
        })
    }
}

/// The texts at these places, one after the other, and where each ends; `None` where they are too long together.
fn put_together(
    places: &[u32],
    nulls: Option<&NullBuffer>,
    (offsets, values): (&[i32], &[u8]),
) -> Option<(OffsetBuffer<i32>, Buffer)> {
    let mut ends: Vec<i32> = Vec::with_capacity(places.len() + 1);
    ends.push(0);
    let mut end = 0usize;
    for (index, place) in places.iter().enumerate() {
        if nulls.is_none_or(|nulls| nulls.is_valid(index)) {
            end += (offsets[*place as usize + 1] - offsets[*place as usize]) as usize;
        }
        // What does not fit is told below.
        ends.push(end as i32);
    }
    if end > i32::MAX as usize {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::with_capacity(end + SHORT);
    for (place, ends) in places.iter().zip(ends.windows(2)) {
        if ends[1] > ends[0] {
            let start = offsets[*place as usize] as usize;
            put_text(&mut bytes, values, start, (ends[1] - ends[0]) as usize);
        }
    }
    Some((OffsetBuffer::new(ScalarBuffer::from(ends)), bytes.into()))
}

/// Texts up to which all are copied alike.
const SHORT: usize = 16;

/// Appends a text. What is short is copied with some bytes behind it, which costs less than its exact length.
#[inline]
fn put_text(bytes: &mut Vec<u8>, values: &[u8], start: usize, len: usize) {
    match values.get(start..).and_then(|values| values.first_chunk::<SHORT>()) {
        Some(text) if len <= SHORT => {
            let end = bytes.len() + len;
            bytes.extend_from_slice(text);
            bytes.truncate(end);
        }
        _ => bytes.extend_from_slice(&values[start..start + len]),
    }
}

/// The nulls of a column, if it has any.
fn nulls(present: Vec<u64>, len: usize) -> Option<NullBuffer> {
    let nulls = NullBuffer::new(BooleanBuffer::new(present.into(), 0, len));
    Some(nulls).filter(|nulls| nulls.null_count() > 0)
}
