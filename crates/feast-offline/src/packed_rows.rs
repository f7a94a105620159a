//! Feature values of chosen rows, row by row, so that an entity row finds all of its values in one place.
//!
//! Training rows take their values from feature rows all over the source. In columns, each value would be a wait for
//! memory of its own; here a row's numbers lie side by side, behind bits that tell which of them there are, and of
//! everything else (texts, lists…) the row holds the place among the distinct values that were read. Numbers are kept
//! as they lie in Arrow's buffers, integers in as many bytes as the bounds that files tell need.

mod unpacking;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::compute::{cast, concat, interleave, max, min, take};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
use feast_core::{Error, Result};

use crate::table::Table;

/// Stands in the place of the row of an entity row that has none.
pub(crate) const NO_RANK: u32 = u32::MAX;

/// Rows that lie together: some megabytes, so that few are needed and threads seldom fill the same.
const CHUNK_ROWS: usize = if cfg!(test) { 4 } else { 1 << 18 };
/// Rows looked at together: they stay in a near cache while column after column is put or taken.
const BLOCK: usize = 256;
/// Bytes up to which values are put into one array; texts of an array are limited to two GiB.
const MOST_TEXT: usize = 1 << 30;

/// Between which values all integers of a column lie, both included; `None` where nobody knows.
pub(crate) type IntegerBounds = Option<(i64, i64)>;

/// Bytes of a distance at most; what needs more is kept as it is.
const MOST_DISTANCE: usize = 4;

/// How the values of a column lie in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As so many bytes.
    Number(usize),
    /// As the distance from the least integer, in so many bytes; the integers themselves have more.
    Distance { width: usize, wide: usize, least: i64 },
    /// As a byte.
    Truth,
    /// As the place of the value among those that were read, in four bytes.
    Place,
}

impl Form {
    fn of(data_type: &DataType, bounds: IntegerBounds) -> Self {
        let wide = match data_type {
            DataType::Int32 => 4,
            DataType::Int64 => 8,
            _ => 0,
        };
        if let Some((least, greatest)) = bounds {
            let width = (u64::BITS - greatest.abs_diff(least).leading_zeros()).div_ceil(8).max(1) as usize;
            if width < wide && width <= MOST_DISTANCE {
                return Self::Distance { width, wide, least };
            }
        }
        match data_type {
            DataType::Boolean => Self::Truth,
            data_type => match data_type.primitive_width() {
                Some(width @ (1 | 2 | 4 | 8 | 16)) => Self::Number(width),
                _ => Self::Place,
            },
        }
    }

    fn width(self) -> usize {
        match self {
            Self::Number(width) | Self::Distance { width, .. } => width,
            Self::Truth => 1,
            Self::Place => 4,
        }
    }
}

/// Where the values of a row are.
#[derive(Debug)]
struct Layout {
    fields: Vec<Field>,
    forms: Vec<Form>,
    /// Where in a row the value of each column begins.
    offsets: Vec<usize>,
    /// Bytes of a row.
    stride: usize,
}

/// Columns whose bits share a word at the beginning of a row.
const WORD: usize = u64::BITS as usize;

fn n_words(n_columns: usize) -> usize {
    n_columns.div_ceil(WORD)
}

impl Layout {
    fn new(fields: &[Field], bounds: &[IntegerBounds]) -> Self {
        let bounds = bounds.iter().copied().chain(std::iter::repeat(None));
        let forms: Vec<Form> =
            fields.iter().zip(bounds).map(|(field, bounds)| Form::of(field.data_type(), bounds)).collect();
        // Of the last word, only the bytes with bits of columns.
        let mut end = fields.len().div_ceil(8);
        let mut offsets = Vec::with_capacity(forms.len());
        for form in &forms {
            offsets.push(end);
            end += form.width();
        }
        Self { fields: fields.to_vec(), forms, offsets, stride: end.max(n_words(fields.len()) * size_of::<u64>()) }
    }
}

/// Rows that are being filled, by threads.
pub(crate) struct PackedRowsBuilder {
    layout: Layout,
    n_rows: usize,
    n_put: AtomicUsize,
    bounds: Vec<IntegerBounds>,
    was_outside: AtomicBool,
    /// [`CHUNK_ROWS`] rows each; made by who first fills one.
    chunks: Vec<Mutex<Option<Table<u8>>>>,
    /// By column; empty for those whose values lie in the rows.
    values: Vec<Mutex<Values>>,
}

/// Distinct values in the order in which they came.
#[derive(Default)]
struct Values {
    arrays: Vec<ArrayRef>,
    len: usize,
}

impl Values {
    /// The place of the first of these values, which are added unless they were lately.
    fn place(&mut self, array: &ArrayRef) -> Result<u32> {
        // Batches of a row group share a dictionary, and a few row groups are read at once.
        const LATELY: usize = 64;
        let mut start = self.len;
        for known in self.arrays.iter().rev().take(LATELY) {
            start -= known.len();
            if Arc::ptr_eq(known, array) || known.to_data().ptr_eq(&array.to_data()) {
                return Ok(start as u32);
            }
        }
        let start = self.len;
        self.len += array.len();
        if self.len >= NO_RANK as usize {
            return Err(Error::unsupported(format!("{} texts or lists of one feature in one request", self.len))
                .with_hint("split the entity rows into several requests, or set a memory limit"));
        }
        self.arrays.push(Arc::clone(array));
        Ok(start as u32)
    }
}

impl PackedRowsBuilder {
    /// Room for rows of these columns. Integers take as many bytes as their bounds need.
    pub(crate) fn new(fields: &[Field], n_rows: usize, bounds: Vec<IntegerBounds>) -> Self {
        let layout = Layout::new(fields, &bounds);
        let n_chunks = if fields.is_empty() { 0 } else { n_rows.div_ceil(CHUNK_ROWS) };
        Self {
            n_rows,
            n_put: AtomicUsize::new(0),
            bounds,
            was_outside: AtomicBool::new(false),
            chunks: (0..n_chunks).map(|_| Mutex::default()).collect(),
            values: layout.forms.iter().map(|_| Mutex::default()).collect(),
            layout,
        }
    }

    /// Fills the rows from `first` on. Columns have the types of their fields; texts may come with a dictionary.
    pub(crate) fn put(&self, first: u64, n_rows: usize, columns: &[ArrayRef]) -> Result<()> {
        self.n_put.fetch_add(n_rows, Ordering::Relaxed);
        let first = first as usize;
        if self.chunks.is_empty() || n_rows == 0 {
            return Ok(());
        }
        if first + n_rows > self.n_rows {
            return Err(Error::internal("more rows were read than chosen"));
        }
        let words = n_words(self.layout.fields.len());
        let mut present = vec![0u64; words * n_rows];
        let mut sources = Vec::with_capacity(columns.len());
        for (column, array) in columns.iter().enumerate() {
            mark_present(&mut present[column / WORD..], words, column % WORD, array.logical_nulls().as_ref());
            sources.push(self.source(column, array)?);
        }
        let present: Vec<[u8; 8]> = present.into_iter().map(u64::to_le_bytes).collect();
        let present = present.into_flattened();
        let mut start = 0;
        while start < n_rows {
            let (chunk, place) = ((first + start) / CHUNK_ROWS, (first + start) % CHUNK_ROWS);
            let rows = start..n_rows.min(start + (CHUNK_ROWS - place).min(BLOCK));
            let stride = self.layout.stride;
            let mut chunk = held(&self.chunks[chunk]);
            let len = CHUNK_ROWS.min(self.n_rows - (first + start - place));
            let chunk = chunk.get_or_insert_with(|| Table::zeroed(len * stride));
            let into = &mut chunk[place * stride..][..rows.len() * stride];
            // Values come after, over the bytes of the words that no column needs.
            match words {
                1 => spread::<8>(into, stride, 0, &present, &rows),
                _ => spread_any(into, stride, 0, words * size_of::<u64>(), &present, &rows),
            }
            for (source, (offset, form)) in sources.iter().zip(self.layout.offsets.iter().zip(&self.layout.forms)) {
                match form.width() {
                    1 => spread::<1>(into, stride, *offset, source, &rows),
                    2 => spread::<2>(into, stride, *offset, source, &rows),
                    3 => spread::<3>(into, stride, *offset, source, &rows),
                    4 => spread::<4>(into, stride, *offset, source, &rows),
                    8 => spread::<8>(into, stride, *offset, source, &rows),
                    width => spread_any(into, stride, *offset, width, source, &rows),
                }
            }
            start = rows.end;
        }
        Ok(())
    }

    /// The bytes that go into the rows for a column.
    fn source(&self, column: usize, array: &ArrayRef) -> Result<Buffer> {
        match self.layout.forms[column] {
            Form::Number(width) => {
                let data = array.to_data();
                let values = data.buffers().first().ok_or_else(|| Error::internal("numbers without a buffer"))?;
                Ok(values.slice_with_length(data.offset() * width, data.len() * width))
            }
            Form::Distance { width, least, .. } => {
                let integers = cast(array, &DataType::Int64)?;
                let integers = integers.as_primitive::<Int64Type>();
                let inside = |bound: i64| {
                    self.bounds[column].is_some_and(|(least, greatest)| (least..=greatest).contains(&bound))
                };
                if ![min(integers), max(integers)].into_iter().flatten().all(inside) {
                    self.was_outside.store(true, Ordering::Relaxed);
                }
                Ok(match width {
                    1 => distances::<1>(integers.values(), least),
                    2 => distances::<2>(integers.values(), least),
                    3 => distances::<3>(integers.values(), least),
                    _ => distances::<MOST_DISTANCE>(integers.values(), least),
                })
            }
            Form::Truth => Ok(array.as_boolean().values().iter().map(u8::from).collect::<Vec<u8>>().into()),
            Form::Place => {
                let values = |array| held(&self.values[column]).place(array);
                let places: Vec<u32> = match array.as_dictionary_opt::<Int32Type>() {
                    // A dictionary larger than what refers to it would be kept for little.
                    Some(dictionary)
                        if dictionary.values().len() <= array.len()
                            && dictionary.values().data_type() == self.layout.fields[column].data_type() =>
                    {
                        let start = values(dictionary.values())?;
                        dictionary.keys().values().iter().map(|key| start.wrapping_add(*key as u32)).collect()
                    }
                    _ => {
                        let array = cast(array, self.layout.fields[column].data_type())?;
                        let start = values(&array)?;
                        (start..).take(array.len()).collect()
                    }
                };
                Ok(places.into())
            }
        }
    }

    /// Whether integers came that are outside of their bounds: the rows are good for nothing then.
    pub(crate) fn was_outside(&self) -> bool {
        self.was_outside.load(Ordering::Relaxed)
    }

    /// The rows, if all of them were filled.
    pub(crate) fn finish(self) -> Result<Option<PackedRows>> {
        if self.n_put.into_inner() != self.n_rows {
            return Ok(None);
        }
        let values = self.layout.fields.iter().zip(self.values).map(|(field, values)| {
            DistinctValues::new(field, values.into_inner().unwrap_or_else(PoisonError::into_inner).arrays, MOST_TEXT)
        });
        Ok(Some(PackedRows {
            values: values.collect::<Result<_>>()?,
            nothing: vec![0; self.layout.stride],
            layout: self.layout,
            n_rows: self.n_rows,
            chunks: self
                .chunks
                .into_iter()
                .map(|chunk| chunk.into_inner().unwrap_or_else(PoisonError::into_inner))
                .map(|chunk| chunk.ok_or_else(|| Error::internal("rows were filled twice")))
                .collect::<Result<_>>()?,
        }))
    }
}

/// Sets a bit in every so many words, a word for each row, where the row has a value.
fn mark_present(words: &mut [u64], every: usize, bit: usize, nulls: Option<&NullBuffer>) {
    let mut rows = words.chunks_mut(every);
    let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else {
        rows.for_each(|row| row[0] |= 1 << bit);
        return;
    };
    // Of the last word, only as many bits count as there are rows.
    for valid in nulls.inner().bit_chunks().iter_padded() {
        for (at, row) in rows.by_ref().take(WORD).enumerate() {
            row[0] |= ((valid >> at) & 1) << bit;
        }
    }
}

/// Nothing fails while these are held, but a thread that panicked elsewhere ends the request anyway.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes one value of `W` bytes into each row.
fn spread<const W: usize>(into: &mut [u8], stride: usize, offset: usize, from: &[u8], rows: &Range<usize>) {
    let values = from[rows.start * W..rows.end * W].chunks_exact(W);
    for (row, value) in into.chunks_exact_mut(stride).zip(values) {
        row[offset..offset + W].copy_from_slice(value);
    }
}

/// The same for widths that are rare.
fn spread_any(into: &mut [u8], stride: usize, offset: usize, width: usize, from: &[u8], rows: &Range<usize>) {
    let values = from[rows.start * width..rows.end * width].chunks_exact(width);
    for (row, value) in into.chunks_exact_mut(stride).zip(values) {
        row[offset..offset + width].copy_from_slice(value);
    }
}

/// Rows that were filled.
pub(crate) struct PackedRows {
    layout: Layout,
    n_rows: usize,
    chunks: Vec<Table<u8>>,
    values: Vec<DistinctValues>,
    /// The row of entity rows that have none.
    nothing: Vec<u8>,
}

impl PackedRows {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.n_rows
    }

    /// Bytes held.
    pub(crate) fn size(&self) -> usize {
        let values = self.values.iter().flat_map(|values| &values.parts).map(|part| part.get_array_memory_size());
        self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>() + values.sum::<usize>()
    }

    /// Bytes that the columns take for one entity row, about.
    pub(crate) fn width(&self) -> usize {
        let of_texts = self.values.iter().map(|values| {
            let size: usize = values.parts.iter().map(|part| part.get_buffer_memory_size()).sum();
            size.checked_div(values.parts.iter().map(|part| part.len()).sum()).unwrap_or(0)
        });
        self.layout.stride + of_texts.sum::<usize>()
    }

    fn row<'a>(&'a self, chunks: &[&'a [u8]], rank: u32) -> &'a [u8] {
        if rank == NO_RANK {
            return &self.nothing;
        }
        let (chunk, place) = (rank as usize / CHUNK_ROWS, rank as usize % CHUNK_ROWS);
        &chunks[chunk][place * self.layout.stride..][..self.layout.stride]
    }
}

/// Some bytes of a row.
fn part<const W: usize>(row: &[u8], offset: usize) -> [u8; W] {
    row.get(offset..).and_then(|rest| rest.first_chunk::<W>()).copied().unwrap_or([0; W])
}

/// How far integers are from the least of them.
fn distances<const W: usize>(integers: &[i64], least: i64) -> Buffer {
    let distance = |integer: &i64| part::<W>(&integer.wrapping_sub(least).to_le_bytes(), 0);
    Buffer::from_vec(integers.iter().map(distance).collect::<Vec<[u8; W]>>().into_flattened())
}

/// The values of a column that rows point at: a single array, unless it would be larger than Arrow allows.
struct DistinctValues {
    parts: Vec<ArrayRef>,
    /// Where each part starts.
    starts: Vec<usize>,
}

impl DistinctValues {
    fn new(field: &Field, parts: Vec<ArrayRef>, most: usize) -> Result<Self> {
        let size: usize = parts.iter().map(|part| part.get_buffer_memory_size()).sum();
        let parts = match parts.as_slice() {
            [] => vec![new_null_array(field.data_type(), 0)],
            [_] => parts,
            _ if size > most => parts,
            _ => vec![concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?],
        };
        let starts = parts.iter().scan(0, |start, part| Some(std::mem::replace(start, *start + part.len()))).collect();
        Ok(Self { parts, starts })
    }

    /// Offsets and bytes, if the values are texts or bytes in one array.
    fn texts(&self) -> Option<(&[i32], &[u8])> {
        let [all] = self.parts.as_slice() else { return None };
        match all.data_type() {
            DataType::Utf8 => Some((all.as_string::<i32>().value_offsets(), all.as_string::<i32>().value_data())),
            DataType::Binary => Some((all.as_binary::<i32>().value_offsets(), all.as_binary::<i32>().value_data())),
            _ => None,
        }
    }

    /// The values at these places.
    fn gather(&self, places: &UInt32Array) -> Result<ArrayRef> {
        if let [all] = self.parts.as_slice() {
            return Ok(take(all, places, None)?);
        }
        let null = new_null_array(self.parts[0].data_type(), 1);
        let arrays: Vec<&dyn Array> = self.parts.iter().chain([&null]).map(AsRef::as_ref).collect();
        let places: Vec<(usize, usize)> = places
            .iter()
            .map(|place| match place {
                None => (self.parts.len(), 0),
                Some(place) => {
                    let part = self.starts.partition_point(|start| *start <= place as usize) - 1;
                    (part, place as usize - self.starts[part])
                }
            })
            .collect();
        Ok(interleave(&arrays, &places)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{BooleanArray, DictionaryArray, Float32Array, Int32Array, Int64Array, ListArray, StringArray};

    use super::*;

    fn packed(
        fields: &[Field],
        batches: &[(u64, Vec<ArrayRef>)],
        n_rows: usize,
        bounds: Vec<IntegerBounds>,
    ) -> PackedRows {
        let builder = PackedRowsBuilder::new(fields, n_rows, bounds);
        for (first, columns) in batches.iter().rev() {
            builder.put(*first, columns[0].len(), columns).unwrap();
        }
        builder.finish().unwrap().unwrap()
    }

    #[test]
    fn values_of_every_form_come_back_in_the_order_asked_for() {
        let columns = |from: i64, len: i64| -> Vec<ArrayRef> {
            let rows = from..from + len;
            let text = |row: i64| (row % 3 != 0).then(|| format!("text {}", row % 4));
            vec![
                Arc::new(rows.clone().map(|row| (row % 5 != 0).then_some(row)).collect::<Int64Array>()),
                Arc::new(rows.clone().map(|row| row % 2 == 0).map(Some).collect::<BooleanArray>()),
                Arc::new(rows.clone().map(|row| Some(row as f32)).collect::<Float32Array>()),
                // One batch with a dictionary, one without.
                match from {
                    0 => Arc::new(rows.clone().map(text).collect::<StringArray>()),
                    _ => {
                        let texts: Vec<Option<String>> = rows.clone().map(text).collect();
                        let texts = texts.iter().map(Option::as_deref);
                        Arc::new(texts.collect::<DictionaryArray<Int32Type>>())
                    }
                },
                Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>(
                    rows.map(|row| (row != 7).then(|| vec![Some(row), None])),
                )),
            ]
        };
        let whole = columns(0, 11);
        let fields: Vec<Field> = whole.iter().map(|array| Field::new("x", array.data_type().clone(), true)).collect();
        let rows = packed(&fields, &[(0, columns(0, 6)), (6, columns(6, 5))], 11, Vec::new());
        let ranks = [10, NO_RANK, 0, 7, 7, 5, 6, NO_RANK, 3];
        let indices: UInt32Array = ranks.iter().map(|rank| (*rank != NO_RANK).then_some(*rank)).collect();
        for (found, whole) in rows.gather(&ranks).unwrap().iter().zip(&whole) {
            assert_eq!(found.as_ref(), take(whole, &indices, None).unwrap().as_ref());
        }
        assert!(rows.gather(&[]).unwrap().iter().all(|column| column.is_empty()));
    }

    #[test]
    fn more_columns_than_bits_of_a_word_keep_their_nulls() {
        let fields: Vec<Field> = (0..150).map(|_| Field::new("x", DataType::Int64, true)).collect();
        let column = |column: i64| -> ArrayRef {
            Arc::new((0..9).map(|row| ((row + column) % 7 != 0).then_some(row * column)).collect::<Int64Array>())
        };
        let whole: Vec<ArrayRef> = (0..150).map(column).collect();
        let rows = packed(&fields, &[(0, whole.clone())], 9, Vec::new());
        for (found, whole) in rows.gather(&(0..9).collect::<Vec<_>>()).unwrap().iter().zip(&whole) {
            assert_eq!(found, whole);
        }
    }

    #[test]
    fn integers_take_what_their_bounds_need_and_come_back_whole() {
        let nines = |n: i64| -> Vec<ArrayRef> {
            let integers = (0..9).map(|row| (row % 4 != 0).then_some(row * n));
            vec![
                Arc::new(integers.clone().collect::<Int64Array>()),
                Arc::new(integers.map(|value| value.map(|value| -value as i32)).collect::<Int32Array>()),
            ]
        };
        let fields = [DataType::Int64, DataType::Int32].map(|data_type| Field::new("x", data_type, true));
        for (n, stride) in [(1, 8), (31, 8), (8_000, 8), (100_000, 8), (10_000_000, 9), (200_000_000, 9)] {
            let bounds = vec![Some((n, 8 * n)), Some((-8 * n, -n))];
            let rows = packed(&fields, &[(0, nines(n))], 9, bounds);
            assert_eq!(rows.layout.stride, stride, "{n}");
            assert_eq!(rows.gather(&(0..9).collect::<Vec<_>>()).unwrap(), nines(n), "{n}");
        }
        let far = [(i64::MIN, i64::MAX), (-1, i64::MAX), (i64::MAX - 1, i64::MAX)];
        for (form, bounds) in [Form::Number(8), Form::Number(8), Form::Distance { width: 1, wide: 8, least: far[2].0 }]
            .into_iter()
            .zip(far)
        {
            assert_eq!(Form::of(&DataType::Int64, Some(bounds)), form);
        }
    }

    #[test]
    fn integers_outside_of_their_bounds_are_told() {
        for (integers, is_outside) in [([5, 7], false), ([4, 7], true), ([5, 8], true), ([5, i64::MIN], true)] {
            let field = Field::new("x", DataType::Int64, true);
            let builder = PackedRowsBuilder::new(&[field], 2, vec![Some((5, 7))]);
            builder.put(0, 2, &[Arc::new(Int64Array::from(integers.to_vec()))]).unwrap();
            assert_eq!(builder.was_outside(), is_outside);
        }
    }

    #[test]
    fn rows_that_were_not_filled_are_told() {
        let builder = PackedRowsBuilder::new(&[Field::new("x", DataType::Int64, true)], 3, Vec::new());
        builder.put(0, 2, &[Arc::new(Int64Array::from(vec![1, 2]))]).unwrap();
        assert!(builder.finish().unwrap().is_none());
    }

    #[test]
    fn values_too_large_for_one_array_are_found_in_several() {
        let field = Field::new("text", DataType::Utf8, true);
        let parts = || -> Vec<ArrayRef> {
            vec![Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(StringArray::from(vec![Some("c"), None]))]
        };
        let ranks = UInt32Array::from(vec![Some(3), Some(0), None, Some(2), Some(1)]);
        let one = DistinctValues::new(&field, parts(), MOST_TEXT).unwrap();
        let several = DistinctValues::new(&field, parts(), 1).unwrap();
        assert_eq!((one.parts.len(), several.parts.len()), (1, 2));
        assert_eq!(&one.gather(&ranks).unwrap(), &several.gather(&ranks).unwrap());
        let expected = StringArray::from(vec![None, Some("a"), None, Some("c"), Some("b")]);
        assert_eq!(one.gather(&ranks).unwrap().as_ref(), &expected);
    }
}
