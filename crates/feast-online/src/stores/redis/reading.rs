//! From the hashes of entities to the rows of the views that share them.
//!
//! They are read field by field or whole, as [`shapes`](super::shapes) says. How many fields hashes have, and whether they
//! are lists, the server is asked beside one request of many; where in them the wanted fields are is seen in replies to
//! `HGETALL`, see [`places`](super::places).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use arrow::array::{NullBufferBuilder, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use feast_core::{
    CellPlace, EntityKeys, Error, OnlineRead, OnlineRows, Result, StoredCells, StoredRows, WantedColumns,
    timestamp_type,
};
use feast_proto::value_codec::ColumnDecoder;

use super::commands::{Pipeline, put_argument};
use super::layout::{feature_fields, read_time, time_field};
use super::places::{NOWHERE, Order, Places, WholeHash};
use super::reply::{Element, Reply};
use super::scanner::Malformed;
use super::shapes::{FEW_FIELDS, KeptAs, Shape, Shapes, WIDEST};
use crate::write::plain_schema;

/// Reads of so many values wait until it is known how to read them.
const MANY_VALUES: usize = 10_000;

/// Fields of whole hashes that are read together; more are several pipelines.
const FIELDS_PER_PIPELINE: usize = 1 << 18;

/// The server is asked about the shape of hashes beside one request of so many.
const REQUESTS_PER_QUESTION: u32 = 256;

/// As often, in questions, it is looked anew where in their hashes the fields are.
const QUESTIONS_PER_LOOK: u32 = 16;

/// What is wrong with a reply.
pub(super) enum Trouble {
    Malformed,
    Wrong(Error),
}

impl From<Malformed> for Trouble {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Reads of views that share hashes: the same keys in the same project.
///
/// The fields are those of the first view, then those of the second… A field that two views want is asked for twice.
pub(super) struct ReadGroup<'a> {
    project: &'a str,
    keys: &'a EntityKeys,
    views: Vec<ViewRead<'a>>,
    n_fields: usize,
    shape: Arc<Shape>,
    /// Whether hashes are read whole.
    whole: bool,
    /// Whether the server is asked about the shape of the first one, and did not answer yet.
    asks_shape: bool,
    /// Where in whole hashes the wanted fields are, as a rule.
    places: Places,
    /// Keys whose replies were read.
    n_read: usize,
    cells: Cells,
}

/// Where the cells of the fields are, key by key.
#[derive(Default)]
pub(super) struct Cells {
    parts: Vec<Bytes>,
    /// Cells that are in none of the parts: those of keys of which one was not where it should be.
    pub(super) others: Vec<u8>,
    part_of_key: Vec<u32>,
    pub(super) places: Vec<CellPlace>,
}

/// The number of the part that other cells are in, as long as nobody knows it.
const OTHERS: u32 = u32::MAX;

/// What Redis calls the wanted columns of a view, which is the same for every request with the same plan.
pub(super) struct ViewFields {
    /// Names of the fields of the columns.
    pub(super) features: Vec<[u8; 4]>,
    /// Name of the field of the event time.
    pub(super) time: Vec<u8>,
    /// All of these names as arguments of a command.
    arguments: Vec<u8>,
    schema: SchemaRef,
    shape: Arc<Shape>,
    /// Where in whole hashes the features and the event time were seen last.
    pub(super) places: Vec<AtomicU32>,
    /// Through how many places of a list `HMGET` goes to find them; 0 as long as nobody knows.
    pub(super) distance: AtomicUsize,
    /// The last order of the fields of this view and of others with it.
    pub(super) order: ArcSwapOption<Order>,
}

impl ViewFields {
    fn of(read: &OnlineRead<'_>, shapes: &Shapes) -> Self {
        let table = &read.wanted.table;
        let columns = read.wanted.fields();
        let mut name_of = feature_fields(&table.view);
        let features: Vec<[u8; 4]> = columns.clone().map(|column| name_of(&column.name)).collect();
        let time = time_field(&table.view);
        let mut arguments = Vec::new();
        features.iter().for_each(|name| put_argument(&mut arguments, name));
        put_argument(&mut arguments, &time);
        let places = (0..=features.len()).map(|_| AtomicU32::new(NOWHERE)).collect();
        let (shape, distance, order) = (shapes.of(read), AtomicUsize::new(0), ArcSwapOption::empty());
        Self { features, time, arguments, schema: plain_schema(columns), shape, places, distance, order }
    }

    /// How many fields there are.
    pub(super) fn len(&self) -> usize {
        self.features.len() + 1
    }
}

/// One read.
pub(super) struct ViewRead<'a> {
    position: usize,
    wanted: &'a WantedColumns,
    pub(super) fields: Arc<ViewFields>,
}

impl<'a> ReadGroup<'a> {
    pub(super) fn new(position: usize, read: &OnlineRead<'a>, shapes: &Shapes) -> Result<Self> {
        let fields = view_fields(read, shapes)?;
        let mut group = Self {
            project: &read.wanted.table.project,
            keys: read.keys,
            views: Vec::new(),
            n_fields: 0,
            shape: Arc::clone(&fields.shape),
            whole: false,
            asks_shape: false,
            places: Places::default(),
            n_read: 0,
            cells: Cells::default(),
        };
        group.add(position, read, shapes)?;
        Ok(group)
    }

    pub(super) fn shares_hashes_with(&self, read: &OnlineRead<'_>) -> bool {
        self.project == read.wanted.table.project
            && (std::ptr::eq(self.keys, read.keys) || self.keys.encoded == read.keys.encoded)
    }

    pub(super) fn add(&mut self, position: usize, read: &OnlineRead<'a>, shapes: &Shapes) -> Result<()> {
        let fields = view_fields(read, shapes)?;
        self.n_fields += fields.len();
        self.views.push(ViewRead { position, wanted: read.wanted, fields });
        Ok(())
    }

    /// Decides how to read.
    pub(super) fn choose_way(&mut self) {
        if self.n_fields < FEW_FIELDS {
            return;
        }
        let number = self.shape.requests.fetch_add(1, Relaxed);
        let is_due = self.shape.width.load(Relaxed) == 0 || number.is_multiple_of(REQUESTS_PER_QUESTION);
        self.asks_shape = is_due && self.shape.kept_as() != KeptAs::Secret;
        let looks_anew = number.is_multiple_of(REQUESTS_PER_QUESTION * QUESTIONS_PER_LOOK);
        let distances = self.views.iter().map(|view| match view.fields.distance.load(Relaxed) {
            0 => None,
            distance => Some(distance),
        });
        let distance = distances.sum::<Option<usize>>().filter(|_| !looks_anew);
        self.whole = self.shape.whole_costs_less(self.n_fields, distance);
        if self.whole {
            self.places = Places::of(&self.views);
        }
    }

    /// Whether so much is read that it is worth a round trip to know how: many requests at the same time that all read in
    /// the wrong way would keep the server busy for seconds.
    pub(super) fn has_to_know_shape(&self) -> bool {
        self.asks_shape && self.shape.width.load(Relaxed) == 0 && self.n_fields * self.keys.len() >= MANY_VALUES
    }

    /// Asks for the shape of the first hash, and nothing else.
    pub(super) fn ask_shape(&self, pipeline: &mut Pipeline) {
        put_question(pipeline, &[self.keys.encoded.value(0), self.project.as_bytes()].concat());
    }

    /// Whether it takes more fields than it wants.
    pub(super) fn reads_whole(&self) -> bool {
        self.whole
    }

    /// Reads field by field what was to be read whole: a hash has more fields than anybody expected.
    pub(super) fn fear_width(&mut self) {
        if self.whole {
            self.whole = false;
            self.shape.width.fetch_max(WIDEST + 1, Relaxed);
        }
    }

    /// Appends the commands for up to so many more keys, and gives how many commands there are.
    pub(super) fn ask(&self, pipeline: &mut Pipeline, most: usize) -> usize {
        let before = pipeline.len();
        let width = self.shape.width.load(Relaxed).max(1);
        let most = if self.whole { most.min(FIELDS_PER_PIPELINE.div_ceil(width)) } else { most };
        let end = self.keys.len().min(self.n_read + most);
        let arguments = match self.whole {
            true => 0,
            false => self.views.iter().map(|view| view.fields.arguments.len()).sum(),
        };
        pipeline.expect(if self.whole { 2 * WIDEST } else { self.n_fields });
        let mut key = Vec::new();
        for position in self.n_read..end {
            key.clear();
            key.extend_from_slice(self.keys.encoded.value(position));
            key.extend_from_slice(self.project.as_bytes());
            if position == self.n_read {
                // All keys are about as long as each other.
                pipeline.reserve(end - position + 2, (end - position) * (key.len() + arguments + 32));
            }
            if self.asks_shape && position == 0 {
                put_question(pipeline, &key);
            }
            if self.whole {
                pipeline.begin(2);
                pipeline.argument(b"HGETALL");
                pipeline.argument(&key);
            } else {
                pipeline.begin(2 + self.n_fields);
                pipeline.argument(b"HMGET");
                pipeline.argument(&key);
                self.views.iter().for_each(|view| pipeline.arguments(&view.fields.arguments));
            }
            pipeline.end(Some(&key));
        }
        if self.whole {
            pipeline.expect_pairs((end - self.n_read) * width, self.places.wanted());
        }
        pipeline.len() - before
    }

    /// Takes the next replies, each with the number of the part in which it is, or of whole hashes, what was kept of it.
    pub(super) fn read<'r>(
        &mut self,
        parts: impl Iterator<Item = &'r Bytes>,
        mut replies: impl Iterator<Item = Result<(usize, Reply<'r>)>>,
    ) -> Result<(), Trouble> {
        if self.asks_shape && self.n_read == 0 {
            // An account that may not ask reads all the same.
            let mut next = || replies.next().and_then(Result::ok).map(|(_, reply)| reply);
            self.learn_shape(next(), next());
            self.asks_shape = false;
        }
        let Self { views, cells, places, .. } = self;
        let first_part = cells.parts.len();
        cells.parts.extend(parts.cloned());
        cells.places.reserve((self.keys.len() - self.n_read) * self.n_fields);
        let mut hash = WholeHash::default();
        let mut widest = 0;
        for reply in replies {
            let (part, mut reply) = reply.map_err(Trouble::Wrong)?;
            let Element::Array(length) = reply.next()? else { return Err(Trouble::Malformed) };
            let mut part = (first_part + part) as u32;
            if self.whole {
                if length % 2 != 0 {
                    return Err(Trouble::Malformed);
                }
                widest = widest.max(length / 2);
                if !places.take_kept(&reply, &mut cells.places) {
                    hash.begin(reply, length / 2);
                    places.find(views, &mut hash, cells)?;
                    part = OTHERS;
                }
            } else {
                for _ in 0..self.n_fields {
                    cells.places.push(reply.place()?);
                }
            }
            cells.part_of_key.push(part);
            self.n_read += 1;
        }
        if widest > 0 {
            self.shape.width.fetch_max(widest, Relaxed);
            self.places.remember(&self.views, widest);
        }
        Ok(())
    }

    /// Takes the replies to the question about the shape.
    pub(super) fn learn_shape(&self, width: Option<Reply<'_>>, kept_as: Option<Reply<'_>>) {
        match width.map(|mut reply| reply.next()) {
            // An entity that is not there tells nothing.
            Some(Ok(Element::Integer(0))) => return,
            Some(Ok(Element::Integer(width))) => {
                self.shape.width.fetch_max(usize::try_from(width).unwrap_or(usize::MAX), Relaxed);
            }
            _ => {}
        }
        let kept_as = match kept_as.map(|mut reply| reply.text()) {
            Some(Ok(Some(b"listpack" | b"ziplist" | b"listpackex"))) => KeptAs::List,
            Some(Ok(Some(_))) => KeptAs::Table,
            _ => KeptAs::Secret,
        };
        self.shape.kept_as.store(kept_as as u8, Relaxed);
    }

    pub(super) fn is_done(&self) -> bool {
        self.n_read == self.keys.len()
    }

    /// The rows of each read, with its position in the request.
    pub(super) fn finish(self) -> Result<Vec<(usize, StoredRows)>> {
        let n_keys = self.n_read;
        let Cells { mut parts, others, mut part_of_key, places } = self.cells;
        if part_of_key.contains(&OTHERS) {
            let number = parts.len() as u32;
            part_of_key.iter_mut().filter(|part| **part == OTHERS).for_each(|part| *part = number);
            parts.push(others.into());
        }
        if part_of_key.iter().all(|part| *part == 0) {
            part_of_key.clear();
        }
        let cells = Arc::new(StoredCells::new(parts, part_of_key, places, self.n_fields));
        // A hash goes first: its cells lie beside each other, while those of a view are far apart.
        let mut times: Vec<Times<'_>> = self.views.iter().map(|_| Times::new(n_keys)).collect();
        for key in 0..n_keys {
            let mut first_column = 0;
            for (view, times) in self.views.iter().zip(&mut times) {
                times.push(view, &cells, key, first_column)?;
                first_column += view.fields.len();
            }
        }
        let times: Vec<TimestampMicrosecondArray> = times.into_iter().map(Times::finish).collect();
        let mut first_column = 0;
        let rows = self.views.iter().zip(times).map(|(view, event_timestamps)| {
            let n_columns = view.fields.features.len();
            let rows = StoredRows { cells: Arc::clone(&cells), first_column, n_columns, event_timestamps };
            first_column += view.fields.len();
            (view.position, rows)
        });
        Ok(rows.collect())
    }
}

/// Appends the question about the shape of a hash.
fn put_question(pipeline: &mut Pipeline, key: &[u8]) {
    pipeline.begin(2);
    pipeline.argument(b"HLEN");
    pipeline.argument(key);
    pipeline.end(Some(key));
    pipeline.begin(3);
    pipeline.argument(b"OBJECT");
    pipeline.argument(b"ENCODING");
    pipeline.argument(key);
    pipeline.end(Some(key));
}

fn view_fields(read: &OnlineRead<'_>, shapes: &Shapes) -> Result<Arc<ViewFields>> {
    read.wanted.memo.get(|| Ok::<_, Error>(ViewFields::of(read, shapes)))
}

/// The event times of the rows of a view.
struct Times<'c> {
    micros: Vec<i64>,
    is_there: NullBufferBuilder,
    /// Rows that were written together have the same time, as a rule.
    before: (&'c [u8], i64),
}

impl<'c> Times<'c> {
    fn new(n_keys: usize) -> Self {
        Self { micros: Vec::with_capacity(n_keys), is_there: NullBufferBuilder::new(n_keys), before: (&[], 0) }
    }

    /// Takes that of the next key; the columns of the view begin at one of those of the cells.
    fn push(&mut self, view: &ViewRead<'_>, cells: &'c StoredCells, key: usize, first_column: usize) -> Result<()> {
        let n_features = view.fields.features.len();
        let time = cells.get(key, first_column + n_features);
        let micros = match time {
            // Values without a time: nobody knows since when.
            None => 0,
            Some(bytes) if bytes == self.before.0 => self.before.1,
            Some(bytes) => read_time(bytes).ok_or_else(|| {
                Error::unavailable("an event time in the online store is no timestamp")
                    .with_context("feature view", &view.wanted.table.view)
                    .with_hint("another program writes to the same keys: give the store a database of its own")
            })?,
        };
        if let Some(bytes) = time {
            self.before = (bytes, micros);
        }
        self.micros.push(micros);
        self.is_there
            .append(time.is_some() || (0..n_features).any(|feature| cells.get(key, first_column + feature).is_some()));
        Ok(())
    }

    fn finish(mut self) -> TimestampMicrosecondArray {
        let times = TimestampMicrosecondArray::new(self.micros.into(), self.is_there.finish());
        times.with_data_type(timestamp_type())
    }
}

/// Rows as columns of the declared types.
pub(super) fn decoded(read: &OnlineRead<'_>, rows: StoredRows, shapes: &Shapes) -> Result<OnlineRows> {
    let table = &read.wanted.table;
    let columns = read.wanted.fields().enumerate().map(|(column, field)| {
        let mut decoder = ColumnDecoder::new(field.value_type, rows.len());
        let pushed = (0..rows.len()).try_for_each(|row| match rows.cell(row, column) {
            None => {
                decoder.push_null();
                Ok(())
            }
            Some(cell) => decoder.push(cell),
        });
        pushed
            .and_then(|()| decoder.finish())
            .map_err(|error| error.with_context("feature", &field.name).with_context("feature view", &table.view))
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let schema = Arc::clone(&view_fields(read, shapes)?.schema);
    let values = RecordBatch::try_new_with_options(schema, columns.collect::<Result<_>>()?, &options)?;
    Ok(OnlineRows { values, event_timestamps: rows.event_timestamps })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use feast_core::{EntityKeyEncoder, Field, OnlineTable, ValueType};
    use feast_proto::value_codec::encode_column;
    use proptest::prelude::*;

    use super::super::commands::WantedPair;
    use super::super::layout::{feature_field, put_time};
    use super::super::reply::Answer;
    use super::super::scanner::{Keeping, Scanner};
    use super::*;

    /// Fields of a hash in their order.
    type Hash = Vec<(Vec<u8>, Vec<u8>)>;

    fn table(view: usize) -> OnlineTable {
        let types = [ValueType::Int64, ValueType::String, ValueType::Int64, ValueType::String];
        OnlineTable {
            project: "p".to_owned(),
            view: format!("view_{view}"),
            join_keys: vec![Field::new("id", ValueType::Int64)],
            columns: types.iter().enumerate().map(|(at, kind)| Field::new(format!("f{at}"), *kind)).collect(),
            tags: feast_core::Tags::new(),
        }
    }

    fn keys(n: usize) -> EntityKeys {
        let ids = Arc::new((0..n as i64).collect::<Int64Array>()) as ArrayRef;
        let encoder = EntityKeyEncoder::new(&[Field::new("id", ValueType::Int64)], 3).unwrap();
        encoder.encode(RecordBatch::try_from_iter([("id", ids)]).unwrap()).unwrap()
    }

    /// One field: of a view, or of nobody.
    fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let number = |view: usize, at: usize, value: i64| {
            let cell = encode_column(&(Arc::new(Int64Array::from(vec![value])) as ArrayRef), ValueType::Int64).unwrap();
            (feature_field(&format!("view_{view}"), &format!("f{}", 2 * at)).to_vec(), cell.value(0).to_vec())
        };
        let text = |view: usize, at: usize, length: usize| {
            let text = Arc::new(StringArray::from(vec!["x".repeat(length)])) as ArrayRef;
            let cell = encode_column(&text, ValueType::String).unwrap();
            (feature_field(&format!("view_{view}"), &format!("f{}", 2 * at + 1)).to_vec(), cell.value(0).to_vec())
        };
        let time = |view: usize, micros: i64| {
            let mut cell = Vec::new();
            put_time(&mut cell, micros);
            (time_field(&format!("view_{view}")), cell)
        };
        let null =
            |view: usize, at: usize| (feature_field(&format!("view_{view}"), &format!("f{at}")).to_vec(), vec![]);
        prop_oneof![
            4 => (0..5usize, 0..2usize, any::<i64>()).prop_map(move |(view, at, value)| number(view, at, value)),
            4 => (0..5usize, 0..2usize, 0..200usize).prop_map(move |(view, at, length)| text(view, at, length)),
            3 => (0..5usize, 0..4_000_000_000_000i64).prop_map(move |(view, micros)| time(view, micros)),
            1 => (0..5usize, 0..4usize).prop_map(move |(view, at)| null(view, at)),
            1 => (prop::collection::vec(any::<u8>(), 0..120), prop::collection::vec(any::<u8>(), 0..120)),
        ]
    }

    fn hash() -> impl Strategy<Value = Hash> {
        prop::collection::vec(field(), 0..40).prop_map(|fields| {
            let mut hash = Hash::new();
            for (name, cell) in fields {
                if !hash.iter().any(|(known, _)| *known == name) {
                    hash.push((name, cell));
                }
            }
            hash
        })
    }

    /// Replies as a connection finds them.
    fn answer(replies: &[Vec<u8>], wanted: Option<&[WantedPair]>) -> Answer {
        let (bytes, mut scanner) = (replies.concat(), Scanner::default());
        let (mut ends, mut kept) = (Vec::new(), Keeping::default());
        loop {
            let keeping = wanted.map(|wanted| (wanted, &mut kept));
            let Some(end) = scanner.next(&bytes, usize::MAX, keeping).unwrap() else { break };
            ends.push(end);
        }
        Answer { kept: kept.into(), ..Answer::of(bytes.into(), ends) }
    }

    fn read(
        wanted: &[WantedColumns],
        keys: &EntityKeys,
        hashes: &[Hash],
        shapes: &Shapes,
        whole: bool,
        keeps_pairs: bool,
        (n_parts, at_once): (usize, bool),
    ) -> Vec<(usize, OnlineRows)> {
        let reads = || wanted.iter().enumerate().map(|(at, wanted)| (at, OnlineRead { wanted, keys }));
        let mut group = ReadGroup::new(0, &reads().next().unwrap().1, shapes).unwrap();
        reads().skip(1).for_each(|(at, read)| group.add(at, &read, shapes).unwrap());
        group.whole = whole;
        group.places = Places::of(&group.views);
        let reply = |hash: &Hash| {
            let mut reply = Vec::new();
            if whole {
                reply.extend_from_slice(format!("*{}\r\n", 2 * hash.len()).as_bytes());
                hash.iter().for_each(|(name, cell)| {
                    put_argument(&mut reply, name);
                    put_argument(&mut reply, cell);
                });
                return reply;
            }
            reply.extend_from_slice(format!("*{}\r\n", group.n_fields).as_bytes());
            for fields in group.views.iter().map(|view| &view.fields) {
                for name in fields.features.iter().map(<[u8; 4]>::as_slice).chain([fields.time.as_slice()]) {
                    match hash.iter().find(|(known, _)| known == name) {
                        Some((_, cell)) => put_argument(&mut reply, cell),
                        None => reply.extend_from_slice(b"$-1\r\n"),
                    }
                }
            }
            reply
        };
        let replies: Vec<Vec<u8>> = hashes.iter().map(reply).collect();
        // In as many answers as a cluster may give.
        let (first, second) = replies.split_at(replies.len() / n_parts);
        let places = keeps_pairs.then(|| group.places.wanted());
        let answers = [first, second].map(|replies| answer(replies, places.as_deref()));
        let part = |answer: &'_ Answer| if whole { answer.kept.bytes.clone() } else { answer.parts[0].bytes.clone() };
        let parts = answers.each_ref().map(part);
        let reply = |part: usize, at: usize| Ok((part, answers[part].reply(at)));
        if at_once {
            let replies = (0..first.len()).map(|at| reply(0, at)).chain((0..second.len()).map(|at| reply(1, at)));
            assert!(group.read(parts.iter(), replies).is_ok());
        } else {
            assert!(group.read([&parts[0]].into_iter(), (0..first.len()).map(|at| reply(0, at))).is_ok());
            let second = (0..second.len()).map(|at| reply(1, at).map(|(_, reply)| (0, reply)));
            assert!(group.read([&parts[1]].into_iter(), second).is_ok());
        }
        let rows = group.finish().unwrap().into_iter();
        let read = |at: usize| OnlineRead { wanted: &wanted[at], keys };
        rows.map(|(at, rows)| (at, decoded(&read(at), rows, shapes).unwrap())).collect()
    }

    proptest! {
        /// Also when what was learned of some hashes does not hold for others.
        #[test]
        fn both_ways_give_the_same_rows(
            wanted in prop::collection::vec((0..4usize, prop::collection::vec(0..4usize, 0..6)), 1..5),
            kinds in prop::collection::vec(hash(), 1..4),
            requests in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..6), 1..4),
            keeps_pairs in any::<bool>(),
            n_parts in 1..4usize,
            at_once in any::<bool>(),
        ) {
            let wanted: Vec<WantedColumns> =
                wanted.into_iter().map(|(view, positions)| table(view).wanted(positions)).collect();
            let shapes = Shapes::default();
            for request in requests {
                let hashes: Vec<Hash> = request.iter().map(|kind| kind.get(&kinds).clone()).collect();
                let keys = keys(hashes.len());
                let one_by_one = read(&wanted, &keys, &hashes, &shapes, false, false, (1, at_once));
                let whole = read(&wanted, &keys, &hashes, &shapes, true, keeps_pairs, (n_parts, at_once));
                prop_assert_eq!(one_by_one.len(), whole.len());
                for ((at, rows), (whole_at, whole)) in one_by_one.iter().zip(&whole) {
                    prop_assert_eq!((at, &rows.values), (whole_at, &whole.values));
                    prop_assert_eq!(&rows.event_timestamps, &whole.event_timestamps);
                }
            }
        }
    }

    #[test]
    fn the_way_that_costs_less_is_taken() {
        let whole = |width: usize, kept_as: KeptAs, n_fields: usize, places: Option<usize>| {
            let shape = Shape { width: width.into(), kept_as: (kept_as as u8).into(), requests: 0.into() };
            shape.whole_costs_less(n_fields, places)
        };
        let list = |width, n_fields| whole(width, KeptAs::List, n_fields, None);
        assert!(!list(0, 55), "nothing is known of the hashes");
        assert!(!list(55, 11) && !list(275, 11) && !list(512, 22), "few of the fields");
        assert!(list(55, 33) && list(275, 55) && list(275, 275) && list(512, 55), "going through lists costs most");
        assert!(!list(WIDEST + 1, WIDEST), "too much at once");
        assert!(!whole(275, KeptAs::List, 55, Some(1540)), "the fields lie in front");
        assert!(whole(275, KeptAs::List, 55, Some(13_640)), "the fields lie behind");
        assert!(!whole(275, KeptAs::Table, 110, None), "fields of tables are found at once");
        assert!(whole(275, KeptAs::Table, 275, None), "nothing is left over");
        assert!(!whole(275, KeptAs::Secret, 110, None) && whole(275, KeptAs::Secret, 140, None));
    }
}
