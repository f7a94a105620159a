//! From the hashes of entities to the rows of the views that share them.
//!
//! Redis keeps a hash of up to some hundred fields as a list. `HMGET` goes through that list for each field it is asked
//! for: for the 250 features of 25 views that is thirteen times the work of `HGETALL`, which goes through it once. So
//! where a request wants at least half of the fields of a hash, it takes all of them. How many there are is learned from
//! replies: those of `HGETALL` tell, and beside `HMGET` one hash is asked.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use arrow::array::TimestampMicrosecondBuilder;
use feast_core::{EntityKeys, Error, OnlineRead, OnlineRows, Result};
use feast_proto::value_codec::ColumnDecoder;
use hashbrown::HashMap;

use super::layout::{feature_fields, read_time, time_field};
use super::protocol::{Element, Malformed, Pipeline, Reply, put_argument};
use crate::write::record_batch;

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
        let names = group.keys.columns.schema_ref().fields().iter().map(|field| field.name().as_str());
        // Two that are taken for one are read correctly all the same.
        self.hasher.hash_one((group.project, names.collect::<Vec<_>>()))
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
pub(super) struct ReadGroup<'a> {
    project: &'a str,
    keys: &'a EntityKeys,
    views: Vec<ViewRead<'a>>,
    /// The wanted fields, each once.
    fields: Vec<FieldName>,
    /// Where the fields of features are among them.
    positions: HashMap<[u8; 4], usize>,
    /// The fields of the last hash in their order: as a rule the next hash has the same.
    order: Vec<Seen>,
    way: Way,
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

/// The name of a field.
enum FieldName {
    Feature([u8; 4]),
    Time(Vec<u8>),
}

impl FieldName {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Feature(name) => name,
            Self::Time(name) => name,
        }
    }
}

/// A field of a hash.
struct Seen {
    name: Vec<u8>,
    /// Where it is among the wanted ones, if anybody wants it.
    position: Option<usize>,
}

/// One read, and what of it was decoded.
struct ViewRead<'a> {
    position: usize,
    read: OnlineRead<'a>,
    /// Positions in the fields of the group.
    fields: Vec<usize>,
    time_field: usize,
    columns: Vec<ColumnDecoder>,
    times: TimestampMicrosecondBuilder,
}

impl<'a> ReadGroup<'a> {
    pub(super) fn new(position: usize, read: &OnlineRead<'a>) -> Self {
        let mut group = Self {
            project: &read.table.project,
            keys: read.keys,
            views: Vec::new(),
            fields: Vec::new(),
            positions: HashMap::new(),
            order: Vec::new(),
            way: Way::Fields,
            decoded: 0,
            widest: 0,
        };
        group.add(position, read);
        group
    }

    pub(super) fn shares_hashes_with(&self, read: &OnlineRead<'_>) -> bool {
        self.project == read.table.project
            && (std::ptr::eq(self.keys, read.keys) || self.keys.encoded == read.keys.encoded)
    }

    pub(super) fn add(&mut self, position: usize, read: &OnlineRead<'a>) {
        let (table, n_keys) = (read.table, self.keys.len());
        let columns = read.columns.iter().map(|column| &table.columns[*column]);
        self.fields.reserve(read.columns.len() + 1);
        self.positions.reserve(read.columns.len());
        let mut name_of = feature_fields(&table.view);
        let fields = columns.clone().map(|column| self.feature(name_of(&column.name))).collect();
        let view = ViewRead {
            position,
            read: *read,
            fields,
            time_field: self.time(time_field(&table.view)),
            columns: columns.map(|column| ColumnDecoder::new(column.value_type, n_keys)).collect(),
            times: TimestampMicrosecondBuilder::with_capacity(n_keys).with_timezone("UTC"),
        };
        self.views.push(view);
    }

    /// The position of the field of a feature.
    fn feature(&mut self, name: [u8; 4]) -> usize {
        let next = self.fields.len();
        let position = *self.positions.entry(name).or_insert(next);
        if position == next {
            self.fields.push(FieldName::Feature(name));
        }
        position
    }

    /// The position of the field of a time, of which there is one per view.
    fn time(&mut self, name: Vec<u8>) -> usize {
        self.position(&name).unwrap_or_else(|| {
            self.fields.push(FieldName::Time(name));
            self.fields.len() - 1
        })
    }

    /// The position of a wanted field.
    fn position(&self, name: &[u8]) -> Option<usize> {
        match <[u8; 4]>::try_from(name) {
            Ok(name) => self.positions.get(&name).copied(),
            Err(_) => {
                let mut times = self.views.iter().map(|view| view.time_field);
                times.find(|position| self.fields[*position].bytes() == name)
            }
        }
    }

    /// Decides how to read, given how wide the hashes are.
    pub(super) fn choose_way(&mut self, width: Option<usize>) {
        let wanted = self.fields.len();
        self.way = match width {
            _ if wanted < FEW_FIELDS => Way::Fields,
            Some(width) if width <= 2 * wanted => Way::Whole,
            _ => Way::FieldsAndWidth,
        };
    }

    /// Appends the commands for up to so many more keys, and gives how many commands there are.
    pub(super) fn ask(&self, pipeline: &mut Pipeline, most: usize) -> usize {
        let before = pipeline.len();
        let end = self.keys.len().min(self.decoded + most);
        let mut fields = Vec::new();
        self.fields.iter().for_each(|field| put_argument(&mut fields, field.bytes()));
        let mut key = Vec::new();
        for position in self.decoded..end {
            key.clear();
            key.extend_from_slice(self.keys.encoded.value(position));
            key.extend_from_slice(self.project.as_bytes());
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
                pipeline.begin(2 + self.fields.len());
                pipeline.argument(b"HMGET");
                pipeline.argument(&key);
                pipeline.arguments(&fields);
            }
            pipeline.end(Some(&key));
        }
        pipeline.len() - before
    }

    /// Takes the next reply.
    pub(super) fn decode(&mut self, mut reply: Reply<'_>) -> Result<(), Trouble> {
        let mut cells: Vec<Option<&[u8]>> = Vec::with_capacity(self.fields.len());
        match reply.next()? {
            Element::Integer(width) => {
                self.widest = self.widest.max(usize::try_from(width).unwrap_or(0));
                return Ok(());
            }
            Element::Array(length) if self.way == Way::Whole => {
                cells.resize(self.fields.len(), None);
                let n_fields = length / 2;
                self.widest = self.widest.max(n_fields);
                for at in 0..n_fields {
                    let name = reply.text()?.ok_or(Malformed)?;
                    let cell = reply.text()?;
                    let position = match self.order.get(at) {
                        Some(seen) if seen.name == name => seen.position,
                        _ => self.look_up(at, name),
                    };
                    if let Some(position) = position {
                        cells[position] = cell;
                    }
                }
            }
            Element::Array(_) => {
                for _ in 0..self.fields.len() {
                    cells.push(reply.text()?);
                }
            }
            _ => return Err(Trouble::Malformed),
        }
        self.views.iter_mut().try_for_each(|view| view.push(&cells))?;
        self.decoded += 1;
        Ok(())
    }

    /// Where a field is among the wanted ones; remembered for the next hash.
    fn look_up(&mut self, at: usize, name: &[u8]) -> Option<usize> {
        let position = self.position(name);
        match self.order.get_mut(at) {
            Some(seen) => {
                seen.name.clear();
                seen.name.extend_from_slice(name);
                seen.position = position;
            }
            None => self.order.push(Seen { name: name.to_vec(), position }),
        }
        position
    }

    pub(super) fn is_done(&self) -> bool {
        self.decoded == self.keys.len()
    }

    /// The rows of each read, with its position in the request.
    pub(super) fn finish(self) -> Result<Vec<(usize, OnlineRows)>> {
        let n_keys = self.keys.len();
        self.views.into_iter().map(|view| Ok((view.position, view.finish(n_keys)?))).collect()
    }
}

impl ViewRead<'_> {
    /// Adds one row.
    fn push(&mut self, cells: &[Option<&[u8]>]) -> Result<(), Trouble> {
        let table = self.read.table;
        let mut is_there = false;
        for ((decoder, field), column) in self.columns.iter_mut().zip(&self.fields).zip(self.read.columns) {
            let Some(cell) = cells[*field] else {
                decoder.push_null();
                continue;
            };
            is_there = true;
            decoder.push(cell).map_err(|error| {
                let error = error.with_context("feature", &table.columns[*column].name);
                Trouble::Wrong(error.with_context("feature view", &table.view))
            })?;
        }
        match cells[self.time_field] {
            // Values without a time: nobody knows since when.
            None => self.times.append_option(is_there.then_some(0)),
            Some(bytes) => match read_time(bytes) {
                Some(micros) => self.times.append_value(micros),
                None => {
                    let error = Error::unavailable("an event time in the online store is no timestamp")
                        .with_context("feature view", &table.view)
                        .with_hint("another program writes to the same keys: give the store a database of its own");
                    return Err(Trouble::Wrong(error));
                }
            },
        }
        Ok(())
    }

    fn finish(mut self, n_keys: usize) -> Result<OnlineRows> {
        let table = self.read.table;
        let wanted = self.read.columns.iter().map(|column| &table.columns[*column]);
        let values = self.columns.into_iter().map(ColumnDecoder::finish).collect();
        Ok(OnlineRows { values: record_batch(wanted, values, n_keys)?, event_timestamps: self.times.finish() })
    }
}
