//! Flat columns of a row group, page by page: the values of chosen rows are taken from where they lie.
//!
//! Where chosen rows lie close together, the reader of the `parquet` crate decodes all rows and then drops those that
//! nobody wants. Here a chosen row costs a look at the bits that tell which rows have a value, and one at the value; the
//! rows between are not decoded, and pages without chosen rows not even read. That is for numbers, times and texts with
//! a dictionary, in the encodings that nearly all files have (plain, dictionary); all other columns are left to the
//! crate.

use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, DictionaryArray, Int32Array, StringArray, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::{ConvertedType, Encoding, LogicalType, Repetition, TimeUnit as ParquetUnit, Type};
use parquet::column::page::{Page, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::shared_file::SharedFile;

/// A column of a row group, read from its beginning to its end.
pub(super) struct FlatColumn {
    pages: SerializedPageReader<SharedFile>,
    form: Form,
    /// Of the arrays that are made.
    data_type: DataType,
    is_optional: bool,
    dictionary: Option<Dictionary>,
    page: Option<OpenPage>,
    /// The rows of the row group that were passed by, those of the open page included.
    passed: usize,
}

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Four,
    Eight,
    Text,
}

enum Dictionary {
    Numbers(Bytes),
    Texts(ArrayRef),
}

impl Dictionary {
    fn len(&self, form: Form) -> usize {
        match self {
            Self::Numbers(bytes) => bytes.len() / if form == Form::Four { 4 } else { 8 },
            Self::Texts(texts) => texts.len(),
        }
    }
}

/// A page whose values are taken.
struct OpenPage {
    first_row: usize,
    /// Which rows have a value, unless all have one.
    present: Option<Present>,
    values: Values,
}

enum Values {
    Plain(Bytes),
    Indices(Indices),
}

impl FlatColumn {
    /// Opens a column of a row group; `None` for those that are left to the `parquet` crate.
    pub(super) fn open(
        file: &Arc<SharedFile>,
        footer: &ArrowReaderMetadata,
        row_group: usize,
        root: usize,
    ) -> Result<Option<Self>> {
        let row_group_metadata = footer.metadata().row_group(row_group);
        let field = footer.schema().field(root);
        let schema = footer.parquet_schema();
        let leaf = (0..schema.num_columns()).find(|leaf| schema.get_column_root_idx(*leaf) == root);
        let Some(leaf) = leaf.filter(|leaf| schema.column(*leaf).path().parts().len() == 1) else { return Ok(None) };
        let chunk = row_group_metadata.column(leaf);
        let Some(form) = form(chunk, field.data_type()) else { return Ok(None) };
        let data_type = match form {
            Form::Text => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Form::Four | Form::Eight => field.data_type().clone(),
        };
        let locations = footer.metadata().offset_index().and_then(|index| index.get(row_group)?.get(leaf));
        let locations = locations.map(|index| index.page_locations().clone()).filter(|pages| !pages.is_empty());
        let n_rows = row_group_metadata.num_rows() as usize;
        Ok(Some(Self {
            pages: SerializedPageReader::new(Arc::clone(file), chunk, n_rows, locations)?,
            form,
            data_type,
            is_optional: chunk.column_descr().max_def_level() > 0,
            dictionary: None,
            page: None,
            passed: 0,
        }))
    }

    /// The values of rows of the row group, which ascend from call to call.
    pub(super) fn take(&mut self, rows: &[u32]) -> Result<ArrayRef> {
        match self.form {
            Form::Four => self.take_numbers::<u32>(rows),
            Form::Eight => self.take_numbers::<u64>(rows),
            Form::Text => {
                let (keys, nulls) = self.take_with::<u32>(rows, |_, index| Some(index))?;
                let Some(Dictionary::Texts(texts)) = &self.dictionary else {
                    // Without a dictionary there was no value.
                    let texts: ArrayRef = Arc::new(StringArray::new_null(0));
                    let keys = Int32Array::new_null(rows.len());
                    return Ok(Arc::new(DictionaryArray::try_new(keys, texts)?));
                };
                let keys = Int32Array::new(ScalarBuffer::new(Buffer::from_vec(keys), 0, rows.len()), nulls);
                Ok(Arc::new(DictionaryArray::try_new(keys, Arc::clone(texts))?))
            }
        }
    }

    fn take_numbers<N: Number>(&mut self, rows: &[u32]) -> Result<ArrayRef> {
        let (values, nulls) = self.take_with::<N>(rows, N::at)?;
        let data = ArrayData::builder(self.data_type.clone()).len(rows.len()).nulls(nulls);
        Ok(make_array(data.add_buffer(Buffer::from_vec(values)).build()?))
    }

    /// Values of rows, and which of them there are. `look_up` finds the value of an index in the dictionary of numbers.
    fn take_with<N: Number>(
        &mut self,
        rows: &[u32],
        look_up: impl Fn(&[u8], u32) -> Option<N>,
    ) -> Result<(Vec<N>, Option<NullBuffer>)> {
        let mut values: Vec<N> = Vec::with_capacity(rows.len());
        let mut valid: Vec<bool> = Vec::new();
        let mut rest = rows;
        while let Some(first) = rest.first() {
            self.go_to(*first as usize)?;
            let (of_page, others) = rest.split_at(rest.partition_point(|row| (*row as usize) < self.passed));
            rest = others;
            let Some(page) = &mut self.page else { return Err(damaged("a page is missing")) };
            let first_row = page.first_row;
            let places = of_page.iter().map(|row| *row as usize - first_row);
            let numbers: &[u8] = match &self.dictionary {
                Some(Dictionary::Numbers(bytes)) => bytes,
                _ => &[],
            };
            let mut at = |place: usize| match &mut page.values {
                Values::Plain(bytes) => N::at(bytes, place as u32),
                Values::Indices(indices) => look_up(numbers, indices.at(place)?),
            };
            match &page.present {
                None => {
                    for place in places {
                        values.push(at(place).ok_or_else(|| damaged("values are missing"))?);
                    }
                    if !valid.is_empty() {
                        valid.resize(values.len(), true);
                    }
                }
                Some(present) => {
                    valid.resize(values.len(), true);
                    for place in places {
                        let (is_present, rank) = present.rank(place);
                        valid.push(is_present);
                        values.push(match is_present {
                            true => at(rank).ok_or_else(|| damaged("values are missing"))?,
                            false => N::default(),
                        });
                    }
                }
            }
        }
        let nulls =
            (!valid.is_empty()).then(|| NullBuffer::new(BooleanBuffer::collect_bool(valid.len(), |at| valid[at])));
        Ok((values, nulls.filter(|nulls| nulls.null_count() > 0)))
    }

    /// Opens the page that a row is in.
    fn go_to(&mut self, row: usize) -> Result<()> {
        while self.passed <= row {
            let next = self.pages.peek_next_page()?.ok_or_else(|| damaged("rows are missing"))?;
            if !next.is_dict
                && let Some(n_rows) = next.num_rows.or(next.num_levels)
                && self.passed + n_rows <= row
            {
                self.pages.skip_next_page()?;
                self.page = None;
                self.passed += n_rows;
                continue;
            }
            let page = self.pages.get_next_page()?.ok_or_else(|| damaged("rows are missing"))?;
            match page {
                Page::DictionaryPage { buf, num_values, encoding, .. } => {
                    if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) {
                        return Err(damaged("the dictionary has an unknown encoding"));
                    }
                    self.dictionary = Some(match self.form {
                        Form::Text => Dictionary::Texts(Arc::new(texts(&buf, num_values as usize)?)),
                        Form::Four | Form::Eight => Dictionary::Numbers(buf),
                    });
                }
                page => {
                    let n_rows = page.num_values() as usize;
                    self.page = Some(self.open_page(page)?);
                    self.passed += n_rows;
                }
            }
        }
        Ok(())
    }

    fn open_page(&self, page: Page) -> Result<OpenPage> {
        let n_rows = page.num_values() as usize;
        let (bytes, levels, encoding) = match page {
            Page::DataPage { buf, encoding, def_level_encoding, .. } if self.is_optional => {
                let length = buf.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize);
                let end = length.and_then(|length| length.checked_add(4)).filter(|end| *end <= buf.len());
                let (Some(end), Encoding::RLE) = (end, def_level_encoding) else {
                    return Err(damaged("a page has no levels"));
                };
                (buf.slice(end..), Some(buf.slice(4..end)), encoding)
            }
            Page::DataPage { buf, encoding, .. } => (buf, None, encoding),
            Page::DataPageV2 { buf, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let (start, length) = (rep_levels_byte_len as usize, def_levels_byte_len as usize);
                let end = start.checked_add(length).filter(|end| *end <= buf.len());
                let end = end.ok_or_else(|| damaged("a page has no levels"))?;
                (buf.slice(end..), Some(buf.slice(start..end)).filter(|_| self.is_optional), encoding)
            }
            Page::DictionaryPage { .. } => return Err(damaged("a second dictionary")),
        };
        let present = levels.map(|levels| Present::read(&levels, n_rows)).transpose()?.flatten();
        let values = match encoding {
            Encoding::PLAIN if self.form != Form::Text => Values::Plain(bytes),
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => {
                let n_texts = self.dictionary.as_ref().map_or(0, |dictionary| dictionary.len(self.form));
                Values::Indices(Indices::new(bytes, n_texts))
            }
            _ => return Err(damaged("a page has an encoding that its column does not name")),
        };
        Ok(OpenPage { first_row: self.passed, present, values })
    }
}

/// The form of a column that can be read here.
fn form(chunk: &ColumnChunkMetaData, data_type: &DataType) -> Option<Form> {
    let column = chunk.column_descr();
    if column.max_rep_level() > 0 || column.self_type().get_basic_info().repetition() == Repetition::REPEATED {
        return None;
    }
    let is_known = |encoding| match encoding {
        Encoding::PLAIN | Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY | Encoding::RLE => true,
        // Some writers name it for levels that are not there.
        #[expect(deprecated, reason = "files have it")]
        Encoding::BIT_PACKED => column.max_def_level() == 0,
        _ => false,
    };
    if column.max_def_level() > 1 || !chunk.encodings().all(is_known) {
        return None;
    }
    match (chunk.column_type(), data_type) {
        (Type::INT32, DataType::Int32 | DataType::UInt32 | DataType::Date32) | (Type::FLOAT, DataType::Float32) => {
            Some(Form::Four)
        }
        (Type::INT64, DataType::Int64 | DataType::UInt64) | (Type::DOUBLE, DataType::Float64) => Some(Form::Eight),
        (Type::INT64, DataType::Timestamp(unit, _)) => {
            let stored = match (column.logical_type_ref(), column.converted_type()) {
                (Some(LogicalType::Timestamp(stored)), _) => match stored.unit {
                    ParquetUnit::MILLIS => TimeUnit::Millisecond,
                    ParquetUnit::MICROS => TimeUnit::Microsecond,
                    ParquetUnit::NANOS => TimeUnit::Nanosecond,
                },
                (None, ConvertedType::TIMESTAMP_MILLIS) => TimeUnit::Millisecond,
                (None, ConvertedType::TIMESTAMP_MICROS) => TimeUnit::Microsecond,
                _ => return None,
            };
            (stored == *unit).then_some(Form::Eight)
        }
        (Type::BYTE_ARRAY, DataType::Utf8) if has_dictionary(chunk) => Some(Form::Text),
        _ => None,
    }
}

/// Whether all values of a column are in its dictionary: it may fall back to plain ones when it grows too large.
pub(super) fn has_dictionary(chunk: &ColumnChunkMetaData) -> bool {
    chunk.dictionary_page_offset().is_some()
        && chunk
            .page_encoding_stats_mask()
            .is_some_and(|pages| pages.is_only(Encoding::RLE_DICTIONARY) || pages.is_only(Encoding::PLAIN_DICTIONARY))
}

/// The texts of a dictionary.
fn texts(bytes: &Bytes, n_texts: usize) -> Result<StringArray> {
    let mut offsets: Vec<i32> = Vec::with_capacity(n_texts + 1);
    let mut texts: Vec<u8> = Vec::with_capacity(bytes.len());
    offsets.push(0);
    let mut rest: &[u8] = bytes;
    for _ in 0..n_texts {
        let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("texts are missing"))?;
        let (text, behind) = behind
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(|| damaged("a text is longer than its page"))?;
        texts.extend_from_slice(text);
        offsets.push(i32::try_from(texts.len()).map_err(|_| damaged("texts are too long"))?);
        rest = behind;
    }
    Ok(StringArray::try_new(OffsetBuffer::new(offsets.into()), texts.into(), None)?)
}

/// A number as it lies in a page.
trait Number: ArrowNativeType {
    /// The number at a place.
    fn at(bytes: &[u8], place: u32) -> Option<Self>;
}

impl Number for u32 {
    #[inline]
    fn at(bytes: &[u8], place: u32) -> Option<Self> {
        Some(Self::from_le_bytes(*bytes.get(place as usize * 4..)?.first_chunk()?))
    }
}

impl Number for u64 {
    #[inline]
    fn at(bytes: &[u8], place: u32) -> Option<Self> {
        Some(Self::from_le_bytes(*bytes.get(place as usize * 8..)?.first_chunk()?))
    }
}

/// Which rows of a page have a value.
struct Present {
    bytes: Vec<u8>,
    /// How many rows have one before each byte.
    before: Vec<u32>,
}

/// How many bits of a byte are set: the processors that all programs run on have no instruction for it.
const ONES: [u8; 256] = {
    let mut ones = [0; 256];
    let mut byte = 0;
    while byte < ones.len() {
        ones[byte] = (byte as u8).count_ones() as u8;
        byte += 1;
    }
    ones
};

impl Present {
    /// Reads levels; `None` where all rows have a value.
    fn read(levels: &Bytes, n_rows: usize) -> Result<Option<Self>> {
        let mut words = Vec::with_capacity(n_rows / 64 + 2);
        let mut runs = Runs { bytes: levels, at: 0, width: 1 };
        let mut len = 0;
        while len < n_rows {
            let run = runs.next().ok_or_else(|| damaged("levels are missing"))?;
            let n_bits = run.len.min(n_rows - len);
            match run.values {
                RunValues::Same(value) => {
                    if len == 0 && n_bits == n_rows && value == 1 {
                        return Ok(None);
                    }
                    let word = if value == 1 { u64::MAX } else { 0 };
                    for start in (0..n_bits).step_by(64) {
                        push_bits(&mut words, &mut len, word, (n_bits - start).min(64));
                    }
                }
                RunValues::Packed(start) => {
                    let packed = levels.get(start..start + n_bits.div_ceil(8));
                    let packed = packed.ok_or_else(|| damaged("levels are missing"))?;
                    for (index, bytes) in packed.chunks(8).enumerate() {
                        let mut word = [0; 8];
                        word[..bytes.len()].copy_from_slice(bytes);
                        push_bits(&mut words, &mut len, u64::from_le_bytes(word), (n_bits - index * 64).min(64));
                    }
                }
            }
        }
        let bytes = words.into_iter().map(u64::to_le_bytes).collect::<Vec<_>>().into_flattened();
        let mut n_present = 0;
        let before = bytes.iter().map(|byte| {
            let before = n_present;
            n_present += u32::from(ONES[usize::from(*byte)]);
            before
        });
        let before = before.collect();
        Ok((n_present as usize != n_rows).then_some(Self { bytes, before }))
    }

    /// Whether a row has a value, and how many rows before it have one.
    #[inline]
    fn rank(&self, place: usize) -> (bool, usize) {
        let (byte, bit) = (self.bytes[place / 8], 1u8 << (place % 8));
        (byte & bit != 0, self.before[place / 8] as usize + usize::from(ONES[usize::from(byte & (bit - 1))]))
    }
}

/// Appends the lowest bits of a word.
fn push_bits(words: &mut Vec<u64>, len: &mut usize, word: u64, n_bits: usize) {
    let word = if n_bits == 64 { word } else { word & ((1 << n_bits) - 1) };
    let used = *len % 64;
    match words.last_mut().filter(|_| used > 0) {
        None => words.push(word),
        Some(last) => {
            *last |= word << used;
            if used + n_bits > 64 {
                words.push(word >> (64 - used));
            }
        }
    }
    *len += n_bits;
}

/// Runs of values: one value several times, or packed values.
struct Runs<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bits of a value.
    width: usize,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    len: usize,
    values: RunValues,
}

#[derive(Debug, Clone, Copy)]
enum RunValues {
    Same(u32),
    /// From this byte on.
    Packed(usize),
}

impl Runs<'_> {
    fn next(&mut self) -> Option<Run> {
        let (mut header, mut shift) = (0u64, 0);
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            header |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 35 {
                return None;
            }
        }
        let count = (header >> 1) as usize;
        if header & 1 == 1 {
            let values = RunValues::Packed(self.at);
            self.at = self.at.checked_add(count.checked_mul(self.width)?)?;
            return Some(Run { len: count.checked_mul(8)?, values });
        }
        let n_bytes = self.width.div_ceil(8);
        let mut value = [0; 4];
        value.get_mut(..n_bytes)?.copy_from_slice(self.bytes.get(self.at..self.at + n_bytes)?);
        self.at += n_bytes;
        Some(Run { len: count, values: RunValues::Same(u32::from_le_bytes(value)) })
    }
}

/// The places in a dictionary of a page's values, looked at in ascending order.
struct Indices {
    bytes: Bytes,
    width: usize,
    mask: u64,
    /// Where the next run begins.
    at: usize,
    run: Run,
    run_start: usize,
    n_values: usize,
}

impl Indices {
    fn new(bytes: Bytes, n_values: usize) -> Self {
        let width = bytes.first().map_or(0, |width| usize::from(*width).min(32));
        let nothing = Run { len: 0, values: RunValues::Same(0) };
        Self { bytes, width, mask: (1 << width) - 1, at: 1, run: nothing, run_start: 0, n_values }
    }

    /// The place of a value; `None` where there is none.
    #[inline]
    fn at(&mut self, index: usize) -> Option<u32> {
        while index >= self.run_start + self.run.len {
            self.next_run()?;
        }
        let place = match self.run.values {
            RunValues::Same(place) => place,
            RunValues::Packed(start) => {
                let bit = (index - self.run_start) * self.width;
                let rest = self.bytes.get(start + bit / 8..)?;
                let word = match rest.first_chunk::<8>() {
                    Some(word) => u64::from_le_bytes(*word),
                    None if rest.len() * 8 < bit % 8 + self.width => return None,
                    None => {
                        let mut word = [0; 8];
                        word[..rest.len()].copy_from_slice(rest);
                        u64::from_le_bytes(word)
                    }
                };
                ((word >> (bit % 8)) & self.mask) as u32
            }
        };
        ((place as usize) < self.n_values).then_some(place)
    }

    fn next_run(&mut self) -> Option<()> {
        let mut runs = Runs { bytes: &self.bytes, at: self.at, width: self.width };
        self.run_start += self.run.len;
        self.run = runs.next()?;
        self.at = runs.at;
        Some(())
    }
}

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs::File;
    use std::path::Path;

    use arrow::array::{
        Array, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
        TimestampMicrosecondArray, UInt32Array,
    };
    use arrow::compute::{cast, take};
    use arrow::datatypes::Int64Type;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::*;
    use crate::sources::parquet::read_footer;

    /// A column of each type that is read here, with gaps, and values that repeat more or less.
    fn columns(n_rows: usize, gaps: usize, distinct: i64) -> RecordBatch {
        let number = |row: usize| (row as i64).wrapping_mul(7919) % distinct;
        let rows = || (0..n_rows).map(|row| (row % 11 >= gaps).then(|| number(row)));
        let texts = rows().map(|value| value.map(|value| "text".repeat(value as usize % 5) + &value.to_string()));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("int64", Arc::new(rows().collect::<Int64Array>())),
            ("int32", Arc::new(rows().map(|value| value.map(|value| value as i32)).collect::<Int32Array>())),
            ("uint32", Arc::new(rows().map(|value| value.map(|value| value as u32)).collect::<UInt32Array>())),
            ("date", Arc::new(rows().map(|value| value.map(|value| value as i32)).collect::<Date32Array>())),
            ("float", Arc::new(rows().map(|value| value.map(|value| value as f32)).collect::<Float32Array>())),
            ("double", Arc::new(rows().map(|value| value.map(|value| value as f64)).collect::<Float64Array>())),
            ("time", Arc::new(rows().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
            ("text", Arc::new(texts.collect::<StringArray>())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, gaps > 0)))
            .unwrap()
    }

    fn write(path: &Path, batch: &RecordBatch, properties: WriterProperties) {
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }

    fn open(path: &Path, root: usize) -> Option<FlatColumn> {
        let file = Arc::new(SharedFile::open(path).unwrap());
        FlatColumn::open(&file, &read_footer(path).unwrap(), 0, root).unwrap()
    }

    proptest! {
        #[test]
        fn chosen_rows_are_those_of_the_whole_column(
            n_rows in 1..400usize,
            gaps in 0..=11usize,
            distinct in prop_oneof![Just(1), Just(3), Just(100), Just(1_000_000)],
            page_rows in 1..200usize,
            is_second_version in any::<bool>(),
            is_compressed in any::<bool>(),
            has_page_index in any::<bool>(),
            // What is above its limit makes a dictionary fall back to plain values in the middle of a column.
            dictionary in prop_oneof![Just(None), Just(Some(300)), Just(Some(1 << 20))],
            chosen in (0..400usize).prop_flat_map(|n| subsequence((0..400u32).collect::<Vec<_>>(), n)),
            taken_at_once in 1..100usize,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("rows.parquet");
            let batch = columns(n_rows, gaps, distinct);
            let statistics = if has_page_index { EnabledStatistics::Page } else { EnabledStatistics::Chunk };
            let properties = WriterProperties::builder()
                .set_writer_version(if is_second_version { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 })
                .set_encoding(Encoding::PLAIN)
                .set_compression(if is_compressed { Compression::SNAPPY } else { Compression::UNCOMPRESSED })
                .set_data_page_row_count_limit(page_rows)
                .set_write_batch_size(page_rows)
                .set_statistics_enabled(statistics)
                .set_offset_index_disabled(!has_page_index)
                .set_dictionary_enabled(dictionary.is_some())
                .set_dictionary_page_size_limit(dictionary.unwrap_or(1));
            write(&path, &batch, properties.build());
            let chosen: Vec<u32> = chosen.into_iter().filter(|row| (*row as usize) < n_rows).collect();
            for (root, column) in batch.columns().iter().enumerate() {
                let Some(mut flat) = open(&path, root) else {
                    prop_assert!(*column.data_type() == DataType::Utf8, "column {root} is left to the crate");
                    continue;
                };
                for rows in chosen.chunks(taken_at_once) {
                    let found = flat.take(rows).unwrap();
                    let expected = take(column, &UInt32Array::from(rows.to_vec()), None).unwrap();
                    let found = cast(&found, column.data_type()).unwrap();
                    prop_assert_eq!(found.as_ref(), expected.as_ref());
                }
            }
        }
    }

    #[test]
    fn nested_columns_and_other_encodings_are_left_to_the_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None])]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let batch = RecordBatch::try_from_iter([("list", list), ("number", number)]).unwrap();
        let properties = WriterProperties::builder().set_dictionary_enabled(false);
        write(&path, &batch, properties.set_encoding(Encoding::DELTA_BINARY_PACKED).build());
        assert!(open(&path, 0).is_none());
        assert!(open(&path, 1).is_none());
    }

    #[test]
    fn damaged_pages_are_errors() {
        let runs = |bytes: &'static [u8]| Present::read(&Bytes::from_static(bytes), 100);
        for bytes in [&[][..], &[0x80], &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], &[0, 0, 0], &[27], &[8, 1]] {
            assert!(runs(bytes).is_err(), "{bytes:?}");
        }
        for (bytes, index) in
            [(&[][..], 0), (&[3, 3], 0), (&[3, 2, 9], 0), (&[3, 2, 1], 1), (&[33, 2, 1, 1, 1, 1, 1], 0)]
        {
            assert_eq!(Indices::new(Bytes::from_static(bytes), 5).at(index), None, "{bytes:?}");
        }
        let mut places = Indices::new(Bytes::from_static(&[3, 2, 4, 3, 0b1000_1000, 0b0100_0110, 0b0000_1000]), 5);
        assert_eq!((0..9).map(|index| places.at(index)).collect::<Vec<_>>(), [4, 0, 1, 2, 3, 4, 0, 2, 0].map(Some));
        assert!(texts(&Bytes::from_static(&[2, 0, 0, 0, b'a']), 1).is_err());
        assert!(texts(&Bytes::from_static(&[1, 0, 0, 0, 0xFF]), 1).is_err());
    }
}
