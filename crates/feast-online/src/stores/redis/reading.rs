//! From the hashes of entities to the rows of the views that share them.
//!
//! Redis keeps a hash of up to some hundred fields as a list. `HMGET` goes through that list for each field it is asked
//! for, as far as the field; `HGETALL` goes through it once, and its reply is longer. So hashes are read whole where that
//! costs less in all: see [`Shape::whole_costs_less`]. How many fields hashes have, and whether they are lists, the
//! server is asked beside one request of many; where in them the wanted fields are is seen in replies to `HGETALL`.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{NullBufferBuilder, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use feast_core::{EntityKeys, Error, OnlineRead, OnlineRows, Result, WantedColumns, timestamp_type};
use feast_proto::value_codec::ColumnDecoder;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use super::layout::{feature_fields, read_time, time_field};
use super::protocol::{Element, Malformed, Pairs, Pipeline, Reply, put_argument};
use crate::write::plain_schema;

/// Requests for fewer fields ask for them one by one, whatever the hash holds.
const FEW_FIELDS: usize = 8;

/// No hash of more fields is read whole: not on purpose, and not by mistake, see [`Pipeline::expect`].
const WIDEST: usize = 2048;

/// Fields of whole hashes that are read together; more are several pipelines.
const FIELDS_PER_PIPELINE: usize = 1 << 18;

/// The server is asked about the shape of hashes beside one request of so many.
const REQUESTS_PER_QUESTION: u32 = 256;

/// As often, in questions, it is looked anew where in their hashes the fields are.
const QUESTIONS_PER_LOOK: u32 = 16;

/// What is known of the hashes of a project with certain join keys. All of it is a guess from a few of them: reads are
/// right whatever it says.
#[derive(Debug, Default)]
struct Shape {
    /// The most fields; 0 as long as nobody knows.
    width: AtomicUsize,
    kept_as: AtomicU8,
    /// Requests that wondered how to read.
    requests: AtomicU32,
}

/// How a server keeps a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeptAs {
    /// Nobody knows yet.
    Unknown = 0,
    List = 1,
    Table = 2,
    /// The server does not tell.
    Secret = 3,
}

impl Shape {
    fn kept_as(&self) -> KeptAs {
        match self.kept_as.load(Relaxed) {
            1 => KeptAs::List,
            2 => KeptAs::Table,
            3 => KeptAs::Secret,
            _ => KeptAs::Unknown,
        }
    }

    /// Whether `HGETALL` costs less than `HMGET` of that many fields, which goes through so many places of a list.
    ///
    /// Nanoseconds of Redis 7.0 (`bench/online/hashes.py` measures them), and 30 per field of a whole hash for its bytes
    /// on the network and here.
    fn whole_costs_less(&self, n_fields: usize, places: Option<usize>) -> bool {
        let width = self.width.load(Relaxed);
        if n_fields < FEW_FIELDS || !(1..=WIDEST).contains(&width) {
            return false;
        }
        match self.kept_as() {
            KeptAs::List => {
                let places = places.unwrap_or(n_fields * width / 2);
                width * (90 + 30) < n_fields * 110 + places * 8
            }
            KeptAs::Table => width * (125 + 30) < n_fields * 180,
            KeptAs::Unknown | KeptAs::Secret => width <= 2 * n_fields,
        }
    }
}

/// Project and join keys: what the hashes of a kind have in common.
type KindOfHash = (String, Vec<String>);

/// What is known of all hashes.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    known: Mutex<HashMap<KindOfHash, Arc<Shape>>>,
}

impl Shapes {
    fn of(&self, read: &OnlineRead<'_>) -> Arc<Shape> {
        let join_keys = read.keys.columns.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry((read.wanted.table.project.clone(), join_keys)).or_default())
    }
}

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
    /// Keys whose replies were decoded.
    decoded: usize,
}

/// What Redis calls the wanted columns of a view, which is the same for every request with the same plan.
struct ViewFields {
    /// Names of the fields of the columns.
    features: Vec<[u8; 4]>,
    /// Name of the field of the event time.
    time: Vec<u8>,
    /// All of these names as arguments of a command.
    arguments: Vec<u8>,
    schema: SchemaRef,
    shape: Arc<Shape>,
    /// Where in whole hashes the features and the event time were seen last.
    places: Vec<AtomicU32>,
    /// Through how many places of a list `HMGET` goes to find them; 0 as long as nobody knows.
    distance: AtomicUsize,
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
        let (shape, distance) = (shapes.of(read), AtomicUsize::new(0));
        Self { features, time, arguments, schema: plain_schema(columns), shape, places, distance }
    }

    /// How many fields there are.
    fn len(&self) -> usize {
        self.features.len() + 1
    }
}

/// One read, and what of it was decoded.
struct ViewRead<'a> {
    position: usize,
    wanted: &'a WantedColumns,
    fields: Arc<ViewFields>,
    columns: Vec<ColumnDecoder>,
    /// Event times in microseconds.
    times: Vec<i64>,
    is_there: NullBufferBuilder,
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
            decoded: 0,
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
        let n_keys = self.keys.len();
        self.n_fields += fields.len();
        self.views.push(ViewRead {
            position,
            wanted: read.wanted,
            columns: read.wanted.fields().map(|field| ColumnDecoder::new(field.value_type, n_keys)).collect(),
            fields,
            times: Vec::with_capacity(n_keys),
            is_there: NullBufferBuilder::new(n_keys),
        });
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
        let end = self.keys.len().min(self.decoded + most);
        let arguments = match self.whole {
            true => 0,
            false => self.views.iter().map(|view| view.fields.arguments.len()).sum(),
        };
        pipeline.expect(if self.whole { 2 * WIDEST } else { self.n_fields });
        if self.whole {
            pipeline.expect_pairs((end - self.decoded) * width);
        }
        let mut key = Vec::new();
        for position in self.decoded..end {
            key.clear();
            key.extend_from_slice(self.keys.encoded.value(position));
            key.extend_from_slice(self.project.as_bytes());
            if position == self.decoded {
                // All keys are about as long as each other.
                pipeline.reserve(end - position + 2, (end - position) * (key.len() + arguments + 32));
            }
            if self.asks_shape && position == 0 {
                pipeline.begin(2);
                pipeline.argument(b"HLEN");
                pipeline.argument(&key);
                pipeline.end(Some(&key));
                pipeline.begin(3);
                pipeline.argument(b"OBJECT");
                pipeline.argument(b"ENCODING");
                pipeline.argument(&key);
                pipeline.end(Some(&key));
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
        pipeline.len() - before
    }

    /// Takes the next replies.
    pub(super) fn decode<'r>(&mut self, mut replies: impl Iterator<Item = Result<Reply<'r>>>) -> Result<(), Trouble> {
        if self.asks_shape && self.decoded == 0 {
            // An account that may not ask reads all the same.
            self.learn_shape(replies.next().and_then(Result::ok), replies.next().and_then(Result::ok));
            self.asks_shape = false;
        }
        let mut hash = WholeHash::default();
        let mut cells: Vec<Option<&[u8]>> = Vec::new();
        let mut widest = 0;
        for reply in replies {
            let mut reply = reply.map_err(Trouble::Wrong)?;
            let Element::Array(length) = reply.next()? else { return Err(Trouble::Malformed) };
            if self.whole {
                if length % 2 != 0 {
                    return Err(Trouble::Malformed);
                }
                widest = widest.max(length / 2);
                hash.read(&mut reply, length / 2)?;
                cells.clear();
                self.places.find(&self.views, &mut hash, &mut cells);
                let mut cells = cells.iter();
                let mut next = || Ok(cells.next().copied().flatten());
                self.views.iter_mut().try_for_each(|view| view.push(&mut next))?;
            } else {
                let mut next = || reply.text();
                self.views.iter_mut().try_for_each(|view| view.push(&mut next))?;
            }
            self.decoded += 1;
        }
        if widest > 0 {
            self.shape.width.fetch_max(widest, Relaxed);
            self.places.remember(&self.views, widest);
        }
        Ok(())
    }

    fn learn_shape(&self, width: Option<Reply<'_>>, kept_as: Option<Reply<'_>>) {
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
        self.decoded == self.keys.len()
    }

    /// The rows of each read, with its position in the request.
    pub(super) fn finish(self) -> Result<Vec<(usize, OnlineRows)>> {
        self.views.into_iter().map(|view| Ok((view.position, view.finish()?))).collect()
    }
}

fn view_fields(read: &OnlineRead<'_>, shapes: &Shapes) -> Result<Arc<ViewFields>> {
    read.wanted.memo.get(|| Ok::<_, Error>(ViewFields::of(read, shapes)))
}

/// The place of a field that is in no hash.
const NOWHERE: u32 = u32::MAX;

/// Where in their hashes the wanted fields are, view by view. As a rule all hashes have the same order.
#[derive(Default)]
struct Places {
    places: Vec<u32>,
    /// Whether some were elsewhere than was thought.
    moved: bool,
}

impl Places {
    fn of(views: &[ViewRead<'_>]) -> Self {
        let places = views.iter().flat_map(|view| &view.fields.places);
        Self { places: places.map(|place| place.load(Relaxed)).collect(), moved: false }
    }

    /// The cells of the wanted fields in their order.
    fn find<'r>(&mut self, views: &[ViewRead<'_>], hash: &mut WholeHash<'r>, cells: &mut Vec<Option<&'r [u8]>>) {
        if hash.pairs.len() == 0 {
            cells.resize(self.places.len(), None);
            return;
        }
        cells.reserve(self.places.len());
        let mut places = self.places.iter_mut();
        let mut find = |name: &[u8]| {
            if let Some(place) = places.next() {
                cells.push(hash.find(name, place, &mut self.moved));
            }
        };
        for view in views {
            view.fields.features.iter().for_each(|name| find(name));
            find(&view.fields.time);
        }
    }

    /// Lets the next requests know.
    fn remember(&self, views: &[ViewRead<'_>], width: usize) {
        let mut rest = self.places.as_slice();
        for fields in views.iter().map(|view| &view.fields) {
            let (places, others) = rest.split_at(fields.len());
            rest = others;
            if !self.moved && fields.distance.load(Relaxed) > 0 {
                continue;
            }
            fields.places.iter().zip(places).for_each(|(known, place)| known.store(*place, Relaxed));
            let distances = places.iter().map(|place| width.min((*place as usize).saturating_add(1)));
            fields.distance.store(distances.sum(), Relaxed);
        }
    }
}

/// The fields of one hash in their order.
#[derive(Default)]
struct WholeHash<'r> {
    pairs: Pairs<'r>,
    /// Where the field was that was found last.
    last: u32,
    /// The places of all fields, once one is elsewhere than was thought.
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<'r> WholeHash<'r> {
    fn read(&mut self, reply: &mut Reply<'r>, width: usize) -> Result<(), Malformed> {
        self.by_name.clear();
        reply.pairs(width, &mut self.pairs)
    }

    /// The cell of a field, whose place is corrected.
    #[inline]
    fn find(&mut self, name: &[u8], place: &mut u32, moved: &mut bool) -> Option<&'r [u8]> {
        if let Some(cell) = self.pairs.value(*place, name) {
            self.last = *place;
            return Some(cell);
        }
        self.search(name, place, moved)
    }

    #[cold]
    fn search(&mut self, name: &[u8], place: &mut u32, moved: &mut bool) -> Option<&'r [u8]> {
        // The fields of a view were written together.
        let next = self.last + 1;
        let found = if self.pairs.name(next) == Some(name) { Some(next) } else { self.look_up(name) };
        let known = std::mem::replace(place, found.unwrap_or(NOWHERE));
        *moved |= known != *place;
        let found = found?;
        self.last = found;
        self.pairs.value(found, name)
    }

    fn look_up(&mut self, name: &[u8]) -> Option<u32> {
        let (pairs, hasher) = (&self.pairs, &self.hasher);
        if self.by_name.is_empty() {
            for place in 0..u32::try_from(pairs.len()).ok()? {
                let rehash = |place: &u32| hasher.hash_one(pairs.name(*place));
                self.by_name.insert_unique(hasher.hash_one(pairs.name(place)), place, rehash);
            }
        }
        self.by_name.find(hasher.hash_one(Some(name)), |place| pairs.name(*place) == Some(name)).copied()
    }
}

impl ViewRead<'_> {
    /// Adds one row: the cells of the features, then that of the event time.
    fn push<'r>(&mut self, next: &mut impl FnMut() -> Result<Option<&'r [u8]>, Malformed>) -> Result<(), Trouble> {
        let wanted = self.wanted;
        let mut is_there = false;
        for (at, decoder) in self.columns.iter_mut().enumerate() {
            let Some(cell) = next()? else {
                decoder.push_null();
                continue;
            };
            is_there = true;
            decoder.push(cell).map_err(|error| {
                let error = error.with_context("feature", &wanted.table.columns[wanted.positions[at]].name);
                Trouble::Wrong(error.with_context("feature view", &wanted.table.view))
            })?;
        }
        let micros = match next()? {
            // Values without a time: nobody knows since when.
            None => 0,
            Some(bytes) => {
                is_there = true;
                read_time(bytes).ok_or_else(|| {
                    let error = Error::unavailable("an event time in the online store is no timestamp")
                        .with_context("feature view", &wanted.table.view)
                        .with_hint("another program writes to the same keys: give the store a database of its own");
                    Trouble::Wrong(error)
                })?
            }
        };
        self.times.push(micros);
        self.is_there.append(is_there);
        Ok(())
    }

    fn finish(mut self) -> Result<OnlineRows> {
        let table = &self.wanted.table;
        let n_keys = self.times.len();
        let columns = self.columns.into_iter().zip(self.wanted.fields()).map(|(decoder, field)| {
            let wrong = |error: Error| error.with_context("feature", &field.name);
            decoder.finish().map_err(|error| wrong(error).with_context("feature view", &table.view))
        });
        let options = RecordBatchOptions::new().with_row_count(Some(n_keys));
        let schema = Arc::clone(&self.fields.schema);
        let values = RecordBatch::try_new_with_options(schema, columns.collect::<Result<_>>()?, &options)?;
        let times = TimestampMicrosecondArray::new(self.times.into(), self.is_there.finish());
        Ok(OnlineRows { values, event_timestamps: times.with_data_type(timestamp_type()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use feast_core::{EntityKeyEncoder, Field, OnlineTable, ValueType};
    use feast_proto::value_codec::encode_column;
    use proptest::prelude::*;

    use super::super::layout::{feature_field, put_time};
    use super::super::protocol::{Answer, KeptPairs, Scanner};
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
    fn answer(replies: &[Vec<u8>], keeps_pairs: bool) -> Answer {
        let (bytes, mut scanner) = (replies.concat(), Scanner::default());
        let (mut ends, mut pairs) = (Vec::new(), KeptPairs::default());
        while let Some(end) = scanner.next(&bytes, usize::MAX, keeps_pairs.then_some(&mut pairs.starts)).unwrap() {
            ends.push(end);
            if keeps_pairs {
                pairs.ends.push(pairs.starts.len());
            }
        }
        Answer { bytes: bytes.into(), ends, pairs }
    }

    fn read(
        wanted: &[WantedColumns],
        keys: &EntityKeys,
        hashes: &[Hash],
        shapes: &Shapes,
        whole: bool,
        keeps_pairs: bool,
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
        let answer = answer(&replies, keeps_pairs);
        let decoded = group.decode((0..replies.len()).map(|number| Ok(answer.reply(number))));
        assert!(decoded.is_ok());
        group.finish().unwrap()
    }

    proptest! {
        /// Also when what was learned of some hashes does not hold for others.
        #[test]
        fn both_ways_give_the_same_rows(
            wanted in prop::collection::vec((0..4usize, prop::collection::vec(0..4usize, 0..6)), 1..5),
            kinds in prop::collection::vec(hash(), 1..4),
            requests in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..6), 1..4),
            keeps_pairs in any::<bool>(),
        ) {
            let wanted: Vec<WantedColumns> =
                wanted.into_iter().map(|(view, positions)| table(view).wanted(positions)).collect();
            let shapes = Shapes::default();
            for request in requests {
                let hashes: Vec<Hash> = request.iter().map(|kind| kind.get(&kinds).clone()).collect();
                let keys = keys(hashes.len());
                let one_by_one = read(&wanted, &keys, &hashes, &shapes, false, false);
                let whole = read(&wanted, &keys, &hashes, &shapes, true, keeps_pairs);
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
