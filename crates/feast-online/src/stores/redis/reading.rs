//! From the hashes of entities to the rows of the views that share them.
//!
//! Redis keeps a hash of up to some hundred fields as a list. `HMGET` goes through that list for each field it is asked
//! for: for the 250 features of 25 views that is thirteen times the work of `HGETALL`, which goes through it once. So
//! where a request wants at least half of the fields of a hash, it takes all of them. How many there are is learned from
//! replies: those of `HGETALL` tell, and beside `HMGET` one hash is asked.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{NullBufferBuilder, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use feast_core::{EntityKeys, Error, OnlineRead, OnlineRows, Result, WantedColumns, timestamp_type};
use feast_proto::value_codec::ColumnDecoder;
use hashbrown::HashMap;

use super::layout::{feature_fields, read_time, time_field};
use super::protocol::{Element, Malformed, Pipeline, Reply, put_argument};
use crate::write::plain_schema;

/// Requests for fewer fields ask for them one by one, whatever the hash holds.
const FEW_FIELDS: usize = 8;

/// How wide the hashes of a project with certain join keys are.
#[derive(Debug, Default)]
pub(super) struct Widths {
    hasher: RandomState,
    known: Mutex<HashMap<u64, usize>>,
}

impl Widths {
    fn key(&self, group: &ReadGroup<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        group.project.hash(&mut hasher);
        group.keys.columns.schema_ref().fields().iter().for_each(|field| field.name().hash(&mut hasher));
        // Two that are taken for one are read correctly all the same.
        hasher.finish()
    }

    /// The most fields, where it is known.
    pub(super) fn get(&self, group: &ReadGroup<'_>) -> Option<usize> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&self.key(group)).copied()
    }

    /// Remembers what a request saw.
    pub(super) fn learn(&self, group: &ReadGroup<'_>) {
        if group.widest > 0 {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(self.key(group), group.widest);
        }
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
    way: Way,
    /// Where fields are among the wanted ones, for hashes that are read as a whole.
    index: Index,
    /// Keys whose replies were decoded.
    decoded: usize,
    /// The most fields that a hash had, as far as was seen.
    widest: usize,
}

/// How hashes are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The wanted fields.
    Fields,
    /// The wanted fields, and once the number of all.
    FieldsAndWidth,
    /// All fields.
    Whole,
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
}

impl ViewFields {
    fn of(read: &OnlineRead<'_>) -> Self {
        let table = &read.wanted.table;
        let columns = read.wanted.fields();
        let mut name_of = feature_fields(&table.view);
        let features: Vec<[u8; 4]> = columns.clone().map(|column| name_of(&column.name)).collect();
        let time = time_field(&table.view);
        let mut arguments = Vec::new();
        features.iter().for_each(|name| put_argument(&mut arguments, name));
        put_argument(&mut arguments, &time);
        Self { features, time, arguments, schema: plain_schema(columns) }
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
    pub(super) fn new(position: usize, read: &OnlineRead<'a>) -> Result<Self> {
        let mut group = Self {
            project: &read.wanted.table.project,
            keys: read.keys,
            views: Vec::new(),
            n_fields: 0,
            way: Way::Fields,
            index: Index::default(),
            decoded: 0,
            widest: 0,
        };
        group.add(position, read)?;
        Ok(group)
    }

    pub(super) fn shares_hashes_with(&self, read: &OnlineRead<'_>) -> bool {
        self.project == read.wanted.table.project
            && (std::ptr::eq(self.keys, read.keys) || self.keys.encoded == read.keys.encoded)
    }

    pub(super) fn add(&mut self, position: usize, read: &OnlineRead<'a>) -> Result<()> {
        let fields: Arc<ViewFields> = read.wanted.memo.get(|| Ok::<_, Error>(ViewFields::of(read)))?;
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

    /// Decides how to read, given how wide the hashes are as a rule.
    pub(super) fn choose_way(&mut self, widths: &Widths) {
        if self.n_fields < FEW_FIELDS {
            return;
        }
        self.way = match widths.get(self) {
            Some(width) if width <= 2 * self.n_fields => Way::Whole,
            _ => Way::FieldsAndWidth,
        };
        if self.way == Way::Whole {
            self.index = Index::of(&self.views);
        }
    }

    /// Appends the commands for up to so many more keys, and gives how many commands there are.
    pub(super) fn ask(&self, pipeline: &mut Pipeline, most: usize) -> usize {
        let before = pipeline.len();
        let end = self.keys.len().min(self.decoded + most);
        let arguments = match self.way {
            Way::Whole => 0,
            _ => self.views.iter().map(|view| view.fields.arguments.len()).sum(),
        };
        let mut key = Vec::new();
        for position in self.decoded..end {
            key.clear();
            key.extend_from_slice(self.keys.encoded.value(position));
            key.extend_from_slice(self.project.as_bytes());
            if position == self.decoded {
                // All keys are about as long as each other.
                pipeline.reserve(end - position + 1, (end - position) * (key.len() + arguments + 32));
            }
            if self.way == Way::FieldsAndWidth && position == 0 {
                pipeline.begin(2);
                pipeline.argument(b"HLEN");
                pipeline.argument(&key);
                pipeline.end(Some(&key));
            }
            if self.way == Way::Whole {
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
    pub(super) fn decode<'r>(&mut self, replies: impl Iterator<Item = Result<Reply<'r>>>) -> Result<(), Trouble> {
        // The cells of a hash that is read as a whole; its fields come in any order.
        let mut cells: Vec<Option<&[u8]>> = Vec::new();
        for reply in replies {
            let mut reply = reply.map_err(Trouble::Wrong)?;
            match reply.next()? {
                Element::Integer(width) => {
                    self.widest = self.widest.max(usize::try_from(width).unwrap_or(0));
                    continue;
                }
                Element::Array(length) if self.way == Way::Whole => {
                    self.widest = self.widest.max(length / 2);
                    cells.clear();
                    cells.resize(self.n_fields, None);
                    for at in 0..length / 2 {
                        let name = reply.text()?.ok_or(Malformed)?;
                        let cell = reply.text()?;
                        if let Some(position) = self.index.position(at, name, &self.views) {
                            cells[position] = cell;
                        }
                    }
                    self.index.twins.iter().for_each(|(twin, position)| cells[*twin] = cells[*position]);
                    let mut cells = cells.iter();
                    let mut next = || Ok(cells.next().copied().flatten());
                    self.views.iter_mut().try_for_each(|view| view.push(&mut next))?;
                }
                Element::Array(_) => {
                    let mut next = || reply.text();
                    self.views.iter_mut().try_for_each(|view| view.push(&mut next))?;
                }
                _ => return Err(Trouble::Malformed),
            }
            self.decoded += 1;
        }
        Ok(())
    }

    pub(super) fn is_done(&self) -> bool {
        self.decoded == self.keys.len()
    }

    /// The rows of each read, with its position in the request.
    pub(super) fn finish(self) -> Result<Vec<(usize, OnlineRows)>> {
        self.views.into_iter().map(|view| Ok((view.position, view.finish()?))).collect()
    }
}

/// Where fields are among the wanted ones.
#[derive(Default)]
struct Index {
    features: HashMap<[u8; 4], usize>,
    /// Wanted fields that have the same name as one before.
    twins: Vec<(usize, usize)>,
    /// The fields of the last hash in their order: as a rule the next hash has the same.
    order: Vec<Seen>,
}

/// A field of a hash.
struct Seen {
    name: Vec<u8>,
    /// Where it is among the wanted ones, if anybody wants it.
    position: Option<usize>,
}

impl Index {
    fn of(views: &[ViewRead<'_>]) -> Self {
        let mut index = Self::default();
        let mut start = 0;
        for (number, view) in views.iter().enumerate() {
            for (at, name) in view.fields.features.iter().enumerate() {
                let first = *index.features.entry(*name).or_insert(start + at);
                if first != start + at {
                    index.twins.push((start + at, first));
                }
            }
            start += view.fields.len();
            if let Some(first) = time_position(&views[..number], &view.fields.time) {
                index.twins.push((start - 1, first));
            }
        }
        index
    }

    /// The position of the field that is `at` that place in its hash.
    fn position(&mut self, at: usize, name: &[u8], views: &[ViewRead<'_>]) -> Option<usize> {
        if let Some(seen) = self.order.get(at).filter(|seen| seen.name == name) {
            return seen.position;
        }
        let position = match <[u8; 4]>::try_from(name) {
            Ok(name) => self.features.get(&name).copied(),
            Err(_) => time_position(views, name),
        };
        let seen = Seen { name: name.to_vec(), position };
        match self.order.get_mut(at) {
            Some(other) => *other = seen,
            None => self.order.push(seen),
        }
        position
    }
}

/// The position of the field of an event time, of which each view has one, behind its features.
fn time_position(views: &[ViewRead<'_>], name: &[u8]) -> Option<usize> {
    let mut end = 0;
    views.iter().find_map(|view| {
        end += view.fields.len();
        (view.fields.time == name).then_some(end - 1)
    })
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
